"""Runners: what a model or a codec answers to test items, from the cache where it has answered before."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import soundfile
import torch
from scipy.optimize import linear_sum_assignment

from auditory_sentences.rng import stable_hash
from auditory_sentences.sentence import AuditorySentence, Segment
from codec.audio.waveform import at_rate
from codec.io.aliases import first_names
from codec.io.errors import UserError
from codec.pretrained import weights_hash
from codec.tokenizer import AudioTokenizer
from codec.tokens import SAMPLE_RATE, AudioTokens
from evaluation.cache import Cache, bytes_key, key_of
from evaluation.items import Item
from evaluation.metrics.waveforms import mel_distance
from evaluation.report.progress import chunks
from evaluation.task import EvalTask
from lm.model import UniAudioForConditionalGeneration
from uniaudio.model import UniAudio

_REASONS = ("end", "max_rows", "context", "scored")  # why an answer ends
_NOT_THE_MODEL = ("transformers_version", "_name_or_path", "dtype", "architectures")


@dataclass(frozen=True)
class Answer:
    """What a model or a codec answered to one item."""

    # text or tokens; None where the model generated no audio, or was not asked to generate
    content: str | AudioTokens | None
    # why it ended: end, max_rows, context; scored: nothing was generated
    reason: str
    # what the codec makes of the tokens, (n,) float32 at 24 kHz; None without tokens
    waveform: np.ndarray | None = field(default=None, repr=False, compare=False)
    # name of a score of the scorer max_likelihood -> natural log probability of each choice as the whole answer
    log_probabilities: Mapping[str, Sequence[float]] = field(default_factory=dict)
    # of the right text, for the scorer likelihood: negative log likelihood in nats, and number of text tokens
    likelihood: tuple[float, float] | None = None
    # bits that a codec sent for the waveform; None where its bit rate is constant
    bits: int | None = None

    @property
    def text(self) -> str | None:
        return self.content if isinstance(self.content, str) else None

    @property
    def tokens(self) -> AudioTokens | None:
        return self.content if isinstance(self.content, AudioTokens) else None


class ModelRunner:
    """A model that answers: the trained one, or the same untrained."""

    def __init__(self, uniaudio: UniAudio | _Untrained, fingerprint: str, cache: Cache, seed: int = 0) -> None:
        self.uniaudio, self.fingerprint, self.cache, self.seed = uniaudio, fingerprint, cache, seed
        self.decoder = CachedDecoder(uniaudio.codec, cache)

    @classmethod
    def trained(cls, uniaudio: UniAudio, cache: Cache, seed: int = 0) -> ModelRunner:
        """The model as it is; its fingerprint is a hash of configuration and weights."""
        return cls(uniaudio, weights_hash(_configuration(uniaudio), uniaudio.model.state_dict()), cache, seed)

    @classmethod
    def untrained(cls, uniaudio: UniAudio, cache: Cache, seed: int = 0) -> ModelRunner:
        """The same configuration with new random weights, the text layers untrained too; made when first needed."""
        fingerprint = f"untrained-{key_of(config=_configuration(uniaudio), seed=seed)[:16]}"
        return cls(_Untrained(uniaudio, seed), fingerprint, cache, seed)

    def answer(self, task: EvalTask, items: Sequence[Item]) -> list[Answer]:
        """One answer to each item, with all that the scores of the task read.

        Raises:
            UserError: An item does not fit the model's context.
        """
        if task.is_likelihood:
            return [Answer(None, "scored", likelihood=found) for found in self._likelihoods(task, items)]
        answers = self._in_turn(task, items)
        waveforms = self.decoder.waveforms([answer.tokens for answer in answers])
        chosen = {
            score.name: self._log_probabilities(task, items, [list(item.targets[score.name].phrases) for item in items])
            for score in task.scores
            if score.scorer == "max_likelihood"
        }
        answers = [
            replace(answer, waveform=waveform, log_probabilities={name: found[i] for name, found in chosen.items()})
            for i, (answer, waveform) in enumerate(zip(answers, waveforms, strict=True))
        ]
        return matched(items, answers) if task.has_several_answers else answers

    def _in_turn(self, task: EvalTask, items: Sequence[Item]) -> list[Answer]:
        """Answers to items; where a request has several, each is asked for after those before it were given."""
        answers: list[Answer] = [Answer(None, "end")] * len(items)
        asked = list(items)
        for part in sorted({item.part for item in items}):
            turn = [i for i, item in enumerate(items) if item.part == part]
            for i in turn if part else ():
                asked[i] = _after(asked[i - 1], answers[i - 1], items[i])
            for i, answer in zip(turn, self._generate(task, [asked[i] for i in turn]), strict=True):
                answers[i] = answer
        return answers

    def _generate(self, task: EvalTask, items: Sequence[Item]) -> list[Answer]:
        seeds = [stable_hash("answer", self.seed, task.task, item.id) % 2**31 for item in items]
        # Two items may ask the same, word for word, and have answers of their own.
        keys = [
            self._key(task, item, "answer", sampled=seed, **first_names(task.generation))
            for item, seed in zip(items, seeds, strict=True)
        ]
        read = partial(_answer_from, codec=self.uniaudio.codec)
        answers = [self.cache.get_json(key, read) for key in keys]
        missing = [i for i, answer in enumerate(answers) if answer is None]
        for some in chunks(missing, "answers"):
            sentences, roles = [items[i].sentence for i in some], [items[i].role for i in some]
            made = self.uniaudio.complete(sentences, roles, task.generation, [seeds[i] for i in some])
            for i, completion in zip(some, made, strict=True):
                content = None if completion.segment is None else completion.segment.content
                answers[i] = Answer(content, completion.reason)
                self.cache.put_json(keys[i], _plain(answers[i]))
        return answers

    def _likelihoods(self, task: EvalTask, items: Sequence[Item]) -> list[tuple[float, float]]:
        """(nats, tokens) of each item's right text after its request, end of text included."""
        scores = self._log_probabilities(task, items, [[item.answer] for item in items])
        encode = self.uniaudio.text_tokenizer.encode
        return [(-score, len(encode(item.answer)) + 1.0) for (score,), item in zip(scores, items, strict=True)]

    def _log_probabilities(
        self, task: EvalTask, items: Sequence[Item], options: Sequence[Sequence[str]]
    ) -> list[list[float]]:
        """Natural log probability of each option as an item's whole answer, the end of the text included."""
        keys = [self._key(task, item, "options", options=list(o)) for item, o in zip(items, options, strict=True)]
        found = [self.cache.get_json(key, partial(_numbers, count=len(options[i]))) for i, key in enumerate(keys)]
        missing = [i for i, scores in enumerate(found) if scores is None]
        for some in chunks(missing, "choices"):
            role = items[some[0]].role
            conditions = [_conditions(items[i].sentence) for i in some]
            for i, scores in zip(some, self.uniaudio.choose(conditions, role, [options[i] for i in some]), strict=True):
                found[i] = scores
                self.cache.put_json(keys[i], scores)
        return found

    def _key(self, task: EvalTask, item: Item, what: str, **more: Any) -> str:
        return key_of(
            what=what,
            model=self.fingerprint,
            task=[task.task, task.version],
            request=[_segment_key(segment) for segment in item.sentence.segments],
            role=item.role,
            seed=self.seed,
            **more,
        )


class CodecRunner:
    """A codec that answers a recording with its tokens: the trained codec, or the same untrained."""

    def __init__(self, codec: AudioTokenizer, cache: Cache) -> None:
        self.codec, self.fingerprint, self.cache = codec, codec.fingerprint, cache
        self.decoder = CachedDecoder(codec, cache)

    @classmethod
    def untrained(cls, codec: AudioTokenizer, cache: Cache, seed: int = 0) -> CodecRunner:
        """The same configuration with new random weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            values = _random_codebooks(json.loads(json.dumps(codec.config_values())))  # as from a saved configuration
            fresh = type(codec).from_config_values(values, "the untrained codec").eval()
        return cls(fresh.to(codec.device), cache)

    def answer(self, task: EvalTask, items: Sequence[Item]) -> list[Answer]:
        """The tokens of each item's recording, and what they are decoded to."""
        answers = self.encode(items)
        waveforms = self.decoder.waveforms([answer.tokens for answer in answers])
        return [replace(answer, waveform=waveform) for answer, waveform in zip(answers, waveforms, strict=True)]

    def encode(self, items: Sequence[Item]) -> list[Answer]:
        """The same without the waveforms."""
        rate = self.codec.sample_rate
        keys = [key_of(what="encode", codec=self.fingerprint, clip=bytes_key(item.recording)) for item in items]
        answers = [self.cache.get_json(key, partial(_answer_from, codec=self.codec)) for key in keys]
        missing = [i for i, answer in enumerate(answers) if answer is None]
        missing.sort(key=lambda i: len(items[i].recording))  # little padding
        for some in chunks(missing, "clips encoded"):
            waves = [at_rate(torch.from_numpy(items[i].recording), SAMPLE_RATE, rate) for i in some]
            padded = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
            with torch.inference_mode():
                made = self.codec.encode(padded.to(self.codec.device), torch.tensor([len(w) for w in waves]))
            for i, tokens in zip(some, made, strict=True):
                answers[i] = Answer(tokens, "end")
                self.cache.put_json(keys[i], _plain(answers[i]))
        return answers


Runner = ModelRunner | CodecRunner


class CachedDecoder:
    """Turns tokens into waveforms through the codec, from the cache where it has done so before."""

    def __init__(self, codec: AudioTokenizer, cache: Cache) -> None:
        self.codec, self.cache = codec, cache
        self.decoding = key_of(codec=codec.config_values())  # steps and guidance are no part of the fingerprint

    def waveforms(self, tokens: Sequence[AudioTokens | None]) -> list[np.ndarray | None]:
        """(n,) float32 at 24 kHz, whatever the codec's rate, rounded to 16 bits as in the report; None for None."""
        keys = [t and key_of(what="decode", how=self.decoding, tokens=_tokens_key(t)) for t in tokens]
        found = [None if key is None else self.cache.get(key, samples) for key in keys]
        missing = [i for i, (key, waveform) in enumerate(zip(keys, found, strict=True)) if key and waveform is None]
        missing.sort(key=lambda i: tokens[i].num_samples)
        for some in chunks(missing, "clips decoded"):
            with torch.inference_mode():
                made = self.codec.decode([tokens[i] for i in some], seed=0)
            for i, waveform in zip(some, made, strict=True):
                content = flac(at_rate(waveform.cpu(), self.codec.sample_rate, SAMPLE_RATE).numpy())
                self.cache.put(keys[i], content)
                found[i] = samples(content)
        return found


def flac(waveform: np.ndarray) -> bytes:
    """A waveform (n,) at 24 kHz as 16-bit FLAC; what lies beyond full scale is clipped."""
    file = io.BytesIO()
    samples = np.clip(np.nan_to_num(waveform), -1, 1)
    soundfile.write(file, (samples * 32767).round().astype(np.int16), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


class _Untrained:
    """Stands for a UniAudio with random weights, and makes one when first asked for more than its tokenizers."""

    def __init__(self, trained: UniAudio, seed: int) -> None:
        self._trained, self._seed = trained, seed
        self.codec, self.text_tokenizer, self.layout = trained.codec, trained.text_tokenizer, trained.layout

    @cached_property
    def _made(self) -> UniAudio:
        old = self._trained.model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            model = UniAudioForConditionalGeneration(old.config).to(old.device, old.dtype)
        return UniAudio(model, self.text_tokenizer, self.codec)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made, name)


def _after(before: Item, answer: Answer, item: Item) -> Item:
    """An item whose request holds the answer to the one before it, where there was one."""
    given = () if answer.tokens is None else (Segment(before.role, answer.tokens),)
    return replace(item, sentence=AuditorySentence((*before.sentence.segments, *given), item.sentence.name))


def matched(items: Sequence[Item], answers: Sequence[Answer]) -> list[Answer]:
    """Answers to one request in the order of the parts that they are nearest to, by the mel distance of all together.

    Which part of a mixture comes first is nothing that a request says (permutation-invariant evaluation, Yu et al.
    2017). An answer without sound is nearest to whatever is left.
    """
    result = list(answers)
    together: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        together.setdefault(item.sentence.name, []).append(i)
    for group in together.values():
        costs = np.zeros((len(group), len(group)))
        for row, made in enumerate(group):
            for column, part in enumerate(group):
                distance = mel_distance(answers[made].waveform, items[part].recording)
                costs[row, column] = 0.0 if distance is None else distance[0]
        for row, column in zip(*linear_sum_assignment(costs), strict=True):
            result[group[column]] = answers[group[row]]
    return result


def _configuration(uniaudio: UniAudio) -> str:
    """The model's configuration as text, without where and with which library it was saved."""
    values = uniaudio.model.config.to_dict()
    return json.dumps({k: v for k, v in values.items() if k not in _NOT_THE_MODEL}, sort_keys=True, default=str)


def _conditions(sentence: AuditorySentence) -> AuditorySentence:
    """The segments that are no target; none where a text is scored alone."""
    return AuditorySentence(tuple(segment for segment in sentence.segments if not segment.is_target), sentence.name)


def _random_codebooks(values: Any) -> Any:
    """A codec's configuration in which no codebook is initialised from data: an untrained one has seen none."""
    if isinstance(values, dict):
        return {k: False if k == "kmeans_init" else _random_codebooks(v) for k, v in values.items()}
    return [_random_codebooks(v) for v in values] if isinstance(values, list) else values


def _segment_key(segment: Segment) -> list[str]:
    return [segment.role, segment.content if segment.is_text else _tokens_key(segment.content)]


def _tokens_key(tokens: AudioTokens) -> str:
    arrays = bytes_key(*(ids.numpy() for ids in tokens.streams.values()))
    return f"{tokens.fingerprint} {tokens.num_samples} {arrays}"


def _plain(answer: Answer) -> dict[str, Any]:
    tokens = answer.tokens
    if tokens is None:
        return {"text": answer.text, "reason": answer.reason}
    ids = {name: ids.tolist() for name, ids in tokens.streams.items()}
    return {"samples": tokens.num_samples, "reason": answer.reason} | ids


def _answer_from(plain: Any, codec: AudioTokenizer) -> Answer:
    """The answer that `_plain` wrote, whose tokens are of that codec. Raises ValueError for anything else."""
    if not isinstance(plain, dict) or plain.get("reason") not in _REASONS:
        raise ValueError("no answer")
    if "samples" not in plain:
        if not isinstance(plain.get("text", 0), str | None):
            raise ValueError("no text")
        return Answer(plain["text"], plain["reason"])
    if type(plain["samples"]) is not int or set(plain) != {"samples", "reason", *(spec.name for spec in codec.streams)}:
        raise ValueError("no tokens")
    try:
        ids = {spec.name: torch.tensor(plain[spec.name], dtype=torch.int64) for spec in codec.streams}
        tokens = AudioTokens(ids, plain["samples"], codec.fingerprint)
        codec.require_own(tokens)
    except (TypeError, RuntimeError, OverflowError, UserError) as error:
        raise ValueError("no tokens of this codec") from error
    return Answer(tokens, plain["reason"])


def _numbers(plain: Any, count: int) -> list[float]:
    if not isinstance(plain, list) or len(plain) != count or not all(type(x) is float for x in plain):
        raise ValueError("no list of numbers")
    return plain


def samples(content: bytes) -> np.ndarray:
    """What `flac` wrote: (n,) float32. Raises ValueError where that is damaged."""
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            waveform = file.read(dtype="float32")
            if file.channels != 1 or file.samplerate != SAMPLE_RATE or len(waveform) != file.frames:
                raise ValueError("not as it was written")
            return waveform
    except soundfile.LibsndfileError as error:
        raise ValueError(str(error)) from error
