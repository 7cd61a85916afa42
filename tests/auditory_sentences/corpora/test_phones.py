"""Phone times from the synthesiser's file and from item files."""

import pytest

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.corpora.phones import Phone, phones_line, phones_of, read_phones
from codec.io.errors import UserError

ITEMS = """#file onset offset #phone prev-phone next-phone speaker
84-121123-0000 0.330 0.390 AH SIL N 84
84-121123-0000 0.260 0.330 N AH D 84
"""


def clip(path, name="a"):
    return Clip(name, str(path), "speech", "test")


def test_what_is_written_is_read(tmp_path):
    phones = (Phone(0.05, 0.1, "θ"), Phone(0.1, 0.25, "iː"))
    (tmp_path / "phones.jsonl").write_text(phones_line("a", phones) + "\n", encoding="utf-8")
    assert read_phones(tmp_path / "phones.jsonl") == {"a": phones}
    clips = [clip(tmp_path / "audio" / "1.flac"), clip(tmp_path / "2.flac", "corpus/a"), clip(tmp_path / "3.flac", "b")]
    assert phones_of(clips[:1]) == {"a": phones} and phones_of(clips[1:]) == {"corpus/a": phones}


def test_an_item_file_is_found_by_the_name_of_the_recording(tmp_path):
    (tmp_path / "dev-clean.item").write_text(ITEMS)
    found = phones_of([clip(tmp_path / "84-121123-0000.flac", "x")])
    assert found == {"x": (Phone(0.26, 0.33, "N"), Phone(0.33, 0.39, "AH"))}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("phones.jsonl", '{"id": "a", "phones": [[0.2, 0.1, "s"]]}'),
        ("phones.jsonl", '{"id": "a", "phones": [[0.1, 0.2, ""]]}'),
        ("phones.jsonl", '{"id": "a", "phones": [[0.1, 0.2]]}'),
        ("phones.jsonl", '{"phones": []}'),
        ("a.item", ITEMS.replace("0.330", "x")),
        ("a.item", ITEMS.replace("#file", "file")),
        ("a.item", ITEMS.replace(" 0.390 AH SIL N 84", "")),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=name):
        phones_of([clip(tmp_path / "a.flac")])
