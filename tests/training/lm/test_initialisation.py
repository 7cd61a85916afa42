"""How a new language model is initialised: from the codec's codebooks, projection and adapters of an audio LLM."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from codec.io.errors import UserError
from codec.tokenizer import load_tokenizer
from tests.factories import stages
from tests.factories.audio_llm import own_tensors, tiny_audio_llm
from training.codec.audio_llm import AudioLLM
from training.lm.audio_projector import AudioProjector, save_audio_llm
from training.lm.initialisation import codebook_vectors, frame_scale
from training.lm.recipe import LanguageModelRecipe
from training.lm.starting_point import StartingPoint
from training.recipe import parse

CODES = stages.CODES


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    stages.prepare(folder)
    return folder


@pytest.fixture(scope="module")
def audio_llm(folder) -> AudioLLM:
    """An audio LLM whose every tensor matters, saved beside the codec."""
    audio_llm = tiny_audio_llm(folder)
    save_audio_llm(own_tensors(audio_llm), 8 / 4, folder / "audio_llm.safetensors")
    return audio_llm


def start(folder: Path, **more) -> StartingPoint:
    return StartingPoint.load(parse(LanguageModelRecipe, stages.recipe(folder, 1, **more), "the test"))


def random_ids(*shape: int) -> torch.Tensor:
    return torch.randint(CODES, shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("stream", ["descriptive", "structural"])
def test_vectors_of_single_codes_sum_to_the_quantised_frame(stream):
    codec, ids = stages.tiny_codec(), random_ids(1, 50, 8)
    vectors = codebook_vectors(codec, next(spec for spec in codec.streams if spec.name == stream))
    summed = sum(vectors[codebook, ids[0, :, codebook]] for codebook in range(8))
    torch.testing.assert_close(summed, codec.dequantise(stream, ids)[0], atol=1e-5, rtol=1e-5)
    assert frame_scale(vectors).item() == pytest.approx(summed.square().mean().sqrt().item(), rel=0.15)


@torch.no_grad()
def test_the_new_model_reads_descriptive_frames_as_the_audio_llm_did(folder, audio_llm):
    model = start(folder, audio_llm=str(folder / "audio_llm.safetensors")).model.eval()
    ids = random_ids(1, 12, 8)
    heard = audio_llm.projection(audio_llm.branch.dequantise(ids))
    torch.testing.assert_close(model.embed_frames(ids), heard, atol=1e-5, rtol=1e-5)
    # At first the understanding layers only bring every row to one loudness: that of the audio LLM's frames.
    gain = model.understanding.norm.weight[0]
    assert gain.item() == pytest.approx(heard.square().mean().sqrt().item(), rel=0.15)
    rows = torch.cat([ids, torch.zeros(1, 12, 1, dtype=torch.int64)], dim=-1)
    mask = torch.ones_like(rows, dtype=torch.bool)
    mask[..., -1] = False
    even = heard / heard.square().mean(-1, keepdim=True).sqrt() * gain
    read = model.cross_modal(inputs_embeds=even).last_hidden_state
    logits = audio_llm.text_model(inputs_embeds=even).logits
    torch.testing.assert_close(model.lm_head(read)[..., : logits.shape[-1]], logits, atol=1e-4, rtol=1e-3)
    passed = model.generation(inputs_embeds=read, use_cache=False).last_hidden_state
    torch.testing.assert_close(model.last_hidden_state(rows, mask), passed, atol=1e-4, rtol=1e-3)


def test_without_an_audio_llm_ids_that_sound_alike_start_alike(folder):
    start_ = start(folder)
    model, codec, layout = start_.model, load_tokenizer(folder / "codec"), start_.layout
    table = model.audio_embeddings.weight.detach().view(8, layout.audio_size, -1)
    for spec, first in zip(codec.streams, layout.offsets, strict=True):
        vectors = codebook_vectors(codec, spec)
        ours = table[:, first : first + CODES]
        heads = model.audio_head.detach().mT[:, first : first + CODES]  # (8, codes, d)
        distances = [torch.pdist(t[0]) for t in (vectors, ours, heads)]
        assert torch.corrcoef(torch.stack(distances))[0, 1:].min() > 0.7
        logits = heads @ torch.randn(heads.shape[-1], 256)  # (8, codes, vectors)
        assert logits.square().mean().sqrt().item() == pytest.approx(1, rel=0.2)
    assert frame_scale(table[:, :CODES]).item() == pytest.approx(model.understanding.norm.weight[0].item(), rel=0.01)


def test_an_audio_llm_of_another_text_model_is_refused(folder, audio_llm, tmp_path):
    projector = AudioProjector.load(folder / "audio_llm.safetensors")
    assert len(projector.adapters) == 14  # seven matrices of two layers
    state = {"projection.weight": torch.zeros(48, 16), "projection.bias": torch.zeros(48)}
    save_audio_llm(state, 2.0, tmp_path / "wide.safetensors")
    with pytest.raises(UserError, match="projects 16 to 48 values"):
        start(folder, audio_llm=str(tmp_path / "wide.safetensors"))
    name = "text_model.base_model.model.model.layers.7.mlp.up_proj.lora_{}.default.weight"
    state |= {name.format("A"): torch.zeros(4, 32), name.format("B"): torch.zeros(64, 4)}
    save_audio_llm(state, 2.0, tmp_path / "deep.safetensors")
    with pytest.raises(UserError, match=r"adapts 'layers\.7\.mlp\.up_proj'"):
        start(folder, audio_llm=str(tmp_path / "deep.safetensors"))


def test_an_audio_llm_is_found_under_its_former_name(folder, audio_llm, tmp_path):
    (tmp_path / "listener.safetensors").write_bytes((folder / "audio_llm.safetensors").read_bytes())
    assert AudioProjector.load(tmp_path / "audio_llm.safetensors").adapters


def test_a_file_that_holds_no_audio_llm_is_named(folder, tmp_path):
    with pytest.raises(UserError, match=r"gone\.safetensors: no audio LLM can be read"):
        start(folder, audio_llm=str(tmp_path / "gone.safetensors"))
    save_file({"projection.weight": torch.zeros(2, 2)}, tmp_path / "old.safetensors")
    with pytest.raises(UserError, match=r"old\.safetensors: no audio LLM can be read"):
        start(folder, audio_llm=str(tmp_path / "old.safetensors"))
    with pytest.raises(UserError, match="audio_llm is for a new model"):
        stages.parse(LanguageModelRecipe, stages.recipe(folder, 2, folder, audio_llm="x"), "the test")
