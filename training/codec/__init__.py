"""Trainers of the codec, one visible loop each."""
