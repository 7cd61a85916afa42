"""Losses of the codec's trainers."""
