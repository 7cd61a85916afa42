"""Auditory sentences: corpora, token store, builders, mixing, packing."""
