"""Each construction links what it says it links, within 2 to 8 segments and the rows it is given."""

from collections import Counter
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from auditory_sentences.builders.catalogue import Catalogue
from auditory_sentences.builders.constructions import CONSTRUCTIONS
from auditory_sentences.corpora.clip import Clip
from auditory_sentences.lengths import row_limit
from auditory_sentences.rng import KeyedRng
from auditory_sentences.sentence import TEXT_ROLES, AuditorySentence, Segment, to_rows
from codec.tokens import SAMPLE_RATE
from tests.factories.store import TinyStore, random_tokens, tiny_layout, tiny_store, tiny_tokenizer


@pytest.fixture(scope="module")
def catalogue():
    return Catalogue(tiny_store(), "train")


def sentences(catalogue, name, seeds=60, max_rows=2048):
    construction = CONSTRUCTIONS[name]
    anchors = construction.anchors(catalogue)
    return [
        construction.build(catalogue, anchors[seed % len(anchors)], KeyedRng(seed), max_rows) for seed in range(seeds)
    ]


def clip_of(catalogue, segment):
    """The clip whose tokens or words a segment holds."""
    for i in catalogue.members:
        if not segment.is_text and catalogue.stored(i).tokens.equal(segment.content):
            return catalogue.clip(i)
    return None


@pytest.mark.parametrize("name", CONSTRUCTIONS)
@pytest.mark.parametrize("max_rows", [120, 300, 2048])
def test_two_to_eight_segments_all_learned_within_the_rows(catalogue, name, max_rows):
    made = sentences(catalogue, name, max_rows=max_rows)
    counts = Counter(len(sentence.segments) for sentence in made)
    assert 2 <= min(counts) and max(counts) <= 8
    assert all(segment.is_target for sentence in made for segment in sentence.segments)
    if max_rows == 2048:
        assert len(counts) > 1 or name == "mixture_parts"
    for sentence in made:
        fits = row_limit(sentence.segments) <= max_rows
        assert fits or len(sentence.segments) == 2 or name in ("mixture_parts", "same_text_voices")
        assert sentence.name.startswith(f"{name}:train-")


@pytest.mark.parametrize("name", CONSTRUCTIONS)
def test_a_construction_is_a_pure_function(catalogue, name):
    first, second = sentences(catalogue, name, 12), sentences(catalogue, name, 12)
    for one, other in zip(first, second, strict=True):
        assert [s.role for s in one.segments] == [s.role for s in other.segments]
        for s, t in zip(one.segments, other.segments, strict=True):
            assert s.content == t.content if s.is_text else s.content.equal(t.content)


def test_recordings_come_in_order(catalogue):
    runs = []
    for sentence in sentences(catalogue, "segmented_audio"):
        clips = [clip_of(catalogue, segment) for segment in sentence.segments]
        if all(clips):
            positions = [clip.position for clip in clips]
            assert {clip.group for clip in clips} == {"train-story"}
            assert positions == list(range(positions[0], positions[0] + len(positions)))
            runs.append(tuple(positions))
    assert len(set(runs)) > 4


def test_a_long_clip_is_cut_without_loss(catalogue):
    whole = next(catalogue.stored(i).tokens for i in catalogue.members if catalogue.clip(i).id == "train-long")
    cuts = set()
    for sentence in sentences(catalogue, "segmented_audio"):
        if sentence.name.endswith("train-long"):
            pieces = [segment.content for segment in sentence.segments]
            for kind in ("descriptive", "structural"):
                joined = torch.cat([piece[kind] for piece in pieces], dim=1)
                assert torch.equal(joined, whole[kind][:, : joined.shape[1]])
            assert min(piece.num_samples for piece in pieces) > 2.39 * SAMPLE_RATE
            assert whole.num_samples - sum(piece.num_samples for piece in pieces) < 0.401 * SAMPLE_RATE
            cuts.add(tuple(piece.num_samples for piece in pieces))
    assert len(cuts) > 10


@settings(deadline=None)
@given(st.integers(9600, 24_000 * 20), st.data())
def test_excerpts_are_whole_frames(num_samples, data):
    tokens = random_tokens(num_samples)
    cut = TinyStore.units
    units = cut.in_clip(tokens)
    start = data.draw(st.integers(0, units - 1))
    length = data.draw(st.integers(1, units - start))
    part = cut.crop(tokens, start, length)
    assert torch.equal(part["descriptive"], tokens["descriptive"][:, 2 * start : 2 * (start + length)])
    assert torch.equal(part["structural"], tokens["structural"][:, 5 * start : 5 * (start + length)])
    assert part.fingerprint == tokens.fingerprint
    assert cut.in_rows(row_limit([Segment("audio", part)])) == length
    with pytest.raises(ValueError, match="outside"):
        cut.crop(tokens, start, units - start + 1)


def test_speech_and_text_by_turns(catalogue):
    ways = Counter()
    for sentence in sentences(catalogue, "speech_text", 200):
        roles = [segment.role for segment in sentence.segments]
        assert set(roles) <= {"audio", "transcription"}
        clips = [clip_of(catalogue, s) for s in sentence.segments if not s.is_text]
        assert len({clip.speaker for clip in clips}) == 1
        pairs = list(zip(sentence.segments[::2], sentence.segments[1::2], strict=False))
        same = [
            clip_of(catalogue, a if not a.is_text else b).text == (a if a.is_text else b).content
            for a, b in pairs
            if a.is_text != b.is_text
        ]
        ways["pairs" if all(same) else "by turns", roles[0]] += 1
        if not all(same):  # a story that goes on, in audio and in words by turns
            assert {clip.group for clip in clips} == {"train-story"}
            assert [clip.position for clip in clips] == sorted(clip.position for clip in clips)
            assert all(one != other for one, other in pairwise(roles))
    assert set(ways) == {(way, first) for way in ("pairs", "by turns") for first in ("audio", "transcription")}


def test_audio_and_captions_belong_together(catalogue):
    orders, shared = Counter(), Counter()
    for sentence in sentences(catalogue, "audio_caption", 200):
        clips = []
        for a, b in zip(sentence.segments[::2], sentence.segments[1::2], strict=True):
            audio, caption = (b, a) if a.is_text else (a, b)
            clip = clip_of(catalogue, audio)
            assert caption.role == "caption" and caption.content == clip.caption
            clips.append(clip)
        assert len({clip.kind for clip in clips}) == 1 and clips[0].kind != "speech"
        assert len({clip.id for clip in clips}) == len(clips)
        orders[sentence.segments[0].role] += 1
        if len(clips) > 2:
            shared[any(all(c.labels.get(k) == v for c in clips) for k, v in clips[0].labels.items())] += 1
    assert min(orders["audio"], orders["caption"]) > 60
    assert shared[True] > 10 and shared[False] > 10


def test_a_mixture_comes_with_its_parts(catalogue):
    firsts = Counter()
    for sentence in sentences(catalogue, "mixture_parts"):
        clips = [clip_of(catalogue, segment) for segment in sentence.segments]
        mixture = next(clip for clip in clips if clip.kind == "mixture")
        assert {clip.id for clip in clips} - {mixture.id} == set(mixture.parts)
        assert clips.index(mixture) in (0, len(clips) - 1)
        firsts[clips[0].kind == "mixture"] += 1
    assert min(firsts.values()) > 10


def test_the_same_words_in_different_voices(catalogue):
    described, with_words = Counter(), Counter()
    for sentence in sentences(catalogue, "same_text_voices", 100):
        clips = [clip_of(catalogue, s) for s in sentence.segments if not s.is_text]
        assert len(clips) >= 2 or len(sentence.segments) == 2
        assert len({clip.speaker for clip in clips}) == len(clips)
        assert len({"".join(filter(str.isalpha, clip.text.lower())) for clip in clips}) == 1
        described[any(s.role == "caption" for s in sentence.segments)] += 1
        with_words[sentence.segments[0].role == "transcription"] += 1
    assert min(described.values()) > 25 and min(with_words.values()) > 25


def test_parts_of_another_split_make_no_sentence():
    """A mixture of train whose clean part is held out must not show it."""
    clips = [
        Clip("mix", "x", "mixture", "train", parts=("a", "b")),
        Clip("a", "x", "speech", "train"),
        Clip("b", "x", "sound", "dev"),
    ]
    catalogue = Catalogue(TinyStore(clips, [1, 1, 1]), "train")
    assert not CONSTRUCTIONS["mixture_parts"].anchors(catalogue)


def test_nothing_to_link_gives_no_anchor():
    clips = [Clip(str(i), "x", "speech", "train", text=f"text {i}", speaker=str(i)) for i in range(5)]
    catalogue = Catalogue(TinyStore(clips, [1] * 5), "train")
    assert not any(construction.anchors(catalogue) for construction in CONSTRUCTIONS.values())


@settings(deadline=None)
@given(
    st.text(max_size=40),
    st.sampled_from([*TEXT_ROLES, "audio", "descriptive", "structural", "audio_prompt"]),
    st.integers(9600, 50_000),
)
def test_row_limits_hold(text, role, num_samples):
    """The rows that `to_rows` makes are exactly as many for audio, and never more for text."""
    tokenizer = tiny_tokenizer_once()
    is_text = role in TEXT_ROLES
    segment = Segment(role, text if is_text else random_tokens(num_samples))
    made = len(to_rows(AuditorySentence((segment,)), tiny_layout(tokenizer), tokenizer))
    if is_text and text.isascii():
        assert made <= row_limit([segment])
    elif not is_text:
        assert made == row_limit([segment])


def tiny_tokenizer_once(cache=[]):  # noqa: B006
    if not cache:
        cache.append(tiny_tokenizer())
    return cache[0]
