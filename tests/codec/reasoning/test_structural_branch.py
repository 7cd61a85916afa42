"""The structural branch against the published numbers, its codebooks' health, and its masks."""

from dataclasses import replace

import pytest
import torch

from codec.io.errors import UserError
from codec.layers.config import QuantiserConfig
from codec.reasoning.config import StructuralConfig
from codec.reasoning.structural_branch import BRANCHES, FEATURE_FRAMES, StructuralBranch
from codec.release.names import our_name
from tests.factories.release.codec_parity import converted_state, facts, load_fixture

DIMS = {"speech_text": 10, "phone": 8, "music_acoustic": 6, "music_semantic": 6}
INPUTS = {
    "speech_text": "in.whisper_50hz",
    "phone": "in.wavlm_50hz",
    "music_acoustic": "in.music_layer4_25hz",
    "music_semantic": "in.music_layer11_25hz",
}
SMALL = StructuralConfig(
    dim=16, quantiser=QuantiserConfig(codebook_size=32, codebook_dim=4, dead_code_threshold=0.2, kmeans_init=False)
)


def small_branch(seed=0, config=SMALL):
    torch.manual_seed(seed)
    branch = StructuralBranch(config, DIMS, descriptive_dim=12)
    for film in branch.film.values():  # which start as identity
        torch.nn.init.normal_(film.linear.weight)
    return branch


def small_features(clips, frames, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(clips, c, frames * FEATURE_FRAMES[n], generator=generator) for n, c in DIMS.items()}


@pytest.fixture(scope="module")
def published(parity_dir):
    sizes = facts(parity_dir / "codec_reconstruction.json")["config"]
    fixture = load_fixture(parity_dir / "codec_reconstruction.safetensors")
    assert [sizes["rvq"][name] for name in ("phone", "structure", "acoustic")] == [1, 1, 6]
    quantiser = QuantiserConfig(sizes["rvq"]["codes"], codebook_dim=sizes["rvq"]["dim"], kmeans_init=False)
    config = StructuralConfig(dim=sizes["dim"], film_scale=sizes["film"]["gamma_scale"], quantiser=quantiser)
    dims = {name: fixture[given].shape[1] for name, given in INPUTS.items()}
    with torch.device("meta"):
        branch = StructuralBranch(config, dims, descriptive_dim=fixture["in.reason_quantised_5hz"].shape[2])
    branch = branch.to_empty(device="cpu").eval()
    state = converted_state(parity_dir / "codec_reconstruction.json", "structural.")
    result = branch.load_state_dict(state, strict=False)
    assert not result.unexpected_keys
    assert all(key.startswith("phone_decoder.") for key in result.missing_keys)  # no part of that fixture
    return branch, fixture, {name: fixture[given] for name, given in INPUTS.items()}


@torch.no_grad()
def test_published_encoding(published):
    branch, fixture, features = published
    names = {"speech_text": "d_conv_whisper", "phone": "d_conv_wavlm"}
    names |= {"music_semantic": "d_conv_embedding_semantic", "music_acoustic": "d_conv_embedding_acoustic"}
    for ours, theirs in names.items():
        torch.testing.assert_close(branch.downsample[ours](features[ours]), fixture[theirs], atol=2e-4, rtol=0)
    fused = branch.fuse(features)
    modulated = branch.modulate(fused, fixture["in.reason_quantised_5hz"])
    adapted = branch.descriptive_adaptor(fixture["in.reason_quantised_5hz"])
    torch.testing.assert_close(adapted, fixture["reason_adaptor"], atol=2e-4, rtol=0)
    for name in BRANCHES:
        torch.testing.assert_close(fused[name], fixture[f"{name}.before_film"], atol=2e-4, rtol=0)
        torch.testing.assert_close(modulated[name], fixture[f"{name}.after_film"], atol=2e-4, rtol=0)
        projected = branch.quantiser[name].project_in(modulated[name])
        torch.testing.assert_close(projected, fixture[f"{name}.projected"], atol=2e-4, rtol=0)
        quantised = branch.quantiser[name](modulated[name])[0]
        torch.testing.assert_close(quantised, fixture[f"{name}.quantised"], atol=1e-4, rtol=0)
    everywhere = torch.ones(fixture["codes"].shape[:2], dtype=torch.bool)
    out = branch(features, fixture["in.reason_quantised_5hz"], everywhere)
    assert torch.equal(out.ids, fixture["codes"])
    assert torch.equal(out.phone, branch.quantiser["phone"](modulated["phone"])[0])
    torch.testing.assert_close(out.quantised, fixture["dequantised_sum"], atol=1e-4, rtol=0)
    without = branch(features, None, everywhere)
    assert torch.equal(without.ids, fixture["codes_film_dropped"])


@torch.no_grad()
def test_published_conditioning(published):
    branch, fixture, _ = published
    quantised = branch.dequantise(fixture["codes"])
    torch.testing.assert_close(quantised, fixture["dequantised_sum"], atol=1e-4, rtol=0)
    torch.testing.assert_close(branch.condition(quantised), fixture["decode.mu_codes_only"], atol=2e-4, rtol=0)
    (masked,) = (name for name in fixture if name.startswith("decode.mu_masked_tail"))
    tail = int(masked.removeprefix("decode.mu_masked_tail"))
    mask = torch.ones(fixture[masked].shape[:2], dtype=torch.bool)
    mask[:, -tail:] = False
    torch.testing.assert_close(branch.condition(quantised, mask), fixture[masked], atol=2e-4, rtol=0)
    # With descriptive codes the published decoder adds them, adapted: training never did, so ours has it in no mode.
    adapted = branch.descriptive_adaptor(fixture["in.reason_quantised_5hz"]).transpose(1, 2)
    adapted = torch.nn.functional.interpolate(adapted, scale_factor=2.5)[..., : quantised.shape[1]]
    quantised = quantised + adapted.transpose(1, 2)
    torch.testing.assert_close(branch.condition(quantised), fixture["decode.mu_with_reason"], atol=2e-4, rtol=0)


def test_every_published_key_of_this_part_has_a_place(parity_dir):
    keys = facts(parity_dir / "codec_full_state_shapes.json")["keys"]
    _, codes, width = keys["vq_acoustic.layers.0._codebook.embed"]
    dim, descriptive_dim = keys["reason_adaptor.weight"]
    config = StructuralConfig(dim=dim, quantiser=QuantiserConfig(codes, codebook_dim=width, kmeans_init=False))
    layers = {"speech_text": "whisper", "phone": "wavlm"}
    layers |= {"music_acoustic": "embedding_acoustic", "music_semantic": "embedding_semantic"}
    dims = {name: keys[f"d_conv_{layer}.weight"][1] for name, layer in layers.items()}
    with torch.device("meta"):
        ours = StructuralBranch(config, dims, descriptive_dim=descriptive_dim).state_dict()
    found = {}
    for key, shape in keys.items():
        name = our_name(key)
        if name is not None and name.startswith("structural."):
            found[name.removeprefix("structural.")] = shape
    assert found == {key: list(value.shape) for key, value in ours.items()}


@torch.no_grad()
def test_film_is_never_dropped_outside_training():
    branch, features = small_branch().eval(), small_features(3, 10)
    descriptive, mask = torch.randn(3, 4, 12), torch.ones(3, 10, dtype=torch.bool)
    ids = {tuple(branch(features, descriptive, mask).ids.flatten().tolist()) for _ in range(12)}
    assert len(ids) == 1
    # In training it is dropped for about one clip in five and never for all of them.
    branch.train()
    fused = {name: torch.ones(400, 5, 16) for name in BRANCHES}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        modulated = branch.modulate(fused, torch.randn(400, 2, 12))
    for name in BRANCHES:
        dropped = (modulated[name] == 1.0).flatten(1).all(dim=1).float().mean()
        assert 0.12 < dropped < 0.28


def test_gradients_pass_the_quantisers_to_every_input_weight():
    branch = small_branch().train()
    out = branch(small_features(2, 10), torch.randn(2, 4, 12), torch.ones(2, 10, dtype=torch.bool))
    mu = branch.condition(out.quantised)
    (mu.square().mean()).backward()  # without the commitment loss: straight through alone
    for name, parameter in branch.named_parameters():
        if name.startswith(("phone_decoder", "no_condition")):
            continue
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("frames", [1, 4, 5])
@torch.no_grad()
def test_a_padded_clip_has_the_codes_it_has_alone(frames):
    branch, features = small_branch().eval(), small_features(2, 10)
    descriptive = torch.randn(2, 4, 12)
    mask = torch.arange(10) < torch.tensor([[10], [frames]])
    together = branch(features, descriptive, mask)
    own = {name: value[1:, :, : frames * FEATURE_FRAMES[name]] for name, value in features.items()}
    alone = branch(own, descriptive[1:], torch.ones(1, frames, dtype=torch.bool))
    assert torch.equal(together.ids[1, :frames], alone.ids[0])
    assert (together.ids[1, frames:] == -1).all()
    assert (together.quantised[1, frames:] == 0).all()
    torch.testing.assert_close(branch.dequantise(together.ids), together.quantised, atol=1e-5, rtol=1e-5)


def test_padding_does_not_reach_the_codebooks_or_the_losses():
    mask = torch.arange(10) < torch.tensor([[10], [4]])
    results = []
    for fill in (0.0, 50.0):
        branch, features = small_branch().train(), small_features(2, 10)
        for name, value in features.items():
            value[1, :, 4 * FEATURE_FRAMES[name] :] = fill
        out = branch(features, None, mask)
        loss = branch.phone_loss(out.phone, features["phone"].clamp(-10, 10), mask)
        results.append((out.commitment, loss, branch.quantiser["acoustic"].layers[0]._codebook.cluster_size.clone()))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


@torch.no_grad()
def test_a_frame_conditions_its_two_latent_frames_alike_or_each_on_its_own():
    vectors = torch.randn(2, 5, 16)
    same = small_branch().condition(vectors)
    assert same.shape == (2, 10, 16) and torch.equal(same[:, 0::2], same[:, 1::2])
    branch = small_branch(config=replace(SMALL, conditions=2))
    own = branch.condition(vectors)
    assert own.shape == (2, 10, 16) and not torch.isclose(own[:, 0::2], own[:, 1::2]).all(-1).any()
    projected = branch.condition_projection(vectors[0, 3])
    torch.testing.assert_close(own[0, 6:8].flatten(), projected)
    mask = torch.tensor([[True] * 10, [True] * 7 + [False] * 3])
    assert (branch.condition(vectors, mask)[1, 7:] == branch.no_condition).all()
    with pytest.raises(UserError, match="conditions"):
        replace(SMALL, conditions=3)


def test_features_of_unequal_length_are_refused():
    features = small_features(1, 10)
    features["phone"] = features["phone"][:, :, :-1]
    with pytest.raises(ValueError, match="whole structural frames"):
        small_branch().fuse(features)


def test_codebooks_that_are_left_out_add_nothing():
    """As many as each clip keeps; ids, codebooks and the vectors of clips that keep all are as without."""
    features, mask = small_features(3, 6), torch.ones(3, 6, dtype=torch.bool)
    mask[0, 4:] = False
    outputs, states = [], []
    for codebooks in (None, torch.tensor([8, 1, 4])):
        branch = small_branch().train()
        branch(features, None, mask)  # the codebooks begin
        torch.manual_seed(5)
        outputs.append(branch(features, None, mask, codebooks))
        states.append(branch.state_dict())
    whole, less = outputs
    assert torch.equal(whole.ids, less.ids)
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    torch.testing.assert_close(less.quantised[0], whole.quantised[0])
    constant = sum(branch.quantiser[name].project_out.bias for name in ("structure", "acoustic"))
    torch.testing.assert_close(less.quantised[1], less.phone[1] + constant, atol=1e-5, rtol=1e-5)
    assert (less.quantised[0, 4:] == 0).all()

    out = branch.eval()(features, None, mask, torch.tensor([3, 2, 6]))
    for clip, kept in enumerate((3, 2, 6)):
        ids, total = out.ids[clip : clip + 1].clamp(min=0), torch.zeros(1, 6, 16)
        for name, part in zip(BRANCHES, ids.split([1, 1, 6], dim=-1), strict=True):
            quantiser, used = branch.quantiser[name], max(0, min(kept, part.shape[-1]))
            total = total + (quantiser.vectors(part[..., :used]) if used else quantiser.project_out.bias)
            kept -= used
        expected = total[0] * mask[clip, :, None]
        torch.testing.assert_close(out.quantised[clip], expected, atol=1e-5, rtol=1e-5)
