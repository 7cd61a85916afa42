"""Judges: who says what a generated waveform is; they share nothing with the model that made it."""
