"""Faulty words of buffers: which elements of a product's operands, and which of its sums, come to lie in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from accelerators.systolic.cycle import _code_bits
from accelerators.systolic.faults.sums import STUCK_0, STUCK_1, Side, Stored, Strike
from accelerators.systolic.faults.tile_layout import TileLayout
from hwsim.views.display import displayed
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numerics.formats import Format

    Indices = NDArray[np.int64]

STUCK = {"stuck_at_0": STUCK_0, "stuck_at_1": STUCK_1}


@displayed
@dataclass(frozen=True, kw_only=True)
class BufferFault:
    """A stuck bit in one word of a buffer.

    Attributes:
        kind: ``stuck_at_0`` or ``stuck_at_1``.
        buffer: ``input`` (activations), ``weight`` or ``output`` (sums).
        word: counted through the whole buffer in elements of the format that lies there.
        bit: 0 is the lowest.
    """

    kind: str
    buffer: str
    word: int
    bit: int

    def __post_init__(self) -> None:
        _check(self.kind, {"word": self.word, "bit": self.bit})
        if self.buffer not in ("input", "weight", "output"):
            raise unknown_name("buffer", self.buffer, ("input", "weight", "output"))


@displayed
@dataclass(frozen=True, kw_only=True)
class LineFault:
    """A stuck bit in the wires that bring an operand into the array and on through one of its rows or columns.

    Attributes:
        kind: ``stuck_at_0`` or ``stuck_at_1``.
        operand: ``weight``: the wires of a column, or of a row where activations stay; ``activation``: the other way round.
        lane: number of that column or row.
        bit: 0 is the lowest.
    """

    kind: str
    operand: str
    lane: int
    bit: int

    def __post_init__(self) -> None:
        _check(self.kind, {"lane": self.lane, "bit": self.bit})
        if self.operand not in ("weight", "activation"):
            raise unknown_name("operand", self.operand, ("weight", "activation"))


def _check(kind: str, numbers: dict[str, Any]) -> None:
    if kind not in STUCK:
        raise unknown_name("kind", kind, STUCK)
    for name, value in numbers.items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 0:
            raise InputError(f"{name}: expected an integer ≥ 0, got {value!r}")


class Struck(NamedTuple):
    """A stuck bit in elements of an operand.

    Attributes:
        kind, bit: of the fault.
        rows, columns: of the elements.
    """

    kind: int
    bit: int
    rows: Indices
    columns: Indices


class Region(NamedTuple):
    """Sums that see the same wrong operands.

    Attributes:
        batch: of the product.
        rows, columns: along m and n.
        a, b: what is wrong in the operands.
    """

    batch: int
    rows: Indices
    columns: Indices
    a: list[Struck]
    b: list[Struck]


def struck(values: NDArray[Any], fmt: Format, faults: Sequence[Struck]) -> NDArray[Any]:
    """A matrix with stuck bits in some elements."""
    changed = values.copy()
    if not faults:
        return changed
    flat = [np.ravel_multi_index((f.rows, f.columns), values.shape) for f in faults]
    elements = np.unique(np.concatenate(flat))
    side = Side(values[None], fmt, np.dtype(np.float64), values.shape[0])
    codes = side.codes(values.reshape(-1)[elements])
    for fault, at in zip(faults, flat, strict=True):
        hit = np.searchsorted(elements, at)
        own = codes[hit]
        Strike(0, fault.kind, 0, 0, 0, fault.bit).on(own)
        codes[hit] = own
    changed.reshape(-1)[elements] = side.read(codes)
    return changed


@dataclass(frozen=True)
class FaultyWords:
    """The faulty words of a device's buffers, for one product.

    Attributes:
        layout: where its tiles lie.
        faults: in words.
    """

    layout: TileLayout
    faults: tuple[BufferFault, ...]

    def check(self, formats: dict[str, Format], shape: tuple[int, int, int, int]) -> None:
        """See that the words exist, and that the layout is that of a product of these sizes (batch, m, n, k).

        Raises:
            InputError: they do not, or it is not.
        """
        own = self.layout.shape
        if (own.batch, own.m, own.n, own.k) != shape:
            raise InputError(f"layout: expected that of batch, m, n, k = {shape}, got {(own.batch, own.m, own.n, own.k)}")
        for fault in self.faults:
            limits = {"word": self.layout.buffers[fault.buffer].words, "bit": _code_bits(formats[fault.buffer])}
            for name, limit in limits.items():
                if getattr(fault, name) >= limit:
                    raise InputError(f"{name}: buffer {fault.buffer!r} has 0 to {limit - 1}, got {getattr(fault, name)}")

    def regions(self) -> Iterator[Region]:
        """Sums with wrong operands: a tile may lie in the faulty word at one visit, and elsewhere at the next."""
        a, b = self._visits("input"), self._visits("weight")
        for batch in sorted({key[0] for key in (*a, *b)}):
            # For each tile of n what is wrong in A while it is visited; for each tile of m, in B.
            rows = _alike([frozenset(b.get((batch, tile), ())) for tile in range(self.layout.m.size)])
            columns = _alike([frozenset(a.get((batch, tile), ())) for tile in range(self.layout.n.size)])
            for wrong_b, rows_of in rows.items():
                for wrong_a, columns_of in columns.items():
                    if wrong_a or wrong_b:
                        yield Region(
                            batch,
                            np.concatenate([self.layout.rows(tile) for tile in rows_of]),
                            np.concatenate([self.layout.columns(tile) for tile in columns_of]),
                            self._struck("input", wrong_a),
                            self._struck("weight", wrong_b),
                        )

    def _visits(self, buffer: str) -> dict[tuple[int, int], list[Any]]:
        found: dict[tuple[int, int], list[Any]] = {}
        for number, fault in enumerate(self.faults):
            if fault.buffer == buffer:
                for held in self.layout.held(buffer, fault.word):
                    # What is held does not depend on the tile of the third dimension; that says who sees it.
                    seen, own = (held.n, held._replace(n=0)) if buffer == "input" else (held.m, held._replace(m=0))
                    found.setdefault((held.batch, seen), []).append((number, own))
        return found

    def _struck(self, buffer: str, wrong: frozenset[Any]) -> list[Struck]:
        found = []
        for number, held in sorted(wrong):
            fault = self.faults[number]
            found.append(Struck(STUCK[fault.kind], fault.bit, *self.layout.elements(buffer, held)))
        return found

    def stored(self, rows: int | None, turned: bool) -> tuple[Stored, ...]:
        """Stored sums that lie in faulty words while they are added to.

        Args:
            rows: of an array in which sums do not stay: products that a fold adds; None where they stay.
            turned: whether the product is transposed.
        """
        found = []
        for fault in self.faults:
            if fault.buffer != "output":
                continue
            for held in self.layout.held("output", fault.word):
                row, column = (int(i[0]) for i in self.layout.elements("output", held))
                place = (column, row) if turned else (row, column)
                for mark in self._marks(held.k, rows):
                    found.append(Stored(STUCK[fault.kind], fault.bit, held.batch, *place, mark, mark))
        return tuple(found)

    def _marks(self, tile: int, rows: int | None) -> list[int]:
        """Folds of a tile of k; where sums stay, its last k."""
        own = self.layout.k[tile]
        if rows is None:
            return [int(own.max())]
        ends = np.minimum(np.arange(rows - 1, self.layout.shape.k + rows - 1, rows), self.layout.shape.k - 1)
        return [int(fold) for fold in np.flatnonzero(np.isin(ends, own))]


def _alike(keys: list[frozenset[Any]]) -> dict[frozenset[Any], list[int]]:
    found: dict[frozenset[Any], list[int]] = {}
    for number, key in enumerate(keys):
        found.setdefault(key, []).append(number)
    return found


def line_rows(faults: Sequence[LineFault], dataflow: str, lanes: dict[str, int], bits: dict[str, int]) -> list[list[int]]:
    """Stuck wires as the table of faults has them: registers before the first row or column.

    Args:
        faults: in wires.
        dataflow: of the array.
        lanes, bits: of each operand's wires.

    Raises:
        InputError: a wire that is not there.
    """
    from accelerators.systolic.faults.sums import HELD, STREAMED, TRANSPORT

    found = []
    for fault in faults:
        for name, limit in (("lane", lanes[fault.operand]), ("bit", bits[fault.operand])):
            if getattr(fault, name) >= limit:
                raise InputError(f"{name}: the {fault.operand} lines have 0 to {limit - 1}, got {getattr(fault, name)}")
        from_left = (fault.operand == "weight") == (dataflow == "input_stationary")
        top = HELD if dataflow == "output_stationary" else TRANSPORT
        place = [STREAMED, fault.lane, -1] if from_left else [top, -1, fault.lane]
        found.append([STUCK[fault.kind], *place, fault.bit, -1])
    return found
