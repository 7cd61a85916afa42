"""The independent recogniser: pocketsphinx with a grammar. It shares nothing with the models that it judges.

It is weak (three in four accented real digits are right, with a grammar of exactly one; three words in four of
synthetic digit strings), so its score on original recordings always stands beside that on generated ones.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import resample_poly

from lm.words import DIGITS, NORMALISER_VERSION, normalise_words

RECOGNISER_VERSION = f"pocketsphinx en-us, padding 0.3 s, noise 0.002, word penalty 0.02; {NORMALISER_VERSION}"
_RATE = 16_000  # samples per second of the acoustic model
_PADDING = 0.3  # seconds of near-silence around a clip: the decoder needs room to settle
_NOISE = 2e-3  # of full scale: digital silence upsets the features
_PEAK = 0.6
_DISCOUNT = 0.5  # absolute discounting of the bigram model


@dataclass(frozen=True)
class Grammar:
    """What the recogniser expects. Made by `grammar`."""

    # digit: exactly one digit; digits: one or more; corpus: a bigram model of given texts; open: any English
    name: str
    # the grammar, for digit and digits
    jsgf: str = ""
    # the language model, for corpus; that for open comes with pocketsphinx
    arpa: str = ""

    @property
    def words(self) -> frozenset[str]:
        """The words that can be recognised; none are listed for "open"."""
        if self.jsgf:
            return frozenset(DIGITS)
        entries = (line.split("\t") for line in self.arpa.splitlines() if "\t" in line)
        return frozenset(entry[1] for entry in entries if " " not in entry[1])

    @property
    def fingerprint(self) -> str:
        """Part of the cache key of every transcript with this grammar."""
        return hashlib.sha256(f"{RECOGNISER_VERSION}|{self.name}|{self.jsgf}|{self.arpa}".encode()).hexdigest()[:16]


def grammar(name: str, texts: Iterable[str] = ()) -> Grammar:
    """The grammar of that name.

    Args:
        name: digit, digits, corpus or open.
        texts: For corpus, of training clips: test sentences would give answers away.

    Raises:
        ValueError: There is no such grammar, or the texts hold no word.
    """
    if name in ("digit", "digits"):
        body = f"<word>{'+' if name == 'digits' else ''}"
        return Grammar(
            name, jsgf=f"#JSGF V1.0; grammar {name}; public <{name}> = {body}; <word> = {' | '.join(DIGITS)};"
        )
    if name == "corpus":
        return Grammar(name, arpa=bigram_model(texts))
    if name == "open":
        return Grammar(name)
    raise ValueError(f"no grammar '{name}'; known: digit, digits, corpus, open")


def bigram_model(texts: Iterable[str]) -> str:
    """Bigram language model of normalised texts in ARPA form, absolute discounting with back-off to unigrams.

    Raises:
        ValueError: The texts hold no word.
    """
    single: Counter[str] = Counter()
    pairs: dict[str, Counter[str]] = defaultdict(Counter)
    for text in texts:
        words = ["<s>", *normalise_words(text).split(), "</s>"]
        if len(words) > 2:
            single.update(words[1:])
            for first, second in pairwise(words):
                pairs[first][second] += 1
    if not single:
        raise ValueError("a bigram model needs at least one text with words")
    total = single.total()
    share = {word: count / total for word, count in single.items()}
    lines = ["\\data\\", f"ngram 1={len(single) + 1}", f"ngram 2={sum(map(len, pairs.values()))}", "", "\\1-grams:"]
    for word in ("<s>", *sorted(single)):
        probability = math.log10(share[word]) if word in share else -99.0
        back_off = 0.0
        if word in pairs:
            left = _DISCOUNT * len(pairs[word]) / pairs[word].total()
            back_off = math.log10(left / max(1 - sum(share[w] for w in pairs[word]), 1e-6))
        lines.append(f"{probability:.4f}\t{word}" + ("" if word == "</s>" else f"\t{back_off:.4f}"))
    lines += ["", "\\2-grams:"]
    for first in sorted(pairs):
        seen = pairs[first].total()
        lines += [f"{math.log10((n - _DISCOUNT) / seen):.4f}\t{first} {w}" for w, n in sorted(pairs[first].items())]
    return "\n".join([*lines, "", "\\end\\", ""])


def recognise(waveform: np.ndarray, rules: Grammar) -> str:
    """Transcribe a waveform.

    Args:
        waveform: (n,) at 24 kHz.
        rules: What is expected.

    Returns:
        The words, "" for none; the same for the same waveform.
    """
    if len(waveform) == 0 or not np.any(np.nan_to_num(waveform)):
        return ""
    audio = resample_poly(np.nan_to_num(waveform).astype(np.float64), 2, 3)
    audio = np.pad(audio * (_PEAK / np.abs(audio).max()), int(_PADDING * _RATE))
    audio = np.clip(audio + _NOISE * np.random.default_rng(0).standard_normal(len(audio)), -1, 1)
    decoder = _decoder(rules)
    decoder.reinit_feat()  # or its noise tracker would keep the clip before
    decoder.start_utt()
    decoder.process_raw((audio * 32767).astype("<i2").tobytes(), full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return hypothesis.hypstr if hypothesis else ""


@lru_cache(maxsize=4)
def _decoder(rules: Grammar) -> Any:
    """A decoder for the grammar; cepstral means of the whole clip, so that none leaves a trace in the next one."""
    import pocketsphinx

    settings: dict[str, Any] = {"loglevel": "FATAL", "cmn": "batch"}
    if rules.name == "open":
        return pocketsphinx.Decoder(**settings)
    with tempfile.TemporaryDirectory() as folder:
        dictionary = Path(folder) / "words.dict"
        dictionary.write_text(_pronunciations(rules.words), encoding="utf-8")
        settings["dict"] = str(dictionary)  # a hundredth of the time that all of English takes to set up
        if rules.jsgf:
            decoder = pocketsphinx.Decoder(lm=None, wip=0.02, **settings)
            decoder.add_jsgf_string(rules.name, rules.jsgf)
            decoder.activate_search(rules.name)
            return decoder
        model = Path(folder) / "model.arpa"
        model.write_text(rules.arpa, encoding="utf-8")
        return pocketsphinx.Decoder(lm=str(model), lw=10.0, **settings)


def knows_any(rules: Grammar) -> bool:
    """Whether the recogniser's dictionary has any word of a grammar."""
    return rules.name == "open" or bool(_pronunciations(rules.words))


def _pronunciations(words: frozenset[str]) -> str:
    """The lines of pocketsphinx's English dictionary for these words; others cannot be recognised."""
    import pocketsphinx

    path = Path(pocketsphinx.get_model_path()) / "en-us" / "cmudict-en-us.dict"
    with path.open(encoding="utf-8") as lines:
        return "".join(line for line in lines if line.split(None, 1)[0].partition("(")[0] in words)
