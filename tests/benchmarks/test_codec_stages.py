"""The command that rebuilds clips from every stage of a codec, on a tiny codec with random weights."""

import json
import sys

import pytest
import torch

from codec.io.errors import UserError
from codec.reasoning.structural_branch import BRANCHES
from tests.factories.codec import noise
from tests.factories.evaluation import write_corpus
from tests.factories.uniaudio import tiny_codec

TASK = """task: tones
version: 1
title: Tones
about: Voices through the codec and back.
request: reconstruction
data: {kind: speech, split: test}
scores:
  - {name: mel distance, metric: mel_distance, scorer: waveform}
"""


@pytest.fixture(scope="module")
def codec():
    return tiny_codec()


def test_the_last_stage_is_the_codec(benchmark_module, codec):
    stages = benchmark_module("codec_stages").Stages(codec)
    ways = dict(stages.ways([2], [1.5]))
    clip = noise(5 * 24_000 + 77)  # two windows of the flow
    tokens = codec.encode(clip[None])
    expected = codec.decode(tokens, steps=2, guidance=1.5)[0]
    assert torch.equal(ways["flow, ids, 2 steps, guidance 1.5"](clip), expected)
    assert not torch.equal(ways["flow, no codebooks, 2 steps, guidance 1.5"](clip), expected)


def test_a_stage_passes_the_codebooks_of_the_branches_it_names(benchmark_module, codec):
    structure = benchmark_module("codec_stages").Stages(codec).structure(noise(30_000))
    assert torch.equal(structure.vectors(BRANCHES), structure.points["quantised"])
    for name in BRANCHES:
        changed = structure.vectors([name]) - structure.vectors([])
        torch.testing.assert_close(changed, structure.coded[name] - structure.free[name])


def test_every_way_keeps_the_length(benchmark_module, codec):
    stages = benchmark_module("codec_stages").Stages(codec)
    ways = dict(stages.ways([1], [1.0])) | stages.fitted([noise(24_000, seed) for seed in range(3)])
    assert [name for name in ways if "linear" in name] == [
        f"linear, {point}" for point in ("features", "fused", "projected", "quantised")
    ]
    for n in (1, 959, 24_001):
        for name, rebuild in ways.items():
            made = rebuild(noise(n))
            assert made.shape == (n,) and made.isfinite().all(), name


def test_ridge_finds_an_affine_map_and_shrinks_with_strength(benchmark_module):
    ridge = benchmark_module("codec_stages").ridge
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(200, 5, generator=generator), torch.randn(5, 3, generator=generator)
    y = x @ weight + 2.0
    torch.testing.assert_close(ridge(x, y, 1e-9)(x), y, rtol=1e-4, atol=1e-4)
    assert ridge(x, y, 100.0)(x).var() < 0.1 * y.var()


def test_rows(benchmark_module, monkeypatch, capsys, tmp_path, codec):
    write_corpus(tmp_path / "corpus", train=2, test=2)
    codec.save_pretrained(tmp_path / "codec")
    (tmp_path / "tones.yaml").write_text(TASK)
    arguments = ["--codec", tmp_path / "codec", "--corpus", tmp_path / "corpus", "--tasks", tmp_path / "tones.yaml"]
    arguments += ["--steps", "1", "--guidance", "1", "--fit", tmp_path / "corpus", "--threads", 1, "--processes", 1]
    monkeypatch.setattr(sys, "argv", ["codec_stages.py", *map(str, arguments)])
    assert benchmark_module("codec_stages").main() == 0
    printed = capsys.readouterr()
    rows = {row["stage"]: row["mel distance"]["value"] for row in map(json.loads, printed.out.splitlines())}
    assert len(rows) == 15 and "linear, quantised" in printed.err
    assert rows["original"] == 0 < rows["magnitudes"]
    assert len(set(rows.values())) == len(rows)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("--tasks", "asr", "asks a model, not a codec"), ("--limit", "0", "must be at least 1")],
)
def test_bad_input(benchmark_module, monkeypatch, capsys, tmp_path, codec, option, value, message):
    codec.save_pretrained(tmp_path / "codec")
    write_corpus(tmp_path / "corpus", train=1, test=1)
    arguments = ["--codec", tmp_path / "codec", "--corpus", tmp_path / "corpus", option, value]
    monkeypatch.setattr(sys, "argv", ["codec_stages.py", *map(str, arguments)])
    with pytest.raises(UserError, match=message):
        benchmark_module("codec_stages").main()
    assert not capsys.readouterr().out


def test_clips_to_fit_must_be_there(benchmark_module, tmp_path):
    write_corpus(tmp_path / "corpus", train=0, test=1)
    with pytest.raises(UserError, match="no clip in split 'train'"):
        benchmark_module("codec_stages").training_clips([str(tmp_path / "corpus")], 5)
