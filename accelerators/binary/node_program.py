"""What a processing element of threshold cells does for a node of any size: the shortest program that its registers can hold.

A node whose tree of additions (``node_schedule``) keeps more numbers than the registers hold is counted in pieces, one after
another. Each piece's count is added to the total in one cell, bit by bit, and the total is compared with the threshold last.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from accelerators.binary.node_schedule import Schedule, schedule_count, schedule_neuron
from accelerators.binary.threshold_cell import Operation, as_bits, as_integers, broadcast, literals, step
from hwsim.views.display import displayed
from numerics import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST_TREE = 4096
"""Inputs of the largest tree that is tried; larger nodes are counted in pieces."""


@displayed
@dataclass(frozen=True)
class NodeProgram:
    """A node's program.

    Attributes:
        inputs: of the node.
        whole: the schedule of the node in one go; None if it is counted in pieces.
        size: inputs of a piece.
        pieces: schedules that count a piece: of the full ones and of what is left; None for one input, which is its own count.
        repeats: how many of each.
    """

    inputs: int
    whole: Schedule | None
    size: int = 0
    pieces: tuple[Schedule | None, ...] = ()
    repeats: tuple[int, ...] = ()

    @property
    def threshold_bits(self) -> int:
        """Bits of a threshold, which is at most one above the number of inputs."""
        return (self.inputs + 1).bit_length()

    @cached_property
    def _widths(self) -> NDArray[np.int64]:
        """Bits of the words of each addition of a piece's count to the total."""
        sizes = np.repeat([1 if p is None else p.inputs for p in self.pieces], self.repeats)
        return np.maximum(_bit_length(np.cumsum(sizes)[:-1]), _bit_length(sizes[1:]))

    @cached_property
    def cycles(self) -> int:
        """From the first instruction through the last."""
        if self.whole is not None:
            return self.whole.cycles
        counting = sum(n * p.cycles for p, n in zip(self.pieces, self.repeats, strict=True) if p is not None)
        return counting + int(self._widths.sum()) + self.threshold_bits

    @cached_property
    def instructions(self) -> int:
        """Cycles of cells, all cells together."""
        if self.whole is not None:
            return len(self.whole.instructions)
        counting = sum(n * len(p.instructions) for p, n in zip(self.pieces, self.repeats, strict=True) if p is not None)
        return counting + int(self._widths.sum()) + self.threshold_bits

    @cached_property
    def register_accesses(self) -> int:
        """Bits read from and written to the registers: two operands and a result for each bit of an addition, and its carry."""
        if self.whole is not None:
            return self.whole.register_accesses
        counting = sum(n * p.register_accesses for p, n in zip(self.pieces, self.repeats, strict=True) if p is not None)
        return counting + int(3 * self._widths.sum()) + len(self._widths) + 2 * self.threshold_bits + 1

    @cached_property
    def stored_bits(self) -> int:
        """The most bits of its own that it keeps at a time."""
        if self.whole is not None:
            return self.whole.stored_bits
        total = self.inputs.bit_length()
        counting = max((p.stored_bits for p in self.pieces if p is not None), default=0)
        return total + max(counting, self.size.bit_length())

    def run(self, x: Any, w: Any = True, *, threshold: Any = 0) -> NDArray[np.bool_]:
        """Outputs of nodes, each instruction done by ``threshold_cell.step``; arguments and errors as ``Schedule.run``."""
        return self.stepped(x, w, threshold=threshold)[0]

    def stepped(self, x: Any, w: Any = True, *, threshold: Any = 0) -> tuple[NDArray[np.bool_], int]:
        """As ``run``, with the cycles that went by, counted while it ran."""
        if self.whole is not None:
            played = self.whole.play(x, w, threshold=threshold)
            return played.output[-1], 1 + max(each.cycle for each in self.whole.instructions)
        bits = as_bits("x", x)
        if bits.ndim != 2 or bits.shape[1] != self.inputs:
            raise InputError(f"x: expected shape (batch, {self.inputs}), got {bits.shape}")
        weights = broadcast("w", as_bits("w", w), bits.shape)
        limit = as_integers("threshold", threshold, bits.shape[:1])
        if limit.size and not 0 <= limit.min() <= limit.max() <= self.inputs + 1:
            raise InputError(f"threshold: expected 0 to {self.inputs + 1}, got {limit.min()} to {limit.max()}")
        total, at, cycles = np.zeros(len(bits), np.int64), 0, 0
        for piece in (p for p, n in zip(self.pieces, self.repeats, strict=True) for _ in range(n)):
            size = 1 if piece is None else piece.inputs
            part = slice(at, at + size)
            if piece is None:
                count = literals(bits[:, at], weights[:, at]).astype(np.int64)
            else:
                count, cycles = piece.counted(bits[:, part], weights[:, part]), cycles + piece.cycles
            if at:
                total, _, spent = _serial(Operation.ADD, total, count, max(at.bit_length(), size.bit_length()), False)
                cycles += spent
            else:
                total = count
            at += size
        _, state, spent = _serial(Operation.COMPARE, total, limit, self.threshold_bits, True)
        return state, cycles + spent


def _serial(
    operation: Operation, a: NDArray[np.int64], b: NDArray[np.int64], width: int, begin: bool
) -> tuple[NDArray[np.int64], NDArray[np.bool_], int]:
    """Words through one cell, the lowest bit first: the word that comes out with its carry on top, the last state, the cycles."""
    word, state = np.zeros_like(a), np.zeros(a.shape, bool)
    for place in range(width):
        bits = np.stack([a >> place & 1, b >> place & 1, np.full_like(a, begin and place == 0)], axis=-1)
        out, state = step(operation, bits, state, first=place == 0)
        word |= out.astype(np.int64) << place
    return word | state.astype(np.int64) << width, state, width


def _bit_length(values: NDArray[Any]) -> NDArray[np.int64]:
    """Bits of whole numbers from 1 to 2^52."""
    return np.frexp(values.astype(float))[1].astype(np.int64)


@lru_cache(maxsize=4096)
def node_program(inputs: int, *, cell_inputs: int, cells: int, register_bits: int) -> NodeProgram:
    """The program with the fewest cycles that keeps no more than ``register_bits`` bits: the whole tree, or pieces of 2^j − 1.

    Args:
        inputs: of the node.
        cell_inputs: of a cell, at least 3.
        cells: of the processing element.
        register_bits: of the processing element.

    Raises:
        InputError: registers too small for any program.
    """
    candidates = []
    if inputs <= LARGEST_TREE:
        candidates.append(NodeProgram(inputs, schedule_neuron(inputs, cell_inputs=cell_inputs, cells=cells)))
    size = 3
    while size < min(inputs, LARGEST_TREE):
        candidates.append(_in_pieces(inputs, size, cells))
        size = 2 * size + 1
    fitting = [each for each in candidates if each.stored_bits <= register_bits]
    if not fitting:
        least = min(each.stored_bits for each in candidates)
        raise InputError(
            f"pe.register_bits: a node of {inputs} inputs keeps {least} bits at least; expected as many or more, "
            f"got {register_bits}"
        )
    return min(fitting, key=lambda each: (each.cycles, each.stored_bits))


def _in_pieces(inputs: int, size: int, cells: int) -> NodeProgram:
    full, left = divmod(inputs, size)
    count = _count_schedule(size, cells)
    if left == 0:
        return NodeProgram(inputs, None, size, (count,), (full,))
    rest = None if left == 1 else _count_schedule(left, cells)
    return NodeProgram(inputs, None, size, (count, rest), (full, 1))


@lru_cache(maxsize=4096)
def _count_schedule(inputs: int, cells: int) -> Schedule:
    return schedule_count(inputs, cells=cells)
