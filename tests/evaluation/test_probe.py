"""Linear probes: what is linearly there is found, what is not there scores chance."""

import numpy as np
import pytest
import torch

from evaluation.probe import Examples, probe_classes, probe_numbers, probe_words

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(700, 20, generator=GENERATOR) * torch.logspace(-2, 2, 20) + 5.0  # as uneven as real features
Z = (X - 5.0) / torch.logspace(-2, 2, 20)


def split(targets, x=X):
    """400 training, 100 development and 200 test clips."""
    targets = list(targets)
    return [Examples(x[a:b], targets[a:b]) for a, b in ((0, 400), (400, 500), (500, 700))]


def test_planted_classes_are_found():
    names = ["low", "middle", "high"]
    which = (Z @ torch.randn(20, 3, generator=torch.Generator().manual_seed(1))).argmax(1)
    found = probe_classes(*split(names[k] for k in which))
    assert found.metric == "accuracy" and found.estimate.n == 200
    assert found.estimate.value > 0.93 > 0.6 > found.chance


def test_random_classes_score_chance():
    names = torch.randint(4, (700,), generator=torch.Generator().manual_seed(1))
    found = probe_classes(*split(f"class {k}" for k in names))
    assert abs(found.estimate.value - 0.25) < 4 * found.estimate.stderr
    assert found.penalty >= 1  # a stiff one: the development clips saw that there is nothing


def test_chance_is_the_commonest_test_class():
    """Not that of training: where the splits differ, another constant answer may do better."""
    targets = ["a"] * 300 + ["b"] * 100 + ["a", "b"] * 50 + ["a"] * 60 + ["b"] * 140
    assert probe_classes(*split(targets)).chance == 0.7


def test_standard_error_is_that_of_a_share():
    names = torch.randint(2, (700,), generator=torch.Generator().manual_seed(1))
    found = probe_classes(*split("ab"[k] for k in names)).estimate
    assert found.stderr == pytest.approx(np.sqrt(found.value * (1 - found.value) / 199), rel=1e-6)


def test_a_test_class_without_training_clips_counts_as_wrong():
    targets = ["a" if z > 0 else "b" for z in Z[:, 3]]
    whole = probe_classes(*split(targets)).estimate.value
    targets[400:410] = ["c"] * 10  # development clips that the probe cannot name are left out
    targets[500:550] = ["c"] * 50
    assert probe_classes(*split(targets)).estimate.value == pytest.approx(whole * 0.75, abs=0.04)


@pytest.mark.parametrize("value", ["a", 3.0])
def test_one_class_or_number_is_refused(value):
    probe = probe_classes if value == "a" else probe_numbers
    with pytest.raises(ValueError, match="at least two"):
        probe(*split([value] * 700))


def test_no_clips_are_refused():
    train, dev, _ = split("ab" * 350)
    with pytest.raises(ValueError, match="test clips"):
        probe_classes(train, dev, Examples(X[:0], []))


def test_planted_numbers_are_found_and_random_ones_are_not():
    planted = 90 + 30 * (Z @ torch.randn(20, generator=torch.Generator().manual_seed(1)))
    assert probe_numbers(*split(planted.tolist())).estimate.value > 0.99
    found = probe_numbers(*split((90 + 30 * torch.randn(700, generator=torch.Generator().manual_seed(1))).tolist()))
    assert found.estimate.value < 4 * found.estimate.stderr and found.chance == 0.0


def test_ridge_is_the_closed_form():
    """With the same penalty, the iterations end where the normal equations do."""
    noisy = 2.0 * Z[:, 0] + torch.randn(700, generator=torch.Generator().manual_seed(1))
    train, dev, test = split(noisy.tolist())
    found = probe_numbers(train, dev, test)
    x = (X - X[:400].mean(0)) / X[:400].std(0)
    y = (noisy - noisy[:400].mean()) / noisy[:400].std()
    weights = torch.linalg.solve(
        x[:400].T @ x[:400] / 400 + found.penalty / 2 * torch.eye(20), x[:400].T @ y[:400] / 400
    )
    residual = (y[500:] - x[500:] @ weights).square().sum() / y[500:].square().sum()
    assert found.estimate.value == pytest.approx(1 - float(residual), abs=1e-3)


def test_words():
    words = ["one", "two", "three", "four"]
    there = Z[:, :4] > 0.8
    said = [frozenset(word for word, is_there in zip(words, row, strict=True) if is_there) for row in there]
    found = probe_words(*split(said))
    assert found.metric == "F1" and found.estimate.value > 0.9
    assert found.chance == pytest.approx(2 * 0.21 / (0.21 + 1), abs=0.08)  # all four words for every clip
    shuffled = torch.randperm(700, generator=torch.Generator().manual_seed(1)).tolist()
    nothing = probe_words(*split([said[i] for i in shuffled]))
    assert abs(nothing.estimate.value - nothing.chance) < 4 * nothing.estimate.stderr


def test_rare_words_count_as_missed():
    said = [frozenset({"often"} if z > 0 else set()) | ({"rare"} if i >= 500 else set()) for i, z in enumerate(Z[:, 2])]
    found = probe_words(*split(said))
    often = sum("often" in words for words in said[500:])
    assert found.estimate.value == pytest.approx(2 * often / (often + often + 200), abs=0.03)
    with pytest.raises(ValueError, match="at least 401 training clips"):
        probe_words(*split(said), least=401)
