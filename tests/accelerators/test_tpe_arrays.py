"""Products on tensor processing engines: A @ B bit for bit, cycles from the loops against closed forms and other models."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelerators.bit_serial.booth import LaneGroup
from accelerators.bit_serial.distributions import CodeDistribution
from accelerators.bit_serial.encodings import ENCODINGS, encoding
from accelerators.bit_serial.loops import run_product
from accelerators.bit_serial.schedule import expected_cost, fold_cycles, product_cost
from accelerators.bit_serial.spec import TOPOLOGIES, ArraySpec
from accelerators.systolic.analytic import compute_cycles
from accelerators.systolic.spec import Timing
from numerics import InputError, bit_weight_matmul

SIZES = {"systolic": (4, 6, 1), "matrix_2d": (3, 8, 1), "cube": (2, 4, 4), "adder_tree": (1, 4, 8)}


def array(topology, size=None, loop=None, **rest):
    rows, columns, depth = size or SIZES[topology]
    return ArraySpec(topology={"name": topology, "rows": rows, "columns": columns, "depth": depth}, bit_weight=loop, **rest)


def codes(rng, shape, density=1.0):
    return rng.integers(-128, 128, shape) * (rng.random(shape) < density)


def divisors(n):
    return [d for d in range(1, n + 1) if n % d == 0]


@st.composite
def arrays(draw):
    """Any topology, any loop over digits or none."""
    topology = draw(st.sampled_from(TOPOLOGIES))
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    depth = draw(st.integers(1, 5)) if topology in ("cube", "adder_tree") else 1
    rows = 1 if topology == "adder_tree" else rows
    rest = {
        "accumulation": draw(st.sampled_from(["carry_propagate", "carry_save"])),
        "output_drain": draw(st.sampled_from(["serial", "overlapped"])),
    }
    if draw(st.integers(0, 4)) == 0:
        return array(topology, (rows, columns, depth), **rest)
    operand = draw(st.sampled_from("ab"))
    across = columns if operand == "b" else rows
    loop = {
        "encoding": draw(st.sampled_from(ENCODINGS)),
        "encoded_operand": operand,
        "lockstep_lanes": depth * draw(st.sampled_from(divisors(across))),
        "shared_weight": depth > 1 or draw(st.booleans()),
        "window_steps": draw(st.integers(1, 5)),
    }
    return array(topology, (rows, columns, depth), loop, **rest)


def steps_by_hand(spec, recoded):
    """Cycles of the first tile's fold, one digit list at a time."""
    loop, top = spec.bit_weight, spec.topology
    how, k = encoding(loop.encoding), len(recoded)
    wide = spec.group_lanes // top.depth
    total = 0
    starts = range(0, k, top.depth)
    for window in range(0, len(starts), loop.window_steps):
        slowest = 0
        for first in range(0, spec.across, wide):
            cycles = 0
            for start in starts[window : window + loop.window_steps]:
                lanes = [how.digits(np.array(recoded[z, p])) for z in range(start, min(start + top.depth, k))
                         for p in range(first, min(first + wide, recoded.shape[1], spec.across))]  # fmt: skip
                places = [{i for i, d in enumerate(lane) if d} for lane in lanes]
                taken = len(set().union(*places)) if loop.shared_weight else max(map(len, places), default=0)
                cycles += max(1, taken)
            slowest = max(slowest, cycles)
        total += slowest
    return total


@settings(max_examples=150)
@given(arrays(), st.integers(0, 2**32))
def test_result_and_cycles(spec, seed):
    rng = np.random.default_rng(seed)
    m, k, n = (int(s) for s in rng.integers(1, 14, 3))
    density = rng.choice([0.0, 0.3, 1.0])
    a, b = codes(rng, (m, k), density), codes(rng, (k, n), density)
    run, cost = run_product(spec, a, b), product_cost(spec, a, b)
    assert np.array_equal(run.result, a @ b)
    assert (run.cycles, run.step_cycles) == (cost.cycles, cost.step_cycles)
    assert cost.macs == m * n * k <= cost.step_cycles * spec.topology.multipliers
    if spec.bit_weight is None:
        assert cost.step_cycles == cost.steps
        return
    recoded = b if spec.bit_weight.encoded_operand == "b" else a.T
    assert fold_cycles(spec, recoded)[0] == steps_by_hand(spec, recoded)
    nonzero = np.count_nonzero(encoding(spec.bit_weight.encoding).digits(recoded))
    size, tile = (m, spec.topology.rows) if recoded is b else (n, spec.topology.columns)
    assert run.added_digits == nonzero * -(-size // tile)
    assert cost.mean_digits == pytest.approx(nonzero / recoded.size)


def test_every_order_gives_the_product_with_the_bit_weights_outermost():
    rng = np.random.default_rng(2)
    a, b = codes(rng, (40, 70)), codes(rng, (70, 50))
    expected = bit_weight_matmul(a, b)
    assert np.array_equal(expected, a @ b)
    for topology in TOPOLOGIES:
        for operand in "ab":
            loop = {"encoded_operand": operand, "shared_weight": True}
            assert np.array_equal(run_product(array(topology, loop=loop), a, b).result, expected)


def test_sums_wrap_at_32_bits():
    k = 1 << 17
    run = run_product(array("cube", loop={"shared_weight": True}), np.full((1, k), -128), np.full((k, 1), -128))
    assert run.result.tolist() == [[-(1 << 31)]]


@settings(max_examples=60)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 20), st.integers(1, 20), st.integers(1, 20))
def test_whole_multipliers_are_the_output_stationary_array(rows, columns, m, n, k):
    for drain, overlap in (("serial", "none"), ("overlapped", "full")):
        spec = array("systolic", (rows, columns, 1), output_drain=drain)
        timing = Timing(fold_overlap=overlap, output_drain="shift")
        expected = compute_cycles(m, n, k, rows=rows, columns=columns, dataflow="os", timing=timing)
        given_cost = expected_cost(spec, m, n, k, distribution=CodeDistribution.named("uniform"))
        assert given_cost.cycles == expected
        assert product_cost(spec, np.ones((m, k), int), np.ones((k, n), int)).cycles == expected


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("lanes", [1, 4, 8])
def test_one_row_of_lanes_is_the_group_of_the_rtl(lanes, shared):
    rng = np.random.default_rng(lanes)
    a, b = codes(rng, (5, 19)), codes(rng, (19, 21), 0.7)
    spec = array("matrix_2d", (1, lanes, 1), {"shared_weight": shared}, output_drain="overlapped")
    result, run = LaneGroup(8, lanes, shared_weight=shared).matmul(a, b)
    mine = run_product(spec, a, b)
    assert (mine.cycles, mine.added_digits) == (run.cycles, run.active_digits.sum())
    assert np.array_equal(mine.result, result)


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.sampled_from(ENCODINGS), st.booleans())
def test_expected_cycles_by_draws(seed, name, shared):
    rng = np.random.default_rng(seed)
    topology = str(rng.choice(TOPOLOGIES))
    depth = SIZES[topology][2]
    operand = "a" if topology == "adder_tree" else "b"
    loop = {"encoding": name, "encoded_operand": operand, "shared_weight": shared or depth > 1}
    loop["window_steps"] = int(rng.integers(1, 4))
    if operand == "b":
        loop["lockstep_lanes"] = 2 * depth
    spec = array(topology, loop=loop)
    m, n, k = (int(s) for s in rng.integers(1, 24, 3))
    distribution = CodeDistribution(8, tuple(rng.dirichlet(np.full(256, 0.2))))
    drawn = []
    for _ in range(200):
        a, b = (rng.choice(np.arange(-128, 128), shape, p=distribution.probabilities) for shape in ((m, k), (k, n)))
        drawn.append(product_cost(spec, a, b).cycles)
    expected = expected_cost(spec, m, n, k, distribution=distribution)
    # What happens less than once in all draws may be missing from them.
    assert expected.cycles == pytest.approx(np.mean(drawn), abs=5 * np.std(drawn) / np.sqrt(len(drawn)), rel=3e-4)
    batched = expected_cost(spec, m, n, k, distribution=distribution, batch=3)
    assert (batched.cycles, batched.macs) == (pytest.approx(3 * expected.cycles), 3 * expected.macs)


@settings(max_examples=40)
@given(st.integers(0, 2**32))
def test_what_never_costs_cycles(seed):
    """Fewer lanes in lockstep, wider windows (of a multiple), places of their own, the non-adjacent form's fewer digits."""
    rng = np.random.default_rng(seed)
    b = codes(rng, (int(rng.integers(1, 40)), int(rng.integers(1, 20))), rng.uniform(0.2, 1))

    def cycles(**loop):
        return int(fold_cycles(array("matrix_2d", (2, 8, 1), loop), b).sum())

    base = {"lockstep_lanes": 4, "window_steps": 2}
    assert cycles(**{**base, "lockstep_lanes": 2}) <= cycles(**base)
    assert cycles(**{**base, "window_steps": 6}) <= cycles(**base)
    assert cycles(**base) <= cycles(**base, shared_weight=True)
    assert cycles(**base, encoding="naf") <= cycles(**base, encoding="sign_magnitude")
    assert b.shape[0] * -(-b.shape[1] // 8) <= cycles(**base) <= 4 * b.shape[0] * -(-b.shape[1] // 8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: run_product(array("cube"), [[1, 2]], [[1]]), r"^a, b: expected shapes \(m, k\) and \(k, n\), got"),
        (lambda: product_cost(array("cube"), np.zeros((0, 2), int), np.zeros((2, 1), int)), r"^a, b: expected no dimension of 0"),
        (lambda: product_cost(array("cube"), [[1.0]], [[1]]), r"^a: expected integers, got float64$"),
        (lambda: product_cost(array("cube"), [[1]], [[8]], bits=4), r"^b: expected -8 to 7 \(4 bits, signed\), got 8$"),
        (lambda: fold_cycles(array("cube"), [[1]]), r"^bit_weight: whole multipliers recode nothing$"),
    ],
)
def test_bad_input_is_one_line(call, message):
    with pytest.raises(InputError, match=message):
        call()
