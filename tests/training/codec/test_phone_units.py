"""Phone codes as units of what the phone expert hears: they are near it, they begin once, and they stay."""

import json

import pytest
import soundfile
import torch

from codec.reasoning.structural_branch import StructuralBranch
from codec.tokenizer import load_tokenizer
from tests.factories.codec import noise
from tests.training.codec.test_train_structural import parts, recipe_of, weights_of  # noqa: F401  # a fixture
from training.codec.audio_crops import AudioCrops
from training.codec.phone_units import PHONE_PARTS, before_codebook, set_phone_units
from training.codec.train_structural import codec_to_train, initialise, run

UNITS = {"phone_units": True, "structural": {"dim": 16, "quantiser": {"codebook_size": 16, "codebook_dim": 4}}}


@pytest.mark.parametrize("codebook_dim", [4, 16])
def test_frames_that_sound_alike_have_one_unit(parts, tmp_path, codebook_dim):  # noqa: F811
    quantiser = {"codebook_size": 16, "codebook_dim": codebook_dim}
    lines = []
    for number in range(8):
        loudness = 1.0 if number % 2 else 0.001
        soundfile.write(tmp_path / f"{number}.wav", (loudness * noise(20_000, seed=number)).numpy(), 24_000, "FLOAT")
        lines.append(
            {"id": str(number), "path": f"{number}.wav", "kind": "sound", "split": "train" if number else "dev"}
        )
    (tmp_path / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    changes = {"corpora": [str(tmp_path)], "structural": {"dim": 16, "quantiser": quantiser}}
    recipe = recipe_of(parts, tmp_path / "run", **UNITS | changes)
    codec, crops = codec_to_train(recipe), recipe.crops()[0]
    initialise(codec, crops)
    set_phone_units(codec, crops)
    waves = torch.cat([noise(24_000, seed=1), 0.001 * noise(24_000, seed=2)])  # noise, and nearly silence
    features = codec.extract_features(waves[None], torch.tensor([48_000]))
    branch: StructuralBranch = codec.structural
    entered = branch.fuse(features.values)["phone"]
    quantised, ids, _ = branch.quantiser["phone"](entered, mask=features.structural_mask)
    loud, quiet = ids[0, 2:11, 0].tolist(), ids[0, 15:24, 0].tolist()
    assert not set(loud) & set(quiet)
    # The nearest unit is nearer than the mean is, to frames that it was not found from.
    into = branch.quantiser["phone"].project_in(entered)[features.structural_mask]
    book = branch.quantiser["phone"].layers[0]._codebook.embed[0]
    assert torch.cdist(into, book).min(1).values.square().sum() < 0.7 * into.square().sum()
    others = branch.fuse(features.values)["acoustic"]
    assert (
        0.1
        < quantised.std()
        / branch.quantiser["acoustic"].project_out(branch.quantiser["acoustic"].project_in(others)).std()
        < 10
    )


def test_units_are_found_once_and_stay(parts, tmp_path):  # noqa: F811
    first = weights_of(run(recipe_of(parts, tmp_path / "a", **UNITS)))
    start = codec_to_train(recipe_of(parts, tmp_path / "b", **UNITS))
    still = {id(parameter) for parameter in before_codebook(start.structural).parameters()}
    names = [name for name, parameter in start.named_parameters() if id(parameter) in still]
    assert len(names) == 8 and all(
        name.startswith(tuple(f"structural.{part}" for part in PHONE_PARTS)) for name in names
    )
    longer = weights_of(run(recipe_of(parts, tmp_path / "c", **UNITS | {"steps": 8})))
    assert all(torch.equal(first[name], longer[name]) for name in names)
    assert not torch.equal(
        first["structural.quantiser.phone.project_out.weight"], longer["structural.quantiser.phone.project_out.weight"]
    )
    changes = {"init": str(tmp_path / "a" / "model"), "scalar": "", "descriptive": "", "structural": None, "flow": None}
    again = weights_of(run(recipe_of(parts, tmp_path / "d", **changes, phone_units=True, steps=1)))
    assert all(torch.equal(first[name], again[name]) for name in names)
    tokens = load_tokenizer(tmp_path / "d" / "model").encode(noise(9_000)[None])[0]
    assert tokens.streams["structural"].shape[0] == 8


def test_a_resumed_run_is_the_uninterrupted_one(parts, tmp_path):  # noqa: F811
    changes = UNITS | {"optimiser": {"lr": 1e-3, "warmup_steps": 4}}
    straight = weights_of(run(recipe_of(parts, tmp_path / "straight", **changes)))
    run(recipe_of(parts, tmp_path / "cut", steps=2, **changes))
    resumed = weights_of(run(recipe_of(parts, tmp_path / "cut", **changes), resume=True))
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in straight.items())


def test_the_frames_of_a_small_corpus_come_again(parts, tmp_path):  # noqa: F811
    recipe = recipe_of(parts, tmp_path, **UNITS)
    codec, crops = codec_to_train(recipe), recipe.crops()[0]
    initialise(codec, crops)
    set_phone_units(codec, AudioCrops(crops.clips[:1], 1, 0.2, "one"))
    assert all(level._codebook.initted for level in codec.structural.quantiser["phone"].layers)
