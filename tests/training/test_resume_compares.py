"""Going on: what may differ, what may not, and what is allowed by name."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
import warnings
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auditory_sentences.corpora.clip import Clip
from codec.io import aliases
from codec.io.errors import UserError
from tests.factories import trainer
from training import inputs, run
from training.engine import checkpoint
from training.engine.checkpoint import Damaged
from training.lm.train_text import TextModelRecipe
from training.metrics import read_metrics
from training.recipe import load_recipe, parse, to_yaml
from training.resume import MAY_CHANGE, Continuation, compare_facts, compare_recipes

RECIPE = {"kind": "tiny", "out": "a", "steps": 4, "seed": 7, "engine": {"micro_batches": 4, "zero_stage": 0}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "a.txt").write_text("one\ntwo\n")
    trainer.train(values(folder, steps=4))
    return folder


@pytest.fixture
def folder(trained, tmp_path) -> Path:
    """A run of 4 steps beside the text that it read."""
    shutil.copytree(trained, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"


def values(folder: Path, **more) -> dict:
    return trainer.values(folder / "run", texts=[str(folder / "a.txt")], steps=6) | more


def last(folder: Path) -> Path:
    return folder / "run" / "checkpoints" / "step-00000004"


def compare(allow: tuple[str, ...] = (), **more) -> list[str]:
    now = RECIPE | more
    return compare_recipes(json.dumps(RECIPE), json.dumps(now), trainer.TinyRecipe, "ckpt", Continuation(None, allow))


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"seed": 8}, "seed"),
        ({"engine": {"micro_batches": 2, "zero_stage": 0}}, "engine.micro_batches"),
        ({"engine": {"micro_batches": 4, "zero_stage": 0, "precision": "mixed"}}, "engine.precision"),
        ({"texts": ["b"]}, "texts"),
        ({"mixture": {"asr": 1}}, "mixture.asr"),
    ],
)
def test_what_changes_the_numbers_is_refused_by_its_key_and_allowed_by_it(change, key):
    with pytest.raises(UserError, match=rf"has {key}: .*--allow-change {key}"):
        compare(**change)
    assert compare((key,), **change)[0].startswith(f"{key}: ")
    assert compare((key.split(".")[0],), **change)


def test_what_changes_no_number_may_differ():
    engine = {"micro_batches": 4, "zero_stage": 2, "offload_optimiser": True, "activation_checkpointing": True}
    assert compare(out="b", save_every=3, keep=9, log_every=1, validate_every=5, engine=engine, store="s") == []
    assert {"engine.precision", "engine.micro_batches", "seed", "engine"}.isdisjoint(MAY_CHANGE)
    (said,) = compare(steps=8)
    assert "steps: 4 before, 8 now" in said and "stretched" in said


def test_a_key_that_is_none_is_named_with_the_nearest():
    with pytest.raises(UserError, match="--allow-change 'engine.micro_batch': no key .* 'engine.micro_batches'"):
        compare(("engine.micro_batch",))
    for key in ("kind", "out", "", "vocabulary"):
        with pytest.raises(UserError, match="no key"):
            compare((key,))
    with pytest.raises(UserError, match="of kind tiny, not scalar"):
        compare(("seed",), kind="scalar")


@pytest.mark.parametrize("fact", ["vocabulary", "tokenizer", "text_tokenizer", "audio_tokenizer"])
def test_what_gives_the_weights_their_meaning_never_changes(fact):
    with pytest.raises(UserError, match=f"{fact} 1, this run has 2; resume with the same$"):
        compare_facts({fact: 1}, {fact: 2}, "ckpt", Continuation(None, ("store", "seed", fact)))


def test_data_that_changed_is_allowed_under_the_key_of_its_recipe():
    with pytest.raises(UserError, match="--allow-change store"):
        compare_facts({"token_store": "a"}, {"token_store": "b"}, "ckpt", Continuation())
    changes, unknown = compare_facts(
        {"token_store": "a"}, {"token_store": "b", "new": 1}, "ckpt", Continuation(None, ("store",))
    )
    assert changes == ["token_store: a before, b now"] and unknown == ["new"]


@pytest.mark.parametrize("path", sorted((Path(__file__).parent / "former").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_in_former_names_is_the_same_recipe(path):
    """Recorded by an earlier version: keep_heard, listener, max_ids, gather, validation_mixture."""
    recipe = load_recipe(path)
    assert compare_recipes(path.read_text(), to_yaml(recipe), type(recipe), "ckpt", Continuation()) == []
    with pytest.raises(UserError, match="its recipe has seed"):
        changed = to_yaml(dataclasses.replace(recipe, seed=1))
        compare_recipes(path.read_text(), changed, type(recipe), "ckpt", Continuation())


def places(tree, at=()):
    """Where a key of a group stands, in lists and under names too."""
    for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        if isinstance(tree, dict):
            yield (*at, name)
        yield from places(value, (*at, name))


@pytest.mark.parametrize("name", ["starter/descriptive", "starter/codec", "starter/stage4", "starter/grpo"])
def test_a_key_that_came_later_is_the_default_wherever_it_stands(name):
    """Recorded without it: nothing changed where the recipe means the same without it."""
    recipe = load_recipe(name)
    recorded, found = yaml.safe_load(to_yaml(recipe)), 0
    for place in [place for place in places(recorded) if place != ("kind",)]:
        before = copy.deepcopy(recorded)
        group = before
        for step in place[:-1]:
            group = group[step]
        del group[place[-1]]
        try:
            means = parse(type(recipe), {k: v for k, v in before.items() if k != "kind"}, "before")
        except UserError:
            continue  # a key that has no default
        if means == recipe:
            text = yaml.safe_dump(before)
            assert compare_recipes(text, to_yaml(recipe), type(recipe), "ckpt", Continuation()) == [], place
            found += 1
    assert found > 10


def test_a_run_in_former_names_resumes(tmp_path, monkeypatch):
    """Its recipe, what it read, and its metrics log: the present names are written from there on."""
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    with monkeypatch.context() as patch:
        patch.setattr(run, "to_yaml", lambda recipe: to_yaml(recipe).replace("texts:", "lines:"))
        patch.setattr(run, "contents", lambda recipe: {"lines": inputs.contents(recipe)["texts"]})
        trainer.train(values(tmp_path, steps=4))
    folder = tmp_path / "run"
    (folder / "metrics.jsonl").rename(folder / "journal.jsonl")
    monkeypatch.setitem(aliases.KEYS, "TinyRecipe", {"lines": "texts"})
    assert [entry["step"] for entry in read_metrics(folder)] == [1, 2, 3, 4]
    (tmp_path / "a.txt").rename(tmp_path / "b.txt")
    trainer.train(values(tmp_path, texts=[str(tmp_path / "b.txt")]), resume=True)
    assert [entry["step"] for entry in read_metrics(folder)] == [1, 2, 3, 4, 5, 6]
    assert not (folder / "journal.jsonl").exists() and "texts:" in (folder / "recipe.yaml").read_text()


def test_a_run_goes_on_with_what_it_read(tmp_path, capsys):
    folder = tmp_path
    (folder / "a.txt").write_text("one\ntwo\n")
    trainer.train(values(folder, steps=4))
    (folder / "a.txt").write_text("quite\nother\n")
    with pytest.raises(UserError, match=rf"texts: {folder}/a.txt: not what .*--allow-change texts"):
        trainer.train(values(folder), resume=True)
    trainer.train(values(folder), resume=Continuation(None, ("texts",)))
    assert "allowed: texts: what lies at" in capsys.readouterr().out
    description = checkpoint.newest(folder / "run")[0].description
    assert description["changes"] == [
        f"step 4: texts: what lies at {folder}/a.txt has changed",
        "step 4: steps: 4 before, 6 now, to which the schedule of the learning rate is stretched",
    ]


def test_what_it_read_may_have_moved(folder):
    (folder / "a.txt").rename(folder / "b.txt")
    trainer.train(values(folder, texts=[str(folder / "b.txt")]), resume=True)
    with pytest.raises(UserError, match="texts: "):
        trainer.train(values(folder, steps=8, texts=[str(folder / "b.txt")] * 2), resume=True)


def test_a_checkpoint_that_does_not_say_what_was_read_goes_on(tmp_path, capsys):
    folder = tmp_path
    (folder / "a.txt").write_text("one\ntwo\n")
    trainer.train(values(folder, steps=4))
    rewrite(folder, lambda m: (m["description"].pop("inputs"), m["description"].pop("changes"), old(m)))
    (folder / "a.txt").write_text("quite\nother\n")
    trainer.train(values(folder), resume=True)
    assert capsys.readouterr().out.count("does not state what its texts held, which is not compared") == 1


def rewrite(folder: Path, change) -> None:
    path = last(folder) / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def old(manifest: dict) -> None:
    """As it was written before manifests were hashed."""
    manifest["format"] = 1
    manifest.pop("sha256", None)


EDITS = {
    "step": lambda m: m.update(step=1),
    "no files": lambda m: m.update(files={}),
    "files in a list": lambda m: m.update(files=[]),
    "a file less": lambda m: m["files"].pop("model/model.safetensors"),
    "a file more": lambda m: m["files"].update({"model/more": {"size": 0, "sha256": "0" * 64}}),
    "a file outside": lambda m: m["files"].update({"../../recipe.yaml": {"size": 0, "sha256": "0" * 64}}),
    "a file of the system": lambda m: m["files"].update({"/etc/hostname": {"size": 0, "sha256": "0" * 64}}),
    "no name": lambda m: m["files"].update({"": {"size": 0, "sha256": "0" * 64}}),
    "a name with a NUL": lambda m: m["files"].update({"a\0b": {"size": 0, "sha256": "0" * 64}}),
    "a hash that is a number": lambda m: m["files"]["recipe.yaml"].update(sha256=3),
    "a size that is text": lambda m: m["files"]["recipe.yaml"].update(size="3"),
    "an entry that is text": lambda m: m["files"].update({"recipe.yaml": "x"}),
    "description": lambda m: m.update(description=[]),
    "step as text": lambda m: m.update(step="4"),
    "step as truth": lambda m: m.update(step=True),
    "negative step": lambda m: m.update(step=-4),
    "no format": lambda m: m.pop("format"),
    "format as text": lambda m: m.update(format="2"),
    "empty": lambda m: m.clear(),
}


@pytest.mark.parametrize("hashed", [True, False], ids=["hashed", "old"])
@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_manifest_is_damaged(folder, edit, hashed):
    rewrite(folder, lambda m: (None if hashed else old(m), EDITS[edit](m)))
    with pytest.raises(Damaged, match=r"(manifest.json|model/).*damaged|missing"):
        checkpoint.load(last(folder))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_byte_of_a_manifest_can_change(trained, data):
    content = (last(trained) / "manifest.json").read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    changed = bytearray(content)
    changed[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[place]))
    try:
        same = json.loads(bytes(changed)) == json.loads(content)  # white space for white space
    except ValueError:
        same = False
    path = last(trained) / "manifest.json"
    path.write_bytes(bytes(changed))
    try:
        if same:
            assert checkpoint.load(last(trained)).step == 4
        else:
            with pytest.raises(UserError, match="manifest.json"):
                checkpoint.load(last(trained))
    finally:
        path.write_bytes(content)


def test_what_a_file_manager_leaves_is_no_damage(folder):
    (last(folder) / "model" / ".DS_Store").write_text("x")
    assert checkpoint.load(last(folder)).step == 4
    (last(folder) / "engines" / "model" / "more.safetensors").write_text("x")
    with pytest.raises(Damaged, match="more.safetensors: damaged checkpoint"):
        checkpoint.load(last(folder))


def test_what_the_system_refuses_is_no_damage(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(checkpoint, "sha256_of", refuse)
    with pytest.raises(UserError, match="Permission denied; change its permissions"):
        checkpoint.newest(folder / "run")
    monkeypatch.undo()
    assert checkpoint.newest(folder / "run")[0].step == 4


def test_steps_of_more_than_eight_digits_are_in_order(tmp_path):
    for name in ("step-00000002", "step-100000000", "step-99999999", "step-x", "step-00000003.damaged"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert [path.name for path in checkpoint.folders(tmp_path)] == ["step-00000002", "step-99999999", "step-100000000"]


def test_contents_of_what_a_recipe_names(tmp_path):
    model = tmp_path / "run" / "model"
    model.mkdir(parents=True)
    for name in ("config.json", "weights"):
        (model / name).write_text("{}")
    (tmp_path / "a.txt").write_text("a")
    recipe = TextModelRecipe(out="x", steps=1, init=str(tmp_path / "run"), texts=(str(tmp_path / "a.txt"), "org/name"))
    first = inputs.contents(recipe)
    assert first.keys() == {"init", "texts"} and first["texts"][1] == "" and all(first["init"])
    assert inputs.contents(TextModelRecipe(out="x", steps=1, init=str(model)))["init"] == first["init"]
    (model / ".hidden").write_text("x")
    assert inputs.contents(recipe) == first
    (model / "weights").write_text("{ }")
    assert inputs.contents(recipe)["init"] != first["init"]


@pytest.mark.parametrize("change", ["text", "labels", "sound at its end", "length", "nothing but the place"])
def test_contents_of_corpora(tmp_path, change):
    def hash_of(folder: Path, text: str = "three", labels: dict | None = None, sound: bytes = bytes(200_000)) -> str:
        folder.mkdir()
        (folder / "a.wav").write_bytes(sound)
        clip = Clip("a", "a.wav", "speech", "train", text=text, labels=labels or {})
        (folder / "clips.jsonl").write_text(clip.to_json() + "\n")
        return inputs._hash_of_corpora([str(folder)])

    changes = {
        "text": {"text": "four"},
        "labels": {"labels": {"gender": "male"}},
        "sound at its end": {"sound": bytes(199_999) + b"\1"},
        "length": {"sound": bytes(200_001)},
        "nothing but the place": {},
    }
    same = hash_of(tmp_path / "one") == hash_of(tmp_path / "two", **changes[change])
    assert same == (change == "nothing but the place")


DAMAGED_LINES = {
    "not UTF-8": b"\xff\xfe",
    "torn": b'{"step": 9, "lo',
    "a list": b"[1]",
    "a number": b"3",
    "null": b"null",
    "no step": b'{"loss": 1}',
    "step as text": b'{"step": "2"}',
    "step as truth": b'{"step": true}',
    "step as fraction": b'{"step": 1.5}',
    "negative step": b'{"step": -1}',
    "NaN": b'{"step": 1, "loss": NaN}',
    "Infinity": b'{"step": 1, "loss": Infinity}',
    "a huge number": b'{"step": ' + b"9" * 5000 + b"}",
    "deep": b"[" * 50_000,
    "a key twice": b'{"step": 1, "step": 2}',
    "binary": bytes(range(1, 10)),
}


@pytest.mark.parametrize("damage", DAMAGED_LINES)
def test_a_damaged_line_costs_that_line(tmp_path, damage):
    from training.metrics import MetricLogger, read_metrics

    lines = [b'{"step": 1, "loss": 2.5}', DAMAGED_LINES[damage], b'{"step": 2, "loss": 1.5}', b""]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
    with pytest.warns(UserWarning, match="metrics.jsonl: line 2 is not an entry") as seen:
        assert [entry["step"] for entry in read_metrics(tmp_path)] == [1, 2]
    assert len(seen) == 1
    metric_logger = MetricLogger(tmp_path, "tiny", 4, 2)
    with pytest.warns(UserWarning, match="line 2"):
        metric_logger.write(3, {"loss": 1.0})
    metric_logger.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [entry["step"] for entry in read_metrics(tmp_path)] == [1, 2, 3]  # whole again
