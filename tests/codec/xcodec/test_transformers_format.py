"""X-Codec against transformers: the same ids and waveforms from the same folder, written by either."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch.nn.utils.rnn import pad_sequence

from codec.io.errors import UserError
from codec.tokenizer import load_tokenizer
from codec.xcodec.codec import XCodec
from codec.xcodec.transformers_format import export_folder, library_values
from tests.factories.codec import noise
from tests.factories.one_stream.xcodec import WITH_EXPERT, WITHOUT_TEACHER, library_model, small_xcodec

SIZES = ("two layers", "three layers")
WHOLE = (320, 960, 4_800, 16_000, 40_000)  # samples, whole numbers of frames
HOP = 320


@pytest.fixture(scope="module", params=SIZES)
def both(request, tmp_path_factory):
    """(the library's model, ours, their folder)"""
    folder = tmp_path_factory.mktemp("library")
    model = library_model(request.param)
    model.save_pretrained(folder)
    return model, load_tokenizer(folder), folder


@torch.no_grad()
def library_ids(model, wave, bandwidth=None):
    return model.encode(wave[None, None], bandwidth).audio_codes[0]


def ours_ids(codec, wave):
    return codec.encode(wave[None])[0]["codes"]


@torch.no_grad()
def library_wave(model, ids):
    return model.decode(ids[None]).audio_values[0, 0]


def assert_near(wave, expected):
    torch.testing.assert_close(wave, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("samples", WHOLE)
def test_ids_and_waveforms_are_the_librarys(both, samples):
    model, codec, _ = both
    wave = noise(samples, seed=samples)
    ids = library_ids(model, wave)
    made = codec.encode(wave[None])[0]
    assert torch.equal(made["codes"], ids)
    heard = library_wave(model, ids)
    assert heard.abs().max() > 0.1 and (samples < 4_800 or ids[0].unique().numel() > 5)
    assert_near(codec.decode([made])[0], heard)


def test_each_bandwidth_is_a_number_of_codebooks(both):
    model, codec, folder = both
    wave = noise(8_000, seed=1)
    prints = set()
    for bandwidth in model.config.target_bandwidths:
        ids = library_ids(model, wave, bandwidth)
        fewer = codec.with_codebooks(len(ids))
        made = fewer.encode(wave[None])[0]
        assert torch.equal(made["codes"], ids) and fewer.streams[0].codebooks == len(ids)
        assert_near(fewer.decode([made])[0], library_wave(model, ids))
        prints.add(fewer.fingerprint)
    assert len(prints) == len(model.config.target_bandwidths) and codec.fingerprint == fewer.fingerprint


def test_a_bandwidth_that_the_library_rounds_down_to_fewer_codebooks(tmp_path):
    model = library_model(codebook_size=256, target_bandwidths=[0.4, 2.4])  # 0.4 a codebook, and 2.4 / 0.4 < 6
    model.save_pretrained(tmp_path / "theirs")
    codec = load_tokenizer(tmp_path / "theirs")
    wave = noise(3_200)
    ids = library_ids(model, wave)
    assert model.config.num_quantizers == 6 and len(ids) == 5 and codec.streams[0].codebooks == 6
    assert torch.equal(ours_ids(codec, wave)[:5], ids)
    export_folder(codec, tmp_path / "ours")
    again = type(model).from_pretrained(tmp_path / "ours").eval()
    assert torch.equal(library_ids(again, wave), ours_ids(codec, wave))


def test_lengths_that_are_no_whole_frames_are_those_of_the_clip_filled_with_silence(both):
    """The library shifts its acoustic branch by half a frame, drops the end, or fails; ours fills the last frame."""
    model, codec, _ = both
    for rest, what in ((1, "dropped"), (79, "dropped"), (80, "shifted"), (200, "shifted"), (300, "shifted")):
        wave = noise(4_800 + rest, seed=rest)
        filled = F.pad(wave, (0, HOP - rest))
        made = ours_ids(codec, wave)
        assert torch.equal(made, library_ids(model, filled)) and made.shape[1] == 16
        theirs = library_ids(model, wave)
        if what == "dropped":
            assert theirs.shape[1] == 15
        else:  # half a frame of silence comes before the sound of the acoustic branch, and not of the semantic one
            assert theirs.shape[1] == 16 and (theirs != made).float().mean() > 0.1


def test_clips_of_less_than_a_quarter_of_a_frame(both):
    model, codec, _ = both
    with pytest.raises(RuntimeError):
        library_ids(model, noise(79))
    for samples in (1, 79):
        assert torch.equal(
            ours_ids(codec, noise(samples)), library_ids(model, F.pad(noise(samples), (0, HOP - samples)))
        )


def test_clips_of_a_batch_are_as_alone_which_the_librarys_are_not(both):
    model, codec, _ = both
    clips = [noise(n, seed=n) for n in (4_000, 9_600, 9_500, 320)]
    together = codec.encode(pad_sequence(clips, batch_first=True), torch.tensor([len(clip) for clip in clips]))
    for clip, made in zip(clips, together, strict=True):
        assert torch.equal(made["codes"], library_ids(model, F.pad(clip, (0, -len(clip) % HOP))))
    with torch.no_grad():  # the teacher sees the padding: it attends to it, or normalises over it
        padded = model.encode(F.pad(clips[0], (0, 5_600))[None, None]).audio_codes[0, :, :12]
    assert (padded != together[0]["codes"][:, :12]).any()


def test_the_library_reads_what_we_write(both, tmp_path):
    model, codec, folder = both
    from transformers import XcodecModel

    export_folder(codec, tmp_path / "theirs")
    again, loading = XcodecModel.from_pretrained(tmp_path / "theirs", output_loading_info=True)
    assert not any(loading.values())
    before, after = model.state_dict(), again.eval().state_dict()
    assert {name for name in before if not name.endswith("masked_spec_embed")} == set(after)
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())
    wave = noise(9_600, seed=2)
    assert torch.equal(library_ids(again, wave), library_ids(model, wave))
    for count, bandwidth in enumerate(again.config.target_bandwidths, start=1):
        assert torch.equal(library_ids(again, wave, bandwidth), library_ids(model, wave)[:count])
    assert load_tokenizer(tmp_path / "theirs").fingerprint == codec.fingerprint


def test_fewer_codebooks_are_written_as_a_smaller_model(both, tmp_path):
    model, codec, _ = both
    from transformers import XcodecModel

    export_folder(codec.with_codebooks(2), tmp_path)
    smaller = XcodecModel.from_pretrained(tmp_path).eval()
    wave = noise(4_800)
    assert smaller.config.num_quantizers == 2
    assert torch.equal(library_ids(smaller, wave), library_ids(model, wave)[:2])


def test_saved_in_our_format_it_is_the_same(both, tmp_path):
    _, codec, _ = both
    codec.with_codebooks(3).save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.fingerprint == codec.with_codebooks(3).fingerprint
    assert again.with_codebooks(codec.config.codebooks).fingerprint == codec.fingerprint
    assert "16 kHz" in (tmp_path / "README.md").read_text() and "3 codebooks" in (tmp_path / "README.md").read_text()


def test_weights_split_by_weight_norm_are_read(tmp_path):
    model = library_model()
    wave = noise(3_200)
    ids = library_ids(model, wave)
    model.apply_weight_norm()
    model.save_pretrained(tmp_path / "new")
    tensors = load_file(tmp_path / "new/model.safetensors")
    assert any(name.startswith("acoustic_decoder") and name.endswith("original0") for name in tensors)
    (tmp_path / "old").mkdir()
    (tmp_path / "old/config.json").write_bytes((tmp_path / "new/config.json").read_bytes())
    former = {".parametrizations.weight.original0": ".weight_g", ".parametrizations.weight.original1": ".weight_v"}
    for now, before in former.items():
        tensors = {name.replace(now, before): tensor for name, tensor in tensors.items()}
    save_file(tensors, tmp_path / "old/model.safetensors")
    prints = set()
    for folder in ("new", "old"):
        codec = load_tokenizer(tmp_path / folder)
        assert torch.equal(ours_ids(codec, wave), ids)
        prints.add(codec.fingerprint)
        torch.testing.assert_close(
            codec.decode(codec.encode(wave[None]))[0], library_wave(model, ids), atol=1e-4, rtol=0
        )
    assert len(prints) == 1


def test_a_wavlm_may_be_the_teacher(tmp_path):
    semantic = {"model_type": "wavlm", "conv_dim": [8] * 7, "num_attention_heads": 2, "num_conv_pos_embeddings": 16}
    semantic |= {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48, "num_buckets": 32}
    semantic |= {"num_conv_pos_embedding_groups": 2, "max_bucket_distance": 80}
    model = library_model(semantic_model_config=semantic)
    model.save_pretrained(tmp_path / "theirs")
    codec = load_tokenizer(tmp_path / "theirs")
    wave = noise(9_600)
    assert torch.equal(ours_ids(codec, wave), library_ids(model, wave))
    codec.save_pretrained(tmp_path / "ours")
    assert load_tokenizer(tmp_path / "ours").fingerprint == codec.fingerprint
    assert library_values(codec)["semantic_model_config"]["num_buckets"] == 32


def test_frames_of_640_samples_with_a_stride_in_the_semantic_branch(tmp_path):
    acoustic = {"model_type": "dac", "encoder_hidden_size": 2, "decoder_hidden_size": 32, "hidden_size": 16}
    acoustic |= {"downsampling_ratios": [8, 5, 4, 4], "upsampling_ratios": [4, 4, 5, 8]}
    model = library_model(acoustic_model_config=acoustic, strides=[1, 2])
    model.save_pretrained(tmp_path)
    codec = load_tokenizer(tmp_path)
    for frames in (1, 2, 9):
        wave = noise(640 * frames)
        ids = library_ids(model, wave)
        assert torch.equal(ours_ids(codec, wave), ids) and ids.shape[1] == frames
        torch.testing.assert_close(
            codec.decode(codec.encode(wave[None]))[0], library_wave(model, ids), atol=1e-4, rtol=0
        )


FAULTS = {  # what is done to config.json -> what is said
    "codebook_size": (0, "config.json: is no configuration of an XcodecModel"),
    "sample_rate": ("many", "sample_rate"),
    "target_bandwidths": ([], "config.json"),
    "target_bandwidths ": ([0.01], "codebooks"),
    "codebook_dim": (7, "codebook_dim is 7"),
    "strides": ([1, 2], "the semantic branch makes"),
    "channel_ratios": ([1, 2], "channel_ratios must be 1"),
    "kernel_size": (4, "must be odd"),
    "unit_kernel_size": (-3, "unit_kernel_size"),
    "acoustic_model_config": ({"model_type": "dac", "downsampling_ratios": [8, 5, 4, 1]}, "config.json"),
    "acoustic_model_config ": ({"model_type": "dac", "upsampling_ratios": [8, 5, 4]}, "same product"),
    "acoustic_model_config  ": ({"model_type": "dac", "hidden_size": 17}, "codebook_dim|different shape"),
    "acoustic_model_config   ": ([3], "config.json"),
    "semantic_model_config": ({"model_type": "wav2vec2"}, "cannot be the teacher"),
    "semantic_model_config ": ({"model_type": "mystery"}, "config.json"),
    "semantic_model_config  ": ({"model_type": "hubert", "hidden_size": 7}, "config.json"),
    "semantic_model_config   ": ({"model_type": "hubert", "conv_stride": [5, 2]}, "config.json"),
    "semantic_model_config    ": ({"model_type": "hubert", "hidden_act": "mystery"}, "config.json"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("model")
    library_model().save_pretrained(place)
    return place


def refused(folder, message):
    with pytest.raises(UserError, match=message) as caught:
        load_tokenizer(folder)
    text = str(caught.value)
    assert str(folder) in text and "\n" not in text and len(text) < 1000
    return text


def copied(folder, place, values=None, tensors=None):
    values = json.loads((folder / "config.json").read_text()) | (values or {})
    (place / "config.json").write_text(json.dumps(values))
    save_file(tensors or load_file(folder / "model.safetensors"), place / "model.safetensors")
    return place


@pytest.mark.parametrize("key", FAULTS)
def test_a_configuration_with_nonsense_is_refused(folder, tmp_path, key):
    value, message = FAULTS[key]
    before = json.loads((folder / "config.json").read_text())[key.strip()]
    value = before | value if isinstance(value, dict) and "mystery" not in str(value.get("model_type")) else value
    refused(copied(folder, tmp_path, {key.strip(): value}), message)


FAULTS_OF_WEIGHTS = {  # what is done to model.safetensors -> what is said
    "missing": "are missing",
    "unknown": "no place",
    "shape": "different shape",
    "NaN": "holds NaN",
    "cut": "damaged",
    "absent": "no such file",
    "half a weight norm": "are missing.*no place",
    "a length of another shape": "are missing.*no place",
}


@pytest.mark.parametrize("fault", FAULTS_OF_WEIGHTS)
def test_damaged_weights_are_refused(folder, tmp_path, fault):
    tensors = load_file(folder / "model.safetensors")
    name = "acoustic_encoder.conv1.weight"
    if fault == "missing":
        del tensors[name]
    elif fault == "unknown":
        tensors["acoustic_encoder.conv9.weight"] = torch.zeros(1)
    elif fault == "shape":
        tensors[name] = tensors[name][..., :3].contiguous()
    elif fault == "NaN":
        tensors[name][0] = torch.nan
    elif fault == "half a weight norm":
        tensors["acoustic_encoder.conv1.parametrizations.weight.original1"] = tensors.pop(name)
    elif fault == "a length of another shape":
        tensors["acoustic_encoder.conv1.weight_v"] = tensors.pop(name)
        tensors["acoustic_encoder.conv1.weight_g"] = torch.ones(1)
    copied(folder, tmp_path, tensors=tensors)
    if fault == "cut":
        data = (tmp_path / "model.safetensors").read_bytes()
        (tmp_path / "model.safetensors").write_bytes(data[:-100])
    elif fault == "absent":
        (tmp_path / "model.safetensors").unlink()
    text = refused(tmp_path, FAULTS_OF_WEIGHTS[fault])
    assert fault not in ("missing", "unknown") or "acoustic_encoder.conv" in text


@pytest.mark.parametrize("config, why", [(WITH_EXPERT, "an expert encoder"), (WITHOUT_TEACHER, "no teacher")])
def test_what_the_library_cannot_be_is_not_written(config, why, tmp_path):
    with pytest.raises(UserError, match=why):
        export_folder(small_xcodec(config), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_the_library_is_read_by_load_tokenizer_alone(folder):
    with pytest.raises(UserError, match="tokenizer_type must name"):
        XCodec.from_pretrained(folder)
