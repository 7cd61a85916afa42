import pytest

from codec.errors import UserError
from evaluation.task import SUITES_FOLDER, TASKS_FOLDER, load_suite, load_task

TASK = """
task: mine
version: 2
title: Mine
about: A task of my own.
request: sound_caption
data: {kind: sound, labels: {class: dog}}
generation: {max_rows: 20, temperature: 1}
scores:
  - {name: class, metric: accuracy, judge: named, label: class, phrases: {dog: [hound]}}
"""


def write(folder, text):
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_a_new_task_is_a_new_file(tmp_path):
    task = load_task(write(tmp_path, TASK))
    assert (task.version, task.data.labels, task.generation.temperature) == (2, {"class": "dog"}, 1.0)
    assert task.scores[0].phrases == {"dog": ("hound",)} and task.shots == (0,)


def test_fingerprint_follows_the_contents(tmp_path):
    one = load_task(write(tmp_path, TASK)).fingerprint
    assert load_task(write(tmp_path, "# a remark\n" + TASK)).fingerprint == one
    assert load_task(write(tmp_path, TASK.replace("max_rows: 20", "max_rows: 21"))).fingerprint != one


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("title:", "titel:", "unknown key 'titel'; did you mean 'title'"),
        ("max_rows: 20", "max_row: 20", "unknown key 'generation.max_row'; did you mean 'max_rows'"),
        ("judge: named", "judge: name", "'scores[0].judge' must be one of text, named, likeliest"),
        ("metric: accuracy", "metric: acuracy", "no metric 'acuracy'; did you mean 'accuracy'"),
        ("metric: accuracy", "metric: wer", "goes with the judge text or recogniser, not named"),
        ("judge: named", "judge: name", "not 'name'; did you mean 'named'"),
        ("version: 2", "version: two", "'version' must be int, not 'two'"),
        ("version: 2\n", "", "key 'version' is missing"),
        ("kind: sound", "kind: noise", "'data.kind' must be one of speech, sound, music, mixture, not 'noise'"),
        ("version: 2", "version: 2\nversion: 3", "the key 'version' stands twice"),
        ("data: {", "data: [", "cannot be read as YAML"),
        ("scores:", "shots: 4\nscores:", "'shots' must be a list, not 4"),
        ("request: sound_caption", "request: classification", "'episode' goes with the request 'classification'"),
        ("judge: named, label: class", "judge: signal", "judge 'signal' needs the key 'label'"),
    ],
)
def test_mistakes_are_named(tmp_path, old, new, said):
    with pytest.raises(UserError, match="mine.yaml") as error:
        load_task(write(tmp_path, TASK.replace(old, new)))
    assert said in str(error.value)


def test_unknown_names_have_a_nearest_one(tmp_path):
    with pytest.raises(UserError, match="no task 'sound_captions'; did you mean 'sound_caption'"):
        load_task("sound_captions")
    with pytest.raises(UserError, match="no suite 'startr'; did you mean 'starter'"):
        load_suite("startr")
    with pytest.raises(UserError, match="no such task"):
        load_task(tmp_path / "absent.yaml")


def test_all_that_is_shipped_loads():
    for path in TASKS_FOLDER.glob("*.yaml"):
        task = load_task(path.stem)
        assert task.task == path.stem and task.title and task.about
    for path in SUITES_FOLDER.glob("*.yaml"):
        suite = load_suite(path.stem)
        assert suite.suite == path.stem
        assert all(load_task(name) for name in suite.tasks)
