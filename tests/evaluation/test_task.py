import pytest

from codec.io.errors import UserError
from evaluation.task import SUITES_FOLDER, TASKS_FOLDER, load_suite, load_suites, load_task

TASK = """
task: mine
version: 2
title: Mine
about: A task of my own.
request: sound_caption
data: {kind: sound, labels: {class: dog}}
generation: {max_rows: 20, temperature: 1}
scores:
  - {name: class, metric: accuracy, scorer: label_in_text, label: class, phrases: {dog: [hound]}}
"""


def write(folder, text):
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_a_new_task_is_a_new_file(tmp_path):
    task = load_task(write(tmp_path, TASK))
    assert (task.version, task.data.labels, task.generation.temperature) == (2, {"class": "dog"}, 1.0)
    assert task.scores[0].phrases == {"dog": ("hound",)} and task.shots == (0,)


def test_former_names_mean_the_same_task(tmp_path):
    present = (
        TASK.replace("request: sound_caption", "request: classification") + "classification: {label: class, ways: 2}\n"
    )
    former = present.replace("classification: {", "episode: {").replace("scorer: label_in_text", "judge: named")
    task = load_task(write(tmp_path, present))
    assert load_task(write(tmp_path, former)) == task and task.classification.ways == 2
    with pytest.raises(UserError, match="'judge' is a former name of 'scorer'"):
        load_task(write(tmp_path, TASK.replace("scorer:", "judge: named, scorer:")))


def test_fingerprints_are_those_of_the_first_names():
    """Results of before are of the same evaluation."""
    assert (load_task("sound_2_way").fingerprint, load_task("asr").fingerprint) == ("6493c52ad4ea", "9a0e159cfe75")


def test_fingerprint_follows_the_contents(tmp_path):
    one = load_task(write(tmp_path, TASK)).fingerprint
    assert load_task(write(tmp_path, "# a remark\n" + TASK)).fingerprint == one
    assert load_task(write(tmp_path, TASK.replace("max_rows: 20", "max_rows: 21"))).fingerprint != one


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("title:", "titel:", "unknown key 'titel'; did you mean 'title'"),
        ("max_rows: 20", "max_row: 20", "unknown key 'generation.max_row'; did you mean 'max_rows'"),
        (
            "scorer: label_in_text",
            "scorer: name",
            "'scores[0].scorer' must be one of text, label_in_text, max_likelihood",
        ),
        ("metric: accuracy", "metric: acuracy", "no metric 'acuracy'; did you mean 'accuracy'"),
        ("metric: accuracy", "metric: wer", "goes with the scorer text or recogniser, not label_in_text"),
        ("scorer: label_in_text", "scorer: label_in", "not 'label_in'; did you mean 'label_in_text'"),
        ("version: 2", "version: two", "'version' must be int, not 'two'"),
        ("version: 2\n", "", "key 'version' is missing"),
        ("kind: sound", "kind: noise", "'data.kind' must be one of speech, sound, music, mixture, any, not 'noise'"),
        ("version: 2", "version: 2\nversion: 3", "the key 'version' stands twice"),
        ("data: {", "data: [", "cannot be read as YAML"),
        ("scores:", "shots: 4\nscores:", "'shots' must be a list, not 4"),
        (
            "request: sound_caption",
            "request: classification",
            "the key 'classification' goes with the request 'classification'",
        ),
        (
            "scorer: label_in_text, label: class",
            "scorer: signal_classifier",
            "scorer 'signal_classifier' needs the key 'label'",
        ),
    ],
)
def test_mistakes_are_named(tmp_path, old, new, said):
    with pytest.raises(UserError, match="mine.yaml") as error:
        load_task(write(tmp_path, TASK.replace(old, new)))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "task: mine",
            "task: ../../escaped",
            "'task' must be a plain name (letters, digits, _ - .), not '../../escaped'",
        ),
        ("task: mine", "task: a/b", "'task' must be a plain name"),
        ("task: mine", "task: ..", "'task' must be a plain name"),
        ("task: mine", 'task: "x y"', "'task' must be a plain name"),
        ("task: mine", 'task: "a\\0"', "'task' must be a plain name"),
        ("task: mine", "task: ''", "'task' must be a plain name"),
        ("task: mine", f"task: {'x' * 300}", "'task' must be a plain name"),
        ("task: mine", "task: 5", "'task' must be str"),
        ("version: 2", "version: 0", "'version' must be at least 1"),
        ("version: 2", "version: true", "'version' must be int"),
        ("version: 2", f"version: {2**70}", "does not fit 64 bits"),
        ("version: 2", "version: 1.5", "'version' must be int"),
        ("version: 2", "version: .nan", ".nan is no finite number"),
        ("max_rows: 20", "max_rows: 0", "'generation.max_rows' must be at least 1"),
        ("max_rows: 20", "max_rows: -4", "'generation.max_rows' must be at least 1"),
        ("max_rows: 20", f"max_rows: {2**62}", "'generation.max_rows' must be at least 1 and at most 100000"),
        ("temperature: 1", "temperature: .nan", ".nan is no finite number"),
        ("temperature: 1", "temperature: .inf", ".inf is no finite number"),
        ("temperature: 1", "temperature: -0.1", "'generation.temperature' must be at least 0"),
        ("temperature: 1", "temperature: hot", "'generation.temperature' must be float"),
        ("temperature: 1", "top_k: 0", "'generation.top_k' must be at least 1"),
        ("temperature: 1", "guidance: 0.5", "'generation.guidance' must be at least 1"),
        ("temperature: 1", "guidance: 1e9", "'generation.guidance' must be at least 1 and at most 1000"),
        (
            "temperature: 1",
            "structural_temperature: -1",
            "'generation.stream_temperature.structural' must be at least 0",
        ),
        ("temperature: 1", "structural_guidance: [1]", "'generation.stream_guidance.structural' must be float"),
        ("scores:", "shots: [0, -1]\nscores:", "must be at least 0"),
        ("scores:", "shots: [0, 1, 0]\nscores:", "'shots': it lists twice 0"),
        ("scores:", "shots: []\nscores:", "'shots' is a list of numbers from 0"),
        ("scores:", f"shots: [{2**70}]\nscores:", "does not fit 64 bits"),
        ("request: sound_caption", "request: sound_captoin", "there is no task 'sound_captoin'; did you mean"),
        ("request: sound_caption", "request: ''", "there is no task ''"),
        ("request: sound_caption", "request: asr", "the request 'asr' is for clips of speech, not of sound"),
        (
            "request: sound_caption",
            "request: sound_generation",
            "answered with audio, which the scorer 'label_in_text' does not",
        ),
        ("request: sound_caption", "request: audio_only", "the request 'audio_only' cannot be answered alone"),
        ("request: sound_caption", "request: descriptive_to_structural", "cannot be answered alone"),
        (
            "request: sound_caption",
            "request: reconstruction",
            "answered with audio, which the scorer 'label_in_text' does not",
        ),
        ("labels: {class: dog}", "labels: {class: 3}", "'data.labels.class' must be str, not 3"),
        ("labels: {class: dog}", "spread: [class]", "'data.spread' must be str"),
        ("scores:", "scores: []\nabout2:", "unknown key 'about2'"),
        ("name: class", "name: ''", "'name' must be a few words"),
        ("name: class", f"name: {'x' * 300}", "'name' must be a few words"),
        (", label: class", "", "the scorer 'label_in_text' needs the key 'label', or choices"),
        ("label: class,", "choices: [dog],", "'choices' must be two or more"),
        ("label: class,", "choices: [dog, Dog!],", "'choices' must be two or more"),
        ("label: class,", "choices: [dog, '...'],", "'choices' must be two or more"),
        (
            "label: class, phrases: {dog: [hound]}}",
            "label: class}\n  - {name: class, metric: accuracy, scorer: max_likelihood, label: class}",
            "'scores': two of them have the name 'class'",
        ),
        (
            "label: class, phrases: {dog: [hound]}}",
            "label: class}\n  - {name: p, metric: perplexity, scorer: likelihood}",
            "the scorer 'likelihood' needs no answer",
        ),
    ],
)
def test_values_are_held_to_their_ranges_before_anything_is_made(tmp_path, old, new, said):
    with pytest.raises(UserError, match="mine.yaml") as error:
        load_task(write(tmp_path, TASK.replace(old, new)))
    assert said in str(error.value) and len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("label", "ways", "said"),
    [("class", 1, "must be at least 2"), ("class", 2**40, "at most 64"), ("''", 2, "'label' must be a few words"),
     ("tempo", 2, "the scores must have the label of the classification, 'tempo'")],
)  # fmt: skip
def test_classifications_have_ranges_too(tmp_path, label, ways, said):
    changed = TASK.replace("request: sound_caption", "request: classification")
    with pytest.raises(UserError, match="mine.yaml") as error:
        load_task(write(tmp_path, changed + f"classification: {{label: {label}, ways: {ways}}}\n"))
    assert said in str(error.value)


def suite(folder, name, *tasks):
    path = folder / f"{name}.yaml"
    path.write_text(f"suite: {name}\ntitle: T\nabout: A\ntasks: [{', '.join(map(str, tasks))}]\n")
    return path


def named(folder, file, name):
    (folder / file).write_text(TASK.replace("task: mine", f"task: {name}"))
    return file


def test_a_task_that_several_suites_list_is_asked_once(tmp_path):
    first = suite(tmp_path, "first", named(tmp_path, "a.yaml", "a"), "asr")
    second = suite(tmp_path, "second", "asr", "./a.yaml", tmp_path / "a.yaml")
    suites, tasks = load_suites([first, suite(tmp_path, "third", "a.yaml"), first])
    assert [s.suite for s in suites] == ["first", "third"] and [t.task for t in tasks] == ["a", "asr"]
    with pytest.raises(UserError, match="second.yaml: lists the task 'a' twice"):
        load_suites([second])


def test_two_files_with_one_name_are_named(tmp_path):
    named(tmp_path, "a.yaml", "twin")
    named(tmp_path, "b.yaml", "twin")
    with pytest.raises(UserError, match="b.yaml: another file, .*a.yaml, has a task 'twin' too; rename one"):
        load_suites([suite(tmp_path, "s", "a.yaml", "b.yaml")])
    with pytest.raises(UserError, match=r"tasks/asr.yaml: another file, .*c.yaml, has a task 'asr' too"):
        load_suites([suite(tmp_path, "t", named(tmp_path, "c.yaml", "asr"), "asr")])
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="has a suite 's' too"):
        load_suites([suite(tmp_path, "s", "a.yaml"), suite(tmp_path / "other", "s", "asr")])


def test_a_suite_is_no_task_and_a_task_no_suite(tmp_path):
    with pytest.raises(UserError, match="s.yaml: is a suite, where a task is expected"):
        load_suites([suite(tmp_path, "s", "s.yaml")])
    with pytest.raises(UserError, match="mine.yaml: is a task, where a suite is expected"):
        load_suites([write(tmp_path, TASK)])
    with pytest.raises(UserError, match="'tasks' must list at least one task"):
        load_suites([suite(tmp_path, "empty")])
    with pytest.raises(UserError, match="there is no task '../tasks/asr'"):
        load_suites([suite(tmp_path, "out", "../tasks/asr")])
    with pytest.raises(UserError, match="there is no suite ''"):
        load_suites([""])


def test_paths_of_tasks_are_relative_to_the_suite(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    path = suite(tmp_path, "s", named(tmp_path, "a.YAML", "a"))
    assert [task.task for task in load_suites([path])[1]] == ["a"]
    with pytest.raises(UserError, match="b.yaml: no such task"):
        load_suites([suite(tmp_path, "t", "b.yaml")])


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
