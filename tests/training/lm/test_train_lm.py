"""The four stages of the language model over a tiny store, end to end."""

from __future__ import annotations

import signal
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from auditory_sentences.token_store.manifest import Manifest, write_manifest
from auditory_sentences.token_store.shard import write_shard
from auditory_sentences.token_store.sources import Source, write_sources
from codec.io.errors import UserError
from lm.model import UniAudioForConditionalGeneration
from tests.factories import children, stages
from tests.factories.stages import recipe
from tests.factories.store import CODES, random_tokens, tiny_store
from training.engine import checkpoint
from training.lm.recipe import LanguageModelRecipe
from training.lm.stages import TRAINABLE
from training.lm.train_lm import trained_tasks
from training.metrics import read_metrics
from training.recipe import parse
from uniaudio.model import UniAudio


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Text model, codec, tokens, and a run of each stage, one after another."""
    folder = tmp_path_factory.mktemp("lm")
    stages.prepare(folder)
    for stage in (1, 2, 3, 4):
        stages.train(recipe(folder, stage, folder / f"stage{stage - 1}" if stage > 1 else None))
    return folder


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def groups(run: Path) -> dict[str, list[str]]:
    model = UniAudioForConditionalGeneration.from_pretrained(run / "model")
    return {group: [name for name, _ in members] for group, members in model.named_groups().items()}


def losses(run: Path, name: str = "loss") -> list[float]:
    return [entry[name] for entry in read_metrics(run) if name in entry]


@pytest.mark.parametrize("stage", [2, 3, 4])
def test_what_a_stage_freezes_stays_bit_for_bit(folder, stage):
    before, after = weights(folder / f"stage{stage - 1}"), weights(folder / f"stage{stage}")
    assert before.keys() == after.keys()
    for group, names in groups(folder / f"stage{stage}").items():
        same = [torch.equal(before[name], after[name]) for name in names]
        assert not any(same) if group in TRAINABLE[stage] else all(same), group


def test_stage_1_keeps_the_text_model_and_drops_the_decoder(folder):
    text, model = load_file(folder / "text" / "model.safetensors"), weights(folder / "stage1")
    for name, tensor in text.items():
        if name.startswith("model.layers"):
            assert torch.equal(model["cross_modal." + name.removeprefix("model.")], tensor)
    assert not [name for name in model if "decoder.h" in name or name.startswith("model.")]
    assert losses(folder / "stage1", "distillation")


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_the_journal_shows_what_the_stage_pays_for(folder, stage):
    entries = [entry for entry in read_metrics(folder / f"stage{stage}") if "loss" in entry]
    weighs = stages.LOSSES[stage]
    assert [entry["step"] for entry in entries] == [1, 2, 3, 4]
    for entry in entries:
        assert ("text_loss" in entry) == (weighs["text"] > 0) and ("audio_loss" in entry) == (weighs["audio"] > 0)
        total = sum(weighs[part] * entry.get(f"{part}_loss", 0) for part in ("text", "audio"))
        total += weighs.get("distillation", 0) * entry.get("distillation", 0)
        assert entry["loss"] == pytest.approx(total, rel=1e-5)
        assert entry["rows_per_second"] > 0
    assert losses(folder / f"stage{stage}", "val/loss")


def test_the_model_folder_is_whole(folder):
    model = UniAudio.from_pretrained(folder / "stage4" / "model")
    assert model.layout.audio_fingerprint == model.codec.fingerprint


def test_a_model_says_what_it_was_trained_for(folder, tmp_path):
    for stage in (1, 2, 3, 4):
        trained = UniAudio.from_pretrained(folder / f"stage{stage}" / "model").model.config.tasks
        assert trained == sorted({name for k in range(1, stage + 1) for name in stages.MIXTURES[k]})
    goes_on = parse(LanguageModelRecipe, recipe(folder, 4, folder / "stage3"), "recipe")
    assert trained_tasks(None, goes_on) is None  # what it began with is not known


def test_how_the_model_is_sampled_is_written_with_it_and_kept_by_the_next_stage(folder, tmp_path):
    sampling = {"all": {"top_k": 30, "guidance": 2.0, "temperature": 0.5}, "tts": {"temperature": 0.9}}
    short = {"steps": 1, "save_every": 1, "validate_every": 0}
    stages.train(recipe(folder, 3, folder / "stage2", out=str(tmp_path / "third"), sampling=sampling, **short))
    stages.train(recipe(folder, 4, tmp_path / "third", out=str(tmp_path / "fourth"), **short))
    for stage in ("third", "fourth"):
        model = UniAudio.from_pretrained(tmp_path / stage / "model")
        speech, music = model.settings_of("tts"), model.settings_of("music_generation")
        assert (speech.temperature, speech.top_k, speech.guidance) == (0.9, 30, 2.0)
        assert (music.temperature, music.top_k, music.guidance) == (0.5, 30, 2.0)


def test_it_learns(folder, tmp_path):
    values = recipe(folder, 3, folder / "stage2", out=str(tmp_path / "run"), steps=60, save_every=60, validate_every=0)
    stages.train(values)
    first, last = losses(tmp_path / "run")[:5], losses(tmp_path / "run")[-5:]
    assert sum(last) < 0.8 * sum(first)


def die_at_step_3(values: dict) -> None:
    from training.engine.engine import Engine

    step = Engine.step

    def counted(self) -> None:
        if self.steps_done == 2:
            children.die()
        step(self)

    Engine.step = counted
    stages.train(values)


@pytest.mark.parametrize("stage", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_interrupted_is_uninterrupted_bit_for_bit(folder, tmp_path, stage):
    whole = folder / f"stage{stage}"
    values = recipe(folder, stage, folder / "stage2" if stage > 1 else None, out=str(tmp_path / "run"))
    assert children.run(die_at_step_3, values) == [-signal.SIGKILL]
    assert checkpoint.newest(tmp_path / "run")[0].step == 2
    stages.train(values, resume=True)
    ours, theirs = weights(tmp_path / "run"), weights(whole)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert losses(tmp_path / "run") == losses(whole)
    assert losses(tmp_path / "run", "val/loss") == losses(whole, "val/loss")


@pytest.mark.parametrize(
    ("world", "zero", "stage"),
    [(2, 0, 3)] + [pytest.param(2, zero, stage, marks=pytest.mark.slow) for zero in (2, 3) for stage in (1, 2, 3)],
)
def test_processes_and_zero_give_the_same_losses(folder, tmp_path, world, zero, stage):
    values = recipe(folder, stage, folder / f"stage{stage - 1}" if stage > 1 else None, out=str(tmp_path / "run"))
    values["engine"] = {"micro_batches": 2, "zero_stage": zero}
    exits = children.run(stages.train, values, world=world, out=tmp_path)
    assert exits == [0] * world, "\n".join(path.read_text()[-2000:] for path in tmp_path.glob("rank*.txt"))
    whole = folder / f"stage{stage}"
    for name in ("loss", "text_loss", "audio_loss", "val/loss", "grad_norm"):
        assert losses(tmp_path / "run", name) == pytest.approx(losses(whole, name), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("zero", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow), 3])
def test_zero_in_one_process(folder, tmp_path, zero):
    engine = {"micro_batches": 2, "zero_stage": zero}
    stages.train(recipe(folder, 3, folder / "stage2", out=str(tmp_path / "run"), engine=engine))
    assert losses(tmp_path / "run") == pytest.approx(losses(folder / "stage3"), rel=1e-4)


def test_one_large_micro_batch_is_two_small_ones(folder, tmp_path):
    """The loss of a step is a mean over its targets, not over its micro-batches."""
    more = {"steps": 1, "save_every": 1, "validate_every": 0}
    one = recipe(folder, 3, folder / "stage2", out=str(tmp_path / "one"), batch=4, engine={"micro_batches": 1}, **more)
    many = recipe(
        folder, 3, folder / "stage2", out=str(tmp_path / "many"), batch=1, engine={"micro_batches": 4}, **more
    )
    for values in (one, many):
        stages.train(values)
    for name in ("loss", "text_loss", "audio_loss", "grad_norm"):
        assert losses(tmp_path / "one", name) == pytest.approx(losses(tmp_path / "many", name), rel=1e-4)


def test_lora_leaves_the_cross_modal_layers_and_writes_a_merged_model(folder, tmp_path):
    lora = {"rank": 2, "alpha": 4.0, "dropout": 0.1}
    values = recipe(folder, 3, folder / "stage2", out=str(tmp_path / "run"), lora=lora)
    stages.train(values | {"steps": 2, "optimiser": {"lr": 3e-3, "warmup_steps": 1, "schedule": "constant"}})
    stages.train(values | {"optimiser": {"lr": 3e-3, "warmup_steps": 1, "schedule": "constant"}}, resume=True)
    before, merged = weights(folder / "stage2"), weights(tmp_path / "run")
    frozen = load_file(tmp_path / "run" / "checkpoints" / "step-00000004" / "engines" / "model" / "frozen.safetensors")
    bases = [name for name in frozen if name.endswith(".base_layer.weight")]
    assert len(bases) == 14 and merged.keys() == before.keys()
    for name in bases:
        plain = name.removeprefix("model.").replace(".base_layer", "")
        assert torch.equal(frozen[name], before[plain])
        assert not torch.equal(merged[plain], before[plain])
    assert torch.equal(merged["cross_modal.embed_tokens.weight"], before["cross_modal.embed_tokens.weight"])
    UniAudioForConditionalGeneration.from_pretrained(tmp_path / "run" / "model")


def test_activation_checkpointing_changes_nothing(folder, tmp_path):
    engine = {"micro_batches": 2, "activation_checkpointing": True}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*checkpointing.* is deprecated")
        stages.train(recipe(folder, 1, out=str(tmp_path / "run"), engine=engine))
    assert losses(tmp_path / "run") == pytest.approx(losses(folder / "stage1"), rel=1e-5)


def test_bf16(folder, tmp_path):
    engine = {"micro_batches": 2, "zero_stage": 1, "precision": "bf16"}
    stages.train(recipe(folder, 3, folder / "stage2", out=str(tmp_path / "run"), engine=engine))
    assert losses(tmp_path / "run") == pytest.approx(losses(folder / "stage3"), rel=0.05)
    assert {tensor.dtype for tensor in weights(tmp_path / "run").values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"init": "x", "text_model": "y", "audio_tokenizer": "z"}, "either init"),
        ({"init": ""}, "either init"),
        ({"stage": 5}, "'stage' must be one of 1, 2, 3, 4"),
        ({"context": 1}, "'context' must be at least 2"),
        ({"loss": {"text": 1.0, "audio": 1.0, "streams": []}}, "'loss.streams' must not be empty"),
        ({"lora": {"rang": 2}}, "did you mean 'rank'"),
        ({"sampling": {"tts": {"temperatur3": 1.0}}}, "sampling.tts: unknown key 'temperatur3'; did you mean"),
        ({"sampling": {"all": {"top_k": 0}}}, "sampling.all: 'top_k' must be at least 1"),
    ],
)
def test_recipes_that_cannot_work(folder, change, words):
    with pytest.raises(UserError, match=words):
        parse(LanguageModelRecipe, recipe(folder, 3, folder / "stage2") | change, "f")


def test_a_task_that_is_unknown_is_named(folder, tmp_path):
    values = recipe(folder, 3, folder / "stage2", out=str(tmp_path / "run"), mixture={"asrr": 1})
    with pytest.raises(UserError, match="did you mean 'asr'"):
        stages.train(values)
    assert not list(tmp_path.glob("run*"))


def test_other_data_is_not_a_continuation(folder, tmp_path):
    values = recipe(folder, 3, folder / "stage2", out=str(tmp_path / "run"), steps=2)
    stages.train(values)
    store = Path(values["store"])
    codec = UniAudio.from_pretrained(folder / "stage2" / "model").codec
    other = tmp_path / "tokens"
    stages.write_store(other, codec.fingerprint, seconds=1.4)
    store.rename(store.with_name("kept"))
    other.rename(store)
    try:
        with pytest.raises(UserError, match="was trained with token_store .*, this run has"):
            stages.train(values | {"steps": 4}, resume=True)
    finally:
        store.rename(other)
        store.with_name("kept").rename(store)


def test_several_stores_train_as_one_that_holds_all(folder, tmp_path):
    fingerprint = UniAudio.from_pretrained(folder / "stage2" / "model").codec.fingerprint
    for split in ("train", "dev"):
        stages.write_store(tmp_path / split, fingerprint, splits=(split,))
    values = recipe(folder, 3, folder / "stage2", steps=2, validate_every=0)
    stages.train(values | {"out": str(tmp_path / "one")})
    both = [str(tmp_path / "train"), str(tmp_path / "dev")]
    stages.train(values | {"out": str(tmp_path / "two"), "store": both})
    assert losses(tmp_path / "one") == losses(tmp_path / "two")
    with pytest.raises(UserError, match="both hold a clip 'train-"):
        stages.train(values | {"out": str(tmp_path / "twice"), "store": [both[0], values["store"]]})


def test_ids_that_the_model_has_not_are_refused_naming_the_clip(folder, tmp_path):
    codec = UniAudio.from_pretrained(folder / "stage2" / "model").codec
    store = tiny_store()
    tokens = [random_tokens(n, seed=i, fingerprint=codec.fingerprint) for i, n in enumerate(store.num_samples)]
    tokens[5]["structural"][3, 2] = CODES
    streams = tuple(replace(stream, codes=None) for stream in store.streams)  # a store that does not state them
    shard = write_shard(tmp_path / "shard-00000.arrow", store.clips, tokens, streams)
    write_sources(tmp_path, shard, [Source(clip.id, clip.path, sha256="0" * 64) for clip in store.clips])
    manifest = Manifest(
        fingerprint=codec.fingerprint,
        streams=streams,
        sample_rate=store.sample_rate,
        complete=True,
        shards=(shard,),
    )
    write_manifest(tmp_path, manifest)
    with pytest.raises(UserError, match=f"shard-00000.arrow.*'{store.clips[5].id}' holds the structural id {CODES}"):
        stages.train(recipe(folder, 3, folder / "stage2", out=str(tmp_path / "run"), store=str(tmp_path)))


def test_a_store_without_dev_clips_trains_without_validation(folder, tmp_path):
    store = tmp_path / "tokens"
    fingerprint = UniAudio.from_pretrained(folder / "stage2" / "model").codec.fingerprint
    stages.write_store(store, fingerprint, splits=("train",))
    values = recipe(folder, 3, folder / "stage2", out=str(tmp_path / "run"), store=str(store), steps=1)
    with pytest.raises(UserError, match="split 'dev' of the data has no clips"):
        stages.train(values)
    stages.train(values | {"validate_every": 0, "out": str(tmp_path / "silent")})
    assert not losses(tmp_path / "silent", "val/loss")
