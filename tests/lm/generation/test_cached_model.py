"""Cached layers, rows and frames give what the whole forward pass gives."""

from itertools import pairwise

import pytest
import torch

from lm.generation.cached_model import CachedLayers, FrameDecoder, RowDecoder, rotary_tables
from lm.rows import concatenate, text_rows
from tests.factories.language_model import LAYOUT, audio
from tests.lm.test_model import text_model


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
