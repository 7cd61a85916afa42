"""The metrics log: what is written, and what a resumed run finds."""

from __future__ import annotations

import json

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.metrics import MetricLogger, read_metrics


def write(run, steps, start=0):
    metric_logger = MetricLogger(run, "tiny", 9, start)
    for step in steps:
        metric_logger.count(rows=step)
        metric_logger.write(step, {"loss": 1.0 / step})
    metric_logger.close()


def test_lines_events_and_console(tmp_path, capsys):
    write(tmp_path, [1, 2])
    entries = read_metrics(tmp_path)
    assert [entry["step"] for entry in entries] == [1, 2]
    assert entries[1]["loss"] == 0.5 and entries[1]["rows_per_second"] > 0
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("loss")] == [1.0, 0.5]
    assert "tiny 2/9  loss 0.5" in capsys.readouterr().out  # plain lines: this is no terminal


def test_a_resumed_journal_tells_one_story(tmp_path):
    write(tmp_path, [1, 2, 3])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # killed in the middle of a line
    write(tmp_path, [3, 4], start=2)
    assert [entry["step"] for entry in read_metrics(tmp_path)] == [1, 2, 3, 4]
    assert all(json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())


def test_text_in_brackets_is_printed_as_it_is(tmp_path, capsys):
    metric_logger = MetricLogger(tmp_path, "tiny", 1)
    metric_logger.info("[bold]examples: a[0]")
    metric_logger.close()
    assert "[bold]examples: a[0]" in capsys.readouterr().out


def test_former_names_are_read_as_the_present_ones(tmp_path):
    (tmp_path / "journal.jsonl").write_text('{"step": 1, "held_out_wer": 0.5}\n{"step": 2, "validation_loss": 1.0}\n')
    assert read_metrics(tmp_path) == [{"step": 1, "val/wer": 0.5}, {"step": 2, "val/loss": 1.0}]
    write(tmp_path, [3], start=2)
    assert [entry["step"] for entry in read_metrics(tmp_path)] == [1, 2, 3]
    assert not (tmp_path / "journal.jsonl").exists()
