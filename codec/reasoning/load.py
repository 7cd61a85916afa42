"""Load a codec where nothing but a ReasoningCodec will do."""

from __future__ import annotations

from pathlib import Path

from codec.io.errors import UserError
from codec.reasoning.codec import ReasoningCodec
from codec.tokenizer import load_tokenizer


def load_reasoning_codec(source: str | Path) -> ReasoningCodec:
    """The ReasoningCodec in a folder or of a hub id.

    Raises:
        UserError: nothing can be loaded, or it is an audio tokenizer of another type.
    """
    codec = load_tokenizer(source)
    if not isinstance(codec, ReasoningCodec):
        raise UserError(
            f"{source}: a {codec.tokenizer_type} has no descriptive and structural branch; use a ReasoningCodec"
        )
    return codec
