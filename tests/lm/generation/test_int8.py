"""Int8 weights: near the plain model's numbers by a known bound, on every path of generation; never saved."""

import pytest
import torch
from torch import nn

from codec.io.errors import UserError
from lm.generation import int8 as int8_weights
from lm.generation.cached_model import AudioHeads, FrameDecoder, RowDecoder
from lm.generation.generate import generate_audio, generate_text, score_text
from lm.generation.int8 import Int8Linear, multiply_int8, quantise, quantise_weights
from lm.generation.settings import GenerationSettings
from tests.factories.language_model import LAYOUT, audio, sentences, shape, text, tiny_model


def spread_apart(ours, theirs):
    """Largest difference, in standard deviations of the true values."""
    return ((ours - theirs).abs().max() / theirs.std()).item()


@pytest.fixture(scope="module")
def pair():
    """A model, and the same with int8 weights. All widths suit the kernel for few rows."""
    models = [tiny_model(depth=shape(32, 2)) for _ in range(2)]
    quantise_weights(models[1])
    return models


def test_weights_are_off_by_half_a_step():
    weight = torch.randn(7, 33) * torch.logspace(-6, 2, 7)[:, None]  # channels of very different size
    weight[3] = 0
    values, scales = quantise(weight)
    assert values.dtype == torch.int8 and scales.shape == (7,)
    # The scale is rounded to bfloat16 (one part in 256), which may cut the largest weight of a channel by so much.
    error = (values * scales[:, None].float() - weight).abs()
    assert (error <= 0.501 * scales[:, None].float() + weight.abs() / 256).all() and error.max() > 0
    assert (values[3] == 0).all()


@pytest.mark.parametrize("width", [64, 50])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_of_few_and_of_many_rows(width, dtype):
    """Both kernels, and widths that the first does not take: the product with the unpacked weights."""
    torch.manual_seed(0)
    weight = torch.randn(9, width)
    values, scales = quantise(weight)
    for rows in (1, 3, int8_weights.FEW_ROWS, int8_weights.FEW_ROWS + 1):
        x = torch.randn(2, rows, width).to(dtype)[:1]
        product = multiply_int8(x, values, scales)
        assert product.dtype == dtype and product.shape == (1, rows, 9)
        expected = x.float() @ (values * scales[:, None].float()).T
        assert spread_apart(product.float(), expected) < 0.02
        assert spread_apart(product.float(), x.float() @ weight.T) < 0.05


def test_every_matrix_is_replaced_and_embeddings_stay(pair):
    plain, small = pair
    assert not [name for name, module in small.named_modules() if type(module) is nn.Linear]
    kept = {name: value for name, value in plain.named_parameters() if "embed" in name or "norm" in name}
    assert kept.keys() == dict(small.named_parameters()).keys()
    assert all(torch.equal(value, kept[name]) for name, value in small.named_parameters())
    packed = sum(values.numel() for name, values in small.named_buffers() if name.endswith("weight"))
    matrices = {id(m.weight): m.weight for m in plain.modules() if type(m) is nn.Linear}.values()  # tied ones too
    assert packed == sum(map(torch.numel, matrices)) + plain.audio_head.numel()


@torch.no_grad()
def test_decoding_is_near_the_plain_model(pair):
    """Row by row, as generation feeds them: final vectors, states and logits."""
    prompts = [text(4, 1), text(2, 2)]
    frames = torch.stack([audio(2, 3, seed).ids[:, :8] for seed in (3, 4)])
    results = []
    for model in pair:
        decoder, depth, heads = RowDecoder(model, prompts, 9), FrameDecoder(model, 2), AudioHeads(model.audio_head, 2)
        finals, logits = [decoder.prefill()], []

        def choose(codebook, states, heads=heads, logits=logits):
            windows = [(0, LAYOUT.offsets[1]), (LAYOUT.offsets[1], LAYOUT.audio_size)]
            logits.append(heads.logits(codebook, states, windows))
            return frames[:, 0, codebook]

        for step in range(frames.shape[1]):
            finals.append(decoder.feed_audio(frames[:, step]))
        depth.frame(finals[-1], choose)
        results.append((torch.stack(finals), torch.stack(logits)))
    for plain, small in zip(*results, strict=True):
        assert 1e-4 < spread_apart(small, plain) < 0.2


@torch.no_grad()
def test_cached_is_near_uncached(pair):
    """Decoding multiplies few rows in bfloat16, the whole forward pass many rows in float32."""
    small = pair[1]
    for rows in sentences()[:2]:
        whole = small(rows.ids[None], rows.mask[None])
        plain = pair[0](rows.ids[None], rows.mask[None])
        assert spread_apart(whole.audio_logits, plain.audio_logits) < 0.2
        decoder = RowDecoder(small, [rows], 1)
        assert spread_apart(decoder.prefill(), small.last_hidden_state(rows.ids[None], rows.mask[None])[:, -1]) < 0.1


def test_all_kinds_of_generation(pair):
    settings, prompts = GenerationSettings(max_rows=15, guidance=2.0), [text(4, 1), text(6, 2)]
    made = generate_audio(pair[1], prompts, settings, [1, 2], prompts)
    again = generate_audio(pair[1], prompts, settings, [1, 2], prompts)
    assert [m["descriptive"].tolist() for m in made] == [m["descriptive"].tolist() for m in again]
    assert all(m["descriptive"].shape[1] > 0 for m in made)
    texts = generate_text(pair[1], prompts, settings, [1, 2])
    assert all(0 < len(t.ids) <= 15 or t.reason == "end" for t in texts)
    plain, small = (score_text(model, prompts, [[9, 10], [11]]) for model in pair)
    assert plain != small and small == pytest.approx(plain, rel=0.05)


def test_it_is_not_saved(pair, tmp_path):
    with pytest.raises(UserError, match="save it before quantise_weights"):
        pair[1].save_pretrained(tmp_path)
    with pytest.raises(UserError, match="cannot be saved"):
        Int8Linear(torch.ones(2, 2)).state_dict()
