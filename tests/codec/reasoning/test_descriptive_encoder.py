"""The descriptive encoder: experts and branch together, saved and loaded."""

import dataclasses
import json

import pytest
import torch

from codec.experts.config import ExpertConfig
from codec.experts.music_encoder import MusicEncoderConfig
from codec.io.errors import UserError
from codec.io.shipped import STARTER_CODEC
from codec.layers.config import QuantiserConfig
from codec.reasoning.codec import ReasoningCodec
from codec.reasoning.config import DescriptiveConfig, DescriptiveEncoderConfig
from codec.reasoning.descriptive_encoder import DescriptiveEncoder
from tests.factories.tokens import descriptive_frames

EXPERTS = (ExpertConfig("speech_text"), ExpertConfig("music"))
SIZES = DescriptiveConfig(
    speech_dim=128,
    music_dim=120,
    dim=32,
    heads=2,
    rope_dims=8,
    blocks=1,
    quantiser=QuantiserConfig(16, codebook_dim=8, dead_code_threshold=0.1, kmeans_init=False),
)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return DescriptiveEncoder(DescriptiveEncoderConfig(EXPERTS, SIZES)).eval()


def test_clips_have_as_many_frames_as_their_tokens(encoder):
    lengths = torch.tensor([1, 4799, 4800, 24000, 33333])
    waveforms = 0.1 * torch.randn(5, 33333, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = encoder(waveforms, lengths)
        assert out.mask.sum(1).tolist() == [descriptive_frames(n) for n in lengths.tolist()]
        for row, length in enumerate(lengths.tolist()):
            alone = encoder(waveforms[row : row + 1, :length], lengths[row : row + 1])
            assert torch.equal(out.codes[row, : alone.codes.shape[1]], alone.codes[0])


def test_saved_and_loaded_it_gives_the_same_codes(encoder, tmp_path):
    encoder.save_pretrained(tmp_path)
    again = DescriptiveEncoder.from_pretrained(tmp_path)
    assert again.branch.config == SIZES and not again.training
    waveforms, lengths = 0.1 * torch.randn(2, 20000), torch.tensor([20000, 9000])
    with torch.no_grad():
        assert torch.equal(encoder(waveforms, lengths).codes, again(waveforms, lengths).codes)


def test_a_whole_codec_has_one_inside():
    codec, encoder = (kind.from_pretrained(STARTER_CODEC) for kind in (ReasoningCodec, DescriptiveEncoder))
    waveform = 0.1 * torch.randn(30000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        codes = encoder(waveform[None], torch.tensor([30000])).codes[0]
    assert torch.equal(codes.T, codec.encode(waveform[None])[0]["descriptive"])


def test_what_does_not_fit_is_named(encoder, tmp_path):
    with pytest.raises(UserError, match="experts give \\(128, 120\\) channels"):
        DescriptiveEncoder(DescriptiveEncoderConfig(EXPERTS, dataclasses.replace(SIZES, speech_dim=100)))
    with pytest.raises(UserError, match="a speech_text and a music expert"):
        DescriptiveEncoder(DescriptiveEncoderConfig(EXPERTS[:1], SIZES))
    without_weights = ExpertConfig("music", "conformer", sizes=MusicEncoderConfig())
    with pytest.raises(UserError, match="of given sizes has no weights"):
        DescriptiveEncoder(DescriptiveEncoderConfig((EXPERTS[0], without_weights), SIZES))
    with pytest.raises(UserError, match="holds no trained descriptive branch"):
        DescriptiveEncoder.from_pretrained(tmp_path)
    encoder.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    values["descriptive"]["blocks"] = 2
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match="weights do not fit config.json"):
        DescriptiveEncoder.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"12345")
    with pytest.raises(UserError, match="model.safetensors: damaged"):
        DescriptiveEncoder.from_pretrained(tmp_path)
