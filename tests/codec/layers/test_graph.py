"""A recording does to the same tensors what its step did, and refuses a step that no graph could hold."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codec.layers.graph import Captured, capture

CPU = torch.device("cpu")
TIMES = st.integers(1, 4)


class Machine:
    """Tensors in fixed places, and steps that change them."""

    def __init__(self):
        torch.manual_seed(0)
        self.x, self.weight = torch.randn(3, 4), torch.randn(4, 4)
        self.history, self.place = torch.zeros(20, 3, 4), torch.zeros(1, dtype=torch.int64)

    def product(self):
        self.x.copy_((self.x @ self.weight).softmax(-1))

    def note(self):
        self.history.index_copy_(0, self.place, self.x[None])
        self.place.add_(1)

    def views(self):
        left, right = self.x.chunk(2, dim=1)
        left.add_(right.t().contiguous().t())
        self.x[:, 1:3].mul_(0.5)

    def sort(self):
        values, order = self.x.topk(4)
        self.x.copy_(values.cumsum(-1) + order)
        self.x.sub_(torch.where(self.x > 2, self.x, torch.zeros_like(self.x)))

    def attend(self):
        q = self.x[None, None]
        self.x.copy_(torch.nn.functional.scaled_dot_product_attention(q, q, q)[0, 0])

    def state(self):
        return self.x, self.history, self.place


PARTS = ("product", "note", "views", "sort", "attend")


@given(st.lists(st.sampled_from(PARTS), min_size=1, max_size=5), TIMES)
def test_a_replay_is_the_step_again(parts, times):
    plain, recorded = Machine(), Machine()

    def step(machine):
        for part in parts:
            getattr(machine, part)()

    with torch.inference_mode():
        replay = capture(lambda: step(recorded), CPU)
        for _ in range(times - 1):
            replay()
        for _ in range(times):
            step(plain)
    assert all(map(torch.equal, plain.state(), recorded.state()))


def test_what_python_counts_is_not_replayed():
    """As on a GPU: a step has to hold its state in tensors."""
    counted, x = [], torch.zeros(1)

    def step():
        counted.append(1)
        x.add_(len(counted))

    replay = capture(step, CPU)
    replay()
    assert len(counted) == 1 and x.item() == 2


@pytest.mark.parametrize(
    "ask", [lambda x: x.sum().item(), lambda x: bool(x.any()), lambda x: x.nonzero(), lambda x: x[x > 0]]
)
def test_a_step_that_asks_for_values_is_refused(ask):
    with pytest.raises(RuntimeError, match="not fit for a graph"):
        capture(lambda: ask(torch.ones(3)), CPU)


@given(st.integers(0, 3), st.integers(1, 6))
def test_a_captured_function_gives_what_the_function_gives(warm_up, calls):
    memory, called = torch.zeros(3), []

    def function(x, y):
        called.append(1)
        memory.add_(x)
        return x @ y, memory.clone()

    captured, expected = Captured(function, warm_up), torch.zeros(3)
    for _ in range(calls):
        x, y = torch.randn(3), torch.randn(3, 2)
        expected = expected + x
        product, held = captured(x, y)
        torch.testing.assert_close(product, x @ y)
        torch.testing.assert_close(held, expected)
    assert len(called) == min(calls, warm_up + 1)


def test_a_result_may_be_the_next_argument():
    captured, x = Captured(lambda x: x + 1, warm_up=1), torch.zeros(2)
    for _ in range(5):
        x = captured(x)
    assert x.tolist() == [5, 5]
