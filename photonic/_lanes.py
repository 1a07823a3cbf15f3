"""What compiled loops do to a tile of vectors: explicit vectors of 64 bytes for LLVM, which cuts them to what the machine has.

A tile is some vectors, ``lanes`` of them: 32 in double precision, 64 in single. Its state is flat: for each port ``lanes`` real
parts, then ``lanes`` imaginary parts. Plain loops would have to check, MZI by MZI, that ports do not overlap. Products are added
by fused multiply-adds and sums over lanes have one order, so that the bits depend neither on the number of threads nor on the
machine's vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

PART_BYTES = 256
"""Of a port's real parts in a tile: enough to hide what an MZI's numbers cost, few enough for a state to stay in the cache."""

_INDEX = ir.IntType(64)


class _Tile:
    """One chunk after another of a flat array, and arithmetic on chunks."""

    def __init__(self, context: Any, builder: Any, kind: Any, array: Any) -> None:
        self.builder = builder
        self.number = context.get_value_type(kind.dtype)
        self.bytes = kind.dtype.bitwidth // 8
        self.size, self.lanes = 64 // self.bytes, PART_BYTES // self.bytes
        self.vector = ir.VectorType(self.number, self.size)
        self.data = context.make_array(kind)(context, builder, array).data
        signature = ir.FunctionType(self.vector, [self.vector] * 3)
        name = f"llvm.fma.v{self.size}f{kind.dtype.bitwidth}"
        self._fma = cgutils.get_or_insert_function(builder.module, signature, name)

    def chunks(self) -> Iterator[int]:
        return iter(range(0, self.lanes, self.size))

    def _at(self, base: Any, offset: int) -> Any:
        place = self.builder.add(base, ir.Constant(_INDEX, offset))
        return self.builder.bitcast(self.builder.gep(self.data, [place]), self.vector.as_pointer())

    def load(self, base: Any, part: int, chunk: int) -> Any:
        """Of the port whose state begins at ``base``; ``part`` 0: real, 1: imaginary."""
        return self.builder.load(self._at(base, part * self.lanes + chunk), align=self.bytes)

    def store(self, value: Any, base: Any, part: int, chunk: int) -> None:
        self.builder.store(value, self._at(base, part * self.lanes + chunk), align=self.bytes)

    def all(self, number: Any) -> Any:
        """A number in every lane."""
        one = self.builder.insert_element(ir.Constant(self.vector, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), self.size), [0] * self.size)
        return self.builder.shuffle_vector(one, ir.Constant(self.vector, ir.Undefined), lanes)

    def minus(self, value: Any) -> Any:
        return self.builder.fneg(value)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        return self.builder.call(self._fma, [a, b, c])

    def dot(self, pairs: list[tuple[Any, Any]], start: Any = None) -> Any:
        """start + a·b + c·d + …, each rounded once."""
        total = self.builder.fmul(*pairs[0]) if start is None else self.fma(*pairs[0], start)
        for a, b in pairs[1:]:
            total = self.fma(a, b, total)
        return total

    def sums(self, vectors: list[Any]) -> Any:
        """The sum of each of 2, 4 or 8 chunks, as one vector: halves are added until each has one lane left."""
        groups, lanes = 1, self.size
        while lanes > 1:
            pairs = list(zip(vectors[::2], vectors[1::2], strict=True)) if len(vectors) > 1 else [(vectors[0], vectors[0])]
            twice = len(vectors) > 1
            places = [group * lanes + lane for group in range(groups * (1 + twice)) for lane in range(lanes // 2)]
            kind = ir.VectorType(ir.IntType(32), len(places))
            low, high = (ir.Constant(kind, [place + more for place in places]) for more in (0, lanes // 2))
            vectors = [
                self.builder.fadd(self.builder.shuffle_vector(x, y, low), self.builder.shuffle_vector(x, y, high))
                for x, y in pairs
            ]
            groups, lanes = groups * (1 + twice), lanes // 2
        return vectors[0]


def _shears(tile: _Tile, given: list[Any], shears: list[Any], *, back: bool) -> list[Any]:
    (x, x1, y, y1), (t, s, v, r) = given, shears

    def phase(x: Any, x1: Any) -> tuple[Any, Any]:
        x = tile.fma(t, x1, x)
        x1 = tile.fma(s, x, x1)
        return tile.fma(t, x1, x), x1

    if not back:
        x, x1 = phase(x, x1)
    x, x1 = tile.fma(v, y, x), tile.fma(v, y1, x1)
    y, y1 = tile.fma(r, x, y), tile.fma(r, x1, y1)
    x, x1 = tile.fma(v, y, x), tile.fma(v, y1, x1)
    if back:
        x, x1 = phase(x, x1)
    return [x, x1, y, y1]


Body = Callable[..., list[Any]]


def _of(body: Body, array: Any, ports: int, numbers: int, sums: Any = None) -> Any:
    """Types and code of an intrinsic: an array, places in it where a port's state begins (uint64), numbers of its type.

    With ``sums``, an array, that and a place in it come after the first argument: there the sums that ``body`` gives are added.
    """
    extra = [] if sums is None else [sums, types.uint64]

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        tile = _Tile(context, builder, array, arguments[0])
        rest = arguments[1 + len(extra) :]
        found = body(tile, *rest[:ports], *(tile.all(number) for number in rest[ports:]))
        if sums is not None:
            data = context.make_array(sums)(context, builder, arguments[1]).data
            total = tile.sums(found)
            at = builder.bitcast(builder.gep(data, [arguments[2]]), total.type.as_pointer())
            builder.store(builder.fadd(builder.load(at, align=tile.bytes), total), at, align=tile.bytes)
        return context.get_dummy_value()

    return types.none(array, *extra, *[types.uint64] * ports, *[array.dtype] * numbers), code


def _fits(array: Any) -> bool:
    return isinstance(array, types.Array) and array.ndim == 1 and array.layout == "C" and isinstance(array.dtype, types.Float)


def _rotate(tile: _Tile, a: Any, b: Any, t: Any, s: Any, v: Any, r: Any) -> list[Any]:
    for chunk in tile.chunks():
        values = [tile.load(port, part, chunk) for port in (a, b) for part in (0, 1)]
        values = _shears(tile, values, [t, s, v, r], back=False)
        for value, (port, part) in zip(values, ((a, 0), (a, 1), (b, 0), (b, 1)), strict=True):
            tile.store(value, port, part, chunk)
    return []


def _rotate_back(tile: _Tile, a: Any, b: Any, t: Any, s: Any, v: Any, r: Any) -> list[Any]:
    undo = [tile.minus(number) for number in (t, s, v, r)]
    cross = cross1 = None
    for chunk in tile.chunks():
        places = [(port, part) for first in (0, 2) for port in (a, b) for part in (first, first + 1)]
        x, x1, y, y1, g, g1, h, h1 = (tile.load(port, part, chunk) for port, part in places)
        less, less1 = tile.minus(h), tile.minus(h1)
        cross = tile.dot([(g, y), (g1, y1), (less, x), (less1, x1)], cross)
        cross1 = tile.dot([(g, y1), (tile.minus(g1), y), (h, x1), (less1, x)], cross1)
        values = _shears(tile, [x, x1, y, y1], undo, back=True) + _shears(tile, [g, g1, h, h1], undo, back=True)
        for value, (port, part) in zip(values, places, strict=True):
            tile.store(value, port, part, chunk)
    return [cross, cross1]


def _cell(tile: _Tile, a: Any, b: Any, *numbers: Any, kept: tuple[Any, ...] = ()) -> list[Any]:
    p, p1, q, q1, r, r1, s, s1 = numbers
    p2, q2, r2, s2 = (tile.minus(number) for number in (p1, q1, r1, s1))
    for chunk in tile.chunks():
        x, x1, y, y1 = (tile.load(port, part, chunk) for port in (a, b) for part in (0, 1))
        for port, real, imag in zip(kept, (x, y), (x1, y1), strict=False):
            tile.store(real, port, 0, chunk)
            tile.store(imag, port, 1, chunk)
        tile.store(tile.dot([(p, x), (p2, x1), (q, y), (q2, y1)]), a, 0, chunk)
        tile.store(tile.dot([(p, x1), (p1, x), (q, y1), (q1, y)]), a, 1, chunk)
        tile.store(tile.dot([(r, x), (r2, x1), (s, y), (s2, y1)]), b, 0, chunk)
        tile.store(tile.dot([(r, x1), (r1, x), (s, y1), (s1, y)]), b, 1, chunk)
    return []


def _cell_kept(tile: _Tile, a: Any, b: Any, c: Any, d: Any, *numbers: Any) -> list[Any]:
    return _cell(tile, a, b, *numbers, kept=(c, d))


def _cell_back(tile: _Tile, a: Any, b: Any, c: Any, d: Any, *numbers: Any) -> list[Any]:
    p, p1, q, q1, r, r1, s, s1 = numbers
    p2, q2, r2, s2 = (tile.minus(number) for number in (p1, q1, r1, s1))
    totals: list[Any] = [None] * 8
    for chunk in tile.chunks():
        x, x1, y, y1 = (tile.load(port, part, chunk) for port in (c, d) for part in (0, 1))
        g, g1, h, h1 = (tile.load(port, part, chunk) for port in (a, b) for part in (0, 1))
        at = 0
        for m, m1 in ((g, g1), (h, h1)):
            less = tile.minus(m)
            for n, n1 in ((x, x1), (y, y1)):
                totals[at] = tile.dot([(m, n), (m1, n1)], totals[at])
                totals[at + 1] = tile.dot([(m1, n), (less, n1)], totals[at + 1])
                at += 2
        tile.store(tile.dot([(p, g), (p1, g1), (r, h), (r1, h1)]), a, 0, chunk)
        tile.store(tile.dot([(p, g1), (p2, g), (r, h1), (r2, h)]), a, 1, chunk)
        tile.store(tile.dot([(q, g), (q1, g1), (s, h), (s1, h1)]), b, 0, chunk)
        tile.store(tile.dot([(q, g1), (q2, g), (s, h1), (s2, h)]), b, 1, chunk)
    return totals


def _overlap(tile: _Tile, a: Any, b: Any) -> list[Any]:
    real = imag = None
    for chunk in tile.chunks():
        x, x1, g, g1 = (tile.load(port, part, chunk) for port in (a, b) for part in (0, 1))
        real = tile.dot([(g, x), (g1, x1)], real)
        imag = tile.dot([(g1, x), (tile.minus(g), x1)], imag)
    return [real, imag]


@intrinsic
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a · b + c of three numbers, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return (a(a, a, a), generate) if a == b == c and isinstance(a, types.Float) else None


@intrinsic
def rotate(typing_context: Any, state: Any, a: Any, b: Any, t: Any, s: Any, v: Any, r: Any) -> Any:
    """The ports at ``a`` and ``b`` through the shears of ``_mesh_kernels.normal_form``."""
    return _of(_rotate, state, 2, 4) if _fits(state) else None


@intrinsic
def rotate_back(typing_context: Any, state: Any, sums: Any, at: Any, a: Any, b: Any, t: Any, s: Any, v: Any, r: Any) -> Any:
    """Light o and gradient g (which lies behind the light of its port) at ``a`` and ``b``, backwards.

    Adds real and imaginary part of Σ conj(g₁)·o₂ − g₂·conj(o₁) from before to ``sums`` from ``at`` on.
    """
    return _of(_rotate_back, state, 2, 4, sums) if _fits(state) and sums == state else None


@intrinsic
def cell(
    typing_context: Any, state: Any, a: Any, b: Any, p: Any, p1: Any, q: Any, q1: Any, r: Any, r1: Any, s: Any, s1: Any
) -> Any:  # fmt: skip
    """The ports at ``a`` and ``b`` times [[p, q], [r, s]], each real and imaginary."""
    return _of(_cell, state, 2, 8) if _fits(state) else None


@intrinsic
def cell_kept(
    typing_context: Any, state: Any, a: Any, b: Any, c: Any, d: Any,
    p: Any, p1: Any, q: Any, q1: Any, r: Any, r1: Any, s: Any, s1: Any,
) -> Any:  # fmt: skip
    """``cell``, which also writes what came in to ``c`` and ``d``."""
    return _of(_cell_kept, state, 4, 8) if _fits(state) else None


@intrinsic
def cell_back(
    typing_context: Any, state: Any, sums: Any, at: Any, a: Any, b: Any, c: Any, d: Any,
    p: Any, p1: Any, q: Any, q1: Any, r: Any, r1: Any, s: Any, s1: Any,
) -> Any:  # fmt: skip
    """The gradient g at ``a`` and ``b`` backwards through ``cell``, whose inputs x lie at ``c`` and ``d``.

    Adds Σ g·conj(x) from before, real and imaginary, of each port's g for each x, to the eight ``sums`` from ``at`` on.
    """
    return _of(_cell_back, state, 4, 8, sums) if _fits(state) and sums == state else None


@intrinsic
def overlap(typing_context: Any, state: Any, sums: Any, at: Any, a: Any, b: Any) -> Any:
    """Adds Σ g·conj(x), real and imaginary, of the ports x at ``a`` and g at ``b`` to the two ``sums`` from ``at`` on."""
    return _of(_overlap, state, 2, 0, sums) if _fits(state) and sums == state else None
