import datasets
import pytest

from codec.io.errors import UserError
from evaluation.datasets.task_dataset import TaskDataset, folders_of
from evaluation.task import SUITES_FOLDER, load_suites, load_task
from tests.factories.tones import write_tone

PAPER = sorted(path.stem for path in SUITES_FOLDER.glob("paper_*.yaml"))


def saved(folder, rows, **more):
    """A dataset in `folder` as `datasets` saves it: each row has its sound within it."""
    sounds = [write_tone(folder.parent / "sounds" / f"{i}.wav", 100 + 10 * i, 9_600) for i in range(len(rows))]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    held = [{"bytes": path.read_bytes(), "path": path.name} for path in sounds]
    made = datasets.Dataset.from_dict(columns | {"audio": held} | more)
    made.cast_column("audio", datasets.Audio(decode=False)).save_to_disk(str(folder))
    return folder


ESC = [
    {"filename": f"{fold}-{name}.wav", "fold": fold, "category": name, "target": 0}
    for fold in (1, 4, 5)
    for name in ("dog", "rain")
]


@pytest.mark.parametrize("name", PAPER)
def test_paper_suites_can_be_read(name):
    suites, tasks = load_suites([name])
    assert suites[0].suite == name and tasks
    for task in tasks:
        assert task.dataset.name == task.data.source and task.dataset.kind == task.data.kind
        assert all("arXiv" in score.published.source for score in task.scores if score.published)


def test_tasks_of_one_data_set_describe_it_alike():
    _, tasks = load_suites(PAPER)
    found = {}
    for task in tasks:
        assert found.setdefault(task.dataset.name, task.dataset) == task.dataset
    assert set(found) == {"librispeech", "seed_tts", "audiocaps", "musiccaps", "esc50", "esd", "vctk"}


def test_rows_become_clips_and_folds_become_splits(tmp_path):
    dataset = load_task("esc50_2_way").dataset
    clips = dataset.clips(saved(tmp_path / "esc", ESC), tmp_path / "unpacked")
    assert [clip.split for clip in clips] == ["train"] * 4 + ["test"] * 2
    assert [clip.labels["category"] for clip in clips] == ["dog", "rain"] * 3
    assert {clip.source for clip in clips} == {"esc50"} and {clip.kind for clip in clips} == {"sound"}
    assert clips[0].id == "esc50/1-dog.wav" and len(list((tmp_path / "unpacked").iterdir())) == 6


def test_a_speaker_in_the_name_of_a_file_decides_the_split(tmp_path):
    rows = [
        {"file": f"{speaker}_000001.wav", "emotion": "sad", "gender": "male", "transcription": "we go"}
        for speaker in ("0011", "0019", "0020")
    ]
    clips = load_task("esd_emotion").dataset.clips(saved(tmp_path / "esd", rows), tmp_path / "unpacked")
    assert [clip.split for clip in clips] == ["train", "test", "test"] and clips[0].text == "we go"


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_folder_takes_the_place_of_the_hub(tmp_path, ending):
    folder = tmp_path / "librispeech"
    write_tone(folder / "a.wav", 100)
    if ending == "csv":
        (folder / "list.csv").write_text("file,text,speaker\na.wav,we go,7\n")
    elif ending == "jsonl":
        (folder / "list.jsonl").write_text('{"file": "a.wav", "text": "we go", "speaker_id": 7}\n')
    else:
        rows = {"id": ["a"], "text": ["we go"], "speaker_id": [7]}
        held = [{"bytes": (folder / "a.wav").read_bytes(), "path": "a.wav"}]
        made = datasets.Dataset.from_dict(rows | {"audio": held}).cast_column("audio", datasets.Audio(decode=False))
        (folder / "a.wav").unlink()
        made.to_parquet(folder / "test-00000-of-00001.parquet")
    (clip,) = load_task("librispeech_asr").dataset.clips(folder, tmp_path / "unpacked")
    assert (clip.text, clip.speaker, clip.split, clip.source) == ("we go", "7", "test", "librispeech")


def test_what_is_not_there_is_said_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError) as caught:
        load_task("esc50_2_way").dataset.clips(None, tmp_path)
    assert "ashraq/esc50: `datasets` cannot load it" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="'musiccaps' has to be had by hand .* then give --corpus FOLDER"):
        load_task("musiccaps_caption").dataset.clips(None, tmp_path)
    with pytest.raises(UserError, match="no such folder; give one that holds the data set 'esc50'"):
        load_task("esc50_2_way").dataset.clips(tmp_path / "absent", tmp_path)


def test_folders_stand_for_data_sets_by_name(tmp_path):
    a, b = TaskDataset("a", "sound", hub="x/a"), TaskDataset("b", "sound", hub="x/b")
    assert folders_of([a], [tmp_path]) == {"a": tmp_path}
    named = folders_of([a, b, b], [f"a={tmp_path}", tmp_path / "B"])
    assert named == {"a": tmp_path, "b": tmp_path / "B"}
    with pytest.raises(UserError, match="say for which of a, b it stands, as NAME=FOLDER"):
        folders_of([a, b], [tmp_path / "c"])
    with pytest.raises(UserError, match="stands for 'a' already"):
        folders_of([a, b], ["a=x", "a=y"])


def test_a_data_set_says_where_it_is():
    with pytest.raises(ValueError, match="needs the key 'hub', or 'get'"):
        TaskDataset("a", "sound")
    with pytest.raises(ValueError, match="label 'fold', which 'labels' does not list"):
        TaskDataset("a", "sound", hub="x/a", test={"fold": ("5",)})
