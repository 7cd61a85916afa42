"""`uniaudio evaluate`: the door to the suite, whose options are its own (evaluation/config.py)."""

from __future__ import annotations

import typer

# All that is written goes to the suite as it stands, `--help` too.
AS_WRITTEN = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def evaluate(context: typer.Context) -> None:
    """Run evaluation suites: scores beside chance and the untrained model, and a report."""
    from evaluation.run_suite import evaluate as evaluate_suites

    evaluate_suites(context.args, "uniaudio evaluate")
