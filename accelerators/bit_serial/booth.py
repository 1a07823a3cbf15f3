"""Bit-serial multiply-accumulate over radix-4 Booth digits: a group of lanes, cycle by cycle, and what a matmul costs on it.

A lane multiplies a by b with one non-zero Booth digit of b a cycle and adds to a sum of its own; zero digits take no time. Lanes
of a group take their operands together and wait for the slowest of them, or, with ``shared_weight``, are all at the same bit
weight, so that one shift serves the group and a digit is skipped only where it is zero in every lane: the loop over the bit
weights outside that over the lanes, as in "Exploring the Performance Improvement of Tensor Processing Engines through
Transformation in the Bit-weight Dimension of MACs".

Timing, which is that of ``rtl/booth_mac.sv``: products accepted in cycle t add their digits from cycle t + 1 on, and take one
cycle if they have none; the sums show in the cycle after the last digit. The next products are accepted in the cycle of the last
digit. Sums that are not taken stop the lanes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.views.display import displayed, displaying
from numerics import InputError, booth_digits

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class LaneSignals:
    """What a group shows in each cycle, before the clock's edge.

    Attributes:
        presented: index of the products that are offered, −1 where none are: (cycles,).
        ready: whether offered products would be accepted.
        valid: whether the sums are results.
        sums: of the lanes as they stand: (cycles, lanes).
        active: lanes that add a digit: (cycles, lanes).
    """

    presented: NDArray[np.int64]
    ready: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    sums: NDArray[np.int64]
    active: NDArray[np.bool_]


@displayed
@dataclass(frozen=True)
class LaneRun:
    """What came of a run.

    Attributes:
        sums: after each of the products: (products, lanes).
        accepted: cycle in which each was accepted; −1 if the run was cut off before: (products,).
        finished: first cycle in which its sums showed, likewise.
        cycles: from the first cycle through that in which the last sums were taken.
        step_cycles: of them those in which the lanes stepped.
        active_digits: digits that each lane added: (lanes,).
        idle_digits: steps in which it added none: (lanes,).
        input_stall_cycles: products were offered and the group was not ready.
        output_stall_cycles: the group had digits left and could not step, its last sums not being taken.
        signals: of each cycle, if they were recorded.
    """

    sums: NDArray[np.int64]
    accepted: NDArray[np.int64]
    finished: NDArray[np.int64]
    cycles: int
    step_cycles: int
    active_digits: NDArray[np.int64]
    idle_digits: NDArray[np.int64]
    input_stall_cycles: int
    output_stall_cycles: int
    signals: LaneSignals | None = None


@displaying("utilisation")
@dataclass(frozen=True)
class MatmulCost:
    """Cycles of a matmul on a group.

    Attributes:
        cycles: from the first operands through the last results.
        steps: products that a lane multiplies one after another, those of missing columns included.
        active_digits: digits that are added, over all lanes.
        idle_digits: cycles in which a lane waits for another, over all lanes.
        lanes: of the group.
    """

    cycles: int
    steps: int
    active_digits: int
    idle_digits: int
    lanes: int

    @property
    def utilisation(self) -> float:
        """Share of the lanes' cycles in which a digit is added."""
        return self.active_digits / (self.lanes * self.cycles)


@displayed
@dataclass(frozen=True)
class LaneGroup:
    """A group of bit-serial lanes.

    Attributes:
        bits: of an operand, even, 2 to 16.
        lanes: that run in lockstep.
        accumulator_bits: of a sum, from 2 · bits to 62; it wraps.
        shared_weight: all lanes are at the same bit weight.

    Raises:
        InputError: a value out of range.
    """

    bits: int = 8
    lanes: int = 1
    accumulator_bits: int = 32
    shared_weight: bool = False

    def __post_init__(self) -> None:
        _check("bits", self.bits, 2, 16)
        if self.bits % 2:
            raise InputError(f"bits: expected an even number, got {self.bits}")
        _check("lanes", self.lanes, 1, 1 << 16)
        _check("accumulator_bits", self.accumulator_bits, 2 * self.bits, 62)

    def step_cycles(self, b: Any) -> NDArray[np.int64]:
        """Cycles that the lanes step for each group of products, if nothing stops them.

        Args:
            b: the operands that are recoded, integers of ``bits`` bits, shape (..., lanes).

        Returns:
            int64, shape (...): the most non-zero digits of a lane, or with ``shared_weight`` the bit weights at which any lane
            has one; at least 1.

        Raises:
            InputError: another number of lanes, not integers, or one that does not fit.
        """
        check_fits("b", np.asarray(b), self.bits)
        nonzero = booth_digits(b, self.bits) != 0
        if nonzero.ndim < 2 or nonzero.shape[-2] != self.lanes:
            raise InputError(f"b: expected shape (..., {self.lanes}), one for each lane, got {np.shape(b)}")
        counts = nonzero.any(axis=-2).sum(axis=-1) if self.shared_weight else nonzero.sum(axis=-1).max(axis=-1)
        return np.maximum(counts, 1).astype(np.int64)

    def run(
        self,
        a: Any,
        b: Any,
        *,
        accumulate: Any = True,
        offered: Any = (),
        taken: Any = (),
        record_cycles: int = 0,
    ) -> LaneRun:
        """Multiply and accumulate, cycle by cycle.

        Args:
            a: operands, integers of ``bits`` bits, shape (products, lanes).
            b: operands that are recoded, likewise.
            accumulate: whether the products are added to the sums so far or begin new ones: (products,) or one for all.
            offered: whether the next products are offered in each cycle; later cycles always offer them.
            taken: whether sums that show are taken in each cycle; later ones always are.
            record_cycles: 0 runs to the end; more run as many cycles and record what shows in them.

        Raises:
            InputError: shapes that do not match, not integers, or one that does not fit.
        """
        from accelerators.bit_serial import _kernels

        right, left = np.asarray(b), np.asarray(a)
        check_fits("b", right, self.bits)
        check_fits("a", left, self.bits)
        digits, left = booth_digits(right, self.bits), left.astype(np.int64)
        if digits.ndim != 3 or digits.shape[1] != self.lanes:
            raise InputError(f"b: expected shape (products, {self.lanes}), got {np.shape(b)}")
        if left.shape != digits.shape[:2]:
            raise InputError(f"a: expected shape {digits.shape[:2]}, that of b, got {left.shape}")
        _check("record_cycles", record_cycles, 0, 1 << 40)
        products, lanes = left.shape
        adds = np.asarray(accumulate)
        if adds.shape not in ((), (products,)):
            raise InputError(f"accumulate: expected shape ({products},), got {adds.shape}")
        sums = np.zeros((products, lanes), np.int64)
        accepted, finished = np.full(products, -1), np.full(products, -1)
        active, counts = np.zeros(lanes, np.int64), np.zeros(3, np.int64)
        presented = np.full(record_cycles, -1)
        flags = np.zeros((record_cycles, 2), np.bool_)
        shown = np.zeros((record_cycles, lanes), np.int64)
        adding = np.zeros((record_cycles, lanes), np.bool_)
        cycles = _kernels.lane_group(
            left, digits, np.broadcast_to(adds.astype(bool), (products,)).copy(), self.accumulator_bits, self.shared_weight,
            np.asarray(offered, bool), np.asarray(taken, bool), sums, accepted, finished, active, counts, presented, flags, shown,
            adding,
        )  # fmt: skip
        steps, waiting, held = (int(count) for count in counts)
        signals = LaneSignals(presented, flags[:, 0], flags[:, 1], shown, adding) if record_cycles else None
        return LaneRun(sums, accepted, finished, cycles, steps, active, steps - active, waiting, held, signals)

    def matmul(self, a: Any, b: Any) -> tuple[NDArray[np.int64], LaneRun]:
        """``a @ b``, cycle by cycle: lanes hold neighbouring columns of a row of the result, and b is recoded.

        Args:
            a: integers of ``bits`` bits, shape (m, k).
            b: likewise, shape (k, n).

        Returns:
            int64 of shape (m, n), modulo 2^accumulator_bits, and the run.

        Raises:
            InputError: shapes that do not match, a dimension of 0, not integers, or one that does not fit.
        """
        left, right = _matrices(a, b)
        (m, k), n = left.shape, right.shape[1]
        groups = -(-n // self.lanes)
        # Columns that are missing in the last group are zeros, which take no lane's time.
        columns = np.zeros((k, groups * self.lanes), np.int64)
        columns[:, :n] = right
        steps = columns.reshape(k, groups, self.lanes).transpose(1, 0, 2)
        recoded = np.broadcast_to(steps, (m, groups, k, self.lanes)).reshape(-1, self.lanes)
        other = np.broadcast_to(left[:, None, :, None], (m, groups, k, self.lanes)).reshape(-1, self.lanes)
        run = self.run(other, recoded, accumulate=np.tile(np.arange(k) > 0, m * groups))
        return run.sums[k - 1 :: k].reshape(m, groups * self.lanes)[:, :n], run

    def matmul_cost(self, b: Any, *, rows: int) -> MatmulCost:
        """Cycles of ``matmul`` in closed form: they depend on the recoded operand alone.

        Args:
            b: integers of ``bits`` bits, shape (k, n).
            rows: of the other operand, m.

        Raises:
            InputError: another shape, not integers, one that does not fit, or no rows.
        """
        _check("rows", rows, 1, 1 << 40)
        _, right = _matrices(np.zeros((1, np.shape(b)[0] if np.ndim(b) else 1), int), b)
        k, n = right.shape
        groups = -(-n // self.lanes)
        columns = np.zeros((k, groups * self.lanes), np.int64)
        columns[:, :n] = right
        stepping = rows * int(self.step_cycles(columns.reshape(k, groups, self.lanes)).sum())
        active = rows * int(np.count_nonzero(booth_digits(right, self.bits)))
        # One cycle accepts the first operands and one shows the last sums.
        return MatmulCost(stepping + 2, rows * groups * k, active, self.lanes * stepping - active, self.lanes)


def _matrices(a: Any, b: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    left, right = np.asarray(a), np.asarray(b)
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[0]:
        raise InputError(f"a, b: expected shapes (m, k) and (k, n), got {left.shape} and {right.shape}")
    if 0 in (*left.shape, *right.shape):
        raise InputError(f"a, b: expected no dimension of 0, got {left.shape} and {right.shape}")
    if right.dtype.kind not in "iu" or left.dtype.kind not in "iu":
        raise InputError(f"a, b: expected integers, got {left.dtype} and {right.dtype}")
    return left, right


def check_fits(name: str, values: NDArray[Any], bits: int) -> None:
    """Integers of ``bits`` bits, two's complement, or an ``InputError``."""
    if values.dtype.kind not in "iu":
        raise InputError(f"{name}: expected integers, got {values.dtype}")
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    if values.size and not low <= int(values.min()) <= int(values.max()) <= high:
        worst = int(values.min()) if int(values.min()) < low else int(values.max())
        raise InputError(f"{name}: expected {low} to {high} ({bits} bits, signed), got {worst}")


def _check(name: str, value: Any, low: int, high: int) -> None:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or not low <= value <= high:
        raise InputError(f"{name}: expected an integer from {low} to {high}, got {value!r}")
