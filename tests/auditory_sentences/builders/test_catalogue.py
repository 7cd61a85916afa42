"""Which clips belong together: every relation holds, whatever is drawn, and what cannot be cast is not."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditory_sentences.builders.catalogue import RELATIONS, Catalogue
from auditory_sentences.corpora.clip import Clip
from auditory_sentences.rng import KeyedRng
from lm.words import normalise_words
from tests.factories.store import TinyStore, tiny_store

HOLDS = {
    "speaker": lambda clip, other: (
        other.kind == "speech"
        and other.speaker == clip.speaker
        and other.id != clip.id
        and (not normalise_words(clip.text) or normalise_words(other.text) != normalise_words(clip.text))
    ),
    "words": lambda clip, other: (
        normalise_words(other.text) == normalise_words(clip.text) and other.speaker != clip.speaker
    ),
    "part": lambda clip, other: other.id in clip.parts,
    "parts": lambda clip, other: other.id in clip.parts,
    "clean": lambda clip, other: other.id in clip.parts and other.kind == "speech",
    "original": lambda clip, other: clip.parts == (other.id,) and clip.kind != "mixture" and bool(clip.instruction),
    "dry": lambda clip, other: clip.parts == (other.id,) and clip.kind != "mixture" and not clip.instruction,
    "next": lambda clip, other: other.group == clip.group and other.position == clip.position + 1,
    "answer": lambda clip, other: (
        other.group == clip.group and other.position == clip.position + 1 and other.instruction
    ),
}


def random_catalogue(seed: int) -> Catalogue:
    """A store of a few clips with arbitrary speakers, words, recordings and mixtures."""
    draw = random.Random(seed)
    clips = []
    for i in range(draw.randint(1, 30)):
        kind = draw.choice(["speech", "speech", "sound", "mixture"])
        most = 3 if kind == "mixture" else draw.choice([0, 0, 1])
        mixed = draw.sample(clips, min(len(clips), draw.randint(0, most)))
        group = draw.choice(["", "", "tale"]) if kind == "speech" else ""
        clips.append(
            Clip(
                id=str(i),
                path="x.wav",
                kind=kind,
                split="train",
                text=draw.choice(["", "One.", "one", "two"]) if kind == "speech" else "",
                speaker=draw.choice(["", "ann", "bob"]) if kind == "speech" else "",
                group=group,
                position=sum(c.group == group for c in clips) if group else 0,
                parts=tuple(part.id for part in mixed),
                instruction="louder" if (mixed or group) and draw.random() < 0.5 else "",
            )
        )
    return Catalogue(TinyStore(clips, [1.0] * len(clips)), "train")


def test_every_relation_is_tested():
    assert set(HOLDS) == set(RELATIONS)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(sorted(RELATIONS)), st.integers(0, 2**32))
def test_what_is_cast_is_related_and_what_is_related_can_be_cast(seed, relation, draws):
    catalogue = random_catalogue(seed)
    for i in catalogue.members:
        clip = catalogue.clip(i)
        holding = {j for j in catalogue.members if HOLDS[relation](clip, catalogue.clip(j))}
        cast = catalogue.cast(i, [relation], rng=KeyedRng(draws, i))
        assert bool(cast) == bool(catalogue.cast(i, [relation]))
        if cast:
            assert cast[""] == (i,) and cast[relation] and set(cast[relation]) <= holding
            assert cast == catalogue.cast(i, [relation], rng=KeyedRng(draws, i))
        elif relation == "speaker":
            assert not clip.speaker or not holding
        elif relation == "clean":
            assert len(holding) != 1
        elif relation == "parts":
            assert len(holding) < 2
        elif relation in ("next", "answer"):
            assert not clip.group or not holding
        elif relation == "words":
            assert not (clip.kind == "speech" and clip.speaker and clip.text) or not any(
                catalogue.clip(j).speaker for j in holding
            )
        else:
            assert not holding


def test_one_sentence_means_one_part_by_all_its_paths():
    """ "part.speaker" is about the very part that "part" is, and one that has no company is not drawn."""
    clips = [
        Clip("a1", "x", "speech", "train", "one", speaker="ann"),
        Clip("a2", "x", "speech", "train", "two", speaker="ann"),
        Clip("b1", "x", "speech", "train", "one", speaker="bob"),
        Clip("b2", "x", "speech", "train", "two", speaker="bob"),
        Clip("c1", "x", "speech", "train", "two", speaker="cid"),
        Clip("mix", "x", "mixture", "train", parts=("a1", "b1", "c1")),
    ]
    catalogue = Catalogue(TinyStore(clips, [1.0] * 6), "train")
    found = set()
    for seed in range(40):
        cast = catalogue.cast(5, ["part.speaker", "part", "parts"], rng=KeyedRng(seed))
        assert cast["parts"] == (0, 2, 4)
        found.add(cast["part"] + cast["part.speaker"])
    assert found == {(0, 1), (2, 3)}
    only_bob = catalogue.cast(5, ["part"], lambda path, clip: clip.speaker == "bob", KeyedRng(0))
    assert only_bob["part"] == (2,)
    assert not catalogue.cast(5, ["part.speaker"], lambda path, clip: path == "part", KeyedRng(0))


@pytest.mark.parametrize("size", [100, 20_000])
def test_casting_takes_no_longer_for_a_speaker_of_many_clips(size):
    """Counted, not timed: a draw looks at a few of the speaker's clips."""
    clips = [Clip(str(i), "x", "speech", "train", f"word {i}", speaker="ann") for i in range(size)]
    catalogue = Catalogue(TinyStore(clips, [1.0] * size), "train")
    looked_at = []

    def suits(path, clip):
        looked_at.append(clip.id)
        return True

    for seed in range(20):
        catalogue.cast(0, ["speaker"], suits, KeyedRng(seed))
        catalogue.cast(0, ["speaker"], suits)
    assert len(looked_at) == 40


def test_a_store_without_relations_casts_the_clip_alone():
    catalogue = Catalogue(tiny_store(), "train")
    assert all(catalogue.cast(i, []) == {"": (i,)} for i in catalogue.members)
