"""Corpora: clips and what is known about them, read from folders, tables and datasets."""
