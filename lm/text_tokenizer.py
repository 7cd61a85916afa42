"""Text tokenizers: text <-> ids, with the special ids that the row layout needs."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import string
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import sentencepiece

from codec.io.errors import UserError, of_system
from codec.io.files import replace_file
from codec.io.hub import local_folder
from codec.io.third_party import third_party_errors

# The names that the published tokenizer gives to LLaMA's reserved ids (published model, §B.1).
TAG_NAMES = {
    "transcription": ("<transcription>", "</transcription>"),
    "lyric": ("<lyric>", "</lyric>"),
    "caption": ("<caption>", "</caption>"),
}
PAD_NAME = "<text_pad_token>"
_SENTENCEPIECE_FILE = "sentencepiece.model"
_HUB_FILES = ("*.json", "*.txt", "*.model", "*.jinja")  # what tokenizers are made of
_LARGEST = 256 * 2**20  # bytes of a sentencepiece model
_REMEDY = "copy it again, or train one (a recipe of kind text_model)"


class TextTokenizer(ABC):
    """Text <-> ids. `encode` never yields a special id, whatever the text says."""

    size: int  # number of ids
    bos: int  # opens a text
    eos: int  # closes it
    pad: int  # stands where there is no text
    fingerprint: str  # 16 hexadecimal digits: equal where the ids mean the same

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
    def save_pretrained(self, folder: str | Path) -> None:
        """Write what `from_pretrained` reads."""

    def wrap(self, text: str) -> list[int]:
        """BOS, words, EOS: the form of every text field (published model, §B.1)."""
        return [self.bos, *self.encode(text), self.eos]

    @staticmethod
    def from_pretrained(source: str | Path) -> TextTokenizer:
        """A folder of ours, a folder with a transformers tokenizer, or a hub id.

        Raises:
            UserError: There is none, or its files are damaged.
        """
        folder = local_folder(source, "text tokenizer", _HUB_FILES)
        path = folder / _SENTENCEPIECE_FILE
        if os.path.lexists(path):
            return SentencePieceTokenizer(_read_pieces(path), str(path))
        return TransformersTokenizer(folder)


class SentencePieceTokenizer(TextTokenizer):
    """A sentencepiece model with byte fallback: any text has ids and comes back from them."""

    def __init__(self, model: bytes, source: str = "sentencepiece model") -> None:
        """
        Args:
            model: Content of a sentencepiece.model.
            source: Names it in errors.

        Raises:
            UserError: It is cut short, damaged or of another kind of model.
        """
        with third_party_errors(source, "no sentencepiece model, or damaged", _REMEDY):
            if not _is_whole(model):
                raise UserError(f"{source}: cut short, damaged or no sentencepiece model; {_REMEDY}")
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        self._model = model
        self.size = self._pieces.get_piece_size()
        self.bos, self.eos = self._pieces.bos_id(), self._pieces.eos_id()
        self.pad = self._pieces.piece_to_id(PAD_NAME)
        names = [PAD_NAME, *(name for pair in TAG_NAMES.values() for name in pair)]
        absent = [name for name in names if self._pieces.id_to_piece(self._pieces.piece_to_id(name)) != name]
        if absent or self.bos < 0 or self.eos < 0:
            lacks = absent[0] if absent else "a begin or an end"
            raise UserError(f"{source}: has no id for {lacks}, so it is no tokenizer of an audio model; {_REMEDY}")
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
        with replace_file(Path(folder) / _SENTENCEPIECE_FILE) as path:
            path.write_bytes(self._model)


class TransformersTokenizer(TextTokenizer):
    """Any transformers tokenizer, LLaMA's for example; tags it does not know yet are added as special tokens."""

    def __init__(self, source: str | Path) -> None:
        from transformers import AutoTokenizer

        names = [PAD_NAME, *(name for pair in TAG_NAMES.values() for name in pair)]
        with third_party_errors(source, "no text tokenizer could be read there", "give the folder of one, or a hub id"):
            self._inner: Any = AutoTokenizer.from_pretrained(str(source), trust_remote_code=False)
            known = self._inner.get_vocab()
            self._inner.add_special_tokens({"additional_special_tokens": [n for n in names if n not in known]})
        if self._inner.bos_token_id is None or self._inner.eos_token_id is None:
            raise UserError(f"{source}: its tokenizer names no BOS or no EOS token; set both in tokenizer_config.json")
        self.size = len(self._inner)
        self.bos, self.eos = self._inner.bos_token_id, self._inner.eos_token_id
        self.pad = self._inner.get_vocab()[PAD_NAME]
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


def _read_pieces(path: Path) -> bytes:
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise UserError(f"{path}: is no file; {_REMEDY}")
        if state.st_size > _LARGEST:
            raise UserError(f"{path}: larger than any sentencepiece model; {_REMEDY}")
        return path.read_bytes()
    except OSError as error:
        raise of_system(error, path) from error


def _is_whole(model: bytes) -> bool:
    """Whether a serialised sentencepiece model has all its parts.

    The library takes a file that was cut between two pieces for one with fewer pieces. The settings of the training
    and of the normaliser, fields 2 and 3, come after all pieces, field 1.
    """
    place, fields = 0, set()
    while place < len(model):
        tag, place = _varint(model, place)
        length, place = _varint(model, place)
        if tag & 7 != 2 or place + length > len(model):  # all fields of the message have a length
            return False
        fields.add(tag >> 3)
        place += length
    return {1, 2, 3} <= fields


def _varint(model: bytes, place: int) -> tuple[int, int]:
    """A number in protobuf's form and the place after it; beyond the end, one that does not fit."""
    value = shift = 0
    while place < len(model) and shift < 64:
        value |= (model[place] & 127) << shift
        shift, place = shift + 7, place + 1
        if model[place - 1] < 128:
            return value, place
    return 2**64, place
