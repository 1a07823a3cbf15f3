"""Linear operators between neurons as sparse matrices, and sums of what several senders bring through chains of them.

Tensors are without batch, flattened in C order. A convolution is built as its matrix at once, tap by tap for all positions; a
chain of operators is the product of their matrices. A delay in the middle of a chain delays *rows*: element i of a sum arrives
``d[i]`` steps late, whatever its sources are. So a ``Signal`` keeps one matrix for each sender and delay, which later operators
multiply one by one; where each source is left with one delay, they become one projection with a delay a source, otherwise one
projection a delay.

>>> signal = Signal.of("input", (3,)).delayed([0, 2, 2]).through(dense([[1.0, 2.0, 3.0]]))
>>> [(source, delay.tolist(), synapses.weight.tolist()) for source, delay, synapses, _ in signal.projections()]
[('input', [0, 2, 2], [1.0, 2.0, 3.0])]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from neuromorphic._checks import finite_numbers
from neuromorphic.network import Synapses
from numerics.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

Shape = tuple[int, ...]
Nest = Mapping[str, Any]
"""One operator as a loop nest: its ``kind`` (``matmul``, ``convolution``, ``sum``) and sizes, named as in ``hwsim.operators``."""

MOST_SYNAPSES = 2**31 - 1
"""Of one matrix."""

MOST_TAPS = 2**27
"""Positions times taps of one channel."""


@dataclass(frozen=True)
class LinearMap:
    """y = matrix · x + offset.

    Attributes:
        matrix: scipy sparse rows (outputs, inputs), weights of 0 included; None: the identity.
        offset: (outputs,) or None.
        shape: of the output.
        stored: how many different weights there are; None: each is its own.
        kind: of ``network.Synapses``; an empty text: it moves or scales what another map brings.
        nests: the operators it was made of, in order; None: it was made of anything else.
    """

    matrix: Any
    offset: Floats | None
    shape: Shape
    stored: int | None = None
    kind: str = ""
    nests: tuple[Nest, ...] | None = ()

    def after(self, other: LinearMap) -> LinearMap:
        """This map applied to what ``other`` gives.

        Raises:
            InputError: sizes that do not fit.
        """
        if self.matrix is None:
            return replace(other, shape=self.shape)
        if self.matrix.shape[1] != prod(other.shape):
            raise InputError(f"takes {self.matrix.shape[1]} elements, but gets shape {other.shape}")
        offset = self.offset
        if other.offset is not None:
            moved = self.matrix @ other.offset
            offset = moved if offset is None else moved + offset
        nests = None if self.nests is None or other.nests is None else (*other.nests, *self.nests)
        if other.matrix is None:
            return replace(self, offset=offset, nests=nests)
        matrix = self.matrix @ other.matrix
        if not self.kind or not other.kind:
            one, moves = (self, other) if self.kind else (other, self)
            stored = one.stored
            if stored is not None and moves.stored != 1:
                stored = np.unique(matrix.data).size
            return LinearMap(matrix, offset, self.shape, stored, one.kind, nests)
        kinds = {self.kind, other.kind}
        if kinds <= {"convolution", "pooling"}:
            # Windows that move over an image: the product's weights are as few, but for the borders.
            kind = "convolution" if "convolution" in kinds else "pooling"
            return LinearMap(matrix, offset, self.shape, np.unique(matrix.data).size, kind, nests)
        return LinearMap(matrix, offset, self.shape, None, "sparse", nests)

    def synapses(self) -> Synapses:
        """One a weight."""
        size = prod(self.shape)
        if self.matrix is None:
            every = np.arange(size)
            return Synapses(np.arange(size + 1, dtype=np.int64), every.astype(np.int32), np.ones(size), 1, "sparse")
        columns = self.matrix.tocsc()
        stored = columns.nnz if self.stored is None else min(self.stored, columns.nnz)
        return Synapses(
            columns.indptr.astype(np.int64),
            columns.indices.astype(np.int32, copy=False),
            columns.data,
            stored,
            self.kind or "sparse",
        )


def dense(weight: npt.ArrayLike, bias: npt.ArrayLike | None = None) -> LinearMap:
    """A matrix (…, outputs, inputs) of inputs (…, inputs): one matrix for each of the leading indices.

    Raises:
        InputError: fewer than two dimensions, a bias that does not fit, numbers that are not finite.
    """
    from scipy import sparse

    matrix = _finite("weight", weight)
    if matrix.ndim < 2 or not matrix.size:
        raise InputError(f"weight: expected shape (outputs, inputs), got {matrix.shape}")
    *lead, outputs, inputs = matrix.shape
    count = prod(lead)
    columns = np.arange(count)[:, None, None] * inputs + np.arange(inputs)
    columns = np.broadcast_to(columns, (count, outputs, inputs)).ravel()
    rows = count * outputs
    full = sparse.csr_array((matrix.ravel(), columns, np.arange(rows + 1) * inputs), shape=(rows, count * inputs))
    nest = {"kind": "matmul", "batch": count, "m": 1, "n": outputs, "k": inputs}
    return LinearMap(full, _offset(bias, (*lead, outputs), 1), (*lead, outputs), None, "dense", (nest,))


def scale(factor: npt.ArrayLike, shape: Shape) -> LinearMap:
    """Each element times its factor (one for all, or of ``shape``)."""
    from scipy import sparse

    factors = _finite("scale", factor)
    if factors.size not in (1, prod(shape)):
        raise InputError(f"scale: expected shape {shape}, got {factors.shape}")
    factors = np.broadcast_to(factors.ravel(), prod(shape))
    diagonal = sparse.csr_array((factors.copy(), np.arange(factors.size), np.arange(factors.size + 1)))
    return LinearMap(diagonal, None, shape, np.unique(factors).size)


def flatten(shape: Shape, *, start: int = 0, end: int = -1) -> LinearMap:
    """Dimensions ``start`` to ``end`` as one.

    Raises:
        InputError: dimensions that are not there.
    """
    rank = len(shape)
    first, last = start + rank * (start < 0), end + rank * (end < 0)
    if not 0 <= first <= last < rank:
        raise InputError(f"start_dim, end_dim: expected dimensions of shape {shape} in order, got {start}, {end}")
    return LinearMap(None, None, (*shape[:first], prod(shape[first : last + 1]), *shape[last + 1 :]))


def convolution(
    weight: npt.ArrayLike,
    shape: Shape,
    *,
    bias: npt.ArrayLike | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> LinearMap:
    """A convolution (cross-correlation, as torch has it) of one or two dimensions with zeros around.

    Args:
        weight: (output channels, input channels / groups, *kernel).
        shape: of the input, (channels, *size).
        bias: (output channels,).
        padding: zeros on either side of each dimension, ``valid`` for none, or ``same``: as many as keep the size, the odd one
            behind, with stride 1 only.

    Raises:
        InputError: sizes that do not fit, numbers that are not finite.
    """
    from scipy import sparse

    kernel = _finite("weight", weight)
    rank = kernel.ndim - 2
    if rank not in (1, 2) or not kernel.size:
        raise InputError(f"weight: expected (outputs, inputs, *kernel) of 1 or 2 dimensions, got shape {kernel.shape}")
    outputs, inner, *taps = kernel.shape
    groups = _whole("groups", groups, 1)
    if outputs % groups:
        raise InputError(f"groups: expected a divisor of {outputs} outputs, got {groups}")
    if len(shape) != rank + 1 or shape[0] != inner * groups:
        raise InputError(
            f"weight {kernel.shape} in {groups} groups takes shape ({inner * groups}, {', '.join('hw'[-rank:])}), got {shape}"
        )
    strides, dilations = _each("stride", stride, rank, 1), _each("dilation", dilation, rank, 1)
    before, after = _padding(padding, taps, strides, dilations)
    places, size = _windows(shape[1:], taps, strides, dilations, before, after)
    inside = np.broadcast_to((places >= 0)[:, None, :], (len(places), inner, places.shape[1]))
    each = int(np.count_nonzero(inside))
    if each * outputs > MOST_SYNAPSES:
        raise InputError(f"{each * outputs} synapses are more than fit ({MOST_SYNAPSES})")
    area = prod(shape[1:])
    columns = (np.arange(inner)[:, None] * area + places[:, None, :])[inside]
    tap = np.broadcast_to(np.arange(inner * places.shape[1]).reshape(inner, -1), inside.shape)[inside]
    data = kernel.reshape(outputs, -1)[:, tap]
    group = np.repeat(np.arange(groups), outputs // groups) * (inner * area)
    index = np.int32 if max(prod(shape), each * outputs) < 2**31 else np.int64
    columns = group.astype(index)[:, None] + columns.astype(index)
    first = np.concatenate(([0], np.cumsum(np.tile(inside.sum(axis=(1, 2)), outputs)))).astype(index)
    matrix = sparse.csr_array((data.ravel(), columns.ravel(), first), shape=(outputs * len(places), prod(shape)))
    nest = {
        "kind": "convolution", "batch": 1, "in_channels": inner * groups, "out_channels": outputs,
        "input_size": tuple(shape[1:]), "output_size": size, "kernel": tuple(taps), "stride": strides,
        "padding": tuple(zip(before, after, strict=True)), "dilation": dilations, "groups": groups,
    }  # fmt: skip
    offset = _offset(bias, (outputs,), len(places))
    return LinearMap(matrix, offset, (outputs, *size), kernel.size, "convolution", (nest,))


def pooling(
    shape: Shape,
    *,
    kernel: int | Sequence[int],
    stride: int | Sequence[int],
    padding: int | Sequence[int] = 0,
    average: bool,
) -> LinearMap:
    """Sums, or averages, of the windows of each channel; an average divides by the whole window, padding included, as torch does.

    Raises:
        InputError: sizes that do not fit.
    """
    from scipy import sparse

    if len(shape) != 3:
        raise InputError(f"pooling takes shape (channels, height, width), got {shape}")
    taps, strides = _each("kernel_size", kernel, 2, 1), _each("stride", stride, 2, 1)
    around = _each("padding", padding, 2, 0)
    if any(2 * p > k for p, k in zip(around, taps, strict=True)):
        raise InputError(f"padding: expected at most half of kernel_size {taps}, got {around}")
    places, size = _windows(shape[1:], taps, strides, (1, 1), around, around)
    inside = places >= 0
    columns = np.arange(shape[0])[:, None] * prod(shape[1:]) + places[inside]
    first = np.concatenate(([0], np.cumsum(np.tile(inside.sum(axis=1), shape[0]))))
    weight = 1.0 / prod(taps) if average else 1.0
    data = np.full(columns.size, weight)
    matrix = sparse.csr_array((data, columns.ravel(), first), shape=(shape[0] * len(places), prod(shape)))
    nest = {"kind": "sum", "elements": columns.size, "rows": shape[0] * len(places)}
    return LinearMap(matrix, None, (shape[0], *size), 1, "pooling", (nest,))


@dataclass(frozen=True)
class Signal:
    """What arrives at one place: the sum, over senders and delays, of a linear map of what each sent so many steps before.

    Attributes:
        shape: of the sum.
        parts: (sender, delay in steps) → map; their offsets are None.
        offset: added in every step, (elements,) or None.
    """

    shape: Shape
    parts: Mapping[tuple[str, int], LinearMap] = field(default_factory=dict)
    offset: Floats | None = None

    @classmethod
    def of(cls, source: str, shape: Shape) -> Signal:
        """What ``source`` sends, at once."""
        return cls(shape, {(source, 0): LinearMap(None, None, shape)})

    def through(self, linear: LinearMap) -> Signal:
        """The same behind a linear operator, which adds its offset once."""
        parts = {key: replace(linear, offset=None).after(part) for key, part in self.parts.items()}
        offset = self.offset
        if offset is not None and linear.matrix is not None:
            offset = linear.matrix @ offset
        if linear.offset is not None:
            offset = linear.offset if offset is None else offset + linear.offset
        return Signal(linear.shape, parts, offset)

    def delayed(self, steps: npt.ArrayLike) -> Signal:
        """Each element ``steps`` steps later (one number, or one an element); the offset stays as it is at all times."""
        delays = np.asarray(steps, np.int64).ravel()
        if delays.size not in (1, prod(self.shape)):
            raise InputError(f"delay: expected shape {self.shape}, got {np.shape(steps)}")
        found: dict[tuple[str, int], LinearMap] = {}
        for later in np.unique(delays):
            for (source, before), part in self.parts.items():
                kept = part if (delays == later).all() else _rows(part, delays == later)
                if kept.matrix is None or kept.matrix.nnz:
                    _add(found, (source, before + int(later)), kept)
        return replace(self, parts=found)

    def plus(self, other: Signal) -> Signal:
        """The sum of two, element by element in C order; the shape stays this one's."""
        if prod(self.shape) != prod(other.shape):
            raise InputError(f"adds shapes {self.shape} and {other.shape}")
        parts = dict(self.parts)
        for key, part in other.parts.items():
            _add(parts, key, replace(part, shape=self.shape))
        offset = self.offset
        if other.offset is not None:
            offset = other.offset if offset is None else offset + other.offset
        return Signal(self.shape, parts, offset)

    def projections(self) -> Iterator[tuple[str, Any, Synapses, tuple[Nest, ...] | None]]:
        """(sender, delay, synapses, nests) of each projection: one a sender where none of its sources has two delays."""
        for source in dict.fromkeys(source for source, _ in self.parts):
            own = {delay: part for (name, delay), part in sorted(self.parts.items()) if name == source}
            merged = _by_source(own) if len(own) > 1 else None
            if merged is not None:
                delays, part = merged
                yield source, delays, part.synapses(), part.nests
            else:
                for delay, part in own.items():
                    yield source, delay, part.synapses(), part.nests


def _by_source(parts: Mapping[int, LinearMap]) -> tuple[npt.NDArray[np.int64], LinearMap] | None:
    """(delays of the sources, their sum) where no source has two delays."""
    found: npt.NDArray[np.int64] | None = None
    total: LinearMap | None = None
    for delay, part in parts.items():
        if part.matrix is None:
            return None
        if found is None:
            found, free = np.zeros(part.matrix.shape[1], np.int64), np.ones(part.matrix.shape[1], np.bool_)
        used = np.unique(part.matrix.indices)
        if not free[used].all():
            return None
        free[used] = False
        found[used] = delay
        total = part if total is None else _sum(total, part)
    assert found is not None
    assert total is not None
    return found, total


def _add(parts: dict[tuple[str, int], LinearMap], key: tuple[str, int], part: LinearMap) -> None:
    parts[key] = _sum(parts[key], part) if key in parts else part


def _sum(a: LinearMap, b: LinearMap) -> LinearMap:
    x, y = _matrix(a), _matrix(b)
    # Joined as lists, as scipy's sum drops weights of 0.
    from scipy import sparse

    one, two = x.tocoo(), y.tocoo()
    rows, columns = np.concatenate((one.row, two.row)), np.concatenate((one.col, two.col))
    matrix = sparse.coo_array((np.concatenate((one.data, two.data)), (rows, columns)), shape=x.shape).tocsr()
    kind = a.kind if a.kind == b.kind else "sparse"
    if matrix.nnz < x.nnz + y.nnz and kind not in ("", "dense"):
        kind = "sparse"
    stored = np.unique(matrix.data).size if a.stored is not None and b.stored is not None and kind != "sparse" else None
    return LinearMap(matrix, None, a.shape, stored, kind, a.nests if a.nests == b.nests else None)


def _rows(part: LinearMap, keep: npt.NDArray[np.bool_]) -> LinearMap:
    """Only those rows, the others empty."""
    from scipy import sparse

    matrix = _matrix(part)
    counts = np.diff(matrix.indptr)
    there = np.repeat(keep, counts)
    first = np.concatenate(([0], np.cumsum(np.where(keep, counts, 0))))
    kept = sparse.csr_array((matrix.data[there], matrix.indices[there], first), shape=matrix.shape)
    if part.matrix is None:
        return replace(part, matrix=kept, stored=1)
    return replace(part, matrix=kept, nests=part.nests if not part.nests else None)


def _matrix(part: LinearMap) -> Any:
    from scipy import sparse

    if part.matrix is not None:
        return part.matrix
    size = prod(part.shape)
    return sparse.csr_array((np.ones(size), np.arange(size), np.arange(size + 1)), shape=(size, size))


def _windows(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    before: Sequence[int],
    after: Sequence[int],
) -> tuple[npt.NDArray[np.int64], Shape]:
    """(positions, taps): where each tap of each position lies in one channel, −1 in the padding; and the output's size."""
    found, places = [], np.zeros((1, 1), np.int64)
    for n, k, s, d, p, q in zip(size, kernel, stride, dilation, before, after, strict=True):
        count = (n + p + q - d * (k - 1) - 1) // s + 1
        if count < 1:
            raise InputError(f"a kernel of {k} with dilation {d} does not fit into {n} elements and {p} + {q} of padding")
        if count * k * places.size > MOST_TAPS:
            raise InputError(f"{count * k * places.size} places that a kernel reads are more than fit ({MOST_TAPS})")
        at = np.arange(count)[:, None] * s - p + np.arange(k) * d
        at = np.where((at >= 0) & (at < n), at, -1)
        rows, columns = places[:, None, :, None], at[None, :, None, :]
        both = np.where((rows >= 0) & (columns >= 0), rows * n + columns, -1)
        places = both.reshape(len(places) * count, places.shape[1] * k)
        found.append(int(count))
    return places, tuple(found)


def _padding(padding: int | Sequence[int] | str, kernel: Sequence[int], stride: Shape, dilation: Shape) -> tuple[Shape, Shape]:
    if isinstance(padding, str) and padding == "same":
        if any(s != 1 for s in stride):
            raise InputError(f"padding: 'same' needs stride 1, got {stride}")
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    if isinstance(padding, str) and padding != "valid":
        raise InputError(f"padding: expected integers, 'same' or 'valid', got {padding!r}")
    around = (0,) * len(kernel) if isinstance(padding, str) else _each("padding", padding, len(kernel), 0)
    return around, around


def _each(name: str, value: int | Sequence[int], rank: int, least: int) -> Shape:
    """One number a dimension."""
    numbers = np.asarray(value).ravel().tolist()
    if len(numbers) not in (1, rank):
        raise InputError(f"{name}: expected {rank} integers, got {value!r}")
    whole = tuple(_whole(name, number, least) for number in numbers)
    return whole * rank if len(whole) == 1 else whole


def _whole(name: str, value: Any, least: int) -> int:
    number = np.asarray(value)
    if number.size != 1 or number.dtype.kind not in "iuf" or number.item() % 1 or not least <= number.item() < 2**31:
        raise InputError(f"{name}: expected an integer ≥ {least}, got {value!r}")
    return int(number.item())


def _finite(name: str, values: npt.ArrayLike) -> Floats:
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name}: expected numbers, got {array.dtype}")
    finite_numbers(name, array)
    return array.astype(np.float64)


def _offset(bias: npt.ArrayLike | None, shape: Shape, each: int) -> Floats | None:
    if bias is None:
        return None
    values = _finite("bias", bias)
    if values.size != prod(shape):
        raise InputError(f"bias: expected shape {shape}, got {values.shape}")
    return np.repeat(values.ravel(), each)
