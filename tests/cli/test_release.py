"""Released weights in and out, as a person does it."""

import os
import re
from dataclasses import replace

import pytest
import torch
import yaml

from codec.reasoning.codec import ReasoningCodec
from codec.untrusted_weights import read_pickle, read_weight_file
from lm.model import UniAudioForConditionalGeneration
from lm.release.config import model_config
from tests.factories.codec import noise
from tests.factories.release import codec
from tests.factories.release.lm import config_values, published_state, save_released, sizes, text_tokenizer, write_yaml
from tests.factories.uniaudio import CODES, tiny_codec
from uniaudio.model import UniAudio


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """Checkpoint, configuration, text tokenizer and codec, each a file or folder of its own."""
    folder, tokenizer = tmp_path_factory.mktemp("release"), text_tokenizer()
    values = config_values(tokenizer)
    config = model_config(values, "x", tokenizer)
    save_released(folder / "llm.checkpoint", published_state(config, legacy=True, prefix="module."))
    write_yaml(folder / "llm_config.yaml", values)
    tokenizer.save_pretrained(folder / "text")
    tiny_codec().save_pretrained(folder / "codec")
    return folder


@pytest.fixture(scope="module")
def whole(release):
    """Options of a complete import."""
    files = ("--lm", release / "llm.checkpoint", "--config", release / "llm_config.yaml")
    return (*files, "--text-tokenizer", release / "text", "--codec", release / "codec")


def test_a_complete_import_hears_and_speaks_and_comes_back_bit_for_bit(uniaudio, release, whole, tone, tmp_path):
    done = uniaudio("import-published", *whole, "--out", tmp_path / "model")
    assert done.status == 0, done.err
    original = read_pickle(release / "llm.checkpoint")
    assert f"all {len(original['model'])} tensors" in done.out
    assert "left out: optimizer, scheduler, reporter" in done.out and "not complete" not in done.out
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "nothing half-written is left"

    layout = UniAudio.from_pretrained(tmp_path / "model").layout
    assert layout.streams[0].codes == CODES and layout.text_fingerprint and layout.audio_fingerprint
    heard = uniaudio("transcribe", tone, "--model", tmp_path / "model", "--max-rows", 4)
    assert heard.status == 0, heard.err

    back = "--lm", tmp_path / "back.checkpoint", "--config", tmp_path / "back.yaml"
    done = uniaudio("export-published", *back, "--model", tmp_path / "model")
    assert done.status == 0 and "no training state" in done.out, done.err
    exported = torch.load(tmp_path / "back.checkpoint", weights_only=True)
    assert list(exported) == ["model", "optimizer", "scheduler", "reporter"]
    assert list(exported["model"]) == list(original["model"])
    for key, value in original["model"].items():
        assert torch.equal(exported["model"][key].view(torch.int32), value.view(torch.int32)), key
    values = yaml.safe_load((tmp_path / "back.yaml").read_text())
    assert values == yaml.safe_load((release / "llm_config.yaml").read_text())

    again = uniaudio("export-published", *back, "--model", tmp_path / "model")
    assert again.status == 2 and "back.checkpoint: exists already" in again.err


def test_a_model_that_was_never_imported_can_be_exported_and_imported(uniaudio, release, tmp_path):
    config = model_config(config_values(text_tokenizer()), "x", text_tokenizer())
    model = UniAudioForConditionalGeneration(config)
    model.save_pretrained(tmp_path / "trained")
    files = "--lm", tmp_path / "a.checkpoint", "--config", tmp_path / "a.yaml"
    assert uniaudio("export-published", *files, "--model", tmp_path / "trained").status == 0
    done = uniaudio("import-published", *files, "--text-tokenizer", release / "text", "--out", tmp_path / "back")
    assert done.status == 0, done.err
    back = UniAudioForConditionalGeneration.from_pretrained(tmp_path / "back")
    assert all(torch.equal(value, back.state_dict()[key]) for key, value in model.state_dict().items())


def test_without_tokenizers_it_says_what_is_missing(uniaudio, release, tmp_path):
    """A model of the published vocabulary, very narrow: its text ids are known without the tokenizer."""
    values = config_values(text_tokenizer(), text_pad_token=128020, llm_name=sizes(8, 1, padded_vocab_size=128256))
    save_released(tmp_path / "llm.checkpoint", published_state(model_config(values, "x")))
    files = "--lm", tmp_path / "llm.checkpoint", "--config", write_yaml(tmp_path / "c.yaml", values)
    done = uniaudio("import-published", *files, "--out", tmp_path / "model")
    assert done.status == 0, done.err
    assert "not complete: without text_tokenizer and audio_tokenizer" in done.out
    assert "--text-tokenizer FOLDER and --codec FOLDER" in done.out
    assert (tmp_path / "model" / "config.json").exists() and not (tmp_path / "model" / "text_tokenizer").exists()
    spoken = uniaudio("speak", "hello", "--model", tmp_path / "model", "-o", tmp_path / "x.wav")
    assert spoken.status == 2 and "has no text_tokenizer" in spoken.err


@pytest.fixture(scope="module")
def codec_release(tmp_path_factory):
    """A folder of a released codec's files; what no shape states (a head's width, a window) is as published."""
    codes = {"descriptive_codes": (CODES, 8), "structural_codes": (CODES, 4)}
    tiny = replace(codec.SMALL_SIZES, flow_width=64, max_frames=500, **codes)
    return codec.save_released(tmp_path_factory.mktemp("codec_release"), tiny)


@pytest.fixture(scope="module")
def codec_files(codec_release):
    """Options of a whole import of the codec."""
    names = {"--codec": "codec.pt", "--scalar": "sqcodec.pth", "--scalar-config": "sqcodec_config.yaml"}
    names |= {"--music-encoder": "music_ssl.pt", "--whisper": "whisper", "--wavlm": "wavlm"}
    return [word for option, name in names.items() for word in (option, codec_release / name)]


def test_a_released_codec_alone_becomes_a_codec_folder(uniaudio, codec_release, codec_files, tmp_path, monkeypatch):
    monkeypatch.chdir(codec_release.parent)  # folders may be given relative to where the command runs
    relative = [os.path.relpath(word) if os.path.isdir(word) else word for word in codec_files]
    done = uniaudio("import-published", *relative, "--out", tmp_path / "codec")
    assert done.status == 0, done.err
    assert [path.name for path in tmp_path.iterdir()] == ["codec"], "nothing half-written is left"
    monkeypatch.chdir(tmp_path)
    codec = ReasoningCodec.from_pretrained(tmp_path / "codec")
    assert codec.fingerprint in done.out
    assert "codec.pt  left out" in done.out and "structure_semantic_decoder.conv1" in done.out
    (tokens,) = codec.encode(noise(12_000)[None])
    assert len(tokens["structural"].unique()) > 4 and codec.config.descriptive.quantiser.codebook_size == CODES


def test_language_model_and_codec_in_one_import(uniaudio, release, codec_files, tmp_path):
    language = "--lm", release / "llm.checkpoint", "--config", release / "llm_config.yaml"
    parts = "--text-tokenizer", release / "text", *codec_files
    done = uniaudio("import-published", *language, *parts, "--out", tmp_path / "model")
    assert done.status == 0 and "not complete" not in done.out, done.err
    model = UniAudio.from_pretrained(tmp_path / "model")
    assert (
        model.layout.audio_fingerprint == ReasoningCodec.from_pretrained(tmp_path / "model/audio_tokenizer").fingerprint
    )


def test_options_that_do_not_belong_together_are_named(uniaudio, release, codec_release, codec_files, tmp_path):
    file, checkpoint = codec_release / "codec.pt", release / "llm.checkpoint"
    config, text = release / "llm_config.yaml", release / "text"
    out = tmp_path / "made"
    for options, message in (
        ((), "nothing to import: give --lm FILE"),
        (("--lm", checkpoint), "llm_config.yaml with --config"),
        (
            ("--codec", release / "codec"),
            "codec: a folder, where the checkpoint file of the released codec is expected",
        ),
        (("--codec", "openai/nothing"), "openai/nothing: no such file"),
        (("--codec", file), "codec.pt: .* add --scalar FILE and --scalar-config FILE"),
        ((*codec_files, "--config", config), "--config is for the language model"),
        ((*codec_files, "--text-tokenizer", text), "--text-tokenizer is for the language model"),
        ((*codec_files, "--whisper", tmp_path / "no"), "no: no whisper there"),
        ((*codec_files, "--scalar", tmp_path / "no"), "no: no such file; give a file of weights"),
        ((*codec_files, "--music-encoder", file), "codec.pt: no published music encoder; .* it is the released codec"),
        ((*codec_files, "--out", release), "exists already and is not replaced"),
        (("--lm", checkpoint, "--config", config, "--scalar", file), "--scalar goes with the checkpoint file of the"),
        (
            ("--lm", checkpoint, "--config", config, *codec_files, "--codec", release / "codec"),
            "codec: no file, where --scalar goes with",
        ),
        ((*codec_files[:6], *codec_files[8:]), "codec.pt: holds no music encoder; .*--music-encoder"),
    ):
        done = uniaudio("import-published", "--out", out, *options)
        assert done.status == 2 and re.search(message, done.err) and len(done.err.splitlines()) == 1, done.err
        assert not list(tmp_path.iterdir())


def test_a_codec_comes_back_alone_and_from_a_models_folder(uniaudio, release, codec_release, codec_files, tmp_path):
    """Imported with a language model and prompts, it is exported from the model's folder, to the bit."""
    prompts = tmp_path / "prompts.json"
    prompts.write_text('{"TTS": ["Utter this."], "Yue_TTS": ["One more."]}')
    language = "--lm", release / "llm.checkpoint", "--config", release / "llm_config.yaml", "--prompts", prompts
    parts = "--text-tokenizer", release / "text", *codec_files
    done = uniaudio("import-published", *language, *parts, "--out", tmp_path / "model")
    assert done.status == 0, done.err
    assert "encodes as published: every clip is repeated to segments of 30 s" in done.out
    assert "prompts for tts; no verb has the tasks Yue_TTS" in done.out
    assert all(line.startswith("/") for line in done.out.splitlines()), done.out
    places = "--codec", tmp_path / "c.pt", "--scalar", tmp_path / "s.pth", "--scalar-config", tmp_path / "s.yaml"
    done = uniaudio("export-published", "--model", tmp_path / "model", *places)
    assert done.status == 2 and "--music-encoder FILE" in done.err
    done = uniaudio("export-published", "--model", tmp_path / "model", *places, "--music-encoder", tmp_path / "m.pt")
    assert done.status == 0 and all(line.startswith("/") for line in done.out.splitlines()), done.err
    for ours, theirs in (("c.pt", "codec.pt"), ("s.pth", "sqcodec.pth"), ("m.pt", "music_ssl.pt")):
        back, original = read_weight_file(tmp_path / ours), read_weight_file(codec_release / theirs)
        assert (back.nest, back.prefix, list(back.state)) == (original.nest, original.prefix, list(original.state))
        assert all(torch.equal(value, original.state[key]) for key, value in back.state.items())


def test_what_cannot_be_exported_says_why(uniaudio, release, tmp_path):
    place = tmp_path / "c.pt"
    others = "--scalar", tmp_path / "s.pth", "--scalar-config", tmp_path / "s.yaml"
    for options, message in (
        ((), "nothing to export: give --lm FILE"),
        (("--codec", place), "--codec goes with --scalar"),
        (("--scalar", place), "--scalar goes with --codec"),
        (("--lm", place), "--lm goes with --config"),
        (("--codec", place, "--scalar", place, "--scalar-config", others[3]), "c.pt: named for two files"),
        (("--codec", release / "llm.checkpoint", *others), "llm.checkpoint: exists already"),
        (("--codec", place, *others), "kind 'mel'.*; keep it as a folder of this project"),
    ):
        done = uniaudio("export-published", "--model", release / "codec", *options)
        assert done.status == 2 and re.search(message, done.err) and len(done.err.splitlines()) == 1, done.err
        assert not list(tmp_path.iterdir())


def test_files_that_changed_places_are_told_for_what_they_are(uniaudio, release, codec_release, codec_files, tmp_path):
    lm, codec, scalar = release / "llm.checkpoint", codec_release / "codec.pt", codec_release / "sqcodec.pth"
    music = codec_release / "music_ssl.pt"
    config = "--config", release / "llm_config.yaml", "--text-tokenizer", release / "text"
    for options, message in (
        (("--lm", codec, *config), "codec.pt: holds none .* it is the released codec .--codec"),
        (("--lm", scalar, *config), "sqcodec.pth: holds none .* it is a scalar autoencoder .--scalar"),
        ((*codec_files, "--codec", lm), "llm.checkpoint: .* it is the released language model .--lm"),
        ((*codec_files, "--codec", scalar), "sqcodec.pth: .* it is a scalar autoencoder .--scalar"),
        ((*codec_files, "--scalar", codec), "codec.pt: .* it is the released codec .--codec"),
        ((*codec_files, "--scalar", music), "music_ssl.pt: .* it is a music encoder .--music-encoder"),
        ((*codec_files, "--music-encoder", scalar), "sqcodec.pth: .* it is a scalar autoencoder .--scalar"),
    ):
        done = uniaudio("import-published", *options, "--out", tmp_path / "made")
        assert done.status == 2 and re.search(message, done.err) and len(done.err.splitlines()) == 1, done.err
        assert not list(tmp_path.iterdir())


def test_a_bare_state_dict_is_imported(uniaudio, release, tmp_path):
    file = read_weight_file(release / "llm.checkpoint")
    torch.save(file.state, tmp_path / "bare.pt")
    files = "--lm", tmp_path / "bare.pt", "--config", release / "llm_config.yaml", "--text-tokenizer", release / "text"
    done = uniaudio("import-published", *files, "--out", tmp_path / "model")
    assert done.status == 0 and f"all {len(file.state)} tensors" in done.out, done.err


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_what_is_refused_leaves_nothing_and_says_why(uniaudio, release, whole, tmp_path):
    ran, evil = tmp_path / "ran", tmp_path / "evil.checkpoint"
    torch.save({"model": {}, "reporter": RunsCode(ran)}, evil)
    incomplete = yaml.safe_load((release / "llm_config.yaml").read_text())
    del incomplete["semantic_eos"]
    config = write_yaml(tmp_path / "c.yaml", incomplete)
    out = tmp_path / "model"
    for options, message in (
        (("--lm", evil), "evil.checkpoint: refused"),
        (("--lm", tmp_path / "none"), "none: no such file"),
        (("--config", config), "c.yaml: has no value for semantic_eos"),
        (("--text-tokenizer", tmp_path / "none"), "no text tokenizer there"),
        (("--codec", tmp_path / "none"), "none: no such folder"),
        (("--out", release), "exists already and is not replaced"),
    ):
        done = uniaudio("import-published", *whole, "--out", out, *options)  # the last of a repeated option counts
        assert done.status == 2 and message in done.err and len(done.err.splitlines()) == 1, done.err
        assert not out.exists() and not ran.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.yaml", "evil.checkpoint"]


def test_an_export_of_no_model_is_refused(uniaudio, tmp_path):
    files = "--lm", tmp_path / "x", "--config", tmp_path / "y"
    (tmp_path / "empty").mkdir()
    for folder in ("none", "empty"):
        done = uniaudio("export-published", *files, "--model", tmp_path / folder)
        assert done.status == 2 and folder in done.err and len(done.err.splitlines()) == 1, done.err
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
