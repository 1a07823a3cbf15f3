"""Calibrators against the raw values they summarise, brute force over scales, and the slides' algorithm in plain Python."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numerics import InputError, get_format, quantize
from numerics.calibration import parse_calibrator, sqnr_db, static_scale
from numerics.histogram import Histogram
from numerics.scaling import Scaling


def raises(text):
    return pytest.raises(InputError, match="^" + re.escape(text))


def seen(*batches, bins=4096):
    histogram = Histogram(bins)
    for batch in batches:
        histogram.add(np.asarray(batch, np.float32))
    return histogram


def heavy(seed=0, count=20000):
    """A bell with a few far outliers, half of it zero as after a ReLU."""
    generator = np.random.default_rng(seed)
    x = generator.standard_t(3, count).astype(np.float32)
    x[:20] *= 20
    x[count // 2 :] = 0
    return x


FINITE = st.floats(-(2.0**40), 2.0**40, width=32)


# --- the histogram -------------------------------------------------------------------------------------------------------


@given(st.lists(st.lists(FINITE, max_size=8), min_size=1, max_size=6))
def test_bins_depend_on_the_values_only(batches):
    values = [v for batch in batches for v in batch]
    one, many = seen(values, bins=16), seen(*batches, bins=16)
    np.testing.assert_array_equal(one.counts, many.counts)
    assert (one.low, one.high, one.zeros, one.total, one.width) == (many.low, many.high, many.zeros, many.total, many.width)
    assert one.total == len(values)
    if any(values):
        top = one.bins * one.width
        assert top / 2 <= max(map(abs, values)) < top
        index = sorted(math.floor(v / one.width) + one.bins for v in values if v)
        assert index == np.repeat(np.arange(2 * one.bins), one.counts).tolist()


@given(st.lists(FINITE, min_size=1, max_size=60), st.floats(0.5, 100.0))
def test_percentiles_are_within_a_bin_of_the_sorted_values(values, percent):
    histogram = seen(values)
    magnitudes = np.sort(np.abs(np.asarray(values, np.float32))).astype(np.float64)
    wanted = magnitudes[max(math.ceil(percent / 100 * len(values) - 1e-9), 1) - 1]
    assert abs(histogram.percentile(percent) - wanted) <= histogram.width
    low, high = histogram.range(percent)
    ordered = np.sort(np.asarray(values, np.float32)).astype(np.float64)
    cut = math.floor((100 - percent) / 200 * len(values) + 1e-9)
    for end, value in ((low, ordered[cut]), (high, ordered[len(values) - 1 - cut])):
        assert abs(end - value) <= histogram.width


# --- symmetric scales ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["int8", "int4", "e4m3fn", "e2m1fn", "nf4"])
def test_minmax_takes_the_largest_magnitude_to_the_largest_value(name):
    x = heavy()
    scale, zero_point = static_scale(seen(x), name, Scaling())
    assert zero_point is None
    assert scale == pytest.approx(np.abs(x).max() / get_format(name).max, rel=1e-12)


def test_an_unsigned_format_looks_at_positive_values_only():
    assert static_scale(seen([-100.0, 51.0]), "uint8", Scaling())[0] == pytest.approx(51 / 255)
    assert static_scale(seen([-100.0, 51.0]), "int8", Scaling())[0] == pytest.approx(100 / 127)


def test_the_tensor_scale_of_nvfp4_is_that_of_quantize():
    x = heavy().reshape(-1, 16)
    scale, _ = static_scale(seen(x), "nvfp4", Scaling())
    np.testing.assert_array_equal(quantize(x, "nvfp4", scale=scale), quantize(x, "nvfp4"))


def error(x, name, scale):
    return np.square(x - quantize(x.astype(np.float64), name, scale=scale, overflow="saturate")).mean()


@pytest.mark.parametrize("name", ["int8", "int4", "uint8", "e4m3fn", "e2m1fn", "nf4"])
def test_mse_is_as_good_as_a_fine_search_over_the_raw_values(name):
    x = np.abs(heavy()) if name == "uint8" else heavy()
    scale, _ = static_scale(seen(x), name, Scaling(calibrator="mse"))
    largest = np.abs(x).max() / get_format(name).max
    best = min(error(x, name, s) for s in np.linspace(0.0, largest, 2001)[1:])
    assert error(x, name, scale) < 1.01 * best
    assert error(x, name, scale) < 0.95 * error(x, name, largest)


def test_mse_of_four_bits_clips_a_bell_where_theory_says():
    """A uniform quantiser of 15 levels, one of them at 0, is best for a normal distribution with a step of 0.3352: found here by
    integrating the error over the density itself."""
    from scipy.integrate import quad
    from scipy.optimize import minimize_scalar

    def density(t):
        return math.exp(-t * t / 2) / math.sqrt(2 * math.pi)

    def expected(step):
        total = 0.0
        for level in range(8):
            low = max(0.0, (level - 0.5) * step)
            high = np.inf if level == 7 else (level + 0.5) * step
            total += 2 * quad(lambda t, q=level * step: (t - q) ** 2 * density(t), low, high)[0]
        return total

    best = minimize_scalar(expected, bounds=(0.1, 0.8), method="bounded").x
    assert best == pytest.approx(0.3352, abs=5e-4)
    x = np.random.default_rng(0).standard_normal(400_000)
    assert static_scale(seen(x), "int4_symmetric", Scaling(calibrator="mse"))[0] == pytest.approx(best, rel=0.02)


def plain_divergence(counts, last, levels):
    """Migacz 2017, slide 38: P from the first ``last`` bins and the outliers; Q from ``levels`` equal runs of them. ``last`` is a
    multiple of ``levels`` here."""
    p = [float(c) for c in counts[:last]]
    q = [0.0] * last
    run = last // levels
    outliers = float(sum(counts[last:]))
    p[-1] += outliers
    for level in range(levels):
        bins = range(level * run, (level + 1) * run)
        used = [i for i in bins if p[i] > 0]
        for i in used:
            q[i] = sum(float(counts[j]) for j in bins) / len(used)
    if any(b == 0 for a, b in zip(p, q, strict=True) if a > 0):
        return math.inf
    total_p, total_q = sum(p), sum(q)
    return sum(a / total_p * math.log((a / total_p) / (b / total_q)) for a, b in zip(p, q, strict=True) if a > 0)


def test_divergence_is_that_of_the_slides():
    """With a codebook of equal cells the levels are the slides' equal runs of bins."""
    from numerics.calibration import _divergence
    from numerics.formats import CodebookFormat

    histogram = seen(heavy(), bins=256)
    counts = histogram.magnitudes().tolist()
    cells = CodebookFormat("cells", tuple((i + 0.5) / 16 for i in range(16)))
    compared = 0
    for last in range(16, 257, 16):
        scale = last * histogram.width / cells.max
        # The highest value is the middle of the last cell: the threshold itself lies half a cell above.
        scale_to_edges = last * histogram.width
        wanted = plain_divergence(counts, last, 16)
        middles = (np.arange(last) + 0.5) * histogram.width
        runs = np.unique(quantize(middles, cells, scale=scale_to_edges), return_inverse=True)[1]
        assert runs.tolist() == [i // (last // 16) for i in range(last)]
        got = _divergence(histogram, _Edges(cells, scale_to_edges / scale), scale)
        assert got == wanted or got == pytest.approx(wanted, rel=1e-12)
        compared += math.isfinite(wanted)
    assert compared > 4
