"""Generation: seeds, guidance, ends, limits, scores, streams."""

from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from lm.generation.generate import generate_audio, generate_text, score_text, stream_audio
from lm.generation.settings import GenerationSettings
from lm.rows import Rows, concatenate, drop_conditions, text_rows
from tests.factories.language_model import LAYOUT, audio, eager_to_end, shape, text, tiny_model

SETTINGS = GenerationSettings(max_rows=30)


def same_audio(ours, other):
    return (
        torch.equal(ours["descriptive"], other["descriptive"])
        and torch.equal(ours["structural"], other["structural"])
        and ours.reason == other.reason
    )


def test_guidance_of_one_is_no_guidance(model, prompts):
    """The guided path at a scale next to one gives what the unguided path gives."""
    negatives = [drop_conditions(prompt, LAYOUT, stream=1) for prompt in prompts]
    plain = generate_audio(model, prompts, SETTINGS, [1, 2, 3, 4])
    settings = replace(SETTINGS, guidance=1.0)
    assert all(map(same_audio, generate_audio(model, prompts, settings, [1, 2, 3, 4], negatives), plain))
    settings = replace(SETTINGS, guidance=1.0 + 1e-7)
    assert all(map(same_audio, generate_audio(model, prompts, settings, [1, 2, 3, 4], negatives), plain))


@pytest.mark.parametrize(
    "structural",
    [
        {"stream_temperature": {"structural": 0.0}},
        pytest.param({"stream_guidance": {"structural": 0.0}}, marks=pytest.mark.slow),
        {"stream_guidance": {"structural": 30.0}},
    ],
)
def test_structural_settings_leave_descriptive_frames_alone(model, prompts, structural):
    negatives = [drop_conditions(prompt, LAYOUT, stream=1) for prompt in prompts]
    settings, seeds = replace(SETTINGS, guidance=2.0, max_rows=60), [1, 2, 3, 4]
    plain = generate_audio(model, prompts, settings, seeds, negatives)
    own = {"structural": settings.temperature}, {"structural": settings.guidance}
    same = replace(settings, stream_temperature=own[0], stream_guidance=own[1])
    assert all(map(same_audio, generate_audio(model, prompts, same, seeds, negatives), plain))
    other = generate_audio(model, prompts, replace(settings, **structural), seeds, negatives)
    assert all(torch.equal(a["descriptive"], b["descriptive"]) for a, b in zip(other, plain, strict=True))
    assert not all(map(same_audio, other, plain))


def test_structural_frames_without_temperature_ignore_the_noise(model, prompts):
    settings = replace(SETTINGS, temperature=0.0, stream_temperature={"structural": 1.5})
    one, two = (generate_audio(model, prompts, settings, [seed] * 4) for seed in (1, 2))
    assert all(torch.equal(a["descriptive"], b["descriptive"]) for a, b in zip(one, two, strict=True))
    greedy = generate_audio(model, prompts, replace(SETTINGS, temperature=0.0), [1] * 4)
    assert all(torch.equal(a["descriptive"], b["descriptive"]) for a, b in zip(one, greedy, strict=True))


def test_a_length_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="max_seconds"):
        GenerationSettings(max_seconds=float("nan"))


def test_text_that_ends_at_once():
    model = eager_to_end()
    model.lm_head.weight.data[LAYOUT.text_eos] = model.last_hidden_state(*batch_of(text(3, 1)))[0, -1].detach()
    (result,) = generate_text(model, [text(3, 1)], GenerationSettings(top_k=1), [0])
    assert (result.ids, result.reason) == ([], "end")


def batch_of(rows: Rows):
    return rows.ids[None], rows.mask[None]


def test_text_of_one_token(model):
    (result,) = generate_text(model, [text(3, 1)], GenerationSettings(max_rows=1), [0])
    assert len(result.ids) == 1 and result.reason == "max_rows"


def test_the_context_is_a_limit():
    model = tiny_model(cross_modal=shape(32, 2, max_position_embeddings=12))
    for reach, (length, reason, rows) in {"inside": (4, "max_rows", 6), "beyond": (8, "context", 4)}.items():
        (written,) = generate_text(model, [text(length, 1)], GenerationSettings(max_rows=6, top_k=1), [0])
        if written.reason != "end":
            assert (written.reason, len(written.ids)) == (reason, rows), reach
    settings = GenerationSettings(max_rows=6)
    together = generate_audio(model, [text(8, 1), text(3, 2)], settings, [0, 1])
    alone = generate_audio(model, [text(8, 1)], settings, [0]) + generate_audio(model, [text(3, 2)], settings, [1])
    assert all(map(same_audio, together, alone))
    assert together[0].reason in ("context", "end")
    for run in (generate_text, generate_audio):
        with pytest.raises(ValueError, match="at least one row"):
            run(model, [text(0, 1)], settings, [0])
    with pytest.raises(ValueError, match="context holds 12"):
        score_text(model, [text(11, 1)], [[9, 10]])


@pytest.mark.parametrize("length", [11, 12, 30])
def test_a_prompt_without_room_gets_nothing_and_stops_no_other(length):
    model = tiny_model(cross_modal=shape(32, 2, max_position_embeddings=12))
    settings = GenerationSettings(max_rows=6)
    prompts, alone = [text(length, 1), text(3, 2)], [text(3, 2)]
    if length > 11:
        full, other = generate_text(model, prompts, settings, [0, 1])
        assert (full.ids, full.reason) == ([], "context")
        assert [other] == generate_text(model, alone, settings, [1])
    for guidance in (1.0, 2.0):  # the first time a prompt has no room, the second time a negative
        settings = replace(settings, guidance=guidance)
        some, others = (prompts, alone * 2)[:: 1 if guidance == 1 else -1]
        full, other = generate_audio(model, some, settings, [0, 1], others)
        assert full["descriptive"].shape == full["structural"].shape == (8, 0) and full.reason == "context"
        assert same_audio(other, generate_audio(model, alone, settings, [1], alone)[0])
        frames = stream_audio(model, some, settings, [0, 1], others)
        streamed = []
        try:
            while True:
                streamed.append(next(frames))
        except StopIteration as stop:
            assert stop.value == ["context", other.reason]
        assert {frame.request for frame in streamed} <= {1}
        assert [f.codes for f in streamed if f.stream == "descriptive"] == other["descriptive"].T.tolist()
    assert generate_audio(model, prompts[:1], replace(settings, guidance=1.0), [0])[0].reason == "context"


def test_counts_must_match(model):
    with pytest.raises(ValueError, match="1 prompts, but 2 seeds"):
        generate_text(model, [text(3, 1)], SETTINGS, [0, 1])
    with pytest.raises(ValueError, match="negative prompt"):
        generate_audio(model, [text(3, 1)], replace(SETTINGS, guidance=3.0), [0])
    assert generate_text(model, [], SETTINGS, []) == [] and generate_audio(model, [], SETTINGS, []) == []


def test_streaming_yields_what_generation_returns(model, prompts):
    frames = list(stream_audio(model, prompts, SETTINGS, [11, 12, 13, 14]))
    for request, result in enumerate(generate_audio(model, prompts, SETTINGS, [11, 12, 13, 14])):
        for kind, codes in (("descriptive", result["descriptive"]), ("structural", result["structural"])):
            mine = [frame.codes for frame in frames if (frame.request, frame.stream) == (request, kind)]
            assert mine == codes.T.tolist()
    stream = stream_audio(model, prompts, SETTINGS, [11, 12, 13, 14])
    with pytest.raises(StopIteration) as stop:
        while True:
            next(stream)
    assert stop.value.value == [r.reason for r in generate_audio(model, prompts, SETTINGS, [11, 12, 13, 14])]
    # They come as they are made: the requests take turns.
    assert [frame.request for frame in frames[:4]] == [0, 1, 2, 3]


def test_a_stream_can_be_left(model, prompts):
    model.train()
    stream = stream_audio(model, prompts, SETTINGS, [11, 12, 13, 14])
    next(stream)
    stream.close()
    assert model.training
    model.eval()


@torch.no_grad()
def test_scores_are_sums_of_log_probabilities(model, prompts):
    continuations = [[9, 10, 1], [11], [12, 13], [14, 15, 16, 17]]
    scores = score_text(model, prompts, continuations)
    for prompt, ids, score in zip(prompts, continuations, scores, strict=True):
        whole = concatenate([prompt, text_rows(ids, LAYOUT, is_target=False)])
        log_probs = model(*batch_of(whole)).text_logits[0].log_softmax(-1)
        expected = sum(log_probs[len(prompt) - 1 + i, value].item() for i, value in enumerate(ids))
        assert score == pytest.approx(expected, abs=1e-4)
    with pytest.raises(ValueError, match="at least one"):
        score_text(model, prompts[:1], [[]])


def test_dropout_plays_no_part(prompts):
    """A model in training mode generates what it generates in evaluation mode, and stays in training mode."""
    model = tiny_model(cross_modal=shape(32, 2, attention_dropout=0.5))
    expected = generate_text(model, prompts, SETTINGS, [1, 2, 3, 4])
    model.train()
    assert generate_text(model, prompts, SETTINGS, [1, 2, 3, 4]) == expected and model.training


def test_adapters_take_part(prompts):
    """With LoRA on a group: generation follows the adapted layers, equals the merged model, and freezes the rest."""
    model = tiny_model()
    plain = generate_audio(model, prompts, SETTINGS, [1, 2, 3, 4])
    frozen = {name: value.clone() for name, value in model.state_dict().items()}
    config = LoraConfig(r=2, target_modules=r"cross_modal\..*(q_proj|v_proj|down_proj)", init_lora_weights=False)
    adapted = get_peft_model(model, config)
    rows = audio(2, 3, 1, is_target=True)
    optimiser = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.1)
    adapted(rows.ids[None], rows.mask[None], rows.loss[None]).loss.backward()
    optimiser.step()
    now = {name.replace(".base_layer", ""): value for name, value in model.state_dict().items()}
    assert all(torch.equal(now[name], value) for name, value in frozen.items())

    expected = generate_audio(model, prompts, SETTINGS, [1, 2, 3, 4])
    assert not all(map(same_audio, expected, plain))
    merged = adapted.merge_and_unload()
    assert all(map(same_audio, generate_audio(merged, prompts, SETTINGS, [1, 2, 3, 4]), expected))
