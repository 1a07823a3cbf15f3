"""Calibrators against the raw values they summarise, brute force over scales, and the slides' algorithm in plain Python."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import nn

from numerics import InputError, Recipe, get_format, quantize
from numerics.calibration import calibrate, parse_calibrator, static_scale
from numerics.emulation import emulate
from numerics.histogram import Histogram
from numerics.quantisation_noise import sqnr, sqnr_db
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
    assert error(x, name, scale) < error(x, name, largest)


def test_mse_of_four_bits_clips_a_bell_where_theory_says():
    """Of 15 evenly spaced levels a normal distribution wants a step of 0.3534 (Max, IRE Trans. Inf. Theory 6, 1960, table II)."""
    x = np.random.default_rng(0).standard_normal(400_000)
    assert static_scale(seen(x), "int4_symmetric", Scaling(calibrator="mse"))[0] == pytest.approx(0.3534, rel=0.01)


def plain_divergence(counts, last, levels):
    """Migacz 2017, slide 38: P, the first ``last`` bins with the outliers in the last; Q, the bins' counts merged by level and
    spread over the bins that P uses."""
    p = [float(c) for c in counts[:last]]
    p[-1] += sum(counts[last:])
    width = 1.0 / last  # of a bin, in thresholds
    level = [min(round((i + 0.5) * width * levels), levels) for i in range(last)]
    q = [0.0] * last
    for i in range(last):
        if p[i] > 0:
            alike = [j for j in range(last) if level[j] == level[i]]
            q[i] = sum(counts[j] for j in alike) / sum(p[j] > 0 for j in alike)
    if any(b == 0 for a, b in zip(p, q, strict=True) if a > 0):
        return math.inf
    total_p, total_q = sum(p), sum(q)
    return sum(a / total_p * math.log((a / total_p) / (b / total_q)) for a, b in zip(p, q, strict=True) if a > 0)


@pytest.mark.parametrize(("name", "levels"), [("int4", 7), ("int6", 31), ("uint3", 7)])
def test_entropy_is_the_algorithm_of_the_slides(name, levels):
    x = np.random.default_rng(1).laplace(size=300_000)
    histogram = seen(np.abs(x) if name == "uint3" else x, bins=256)
    counts = histogram.magnitudes().tolist()
    last = math.ceil(histogram.largest() / histogram.width)
    divergences = {i: plain_divergence(counts, i, levels) for i in range(128, last + 1)}
    best = min(divergences, key=lambda i: (divergences[i], -i))
    assert math.isfinite(divergences[best])
    assert best < last
    scale, _ = static_scale(histogram, name, Scaling(calibrator="entropy"))
    assert scale * levels / histogram.width == pytest.approx(best)


def test_entropy_clips_a_long_tail_and_keeps_what_has_none():
    entropy = Scaling(calibrator="entropy")
    assert static_scale(seen(np.linspace(-1.0, 1.0, 100_000)), "int8", entropy)[0] == pytest.approx(1 / 127, rel=0.03)
    tail = np.random.default_rng(2).standard_t(3, 1_000_000)
    assert static_scale(seen(tail), "int8", entropy)[0] < 0.5 * static_scale(seen(tail), "int8", Scaling())[0]


# --- powers of two, margins, ranges --------------------------------------------------------------------------------------


@pytest.mark.parametrize("calibrator", ["minmax", "percentile_99.9", "mse", "entropy"])
@pytest.mark.parametrize("name", ["int8", "int4", "e4m3fn"])
def test_powers_of_two(calibrator, name):
    x = heavy()
    scale, _ = static_scale(seen(x), name, Scaling(calibrator=calibrator, power_of_two=True))
    assert math.frexp(scale)[0] == 0.5
    free, _ = static_scale(seen(x), name, Scaling(calibrator=calibrator))
    if calibrator in ("minmax", "percentile_99.9"):
        assert free <= scale < 2 * free
    if calibrator == "entropy":
        assert 128 * seen(x).width <= scale * get_format(name).max < 2 * np.abs(x).max()
    if calibrator == "mse":
        assert error(x, name, scale) == min(error(x, name, 2.0**k) for k in range(-20, 20))


def test_a_scale_that_is_a_power_of_two_stays():
    assert static_scale(seen([127.0 / 4]), "int8", Scaling(power_of_two=True)) == (0.25, None)


@pytest.mark.parametrize("calibrator", ["minmax", "mse"])
def test_a_margin_is_room_above(calibrator):
    x = heavy()
    plain, _ = static_scale(seen(x), "e4m3fn", Scaling(calibrator=calibrator))
    assert static_scale(seen(x), "e4m3fn", Scaling(calibrator=calibrator, margin=2)) == (4 * plain, None)


@given(st.lists(FINITE, min_size=1, max_size=30), st.sampled_from(["int8", "uint8", "int4"]))
def test_affine_codes_cover_the_range(values, name):
    """Every value is within half a step, and 0 has a code of its own (Jacob et al., section 2.1)."""
    x = np.asarray(values, np.float64)
    scale, zero_point = static_scale(seen(values), name, Scaling(symmetric=False))
    fmt = get_format(name)
    assert fmt.code_min <= zero_point <= fmt.code_max
    q = quantize(x, name, scale=scale, zero_point=zero_point)
    assert np.abs(x - q).max() <= scale * 1.0001
    assert quantize(0.0, name, scale=scale, zero_point=zero_point) == 0.0
    low, high = min(x.min(), 0.0), max(x.max(), 0.0)
    if low < high:
        assert scale == pytest.approx((high - low) / (fmt.code_max - fmt.code_min), rel=1e-6)


def test_affine_mse_shrinks_the_range_where_that_helps():
    x = np.abs(heavy())

    def of(calibrator):
        scale, zero_point = static_scale(seen(x), "int4", Scaling(symmetric=False, calibrator=calibrator))
        return float(np.square(x - quantize(x.astype(np.float64), "int4", scale=scale, zero_point=zero_point)).mean())

    assert of("mse") < of("percentile_99.9") < of("minmax")
    assert of("mse") < 0.6 * of("minmax")


def test_nothing_but_zeros_has_a_scale_of_one():
    for calibrator in ("minmax", "percentile_50", "mse", "entropy"):
        assert static_scale(seen([0.0, 0.0]), "int8", Scaling(calibrator=calibrator)) == (1.0, None)
    assert static_scale(seen([0.0]), "int8", Scaling(symmetric=False)) == (1.0, -128)


def test_sqnr_of_a_uniform_quantiser_is_six_decibels_a_bit():
    """A uniform signal over the whole range: 20·log10(2^bits) (Bennett 1948)."""
    x = np.random.default_rng(0).uniform(-1, 1, 200_000)
    for bits in (4, 6, 8):
        levels = 2**bits - 1
        measured = sqnr_db(x, quantize(x, f"int{bits}_symmetric", scale=2 / levels))
        assert measured == pytest.approx(20 * math.log10(levels), abs=0.05)
    assert sqnr_db(x, x) == math.inf


# --- of an emulation -----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tensors this small only wait for a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@lru_cache(maxsize=1)
def digits():
    """8×8 digits, grey values standardised as inputs usually are: 1,347 to train on, 450 to test."""
    data = load_digits()
    x = torch.tensor((data.data - data.data.mean()) / data.data.std(), dtype=torch.float32)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return x[order], torch.tensor(data.target)[order]


@lru_cache(maxsize=1)
def network():
    """A small network trained in FP32."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    x, y = digits()
    for step in range(300):
        some = slice(step * 64 % 1216, step * 64 % 1216 + 64)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[some]), y[some]).backward()
        optimizer.step()
    return model.eval()


def recipe(weight, activation, *, weights=None, activations=None):
    formats = {"weight": weight, "activation": activation, "elementwise": "fp32", "accumulator": "fp32"}
    return Recipe("ptq", formats, scaling={"weight": weights or Scaling(), "activation": activations or Scaling()})


@pytest.mark.parametrize(
    ("formats", "weights", "activations"),
    [
        (("int8_symmetric", "int8"), Scaling(), Scaling()),
        (("int8_symmetric", "int8"), Scaling("channel"), Scaling(power_of_two=True)),
        (("int4", "uint8"), Scaling("channel", power_of_two=True), Scaling(symmetric=False)),
        (("e4m3fn", "e4m3fn"), Scaling(margin=1), Scaling(margin=2)),
        (("nvfp4", "nvfp4"), Scaling(), Scaling()),
    ],
)
def test_static_minmax_scales_of_one_batch_compute_its_dynamic_bits(formats, weights, activations):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, groups=2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 16), nn.Linear(16, 16)
    )
    x = torch.randn(8, 2, 8, 8)
    dynamic = emulate(model, recipe(*formats, weights=weights, activations=activations)).eval()
    fixed = recipe(*formats, weights=replace(weights, update="static"), activations=replace(activations, update="static"))
    static = emulate(model, fixed).eval()
    scales = calibrate(static, [x])
    with torch.no_grad():
        assert torch.equal(static(x), dynamic(x))
        assert torch.equal(emulate(model, fixed, calibration=scales).eval()(x), dynamic(x))
        assert not torch.equal(static(3 * x), dynamic(3 * x))


def test_calibration_sees_every_batch_and_leaves_the_emulation_as_it_was():
    model = network()
    static = emulate(model, recipe("fp32", "int8", activations=Scaling(update="static"), weights=Scaling("none")))
    static.train()
    x, _ = digits()
    before = static.get_extra_state()
    scales = calibrate(static, [x[:100], (x[100:200],), {"input": x[200:300]}])
    assert static.training
    assert static.get_extra_state() | {"static": []} == before
    (first,) = [scale for key, (scale, _) in scales.items() if key.module == "0"]
    assert first == x[:300].abs().max() / 127


def test_sqnr_of_operands_is_that_of_their_own_quantiser():
    model, (x, _) = network(), digits()
    report = sqnr(emulate(model, recipe("int8_symmetric", "e4m3fn")), [x[:50], x[50:100]])
    weight = model[2].weight.detach()
    assert report.of("weight")["2"] == pytest.approx(sqnr_db(weight, quantize(weight, "int8", scale=weight.abs().max() / 127)))
    scales = [part.abs().max() / 448 for part in (x[:50], x[50:100])]
    rounded_x = torch.cat([quantize(p, "e4m3fn", scale=s) for p, s in zip((x[:50], x[50:100]), scales, strict=True)])
    assert report.of("activation")["0"] == pytest.approx(sqnr_db(x[:100], rounded_x))
    assert [row.module for row in report.rows if row.role == "output"] == ["0", "1", "2", "3", "4"]
    printed = str(report).splitlines()
    assert len(printed) == 1 + len(report.rows) == 1 + len(report.to_rows())


def test_sqnr_of_outputs_is_that_of_the_whole_network():
    model, (x, _) = network(), digits()
    emulation = emulate(model, "fp8").eval()
    report = sqnr(emulation, [x])
    with torch.no_grad():
        assert report.of("output")["4"] == pytest.approx(sqnr_db(model(x), emulation(x)))
        assert report.of("output")["1"] == pytest.approx(sqnr_db(model[:2](x), emulate(model[:2], "fp8")(x)))


def test_clipped_elements_are_counted():
    model = nn.Sequential(nn.Linear(4, 1, bias=False))
    emulation = emulate(model, recipe("fp32", "int8", weights=Scaling("none"), activations=Scaling(update="static")))
    calibrate(emulation, [torch.full((1, 4), 1.27)])
    x = torch.tensor([[1.27, 1.274, 1.276, -1.28], [-1.284, -1.286, 0.0, 5.0]])
    (row,) = [r for r in sqnr(emulation, [x]).rows if r.role == "activation"]
    assert row.clipped == 3 / 8  # those that rounding to 127 or −128 takes more than half a step


def test_power_of_two_scales_cost_int8_up_to_six_decibels_and_floats_next_to_nothing():
    """A step up to twice as wide has up to four times the error; a float's error follows the value. (The pixels, 17 evenly spaced
    values, are left out: what suits them is chance.)"""
    model, (x, _) = network(), digits()
    for name, low, high in (("int8", 0.0, 20 * math.log10(2) + 0.5), ("e4m3fn", -0.7, 0.7)):
        free = sqnr(emulate(model, recipe(name, name)), [x])
        powers = sqnr(
            emulate(model, recipe(name, name, weights=Scaling(power_of_two=True), activations=Scaling(power_of_two=True))), [x]
        )
        for role in ("weight", "activation"):
            modules = ("0", "2", "4") if role == "weight" else ("2", "4")
            for module, best in ((m, free.of(role)[m]) for m in modules):
                assert low <= best - powers.of(role)[module] <= high, (name, role, module)


def test_channel_scales_are_better_than_one_for_the_tensor():
    model, (x, _) = network(), digits()
    whole = sqnr(emulate(model, recipe("int8_symmetric", "int8")), [x]).of("weight")
    rows = sqnr(emulate(model, recipe("int8_symmetric", "int8", weights=Scaling("channel"))), [x]).of("weight")
    assert all(rows[module] > whole[module] + 1 for module in ("0", "2"))


def test_static_scales_lose_to_dynamic_ones_when_the_input_degrades():
    """What clean inputs never reached is clipped; a dynamic scale widens instead."""
    model, (x, _) = network(), digits()
    static = emulate(model, recipe("int8_symmetric", "int8", activations=Scaling(update="static")))
    calibrate(static, [x[:1347]])
    dynamic = emulate(model, recipe("int8_symmetric", "int8"))
    clean = x[1347:]
    noisy = clean + 1.5 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))

    def first(emulation, batch):
        return sqnr(emulation, [batch]).of("activation")["0"]

    assert first(static, clean) == pytest.approx(first(dynamic, clean), abs=0.5)
    assert first(dynamic, noisy) > 38
    assert first(static, noisy) < first(dynamic, noisy) - 15


@pytest.mark.parametrize("calibrator", ["minmax", "percentile_99.9", "mse", "entropy"])
def test_every_calibrator_keeps_the_accuracy_of_int8(calibrator):
    model, (x, y) = network(), digits()
    fixed = Scaling(update="static", calibrator=calibrator)
    static = emulate(model, recipe("int8_symmetric", "int8", activations=fixed))
    calibrate(static, [x[:1347]])
    with torch.no_grad():
        right, wanted = ((m.eval()(x[1347:]).argmax(1) == y[1347:]).double().mean() for m in (static, model))
    assert wanted > 0.9
    assert right > wanted - 0.01


# --- bad input -----------------------------------------------------------------------------------------------------------


def static_linear(granularity="tensor"):
    return emulate(
        nn.Linear(2, 2), recipe("fp32", "int8", weights=Scaling("none"), activations=Scaling(granularity, update="static"))
    )


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: static_scale(seen(), "int8", Scaling()), "calibration: no values seen; give at least one batch"),
        (lambda: seen([1.0, math.nan]), "x: calibration needs finite values, got nan"),
        (lambda: seen([1.0, -math.inf]), "x: calibration needs finite values, got -inf"),
        (lambda: static_scale(seen([1.0]), "mxfp8_e4m3", Scaling()), "calibration: 'mxfp8_e4m3' finds its blocks' scales itself"),
        (
            lambda: static_scale(seen([1.0]), "nvfp4", Scaling(calibrator="mse")),
            "calibrator: the tensor scale of 'nvfp4' comes from 'minmax', got 'mse'",
        ),
        (
            lambda: static_scale(seen([1.0]), "e4m3fn", Scaling(symmetric=False)),
            "calibration: only integers have a zero point, 'e4m3fn' has not",
        ),
        (
            lambda: static_scale(seen([1.0]), "int8", Scaling(symmetric=False, calibrator="entropy")),
            "calibrator: 'entropy' compares magnitudes; expected symmetric=True, or another calibrator",
        ),
        (lambda: parse_calibrator("entropie"), "calibrator: unknown name 'entropie'; did you mean 'entropy'"),
        (lambda: parse_calibrator("percentile"), "calibrator: expected 'percentile_' and a number above 0 up to 100, as"),
        (lambda: parse_calibrator("percentile_0"), "calibrator: expected 'percentile_' and a number above 0 up to 100, as"),
        (lambda: sqnr_db(np.zeros(3), np.zeros(4)), "quantised: expected shape (3,), got (4,)"),
        (
            lambda: calibrate(emulate(nn.Linear(2, 2), "int8"), [torch.ones(1, 2)]),
            "recipe 'int8': no operand has a static scale; nothing to calibrate",
        ),
        (lambda: calibrate(static_linear(), []), "batches: expected at least one, got none"),
        (lambda: sqnr(emulate(nn.Linear(2, 2), "int8"), []), "batches: expected at least one, got none"),
        (
            lambda: calibrate(static_linear(), [torch.tensor([[1.0, math.inf]])]),
            "x: calibration needs finite values, got inf",
        ),
        (
            lambda: calibrate(static_linear("channel"), [torch.ones(1, 2), torch.ones(3, 2)]),
            "calibration: activation of module '' has (1,) rows in one batch and (3,) in another; expected granularity 'tensor'",
        ),
        (lambda: Histogram(100), "bins: expected a power of two of at least 2, got 100"),
    ],
)
def test_bad_input_is_named(make, text):
    with raises(text):
        make()
