"""Reflow: the distilled decoder does in two steps what its teacher does in many, and nothing else has changed."""

import json
from dataclasses import replace

import pytest
import soundfile
import torch
from safetensors.torch import load_file

from codec.io.errors import UserError
from codec.reasoning.flow_decoder import clip_noise
from codec.tokenizer import load_tokenizer
from tests.factories.codec import SMALL, noise, small_codec
from training.codec.feature_extractor import FrozenFeatures
from training.codec.train_reflow import Pairs, ReflowRecipe, Student, Teacher, run
from training.metrics import read_metrics
from training.recipe import parse

GUIDANCE = 3.0


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A corpus, and a tiny codec whose flow depends strongly on time and condition: its paths bend."""
    folder = tmp_path_factory.mktemp("parts")
    (folder / "corpus").mkdir()
    lines = []
    for i in range(10):
        soundfile.write(folder / "corpus" / f"{i}.wav", noise(4000 + 900 * i, seed=i).numpy(), 24_000)
        split = "dev" if i > 7 else "train"
        lines.append(json.dumps({"id": f"clip{i}", "path": f"{i}.wav", "kind": "sound", "split": split}) + "\n")
    (folder / "corpus" / "clips.jsonl").write_text("".join(lines))
    codec = small_codec(replace(SMALL, flow=replace(SMALL.flow, head_dim=16)))
    estimator = codec.flow.estimator
    with torch.no_grad():
        for layer in (estimator.time.linear_2, estimator.time.modulation, estimator.output.linear):
            layer.weight.mul_(3.0)
        estimator.input.conv.weight[:, 2 * codec.flow.latent_dim :].mul_(20.0)
    codec.save_pretrained(folder / "codec")
    return folder


def recipe_of(parts, out, **changes):
    values = {
        "out": str(out),
        "corpora": [str(parts / "corpus")],
        "init": str(parts / "codec"),
        "batch": 3,
        "crop_seconds": 0.4,
        "teacher_steps": 8,
        "teacher_guidance": GUIDANCE,
        "steps": 4,
        "save_every": 2,
        "log_every": 1,
        "optimiser": {"lr": 1e-3, "warmup_steps": 2},
    }
    return parse(ReflowRecipe, values | changes, "a test")


def weights_of(model):
    return load_file(model / "model.safetensors")


def length(values):
    return float(values.square().mean().sqrt())


@pytest.mark.slow
@pytest.mark.parametrize("times", ["uniform", "grid"])
def test_two_steps_come_nearer_to_many(parts, tmp_path, times):
    """On a clip that nobody has seen, in latents: the student unguided, the teacher with as many steps and guidance."""
    optimiser = {"lr": 5e-3, "warmup_steps": 10, "weight_decay": 0.0}
    changes = {"steps": 200, "save_every": 200, "log_every": 200, "validate_every": 200, "optimiser": optimiser}
    folder = run(recipe_of(parts, tmp_path / "run", times=times, batch=4, **changes))
    teacher, student = load_tokenizer(parts / "codec"), load_tokenizer(folder)
    tokens = teacher.encode(noise(9_600, seed=77)[None])[0]
    assert torch.equal(tokens["structural"], student.encode(noise(9_600, seed=77)[None])[0]["structural"])
    ids = tokens["structural"].T[None]
    z = clip_noise(2 * ids.shape[1], teacher.flow.latent_dim, 5)[None]
    mu = teacher.structural.condition(teacher.structural.dequantise(ids)).detach()
    many = teacher.flow.solve(z, mu, steps=8, guidance=GUIDANCE)
    few = length(teacher.flow.solve(z, mu, steps=2, guidance=GUIDANCE) - many)
    unguided = length(teacher.flow.solve(z, mu, steps=8, guidance=1.0) - many)
    ours = length(student.flow.solve(z, mu, steps=2, guidance=1.0) - many)
    entry = next(e for e in read_metrics(tmp_path / "run") if "val/distance" in e)
    assert ours < 0.6 * few
    assert ours < 0.5 * unguided  # what guidance does is in the weights
    assert entry["val/distance"] < 0.6 * entry["val/teacher_distance"]


def test_nothing_but_the_flow_learns_and_the_codec_is_whole(parts, tmp_path):
    folder = run(recipe_of(parts, tmp_path / "run", student_steps=3))
    before, after = weights_of(parts / "codec"), weights_of(folder)
    assert before.keys() == after.keys()
    codec = load_tokenizer(folder)
    learned = {f"flow.{name}" for name, _ in codec.flow.named_parameters()}
    for name, value in before.items():  # weights, codebooks and their averages, mean and spread of the latents
        assert torch.equal(value, after[name]) == (name not in learned), name
    tokens = codec.encode(noise(9_000)[None])[0]
    made = codec.decode([tokens])[0]
    assert made.shape == (9_000,)
    assert torch.equal(made, codec.decode([tokens], steps=3, guidance=1.0)[0])
    assert not torch.equal(made, codec.decode([tokens], steps=10, guidance=1.5)[0])


def test_a_resumed_run_is_the_uninterrupted_one(parts, tmp_path):
    # The schedule depends on `steps` after the warm-up only, so the first run stays inside a longer one.
    changes = {"optimiser": {"lr": 1e-3, "warmup_steps": 4}, "engine": {"micro_batches": 2}}
    straight = weights_of(run(recipe_of(parts, tmp_path / "straight", **changes)))
    run(recipe_of(parts, tmp_path / "cut", steps=2, **changes))
    resumed = weights_of(run(recipe_of(parts, tmp_path / "cut", **changes), resume=True))
    assert straight.keys() == resumed.keys()
    for name, value in straight.items():
        assert torch.equal(value, resumed[name]), name


def test_another_codec_is_refused_when_resumed(parts, tmp_path):
    mine = tmp_path / "codec"
    load_tokenizer(parts / "codec").save_pretrained(mine)
    run(recipe_of(parts, tmp_path / "run", init=str(mine), steps=2))
    small_codec(seed=9).save_pretrained(mine)
    with pytest.raises(UserError, match="init: .*not what the run was trained on"):
        run(recipe_of(parts, tmp_path / "run", init=str(mine)), resume=True)


def features_of(codec, recipe):
    """Features of two clips of unlike length, 8 and 10 latent frames."""
    lengths = torch.tensor([7_680, 9_600])
    waveforms = torch.stack([noise(9_600, seed=1), noise(9_600, seed=2)])
    waveforms[0, 7_680:] = 0
    features = codec.extract_features(waveforms, lengths)
    latents = codec.scalar.encode(waveforms, lengths).transpose(1, 2)
    return FrozenFeatures(
        features.values, features.structural_mask, codec.encode_descriptive(features)[0], latents, torch.tensor([8, 10])
    )  # fmt: skip


@torch.no_grad()
def test_a_pair_is_what_the_decoder_makes(parts, tmp_path):
    """The teacher's end of a pair is the solution under the condition that the ids alone give; a prefix stays."""
    recipe = recipe_of(parts, tmp_path, prefix_chance=1.0, prefix_share=0.9)
    codec = load_tokenizer(parts / "codec")
    features = features_of(codec, recipe)
    torch.manual_seed(4)
    pairs = Teacher(codec, recipe).pairs(features)
    assert 0 < pairs.prefix_frames < 8
    given = codec.flow.normalise(features.latents)[:, : pairs.prefix_frames]
    assert torch.equal(pairs.latents[:, : pairs.prefix_frames], given)
    ids = codec.structural(features.experts, features.descriptive, features.structural_mask).ids
    mu = codec.structural.condition(codec.structural.dequantise(ids))[:, :10]
    for row, frames in enumerate((8, 10)):
        alone = codec.flow.solve(
            pairs.noise[row : row + 1, :frames],
            mu[row : row + 1, :frames],
            context=codec.flow.normalise(features.latents)[row : row + 1, :frames],
            context_frames=pairs.prefix_frames,
            steps=8,
            guidance=GUIDANCE,
        )
        torch.testing.assert_close(pairs.latents[row, :frames], alone[0], atol=1e-4, rtol=1e-4)
    torch.manual_seed(4)
    again = Teacher(codec, recipe).pairs(features)
    assert torch.equal(again.latents, pairs.latents) and again.prefix_frames == pairs.prefix_frames


@torch.no_grad()
def test_the_student_learns_at_the_times_that_the_recipe_says(parts, tmp_path):
    codec = load_tokenizer(parts / "codec")
    seen = []
    codec.flow.estimator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    z = torch.randn(400, 2, codec.flow.latent_dim)
    pairs = Pairs(z, z + 1, torch.zeros(400, 2, 32), torch.ones(400, 2).bool(), z, 0)
    Student(codec.flow, recipe_of(parts, tmp_path, times="grid", student_steps=3))(pairs)
    Student(codec.flow, recipe_of(parts, tmp_path, times="uniform"))(pairs)
    grid, uniform = seen
    assert grid.unique().tolist() == pytest.approx([0, 1 / 3, 2 / 3])
    assert len(uniform.unique()) > 300 and 0 <= uniform.min() < 0.05 and 0.95 < uniform.max() <= 1


def test_distances_count_the_generated_frames_only():
    z = torch.zeros(2, 4, 3)
    pairs = Pairs(z, z.clone(), z, torch.arange(4) < torch.tensor([[4], [3]]), z, 1)
    there = torch.zeros(2, 4, 3)
    there[:, 0], there[1, 3] = 100.0, 100.0  # given, and beyond the second clip
    assert pairs.distance(there) == 0
    there[0, 2] = 2.0  # one of five frames
    assert float(pairs.distance(there)) == pytest.approx((4 / 5) ** 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 0}, "'batch' must be at least 1"),
        ({"teacher_guidance": 0.5}, "'teacher_guidance' must be at least 1"),
        ({"prefix_share": 1.5}, "'prefix_share' must be .* at most 1"),
        ({"corpora": []}, "'corpora' must not be empty"),
        ({"init": "nowhere"}, "nowhere"),
        ({"student_steps": 0}, "student_steps"),
        ({"student_steps": 8}, "below teacher_steps"),
        ({"times": "log"}, "uniform, grid"),
        ({"engine": {"precision": "bf16", "zero_stage": 1}}, "fp32 or mixed"),
        ({"engine": {"zero_stage": 3}}, "zero_stage 0 to 2"),
    ],
)
def test_bad_recipes_are_one_sentence(parts, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        run(recipe_of(parts, tmp_path / "run", **changes))
    assert not (tmp_path / "run" / "checkpoints").exists() or not list((tmp_path / "run" / "checkpoints").iterdir())


def test_a_distilled_codec_is_no_guided_teacher(parts, tmp_path):
    distilled = run(recipe_of(parts, tmp_path / "once", steps=1))
    with pytest.raises(UserError, match="set teacher_guidance to 1"):
        run(recipe_of(parts, tmp_path / "twice", init=str(distilled), steps=1))


def test_mixed_precision_leaves_what_is_frozen_alone(parts, tmp_path):
    before = weights_of(parts / "codec")
    full = weights_of(run(recipe_of(parts, tmp_path / "full", steps=1)))
    mixed = weights_of(run(recipe_of(parts, tmp_path / "mixed", steps=1, engine={"precision": "mixed"})))
    for name, value in before.items():
        if not name.startswith("flow.estimator"):
            assert torch.equal(value, mixed[name]), name
    assert any(not torch.equal(value, mixed[name]) for name, value in full.items())
