"""Evaluation: tasks as data, metrics, judges, report."""
