"""``fused_dot`` against ``numerics.matmul`` with a ``fused`` accumulator."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from numerics import Accumulator, matmul
from numerics.formats import FloatFormat
from rtl.bench import Bench, Latency, Port, Trace, Values
from rtl.benches.floats import (
    FP32_SPECIALS,
    Bits,
    Codes,
    as_bits,
    as_float32,
    neighbours,
    shown_later,
    small_format,
    special_codes,
    values_of,
)

_SIDE = 16
"""The model multiplies matrices of so many rows and columns: each row of a meets each column of b, every time with another c."""

_WORD = 64


class FusedDotBench(Bench):
    """All pairs of special numbers with all special c, among zeros and among others; the widest sums; then random operands
    of several distributions, with gaps."""

    unit = "fused_dot"

    def inputs(self, parameters: Mapping[str, int]) -> tuple[Port, ...]:
        # Operands come in words of 64 bits, which hold several.
        width = parameters["K"] * small_format(parameters).code_bits
        word, words = (_WORD, width // _WORD) if width % _WORD == 0 else (width // parameters["K"], parameters["K"])
        return Port("rst_ni"), Port("valid_i"), Port("a_i", word, words), Port("b_i", word, words), Port("c_i", 32)

    def outputs(self, parameters: Mapping[str, int]) -> tuple[Port, ...]:
        return Port("valid_o"), Port("sum_o", 32)

    def trace(self, parameters: Mapping[str, int], cases: int, rng: np.random.Generator) -> Trace:
        fmt, depth = small_format(parameters), parameters["K"]
        accumulator = Accumulator(
            format=f"e8m{parameters['OutputMantissaBits']}", order="fused", group=depth, rounding="toward_zero",
            fraction_bits=parameters["FractionBits"], overflow="infinity", a_formats=(fmt.name,), b_formats=(fmt.name,),
        )  # fmt: skip
        # A reset, a lone pair of 1 for the latency, then all others.
        lone = np.zeros((3, depth), np.int64)
        lone[1, 0] = ((1 << (fmt.exponent_bits - 1)) - 1) << fmt.mantissa_bits
        parts = [(lone, lone, np.zeros(3, np.uint32), np.array([0, 0x3F800000, 0], np.uint32))]
        steady = _specials(fmt, depth, rng), _widest(fmt, depth)
        for left, right, c in (*steady, _random(fmt, depth, cases, rng)):
            with np.errstate(all="ignore"):
                sums = as_bits(matmul(values_of(left, fmt), values_of(right, fmt), accumulator=accumulator, bias=as_float32(c)))
            # Every row with every column.
            shape = (*c.shape, depth)
            rows = np.broadcast_to(left[:, :, None, :], shape)
            columns = np.broadcast_to(np.swapaxes(right, 1, 2)[:, None, :, :], shape)
            parts.append((rows.reshape(-1, depth), columns.reshape(-1, depth), c.ravel(), sums.ravel()))
        a, b, c, sums = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        early = 3 + sum(c.size for _, _, c in steady)
        valid = np.concatenate([[False, True, False], np.full(early - 3, True), rng.random(len(a) - early) < 0.9])
        inputs = {
            "rst_ni": np.arange(len(a)) > 0, "valid_i": valid, "a_i": _words(a, fmt), "b_i": _words(b, fmt), "c_i": c,
        }  # fmt: skip
        outputs = {"valid_o": np.concatenate([[False], valid[:-1]]), "sum_o": shown_later(sums, valid)}
        return Trace(inputs, outputs, int(valid.sum()), compared_from=1, marks={"operand": 1})

    def latency(self, parameters: Mapping[str, int], trace: Trace, observed: Values) -> Latency:
        operand = trace.marks["operand"]
        first = operand + int(np.argmax(observed["valid_o"][operand:]))
        return Latency(first - operand, 1, first - operand, "none: K pairs in every cycle")


def _words(codes: Codes, fmt: FloatFormat) -> npt.NDArray[np.uint64]:
    """Codes (cycles, K) as the ports take them, the first lowest."""
    bits, each = fmt.code_bits, _WORD // fmt.code_bits
    if codes.shape[1] * bits % _WORD:
        return codes.astype(np.uint64)
    grouped = codes.reshape(len(codes), -1, each).astype(np.uint64)
    words: npt.NDArray[np.uint64] = np.bitwise_or.reduce(grouped << np.arange(0, _WORD, bits, dtype=np.uint64), axis=2)
    return words


def _specials(fmt: FloatFormat, depth: int, rng: np.random.Generator) -> tuple[Codes, Codes, Bits]:
    """For each special c, every special number in a row of a with every one in a column of b; the other pairs are zeros for half
    of the c, ordinary numbers for the others."""
    codes = special_codes(fmt)
    count, most = FP32_SPECIALS.size, 1 << (fmt.code_bits - 1)
    ordinary = rng.integers(0, most - (3 << fmt.mantissa_bits), (2, count, codes.size, depth))
    ordinary[:, ::2] = 0
    ordinary[:, :, :, 0] = codes
    return ordinary[0], np.swapaxes(ordinary[1], 1, 2), np.broadcast_to(
        FP32_SPECIALS[:, None, None], (count, codes.size, codes.size)
    )  # fmt: skip


def _widest(fmt: FloatFormat, depth: int) -> tuple[Codes, Codes, Bits]:
    """The largest significands, all of one exponent and one sign: no sum has more bits before the point."""
    most = (((1 << (fmt.exponent_bits - 1)) - 1) << fmt.mantissa_bits) + (1 << fmt.mantissa_bits) - 1
    signs = np.array([0, 1])
    left = np.broadcast_to((signs << (fmt.code_bits - 1) | most)[:, None, None], (2, 1, depth))
    c = (signs << 31 | 0x3FFFFFFF).astype(np.uint32)
    return left, np.full((2, depth, 1), most), c[:, None, None]


def _random(fmt: FloatFormat, depth: int, cases: int, rng: np.random.Generator) -> tuple[Codes, Codes, Bits]:
    """Matrices of several distributions, one after the other, with sums c of several distributions, mixed."""
    count = -(-cases // _SIDE**2)
    m, top = fmt.mantissa_bits, (1 << fmt.exponent_bits) - 1
    shape = (2, count, _SIDE, depth)
    sign, fraction = rng.integers(0, 2, shape), rng.integers(0, 1 << m, shape)
    # Operands of a matrix lie in a range of exponents, narrow or wide, low or high.
    low = rng.integers(0, top, (2, count, 1, 1))
    field = np.clip(low + rng.integers(0, top, shape) % rng.choice([1, 2, 4, 8, top], (2, count, 1, 1)), 0, top - 1)
    field[rng.random(shape) < rng.choice([0, 0, 0.3, 0.9], (2, count, 1, 1))] = 0  # subnormal
    codes: Codes = sign << (fmt.code_bits - 1) | field << m | fraction
    codes[rng.random(shape) < rng.choice([0, 0, 0.3, 0.95], (2, count, 1, 1))] &= 1 << (fmt.code_bits - 1)  # zero
    kind = rng.random(count)
    half = depth // 2
    for index in np.flatnonzero(kind < 0.3):  # products that cancel in pairs, and nearly so
        codes[0, index, :, half : 2 * half] = codes[0, index, :, :half] ^ (1 << (fmt.code_bits - 1))
        codes[1, index, :, half : 2 * half] = codes[1, index, :, :half]
        codes[1, index, :, half : 2 * half] ^= rng.random((_SIDE, half)) < 0.1
    odd = (rng.random(shape) < 0.5 / depth) & (kind > 0.9)[:, None, None]
    codes[odd] = rng.choice(special_codes(fmt), shape)[odd]
    left, right = codes[0], np.swapaxes(codes[1], 1, 2)
    with np.errstate(all="ignore"):
        product = values_of(left, fmt).astype(np.float64) @ values_of(right, fmt).astype(np.float64)
        choices = [
            np.zeros(product.shape, np.uint32),
            rng.integers(0, 1 << 32, product.shape).astype(np.uint32),
            as_bits(product * np.exp2(rng.uniform(-30, 34, product.shape)) * rng.choice([-1, 1], product.shape)),
            as_bits(-product),
            neighbours(as_bits(-product), rng, 3),
            neighbours(as_bits(-product), rng, 1 << 14),
            (rng.integers(0, 1 << 25, product.shape) | rng.integers(0, 2, product.shape) << 31).astype(np.uint32),
        ]
    return left, right, np.choose(rng.integers(0, len(choices), product.shape), choices)
