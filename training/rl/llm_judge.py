"""A language model as the judge of an analysis: how well it agrees with the true one (ReasoningCodec's GRPO reward).

The published judge is LLaMA-3.1-8B-Instruct. Here it is any causal language model with a chat template, or any server
that speaks OpenAI's chat-completions protocol (vLLM, llama.cpp and others). Off by default: the rewards of
training/rl/rewards.py need no second model.
"""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from transformers import AutoTokenizer

from auditory_sentences.builders.analysis import JUDGE_QUESTION
from codec.io.errors import UserError
from codec.io.numbers import Layers, Name, Seconds
from codec.io.third_party import third_party_errors
from lm.text_backbone import load_text_model

HIGHEST = 10
_SCORE = re.compile(r"\D*?(\d{1,3})(?!\.?\d)")
_LONGEST = 16  # text tokens of a judgement


@dataclass(frozen=True, kw_only=True)
class JudgeRecipe:
    """The language model that judges analyses."""

    # local: loaded into this process; endpoint: a server that speaks OpenAI's chat-completions protocol
    kind: Literal["local", "endpoint"]
    # folder or hub id of a local judge; name of the model at an endpoint
    model: Name
    # of the endpoint, such as http://localhost:8000/v1
    url: str = ""
    # environment variable that holds the endpoint's key; empty: no key
    key_variable: str = ""
    # seconds that an endpoint may take for one answer
    timeout: Seconds = 60.0
    # requests to an endpoint before the run stops
    attempts: Layers = 3
    # requests at the same time, or judgements in one batch
    parallel: Layers = 8
    # type of a local judge's weights
    precision: Literal["fp32", "bf16"] = "bf16"

    def __post_init__(self) -> None:
        if (self.kind == "endpoint") != self.url.startswith(("http://", "https://")):
            raise UserError("judge: an endpoint needs a url that starts with http:// or https://, a local judge none")


class Judge(Protocol):
    """Scores analyses."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float | None]:
        """(true analysis, analysis) -> agreement in [0, 1]; None where the judge's answer holds no score."""
        ...


def load_judge(recipe: JudgeRecipe, device: torch.device) -> Judge:
    """The judge that a recipe names.

    Raises:
        UserError: it cannot be loaded.
    """
    return EndpointJudge(recipe) if recipe.kind == "endpoint" else LocalJudge(recipe, device)


def read_score(answer: str) -> float | None:
    """The score in a judge's answer: its first number, which must be whole and at most 10, over 10."""
    score = _SCORE.match(answer.strip())
    if score is None or int(score[1]) > HIGHEST:
        return None
    return int(score[1]) / HIGHEST


class EndpointJudge:
    """A judge behind an OpenAI-compatible server."""

    def __init__(self, recipe: JudgeRecipe) -> None:
        self.recipe, self._headers = recipe, {"Content-Type": "application/json"}
        self._url = recipe.url.rstrip("/") + "/chat/completions"
        if recipe.key_variable:
            key = os.environ.get(recipe.key_variable)
            if not key:
                raise UserError(
                    f"judge.key_variable: the environment has no {recipe.key_variable}; export the endpoint's key "
                    "under that name, or leave key_variable empty"
                )
            self._headers["Authorization"] = f"Bearer {key}"

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float | None]:
        """See Judge.

        Raises:
            UserError: no answer comes in any of the attempts; the address is named.
        """
        with ThreadPoolExecutor(self.recipe.parallel) as pool:
            return [read_score(answer) for answer in pool.map(self._ask, map(_question, pairs))]

    def _ask(self, question: str) -> str:
        body = {
            "model": self.recipe.model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": _LONGEST,
        }
        problem = ""
        for _ in range(self.recipe.attempts):
            try:
                request = urllib.request.Request(self._url, json.dumps(body).encode(), self._headers)  # noqa: S310
                with urllib.request.urlopen(request, timeout=self.recipe.timeout) as reply:  # noqa: S310
                    content = json.load(reply)["choices"][0]["message"]["content"]
                return content if isinstance(content, str) else ""
            except urllib.error.HTTPError as error:
                problem = f"status {error.code} {error.reason}"
                if error.code < 500 and error.code != 429:  # asking again would not help
                    break
            except TimeoutError:
                problem = f"no answer within {self.recipe.timeout:g} s"
            except (KeyError, IndexError, TypeError, ValueError):
                problem = "an answer that is not a chat completion"
            except OSError as error:  # refused, unknown, broken off, or a time-out while connecting
                problem = str(getattr(error, "reason", error))
        raise UserError(
            f"{self._url}: the judge failed ({problem}); see that the server runs and serves {self.recipe.model!r}, "
            "or raise judge.timeout, then resume with --resume"
        )


class LocalJudge:
    """A judge in this process: the likeliest answer of a causal language model."""

    def __init__(self, recipe: JudgeRecipe, device: torch.device) -> None:
        self.recipe, self._device = recipe, device
        precision = {"fp32": torch.float32, "bf16": torch.bfloat16}[recipe.precision]
        remedy = "give a folder or a hub id of a language model"
        with third_party_errors(recipe.model, "no judge could be read", remedy):
            self._tokenizer = AutoTokenizer.from_pretrained(recipe.model, padding_side="left", trust_remote_code=False)
        self._model = load_text_model(recipe.model, precision).to(device).eval()
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token

    @torch.no_grad()
    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float | None]:
        """See Judge."""
        questions = [self._framed(_question(pair)) for pair in pairs]
        scores: list[float | None] = []
        for start in range(0, len(questions), self.recipe.parallel):
            batch = questions[start : start + self.recipe.parallel]
            # A chat template writes the special tokens itself.
            special = self._tokenizer.chat_template is None
            inputs = self._tokenizer(batch, return_tensors="pt", padding=True, add_special_tokens=special)
            inputs = {name: tensor.to(self._device) for name, tensor in inputs.items() if name != "token_type_ids"}
            generated = self._model.generate(
                **inputs, max_new_tokens=_LONGEST, do_sample=False, pad_token_id=self._tokenizer.pad_token_id
            )
            answers = generated[:, inputs["input_ids"].shape[1] :]
            scores += [read_score(self._tokenizer.decode(answer, skip_special_tokens=True)) for answer in answers]
        return scores

    def _framed(self, question: str) -> str:
        if self._tokenizer.chat_template is None:
            return question + "\nScore:"
        messages = [{"role": "user", "content": question}]
        return self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def _question(pair: tuple[str, str]) -> str:
    truth, analysis = pair
    return JUDGE_QUESTION.format(truth=truth, said=analysis)
