"""The kernels of incremental runs against numpy."""

import numpy as np
import pytest
from numba import njit

from hwsim.faults.incremental._tile_kernels import LANES, TILE_ROWS, add_scaled, combine, row_tile, tile
from hwsim.faults.incremental._window_kernels import pool, shrink
from hwsim.faults.incremental.layout import AVERAGE, BY_INSIDE, BY_SIDES, BY_SIZE, DIVIDE, KIND, MAX_POOL, STEP_COLUMNS
from hwsim.faults.incremental.product_steps import window_fields


@njit
def tiled(x, offsets, w, out, bases, where):
    tile(x, offsets, offsets.size, w, 0, LANES, out, bases, where, 0, 0, TILE_ROWS)


@njit
def row_tiled(x, offsets, w, out, bases):
    row_tile(x, offsets, offsets.size, w, out, bases, 0, TILE_ROWS)


@njit
def scaled(sums, at, w, start, factor, count):
    add_scaled(sums, at, w, start, factor, count)


@njit
def combined(totals, x, maximum):
    combine(totals, x, totals.size // LANES, maximum)


@njit
def shrunk(window, box, golden, width, depth):
    shrink(window, box, golden, width, depth)


@njit
def pooled(step, source, window, golden, value, target, out):
    pool(step, source, window, golden, value, target, out)


def numbers(rng, kind, size):
    return rng.integers(-(2**20), 2**20, size).astype(np.int32) if kind == np.int32 else rng.standard_normal(size).astype(kind)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_tiles_add_one_product_after_the_other(kind):
    rng = np.random.default_rng(0)
    depth = 37
    x, w, row = numbers(rng, kind, 500), numbers(rng, kind, depth * LANES), numbers(rng, kind, depth)
    offsets, bases = rng.integers(0, 300, depth), rng.integers(0, 150, TILE_ROWS)
    where = rng.permutation(TILE_ROWS) * LANES
    # Fused: exact products, one rounding a sum; 64-bit floats hold product and sum of these without a second.
    wide = np.longdouble if kind == np.float32 else kind
    expected, by_row = np.zeros((2, TILE_ROWS, LANES), kind)
    with np.errstate(over="ignore"):
        for k in range(depth):
            seen = x[bases + offsets[k]].astype(wide)
            beside = x[bases[:, None] + offsets[k] + np.arange(LANES)].astype(wide)
            expected = (expected + seen[:, None] * w[k * LANES : (k + 1) * LANES].astype(wide)).astype(kind)
            by_row = (by_row + beside * row[k].astype(wide)).astype(kind)
    out = np.zeros(TILE_ROWS * LANES, kind)
    tiled(x, offsets, w, out, bases, where)
    assert np.array_equal(out.reshape(-1, LANES)[where // LANES], expected)
    row_tiled(x, offsets, row, out, bases)
    assert np.array_equal(out.reshape(-1, LANES), by_row)
    sums = numbers(rng, kind, 4 * LANES)
    added = sums.copy()
    added[LANES : 3 * LANES] += (w[5 : 5 + 2 * LANES].astype(wide) * 3).astype(wide).astype(kind)
    scaled(sums, LANES, w, 5, kind(3), 2)
    assert np.allclose(sums, added, rtol=1e-6) if kind == np.float32 else np.array_equal(sums, added)


def test_maxima_keep_nans_and_the_first_of_equals():
    nan = np.float32(np.nan)
    totals = np.array([0.0, -0.0, 1.0, nan, 2.0, -np.inf, nan, 5.0] * 2, np.float32)
    x = np.array([-0.0, 0.0, 2.0, 1.0, nan, -3.0, nan, np.inf] * 2, np.float32)
    expected = np.array([0.0, -0.0, 2.0, nan, nan, -3.0, nan, np.inf] * 2, np.float32)
    sums = totals.copy()
    combined(totals, x, True)
    assert np.array_equal(totals.view(np.int32), expected.view(np.int32))
    plain = sums + x
    combined(sums, x, False)
    assert np.array_equal(sums, plain, equal_nan=True)


def test_windows_shrink_to_the_rows_and_columns_that_differ():
    rng = np.random.default_rng(1)
    for trial in range(200):
        rows, columns, depth = rng.integers(1, 7, 3)
        golden = rng.standard_normal((rows, columns, depth)).astype(np.float32)
        changed = golden.copy()
        y0, x0, c0 = (int(rng.integers(0, n)) for n in (rows, columns, depth))
        y1, x1, c1 = (int(rng.integers(low + 1, n + 1)) for low, n in ((y0, rows), (x0, columns), (c0, depth)))
        share = (0.0, 0.05, 0.3, 1.0)[trial % 4]
        part = changed[y0:y1, x0:x1, c0:c1]
        part[rng.random(part.shape) < share] *= -1
        differs = (changed != golden).any(2)
        box, window = np.array([y0, y1, x0, x1, c0, c1]), part.copy().reshape(-1)
        shrunk(window, box, golden.reshape(-1), columns, depth)
        if not differs.any():
            assert not box.any()
            continue
        top, left = differs.any(1).argmax(), differs.any(0).argmax()
        bottom, right = rows - differs.any(1)[::-1].argmax(), columns - differs.any(0)[::-1].argmax()
        assert box.tolist() == [top, bottom, left, right, c0, c1]
        kept = changed[top:bottom, left:right, c0:c1]
        assert np.array_equal(window[: kept.size], kept.reshape(-1))


@pytest.mark.parametrize("channels", [3, 16, 21])
@pytest.mark.parametrize(("kind", "divide"), [(MAX_POOL, 0), (AVERAGE, BY_SIZE), (AVERAGE, BY_INSIDE), (AVERAGE, BY_SIDES)])
def test_pools(channels, kind, divide):
    rng = np.random.default_rng(2)
    golden = rng.standard_normal((6, 7, channels)).astype(np.float32)
    window = rng.standard_normal((3, 2, channels)).astype(np.float32)
    changed = golden.copy()
    changed[1:4, 2:4] = window
    step = np.zeros(STEP_COLUMNS, np.int64)
    pad = 0 if divide == BY_SIDES else 1
    for column, entry in window_fields((3, 2), (2, 1), (pad, pad), (1, 1)).items():
        step[column] = entry
    step[KIND], step[DIVIDE] = kind, divide
    out_rows, out_columns = (6 + 2 * pad - 3) // 2 + 1, 7 + 2 * pad - 1
    out = np.empty(out_rows * out_columns * channels, np.float32)
    source, target = np.array([1, 4, 2, 4, 0, channels]), np.array([0, out_rows, 0, out_columns, 0, channels])
    value = np.array([6, 7, channels, 0, 0])
    pooled(step, source, window.reshape(-1), golden.reshape(-1), value, target, out)
    for oy in range(out_rows):
        for ox in range(out_columns):
            ys = [y for y in range(2 * oy - pad, 2 * oy - pad + 3) if 0 <= y < 6]
            xs = [x for x in range(ox - pad, ox - pad + 2) if 0 <= x < 7]
            seen = [changed[y, x] for y in ys for x in xs]
            if kind == MAX_POOL:
                expected = np.max(seen, axis=0)
            else:
                expected = np.zeros(channels, np.float32)
                for row in seen:
                    expected = expected + row
                count = {BY_SIZE: 6, BY_INSIDE: len(seen), BY_SIDES: 6}[divide]
                expected = expected / np.float32(3) / np.float32(2) if divide == BY_SIDES else expected / np.float32(count)
            start = (oy * out_columns + ox) * channels
            assert np.array_equal(out[start : start + channels], expected)
