"""A text model as lm-evaluation-harness asks it: log-likelihoods of continuations and of texts, and greedy answers.

Tokenization, truncation and windows are those of the harness's own transformers models: BOS before every text, the
last ids of one that is longer than the context, and windows that each predict every id once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from codec.io.errors import UserError
from evaluation.cache import Cache, key_of
from evaluation.text.text_models import TextModel

BATCH = 16  # requests computed at once
CHUNK = 32  # ids written between two looks for a stop string
_VERSION = 1  # to be raised with every change that may change an answer: part of the key of every cached one

Scored = tuple[tuple[str, str], list[int], list[int]]  # the request's texts, ids of its context, ids to be scored


class HarnessModel(TemplateLM):
    """The harness's interface on a text model. What it answers is cached, one entry a request."""

    def __init__(self, model: TextModel, cache: Cache) -> None:
        super().__init__()
        self.model, self.cache = model, cache
        self.truncated = 0  # requests so far of which the model saw the end alone
        self._cut: list[bool] = []  # of the requests computed last, which of them were

    @property
    def eot_token_id(self) -> int:
        return self.model.tokenizer.eos

    @property
    def prefix_token_id(self) -> int:
        return self.model.tokenizer.bos

    @property
    def max_length(self) -> int:
        """Ids that the model sees at most."""
        return self.model.context

    @property
    def tokenizer_name(self) -> str:
        return self.model.tokenizer.fingerprint

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Ids of a text, BOS in front unless `add_special_tokens` is False."""
        ids = self.model.tokenizer.encode(string)
        return ids if add_special_tokens is False else [self.model.tokenizer.bos, *ids]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """(log-likelihood in nats, whether greedy decoding would say it) of each (context, continuation)."""

        def score(missing: list[Instance]) -> list[Any]:
            return super(HarnessModel, self).loglikelihood(missing, disable_tqdm=disable_tqdm)

        return [(float(nats), bool(greedy)) for nats, greedy in self._cached("loglikelihood", requests, score)]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        """Log-likelihood in nats of each whole text, after BOS, however long it is."""

        def score(missing: list[Instance]) -> list[float]:
            windows: list[Scored] = []
            owners: list[int] = []
            for i, request in enumerate(missing):
                ids = self.tok_encode(request.args[0], add_special_tokens=False)
                pairs = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, context_len=1)
                for context, predicted in map(make_disjoint_window, pairs):
                    windows.append((("", ""), context, predicted))
                    owners.append(i)
            totals = [0.0] * len(missing)
            for i, (nats, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
                totals[i] += nats
            self._cut = [False] * len(missing)  # every id was predicted
            return totals

        return self._cached("loglikelihood_rolling", requests, score)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """The likeliest text after each context, up to the first of its stop strings, EOS or its longest length.

        Raises:
            UserError: A request wants answers drawn at random.
        """
        return self._cached("generate_until", requests, self._write)

    def _loglikelihood_tokens(
        self, requests: Sequence[Scored], disable_tqdm: bool = True, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        sequences: list[list[int]] = []
        for (_, continuation), context, ids in requests:
            if not ids or len(ids) > self.max_length:
                problem = "no ids" if not ids else f"{len(ids)} ids, more than its context of {self.max_length},"
                raise UserError(
                    f"a text of {len(continuation)} characters has {problem} for this model, so it cannot be scored; "
                    "leave the task out"
                )
            sequences.append([*context, *ids])
        self._cut = [len(ids) > self.max_length + 1 for ids in sequences]
        sequences = [ids[-(self.max_length + 1) :] for ids in sequences]
        found: dict[int, tuple[float, bool]] = {}
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            targets = [requests[i][2] for i in some]
            made = self.model.logits([sequences[i] for i in some], [len(ids) for ids in targets])
            for i, ids, logits in zip(some, targets, made, strict=True):
                right = logits.new_tensor(ids).long()[:, None]
                nats = logits.log_softmax(-1).gather(1, right).sum().item()
                found[i] = nats, bool((logits.argmax(-1) == right[:, 0]).all())
        return [found[i] for i in range(len(requests))]

    def _write(self, requests: Sequence[Instance]) -> list[str]:
        prompts, limits, stops = [], [], []
        for request in requests:
            context, settings = request.args[0], normalize_gen_kwargs(request.args[1])
            if settings["do_sample"]:
                raise UserError(
                    f"the task '{request.task_name}' wants answers drawn at random, and here they are the likeliest "
                    "ones; set do_sample: false in it, or leave it out"
                )
            limits.append(min(settings["max_gen_toks"], max(1, self.max_length // 2)))
            prompts.append(self.tok_encode(context))
            stops.append([stop for stop in settings["until"] if stop])
        rooms = [self.max_length - limit for limit in limits]
        self._cut = [len(ids) > room for ids, room in zip(prompts, rooms, strict=True)]
        prompts = [ids[-room:] for ids, room in zip(prompts, rooms, strict=True)]
        written: list[list[int]] = [[] for _ in requests]
        answers: dict[int, str] = {}
        while len(answers) < len(requests):
            waiting = [i for i in range(len(requests)) if i not in answers]
            waiting.sort(key=lambda i: len(prompts[i]) + len(written[i]))
            for start in range(0, len(waiting), BATCH):
                some = waiting[start : start + BATCH]
                longest = min(CHUNK, max(limits[i] - len(written[i]) for i in some))
                made = self.model.write([[*prompts[i], *written[i]] for i in some], longest)
                for i, (ids, ended) in zip(some, made, strict=True):
                    written[i] = [*written[i], *ids][: limits[i]]
                    text = self.model.tokenizer.decode(written[i])
                    cut = min((text.find(stop) for stop in stops[i] if stop in text), default=-1)
                    if cut >= 0 or ended or len(written[i]) == limits[i]:
                        answers[i] = text if cut < 0 else text[:cut]
        return [answers[i] for i in range(len(requests))]

    def _cached(
        self, what: str, requests: Sequence[Instance], answer: Callable[[list[Instance]], Sequence[Any]]
    ) -> list[Any]:
        """What `answer` gives for the requests, each from the cache where it was answered before."""
        keys = [
            key_of(what=f"text {what}", model=self.model.fingerprint, version=_VERSION, request=list(request.args))
            for request in requests
        ]
        found = [self.cache.get_json(key, _entry) for key in keys]
        missing = [i for i, entry in enumerate(found) if entry is None]
        if missing:
            made = answer([requests[i] for i in missing])
            for i, value, cut in zip(missing, made, self._cut, strict=True):
                found[i] = [value, cut]
                self.cache.put_json(keys[i], found[i])
        self.truncated += sum(cut for _, cut in found)
        return [value for value, _ in found]


def _entry(plain: Any) -> list[Any]:
    if not isinstance(plain, list) or len(plain) != 2 or not isinstance(plain[1], bool):
        raise ValueError("no answer")
    return plain
