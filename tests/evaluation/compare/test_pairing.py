"""Which items are compared, which differences are tested, and what is said of all others."""

import pytest

from codec.io.errors import UserError
from evaluation.compare.pairing import MOST_CHANGED, compare_runs
from evaluation.compare.run import read_run
from evaluation.compare.tables import sentences, task_remarks
from evaluation.metrics.estimate import ratio
from tests.evaluation.compare.folders import SAID, score_of, words_folder, words_task, write_folder

A = {"x1": "one two", "x2": "four five", "x3": "", "x4": "seven eight nine"}  # 1, 0, 1 and 1 words missing of 10
B = {"x1": "one two three", "x2": "four nine", "x3": "six", "x4": "seven eight nine"}  # 0, 1, 0, 1


def compared(*groups):
    return compare_runs(*([read_run(folder) for folder in group] for group in groups))


def test_a_difference_by_hand(tmp_path):
    found = compared([words_folder(tmp_path / "a", A)], [words_folder(tmp_path / "b", B)])
    (task,) = found.tasks
    (score,) = task.scores
    assert (score.a, score.b) == ((0.3,), (0.2,)) and score.difference.value == pytest.approx(-0.1)
    assert score.better_worse_equal == (2, 1, 1)  # fewer errors are better
    assert (score.n, task.n, task.alone, found.tested) == (4, 4, (0, 0, 0), 1)
    assert [one.a.id for one in task.better] == ["x3", "x1"] and [one.a.id for one in task.worse] == ["x2"]
    assert (task.better[0].a_value, task.better[0].b_value) == (1.0, 0.0)
    assert any("4 items" in note for note in found.notes)


def test_scores_over_all_items_are_those_of_results(tmp_path):
    run = read_run(words_folder(tmp_path / "a", A))
    found = compared([run.folder], [words_folder(tmp_path / "b", B)])
    pairs = [item.readings["words"].measured for item in run.entries["asr", 0, ""].items.values()]
    assert found.tasks[0].scores[0].a[0] == ratio(*zip(*pairs, strict=True)).value == 0.3


def test_items_of_one_alone_are_counted_and_said(tmp_path):
    fewer = {item: B[item] for item in ("x1", "x2")}
    found = compared([words_folder(tmp_path / "a", A)], [words_folder(tmp_path / "b", fewer)])
    (task,) = found.tasks
    assert task.n == task.scores[0].n == 2 and task.alone == (2, 0, 0)
    assert task.scores[0].a == (1 / 5,)  # over the items that both have
    assert task_remarks(task) == ["asr: 2 items are compared; left out: 2 items only in A."]


def test_an_item_with_another_right_answer_is_another_item(tmp_path):
    entry, samples = words_task(tmp_path / "b", B)
    samples[0]["predictions"]["words"]["reference"] = "one two four"
    samples[1]["given"] = ["Write.", "<audio>"]
    found = compared([words_folder(tmp_path / "a", A)], [write_folder(tmp_path / "b", (entry, samples))])
    (task,) = found.tasks
    assert (task.n, task.other_answers, task.other_requests) == (3, 1, 1)
    assert any("1 with other right answers" in remark for remark in task_remarks(task))


def test_items_that_one_could_not_measure_are_left_out_of_both(tmp_path):
    entry, samples = words_task(tmp_path / "b", B)
    samples[3]["predictions"]["words"]["measured"] = None
    found = compared([words_folder(tmp_path / "a", A)], [write_folder(tmp_path / "b", (entry, samples))])
    (score,) = found.tasks[0].scores
    assert score.n == 3 and score.a == (2 / 6,) and "A measured 4 and B 3" in score.remark


def test_a_distance_of_distributions_stands_there_without_an_interval(tmp_path):
    folders = []
    for name, answers, value in (("a", A, 3.0), ("b", B, 5.0)):
        entry, samples = words_task(tmp_path / name, answers)
        for sample in samples:
            sample["predictions"]["distance"] = {"read": None, "reference": None, "original": None, "measured": None}
        distance = score_of("distance", "frechet_distance", samples, "signal_features") | {"value": value, "n": 4}
        entry["scores"].append(distance)
        folders.append(write_folder(tmp_path / name, (entry, samples)))
    found = compared(folders[:1], folders[1:])
    words, distance = found.tasks[0].scores
    assert distance.difference is None and (distance.a, distance.b) == ((3.0,), (5.0,)) and not distance.verdict
    assert found.tested == 1 and any("no interval for distance" in sentence for sentence in sentences(found))
    assert words.difference is not None


def test_measures_of_tokens_have_no_items_and_are_shown(tmp_path):
    folders = []
    for name, value in (("a", 0.1), ("b", 0.2)):
        entry, _ = words_task(tmp_path / name, {}, task="codec_abx", codec=name, n=4)
        entry["scores"][0] |= {"value": value, "scorer": "tokens", "metric": "abx_within", "n": 4}
        folders.append(write_folder(tmp_path / name, (entry, [])))
    (task,) = compared(folders[:1], folders[1:]).tasks  # each of one codec alone: their names may differ
    assert (task.scores[0].a, task.scores[0].b, task.scores[0].difference) == ((0.1,), (0.2,), None)
    assert task.key == ("codec_abx", 0, "")


def test_what_is_skipped_or_defined_otherwise_is_named(tmp_path):
    a = write_folder(
        tmp_path / "a", words_task(tmp_path / "a", A), words_task(tmp_path / "a", A, "more"),
        words_task(tmp_path / "a", A, "old"), words_task(tmp_path / "a", A, "gone"),
    )  # fmt: skip
    skipped, _ = words_task(tmp_path / "b", {}, "more", skipped="no clips")
    b = write_folder(
        tmp_path / "b", words_task(tmp_path / "b", B), (skipped, []),
        words_task(tmp_path / "b", B, "old", fingerprint="g"),
    )  # fmt: skip
    found = compared([a], [b])
    assert [task.key[0] for task in found.tasks] == ["asr"]
    said = "\n".join(sentences(found))
    assert "more: was skipped in" in said and "no clips" in said
    assert "old: is defined otherwise" in said and f"gone: is not in {b}" in said


def test_another_judge_is_no_comparison(tmp_path):
    a = words_folder(tmp_path / "a", A)
    other = words_folder(tmp_path / "b", B, versions={"recogniser": "whisper"})
    with pytest.raises(UserError, match="no item in common .*different judges"):
        compared([a], [other])


def test_three_runs_of_each(tmp_path):
    of_a = [words_folder(tmp_path / f"a{i}", A | {"x4": words}) for i, words in enumerate(("seven", "", "seven ten"))]
    of_b = [words_folder(tmp_path / f"b{i}", B | {"x4": words}) for i, words in enumerate(("seven", "ten", SAID["x4"]))]
    found = compared(of_a, of_b)
    (score,) = found.tasks[0].scores
    assert score.a == pytest.approx((0.5, 0.6, 0.4)) and score.b == pytest.approx((0.4, 0.4, 0.1))
    assert score.difference.value == pytest.approx(-0.2) and score.difference.of == "items and runs"
    assert not any("one run" in note for note in found.notes)
    assert any("is one run:" in note for note in compared(of_a, of_b[:1]).notes)
    assert "means over runs" in "\n".join(sentences(found))


def test_an_item_that_a_run_lacks_is_in_no_group(tmp_path):
    of_a = [words_folder(tmp_path / "a0", A), words_folder(tmp_path / "a1", {k: A[k] for k in ("x1", "x2", "x3")})]
    (task,) = compared(of_a, [words_folder(tmp_path / "b", B)]).tasks
    assert task.n == 3 and task.alone == (0, 0, 1)


def test_the_items_that_changed_most_come_first_and_are_few(tmp_path):
    def folder(name, rate):
        entry, samples = words_task(tmp_path / name, dict.fromkeys(SAID, ""))
        samples = [
            samples[0]
            | {
                "id": f"i{i}",
                "predictions": {"words": {"read": "", "reference": "w", "original": None, "measured": [rate(i), 10]}},
            }
            for i in range(20)
        ]
        return write_folder(
            tmp_path / name, (entry | {"n": 20, "scores": [score_of("words", "wer", samples)]}, samples)
        )

    found = compared([folder("a", lambda i: 10)], [folder("b", lambda i: i)])
    (task,) = found.tasks
    assert [one.a.id for one in task.better] == [f"i{i}" for i in range(MOST_CHANGED)]
    assert [one.a.id for one in task.worse] == [f"i{19 - i}" for i in range(MOST_CHANGED)]
    assert task.scores[0].better_worse_equal == (10, 9, 1)


def test_groups_that_say_nothing_of_each_other(tmp_path):
    a, b = words_folder(tmp_path / "a", A), words_folder(tmp_path / "b", B)
    (tmp_path / "link").symlink_to(a)
    with pytest.raises(UserError, match="link: is given twice"):
        compared([a], [tmp_path / "link"])
    with pytest.raises(UserError, match="of the same model or codec"):
        compared([a], [words_folder(tmp_path / "copy", A, model="a")])
    assert (
        compared([a], [words_folder(tmp_path / "seed", A, model="a", seed=1)]).notes[0].startswith("The folders were")
    )
    other = write_folder(tmp_path / "other", words_task(tmp_path / "other", A, "tts"))
    with pytest.raises(UserError, match="no task is in all folders .*same --suite"):
        compared([a], [other])
    apart = [words_folder(tmp_path / f"p{i}", {item: A[item]}) for i, item in enumerate(("x1", "x2"))]
    with pytest.raises(UserError, match="have no item in common"):
        compared(*([folder] for folder in apart))
    assert compared([a], [b]).tasks


def test_codecs_side_by_side_are_matched_by_name(tmp_path):
    def folder(name, *codecs):
        tasks = [words_task(tmp_path / name, A if codec == "x" else B, codec=codec) for codec in codecs]
        return write_folder(tmp_path / name, *tasks)

    found = compared([folder("a", "x", "y")], [folder("b", "y", "z")])
    assert [task.key for task in found.tasks] == [("asr", 0, "y")]
    with pytest.raises(UserError, match="no codec of one name .*a folder of its own"):
        compared([folder("c", "x", "y")], [folder("d", "z")])
