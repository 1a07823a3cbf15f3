"""Codebooks fitted to data: the values that a few codes should stand for, and what the tables cost.

``fit_codebook`` gives a ``CodebookFormat`` that ``quantize`` and ``encode`` take; ``fit_groups`` gives each group of weights a
table of its own. The error is the mean square error, weighted by an importance where one is given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from numerics._display import displayed, displaying
from numerics.encoding import encode
from numerics.errors import InputError, unknown_name
from numerics.formats import CodebookFormat, FloatFormat, Format, get_format
from numerics.packing import code_dtype
from numerics.quantizer import as_floats, quantize

if TYPE_CHECKING:
    from numpy.typing import NDArray

Method = Literal["min_max", "mse_uniform", "lloyd_max", "optimal"]
"""How the values are chosen.

- ``min_max``: evenly spaced from the smallest to the largest element.
- ``mse_uniform``: evenly spaced, with the offset and step of least error (Max, IRE Trans. Inf. Theory 6, 1960, section IV).
- ``lloyd_max``: each value the mean of the elements nearest to it, iterated from ``mse_uniform`` (Lloyd, IEEE Trans. Inf. Theory
  28, 1982, method I): a local optimum.
- ``optimal``: the global optimum, by dynamic programming over the sorted elements (Wang and Song, The R Journal 3/2, 2011), in
  levels · n · log n steps.
"""

METHODS = ("min_max", "mse_uniform", "lloyd_max", "optimal")

LEVELS = 1 << 12
"""Most values that are fitted."""
MOST_ITERATIONS = 10_000
MOST_CHOICES = 1 << 28
"""Most levels × elements of ``optimal``, which keeps 4 bytes for each."""
_SHRINKS = np.linspace(1.0, 0.1, 19)
"""Parts of the range that ``mse_uniform`` starts from: it goes to the nearest optimum from each and keeps the best."""


@displayed
@dataclass(frozen=True)
class CodebookFit:
    """A codebook and how well it stands for the data it was fitted to.

    Attributes:
        format: the codebook; its values are in the format asked for the table.
        method: see ``Method``.
        mean_square_error: of the data, weighted by the importance.
        sqnr_db: mean square of the data over that of the error, so weighted; Inf where there is no error.
        iterations: steps taken (0 for a method that does not iterate).
        converged: whether the iteration came to its tolerance; False where ``MOST_ITERATIONS`` were not enough.
    """

    format: CodebookFormat
    method: str
    mean_square_error: float
    sqnr_db: float
    iterations: int
    converged: bool


def fit_codebook(
    x: Any,
    *,
    levels: int,
    method: Method = "lloyd_max",
    importance: Any = None,
    tolerance: float = 0.0,
    table_format: str | Format = "fp32",
    name: str | None = None,
) -> CodebookFit:
    """A codebook for the values of ``x``.

    Where ``x`` has no more distinct values than ``levels``, those (as the table's format has them) are the codebook.

    Args:
        x: floats (numpy or torch), any shape.
        levels: values of the codebook, 2 to 4,096; 8 are 3-bit codes.
        method: see ``Method``.
        importance: weight of each element's square error, ≥ 0, of the shape of x; all 1 if left out.
        tolerance: of ``lloyd_max`` and ``mse_uniform``: stop where a step takes less than this part off the error. With 0 they
            stop where no element changes its cell any more.
        table_format: float format of the values, so that the table takes its bits.
        name: of the format; ``method`` and ``levels`` otherwise.

    Raises:
        InputError: no floats, one that is not finite, fewer than 2 distinct values, or an argument out of range.
    """
    values, weights = _data(x, importance)
    _check(levels, method, tolerance)
    table = _table_format(table_format)
    found = _fit(_Sorted.of(values, weights), levels, method, tolerance)
    centres = np.unique(quantize(found.centres, table))
    if len(centres) < 2:
        raise InputError(f"x: expected at least 2 distinct values (in {table.name!r}), got 1; a constant needs no codebook")
    fmt = CodebookFormat(name or f"{method}_{levels}", tuple(centres.tolist()))
    error = _mean_square(quantize(values, fmt) - values, weights)
    return CodebookFit(fmt, method, error, _decibels(_mean_square(values, weights), error), found.iterations, found.converged)


# --- groups -------------------------------------------------------------------------------------------------------------


@displaying("bits_per_weight", "storage_bytes")
@dataclass(frozen=True)
class GroupedCodebooks:
    """A tensor whose groups of consecutive elements each have a table of values.

    Attributes:
        codes: unsigned integers of the shape of the tensor.
        tables: the values, float64, shape (groups, levels), ascending; a group with fewer values repeats its last.
        group_size: elements (in C order) that share a table.
        table_format: format of the values in the tables.
        sqnr_db: as for ``CodebookFit``, over all groups.
        not_converged: groups whose iteration did not come to its tolerance.
    """

    codes: NDArray[Any]
    tables: NDArray[np.float64]
    group_size: int
    table_format: FloatFormat
    sqnr_db: float
    not_converged: int

    @property
    def storage_bytes(self) -> int:
        """Bytes of codes and tables, each densely packed."""
        code_bits = max(1, math.ceil(math.log2(self.tables.shape[1])))
        return -(-self.codes.size * code_bits // 8) + self.table_format.storage_bytes(self.tables.size)

    @property
    def bits_per_weight(self) -> float:
        """Bits of codes and tables for each element."""
        return 8 * self.storage_bytes / self.codes.size

    def decode(self, *, dtype: Any = np.float32) -> NDArray[Any]:
        """The values, in the shape of the tensor."""
        codes = self.codes.reshape(len(self.tables), -1)
        return np.take_along_axis(self.tables, codes.astype(np.intp), axis=1).astype(dtype).reshape(self.codes.shape)


def fit_groups(
    x: Any,
    *,
    levels: int,
    group_size: int,
    method: Method = "lloyd_max",
    importance: Any = None,
    tolerance: float = 0.0,
    table_format: str | Format = "fp16",
) -> GroupedCodebooks:
    """A table for each ``group_size`` consecutive elements of ``x``, and the codes.

    Args:
        x, levels, method, importance, tolerance, table_format: as for ``fit_codebook``; constant groups are fine.
        group_size: divides the number of elements; the length of a row gives a table a row.

    Raises:
        InputError: as ``fit_codebook``; a group size that does not divide.
    """
    values, weights = _data(x, importance)
    _check(levels, method, tolerance)
    table = _table_format(table_format)
    if not isinstance(group_size, int | np.integer) or group_size < 1 or values.size % group_size:
        raise InputError(f"group_size: expected a divisor of the {values.size} elements, got {group_size!r}")
    rows, row_weights = values.reshape(-1, group_size), weights.reshape(-1, group_size)
    tables = np.empty((len(rows), levels))
    codes = np.zeros(rows.shape, code_dtype(max(1, math.ceil(math.log2(levels)))))
    not_converged = 0
    for i, (row, weight) in enumerate(zip(rows, row_weights, strict=True)):
        # A group without importance may get any values: those of equal importance.
        found = _fit(_Sorted.of(row, weight if weight.any() else np.ones_like(weight)), levels, method, tolerance)
        not_converged += not found.converged
        centres = np.unique(quantize(found.centres, table))
        if not np.isfinite(centres).all():
            raise InputError(f"table_format: {table.name!r} does not hold the values of group {i}, up to {np.abs(row).max():g}")
        tables[i] = np.append(centres, np.full(levels - len(centres), centres[-1]))
        if len(centres) > 1:
            codes[i] = encode(row, CodebookFormat("group", tuple(centres.tolist())))
    error = _mean_square(np.take_along_axis(tables, codes.astype(np.intp), axis=1) - rows, row_weights)
    shape = tuple(np.shape(x))
    sqnr = _decibels(_mean_square(values, weights), error)
    return GroupedCodebooks(codes.reshape(shape), tables, int(group_size), table, sqnr, not_converged)


# --- fitting ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    centres: NDArray[np.float64]
    iterations: int = 0
    converged: bool = True


@dataclass(frozen=True)
class _Sorted:
    """Distinct values, ascending, less their mean; sums of w, w·x and w·x² over those before each."""

    values: NDArray[np.float64]
    mean: float
    weight: NDArray[np.float64]
    first: NDArray[np.float64]
    second: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[np.float64], weights: NDArray[np.float64]) -> _Sorted:
        flat, w = values.reshape(-1), weights.reshape(-1)
        distinct, place = np.unique(flat[w > 0], return_inverse=True)
        summed = np.bincount(place, weights=w[w > 0])
        mean = float(np.average(distinct, weights=summed))
        centred = distinct - mean  # so that the sums of squares lose nothing to a common offset
        sums = [np.concatenate([[0.0], np.cumsum(summed * centred**power)]) for power in (0, 1, 2)]
        return cls(centred, mean, *sums)


def _fit(data: _Sorted, levels: int, method: str, tolerance: float) -> _Found:
    if len(data.values) <= levels:
        return _Found(data.values + data.mean)
    if method == "min_max":
        return _Found(np.linspace(data.values[0], data.values[-1], levels) + data.mean)
    from numerics import _codebook_kernels as k

    sums = (data.weight, data.first, data.second)
    if method == "optimal":
        if len(data.values) * levels > MOST_CHOICES:
            raise InputError(
                f"method: 'optimal' takes at most {MOST_CHOICES} levels × distinct elements, got {levels} × {len(data.values)}; "
                f"'lloyd_max' has no limit"
            )
        edges = k.optimal_edges(*sums, levels)
        return _Found(np.diff(data.first[edges]) / np.diff(data.weight[edges]) + data.mean)
    centres = np.empty(levels)
    iterations, converged = k.best_even(data.values, *sums, centres, _SHRINKS, tolerance, MOST_ITERATIONS)
    if method == "lloyd_max":
        iterations, converged, _ = k.alternate(data.values, *sums, centres, False, tolerance, MOST_ITERATIONS)
    return _Found(centres + data.mean, iterations, converged)


# --- checks -------------------------------------------------------------------------------------------------------------


def _data(x: Any, importance: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Elements and their weights, flat float64."""
    array = _numbers(x, "x")
    if array.size == 0:
        raise InputError("x: expected at least one element, got an empty array")
    if not np.isfinite(array).all():
        raise InputError(f"x: expected finite numbers, got {array[~np.isfinite(array)].flat[0]}")
    if importance is None:
        return array.reshape(-1), np.ones(array.size)
    weights = _numbers(importance, "importance")
    if weights.shape != array.shape:
        raise InputError(f"importance: expected shape {array.shape}, got {weights.shape}")
    good = np.isfinite(weights) & (weights >= 0)
    if not good.all():
        raise InputError(f"importance: expected finite numbers ≥ 0, got {weights[~good].flat[0]}")
    if not weights.any():
        raise InputError("importance: expected at least one element above 0, got zeros only")
    return array.reshape(-1), weights.reshape(-1)


def _numbers(x: Any, field: str) -> NDArray[np.float64]:
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        x = x.float().numpy() if str(x.dtype) == "torch.bfloat16" else x.numpy()
    if np.asarray(x).dtype.kind in "iub" and field == "importance":
        return np.asarray(x, np.float64)
    try:
        return as_floats(x)[0].astype(np.float64)
    except InputError as error:
        raise InputError(str(error).replace("x:", f"{field}:", 1)) from None


def _check(levels: int, method: str, tolerance: float) -> None:
    if not isinstance(levels, int | np.integer) or isinstance(levels, bool) or not 2 <= levels <= LEVELS:
        raise InputError(f"levels: expected an integer from 2 to {LEVELS}, got {levels!r}")
    if method not in METHODS:
        raise unknown_name("method", str(method), METHODS)
    if not 0 <= tolerance < 1:
        raise InputError(f"tolerance: expected 0 ≤ tolerance < 1, got {tolerance}")


def _table_format(fmt: str | Format) -> FloatFormat:
    found = get_format(fmt)
    if not isinstance(found, FloatFormat):
        raise InputError(f"table_format: expected a float format, got {found.name!r}")
    return found


def _mean_square(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    return float((weights * values**2).sum() / weights.sum())


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf
