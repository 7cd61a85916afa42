"""The unified audio language model: vocabulary, rows, the three groups of layers, depth decoder, generation."""

from typing import TYPE_CHECKING

from codec.lazy import lazy_names

if TYPE_CHECKING:
    from lm.config import UniAudioConfig
    from lm.generation.settings import GenerationSettings
    from lm.model import UniAudioForConditionalGeneration
    from lm.rows import Rows
    from lm.text_tokenizer import TextTokenizer
    from lm.vocabulary import VocabularyLayout

__all__ = [
    "GenerationSettings",
    "Rows",
    "TextTokenizer",
    "UniAudioConfig",
    "UniAudioForConditionalGeneration",
    "VocabularyLayout",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "GenerationSettings": ("lm.generation.settings", "GenerationSettings"),
        "Rows": ("lm.rows", "Rows"),
        "TextTokenizer": ("lm.text_tokenizer", "TextTokenizer"),
        "UniAudioConfig": ("lm.config", "UniAudioConfig"),
        "UniAudioForConditionalGeneration": ("lm.model", "UniAudioForConditionalGeneration"),
        "VocabularyLayout": ("lm.vocabulary", "VocabularyLayout"),
    },
)
