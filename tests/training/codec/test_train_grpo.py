"""GRPO: the policy samples and weighs what it says exactly, the reward rises, and runs resume bit for bit."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from auditory_sentences.builders.analysis import write_analysis
from auditory_sentences.builders.prompts import PromptBank
from auditory_sentences.corpora.read import read_corpora
from codec.io.errors import UserError
from codec.reasoning.descriptive_encoder import DescriptiveEncoder
from lm.text_tokenizer import TextTokenizer
from tests import ROOT
from training.codec import train_grpo
from training.codec.audio_llm import load_audio_llm
from training.codec.audio_qa import AudioQAConfig
from training.codec.train_descriptive import DescriptiveRecipe
from training.codec.train_descriptive import run as train_descriptive
from training.codec.train_grpo import GrpoRecipe, run
from training.lm.audio_projector import AudioProjector
from training.lm.train_text import TextModelRecipe
from training.lm.train_text import run as train_text
from training.metrics import read_metrics
from training.recipe import load_recipe, parse
from training.rl.llm_judge import JudgeRecipe
from training.rl.policy import Policy
from training.rl.policy_loss import group_advantages

RECIPES = ROOT / "recipes"
CLASSES = ("bell", "bird")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two dozen tones, low ones called bell and high ones bird; the first four say something."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    lines = []
    for number in range(24):
        high, split = number % 2, "dev" if number >= 18 else "train"
        time = np.arange(rng.integers(9000, 24000)) / 24000
        wave = 0.4 * np.sin(2 * np.pi * rng.uniform(0.9, 1.1) * (400, 2500)[high] * time)
        soundfile.write(folder / f"{number}.wav", wave, 24000)
        line = {"id": f"clip-{number}", "path": f"{number}.wav", "split": split, "caption": "a sound"}
        if number < 4:
            line |= {"kind": "speech", "text": ("one two", "nine")[high], "caption": "a voice"}
        else:
            line |= {"kind": "sound", "labels": {"class": CLASSES[high]}}
        lines.append(line)
    (folder / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def text_model(tmp_path_factory, corpus):
    folder = tmp_path_factory.mktemp("text")
    lines = [f"USER: x\nwhat is heard?\nASSISTANT: {write_analysis(clip)}" for clip in read_corpora((str(corpus),))]
    (folder / "text.txt").write_text("\n".join(line.replace("\n", " ") for line in lines * 10))
    values = {
        "out": str(folder / "run"),
        "steps": 150,
        "log_every": 150,
        "texts": [str(folder / "text.txt")],
        "vocabulary": 400,
        "layers": 2,
        "width": 32,
        "mlp": 64,
        "context": 48,
        "batch": 4,
        "optimiser": {"lr": 1e-2, "warmup_steps": 3},
    }
    return str(train_text(parse(TextModelRecipe, values, "the test")).resolve())


@pytest.fixture(scope="module")
def supervised(corpus, text_model, tmp_path_factory):
    """A descriptive run that was stopped when it knew how an analysis looks, but not yet what to say when."""
    values = {
        "out": str(tmp_path_factory.mktemp("supervised") / "run"),
        "corpora": [str(corpus)],
        "text_model": text_model,
        "steps": 30,
        "log_every": 10,
        "descriptive": {
            "speech_dim": 128,
            "music_dim": 120,
            "dim": 32,
            "heads": 2,
            "rope_dims": 8,
            "blocks": 1,
            "quantiser": {"codebook_size": 16, "codebook_dim": 8, "dead_code_threshold": 0.1, "kmeans_init": True},
        },
        "lora": {"rank": 4, "alpha": 8, "dropout": 0.1},
        "tasks": {"analysis": 1.0},
        "held_out_tasks": ["analysis"],
        "alignment_weight": 0.1,
        "batch": 4,
        "quantise_after": 10,
        "cache_features": True,
        "optimiser": {"lr": 3e-3, "warmup_steps": 3},
    }
    return str(train_descriptive(parse(DescriptiveRecipe, values, "the test")).resolve())


def tiny(corpus: Path, text_model: str, supervised: str, out: Path, **changes) -> GrpoRecipe:
    values = {
        "out": str(out),
        "corpora": [str(corpus)],
        "init": supervised,
        "text_model": text_model,
        "steps": 4,
        "save_every": 2,
        "keep": 3,
        "log_every": 1,
        "batch": 3,
        "group": 4,
        "max_new_tokens": 24,
        "cache_features": True,
        "optimiser": {"lr": 2e-3, "warmup_steps": 1},
    }
    return parse(GrpoRecipe, values | changes, "the test")


@pytest.fixture
def policy(text_model, supervised):
    branch = DescriptiveEncoder.from_pretrained(supervised).branch
    tokenizer = TextTokenizer.from_pretrained(text_model)
    audio_llm, *_ = load_audio_llm(branch, Path(supervised), text_model, tokenizer, torch.float32)
    return Policy(audio_llm, temperature=0.9)


def test_equal_rewards_leave_every_weight_where_it_was(corpus, text_model, supervised, tmp_path, monkeypatch):
    """No advantage, no price: the update is exactly nothing."""
    monkeypatch.setattr(train_grpo, "weighted_mean", lambda *_: 0.3)
    changes = {"kl_weight": 0.0, "commitment_weight": 0.0, "optimiser": {"lr": 1e-2, "weight_decay": 0.0}}
    folder = run(tiny(corpus, text_model, supervised, tmp_path / "run", steps=2, max_new_tokens=120, **changes))
    entries = read_metrics(tmp_path / "run")
    assert all(entry["ended"] == 1 and entry["grad_norm"] == 0 for entry in entries)
    for name in ("model.safetensors", "audio_llm.safetensors"):
        ours, theirs = load_file(folder / name), load_file(Path(supervised) / name)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.fixture(scope="module")
def birds(corpus, tmp_path_factory):
    """The birds alone: what an analysis should say no longer needs to be heard, only learned from the reward."""
    folder = tmp_path_factory.mktemp("birds")
    lines = [json.loads(line) for line in (corpus / "clips.jsonl").read_text().splitlines()]
    lines = [line | {"path": str(corpus / line["path"])} for line in lines if line.get("labels") == {"class": "bird"}]
    (folder / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.mark.slow
def test_the_reward_rises(birds, text_model, supervised, tmp_path):
    changes = {
        "steps": 40,
        "save_every": 40,
        "validate_every": 40,
        "batch": 6,
        "group": 8,
        "rewards": {"format": 1.0, "tags": 1.0},
        "optimiser": {"lr": 3e-3, "warmup_steps": 1, "schedule": "constant"},
    }
    folder = run(tiny(birds, text_model, supervised, tmp_path / "run", **changes))
    entries = read_metrics(tmp_path / "run")
    steps = [entry for entry in entries if "reward" in entry]
    first, last = (np.mean([entry["reward"] for entry in part]) for part in (steps[:5], steps[-5:]))
    assert last > first + 0.1
    assert steps[0]["kl"] == 0 < steps[-1]["kl"]
    assert all(entry["clipped"] == 0 for entry in steps)  # one update of each group: its ratio to itself is 1
    assert {"reward_format", "reward_tags", "reward_deviation", "analyses_per_second"} <= steps[-1].keys()
    assert entries[-1]["val/reward"] > 0.75 and "val/reward_tags" in entries[-1]
    DescriptiveEncoder.from_pretrained(folder)
    assert AudioProjector.load(folder / "audio_llm.safetensors").adapters


def test_without_the_branch_every_clip_keeps_its_codes(corpus, text_model, supervised, tmp_path):
    folder = run(tiny(corpus, text_model, supervised, tmp_path / "run", train_branch=False, steps=2))
    before, after = (load_file(Path(place) / "model.safetensors") for place in (supervised, folder))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    before, after = (load_file(Path(place) / "audio_llm.safetensors") for place in (supervised, folder))
    assert not torch.equal(before["projection.weight"], after["projection.weight"])


@pytest.mark.parametrize("updates", [1, 2])
def test_interrupted_equals_uninterrupted(corpus, text_model, supervised, tmp_path, updates):
    whole = run(tiny(corpus, text_model, supervised, tmp_path / "whole", updates=updates))
    run(tiny(corpus, text_model, supervised, tmp_path / "cut", updates=updates))
    (tmp_path / "cut" / "checkpoints" / "step-00000004").rename(tmp_path / "set_aside")  # as if killed before it
    resumed = run(tiny(corpus, text_model, supervised, tmp_path / "cut", updates=updates), resume=True)
    for name in ("model.safetensors", "audio_llm.safetensors"):
        ours, theirs = load_file(whole / name), load_file(resumed / name)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    ours, theirs = (
        [[e[name] for name in ("reward", "kl", "grad_norm")] for e in read_metrics(tmp_path / run)]
        for run in ("whole", "cut")
    )
    assert ours == theirs


@pytest.mark.parametrize(
    "changes",
    [
        {"engine": {"zero_stage": 2}},
        {"engine": {"micro_batches": 2, "precision": "mixed"}},
        {"engine": {"precision": "mixed"}, "text_precision": "bf16"},
    ],
)
def test_the_policy_starts_from_its_reference_in_every_engine(corpus, text_model, supervised, tmp_path, changes):
    run(tiny(corpus, text_model, supervised, tmp_path / "run", steps=2, **changes))
    entries = read_metrics(tmp_path / "run")
    assert entries[0]["kl"] == entries[0]["clipped"] == 0 and entries[0]["grad_norm"] > 0 < entries[1]["kl"]


def test_the_same_updates_with_sharded_optimiser_states(corpus, text_model, supervised, tmp_path):
    plain, sharded = ({"zero_stage": stage} for stage in (0, 2))
    entries = []
    for name, engine in (("plain", plain), ("sharded", sharded)):
        run(tiny(corpus, text_model, supervised, tmp_path / name, steps=2, updates=2, engine=engine))
        entries.append([[e["kl"], e["policy"], e["grad_norm"]] for e in read_metrics(tmp_path / name)])
    np.testing.assert_allclose(*entries, rtol=1e-3, atol=1e-6)


def test_another_supervised_model_is_refused_when_resumed(corpus, text_model, supervised, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for file in Path(supervised).iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    recipe = tiny(corpus, text_model, str(other), tmp_path / "run", steps=2)
    run(recipe)
    state = load_file(other / "model.safetensors")
    save_file({name: tensor + 1e-3 for name, tensor in state.items()}, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="init: .*not what the run was trained on"):
        run(recipe, resume=True)


class _Partial:
    """A judge that likes bells and cannot make up its mind about the rest."""

    def score(self, pairs):
        assert all(truth.startswith("summary: a ") for truth, _ in pairs)
        return [0.8 if "bell" in said else None for _, said in pairs]


def test_the_judges_reward_counts_and_no_score_pays_nothing(policy, corpus, text_model, supervised, tmp_path):
    judge = JudgeRecipe(kind="endpoint", model="m", url="http://x")
    recipe = tiny(
        corpus, text_model, supervised, tmp_path, rewards={"judge": 1.0}, judge=vars(judge), max_new_tokens=60
    )
    clips = [clip for clip in read_corpora(recipe.corpora) if clip.split == "train"]
    encoder = DescriptiveEncoder.from_pretrained(supervised)
    config = AudioQAConfig(bank=PromptBank.load(), batch=3, max_seconds=30)
    data = train_grpo.AudioQADataset(clips, {"analysis": 1.0}, encoder, config, 0)
    rollout = train_grpo.roll_out(policy, data.batch(0), recipe, _Partial(), (1, 0), torch.device("cpu"))
    said = [policy.audio_llm.tokenizer.decode(answer) for answer in rollout.answers]
    assert len(said) == 12 and 0 < rollout.facts["judge_unreadable"] < 1
    ended = [answer[-1] == policy.audio_llm.tokenizer.eos for answer in rollout.answers]
    rewards = torch.tensor([0.8 * ("bell" in text and end) for text, end in zip(said, ended, strict=True)])
    torch.testing.assert_close(rollout.advantages, group_advantages(rewards.view(3, 4)).flatten())


def test_a_start_that_is_no_descriptive_run_is_named(corpus, text_model, supervised, tmp_path):
    with pytest.raises(UserError, match="holds no trained descriptive branch"):
        run(tiny(corpus, text_model, text_model, tmp_path / "a"))
    folder = tmp_path / "half"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((Path(supervised) / name).read_bytes())
    with pytest.raises(UserError, match="audio_llm.safetensors: cannot be read .* kind descriptive"):
        run(tiny(corpus, text_model, str(folder), tmp_path / "b"))
    save_file({"projection.weight": torch.zeros(2, 2)}, folder / "audio_llm.safetensors", {"lora_scale": "1"})
    with pytest.raises(UserError, match="audio_llm.safetensors: no audio LLM can be read"):
        run(tiny(corpus, text_model, str(folder), tmp_path / "c"))
    state = load_file(Path(supervised) / "audio_llm.safetensors")
    odd = {name: t[:, :3].contiguous() if "lora_A" in name else t for name, t in state.items()}
    save_file(odd, folder / "audio_llm.safetensors", {"lora_scale": "2"})
    with pytest.raises(UserError, match="does not fit .* the text model that the descriptive run"):
        run(tiny(corpus, text_model, str(folder), tmp_path / "d"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group": 1}, "'group' must be at least 2"),
        ({"rewards": {"wrods": 1.0}}, "rewards: name some of .*, not 'wrods'"),
        ({"rewards": {"words": 0.0}}, "'rewards.words' must be above 0"),
        ({"rewards": {"judge": 1.0}}, "belong together"),
        ({"clip": 1.5}, "'clip' must be above 0 and below 1"),
        ({"engine": {"zero_stage": 3}}, "zero_stage 3"),
    ],
)
def test_recipes_that_make_no_sense(changes, message):
    with pytest.raises(UserError, match=message):
        tiny(Path("x"), "x", "x", Path("x"), **changes)


@pytest.mark.parametrize("name", ["starter/grpo.yaml", "full/grpo.yaml"])
def test_the_shipped_recipes_are_valid(name):
    assert isinstance(load_recipe(RECIPES / name), GrpoRecipe)
