"""The audio LLM: what is trained, which loss, answers alone and in a batch, and its file."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from peft.tuners.lora import LoraLayer

from codec.io.errors import UserError
from codec.tokenizer import load_tokenizer
from lm.text_tokenizer import TextTokenizer
from tests.factories import stages
from tests.factories.audio_llm import alone, features, own_tensors, tiny_audio_llm
from training.codec.audio_llm import AudioLLM, load_audio_llm
from training.lm.audio_projector import save_audio_llm
from training.lm.lora import LoraRecipe
from training.lm.prompt_template import Dialogue


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audio_llm")
    stages.prepare(folder)
    return folder


@pytest.fixture
def audio_llm(folder) -> AudioLLM:
    return tiny_audio_llm(folder)


@pytest.fixture
def batch() -> dict:
    return features() | {
        "dialogues": [Dialogue("Transcribe the speech.", "one two three"), Dialogue("Which sound is this?", "bell")],
        "transcripts": ["one two three", ""],
        "labels": [{"gender": "male"}, {"class": "bell"}],
    }


def test_only_branch_projection_and_adapters_are_trained(audio_llm, batch):
    out = audio_llm.train()(**batch, quantise=True)
    (out.answer + out.commitment + out.alignment).backward()
    trained = {name.split(".")[0] for name, p in audio_llm.named_parameters() if p.requires_grad}
    assert trained == {"branch", "text_model", "projection", "alignment"}
    for name, parameter in audio_llm.named_parameters():
        if "text_model" in name:
            assert parameter.requires_grad == ("lora_" in name)
        elif not name.startswith("branch.quantiser"):
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert out.codes.shape == (2, 6, 8) and (out.codes[1, 3:] == -1).all()


@torch.no_grad()
def test_the_loss_is_that_of_the_answers_alone(audio_llm, batch):
    """Against one plain forward pass for each example."""
    audio_llm.train()(**batch, quantise=True)  # gives the codebooks their first codes
    audio_llm.eval()
    total, count = 0.0, 0
    table = audio_llm.text_model.get_input_embeddings()
    for row, (frames, dialogue) in enumerate(zip([30, 12], batch["dialogues"], strict=True)):
        described = audio_llm.branch(
            batch["speech"][row : row + 1, :, : 2 * frames], batch["music"][row : row + 1, :, :frames]
        )
        before, between, answer = (torch.tensor(ids) for ids in dialogue.ids(audio_llm.tokenizer))
        rows = [table(before), audio_llm.projection(described.quantised[0]), table(between), table(answer)]
        logits = audio_llm.text_model(inputs_embeds=torch.cat(rows)[None]).logits[0]
        total += F.cross_entropy(logits[-len(answer) - 1 : -1], answer, reduction="sum")
        count += len(answer)
    torch.testing.assert_close(audio_llm(**batch, quantise=True).answer, total / count, atol=1e-4, rtol=1e-4)


def test_an_answer_in_a_batch_is_the_answer_alone(audio_llm, batch):
    audio_llm.train()(**batch, quantise=True)
    audio_llm.eval()
    questions = [dialogue.question for dialogue in batch["dialogues"]]
    together = audio_llm.answer(batch["speech"], batch["music"], batch["frames"], questions, max_new_tokens=6)
    assert len(together) == 2
    for row, frames in enumerate((30, 12)):
        one = alone(features() | {"questions": questions}, row)
        assert int(one["frames"]) == frames and audio_llm.answer(**one, max_new_tokens=6) == [together[row]]


def test_it_comes_back_as_it_was_trained(folder, audio_llm, tmp_path):
    saved = {name: tensor.detach().clone() for name, tensor in own_tensors(audio_llm).items()}
    save_audio_llm(saved, 8 / 4, tmp_path / "audio_llm.safetensors")
    branch, text = load_tokenizer(folder / "codec").descriptive, str(folder / "text")
    tokenizer = TextTokenizer.from_pretrained(text)
    loaded, state, scale = load_audio_llm(branch, tmp_path, text, tokenizer, torch.float32)
    own = loaded.state_dict()
    assert scale == 2.0 and state.keys() == saved.keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in saved.items() if "alignment" not in name)
    scalings = [module.scaling["default"] for module in loaded.modules() if isinstance(module, LoraLayer)]
    assert scalings and set(scalings) == {scale}


@pytest.mark.parametrize(("rank", "alpha"), [(24, 32.0), (16, 2.5), (3, 1.0)])
def test_the_scale_of_the_adapters_is_kept(folder, tmp_path, rank, alpha):
    branch, text = load_tokenizer(folder / "codec").descriptive, str(folder / "text")
    tokenizer = TextTokenizer.from_pretrained(text)
    made = AudioLLM(branch, text, tokenizer, LoraRecipe(rank=rank, alpha=alpha), align=False)
    save_audio_llm(own_tensors(made), alpha / rank, tmp_path / "audio_llm.safetensors")
    loaded, _, _ = load_audio_llm(branch, tmp_path, text, tokenizer, torch.float32)
    scalings = {m.scaling["default"] for model in (made, loaded) for m in model.modules() if isinstance(m, LoraLayer)}
    assert scalings == {alpha / rank}


def test_it_is_made_without_warnings(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny_audio_llm(folder)


def test_a_text_model_that_cannot_be_read_is_named(folder, tmp_path):
    branch, tokenizer = load_tokenizer(folder / "codec").descriptive, TextTokenizer.from_pretrained(folder / "text")
    with pytest.raises(UserError, match="holds no text model"):
        AudioLLM(branch, str(tmp_path), tokenizer, LoraRecipe(), align=False)
