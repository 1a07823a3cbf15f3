"""What the benches of the two arrays share: jobs, their data, and the array's model.

``systolic_ws`` and ``systolic_os`` are held against ``accelerators.systolic.cycle`` in every cycle: what they take and when, what
they show, and for how long they are busy.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from accelerators.systolic.cycle import ArrayRun, simulate_matmul
from accelerators.systolic.spec import ArraySpec, Timing
from numerics import decode
from numerics.formats import FloatFormat, Format, get_format
from rtl.bench import Bench, Latency, Port, Trace, Values

_OVERLAP: tuple[Literal["none", "weights", "full"], ...] = ("none", "weights", "full")
_NAN = 0x7FC00000
"""The one NaN that the floating-point units give."""


def operand_format(parameters: Mapping[str, int]) -> Format:
    """The format of an array's operands."""
    if not parameters.get("Float", 0):
        return get_format("int8")
    e, m = parameters["ExponentBits"], parameters["MantissaBits"]
    names = ("bf16", "e4m3fn", "e5m2", "fp16")
    formats = [f for f in map(get_format, names) if isinstance(f, FloatFormat)]
    return next(f for f in formats if (f.exponent_bits, f.mantissa_bits) == (e, m))


class SystolicBench(Bench):
    """Jobs of all sizes, one behind the other, on random and adversarial data, with random stalls and starts that come too early.

    Every job runs as one matmul on the model; what the array shows in each cycle, the codes of its sums included, must be the
    same. The fold sums of the model are those that its outputs are made of.
    """

    dataflow: ClassVar[Literal["weight_stationary", "output_stationary"]]
    takes: ClassVar[tuple[tuple[str, str], ...]]
    """Input ports of operands, with the flag of the model that says when they are taken."""

    flags: ClassVar[tuple[tuple[str, str], ...]]
    """Output ports of one bit, with their names in the model."""

    def modules(self, parameters: Mapping[str, int]) -> tuple[str, ...]:
        kind = ("fp_mac",) if parameters.get("Float", 0) else ("mac_int8",)
        return (*kind, "mac", "delay_line", *self.uses, self.unit)

    def inputs(self, parameters: Mapping[str, int]) -> tuple[Port, ...]:
        bits = int(operand_format(parameters).bits)
        lanes = {"weights_i": parameters["Columns"], "activations_i": parameters["Rows"]}
        operands = [Port(port, bits, lanes[port]) for port, _ in self.takes]
        return Port("rst_ni"), Port("stall_i"), Port("start_i"), Port("folds_i", 16), Port("length_i", 16), *operands

    def outputs(self, parameters: Mapping[str, int]) -> tuple[Port, ...]:
        return *(Port(port) for port, _ in self.flags), Port("sums_o", 32, parameters["Columns"])

    @abstractmethod
    def operands(self, parameters: Mapping[str, int], a: Any, b: Any) -> dict[str, npt.NDArray[Any]]:
        """Rows of operand codes in the order in which a job takes them, by port, for codes of A (m, k) and B (k, n)."""

    @abstractmethod
    def length(self, m: int, k: int) -> int:
        """Vectors that a fold streams."""

    def trace(self, parameters: Mapping[str, int], cases: int, rng: np.random.Generator) -> Trace:
        rows, columns = parameters["Rows"], parameters["Columns"]
        timing = Timing(fold_overlap=_OVERLAP[parameters.get("FoldOverlap", 2)], output_drain="shift")
        array = ArraySpec(rows=rows, columns=columns, dataflow=self.dataflow, timing=timing)
        fmt = operand_format(parameters)
        sums = "fp32" if isinstance(fmt, FloatFormat) else "int32_saturate" if parameters.get("Saturate") else "int32"
        played = _Played(self.inputs(parameters), self.outputs(parameters))
        done = 0
        marks: dict[str, int] = {}
        for number, (m, n, k) in enumerate(_shapes(rows, columns, rng)):
            if done >= cases and number > 2:
                break
            a, b = _codes(fmt, (m, k), number, rng), _codes(fmt, (k, n), number + 1, rng)
            # The first jobs, from which the latency is read, run without stalls.
            stalls = rng.random(4096) < (0.0 if number < 3 else rng.choice([0.0, 0.1, 0.5, 0.9]))
            run = simulate_matmul(
                decode(a, fmt), decode(b, fmt), array=array, a_format=fmt, b_format=fmt, accumulator=sums, stalls=stalls,
                record=True,
            )  # fmt: skip
            marks[f"job {number}"] = played.cycles
            self._play(played, run, self.operands(parameters, a, b), self.length(m, k), stalls, fmt, rng)
            done += run.folds
        return played.trace(done, marks)

    def _play(
        self,
        played: _Played,
        run: ArrayRun,
        taken: dict[str, npt.NDArray[Any]],
        length: int,
        stalls: npt.NDArray[np.bool_],
        fmt: Format,
        rng: np.random.Generator,
    ) -> None:
        """The job's start, in an idle cycle that also shows the last sums of the job before, and its cycles."""
        signals, cycles = run.signals, run.cycles
        assert signals is not None
        held = np.zeros(cycles, np.bool_)
        held[: min(cycles, stalls.size)] = stalls[:cycles]
        inputs = {
            "rst_ni": np.ones(cycles + 1, np.bool_),
            "stall_i": np.concatenate([[False], held]),
            "start_i": np.concatenate([[True], rng.random(cycles) < 0.1]),  # starts while busy, which the array must ignore
            "folds_i": np.concatenate([[run.folds], rng.integers(0, 1 << 16, cycles)]),
            "length_i": np.concatenate([[length], rng.integers(0, 1 << 16, cycles)]),
        }
        for port, flag in self.takes:
            rows = taken[port]
            words = rng.integers(0, 1 << int(fmt.bits), (cycles + 1, rows.shape[1]))  # what is not taken is of no account
            when = np.flatnonzero(getattr(signals, flag)[:cycles])
            if len(when) != len(rows):
                raise RuntimeError(f"{self.unit}: the model takes {len(when)} of {len(rows)} rows of {port}")
            words[1 + when] = rows
            inputs[port] = words
        outputs = {port: np.asarray(getattr(signals, flag)) for port, flag in (*self.flags, ("sums_o", "sums"))}
        if isinstance(fmt, FloatFormat):
            codes = outputs["sums_o"]
            outputs["sums_o"] = np.where((codes & 0x7FFFFFFF) > 0x7F800000, _NAN, codes)
        played.add(inputs, outputs)

    def latency(self, parameters: Mapping[str, int], trace: Trace, observed: Values) -> Latency:
        # Jobs 0 and 1 are one fold of one vector and one of several.
        ready, valid = observed[self.flags[-2][0]], observed["valid_o"]
        spans = []
        for number in (0, 1):
            cycles = slice(trace.marks[f"job {number}"], trace.marks[f"job {number + 1}"] + 1)
            spans.append((np.flatnonzero(ready[cycles]), np.flatnonzero(valid[cycles])))
        (first_in, first_out), (later_in, later_out) = spans
        between = np.diff(later_in)
        return Latency(
            int(first_out[0] - first_in[0]),
            float(between.mean()) if between.size else 1.0,
            int(later_out[-1] - later_in[-1]),
            "stall_i holds everything",
        )


def _shapes(rows: int, columns: int, rng: np.random.Generator) -> Iterator[tuple[int, int, int]]:
    """Sizes (m, n, k): first one fold of one vector, one of several, then sides of 1, about the array's, and beyond it."""
    yield 1, 1, 1
    yield min(rows, 5), 1, min(rows, 5)
    yield 1, 1, 1
    sides_r = sorted({1, max(1, rows - 1), rows, rows + 1, 2 * rows + 1})
    sides_c = sorted({1, max(1, columns - 1), columns, columns + 1, 2 * columns + 1})
    for side in sides_r:
        yield side, int(rng.choice(sides_c)), int(rng.choice(sides_r))
        yield int(rng.choice(sides_r)), int(rng.choice(sides_c)), side
    while True:
        m, k = int(rng.choice(sides_r)), int(rng.choice(sides_r))
        if rng.random() < 0.3:
            m, k = int(rng.integers(1, 40)), int(rng.integers(1, 40))
        yield m, int(rng.choice(sides_c)), k


def _codes(fmt: Format, shape: tuple[int, int], kind: int, rng: np.random.Generator) -> npt.NDArray[Any]:
    """Random codes, sparse ones, extreme ones, and any at all."""
    bits = int(fmt.bits)
    codes = rng.integers(0, 1 << bits, shape)
    way = kind % 4
    if way == 1:
        codes[rng.random(shape) < 0.8] = 0
    elif way == 2:
        extremes = np.array([0, 1, (1 << (bits - 1)) - 1, 1 << (bits - 1), (1 << bits) - 1])
        codes = rng.choice(extremes, shape)
    elif way == 3 and isinstance(fmt, FloatFormat):
        # Near one: sums neither vanish nor overflow.
        one = ((1 << (fmt.exponent_bits - 1)) - 1) << fmt.mantissa_bits
        codes = one + rng.integers(-(1 << fmt.mantissa_bits), 1 << fmt.mantissa_bits, shape)
        codes |= rng.integers(0, 2, shape) << (bits - 1)
    return codes.astype(np.uint8 if bits == 8 else np.uint16)


class _Played:
    """Stimulus and answers of one job after the other."""

    def __init__(self, inputs: tuple[Port, ...], outputs: tuple[Port, ...]) -> None:
        # A cycle of reset.
        self._inputs = {port.name: [_zeros(port, 1)] for port in inputs}
        self._outputs = {port.name: [_zeros(port, 1)] for port in outputs}
        self._after = {port.name: _zeros(port, 1) for port in outputs}
        self._ports = inputs, outputs
        self.cycles = 1

    def add(self, inputs: dict[str, npt.NDArray[Any]], outputs: dict[str, npt.NDArray[Any]]) -> None:
        """A job's stimulus, its start first, and its answers: those of its cycles and of the one after."""
        for name, values in inputs.items():
            self._inputs[name].append(values)
        for name, values in outputs.items():
            self._outputs[name] += [self._after[name], values[:-1]]
            self._after[name] = values[-1:]
        self.cycles += len(inputs["rst_ni"])

    def trace(self, cases: int, marks: dict[str, int]) -> Trace:
        """All of it, with some idle cycles at the end."""
        inputs, outputs = self._ports
        for port in inputs:
            self._inputs[port.name].append(np.full(4, True) if port.name == "rst_ni" else _zeros(port, 4))
        for port in outputs:
            self._outputs[port.name] += [self._after[port.name], _zeros(port, 3)]
        marks["end"] = self.cycles
        return Trace(_joined(self._inputs), _joined(self._outputs), cases, compared_from=1, marks=marks)


def _zeros(port: Port, cycles: int) -> npt.NDArray[np.int64]:
    return np.zeros((cycles, port.lanes), np.int64)


def _joined(parts: dict[str, list[npt.NDArray[Any]]]) -> dict[str, npt.NDArray[Any]]:
    return {name: np.concatenate([part.reshape(len(part), -1) for part in found]) for name, found in parts.items()}


def tiles(matrix: npt.NDArray[Any], rows: int, columns: int) -> npt.NDArray[Any]:
    """Tiles of a matrix filled up with zeros: (down, across, rows, columns)."""
    padded = np.pad(matrix, ((0, -matrix.shape[0] % rows), (0, -matrix.shape[1] % columns)))
    down, across = padded.shape[0] // rows, padded.shape[1] // columns
    return padded.reshape(down, rows, across, columns).transpose(0, 2, 1, 3)
