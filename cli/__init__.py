"""The `uniaudio` command."""
