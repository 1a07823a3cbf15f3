"""What a faulty register holds in each fold, and which sums see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from accelerators.systolic.faults.sums import DRAIN, HELD, SHADOW, STREAMED, SUM, TRANSPORT, FaultySums, Stored, Strike

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Indices = NDArray[np.int64]
    Hit = tuple[int, int, int, int, int]  # as the last fields of a Strike
    Fold = tuple[int, int]


def inside(members: Indices, size: int, length: int, fold: int | None) -> Indices:
    """Those of ``length`` rows (or columns) of sums that some of an array's ``size`` make, in one fold or in all of them."""
    if fold is None:
        return np.flatnonzero(np.isin(np.arange(length) % size, members))
    found = fold * size + members
    return found[found < length]


@dataclass(frozen=True)
class StationaryFolds:
    """Folds of an array in which an operand stays: k along its rows, sums going down.

    Attributes:
        product: that is computed.
        whole: what streams, of one product of the batch.
    """

    product: FaultySums
    whole: dict[int, NDArray[Any]] = field(default_factory=dict)

    def touched(self, strikes: Sequence[Strike]) -> NDArray[np.bool_]:
        """Columns of sums that stuck bits change, all of each."""
        columns, length = self.product.array.columns, self.product.sums.shape[2]
        own = np.arange(length) % columns
        found = np.zeros(length, np.bool_)
        for s in strikes:
            found |= own > s.column if s.register == STREAMED else own == s.column
        return found

    def place(self, strike: Strike) -> tuple[int, int, int]:
        """What a flip is computed with: all folds that add to the same sums."""
        return strike.batch, 0, strike.across

    def place_of_sum(self, cell: Stored) -> tuple[int, int, int]:
        """The same of a stored sum."""
        return cell.batch, 0, cell.column // self.product.array.columns

    def hit(self, register: int, row: int, column: int, cycle: int) -> Hit | None:
        """What a register that is struck in a cycle holds, if that is still to be used."""
        times, rows = self.product.times, self.product.array.rows
        if register in (STREAMED, SUM):
            found = times.operand_at(cycle, row, column)
            return None if found is None else (*self._fold(found[0]), found[1], 0)
        # What stays goes down a row in `pace` cycles, and a row of it enters each cycle.
        pace = max(1, times.skew - 1)
        if register == TRANSPORT:
            load = times.load_at(cycle, pace * row + column)
            return None if load is None or not row < load[1] < rows else (*self._fold(load[0]), load[1], 0)
        if register == SHADOW:
            load = times.load_at(cycle, (pace + 1) * row + column)
            if load is None or cycle >= times.stream_begin(load[0]) + times.skew * row + column:
                return None
            return *self._fold(load[0]), row, 0
        held = times.fold_at(cycle, row, column)
        if held is None or held[1] // times.step + 1 >= times.stream:
            return None
        return *self._fold(held[0]), held[1] // times.step + 1, 0

    def _fold(self, number: int) -> tuple[int, int, int]:
        rows, columns = self.product.array.rows, self.product.array.columns
        down = self.product.left.depth // rows
        each = down * -(-self.product.sums.shape[2] // columns)
        return number // each, number % each % down, number % each // down

    def compute(self, batch: int, fold: Fold | None, strikes: Sequence[Strike], stored: Sequence[Stored] = ()) -> None:
        """Compute what some faults change: in one fold across (and only there in stored sums), or in all of them."""
        columns, length = self.product.array.columns, self.product.sums.shape[2]
        alike: dict[tuple[tuple[Strike, ...], tuple[Stored, ...]], list[int]] = {}
        for column in range(min(columns, length)):
            seen = tuple(
                s for s in strikes if (s.column < column if s.register == STREAMED else s.column == column)
            )  # fmt: skip
            cells = tuple(s for s in stored if s.column % columns == column)
            if seen or cells:
                alike.setdefault((seen, cells), []).append(column)
        for (seen, cells), members in alike.items():
            taken = inside(np.array(members), columns, length, None if fold is None else fold[1])
            if taken.size:
                self._columns(batch, taken, seen, cells)

    def _columns(self, batch: int, columns: Indices, strikes: tuple[Strike, ...], stored: tuple[Stored, ...]) -> None:
        """Columns of sums that see the same faults."""
        product, rows = self.product, self.product.array.rows
        left = self._left(batch, [s for s in strikes if s.register == STREAMED])
        top = product.top.values(batch, columns).reshape(-1, rows, columns.size)
        loaded = [s for s in strikes if s.register in (TRANSPORT, SHADOW)]
        held = [s for s in strikes if s.register == HELD]
        codes = product.top.codes(top) if loaded or held else np.zeros(0, np.uint32)
        if loaded:
            for strike in sorted(loaded, key=lambda s: (s.register, s.row, s.order)):
                # On its way the operand of row `at` (or of any row below); in its place its own.
                low = strike.row + 1 if strike.register == TRANSPORT else strike.row
                high = rows if strike.register == TRANSPORT else strike.row + 1
                if strike.stuck:
                    strike.on(codes[:, low:high])
                else:
                    strike.on(codes[strike.down, strike.at])
            top = product.top.read(codes)
        stream = product.sums.shape[1]
        breaks = {0, stream, *(1 if s.stuck else s.at for s in held)}
        for start, stop in pairwise(sorted(b for b in breaks if b <= stream)):
            now = top
            if start and held:
                struck = codes.copy()
                for strike in held:
                    if strike.stuck:
                        strike.on(struck[:, strike.row])
                    elif strike.at <= start:
                        strike.on(struck[strike.down, strike.row])
                now = product.top.read(struck)
            product.compute(
                batch, slice(start, stop), columns, left[:, start:stop], now.reshape(-1, columns.size),
                self._sums(strikes, start, stop),
                [(s.kind, s.bit, -1, s.first, s.last, s.row - start, -1) for s in stored if start <= s.row < stop],
            )  # fmt: skip

    def _left(self, batch: int, strikes: list[Strike]) -> NDArray[Any]:
        """What streams, as it comes to an element past these faults."""
        values = self._streamed(batch)
        if not strikes:
            return values
        rows, values = self.product.array.rows, values.copy()
        for row in {s.row for s in strikes}:
            passing = self.product.left.codes(values[row::rows])
            for strike in sorted((s for s in strikes if s.row == row), key=lambda s: (s.column, s.order)):
                strike.on(passing if strike.stuck else passing[strike.down, strike.at : strike.at + 1])
            values[row::rows] = self.product.left.read(passing)
        return values

    def _streamed(self, batch: int) -> NDArray[Any]:
        if batch not in self.whole:
            self.whole.clear()
            self.whole[batch] = self.product.left.values(batch, slice(None))
        return self.whole[batch]

    def _sums(self, strikes: tuple[Strike, ...], start: int, stop: int) -> list[tuple[int, ...]]:
        """Faults in sums of the operands ``start`` to ``stop − 1``."""
        rows = self.product.array.rows
        return [
            (s.kind, s.bit, s.row, -1, 0, -1, -1) if s.stuck
            else (s.kind, s.bit, s.row, s.down * rows + s.row, 0, s.at - start, -1)
            for s in strikes if s.register == SUM and (s.stuck or start <= s.at < stop)
        ]  # fmt: skip


@dataclass(frozen=True)
class OutputStationaryFolds:
    """Folds of an array in which the sums stay."""

    product: FaultySums

    def touched(self, strikes: Sequence[Strike]) -> NDArray[np.bool_]:
        """Columns of sums that stuck bits change, all of each: none, as each element has sums of its own."""
        return np.zeros(self.product.sums.shape[2], np.bool_)

    def place(self, strike: Strike) -> tuple[int, int, int]:
        """The fold of a flip."""
        return strike.batch, strike.down, strike.across

    def place_of_sum(self, cell: Stored) -> tuple[int, int, int]:
        """The fold of a stored sum."""
        return cell.batch, cell.row // self.product.array.rows, cell.column // self.product.array.columns

    def hit(self, register: int, row: int, column: int, cycle: int) -> Hit | None:
        """What a register that is struck in a cycle holds, if that is still to be used."""
        times, rows = self.product.times, self.product.array.rows
        if register in (STREAMED, HELD):
            found = times.operand_at(cycle, row, column)
            return None if found is None else (*self._fold(found[0]), found[1], 0)
        since = times.fold_at(cycle, row, column)
        if register == SUM:
            if since is None or since[1] > times.step * (times.stream - 1):
                return None
            return *self._fold(since[0]), since[1] // times.step, since[1] % times.step
        # Result of row r: in its drain from `out` = r on; all move down a row a cycle from `out` = rows on.
        start = times.fold_at(cycle, 0, column)
        if start is None:
            return None
        leaves = times.step * (times.stream - 1) + self.product.array.timing.mac_latency_cycles
        for fold in range(start[0], -1, -1):
            out = cycle - column - times.stream_begin(fold) - leaves
            if out > 2 * rows:
                return None
            if row <= out < rows + row:
                moved = max(0, out - rows + 1)
                return *self._fold(fold), row - moved, out - row if not moved else 0
        return None

    def _fold(self, number: int) -> tuple[int, int, int]:
        rows, columns = self.product.array.rows, self.product.array.columns
        _, m, n = self.product.sums.shape
        down = -(-m // rows)
        each = down * -(-n // columns)
        return number // each, number % each % down, number % each // down

    def compute(self, batch: int, fold: Fold | None, strikes: Sequence[Strike], stored: Sequence[Stored] = ()) -> None:
        """Compute what some faults change: in one fold (and only there in stored sums), or in all of them."""
        rows, columns = self.product.array.rows, self.product.array.columns
        _, m, n = self.product.sums.shape
        seen: dict[tuple[int, int], list[Strike]] = {}
        for s in strikes:
            for place in self._touched(s, min(rows, m), min(columns, n)):
                seen.setdefault(place, []).append(s)
        cells: dict[tuple[int, int], list[Stored]] = {}
        for cell in stored:
            place = cell.row % rows, cell.column % columns
            cells.setdefault(place, []).append(cell)
            seen.setdefault(place, [])
        alike: dict[tuple[Any, ...], list[tuple[int, int]]] = {}
        for place, found in seen.items():
            # Results of different rows meet a faulty drain at different times; stored sums have words of their own.
            apart = place if place in cells or any(s.register == DRAIN for s in found) else ()
            alike.setdefault((tuple(found), apart), []).append(place)
        for (found, apart), places in alike.items():
            down, across = (np.unique(side) for side in zip(*places, strict=True))
            taken_rows = inside(down, rows, m, None if fold is None else fold[0])
            taken_columns = inside(across, columns, n, None if fold is None else fold[1])
            if taken_rows.size and taken_columns.size:
                self._elements(batch, taken_rows, taken_columns, places[0][0], found, cells.get(apart, []))

    @staticmethod
    def _touched(strike: Strike, rows: int, columns: int) -> list[tuple[int, int]]:
        """Elements whose results a fault changes; those with the same ones lie in one row or one column."""
        row, column = strike.row, strike.column
        if strike.register == STREAMED:
            return [(row, c) for c in range(column + 1, columns)] if row < rows else []
        if strike.register == HELD:
            return [(r, column) for r in range(row + 1, rows)] if column < columns else []
        if column >= columns:
            return []
        if strike.register == SUM:
            return [(row, column)] if row < rows else []
        last = min(row + 1, rows)
        return [(r, column) for r in (range(last) if strike.stuck else [strike.at])]

    def _elements(
        self, batch: int, rows: Indices, columns: Indices, row: int, strikes: tuple[Strike, ...], stored: list[Stored]
    ) -> None:
        """Sums of elements that see the same faults: rows and columns of the sums; ``row`` of the array, if drains are faulty."""
        product = self.product
        sides = []
        for side, taken, register in ((product.left, rows, STREAMED), (product.top, columns, HELD)):
            passed = [s for s in strikes if s.register == register]
            if not passed:
                sides.append(side.values(batch, taken))
                continue
            codes = side.codes(side.values(batch, taken))
            for strike in sorted(passed, key=lambda s: (s.row, s.column, s.order)):
                strike.on(codes if strike.stuck else codes[strike.at : strike.at + 1])
            sides.append(side.read(codes))
        sums = [
            (s.kind, s.bit, -1, -1, 0, -1, -1) if s.stuck else (s.kind, s.bit, -1, s.at, s.wait, -1, -1)
            for s in strikes if s.register == SUM
        ]  # fmt: skip
        last = product.left.depth - 1
        before = [(s.kind, s.bit, -1, s.first, s.last, -1, -1) for s in stored if s.last < last]
        # The last word is written when the result has left.
        after: list[Strike | Stored] = [*self._drains(row, strikes), *(s for s in stored if s.last == last)]
        product.compute(batch, rows, columns, sides[0], sides[1], sums, before, after)

    def _drains(self, row: int, strikes: tuple[Strike, ...]) -> list[Strike]:
        """The faults that a row's results meet: cycles in their own drain, then one in each below."""
        faults = [s for s in strikes if s.register == DRAIN]
        if not faults:
            return []
        rows = self.product.array.rows
        stay = [[s for s in faults if s.row == row and (s.stuck or s.wait == wait)] for wait in range(rows - row)]
        move = [[s for s in faults if s.row == below] for below in range(row + 1, rows)]
        return [s for cycle in stay + move for s in cycle]
