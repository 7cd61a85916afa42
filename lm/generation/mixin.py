"""`generate` in the library's words: what the language model inherits, as other models of transformers do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from lm.generation.generate import AudioGeneration, generate_audio, generate_text
from lm.generation.generative_model import GenerativeModel
from lm.generation.settings import GenerationSettings
from lm.rows import unpad


class UniAudioGenerationMixin:
    """Generation of text and of audio, mixed into `lm.model.UniAudioForConditionalGeneration`."""

    def generate(
        self: GenerativeModel,
        ids: Tensor,
        mask: Tensor,
        output_modality: Literal["text", "audio"] = "text",
        negative_ids: Tensor | None = None,
        negative_mask: Tensor | None = None,
        *,
        max_new_tokens: int = 500,
        do_sample: bool | None = None,
        temperature: float = 0.9,
        top_k: int = 50,
        guidance_scale: float = 1.0,
        stream_temperature: Mapping[str, float] | None = None,
        stream_guidance_scale: Mapping[str, float] | None = None,
        seed: int | Sequence[int] | None = None,
    ) -> Tensor | list[AudioGeneration]:
        """Continue each prompt with text or with the audio of one clip: `lm.generation` under the library's names.

        Args:
            ids, mask: (B, T, columns) prompts, padded at either end, as
                `UniAudioProcessor.apply_chat_template(..., add_generation_prompt=True)` gives them.
            negative_ids, negative_mask: What guidance compares with.
            max_new_tokens: Rows generated at most; 17.5 rows make one second of audio.
            do_sample: None draws audio and takes the likeliest text, as the published scripts do (published model,
                §B.3).
            top_k: 0 draws from all ids.
            guidance_scale: Of audio; 1 is none.
            stream_temperature, stream_guidance_scale: Name of a stream -> its own, in place of those. Without
                `do_sample` no temperature counts.
            seed: One for the batch (entry i then has seed + i), or one per entry; None draws from torch's generator. An
                entry depends on its prompt and its seed alone.

        Returns:
            Text ids (B, longest), without EOS and filled with the text padding id; or the codes of each clip.

        Raises:
            ValueError: An argument, the lengths or the model's context do not allow it.
        """
        if output_modality not in ("text", "audio"):
            raise ValueError(f"output_modality must be 'text' or 'audio', not {output_modality!r}")
        if output_modality == "text":
            if guidance_scale != 1:
                raise ValueError(f"guidance_scale {guidance_scale} is for audio; text is generated without guidance")
            if stream_temperature or stream_guidance_scale:
                raise ValueError("stream_temperature and stream_guidance_scale are for audio, not for text")
        prompts, layout = unpad(ids, mask), self.config.layout
        if seed is None:
            seed = torch.randint(2**62, (len(prompts),)).tolist()
        seeds = [seed + i for i in range(len(prompts))] if isinstance(seed, int) else list(seed)
        drawn = output_modality == "audio" if do_sample is None else do_sample
        settings = GenerationSettings(
            max_new_tokens,
            temperature if drawn else 0.0,
            top_k or None,
            guidance_scale,
            (stream_temperature or {}) if drawn else {},
            stream_guidance_scale or {},
        )
        if output_modality == "text":
            texts = [
                torch.tensor(made.ids, dtype=torch.int64) for made in generate_text(self, prompts, settings, seeds)
            ]
            rows = torch.full((len(texts), max(map(len, texts), default=0)), layout.text_pad, device=self.device)
            for row, text in zip(rows, texts, strict=True):
                row[: len(text)] = text
            return rows
        negatives = None
        if settings.guided and negative_ids is not None and negative_mask is not None:
            negatives = unpad(negative_ids, negative_mask)
        return generate_audio(self, prompts, settings, seeds, negatives)
