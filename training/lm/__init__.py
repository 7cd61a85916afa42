"""Trainers of the text model and of the language model's four stages."""
