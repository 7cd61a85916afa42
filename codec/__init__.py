"""Audio tokenizers: waveforms to tokens and back, behind one interface."""

from typing import TYPE_CHECKING

from codec.lazy import lazy_names

if TYPE_CHECKING:
    from codec.audio.waveform import load_audio, write_audio
    from codec.io.errors import UserError
    from codec.reasoning.codec import ReasoningCodec
    from codec.tokenizer import AudioTokenizer, load_tokenizer
    from codec.tokens import AudioTokens

__all__ = [
    "AudioTokenizer",
    "AudioTokens",
    "ReasoningCodec",
    "UserError",
    "load_audio",
    "load_tokenizer",
    "write_audio",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "AudioTokenizer": ("codec.tokenizer", "AudioTokenizer"),
        "AudioTokens": ("codec.tokens", "AudioTokens"),
        "ReasoningCodec": ("codec.reasoning.codec", "ReasoningCodec"),
        "UserError": ("codec.io.errors", "UserError"),
        "load_audio": ("codec.audio.waveform", "load_audio"),
        "load_tokenizer": ("codec.tokenizer", "load_tokenizer"),
        "write_audio": ("codec.audio.waveform", "write_audio"),
    },
)
