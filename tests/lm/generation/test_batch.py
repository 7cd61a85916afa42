"""A batch: a row in it equals the row alone, however seldom the host looks at it."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lm.generation import batch
from lm.generation.generate import generate_audio, generate_text
from lm.rows import drop_conditions
from tests.factories.language_model import LAYOUT
from tests.lm.generation.test_generate import SETTINGS, same_audio


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
    monkeypatch.setattr(batch, "looks_every", lambda device: look_every)
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
    monkeypatch.setattr(batch, "looks_every", lambda device: 1000)
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
