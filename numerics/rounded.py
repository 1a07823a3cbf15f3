"""Arithmetic in which every operation is rounded to a float format once, and sums and products of arrays made of it.

Values are held in float64. Sums, products, quotients and square roots of numbers of at most 25 significant bits are computed
there and then rounded to the format; the second rounding does no harm. Products are exact (2 · 25 < 53 bits). A quotient or a
root of such numbers that is no number of 26 bits differs from every one of them by more than float64's error (Figueroa, ACM
SIGNUM Newsletter 30, 1995). A sum that is inexact in float64 is made odd first (Boldo and Melquiond, IEEE Trans. Computers 57,
2008), since directed and stochastic rounding tell it from its neighbour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from numerics._display import displayed
from numerics._product_operands import as_array
from numerics.errors import InputError, unknown_name
from numerics.formats import FloatFormat, Format, get_format
from numerics.quantizer import make_draw, quantize, stream_key
from numerics.rounding import check_rounding, default_overflow

if TYPE_CHECKING:
    from numpy.typing import NDArray

SumOrder = Literal["sequential", "pairwise", "blocked", "kahan"]
"""``sequential``, first to last; ``pairwise``, neighbours first, then neighbouring sums (a number left over waits); ``blocked``,
blocks sequentially, then their sums sequentially; ``kahan``, sequential with compensation (Kahan, Comm. ACM 8, 1965)."""

SUM_ORDERS = ("sequential", "pairwise", "blocked", "kahan")

SIGNIFICANT_BITS = 25
"""Most significant bits, the hidden one included, of a format other than fp64."""
_EXPONENTS = 500
"""Exponents within ± this: products and quotients stay inside float64's normal range."""


@displayed
class RoundedArithmetic:
    """The operations of a float format on float64 arrays (or numbers) that hold its values.

    Every result is the exact one rounded once. Operands are taken as they are: ``round`` makes values of other numbers.

    Args:
        fmt: a signed float format of at most 25 significant bits with exponents in ±500, or fp64, which is not rounded further.
        rounding: see ``numerics.rounding.Rounding``; fp64 rounds to nearest even.
        overflow: see ``numerics.rounding.Overflow``.
        seed: of ``stochastic``, an integer; each operation draws bits of its own.

    Raises:
        InputError: another format, an unknown mode, a seed missing or not needed.
    """

    def __init__(
        self, fmt: str | Format, *, rounding: str = "nearest_even", overflow: str | None = None, seed: int | None = None
    ) -> None:
        found = get_format(fmt)
        if not isinstance(found, FloatFormat) or not (found.signed and found.zero):
            raise InputError(f"format: expected a float format with a sign and a zero, got {found.name!r}")
        self.exact = found == get_format("fp64")
        check_rounding(rounding)
        if self.exact:
            if rounding != "nearest_even":
                raise InputError(f"rounding: fp64 is computed as the processor does; expected 'nearest_even', got {rounding!r}")
        elif found.mantissa_bits >= SIGNIFICANT_BITS:
            raise InputError(
                f"format: expected at most {SIGNIFICANT_BITS} significant bits, or fp64, got {found.name!r} "
                f"({found.mantissa_bits + 1})"
            )
        elif found.emax > _EXPONENTS or found.emin - found.mantissa_bits < -_EXPONENTS:
            raise InputError(
                f"format: expected exponents from {-_EXPONENTS} to {_EXPONENTS}, or fp64, got {found.name!r} "
                f"({found.emin - found.mantissa_bits} to {found.emax})"
            )
        if seed is not None and (not isinstance(seed, int | np.integer) or isinstance(seed, bool)):
            raise InputError(f"seed: expected an integer, got {type(seed).__name__}")
        make_draw(rounding, seed, 32, ())
        self.format = found
        self.rounding = rounding
        self.overflow = overflow
        self._stream = None if seed is None else stream_key(int(seed))

    def round(self, x: Any) -> Any:
        """The values of the format that ``x`` rounds to; float64."""
        values = np.asarray(as_array(x, "x", "RoundedArithmetic"), np.float64)
        if not self.exact:
            seed = None
            if self._stream is not None:
                seed = self._stream
                self._stream = (self._stream + 1) & ((1 << 64) - 1)
            values = quantize(values, self.format, rounding=self.rounding, overflow=self.overflow, seed=seed)
        return values[()]

    def add(self, a: Any, b: Any) -> Any:
        """a + b."""
        with np.errstate(invalid="ignore", over="ignore"):
            total = np.add(a, b)
            if self.exact or self.rounding.startswith("nearest"):
                return self.round(total)
            # What the sum lost (Knuth, The Art of Computer Programming 2, section 4.2.2, theorem B).
            part = total - a
            lost = (a - (total - part)) + (b - part)
        even = np.asarray(total).view(np.int64) & 1 == 0
        inexact = np.isfinite(total) & (lost != 0) & even
        return self.round(np.where(inexact, np.nextafter(total, np.copysign(np.inf, lost)), total))

    def subtract(self, a: Any, b: Any) -> Any:
        """a − b."""
        return self.add(a, np.negative(b))

    def multiply(self, a: Any, b: Any) -> Any:
        """a · b."""
        with np.errstate(invalid="ignore", over="ignore"):
            return self.round(np.multiply(a, b))

    def divide(self, a: Any, b: Any) -> Any:
        """a / b."""
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            return self.round(np.divide(a, b))

    def sqrt(self, a: Any) -> Any:
        """√a."""
        with np.errstate(invalid="ignore"):
            return self.round(np.sqrt(a))

    def sum(self, x: Any, *, axis: int = -1, order: SumOrder = "pairwise", block: int = 64) -> Any:
        """Sum along an axis, every addition rounded.

        Args:
            x: values of the format; at least one dimension.
            axis: along which to add.
            order: see ``SumOrder``.
            block: numbers in a block, for ``blocked``.

        Raises:
            InputError: no such axis, an unknown order, a block below 1.
        """
        check_order(order, block)
        values = np.asarray(as_array(x, "x", "RoundedArithmetic"), np.float64)
        if not isinstance(axis, int | np.integer) or isinstance(axis, bool) or not -values.ndim <= axis < values.ndim:
            raise InputError(f"axis: expected one of the {values.ndim} dimensions of x, got {axis!r}")
        # Additions run over the first axis, each on all the others at once.
        terms = np.moveaxis(values, axis, 0)
        if terms.size == 0:
            return np.zeros(terms.shape[1:])[()]
        if order == "pairwise":
            return self._pairwise(terms)
        known = self.rounding != "stochastic" and self.overflow in (None, "ieee", "saturate") and not self.exact
        # The kernel adds to zero, which clips an Inf; ``add`` takes the first term as it is.
        clips = (self.overflow or default_overflow(self.format)) == "saturate" and not np.isfinite(terms).all()
        if known and not clips and (order != "kahan" or self.rounding.startswith("nearest")):
            return self._by_kernel(terms, order, block)
        return self._kahan(terms) if order == "kahan" else self._blocked(terms, block if order == "blocked" else len(terms))

    def _by_kernel(self, terms: NDArray[np.float64], order: str, block: int) -> Any:
        """What ``_blocked`` and ``_kahan`` do, as a matrix product with ones."""
        from numerics.accumulator import Accumulator
        from numerics.products import matmul

        accumulator = Accumulator(
            format=self.format,
            rounding=self.rounding,
            overflow=self.overflow or default_overflow(self.format),
            order="systolic" if order == "blocked" else "sequential",
            group=block if order == "blocked" else None,
            compensated=order == "kahan",
        )
        columns = terms.reshape(len(terms), -1)
        result = matmul(np.ones((1, len(terms))), columns, accumulator=accumulator)
        return result.astype(np.float64).reshape(terms.shape[1:])[()]

    def _blocked(self, terms: NDArray[np.float64], block: int) -> Any:
        """Blocks sequentially, then their sums sequentially."""
        if len(terms) > block:
            whole = len(terms) // block * block
            sums = self._sequential(np.moveaxis(terms[:whole].reshape(-1, block, *terms.shape[1:]), 1, 0))
            rest = [self._sequential(terms[whole:])[None]] if whole < len(terms) else []
            terms = np.concatenate([sums, *rest])
        return self._sequential(terms)

    def _sequential(self, terms: NDArray[np.float64]) -> Any:
        if self.exact:
            return np.cumsum(terms, axis=0)[-1][()]
        total = terms[0]
        for term in terms[1:]:
            total = self.add(total, term)
        return total[()]

    def _pairwise(self, terms: NDArray[np.float64]) -> Any:
        while len(terms) > 1:
            pairs = len(terms) // 2
            sums = self.add(terms[0 : 2 * pairs : 2], terms[1 : 2 * pairs : 2])
            terms = np.concatenate([sums, terms[2 * pairs :]])
        return terms[0][()]

    def _kahan(self, terms: NDArray[np.float64]) -> Any:
        total, carry = np.zeros(terms.shape[1:]), np.zeros(terms.shape[1:])
        for term in terms:
            mended = self.subtract(term, carry)
            grown = self.add(total, mended)
            lost = self.subtract(self.subtract(grown, total), mended)
            carry = np.where(np.isfinite(grown), lost, 0.0)  # an infinite sum has lost nothing
            total = grown
        return total[()]

    def dot(self, a: Any, b: Any, *, order: SumOrder = "pairwise", block: int = 64) -> float:
        """Σ a · b of two vectors: the products rounded, then ``sum``.

        Raises:
            InputError: not two vectors of one length.
        """
        left, right = (np.asarray(as_array(v, field, "dot"), np.float64) for field, v in (("a", a), ("b", b)))
        if left.ndim != 1 or left.shape != right.shape:
            raise InputError(f"a, b: expected two vectors of one length, got shapes {left.shape} and {right.shape}")
        return float(self.sum(self.multiply(left, right), order=order, block=block))

    def matvec(self, a: Any, x: Any, *, order: SumOrder = "pairwise", block: int = 64) -> NDArray[np.float64]:
        """``a @ x`` of a matrix (m, n) and a vector (n,): the products rounded, then ``sum``.

        Raises:
            InputError: other shapes.
        """
        matrix, vector = (np.asarray(as_array(v, field, "matvec"), np.float64) for field, v in (("a", a), ("x", x)))
        if matrix.ndim != 2 or vector.shape != matrix.shape[1:]:
            raise InputError(f"a, x: expected shapes (m, n) and (n,), got {matrix.shape} and {vector.shape}")
        return np.asarray(self.sum(self.multiply(matrix, vector), axis=1, order=order, block=block))


def check_order(order: str, block: int) -> None:
    """See that ``order`` is a ``SumOrder`` and ``block`` a number of terms.

    Raises:
        InputError: they are not.
    """
    if order not in SUM_ORDERS:
        raise unknown_name("order", str(order), SUM_ORDERS)
    if not isinstance(block, int | np.integer) or isinstance(block, bool) or block < 1:
        raise InputError(f"block: expected an integer ≥ 1, got {block!r}")


def rounded_sum(
    x: Any,
    fmt: str | Format,
    *,
    order: SumOrder = "sequential",
    axis: int = -1,
    block: int = 64,
    rounding: str = "nearest_even",
    seed: int | None = None,
) -> Any:
    """The sum of ``x`` in a format: the terms rounded to it, then every addition.

    Args:
        x: numbers; at least one dimension.
        fmt, rounding, seed: see ``RoundedArithmetic``.
        order, axis, block: see ``RoundedArithmetic.sum``.

    Returns:
        float64 of the shape of x without the axis.

    Raises:
        InputError: as they do.
    """
    arithmetic = RoundedArithmetic(fmt, rounding=rounding, seed=seed)
    return arithmetic.sum(arithmetic.round(x), axis=axis, order=order, block=block)
