"""One function turns sentences into rows, and its rows are the published ones."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from auditory_sentences.sentence import AuditorySentence, Segment, to_rows
from codec.io.errors import UserError
from lm.rows import collate
from lm.vocabulary import StreamVocabulary, VocabularyLayout
from tests.factories.tokens import both, descriptive_frames, structural_frames


def samples_of(descriptive, structural):
    """Length of a clip that has so many frames of both kinds."""
    return max(4800 * (descriptive.shape[1] - 1), 1920 * (structural.shape[1] - 1))


class ReadyMade:
    """A text tokenizer that looks its ids up: the fixtures hold ids, not words."""

    def __init__(self, ids):
        self.ids = ids

    def wrap(self, text):
        return self.ids[text.strip()].tolist()


def tag_of(role, tasks, tensors):
    """The ids around a role's text in the fixture's sequences."""
    name = next(name for name, task in tasks.items() if f"{role}_seq" in task["fields"])
    column, words = tensors[f"{name}.train.tokens"][:, 8].tolist(), tensors[f"in.{role}_seq"].tolist()
    place = next(i for i in range(len(column)) if column[i : i + len(words)] == words)
    return column[place - 1], column[place + len(words)]


def published_layout(facts, tensors):
    ids = facts["ids"]
    prompt = tensors["in.prompt"].tolist()
    tags = {role: tag_of(role, facts["tasks"], tensors) for role in ("transcription", "lyric", "caption")}
    texts = [int(value.max()) for name, value in tensors.items() if name.endswith(".tokens")]
    flat = dict(
        text_size=max(ids["text_pad_token"], *texts) + 1,
        text_bos=prompt[0],
        text_eos=prompt[-1],
        text_pad=ids["text_pad_token"],
        tags=tags,
        descriptive_codes=min(ids["reason_bos"], ids["reason_eos"], ids["reason_pad_token"]),
        descriptive_card=ids["audio_reason_card"],
        descriptive_bos=ids["reason_bos"],
        descriptive_eos=ids["reason_eos"],
        descriptive_pad=ids["reason_pad_token"],
        structural_codes=min(ids["semantic_bos"], ids["semantic_eos"], ids["semantic_pad_token"]),
        structural_card=ids["audio_semantic_card"],
        structural_bos=ids["semantic_bos"],
        structural_eos=ids["semantic_eos"],
        structural_pad=ids["semantic_pad_token"],
        audio_prompt_bos=ids["audio_prompt_bos"],
        audio_prompt_eos=ids["audio_prompt_eos"],
    )
    return VocabularyLayout.from_dict(flat)


def segments_of(task, tensors):
    """The fixture's fields as segments; a reason field and the semantic field after it keep their own loss flags."""
    for field in task["fields"]:
        is_target = field in task["loss_fields"]
        if field == "prompt":
            yield Segment("prompt", "prompt")
        elif field.startswith(("reason", "semantic")):
            codes = tensors[f"in.{field}"]
            other = "semantic" if field.startswith("reason") else "reason"
            partner = tensors.get(f"in.{field.replace(field.split('_')[0], other)}")
            if partner is None:  # 'semantic_seq2' and 'reason_seq2' are the second clip's
                partner = tensors[f"in.{other}_seq2"]
            descriptive, structural = (codes, partner) if other == "semantic" else (partner, codes)
            tokens = both(descriptive, structural, samples_of(descriptive, structural), "")
            yield Segment("descriptive" if other == "semantic" else "structural", tokens, is_target)
        else:
            role = field.split("_")[0]
            yield Segment(role if role in ("transcription", "lyric", "caption") else "text", field, is_target)


@pytest.fixture(scope="module")
def published(parity_dir):
    facts = json.loads((parity_dir / "sequences.json").read_text())
    tensors = load_file(parity_dir / "sequences.safetensors")
    tokenizer = ReadyMade({k.removeprefix("in."): v for k, v in tensors.items() if k.startswith("in.")})
    return facts, tensors, tokenizer, published_layout(facts, tensors)


def test_rows_of_every_published_task(published):
    facts, tensors, tokenizer, layout = published
    for name, task in facts["tasks"].items():
        sentence = AuditorySentence(tuple(segments_of(task, tensors)))
        rows = to_rows(sentence, layout, tokenizer)
        assert torch.equal(rows.ids, tensors[f"{name}.train.tokens"]), name
        assert torch.equal(rows.mask, tensors[f"{name}.train.mask"].bool()), name
        assert torch.equal(rows.loss.bool(), tensors[f"{name}.train.loss_mask"].bool().any(-1)), name


def test_prompts_negatives_and_dropped_conditions_as_published(published):
    facts, tensors, tokenizer, layout = published
    checked = 0
    for name, task in facts["tasks"].items():
        conditions = tuple(s for s in segments_of(task, tensors) if not s.is_target)
        if f"{name}.infer.tokens" in tensors:
            rows = to_rows(AuditorySentence(conditions), layout, tokenizer)
            assert torch.equal(rows.ids, tensors[f"{name}.infer.tokens"]), name
            checked += 1
        if f"{name}.infer_negative.tokens" in tensors:
            rows = to_rows(AuditorySentence(conditions), layout, tokenizer, drop_conditions=True)
            assert torch.equal(rows.ids, tensors[f"{name}.infer_negative.tokens"]), name
        if name in facts["cfg_dropped_tasks"]:
            rows = to_rows(AuditorySentence(tuple(segments_of(task, tensors))), layout, tokenizer, drop_conditions=True)
            assert torch.equal(rows.ids, tensors[f"{name}.train_cfg_dropped.tokens"]), name
            assert torch.equal(rows.mask, tensors[f"{name}.train_cfg_dropped.mask"].bool()), name
    assert checked >= 10


def test_batch_padding_as_published(published):
    facts, tensors, tokenizer, layout = published
    rows = [
        to_rows(AuditorySentence(tuple(segments_of(facts["tasks"][name], tensors))), layout, tokenizer)
        for name in facts["batch_rows"]
    ]
    batch = collate(rows, layout)
    assert torch.equal(batch.ids, tensors["batch.tokens"])
    assert torch.equal(batch.mask, tensors["batch.mask"].bool())


def make_tokens(num_samples, fingerprint="f"):
    return both(
        torch.randint(0, 4, (8, descriptive_frames(num_samples))),
        torch.randint(0, 4, (8, structural_frames(num_samples))),
        num_samples,
        fingerprint,
    )


@given(st.lists(st.one_of(st.text(max_size=20), st.integers(1, 60_000)), min_size=1, max_size=6))
def test_one_modality_is_active_in_every_row(parts):
    layout = small_layout()
    segments = tuple(
        Segment("text", p, True) if isinstance(p, str) else Segment("audio", make_tokens(p)) for p in parts
    )
    rows = to_rows(AuditorySentence(segments), layout, ByteTokenizer())
    audio, text = rows.mask[:, :8], rows.mask[:, 8]
    assert (audio.all(1) ^ text).all() and (audio.any(1) == audio.all(1)).all()
    assert (rows.ids[~rows.mask] == 0).all()
    assert (rows.ids[:, :8] < layout.audio_size).all()
    assert torch.equal(rows.loss.bool(), text), "only the text segments are learned here"


class ByteTokenizer:
    def wrap(self, text):
        return [256, *text.encode("utf-8", "replace"), 257]


def small_layout(audio_fingerprint=""):
    tags = {"transcription": (259, 260), "lyric": (261, 262), "caption": (263, 264)}
    low = StreamVocabulary("descriptive", 8, 12, bos=8, eos=9, pad=11, rate=5.0)
    high = StreamVocabulary("structural", 8, 16, bos=8, eos=9, pad=11, rate=12.5)
    return VocabularyLayout(300, 256, 257, 258, tags, (low, high), 12, 13, "", audio_fingerprint)


def test_audio_of_another_tokenizer_is_refused_naming_both():
    sentence = AuditorySentence((Segment("audio", make_tokens(1000, "theirs")),))
    with pytest.raises(UserError, match="theirs.*ours"):
        to_rows(sentence, small_layout("ours"), ByteTokenizer())


def test_a_segment_must_hold_what_its_role_says():
    with pytest.raises(ValueError, match="holds AudioTokens, not str"):
        Segment("audio", "hello")
    with pytest.raises(ValueError, match="unknown role"):
        Segment("song", make_tokens(1000))
    with pytest.raises(ValueError, match="at least one segment"):
        to_rows(AuditorySentence(()), small_layout(), ByteTokenizer())
