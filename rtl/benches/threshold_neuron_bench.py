"""``threshold_neuron`` against ``accelerators.binary.threshold_cell``, and whole neurons as ``node_schedule`` puts them on it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from accelerators.binary.node_schedule import schedule_max_pool, schedule_neuron
from accelerators.binary.threshold_cell import Operation, literals, step
from rtl.bench import Bench, Latency, Port, Trace, Values
from rtl.benches.probes import CYCLES, OPERANDS, measured, taken

Bits = npt.NDArray[np.bool_]
Words = npt.NDArray[np.int64]

_WORD_BITS = 16
"""Of the longest words that are added and compared."""

_EXHAUSTIVE_WORD_BITS = 4
_LARGEST_NODE = 10
_ENABLED = 0.9


class ThresholdNeuronBench(Bench):
    """Every input at every threshold; additions, comparisons, max-pools; neurons that a cell does in many cycles; anything."""

    unit = "threshold_neuron"

    def inputs(self, parameters: Mapping[str, int]) -> tuple[Port, ...]:
        n = parameters["Inputs"]
        words = Port("x_i", n), Port("w_i", n), Port("threshold_i", (n + 1).bit_length())
        return Port("rst_ni"), Port("enable_i"), Port("operation_i", 2), Port("first_i"), *words

    def outputs(self, parameters: Mapping[str, int]) -> tuple[Port, ...]:
        return Port("valid_o"), Port("y_o"), Port("state_o")

    def trace(self, parameters: Mapping[str, int], cases: int, rng: np.random.Generator) -> Trace:
        n = parameters["Inputs"]
        program = _Program(n)
        ones = np.ones((OPERANDS, n), bool)  # the probe
        program.neurons(ones, ones, np.full(OPERANDS, n))
        every = (np.arange(1 << n)[:, None] >> np.arange(n) & 1).astype(bool)
        for threshold in range(n + 2):  # the count of ones against it, then of products with random weights
            program.neurons(every, np.ones_like(every), np.full(len(every), threshold))
            program.neurons(every, rng.random(every.shape) < 0.5, np.full(len(every), threshold))
        for operation in (Operation.ADD, Operation.COMPARE):
            for bits in range(1, _EXHAUSTIVE_WORD_BITS + 1):
                a, b, begin = (axis.reshape(-1) for axis in np.mgrid[: 1 << bits, : 1 << bits, :2])
                program.words(operation, a, b, begin, bits)
            for bits in rng.integers(1, _WORD_BITS + 1, 200):
                a, b, begin = rng.integers(0, 1 << bits, 3)
                program.words(operation, a[None], b[None], begin[None] & 1, int(bits))
        program.pools(every, 1)
        program.pools(rng.random((200, n * 3)) < 0.3 / n, 3)
        if n >= 3:
            for size in {n + 1, _LARGEST_NODE} if n < _LARGEST_NODE else ():
                program.node(size, rng)
        program.anything(cases, rng)
        return program.trace(rng)

    def latency(self, parameters: Mapping[str, int], trace: Trace, observed: Values) -> Latency:
        given, shown = np.flatnonzero(taken).tolist(), np.flatnonzero(observed["valid_o"][1:CYCLES]) + 1
        return measured((given[0], int(shown[0])), given[1:], shown[1:].tolist(), "enable_i low keeps output and state")


class _Program:
    """What a cell is told cycle by cycle, and what the model answers."""

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs
        self.state = np.zeros((), bool)
        self.columns: list[tuple[Words, ...]] = []
        self.cases = 0

    def _append(
        self, operation: object, first: object, x: Bits, w: Bits, threshold: object, y: Bits, state: Bits, cases: int
    ) -> None:
        """Cycles in order; x and w of shape (cycles, inputs), the rest (cycles,) or one for all."""
        weight = np.int64(1) << np.arange(self.inputs)
        parts = (operation, first, x @ weight, w @ weight, threshold, y, state)
        self.columns.append(tuple(np.broadcast_to(np.asarray(part, np.int64), (len(x),)) for part in parts))
        self.state = np.asarray(state)[-1]
        self.cases += cases

    def neurons(self, x: Bits, w: Bits, threshold: Words) -> None:
        y, _ = step(Operation.NEURON, literals(x, w), threshold=threshold)
        self._append(Operation.NEURON, False, x, w, threshold, y, np.broadcast_to(self.state, y.shape), len(y))

    def words(self, operation: Operation, a: Words, b: Words, begin: Words, bits: int) -> None:
        """Pairs of words one after the other, each the lowest bit first."""
        x = np.zeros((len(a), bits, max(self.inputs, 3)), bool)
        for place in range(bits):
            x[:, place, 0], x[:, place, 1] = a >> place & 1, b >> place & 1
        x[:, 0, 2] = begin
        x = x[..., : self.inputs]
        self._sequences(operation, x, len(a))

    def pools(self, windows: Bits, cycles: int) -> None:
        self._sequences(Operation.MAX_POOL, windows.reshape(len(windows), cycles, self.inputs), len(windows))

    def _sequences(self, operation: Operation, x: Bits, cases: int) -> None:
        """Sequences of the same length; x of shape (sequences, cycles, inputs)."""
        count, cycles, _ = x.shape
        y, state = np.zeros((2, count, cycles), bool)
        held = np.zeros(count, bool)
        for cycle in range(cycles):
            y[:, cycle], state[:, cycle] = step(operation, x[:, cycle], held, first=cycle == 0)
            held = state[:, cycle]
        flat = x.reshape(count * cycles, -1)
        first = np.tile(np.arange(cycles) == 0, count)
        self._append(operation, first, flat, np.ones_like(flat), 0, y.reshape(-1), state.reshape(-1), cases)

    def node(self, size: int, rng: np.random.Generator) -> None:
        """A neuron and a window that are larger than the cell: every input, with random weights and thresholds."""
        x = (np.arange(1 << size)[:, None] >> np.arange(size) & 1).astype(bool)
        w = rng.random(x.shape) < 0.5
        threshold = rng.integers(0, size + 2, len(x))
        for schedule in (schedule_neuron(size, cell_inputs=self.inputs), schedule_max_pool(size, cell_inputs=self.inputs)):
            played = schedule.play(x, w, threshold=threshold)
            count = len(schedule.instructions)
            operations = np.tile([each.operation for each in schedule.instructions], len(x))
            first = np.tile([each.first for each in schedule.instructions], len(x))
            seen, weighed = (part.transpose(1, 0, 2).reshape(len(x) * count, -1) for part in (played.x, played.w))
            self._append(operations, first, seen, weighed, 0, played.output.T.reshape(-1), played.state.T.reshape(-1), len(x))

    def anything(self, cases: int, rng: np.random.Generator) -> None:
        """Random operations, one after the other on one state."""
        x, w = rng.random((2, cases, self.inputs)) < 0.5
        operation, first = rng.integers(0, 4, cases), rng.random(cases) < 0.3
        threshold = rng.integers(0, 1 << (self.inputs + 1).bit_length(), cases)
        y, state = np.zeros((2, cases), bool)
        bits, held = literals(x, w), self.state
        for i in range(cases):
            y[i], held = step(int(operation[i]), bits[i], held, first=bool(first[i]), threshold=threshold[i])
            state[i] = held
        self._append(operation, first, x, w, threshold, y, state, cases)

    def trace(self, rng: np.random.Generator) -> Trace:
        """The probe, then all the rest with random cycles between in which the cell is told to keep still."""
        operation, first, x, w, threshold, y, state = (np.concatenate(part) for part in zip(*self.columns, strict=True))
        held = np.repeat(np.arange(OPERANDS, y.size), rng.geometric(_ENABLED, y.size - OPERANDS))
        enable = np.concatenate([taken, np.append(held[1:] != held[:-1], True)])
        index = np.concatenate([np.maximum(np.cumsum(taken) - 1, 0), held])
        enable[0] = True  # the reset comes first
        last = np.maximum.accumulate(np.where(enable[1:], index[1:], -1))
        # While it is not enabled, any instruction may lie there.
        index = np.where(enable, index, rng.integers(0, y.size, index.size))
        shown = {"valid_o": enable[1:], "y_o": y[last], "state_o": state[last]}
        outputs = {name: np.concatenate([[0, 0], values[:-1]]) for name, values in shown.items()}
        inputs = {
            "rst_ni": np.arange(index.size) > 0,
            "enable_i": enable,
            "operation_i": operation[index],
            "first_i": first[index],
            "x_i": x[index],
            "w_i": w[index],
            "threshold_i": threshold[index],
        }
        return Trace(inputs, outputs, self.cases, compared_from=1)
