"""Sums of products in registers (LLVM): some output positions times some vectors of output channels at once.

Each sum adds its products one after the other, in the order of the offsets. In 32-bit floats every product and sum is one fused
multiply-add, as the accumulator ``fp32`` of ``numerics`` computes it; in 32-bit integers sums wrap.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from hwsim.faults.incremental import layout

LANES, TILE_ROWS = layout.LANES, layout.TILE_ROWS
"""As constants of this module numba knows them when it compiles."""

inner = njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""For functions that only compiled ones call: nothing is compiled for Python, and a division is not looked at."""


@intrinsic
def apart(typing_context: Any) -> Any:
    """Keeps the function that calls it a function of its own, so that what calls that compiles without it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.none(), generate


@intrinsic
def fused(typing_context: Any, x: Any, y: Any, total: Any) -> Any:
    """total + x · y: rounded once for floats, wrapped for integers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, b, s = arguments
        return builder.fma(a, b, s) if isinstance(x, types.Float) else builder.add(s, builder.mul(a, b))

    return total(x, y, total), generate


@intrinsic
def bits(typing_context: Any, x: Any) -> Any:
    """The bits of a 32-bit float."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(x), generate


def _data(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    return context.make_array(kind)(context, builder, value).data


class _Vectors:
    """Vectors of ``LANES`` numbers of one type while code is made.

    Args:
        element: numba's type of the numbers.
    """

    def __init__(self, builder: Any, element: Any) -> None:
        self.builder = builder
        self.is_float = isinstance(element, types.Float)
        self.kind = ir.VectorType(ir.FloatType() if self.is_float else ir.IntType(32), LANES)

    def zeros(self, count: int) -> list[Any]:
        """Places for so many sums, at 0."""
        places = [cgutils.alloca_once(self.builder, self.kind) for _ in range(count)]
        for place in places:
            self.builder.store(ir.Constant(self.kind, None), place)
        return places

    def load(self, pointer: Any) -> Any:
        """The numbers from a place on."""
        return self.builder.load(self.builder.bitcast(pointer, self.kind.as_pointer()), align=4)

    def store(self, value: Any, pointer: Any) -> None:
        """Put numbers there."""
        self.builder.store(value, self.builder.bitcast(pointer, self.kind.as_pointer()), align=4)

    def spread(self, number: Any) -> Any:
        """One number in all lanes."""
        blank = ir.Constant(self.kind, ir.Undefined)
        one = self.builder.insert_element(blank, number, ir.Constant(ir.IntType(32), 0))
        return self.builder.shuffle_vector(one, blank, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))

    def add_product(self, place: Any, x: Any, y: Any) -> None:
        """The sum at a place plus x · y."""
        total = self.builder.load(place)
        if self.is_float:
            kind = ir.FunctionType(self.kind, [self.kind] * 3)
            fma = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.fma.v{LANES}f32")
            total = self.builder.call(fma, [x, y, total])
        else:
            total = self.builder.add(total, self.builder.mul(x, y))
        self.builder.store(total, place)


@intrinsic(prefer_literal=True)
def tile(
    typing_context: Any, x: Any, offsets: Any, depth: Any, w: Any, start: Any, stride: Any, out: Any, bases: Any, where: Any,
    first: Any, column: Any, rows: Any,
) -> Any:  # fmt: skip
    """Sums of ``rows`` positions, a compile-time constant, by ``LANES`` output channels.

    ``out[where[first + r] + column + j] = Σ_k x[bases[first + r] + offsets[k]] · w[start + k · stride + j]``; flat C-contiguous
    arrays, x, w and out of one type of 32 bits; nothing is checked.
    """
    if not isinstance(rows, types.Literal):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x_, offsets_, depth_, w_, start_, stride_, out_, bases_, where_, first_, column_, _ = arguments
        vectors = _Vectors(builder, x.dtype)
        data = [_data(context, builder, *pair) for pair in ((x, x_), (w, w_), (out, out_), (offsets, offsets_))]
        places = [builder.add(first_, ir.Constant(first_.type, r)) for r in range(rows.literal_value)]
        base_data, where_data = _data(context, builder, bases, bases_), _data(context, builder, where, where_)
        sources = [builder.gep(data[0], [builder.load(builder.gep(base_data, [place]))]) for place in places]
        sums = vectors.zeros(rows.literal_value)
        with cgutils.for_range(builder, depth_) as loop:
            offset = builder.load(builder.gep(data[3], [loop.index]))
            weights = vectors.load(builder.gep(data[1], [builder.add(start_, builder.mul(loop.index, stride_))]))
            for source, total in zip(sources, sums, strict=True):
                vectors.add_product(total, vectors.spread(builder.load(builder.gep(source, [offset]))), weights)
        for place, total in zip(places, sums, strict=True):
            target = builder.add(builder.load(builder.gep(where_data, [place])), column_)
            vectors.store(builder.load(total), builder.gep(data[2], [target]))
        return context.get_dummy_value()

    return types.none(x, offsets, depth, w, start, stride, out, bases, where, first, column, rows), generate


@intrinsic(prefer_literal=True)
def row_tile(
    typing_context: Any, x: Any, offsets: Any, depth: Any, w: Any, out: Any, bases: Any, first: Any, rows: Any
) -> Any:  # fmt: skip
    """Sums of one output channel at ``rows`` times ``LANES`` positions, whose operands lie side by side.

    ``out[(first + r) · LANES + j] = Σ_k x[bases[first + r] + offsets[k] + j] · w[k]``; as ``tile`` otherwise.
    """
    if not isinstance(rows, types.Literal):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x_, offsets_, depth_, w_, out_, bases_, first_, _ = arguments
        vectors = _Vectors(builder, x.dtype)
        data = [_data(context, builder, *pair) for pair in ((x, x_), (w, w_), (out, out_), (offsets, offsets_), (bases, bases_))]
        places = [builder.add(first_, ir.Constant(first_.type, r)) for r in range(rows.literal_value)]
        sources = [builder.gep(data[0], [builder.load(builder.gep(data[4], [place]))]) for place in places]
        sums = vectors.zeros(rows.literal_value)
        with cgutils.for_range(builder, depth_) as loop:
            offset = builder.load(builder.gep(data[3], [loop.index]))
            weight = vectors.spread(builder.load(builder.gep(data[1], [loop.index])))
            for source, total in zip(sources, sums, strict=True):
                vectors.add_product(total, vectors.load(builder.gep(source, [offset])), weight)
        for place, total in zip(places, sums, strict=True):
            vectors.store(builder.load(total), builder.gep(data[2], [builder.mul(place, ir.Constant(place.type, LANES))]))
        return context.get_dummy_value()

    return types.none(x, offsets, depth, w, out, bases, first, rows), generate


@intrinsic
def add_scaled(typing_context: Any, sums: Any, at: Any, w: Any, start: Any, factor: Any, count: Any) -> Any:
    """``count`` vectors of sums, from ``at`` on, plus those of w, from ``start`` on, times a number; arrays as for ``tile``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sums_, at_, w_, start_, factor_, count_ = arguments
        vectors = _Vectors(builder, sums.dtype)
        target, source = _data(context, builder, sums, sums_), _data(context, builder, w, w_)
        spread = vectors.spread(factor_)
        with cgutils.for_range(builder, count_) as loop:
            step = builder.mul(loop.index, ir.Constant(loop.index.type, LANES))
            pointer = builder.gep(target, [builder.add(at_, step)])
            weights = vectors.load(builder.gep(source, [builder.add(start_, step)]))
            place = vectors.zeros(1)[0]
            builder.store(vectors.load(pointer), place)
            vectors.add_product(place, weights, spread)
            vectors.store(builder.load(place), pointer)
        return context.get_dummy_value()

    return types.none(sums, at, w, start, sums.dtype, count), generate


@intrinsic
def combine(typing_context: Any, totals: Any, x: Any, count: Any, maximum: Any) -> Any:
    """``count`` vectors of totals with those of x: their maxima, where a NaN of x wins, or their sums."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        totals_, x_, count_, maximum_ = arguments
        vectors = _Vectors(builder, totals.dtype)
        target, source = _data(context, builder, totals, totals_), _data(context, builder, x, x_)
        with cgutils.for_range(builder, count_) as loop:
            step = builder.mul(loop.index, ir.Constant(loop.index.type, LANES))
            pointer = builder.gep(target, [step])
            old, new = vectors.load(pointer), vectors.load(builder.gep(source, [step]))
            wins = builder.or_(builder.fcmp_ordered(">", new, old), builder.fcmp_unordered("uno", new, new))
            larger = builder.select(wins, new, old)
            chosen = builder.select(maximum_, larger, builder.fadd(old, new))
            vectors.store(chosen, pointer)
        return context.get_dummy_value()

    return types.none(totals, x, count, maximum), generate
