"""llm_config.yaml: every value is read, none is guessed, and our configuration gives the same values back."""

import pytest
import yaml

from codec.io.errors import UserError
from lm.release.checkpoint import published_shapes
from lm.release.config import describes, model_config, published_values, read_yaml
from tests.factories.release.lm import config_values, text_tokenizer
from tests.factories.tokens import two_streams
from tests.factories.uniaudio import CODES

# The numbers that the published data loader's defaults imply.
PUBLISHED = {
    "llm_name": "meta-llama/Llama-3.2-3B",
    "local_model": "Llama-3.2-300M",
    "audio_semantic_card": 8200,
    "audio_reason_card": 4100,
    "semantic_bos": 8192,
    "semantic_eos": 8193,
    "semantic_pad_token": 8195,
    "reason_bos": 4096,
    "reason_eos": 4097,
    "reason_pad_token": 4099,
    "text_pad_token": 128020,
    "parallel_number": 9,
    "audio_prompt_bos": 8196,
    "audio_prompt_eos": 8197,
}


@pytest.fixture(scope="module")
def tokenizer():
    return text_tokenizer()


def test_the_published_3b_model(parity_dir):
    wanted = yaml.safe_load((parity_dir / "lm_full_state_shapes.json").read_text())
    cards = wanted["audio_head"][2]
    published = PUBLISHED | {"audio_semantic_card": cards - PUBLISHED["audio_reason_card"]}
    config = model_config(published, "llm_config.yaml")
    assert {key: list(shape) for key, shape in published_shapes(config).items()} == wanted
    layout = config.layout
    assert (layout.text_bos, layout.text_eos, layout.text_pad) == (128000, 128001, 128020)
    assert layout.tags["caption"] == (128015, 128016)
    assert tuple(stream.codes for stream in layout.streams) == (4096, 8192)
    assert published_values(config) == published | {"llm_name": "Llama-3.2-3B", "local_model": "Llama-3.2-4Layer"}
    assert describes(published, config)
    assert not describes(published | {"reason_eos": 4098}, config)


def test_values_come_back(tokenizer):
    values = config_values(tokenizer)
    config = model_config(values, "llm_config.yaml", tokenizer)
    back = published_values(config)
    assert back == {key: value for key, value in values.items() if key != "exp_dir"}
    assert model_config(back, "again", tokenizer).to_dict() == config.to_dict()
    assert config.layout.text_fingerprint == tokenizer.fingerprint and config.layout.text_size == tokenizer.size + 3


def test_both_spellings_are_read_and_a_contradiction_is_named(tokenizer):
    values = config_values(tokenizer)
    other = {key + "_token" if key.endswith(("_bos", "_eos")) else key: value for key, value in values.items()}
    assert model_config(other, "x", tokenizer).to_dict() == model_config(values, "x", tokenizer).to_dict()
    with pytest.raises(UserError, match="x.yaml: reason_bos and reason_bos_token differ"):
        model_config(values | {"reason_bos_token": 1}, "x.yaml", tokenizer)


@pytest.mark.parametrize("name", [*PUBLISHED])
@pytest.mark.parametrize("empty", [True, False])
def test_a_missing_value_is_named(name, empty):
    values = {key: value for key, value in PUBLISHED.items() if key != name} | ({name: None} if empty else {})
    with pytest.raises(UserError, match=f"llm_config.yaml: has no value for {name}; add"):
        model_config(values, "llm_config.yaml")


def test_all_missing_values_are_named_at_once():
    with pytest.raises(UserError) as missing:
        model_config({}, "llm_config.yaml")
    assert all(name in str(missing.value) for name in PUBLISHED)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reason_bos": "4096"}, "reason_bos is '4096', but must be a whole number"),
        ({"reason_bos": True}, "reason_bos is True"),
        ({"semantic_eos": -1}, "semantic_eos is -1"),
        ({"reason_eos": 4100}, "descriptive_eos = 4100 lies outside the 4100 descriptive ids"),
        ({"parallel_number": 5}, "parallel_number is 5, but rows have 9 columns"),
        ({"llm_name": "Qwen3-4B"}, "llm_name 'Qwen3-4B' is not known .known are Llama-3.2-1B, Llama-3.2-3B"),
        ({"local_model": {"n_layer": 2}}, "local_model is neither a name"),
        ({"local_model": 4}, "local_model is neither a name"),
        ({"understanding_layers": None}, "understanding_layers is None"),
    ],
)
def test_an_impossible_value_is_named(change, message):
    with pytest.raises(UserError, match=f"llm_config.yaml: .*{message}"):
        model_config(PUBLISHED | change, "llm_config.yaml")


def test_sizes_that_do_not_fit_each_other_are_named(tokenizer):
    values = config_values(tokenizer)
    values["llm_name"] = values["llm_name"] | {"n_query_groups": 3}
    with pytest.raises(UserError, match="sizes of llm_name do not fit each other"):
        model_config(values, "x", tokenizer)


def test_text_ids_need_a_tokenizer_unless_they_are_the_published_ones(tokenizer):
    values = config_values(tokenizer)
    with pytest.raises(UserError, match="give its text tokenizer with --text-tokenizer"):
        model_config(values, "x")
    with pytest.raises(UserError, match="x: the model pads text with id 99"):
        model_config(values | {"text_pad_token": 99}, "x", tokenizer)


def test_a_codec_whose_codes_run_into_the_special_ids_is_refused(tokenizer):
    values = config_values(tokenizer)
    with pytest.raises(UserError, match=f"x: structural id {CODES} is a special id.*{2 * CODES}"):
        model_config(values, "x", tokenizer, codec=two_streams(CODES, 2 * CODES))
    layout = model_config(values, "x", tokenizer, codec=two_streams(CODES - 4, CODES), audio_fingerprint="f").layout
    assert (layout.streams[0].codes, layout.audio_fingerprint) == (CODES - 4, "f")


@pytest.mark.parametrize("content", [b"", b"- 1\n", b"a: [", b"\xff\xfe\x00", b"1: 2\n", b"!!python/object:os.x {}"])
def test_files_that_are_no_configuration_are_named(tmp_path, content):
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(UserError, match="bad.yaml: .*give the llm_config.yaml"):
        read_yaml(tmp_path / "bad.yaml")
    with pytest.raises(UserError, match="none.yaml"):
        read_yaml(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "change", [{"rms_norm_eps": 1e-6}, {"attention_bias": True}, {"rope_parameters": {"rope_type": "default"}}]
)
def test_layers_that_the_published_model_lacks_cannot_be_exported(tokenizer, change):
    config = model_config(config_values(tokenizer), "x", tokenizer)
    for name, value in change.items():
        setattr(config.depth, name, value)
    with pytest.raises(UserError, match="the depth decoder cannot be exported"):
        published_values(config)
