"""The row *scan*: forms of a recurrence against a loop, and their counts against instrumented runs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.recurrence import diagonal_gru, newton_scan, parallel_scan, scan_cost, sequential_scan
from numerics import InputError


class Counted(float):
    """A number that counts the operations that made it, and the longest chain of them."""

    operations = 0

    def __new__(cls, value, depth=0):
        made = super().__new__(cls, value)
        made.depth = depth
        return made

    def _made(self, value, other):
        Counted.operations += 1
        return Counted(value, 1 + max(self.depth, getattr(other, "depth", 0)))

    def __mul__(self, other):
        return self._made(float(self) * float(other), other)

    __rmul__ = __mul__

    def __add__(self, other):
        # The second half of a multiply-add: no operation of its own.
        return Counted(float(self) + float(other), max(self.depth, getattr(other, "depth", 0)))

    __radd__ = __add__


@given(st.integers(1, 70), st.integers(1, 3), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_the_parallel_form_is_the_loop(length, width, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(-1, 1, (length, width)), rng.standard_normal((length, width))
    np.testing.assert_allclose(parallel_scan(a, b), sequential_scan(a, b), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 8, 64])
def test_counts_of_the_sequential_and_parallel_forms_are_those_of_a_run(length):
    rng = np.random.default_rng(0)

    def numbers():
        return np.array([[Counted(x)] for x in rng.uniform(0.1, 1, length)], dtype=object)

    Counted.operations = 0
    h = sequential_scan(numbers(), numbers())
    cost = scan_cost("sequential", length=length, width=1)
    assert Counted.operations == cost.operations
    assert max(x.depth for x in h.ravel()) == cost.critical_path
    Counted.operations = 0
    parallel_scan(numbers(), numbers())
    cost = scan_cost("parallel", length=length, width=1)
    assert Counted.operations == cost.operations + length  # and one to combine each leaf with all before it
    assert cost.critical_path == 4 * (length - 1).bit_length()


def test_newton_converges_as_published_for_a_diagonal_gru():
    """T = 1024: 3e-7 after 5 Newton steps, 1e-14 after 6."""
    rng = np.random.default_rng(0)
    length, width = 1024, 16
    step = diagonal_gru(rng.standard_normal((3, width)) * 0.5, rng.standard_normal((3, length, width)))
    loop = np.zeros((length, width))
    state = np.zeros(width)
    for t in range(length):
        before = np.zeros((length, width))
        before[t] = state
        state = step(before)[0][t]
        loop[t] = state
    errors = [float(np.abs(guess - loop).max()) for guess in newton_scan(step, (length, width), iterations=7)]
    assert errors[5] < 3e-7
    assert errors[6] < 1e-14
    for before, after in pairwise(errors[2:6]):
        assert after < 10 * before**2  # quadratic


def test_gradients_of_the_gru_step_are_its_differences():
    rng = np.random.default_rng(1)
    step = diagonal_gru(rng.standard_normal((3, 4)), rng.standard_normal((3, 5, 4)))
    h = rng.standard_normal((5, 4))
    numeric = (step(h + 1e-6)[0] - step(h - 1e-6)[0]) / 2e-6
    np.testing.assert_allclose(step(h)[1], numeric, rtol=1e-6, atol=1e-8)


def test_forms_trade_work_for_depth():
    sizes = {"length": 4096, "width": 64}
    loop, tree, newton = (scan_cost(form, **sizes) for form in ("sequential", "parallel", "newton"))
    assert loop.operations < tree.operations < newton.operations
    assert loop.critical_path > 10 * newton.critical_path > 10 * tree.critical_path
    assert loop.elements_moved == tree.elements_moved == 3 * 4096 * 64
    spilled = scan_cost("parallel", **sizes, on_chip_elements=65536)
    assert spilled.elements_moved == 5 * 4096 * 64 + 4 * 64 * 8
    twice = scan_cost("sequential", length=8192, width=64)
    assert twice.operations == 2 * loop.operations


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"form": "tree"}, "form: unknown name 'tree'"),
        ({"length": 0}, "length: expected an integer ≥ 1, got 0"),
        ({"on_chip_elements": 3}, "on_chip_elements: expected room for one step's pair, 4 elements, got 3"),
    ],
)
def test_bad_sizes_are_one_line(change, message):
    arguments = {"form": "parallel", "length": 4, "width": 2} | change
    with pytest.raises(InputError, match=message):
        scan_cost(arguments.pop("form"), **arguments)
