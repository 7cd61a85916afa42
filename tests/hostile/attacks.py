"""Attacks, a function for each kind of input: a random generator in, a trial out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import soundfile
import typer
import yaml

from cli.main import app
from evaluation.config import options
from tests.hostile.damages import (
    WRONG_NUMBERS,
    WRONG_VALUES,
    cut,
    damaged_json,
    flip,
    garble,
    places,
    same_json,
    with_value,
)
from tests.hostile.trials import Result, Trial
from tests.hostile.world import World

Attack = Callable[[World, Path, Random], Trial]

_FORMATS = (
    ("WAV", "PCM_16", "wav"), ("WAV", "PCM_24", "wav"), ("WAV", "FLOAT", "wav"), ("WAV", "ULAW", "wav"),
    ("FLAC", "PCM_16", "flac"), ("OGG", "VORBIS", "ogg"), ("OGG", "OPUS", "opus"), ("MP3", "MPEG_LAYER_III", "mp3"),
    ("AIFF", "PCM_16", "aiff"), ("AU", "PCM_16", "au"), ("W64", "PCM_16", "w64"), ("CAF", "PCM_16", "caf"),
    ("RF64", "PCM_16", "wav"),
)  # fmt: skip


def sound(world: World, folder: Path, rng: Random) -> Trial:
    """A sound file of any format, damaged."""
    kind, subtype, ending = rng.choice(_FORMATS)
    rate = rng.choice([8_000, 16_000, 24_000, 48_000])
    wave = 0.2 * np.random.default_rng(rng.randrange(2**32)).standard_normal((rate // 2, rng.choice([1, 2])))
    path = folder / f"a.{rng.choice([ending, ending.upper(), 'wav'])}"
    soundfile.write(path, wave, rate, format=kind, subtype=subtype)
    content, what = path.read_bytes(), f"{kind} {subtype}"
    must_fail = False
    if rng.random() < 0.4:
        # at least a tenth of the sound is gone, and what says how much there was is still there
        content, what = content[: rng.randrange(len(content) // 2, len(content) * 9 // 10)], f"{what} cut short"
        must_fail = kind != "MP3"  # which announces no length
    else:
        content, what = garble(content, rng), f"{what} garbled"
    path.write_bytes(content)
    out = folder / "t.safetensors"
    arguments = ["tokenize", str(path), "--codec", str(world.model / "audio_tokenizer"), "--out", str(out)]
    return Trial(what, arguments, must_fail=must_fail, precious=(path,), absent=(out,))


def table(world: World, folder: Path, rng: Random) -> Trial:
    """A table of clips, CSV, TSV or JSON lines, with something wrong in it."""
    ending = rng.choice(["csv", "tsv", "jsonl"])
    names = ["id", "file", "text"]
    rows = [[f"c{i}", str(world.corpus / f"{i % 3}.wav"), f"words {i}"] for i in range(5)]
    if ending == "jsonl":
        import json

        lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
    else:
        lines = [("," if ending == "csv" else "\t").join(row) for row in [names, *rows]]
    path, what, whole = folder / f"t.{ending}", "", len(rows)
    text = "\n".join(lines) + "\n"
    kind = rng.randrange(6)
    if kind == 0:
        at = rng.randrange(len(text))
        mark = rng.choice(['"', "'", ",", "\t", "\n", "\r", "{", "\\", "\x00", "\x1b", "\u202e", ";"])
        text, what = text[:at] + mark + text[at:], f"{mark!r} at {at}"
    elif kind == 1:
        number = rng.randrange(len(lines))
        lines[number] = lines[number][: rng.randrange(len(lines[number]))]
        text, what = "\n".join(lines) + "\n", f"line {number + 1} cut"
    elif kind == 2:
        content, what = text.encode(rng.choice(["utf-16", "utf-32", "cp037"])), "another encoding"
        path.write_bytes(content)
    elif kind == 3:
        path.write_bytes(garble(text.encode(), rng))
        what = "garbled"
    elif kind == 4:
        wrong = rng.choice(["NaN", "[1]", '{"a": 1}', "true", "1e999", "-Infinity", "9" * 5000, "null"])
        line = f'{{"id": "x", "file": "{world.corpus / "0.wav"}", "text": {wrong}}}'
        path = folder / "t.jsonl"
        text, what, whole = line + "\n", f"text {wrong[:20]}", 1
    else:
        doubled = rng.choice(lines[1:])
        text, what = text + doubled + "\n", "a row twice"
    if not path.exists():
        path.write_text(text, "utf-8", newline="")
    (folder / "c.yaml").write_text(f"kind: table\npath: {path.name}\n", "utf-8")

    def check(result: Result) -> str:
        counted = sum(int(line.split("\t")[-1]) for line in result.out.splitlines() if line.split("\t")[-1].isdigit())
        lost = result.status == 0 and kind in (0, 4) and counted < whole and not result.err.strip()
        return f"{counted} of {whole} rows, and nothing said" if lost else ""

    must_fail = kind == 2 or (kind == 4 and wrong not in ("null",)) or kind == 5
    return Trial(f"{ending}: {what}", ["corpus", "count", str(folder / "c.yaml")], must_fail=must_fail, check=check)


def description(world: World, folder: Path, rng: Random) -> Trial:
    """A description of a corpus in YAML: values of wrong types, bombs, garbage."""
    values = {
        "kind": "table", "path": str(world.corpus / "t.csv"), "name": "n", "columns": {"text": "text"},
        "labels": ["text"],
        "audio_folder": str(world.corpus), "clip_kind": "speech", "split": "train", "licence": "", "source": "",
    }  # fmt: skip
    path = folder / "c.yaml"
    kind = rng.randrange(4)
    if kind == 0:
        place, value = rng.choice(list(places(values))), rng.choice(WRONG_VALUES)
        path.write_text(yaml.safe_dump(with_value(values, place, value)), "utf-8")
        what = f"{place} = {value!r}"
    elif kind == 1:
        deep, wide = rng.choice([5, 12, 30]), rng.choice([2, 9, 20])
        lines = ["a0: &a0 [x, y]"]
        for level in range(1, deep):
            use = ", ".join([f"*a{level - 1}"] * wide)
            lines.append(f"a{level}: &a{level} [{use}]")
        if rng.random() < 0.5:
            lines = [line.replace("[x, y]", "{k: v}").replace("[", "{<<: [", 1).replace("]", "]}", 1) for line in lines]
        path.write_text("\n".join([*lines, "kind: table", f"path: {world.corpus / 't.csv'}"]), "utf-8")
        what = f"{deep} levels of {wide} anchors"
    elif kind == 2:
        text = rng.choice(["[" * 20_000, "{a: " * 5_000, "- " * 10_000, "a: " + "9" * 9_000, "? " * 3_000,
                           "!!python/none x", "--- a\n--- b\n", "\t- a", "a: 2026-99-99", "&a [*a]", "a: !!binary ~",
                           "&a {b: *a}"])  # fmt: skip
        path.write_text(text, "utf-8")
        what = text[:20]
    else:
        path.write_bytes(garble(yaml.safe_dump(values).encode(), rng))
        what = "garbled"
    return Trial(f"YAML: {what}", ["corpus", "count", str(path)], must_fail=kind in (1, 2))


def recipe(world: World, folder: Path, rng: Random) -> Trial:
    """A number of a recipe that makes no sense, or is no number."""
    keys = ("steps", "seed", "save_every", "keep", "log_every", "dialogues", "layers", "width", "heads", "kv_heads",
            "mlp", "context", "batch", "optimiser.lr", "optimiser.betas", "optimiser.eps", "optimiser.weight_decay",
            "optimiser.clip", "optimiser.warmup_steps", "optimiser.final_lr", "engine.micro_batches", "out", "texts",
            "tokenizer", "kind", "optimiser", "engine")  # fmt: skip
    key = rng.choice(keys)
    value = rng.choice(
        [".nan", ".inf", "-1", "1e400", str(2**70), "many", "[]", "{}", "null", "-.inf", "[1, 1]", "!!set x"]
    )
    number = key not in ("out", "texts", "tokenizer", "kind", "optimiser", "engine")
    out = folder / "run"
    overrides = [f"{key}={value}"] if key == "out" else [f"out={out}", f"{key}={value}"]
    must_fail = number and value not in ("-1", "[1, 1]", "[]", "{}", "null")
    arguments = ["train", str(world.folder / "recipe.yaml"), *overrides]
    return Trial(f"{key}={value}", arguments, must_fail=must_fail, absent=(out,))


def codec(world: World, folder: Path, rng: Random) -> Trial:
    """A codec's folder with a damaged configuration or damaged weights."""
    shutil.copytree(world.model / "audio_tokenizer", folder / "codec")
    weights = folder / "codec" / "model.safetensors"
    if rng.random() < 0.7:
        what, must_fail = damaged_json(folder / "codec" / "config.json", rng), False
    else:
        content = weights.read_bytes()
        weights.write_bytes(cut(content, rng) if rng.random() < 0.5 else flip(content, rng, 0, 4000))
        what, must_fail = "weights", len(weights.read_bytes()) < len(content)
    out = folder / "t.safetensors"
    arguments = ["tokenize", str(world.corpus / "0.wav"), "--codec", str(folder / "codec"), "--out", str(out)]
    return Trial(f"codec: {what}", arguments, must_fail=must_fail, absent=(out,))


def model(world: World, folder: Path, rng: Random) -> Trial:
    """A model's folder one file of which is damaged or gone."""
    shutil.copytree(world.model, folder / "model")
    files = sorted(path for path in (folder / "model").rglob("*") if path.is_file() and path.name != "README.md")
    path = rng.choice(files)
    what, must_fail = str(path.relative_to(folder)), False
    if path.suffix == ".json" and rng.random() < 0.7:
        what = damaged_json(path, rng)
    elif rng.random() < 0.2:
        path.unlink()
        what = f"{what} gone"
    else:
        content = path.read_bytes()
        path.write_bytes(cut(content, rng))
        must_fail = path.suffix in (".safetensors", ".model")
        what = f"{what} cut"
    arguments = ["transcribe", str(world.corpus / "0.wav"), "--model", str(folder / "model"), "--max-rows", "2"]
    return Trial(f"model: {what}", arguments, must_fail=must_fail)


def store(world: World, folder: Path, rng: Random) -> Trial:
    """A token store with a damaged shard or list of shards."""
    shutil.copytree(world.store, folder / "store")
    path = rng.choice(sorted(p for p in (folder / "store").iterdir() if p.is_file()))
    must_fail = True
    if path.suffix == ".json":
        what = damaged_json(path, rng)
        must_fail = not same_json(path, world.store / path.name)
    else:
        content = path.read_bytes()
        path.write_bytes(flip(content, rng) if rng.random() < 0.5 else cut(content, rng))
        what = f"{path.name} damaged"

    def read() -> int:
        from auditory_sentences.token_store import TokenStore

        held, whole = TokenStore(folder / "store"), TokenStore(world.store)
        same = [clip.tokens.equal(other.tokens) for clip, other in zip(held, whole, strict=True)]
        return 0 if all(same) else 3

    return Trial(f"store: {what}", action=read, must_fail=must_fail)


def checkpoint(world: World, folder: Path, rng: Random) -> Trial:
    """A run whose newest checkpoint, or log, is damaged, and which is to go on."""
    shutil.copytree(world.run, folder / "run", symlinks=True)
    newest = sorted((folder / "run" / "checkpoints").iterdir())[-1]
    places = [p for p in newest.rglob("*") if p.is_file()] + [folder / "run" / "metrics.jsonl"]
    path = rng.choice(sorted(p for p in places if p.exists()))
    before = path.read_bytes()
    what = str(path.relative_to(folder))
    if path.suffix == ".json" and rng.random() < 0.5:
        what = damaged_json(path, rng)
    elif rng.random() < 0.2 and path.suffix != ".jsonl":
        path.unlink()
    else:
        path.write_bytes(garble(before, rng))
    changed = not path.exists() or path.read_bytes() != before

    def check(result: Result) -> str:
        silent = "passed over" not in result.out + result.err and not result.err.strip()
        return "went on from a damaged checkpoint" if changed and silent and path.suffix != ".jsonl" else ""

    arguments = ["train", str(world.folder / "recipe.yaml"), f"out={folder / 'run'}", "steps=3", "--resume"]
    return Trial(f"checkpoint: {what}", arguments, check=check)


def tokens(world: World, folder: Path, rng: Random) -> Trial:
    """A damaged token file, to be made sound."""
    path = folder / "t.safetensors"
    content = (world.folder / "t.safetensors").read_bytes()
    path.write_bytes(garble(content, rng))
    shorter = len(path.read_bytes()) < len(content)
    out = folder / "a.wav"
    arguments = [
        "detokenize",
        str(path),
        "--out",
        str(out),
        "--steps",
        "1",
        "--codec",
        str(world.model / "audio_tokenizer"),
    ]
    return Trial("token file garbled", arguments, must_fail=shorter, precious=(path,), absent=(out,))


def number(world: World, folder: Path, rng: Random) -> Trial:
    """A number on the command line that is none, or out of every range."""
    codec, out, suite = world.model / "audio_tokenizer", folder / "a.wav", world.folder / "suite.yaml"
    verbs = {
        "speak": f"speak one --model {world.model} --out {out} --max-seconds 0.4".split(),
        "compose": f"compose bell --model {world.model} --out {out} --max-seconds 0.4".split(),
        "detokenize": f"detokenize {world.folder / 't.safetensors'} --codec {codec} --out {out} --steps 1".split(),
        "transcribe": f"transcribe {world.corpus / '0.wav'} --model {world.model} --max-rows 4".split(),
        "evaluate": f"evaluate --codec {codec} --suite {suite} --corpus {world.corpus / 'c.yaml'} --limit 1 --out "
        f"{folder / 'report'}".split(),
    }
    verb = rng.choice(sorted(verbs))
    option, value = rng.choice(_numeric_options(verb)), rng.choice(WRONG_NUMBERS)
    must_fail = value not in ("-1", "٣")
    return Trial(
        f"{verb} {option} {value!r}",
        [*verbs[verb], f"{option}={value}"],
        must_fail=must_fail,
        absent=(folder / "a.wav",),
    )


def _numeric_options(verb: str) -> list[str]:
    """Options of a verb that take a number."""
    if verb == "evaluate":
        return [option.flag for option in options().values() if option.is_number]
    command = typer.main.get_command(app).commands[verb]
    return [parameter.opts[0] for parameter in command.params if parameter.metavar in ("INTEGER", "NUMBER")]


def place(world: World, folder: Path, rng: Random) -> Trial:
    """A result that is to go where it cannot, or must not."""
    recording, other = folder / "a.wav", folder / "other.safetensors"
    shutil.copy(world.corpus / "0.wav", recording)
    other.write_text("precious")
    (folder / "link.safetensors").symlink_to(recording)
    (folder / "hanging.safetensors").symlink_to(folder / "nowhere" / "x")
    (folder / "loop").symlink_to(folder / "loop")
    os.mkfifo(folder / "pipe")  # stands for /dev/null too, which a fault would cost whoever runs this as root
    out = rng.choice([
        recording, other, folder / "link.safetensors", folder / "loop", folder / "loop" / "x.safetensors", folder,
        folder / "other.safetensors" / "x.safetensors", folder / ("n" * 300), folder / "pipe",
        "", ".", "..", folder / "\x1b[2J.safetensors", folder / "a\nb.safetensors", "~",
        folder / "hanging.safetensors",
    ])  # fmt: skip
    arguments = ["tokenize", str(recording), "--codec", str(world.model / "audio_tokenizer"), "--out", str(out)]
    allowed = ("\n", "\x1b", "hanging", "~")
    must_fail = not any(mark in str(out) for mark in allowed)
    if str(out) == "~":
        arguments[-1] = str(folder / "~")
    return Trial(f"--out {str(out)!r}", arguments, must_fail=must_fail, precious=(recording, other))


def released(world: World, folder: Path, rng: Random) -> Trial:
    """A damaged checkpoint or configuration of a release."""
    shutil.copytree(world.released, folder / "released")
    lm, config = folder / "released" / "lm.pt", folder / "released" / "llm_config.yaml"
    if rng.random() < 0.5:
        lm.write_bytes(garble(lm.read_bytes(), rng))
        what = "lm.pt garbled"
    else:
        values = yaml.safe_load(config.read_text())
        at, value = rng.choice(list(places(values))), rng.choice(WRONG_VALUES)
        config.write_text(yaml.safe_dump(with_value(values, at, value)))
        what = f"llm_config.yaml with {at} = {value!r}"
    out = folder / "model"
    return Trial(what, ["import-published", "--lm", str(lm), "--config", str(config), "--out", str(out)], absent=(out,))


def task(world: World, folder: Path, rng: Random) -> Trial:
    """A task or suite that asks for what there is not."""
    shutil.copy(world.folder / "task.yaml", folder / "task.yaml")
    values = yaml.safe_load((folder / "task.yaml").read_text())
    suite = {"suite": "s", "title": "S", "about": "S.", "tasks": [str(folder / "task.yaml")]}
    wrong = (*WRONG_VALUES, "../../escaped", "/tmp/escaped", "a/b", "<script>", "a|b\nc")
    which = rng.choice([values, suite])
    at, value = rng.choice(list(places(which))), rng.choice(wrong)
    (folder / "task.yaml").write_text(yaml.safe_dump(with_value(values, at, value) if which is values else values))
    (folder / "suite.yaml").write_text(yaml.safe_dump(with_value(suite, at, value) if which is suite else suite))
    arguments = ["evaluate", "--codec", str(world.model / "audio_tokenizer"), "--suite", str(folder / "suite.yaml"),
                 "--corpus", str(world.corpus / "c.yaml"), "--out", str(folder / "deep" / "report"), "--limit", "1",
                 "--untrained-limit", "0", "--processes", "1"]  # fmt: skip
    outside = (folder / "escaped", folder.parent / "escaped", Path("/tmp/escaped"))

    def check(result: Result) -> str:
        return "wrote outside its folder" if any(path.exists() for path in outside) else ""

    return Trial(f"{at} = {value!r}", arguments, check=check)


def chat(world: World, folder: Path, rng: Random) -> Trial:
    """A session of odd lines; the last one must be reached."""
    commands = ("/set temperature", "/set seed", "/set top_k", "/set guidance", "/set max_rows", "/set steps",
                "/set memory", "/set", "/listen", "/describe", "/ask", "/shot", "/example", "/save", "/history",
                "/undo", "/voice", "/denoise", "/edit", "/tasks",
                "/nothing", "/tokens", "/say", "/set voice")  # fmt: skip
    rests = (*WRONG_NUMBERS, "'", '"a b', "=>", "a => ", '"=>" => x', str(world.corpus / "0.wav"), "\\",
             "nowhere.wav q", "\x1b[2J", "!!!", "371", "\u202e", str(folder), "/dev/zero", "x" * 10_000)  # fmt: skip
    lines = ["/set max_rows 8"] + [f"{rng.choice(commands)} {rng.choice(rests)}" for _ in range(6)]
    lines += ["/set max_rows 8", "/set voice still here"]
    typed = "\n".join(lines).encode() + rng.choice([b"", b"\n", b"\r\n", b"\n\xff\xfe\n"])

    def check(result: Result) -> str:
        return "" if "still here" in result.out else "the last line was not reached"

    arguments = ["chat", "--model", str(world.model), "--out", str(folder / "sound")]
    return Trial(" | ".join(line[:40] for line in lines), arguments, typed=typed, check=check)


ATTACKS: dict[str, Attack] = {
    attack.__name__: attack
    for attack in (sound, table, description, recipe, codec, model, store, checkpoint, tokens, number, place, released,
                   task, chat)
}  # fmt: skip
