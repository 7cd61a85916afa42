"""Layers that several tokenizers share."""
