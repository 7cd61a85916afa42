"""The descriptive branch: published numbers, masks, and codebooks that stay alive."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from codec.io.errors import UserError
from codec.layers.config import QuantiserConfig
from codec.reasoning.config import DescriptiveConfig
from codec.reasoning.descriptive_branch import DescriptiveBranch
from tests.factories.release.codec_parity import converted_state, facts

SMALL = DescriptiveConfig(
    speech_dim=12,
    music_dim=10,
    dim=32,
    heads=2,
    rope_dims=8,
    blocks=2,
    levels=8,
    quantiser=QuantiserConfig(16, codebook_dim=8, dead_code_threshold=0.1, kmeans_init=False),
)


def small_branch(seed: int = 0, downsampling: str = "query") -> DescriptiveBranch:
    torch.manual_seed(seed)
    return DescriptiveBranch(dataclasses.replace(SMALL, downsampling=downsampling))


def features(batch: int, frames: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    speech = torch.randn(batch, SMALL.speech_dim, 2 * frames, generator=generator)
    return speech, torch.randn(batch, SMALL.music_dim, frames, generator=generator)


@pytest.fixture(scope="module")
def published(parity_dir):
    sizes = facts(parity_dir / "codec_reasoning.json")["config"]
    assert sizes["head_dim"] * sizes["heads"] == sizes["dim"]
    config = DescriptiveConfig(
        speech_dim=sizes["whisper_dim"],
        music_dim=sizes["music_dim"],
        dim=sizes["dim"],
        heads=sizes["heads"],
        rope_dims=sizes["rope_dims"],
        rope_base=sizes["rope_base"],
        blocks=sizes["blocks"],
        feed_forward_multiple=sizes["ff_mult"],
        query_every=sizes["query_every"],
        levels=sizes["rvq"]["levels"],
        quantiser=QuantiserConfig(sizes["rvq"]["codes"], codebook_dim=sizes["rvq"]["dim"], dead_code_threshold=0.1),
    )
    branch = DescriptiveBranch(config).eval()
    state = converted_state(parity_dir / "codec_reasoning.json", "descriptive.")
    branch.load_state_dict(state)  # strict: every tensor has a place
    return branch, load_file(parity_dir / "codec_reasoning.safetensors")


def test_reproduces_the_published_branch(published):
    branch, taps = published
    seen = {}
    branch.downsample.register_forward_hook(lambda *call: seen.update(whisper_25hz=call[2]))
    branch.merge.register_forward_hook(lambda *call: seen.update(merged=call[2]))
    branch.blocks[0].attention.register_forward_hook(lambda *call: seen.update(block0_attn_out=call[2]))
    for number, block in enumerate(branch.blocks):
        block.register_forward_hook(lambda *call, name=f"block{number}_out": seen.update({name: call[2]}))
    branch.quantiser.project_in.register_forward_hook(lambda *call: seen.update(pre_vq_projected=call[2]))
    with torch.no_grad():
        out = branch(taps["in.whisper_50hz"], taps["in.music_layer11_25hz"])
        seen["with_queries"], _ = branch.with_queries(taps["in.whisper_50hz"], taps["in.music_layer11_25hz"])
    assert torch.equal(out.codes, taps["codes"])
    torch.testing.assert_close(out.vectors, taps["pre_vq"], atol=2e-4, rtol=0)
    torch.testing.assert_close(out.quantised, taps["quantised"], atol=1e-4, rtol=0)
    outside = {"codes", "pre_vq", "quantised", "vq_gap"}
    wanted = {name for name in taps if not name.startswith("in.")} - outside
    assert wanted <= seen.keys() and len(wanted) >= 6
    for name in wanted:
        value = seen[name]
        torch.testing.assert_close(value, taps[name], atol=2e-4, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


def test_published_clips_of_unequal_length_give_the_codes_they_give_alone(published):
    branch, taps = published
    speech, music = taps["in.whisper_50hz"], taps["in.music_layer11_25hz"]
    clips, frames = len(music), music.shape[2]
    short = 2 * frames // 3
    lengths = torch.tensor([frames] * (clips - 1) + [short])
    groups = -(-short // branch.config.query_every)
    with torch.no_grad():
        together = branch(speech, music, lengths)
        alone = branch(speech[-1:, :, : 2 * short], music[-1:, :, :short])
    assert torch.equal(together.codes[:-1], taps["codes"][:-1])
    assert together.mask[-1].sum() == groups == alone.codes.shape[1]
    assert torch.equal(together.codes[-1, :groups], alone.codes[0])


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.integers(1, 23), min_size=2, max_size=4), st.integers(0, 1000), st.sampled_from(["query", "mean_pool"])
)
def test_a_clip_in_a_batch_equals_the_clip_alone(lengths, seed, downsampling):
    branch = small_branch(downsampling=downsampling).eval()
    speech, music = features(len(lengths), max(lengths), seed)  # what lies beyond a clip's length is noise
    with torch.no_grad():
        together = branch(speech, music, torch.tensor(lengths))
        for row, length in enumerate(lengths):
            alone = branch(speech[row : row + 1, :, : 2 * length], music[row : row + 1, :, :length])
            groups = -(-length // 5)
            assert together.mask[row].tolist() == [True] * groups + [False] * (together.mask.shape[1] - groups)
            torch.testing.assert_close(together.vectors[row, :groups], alone.vectors[0], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(together.quantised[row, :groups], alone.quantised[0], atol=1e-5, rtol=1e-5)
            assert torch.equal(together.codes[row, :groups], alone.codes[0])


def test_encoding_is_repeatable_and_leaves_every_buffer_alone():
    branch = small_branch().eval()
    before = {name: value.clone() for name, value in branch.state_dict().items()}
    with torch.no_grad():
        first, second = branch(*features(2, 12)), branch(*features(2, 12))
    assert torch.equal(first.codes, second.codes)
    assert all(torch.equal(value, before[name]) for name, value in branch.state_dict().items())


def test_dequantised_codes_are_the_quantised_vectors():
    branch = small_branch().eval()
    with torch.no_grad():
        out = branch(*features(2, 17))
        torch.testing.assert_close(branch.dequantise(out.codes), out.quantised, atol=1e-6, rtol=0)


@torch.no_grad()
def test_pooled_vectors_are_means_of_five_frames():
    out = small_branch(downsampling="mean_pool").eval()(*features(1, 12))
    assert out.frame_mask[0].tolist() == [True] * 12 + [False] * 3
    groups = out.frame_states[0, :5], out.frame_states[0, 5:10], out.frame_states[0, 10:12]
    torch.testing.assert_close(out.vectors[0], torch.stack([group.mean(0) for group in groups]))


@pytest.mark.parametrize("downsampling", ["query", "mean_pool"])
def test_gradients_pass_the_quantiser_down_to_the_first_convolution(downsampling):
    branch = small_branch(downsampling=downsampling).train()
    out = branch(*features(2, 15))
    (out.quantised * torch.randn(out.quantised.shape)).sum().backward()
    for name, parameter in branch.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_dead_codes_come_back_to_life():
    branch = small_branch().train()
    for level in branch.quantiser.layers:  # all codes but one lie where no vector ever comes
        level._codebook.embed[0, 1:] = 1e3
        level._codebook.embed_avg[0, 1:] = 1e3
    places = torch.randn(12, SMALL.dim)
    used = []
    for _ in range(60):
        vectors = places[torch.randint(12, (4, 25))] + 0.02 * torch.randn(4, 25, SMALL.dim)
        with torch.no_grad():
            _, codes, _ = branch.quantiser(vectors, mask=torch.ones(4, 25, dtype=torch.bool))
        used.append(codes[..., 0].unique().numel())
    assert used[0] == 1
    assert used[-1] >= 12
    assert branch.codebook_usage()[0] > 0.5
    with torch.no_grad():  # and what was revived serves encoding
        _, codes, _ = branch.eval().quantiser(places[None])
    assert codes[..., 0].unique().numel() >= 10


def test_padding_has_no_say_in_the_codebooks():
    speech, music = features(2, 20)
    lengths = torch.tensor([20, 8])
    quiet, loud = small_branch().train(), small_branch().train()
    with torch.no_grad():
        quiet(speech, music, lengths)
        speech[1, :, 16:], music[1, :, 8:] = 50.0, -50.0
        loud(speech, music, lengths)
    for name, value in quiet.quantiser.state_dict().items():
        assert torch.allclose(value.float(), loud.quantiser.state_dict()[name].float(), atol=1e-6), name


def test_kmeans_codebooks_refuse_to_encode_before_they_have_seen_data():
    torch.manual_seed(0)
    quantiser = dataclasses.replace(SMALL.quantiser, kmeans_init=True)
    branch = DescriptiveBranch(dataclasses.replace(SMALL, quantiser=quantiser)).eval()
    with pytest.raises(UserError, match="are not initialised"):
        branch(*features(4, 25))
    with torch.no_grad():
        branch.train()(*features(4, 25))
        assert branch.initialised and branch.eval()(*features(4, 25)).codes.shape == (4, 5, 8)


def test_without_quantisation_the_codebooks_rest():
    branch = small_branch().train()
    before = {name: value.clone() for name, value in branch.quantiser.state_dict().items()}
    out = branch(*features(2, 15), quantise=False)
    assert out.codes is None and out.commitment == 0
    torch.testing.assert_close(out.quantised, branch.quantiser.project_out(branch.quantiser.project_in(out.vectors)))
    assert all(torch.equal(value, before[name]) for name, value in branch.quantiser.state_dict().items())


def test_too_few_speech_frames_are_refused():
    speech, music = features(1, 10)
    with pytest.raises(ValueError, match="20 speech-text frames"):
        small_branch()(speech[:, :, :-2], music)


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="heads must divide"):
        DescriptiveConfig(dim=100, heads=3)
    with pytest.raises(ValueError, match="downsampling must be"):
        DescriptiveConfig(downsampling="pool")
