"""The reconstruction stage: what is frozen stays, what learns learns, and a resumed run is the uninterrupted one."""

import json
from dataclasses import replace

import pytest
import soundfile
import torch
from safetensors.torch import load_file

from codec.experts.config import ExpertConfig
from codec.experts.music_encoder import MusicEncoder, MusicEncoderConfig
from codec.io.errors import UserError
from codec.layers.config import QuantiserConfig
from codec.reasoning.config import DescriptiveConfig, DescriptiveEncoderConfig
from codec.reasoning.descriptive_encoder import DescriptiveEncoder
from codec.reasoning.scalar_autoencoder import ScalarAutoencoder
from codec.tokenizer import load_tokenizer
from tests.factories.codec import SMALL_SCALAR, noise
from training.codec.audio_crops import AudioCrops
from training.codec.feature_extractor import FeatureExtractor
from training.codec.train_structural import StructuralRecipe, codec_to_train, draw_conditions, initialise, run
from training.metrics import read_metrics
from training.recipe import parse


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A corpus, a scalar autoencoder and a descriptive branch, all tiny."""
    folder = tmp_path_factory.mktemp("parts")
    (folder / "corpus").mkdir()
    lines = []
    for i in range(10):
        soundfile.write(folder / "corpus" / f"{i}.wav", noise(4000 + 900 * i, seed=i).numpy(), 24_000)
        split = "dev" if i > 7 else "train"
        lines.append(json.dumps({"id": f"clip{i}", "path": f"{i}.wav", "kind": "sound", "split": split}) + "\n")
    (folder / "corpus" / "clips.jsonl").write_text("".join(lines))
    torch.manual_seed(0)
    ScalarAutoencoder(SMALL_SCALAR).save_pretrained(folder / "scalar")
    sizes = DescriptiveConfig(
        speech_dim=128,
        music_dim=120,
        dim=16,
        heads=2,
        rope_dims=4,
        blocks=1,
        quantiser=QuantiserConfig(codebook_size=8, codebook_dim=4, kmeans_init=False),
    )
    DescriptiveEncoder(
        DescriptiveEncoderConfig((ExpertConfig("speech_text"), ExpertConfig("music")), sizes)
    ).save_pretrained(folder / "describe")
    return folder


def recipe_of(parts, out, **changes):
    values = {
        "out": str(out),
        "corpora": [str(parts / "corpus")],
        "scalar": str(parts / "scalar"),
        "descriptive": str(parts / "describe"),
        "structural": {"dim": 16, "quantiser": {"codebook_size": 16, "codebook_dim": 4, "dead_code_threshold": 0.02}},
        "flow": {"layers": 1, "heads": 2, "head_dim": 8, "window_frames": 100, "overlap_frames": 4},
        "batch": 3,
        "crop_seconds": 0.4,
        "steps": 4,
        "save_every": 2,
        "log_every": 1,
        "optimiser": {"lr": 1e-3, "warmup_steps": 2},
    }
    return parse(StructuralRecipe, values | changes, "a test")


def weights_of(model):
    return load_file(model / "model.safetensors")


def test_frozen_parts_stay_and_the_others_learn(parts, tmp_path):
    folder = run(recipe_of(parts, tmp_path / "run", cache_features=True, validate_every=2))
    codec = load_tokenizer(folder)
    for ours, theirs in ((codec.scalar, "scalar"), (codec.descriptive, "describe")):
        state = ours.state_dict()
        for name, value in load_file(parts / theirs / "model.safetensors").items():  # weights, codebooks, averages
            assert torch.equal(state[name], value), name
    first = weights_of(run(recipe_of(parts, tmp_path / "short", cache_features=True, steps=1)))
    state = codec.state_dict()
    still = {"flow.latent_mean", "flow.latent_spread", "structural.no_condition"}
    for name, _ in codec.named_parameters():
        if name.startswith(("structural.", "flow.")) and name not in still:
            assert not torch.equal(state[name], first[name]), name
    assert all(torch.equal(state[name], first[name]) for name in still)
    assert (codec.flow.latent_spread != 1).all()
    entries = read_metrics(tmp_path / "run")
    expected = {"loss", "flow", "phone", "commitment", "grad_norm", "phone_usage", "acoustic_perplexity"}
    assert expected <= set(entries[0])
    assert any("val/flow" in entry for entry in entries)
    tokens = codec.encode(noise(9_000)[None])[0]
    assert codec.decode([tokens], steps=1)[0].shape == (9_000,)


def test_a_codec_goes_on_learning_with_another_descriptive_branch(parts, tmp_path):
    first = run(recipe_of(parts, tmp_path / "first", decode_steps=3, decode_guidance=1.0))
    torch.manual_seed(5)
    sizes = DescriptiveEncoder.from_pretrained(parts / "describe").config
    DescriptiveEncoder(sizes).save_pretrained(tmp_path / "other")
    changes = {"init": str(first), "scalar": "", "structural": None, "flow": None, "steps": 1}
    changes["optimiser"] = {"lr": 1e-12, "warmup_steps": 0}
    recipe = recipe_of(parts, tmp_path / "second", descriptive=str(tmp_path / "other"), **changes)
    second = weights_of(run(recipe))
    config = codec_to_train(recipe).config
    assert (config.decode_steps, config.decode_guidance) == (3, 1.0)  # what is left out is that of init
    before, other = weights_of(first), load_file(tmp_path / "other" / "model.safetensors")
    assert before.keys() == second.keys()
    for name, value in second.items():
        if name.startswith("descriptive."):
            assert torch.equal(value, other[name.removeprefix("descriptive.")]), name
        elif "_codebook" not in name:  # which follow the data whatever the learning rate
            torch.testing.assert_close(value, before[name], atol=1e-6, rtol=0)
    with pytest.raises(UserError, match="other sizes than this recipe states"):
        codec_to_train(recipe_of(parts, tmp_path / "third", **changes | {"structural": {"dim": 24}}))
    with pytest.raises(UserError, match="name the folders of scalar and descriptive"):
        recipe_of(parts, tmp_path / "fourth", scalar="")


def test_no_buffer_of_an_expert_changes(parts, tmp_path):
    """A music encoder has batch norms, whose means would follow the data in training mode."""
    torch.manual_seed(1)
    sizes = MusicEncoderConfig(dim=16, heads=2, feed_forward=32, layers=2, kernel=5, channels=4, mel_bands=16)
    MusicEncoder(sizes).save_pretrained(tmp_path / "music")
    taps = {"music_acoustic": (1,), "music_semantic": (2,)}
    experts = ExpertConfig("speech_text"), ExpertConfig("music", "conformer", str(tmp_path / "music"), taps)
    quantiser = QuantiserConfig(codebook_size=8, codebook_dim=4, kmeans_init=False)
    branch = DescriptiveConfig(
        speech_dim=128, music_dim=16, dim=16, heads=2, rope_dims=4, blocks=1, quantiser=quantiser
    )
    DescriptiveEncoder(DescriptiveEncoderConfig(experts, branch)).save_pretrained(tmp_path / "describe")
    after = weights_of(run(recipe_of(parts, tmp_path / "run", descriptive=str(tmp_path / "describe"))))
    before = load_file(tmp_path / "music" / "model.safetensors")
    assert any(name.endswith("running_mean") for name in before)
    for name, value in before.items():
        assert torch.equal(after[f"experts.music.encoder.{name}"], value), name


def test_a_codec_goes_on_learning_with_the_experts_that_it_holds(parts, tmp_path):
    """A saved codec names no source for them: they are its own weights, for the one that goes on as well."""
    sizes = dict(dim=16, heads=2, feed_forward=32, layers=2, kernel=5, channels=4, mel_bands=16)
    for name, hop in (("music", 240), ("phone", 120), ("other", 120)):
        MusicEncoder(MusicEncoderConfig(**sizes, hop=hop)).save_pretrained(tmp_path / name)
    taps = {"music_acoustic": (1,), "music_semantic": (2,)}
    experts = ExpertConfig("speech_text"), ExpertConfig("music", "conformer", str(tmp_path / "music"), taps)
    quantiser = QuantiserConfig(codebook_size=8, codebook_dim=4, kmeans_init=False)
    branch = DescriptiveConfig(
        speech_dim=128, music_dim=16, dim=16, heads=2, rope_dims=4, blocks=1, quantiser=quantiser
    )
    DescriptiveEncoder(DescriptiveEncoderConfig(experts, branch)).save_pretrained(tmp_path / "describe")

    def phones(name):
        source = str(tmp_path / name)
        return {"phone_expert": {"role": "phone", "kind": "conformer", "source": source, "taps": {"phone": [1]}}}

    first = run(recipe_of(parts, tmp_path / "a", descriptive=str(tmp_path / "describe"), steps=1, **phones("phone")))
    changes = {"init": str(first), "scalar": "", "descriptive": "", "structural": None, "flow": None, "steps": 1}
    again = weights_of(run(recipe_of(parts, tmp_path / "b", **changes)))
    others = weights_of(run(recipe_of(parts, tmp_path / "c", **changes, **phones("other"), phone_units=True)))
    for name, value in weights_of(first).items():
        if name.startswith("experts."):
            assert torch.equal(again[name], value), name
            assert torch.equal(others[name], value) or name.startswith("experts.phone."), name
    other = load_file(tmp_path / "other" / "model.safetensors")
    assert all(torch.equal(others[f"experts.phone.encoder.{name}"], value) for name, value in other.items())
    with pytest.raises(
        UserError, match="to which its phone branch belongs; leave phone_expert out, or set phone_units"
    ):
        recipe_of(parts, tmp_path / "d", **changes, **phones("other"))


@pytest.mark.parametrize(("keep", "mel_share"), [(False, 0.7), (True, 0.0)])
def test_a_resumed_run_is_the_uninterrupted_one(parts, tmp_path, keep, mel_share):
    # The schedule depends on `steps` after the warm-up only, so the first run stays inside a longer one.
    changes = {"cache_features": keep, "mel_share": mel_share, "optimiser": {"lr": 1e-3, "warmup_steps": 4}}
    straight = weights_of(run(recipe_of(parts, tmp_path / "straight", **changes)))
    run(recipe_of(parts, tmp_path / "cut", steps=2, **changes))
    resumed = weights_of(run(recipe_of(parts, tmp_path / "cut", **changes), resume=True))
    assert straight.keys() == resumed.keys()
    for name, value in straight.items():
        assert torch.equal(value, resumed[name]), name


def test_what_is_heard_more_counts_more(parts, tmp_path):
    """The metric reaches the loss: the first update is another one with it."""
    alike, heard = (
        weights_of(run(recipe_of(parts, tmp_path / name, steps=1, mel_share=share)))
        for name, share in (("alike", 0.0), ("heard", 0.7))
    )
    assert any(not torch.equal(value, heard[name]) for name, value in alike.items() if name.startswith("flow."))


def test_kept_features_are_those_of_the_audio(parts, tmp_path):
    """What is kept in memory, in 16 bits and clip by clip, trains the same model but for rounding."""
    a = weights_of(run(recipe_of(parts, tmp_path / "a", cache_features=True, steps=1)))
    b = weights_of(run(recipe_of(parts, tmp_path / "b", cache_features=False, steps=1)))
    for name in ("flow.latent_mean", "structural.quantiser.phone.layers.0._codebook.embed"):
        torch.testing.assert_close(a[name], b[name], atol=2e-2, rtol=1e-2)


@torch.no_grad()
def test_the_conditioning_begins_as_loud_as_the_noise(parts, tmp_path):
    """At PyTorch's scale it varied by an eighth of that, and the decoder learned to copy noise for a long time."""
    recipe = recipe_of(parts, tmp_path / "run", structural={"dim": 16, "conditions": 2})
    codec = codec_to_train(recipe)
    crops, _ = AudioCrops.train_and_dev(recipe.corpora, recipe.batch, recipe.crop_seconds, recipe.seed)
    initialise(codec, crops)
    features = FeatureExtractor(codec)(crops.batch(0), torch.device("cpu"))
    branch = codec.structural
    fused = branch.modulate(branch.fuse(features.experts), features.descriptive)
    passed = [quantiser.project_out(quantiser.project_in(fused[name])) for name, quantiser in branch.quantiser.items()]
    for what in (*fused.values(), branch.condition(sum(passed))):
        assert what.flatten(0, 1).std(0).mean() == pytest.approx(1.0, abs=0.05)


def test_training_follows_the_data(parts, tmp_path):
    run(recipe_of(parts, tmp_path / "run", steps=40, save_every=40, optimiser={"lr": 3e-3, "warmup_steps": 5}))
    entries = read_metrics(tmp_path / "run")
    early, late = (sum(e["loss"] for e in part) / len(part) for part in (entries[:10], entries[-10:]))
    assert late < 0.9 * early


def test_prefixes_and_unconditional_clips_come_as_often_as_the_recipe_says(parts, tmp_path):
    recipe = recipe_of(parts, tmp_path, prefix_chance=0.5, prefix_share=0.4, unconditional_chance=0.1)
    torch.manual_seed(0)
    drawn = draw_conditions(torch.full((4000,), 50), recipe)
    assert 0.4 < (drawn["prefix_frames"] > 0).float().mean() < 0.52
    assert drawn["prefix_frames"].max() <= 20
    assert 0.08 < 1 - drawn["conditioned"].float().mean() < 0.12
    assert "codebooks" not in drawn  # all are there

    torch.manual_seed(0)
    dropping = draw_conditions(torch.full((4000,), 50), replace(recipe, codebook_drop=0.5))
    assert all(torch.equal(value, dropping[name]) for name, value in drawn.items())
    shares = torch.bincount(dropping["codebooks"], minlength=9) / 4000
    assert shares[0] == 0 and 0.47 < shares[8] < 0.53
    assert ((shares[1:8] > 0.055) & (shares[1:8] < 0.09)).all()  # 1 to 7 alike


def test_codebooks_may_be_left_out_in_training(parts, tmp_path):
    name = "structural.condition_projection.weight"
    whole = weights_of(run(recipe_of(parts, tmp_path / "whole", steps=2)))
    less = weights_of(run(recipe_of(parts, tmp_path / "less", steps=2, codebook_drop=1.0)))
    assert not torch.equal(whole[name], less[name])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 0}, "'batch' must be at least 1"),
        ({"prefix_share": 1.5}, "'prefix_share' must be .* at most 1"),
        ({"corpora": []}, "'corpora' must not be empty"),
        ({"scalar": "nowhere"}, "nowhere"),
        ({"descriptive": "nowhere"}, "nowhere"),
        ({"flow": {"window_frames": 10, "overlap_frames": 10}}, "longer than its overlap"),
        ({"flow": {"window_frames": 10, "overlap_frames": 6}}, "6 frames of context, training at most 5"),
        ({"prefix_chance": 0.0}, "training at most 0"),
    ],
)
def test_bad_recipes_are_one_sentence(parts, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        run(recipe_of(parts, tmp_path / "run", **changes))


def test_mixed_precision_leaves_the_codes_alone(parts, tmp_path):
    full = weights_of(run(recipe_of(parts, tmp_path / "full", steps=1)))
    mixed = weights_of(run(recipe_of(parts, tmp_path / "mixed", steps=1, engine={"precision": "mixed"})))
    for name, value in full.items():
        if "_codebook" in name:
            assert torch.equal(value, mixed[name]), name
    assert any(not torch.equal(value, mixed[name]) for name, value in full.items() if name.startswith("flow."))
