"""Everything a language-model stage reads, in miniature: text model, codec with random codebooks, token store."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from auditory_sentences.token_store.manifest import Manifest, write_manifest
from auditory_sentences.token_store.shard import write_shard
from auditory_sentences.token_store.sources import Source, write_sources
from codec.experts.base import load_expert
from codec.experts.config import ExpertConfig
from codec.layers.config import QuantiserConfig
from codec.reasoning.codec import ReasoningCodec
from codec.reasoning.config import DescriptiveConfig, FlowConfig, ReasoningCodecConfig, ScalarConfig, StructuralConfig
from tests.factories.store import CODES, TinyStore, random_tokens, tiny_store, tiny_tokenizer
from training.lm.recipe import LanguageModelRecipe
from training.lm.train_lm import run
from training.recipe import parse

MIXTURES = {
    1: {"asr": 2, "sound_caption": 1, "music_caption": 1, "audio_qa": 1},
    2: {"tts": 2, "sound_generation": 1, "music_generation": 1},
    3: {"asr": 1, "tts": 1, "sound_caption": 1, "text_only": 1, "audio_only": 1},
    4: {"asr": 1, "tts": 1, "segmented_audio": 1, "text_only": 1},
}
STREAMS = [0.25] * 3 + [0.125] * 5
LOSSES = {
    1: {"text": 1.0, "audio": 0.0, "streams": STREAMS, "distillation": 0.5},
    2: {"text": 0.0, "audio": 1.0, "streams": STREAMS},
    3: {"text": 1.6, "audio": 1.0, "streams": STREAMS},
    4: {"text": 1.6, "audio": 1.0, "streams": STREAMS},
}


def prepare(folder: Path) -> None:
    """Write FOLDER/text, FOLDER/codec and FOLDER/tokens."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    text = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=tokenizer.size,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
    )
    text.save_pretrained(folder / "text")
    tokenizer.save_pretrained(folder / "text")
    codec = tiny_codec()
    codec.save_pretrained(folder / "codec")
    write_store(folder / "tokens", codec.fingerprint)


def tiny_codec(codes: int = CODES) -> ReasoningCodec:
    experts = tuple(ExpertConfig(role) for role in ("speech_text", "phone", "music"))
    quantiser = QuantiserConfig(codes, codebook_dim=4, kmeans_init=False)
    dims = {name: dim for expert in map(load_expert, experts) for name, dim in expert.dims.items()}
    config = ReasoningCodecConfig(
        experts,
        DescriptiveConfig(
            dims["speech_text"], dims["music_semantic"], 16, 2, rope_dims=4, blocks=1, quantiser=quantiser
        ),
        StructuralConfig(16, quantiser=quantiser),
        FlowConfig(layers=1, heads=2, head_dim=8),
        ScalarConfig(init_channel=2, latent_hidden_dim=8),
    )
    return ReasoningCodec(config).eval()


def write_store(folder: Path, fingerprint: str, seconds: float = 1.5, splits: Sequence[str] = ("train", "dev")) -> None:
    """The clips of the tiny store with random tokens, in the real format."""
    store = tiny_store(seconds=seconds)
    chosen = [i for i, clip in enumerate(store.clips) if clip.split in splits]
    store = TinyStore([store.clips[i] for i in chosen], [store.num_samples[i] / 24_000 for i in chosen])
    folder.mkdir(parents=True)
    tokens = [random_tokens(samples, seed=i, fingerprint=fingerprint) for i, samples in enumerate(store.num_samples)]
    shard = write_shard(folder / "shard-00000.arrow", store.clips, tokens, store.streams)
    write_sources(folder, shard, [Source(clip.id, clip.path, sha256="0" * 64) for clip in store.clips])
    manifest = Manifest(
        fingerprint=fingerprint,
        streams=store.streams,
        sample_rate=store.sample_rate,
        complete=True,
        shards=(shard,),
    )
    write_manifest(folder, manifest)


def recipe(folder: Path, stage: int, init: Path | None = None, **more) -> dict:
    """The recipe of a stage over what `prepare` wrote, as plain values."""
    start = (
        {"init": str(init)} if init else {"text_model": str(folder / "text"), "audio_tokenizer": str(folder / "codec")}
    )
    values = {
        "out": str(folder / f"stage{stage}"),
        "stage": stage,
        "steps": 4,
        "save_every": 2,
        "log_every": 1,
        "validate_every": 4,
        "seed": 3,
        "optimiser": {"lr": 3e-3, "warmup_steps": 1},
        "engine": {"micro_batches": 2},
        "store": str(folder / "tokens"),
        "mixture": MIXTURES[stage],
        "loss": LOSSES[stage],
        "understanding_layers": 1,
        "generation_layers": 1,
        "depth": {"layers": 1, "width": 16, "heads": 2, "kv_heads": 1, "mlp": 32},
        "context": 96 if stage < 4 else 192,
        "batch": 2,
    }
    return values | start | more


def train(values: dict, resume: bool = False) -> Path:
    return run(parse(LanguageModelRecipe, values, "the test"), resume)


if __name__ == "__main__":
    train(json.loads(sys.argv[1]), "--resume" in sys.argv[2:])
