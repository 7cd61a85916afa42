"""What the supervised stages of the codec share: scores of answers, and encoders that are ready."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from codec.experts.config import ExpertConfig
from codec.experts.music_encoder import MusicEncoder, MusicEncoderConfig
from codec.io.errors import UserError
from codec.reasoning.config import DescriptiveConfig, DescriptiveEncoderConfig
from codec.reasoning.descriptive_encoder import DescriptiveEncoder
from tests.factories.codec import SMALL, small_codec
from training.codec.supervision import AudioQARecipe, SupervisionRecipe, held_out_scores, load_descriptive_encoder
from training.codec.train_descriptive import EXPERTS
from training.lm.prompt_template import Dialogue


class Questions:
    """Of two tasks, whose answers are one word each."""

    clips_of = {"asr": [], "audio_qa:class": []}

    def questions(self, task: str, limit: int) -> list[SimpleNamespace]:
        examples = [SimpleNamespace(dialogue=Dialogue(f"{task} {i}", "bell")) for i in range(limit)]
        questions = [example.dialogue.question for example in examples]
        return [SimpleNamespace(features=lambda device: {"speech": device}, questions=questions, examples=examples)]


class Answers:
    """Right about the first question of every batch alone."""

    def answer(self, speech: torch.device, questions: list[str], quantise: bool) -> list[str]:
        return ["bell", *["bird"] * (len(questions) - 1)]


def test_scores_are_named_as_metrics_of_the_dev_split():
    scores = held_out_scores(Answers(), Questions(), 4, True, torch.device("cpu"))
    assert scores == {"val/wer": 0.75, "val/audio_qa:class": 0.25}


def test_codebooks_that_were_never_used_are_refused(tmp_path):
    sizes = DescriptiveConfig(speech_dim=128, music_dim=120, dim=16, heads=2, rope_dims=4, blocks=1)
    DescriptiveEncoder(DescriptiveEncoderConfig(EXPERTS, sizes)).save_pretrained(tmp_path / "run")
    with pytest.raises(UserError, match="its codebooks hold no codes yet"):
        load_descriptive_encoder(tmp_path / "run")


def test_a_branch_that_could_not_be_saved_alone_is_refused_before_it_is_trained(tmp_path):
    """As that of the released codec, which holds its music encoder."""
    sizes = MusicEncoderConfig(dim=24, heads=2, feed_forward=32, layers=3, kernel=5, channels=4, mel_bands=16)
    MusicEncoder(sizes).save_pretrained(tmp_path / "music")
    music = ExpertConfig(
        "music", "conformer", str(tmp_path / "music"), {"music_acoustic": (1,), "music_semantic": (3,)}
    )
    experts = (ExpertConfig("speech_text"), ExpertConfig("phone"), music)
    config = replace(SMALL, experts=experts, descriptive=replace(SMALL.descriptive, music_dim=24))
    small_codec(config).save_pretrained(tmp_path / "codec")
    with pytest.raises(UserError, match="holds the weights of its music expert itself.* a recipe of kind joint"):
        load_descriptive_encoder(tmp_path / "codec")


def test_recipes_state_the_text_models_type():
    common = {"out": "x", "steps": 1, "corpora": ("x",), "text_model": "x"}
    assert AudioQARecipe(**common).text_dtype == torch.float32
    assert SupervisionRecipe(**common, text_precision="bf16").text_dtype == torch.bfloat16
    with pytest.raises(UserError, match="tasks: name at least one"):
        SupervisionRecipe(**common, tasks={"asr": 0.0})
