"""Threshold cells: every operation against integer arithmetic, and whole neurons against a count of ones."""

from itertools import pairwise

import numpy as np
import pytest

from accelerators.binary.node_schedule import Operation, schedule_max_pool, schedule_neuron
from accelerators.binary.threshold_cell import literals, step, threshold_gate
from numerics import InputError


def every_input(n):
    return (np.arange(1 << n)[:, None] >> np.arange(n) & 1).astype(bool)


@pytest.mark.parametrize("n", range(1, 11))
def test_a_neuron_is_popcount_against_a_threshold(n):
    x = every_input(n)
    for threshold in range(n + 2):
        y, state = step(Operation.NEURON, x, True, threshold=threshold)
        assert y.tolist() == [code.bit_count() >= threshold for code in range(1 << n)]
        assert state.all()  # left alone


def test_literals_are_products_of_plus_and_minus_one():
    x, w = every_input(2).T
    assert np.array_equal(np.where(literals(x, w), 1, -1), (2 * x.astype(int) - 1) * (2 * w.astype(int) - 1))


def serial(operation, a, b, begin, bits):
    """The outputs and the last state of words that are given bit by bit, as Python integers."""
    y, state = 0, False
    for place in range(bits):
        inputs = [a >> place & 1, b >> place & 1, begin if place == 0 else 0]
        out, state = step(operation, np.array(inputs), state, first=place == 0)
        y |= int(out) << place
    return y, bool(state)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_words_exhaustively(bits):
    for a in range(1 << bits):
        for b in range(1 << bits):
            for begin in (0, 1):
                total, carry = serial(Operation.ADD, a, b, begin, bits)
                assert total + (carry << bits) == a + b + begin
                assert serial(Operation.COMPARE, a, b, begin, bits)[1] == (a >= b if begin else a > b)


def test_words_of_16_bits():
    a, b = np.random.default_rng(0).integers(0, 1 << 16, (2, 300))
    a[:20] = b[:20]
    a[20:40] = b[20:40] + 1 & 0xFFFF
    for one, other in zip(a.tolist(), b.tolist(), strict=True):
        total, carry = serial(Operation.ADD, one, other, 0, 16)
        assert total + (carry << 16) == one + other
        assert serial(Operation.COMPARE, one, other, 0, 16)[1] == (one > other)
        assert serial(Operation.COMPARE, one, other, 1, 16)[1] == (one >= other)


def test_a_small_cell_lacks_operands():
    # Of one input there is no b: it adds 0, and compares with 0.
    assert step(Operation.ADD, [[True]], [True])[0].tolist() == [False]
    assert step(Operation.ADD, [[True]], [True])[1].tolist() == [True]
    assert step(Operation.COMPARE, [[False], [True]], first=True)[0].tolist() == [False, True]


@pytest.mark.parametrize("n", [1, 2, 5, 10])
def test_max_pool_is_an_or(n):
    x = every_input(n)
    y, state = step(Operation.MAX_POOL, x, True, first=True)
    assert y.tolist() == state.tolist() == [code > 0 for code in range(1 << n)]
    assert step(Operation.MAX_POOL, x, True)[0].all()


def test_bits_may_be_numbers_and_weights_narrow():
    assert literals([1.0, 0], [True, True]).tolist() == [True, False]
    assert threshold_gate(np.ones(300, int), np.ones(300, np.int8), 300)  # a sum that 8 bits do not hold


# --- schedules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cells", [1, 2, 4])
@pytest.mark.parametrize("cell_inputs", [3, 4, 10])
def test_every_neuron_to_ten_inputs(cell_inputs, cells):
    for n in range(1, 11):
        x = every_input(n)
        schedule = schedule_neuron(n, cell_inputs=cell_inputs, cells=cells)
        ones = np.array([code.bit_count() for code in range(1 << n)])
        for threshold in range(n + 2):
            assert np.array_equal(schedule.run(x, threshold=threshold), ones >= threshold)


@pytest.mark.parametrize("inputs", [27, 288, 1000, 1023, 1024])
@pytest.mark.parametrize("cells", [1, 4, 16])
def test_large_neurons_near_their_threshold(inputs, cells):
    rng = np.random.default_rng(inputs)
    x, w = rng.random((2, 60, inputs)) < rng.random((2, 60, 1))
    products = ((2 * x.astype(int) - 1) * (2 * w.astype(int) - 1)).sum(axis=1)  # of numbers ±1
    ones = (products + inputs) // 2
    schedule = schedule_neuron(inputs, cell_inputs=4, cells=cells)
    for offset in (-1, 0, 1):
        threshold = np.clip(ones + offset, 0, inputs + 1)
        assert np.array_equal(schedule.run(x, w, threshold=threshold), ones >= threshold)


@pytest.mark.parametrize("k", [3, 4, 6, 10])
def test_cycles_of_a_full_tree(k):
    # 2^k − 1 ones take 2^k − 1 − k full adders, each of which makes two bits of three; then k + 1 bits are compared.
    inputs = (1 << k) - 1
    schedule = schedule_neuron(inputs, cell_inputs=3)
    assert schedule.cycles == inputs - k + (k + 1) == len(schedule.instructions)
    # Depth first, only a number of each size waits at a time: O(log²).
    assert schedule.stored_bits <= k * (k + 1) // 2 + 1


@pytest.mark.parametrize(("inputs", "cells"), [(7, 1), (40, 3), (288, 4), (513, 16)])
def test_instructions_can_be_done(inputs, cells):
    """Operands are there before they are read, a cell does one thing a cycle, and a word is not interrupted."""
    schedule = schedule_neuron(inputs, cell_inputs=3, cells=cells)
    given = inputs + schedule.threshold_bits
    made = {}
    for each in schedule.instructions:
        for bit in (each.output, each.state):
            if bit >= 0:
                assert bit not in made
                made[bit] = each.cycle
    assert set(range(given, given + len(made))) == set(made)
    for each in schedule.instructions:
        assert all(made[source] < each.cycle for source in each.sources if source >= given)
    for cell in range(cells):
        mine = [each for each in schedule.instructions if each.cell == cell]
        assert len({each.cycle for each in mine}) == len(mine)
        for before, after in pairwise(mine):
            assert after.first or (after.cycle, after.operation) == (before.cycle + 1, before.operation)
    # Every input is read exactly once.
    read = [source for each in schedule.instructions for source in each.sources if 0 <= source < inputs]
    assert sorted(read) == list(range(inputs))
    # More cells are no slower and never faster than their number allows.
    alone = schedule_neuron(inputs, cell_inputs=3)
    assert alone.cycles / cells <= schedule.cycles <= alone.cycles


def test_stored_bits_by_following_them():
    schedule = schedule_neuron(60, cell_inputs=3, cells=4)
    most = 0
    for now in range(schedule.cycles):
        written = {bit for each in schedule.instructions if each.cycle <= now for bit in (each.output, each.state) if bit >= 0}
        needed = {source for each in schedule.instructions if each.cycle > now for source in each.sources}
        most = max(most, len(written & needed))
    assert schedule.stored_bits == most


@pytest.mark.parametrize(("window", "cell_inputs", "cycles"), [(1, 1, 1), (4, 4, 1), (9, 4, 3), (10, 3, 4)])
def test_max_pool_windows(window, cell_inputs, cycles):
    schedule = schedule_max_pool(window, cell_inputs=cell_inputs)
    x = every_input(window)
    assert schedule.cycles == cycles
    assert np.array_equal(schedule.run(x), x.any(axis=1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: step(4, [[1]]), r"^operation: expected 0 \(NEURON\), 1 \(ADD\), 2 \(COMPARE\), 3 \(MAX_POOL\), got 4$"),
        (lambda: step(0, True), r"^bits: expected shape \(\.\.\., inputs\) with an input or more, got \(\)$"),
        (lambda: step(1, [[1, 0]], [0, 0]), r"^state: expected shape \(1,\), got \(2,\)$"),
        (
            lambda: threshold_gate([1, 0], [1], 1),
            r"^weights: expected one for each of the inputs of shape \(2,\), got shape \(1,\)$",
        ),
        (lambda: schedule_neuron(4, cell_inputs=2), r"^cell_inputs: expected an integer ≥ 3, got 2$"),
        (lambda: schedule_neuron(0, cell_inputs=2), r"^inputs: expected an integer ≥ 1, got 0$"),
        (lambda: schedule_neuron(4, cell_inputs=4).run([[1, 0]]), r"^x: expected shape \(batch, 4\), got \(1, 2\)$"),
        (lambda: schedule_neuron(1, cell_inputs=4).run([[1]], threshold=3), r"^threshold: expected 0 to 2, got 3 to 3$"),
        (lambda: threshold_gate([1, -1], [1, 1], 1), r"^inputs: expected bits, 0 or 1 \(\+1 is 1 and -1 is 0\), got -1$"),
        (lambda: threshold_gate([1, 0], [0.5, 1], 1), r"^weights: expected integers, got float64$"),
        (lambda: threshold_gate([1, 0], [1, 1], 0.5), r"^threshold: expected integers, got float64$"),
        (lambda: threshold_gate([1, 0], [1, 1], [1, 1]), r"^threshold: expected a shape that broadcasts to \(\), got \(2,\)$"),
        (lambda: literals([1, -1], [1, 0]), r"^x: expected bits, 0 or 1 \(\+1 is 1 and -1 is 0\), got -1$"),
        (lambda: literals([1, 0], [1, 2]), r"^w: expected bits, 0 or 1 \(\+1 is 1 and -1 is 0\), got 2$"),
        (lambda: literals([1, 0], [1, 0, 1]), r"^w: expected a shape that broadcasts with that of x, \(2,\), got \(3,\)$"),
        (lambda: step(1, [[1, -1]]), r"^bits: expected bits, 0 or 1 \(\+1 is 1 and -1 is 0\), got -1$"),
        (lambda: step(1, [[1, 0]], [-1]), r"^state: expected bits, 0 or 1 \(\+1 is 1 and -1 is 0\), got -1$"),
        (lambda: step(0, [[1, 0]], threshold=[1, 1]), r"^threshold: expected a shape that broadcasts to \(1,\), got \(2,\)$"),
        (
            lambda: schedule_neuron(2, cell_inputs=4).run([[1, -1]]),
            r"^x: expected bits, 0 or 1 \(\+1 is 1 and -1 is 0\), got -1$",
        ),
        (
            lambda: schedule_neuron(2, cell_inputs=4).run([[1, 0]], -1),
            r"^w: expected bits, 0 or 1 \(\+1 is 1 and -1 is 0\), got -1$",
        ),
        (
            lambda: schedule_neuron(2, cell_inputs=4).run([[1, 0]], [1, 0, 1]),
            r"^w: expected a shape that broadcasts to \(1, 2\), got \(3,\)$",
        ),
        (lambda: schedule_neuron(1, cell_inputs=4).run([[1]], threshold=1.5), r"^threshold: expected integers, got float64$"),
        (
            lambda: schedule_neuron(1, cell_inputs=4).run([[1]], threshold=[1, 1]),
            r"^threshold: expected a shape that broadcasts to \(1,\), got \(2,\)$",
        ),
    ],
)
def test_bad_input_is_one_line(call, message):
    with pytest.raises(InputError, match=message):
        call()
