"""Sums of products in Python's fractions, one output at a time: nothing is shared with the package but the fields of a format."""

import math
from fractions import Fraction

from exact_rounding import bias_of, floor_log2, largest_value, power, rounded

MASK = (1 << 64) - 1


def _mix(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


class Chances:
    """The fractions that stochastic rounding draws for one output: 24 bits of SplitMix64 each, from a place in its stream."""

    def __init__(self, seed, start):
        self.key, self.at = _mix((seed + 0x9E3779B97F4A7C15) & MASK), start

    def next(self):
        self.at += 1
        word = _mix((self.key + self.at * 0x9E3779B97F4A7C15) & MASK) >> 32
        return Fraction(word >> 8, 1 << 24)


class Rounder:
    """Adds and multiplies: exact, or rounded once."""

    def __init__(self, fmt, mode="nearest_even", overflow="ieee", chances=None):
        self.fmt, self.mode, self.overflow, self.chances = fmt, mode, overflow, chances

    def round(self, x):
        chance = self.chances.next() if self.mode == "stochastic" else None
        return rounded(x, self.fmt, self.mode, self.overflow, chance)

    def add(self, x, y):
        return self.round(exact_sum([x, y]))


def exact_product(x, y):
    """A ``Fraction``, or ±Inf or NaN."""
    if math.isfinite(x) and math.isfinite(y):
        return Fraction(x) * Fraction(y)
    return math.nan if x == 0 or y == 0 else float(x) * float(y)


def exact_sum(terms):
    """A ``Fraction``, or ±Inf or NaN."""
    special = [float(t) for t in terms if not math.isfinite(t)]
    return math.fsum(special) if len({*special}) == 1 else math.nan if special else sum(map(Fraction, terms), Fraction(0))


def sequential(terms, start, r):
    for t in terms:
        start = r.add(start, t)
    return start


def tree(terms, r):
    """Neighbours in pairs, level by level, in the order in which a stream of products completes them."""
    if len(terms) <= 1:
        return terms[0]
    half = 1 << (len(terms) - 1).bit_length() - 1
    return r.add(tree(terms[:half], r), tree(terms[half:], r))


def chunks(terms, size):
    return [terms[i : i + size] for i in range(0, len(terms), size)]


def rounded_dot(a, b, start, order, group, r, product=None, promotion=None):
    """One output of an accumulator that rounds every addition; ``promotion``: interval and the wide ``Rounder``."""
    terms = [exact_product(x, y) for x, y in zip(a, b, strict=True)]
    if product is not None:
        terms = [product.round(t) for t in terms]
    wide = start
    for part in chunks(terms, promotion[0] if promotion else max(len(terms), 1)):
        total = 0.0 if promotion else start
        if order == "sequential":
            total = sequential(part, total, r)
        for some in chunks(part, group or len(part)) if order != "sequential" else []:
            total = r.add(total, tree(some, r) if order in ("tree", "pairwise") else sequential(some, 0.0, r))
        start = total
        if promotion:
            wide = promotion[1].add(wide, total)
    return wide if promotion else start


def kahan_dot(a, b, start, r):
    lost = 0.0
    for x, y in zip(a, b, strict=True):
        term = r.round(exact_sum([exact_product(x, y), -lost]))
        total = r.add(start, term)
        lost = r.add(r.add(total, -start), -term)
        start = total
    return start


# --- tensor cores ---------------------------------------------------------------------------------------------------------


def significand(x, fmt):
    """(significand, exponent) of a finite value of a format; a subnormal keeps the smallest exponent."""
    x = Fraction(x)
    exponent = max(floor_log2(abs(x)), 1 - bias_of(fmt)) if x else None
    return (x / power(exponent), exponent) if x else (x, None)


def fused_dot(a, b, start, fa, fb, store, fraction_bits, group, sa=None, sb=None, start_format=None):
    """A tensor core's chain of instructions of ``group`` products; ``sa``, ``sb``: a power of two for each element, or NaN."""
    sa, sb = sa or [1.0] * len(a), sb or [1.0] * len(b)
    for k in range(0, len(a), group):
        part = range(k, min(k + group, len(a)))
        values = [exact_product(exact_product(a[i], b[i]), exact_product(sa[i], sb[i])) for i in part]
        if not math.isfinite(exact_sum([start, *values])):
            start = float(exact_sum([start, *values]))
            continue
        terms = [significand(start, start_format or store.fmt)]
        for i in part:
            (s, e), (t, f) = significand(a[i], fa), significand(b[i], fb)
            if s * t:
                terms.append((s * t, e + f + floor_log2(Fraction(sa[i])) + floor_log2(Fraction(sb[i]))))
        start = _aligned_sum(terms, fraction_bits, store)
    return start


def _aligned_sum(terms, fraction_bits, store):
    largest = max([-126] + [e for _, e in terms if e is not None])
    unit = power(largest - fraction_bits)
    total = sum(math.trunc(s * power(e) / unit) for s, e in terms if e is not None)
    return store(total * unit)


class Truncating:
    """Stores a sum cut off toward zero, Inf beyond the range."""

    def __init__(self, fmt):
        self.fmt = fmt

    def __call__(self, x):
        if not x:
            return 0.0
        unit = power(max(floor_log2(abs(x)), 1 - bias_of(self.fmt)) - self.fmt.mantissa_bits)
        cut = math.trunc(x / unit) * unit
        if abs(cut) > largest_value(self.fmt):
            return math.copysign(math.inf, x)
        return math.copysign(abs(float(cut)), x)


class Nearest:
    """Stores a sum rounded to nearest even."""

    def __init__(self, fmt):
        self.fmt = fmt

    def __call__(self, x):
        return math.copysign(rounded(x, self.fmt, "nearest_even", "ieee"), -1.0 if x < 0 else 1.0)


def block_scaled_dot(a, b, start, sa, sb, scale_format, start_format, block, store, fraction_bits=35, group=64, run=16):
    """K = 64: runs of 16 exact products, times the significands of two scales, aligned at the sum of the scales' exponents."""
    for k in range(0, len(a), group):
        terms = [significand(start, start_format)] if math.isfinite(start) else []
        bad = [] if math.isfinite(start) else [start]
        for i in range(k, min(k + group, len(a)), run):
            p = sum((Fraction(x) * Fraction(y) for x, y in zip(a[i : i + run], b[i : i + run], strict=True)), Fraction(0))
            u, v = sa[i // block], sb[i // block]
            if math.isnan(u) or math.isnan(v):
                bad.append(math.nan)
                continue
            (s, e), (t, f) = significand(u, scale_format), significand(v, scale_format)
            if p * s * t:
                terms.append((p * s * t, e + f))
        start = float(exact_sum(bad)) if bad else _aligned_sum(terms, fraction_bits, store)
    return start
