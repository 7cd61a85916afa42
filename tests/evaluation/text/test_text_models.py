import pytest
import torch
from transformers import AutoModelForCausalLM

from evaluation.text.text_models import PlainText
from tests.evaluation.text.conftest import TEXTS


def of_transformers(folder, ids):
    """(T - 1, text ids) logits of one sequence, as the library computes them."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0, :-1]


@pytest.fixture(scope="module")
def sequences(plain):
    return [[plain.tokenizer.bos, *plain.tokenizer.encode(text)] for text in TEXTS[:4]]


@pytest.mark.parametrize("which", ["plain", "ours"])
def test_logits_are_those_of_transformers(which, request, text_folder, sequences):
    counts = [1, 5, len(sequences[2]) - 1, 2]
    made = request.getfixturevalue(which).logits(sequences, counts)
    for ids, count, logits in zip(sequences, counts, made, strict=True):
        right = of_transformers(text_folder, ids)[-count:]
        assert logits.shape == right.shape and right.std() > 0.5
        torch.testing.assert_close(logits, right, atol=1e-4, rtol=0)


def test_both_write_what_greedy_decoding_writes(plain, ours, text_folder, sequences):
    prompts = [ids[:3] for ids in sequences]
    made = plain.write(prompts, 7)
    for prompt, (ids, _) in zip(prompts, made, strict=True):
        for i, chosen in enumerate(ids):  # each is the likeliest after those before it
            assert chosen == of_transformers(text_folder, [*prompt, *ids[: i + 1]])[-1].argmax().item()
    assert [len(ids) for ids, ended in made if not ended] == [7] * sum(not ended for _, ended in made)
    assert ours.write(prompts, 7) == made


def test_a_fingerprint_tells_weights_apart(plain, text_folder):
    model = AutoModelForCausalLM.from_pretrained(text_folder)
    assert PlainText(model, plain.tokenizer).fingerprint == plain.fingerprint
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    assert PlainText(model, plain.tokenizer).fingerprint != plain.fingerprint
