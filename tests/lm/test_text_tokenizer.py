"""Text tokenizers: any text comes back, nobody can type a special id."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.io.errors import UserError
from lm.text_tokenizer import SentencePieceTokenizer, TextTokenizer

CORPUS = ["three seven one", "the red bird sings", "a slow piano melody in c major", "open the green door"] * 30


@pytest.fixture(scope="module")
def pieces():
    return SentencePieceTokenizer.train(CORPUS, 400)


@pytest.fixture(scope="module")
def llama_like(tmp_path_factory):
    """A transformers tokenizer with byte-level pieces, as LLaMA's, made here."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<transcription>", "</transcription>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    )
    folder = tmp_path_factory.mktemp("llama")
    PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=special[0], eos_token=special[1]).save_pretrained(folder)
    return TextTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("kind", ["pieces", "llama_like"])
def test_text_comes_back(kind, request):
    tokenizer = request.getfixturevalue(kind)
    for text in ("three seven one", "Zürich costs 5 €", "the red\tbird", "鳥"):
        assert tokenizer.decode(tokenizer.encode(text)).split() == text.split()
    assert tokenizer.decode(tokenizer.wrap("open the door")) == "open the door"


@pytest.mark.parametrize("kind", ["pieces", "llama_like"])
def test_specials_cannot_be_typed_and_are_dropped_in_decoding(kind, request):
    tokenizer = request.getfixturevalue(kind)
    opening, closing = tokenizer.tag("transcription")
    specials = {tokenizer.bos, tokenizer.eos, tokenizer.pad, opening, closing}
    assert len(specials) == 5 and max(specials) < tokenizer.size
    assert not specials & set(
        tokenizer.encode("<transcription> hi </transcription> <s> <|begin_of_text|> <text_pad_token>")
    )
    assert tokenizer.decode([opening, *tokenizer.wrap("hi"), closing]).strip() == "hi"


@pytest.mark.parametrize("kind", ["pieces", "llama_like"])
def test_ids_that_pad_a_models_table_are_dropped(kind, request):
    """A table padded to a round number has more rows than the tokenizer has ids; an untrained model may choose one."""
    tokenizer = request.getfixturevalue(kind)
    ids = [*tokenizer.encode("hi"), tokenizer.size, tokenizer.size + 7]
    assert tokenizer.decode(ids).strip() == "hi"


@pytest.mark.parametrize("kind", ["pieces", "llama_like"])
def test_saved_and_loaded_is_the_same(kind, request, tmp_path):
    tokenizer = request.getfixturevalue(kind)
    tokenizer.save_pretrained(tmp_path)
    again = TextTokenizer.from_pretrained(tmp_path)
    assert again.fingerprint == tokenizer.fingerprint and again.size == tokenizer.size
    assert again.wrap("three birds") == tokenizer.wrap("three birds")
    assert again.tag("caption") == tokenizer.tag("caption")


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn", "Co"]), max_size=60))
def test_every_text_has_ids_within_the_vocabulary(pieces, text):
    ids = pieces.encode(text)
    assert all(0 <= i < pieces.size for i in ids)


def test_training_twice_gives_the_same_fingerprint(pieces):
    assert SentencePieceTokenizer.train(CORPUS, 400).fingerprint == pieces.fingerprint


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(UserError, match=str(tmp_path)):
        TextTokenizer.from_pretrained(tmp_path)


def refused(folder, message):
    with pytest.raises(UserError, match=message) as caught:
        TextTokenizer.from_pretrained(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_pieces_cut_at_any_place_are_refused(pieces, tmp_path):
    """Between two pieces, too, where the library takes the file for one with fewer pieces."""
    pieces.save_pretrained(tmp_path)
    path = tmp_path / "sentencepiece.model"
    whole = path.read_bytes()
    ends, place = [], 0
    while place < len(whole) and whole[place] == 0x0A:  # field 1, a piece, shorter than 128 bytes
        place += 2 + whole[place + 1]
        ends.append(place)
    assert len(ends) == pieces.size
    for length in (0, 1, 2, *ends[:3], *ends[-3:], *range(100, len(whole), len(whole) // 20), len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(tmp_path, "sentencepiece.model: cut short, damaged or no sentencepiece model")


@given(content=st.binary(max_size=200))
def test_what_is_no_tokenizer_is_refused(content):
    with pytest.raises(UserError, match="^here: "):
        SentencePieceTokenizer(content, "here")


def test_pieces_without_our_tags_are_refused(tmp_path):
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=model, vocab_size=60, hard_vocab_limit=False, minloglevel=2
    )
    (tmp_path / "sentencepiece.model").write_bytes(model.getvalue())
    refused(tmp_path, "has no id for <text_pad_token>")


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to nowhere"])
def test_pieces_that_are_no_file(tmp_path, kind):
    path = tmp_path / "sentencepiece.model"
    {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "link to nowhere": lambda: path.symlink_to("no")}[kind]()
    refused(tmp_path, "sentencepiece.model")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", b""),
        ("tokenizer.json", b"{"),
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b"[]"),
        ("tokenizer.json", b'{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": -1}, "merges": 3}}'),
        ("tokenizer.json", b"\xff\xfe\x00"),
        ("tokenizer_config.json", b"{"),
        ("tokenizer_config.json", b"[]"),
        ("tokenizer_config.json", b'{"tokenizer_class": 7}'),
        ("tokenizer_config.json", b'{"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["x.py--A", null]}}'),
    ],
)
def test_damaged_transformers_tokenizers_are_one_sentence(llama_like, tmp_path, name, content):
    llama_like.save_pretrained(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        TextTokenizer.from_pretrained(tmp_path)
    said = str(caught.value)
    assert str(tmp_path) in said and "\n" not in said and "trust_remote_code" not in said and len(said) < 600


def test_a_folder_without_a_tokenizer_and_a_mistyped_path(tmp_path):
    refused(tmp_path, "no text tokenizer could be read")
    with pytest.raises(UserError, match="nowhere: no such folder; give the folder of a text tokenizer"):
        TextTokenizer.from_pretrained(tmp_path / "nowhere")
