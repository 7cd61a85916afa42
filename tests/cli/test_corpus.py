"""`uniaudio corpus`: what it says of clips without a file, and of names that would move the terminal."""

import pytest

from cli.corpus import show
from tests.auditory_sentences.corpora.test_read import write_table


def test_show_counts_clips_without_a_file(tmp_path, capsys):
    (tmp_path / "a.wav").write_bytes(b"")
    write_table(tmp_path / "t.csv", [{"file": "a.wav", "text": "one"}, {"file": "gone.wav", "text": "two"}])
    (tmp_path / "c.yaml").write_text("kind: table\npath: t.csv\n")
    with pytest.warns(UserWarning, match=r"c.yaml: 1 of 2 clips have no audio file, .*gone.wav the first"):
        show([tmp_path / "c.yaml"])
    assert capsys.readouterr().out == f"{tmp_path / 'c.yaml'}\tspeech\ttrain\t2\n"


def test_show_prints_no_control_characters(tmp_path, capsys):
    folder = tmp_path / "a\x1b[31mb"
    folder.mkdir()
    (folder / "clips.jsonl").write_text('{"id": "a", "path": "clips.jsonl", "kind": "sound", "split": "dev"}\n')
    show([folder])
    assert "\\x1b[31mb\tsound\tdev\t1" in capsys.readouterr().out
