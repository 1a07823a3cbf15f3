"""Bit-serial Booth lanes: sums against products, cycles against a recurrence over whole products, costs against brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelerators.bit_serial.booth import LaneGroup
from numerics import InputError, lockstep_cycles, nonzero_digits


def digits_of(code, bits):
    """Booth digits by the encoder's truth table: the bits 2i + 1, 2i and 2i − 1."""
    table = {"000": 0, "001": 1, "010": 1, "011": 2, "100": -2, "101": -1, "110": -1, "111": 0}
    text = f"{code & ((1 << bits) - 1):0{bits}b}0"
    return [table[text[bits - 2 - 2 * i : bits + 1 - 2 * i]] for i in range(bits // 2)]


def steps_of(row, group):
    """Cycles of one group of products."""
    digits = [digits_of(int(code), group.bits) for code in row]
    if group.shared_weight:
        return max(1, sum(any(column) for column in zip(*digits, strict=True)))
    return max(1, *(sum(d != 0 for d in lane) for lane in digits))


def by_events(b, group, offered, taken):
    """When products are accepted and finished, from one product to the next, with no cycle of a lane in between.

    offered and taken say so for a cycle; products are taken up at the first offer at which the group is ready.
    """
    accepted, finished, held = [], [], []
    free = 0  # first cycle in which the group is ready
    shown = None  # first cycle in which the last sums show and are not yet taken
    for row in b:
        cycle = free
        while not offered(cycle):
            cycle += 1
        accepted.append(cycle)
        # The first step waits until the sums before are taken; those of the last product may be taken while nothing is there.
        begin = cycle + 1
        if shown is not None:
            leave = shown
            while not taken(leave):
                leave += 1
            held.append(max(0, leave - begin))
            begin = max(begin, leave)
        last = begin + steps_of(row, group) - 1
        shown = last + 1
        finished.append(shown)
        free = last
    leave = shown
    while not taken(leave):
        leave += 1
    return accepted, finished, leave + 1, sum(held)


def wrapped(values, bits):
    half = 1 << (bits - 1)
    return (values + half) % (1 << bits) - half


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 32))
def test_runs_with_stalls(seed):
    rng = np.random.default_rng(seed)
    bits = int(rng.choice([2, 4, 8, 16]))
    group = LaneGroup(bits, int(rng.integers(1, 6)), int(rng.integers(2 * bits, 2 * bits + 6)), bool(rng.random() < 0.5))
    low, high = -(1 << (bits - 1)), 1 << (bits - 1)
    products = int(rng.integers(1, 40))
    a, b = rng.integers(low, high, (2, products, group.lanes))
    b[rng.random(products) < 0.2] = 0
    accumulate = rng.random(products) < 0.8
    offered, taken = rng.random(200) < rng.uniform(0.2, 1), rng.random(200) < rng.uniform(0.2, 1)
    run = group.run(a, b, accumulate=accumulate, offered=offered, taken=taken)
    accepted, finished, cycles, held = by_events(
        b, group, lambda t: t >= 200 or offered[t], lambda t: t >= 200 or taken[t]
    )  # fmt: skip
    assert run.accepted.tolist() == accepted
    assert run.finished.tolist() == finished
    assert run.cycles == cycles
    assert run.output_stall_cycles == held
    assert run.step_cycles == sum(steps_of(row, group) for row in b)
    sums, total = [], np.zeros(group.lanes, object)
    for x, y, adds in zip(a.astype(object), b.astype(object), accumulate, strict=True):
        total = (total if adds else 0) + x * y
        sums.append([wrapped(int(v), group.accumulator_bits) for v in total])
    assert run.sums.tolist() == sums
    nonzero = [sum(sum(d != 0 for d in digits_of(int(row[lane]), bits)) for row in b) for lane in range(group.lanes)]
    assert run.active_digits.tolist() == nonzero
    assert np.array_equal(run.idle_digits, run.step_cycles - run.active_digits)

    recorded = group.run(a, b, accumulate=accumulate, offered=offered, taken=taken, record_cycles=cycles + 5)
    signals = recorded.signals
    assert np.array_equal(recorded.sums, run.sums)
    assert signals.active.sum(axis=0).tolist() == nonzero
    assert np.flatnonzero(signals.ready & (signals.presented >= 0)).tolist() == accepted
    assert [signals.sums[t].tolist() for t in finished] == sums
    assert signals.valid.sum() == sum(
        next(t for t in range(f, 10**6) if t >= 200 or taken[t]) - f + 1 for f in finished
    )  # fmt: skip
    assert int(((signals.presented >= 0) & ~signals.ready).sum()) == run.input_stall_cycles


def test_every_pair_of_int8():
    a, b = (axis.reshape(-1, 1) for axis in np.mgrid[-128:128, -128:128])
    run = LaneGroup().run(a, b, accumulate=False)
    assert np.array_equal(run.sums, a * b)
    # 3 of 4 digits on average; 0 takes a cycle as well.
    assert run.active_digits[0] == 3 * 65536
    assert run.step_cycles == 3 * 65536 + 256
    assert run.cycles == run.step_cycles + 2


def test_sums_of_int8_wrap_at_32_bits():
    # 2^17 products of 2^14; −128 has one digit that is not 0.
    run = LaneGroup().run(np.full((1 << 17, 1), -128), np.full((1 << 17, 1), -128))
    assert run.sums[-2:, 0].tolist() == [2**31 - 2**14, -(2**31)]
    assert run.cycles == (1 << 17) + 2


@pytest.mark.parametrize(("lanes", "gaussian", "uniform"), [(1, 2.47, 3.0), (8, 3.61, 3.95), (32, 3.98, 4.0)])
def test_lockstep_erases_the_gain(lanes, gaussian, uniform):
    rng = np.random.default_rng(0)
    values = rng.standard_normal(1 << 20)
    scaled = np.round(values / np.abs(values).max() * 127).astype(int).reshape(-1, lanes)
    flat = rng.integers(-128, 128, (1 << 18,)).reshape(-1, lanes)
    for codes, expected in ((scaled, gaussian), (flat, uniform)):
        steps = LaneGroup(8, lanes).step_cycles(codes)
        # The library's mean counts nothing for a product without digits, the lanes take a cycle.
        none = (nonzero_digits(codes, 8).max(axis=1) == 0).mean()
        assert steps.mean() == pytest.approx(lockstep_cycles(nonzero_digits(codes, 8), lanes=lanes) + none)
        assert steps.mean() - none == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize("shared_weight", [False, True])
@pytest.mark.parametrize(("m", "k", "n", "lanes"), [(1, 1, 1, 1), (3, 5, 7, 4), (8, 16, 8, 8), (4, 9, 3, 32), (16, 64, 33, 8)])
def test_matmul(m, k, n, lanes, shared_weight):
    rng = np.random.default_rng(m * k + n)
    a, b = rng.integers(-128, 128, (m, k)).astype(np.int8), rng.integers(-128, 128, (k, n)).astype(np.int8)
    b[rng.random(b.shape) < 0.3] = 0
    group = LaneGroup(8, lanes, shared_weight=shared_weight)
    result, run = group.matmul(a, b)
    assert np.array_equal(result, a.astype(int) @ b.astype(int))
    cost = group.matmul_cost(b, rows=m)
    assert (cost.cycles, cost.active_digits, cost.idle_digits) == (run.cycles, run.active_digits.sum(), run.idle_digits.sum())
    assert cost.steps == len(run.sums)
    assert 0 <= cost.utilisation <= 1
    # Brute force over the groups of columns.
    slow = 0
    for at in range(0, n, lanes):
        slow += sum(steps_of(b[row, at : at + lanes], group) for row in range(k))
    assert cost.cycles == m * slow + 2


def test_one_shift_for_all_lanes_takes_no_fewer_cycles():
    b = np.random.default_rng(1).integers(-8, 8, (500, 4))
    own, shared = (LaneGroup(8, 4, shared_weight=s).step_cycles(b) for s in (False, True))
    assert (shared >= own).all()
    assert (shared > own).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LaneGroup(7), r"^bits: expected an even number, got 7$"),
        (lambda: LaneGroup(18), r"^bits: expected an integer from 2 to 16, got 18$"),
        (lambda: LaneGroup(lanes=0), r"^lanes: expected an integer from 1 to 65536, got 0$"),
        (lambda: LaneGroup(accumulator_bits=15), r"^accumulator_bits: expected an integer from 16 to 62, got 15$"),
        (lambda: LaneGroup(lanes=2).run([[1, 2]], [[1]]), r"^b: expected shape \(products, 2\), got \(1, 1\)$"),
        (lambda: LaneGroup().run([[1], [2]], [[1]]), r"^a: expected shape \(1, 1\), that of b, got \(2, 1\)$"),
        (lambda: LaneGroup().run([[1]], [[-129]]), r"^b: expected -128 to 127 \(8 bits, signed\), got -129$"),
        (lambda: LaneGroup().run([[128]], [[1]]), r"^a: expected -128 to 127 \(8 bits, signed\), got 128$"),
        (lambda: LaneGroup().run([[1]], [[1]], accumulate=[1, 0]), r"^accumulate: expected shape \(1,\), got \(2,\)$"),
        (
            lambda: LaneGroup().matmul([[1]], [[1], [2]]),
            r"^a, b: expected shapes \(m, k\) and \(k, n\), got \(1, 1\) and \(2, 1\)$",
        ),
        (lambda: LaneGroup().matmul_cost([[1.5]], rows=1), r"^a, b: expected integers, got int64 and float64$"),
        (lambda: LaneGroup(lanes=2).step_cycles([1, 2, 3]), r"^b: expected shape \(\.\.\., 2\), one for each lane, got \(3,\)$"),
    ],
)
def test_bad_input_is_one_line(call, message):
    with pytest.raises(InputError, match=message):
        call()
