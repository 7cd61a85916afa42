"""Whisper as the recogniser: a tiny random one, loaded and asked as a real one."""

import json

import numpy as np
import pytest
import torch

from codec.io.errors import UserError
from evaluation.judges.whisper import Whisper


def write_whisper(folder):
    """A Whisper of two words a token with random weights, as transformers saves it."""
    from transformers import (
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperTokenizer,
    )  # fmt: skip

    letters = [chr(c) for c in range(97, 123)] + [f"Ġ{chr(c)}" for c in range(97, 123)]
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate([*letters, *special])}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    WhisperTokenizer(
        str(folder / "vocab.json"),
        str(folder / "merges.txt"),
        unk_token="<|endoftext|>",
        additional_special_tokens=special,
    ).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    end = len(letters)
    config = WhisperConfig(
        vocab_size=end + 3, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_target_positions=220, pad_token_id=end,
        bos_token_id=end, eos_token_id=end, decoder_start_token_id=end + 1, begin_suppress_tokens=None,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = WhisperForConditionalGeneration(config)
    model.generation_config.is_multilingual = False
    model.generation_config.no_timestamps_token_id = end + 2
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    return Whisper(write_whisper(tmp_path_factory.mktemp("whisper") / "model"))


def test_it_transcribes_and_ends(whisper):
    wave = (0.1 * np.random.default_rng(0).standard_normal(24_000)).astype(np.float32)
    text = whisper.transcribe(wave)
    assert isinstance(text, str) and text == whisper.transcribe(wave) and "<|" not in text
    assert len(text) <= 2 * 40, "a model that never ends is ended"
    assert whisper.transcribe(np.zeros(24_000, np.float32)) == whisper.transcribe(wave[:0]) == ""
    assert "Whisper" in whisper.version and "greedy" in whisper.version


def test_a_folder_that_holds_no_whisper_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        Whisper("nowhere")
    (tmp_path / "config.json").write_text('{"model_type": "dac"}')
    with pytest.raises(UserError, match="holds no Whisper model; .* with --recogniser"):
        Whisper(tmp_path)
