"""Detectors of emulated engines against theory in mean and variance, the power budget's bits, converters, and equal bits."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from optical_reference import IDEAL, SILENT, codes, engine, multiply
from scipy import stats

from photonic.link_budget import ELECTRON_C

FULL = {
    # name, changes, a full-scale product (a, b), results of full scale, samples of one result
    "one mesh": ("coherent_mzi_56", {}, 4, 4),
    "two meshes": ("coherent_mzi_56", {"engine__meshes": 2}, 4, 4),
    "unequal oscillator": ("coherent_mzi_56", {"engine__meshes": 2, "engine__local_oscillator_ratio": 10}, 4, 4),
    "differential": ("mrr_bank", {}, 16, 16),
    "two passes": ("mrr_bank", {"engine__sign": "two_pass"}, 16, 16),
    "crossbar": ("tempo_like", {}, 192, 32),
    "short sum": ("tempo_like", {}, 60, 32),
    "half a bank": ("mrr_bank", {}, 8, 16),
}


def clean(name, **changes):
    """Noise of light and detectors alone."""
    section = {**IDEAL, "shot_noise": "counted"}
    return engine(name, imperfections=section, **changes)


@pytest.mark.parametrize("case", list(FULL))
def test_bits_at_full_scale_are_those_of_the_power_budget(case):
    """Light of the budget, noise as emulated: within 0.06 bits of what the budget says, 8,000 samples or more."""
    name, changes, k, n = FULL[case]
    device, bits = clean(name, **changes), 6 if name == "tempo_like" else 8
    full = 2.0 ** (bits - 1)
    if name == "coherent_mzi_56":  # one output has the whole light of one input
        a, b = np.zeros((8000, 4)), np.zeros((4, 1))
        a[:, 0], b[0] = -full, -full
    elif name == "mrr_bank":  # every input at its brightest, all of it on one detector
        a, b = np.full((800, k), full - 1), np.full((k, n), full - 1 if case == "two passes" else -full)
    else:
        a, b = np.full((800, k), -full), np.full((k, n), -full)
    unit = device.unit(seed=1)
    multiply(unit, a, b, bits)
    record, budget = unit.layers["op"], device.spec.budget
    predicted = budget.bits_of(*device.spec.engine.fill(k))
    assert record.light_bits == pytest.approx(predicted)
    if case == "two passes":  # half of the passes are dark, without noise but that of the input stage
        assert predicted < record.noise_bits < predicted + 1
        assert record.mean_detector_w == pytest.approx(budget.detector_w / 2, rel=0.02)
        return
    if case == "unequal oscillator":
        # The budget counts laser noise of all light; a balanced pair sees that of the difference alone.
        noise = budget.detection.variances_a2(budget.detector_w)
        seen = sum(noise.values()) + noise["laser noise"] * ((budget.detection.swing / 2) ** 2 - 1)
        predicted += np.log2(sum(noise.values()) / seen) / 2
    assert record.noise_bits == pytest.approx(predicted, abs=0.06)
    fill = device.spec.engine.fill(k)[0] if name == "mrr_bank" else 1.0
    assert record.mean_detector_w == pytest.approx(budget.detector_w * fill, rel=0.01)


@pytest.mark.parametrize("name", ["coherent_mzi_56", "mrr_bank", "tempo_like"])
def test_dimmer_light_has_less_noise_never_fewer_bits(name):
    """Numbers that are not full scale: at least the budget's bits, less than one more."""
    device, bits = engine(name), 6 if name == "tempo_like" else 8
    unit = device.unit(seed=1)
    multiply(unit, codes((200, 192), 1, bits), codes((192, 32), 2, bits), bits)
    record = unit.layers["op"]
    assert record.light_bits - 0.05 < record.noise_bits < record.light_bits + 1


SOURCES = {
    "shot": {"laser__relative_intensity_noise_db_per_hz": "ideal", "receiver__thermal_noise": "ideal"},
    "thermal": {"laser__relative_intensity_noise_db_per_hz": "ideal", "imperfections__shot_noise": "ideal"},
    "laser": {"receiver__thermal_noise": "ideal", "imperfections__shot_noise": "ideal"},
}


@pytest.mark.parametrize("source", list(SOURCES))
@pytest.mark.parametrize("name", ["coherent_mzi_56", "mrr_bank", "tempo_like"])
def test_noise_of_a_result_in_mean_and_variance(name, source):
    """One product of numbers that are not full scale, again and again, against closed forms with each source alone."""
    changes = {"imperfections": {**IDEAL, "shot_noise": "counted"}, **SOURCES[source]}
    if name == "coherent_mzi_56":
        changes["engine__meshes"] = 2
    device = engine(name, **changes)
    spec, bits = device.spec, 6 if name == "tempo_like" else 8
    full = 2 ** (bits - 1)
    k = {"coherent_mzi_56": 4, "mrr_bank": 16, "tempo_like": 192}[name]
    x, w = codes((1, k), 3, bits), codes((k, 1), 4, bits)
    rows = 64_000 if name != "tempo_like" else 6400
    found = multiply(device.unit(seed=2), np.tile(x, (rows, 1)), w, bits).ravel()
    exact = float((x @ w)[0, 0])
    detection, light = spec.detection, spec.budget.detector_w
    band, responsivity = detection.noise_bandwidth_hz, detection.responsivity_a_per_w
    amp = detection.swing * responsivity * light / 2
    x, w = x.ravel() / full, w.ravel() / full
    if name == "coherent_mzi_56":  # currents over ``amp`` are results over the gain
        gain = np.linalg.norm(w)
        y = x @ w / gain
        power, worth = light * (1 + y**2) / 2, gain
        relative = y
    elif name == "mrr_bank":  # light of all inputs, at a bias; results are twice 16 times what is read
        power, worth = light * np.mean((1 + x) / 2), 2 * 16
        relative = np.mean(w * (1 + x) / 2)
    else:
        power, worth = light * np.mean(x**2 + w**2) / 2, 192
        relative = np.mean(x * w)
    if source == "shot":
        variance = 2 * ELECTRON_C * responsivity * power * band / amp**2
    elif source == "thermal":
        variance = detection.thermal_a2_per_hz * band / amp**2
    elif name == "tempo_like":  # each of 32 symbols of six products is stronger or weaker on its own
        each = (x * w).reshape(32, 6).sum(axis=1) / 192
        variance = detection.laser_noise_per_hz * 32 * band * np.sum(each**2)
    else:
        variance = detection.laser_noise_per_hz * band * relative**2
    sigma = np.sqrt(variance) * worth * full**2
    rows_apart = found if not (name == "tempo_like" and source == "laser") else found[:: spec.engine.ports]
    assert abs(rows_apart.mean() - exact) < 5 * sigma / np.sqrt(rows_apart.size) + 0.01
    low, high = stats.chi2.ppf([1e-5, 1 - 1e-5], rows_apart.size - 1) / (rows_apart.size - 1)
    rounding = 1 / 12  # to integers of the accumulator
    assert low * (sigma**2 + rounding) < rows_apart.var() < high * (sigma**2 + rounding)


def test_laser_noise_is_one_factor_for_all_results_of_a_symbol():
    device = engine("mrr_bank", imperfections={**IDEAL, "shot_noise": "ideal"}, receiver__thermal_noise="ideal")
    a, b = codes((200, 16), 1), np.repeat(codes((16, 1), 2), 8, axis=1)
    found = multiply(device.unit(seed=1), a, b)
    assert (found == found[:, :1]).all()
    assert (found[:, 0] != (a @ b)[:, 0]).mean() > 0.5


# --- converters -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("full_scale", [0.25, 1.0])
def test_the_adc_rounds_and_clips_and_counts(full_scale):
    section = {**IDEAL, "adc": {"full_scale": full_scale}}
    device = engine("mrr_bank", adc__bits=6, **{**SILENT, "imperfections": section})
    a, b = codes((300, 16), 1), codes((16, 16), 2)
    unit = device.unit()
    found = multiply(unit, a, b)
    read = ((1 + a / 128) / 2) @ (b / 128) / 16
    step = full_scale / 31
    code = np.rint(read / step)
    expected = 2 * 16 * np.clip(code, -31, 31) * step - (b / 128).sum(axis=0)
    assert np.array_equal(found, np.rint(expected * 128**2))
    record = unit.layers["op"]
    assert record.clipped == np.count_nonzero(np.abs(code) > 31)
    assert (record.clipped > 0) is (full_scale == 0.25)
    assert record.samples == 300 * 16
    error = np.square(found - a @ b).mean()
    span = (a @ b).max() - (a @ b).min()
    assert record.result_bits == pytest.approx(np.log2(span / np.sqrt(12 * error)))


# --- the same bits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["coherent_mzi_56", "mrr_bank", "tempo_like"])
def test_bits_depend_on_seed_and_call_alone(name, monkeypatch):
    device, bits = engine(name), 6 if name == "tempo_like" else 8
    a, b = codes((2000, 40), 1, bits), codes((40, 24), 2, bits)
    unit = device.unit(seed=7)
    first, second = (multiply(unit, a, b, bits) for _ in range(2))
    assert not np.array_equal(first, second)
    unit.rewind()
    assert np.array_equal(multiply(unit, a, b, bits), first)
    assert np.array_equal(multiply(unit, a, b, bits), second)

    # Parts of rows and of tiles in three threads, last ones first.
    def parts(work, count, *, smallest=0):
        bounds = [count * i // 3 for i in range(4)]
        with ThreadPoolExecutor(3) as pool:
            return list(pool.map(work, reversed(bounds[:-1]), reversed(bounds[1:])))

    for module in ("reading", "weights", "crossbars"):
        monkeypatch.setattr(f"photonic.emulation.{module}.run_parts", parts)
    threads = device.unit(seed=7)
    assert np.array_equal(multiply(threads, a, b, bits), first)
    assert threads.table() == [{**row, "products": 1} for row in _once(device, a, b, bits)]
    assert not np.array_equal(multiply(device.unit(seed=8), a, b, bits), first)


def _once(device, a, b, bits):
    unit = device.unit(seed=7)
    multiply(unit, a, b, bits)
    return unit.table()


def test_example_inputs_draw_no_noise():
    torch.manual_seed(1)
    model, x = torch.nn.Linear(12, 8), torch.randn(5, 12)
    device = engine("coherent_mzi_56")
    plain, tried = device.emulate(model, seed=3), device.emulate(model, seed=3, example_inputs=x)
    assert tried.matrix_unit.calls == 0
    first = plain(x)
    assert torch.equal(tried(x), first)
    copied = pickle.loads(pickle.dumps(plain))
    assert torch.equal(copied(x), plain(x))
    plain.matrix_unit.rewind()
    assert torch.equal(plain(x), first)
