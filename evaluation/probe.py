"""Linear probes: what one linear layer predicts from frozen features, on clips that it was not fitted to.

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
    """Clips of one split."""

    # (n, F) float, finite
    features: Tensor
    # of each clip, what is to be predicted: a class, a number, or the words that occur in it
    targets: Sequence[str] | Sequence[float] | Sequence[frozenset[str]]

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Probed:
    """What a probe scores on the test clips."""

    # accuracy, R2 or F1
    metric: str
    # the score
    estimate: Estimate
    # the score of the best constant prediction on the same clips
    chance: float
    # the penalty with the lowest loss on the development clips
    penalty: float


def probe_classes(train: Examples, dev: Examples, test: Examples) -> Probed:
    """Multinomial logistic regression, scored by accuracy. Chance: the commonest test class.

    A test clip of a class that has no training clip counts as wrong.

    Raises:
        ValueError: There are fewer than two classes, or a split is empty.
    """
    names = sorted(set(train.targets))
    if len(names) < 2:
        raise ValueError(f"a probe needs training clips of at least two classes, not {names}")
    known = [i for i, name in enumerate(dev.targets) if name in names]
    dev = Examples(dev.features[known], [dev.targets[i] for i in known])
    index = [torch.tensor([names.index(name) for name in split.targets]) for split in (train, dev)]
    logits, penalty = _best((train, dev, test), index, F.cross_entropy, len(names))
    right = [float(names[k] == name) for k, name in zip(logits[1].argmax(1).tolist(), test.targets, strict=True)]
    chance = Counter(test.targets).most_common(1)[0][1] / len(test)
    return Probed("accuracy", ratio(right, [1.0] * len(test)), chance, penalty)


def probe_numbers(train: Examples, dev: Examples, test: Examples) -> Probed:
    """Ridge regression, scored by R2 against the mean of the training clips, which scores 0.

    Raises:
        ValueError: All training clips have the same number, or a split is empty.
    """
    numbers = [torch.tensor(list(split.targets), dtype=torch.float32) for split in (train, dev, test)]
    mean, spread = numbers[0].mean(), numbers[0].std()
    if not spread > 0:
        raise ValueError("a probe needs training clips with at least two different numbers")
    scaled = [((values - mean) / spread)[:, None] for values in numbers]
    outputs, penalty = _best((train, dev, test), scaled[:2], F.mse_loss, 1)
    errors = (outputs[1] - scaled[2]).square()[:, 0].tolist()
    r2 = ratio(errors, scaled[2].square()[:, 0].tolist(), lambda share: 1.0 - share)
    return Probed("R2", r2, 0.0, penalty)


def probe_words(train: Examples, dev: Examples, test: Examples, least: int = 20) -> Probed:
    """One logistic regression a word, for the words of `least` training clips or more: which occur in a clip?

    F1 of the predicted words, summed over test clips and words; other words count as missed. A word is predicted above
    a threshold on its probability, the same for all, with the best F1 on the development clips. Chance: the commonest
    words predicted for every clip, as many as have the best F1 on the development clips.

    Raises:
        ValueError: No word occurs in so many training clips, or a split is empty.
    """
    counts = Counter(word for words in train.targets for word in words)
    names = sorted(word for word, count in counts.items() if count >= least)
    if not names:
        raise ValueError(f"a probe needs words that occur in at least {least} training clips")
    there = [
        torch.tensor([[float(word in words) for word in names] for words in split.targets], dtype=torch.float32)
        for split in (train, dev, test)
    ]
    totals = [[len(words) for words in split.targets] for split in (dev, test)]

    def score(probabilities: Sequence[Tensor]) -> Estimate:
        best = max(_THRESHOLDS, key=lambda t: _f1(probabilities[0] > t, there[1], totals[0]).value or 0.0)
        return _f1(probabilities[1] > best, there[2], totals[1])

    logits, penalty = _best((train, dev, test), there[:2], _words_loss, len(names))
    share = there[0].mean(0)
    constant = [(share / share.max()).expand(len(split), -1) for split in (dev, test)]
    return Probed("F1", score([x.sigmoid() for x in logits]), score(constant).value or 0.0, penalty)


def _f1(predicted: Tensor, there: Tensor, totals: Sequence[int]) -> Estimate:
    """F1 of predicted words (n, words) bool against words there, 0 or 1; `totals`: different words of each clip."""
    twice_right = 2 * (predicted * there).sum(1)
    return ratio(twice_right.tolist(), (predicted.sum(1) + torch.tensor(totals)).tolist())


def _words_loss(logits: Tensor, there: Tensor) -> Tensor:
    """Summed over words, so that the penalty weighs for each as it would alone; mean over clips."""
    return F.binary_cross_entropy_with_logits(logits, there, reduction="none").sum(1).mean()


def _best(
    splits: Sequence[Examples], targets: Sequence[Tensor], loss: Callable[[Tensor, Tensor], Tensor], outputs: int
) -> tuple[tuple[Tensor, Tensor], float]:
    """Outputs (n, outputs) for development and test clips of the probe that is best on the former, and its penalty.

    Args:
        splits: Training, development and test clips.
        targets: Of the first two.
        loss: (outputs, targets) -> mean over clips.
        outputs: Number of outputs.
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
        predicted = tuple(part @ weights[:-1] + weights[-1] for part in x[1:])
        tried.append((float(loss(predicted[0], targets[1])), penalty, predicted))
    _, penalty, predicted = min(tried, key=lambda one: one[0])
    return predicted, penalty


def _fit(x: Tensor, targets: Tensor, loss: Callable[[Tensor, Tensor], Tensor], penalty: float, start: Tensor) -> Tensor:
    """Weights (F + 1, K) that minimise loss + penalty / 2 x squared weights; the bias is not penalised."""
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
