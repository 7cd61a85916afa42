"""Tables: what is theirs alone; test_read.py has what they share with other corpora."""

import csv
import hashlib
from pathlib import Path

from auditory_sentences.corpora.read import read_corpus


def test_a_share_of_the_files_is_held_out_by_their_names(tmp_path):
    names = [f"{i}.wav" for i in range(200)]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    with open(tmp_path / "table.csv", "w", newline="") as file:
        csv.writer(file).writerows([["file"], *([name] for name in names)])
    spec = {"kind": "table", "path": str(tmp_path / "table.csv"), "dev_share": 1 / 16}
    split = {Path(clip.path).name: clip.split for clip in read_corpus(spec)}
    zero = {name for name in names if hashlib.sha1(name.encode()).hexdigest().startswith("0")}
    assert {name for name, found in split.items() if found == "dev"} == zero and 5 < len(zero) < 25
    assert {clip.split for clip in read_corpus(spec | {"dev_share": 0.0})} == {"train"}
