"""Builders of sentences: tasks, the five constructions, few-shot episodes, analyses."""
