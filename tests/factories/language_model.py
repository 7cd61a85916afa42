"""A tiny language model, vocabulary and rows for tests."""

import torch

from lm.config import LLAMA_3_ROPE, UniAudioConfig
from lm.model import UniAudioForConditionalGeneration
from lm.rows import Rows, audio_rows, concatenate, text_rows
from lm.vocabulary import VocabularyLayout
from tests.factories.tokens import both

TEXT_IDS = 50

FLAT = dict(
    text_size=TEXT_IDS,
    text_bos=0,
    text_eos=1,
    text_pad=2,
    tags={"transcription": (3, 4), "lyric": (5, 6), "caption": (7, 8)},
    descriptive_codes=12,
    descriptive_card=16,
    descriptive_bos=12,
    descriptive_eos=13,
    descriptive_pad=15,
    structural_codes=20,
    structural_card=28,
    structural_bos=20,
    structural_eos=21,
    structural_pad=23,
    audio_prompt_bos=24,
    audio_prompt_eos=25,
)

LAYOUT = VocabularyLayout.from_dict(FLAT)


def shape(width: int, layers: int, **more) -> dict:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 2 * width,
        "vocab_size": TEXT_IDS,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 131072,
        "rope_parameters": LLAMA_3_ROPE,
        **more,
    }


def tiny_config(**more) -> UniAudioConfig:
    values = {
        "cross_modal": shape(32, 2),
        "understanding_layers": 2,
        "generation_layers": 1,
        "depth": shape(16, 2),
        "vocabulary": LAYOUT.to_dict(),
        "initializer_range": 0.2,
    }
    return UniAudioConfig(**{**values, **more})


def tiny_model(seed: int = 0, **more) -> UniAudioForConditionalGeneration:
    torch.manual_seed(seed)
    return UniAudioForConditionalGeneration(tiny_config(**more)).eval()


def text(length: int, seed: int, is_target: bool = False) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    return text_rows(torch.randint(9, TEXT_IDS, (length,), generator=generator).tolist(), LAYOUT, is_target)


def audio(descriptive: int, structural: int, seed: int, is_target: bool = False) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    low = torch.randint(0, LAYOUT.streams[0].codes, (8, descriptive), generator=generator)
    high = torch.randint(0, LAYOUT.streams[1].codes, (8, structural), generator=generator)
    tokens = both(low, high, 1, "")
    return concatenate([audio_rows(frames, is_target) for _, frames in LAYOUT.frames(tokens, "audio")])


def sentences() -> list[Rows]:
    """Four sentences of unequal length: transcription, speech, several turns, text alone."""
    return [
        concatenate([text(4, 1), audio(2, 5, 2), text(6, 3, is_target=True)]),
        concatenate([text(5, 4), audio(3, 7, 5, is_target=True)]),
        concatenate([text(3, 6), audio(1, 2, 7), text(4, 8, is_target=True), audio(2, 4, 9, is_target=True)]),
        text(6, 10, is_target=True),
    ]


def eager_to_end():
    """A model that ends whatever it does as soon as it may."""
    model = tiny_model()
    with torch.no_grad():
        model.depth_decoder.transformer.norm.weight.zero_()  # all audio logits alike: greedy takes the first
        model.lm_head.weight.zero_()
        model.lm_head.weight[LAYOUT.text_eos] = 1
        model.cross_modal.norm.weight.fill_(1)
    return model
