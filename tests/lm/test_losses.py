"""The losses against their plain definitions."""

import pytest
import torch
import torch.nn.functional as F

from lm import losses
from lm.losses import LossCounts, LossSettings, cross_entropy
from lm.rows import collate
from tests.factories.language_model import LAYOUT, sentences, tiny_model


def plain(hidden, heads, targets, weights):
    """Sums of weighted cross-entropy, every logit at once."""
    logits = torch.einsum("ncd,cdv->ncv", hidden, heads)
    each = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)
    return (each * weights[:, None]).sum(0), ((logits.argmax(-1) == targets) * weights[:, None]).sum(0)


@pytest.mark.parametrize("chunk_logits", [1 << 24, 50, 1])
def test_chunked_equals_plain(monkeypatch, chunk_logits):
    monkeypatch.setattr(losses, "CHUNK_LOGITS", chunk_logits)
    torch.manual_seed(0)
    hidden = torch.randn(7, 3, 5, dtype=torch.float64, requires_grad=True)
    heads = torch.randn(3, 5, 11, dtype=torch.float64, requires_grad=True)
    targets, weights = torch.randint(0, 11, (7, 3)), torch.tensor([1.0, 0.0, 2.0, 0.5, 1.0, 1.0, 0.0])
    mix = torch.tensor([0.3, 1.0, 2.0])
    results = []
    for function in (cross_entropy, plain):
        hidden.grad = heads.grad = None
        sums, correct = function(hidden, heads, targets, weights)
        (sums * mix).sum().backward()
        results.append((sums.detach(), correct, hidden.grad, heads.grad))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours.double(), expected.double(), atol=1e-5, rtol=1e-5)


def test_frozen_heads_get_no_gradient():
    hidden, heads = torch.randn(2, 1, 4, requires_grad=True), torch.randn(1, 4, 6)
    cross_entropy(hidden, heads, torch.zeros(2, 1, dtype=torch.int64), torch.ones(2))[0].sum().backward()
    assert hidden.grad is not None and heads.grad is None


def test_model_losses_equal_the_definition():
    """§A.4 from the model's own logits: text over its weights, audio over all audio targets, prompts included."""
    model, batch = tiny_model(), collate(sentences(), LAYOUT)
    weight = batch.loss.clone()
    weight[1] *= 0.5
    settings = LossSettings(text_weight=1.6, audio_weight=0.7, stream_weights=(2 / 8,) * 3 + (1 / 8,) * 5)
    with torch.no_grad():
        logits = model(batch.ids, batch.mask)
    output = model(batch.ids, batch.mask, weight, loss_settings=settings)

    each = F.cross_entropy(logits.text_logits.flatten(0, 1), batch.ids[:, 1:, -1].flatten(), reduction="none")
    text_weight = (weight[:, 1:] * batch.mask[:, 1:, -1]).flatten()
    text = (each * text_weight).sum() / text_weight.sum()
    is_audio = batch.mask[:, 1:, 0]
    targets = batch.ids[:, 1:, :8][is_audio]
    each = F.cross_entropy(logits.audio_logits.flatten(0, 1), targets.flatten(), reduction="none").view(-1, 8)
    streams = (each * weight[:, 1:][is_audio][:, None]).sum(0) / len(targets)
    audio = (streams * torch.tensor(settings.stream_weights)).sum()
    torch.testing.assert_close(output.text_loss, text)
    torch.testing.assert_close(output.per_stream_loss, streams)
    torch.testing.assert_close(output.audio_loss, audio)
    torch.testing.assert_close(output.loss, 1.6 * text + 0.7 * audio)

    counted = weight[:, 1:][is_audio]
    right = ((logits.audio_logits.argmax(-1) == targets) * counted[:, None]).sum(0) / counted.sum()
    torch.testing.assert_close(output.per_stream_accuracy, right)


def test_global_counts_make_parts_add_up():
    """Micro-batches divided by the counts of the whole batch sum to the loss and gradient of the whole batch."""
    model, parts = tiny_model(), sentences()
    batch = collate(parts, LAYOUT)
    whole = model(batch.ids, batch.mask, batch.loss)
    whole.loss.backward()
    expected = model.audio_embeddings.weight.grad.clone()
    model.zero_grad()
    counts = LossCounts(whole.text_count, whole.audio_count)
    total = 0
    for part in parts:
        loss = model(part.ids[None], part.mask[None], part.loss[None], counts=counts).loss
        loss.backward()
        total += loss.item()
    assert total == pytest.approx(whole.loss.item(), abs=1e-5)
    torch.testing.assert_close(model.audio_embeddings.weight.grad, expected, atol=1e-6, rtol=1e-4)


def test_stream_weights_are_checked():
    with pytest.raises(ValueError, match="8 values"):
        LossSettings(stream_weights=(1.0, 1.0)).weights_of(8)
    assert LossSettings().weights_of(4) == (0.25,) * 4
