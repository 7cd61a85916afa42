"""Saving, loading and naming a tokenizer."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from codec.io.errors import UserError
from codec.reasoning.codec import ReasoningCodec
from codec.tokenizer import load_tokenizer
from tests.factories.codec import SMALL, noise, small_codec


@pytest.fixture
def saved(tmp_path):
    codec = small_codec()
    codec.save_pretrained(tmp_path / "codec")
    return codec, tmp_path / "codec"


def test_a_saved_tokenizer_comes_back_as_it_was(saved):
    codec, folder = saved
    audio = noise(30_000)[None]
    for back in (load_tokenizer(folder), ReasoningCodec.from_pretrained(str(folder))):
        assert not back.training and back.config == codec.config
        assert back.fingerprint == codec.fingerprint
        tokens = back.encode(audio)[0]
        assert tokens.equal(codec.encode(audio)[0])
        assert torch.equal(back.decode([tokens], steps=2)[0], codec.decode([tokens], steps=2)[0])


def test_the_model_card_says_what_was_saved(saved):
    codec, folder = saved
    card = (folder / "README.md").read_text()
    assert f"`{codec.fingerprint}`" in card
    assert "5 Hz x 8 codebooks of 64 codes (240 bit/s)" in card
    assert "12.5 Hz x 8 codebooks of 64 codes (600 bit/s)" in card
    # What an engine hands in counts, though the codec is in training, and a later card takes an earlier one's place.
    fresh = {"structural.condition_projection.bias": torch.full((32,), 7.0)}
    codec.train().save_pretrained(folder, state_dict=fresh)
    assert f"`{load_tokenizer(folder).fingerprint}`" in (folder / "README.md").read_text() != card
    (folder / "README.md").write_text("# Mine\n")
    codec.save_pretrained(folder)
    assert (folder / "README.md").read_text() == "# Mine\n"


def test_the_fingerprint_follows_weights_and_configuration(saved):
    codec, folder = saved
    assert small_codec().fingerprint == codec.fingerprint
    assert small_codec(replace(SMALL, decode_steps=3, decode_guidance=1.0)).fingerprint == codec.fingerprint
    assert small_codec(seed=1).fingerprint != codec.fingerprint
    weights = load_file(folder / "model.safetensors")
    name = "structural.quantiser.phone.layers.0._codebook.embed"
    weights[name][0, 0, 0] += 1e-3
    save_file(weights, folder / "model.safetensors")
    assert load_tokenizer(folder).fingerprint != codec.fingerprint
    values = json.loads((folder / "config.json").read_text())
    values["encode_context_blocks"] += 1
    (folder / "config.json").write_text(json.dumps(values))
    codec.save_pretrained(folder, state_dict={})
    values = json.loads((folder / "config.json").read_text())
    values["encode_context_blocks"] += 1
    (folder / "config.json").write_text(json.dumps(values))
    assert load_tokenizer(folder).fingerprint != codec.fingerprint


def test_the_fingerprint_is_not_kept_over_training(saved):
    codec, _ = saved
    before = codec.fingerprint
    codec.train()
    with pytest.raises(RuntimeError, match="call eval"):
        _ = codec.fingerprint
    with torch.no_grad():
        codec.structural.condition_projection.weight += 1.0
    assert codec.eval().fingerprint != before


def test_an_engine_may_hand_in_newer_tensors(saved):
    codec, folder = saved
    fresh = {"structural.condition_projection.bias": torch.full((32,), 7.0)}
    codec.save_pretrained(folder, state_dict=fresh)
    back = load_tokenizer(folder)
    assert (back.structural.condition_projection.bias == 7).all()
    assert torch.equal(back.structural.no_condition, codec.structural.no_condition)


def edit(folder, **changes):
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | changes))


def refused(folder, message=""):
    with pytest.raises(UserError, match=message) as caught:
        load_tokenizer(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    assert not any(advice in str(caught.value) for advice in ("weights_only", "ignore_mismatched", "strict=False"))


CONFIGS = {  # content of config.json -> what is said
    b"": "not JSON",
    b"{": "not JSON",
    b"[1, 2]": "names and values",
    b"null": "names and values",
    b"{}": "tokenizer_type must name",
    b'{"tokenizer_type": [1]}': "tokenizer_type must name",
    b'{"tokenizer_type": null}': "tokenizer_type must name",
    b'{"tokenizer_type": "mystery"}': "'mystery' must be one of",
    b'{"tokenizer_type": "reasoning_codec", "tokenizer_type": "reasoning_codec"}': "stands twice",
    b"\xff\xfe{\x00}\x00": "UTF-8",
    b"\x80\x81": "UTF-8",
    b"[" * 50_000: "nested too deeply",
    b'{"tokenizer_type": "reasoning_codec", "decode_steps": ' + b"9" * 5000 + b"}": "digits",
    b'{"tokenizer_type": "reasoning_codec", "decode_guidance": NaN}': "NaN",
    b'{"tokenizer_type": "reasoning_codec", "decode_guidance": 1e999}': "larger than any",
}


@pytest.mark.parametrize("content", CONFIGS, ids=[str(n) for n in range(len(CONFIGS))])
def test_a_configuration_that_is_none_is_refused(saved, content):
    _, folder = saved
    (folder / "config.json").write_bytes(content)
    refused(folder, CONFIGS[content])


def test_a_mark_of_utf_8_is_no_damage(saved):
    codec, folder = saved
    path = folder / "config.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_tokenizer(folder).fingerprint == codec.fingerprint


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ["missing", "folder", "link to nowhere", "link to itself", "pipe"])
def test_what_is_no_file_is_refused_at_once(saved, name, kind):
    _, folder = saved
    path = folder / name
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind != "missing":
        path.symlink_to("nowhere" if kind == "link to nowhere" else name)
    refused(folder, name)


def places(tree, path=()):
    """Where the values of a configuration stand, groups included."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


WRONG = [None, "many", [], {}, [[1]], -1, 0.5, 10**9, 2**63, True, 1e308]


def test_no_value_of_a_configuration_brings_it_down(saved):
    """Each value of config.json in turn becomes one of another type or range: it fits, or one sentence refuses it."""
    codec, folder = saved
    path = folder / "config.json"
    whole = json.loads(path.read_text())
    accepted = []
    for number, place in enumerate(places(whole)):
        for value in WRONG[number % 7 :: 7]:
            tree = json.loads(json.dumps(whole))
            at = tree
            for key in place[:-1]:
                at = at[key]
            at[place[-1]] = value
            path.write_text(json.dumps(tree))
            try:
                with torch.device("meta"):  # shapes alone
                    load_tokenizer(folder)
            except UserError as error:
                assert str(folder) in str(error) and "\n" not in str(error), (place, value)
            else:
                accepted.append((place, value))
    # What fits is of the right type and in its range, and no size of a tensor.
    assert all(isinstance(value, int | float | bool) or place[-1] in FREE for place, value in accepted), accepted
    assert not [place for place, _ in accepted if place[-1] in ("dim", "layers", "heads", "codebook_size", "channels")]


FREE = ("taps", "views", "source", "window_seconds", "sizes")  # may be empty or anything


@pytest.mark.parametrize(
    ("key", "size", "message"),
    [
        ("layers", 10**9, "flow.layers"),
        ("layers", 20, "weights do not fit"),
        ("heads", 10**9, "flow.heads"),
        ("heads", 2**20, "weights do not fit"),
        ("head_dim", 2**20, "weights do not fit"),
        ("max_frames", 10**9, "flow.max_frames"),
    ],
)
def test_a_thousand_million_of_anything_is_refused_before_it_is_built(saved, key, size, message):
    _, folder = saved
    values = json.loads((folder / "config.json").read_text())
    values["flow"][key] = size
    (folder / "config.json").write_text(json.dumps(values))
    refused(folder, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bloks": 3}, "unknown key 'bloks'"),
        ({"encode_window_blocks": 1}, "encode_window_blocks"),
        ({"flow": 3}, "flow: expected keys and values, found 3"),
        ({"experts": []}, "one expert for each"),
        ({"scalar": {}}, "a different shape"),
        ({"scalar": {"num_samples": 1}}, "480 samples a frame at 24000 Hz must be 960"),
        ({"scalar": {"sample_rate": 16000}}, "at 16000 Hz must be"),
        ({"descriptive": {"query_every": 4}}, "query_every must be 5"),
    ],
)
def test_what_is_wrong_in_a_configuration_is_named(saved, change, message):
    _, folder = saved
    edit(folder, **change)
    refused(folder, message)


def test_weights_cut_at_any_place_are_refused(saved):
    _, folder = saved
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for length in (0, 1, 7, 8, 9, header // 2, header - 1, header, header + 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(folder, "is empty" if not length else "damaged or not a safetensors file")
    path.write_bytes(whole + b"more")
    refused(folder, "damaged")


@given(position=st.integers(0, 200), bit=st.integers(0, 7))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_bit_of_the_header_changes_nothing_unseen(saved, position, bit):
    codec, folder = saved
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    content = bytearray(whole)
    content[position] ^= 1 << bit
    path.write_bytes(content)
    try:
        assert load_tokenizer(folder).fingerprint == codec.fingerprint  # in what the header says of its maker
    except UserError as error:
        assert str(path) in str(error)
    finally:
        path.write_bytes(whole)


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


NAME = "structural.no_condition"
EMBED = "structural.quantiser.phone.layers.0._codebook"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(NAME), f"1 weights are missing .{NAME}"),
        (lambda w: w.update(more=torch.ones(1)), "1 have no place in it .more"),
        (lambda w: w.update({NAME: w[NAME][:-1].clone()}), f"{NAME} is float .* instead of float"),
        (lambda w: w.update({NAME: w[NAME].int()}), f"{NAME} is integer"),
        (lambda w: w.update({NAME: w[NAME] > 0}), f"{NAME} is truth"),
        (lambda w: w[NAME].fill_(float("nan")), f"{NAME} holds NaN"),
        (lambda w: w[NAME].view(-1)[-1:].fill_(float("-inf")), f"{NAME} holds infinite"),
        (lambda w: w.update({NAME: torch.full_like(w[NAME], torch.inf).half()}), f"{NAME} holds infinite"),
        (lambda w: w[f"{EMBED}.embed"].view(-1)[3:4].fill_(torch.nan), "embed holds NaN"),
        (lambda w: w[f"{EMBED}.cluster_size"].view(-1)[:1].fill_(-1.0), "a count below 0"),
    ],
)
def test_weights_that_do_not_serve_are_named(saved, change, message):
    _, folder = saved
    change_weights(folder, change)
    refused(folder, message)
    refused(folder, "model.safetensors")


def test_a_pointer_of_git_lfs_is_said_to_be_one(saved):
    _, folder = saved
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    refused(folder, "git-lfs has not fetched")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_half_on_disk(saved, tmp_path, dtype):
    _, folder = saved
    small_codec().to(dtype).save_pretrained(folder)
    stored = load_file(folder / "model.safetensors")
    assert stored[NAME].dtype == dtype
    codec = load_tokenizer(folder)
    assert codec.structural.no_condition.dtype == torch.float32  # computed in full
    assert f"`{codec.fingerprint}`" in (folder / "README.md").read_text()
    codec.save_pretrained(tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert all(
        torch.equal(again[name], tensor) and again[name].dtype == tensor.dtype for name, tensor in stored.items()
    )
    with torch.no_grad():
        codec.structural.no_condition.add_(1e-6)  # learned since: half would lose it
    codec.save_pretrained(tmp_path / "again")
    assert load_file(tmp_path / "again" / "model.safetensors")[NAME].dtype == torch.float32


def test_the_same_codec_is_the_same_bytes(saved, tmp_path):
    codec, folder = saved
    codec.save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors", "README.md"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize("step", range(1, 12, 2))
def test_a_save_that_breaks_off_leaves_one_codec_or_none(saved, monkeypatch, step):
    """Whatever file operation fails: what loads afterwards is the old codec or the new one."""
    codec, folder = saved
    other = small_codec(seed=1)
    calls = iter(range(1000))

    def failing(real):
        def operation(*arguments, **options):
            if next(calls) == step:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))
            return real(*arguments, **options)

        return operation

    for name in ("replace", "mkdir", "chmod", "unlink"):
        monkeypatch.setattr(Path, name, failing(getattr(Path, name)))
    try:
        other.save_pretrained(folder)
        failed = False
    except UserError as error:
        failed = True
        assert "No space left" in str(error)
    monkeypatch.undo()
    assert not list(folder.glob(".tmp-*"))
    try:
        assert load_tokenizer(folder).fingerprint in {codec.fingerprint, other.fingerprint}
    except UserError as error:
        assert failed and "no such file" in str(error)


def test_a_missing_folder_is_said_so(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        load_tokenizer(tmp_path / "nothing")


def test_another_type_is_not_loaded_as_this_one(saved):
    _, folder = saved
    edit(folder, tokenizer_type="mystery")
    with pytest.raises(UserError, match="type 'mystery', not 'reasoning_codec'"):
        ReasoningCodec.from_pretrained(folder)
