"""Faults through the mapping: against the cycle-level array with the same faults, and against a buffer filled word by word."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from effort import examples
from faulty_cases import DATAFLOWS, KINDS, names_of, network, operands, random_array, small_device

import numerics
from accelerators.systolic.cycle import Fault, simulate_matmul
from accelerators.systolic.emulation import ArrayUnit, array_recipe
from accelerators.systolic.faults.fold_times import FoldTimes
from accelerators.systolic.faults.products import faulty_matmul, run_cycles
from accelerators.systolic.faults.unit import FaultyArrayUnit
from accelerators.systolic.spec import ArraySpec, Timing
from numerics import get_format

CASES = [
    *(("int8", "int32", d, 1, 1) for d in DATAFLOWS), *(("bf16", "fp32", d, 1, 1) for d in DATAFLOWS),
    *(("e4m3fn", "fp32", d, 1, 1) for d in DATAFLOWS), *(("fp32", "fp32", d, 1, 1) for d in ("os", "is")),
    ("fp16", "fp16", "os", 1, 1), ("e5m2", "bf16", "ws", 1, 1), ("int8", "int32_saturate", "is", 1, 1),
    *(("int8", "int32", d, 3, 2) for d in DATAFLOWS),
]  # fmt: skip
"""Operands, sums, dataflow, MAC latency, cycles a MAC."""

RARE = [("bf16", "bf16", "ws", 2, 3), ("bf16", "fp16", "os", 4, 3), ("fp16", "fp16", "is", 5, 2), ("fp32", "fp32", "ws", 1, 1)]


def register_bits(register, fmt, sums):
    found = get_format(sums.removesuffix("_saturate") if register in ("sum", "drain") else fmt)
    return found.bits if fmt == "int8" or not hasattr(found, "code_bits") else found.code_bits


def random_fault(chance, array, fmt, sums, cycles, register=None):
    register = register or chance.choice(names_of(array))
    kind = chance.choice(["flip", *KINDS])
    return Fault(
        kind=kind, register=register, row=chance.randrange(array.rows), column=chance.randrange(array.columns),
        bit=chance.randrange(register_bits(register, fmt, sums)), cycle=chance.randrange(cycles) if kind == "flip" else None,
    )  # fmt: skip


def assert_same(found, expected, about):
    """Equal bits, but for those of NaN."""
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected, equal_nan=True), about
    assert (np.isnan(expected) | (np.signbit(found) == np.signbit(expected))).all(), about


def compare(case, seeds, most=(6, 5), deep=11):
    """Random products under random faults; returns how many outputs came out wrong because of them."""
    fmt, sums, dataflow, latency, step = case
    changed = 0
    for seed in seeds:
        chance, rng = random.Random(f"{case} {seed}"), np.random.default_rng(seed)
        array = random_array(chance, dataflow, latency, most)
        m, n, k = (chance.randint(1, deep) for _ in range(3))
        lead = chance.choice([(), (), (1,), (3,)])
        # The sign of a NaN whose bits are struck is the processor's in short sums: no NaN comes with the operands there.
        odd = seed % 4 == 0 and sums == "fp32"
        a, b = (operands(fmt, (*lead, *shape), rng, odd) for shape in ((m, k), (k, n)))
        how = {"array": array, "a_format": fmt, "b_format": fmt, "accumulator": sums, "cycles_per_mac": step}
        right = simulate_matmul(a, b, **how)
        names = names_of(array)
        faults = [random_fault(chance, array, fmt, sums, right.cycles, names[seed % len(names)])]
        if seed % 3 == 0:
            faults += [random_fault(chance, array, fmt, sums, right.cycles) for _ in range(chance.randint(1, 6))]
        expected = simulate_matmul(a, b, **how, faults=faults).outputs
        assert_same(faulty_matmul(a, b, faults, **how), expected, (case, seed, array, faults))
        changed += not np.array_equal(expected, right.outputs, equal_nan=True)
    return changed


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_outputs_are_those_of_the_cycle_level_array(case):
    assert compare(case, range(examples(36))) > 10


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", CASES + RARE, ids=lambda case: "-".join(map(str, case)))
def test_outputs_are_those_of_the_cycle_level_array_in_larger_ones(case):
    assert compare(case, range(1000, 3000), most=(9, 9), deep=40) > 600


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_every_stuck_bit_of_a_small_array(dataflow):
    """3 × 2 elements, folds that do not fill it, every register, bit and kind."""
    rng = np.random.default_rng(3)
    array = ArraySpec(rows=3, columns=2, dataflow=dataflow, timing="rtl")
    a, b = operands("int8", (4, 5), rng), operands("int8", (5, 3), rng)
    seen = 0
    for name, row, column, kind in itertools.product(names_of(array), range(3), range(2), KINDS[1:]):
        for bit in range(register_bits(name, "int8", "int32")):
            fault = Fault(kind=kind, register=name, row=row, column=column, bit=bit)
            expected = simulate_matmul(a, b, array=array, faults=[fault]).outputs
            assert np.array_equal(faulty_matmul(a, b, fault, array=array), expected), fault
            seen += 1
    assert seen == 3 * 2 * 2 * sum(register_bits(name, "int8", "int32") for name in names_of(array))


@pytest.mark.parametrize("overlap", ["none", "weights", "full"])
@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_a_flip_in_every_cycle_of_every_register(dataflow, overlap):
    rng = np.random.default_rng(4)
    timing = Timing(fold_overlap=overlap, output_drain="shift")
    array = ArraySpec(rows=3, columns=2, dataflow=dataflow, timing=timing)
    a, b = operands("int8", (4, 5), rng), operands("int8", (5, 3), rng)
    right = simulate_matmul(a, b, array=array)
    wrong = 0
    for name, row, column, cycle in itertools.product(names_of(array), range(3), range(2), range(right.cycles)):
        fault = Fault(kind="flip", register=name, row=row, column=column, bit=6, cycle=cycle)
        expected = simulate_matmul(a, b, array=array, faults=[fault]).outputs
        assert np.array_equal(faulty_matmul(a, b, fault, array=array), expected), fault
        wrong += not np.array_equal(expected, right.outputs)
    assert wrong > 50


def test_folds_follow_one_another_as_the_control_lets_them():
    chance = random.Random(5)
    for seed in range(examples(60)):
        latency, step = chance.choice([(1, 1), (3, 2)])
        array = random_array(chance, DATAFLOWS[seed % 3], latency)
        m, n, k, batch = (chance.randint(1, most) for most in (9, 9, 9, 2))
        run = simulate_matmul(np.ones((batch, m, k), int), np.ones((batch, k, n), int), array=array, cycles_per_mac=step)
        stream = {"w": m, "o": k, "i": n}[array.dataflow[0]]
        times = FoldTimes.of(array, folds=run.folds, stream=stream, step=step)
        assert [times.load_begin(f) for f in range(run.folds)] == run.load_begins.tolist(), array
        assert [times.stream_begin(f) for f in range(run.folds)] == run.stream_begins.tolist(), array
        assert [times.stream_begin(f) + times.length for f in range(run.folds)] == run.fold_ends.tolist(), array
        assert run_cycles(array, batch=batch, m=m, n=n, k=k, step=step) == run.cycles


def test_no_fault_is_the_product():
    rng = np.random.default_rng(6)
    a, b = operands("bf16", (2, 5, 7), rng), operands("bf16", (2, 7, 4), rng)
    how = {"array": ArraySpec(rows=3, columns=2, dataflow="ws"), "a_format": "bf16", "b_format": "bf16"}
    assert_same(faulty_matmul(a, b, [], **how), simulate_matmul(a, b, **how).outputs, "no fault")


# --- networks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fmt", "sums"), [("int8", "int32"), ("bf16", "bf16")])
@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_a_network_on_a_faulty_array_has_the_bits_of_the_cycle_level_one(dataflow, fmt, sums):
    device = small_device(dataflow, fmt, sums)
    recipe = array_recipe(device.spec, device.spec.default_recipe)
    module, x = network()
    right = device.emulate(module)(x)
    chance = random.Random(12)
    for name in names_of(device.spec.array):
        faults = [random_fault(chance, device.spec.array, fmt, sums, 60, name) for _ in range(2)]
        faults.append(Fault(kind="flip", register="sum", row=1, column=1, bit=3, cycle=10**6))
        stepped = numerics.emulate(module, recipe, matrix_unit=ArrayUnit(device.spec, tuple(faults)))(x)
        mapped = numerics.emulate(module, recipe, matrix_unit=FaultyArrayUnit.of(device, faults))(x)
        assert torch.equal(stepped.nan_to_num(), mapped.nan_to_num()), (name, faults)
    stuck = Fault(kind="stuck_at_1", register="sum", row=0, column=0, bit=14)
    assert not torch.equal(numerics.emulate(module, recipe, matrix_unit=FaultyArrayUnit.of(device, [stuck]))(x), right)
