"""Whole models with random weights, made anew in every test run: real language model, real codec or any other."""

from __future__ import annotations

from pathlib import Path

import torch

from codec.layers.config import QuantiserConfig
from codec.reasoning.codec import ReasoningCodec
from codec.reasoning.config import DescriptiveConfig, FlowConfig, ReasoningCodecConfig, ScalarConfig, StructuralConfig
from codec.tokenizer import AudioTokenizer
from lm.config import UniAudioConfig
from lm.model import UniAudioForConditionalGeneration
from lm.text_tokenizer import SentencePieceTokenizer
from lm.vocabulary import VocabularyLayout
from tests.factories.store import tiny_tokenizer
from tests.factories.tokens import two_streams
from uniaudio.model import UniAudio

TEXTS = ["three seven one", "the red bird sings", "a slow piano melody", "which instrument plays?"] * 20
CODES = 64


def tiny_codec(seed: int = 0) -> ReasoningCodec:
    """A codec of the starter's kind with random weights and codebooks."""
    torch.manual_seed(seed)
    quantiser = QuantiserConfig(codebook_size=CODES, codebook_dim=8, kmeans_init=False)
    scalar = ScalarConfig(
        front_end="stft",
        num_bands=481,
        num_samples=1,
        downsample_factors=(4,),
        downsample_kernel_sizes=(8,),
        upsample_factors=(4,),
        upsample_kernel_sizes=(8,),
        init_channel=16,
        res_kernel_size=3,
        phase_iterations=2,
        causal=False,
    )
    config = ReasoningCodecConfig(
        descriptive=DescriptiveConfig(
            speech_dim=128, music_dim=120, dim=32, heads=2, rope_dims=8, blocks=1, quantiser=quantiser
        ),
        structural=StructuralConfig(dim=32, quantiser=quantiser),
        flow=FlowConfig(layers=1, heads=2, head_dim=8, window_frames=100, overlap_frames=20),
        scalar=scalar,
    )
    return ReasoningCodec(config).eval()


def tiny_uniaudio(seed: int = 0, context: int = 512) -> UniAudio:
    """A language model of two narrow groups over the tiny codec."""
    codec, text = tiny_codec(seed), SentencePieceTokenizer.train(TEXTS, 320)
    layout = VocabularyLayout.build(text, codec.streams, codec.fingerprint)

    config = UniAudioConfig(
        cross_modal=_shape(layout, 32, 1, 2, 1, context),
        understanding_layers=1,
        generation_layers=1,
        depth=_shape(layout, 16, 1, 2, 1, context),
        vocabulary=layout.to_dict(),
    )
    return UniAudio(UniAudioForConditionalGeneration(config), text, codec)


def small_uniaudio(codec: AudioTokenizer, seed: int = 0, codes: int = 16, context: int = 200) -> UniAudio:
    """A language model that can learn a few clips, over any codec of two streams."""
    text = tiny_tokenizer()
    layout = VocabularyLayout.build(text, two_streams(codes, codes), codec.fingerprint)
    torch.manual_seed(seed)
    config = UniAudioConfig(
        cross_modal=_shape(layout, 64, 2, 4, 4, context),
        understanding_layers=1,
        generation_layers=1,
        depth=_shape(layout, 64, 1, 4, 4, context),
        vocabulary=layout.to_dict(),
        initializer_range=0.1,
    )
    return UniAudio(UniAudioForConditionalGeneration(config), text, codec)


def _shape(layout: VocabularyLayout, width: int, layers: int, heads: int, kv_heads: int, context: int) -> dict:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": 2 * width,
        "vocab_size": layout.text_size,
        "max_position_embeddings": context,
    }


def save_tiny_model(folder: Path, **options) -> Path:
    tiny_uniaudio(**options).save_pretrained(folder)
    return folder
