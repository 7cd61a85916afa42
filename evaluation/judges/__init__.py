"""Judges of generated waveforms; they share nothing with the model that generated them."""
