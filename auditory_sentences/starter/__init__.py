"""The starter corpus: speech, sounds and music that the project synthesises itself, with exact labels."""
