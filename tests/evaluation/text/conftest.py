"""The shipped text model on its own, and the same within an audio language model."""

import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from evaluation.text.text_models import PlainText, UniAudioText
from lm.text_backbone import from_text_backbone
from lm.text_tokenizer import SentencePieceTokenizer, TextTokenizer
from lm.vocabulary import VocabularyLayout
from tests.factories.uniaudio import tiny_codec
from uniaudio.model import UniAudio

# Words of a few topics, so that a tokenizer has whole ones and a text is not all bytes.
TEXTS = ["the red bird sings", "what is the answer? the answer is one", "a slow piano melody", "stop here now"] * 20
CONTEXT = 64


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory) -> Path:
    """A text model of transformers with large random weights, so that its predictions are far from uniform."""
    folder = tmp_path_factory.mktemp("text_model")
    tokenizer = SentencePieceTokenizer.train(TEXTS, 320)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=CONTEXT, initializer_range=0.3, tie_word_embeddings=False,
        bos_token_id=tokenizer.bos, eos_token_id=tokenizer.eos, pad_token_id=tokenizer.pad,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def uniaudio_folder(text_folder, tmp_path_factory) -> Path:
    """An audio language model as stage 1 leaves it: audio parts of its own, and that text model, frozen."""
    codec, tokenizer = tiny_codec(), TextTokenizer.from_pretrained(text_folder)
    layout = VocabularyLayout.build(tokenizer, codec.streams, codec.fingerprint)
    depth = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    depth |= {"intermediate_size": 32, "max_position_embeddings": CONTEXT, "head_dim": 8}
    model = from_text_backbone(text_folder, layout, depth, understanding_layers=1, generation_layers=1)
    stages = model.named_groups()
    with torch.no_grad():
        for group in ("understanding", "audio_embeddings"):  # what stage 1 trains
            for _, parameter in stages[group]:
                parameter.add_(torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("uniaudio") / "model"
    UniAudio(model, tokenizer, codec).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def plain(text_folder) -> PlainText:
    return PlainText.from_pretrained(text_folder)


@pytest.fixture(scope="session")
def ours(uniaudio_folder) -> UniAudioText:
    return UniAudioText(UniAudio.from_pretrained(uniaudio_folder), "ours")


@pytest.fixture(scope="session")
def tasks_folder(tmp_path_factory) -> Path:
    """Tasks of the harness on a few lines of data: choices, generation and perplexity."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = {
        "choices": [
            {"question": "what is the answer?", "choices": ["one", "the red bird"], "answer": 0},
            {"question": "what sings?", "choices": ["stop here now", "the bird", "a piano"], "answer": 1},
            {"question": "a slow", "choices": ["melody", "answer"], "answer": 0},
        ],
        "writing": [{"question": f"the {word}", "answer": word} for word in ("red", "bird", "piano", "answer")],
        "texts": [{"page": " ".join(TEXTS[i : i + 4 * i + 1])} for i in range(4)],
    }
    for name, lines in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        described = TASKS[name].format(file=folder / f"{name}.jsonl")
        (folder / f"{name}.yaml").write_text(described)
    return folder


_DATA = """
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{file}"}}}}
test_split: test
metadata: {{version: 1.0}}
"""
TASKS = {
    "choices": _DATA + """
task: tiny_choices
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
""",
    "writing": _DATA + """
task: tiny_writing
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["."], max_gen_toks: 12, do_sample: false}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
""",
    "texts": _DATA + """
task: tiny_texts
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{page}}}}"
metric_list: [{{metric: word_perplexity}}, {{metric: bits_per_byte}}]
""",
}  # fmt: skip
