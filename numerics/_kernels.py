"""Rounding to a number format, element by element and block by block (numba).

``round_magnitude`` is the one definition of every rounding mode. It is written with operators only, so that the same lines run
on LLVM words inside the kernels below and on integer tensors for GPUs; the tests hold both against exact rational arithmetic.
Nearest even, the usual mode, has two shorter forms for 32-bit floats (``_nearest_even``), equal to it on every input.

Everything lives in this file because numba's cache watches the file of the compiled function only.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

# Rounding modes.
NEAREST_EVEN, NEAREST_AWAY, TOWARD_ZERO, UP, DOWN, TO_ODD, STOCHASTIC, STOCHASTIC_GIVEN = range(8)
"""``STOCHASTIC_GIVEN``: the random bits come from an array instead of a seed."""

# How an element is rounded: the general way, or one of the two short forms of nearest even.
GENERAL, BY_ADDING, BY_SHIFTING = range(3)

# Fields of the parameters: a tuple of unsigned integers as wide as the floats. "Bits" are those of a float with that magnitude.
SHIFT = 0  # mantissa bits that a normal number loses
EMIN = 1  # biased exponent (of the float) below which the format's numbers are spaced evenly
SMALLEST = 2  # bits of the smallest positive value
LARGEST = 3  # bits of the largest finite value
OVERFLOW_POSITIVE, OVERFLOW_NEGATIVE = 4, 5  # bits that replace a finite result above it, by sign
INF, NAN = 6, 7  # bits that replace an infinity, a NaN
NAN_FLIP = 8  # sign bit to flip in a NaN's result
ZERO_SIGN = 9  # sign bit that a zero may keep
FLUSH = 10  # bits below which a result becomes zero
CLAMP = 11  # bits of 2^(emax + 1), from where on everything overflows
CODE_OFFSET = 12  # what to take from a float's exponent and leading mantissa bits to have the format's code
INF_CODE, NAN_CODE = 13, 14
SIGN_SHIFT = 15  # place of the sign bit in a code
NAN_SIGN = 16  # 1 where a NaN's code has a sign
PARAMETERS = 17

GAMMA = 0x9E3779B97F4A7C15
MIX_1, MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
"""Constants of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014, figure 16)."""


def round_magnitude(magnitude: Any, negative: Any, random: Any, p: Any, mode: int, width: int, where: Any) -> Any:
    """Bits of |x| → bits of the rounded magnitude, in floats of ``width`` bits (32 or 64).

    Args:
        magnitude: bits of |x|.
        negative: whether x < 0.
        random: 32 random bits, for ``STOCHASTIC`` only.
        p: parameters by the names above.
        mode: rounding mode.
        width: bits of the float.
        where: ``where(condition, a, b)`` of the kind of integer in use.
    """
    mantissa, exponents = (23, 255) if width == 32 else (52, 2047)
    infinity = exponents << mantissa
    exponent = magnitude >> mantissa
    fraction = magnitude & ((1 << mantissa) - 1)
    subnormal_float = exponent == 0
    exponent = where(subnormal_float, magnitude * 0 + 1, exponent)
    significand = where(subnormal_float, fraction, fraction | (1 << mantissa))
    # Below EMIN the step between values stays the same, so that more bits go.
    shift = p[SHIFT] + where(exponent < p[EMIN], p[EMIN] - exponent, magnitude * 0)
    most = mantissa + (34 if mode >= STOCHASTIC else 2)
    shift = where(shift > most, magnitude * 0 + most, shift)
    tiny = shift > mantissa  # smaller than the smallest value
    step = (magnitude * 0 + 1) << shift
    rest = where(tiny, significand, significand & (step - 1))
    odd = where(tiny, magnitude * 0, (significand >> shift) & 1)
    inexact = rest > 0
    if mode == NEAREST_EVEN:
        away = inexact & (rest + odd > (step >> 1))
    elif mode == NEAREST_AWAY:
        away = inexact & (rest >= (step >> 1))
    elif mode == UP:
        away = where(negative, inexact & (rest < 0), inexact)
    elif mode == DOWN:
        away = where(negative, inexact, inexact & (rest < 0))
    elif mode == TO_ODD:
        away = inexact & (odd == 0)
    elif mode >= STOCHASTIC:
        part = where(shift < 32, rest << (32 - shift), rest >> (shift - 32))
        away = part > (0xFFFFFFFF - random)
    else:
        away = rest < 0
    base = where(tiny, magnitude * 0, magnitude - (fraction & (step - 1)))
    result = where(away, base + where(tiny, magnitude * 0 + p[SMALLEST], step), base)
    result = where(result < p[FLUSH], magnitude * 0, result)
    over = where(negative, magnitude * 0 + p[OVERFLOW_NEGATIVE], magnitude * 0 + p[OVERFLOW_POSITIVE])
    result = where(result > p[LARGEST], over, result)
    result = where(magnitude == infinity, magnitude * 0 + p[INF], result)
    return where(magnitude > infinity, magnitude * 0 + p[NAN], result)


class _Word:
    """An unsigned integer of LLVM with Python's operators; comparisons give ``_Word`` of one bit."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder = builder
        self.value = value

    def _other(self, other: Any) -> Any:
        return other.value if isinstance(other, _Word) else ir.Constant(self.value.type, int(other))

    def _apply(self, name: str, other: Any) -> _Word:
        return _Word(self.builder, getattr(self.builder, name)(self.value, self._other(other)))

    def _compare(self, sign: str, other: Any) -> _Word:
        return _Word(self.builder, self.builder.icmp_unsigned(sign, self.value, self._other(other)))

    def __add__(self, other: Any) -> _Word:
        return self._apply("add", other)

    def __sub__(self, other: Any) -> _Word:
        return self._apply("sub", other)

    def __rsub__(self, other: Any) -> _Word:
        return _Word(self.builder, self.builder.sub(self._other(other), self.value))

    def __mul__(self, other: Any) -> _Word:
        return self._apply("mul", other)

    def __and__(self, other: Any) -> _Word:
        return self._apply("and_", other)

    def __or__(self, other: Any) -> _Word:
        return self._apply("or_", other)

    def __xor__(self, other: Any) -> _Word:
        return self._apply("xor", other)

    def __lshift__(self, other: Any) -> _Word:
        return self._apply("shl", other)

    def __rshift__(self, other: Any) -> _Word:
        return self._apply("lshr", other)

    def __lt__(self, other: Any) -> _Word:
        return self._compare("<", other)

    def __gt__(self, other: Any) -> _Word:
        return self._compare(">", other)

    def __ge__(self, other: Any) -> _Word:
        return self._compare(">=", other)

    def __eq__(self, other: object) -> _Word:  # type: ignore[override]
        return self._compare("==", other)

    def where(self, yes: Any, no: Any) -> _Word:
        word = yes if isinstance(yes, _Word) else no
        return _Word(self.builder, self.builder.select(self.value, word._other(yes), word._other(no)))

    def as_float(self) -> Any:
        kind = ir.FloatType() if self.value.type.width == 32 else ir.DoubleType()
        return self.builder.bitcast(self.value, kind)


def _where(condition: _Word, yes: Any, no: Any) -> _Word:
    return condition.where(yes, no)


def _nearest_even(magnitude: _Word, p: list[_Word], how: int) -> _Word:
    """Nearest even for 32-bit floats in a third of the operations.

    ``BY_ADDING`` (exponents of the format well inside those of the float): |x| + 2^k − 2^k, where 2^k has its last bit where
    the format has its own; the float adder rounds. ``BY_SHIFTING`` (exponents as the float): half a step is added to the bits.
    """
    builder = magnitude.builder
    if how == BY_ADDING:
        clamped = _where(magnitude < p[CLAMP], magnitude, p[CLAMP])
        exponent = clamped & (255 << 23)
        lowest = p[EMIN] << 23
        magic = (_where(exponent > lowest, exponent, lowest) + (p[SHIFT] << 23)).as_float()
        rounded = builder.fsub(builder.fadd(clamped.as_float(), magic), magic)
        result = _Word(builder, builder.bitcast(rounded, magnitude.value.type))
    else:
        step = (magnitude * 0 + 1) << p[SHIFT]
        result = (magnitude + ((step >> 1) - 1) + ((magnitude >> p[SHIFT]) & 1)) & (0 - step)
    result = _where(result > p[LARGEST], p[OVERFLOW_POSITIVE], result)
    return _where(magnitude > (255 << 23), p[NAN], result)


def _infinity(width: int) -> int:
    return 255 << 23 if width == 32 else 2047 << 52


def _fields(builder: Any, packed: Any) -> list[_Word]:
    return [_Word(builder, builder.extract_value(packed, i)) for i in range(PARAMETERS)]


def _round(builder: Any, value: Any, chance: Any, p: list[_Word], mode: int, how: int, width: int) -> tuple[_Word, _Word]:
    """Bits of the rounded magnitude and of the sign, of a float of ``width`` bits."""
    kind = ir.IntType(width)
    bits = _Word(builder, builder.bitcast(value, kind))
    top = 1 << (width - 1)
    magnitude, sign = bits & (top - 1), bits & top
    if how == GENERAL:
        chance = builder.trunc(chance, kind) if width == 32 else chance
        result = round_magnitude(magnitude, sign > 0, _Word(builder, chance), p, mode, width, _where)
        sign = sign ^ _where(magnitude > _infinity(width), p[NAN_FLIP], bits * 0)
    else:
        result = _nearest_even(magnitude, p, how)
    return result, _where(result == 0, sign & p[ZERO_SIGN], sign)


@intrinsic(prefer_literal=True)
def round_element(typing_context: Any, x: Any, chance: Any, p: Any, mode: Any, how: Any) -> Any:
    """The float ``x`` rounded, in floats as wide as the parameters; ``mode`` and ``how`` are compile-time constants."""
    if not isinstance(mode, types.Literal) or not isinstance(how, types.Literal):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, random, packed, _, _ = arguments
        width = p.dtype.bitwidth
        if width > x.bitwidth:
            value = builder.fpext(value, ir.DoubleType())
        result, sign = _round(builder, value, random, _fields(builder, packed), mode.literal_value, how.literal_value, width)
        rounded = (result | sign).as_float()
        return builder.fptrunc(rounded, ir.FloatType()) if width > x.bitwidth else rounded

    return x(x, chance, p, mode, how), generate


@intrinsic(prefer_literal=True)
def encode_element(typing_context: Any, x: Any, chance: Any, p: Any, mode: Any, how: Any) -> Any:
    """The code of the float ``x`` once rounded."""
    if not isinstance(mode, types.Literal) or not isinstance(how, types.Literal):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, random, packed, _, _ = arguments
        width = p.dtype.bitwidth
        if width > x.bitwidth:
            value = builder.fpext(value, ir.DoubleType())
        fields = _fields(builder, packed)
        result, sign = _round(builder, value, random, fields, mode.literal_value, how.literal_value, width)
        mantissa = 23 if width == 32 else 52
        exponent = result >> mantissa
        hidden = _where(exponent == 0, result * 0, (result * 0 + 1) << mantissa)
        missing = fields[EMIN] - _where(exponent == 0, result * 0 + 1, exponent)
        missing = _where(missing + fields[SHIFT] < mantissa + 1, missing, result * 0 + mantissa - fields[SHIFT])
        small = ((result & ((1 << mantissa) - 1)) | hidden) >> (fields[SHIFT] + missing)
        code = _where(result < (fields[EMIN] << mantissa), small, (result >> fields[SHIFT]) - fields[CODE_OFFSET])
        code = _where(result == 0, result * 0, code)  # without subnormals, EMIN is no bound
        code = _where(result == _infinity(width), fields[INF_CODE], code)
        signed = sign >> (width - 1)
        nan = result > _infinity(width)
        code = _where(nan, fields[NAN_CODE], code)
        signed = signed & _where(nan, fields[NAN_SIGN], result * 0 + 1)
        code = code | (signed << fields[SIGN_SHIFT])
        return builder.zext(code.value, ir.IntType(64)) if width == 32 else code.value

    return types.uint64(x, chance, p, mode, how), generate


@intrinsic
def moved_parameters(typing_context: Any, p: Any, exponent: Any) -> Any:
    """The parameters of a format times 2^exponent: of its values only the exponents change."""
    width = p.dtype.bitwidth
    mantissa = 23 if width == 32 else 52

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        packed, by = arguments
        fields = _fields(builder, packed)
        move = _Word(builder, builder.trunc(by, ir.IntType(width)) if width == 32 else by)
        fields[EMIN] = fields[EMIN] + move
        for value in (SMALLEST, LARGEST, OVERFLOW_POSITIVE, OVERFLOW_NEGATIVE):
            fields[value] = fields[value] + (move << mantissa)
        fields[CODE_OFFSET] = fields[CODE_OFFSET] + (move << (mantissa - fields[SHIFT]))
        for place, field in enumerate(fields):
            packed = builder.insert_value(packed, field.value, place)
        return packed

    return p(p, types.int64), generate


@intrinsic
def is_nan(typing_context: Any, x: Any) -> Any:
    """1 for a NaN, as an integer as wide as the float; by its bits, so that loops vectorise."""
    width = x.bitwidth

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.IntType(width)
        magnitude = _Word(builder, builder.bitcast(arguments[0], kind)) & ((1 << (width - 1)) - 1)
        return builder.zext((magnitude > _infinity(width)).value, kind)

    return (types.uint32 if width == 32 else types.uint64)(x), generate


@intrinsic
def magnitude_bits(typing_context: Any, x: Any) -> Any:
    """The bits of |x|: they compare as the magnitudes do, NaN above Inf."""
    width = x.bitwidth

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return (_Word(builder, builder.bitcast(arguments[0], ir.IntType(width))) & ((1 << (width - 1)) - 1)).value

    return (types.uint32 if width == 32 else types.uint64)(x), generate


LANES = 16
"""Elements that ``largest_of_lanes`` takes."""


@intrinsic
def largest_of_lanes(typing_context: Any, x: Any, row: Any, first: Any) -> Any:
    """The largest magnitude, as bits, of ``LANES`` elements of a row of a C-contiguous array."""
    width = x.dtype.bitwidth

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(x)(context, builder, arguments[0])
        start = cgutils.get_item_pointer(context, builder, x, array, list(arguments[1:]), wraparound=False)
        kind = ir.VectorType(ir.IntType(width), LANES)
        bits = builder.load(builder.bitcast(start, kind.as_pointer()), align=width // 8)
        magnitudes = builder.and_(bits, ir.Constant(kind, [(1 << (width - 1)) - 1] * LANES))
        name = f"llvm.vector.reduce.umax.v{LANES}i{width}"
        reduce = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.IntType(width), [kind]), name)
        return builder.call(reduce, [magnitudes])

    return (types.uint32 if width == 32 else types.uint64)(x, row, first), generate


@intrinsic
def higher(typing_context: Any, a: Any, b: Any) -> Any:
    """The larger of two unsigned integers of one type, in that type."""
    if a != b:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(builder.icmp_unsigned(">", *arguments), *arguments)

    return a(a, b), generate


@intrinsic
def float_of(typing_context: Any, bits: Any) -> Any:
    """The float that has these bits."""
    result = types.float32 if bits.bitwidth == 32 else types.float64

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _Word(builder, arguments[0]).as_float()

    return result(bits), generate


@njit(nogil=True, cache=True, inline="always")
def step_code(value, per_step, zero, mask):
    """The code of a whole number of steps, in two's complement."""
    return (np.int64(value * per_step) + zero) & mask


@njit(nogil=True, cache=True, inline="always")
def random_bits(key, index):
    """32 random bits of the element ``index``, in a 64-bit word: SplitMix64 started at ``key``."""
    z = key + np.uint64(index + 1) * np.uint64(GAMMA)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(MIX_1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(MIX_2)
    return (z ^ (z >> np.uint64(31))) >> np.uint64(32)


@cache
def converter(mode, how, scaled):
    """The kernel for a rounding mode, a way to round, and whether there is a scale.

    Compiled for each: constants of a closure cost a call nothing, where ``numba.literally`` would infer types anew in every call.
    """

    @njit(nogil=True, cache=True)
    def convert(x, out, first, scale, p, key, kept, given):
        """``out[i] = round(x[i] / scale) · scale``; returns whether there was a NaN.

        Args:
            x, out: flat arrays of one float type, of the same size.
            first: number of the first element, for the random stream.
            scale: scalar of the type of x; used where ``scaled``.
            p: parameters; their width is that of the floats to round in.
            key, kept: of the random stream, and the mask of its bits that count (``STOCHASTIC``).
            given: random words, one an element, aligned to the top of 32 bits (``STOCHASTIC_GIVEN``).
        """
        # Loops count from 0: an index that might be negative would be read by a gather.
        found = magnitude_bits(scale)
        found = found & ~found
        for i in range(x.size):
            value = x[i]
            found |= is_nan(value)
            chance = np.uint64(0)
            if mode == STOCHASTIC:
                chance = random_bits(key, first + i) & kept
            elif mode == STOCHASTIC_GIVEN:
                chance = np.uint64(given[i])
            if scaled:
                value = value / scale
            value = round_element(value, chance, p, mode, how)
            if scaled:
                value = value * scale
            out[i] = value
        return found != 0

    return convert


@cache
def encoder(mode, how, scaled):
    """As ``converter``, with the integer codes as the result."""

    @njit(nogil=True, cache=True)
    def encode(x, codes, first, scale, p, key, kept, given):
        found = magnitude_bits(scale)
        found = found & ~found
        for i in range(x.size):
            value = x[i]
            found |= is_nan(value)
            chance = np.uint64(0)
            if mode == STOCHASTIC:
                chance = random_bits(key, first + i) & kept
            elif mode == STOCHASTIC_GIVEN:
                chance = np.uint64(given[i])
            if scaled:
                value = value / scale
            codes[i] = encode_element(value, chance, p, mode, how)
        return found != 0

    return encode


@cache
def step_converter(mode, how, scaled, coded):
    """As ``converter`` for integers and fixed point: multiples of a step, clipped to ``low`` … ``high``; where ``coded``, codes
    in two's complement.

    ``magic`` is 1.5 · 2^(mantissa bits of the float) steps: with ``how`` = ``BY_ADDING``, adding and subtracting it rounds to
    nearest even (the range must end below a third of it). A code is value · ``per_step`` + ``zero``, of the bits in ``mask``.
    """

    @njit(nogil=True, cache=True)
    def convert(x, out, first, scale, low, high, magic, per_step, zero, mask, p, key, kept, given):
        found = magnitude_bits(scale)
        found = found & ~found
        for i in range(x.size):
            value = x[i]
            found |= is_nan(value)
            chance = np.uint64(0)
            if mode == STOCHASTIC:
                chance = random_bits(key, first + i) & kept
            elif mode == STOCHASTIC_GIVEN:
                chance = np.uint64(given[i])
            if scaled:
                value = value / scale
            if how == GENERAL:
                value = round_element(value, chance, p, mode, GENERAL)
            value = value if value > low else low
            value = value if value < high else high
            if how == BY_ADDING:
                value = (value + magic) - magic
            if coded:
                out[i] = step_code(value, per_step, zero, mask)
            elif scaled:
                out[i] = value * scale
            else:
                out[i] = value
        return found != 0

    return convert


COUNTED_EDGES = 64
"""Edges up to which comparing with all of them is faster than a search."""


@njit(nogil=True, cache=True)
def find_cells(x, edges, codes):
    """``codes[i]``: how many of the ascending ``edges`` are ≤ 2 · x[i], in 64-bit floats; ``codes`` starts at 0."""
    if edges.size <= COUNTED_EDGES:
        for edge in edges:
            for i in range(x.size):
                codes[i] += np.float64(x[i]) * 2.0 >= edge
        return
    for i in range(x.size):
        codes[i] = np.searchsorted(edges, np.float64(x[i]) * 2.0, side="right")


FLOOR, CEILING, NEAREST = range(3)
"""How a block's power-of-two scale follows from its largest magnitude."""


@njit(nogil=True, cache=True, inline="always")
def power_of_two(exponent):
    """2^exponent as a 32-bit float, of the exponent of a normal number."""
    return float_of(np.uint32((exponent + 127) << 23))


@njit(nogil=True, cache=True)
def shared_exponent(largest, element_emax, element_max, rounding, lowest, highest):
    """Exponent of a block's power-of-two scale, from its largest magnitude (float64, finite)."""
    if largest == 0.0:
        return lowest
    if rounding == FLOOR:
        exponent = np.int64(magnitude_bits(largest) >> np.uint64(52)) - 1023 - element_emax
    else:
        ratio = largest / element_max
        bits = magnitude_bits(ratio)
        exponent = np.int64(bits >> np.uint64(52)) - 1023
        fraction = bits & np.uint64((1 << 52) - 1)
        if rounding == CEILING:
            # Compared without the division's rounding.
            exponent -= 1
            while element_max * 2.0**exponent < largest:
                exponent += 1
        elif fraction >= np.uint64(1 << 51):
            exponent += 1
    return min(max(exponent, lowest), highest)


VALUES, FLOAT_CODES, STEP_CODES = range(3)
"""What conversion of blocks gives: values, the codes of float elements, or those of integers and fixed point."""


@cache
def block_converter(mode, how, coded):
    """The kernel of blocks with power-of-two scales.

    Elements are rounded with ``p``: x / scale by a short form of nearest even, or x in the format times the scale; where a scale
    is too far out for both, x / scale in 64-bit floats with ``p64``.
    """

    @njit(nogil=True, cache=True)
    def convert(
        x, out, exponents, first, p, p64, key, kept, given, element_emax, element_max, per_step, mask, rounding, lowest, highest,
        first_moved, last_moved,
    ):  # fmt: skip
        """Rows of ``x`` are blocks.

        ``out`` gets the values or codes, ``exponents`` the scales' exponents (``highest + 1`` for a block with Inf or NaN, whose
        values all become NaN and whose codes 0). Exponents from ``first_moved`` to ``last_moved`` leave all values of the format
        times the scale normal floats. ``first`` is the number of the first element, ``given`` has the shape of x or no elements.
        """
        blocks, size = x.shape
        for block in range(blocks):
            largest = magnitude_bits(x[block, 0])
            for i in range(0, size - LANES + 1, LANES):
                largest = higher(largest, largest_of_lanes(x, block, i))
            for i in range(size // LANES * LANES, size):
                largest = higher(largest, magnitude_bits(x[block, i]))
            top = np.float64(float_of(largest))
            if not top < np.inf:
                exponents[block] = highest + 1
                for i in range(size):
                    out[block, i] = 0 if coded else np.nan
                continue
            exponent = shared_exponent(top, element_emax, element_max, rounding, lowest, highest)
            exponents[block] = exponent
            if how != GENERAL and -120 <= exponent <= 120:
                up, down = power_of_two(exponent), power_of_two(-exponent)
                for i in range(size):
                    if coded == FLOAT_CODES:
                        out[block, i] = encode_element(x[block, i] * down, np.uint64(0), p, mode, how)
                    elif coded == STEP_CODES:
                        value = round_element(x[block, i] * down, np.uint64(0), p, mode, how)
                        out[block, i] = step_code(value, per_step, 0, mask)
                    else:
                        out[block, i] = round_element(x[block, i] * down, np.uint64(0), p, mode, how) * up
            elif first_moved <= exponent <= last_moved:
                moved = moved_parameters(p, exponent)
                wide_down = 2.0**-exponent
                for i in range(size):
                    chance = np.uint64(0)
                    if mode == STOCHASTIC:
                        chance = random_bits(key, first + block * size + i) & kept
                    elif mode == STOCHASTIC_GIVEN:
                        chance = np.uint64(given[block, i])
                    if coded == FLOAT_CODES:
                        out[block, i] = encode_element(x[block, i], chance, moved, mode, GENERAL)
                    elif coded == STEP_CODES:
                        value = np.float64(round_element(x[block, i], chance, moved, mode, GENERAL)) * wide_down
                        out[block, i] = step_code(value, per_step, 0, mask)
                    else:
                        out[block, i] = round_element(x[block, i], chance, moved, mode, GENERAL)
            else:
                wide_up, wide_down = 2.0**exponent, 2.0**-exponent
                for i in range(size):
                    chance = np.uint64(0)
                    if mode == STOCHASTIC:
                        chance = random_bits(key, first + block * size + i) & kept
                    elif mode == STOCHASTIC_GIVEN:
                        chance = np.uint64(given[block, i])
                    wide = np.float64(x[block, i]) * wide_down
                    if coded == FLOAT_CODES:
                        out[block, i] = encode_element(wide, chance, p64, mode, GENERAL)
                    elif coded == STEP_CODES:
                        out[block, i] = step_code(round_element(wide, chance, p64, mode, GENERAL), per_step, 0, mask)
                    else:
                        out[block, i] = round_element(wide, chance, p64, mode, GENERAL) * wide_up

    return convert


@njit(nogil=True, cache=True)
def largest_magnitudes(x, out):
    """``out[block]``: the largest |x| of a row; NaN where it holds one."""
    blocks, size = x.shape
    for block in range(blocks):
        largest = magnitude_bits(x[block, 0])
        for i in range(0, size - LANES + 1, LANES):
            largest = higher(largest, largest_of_lanes(x, block, i))
        for i in range(size // LANES * LANES, size):
            largest = higher(largest, magnitude_bits(x[block, i]))
        out[block] = float_of(largest)


@cache
def factor_converter(mode, how, coded):
    """The kernel of blocks with scales of any value."""

    @njit(nogil=True, cache=True)
    def convert(x, out, factors, first, p, key, kept, given, per_step, mask):
        """``out[block, i] = round(x[block, i] / factors[block]) · factors[block]``, or the code of the quotient.

        A block whose factor is 0 becomes zeros, one whose factor is NaN becomes NaN (codes 0).
        """
        blocks, size = x.shape
        for block in range(blocks):
            factor = factors[block]
            if np.isnan(factor):
                for i in range(size):
                    out[block, i] = 0 if coded else np.nan
                continue
            # A divisor of infinity leaves the signs of a block that becomes zeros.
            divisor = factor if factor > 0 else x.dtype.type(np.inf)
            for i in range(size):
                chance = np.uint64(0)
                if mode == STOCHASTIC:
                    chance = random_bits(key, first + block * size + i) & kept
                elif mode == STOCHASTIC_GIVEN:
                    chance = np.uint64(given[block, i])
                value = x[block, i] / divisor
                if coded == FLOAT_CODES:
                    out[block, i] = encode_element(value, chance, p, mode, how)
                elif coded == STEP_CODES:
                    out[block, i] = step_code(round_element(value, chance, p, mode, how), per_step, 0, mask)
                else:
                    out[block, i] = round_element(value, chance, p, mode, how) * factor

    return convert


@njit(nogil=True, cache=True)
def look_up(codes, table, out):
    """``out[i] = table[codes[i]]``; the codes lie in the table."""
    for i in range(codes.size):
        out[i] = table[codes[i]]


@njit(nogil=True, cache=True)
def look_up_blocks(codes, table, factors, out):
    """``out[block, i] = table[codes[block, i]] · factors[block]``, in 64-bit floats; the codes lie in the table."""
    blocks, size = codes.shape
    for block in range(blocks):
        factor = factors[block]
        for i in range(size):
            out[block, i] = table[codes[block, i]] * factor
