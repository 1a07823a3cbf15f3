"""Nodes of a binary neural network on threshold cells: which operation each cell does in each cycle.

A neuron with no more inputs than a cell takes one cycle. A larger one counts its products of ±1 with a tree of additions and
compares the count with its threshold. Each addition takes one more input as the carry that comes in: two numbers of k bits and
one bit give 2^(k+1) − 1 at most, which k + 1 bits hold, and 2^k − 1 inputs are counted in 2^k − 1 − k cycles of a cell. The tree
is walked depth first, which keeps few numbers at a time, as in TULIP (``threshold_cell`` names the paper). Words are added and
compared bit by bit, in one cell without a break, since the carry stays in it.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from accelerators.binary.threshold_cell import Operation, as_bits, as_integers, broadcast, literals, step
from hwsim.views.display import displayed
from numerics import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

ZERO, ONE = -1, -2
"""Bits that are constant."""

NO_BIT = -3
"""No bit is kept."""


class Instruction(NamedTuple):
    """What a cell does in a cycle.

    Bits are numbered: the node's inputs from 0, then the bits of its threshold, the lowest first, then those that cells compute.

    Attributes:
        cycle: from 0.
        cell: from 0.
        operation: of the cell.
        first: whether a word or window begins.
        sources: bits that it reads, for its first inputs; the other inputs see 0.
        output: bit that its output becomes, there from the next cycle on.
        state: bit that its state becomes, or ``NO_BIT``.
    """

    cycle: int
    cell: int
    operation: Operation
    first: bool
    sources: tuple[int, ...]
    output: int
    state: int


@dataclass(frozen=True)
class Played:
    """What cells saw and showed when a schedule ran; instructions in order, a batch of nodes side by side.

    Attributes:
        x: inputs of the cell: (instructions, batch, cell_inputs).
        w: their weights, 1 for bits that cells computed: likewise.
        output: (instructions, batch).
        state: after each instruction: (instructions, batch).
    """

    x: NDArray[np.bool_]
    w: NDArray[np.bool_]
    output: NDArray[np.bool_]
    state: NDArray[np.bool_]


@displayed
@dataclass(frozen=True)
class Schedule:
    """A node's program.

    Attributes:
        inputs: of the node.
        cell_inputs: of a cell.
        cells: that work on it.
        threshold_bits: of its threshold; 0 for a node without one.
        instructions: by cycle, then by cell.
        result: the bit that is the node's output.
        count: bits of the number of ones that it ends with, the lowest first; empty for a node with one bit of output.
    """

    inputs: int
    cell_inputs: int
    cells: int
    threshold_bits: int
    instructions: tuple[Instruction, ...]
    result: int
    count: tuple[int, ...] = ()

    @property
    def cycles(self) -> int:
        """From the first instruction through the last."""
        return self.instructions[-1].cycle + 1

    @cached_property
    def stored_bits(self) -> int:
        """The most bits that cells computed and that are read again in a later cycle."""
        last = {source: each.cycle for each in self.instructions for source in each.sources}
        change = np.zeros(self.cycles + 1, np.int64)
        for each in self.instructions:
            for bit in (each.output, each.state):
                if last.get(bit, -1) > each.cycle:
                    change[each.cycle + 1] += 1
                    change[last[bit] + 1] -= 1
        return int(np.cumsum(change).max())

    @cached_property
    def register_accesses(self) -> int:
        """Bits that cells read of what was stored (computed bits and the threshold) and bits that they store for later."""
        read = [source for each in self.instructions for source in each.sources if source >= self.inputs]
        kept = set(read) | {self.result, *self.count}
        written = sum((each.output in kept) + (each.state in kept) for each in self.instructions)
        return len(read) + written

    def run(self, x: Any, w: Any = True, *, threshold: Any = 0) -> NDArray[np.bool_]:
        """Outputs of nodes.

        Args:
            x: bits, shape (batch, inputs).
            w: weights as bits (1 for +1) that broadcast to the shape of x; all 1 makes a neuron a threshold on the count of ones.
            threshold: integers from 0 to inputs + 1 that broadcast to (batch,); unused by a node without one.

        Returns:
            bool, shape (batch,).

        Raises:
            InputError: anything but bits, another shape, or a threshold that is no integer or out of range.
        """
        return self.play(x, w, threshold=threshold).output[-1]

    def counted(self, x: Any, w: Any = True) -> NDArray[np.int64]:
        """Numbers of products that are +1, of a schedule that ends with a count: integers of shape (batch,).

        Raises:
            InputError: a node that ends with one bit; and as ``run``.
        """
        if not self.count:
            raise InputError("count: this node ends with one bit and no count; take schedule_count")
        _, memory = self._execute(x, w, 0)
        return np.sum([memory[bit].astype(np.int64) << place for place, bit in enumerate(self.count)], axis=0)

    def play(self, x: Any, w: Any = True, *, threshold: Any = 0) -> Played:
        """As ``run``, with all that cells saw and showed."""
        return self._execute(x, w, threshold)[0]

    def _execute(self, x: Any, w: Any, threshold: Any) -> tuple[Played, dict[int, NDArray[np.bool_]]]:
        """What cells saw and showed, and every bit by its number."""
        bits = as_bits("x", x)
        if bits.ndim != 2 or bits.shape[1] != self.inputs:
            raise InputError(f"x: expected shape (batch, {self.inputs}), got {bits.shape}")
        weights = broadcast("w", as_bits("w", w), bits.shape)
        batch, count = bits.shape[0], len(self.instructions)
        limit = as_integers("threshold", threshold, (batch,))
        if limit.size and not 0 <= limit.min() <= limit.max() <= self.inputs + 1:
            raise InputError(f"threshold: expected 0 to {self.inputs + 1}, got {limit.min()} to {limit.max()}")
        memory: dict[int, NDArray[np.bool_]] = {ZERO: np.zeros(batch, bool), ONE: np.ones(batch, bool)}
        memory |= {self.inputs + i: (limit >> i & 1).astype(bool) for i in range(self.threshold_bits)}
        seen, weighed = np.zeros((2, count, batch, self.cell_inputs), bool)
        weighed[:] = True
        output, state = np.zeros((2, count, batch), bool)
        held = np.zeros((self.cells, batch), bool)
        for index, each in enumerate(self.instructions):  # by cycle, so that what is read has been written
            for place, source in enumerate(each.sources):
                seen[index, :, place] = bits[:, source] if 0 <= source < self.inputs else memory[source]
                if 0 <= source < self.inputs:
                    weighed[index, :, place] = weights[:, source]
            bits_in = literals(seen[index], weighed[index])
            output[index], state[index] = step(each.operation, bits_in, held[each.cell], first=each.first, threshold=limit)
            held[each.cell] = state[index]
            memory[each.output] = output[index]
            if each.state != NO_BIT:
                memory[each.state] = state[index]
        return Played(seen, weighed, output, state), memory


def schedule_neuron(inputs: int, *, cell_inputs: int, cells: int = 1) -> Schedule:
    """A neuron: whether as many products of inputs and weights as its threshold are +1.

    Args:
        inputs: of the neuron.
        cell_inputs: of a cell; at least 3 if the neuron has more inputs than a cell.
        cells: that share the additions.

    Raises:
        InputError: a number out of range.
    """
    _check("inputs", inputs, 1)
    _check("cell_inputs", cell_inputs, 1)
    _check("cells", cells, 1)
    if inputs <= cell_inputs:
        only = Instruction(0, 0, Operation.NEURON, True, tuple(range(inputs)), inputs, NO_BIT)
        return Schedule(inputs, cell_inputs, cells, 0, (only,), inputs)
    _check("cell_inputs", cell_inputs, 3)
    threshold_bits = (inputs + 1).bit_length()
    plan = _Plan(inputs + threshold_bits)
    count, ready = plan.count(tuple(range(inputs)))
    pairs = [(count[i] if i < len(count) else ZERO, inputs + i) for i in range(threshold_bits)]
    outputs, _, _ = plan.job(Operation.COMPARE, pairs, ONE, ready, carry_out=False)
    return Schedule(inputs, cell_inputs, cells, threshold_bits, plan.placed(cells), outputs[-1])


def schedule_count(inputs: int, *, cells: int = 1) -> Schedule:
    """The number of products that are +1, of cells with three inputs or more; bits of the result in ``count``.

    Raises:
        InputError: a number out of range.
    """
    _check("inputs", inputs, 2)
    _check("cells", cells, 1)
    plan = _Plan(inputs)
    count, _ = plan.count(tuple(range(inputs)))
    return Schedule(inputs, 3, cells, 0, plan.placed(cells), count[-1], tuple(count))


def schedule_max_pool(inputs: int, *, cell_inputs: int) -> Schedule:
    """The maximum of a window of bits, on one cell that takes ``cell_inputs`` of them a cycle.

    Raises:
        InputError: a number out of range.
    """
    _check("inputs", inputs, 1)
    _check("cell_inputs", cell_inputs, 1)
    parts = [tuple(range(at, min(at + cell_inputs, inputs))) for at in range(0, inputs, cell_inputs)]
    made = tuple(Instruction(i, 0, Operation.MAX_POOL, i == 0, part, inputs + i, NO_BIT) for i, part in enumerate(parts))
    return Schedule(inputs, cell_inputs, 1, 0, made, made[-1].output)


class _Job(NamedTuple):
    """Instructions that one cell does in a row: sources, output and state of each."""

    operation: Operation
    steps: list[tuple[tuple[int, ...], int, int]]
    after: tuple[int, ...]


@dataclass
class _Plan:
    """Jobs in the order of a depth-first walk, before they have cells and cycles."""

    next_bit: int
    jobs: list[_Job] = field(default_factory=list)

    def count(self, bits: tuple[int, ...]) -> tuple[list[int], tuple[int, ...]]:
        """Jobs that count ones: the bits of the count, and the jobs that it waits for."""
        if len(bits) == 1:
            return list(bits), ()
        half = len(bits) // 2
        left, left_jobs = self.count(bits[:half])
        right, right_jobs = self.count(bits[half:-1]) if len(bits) > 2 else (list(bits[half:]), ())
        carry_in = bits[-1] if len(bits) > 2 else ZERO
        width = max(len(left), len(right))
        pairs = [(left[i] if i < len(left) else ZERO, right[i] if i < len(right) else ZERO) for i in range(width)]
        wider = len(bits).bit_length() > width
        outputs, carry, job = self.job(Operation.ADD, pairs, carry_in, left_jobs + right_jobs, carry_out=wider)
        return [*outputs, carry] if carry != NO_BIT else outputs, (job,)

    def job(
        self, operation: Operation, pairs: list[tuple[int, int]], begin: int, after: tuple[int, ...], *, carry_out: bool
    ) -> tuple[list[int], int, int]:
        """A word operation: the bits of its outputs, of its last state, and its number."""
        outputs = list(range(self.next_bit, self.next_bit + len(pairs)))
        self.next_bit += len(pairs) + carry_out
        carry = self.next_bit - 1 if carry_out else NO_BIT
        sources: list[tuple[int, ...]] = [(*pairs[0], begin), *pairs[1:]]
        states = [NO_BIT] * (len(pairs) - 1) + [carry]
        steps = list(zip(sources, outputs, states, strict=True))
        self.jobs.append(_Job(operation, steps, after))
        return outputs, carry, len(self.jobs) - 1

    def placed(self, cells: int) -> tuple[Instruction, ...]:
        """List scheduling: a cell that is free takes the first job of the walk whose operands are there."""
        users: dict[int, list[int]] = {}
        missing = [len(job.after) for job in self.jobs]
        for index, job in enumerate(self.jobs):
            for other in job.after:
                users.setdefault(other, []).append(index)
        ready = [index for index, count in enumerate(missing) if count == 0]
        free = list(range(cells))
        running: list[tuple[int, int, int]] = []  # end, job, cell
        made, now = [], 0
        while ready or running:
            while ready and free:
                index, cell = heapq.heappop(ready), heapq.heappop(free)
                job = self.jobs[index]
                for i, (sources, output, state) in enumerate(job.steps):
                    made.append(Instruction(now + i, cell, job.operation, i == 0, sources, output, state))
                heapq.heappush(running, (now + len(job.steps), index, cell))
            now = running[0][0]
            while running and running[0][0] == now:
                _, index, cell = heapq.heappop(running)
                heapq.heappush(free, cell)
                for user in users.get(index, ()):
                    missing[user] -= 1
                    if missing[user] == 0:
                        heapq.heappush(ready, user)
        return tuple(sorted(made, key=lambda each: (each.cycle, each.cell)))


def _check(name: str, value: Any, low: int) -> None:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < low:
        raise InputError(f"{name}: expected an integer ≥ {low}, got {value!r}")
