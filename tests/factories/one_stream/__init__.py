"""Tokenizers of one stream, small enough for tests."""
