"""Sound while it is being made: frames of tokens as they are generated, and the sound of those that are there."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from auditory_sentences.sentence import Segment
from codec.tokenizer import TokenStream
from lm.generation.batch import Reason
from lm.generation.generate import StreamedFrame, from_frames
from uniaudio.completion import Completion

if TYPE_CHECKING:
    from uniaudio.processor import UniAudioProcessor


def decoded_while_generated(
    frames: Generator[StreamedFrame, None, list[Reason]], decoder: TokenStream, processor: UniAudioProcessor
) -> Generator[Tensor, None, Completion]:
    """The sound of frames of tokens, as soon as the decoder has enough of them.

    Args:
        frames: Of one request, stream by stream; returns why each request ended.
        decoder: Nothing was fed to it yet.
        processor: Of the model.

    Returns:
        Pieces of sound, (n,) float32 with n >= 1; at last what was generated.
    """
    layout = processor.layout
    codes: dict[str, list[list[int]]] = {stream.name: [] for stream in layout.streams}
    last = layout.streams[-1].name
    reasons: list[Reason] = []

    def generated() -> Iterator[StreamedFrame]:
        reasons.extend((yield from frames))

    for frame in generated():
        codes[frame.stream].append(frame.codes)
        if frame.stream == last:
            piece = decoder.feed(torch.tensor(frame.codes)[:, None])
            if len(piece):
                yield piece
    made = from_frames(layout, codes, reasons[0])
    tokens = processor.audio_tokens(made)
    rest = decoder.finish()
    if len(rest):
        yield rest
    return Completion(None if tokens is None else Segment("audio", tokens), made.reason)
