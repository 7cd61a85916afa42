"""Generation: cached equals uncached, a row in a batch equals the row alone, seeds, guidance, ends."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode

from codec.tokens import SAMPLE_RATE
from lm.generation import batch
from lm.generation.cached_model import CachedLayers, FrameDecoder, RowDecoder, rotary_tables
from lm.generation.generate import generate_audio, generate_text, score_text, stream_audio
from lm.generation.sampling import GenerationSettings
from lm.rows import Rows, audio_rows, concatenate, drop_conditions, text_rows
from tests.factories.language_model import LAYOUT, audio, shape, text, tiny_model
from tests.factories.tokens import least_samples, structural_frames
from tests.lm.test_model import text_model

SETTINGS = GenerationSettings(max_rows=30)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def prompts():
    """Unequal lengths; text last, audio last, one row."""
    return [
        concatenate([text(4, 1), audio(2, 5, 2), text(3, 3)]),
        text(6, 4),
        concatenate([text(2, 5), audio(1, 3, 6)]),
        text(1, 7),
    ]


def same_audio(ours, other):
    return (
        torch.equal(ours["descriptive"], other["descriptive"])
        and torch.equal(ours["structural"], other["structural"])
        and ours.reason == other.reason
    )


def as_rows(generated):
    """The rows that a finished or unfinished generation fed to the model."""
    low = generated["descriptive"]
    high = generated["structural"]
    frames = [LAYOUT.opening(0), low, LAYOUT.closing(0), LAYOUT.opening(1), high + LAYOUT.offsets[1]]
    return audio_rows(torch.cat(frames, dim=1), is_target=False)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@torch.no_grad()
def test_cached_layers_equal_the_library(family):
    """Whole, in two parts and one by one, with and without hidden columns."""
    transformer = text_model(family, tied=False).get_decoder()
    x = torch.randn(3, 9, 32)
    rotary = rotary_tables(transformer, 9, x)
    shown = torch.ones(3, 9, dtype=torch.bool)
    shown[1, :4] = shown[2, :1] = False
    for visible in (None, shown):
        expected = transformer(inputs_embeds=x, attention_mask=visible).last_hidden_state
        if visible is not None:
            expected = expected[visible]
        for cuts in ([0, 9], [0, 5, 9], list(range(10))):
            layers, parts = CachedLayers(transformer, 3, 9, torch.float32, x.device), []
            for start, stop in pairwise(cuts):
                bias = None
                if visible is not None or (start and stop - start > 1):
                    columns, rows = torch.arange(stop), torch.arange(start, stop)
                    seen = torch.ones(3, stop, dtype=torch.bool) if visible is None else visible[:, :stop]
                    allowed = (columns <= rows[:, None]) & (seen[:, None] | (columns == rows[:, None]))
                    bias = torch.zeros(allowed.shape).masked_fill(~allowed, float("-inf"))[:, None]
                positions = torch.arange(start, stop)
                parts.append(layers(x[:, start:stop], start, rotary.at(positions), bias))
            ours = torch.cat(parts, dim=1)
            ours = ours if visible is None else ours[visible]
            torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_cached_equals_uncached(model, prompts):
    """Final vectors of padded, cached decoding equal the whole forward pass, prompt after prompt."""
    more = [audio(2, 4, seed) for seed in range(len(prompts))]
    decoder = RowDecoder(model, prompts, 20)
    finals = [decoder.prefill()]
    for step in range(len(more[0])):
        finals.append(decoder.feed_audio(torch.stack([rows.ids[step, :8] for rows in more])))
    for i, prompt in enumerate(prompts):
        whole = concatenate([prompt, more[i]])
        expected = model.last_hidden_state(whole.ids[None], whole.mask[None])[0, len(prompt) - 1 :]
        ours = torch.stack([final[i] for final in finals])
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_cached_text_equals_uncached(model, prompts):
    ids = torch.randint(9, 50, (len(prompts), 5), generator=torch.Generator().manual_seed(0))
    decoder = RowDecoder(model, prompts, 20)
    finals = [decoder.prefill(text_only=True)] + [decoder.feed_text(ids[:, step]) for step in range(5)]
    for i, prompt in enumerate(prompts):
        whole = concatenate([prompt, text_rows(ids[i].tolist(), LAYOUT, is_target=False)])
        expected = model.last_hidden_state(whole.ids[None], whole.mask[None])[0, len(prompt) - 1 :]
        torch.testing.assert_close(torch.stack([final[i] for final in finals]), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_frames_equal_the_teacher_forced_depth_decoder(model):
    final = torch.randn(3, 32)
    frames = torch.randint(0, LAYOUT.audio_size, (3, 8))
    states = []

    def choose(codebook, state):
        states.append(state)
        return frames[:, codebook]

    assert torch.equal(FrameDecoder(model, 3).frame(final, choose), frames)
    torch.testing.assert_close(torch.stack(states, 1), model.depth_hidden_states(final, frames), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_greedy_audio_equals_the_uncached_model(model, prompts):
    """Every generated id is the likeliest allowed one by the plain forward pass."""
    settings = GenerationSettings(max_rows=25, top_k=1)
    for prompt, result in zip(prompts, generate_audio(model, prompts, settings, [0] * 4), strict=True):
        rows = as_rows(result)
        whole = concatenate([prompt, rows])
        logits = model(whole.ids[None], whole.mask[None]).audio_logits[-len(rows) :]
        low = 1  # the BOS frame is set
        for t in range(low, low + result["descriptive"].shape[1]):
            allowed = logits[t].clone()
            allowed[:, LAYOUT.streams[0].codes :] = float("-inf")
            if t > low:
                end = int(LAYOUT.closing(0)[0, 0])
                allowed[0, end] = logits[t, 0, end]
            assert allowed.argmax(-1).tolist() == rows.ids[t, :8].tolist()
        low += result["descriptive"].shape[1] + 2
        for t in range(low, low + result["structural"].shape[1]):
            first = LAYOUT.offsets[1]
            allowed = torch.full_like(logits[t], float("-inf"))
            allowed[:, first : first + LAYOUT.streams[1].codes] = logits[t, :, first : first + LAYOUT.streams[1].codes]
            end = int(LAYOUT.closing(1)[0, 0])
            if t > low:
                allowed[0, end] = logits[t, 0, end]
            assert allowed.argmax(-1).tolist() == rows.ids[t, :8].tolist()


@pytest.mark.parametrize("guidance", [pytest.param(1.0, marks=pytest.mark.slow), 2.0])
def test_a_request_does_not_depend_on_its_batch(model, prompts, guidance):
    """Alone, in company, and at another place: the same ids for the same seed."""
    settings = replace(SETTINGS, guidance=guidance)
    negatives = [drop_conditions(prompt, LAYOUT, stream=1) for prompt in prompts]
    seeds = [11, 12, 13, 14]
    together = generate_audio(model, prompts, settings, seeds, negatives)
    turned = generate_audio(model, prompts[::-1], settings, seeds[::-1], negatives[::-1])[::-1]
    for i in range(4):
        alone = generate_audio(model, prompts[i : i + 1], settings, seeds[i : i + 1], negatives[i : i + 1])
        assert same_audio(alone[0], together[i]) and same_audio(turned[i], together[i])
    assert len({result.reason for result in together}) > 1  # some end early, some do not
    other = generate_audio(model, prompts, settings, [1, 2, 3, 4], negatives)
    assert not all(same_audio(one, two) for one, two in zip(other, together, strict=True))


def test_text_does_not_depend_on_its_batch(model, prompts):
    seeds = [21, 22, 23, 24]
    together = generate_text(model, prompts, SETTINGS, seeds)
    for i in range(4):
        assert generate_text(model, prompts[i : i + 1], SETTINGS, seeds[i : i + 1]) == together[i : i + 1]
    assert generate_text(model, prompts[::-1], SETTINGS, seeds[::-1])[::-1] == together
    assert {result.reason for result in together} == {"end", "max_rows"}
    for result in together:
        assert LAYOUT.text_eos not in result.ids and LAYOUT.text_pad not in result.ids
        assert len(result.ids) == SETTINGS.max_rows or result.reason == "end"


@pytest.mark.parametrize("look_every", [1, 3, 8])
def test_how_often_the_host_looks_changes_nothing(model, prompts, monkeypatch, look_every):
    """On an accelerator the host looks rarely; requests that ended in between are cut just the same."""
    expected = generate_audio(model, prompts, SETTINGS, [11, 12, 13, 14])
    written = generate_text(model, prompts, SETTINGS, [21, 22, 23, 24])
    start = batch.Batch.__init__

    def slow(self, room, max_rows):
        start(self, room, max_rows)
        self.look_every = look_every

    monkeypatch.setattr(batch.Batch, "__init__", slow)
    for ours, other in zip(generate_audio(model, prompts, SETTINGS, [11, 12, 13, 14]), expected, strict=True):
        assert same_audio(ours, other)
    assert generate_text(model, prompts, SETTINGS, [21, 22, 23, 24]) == written


class Synchronisations(TorchDispatchMode):
    """Counts the operations for which the host has to wait for an accelerator."""

    waiting = {"_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "resolve_conj"}  # last: tolist
    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        by_mask = name in ("index", "index_put_") and any(i is not None and i.dtype == torch.bool for i in args[1])
        self.count += name in self.waiting or by_mask
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_the_host_waits_for_the_device_only_to_look(model, prompts, monkeypatch, guidance):
    """Four times the steps, the same number of synchronisations: there is none per step."""
    start = batch.Batch.__init__

    def slow(self, room, max_rows):
        start(self, room, max_rows)
        self.look_every = 1000

    monkeypatch.setattr(batch.Batch, "__init__", slow)
    counts = []
    for rows in (10, 40):
        settings = replace(SETTINGS, max_rows=rows, guidance=guidance)
        with Synchronisations() as audio_count:
            run = batch.AudioRun(model, prompts, settings, [1, 2, 3, 4], prompts if settings.guided else [])
            for _ in run.steps():
                pass
        with Synchronisations() as text_count:
            generate_text(model, prompts, settings, [1, 2, 3, 4])
        counts.append((audio_count.count, text_count.count))
    assert counts[0] == counts[1] and min(counts[0]) > 0


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


def test_only_decodable_ids_come_out(model, prompts):
    for seed in range(4):
        for result in generate_audio(model, prompts, SETTINGS, [seed] * 4):
            for codes, count in (
                (result["descriptive"], LAYOUT.streams[0].codes),
                (result["structural"], LAYOUT.streams[1].codes),
            ):
                assert codes.dtype == torch.int64 and codes.shape[0] == 8
                assert codes.numel() == 0 or (codes.min() >= 0 and codes.max() < count)
            if result.reason == "end":
                assert result["descriptive"].shape[1] >= 1 and result["structural"].shape[1] >= 1
                assert result["descriptive"].shape[1] + result["structural"].shape[1] + 4 <= SETTINGS.max_rows


def eager_to_end():
    """A model that ends whatever it does as soon as it may."""
    model = tiny_model()
    with torch.no_grad():
        model.depth_decoder.transformer.norm.weight.zero_()  # all audio logits alike: greedy takes the first
        model.lm_head.weight.zero_()
        model.lm_head.weight[LAYOUT.text_eos] = 1
        model.cross_modal.norm.weight.fill_(1)
    return model


@pytest.mark.parametrize("max_rows, reason, frames", [(1, "max_rows", 0), (2, "max_rows", 1), (9, "max_rows", 8)])
def test_audio_without_an_end(max_rows, reason, frames):
    """Nothing to end on: as many rows as allowed, the BOS frame included, and a reason."""
    settings = GenerationSettings(max_rows=max_rows, top_k=1)
    (result,) = generate_audio(eager_to_end(), [text(3, 1)], settings, [0])
    assert (result.reason, result["descriptive"].shape, result["structural"].shape) == (reason, (8, frames), (8, 0))


@pytest.fixture(scope="module")
def unlimited(model, prompts):
    return generate_audio(model, prompts, GenerationSettings(max_rows=80), [1, 2, 3, 4])


@pytest.mark.parametrize("seconds", [0.08, 0.5, 20.0])
def test_audio_is_no_longer_than_asked_for_to_the_frame(model, prompts, unlimited, seconds):
    free = unlimited
    limit = GenerationSettings(max_rows=80, max_seconds=seconds)
    most = LAYOUT.frames_in(seconds)
    made = generate_audio(model, prompts, limit, [1, 2, 3, 4])
    assert max(m["structural"].shape[1] for m in free) > structural_frames(int(0.5 * SAMPLE_RATE))
    for ours, other in zip(made, free, strict=True):
        frames = ours["descriptive"].shape[1], ours["structural"].shape[1]
        assert least_samples(frames[1]) <= seconds * SAMPLE_RATE
        assert torch.equal(ours["descriptive"], other["descriptive"][:, : most[0]])
        if other["descriptive"].shape[1] <= most[0]:
            assert torch.equal(ours["structural"], other["structural"][:, : most[1]])
        if other["descriptive"].shape[1] <= most[0] and other["structural"].shape[1] <= most[1]:
            assert same_audio(ours, other)
        else:
            assert ours.reason == "max_rows" and frames[1] > 0
    streamed: list[list] = [[] for _ in prompts]
    for frame in stream_audio(model, prompts, limit, [1, 2, 3, 4]):
        streamed[frame.request] += [frame.stream == "structural"]
    assert [(s.count(False), s.count(True)) for s in streamed] == [
        (m["descriptive"].shape[1], m["structural"].shape[1]) for m in made
    ]


def test_a_length_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="max_seconds"):
        GenerationSettings(max_seconds=float("nan"))


def test_audio_that_ends_at_once_has_one_frame_of_each_kind(monkeypatch):
    """The model would rather end than say anything: it gets the shortest audio there is."""
    model = tiny_model()
    with torch.no_grad():
        model.audio_head.zero_()
        model.depth_decoder.transformer.norm.weight.fill_(1.0)
    monkeypatch.setattr(
        "lm.generation.grammar.sample",
        lambda logits, settings, uniform, temperature=None: torch.where(
            torch.isfinite(logits).any(-1), logits.shape[-1] - 1 - torch.isfinite(logits).flip(-1).int().argmax(-1), 0
        ),
    )  # always the highest id allowed: EOS, where it is allowed
    (result,) = generate_audio(model, [text(3, 1)], SETTINGS, [0])
    assert (result.reason, result["descriptive"].shape, result["structural"].shape) == ("end", (8, 1), (8, 1))


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
