"""Joint fine-tuning: both branches learn and no expert, from both losses; a resumed run is the uninterrupted one."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from codec.io.errors import UserError
from codec.reasoning.descriptive_encoder import DescriptiveEncoder
from codec.tokenizer import load_tokenizer
from lm.text_tokenizer import TextTokenizer
from tests import ROOT
from tests.factories.codec import QUANTISER, SMALL, noise, small_codec
from training.codec.audio_crops import AudioCrops
from training.codec.audio_llm import AudioLLM, load_audio_llm
from training.codec.feature_extractor import FeatureExtractor
from training.codec.train_joint import Joint, JointRecipe, run
from training.lm.audio_projector import save_audio_llm
from training.lm.initialisation import AudioProjector
from training.lm.lora import LoraRecipe
from training.lm.train_text import TextModelRecipe
from training.lm.train_text import run as train_text
from training.metrics import read_metrics
from training.recipe import load_recipe, parse

RECIPES = ROOT / "recipes"
FILES = ("model.safetensors", "audio_llm.safetensors")
# A code that nobody chose is soon replaced by a random vector: not what these tests are about.
STEADY = replace(QUANTISER, dead_code_threshold=0.0)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Corpus, two text models, and a codec with its audio LLM: all tiny."""
    folder = tmp_path_factory.mktemp("parts")
    rng, lines = np.random.default_rng(0), []
    (folder / "corpus").mkdir()
    for number in range(20):
        high, split = number % 2, "dev" if number >= 14 else "train"
        time = np.arange(rng.integers(6000, 14000)) / 24000
        wave = 0.4 * np.sin(2 * np.pi * rng.uniform(0.9, 1.1) * (400, 2500)[high] * time)
        soundfile.write(folder / "corpus" / f"{number}.wav", wave, 24000)
        label = {"class": ("bell", "bird")[high]}
        lines.append(
            {"id": f"clip-{number}", "path": f"{number}.wav", "split": split, "kind": "sound", "labels": label}
        )
    (folder / "corpus" / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "text.txt").write_text(
        "\n".join(("a bell. what do you hear? bell", "a bird. what do you hear? bird") * 50)
    )
    for name, width, steps in (("text", 32, 12), ("wider", 48, 1)):
        values = {
            "out": str(folder / name),
            "steps": steps,
            "log_every": 60,
            "optimiser": {"lr": 1e-2, "warmup_steps": 3},
            "texts": [str(folder / "text.txt")],
            "vocabulary": 400,
            "layers": 1,
            "width": width,
            "mlp": 32,
            "context": 48,
            "batch": 2,
        }
        train_text(parse(TextModelRecipe, values, "the test"))
    config = replace(
        SMALL,
        descriptive=replace(SMALL.descriptive, quantiser=STEADY),
        structural=replace(SMALL.structural, quantiser=STEADY),
    )
    save_codec_and_audio_llm(small_codec(config), folder, folder / "codec")
    return folder


def save_codec_and_audio_llm(codec, parts, folder):
    """Save a codec and an audio LLM to its branch."""
    text_model = str(parts / "text" / "model")
    torch.manual_seed(3)
    audio_llm = AudioLLM(
        codec.descriptive,
        text_model,
        TextTokenizer.from_pretrained(text_model),
        LoraRecipe(rank=2, alpha=4, dropout=0.0),
        True,
    )
    codec.save_pretrained(folder)
    learnt = {n for n, p in audio_llm.named_parameters() if p.requires_grad and not n.startswith("branch.")}
    save_audio_llm({n: t for n, t in audio_llm.state_dict().items() if n in learnt}, 2.0, folder / FILES[1])


def recipe_of(parts, out, **changes):
    values = {
        "out": str(out),
        "corpora": [str(parts / "corpus")],
        "init": str(parts / "codec"),
        "audio_llm": str(parts / "codec"),
        "text_model": str(parts / "text" / "model"),
        "tasks": {"audio_qa:class": 1.0},
        "held_out_tasks": ["audio_qa:class"],
        "batch": 3,
        "crop_seconds": 0.4,
        "steps": 4,
        "save_every": 2,
        "keep": 3,
        "log_every": 1,
        "optimiser": {"lr": 1e-3, "warmup_steps": 1},
    }
    return parse(JointRecipe, values | changes, "a test")


def joint_of(parts):
    """The model of a run before its first step, and its codec."""
    codec, text_model = load_tokenizer(parts / "codec"), str(parts / "text" / "model")
    for part in (codec.experts, codec.scalar):
        part.requires_grad_(False)
    tokenizer = TextTokenizer.from_pretrained(text_model)
    audio_llm, *_ = load_audio_llm(codec.descriptive, parts / "codec", text_model, tokenizer, torch.float32)
    return Joint(audio_llm, codec, False), codec


def test_both_branches_learn_and_no_expert(parts, tmp_path):
    folder = run(recipe_of(parts, tmp_path / "run", steps=2, validate_every=2, cache_features=True))
    before, after = (load_file(place / FILES[0]) for place in (parts / "codec", folder))
    assert before.keys() == after.keys()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    codec = load_tokenizer(folder)
    still = {"flow.latent_mean", "flow.latent_spread", "structural.no_condition"}
    learns = {n for n, _ in codec.named_parameters() if n.startswith(("descriptive.", "structural.", "flow."))} - still
    assert learns <= changed
    assert all(name.startswith(("descriptive.", "structural.", "flow.")) for name in changed - still)
    for branch in ("descriptive.quantiser", "structural.quantiser.acoustic"):  # codebooks follow the data
        assert f"{branch}.layers.0._codebook.embed" in changed

    before, after = (load_file(place / FILES[1]) for place in (parts / "codec", folder))
    assert before.keys() == after.keys() and any("lora_B" in name for name in after)
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name]) == name.startswith("alignment."), name

    first, *_, last = read_metrics(tmp_path / "run")
    losses = {"loss", "answer", "descriptive_commitment", "flow", "phone", "commitment", "grad_norm"}
    health = {"descriptive_usage", "descriptive_perplexity", "phone_usage", "acoustic_perplexity"}
    assert losses | health <= first.keys()
    total = first["answer"] + first["descriptive_commitment"] + first["flow"] + 0.1 * first["phone"]
    assert first["loss"] == pytest.approx(total + 0.5 * first["commitment"], rel=1e-4)
    assert {"val/audio_qa:class", "val/flow"} <= last.keys()


def test_phone_units_stay_and_codebooks_may_be_left_out(parts, tmp_path):
    name, into = "structural.condition_projection.weight", "structural.fusion.phone.weight"
    whole = load_file(run(recipe_of(parts, tmp_path / "whole", steps=2)) / "model.safetensors")
    less = run(recipe_of(parts, tmp_path / "less", steps=2, codebook_drop=1.0, phone_units=True, validate_every=2))
    less = load_file(less / "model.safetensors")
    start = load_file(parts / "codec" / FILES[0])
    assert not torch.equal(whole[name], less[name])
    assert torch.equal(less[into], start[into]) and not torch.equal(whole[into], start[into])


def test_what_a_run_writes_is_what_a_run_starts_from(parts, tmp_path):
    first = run(recipe_of(parts, tmp_path / "first", steps=1))
    tokens = load_tokenizer(first).encode(noise(9_000)[None])[0]
    assert load_tokenizer(first).decode([tokens], steps=1)[0].shape == (9_000,)
    assert AudioProjector.load(first / FILES[1]).adapters
    run(recipe_of(parts, tmp_path / "second", init=str(tmp_path / "first"), audio_llm=str(tmp_path / "first"), steps=1))


def test_reconstruction_teaches_the_descriptive_branch_through_film(parts):
    """The gradient that nothing was asked for: there with FiLM, gone where clips go without."""
    crops_of = recipe_of(parts, "x")
    for drop, learns in ((0.0, True), (1.0, False)):
        model, codec = joint_of(parts)
        codec.structural.config = replace(codec.structural.config, film_drop=drop)
        frozen = FeatureExtractor(codec, descriptive=False)
        crops, _ = AudioCrops.train_and_dev(crops_of.corpora, 2, 0.4, 0)
        features = frozen(crops.batch(0), torch.device("cpu"))
        codec.eval()
        model.train()
        out = model(
            None, features, prefix_frames=torch.zeros(2, dtype=torch.long), conditioned=torch.ones(2, dtype=torch.bool)
        )
        assert out.questions is None
        out.reconstruction.losses["flow"].backward()
        assert bool(codec.descriptive.merge.weight.grad.abs().sum() > 0) == learns


@torch.no_grad()
def test_crops_are_described_as_the_codec_describes_them(parts):
    """Kept or not, in a batch of unlike lengths: the ids of the codec's own encoding, of either branch."""
    model, codec = joint_of(parts)
    recipe = recipe_of(parts, "x", crop_seconds=9.0)
    crops = AudioCrops.train_and_dev(recipe.corpora, 3, recipe.crop_seconds, 0)[0].batch(1)
    assert len({crop.length for crop in crops}) > 1
    features = FeatureExtractor(codec, descriptive=False)(crops, torch.device("cpu"))
    conditions = {"prefix_frames": torch.zeros(3, dtype=torch.long), "conditioned": torch.ones(3, dtype=torch.bool)}
    out = model.eval()(None, features, **conditions)
    for row, crop in enumerate(crops):
        tokens = codec.encode(crop.load()[None])[0]
        descriptive, structural = out.codes[row].T, out.reconstruction.ids[row].T
        frames = tokens["descriptive"].shape[1], tokens["structural"].shape[1]
        assert (descriptive[:, : frames[0]] == tokens["descriptive"]).float().mean() > 0.97
        assert (structural[:, : frames[1]] == tokens["structural"]).float().mean() > 0.97
        assert (descriptive[:, frames[0] :] == -1).all() and (structural[:, frames[1] :] == -1).all()


def test_interrupted_equals_uninterrupted(parts, tmp_path):
    whole = run(recipe_of(parts, tmp_path / "whole", cache_features=True))
    run(recipe_of(parts, tmp_path / "cut", cache_features=True))
    (tmp_path / "cut" / "checkpoints" / "step-00000004").rename(tmp_path / "set_aside")  # as if killed before it
    resumed = run(recipe_of(parts, tmp_path / "cut", cache_features=True), resume=True)
    for name in FILES:
        ours, theirs = load_file(whole / name), load_file(resumed / name)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.slow
def test_both_losses_fall(parts, tmp_path):
    """The answers' by little: the text model is frozen, and knows little more than which words there are."""
    run(recipe_of(parts, tmp_path / "run", steps=25, save_every=25, optimiser={"lr": 3e-3, "warmup_steps": 3}))
    entries = read_metrics(tmp_path / "run")
    for name, share in (("answer", 0.97), ("phone", 0.7)):
        early, late = (sum(entry[name] for entry in part) / len(part) for part in (entries[:6], entries[-6:]))
        assert late < share * early, name


@pytest.mark.parametrize(
    "engine", [{"precision": "mixed", "micro_batches": 2}, {"zero_stage": 2, "precision": "mixed"}]
)
def test_other_engines_learn_alike(parts, tmp_path, engine):
    run(recipe_of(parts, tmp_path / "plain", steps=1))
    run(recipe_of(parts, tmp_path / "other", steps=1, engine=engine))
    plain, other = (read_metrics(tmp_path / name)[0] for name in ("plain", "other"))
    if "micro_batches" not in engine:
        assert other["loss"] == pytest.approx(plain["loss"], rel=2e-2)
    assert other["grad_norm"] > 0


def test_an_audio_llm_of_another_text_model_is_refused(parts, tmp_path):
    with pytest.raises(UserError, match="audio_llm.safetensors: does not fit .*wider.*; name the text model"):
        run(recipe_of(parts, tmp_path / "run", text_model=str(parts / "wider" / "model")))


def test_an_audio_llm_of_another_branch_is_refused(parts, tmp_path):
    save_codec_and_audio_llm(small_codec(seed=5), parts, tmp_path / "other")
    with pytest.raises(UserError, match="its descriptive branch is not the codec's"):
        run(recipe_of(parts, tmp_path / "run", audio_llm=str(tmp_path / "other")))
    # A descriptive run's folder holds the branch alone, under its own names.
    codec = load_tokenizer(parts / "codec")
    DescriptiveEncoder.from_codec(codec).save_pretrained(tmp_path / "descriptive")
    (tmp_path / "descriptive" / FILES[1]).write_bytes((parts / "codec" / FILES[1]).read_bytes())
    run(recipe_of(parts, tmp_path / "run2", audio_llm=str(tmp_path / "descriptive"), steps=1))


def test_starts_that_cannot_be_gone_on_from_are_named(parts, tmp_path):
    small_codec().save_pretrained(tmp_path / "deaf")
    with pytest.raises(UserError, match="audio_llm.safetensors: cannot be read"):
        run(recipe_of(parts, tmp_path / "a", audio_llm=str(tmp_path / "deaf")))
    small_codec(replace(SMALL, decode_steps=2, decode_guidance=1.0, distilled=True)).save_pretrained(
        tmp_path / "distilled"
    )
    with pytest.raises(UserError, match="its decoder is distilled"):
        run(recipe_of(parts, tmp_path / "b", init=str(tmp_path / "distilled")))
    load_tokenizer(parts / "codec").scalar.save_pretrained(tmp_path / "scalar")
    with pytest.raises(UserError):
        run(recipe_of(parts, tmp_path / "c", init=str(tmp_path / "scalar")))


def test_another_audio_llm_is_refused_when_resumed(parts, tmp_path):
    save_codec_and_audio_llm(load_tokenizer(parts / "codec"), parts, tmp_path / "mine")
    recipe = recipe_of(parts, tmp_path / "run", audio_llm=str(tmp_path / "mine"), steps=1)
    run(recipe)
    state = load_file(tmp_path / "mine" / FILES[1])
    save_file({n: t + 1e-3 for n, t in state.items()}, tmp_path / "mine" / FILES[1], {"lora_scale": "2.0"})
    with pytest.raises(UserError, match="audio_llm: .*not what the run was trained on"):
        run(recipe, resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reconstruction_weight": 0.0}, "'reconstruction_weight' must be above 0"),
        ({"descriptive_commitment_weight": -1.0}, "at least 0"),
        ({"tasks": {}}, "tasks: name at least one"),
        ({"batch": 0}, "'batch' must be at least 1"),
        ({"corpora": []}, "'corpora' must not be empty"),
    ],
)
def test_recipes_that_make_no_sense(parts, changes, message):
    with pytest.raises(UserError, match=message):
        recipe_of(parts, "x", **changes)


@pytest.mark.parametrize("name", ["starter/joint.yaml", "full/joint.yaml"])
def test_the_shipped_recipes_are_valid(name):
    assert isinstance(load_recipe(RECIPES / name), JointRecipe)
