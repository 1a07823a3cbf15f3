"""Linear systems in low precision: LU factorisation, triangular solves, iterative refinement, conjugate gradients.

Every operation is rounded to the format asked for (``numerics.rounded``). What goes wrong in a short format - a pivot that
becomes zero, an overflow, a residual that no longer falls - is part of the result, so that methods and formats can be compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from numerics._display import displayed, displayed_by
from numerics._product_operands import as_array
from numerics.errors import InputError
from numerics.formats import FloatFormat, Format, get_format
from numerics.rounded import RoundedArithmetic, SumOrder, check_order

if TYPE_CHECKING:
    from numpy.typing import NDArray

LUFailure = Literal["zero pivot", "overflow"]
"""Why a factorisation stopped: no pivot other than 0 in a column; an Inf or NaN among the numbers (where the format saturates
there is none, and the result is only wrong)."""

RefinementEnd = Literal["converged", "stagnated", "diverged", "iterations", "zero pivot", "overflow"]
"""How a refinement ended: the tolerance reached; no new least error in ``PATIENCE`` steps; an Inf or NaN; no steps left; the
factorisation failed."""

CGEnd = Literal["converged", "residual gap", "breakdown", "iterations"]
"""How conjugate gradients ended: the tolerance reached; reached by the residual of the recurrence only, not by b − Ax; a
direction without positive curvature, or an Inf or NaN; no steps left."""

PATIENCE = 5
"""Steps without a new least error after which a refinement counts as stagnated."""


# --- factorisation ------------------------------------------------------------------------------------------------------


@displayed
@dataclass(frozen=True)
class LUFactors:
    """``a[order] = lower @ upper``, up to rounding.

    Attributes:
        format: of every operation and of the factors.
        lu: both factors in one matrix, the unit diagonal of the lower one left out; float64, shape (n, n). Not to be used after a
            failure.
        order: rows of the matrix in the order in which partial pivoting took them, shape (n,).
        growth: largest element of ``upper`` over the largest of the matrix.
        failure: why it stopped, or None.
        column: where it stopped, or None.
    """

    format: FloatFormat
    lu: NDArray[np.float64]
    order: NDArray[np.intp]
    growth: float
    failure: LUFailure | None = None
    column: int | None = None

    @property
    def lower(self) -> NDArray[np.float64]:
        """The unit lower triangular factor."""
        return np.tril(self.lu, -1) + np.eye(len(self.lu))

    @property
    def upper(self) -> NDArray[np.float64]:
        """The upper triangular factor."""
        return np.triu(self.lu)


def lu_factor(a: Any, fmt: str | Format, *, rounding: str = "nearest_even", seed: int | None = None) -> LUFactors:
    """LU factorisation with partial pivoting of a matrix rounded to a format.

    Elements are updated in the order of outer products (Golub and Van Loan, Matrix Computations, algorithm 3.4.1): one rounded
    division for an element of the lower factor, a rounded product and a rounded difference for each update.

    Args:
        a: finite numbers, shape (n, n).
        fmt, rounding, seed: see ``numerics.rounded.RoundedArithmetic``.

    Raises:
        InputError: not a square matrix of finite numbers; as ``RoundedArithmetic``.
    """
    arithmetic = RoundedArithmetic(fmt, rounding=rounding, seed=seed)
    lu = np.array(arithmetic.round(_square(a)), np.float64)
    n, order = len(lu), np.arange(len(lu))
    largest = float(np.abs(lu).max())
    for k in range(n):
        pivot = k + int(np.argmax(np.abs(lu[k:, k])))
        if pivot != k:
            lu[[k, pivot]], order[[k, pivot]] = lu[[pivot, k]], order[[pivot, k]]
        bad = not np.isfinite(lu[k:, k:]).all()
        if bad or lu[k, k] == 0:
            return LUFactors(arithmetic.format, lu, order, math.nan, "overflow" if bad else "zero pivot", k)
        lu[k + 1 :, k] = arithmetic.divide(lu[k + 1 :, k], lu[k, k])
        products = arithmetic.multiply(lu[k + 1 :, k, None], lu[k, None, k + 1 :])
        lu[k + 1 :, k + 1 :] = arithmetic.subtract(lu[k + 1 :, k + 1 :], products)
    return LUFactors(arithmetic.format, lu, order, float(np.abs(np.triu(lu)).max()) / largest)


def solve_triangular(
    t: Any,
    b: Any,
    fmt: str | Format,
    *,
    lower: bool = False,
    unit_diagonal: bool = False,
    rounding: str = "nearest_even",
    seed: int | None = None,
) -> NDArray[np.float64]:
    """Substitution in a format: t and b rounded to it, then every product, difference and quotient.

    Args:
        t: shape (n, n); only the triangle in question is read.
        b: shape (n,) or (n, m).
        fmt, rounding, seed: see ``numerics.rounded.RoundedArithmetic``.
        lower: whether t is lower triangular.
        unit_diagonal: whether its diagonal is 1, whatever stands there.

    Returns:
        x of the shape of b, float64; Inf or NaN where the format overflowed.

    Raises:
        InputError: other shapes, numbers that are not finite, a zero on the diagonal; as ``RoundedArithmetic``.
    """
    arithmetic = RoundedArithmetic(fmt, rounding=rounding, seed=seed)
    matrix = np.asarray(arithmetic.round(_square(t, "t")))
    right = _right_side(b, len(matrix))
    if not unit_diagonal and not np.diag(matrix).all():
        place = int(np.flatnonzero(np.diag(matrix) == 0)[0])
        raise InputError(f"t: expected no zero on the diagonal (in {arithmetic.format.name!r}), got one in row {place}")
    return _substitute(arithmetic, matrix, np.array(arithmetic.round(right)), lower, unit_diagonal)


def _substitute(
    arithmetic: RoundedArithmetic, t: NDArray[np.float64], x: NDArray[np.float64], lower: bool, unit: bool
) -> NDArray[np.float64]:
    """Column by column, in place: each x found is at once taken from the equations that are left."""
    n = len(t)
    for k in range(n) if lower else range(n - 1, -1, -1):
        if not unit:
            x[k] = arithmetic.divide(x[k], t[k, k])
        rest = slice(k + 1, n) if lower else slice(0, k)
        column = t[rest, k].reshape(-1, *(1,) * (x.ndim - 1))
        x[rest] = arithmetic.subtract(x[rest], arithmetic.multiply(column, x[k]))
    return x


def solve_lu(
    factors: LUFactors, b: Any, *, fmt: str | Format | None = None, rounding: str = "nearest_even", seed: int | None = None
) -> NDArray[np.float64]:
    """Solve A x = b with the factors of A: two triangular solves.

    Args:
        factors: of a factorisation that did not fail.
        b: shape (n,) or (n, m).
        fmt: format of the solves; that of the factors unless given.
        rounding, seed: see ``numerics.rounded.RoundedArithmetic``.

    Raises:
        InputError: failed factors, another shape; as ``RoundedArithmetic``.
    """
    if not isinstance(factors, LUFactors):
        raise InputError(f"factors: expected the LUFactors that lu_factor gives, got {type(factors).__name__}")
    if factors.failure is not None:
        raise InputError(f"factors: expected those of a factorisation that succeeded, got {factors.failure!r}")
    arithmetic = RoundedArithmetic(factors.format if fmt is None else fmt, rounding=rounding, seed=seed)
    right = _right_side(b, len(factors.lu))
    return _solve(arithmetic, factors, right)


def _solve(arithmetic: RoundedArithmetic, factors: LUFactors, right: NDArray[np.float64]) -> NDArray[np.float64]:
    lu = np.asarray(arithmetic.round(factors.lu))
    middle = _substitute(arithmetic, lu, np.array(arithmetic.round(right[factors.order])), lower=True, unit=True)
    return _substitute(arithmetic, lu, middle, lower=False, unit=False)


def equilibrate(a: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Powers of two r and c that bring the largest element of every row and column of r[:, None] · a · c into (½, 1].

    Rows first, then columns (Higham, Pranesh and Zounon, SIAM J. Sci. Comput. 41, 2019, algorithm 2.4, with scales rounded to
    powers of two so that scaling is exact). A row or column of zeros keeps the scale 1.

    Args:
        a: finite numbers, shape (n, n).

    Returns:
        r and c, each of shape (n,).

    Raises:
        InputError: not a square matrix of finite numbers.
    """
    matrix = np.abs(_square(a))
    rows = _power_of_two(matrix.max(axis=1))
    return rows, _power_of_two((matrix * rows[:, None]).max(axis=0))


def _power_of_two(largest: NDArray[np.float64]) -> NDArray[np.float64]:
    """The power of two that brings each number into (½, 1]; 1 for 0."""
    fraction, exponent = np.frexp(largest)
    return np.where(largest > 0, np.ldexp(1.0, -(exponent - (fraction == 0.5))), 1.0)


# --- iterative refinement -----------------------------------------------------------------------------------------------


@displayed_by("numerics._cards:iterations")
@dataclass(frozen=True)
class Refinement:
    """A solution found by iterative refinement, or how far it came.

    Attributes:
        x: the iterate of least backward error, float64, shape (n,); NaN where the factorisation failed.
        converged: whether the backward error came to the tolerance.
        end: how it ended.
        iterations: corrections made.
        backward_errors: ‖b − Ax‖ / (‖A‖ ‖x‖ + ‖b‖) in the ∞-norm (Rigal and Gaches, J. ACM 14, 1967), of the first solution and
            after each correction, from residuals in the residual format.
        tolerance: what it was compared with.
        factors: of the matrix (scaled, if it was).
    """

    x: NDArray[np.float64]
    converged: bool
    end: RefinementEnd
    iterations: int
    backward_errors: tuple[float, ...]
    tolerance: float
    factors: LUFactors


def iterative_refinement(
    a: Any,
    b: Any,
    *,
    factor_format: str | Format,
    solve_format: str | Format | None = None,
    working_format: str | Format = "fp64",
    residual_format: str | Format = "fp64",
    scaled: bool = False,
    tolerance: float | None = None,
    most_iterations: int = 50,
    rounding: str = "nearest_even",
    seed: int | None = None,
) -> Refinement:
    """Solve A x = b with LU factors in a short format, and corrections from residuals in a longer one.

    Carson and Higham, SIAM J. Sci. Comput. 40, 2018, algorithm 1.1, with three precisions: A is factored in ``factor_format``
    (u_f); A, b, x and the corrections are kept in ``working_format`` (u); residuals are computed in ``residual_format`` (u_r).
    Each residual is scaled by a power of two before it is solved for, so that it does not sink below a short format's range. It
    converges where u_f · κ∞(A) is well below 1, and then to a backward error of about u.

    Args:
        a: finite numbers, shape (n, n).
        b: finite numbers, shape (n,).
        factor_format: of the factorisation.
        solve_format: of the triangular solves; ``factor_format`` unless given.
        working_format, residual_format: as above.
        scaled: factor μ · r · A · c instead of A, with ``equilibrate``'s r and c, for matrices whose elements a short format
            cannot hold. The power of two μ ≤ √max brings the largest element to the middle of the format's exponents, which
            leaves room for growth above and for small elements below.
        tolerance: backward error to reach; √n · u, with u half of ``working_format``'s eps (½ at most), unless given.
        most_iterations: corrections at most.
        rounding, seed: of the factorisation and the solves; working and residual formats round to nearest even.

    Raises:
        InputError: other shapes, numbers that are not finite, an argument out of range; as ``RoundedArithmetic``.
    """
    working, residuals = RoundedArithmetic(working_format), RoundedArithmetic(residual_format)
    factoring = get_format(factor_format)
    solving = _second(factoring if solve_format is None else solve_format, rounding, seed)
    matrix = np.asarray(working.round(_square(a)))
    n = len(matrix)
    right = _right_side(b, n)
    if right.ndim != 1:
        raise InputError(f"b: expected shape ({n},), got {right.shape}")
    right = np.asarray(working.round(right))
    _finite(matrix, f"a, rounded to {working.format.name!r}")
    _finite(right, f"b, rounded to {working.format.name!r}")
    goal = min(math.sqrt(n) * working.format.eps / 2, 0.5) if tolerance is None else tolerance
    _check_limits(goal, most_iterations)

    rows, columns = equilibrate(matrix) if scaled else (np.ones(n), np.ones(n))
    top = math.ldexp(1.0, math.floor(math.log2(factoring.max) / 2)) if scaled else 1.0
    factors = lu_factor(matrix * rows[:, None] * columns * top, factoring, rounding=rounding, seed=seed)
    if factors.failure is not None:
        return Refinement(np.full(n, math.nan), False, factors.failure, 0, (), goal, factors)

    def corrected(residual: NDArray[np.float64]) -> NDArray[np.float64]:
        target = residual * rows
        scale = float(_power_of_two(np.abs(target).max(keepdims=True))[0])
        return _solve(solving, factors, target * (scale * top)) * columns / scale

    size = float(np.abs(matrix).sum(axis=1).max())
    residual_matrix = np.asarray(residuals.round(matrix))
    x = np.zeros(n)
    residual = right
    best, least, since = x, math.inf, 0
    errors: list[float] = []
    for iteration in range(most_iterations + 1):
        with np.errstate(invalid="ignore", over="ignore"):
            x = np.asarray(working.add(x, working.round(corrected(residual))))
            if not np.isfinite(x).all():
                return Refinement(best, False, "diverged", iteration, tuple(errors), goal, factors)
            product = _product(residuals, residual_matrix, np.asarray(residuals.round(x)))
            residual = np.asarray(working.round(residuals.subtract(residuals.round(right), product)))
        error = float(np.abs(residual).max()) / (size * float(np.abs(x).max()) + float(np.abs(right).max()) or 1.0)
        errors.append(error)
        if not math.isfinite(error):
            return Refinement(best, False, "diverged", iteration, tuple(errors), goal, factors)
        since = 0 if error < least else since + 1
        best, least = (x, error) if error < least else (best, least)
        if error <= goal:
            return Refinement(x, True, "converged", iteration, tuple(errors), goal, factors)
        if since >= PATIENCE:
            return Refinement(best, False, "stagnated", iteration, tuple(errors), goal, factors)
    return Refinement(best, False, "iterations", most_iterations, tuple(errors), goal, factors)


def _product(arithmetic: RoundedArithmetic, matrix: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Matrix times vector; fp64 by BLAS."""
    return matrix @ x if arithmetic.exact else arithmetic.matvec(matrix, x)


# --- conjugate gradients ------------------------------------------------------------------------------------------------


@displayed_by("numerics._cards:iterations")
@dataclass(frozen=True)
class ConjugateGradients:
    """A solution found by conjugate gradients, or how far they came.

    Attributes:
        x: the last iterate, float64, shape (n,).
        converged: whether ‖b − Ax‖ came to the tolerance.
        end: how it ended.
        iterations: steps made.
        residual_norms: ‖r‖ / ‖b‖ (0 where b is 0) of the residual that the recurrence carries, before each step and after the
            last; the 2-norm.
        true_residual_norms: ‖b − Ax‖ / ‖b‖ of the same iterates, computed in float64.
    """

    x: NDArray[np.float64]
    converged: bool
    end: CGEnd
    iterations: int
    residual_norms: tuple[float, ...]
    true_residual_norms: tuple[float, ...]


def conjugate_gradients(
    a: Any,
    b: Any,
    fmt: str | Format,
    *,
    sum_format: str | Format | None = None,
    order: SumOrder = "pairwise",
    block: int = 64,
    tolerance: float = 1e-6,
    most_iterations: int | None = None,
    rounding: str = "nearest_even",
    seed: int | None = None,
) -> ConjugateGradients:
    """Solve A x = b, A symmetric and positive definite, with every operation rounded.

    The method of Hestenes and Stiefel, J. Res. Nat. Bur. Standards 49, 1952, section 3, from x = 0. A, b and the vectors are kept
    in ``fmt``; the products and sums of dot products and of A p are computed in ``sum_format``. In exact arithmetic the residual
    of the recurrence is b − Ax; rounded, the two part ways, and the recurrence can fall below a
    tolerance that b − Ax never reaches (Greenbaum, SIAM J. Matrix Anal. Appl. 18, 1997). Both are reported.

    Args:
        a: symmetric, finite numbers, shape (n, n).
        b: finite numbers, shape (n,); the solution for b = 0 is 0, in no step.
        fmt, rounding, seed: see ``numerics.rounded.RoundedArithmetic``.
        sum_format: of dot products and matrix-vector products; ``fmt`` unless given.
        order, block: of their sums; see ``numerics.rounded.SumOrder``.
        tolerance: ‖r‖ / ‖b‖ to reach.
        most_iterations: steps at most; 10 n unless given.

    Raises:
        InputError: other shapes, a matrix that is not symmetric, an argument out of range; as ``RoundedArithmetic``.
    """
    vectors = RoundedArithmetic(fmt, rounding=rounding, seed=seed)
    sums = vectors if sum_format is None else _second(sum_format, rounding, seed)
    check_order(order, block)
    matrix = _square(a)
    if not np.array_equal(matrix, matrix.T):
        raise InputError(f"a: expected a symmetric matrix, got one that differs by up to {np.abs(matrix - matrix.T).max():g}")
    right = _right_side(b, len(matrix))
    if right.ndim != 1:
        raise InputError(f"b: expected shape ({len(matrix)},), got shape {right.shape}")
    limit = 10 * len(right) if most_iterations is None else most_iterations
    _check_limits(tolerance, limit)
    if not right.any():
        return ConjugateGradients(np.zeros(len(right)), True, "converged", 0, (0.0,), (0.0,))
    rounded_matrix = np.asarray(vectors.round(matrix))
    matrix_of_sums = np.asarray(sums.round(rounded_matrix))
    size = float(np.linalg.norm(right))

    def dot(u: NDArray[np.float64], v: NDArray[np.float64]) -> float:
        return sums.dot(sums.round(u), sums.round(v), order=order, block=block)

    x = np.zeros(len(right))
    r = np.asarray(vectors.round(right))
    p = r
    square = dot(r, r)
    carried, actual = [math.sqrt(square) / size], [1.0]
    end: CGEnd = "iterations"
    steps = 0
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        while steps < limit and not carried[-1] <= tolerance:
            product = np.asarray(vectors.round(sums.matvec(matrix_of_sums, sums.round(p), order=order, block=block)))
            curvature = dot(p, product)
            if not (math.isfinite(square) and 0 < curvature < math.inf):
                end = "breakdown"
                break
            alpha = float(vectors.round(sums.divide(square, curvature)))
            x_next = np.asarray(vectors.add(x, vectors.multiply(alpha, p)))
            r = np.asarray(vectors.subtract(r, vectors.multiply(alpha, product)))
            if not (np.isfinite(x_next).all() and np.isfinite(r).all()):
                end = "breakdown"
                break
            x, before, square = x_next, square, dot(r, r)
            beta = float(vectors.round(sums.divide(square, before)))
            p = np.asarray(vectors.add(r, vectors.multiply(beta, p)))
            steps += 1
            carried.append(math.sqrt(square) / size)
            actual.append(float(np.linalg.norm(right - matrix @ x)) / size)
    if carried[-1] <= tolerance:
        end = "converged" if actual[-1] <= tolerance else "residual gap"
    return ConjugateGradients(x, actual[-1] <= tolerance, end, steps, tuple(carried), tuple(actual))


def _second(fmt: str | Format, rounding: str, seed: int | None) -> RoundedArithmetic:
    """The arithmetic of a second format in the same mode (but fp64 has one mode only)."""
    if get_format(fmt) == get_format("fp64"):
        return RoundedArithmetic(fmt)
    # A stream of its own: the same bits would otherwise decide on the roundings of both.
    other = None if seed is None else (seed + (1 << 63)) % (1 << 64)
    return RoundedArithmetic(fmt, rounding=rounding, seed=other)


# --- checks -------------------------------------------------------------------------------------------------------------


def _finite(values: NDArray[np.float64], field: str) -> None:
    if not np.isfinite(values).all():
        raise InputError(f"{field}: expected finite numbers, got {values[~np.isfinite(values)].flat[0]}")


def _square(a: Any, field: str = "a") -> NDArray[np.float64]:
    matrix = as_array(a, field, "a solver")
    if matrix.dtype.kind not in "fiu" or matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise InputError(f"{field}: expected real numbers of shape (n, n), got {matrix.dtype} of shape {matrix.shape}")
    matrix = matrix.astype(np.float64)
    _finite(matrix, field)
    return matrix


def _right_side(b: Any, n: int) -> NDArray[np.float64]:
    right = as_array(b, "b", "a solver")
    if right.dtype.kind not in "fiu" or right.ndim not in (1, 2) or right.shape[0] != n:
        raise InputError(f"b: expected real numbers of shape ({n},) or ({n}, m), got {right.dtype} of shape {right.shape}")
    right = right.astype(np.float64)
    _finite(right, "b")
    return right


def _check_limits(tolerance: float, most_iterations: int) -> None:
    if not isinstance(tolerance, int | float | np.floating) or not 0 < tolerance < 1:
        raise InputError(f"tolerance: expected a number between 0 and 1, got {tolerance!r}")
    if not isinstance(most_iterations, int | np.integer) or isinstance(most_iterations, bool) or most_iterations < 0:
        raise InputError(f"most_iterations: expected an integer ≥ 0, got {most_iterations!r}")
