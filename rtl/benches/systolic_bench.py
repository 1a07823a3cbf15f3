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

_LONG = 300
"""Vectors of a long fold, and folds of a long job: more than 8 bits count."""

_MOST = (1 << 15) + 1
"""Vectors of the longest fold, and folds of the longest job: all 16 bits count."""

_PATIENCE = 300
"""Cycles of a job from which on it is stalled in half of them at most."""

_SOME = 15
"""Folds across, of the folds of a long job."""

_SMALL = 16
"""Elements of an array whose long jobs simulate quickly."""


def operand_format(parameters: Mapping[str, int]) -> Format:
    """The format of an array's operands."""
    if not parameters.get("Float", 0):
        return get_format("int8")
    e, m = parameters["ExponentBits"], parameters["MantissaBits"]
    names = ("bf16", "e4m3fn", "e5m2", "fp16")
    formats = [f for f in map(get_format, names) if isinstance(f, FloatFormat)]
    return next(f for f in formats if (f.exponent_bits, f.mantissa_bits) == (e, m))


class SystolicBench(Bench):
    """Jobs of all sizes, one behind the other, on random and adversarial data, with random stalls throughout; long ones; starts
    that come too early, while the array is stalled, or without folds or vectors; resets in the middle of a job.

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

    burst: ClassVar[tuple[int, int, int]]
    """Sides m, n and k of a job of one fold with a few vectors, which shows the rate."""

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
        done, jobs = 0, 0
        marks: dict[str, int] = {}

        def job(shape: tuple[int, int, int], stalled: float, *, cut: bool = False) -> int:
            nonlocal done, jobs
            m, n, k = shape
            a, b = _codes(fmt, (m, k), jobs, rng), _codes(fmt, (k, n), jobs + 1, rng)
            taken, length = self.operands(parameters, a, b), self.length(m, k)
            # Stalls to the end of the job: it moves at most so often.
            moves = len(taken["activations_i"]) // length * (3 * rows + columns + length)
            stalled = min(stalled, 0.5) if moves > _PATIENCE else stalled
            stalls = rng.random(int(moves / (1 - stalled)) + 1000) < stalled
            run = simulate_matmul(
                decode(a, fmt), decode(b, fmt), array=array, a_format=fmt, b_format=fmt, accumulator=sums, stalls=stalls,
                record=True,
            )  # fmt: skip
            marks[f"job {jobs}"] = played.cycles
            until = int(rng.integers(1, run.cycles + 1)) if cut else None
            self._play(played, run, taken, length, stalls, fmt, rng, until)
            jobs += 1
            if not cut:
                done += run.folds
            return run.folds

        # The first jobs, from which the latency is read, run without stalls.
        job((1, 1, 1), 0)
        job(self.burst, 0)
        for shape in self._long(rows, columns, parameters.get("FoldOverlap", 2)):
            job(shape, 0.1 if max(shape) < _MOST else 0)
        drawn = 0
        for number, shape in enumerate(_shapes(rows, columns, rng)):
            if drawn >= cases and number:
                break
            drawn += job(shape, rng.choice([0.0, 0.1, 0.5, 0.9]))
            if number == 0 or rng.random() < 0.2:
                self._idle(played, rng)
            if number == 0 or rng.random() < 0.1:
                job(shape, rng.choice([0.0, 0.5]), cut=True)
        return played.trace(done, marks)

    def _long(self, rows: int, columns: int, overlap: int) -> Iterator[tuple[int, int, int]]:
        """Sides of jobs whose folds have many vectors, and in small arrays of jobs that have many folds: in the smallest
        arrays very many."""
        m, n, k = (_LONG if side > 1 else 1 for side in self.burst)
        yield m, n, k
        if rows * columns <= _SMALL:
            down = -(-_LONG // _SOME) * rows
            # The side that streams is 1.
            yield (1, _SOME * columns, down) if m > 1 else (down, _SOME * columns, 1)
        if (rows, columns, overlap) == (1, 1, 2):
            m, n, k = (_MOST if side > 1 else 1 for side in self.burst)
            yield m, n, k
            yield 1, _MOST, 1

    def _idle(self, played: _Played, rng: np.random.Generator) -> None:
        """Cycles in which the array is offered starts that it must not take: while it is stalled, of no folds, of no vectors."""
        cycles = 16
        stall = rng.random(cycles) < 0.5
        stall[:6] = [True, True, False, False, True, False]
        start = rng.random(cycles) < 0.7
        start[:6] = [True, False, True, True, True, False]
        folds, length = rng.integers(1, 1 << 16, (2, cycles))
        none = rng.integers(0, 3, cycles)  # folds, vectors, both
        none[2:4] = [0, 1]
        folds[~stall & start & (none != 1)] = 0
        length[~stall & start & (none != 0)] = 0
        played.idle({"stall_i": stall, "start_i": start, "folds_i": folds, "length_i": length}, rng)

    def _play(
        self,
        played: _Played,
        run: ArrayRun,
        taken: dict[str, npt.NDArray[Any]],
        length: int,
        stalls: npt.NDArray[np.bool_],
        fmt: Format,
        rng: np.random.Generator,
        until: int | None,
    ) -> None:
        """The job's start, in an idle cycle that also shows the last sums of the job before, and its cycles; or those
        ``until`` one in which a reset comes."""
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
        if until is not None:
            inputs, outputs = ({name: v[: until + 1].copy() for name, v in kept.items()} for kept in (inputs, outputs))
            inputs["rst_ni"][until] = False
            for values in outputs.values():
                values[until] = 0
        played.add(inputs, outputs)

    def latency(self, parameters: Mapping[str, int], trace: Trace, observed: Values) -> Latency:
        """From jobs 0 and 1, a fold of one vector and a fold of several. Operands are counted as the array takes them, as its
        output ready_o or activation_ready_o says: an output-stationary fold gives its results at the end, whatever it takes."""
        ready, valid = observed[self.flags[-2][0]], observed["valid_o"]
        spans = []
        for number in (0, 1):
            # The cycle of its start still shows the last sums of the job before.
            cycles = slice(trace.marks[f"job {number}"] + 1, trace.marks[f"job {number + 1}"] + 1)
            spans.append((np.flatnonzero(ready[cycles]), np.flatnonzero(valid[cycles])))
        (first_in, first_out), (later_in, later_out) = spans
        return Latency(
            int(first_out[0] - first_in[0]),
            float(np.diff(self.paced(later_in, later_out)).mean()),
            int(later_out[-1] - later_in[-1]),
            "stall_i holds everything",
        )

    @abstractmethod
    def paced(self, taken: npt.NDArray[np.int64], shown: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Of the cycles in which a fold's operands are taken and its results show, those that tell the rate."""


def _shapes(rows: int, columns: int, rng: np.random.Generator) -> Iterator[tuple[int, int, int]]:
    """Sizes (m, n, k): sides of 1, about the array's, and beyond it."""
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

    def idle(self, control: dict[str, npt.NDArray[Any]], rng: np.random.Generator) -> None:
        """Cycles between jobs: a stall holds what shows, and without one nothing shows any more."""
        cycles = len(control["stall_i"])
        inputs = {"rst_ni": np.ones(cycles, np.bool_), **control}
        for port in self._ports[0]:
            if port.name not in inputs:
                inputs[port.name] = rng.integers(0, 1 << port.bits, (cycles, port.lanes))
        holding = np.logical_and.accumulate(control["stall_i"])
        outputs = {name: np.where(holding[:, None], after.reshape(1, -1), 0) for name, after in self._after.items()}
        self.add(inputs, outputs)

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
