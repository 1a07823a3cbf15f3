"""Where the interferometers of a mesh sit: which two ports each one joins, and in which column.

Ports are numbered from 0 at the top. Light goes from left to right, column by column; within a column no two interferometers
share a port.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import isqrt
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from hwsim.views.display import displayed_by
from numerics._fields import check_integer
from numerics.errors import InputError
from photonic._numbers import array, one_of, shown

if TYPE_CHECKING:
    import numpy.typing as npt

MOST_PORTS = 1 << 16
"""Beyond it, the MZIs of a rectangle are more than 32 bits count."""
MeshKind = Literal["rectangular", "triangular", "butterfly", "binary_tree", "diamond"]
Places = tuple[Any, Any, Any]
"""Column, upper and lower port of each interferometer."""

BLOCK_PORTS = 32
"""Neighbouring ports that a kernel keeps at hand while it goes through the columns."""


@displayed_by("photonic.cards:layout")
@dataclass(frozen=True, eq=False)
class MeshLayout:
    """Mach–Zehnder interferometers (MZIs) between the ports of a mesh.

    Attributes:
        kind: its name; one of ``MeshKind`` if ``layout`` made it.
        ports: waveguides.
        upper, lower: (MZIs,) int32 ports that each MZI joins, upper < lower.
        column: (MZIs,) int32, never falling.
        first_signal, signals: the waveguides that carry a matrix: ``signals`` of them from ``first_signal`` on. All, but in a
            diamond.

    Raises:
        InputError: arrays that do not fit together, a port that is not there or that two MZIs of a column share.
    """

    kind: str
    ports: int
    upper: npt.NDArray[np.int32]
    lower: npt.NDArray[np.int32]
    column: npt.NDArray[np.int32]
    first_signal: int = 0
    signals: int | None = None

    def __post_init__(self) -> None:
        if check_integer("ports", self.ports, 1) > 2 * MOST_PORTS:
            raise InputError(f"ports: expected at most {2 * MOST_PORTS}, got {shown(self.ports)}")
        check_integer("first_signal", self.first_signal, 0)
        for name in ("upper", "lower", "column"):
            given = array(name, getattr(self, name), "integers")
            if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
                raise InputError(f"{name}: expected integers, one an MZI, got {given.dtype} of shape {given.shape}")
            held = given.astype(np.int32)
            held.setflags(write=False)
            object.__setattr__(self, name, held)
        if not self.upper.size == self.lower.size == self.column.size:
            raise InputError(f"layout: {self.upper.size} upper ports, {self.lower.size} lower ports, {self.column.size} columns")
        if self.mzis:
            if (self.upper < 0).any() or (self.upper >= self.lower).any() or (self.lower >= self.ports).any():
                raise InputError(f"layout: expected 0 ≤ upper < lower < {self.ports} for every MZI")
            if self.column[0] < 0 or (np.diff(self.column) < 0).any():
                raise InputError("column: expected numbers ≥ 0 that never fall")
            used = np.concatenate([self.column.astype(np.int64) * self.ports + side for side in (self.upper, self.lower)])
            if np.unique(used).size != used.size:
                raise InputError("layout: two MZIs of one column share a port")
        count = self.ports if self.signals is None else check_integer("signals", self.signals, 1)
        if not 0 <= self.first_signal < self.first_signal + count <= self.ports:
            raise InputError(f"signals: {count} from port {self.first_signal} on do not fit into {self.ports} ports")
        object.__setattr__(self, "signals", int(count))

    @property
    def mzis(self) -> int:
        """Number of MZIs."""
        return int(self.upper.size)

    @property
    def depth(self) -> int:
        """Number of columns."""
        return int(self.column[-1]) + 1 if self.mzis else 0

    @property
    def signal_ports(self) -> slice:
        """The waveguides that carry a matrix."""
        return slice(self.first_signal, self.first_signal + (self.signals or 0))

    def truncated(self, columns: int) -> MeshLayout:
        """Its first columns alone: not every matrix, but light passes fewer MZIs that may be wrong (M. Y.-S. Fang et al., Opt.
        Express 27(10), 14009, 2019).

        Args:
            columns: how many of them, at most ``depth``.

        Raises:
            InputError: more, or none.
        """
        if check_integer("columns", columns, 1) > self.depth:
            raise InputError(f"columns: expected at most {self.depth}, which the {self.kind} mesh has, got {columns}")
        if columns == self.depth:
            return self
        kept = int(np.searchsorted(self.column, columns))
        upper, lower, column = (part[:kept] for part in (self.upper, self.lower, self.column))
        return MeshLayout(f"truncated {self.kind}", self.ports, upper, lower, column, self.first_signal, self.signals)

    @cached_property
    def index(self) -> npt.NDArray[np.int32]:
        """(depth, ports): which MZI has that upper port in that column; −1: none."""
        found = np.full((self.depth, self.ports), -1, np.int32)
        found[self.column, self.upper] = np.arange(self.mzis)
        return found

    @cached_property
    def executed(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """``execution_order`` and the upper and lower ports in it."""
        order = self.execution_order()
        return order, self.upper[order], self.lower[order]

    @cached_property
    def segmented(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """An order of execution by segments of √depth columns, its upper and lower ports, and where each segment begins."""
        columns = max(1, isqrt(self.depth))
        order = self.execution_order(columns)
        segments = max(1, -(-self.depth // columns))
        bounds = np.searchsorted(self.column[order] // columns, np.arange(segments + 1)).astype(np.int64)
        return order, self.upper[order], self.lower[order], bounds

    def execution_order(self, columns_at_once: int | None = None) -> npt.NDArray[np.int64]:
        """(MZIs,) an order in which light may be computed, close in memory: every MZI after those that feed it.

        Between neighbouring ports an MZI with upper port p in column c needs p − 1 and p + 1 of column c − 1, none of which has a
        greater p + c; so blocks of p + c may follow one another, each going through all columns with few ports at hand.

        Args:
            columns_at_once: all of so many columns come before any later one.
        """
        part = np.zeros_like(self.column) if columns_at_once is None else self.column // columns_at_once
        near = bool((self.lower - self.upper == 1).all())
        block = (self.upper + self.column) // BLOCK_PORTS if near else np.zeros_like(self.column)
        return np.lexsort((self.upper, self.column, block, part))


def layout(kind: MeshKind, ports: int) -> MeshLayout:
    """The layout of a named kind of mesh.

    - ``rectangular``: N(N−1)/2 MZIs in N columns (W. R. Clements et al., Optica 3(12), 1460, 2016).
    - ``triangular``: as many in 2N−3 columns (M. Reck et al., Phys. Rev. Lett. 73, 58, 1994).
    - ``diamond``: a triangle and its mirror image, (N−1)² MZIs in 2N−3 columns on 2N−2 waveguides, the lower N of which carry
      the signals (F. Shokraneh et al., Opt. Express 28(16), 23495, 2020).
    - ``butterfly``: (N/2)·log₂N MZIs in log₂N columns, column k joining ports whose numbers differ in bit k, as in a fast Fourier
      transform (R. Barak and Y. Ben-Aryeh, J. Opt. Soc. Am. B 24(2), 231, 2007).
    - ``binary_tree``: N−1 MZIs in ⌈log₂N⌉ columns, which gather all light in port 0 (D. A. B. Miller, Optica 7(7), 794, 2020).

    Args:
        kind: of ``MeshKind``.
        ports: N, signals that go in and come out.

    Raises:
        InputError: an unknown kind; a number below 1 or, for a butterfly, that is no power of two.
    """
    one_of("mesh", kind, get_args(MeshKind))
    if isinstance(ports, bool) or not isinstance(ports, int | np.integer) or not 1 <= ports <= MOST_PORTS:
        raise InputError(f"ports: expected an integer from 1 to {MOST_PORTS}, got {shown(ports)}")
    if kind == "butterfly" and ports & (ports - 1):
        raise InputError(f"ports: a butterfly has a power of two, got {ports}")
    return _made(kind, int(ports))


@lru_cache(maxsize=32)
def _made(kind: str, ports: int) -> MeshLayout:
    wires, first = (max(2 * ports - 2, 1), max(ports - 2, 0)) if kind == "diamond" else (ports, 0)
    column, upper, lower = _PAIRS[kind](ports)
    order = np.lexsort((upper, column))
    return MeshLayout(kind, wires, upper[order], lower[order], column[order], first, ports)


def _rectangular(ports: int) -> Places:
    column, upper = np.divmod(np.arange(ports * ports), ports)
    there = (upper < ports - 1) & ((upper - column) % 2 == 0)
    return column[there], upper[there], upper[there] + 1


def _triangular(ports: int) -> Places:
    chain, upper = np.divmod(np.arange(ports * ports), ports)
    there = chain + upper < ports - 1
    upper = upper[there]
    return upper + 2 * chain[there], upper, upper + 1


def _diamond(ports: int) -> Places:
    column, below, _ = _triangular(ports)
    above = below > 0
    upper = ports - 2 + np.concatenate([below, -below[above]])
    return np.concatenate([column, column[above]]), upper, upper + 1


def _butterfly(ports: int) -> Places:
    column, upper = np.divmod(np.arange(ports * (ports.bit_length() - 1)), ports)
    there = upper >> column & 1 == 0
    column, upper = column[there], upper[there]
    return column, upper, upper + (1 << column)


def _binary_tree(ports: int) -> Places:
    column, upper = np.divmod(np.arange(ports * (ports - 1).bit_length()), ports)
    there = (upper % (2 << column) == 0) & (upper + (1 << column) < ports)
    column, upper = column[there], upper[there]
    return column, upper, upper + (1 << column)


_PAIRS: dict[str, Callable[[int], Places]] = {
    "rectangular": _rectangular, "triangular": _triangular, "butterfly": _butterfly, "binary_tree": _binary_tree,
    "diamond": _diamond,
}  # fmt: skip
