"""Codecs under test: ours, and rivals that an evaluation sets beside them."""
