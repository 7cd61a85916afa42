"""Linear probes: what one linear layer reads from frozen features, on clips that it was not fitted to.

A probe is fitted to the training clips, by L-BFGS to the optimum of a convex loss; the penalty on its squared weights
is the one whose probe has the lowest loss on the development clips; the score is that of the test clips, once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation.metrics.estimate import Estimate, ratio

PENALTIES = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4)  # times half the sum of squared weights, beside a mean over clips
_ITERATIONS = 100  # for each penalty, from where the one before ended
_THRESHOLDS = [k / 20 for k in range(1, 20)]


@dataclass(frozen=True)
class Examples:
    """Clips of one split.

    features: (n, F) float, finite
    targets: of each clip, what is to be read from it: a class, a number, or the words that occur in it
    """

    features: Tensor
    targets: Sequence[str] | Sequence[float] | Sequence[frozenset[str]]

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Probed:
    """What a probe reads on the test clips.

    metric: "accuracy", "R2" or "F1"; chance: what the best answer that does not listen scores on the same clips
    penalty: the one that the development clips chose
    """

    metric: str
    estimate: Estimate
    chance: float
    penalty: float


def probe_classes(train: Examples, dev: Examples, test: Examples) -> Probed:
    """Multinomial logistic regression; share of test clips named right. Chance: the commonest test class.

    A test clip of a class that has no training clip counts as wrong. Raises ValueError with under 2 classes.
    """
    names = sorted(set(train.targets))
    if len(names) < 2:
        raise ValueError(f"a probe needs training clips of at least two classes, found {names}")
    known = [i for i, name in enumerate(dev.targets) if name in names]
    dev = Examples(dev.features[known], [dev.targets[i] for i in known])
    index = [torch.tensor([names.index(name) for name in split.targets]) for split in (train, dev)]
    logits, penalty = _read((train, dev, test), index, F.cross_entropy, len(names))
    right = [float(names[k] == name) for k, name in zip(logits[1].argmax(1).tolist(), test.targets, strict=True)]
    chance = Counter(test.targets).most_common(1)[0][1] / len(test)
    return Probed("accuracy", ratio(right, [1.0] * len(test)), chance, penalty)


def probe_numbers(train: Examples, dev: Examples, test: Examples) -> Probed:
    """Ridge regression; R2 on the test clips, against always answering the mean of the training clips, which scores 0.

    Raises ValueError where all training clips have the same number.
    """
    numbers = [torch.tensor(list(split.targets), dtype=torch.float32) for split in (train, dev, test)]
    mean, spread = numbers[0].mean(), numbers[0].std()
    if not spread > 0:
        raise ValueError("a probe needs training clips with at least two different numbers")
    scaled = [((values - mean) / spread)[:, None] for values in numbers]
    outputs, penalty = _read((train, dev, test), scaled[:2], F.mse_loss, 1)
    missed = (outputs[1] - scaled[2]).square()[:, 0].tolist()
    found = ratio(missed, scaled[2].square()[:, 0].tolist(), lambda share: 1.0 - share)
    return Probed("R2", found, 0.0, penalty)


def probe_words(train: Examples, dev: Examples, test: Examples, least: int = 20) -> Probed:
    """One logistic regression a word, for the words of `least` training clips or more: which occur in a clip?

    F1 of the named words, summed over test clips and words; other words count as missed. A word is named above a
    threshold on its probability, the same for all, with the best F1 on the development clips. Chance: the commonest
    words named for every clip, as many as have the best F1 on the development clips. Raises ValueError without words.
    """
    counts = Counter(word for words in train.targets for word in words)
    names = sorted(word for word, count in counts.items() if count >= least)
    if not names:
        raise ValueError(f"a probe needs words that occur in at least {least} training clips")
    there = [
        torch.tensor([[float(word in words) for word in names] for words in split.targets], dtype=torch.float32)
        for split in (train, dev, test)
    ]
    said = [[len(words) for words in split.targets] for split in (dev, test)]

    def score(probabilities: Sequence[Tensor]) -> Estimate:
        best = max(_THRESHOLDS, key=lambda t: _f1(probabilities[0] > t, there[1], said[0]).value or 0.0)
        return _f1(probabilities[1] > best, there[2], said[1])

    logits, penalty = _read((train, dev, test), there[:2], _words_loss, len(names))
    share = there[0].mean(0)
    constant = [(share / share.max()).expand(len(split), -1) for split in (dev, test)]
    return Probed("F1", score([x.sigmoid() for x in logits]), score(constant).value or 0.0, penalty)


def _f1(named: Tensor, there: Tensor, said: Sequence[int]) -> Estimate:
    """F1 of words named (n, words) bool against words there (n, words) 0 or 1, of `said` different words a clip."""
    twice_right = 2 * (named * there).sum(1)
    return ratio(twice_right.tolist(), (named.sum(1) + torch.tensor(said)).tolist())


def _words_loss(logits: Tensor, there: Tensor) -> Tensor:
    """Summed over words, so that the penalty weighs for each as it would alone; mean over clips."""
    return F.binary_cross_entropy_with_logits(logits, there, reduction="none").sum(1).mean()


def _read(
    splits: Sequence[Examples], targets: Sequence[Tensor], loss: Callable[[Tensor, Tensor], Tensor], outputs: int
) -> tuple[tuple[Tensor, Tensor], float]:
    """Outputs (n, outputs) for development and test clips of the probe that does best on the former, and its penalty.

    splits: training, development and test clips; targets: of the first two; loss(outputs, targets) -> mean over clips
    Raises ValueError where a split is empty.
    """
    if not all(len(split) for split in splits):
        raise ValueError("a probe needs training, development and test clips")
    centre = splits[0].features.float().mean(0)
    scale = splits[0].features.float().std(0).clamp(min=1e-6)
    x = [(split.features.float() - centre) / scale for split in splits]
    weights = torch.zeros(x[0].shape[1] + 1, outputs, dtype=torch.float32)  # the last row is the bias
    tried = []
    for penalty in PENALTIES:  # from the stiffest: each starts near the end of the one before
        weights = _fit(x[0], targets[0], loss, penalty, weights)
        found = tuple(part @ weights[:-1] + weights[-1] for part in x[1:])
        tried.append((float(loss(found[0], targets[1])), penalty, found))
    _, penalty, found = min(tried, key=lambda one: one[0])
    return found, penalty


def _fit(x: Tensor, targets: Tensor, loss: Callable[[Tensor, Tensor], Tensor], penalty: float, start: Tensor) -> Tensor:
    """Weights (F + 1, K) that minimise loss + penalty / 2 x squared weights; the bias goes free."""
    weights = start.clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [weights], max_iter=_ITERATIONS, tolerance_grad=1e-5, tolerance_change=1e-7, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss(x @ weights[:-1] + weights[-1], targets) + penalty / 2 * weights[:-1].square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(closure)
    return weights.detach()
