"""The sums that faulty registers of an array change, found through its folds and computed anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from accelerators.systolic.faults.fold_times import FoldTimes
from accelerators.systolic.spec import ArraySpec
from numerics.encoding import decode, encode
from numerics.formats import Format
from numerics.mac import MacPlan, SumBits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Indices = NDArray[np.int64]

STREAMED, TRANSPORT, SHADOW, HELD, SUM, DRAIN = range(6)
"""Registers as the table of faults numbers them."""

FLIP, STUCK_0, STUCK_1 = range(3)


class Strike(NamedTuple):
    """A fault and, of a flip, what the register holds when it strikes.

    Attributes:
        order: place in the table of faults: flips first, else as given.
        kind, register, row, column, bit: of the fault.
        batch, down, across: of a flip, the fold; of a stuck bit −1.
        at: of a flip in an operand or a sum on its way, which one of the fold's stream; in what stays, the row it is for; from
            which operand of the stream on the flip shows, where the register keeps it; in a drain, the row that the result is of.
        wait: of a flip in what is kept, cycles since it was written.
    """

    order: int
    kind: int
    register: int
    row: int
    column: int
    bit: int
    batch: int = -1
    down: int = -1
    across: int = -1
    at: int = -1
    wait: int = 0

    @property
    def stuck(self) -> bool:
        """Whether it strikes in every cycle."""
        return self.kind != FLIP

    def on(self, codes: NDArray[np.uint32]) -> None:
        """Strike codes, in place."""
        bit = np.uint32(1 << self.bit)
        if self.kind == FLIP:
            codes ^= bit
        elif self.kind == STUCK_1:
            codes |= bit
        else:
            codes &= ~bit


class Stored(NamedTuple):
    """A stuck bit in the memory word of one sum.

    Attributes:
        kind, bit: of the fault.
        batch, row, column: of the sum.
        first, last: fold along k (where sums stay: k) at whose end the word is written, from the first to the last.
    """

    kind: int
    bit: int
    batch: int
    row: int
    column: int
    first: int
    last: int


@dataclass(frozen=True)
class Side:
    """An operand with k as its rows.

    Attributes:
        given: (batch, k, length); numbers of the format.
        fmt: theirs.
        dtype: of the sums.
        depth: k with the zeros that fill it up to whole folds.
    """

    given: NDArray[Any]
    fmt: Format
    dtype: np.dtype[Any]
    depth: int

    def values(self, batch: int, columns: Indices | slice) -> NDArray[Any]:
        """(depth, columns), in the type of the sums."""
        found = self.given[batch][:, columns].astype(self.dtype, order="C")
        spare = self.depth - found.shape[0]
        return np.pad(found, ((0, spare), (0, 0))) if spare else found

    def codes(self, values: NDArray[Any]) -> NDArray[np.uint32]:
        """Codes of values, as registers hold them."""
        return np.asarray(encode(values.astype(np.float64), self.fmt)).astype(np.uint32)

    def read(self, codes: NDArray[np.uint32]) -> NDArray[Any]:
        """What codes stand for, in the type of the sums."""
        return np.asarray(decode(codes, self.fmt)).astype(self.dtype)


@dataclass(frozen=True)
class FaultySums:
    """A product on a faulty array.

    Attributes:
        array, times: where it runs, and when.
        plan, layout: its multiply-accumulate, and the bits of its sums.
        left, top: what streams, and what stays or comes from the top.
        sums: (batch, length of ``left``, length of ``top``), which ``strike`` writes.
        stored: stuck bits where sums are stored.
    """

    array: ArraySpec
    times: FoldTimes
    plan: MacPlan
    layout: SumBits
    left: Side
    top: Side
    sums: NDArray[Any]
    stored: tuple[Stored, ...] = ()

    @property
    def keeps_sums(self) -> bool:
        """Whether the sums stay in the elements."""
        return self.array.dataflow == "output_stationary"

    def strike(self, table: NDArray[np.int64], clean: Callable[[Indices | slice], NDArray[Any]]) -> None:
        """Compute the sums as an array with faults does.

        Args:
            table: faults as ``_cycle_kernels`` takes them, flips first.
            clean: gives columns of the right sums, (batch, length of ``left``, columns).
        """
        from accelerators.systolic.faults.folds import OutputStationaryFolds, StationaryFolds

        folds = OutputStationaryFolds(self) if self.keeps_sums else StationaryFolds(self)
        stuck: list[Strike] = []
        flips: dict[tuple[int, int, int], list[Strike]] = {}
        for order, (kind, register, row, column, bit, cycle) in enumerate(table.tolist()):
            if kind != FLIP:
                stuck.append(Strike(order, kind, register, row, column, bit))
                continue
            hit = folds.hit(register, row, column, cycle)
            if hit is not None:
                found = Strike(order, kind, register, row, column, bit, *hit)
                flips.setdefault(folds.place(found), []).append(found)
        touched = folds.touched(stuck)
        # A column that is computed anew in any case need not be right before; picking some costs less than half of them.
        columns: Indices | slice = np.flatnonzero(~touched) if 2 * touched.sum() > touched.size else slice(None)
        if isinstance(columns, slice) or columns.size:
            self.sums[:, :, columns] = clean(columns)
        for batch in range(self.sums.shape[0]):
            folds.compute(batch, None, stuck)
        stored: dict[tuple[int, int, int], list[Stored]] = {}
        for cell in self.stored:
            stored.setdefault(folds.place_of_sum(cell), []).append(cell)
        for place in {**flips, **stored}:
            folds.compute(place[0], place[1:], [*flips.get(place, ()), *stuck], stored.get(place, ()))

    def compute(
        self,
        batch: int,
        rows: Indices | slice,
        columns: Indices,
        left: NDArray[Any],
        top: NDArray[Any],
        strikes: Iterable[Sequence[int]] = (),
        stored: Iterable[Sequence[int]] = (),
        drains: Sequence[Strike | Stored] = (),
    ) -> None:
        """Sums of some rows and columns.

        Args:
            batch: of the product.
            rows, columns: of the sums.
            left, top: the operands as these sums see them, (k, rows) and (k, columns).
            strikes, stored: faults in sums, as ``_fault_kernels.chain`` takes them, with the row and the column of the sum last.
            drains: faults that results meet, one after the other, on their way out.
        """
        from accelerators.systolic.faults import _fault_kernels as kernels
        from numerics._parallel import run_parts

        wide = left.shape[1] >= top.shape[1]
        unit, lane = (top, left) if wide else (left, top)
        faults, cells = (np.array([*rows], np.int64).reshape(-1, kernels.SUM_FIELDS) for rows in (strikes, stored))
        if wide:
            for table in (faults, cells):
                table[:, [kernels.S_UNIT, kernels.S_LANE]] = table[:, [kernels.S_LANE, kernels.S_UNIT]]
        unit, lane = np.ascontiguousarray(unit), np.ascontiguousarray(lane)
        out = np.empty((unit.shape[1], lane.shape[1]), self.plan.dtype)
        kernel = kernels.chain(self.plan.mode, self.plan.how, self.plan.by, self.layout.key)
        folded, group, step = not self.keeps_sums, self.array.rows, self.times.step if self.keeps_sums else 1
        run_parts(
            lambda first, last: kernel(
                unit, lane, out, first, last, group, folded, step, faults, cells, self.plan.p, self.plan.q
            ),
            unit.shape[1],
            smallest=max(1, (1 << 20) // lane.size),
        )  # fmt: skip
        if drains:
            steps = np.array([(s.kind, s.bit, *[-1] * (kernels.SUM_FIELDS - 2)) for s in drains], np.int64)
            kernels.drain(self.layout.key)(out.reshape(-1), steps)
        found = out.T if wide else out
        if isinstance(rows, slice):
            self.sums[batch][rows, columns] = found
        else:
            self.sums[batch][np.ix_(rows, columns)] = found
