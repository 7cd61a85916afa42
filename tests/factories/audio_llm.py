"""A small audio LLM over what tests/factories/stages.py prepares, with random weights that all matter."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from codec.tokenizer import load_tokenizer
from lm.text_tokenizer import TextTokenizer
from training.codec.audio_llm import AudioLLM
from training.lm.lora import LoraRecipe


def tiny_audio_llm(folder: Path, align: bool = True) -> AudioLLM:
    """Of FOLDER/text and FOLDER/codec, in eval mode."""
    torch.manual_seed(1)
    text, branch = str(folder / "text"), load_tokenizer(folder / "codec").descriptive
    lora = LoraRecipe(rank=4, alpha=8, dropout=0.0)
    audio_llm = AudioLLM(branch, text, TextTokenizer.from_pretrained(text), lora, align)
    for parameter in own_tensors(audio_llm).values():
        nn.init.normal_(parameter, std=0.1)
    return audio_llm.eval()


def own_tensors(audio_llm: AudioLLM) -> dict[str, Tensor]:
    """What audio_llm.safetensors holds."""
    return {n: p for n, p in audio_llm.named_parameters() if p.requires_grad and not n.startswith("branch.")}


def features(music_frames: int = 30, shorter: int = 12) -> dict[str, Tensor]:
    """Expert features of two recordings, the second one of `shorter` 25 Hz frames."""
    generator = torch.Generator().manual_seed(0)
    return {
        "speech": torch.randn(2, 128, 2 * music_frames, generator=generator),
        "music": torch.randn(2, 120, music_frames, generator=generator),
        "frames": torch.tensor([music_frames, shorter]),
    }


def alone(batch: dict, row: int) -> dict:
    """One row of a batch of features, without padding; lists are cut too."""
    frames, one = int(batch["frames"][row]), slice(row, row + 1)
    rest = {name: value[one] for name, value in batch.items() if name not in ("speech", "music")}
    return {"speech": batch["speech"][one, :, : 2 * frames], "music": batch["music"][one, :, :frames]} | rest
