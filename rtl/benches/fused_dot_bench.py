"""``fused_dot`` against ``numerics.matmul`` with a ``fused`` accumulator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

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
from rtl.benches.probes import OPERANDS, probe, probed, taken

_SIDE = 16
"""The model multiplies matrices of so many rows and columns: each row of a meets each column of b, every time with another c."""

_WORD = 64

_PROBE = np.arange(OPERANDS)
"""Numbers c of the probe, whose dot products are all 1 · 1."""


class FusedDotBench(Bench):
    """All pairs of special numbers with all special c, and in every lane, among zeros, among others and beside what cancels them;
    the widest sums; then random operands of several distributions, with gaps."""

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
        ones = np.zeros((OPERANDS, depth), np.int64)
        ones[:, 0] = ((1 << (fmt.exponent_bits - 1)) - 1) << fmt.mantissa_bits
        parts = [(probe(ones), probe(ones), probe(as_bits(_PROBE)), probe(as_bits(1 + _PROBE)))]
        steady = _specials(fmt, depth, rng), *_lanes(fmt, depth, rng), _widest(fmt, depth)
        for left, right, c in (*steady, _random(fmt, depth, cases, rng)):
            with np.errstate(all="ignore"):
                sums = as_bits(matmul(values_of(left, fmt), values_of(right, fmt), accumulator=accumulator, bias=as_float32(c)))
            # Every row with every column.
            shape = (*c.shape, depth)
            rows = np.broadcast_to(left[:, :, None, :], shape)
            columns = np.broadcast_to(np.swapaxes(right, 1, 2)[:, None, :, :], shape)
            parts.append((rows.reshape(-1, depth), columns.reshape(-1, depth), c.ravel(), sums.ravel()))
        a, b, c, sums = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        early = taken.size + sum(c.size for _, _, c in steady)
        valid = np.concatenate([taken, np.full(early - taken.size, True), rng.random(len(a) - early) < 0.9])
        inputs = {
            "rst_ni": np.arange(len(a)) > 0, "valid_i": valid, "a_i": _words(a, fmt), "b_i": _words(b, fmt), "c_i": c,
        }  # fmt: skip
        outputs = {"valid_o": np.concatenate([[False], valid[:-1]]), "sum_o": shown_later(sums, valid)}
        return Trace(inputs, outputs, int(valid.sum()), compared_from=1)

    def latency(self, parameters: Mapping[str, int], trace: Trace, observed: Values) -> Latency:
        return probed(observed["sum_o"], as_bits(1 + _PROBE).tolist(), "none: K pairs in every cycle", observed["valid_o"])


def _words(codes: Codes, fmt: FloatFormat) -> npt.NDArray[np.uint64]:
    """Codes (cycles, K) as the ports take them, the first lowest."""
    bits, each = fmt.code_bits, _WORD // fmt.code_bits
    if codes.shape[1] * bits % _WORD:
        return codes.astype(np.uint64)
    grouped = codes.reshape(len(codes), -1, each).astype(np.uint64)
    words: npt.NDArray[np.uint64] = np.bitwise_or.reduce(grouped << np.arange(0, _WORD, bits, dtype=np.uint64), axis=2)
    return words


def _specials(fmt: FloatFormat, depth: int, rng: np.random.Generator) -> tuple[Codes, Codes, Bits]:
    """For each special c, every special number in a row of a with every one in a column of b, in one lane after the other; the
    other pairs are zeros for half of the c, ordinary numbers for the others."""
    codes = special_codes(fmt)
    count = FP32_SPECIALS.size
    pairs = _ordinary(fmt, (2, count, codes.size, depth), rng)
    pairs[:, ::2] = 0
    pairs[:, np.arange(count), :, np.arange(count) % depth] = codes
    return pairs[0], np.swapaxes(pairs[1], 1, 2), np.broadcast_to(
        FP32_SPECIALS[:, None, None], (count, codes.size, codes.size)
    )  # fmt: skip


def _lanes(fmt: FloatFormat, depth: int, rng: np.random.Generator) -> Iterator[tuple[Codes, Codes, Bits]]:
    """In every lane, every special number in a row of a with every one in a column of b: among zeros, among ordinary numbers, and
    with the opposite product, or for Inf the other one, in another lane. No c hides what they do."""
    codes = special_codes(fmt)
    lanes = np.arange(depth)
    shape = (depth, codes.size, codes.size)
    finite = FP32_SPECIALS[(FP32_SPECIALS >> 23 & 255) < 255]
    for kind in ("zeros", "ordinary", "cancelling"):
        pairs = _ordinary(fmt, (2, depth, codes.size, depth), rng)
        if kind != "ordinary":
            pairs[:] = 0
        pairs[:, lanes, :, lanes] = codes
        if kind == "cancelling":
            others = (lanes + rng.integers(1, depth, depth)) % depth
            pairs[:, lanes, :, others] = codes
            pairs[0, lanes, :, others] ^= 1 << (fmt.code_bits - 1)
        c = np.zeros(shape, np.uint32) if kind == "zeros" else rng.choice(finite, shape)
        yield pairs[0], np.swapaxes(pairs[1], 1, 2), c


def _ordinary(fmt: FloatFormat, shape: tuple[int, ...], rng: np.random.Generator) -> Codes:
    """Positive numbers below the largest."""
    return rng.integers(0, (1 << (fmt.code_bits - 1)) - (3 << fmt.mantissa_bits), shape)


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
