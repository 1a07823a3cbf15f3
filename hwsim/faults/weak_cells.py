"""Cells that fail for good at low voltage or slow refresh: always the same ones, and more of them the further it goes.

Each cell has a quantile of its own, a number between 0 and 1 that a hash makes of the seed, its word's address and its bit. It
fails where the curve's bit error rate is above it. So the cells that fail at 0.60 V are among those that fail at 0.55 V, any part
of a memory can be worked out on its own, and every worker finds the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hwsim.faults.retention import RetentionCurve
from hwsim.faults.voltage import SramCurve
from hwsim.views.display import displayed
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numerics.faults import BitFaults, FaultMap

_CHUNK = 1 << 19
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_KINDS = {0: "stuck_at_0", 1: "stuck_at_1", -1: "flip"}

Reads = Literal["preferred", "inverted"]


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, figure 16)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _key(seed: int, purpose: str) -> np.uint64:
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def _uniform(key: np.uint64, *words: NDArray[Any]) -> NDArray[np.float64]:
    """Numbers strictly between 0 and 1 that look independent for different words; broadcasts."""
    found = np.asarray([key], np.uint64)
    for word in words:
        found = _mix(found + _GOLDEN * (np.asarray(word).astype(np.uint64) + np.uint64(1)))
    return ((found >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


@displayed
@dataclass(frozen=True, kw_only=True)
class FailedBits:
    """Bits of a tensor that lie in failing cells.

    Attributes:
        elements: flat indices, increasing; int64.
        bits: of the element's code, 0 the lowest; int64.
        values: what is read there: 0 or 1, or -1 for the inverse of what was written; int8.
    """

    elements: NDArray[np.int64]
    bits: NDArray[np.int64]
    values: NDArray[np.int8]

    def __len__(self) -> int:
        return int(self.elements.size)

    def fault_map(self) -> FaultMap:
        """The same as a fault map of the tensor."""
        from numerics.faults import FaultMap

        found = FaultMap.none()
        for value, kind in _KINDS.items():
            those = self.values == value
            if those.any():
                found = found.merged(FaultMap.from_places(self.elements[those], self.bits[those], kind))
        return found

    def bit_faults(self, *, target: str = "weight", modules: str = "*") -> tuple[BitFaults, ...]:
        """The same as fault models for ``numerics.faults.inject``, one for each kind that occurs.

        Args:
            target, modules: as in ``BitFaults``; the modules' tensors of that role are those of these elements.
        """
        from numerics.faults import BitFaults

        found = []
        for value, kind in _KINDS.items():
            those = self.values == value
            if those.any():
                places = tuple(zip(self.elements[those].tolist(), self.bits[those].tolist(), strict=True))
                found.append(BitFaults(kind=kind, target=target, modules=modules, places=places))  # type: ignore[arg-type]
        return tuple(found)


@displayed
@dataclass(frozen=True, kw_only=True)
class Array:
    """How cells stand in a memory, and how alike those of a row or column are.

    Attributes:
        word_bits: bits of a word.
        words_per_row: words beside each other on a word line.
        row_share, column_share: shares of the variance of a cell's weakness that its row and its column have in common; 0, and
            together below 1. Failures do cluster (Salami et al., "Fault characterization through FPGA undervolting", FPL 2018,
            abstract: far from uniform over the blocks), but no share is published there: any but 0 is a guess.
    """

    word_bits: int = 64
    words_per_row: int = 1
    row_share: float = 0.0
    column_share: float = 0.0

    def __post_init__(self) -> None:
        for name in ("word_bits", "words_per_row"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"{name}: expected an integer ≥ 1, got {value!r}")
        for name in ("row_share", "column_share"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name}: expected a share from 0 to below 1, got {getattr(self, name)!r}")
        if self.row_share + self.column_share >= 1:
            raise InputError(f"row_share + column_share: expected below 1, got {self.row_share + self.column_share:g}")

    def quantiles(self, seed: int, addresses: NDArray[np.int64], bits: NDArray[np.int64]) -> NDArray[np.float64]:
        """The quantile of each cell, broadcast over addresses and bits: uniform between 0 and 1 over all cells.

        With shares it is Φ(√r z_row + √c z_column + √(1-r-c) z_cell) of independent standard normal z (a Gaussian copula), which
        is uniform all the same: rows and columns move failures, they add none.
        """
        own = _uniform(_key(seed, "cell"), addresses, bits)
        if not (self.row_share or self.column_share):
            return own
        from scipy.special import ndtr, ndtri

        row = _uniform(_key(seed, "row"), addresses // self.words_per_row)
        column = _uniform(_key(seed, "column"), (addresses % self.words_per_row) * self.word_bits + bits)
        rest = 1.0 - self.row_share - self.column_share
        z = np.sqrt(self.row_share) * ndtri(row) + np.sqrt(self.column_share) * ndtri(column) + np.sqrt(rest) * ndtri(own)
        return np.asarray(ndtr(z))

    def places(self, elements: int, element_bits: int, base_address: int) -> Iterator[tuple[NDArray[np.int64], ...]]:
        """(elements, bits, addresses, bits of the words) of a tensor whose elements lie one after the other, in pieces."""
        for name, value, least in (
            ("elements", elements, 0),
            ("element_bits", element_bits, 1),
            ("base_address", base_address, 0),
        ):
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
                raise InputError(f"{name}: expected an integer ≥ {least}, got {value!r}")
        total = int(elements) * int(element_bits)
        for start in range(0, total, _CHUNK):
            at = np.arange(start, min(start + _CHUNK, total), dtype=np.int64)
            yield (
                at // element_bits,
                at % element_bits,
                np.int64(base_address) + at // self.word_bits,
                at % self.word_bits,
            )


def _failed(
    array: Array, seed: int, rate: float, elements: int, element_bits: int, base_address: int
) -> Iterator[tuple[NDArray[np.int64], ...]]:
    """Places of a tensor whose cells fail at a rate."""
    for element, bit, address, word_bit in array.places(elements, element_bits, base_address):
        if rate > 0:
            hit = array.quantiles(seed, address, word_bit) < rate
            yield element[hit], bit[hit], address[hit], word_bit[hit]


def _joined(parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int8]]]) -> FailedBits:
    if not parts:
        return FailedBits(elements=np.zeros(0, np.int64), bits=np.zeros(0, np.int64), values=np.zeros(0, np.int8))
    elements, bits, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    return FailedBits(elements=elements, bits=bits, values=values)


@displayed
@dataclass(frozen=True, kw_only=True)
class WeakCells:
    """The cells of one SRAM that fail at low voltage.

    The curve's rate is taken as the share of cells that fail. Such a cell holds what it is biased to, whatever was written (Kim
    et al., "Energy-efficient neural network acceleration in the presence of bit-level memory errors", IEEE TCAS-I 65(12), 2018: a
    read at low voltage takes it there), so that data that happen to agree are read right.

    Attributes:
        curve: its bit error rates.
        seed: of this memory; another is another chip.
        array: how the cells stand.
        reads: ``preferred``, or ``inverted`` for cells that always give the inverse of what was written.
    """

    curve: SramCurve
    seed: int
    array: Array = Array()
    reads: Reads = "preferred"

    def __post_init__(self) -> None:
        if self.reads not in ("preferred", "inverted"):
            raise unknown_name("reads", self.reads, ("preferred", "inverted"))

    def minimal_volts(self, addresses: Any, bits: Any) -> NDArray[np.float64]:
        """The voltage below which each cell fails, the curve's line continued; broadcasts over addresses and bits."""
        quantiles = self.array.quantiles(self.seed, np.asarray(addresses, np.int64), np.asarray(bits, np.int64))
        return self.curve.voltage_for(quantiles, extend=True)

    def fails(self, volts: float, addresses: Any, bits: Any, *, extend: bool = False) -> NDArray[np.bool_]:
        """Whether cells fail at a voltage; broadcasts over addresses and bits."""
        rate = self.curve.ber(float(volts), extend=extend)
        return self.array.quantiles(self.seed, np.asarray(addresses, np.int64), np.asarray(bits, np.int64)) < rate

    def preferred(self, addresses: Any, bits: Any) -> NDArray[np.int8]:
        """The value that each cell reads once it fails; broadcasts over addresses and bits."""
        drawn = _uniform(_key(self.seed, "preferred"), np.asarray(addresses, np.int64), np.asarray(bits, np.int64))
        return (drawn >= self.curve.zero_share).astype(np.int8)

    def failed_bits(
        self, volts: float, elements: int, *, element_bits: int, base_address: int = 0, extend: bool = False
    ) -> FailedBits:
        """The bits of a tensor in this memory that fail at a voltage.

        Args:
            volts: of the supply.
            elements: of the tensor, which lie one after the other, lowest bit first.
            element_bits: of a code.
            base_address: of the word where the tensor begins.
            extend: see ``SramCurve.ber``.

        Raises:
            InputError: a voltage that the curve lacks; sizes that are none.
        """
        rate = self.curve.ber(float(volts), extend=extend)
        parts = []
        for element, bit, address, word_bit in _failed(self.array, self.seed, rate, elements, element_bits, base_address):
            inverted = self.reads == "inverted"
            values = np.full(element.size, -1, np.int8) if inverted else self.preferred(address, word_bit)
            parts.append((element, bit, values))
        return _joined(parts)


@displayed
@dataclass(frozen=True, kw_only=True)
class LeakyCells:
    """The cells of one DRAM that lose their charge between refreshes.

    Attributes:
        curve: its bit error rates.
        seed: of this memory.
        array: how the cells stand.
        rows_per_polarity: rows of true cells, then as many of anti-cells, in turn; None for true cells only. How many they are
            differs between designs and is not published.
    """

    curve: RetentionCurve
    seed: int
    array: Array = Array()
    rows_per_polarity: int | None = None

    def __post_init__(self) -> None:
        rows = self.rows_per_polarity
        if rows is not None and (not isinstance(rows, int) or isinstance(rows, bool) or rows < 1):
            raise InputError(f"rows_per_polarity: expected an integer ≥ 1 or None, got {rows!r}")

    @cached_property
    def _words_per_polarity(self) -> int | None:
        return None if self.rows_per_polarity is None else self.rows_per_polarity * self.array.words_per_row

    def discharged(self, addresses: Any) -> NDArray[np.int8]:
        """What the cells of words read without their charge: 0 for true cells, 1 for anti-cells."""
        given = np.asarray(addresses, np.int64)
        if self._words_per_polarity is None:
            return np.zeros(given.shape, np.int8)
        return (given // self._words_per_polarity % 2).astype(np.int8)

    def failed_bits(
        self,
        interval_s: float,
        elements: int,
        *,
        element_bits: int,
        base_address: int = 0,
        temperature_c: float | None = None,
        extend: bool = False,
    ) -> FailedBits:
        """The bits of a tensor in this memory that are lost when rows are refreshed at an interval.

        Args:
            interval_s: between refreshes of a row.
            temperature_c: of the DRAM (None: the curve's).
            elements, element_bits, base_address, extend: as in ``WeakCells.failed_bits``.
        """
        rate = self.curve.ber(float(interval_s), temperature_c=temperature_c, extend=extend)
        return _joined(
            [
                (element, bit, self.discharged(address))
                for element, bit, address, _ in _failed(self.array, self.seed, rate, elements, element_bits, base_address)
            ]
        )
