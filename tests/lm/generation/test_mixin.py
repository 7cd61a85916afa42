"""`model.generate`: the project's generation under the library's names, and nothing of its own."""

import pytest
import torch

from lm.generation.generate import generate_audio, generate_text
from lm.generation.settings import GenerationSettings
from lm.rows import collate, drop_conditions, unpad
from tests.factories.language_model import LAYOUT, audio, sentences, text, tiny_model
from tests.lm.generation.test_generate import same_audio

SEEDS = [5, 6, 7, 8]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def prompts():
    return sentences()


@pytest.fixture(scope="module")
def batch(prompts):
    return collate(prompts, LAYOUT)


def padded(texts):
    longest = max(len(made.ids) for made in texts)
    return [made.ids + [LAYOUT.text_pad] * (longest - len(made.ids)) for made in texts]


def test_separate_undoes_collate_on_either_side(prompts, batch):
    for left in (0, 3):
        ids = torch.cat([torch.full((len(prompts), left, 9), 7), batch.ids], dim=1)
        mask = torch.cat([torch.zeros(len(prompts), left, 9, dtype=torch.bool), batch.mask], dim=1)
        for ours, theirs in zip(unpad(ids, mask), prompts, strict=True):
            assert torch.equal(ours.ids, theirs.ids) and torch.equal(ours.mask, theirs.mask)


def test_text_is_that_of_generation(model, prompts, batch):
    settings = GenerationSettings(max_rows=12, temperature=0.7, top_k=9)
    expected = padded(generate_text(model, prompts, settings, SEEDS))
    options = {"max_new_tokens": 12, "do_sample": True, "temperature": 0.7, "top_k": 9}
    assert model.generate(batch.ids, batch.mask, **options, seed=SEEDS).tolist() == expected
    assert model.generate(batch.ids, batch.mask, **options, seed=5).tolist() == expected, "5, 6, 7, 8 too"
    greedy = padded(generate_text(model, prompts, GenerationSettings(max_rows=12, top_k=1), SEEDS))
    assert greedy != expected
    assert model.generate(batch.ids, batch.mask, max_new_tokens=12).tolist() == greedy, "text is greedy by default"


def test_audio_is_that_of_generation(model, prompts, batch):
    settings = GenerationSettings(max_rows=20, temperature=1.0, top_k=None, guidance=2.0)
    negatives = [drop_conditions(rows, LAYOUT, stream=0) for rows in prompts]
    other = collate(negatives, LAYOUT)
    expected = generate_audio(model, prompts, settings, SEEDS, negatives)
    options = {"max_new_tokens": 20, "temperature": 1.0, "top_k": 0, "seed": SEEDS}
    arguments = batch.ids, batch.mask, "audio", other.ids, other.mask
    guided = model.generate(*arguments, guidance_scale=2.0, **options)
    assert all(map(same_audio, guided, expected))
    plain = model.generate(*arguments, **options)
    assert not all(map(same_audio, plain, expected)), "negatives are there but not asked for"
    greedy = model.generate(*arguments, max_new_tokens=20, do_sample=False, seed=0)
    assert all(map(same_audio, greedy, model.generate(*arguments, max_new_tokens=20, do_sample=False, seed=9)))


def test_structural_frames_have_settings_of_their_own(model, prompts, batch):
    """Guidance of the structural frames alone needs the negatives too; without sampling no temperature counts."""
    negatives = [drop_conditions(rows, LAYOUT, stream=0) for rows in prompts]
    other = collate(negatives, LAYOUT)
    settings = GenerationSettings(40, 0.5, None, 1.0, {"structural": 1.5}, {"structural": 3.0})
    expected = generate_audio(model, prompts, settings, SEEDS, negatives)
    arguments = batch.ids, batch.mask, "audio", other.ids, other.mask
    options = {"max_new_tokens": 40, "temperature": 0.5, "top_k": 0, "seed": SEEDS}
    own = {"stream_temperature": {"structural": 1.5}, "stream_guidance_scale": {"structural": 3.0}}
    assert all(map(same_audio, model.generate(*arguments, **options, **own), expected))
    assert not all(map(same_audio, model.generate(*arguments, **options), expected))
    greedy = model.generate(*arguments, **options, do_sample=False)
    warm = model.generate(*arguments, **options, do_sample=False, stream_temperature={"structural": 1.5})
    assert all(map(same_audio, warm, greedy))


def test_without_a_seed_the_global_generator_decides(model, batch):
    drawn = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        drawn.append(model.generate(batch.ids, batch.mask, do_sample=True, max_new_tokens=8).tolist())
    assert drawn[0] == drawn[2] != drawn[1]


def test_an_entry_alone_is_the_entry_in_the_batch(model, prompts, batch):
    together = model.generate(batch.ids, batch.mask, max_new_tokens=8, do_sample=True, seed=SEEDS).tolist()
    for rows, seed, expected in zip(prompts, SEEDS, together, strict=True):
        (alone,) = model.generate(
            rows.ids[None], rows.mask[None], max_new_tokens=8, do_sample=True, seed=[seed]
        ).tolist()
        assert alone == expected[: len(alone)] and set(expected[len(alone) :]) <= {LAYOUT.text_pad}


def test_no_prompts_and_texts_of_no_length(model, monkeypatch):
    ids, mask = torch.zeros(0, 3, 9, dtype=torch.int64), torch.zeros(0, 3, 9, dtype=torch.bool)
    assert model.generate(ids, mask, seed=0).shape == (0, 0) and model.generate(ids, mask, "audio", seed=0) == []
    rows = text(3, 1)
    monkeypatch.setattr("lm.generation.batch.sample", lambda logits, *_: torch.full((len(logits),), LAYOUT.text_eos))
    silent = model.generate(rows.ids[None], rows.mask[None], seed=0)
    assert silent.shape == (1, 0) and silent.dtype == torch.int64


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"output_modality": "video"}, "must be 'text' or 'audio', not 'video'"),
        ({"guidance_scale": 2.0}, "is for audio"),
        ({"stream_temperature": {"structural": 0.5}}, "are for audio, not for text"),
        ({"stream_guidance_scale": {"structural": 1.0}}, "are for audio, not for text"),
        ({"output_modality": "audio", "guidance_scale": 2.0}, "needs a negative prompt"),
        ({"output_modality": "audio", "stream_guidance_scale": {"structural": 2.0}}, "needs a negative prompt"),
        (
            {"output_modality": "audio", "stream_temperature": {"structural": -1.0}},
            "stream_temperature.* must be 0 or more",
        ),
        ({"max_new_tokens": 0}, "max_rows must be at least 1"),
        ({"do_sample": True, "temperature": -1.0}, "temperature must be 0 or more"),
        ({"top_k": -1}, "top_k must be at least 1"),
        ({"seed": [1, 2]}, "1 prompts, but 2 seeds"),
    ],
)
def test_what_cannot_be_generated(model, options, words):
    rows = audio(1, 2, 1)
    with pytest.raises(ValueError, match=words):
        model.generate(rows.ids[None], rows.mask[None], **options)
