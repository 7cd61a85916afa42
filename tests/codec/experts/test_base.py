"""Expert encoders: lengths, masks, frozen state, and agreement with the library models they wrap."""

import dataclasses
import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torchaudio.functional import resample
from transformers import (
    HubertConfig,
    HubertModel,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from codec.experts.base import feature_frames, load_expert
from codec.experts.config import RATES, ExpertConfig
from codec.experts.music_encoder import MusicEncoder, MusicEncoderConfig
from codec.io.errors import UserError
from codec.tokens import SAMPLE_RATE
from tests.factories.tokens import descriptive_frames, structural_frames

CONVOLUTIONS = {"conv_dim": (8,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
LAYERS = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
WHISPER_PHONE_TAPS, WHISPER_MUSIC_TAPS = {"phone": (1, 2)}, {"music_acoustic": (1,), "music_semantic": (2,)}
PHONE_TAPS = {"phone": (2, 3)}
MUSIC_TAPS = {"music_acoustic": (1,), "music_semantic": (4,)}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Tiny random models of each family, as transformers saves them."""
    root = tmp_path_factory.mktemp("experts")
    torch.manual_seed(0)
    models = {
        "whisper": WhisperModel(
            WhisperConfig(
                d_model=16,
                encoder_layers=2,
                decoder_layers=1,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                encoder_ffn_dim=32,
                decoder_ffn_dim=32,
                max_source_positions=50,  # one second
                max_target_positions=8,
                vocab_size=20,
                pad_token_id=0,
                bos_token_id=1,
                eos_token_id=2,
                decoder_start_token_id=1,
            )
        ),
        "wavlm": WavLMModel(WavLMConfig(**LAYERS, **CONVOLUTIONS)),
        "hubert": HubertModel(HubertConfig(**LAYERS, **CONVOLUTIONS, feat_extract_norm="layer")),
        "wav2vec2_bert": Wav2Vec2BertModel(Wav2Vec2BertConfig(**LAYERS, conv_depthwise_kernel_size=5)),
    }
    extractors = {
        "whisper": WhisperFeatureExtractor(),
        "wavlm": Wav2Vec2FeatureExtractor(do_normalize=False),
        "hubert": Wav2Vec2FeatureExtractor(do_normalize=True),
        "wav2vec2_bert": SeamlessM4TFeatureExtractor(),
    }
    sizes = MusicEncoderConfig(dim=16, heads=2, feed_forward=32, layers=5, kernel=5, channels=4, mel_bands=16)
    MusicEncoder(sizes).save_pretrained(root / "conformer")
    MusicEncoder(dataclasses.replace(sizes, hop=120)).save_pretrained(root / "fast")  # 50 frames per second
    slow = dataclasses.replace(sizes, hop=480)  # 12.5 frames per second
    MusicEncoder(slow).save_pretrained(root / "slow" / "model")
    for name, model in models.items():
        model.save_pretrained(root / name)
        extractors[name].save_pretrained(root / name)
    return root


def configs(checkpoints) -> dict[str, ExpertConfig]:
    return {
        "mel speech_text": ExpertConfig("speech_text"),
        "mel phone": ExpertConfig("phone"),
        "mel music": ExpertConfig("music"),
        "whisper": ExpertConfig("speech_text", "whisper", str(checkpoints / "whisper")),
        "whisper as phone": ExpertConfig("phone", "whisper", str(checkpoints / "whisper"), WHISPER_PHONE_TAPS),
        "whisper as music": ExpertConfig("music", "whisper", str(checkpoints / "whisper"), WHISPER_MUSIC_TAPS),
        "wavlm": ExpertConfig("phone", "self_supervised", str(checkpoints / "wavlm"), PHONE_TAPS),
        "hubert": ExpertConfig("phone", "self_supervised", str(checkpoints / "hubert"), PHONE_TAPS),
        "hubert as music": ExpertConfig("music", "self_supervised", str(checkpoints / "hubert"), MUSIC_TAPS),
        "wav2vec2_bert": ExpertConfig("music", "self_supervised", str(checkpoints / "wav2vec2_bert"), MUSIC_TAPS),
        "conformer": ExpertConfig("music", "conformer", str(checkpoints / "conformer"), MUSIC_TAPS),
        "conformer as phone": ExpertConfig("phone", "conformer", str(checkpoints / "fast"), PHONE_TAPS),
        "conformer as speech_text": ExpertConfig("speech_text", "conformer", str(checkpoints / "fast")),
    }


NAMES = list(configs(__import__("pathlib").Path("x")))


@pytest.fixture(params=NAMES)
def expert(request, checkpoints):
    return load_expert(configs(checkpoints)[request.param])


def noise(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("num_samples", [1, 479, 480, 4800, 24000, 24001, 33333])
def test_frames_cover_the_tokens(num_samples):
    assert -(-feature_frames(num_samples, 25) // 5) == descriptive_frames(num_samples)
    assert -(-feature_frames(num_samples, 50) // 4) == structural_frames(num_samples)
    assert -(-feature_frames(num_samples, 25) // 2) == structural_frames(num_samples)


@pytest.mark.parametrize("num_samples", [1, 4801, 24000, 31000])
def test_every_length_has_its_frames(expert, num_samples):
    features = expert.features(noise(1, num_samples))
    assert {name: value.shape[1] for name, value in features.items()} == expert.dims
    for value in features.values():
        assert value.shape[2] == feature_frames(num_samples, RATES[expert.config.role])
        assert value.isfinite().all()


def test_a_clip_in_a_batch_has_the_features_it_has_alone(expert):
    lengths = [30000, 480, 24000, 9001]
    waveforms = noise(len(lengths), max(lengths))  # noise beyond each clip, which nobody may hear
    together = expert.features(waveforms, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        alone = expert.features(waveforms[row : row + 1, :length])
        for name, value in alone.items():
            frames = value.shape[2]
            torch.testing.assert_close(together[name][row, :, :frames], value[0], atol=2e-5, rtol=1e-4)
            assert together[name][row, :, frames:].abs().sum() == 0


def test_experts_are_frozen_and_stay_in_eval_mode(expert):
    holder = torch.nn.ModuleList([expert]).train()
    assert not any(module.training for module in holder[0].modules())
    assert not any(parameter.requires_grad for parameter in expert.parameters())
    waveforms = noise(1, 12000)
    first, second = expert.features(waveforms), expert.features(waveforms)
    assert all(torch.equal(first[name], second[name]) and not first[name].requires_grad for name in first)


def test_whisper_features_are_those_of_the_library(checkpoints):
    expert = load_expert(configs(checkpoints)["whisper"])
    waveform = noise(1, 20000)
    spectra = WhisperFeatureExtractor()(
        resample(waveform, SAMPLE_RATE, 16000)[0].numpy(), sampling_rate=16000, max_length=16000, return_tensors="pt"
    )
    model = WhisperModel.from_pretrained(checkpoints / "whisper").eval()
    with torch.no_grad():
        states = model.encoder(spectra.input_features).last_hidden_state
    expected = states[0, : feature_frames(20000, 50)].T
    torch.testing.assert_close(expert.features(waveform)["speech_text"][0], expected, atol=1e-4, rtol=1e-4)


def test_whisper_as_music_has_half_as_many_frames(checkpoints):
    """One expert in every role: the same states, two of them averaged into one, in windows of a second."""
    source = str(checkpoints / "whisper")
    fast = load_expert(ExpertConfig("phone", "whisper", source, {"phone": (2,)}))
    slow = load_expert(ExpertConfig("music", "whisper", source, {"music_acoustic": (1,), "music_semantic": (2,)}))
    waveform = noise(1, 59_999)  # 125 frames at 50 Hz, of the last pair one
    ours, theirs = slow.features(waveform)["music_semantic"], fast.features(waveform)["phone"]
    assert ours.shape == (1, 16, 63)
    torch.testing.assert_close(ours[:, :, :62], theirs[:, :, :124].unflatten(2, (-1, 2)).mean(3), atol=1e-4, rtol=1e-4)
    with pytest.raises(UserError, match="no hidden state 11, the model has 2 layers"):
        load_expert(ExpertConfig("music", "whisper", source))


def test_long_clips_pass_whisper_in_windows(checkpoints):
    expert = load_expert(configs(checkpoints)["whisper"])
    waveform = noise(1, 60000)  # 2.5 s, windows of 1 s
    whole = expert.features(waveform)["speech_text"]
    second = expert.features(waveform[:, 24000:48000])["speech_text"]
    assert whole.shape[2] == 126
    torch.testing.assert_close(whole[:, :, 51:99], second[:, :, 1:49], atol=0.02, rtol=0)  # but for the cut's edges


def test_a_shorter_whisper_window_is_an_option(checkpoints):
    source = str(checkpoints / "whisper")
    expert = load_expert(ExpertConfig("speech_text", "whisper", source, window_seconds=0.5))
    assert expert.features(noise(1, 30000))["speech_text"].shape == (1, 16, 63)
    with pytest.raises(UserError, match="windows of at most 1 s;"):
        load_expert(ExpertConfig("speech_text", "whisper", source, window_seconds=2))


def test_wavlm_features_are_the_mean_of_the_chosen_states(checkpoints):
    expert = load_expert(configs(checkpoints)["wavlm"])
    waveform = noise(1, 24000 - 1)  # 50 frames
    audio = resample(torch.nn.functional.pad(waveform, (0, 1)), SAMPLE_RATE, 16000)
    model = WavLMModel.from_pretrained(checkpoints / "wavlm").eval()
    with torch.no_grad():
        states = model(torch.nn.functional.pad(audio, (0, 160)), output_hidden_states=True).hidden_states
    expected = ((states[2] + states[3]) / 2)[0].T
    assert expected.shape == (16, 50)
    torch.testing.assert_close(expert.features(waveform)["phone"][0], expected, atol=1e-5, rtol=1e-4)


def test_music_features_are_the_chosen_states(checkpoints):
    expert = load_expert(configs(checkpoints)["conformer"])
    waveform = noise(1, 24000 - 1)  # 25 frames, the last sample filled up with silence
    with torch.no_grad():
        states = MusicEncoder.from_pretrained(checkpoints / "conformer")(torch.nn.functional.pad(waveform, (0, 1)))
    features = expert.features(waveform)
    assert torch.equal(features["music_acoustic"], states[1].transpose(1, 2))
    torch.testing.assert_close(features["music_semantic"], states[4].transpose(1, 2), atol=1e-6, rtol=1e-5)


def test_the_last_state_of_a_music_encoder_may_be_counted_from_the_end(checkpoints):
    source, waveform = str(checkpoints / "conformer"), noise(1, 24000)
    last, first = (
        load_expert(ExpertConfig("music", "conformer", source, {"music_acoustic": (0, 2), "music_semantic": layers}))
        for layers in ((-1,), (5,))
    )
    assert torch.equal(last.features(waveform)["music_semantic"], first.features(waveform)["music_semantic"])


def test_a_music_encoder_is_found_in_the_folder_of_its_run(checkpoints):
    with pytest.raises(UserError, match="12.5 frames per second at 24000 Hz cannot serve as music expert"):
        load_expert(ExpertConfig("music", "conformer", str(checkpoints / "slow"), MUSIC_TAPS))
    with pytest.raises(UserError, match="25 frames per second .* cannot serve as phone expert, which needs 50"):
        load_expert(ExpertConfig("phone", "conformer", str(checkpoints / "conformer"), PHONE_TAPS))


def test_models_that_cannot_serve_are_named(checkpoints, tmp_path):
    with pytest.raises(UserError, match="could not be read"):
        load_expert(ExpertConfig("phone", "self_supervised", str(tmp_path / "nothing")))
    with pytest.raises(UserError, match="no hidden state 9, the model has 4 layers"):
        load_expert(ExpertConfig("phone", "self_supervised", str(checkpoints / "wavlm")))
    with pytest.raises(UserError, match="no hidden state 11, the model has 5 layers"):  # 11 as published
        load_expert(ExpertConfig("music", "conformer", str(checkpoints / "conformer")))
    with pytest.raises(UserError, match="nothing: no such folder; give the folder of a music encoder"):
        load_expert(ExpertConfig("music", "conformer", str(tmp_path / "nothing")))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["whisper", "wavlm", "hubert", "wav2vec2_bert", "conformer"])
def test_experts_stored_in_sixteen_bits_compute_in_float32(checkpoints, tmp_path, name, dtype):
    shutil.copytree(checkpoints / name, tmp_path / name)
    path = tmp_path / name / "model.safetensors"
    stored = {key: value.to(dtype) if value.is_floating_point() else value for key, value in load_file(path).items()}
    save_file(stored, path, metadata={"format": "pt"})
    config = tmp_path / name / "config.json"
    values = json.loads(config.read_text())
    if name != "conformer":
        config.write_text(json.dumps(values | {"dtype": str(dtype).removeprefix("torch.")}))
    expert = load_expert(configs(tmp_path)[name])
    for value in expert.features(noise(1, 12_000)).values():
        assert value.dtype == torch.float32 and value.isfinite().all() and value.std() > 0


def wrong_sizes(folder):
    values = json.loads((folder / "config.json").read_text())
    size = next(key for key in ("d_model", "hidden_size", "dim") if key in values)
    (folder / "config.json").write_text(json.dumps(values | {size: "wide"}))


def wrong_number(folder):
    weights = load_file(folder / "model.safetensors")
    key = next(key for key, value in weights.items() if value.is_floating_point() and "decoder" not in key)
    weights[key][0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def lost_weight(folder):
    weights = load_file(folder / "model.safetensors")
    del weights[
        next(key for key in weights if key.endswith("encoder.layers.0.final_layer_norm.weight") or key == "norm.weight")
    ]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


DAMAGES = {
    "no config": lambda folder: (folder / "config.json").unlink(),
    "config cut": lambda folder: (folder / "config.json").write_text('{"d_model": '),
    "config a list": lambda folder: (folder / "config.json").write_text("[1, 2]"),
    "config of other sizes": wrong_sizes,
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "weights cut": lambda folder: (folder / "model.safetensors").write_bytes(b"\x10" + bytes(20)),
    "weights of a page": lambda folder: (folder / "model.safetensors").write_text("<html>"),
    "not a number": wrong_number,
    "a weight lost": lost_weight,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("name", ["whisper", "wavlm", "conformer"])
def test_damaged_folders_of_experts_are_one_sentence(checkpoints, tmp_path, name, damage):
    shutil.copytree(checkpoints / name, tmp_path / name)
    damage(tmp_path / name)
    with pytest.raises(UserError, match=rf"/{name}") as refused:
        load_expert(configs(tmp_path)[name])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", ["[]", "{", '{"sampling_rate": "fast"}', '{"sampling_rate": 0}'])
@pytest.mark.parametrize("name", ["whisper", "wavlm"])
def test_damaged_feature_extractors_are_one_sentence(checkpoints, tmp_path, name, content):
    shutil.copytree(checkpoints / name, tmp_path / name)
    (tmp_path / name / "preprocessor_config.json").write_text(content)
    with pytest.raises(UserError, match=rf"/{name}") as refused:
        load_expert(configs(tmp_path)[name])
    assert "\n" not in str(refused.value)


@torch.no_grad()
def test_whole_frames_are_the_published_hearing(checkpoints):
    """10 ms more than whole frames: WavLM hears them, then 160 zeros; the music encoder hears whole frames alone."""
    audio = noise(1, 2 * 9600 + 240)
    wavlm = load_expert(configs(checkpoints)["wavlm"])
    inputs = F.pad(resample(audio, 24_000, 16_000), (0, 160))
    assert inputs.shape[1] == 2 * 6400 + 160 + 160
    states = wavlm.encoder(inputs, output_hidden_states=True).hidden_states
    (heard,) = wavlm.features(audio, whole_frames=True).values()
    layers = wavlm.config.taps["phone"]
    expected = torch.stack([states[layer] for layer in layers]).mean(0).transpose(1, 2)[..., :40]
    torch.testing.assert_close(heard, expected, atol=1e-5, rtol=1e-5)
    music = load_expert(configs(checkpoints)["conformer"])
    states = music.encoder(audio[:, : 20 * 960])
    for name, value in music.features(audio, whole_frames=True).items():
        (layer,) = music.config.taps[name]
        torch.testing.assert_close(value, states[layer].transpose(1, 2), atol=1e-5, rtol=1e-5)
        assert value.shape[2] == 20
