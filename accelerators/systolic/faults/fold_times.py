"""When the folds of a product load, stream and leave, and which fold and operand a cycle belongs to.

Held against the cycle-level model, which counts and knows no formula.
"""

from __future__ import annotations

from dataclasses import dataclass

from accelerators.systolic.spec import ArraySpec


@dataclass(frozen=True)
class FoldTimes:
    """Equal folds one behind the other: fold f + 1 does everything ``period`` cycles after fold f, but for the first load.

    Attributes:
        folds: how many.
        stream: operands that a fold streams, one every ``step`` cycles.
        step: cycles that a multiply-accumulate takes an element.
        period: cycles from fold to fold.
        first: cycle in which the first fold begins to stream.
        length: cycles from a fold's first operands to the one after its last result.
        skew: cycles by which a row works behind the row above it.
        load_early: whether a fold loads while the one before streams.
    """

    folds: int
    stream: int
    step: int
    period: int
    first: int
    length: int
    skew: int
    load_early: bool

    @classmethod
    def of(cls, array: ArraySpec, *, folds: int, stream: int, step: int = 1) -> FoldTimes:
        """Times of ``folds`` folds that stream ``stream`` operands each."""
        rows, columns, timing = array.rows, array.columns, array.timing
        latency, busy, last = timing.mac_latency_cycles, step * stream, step * (stream - 1)
        if array.dataflow == "output_stationary":
            shift = timing.output_drain == "shift"
            # Results leave row by row, the last row's first: each waits for those below it.
            length = max(last + rows + columns - 2 + latency + (rows if shift else 0), busy)
            period = max(busy, rows if shift else 0) if timing.fold_overlap == "full" else length
            return cls(folds, stream, step, period, 0, length, 1, False)
        length = max(last + latency * rows + columns - 1, busy)
        period = {"none": rows + length, "weights": max(rows, length), "full": max(rows, busy)}[timing.fold_overlap]
        return cls(folds, stream, step, period, rows, length, latency, timing.fold_overlap != "none")

    @property
    def cycles(self) -> int:
        """Of the whole product."""
        return self.stream_begin(self.folds - 1) + self.length

    def stream_begin(self, fold: int) -> int:
        """Cycle of a fold's first operands."""
        return self.first + fold * self.period

    def load_begin(self, fold: int) -> int:
        """Cycle in which what stays begins to be loaded; where sums stay, that of the first operands."""
        if self.load_early:
            return 0 if fold == 0 else self.stream_begin(fold - 1)
        return fold * self.period

    def operand_at(self, cycle: int, row: int, column: int) -> tuple[int, int] | None:
        """The fold and the number of the operand that element (row, column) takes in a cycle; None if it takes none."""
        since = cycle - self.first - self.skew * row - column
        fold, within = divmod(since, self.period)
        if since < 0 or fold >= self.folds or within % self.step or within // self.step >= self.stream:
            return None
        return fold, within // self.step

    def fold_at(self, cycle: int, row: int, column: int) -> tuple[int, int] | None:
        """The last fold whose first operand has come to an element by a cycle, and the cycles since; None if there is none."""
        since = cycle - self.first - self.skew * row - column
        if since < 0:
            return None
        fold = min(since // self.period, self.folds - 1)
        return fold, since - fold * self.period

    def load_at(self, cycle: int, delay: int) -> tuple[int, int] | None:
        """The last fold whose load has begun ``delay`` cycles before a cycle, or earlier, and the cycles since; None if none."""
        since = cycle - delay
        if since < 0:
            return None
        if self.load_early:
            fold = 0 if since < self.first else 1 + (since - self.first) // self.period
        else:
            fold = since // self.period
        fold = min(fold, self.folds - 1)
        return fold, since - self.load_begin(fold)
