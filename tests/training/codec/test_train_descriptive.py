"""Supervised training of the descriptive branch: the audio LLM reads right, learns, and resumes bit for bit."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from auditory_sentences.builders.prompts import PromptBank
from auditory_sentences.corpora.read import read_corpus
from codec.io.errors import UserError
from codec.reasoning.descriptive_encoder import DescriptiveEncoder
from lm.text_tokenizer import TextTokenizer
from tests import ROOT
from training.codec.audio_llm import AudioLLM
from training.codec.audio_qa import AudioQAConfig, AudioQADataset, Augmentation, warped
from training.codec.supervision import load_descriptive_encoder
from training.codec.train_descriptive import DescriptiveRecipe, run, with_sizes
from training.lm.lora import LoraRecipe
from training.lm.prompt_template import Dialogue
from training.lm.train_text import TextModelRecipe
from training.lm.train_text import run as train_text
from training.metrics import read_metrics
from training.recipe import load_recipe, parse

RECIPES = ROOT / "recipes"
SIZES = {
    "speech_dim": 128,
    "music_dim": 120,
    "dim": 32,
    "heads": 2,
    "rope_dims": 8,
    "blocks": 1,
    "quantiser": {"codebook_size": 16, "codebook_dim": 8, "dead_code_threshold": 0.1, "kmeans_init": True},
}


@pytest.fixture(scope="module")
def text_model(tmp_path_factory):
    """A text model that knows which answers there are, though not when each is right."""
    folder = tmp_path_factory.mktemp("text")
    lines = ("a bell. what do you hear? bell", "a bird. what do you hear? bird", "one two", "nine")
    (folder / "text.txt").write_text("\n".join(lines * 50))
    values = {
        "out": str(folder / "run"),
        "steps": 250,
        "log_every": 250,
        "texts": [str(folder / "text.txt")],
        "dialogues": 1.0,
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
def corpus(tmp_path_factory):
    """Two dozen tones, low ones called bell and high ones bird; the first four say something."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    lines = []
    for number in range(24):
        high, split = number % 2, "dev" if number >= 16 else "train"
        time = np.arange(rng.integers(9000, 24000)) / 24000
        wave = 0.4 * np.sin(2 * np.pi * rng.uniform(0.9, 1.1) * (400, 2500)[high] * time)
        soundfile.write(folder / f"{number}.wav", wave, 24000)
        line = {"id": f"clip-{number}", "path": f"{number}.wav", "split": split}
        if number < 4:
            line |= {"kind": "speech", "text": ("one two", "nine")[high], "speaker": "x"}
        else:
            line |= {"kind": "sound", "caption": "a sound", "labels": {"class": ("bell", "bird")[high]}}
        lines.append(line)
    (folder / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def tiny(corpus: Path, text_model: str, out: Path, **changes) -> DescriptiveRecipe:
    values = {
        "out": str(out),
        "corpora": [str(corpus)],
        "text_model": text_model,
        "steps": 4,
        "save_every": 2,
        "keep": 3,
        "log_every": 1,
        "descriptive": SIZES,
        "lora": {"rank": 4, "alpha": 8, "dropout": 0.1},
        "tasks": {"audio_qa:class": 3.0, "asr": 1.0},
        "held_out_tasks": ["audio_qa:class"],
        "batch": 4,
        "quantise_after": 1,
        "alignment_weight": 0.1,
        "cache_features": True,
        "augmentation": {"time_masks": 1, "band_masks": 1, "warp": 0.05},
        "optimiser": {"lr": 3e-3, "warmup_steps": 3},
    }
    return parse(DescriptiveRecipe, values | changes, "the test")


@pytest.fixture
def audio_llm(text_model):
    torch.manual_seed(0)
    recipe = with_sizes(tiny(Path("x"), text_model, Path("x")))
    encoder = DescriptiveEncoder(recipe.experts, recipe.descriptive)
    return AudioLLM(
        encoder.branch,
        text_model,
        TextTokenizer.from_pretrained(text_model),
        LoraRecipe(rank=4, alpha=8, dropout=0.0),
        align=True,
    )


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return {
        "speech": torch.randn(2, 128, 60, generator=generator),
        "music": torch.randn(2, 120, 30, generator=generator),
        "frames": torch.tensor([30, 12]),
        "dialogues": [Dialogue("Transcribe the speech.", "one two three"), Dialogue("Which sound is this?", "bell")],
        "transcripts": ["one two three", ""],
    }


def test_only_branch_projection_and_adapters_learn(audio_llm, batch):
    out = audio_llm.train()(**batch, quantise=True)
    (out.answer + out.commitment + out.alignment).backward()
    learns = {name.split(".")[0] for name, p in audio_llm.named_parameters() if p.requires_grad}
    assert learns == {"branch", "text_model", "projection", "alignment"}
    for name, parameter in audio_llm.named_parameters():
        if "text_model" in name:
            assert parameter.requires_grad == ("lora_" in name)
        elif not name.startswith("branch.quantiser"):
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert out.codes.shape == (2, 6, 8) and (out.codes[1, 3:] == -1).all()


@torch.no_grad()
def test_the_loss_is_that_of_the_answers_alone(audio_llm, batch):
    """Against one plain forward pass for each example."""
    audio_llm.train()(**batch, quantise=True)  # gives the codebooks their first codes
    audio_llm.eval()
    total, count = 0.0, 0
    table = audio_llm.text_model.get_input_embeddings()
    for row, (frames, dialogue) in enumerate(zip([30, 12], batch["dialogues"], strict=True)):
        heard = audio_llm.branch(
            batch["speech"][row : row + 1, :, : 2 * frames], batch["music"][row : row + 1, :, :frames]
        )
        before, between, answer = (torch.tensor(ids) for ids in dialogue.ids(audio_llm.tokenizer))
        rows = [table(before), audio_llm.projection(heard.quantised[0]), table(between), table(answer)]
        logits = audio_llm.text_model(inputs_embeds=torch.cat(rows)[None]).logits[0]
        total += F.cross_entropy(logits[-len(answer) - 1 : -1], answer, reduction="sum")
        count += len(answer)
    torch.testing.assert_close(audio_llm(**batch, quantise=True).answer, total / count, atol=1e-4, rtol=1e-4)


def test_an_answer_in_a_batch_is_the_answer_alone(audio_llm, batch):
    audio_llm.train()(**batch, quantise=True)
    audio_llm.eval()
    questions = [dialogue.question for dialogue in batch["dialogues"]]
    together = audio_llm.answer(batch["speech"], batch["music"], batch["frames"], questions, max_new_tokens=6)
    assert len(together) == 2
    for row, frames in enumerate((30, 12)):
        one = slice(row, row + 1)
        speech, music = batch["speech"][one, :, : 2 * frames], batch["music"][one, :, :frames]
        assert audio_llm.answer(speech, music, torch.tensor([frames]), questions[one], max_new_tokens=6) == [
            together[row]
        ]


def listening(corpus, text_model, **changes) -> AudioQADataset:
    recipe = with_sizes(tiny(corpus, text_model, Path("x")))
    arguments = {
        "clips": [clip for clip in read_corpus(corpus) if clip.split == "train"],
        "tasks": recipe.tasks,
        "encoder": DescriptiveEncoder(recipe.experts, recipe.descriptive),
    }
    config = {"batch": 4, "max_seconds": 30, "augmentation": recipe.augmentation, "cache_features": True}
    config = AudioQAConfig(bank=PromptBank.load(), **{name: changes.pop(name, value) for name, value in config.items()})
    return AudioQADataset(*(arguments | changes).values(), config, 7)


def test_batches_are_a_function_of_their_number(corpus, text_model):
    first, second = listening(corpus, text_model), listening(corpus, text_model)
    second.batch(0)  # another order of asking
    for index in (5, 2):
        ours, theirs = first.batch(index), second.batch(index)
        assert ours.examples == theirs.examples
        assert torch.equal(ours.speech, theirs.speech) and torch.equal(ours.music, theirs.music)
    assert first.batch(5).examples != first.batch(2).examples


def test_every_answer_is_true(corpus, text_model):
    data = listening(corpus, text_model)
    seen = [example for index in range(20) for example in data.batch(index).examples]
    assert {example.task for example in seen} == {"audio_qa:class", "asr"}
    assert 0.1 < sum(example.task == "asr" for example in seen) / len(seen) < 0.45
    for example in seen:
        expected = example.clip.text if example.task == "asr" else example.clip.labels["class"]
        assert example.dialogue.answer == expected


def test_held_out_questions_are_unchanged_features(corpus, text_model):
    data = listening(corpus, text_model)
    (batch,) = data.questions("audio_qa:class", 5)
    assert len(batch.examples) == 5
    for row, example in enumerate(batch.examples):
        speech, music = data._features([example])[0]
        assert torch.equal(batch.speech[row, :, : speech.shape[1]], speech)
        assert batch.frames[row] == music.shape[1]


def test_augmentation_silences_and_stretches(corpus, text_model):
    plain = listening(corpus, text_model, augmentation=Augmentation())
    masked = listening(corpus, text_model, augmentation=Augmentation(time_masks=2, time_width=4, band_masks=2))
    before, after = plain.batch(3), masked.batch(3)
    changed = before.speech != after.speech
    assert changed.any() and (after.speech[changed] == 0).all()
    assert (before.music != after.music).any()


def test_warping_moves_bands_by_the_factor():
    tone = torch.zeros(64, 2, 5)
    tone[20] = 1.0
    moved = warped(tone.flatten(0, 1), 1.1, stack=2).unflatten(0, (64, 2))
    assert moved[:, 0, 0].argmax() == moved[:, 1, 4].argmax() == 22
    assert torch.equal(warped(tone.flatten(0, 1), 1.0, stack=2), tone.flatten(0, 1))


@pytest.mark.slow
def test_learns_to_tell_bells_from_birds(corpus, text_model, tmp_path):
    """The answers stay a coin's toss (0.5) until the branch has found the difference.

    Hence enough steps, half of them without quantisation, and neither augmentation nor dropout nor a rate that jumps.
    """
    changes = {
        "steps": 300,
        "save_every": 300,
        "validate_every": 300,
        "quantise_after": 150,
        "tasks": {"audio_qa:class": 1},
        "lora": {"rank": 4, "alpha": 8, "dropout": 0.0},
        "augmentation": {},
        "optimiser": {"lr": 1e-3, "warmup_steps": 10},
    }
    folder = run(tiny(corpus, text_model, tmp_path / "run", **changes))
    entries = read_metrics(tmp_path / "run")
    scores = [entry["val/audio_qa:class"] for entry in entries if "val/audio_qa:class" in entry]
    assert scores[-1] >= 0.75
    logged = [entry for entry in entries if "answer" in entry]
    last = sum(entry["answer"] for entry in logged[-10:]) / 10
    assert last < 0.5 * logged[0]["answer"] and last < 0.3, "a coin's toss costs 0.35"
    assert ["descriptive_usage" in entry for entry in logged] == [entry["step"] > 150 for entry in logged]
    encoder = DescriptiveEncoder.from_pretrained(folder)
    with torch.no_grad():
        tones = torch.sin(2 * torch.pi * torch.tensor([[400.0], [2500.0]]) * torch.arange(20000) / 24000)
        codes = encoder(0.4 * tones, torch.tensor([20000, 20000])).codes
    assert not torch.equal(codes[0], codes[1])


def test_interrupted_equals_uninterrupted(corpus, text_model, tmp_path):
    whole = run(tiny(corpus, text_model, tmp_path / "whole"))
    run(tiny(corpus, text_model, tmp_path / "cut"))
    (tmp_path / "cut" / "checkpoints" / "step-00000004").rename(tmp_path / "set_aside")  # as if killed before it
    resumed = run(tiny(corpus, text_model, tmp_path / "cut"), resume=True)
    for name in ("model.safetensors", "audio_llm.safetensors"):
        ours, theirs = load_file(whole / name), load_file(resumed / name)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_trained_branch_learns_on(corpus, text_model, tmp_path):
    first = run(tiny(corpus, text_model, tmp_path / "first"))
    still = {"lr": 1e-12, "warmup_steps": 0}
    changes = {"init": str(tmp_path / "first"), "quantise_after": 0, "steps": 1}
    second = run(tiny(corpus, text_model, tmp_path / "second", optimiser=still, **changes))
    before, after = load_file(first / "audio_llm.safetensors"), load_file(second / "audio_llm.safetensors")
    assert before.keys() == after.keys() and "alignment.weight" in before
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    merge = "merge.weight"
    before, after = load_file(first / "model.safetensors")[merge], load_file(second / "model.safetensors")[merge]
    assert torch.allclose(before, after, atol=1e-6)
    with pytest.raises(UserError, match="other experts or sizes than this recipe states"):
        run(tiny(corpus, text_model, tmp_path / "third", descriptive=SIZES | {"blocks": 2}, **changes))
    with pytest.raises(UserError, match="quantise_after must be 0 with init"):
        run(tiny(corpus, text_model, tmp_path / "fourth", **changes | {"quantise_after": 1}))
    run(tiny(corpus, text_model, tmp_path / "unquantised", steps=1, save_every=1))
    with pytest.raises(UserError, match="its codebooks hold no codes yet"):
        run(tiny(corpus, text_model, tmp_path / "fifth", **changes | {"init": str(tmp_path / "unquantised")}))


def test_the_frozen_text_model_may_be_half_as_wide(corpus, text_model, tmp_path):
    folder = run(
        tiny(corpus, text_model, tmp_path / "run", text_precision="bf16", engine={"precision": "mixed"}, steps=2)
    )
    assert all(tensor.dtype == torch.float32 for tensor in load_file(folder / "audio_llm.safetensors").values())


def test_clips_that_serve_no_task_are_an_error(corpus, text_model):
    with pytest.raises(UserError, match="none of 16 clips .* can serve any of the tasks music_caption"):
        listening(corpus, text_model, tasks={"music_caption": 1.0})
    with pytest.raises(UserError, match="clips of at most 0.1 s"):
        listening(corpus, text_model, max_seconds=0.1)


def test_an_audio_llm_is_made_without_warnings(text_model):
    recipe = with_sizes(tiny(Path("x"), text_model, Path("x")))
    branch = DescriptiveEncoder(recipe.experts, recipe.descriptive).branch
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AudioLLM(branch, text_model, TextTokenizer.from_pretrained(text_model), LoraRecipe(), align=False)


def test_a_text_model_that_cannot_be_read_is_named(text_model, tmp_path):
    recipe = with_sizes(tiny(Path("x"), text_model, Path("x")))
    branch = DescriptiveEncoder(recipe.experts, recipe.descriptive).branch
    with pytest.raises(UserError, match="holds no text model"):
        AudioLLM(branch, str(tmp_path), TextTokenizer.from_pretrained(text_model), LoraRecipe(), align=False)


def test_the_shipped_branch_can_be_taught_analyses():
    recipe = load_recipe(RECIPES / "starter" / "analysis.yaml")
    assert recipe.experts is None and recipe.descriptive is None  # those of the codec that it starts from
    encoder = load_descriptive_encoder(RECIPES.parent / recipe.init)
    assert encoder.branch.initialised and recipe.tasks["analysis"] > 0


@pytest.mark.parametrize("name", ["starter/descriptive.yaml", "full/descriptive.yaml"])
def test_the_shipped_recipes_are_valid(name):
    recipe = load_recipe(RECIPES / name)
    assert isinstance(recipe, DescriptiveRecipe) and recipe.descriptive.levels == 8
