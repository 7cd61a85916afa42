"""Text tokenizers: text <-> ids, with the special ids that the row layout needs."""

from __future__ import annotations

import hashlib
import io
import string
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import sentencepiece

from codec.errors import UserError

# The names that the published tokenizer gives to LLaMA's reserved ids (published model, §B.1).
TAG_NAMES = {
    "transcription": ("<transcription>", "</transcription>"),
    "lyric": ("<lyric>", "</lyric>"),
    "caption": ("<caption>", "</caption>"),
}
PAD_NAME = "<text_pad_token>"
_SENTENCEPIECE_FILE = "sentencepiece.model"


class TextTokenizer(ABC):
    """Text <-> ids. `encode` never yields a special id, whatever the text says."""

    size: int  # number of ids
    bos: int
    eos: int
    pad: int
    fingerprint: str

    @property
    def knows_everything(self) -> bool:
        """Whether any text may be given to the model as it is (lm/text_normaliser.py)."""
        return True

    def knows(self, character: str) -> bool:
        """Whether the character has a piece of its own, rather than being spelled out in bytes."""
        return True

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of the words alone."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids; special ids are dropped, and so are the ids that only pad a model's table."""

    @abstractmethod
    def tag(self, role: str) -> tuple[int, int]:
        """Opening and closing id of a tagged role (transcription, lyric, caption)."""

    @abstractmethod
    def save_pretrained(self, folder: str | Path) -> None: ...

    def wrap(self, text: str) -> list[int]:
        """BOS, words, EOS: the form of every text field (published model, §B.1)."""
        return [self.bos, *self.encode(text), self.eos]

    @staticmethod
    def from_pretrained(source: str | Path) -> TextTokenizer:
        """A folder of ours, a folder with a transformers tokenizer, or a hub id."""
        if (Path(source) / _SENTENCEPIECE_FILE).is_file():
            return SentencePieceTokenizer((Path(source) / _SENTENCEPIECE_FILE).read_bytes())
        return TransformersTokenizer(source)


class SentencePieceTokenizer(TextTokenizer):
    """A sentencepiece model with byte fallback: any text has ids and comes back from them."""

    def __init__(self, model: bytes) -> None:
        self._model = model
        self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.size = self._pieces.get_piece_size()
        self.bos, self.eos = self._pieces.bos_id(), self._pieces.eos_id()
        self.pad = self._pieces.piece_to_id(PAD_NAME)
        self.fingerprint = hashlib.sha256(model).hexdigest()[:16]

    @classmethod
    def train(cls, texts: Iterable[str], size: int) -> SentencePieceTokenizer:
        """Learn at most `size` pieces from texts; small corpora give fewer."""
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=size,
            hard_vocab_limit=False,
            model_type="unigram",
            byte_fallback=True,
            character_coverage=1.0,
            split_digits=True,
            # Control symbols are never produced from text, so nobody can type a tag.
            control_symbols=[PAD_NAME, *(name for pair in TAG_NAMES.values() for name in pair)],
            normalization_rule_name="nmt_nfkc",
            minloglevel=2,
            num_threads=1,  # the same pieces on any machine
        )
        return cls(model.getvalue())

    @property
    def knows_everything(self) -> bool:
        return all(map(self.knows, string.ascii_letters + string.digits + ".,?!"))

    def knows(self, character: str) -> bool:
        return character in self._characters

    @cached_property
    def _characters(self) -> frozenset[str]:
        pieces = self._pieces
        ordinary = (i for i in range(self.size) if not (pieces.is_byte(i) or pieces.is_control(i)))
        return frozenset(p for p in map(pieces.id_to_piece, ordinary) if len(p) == 1) - {
            "\u2581"
        }  # its mark of a space

    def encode(self, text: str) -> list[int]:
        return self._pieces.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        known = [i for i in ids if i < self.size]
        ordinary = [i for i in known if not self._pieces.is_control(i) and not self._pieces.is_unknown(i)]
        return self._pieces.decode(ordinary)

    def tag(self, role: str) -> tuple[int, int]:
        opening, closing = TAG_NAMES[role]
        return self._pieces.piece_to_id(opening), self._pieces.piece_to_id(closing)

    def save_pretrained(self, folder: str | Path) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / _SENTENCEPIECE_FILE).write_bytes(self._model)


class TransformersTokenizer(TextTokenizer):
    """Any transformers tokenizer, LLaMA's for example; tags it does not know yet are added as special tokens."""

    def __init__(self, source: str | Path) -> None:
        from transformers import AutoTokenizer

        try:
            self._inner = AutoTokenizer.from_pretrained(str(source))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{source}: no text tokenizer could be read there ({error}); give a folder or a hub id"
            ) from error
        names = [PAD_NAME, *(name for pair in TAG_NAMES.values() for name in pair)]
        known = self._inner.get_vocab()
        self._inner.add_special_tokens({"additional_special_tokens": [n for n in names if n not in known]})
        if self._inner.bos_token_id is None or self._inner.eos_token_id is None:
            raise UserError(f"{source}: its tokenizer names no BOS or no EOS token; set both in tokenizer_config.json")
        self.size = len(self._inner)
        self.bos, self.eos = self._inner.bos_token_id, self._inner.eos_token_id
        self.pad = self._inner.convert_tokens_to_ids(PAD_NAME)
        entries = sorted(self._inner.get_vocab().items(), key=lambda item: item[1])
        self.fingerprint = hashlib.sha256(repr(entries).encode()).hexdigest()[:16]

    def encode(self, text: str) -> list[int]:
        return self._inner.encode(text, add_special_tokens=False, split_special_tokens=True)

    def decode(self, ids: Iterable[int]) -> str:
        return self._inner.decode(list(ids), skip_special_tokens=True)

    def tag(self, role: str) -> tuple[int, int]:
        opening, closing = self._inner.convert_tokens_to_ids(list(TAG_NAMES[role]))
        return opening, closing

    def save_pretrained(self, folder: str | Path) -> None:
        self._inner.save_pretrained(str(folder))
