"""Inputs that cover a float type: one from each of its strata, and those around every value of a format."""

import numpy as np

SPECIALS = (0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan)


def fp32_strata(bits=24, seed=0):
    """One fp32 number from each of the 2^bits runs of neighbouring bit patterns; both signs, subnormals, Inf and NaN included."""
    low = 32 - bits
    words = np.arange(1 << bits, dtype=np.uint32) << np.uint32(low)
    words |= np.random.default_rng(seed).integers(0, 1 << low, words.size, dtype=np.uint32)
    return words.view(np.float32)


def fp64_strata(count, low, high, seed=0):
    """``count`` fp64 numbers of random bits with exponents from ``low`` to ``high``, a third of them with few bits set (ties)."""
    rng = np.random.default_rng(seed)
    significand = 1 + rng.integers(0, 1 << 52, count) / 2.0**52
    few = rng.random(count) < 1 / 3
    significand[few] = 1 + np.round((significand[few] - 1) * 64) / 64
    return np.ldexp(significand, rng.integers(low, high + 1, count)) * rng.choice([-1.0, 1.0], count)


def around(values, dtype):
    """Every finite value, the middle of each two neighbours, and the floats next to all of these on both sides, in a type."""
    finite = np.unique(np.asarray(values, np.float64)[np.isfinite(values)])
    outside = [finite[-1] + (finite[-1] - finite[-2]) * step for step in (0.25, 0.5, 1, 2)]
    points = np.concatenate([finite, (finite[1:] + finite[:-1]) / 2, outside, np.negative(outside)])
    with np.errstate(over="ignore", under="ignore"):
        points = points.astype(dtype)
        near = [points, np.nextafter(points, dtype(np.inf)), np.nextafter(points, dtype(-np.inf))]
    return np.concatenate([*near, np.array(SPECIALS, dtype)])


def without_e8m0_quirk(x):
    """Without the fp32 subnormals between 2^−127 and 1.5 · 2^−127, which ml_dtypes and PyTorch take to 2^−126 in E8M0, not to the
    nearer 2^−127 (docs/conformance.md)."""
    return x[~((np.abs(x) > 2.0**-127) & (np.abs(x) < 1.5 * 2.0**-127))]


def assert_same_floats(ours, theirs, x, context=""):
    """Bit for bit, signs of zeros included; any NaN is a NaN."""
    kind = np.uint32 if ours.dtype == np.float32 else np.uint64
    different = (ours.view(kind) != theirs.view(kind)) & ~(np.isnan(ours) & np.isnan(theirs))
    if different.any():
        i = int(np.flatnonzero(different)[0])
        raise AssertionError(
            f"{context}: {int(different.sum())} of {x.size} differ, the first: {float(x.flat[i]).hex()} ({x.flat[i]!r}) "
            f"→ {ours.flat[i]!r}, expected {theirs.flat[i]!r}"
        )
