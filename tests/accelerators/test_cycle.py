"""The cycle-level array: against an array of plain Python objects, against the product's sums, against the closed form."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
import pytest
import reference_array as reference
import torch
from effort import examples
from reference_array import Float, Integer
from torch import nn

from accelerators.systolic.analytic import compute_cycles
from accelerators.systolic.cycle import Fault, control_cycles, registers, simulate_matmul
from accelerators.systolic.device import SystolicArray
from accelerators.systolic.emulation import fold_accumulator
from accelerators.systolic.spec import ArraySpec, Timing
from hwsim.operators import Matmul
from hwsim.registry import get_device, read_spec, spec_file
from hwsim.workload import chain
from numerics import Accumulator, InputError, IntFormat, Recipe, decode, encode, get_format, matmul, quantize

NUMBERS = {
    "int8": Integer(8), "bf16": Float(8, 7), "fp16": Float(5, 10), "e5m2": Float(5, 2),
    "e4m3fn": Float(4, 3, has_inf=False), "fp32": Float(8, 23),
}  # fmt: skip
SUMS = {
    "int32": Integer(32), "int32_saturate": Integer(32, saturate=True), "int16_saturate": Integer(16, saturate=True),
    "fp32": Float(8, 23), "fp16": Float(5, 10), "bf16": Float(8, 7),
}  # fmt: skip
NAMES = {
    "is": {
        "weight": "activation", "activation_transport": "weight_transport", "activation_shadow": "weight_shadow",
        "activation": "weight", "sum": "sum",
    },
    "ws": {name: name for name in ("activation", "weight_transport", "weight_shadow", "weight", "sum")},
    "os": {name: name for name in ("activation", "weight", "sum", "drain")},
}  # fmt: skip
"""Registers by dataflow, and what the reference calls them: it turns an input-stationary product round."""


def codes(fmt, shape, rng, finite=True):
    """Random codes of a format: of floats many near one, so that sums neither vanish nor overflow; some zeros."""
    bits = get_format(fmt).bits
    found = rng.integers(0, 1 << int(bits), shape)
    if fmt not in ("int8", "int16"):
        kind = NUMBERS[fmt]
        step = 1 << kind.mantissa_bits
        near = (kind.bias << kind.mantissa_bits) + rng.integers(-2 * step, 2 * step, shape)
        near |= rng.integers(0, 2, shape) << (kind.bits - 1)
        odd = ~np.isfinite(decode(found.astype(np.uint32), fmt)) if finite else np.zeros(shape, bool)
        found = np.where((rng.random(shape) < 0.7) | odd, near, found)
        # Of all NaN, only the one that encode gives.
        found = np.where(np.isnan(decode(found.astype(np.uint32), fmt)), int(encode(np.nan, fmt)), found)
    found[rng.random(shape) < 0.2] = 0
    return found


def numbers(code, fmt):
    return decode(code.astype(np.uint32), fmt)


@dataclass
class Case:
    """An array and a product, for the model and for the reference."""

    array: ArraySpec
    machine: reference.Machine
    dataflow: str
    fmt: str
    sums: str
    a: np.ndarray
    b: np.ndarray
    stalls: np.ndarray

    @classmethod
    def random(cls, seed, fmt, sums, dataflow, *, latency=1, interval=1, stalled=True, finite=True, batches=(1, 1, 2)):
        chance, rng = random.Random(seed), np.random.default_rng(seed)
        overlap = ("none", "weights", "full")[seed % 3]
        shifts_out = chance.random() < 0.7
        rows, columns = chance.randint(1, 5), chance.randint(1, 5)
        m, n, k = (chance.randint(1, 11) for _ in range(3))
        batch = chance.choice(batches)
        timing = Timing(
            fold_overlap=overlap, output_drain="shift" if shifts_out else "hidden", mac_latency_cycles=latency
        )  # fmt: skip
        stalls = rng.random(chance.choice([10, 60, 400])) < chance.choice([0.1, 0.4, 0.8])
        return cls(
            ArraySpec(rows=rows, columns=columns, dataflow=dataflow, timing=timing),
            reference.Machine(rows, columns, NUMBERS[fmt], NUMBERS[fmt], SUMS[sums], overlap, latency, interval, shifts_out),
            dataflow, fmt, sums,
            codes(fmt, (batch, m, k), rng, finite), codes(fmt, (batch, k, n), rng, finite),
            stalls if stalled else np.zeros(0, bool),
        )  # fmt: skip

    def run(self, **more):
        return simulate_matmul(
            numbers(self.a, self.fmt), numbers(self.b, self.fmt), array=self.array, a_format=self.fmt, b_format=self.fmt,
            accumulator=self.sums, cycles_per_mac=self.machine.interval, **{"stalls": self.stalls, **more},
        )  # fmt: skip

    def play(self, faults=()):
        """Outputs and array of the reference, under faults of its own."""
        out, array = reference.matmul(self.machine, self.dataflow, self.a.tolist(), self.b.tolist(), self.stalls, faults)
        if self.sums.startswith("int"):
            return np.vectorize(SUMS[self.sums].value)(np.array(out)), array
        return numbers(np.array(out), self.sums), array

    def bits(self, register):
        """Bits of a register."""
        return (SUMS[self.sums] if register in ("sum", "drain") else NUMBERS[self.fmt]).bits


def reference_faults(faults, dataflow):
    return [reference.Fault(f.kind, NAMES[dataflow][f.register], f.row, f.column, f.bit, f.cycle) for f in faults]


def grid(array, of):
    return np.array([[of(element) for element in row] for row in array.grid])


def same_values(found, expected):
    """Equal, with signs of zero; a NaN equals a NaN."""
    signs = np.isnan(expected) | (np.signbit(found) == np.signbit(expected))
    return np.array_equal(found, expected, equal_nan=True) and signs.all()


def assert_equal_runs(case, found, outputs, array):
    assert same_values(found.outputs, outputs)
    seen = array.seen
    assert (found.cycles, found.stall_cycles, found.folds) == (seen.cycles, seen.stall_cycles, len(array.folds))
    for name in ("load_begins", "stream_begins", "fold_ends"):
        assert getattr(found, name).tolist() == getattr(seen, name), name
    assert set(found.activity.toggles) == set(registers(case.array.dataflow)) == set(NAMES[case.dataflow])
    for mine, theirs in NAMES[case.dataflow].items():
        counted = grid(array, lambda element, name=theirs: element.toggles[name])
        assert np.array_equal(found.activity.toggles[mine], counted), mine
    assert np.array_equal(found.activity.zero_operands, grid(array, lambda element: element.zeros))
    assert np.array_equal(found.activity.macs, grid(array, lambda element: element.macs))


def assert_equal_signals(found, array):
    signals = found.signals
    rows = zip(signals.busy, signals.weight_ready, signals.ready, signals.valid, signals.sums.tolist(), strict=True)
    assert list(rows) == [tuple(row) for row in array.seen.signals]


# --- every register, against the reference ------------------------------------------------------------------------------------

EVERY_REGISTER = [
    *(("int8", "int32", d, 1, 1) for d in ("ws", "os", "is")),
    *(("bf16", "fp32", d, 1, 1) for d in ("ws", "os", "is")),
    *(("e4m3fn", "fp32", d, 1, 1) for d in ("ws", "os", "is")),
    *(("e5m2", "bf16", d, 1, 1) for d in ("ws", "is")),
    ("fp16", "fp16", "os", 1, 1),
    ("int8", "int32_saturate", "ws", 1, 1),
    *(("int8", "int32", d, latency, 2) for d in ("ws", "os", "is") for latency in (2, 4)),
    # Each of these compiles a kernel more.
    *(
        pytest.param(*case, marks=pytest.mark.exhaustive)
        for case in [
            ("int8", "int32", "ws", 1, 2), ("int8", "int32", "is", 2, 1), ("int8", "int32", "ws", 5, 1),
            ("bf16", "fp32", "ws", 3, 3), ("bf16", "fp32", "is", 5, 3), ("bf16", "fp32", "os", 3, 1),
            ("fp16", "fp16", "ws", 1, 1), ("fp16", "fp16", "is", 1, 1), ("fp16", "fp16", "os", 1, 2),
            ("fp16", "fp16", "ws", 2, 2),
            ("int8", "int32_saturate", "os", 1, 1), ("e5m2", "bf16", "os", 1, 1),
            ("int8", "int16_saturate", "ws", 3, 3), ("e4m3fn", "fp32", "os", 3, 3),
        ]
    ),
]  # fmt: skip


@pytest.mark.parametrize(("fmt", "sums", "dataflow", "latency", "interval"), EVERY_REGISTER)
def test_every_register_in_every_cycle(fmt, sums, dataflow, latency, interval):
    for seed in range(examples(12)):
        case = Case.random(seed, fmt, sums, dataflow, latency=latency, interval=interval, stalled=seed % 2)
        found = case.run(record=True)
        outputs, array = case.play()
        assert_equal_runs(case, found, outputs, array)
        if dataflow != "os" or case.machine.shifts_out:
            assert_equal_signals(found, array)


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_infinities_and_nan_pass_through(dataflow):
    odd = 0
    for fmt, sums in (("bf16", "fp32"), ("fp16", "fp16") if dataflow == "os" else ("e5m2", "bf16"), ("e4m3fn", "fp32")):
        for seed in range(8):
            case = Case.random(seed, fmt, sums, dataflow, finite=False)
            outputs, array = case.play()
            found = case.run()
            assert same_values(found.outputs, outputs)
            assert found.cycles == array.seen.cycles
            odd += (~np.isfinite(outputs)).sum()
    assert odd > 50


def test_one_element_by_hand():
    """1×1, weight-stationary: weights at 0 and 3 (none, two vectors each), sums 3·5 and 3·-2, then 7·1 and 7·4."""
    run = simulate_matmul([[5, 1], [-2, 4]], [[3], [7]], array=ArraySpec(rows=1, columns=1, dataflow="ws"), record=True)
    assert run.outputs.tolist() == [[22], [22]]
    assert (run.cycles, run.folds, run.stall_cycles) == (6, 2, 0)
    assert (run.load_begins.tolist(), run.stream_begins.tolist(), run.fold_ends.tolist()) == ([0, 3], [1, 4], [3, 6])
    toggles = {name: int(count[0, 0]) for name, count in run.activity.toggles.items()}
    # Weights 0, 3, 7; activations 0, 5, −2, 1, 4 in eight bits (2 + 7 + 8 + 2); sums 0, 15, −6, 7, 28 in 32 (4 + 30 + 31 + 4).
    assert toggles == {"weight_transport": 0, "weight_shadow": 3, "weight": 3, "activation": 19, "sum": 69}
    assert run.signals.sums[:, 0].tolist() == [0, 0, 15, (1 << 32) - 6, 0, 7, 28]


# --- outputs are the product's ------------------------------------------------------------------------------------------------

PRODUCTS = [
    ("ws", "int8", "int8", "int32", [1], 1), ("ws", "int8", "uint8", "int32", [2, 3, 4, 5], 2),
    ("ws", "uint4", "int8", "int32", [1], 1),
    ("is", "int8", "int8", "int32_saturate", [1], 1), ("is", "int4", "uint8", "int32", [2, 3, 4, 5], 2),
    ("ws", "e4m3fn", "e5m2", "fp32", [1], 1), ("ws", "fp32", "bf16", "fp32", [1], 1), ("is", "tf32", "fp16", "fp32", [1], 1),
    ("ws", "q3.4", "q1.6", "fp32", [1], 1), ("is", "fp16", "e2m1fn", "bf16", [1], 1), ("ws", "e5m2", "e4m3fn", "bf16", [1], 1),
    ("os", "int8", "int8", "int32", [1], 1), ("os", "int8", "int8", "int32", [2, 3, 4, 5], 2),
    ("os", "bf16", "e5m2", "fp32", [1], 1),
    ("os", "fp16", "e4m3fn", "fp16", [1], 1),
    *(
        pytest.param(*case, marks=pytest.mark.exhaustive)
        for case in [
            ("ws", "int8", "int8", "int32", [2, 3, 4, 5], 1), ("is", "bf16", "bf16", "fp32", [2, 3, 4, 5], 3),
            ("is", "fp16", "fp16", "fp16", [1], 1), ("ws", "e2m1fn", "e4m3fn", "e8m13", [1], 1),
            ("os", "e4m3fn", "e4m3fn", "e4m3fn", [1, 2], 1),
            ("ws", "bf16", "bf16", Accumulator(format="bf16", rounding="toward_zero"), [1, 3], 2),
            ("os", "bf16", "bf16", Accumulator(format="fp32", product="bf16"), [1, 5], 3),
            ("ws", "int16", "int8", "int16", [1, 2], 1), ("os", "int16", "int8", "int16_saturate", [1, 5], 3),
            ("is", "fp32", "fp16", "fp64", [2], 1), ("os", "int8", "int8", Accumulator(format=IntFormat("int62", 62)), [4], 1),
        ]
    ),
]  # fmt: skip


def order_of(array, sums):
    """The array's order of additions, in the accumulator given."""
    order = fold_accumulator(array, "fp32")
    if isinstance(sums, str) and not sums.endswith("_saturate"):
        return fold_accumulator(array, sums)
    if isinstance(sums, str):
        return Accumulator(format=sums.removesuffix("_saturate"), overflow="saturate", order=order.order, group=order.group)
    return replace(sums, order=order.order, group=order.group)


@pytest.mark.parametrize(("dataflow", "a_format", "b_format", "sums", "latencies", "interval"), PRODUCTS)
def test_outputs_are_those_of_the_product(dataflow, a_format, b_format, sums, latencies, interval):
    rng = np.random.default_rng(7)
    for seed in range(examples(12)):
        rows, columns = rng.integers(1, 9, 2).tolist()
        m, n, k = rng.integers(1, 40, 3).tolist()
        overlap, drain = ("none", "weights", "full")[seed % 3], ("hidden", "shift")[seed % 2]
        timing = Timing(fold_overlap=overlap, output_drain=drain, mac_latency_cycles=latencies[seed % len(latencies)])
        array = ArraySpec(rows=rows, columns=columns, dataflow=dataflow, timing=timing)
        a, b = (
            decode(rng.integers(0, 1 << _codes_of(f), shape).astype(np.uint32), f) if f != "fp32" else _singles(rng, shape)
            for f, shape in ((a_format, (m, k)), (b_format, (k, n)))
        )  # fmt: skip
        if seed % 4 != 3:
            # Without what is no number, and of like size: there are sums to round.
            a, b = (_tame(x, f) for x, f in ((a, a_format), (b, b_format)))
        accumulator = order_of(array, sums)
        batch = seed % 3 if seed % 5 else 0
        left, right = (np.stack([x] * batch) if batch else x for x in (a, b))
        if batch:
            left[-1], right[0] = left[-1][::-1], right[0][:, ::-1]
        run = simulate_matmul(
            left, right, array=array, a_format=a_format, b_format=b_format, accumulator=accumulator, cycles_per_mac=interval
        )
        expected = matmul(left, right, accumulator=accumulator)
        assert run.outputs.dtype == expected.dtype
        assert same_values(run.outputs, expected)
        size = {"rows": rows, "columns": columns, "dataflow": dataflow, "timing": timing, "batch": max(batch, 1)}
        assert run.cycles == compute_cycles(m, n, k, cycles_per_mac=interval, **size)


def _codes_of(fmt):
    return int(getattr(get_format(fmt), "code_bits", get_format(fmt).bits))


def _singles(rng, shape):
    return (rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 4, shape)).astype(np.float32)


def _tame(x, fmt):
    x = np.where(np.isfinite(x), x, 1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        scaled = np.where(x == 0, 0, x * 2.0 ** -np.round(np.log2(np.abs(x.astype(np.float64))) * 0.9))
    return x if get_format(fmt).name.startswith(("int", "uint", "q")) else quantize(scaled.astype(np.float32), fmt)


def test_without_an_accumulator_integers_wrap_in_32_bits_and_floats_sum_in_fp32():
    array = ArraySpec(rows=2, columns=2, dataflow="ws")
    assert simulate_matmul([[3, 4]], [[5], [6]], array=array).outputs.dtype == np.int32
    run = simulate_matmul(np.float32([[3, 4]]), [[5], [6]], array=array, a_format="bf16")
    assert run.outputs.dtype == np.float32
    assert run.outputs.tolist() == [[39.0]]


# --- cycles -------------------------------------------------------------------------------------------------------------------


def random_array(chance):
    timing = Timing(
        fold_overlap=chance.choice(["none", "weights", "full"]), output_drain=chance.choice(["hidden", "shift"]),
        mac_latency_cycles=chance.choice([1, 1, 2, 3, 5]),
    )  # fmt: skip
    return ArraySpec(
        rows=chance.randint(1, 9), columns=chance.randint(1, 9), dataflow=chance.choice(["ws", "os", "is"]), timing=timing
    )


def closed_form(array, m, n, k, batch=1, interval=1):
    size = {"rows": array.rows, "columns": array.columns, "dataflow": array.dataflow, "timing": array.timing}
    return int(compute_cycles(m, n, k, batch=batch, cycles_per_mac=interval, **size))


def test_the_control_takes_the_cycles_of_the_closed_form():
    chance = random.Random(1)
    for _ in range(examples(3000)):
        array, interval = random_array(chance), chance.choice([1, 1, 2, 3, 7])
        m, n, k = (chance.choice([1, 2, chance.randint(1, 40)]) for _ in range(3))
        batch = chance.choice([1, 1, 2, 5])
        found = control_cycles(m, n, k, array=array, batch=batch, cycles_per_mac=interval)
        assert found == closed_form(array, m, n, k, batch, interval), (array, m, n, k, batch, interval)


def test_a_run_takes_the_cycles_of_the_closed_form():
    chance = random.Random(2)
    for _ in range(examples(1000)):
        array = random_array(chance)
        # Intervals for which a kernel is compiled already.
        deep = array.timing.mac_latency_cycles > 1
        interval = 2 if deep else 1
        m, n, k = (chance.choice([1, 2, chance.randint(1, 24)]) for _ in range(3))
        batch = chance.choice([1, 1, 3])
        run = simulate_matmul(
            np.ones((batch, m, k), int), np.ones((batch, k, n), int), array=array, cycles_per_mac=interval
        )  # fmt: skip
        assert run.cycles == closed_form(array, m, n, k, batch, interval), (array, m, n, k, batch, interval)
        assert np.all(run.outputs == k)
        assert run.fold_ends[-1] == run.cycles
        streamed = {"weight_stationary": m, "output_stationary": k, "input_stationary": n}[array.dataflow]
        assert np.all(run.activity.macs == run.folds * streamed)


def ideal_device(array, interval=1):
    """An array whose memories take no time."""
    data = read_spec(spec_file("gemmini_16x16"))
    data["array"] = array.model_dump()
    data["mac_formats"] = {"int8": {"energy_pj": 1.0, "cycles_per_mac": interval}}
    for pad in ("input", "weight", "output"):
        data["memory"][pad] |= {"capacity_bytes": 1 << 50, "bank_bytes_per_cycle": 1e15}
    data["memory"]["off_chip"] |= {"bandwidth_bytes_per_s": 1e30, "latency_s": 0}
    data["launch_overhead_cycles"] = 0
    return get_device(data)


def test_with_ideal_memory_all_fidelities_of_a_device_are_equal():
    chance = random.Random(3)
    for _ in range(examples(50)):
        array, interval = random_array(chance), chance.choice([1, 1, 2, 3])
        device = ideal_device(array, interval)
        for _ in range(20):
            m, n, k = (chance.choice([1, 2, chance.randint(1, 60)]) for _ in range(3))
            batch = chance.choice([1, 1, 4])
            workload = chain("one", [Matmul(name="x", m=m, n=n, k=k, batch=batch)])
            cycles = {fidelity: device.simulate(workload, fidelity=fidelity).ops[0].cycles for fidelity in device.fidelities}
            expected = closed_form(array, m, n, k, batch, interval)
            assert cycles == pytest.approx(dict.fromkeys(device.fidelities, expected), rel=1e-9), (array, m, n, k, batch)


@pytest.mark.parametrize("name", SystolicArray.bundled())
def test_stepped_control_adds_less_than_a_cycle_a_tile_to_the_pipeline(name):
    device = get_device(name)
    chance = random.Random(4)
    ops = [Matmul(name=f"x{i}", m=chance.randint(1, 300), n=chance.randint(1, 300), k=chance.randint(1, 300)) for i in range(12)]
    for op in ops:
        workload = chain("one", [op])
        tile, cycle = (device.simulate(workload, fidelity=fidelity) for fidelity in ("tile", "cycle"))
        assert cycle.fidelity == "cycle"
        assert tile.cycles - 1e-6 <= cycle.cycles <= tile.cycles + 2
        assert cycle.cycles >= device.simulate(workload, fidelity="analytic").cycles - 1e-6


# --- stalls -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
def test_a_stall_holds_everything(dataflow):
    for seed in range(examples(40)):
        case = Case.random(seed, "int8", "int32", dataflow)
        free, held = case.run(stalls=None, record=True), case.run(record=True)
        stalls = np.zeros(held.cycles, bool)
        stalls[: case.stalls.size] = case.stalls[: held.cycles]
        assert held.stall_cycles == stalls.sum()
        assert held.cycles == free.cycles + held.stall_cycles
        assert np.array_equal(held.outputs, free.outputs)
        for name, counted in free.activity.toggles.items():
            assert np.array_equal(held.activity.toggles[name], counted)
        # Without the stalled cycles the signals are the same; in them they are those of the next, but that nothing is taken.
        moves = np.append(~stalls, True)
        following = np.cumsum(moves) - moves
        for name in ("busy", "weight_ready", "ready", "valid", "sums"):
            signal, unstalled = getattr(held.signals, name), getattr(free.signals, name)
            assert np.array_equal(signal[moves], unstalled), name
            if name.endswith("ready"):
                assert not signal[~moves].any()
            else:
                assert np.array_equal(signal, unstalled[following]), name


def test_an_array_that_is_always_stalled_for_a_while_only_starts_later():
    array = ArraySpec(rows=3, columns=2, dataflow="ws")
    a, b = np.arange(12).reshape(4, 3), np.arange(6).reshape(3, 2)
    free = simulate_matmul(a, b, array=array)
    late = simulate_matmul(a, b, array=array, stalls=np.ones(17, bool))
    assert (late.cycles, late.stall_cycles) == (free.cycles + 17, 17)
    assert late.load_begins.tolist() == [17]
    after = simulate_matmul(a, b, array=array, stalls=np.append(np.zeros(free.cycles, bool), np.ones(5, bool)))
    assert (after.cycles, after.stall_cycles) == (free.cycles, 0)


# --- faults -------------------------------------------------------------------------------------------------------------------


def faulty_registers(case):
    hidden = case.array.timing.output_drain == "hidden"
    return [name for name in NAMES[case.dataflow] if not (name == "drain" and hidden)]


def random_fault(case, cycles, chance, register=None):
    register = register or chance.choice(faulty_registers(case))
    kind = chance.choice(["flip", "flip", "stuck_at_0", "stuck_at_1"])
    return Fault(
        kind=kind, register=register, row=chance.randrange(case.array.rows), column=chance.randrange(case.array.columns),
        bit=chance.randrange(case.bits(register)), cycle=chance.randrange(cycles) if kind == "flip" else None,
    )  # fmt: skip


FAULTY = [
    *(("int8", "int32", d, 1, 1) for d in ("ws", "os", "is")), *(("bf16", "fp32", d, 1, 1) for d in ("ws", "os", "is")),
    *(("e4m3fn", "fp32", d, 1, 1) for d in ("ws", "os")), *(("fp32", "fp32", d, 1, 1) for d in ("os", "is")),
    ("fp16", "fp16", "os", 1, 1), ("e5m2", "bf16", "ws", 1, 1), ("int8", "int32_saturate", "is", 1, 1),
    ("int8", "int32", "ws", 3, 2), ("int8", "int32", "is", 2, 2), ("int8", "int32", "os", 3, 2),
]  # fmt: skip


@pytest.mark.parametrize(("fmt", "sums", "dataflow", "latency", "interval"), FAULTY)
def test_faults_do_what_they_do_in_the_reference(fmt, sums, dataflow, latency, interval):
    chance = random.Random(9)
    changed = compared = 0
    for seed in range(examples(40)):
        case = Case.random(seed, fmt, sums, dataflow, latency=latency, interval=interval, stalled=seed % 2, batches=(1,))
        cycles = case.run().cycles
        names = faulty_registers(case)
        faults = [random_fault(case, cycles, chance, names[seed % len(names)])]
        if seed % 3 == 0:
            faults += [random_fault(case, cycles, chance) for _ in range(2)]
        found = case.run(faults=faults)
        theirs = reference_faults(faults, dataflow)
        outputs, array = case.play(theirs)
        if any(fault.met_nan for fault in theirs):
            continue  # what becomes of a NaN whose bits are struck depends on which of its codes it has
        compared += 1
        assert same_values(found.outputs, outputs), (case.array, faults)
        assert (found.cycles, found.stall_cycles) == (array.seen.cycles, array.seen.stall_cycles)
        changed += not same_values(found.outputs, case.run().outputs)
        if not case.machine.nans:
            assert_equal_runs(case, found, outputs, array)
    assert changed > 5
    assert compared > 30


def some_case(dataflow, rows=4, columns=3, drain="shift"):
    rng = np.random.default_rng(11)
    timing = Timing(fold_overlap="full", output_drain=drain)
    a, b = rng.integers(-128, 128, (9, rows)), rng.integers(-128, 128, (rows, columns))
    return {"a": a, "b": b, "array": ArraySpec(rows=rows, columns=columns, dataflow=dataflow, timing=timing)}


def test_a_stuck_sum_changes_its_column_only():
    case = some_case("ws")
    right = case["a"] @ case["b"]
    for column in range(3):
        fault = Fault(kind="stuck_at_1", register="sum", row=2, column=column, bit=20)
        wrong = simulate_matmul(**case, faults=[fault]).outputs != right
        assert wrong[:, column].any()
        assert not np.delete(wrong, column, axis=1).any()


def test_a_stuck_activation_changes_the_columns_to_its_right():
    case = some_case("ws")
    wrong = simulate_matmul(**case, faults=[Fault(kind="stuck_at_1", register="activation", row=1, column=0, bit=6)]).outputs
    wrong = (wrong != case["a"] @ case["b"]).any(axis=0)
    assert wrong.tolist() == [False, True, True]


def test_a_flipped_weight_changes_what_follows_by_a_power_of_two():
    case = some_case("ws")
    a, right = case["a"], case["a"] @ case["b"]
    loaded = 4
    # Element (1, 2) multiplies vector i in cycle 4 + i + 1 + 2; from vector 5 on, the flipped weight.
    fault = Fault(kind="flip", register="weight", row=1, column=2, bit=3, cycle=loaded + 4 + 3)
    found = simulate_matmul(**case, faults=[fault]).outputs
    sign = -1 if (int(case["b"][1, 2]) >> 3) & 1 else 1
    expected = right.copy()
    expected[5:, 2] += sign * 8 * a[5:, 1]
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("register", ["activation", "weight_transport", "weight_shadow", "weight", "sum"])
def test_a_flip_that_is_overwritten_before_use_changes_nothing(register):
    case = some_case("ws")
    right = case["a"] @ case["b"]
    for row in range(4):
        for column in range(3):
            # Cycle 0: nothing has come but to element (0, 0), whose shadow takes the first weight.
            if (row, column) == (0, 0):
                continue
            fault = Fault(kind="flip", register=register, row=row, column=column, bit=5, cycle=0)
            assert np.array_equal(simulate_matmul(**case, faults=[fault]).outputs, right)
    end = simulate_matmul(**case).cycles - 1
    fault = Fault(kind="flip", register="activation", row=0, column=0, bit=5, cycle=end)
    assert np.array_equal(simulate_matmul(**case, faults=[fault]).outputs, right)


def test_two_flips_of_a_bit_undo_each_other():
    case = some_case("os")
    flip = Fault(kind="flip", register="sum", row=1, column=1, bit=9, cycle=4)
    assert np.array_equal(simulate_matmul(**case, faults=[flip, flip]).outputs, case["a"] @ case["b"])
    assert not np.array_equal(simulate_matmul(**case, faults=[flip]).outputs, case["a"] @ case["b"])


def test_a_stuck_bit_does_not_flip():
    case = some_case("ws")
    stuck = Fault(kind="stuck_at_1", register="weight", row=1, column=1, bit=4)
    flip = Fault(kind="flip", register="weight", row=1, column=1, bit=4, cycle=9)
    expected = simulate_matmul(**case, faults=[stuck]).outputs
    for faults in ([stuck, flip], [flip, stuck]):
        assert np.array_equal(simulate_matmul(**case, faults=faults).outputs, expected)


# --- what is refused ----------------------------------------------------------------------------------------------------------

ONES = {"a": [[1, 1]], "b": [[1], [1]], "array": ArraySpec(rows=2, columns=2, dataflow="ws")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": [1, 1]}, "a, b: expected (m, k) and (k, n), or a batch of both, without empty sides; got (2,) and (2, 1)"),
        ({"b": [[1]]}, "a, b: expected (m, k) and (k, n)"),
        ({"b": np.ones((1, 2, 1))}, "a, b: expected (m, k) and (k, n)"),
        ({"a": np.ones((0, 2))}, "a, b: expected (m, k) and (k, n)"),
        ({"a": [[1, 128]]}, "a: holds numbers that int8 does not have; quantise them"),
        ({"b": [[0.5], [1]]}, "b: holds numbers that int8 does not have; quantise them"),
        ({"a": [[1j, 1]]}, "a: expected real numbers, got complex128"),
        ({"a_format": "mxfp4"}, "a_format: a register holds a float, an integer or a fixed-point number, got 'mxfp4'"),
        ({"b_format": "fp64"}, "b_format: expected at most 20 bits, or fp32, got 'fp64'"),
        ({"b_format": "int32"}, "b_format: expected at most 20 bits, or fp32, got 'int32'"),
        ({"b_format": "bf16", "accumulator": "int32"}, "b_format: an integer accumulator takes integers, got 'bf16'"),
        ({"accumulator": "int33"}, "accumulator: unknown name 'int33'"),
        ({"accumulator": Accumulator(order="pairwise")}, "order: a multiply-accumulate adds one product at a time"),
        ({"accumulator": Accumulator(order="systolic", group=3)}, "accumulator: this array sums in order 'systolic' of 2, got"),
        ({"cycles_per_mac": 0}, "cycles_per_mac: expected an integer ≥ 1, got 0"),
        ({"cycles_per_mac": 1.5}, "cycles_per_mac: expected an integer ≥ 1, got 1.5"),
        ({"stalls": [0, 1]}, "stalls: expected a row of booleans, one a cycle, got int64 of shape (2,)"),
        ({"stalls": np.ones((2, 2), bool)}, "stalls: expected a row of booleans, one a cycle, got bool of shape (2, 2)"),
        ({"stalls": True}, "stalls: expected a row of booleans, one a cycle, got bool of shape ()"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(change, message):
    with pytest.raises(InputError) as caught:
        simulate_matmul(**{**ONES, **change})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "broken"}, "kind: unknown name 'broken'"),
        ({"cycle": None}, "cycle: a flip needs one and a stuck bit has none, got None with 'flip'"),
        ({"kind": "stuck_at_0"}, "cycle: a flip needs one and a stuck bit has none, got 3 with 'stuck_at_0'"),
        ({"cycle": -1}, "cycle: expected an integer ≥ 0, got -1"),
        ({"row": -1}, "row: expected an integer ≥ 0, got -1"),
        ({"column": 0.5}, "column: expected an integer ≥ 0, got 0.5"),
        ({"bit": True}, "bit: expected an integer ≥ 0, got True"),
        ({"row": 2}, "row: register 'sum' has 0 to 1, got 2"),
        ({"column": 2}, "column: register 'sum' has 0 to 1, got 2"),
        ({"bit": 32}, "bit: register 'sum' has 0 to 31, got 32"),
        ({"register": "weight", "bit": 8}, "bit: register 'weight' has 0 to 7, got 8"),
        ({"register": "drain"}, "register (weight_stationary): unknown name 'drain'"),
        ({"cycle": 6}, "cycle: the run has cycles 0 to 4, got 6"),
    ],
)
def test_a_fault_that_cannot_be_is_one_clear_line(change, message):
    usual = {"kind": "flip", "register": "sum", "row": 0, "column": 0, "bit": 0, "cycle": 3}
    with pytest.raises(InputError) as caught:
        simulate_matmul(**ONES, faults=[Fault(**{**usual, **change})])
    assert str(caught.value).startswith(message)


def test_an_array_whose_results_do_not_shift_has_no_drains():
    fault = Fault(kind="stuck_at_1", register="drain", row=2, column=1, bit=3)
    case = some_case("os")
    assert not np.array_equal(simulate_matmul(**case, faults=[fault]).outputs, case["a"] @ case["b"])
    with pytest.raises(InputError, match=r"register \(output_stationary\): unknown name 'drain'"):
        simulate_matmul(**some_case("os", drain="hidden"), faults=[fault])
    assert registers("is") == registers("input_stationary") == tuple(NAMES["is"])
    with pytest.raises(InputError, match="dataflow: unknown name 'rs'"):
        registers("rs")


def test_control_cycles_needs_sizes():
    with pytest.raises(InputError, match="k: expected an integer ≥ 1, got 0"):
        control_cycles(1, 1, 0, array=ONES["array"])
    with pytest.raises(InputError, match=r"m: expected an integer ≥ 1, got 1\.5"):
        control_cycles(1.5, 1, 1, array=ONES["array"])


# --- emulation ----------------------------------------------------------------------------------------------------------------


class Network(nn.Module):
    """A convolution, an attention of two heads, a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv, self.qkv, self.out = nn.Conv2d(2, 6, 3, stride=2, padding=1), nn.Linear(6, 18), nn.Linear(6, 5)

    def forward(self, x):
        tokens = torch.relu(self.conv(x)).flatten(2).mT
        q, k, v = self.qkv(tokens).unflatten(-1, (3, 2, 3)).permute(2, 0, 3, 1, 4)
        mixed = torch.softmax(q @ k.mT, -1) @ v
        return self.out(mixed.transpose(1, 2).flatten(2).mean(1))


def emulated(device, fidelity, recipe=None):
    """Emulation, output and gradients of one step."""
    torch.manual_seed(3)
    network, x = Network(), torch.randn(2, 2, 6, 6)
    emulation = device.emulate(network, recipe, fidelity=fidelity)
    y = emulation(x)
    y.square().sum().backward()
    return emulation, y.detach(), [p.grad for p in emulation.parameters()]


def assert_same_bits(device, recipe=None):
    _, plain, plain_gradients = emulated(device, None, recipe)
    emulation, stepped, gradients = emulated(device, "cycle", recipe)
    assert torch.equal(plain, stepped)
    assert all(torch.equal(x, y) for x, y in zip(plain_gradients, gradients, strict=True))
    assert any(gradient.abs().max() > 0 for gradient in gradients)
    return emulation


def assert_cycles(emulation, device, interval=1):
    products = emulation.matrix_unit.products
    for product in products:
        batch, m, n, k = product.shape
        assert product.run.cycles == closed_form(device.spec.array, m, n, k, batch, interval)
        assert product.run.activity.macs.sum() >= batch * m * n * k
    return products


@pytest.mark.parametrize("name", SystolicArray.bundled())
def test_a_network_has_the_same_bits_on_the_cycle_level_array(name):
    device = get_device(name)
    products = assert_cycles(assert_same_bits(device), device)
    assert [p.module for p in products[:5]] == ["conv", "qkv", "", "", "out"]
    tokens = 9
    assert [p.shape for p in products[:5]] == [
        (1, 2 * tokens, 6, 18), (1, 2 * tokens, 18, 6), (4, tokens, tokens, 3), (4, tokens, 3, tokens), (1, 2, 5, 6),
    ]  # fmt: skip
    assert len(products) == 5 + 9  # backward: two each, but none for the gradient of the image


@pytest.mark.parametrize(("dataflow", "sums"), [("ws", "bf16"), ("os", "fp16"), ("is", "bf16")])
def test_a_network_in_short_floats_has_the_same_bits(dataflow, sums):
    """Sums so short that their order shows."""
    data = read_spec(spec_file("gemmini_16x16"))
    data["array"] |= {"rows": 4, "columns": 3, "dataflow": dataflow}
    data["mac_formats"] = {"bf16": {"energy_pj": 1.0}}
    data["default_formats"] = {"weight": "bf16", "activation": "bf16", "accumulator": sums, "elementwise": "fp32"}
    device = get_device(data)
    assert_cycles(assert_same_bits(device), device)


def test_scales_of_channels_and_groups_are_summed_apart():
    from numerics.scaling import Scaling

    device = get_device("gemmini_16x16")
    scaling = {"weight": Scaling(granularity="group", size=2), "activation": Scaling(granularity="group", size=2)}
    recipe = Recipe("groups", {"weight": "int8", "activation": "int8", "accumulator": "int32"}, scaling=scaling)
    emulation = assert_same_bits(device, recipe)
    assert_cycles(emulation, device)
    assert {p.shape[3] for p in emulation.matrix_unit.products if p.module == "qkv"} >= {2}


def test_an_unknown_fidelity_of_an_emulation_is_an_error():
    with pytest.raises(InputError, match=r"fidelity \(device 'gemmini_16x16'\): unknown name 'rtl'"):
        get_device("gemmini_16x16").emulate(nn.Linear(2, 2), fidelity="rtl")
    assert get_device("gemmini_16x16").emulate(nn.Linear(2, 2)).matrix_unit is None
    assert get_device("gemmini_16x16").emulate(nn.Linear(2, 2), fidelity="tile").matrix_unit is None
