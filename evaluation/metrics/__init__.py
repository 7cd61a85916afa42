"""Metrics, their standard errors and what they measure with."""
