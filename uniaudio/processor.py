"""The processor of transformers' conventions: messages in, the model's rows out, and what was generated back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoProcessor, BatchFeature

import lm.model  # noqa: F401 (makes the model known to the Auto classes, as this module does the processor)
from auditory_sentences.sentence import TEXT_ROLES, AuditorySentence, Segment, to_rows, with_generation_prompt
from codec.audio.waveform import as_waveform, audio_length, iterate_audio
from codec.io.errors import UserError
from codec.io.files import write_text
from codec.io.hub import local_folder
from codec.pretrained import saved_folder
from codec.streams import ALL_STREAMS
from codec.tokenizer import AudioTokenizer, load_tokenizer
from codec.tokens import AudioTokens
from lm.config import UniAudioConfig
from lm.generation.generate import AudioGeneration
from lm.rows import Rows, collate
from lm.text_tokenizer import TextTokenizer
from lm.vocabulary import AUDIO_PROMPT, VocabularyLayout

VOCABULARY_FILE, TEXT_FOLDER, AUDIO_FOLDER = "vocabulary.json", "text_tokenizer", "audio_tokenizer"
PROCESSOR_FILE = "processor_config.json"
BATCH = 16  # clips decoded at once

Message = Mapping[str, Any]
CHAT_ROLES = ("system", "user", "assistant")
RESPONSE_ROLES = (*(role for role in TEXT_ROLES if role != "prompt"), ALL_STREAMS)


class UniAudioProcessor:
    """Text tokenizer, codec and vocabulary layout as one: turns messages into rows, and ids into text and audio.

    A message is `{"role": "system" | "user" | "assistant", "content": ...}`, its content a text or a list of parts:
    `{"type": "text", "text": ...}` or `{"type": "audio", "audio": ...}`, where audio is a sound file, a mono waveform
    (n,) at the codec's rate (`tokens_of` says of which types), or `AudioTokens`. A part may say which role it has in
    the sentence, as in `{"type": "text", "role": "transcription", "text": ...}` (`sentence.Segment` lists them).
    Without, audio is "audio", the assistant's text is "text", and all other text is "prompt".

    Args:
        tokenizer: Of text.
        codec: Of audio.
        layout: Vocabulary of the model.
        source: Folder that they come from, for messages.

    Raises:
        UserError: A tokenizer is not the one that the layout was made with.
    """

    model_input_names = ["ids", "mask"]

    def __init__(
        self, tokenizer: TextTokenizer, codec: AudioTokenizer, layout: VocabularyLayout, source: Path | None = None
    ) -> None:
        self.tokenizer, self.codec, self.layout = tokenizer, codec.eval(), layout
        for what, expected, actual, part in (
            ("text", layout.text_fingerprint, tokenizer.fingerprint, TEXT_FOLDER),
            ("audio", layout.audio_fingerprint, codec.fingerprint, AUDIO_FOLDER),
        ):
            if expected and expected != actual:
                where = f"{source / part}: " if source else ""
                raise UserError(
                    f"{where}the model reads the {what} tokenizer {expected}, but was given {actual}; "
                    f"use the {what} tokenizer that it was trained with"
                )

    @classmethod
    def from_pretrained(cls, source: str | Path, **auto: Any) -> UniAudioProcessor:
        """The processor of a model; the model itself is not read.

        Args:
            source: Model folder, shipped name, or hub id.
            auto: What AutoProcessor passes on; nothing else is accepted.

        Raises:
            UserError: A file is missing.
        """
        unknown = {name for name, value in auto.items() if value is not None} - {"_from_auto", "trust_remote_code"}
        if unknown:
            raise TypeError(f"from_pretrained() takes no {', '.join(sorted(unknown))}")
        folder = local_folder(source, "model")
        require_parts(folder, (VOCABULARY_FILE, TEXT_FOLDER, AUDIO_FOLDER))
        layout = VocabularyLayout.load(folder / VOCABULARY_FILE)
        tokenizer = TextTokenizer.from_pretrained(folder / TEXT_FOLDER)
        return cls(tokenizer, load_tokenizer(folder / AUDIO_FOLDER), layout, folder)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write everything that `from_pretrained` reads; a model saved to the same folder makes it a model folder."""
        values = json.dumps({"processor_class": type(self).__name__}, indent=2) + "\n"
        with saved_folder(folder) as scratch:
            self.layout.save(scratch / VOCABULARY_FILE)
            self.tokenizer.save_pretrained(scratch / TEXT_FOLDER)
            self.codec.save_pretrained(scratch / AUDIO_FOLDER)
            write_text(scratch / PROCESSOR_FILE, values)

    # ---- people's material into rows

    def tokens_of(self, audio: str | Path | Tensor | np.ndarray) -> AudioTokens:
        """Tokens of a sound file, however long, or of a mono waveform (n,) at the codec's rate.

        A waveform of floats lies in [-1, 1]; one of 16-bit or 32-bit integers, or of 8-bit ones without sign, is scaled
        as in a WAV file: int16 samples give the ids of the same samples divided by 32768.

        Raises:
            UserError: The file cannot be read, or the waveform is empty, not finite, not mono, of another type, or of
                floats that can't lie in [-1, 1] (samples of integers that were cast, not scaled).
        """
        with torch.inference_mode():
            if isinstance(audio, str | Path):
                rate = self.codec.sample_rate
                return self.codec.encode_blocks(iterate_audio(audio, sample_rate=rate), audio_length(audio, rate))
            waveform = as_waveform(audio)
            return self.codec.encode(waveform[None].to(self.codec.device))[0]

    def sentence(self, messages: Sequence[Message], is_target: bool = False) -> AuditorySentence:
        """The auditory sentence of a conversation, one segment a part.

        Args:
            messages: See the class.
            is_target: Whether the assistant's segments contribute to the loss.

        Raises:
            ValueError: A part of a message cannot be read as a segment; the message names it.
        """
        if not messages:
            raise ValueError("a conversation needs at least one message")
        segments = []
        for number, message in enumerate(messages):
            where = f"message {number}"
            if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
                raise ValueError(f"{where} must have a 'role' and a 'content', not {message!r}")
            speaker, content = message["role"], message["content"]
            if speaker not in CHAT_ROLES:
                raise ValueError(f"{where}: the role {speaker!r} must be one of {', '.join(CHAT_ROLES)}")
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            if not isinstance(parts, Sequence) or not parts:
                raise ValueError(f"{where}: the content must be a text or a list of parts, not {content!r}")
            answer = speaker == "assistant"
            for place, part in enumerate(parts):
                segments.append(self._segment(part, answer, answer and is_target, f"{where}, part {place}"))
        return AuditorySentence(tuple(segments), "conversation")

    def _segment(self, part: Any, answer: bool, is_target: bool, where: str) -> Segment:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind not in ("text", "audio"):
            raise ValueError(f"{where} must have the type 'text' or 'audio', not {kind!r}")
        unknown = set(part) - {"type", "role", kind}
        if unknown or kind not in part:
            said = f"has the unknown key {sorted(unknown)[0]!r}" if unknown else f"has no {kind!r}"
            raise ValueError(f"{where} {said}; a part of type {kind!r} holds 'type', {kind!r} and perhaps 'role'")
        role = part.get("role") or ("audio" if kind == "audio" else "text" if answer else "prompt")
        known = TEXT_ROLES if kind == "text" else (ALL_STREAMS, AUDIO_PROMPT, *(s.name for s in self.layout.streams))
        if role not in known:
            raise ValueError(f"{where}: {role!r} is no role of {kind}; it may be {', '.join(known)}")
        content = part[kind]
        if kind == "text" and not isinstance(content, str):
            raise ValueError(f"{where}: its text must be a string, not {type(content).__name__}")
        if kind == "audio" and not isinstance(content, AudioTokens):
            if not isinstance(content, str | Path | Tensor | np.ndarray):
                raise ValueError(
                    f"{where}: its audio must be a file, a waveform or AudioTokens, not {type(content).__name__}"
                )
            content = self.tokens_of(content)
        return Segment(role, content, is_target)

    def apply_chat_template(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        add_generation_prompt: bool = False,
        response_role: str = "text",
        output_labels: bool = False,
    ) -> BatchFeature:
        """Rows of one conversation or of several, padded on the right.

        Args:
            messages: One conversation, or several.
            add_generation_prompt: Make rows that are ready for `model.generate(**rows)`.
            response_role: With `add_generation_prompt`, what is generated: a text, begun with its tag and BOS, or
                "audio".
            output_labels: Add `loss`, so that `model(**rows)` gives the loss.

        Returns:
            `ids` and `mask` (B, T, columns); with `output_labels` also `loss` (B, T), 1 in the assistant's rows and 0
            elsewhere; before audio also `negative_ids` and `negative_mask`, the same rows with every condition dropped,
            for classifier-free guidance.

        Raises:
            ValueError: Messages cannot be read.
            UserError: A sound file cannot be read.
        """
        if add_generation_prompt and output_labels:
            raise ValueError("labels are for answers that are there: give add_generation_prompt or output_labels")
        if response_role not in RESPONSE_ROLES:
            raise ValueError(f"response_role {response_role!r} must be one of {', '.join(RESPONSE_ROLES)}")
        several: Any = messages if messages and not isinstance(messages[0], Mapping) else [messages]
        sentences = [self.sentence(one, output_labels) for one in several]
        if add_generation_prompt and response_role != "audio":
            rows = self._batch(
                [with_generation_prompt(s, response_role, self.layout, self.tokenizer) for s in sentences]
            )
        else:
            rows = self._batch([to_rows(s, self.layout, self.tokenizer) for s in sentences])
        made: dict[str, Any] = {"ids": rows.ids, "mask": rows.mask}
        if output_labels:
            made["loss"] = rows.loss
        if add_generation_prompt:
            made["output_modality"] = "audio" if response_role == "audio" else "text"
        if add_generation_prompt and response_role == "audio":
            hidden = self._batch([to_rows(s, self.layout, self.tokenizer, drop_conditions=True) for s in sentences])
            made |= {"negative_ids": hidden.ids, "negative_mask": hidden.mask}
        return BatchFeature(made)

    def _batch(self, sentences: Sequence[Rows]) -> Rows:
        return collate(sentences, self.layout)

    # ---- what was generated, for people

    def decode(self, ids: Tensor | Sequence[int]) -> str:
        """Text of the ids (T,); special ids and padding are dropped."""
        return self.tokenizer.decode(ids.tolist() if isinstance(ids, Tensor) else ids)

    def batch_decode(self, ids: Tensor | Sequence[Sequence[int]]) -> list[str]:
        """Texts of what `generate` gives for text, (B, T)."""
        return [self.decode(row) for row in ids]

    def audio_tokens(self, made: AudioGeneration) -> AudioTokens | None:
        """What `generate` gives for audio as tokens; None where it ended before each stream had a frame."""
        if any(ids.shape[1] == 0 for ids in made.streams.values()):
            return None
        return self.codec.from_frames(made.streams)

    def waveforms(
        self,
        tokens: Sequence[AudioTokens],
        steps: int | None = None,
        seeds: Sequence[int] | None = None,
        guidance: float | None = None,
    ) -> list[Tensor]:
        """What tokens sound like: (num_samples,) float32 at the codec's rate each, on the CPU; the same in any batch.

        Args:
            steps, guidance: Of the codec's decoder; None: what it was made for.
        """
        seeds, made = list(seeds or [0] * len(tokens)), []
        with torch.inference_mode():
            for start in range(0, len(tokens), BATCH):
                some = slice(start, start + BATCH)
                made += self.codec.decode(tokens[some], steps=steps, seed=seeds[some], guidance=guidance)
        return [wave.cpu() for wave in made]


def require_parts(folder: Path, names: Sequence[str]) -> None:
    """Raise UserError where a model folder lacks one of its files or folders."""
    for name in names:
        if not (folder / name).exists():
            raise UserError(f"{folder}: has no {name}, so it is not a complete model; train one or copy it again")


AutoProcessor.register(UniAudioConfig, UniAudioProcessor)
