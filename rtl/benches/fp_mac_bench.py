"""``fp_mac`` against ``numerics.multiply_add`` with an fp32 accumulator."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from numerics import multiply_add
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

Operands = tuple[Codes, Codes, Bits]

_PROBE = np.arange(OPERANDS)
"""Sums c of the probe, whose products are all 1 · 1."""


class FpMacBench(Bench):
    """All special numbers with each other; for 8-bit operands every pair, on sums that are special, near and cancelling; random
    ones of several distributions, some of them held back."""

    unit = "fp_mac"

    def inputs(self, parameters: Mapping[str, int]) -> tuple[Port, ...]:
        bits = small_format(parameters).code_bits
        return Port("rst_ni"), Port("enable_i"), Port("a_i", bits), Port("b_i", bits), Port("c_i", 32)

    def outputs(self, parameters: Mapping[str, int]) -> tuple[Port, ...]:
        return (Port("sum_o", 32),)

    def trace(self, parameters: Mapping[str, int], cases: int, rng: np.random.Generator) -> Trace:
        fmt = small_format(parameters)
        one = ((1 << (fmt.exponent_bits - 1)) - 1) << fmt.mantissa_bits
        ones = probe(np.full(OPERANDS, one))
        parts = [(ones, ones, probe(as_bits(_PROBE))), _specials(fmt)]
        if fmt.code_bits <= 8:
            parts += _pairs(fmt, rng)
        steady = sum(part[0].size for part in parts)
        parts.append(_random(fmt, cases, rng))
        a, b, c = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        enable = np.concatenate([taken, np.full(steady - taken.size, True), rng.random(a.size - steady) < 0.9])
        x, y = values_of(a, fmt), values_of(b, fmt)
        sums = as_bits(multiply_add(as_float32(c), x, y, accumulator="fp32"))
        inputs = {"rst_ni": np.arange(a.size) > 0, "enable_i": enable, "a_i": a, "b_i": b, "c_i": c}
        return Trace(inputs, {"sum_o": shown_later(sums, enable)}, int(enable.sum()), compared_from=1)

    def latency(self, parameters: Mapping[str, int], trace: Trace, observed: Values) -> Latency:
        return probed(observed["sum_o"], as_bits(1 + _PROBE).tolist(), "enable_i low keeps the sum")


def _product(fmt: FloatFormat, a: Codes, b: Codes) -> npt.NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        exact: npt.NDArray[np.float64] = values_of(a, fmt).astype(np.float64) * values_of(b, fmt)
    return exact


def _specials(fmt: FloatFormat) -> Operands:
    codes = special_codes(fmt)
    a, b, c = (grid.ravel() for grid in np.meshgrid(codes, codes, np.arange(FP32_SPECIALS.size), indexing="ij"))
    return a, b, FP32_SPECIALS[c]


def _pairs(fmt: FloatFormat, rng: np.random.Generator) -> list[Operands]:
    """Every pair of operands six times over."""
    a, b = np.divmod(np.arange(1 << (2 * fmt.code_bits)), 1 << fmt.code_bits)
    opposite = as_bits(-_product(fmt, a, b))
    turn = rng.permutation(a.size)
    sums = [
        np.zeros(a.size, np.uint32),
        FP32_SPECIALS[turn % FP32_SPECIALS.size],
        opposite,
        neighbours(opposite, rng),
        neighbours(opposite, rng, 1 << 12),
        _near(_product(fmt, a, b), rng),
    ]
    return [(a, b, c) for c in sums]


def _near(product: npt.NDArray[np.float64], rng: np.random.Generator) -> Bits:
    """Sums whose exponents lie around those of the products, so that every alignment and rounding comes about."""
    with np.errstate(all="ignore"):
        return as_bits(product * np.exp2(rng.uniform(-28, 30, product.size)) * rng.choice([-1, 1], product.size))


def _random(fmt: FloatFormat, cases: int, rng: np.random.Generator) -> Operands:
    """Five distributions, mixed: any codes; c near the product; c that cancels it; results near the smallest and the largest
    numbers."""
    count = -(-cases // 5)
    codes = 1 << fmt.code_bits
    drawn = []
    for kind in range(5):
        a, b = rng.integers(0, codes, (2, count))
        if kind >= 3:
            b = _partner(fmt, a, b, -140 if kind == 3 else 127, rng)
        product = _product(fmt, a, b)
        if kind == 0:
            c = rng.integers(0, 1 << 32, count).astype(np.uint32)
        elif kind == 1:
            c = _near(product, rng)
        elif kind == 2:
            c = neighbours(as_bits(-product), rng, 2)
        elif kind == 3:
            small = rng.integers(0, 1 << 25, count) >> rng.integers(0, 25, count)
            c = (small | rng.integers(0, 2, count) << 31).astype(np.uint32)
        else:
            large = 0x7F7FFFFF - (rng.integers(0, 1 << 24, count) >> rng.integers(0, 24, count))
            c = (large | rng.integers(0, 2, count) << 31).astype(np.uint32)
        drawn.append((a, b, c))
    order = rng.permutation(5 * count)
    a, b, c = (np.concatenate(columns)[order] for columns in zip(*drawn, strict=True))
    return a, b, c


def _partner(fmt: FloatFormat, a: Codes, b: Codes, exponent: int, rng: np.random.Generator) -> Codes:
    """``b`` with an exponent that brings the product near 2^exponent, or as near as the format goes."""
    m, top = fmt.mantissa_bits, (1 << fmt.exponent_bits) - 1
    bias = top >> 1
    field = (a >> m) & top
    wanted = exponent + 2 * bias - field + rng.integers(-14, 15, a.size)
    rest: Codes = b & ~(top << m)
    return rest | np.clip(wanted, 0, top - 1) << m
