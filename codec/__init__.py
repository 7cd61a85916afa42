"""Tokenizers: waveform <-> audio tokens."""
