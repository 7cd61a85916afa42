"""The precision that a recipe names is the one that the model computes in, whatever wraps it."""

import copy

import pytest
import torch
from torch import nn

from tests.training.engine.test_engine import make
from training.engine.precision import Computing


class Watched(nn.Module):
    """Says in which type its matrix gave, and can be told to fail."""

    def __init__(self):
        super().__init__()
        self.matrix, self.seen, self.fails = nn.Linear(4, 4), [], False

    def forward(self, x):
        y = self.matrix(x)
        self.seen.append(y.dtype)
        if self.fails:
            raise ValueError("on purpose")
        return y.float().mean()


X = torch.randn(2, 4)


def disabled(model, x):
    """As DeepSpeed's engine calls its module on a GPU: an autocast around it is off inside."""
    with torch.autocast("cpu", enabled=False):
        return model(x)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("mixed", torch.bfloat16), ("fp16", torch.float16)]
)
def test_it_holds_inside_what_turns_an_outer_autocast_off(precision, dtype):
    model = Watched()
    computing = Computing(model, precision, "cpu")
    for _ in range(2):
        with computing.applied(model):
            disabled(model, X)
    assert model.seen == [dtype] * 2 and model.matrix.weight.dtype == torch.float32


def test_only_while_it_is_applied_and_never_left_behind():
    model = Watched()
    computing = Computing(model, "mixed", "cpu")
    model(X)
    with torch.autocast("cpu", torch.bfloat16):
        model(X)  # somebody else's stays
    with computing.applied(model):
        model(X)
    model.fails = True
    with pytest.raises(ValueError, match="on purpose"), computing.applied(model):
        model(X)
    model.fails = False
    copy.deepcopy(model)(X)
    model(X)
    assert not torch.is_autocast_enabled("cpu")
    assert model.seen == [torch.float32, torch.bfloat16, torch.bfloat16, torch.bfloat16, torch.float32]


@pytest.mark.parametrize("precision", ["fp32", "mixed", "fp16"])
def test_another_precision_than_the_recipes_is_found_in_the_first_pass(precision):
    """As if a library had turned autocast off, or on, between the engine and the matrices."""
    model, other = Watched(), "mixed" if precision == "fp32" else "fp32"
    computing = Computing(model, other, "cpu")
    computing.precision = precision
    with pytest.raises(RuntimeError, match=f"engine.precision is {precision}.* gave (bfloat16|float32) on cpu"):
        with computing.applied(model):
            model(X)


@pytest.mark.parametrize(
    ("stage", "precision", "dtype"),
    [(0, "mixed", torch.bfloat16), (2, "mixed", torch.bfloat16), (3, "mixed", torch.bfloat16),
     (1, "bf16", torch.bfloat16), (1, "tf32", torch.float32), (0, "fp16", torch.float16), (3, "fp16", torch.float16)],
)  # fmt: skip
def test_the_engine_computes_as_its_recipe_says(stage, precision, dtype):
    model = Watched()
    engine = make(stage, 1, model, precision=precision)
    engine(X.to(torch.bfloat16) if precision == "bf16" else X)
    assert model.seen == [dtype]
