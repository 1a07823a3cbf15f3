"""Crossbars: bit-exact without noise, of the right mean and variance with it; wires against a nodal analysis of their own."""

from dataclasses import replace

import numpy as np
import pytest

from neuromorphic.crossbars.costs import CHOO, ISAAC, CostTable, Counts
from neuromorphic.crossbars.crossbar import Adc, Crossbar, Dac, IdealAdc, IdealDac
from neuromorphic.crossbars.memristor import (
    GaussianProgramming,
    GaussianReading,
    Levels,
    LognormalProgramming,
    Memristor,
    PowerLawDrift,
    StuckCells,
    phase_change_memory,
)
from neuromorphic.crossbars.wires import IdealWires, Wires
from numerics.errors import InputError

CHANCE = 4.5
PERFECT = Memristor(1e-6, 100e-6)


def agrees(samples, mean, variance):
    n = samples.size
    fourth = np.mean((samples - samples.mean()) ** 4)
    assert abs(samples.mean() - mean) < CHANCE * np.sqrt(variance / n)
    assert abs(samples.var() - variance) < CHANCE * np.sqrt((fourth - variance**2) / n)


# --- values ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sensing", ["differential", "separate"])
@pytest.mark.parametrize(
    ("bits", "pulse_bits", "signed", "levels", "slices", "shape"),
    [
        (8, 1, True, 4, 4, (100, 37)),
        (8, 1, False, 2, 7, (64, 8)),
        (8, 3, True, 4, 2, (65, 20)),
        (8, 4, True, 16, 2, (130, 5)),
        (5, None, True, 256, 1, (33, 40)),
        (6, None, False, 3, 5, (7, 3)),
        (16, 2, True, 4, 8, (40, 4)),
        (1, None, False, 2, 1, (10, 10)),
    ],
)
def test_without_noise_the_product_is_exact(bits, pulse_bits, signed, levels, slices, shape, sensing):
    """The lowest conductance is a multiple of the step, so that what a single column brings is an integer, too."""
    step = 1e-6
    device = Memristor(2 * step, (levels + 1) * step, levels=Levels(levels))
    crossbar = Crossbar(32, 34, device, Dac(bits, pulse_bits=pulse_bits, signed=signed), Adc(32), slices=slices, sensing=sensing)
    rng = np.random.default_rng(bits * 100 + levels)
    top = levels**slices - 1
    weights = rng.integers(-top, top + 1, shape)
    low, high = crossbar.dac.range
    x = rng.integers(low, high + 1, (6, shape[0]))
    x[0], x[1] = low, high
    matrix = crossbar.program(weights, seed=0, scale=1.0)
    found = matrix.read(x, seed=0)
    assert np.array_equal(found.values, x @ weights)
    assert found.counts.dac_clipped == found.counts.adc_clipped == 0
    np.testing.assert_allclose(matrix.weights(), weights, rtol=1e-9, atol=1e-9)


def plain(x, weights, *, rows, outputs, bits, pulse_bits, base, slices, adc_bits, adc_step):
    """Two's complement digits, signed digits of weights, one converter a pair: integers throughout, one number at a time."""
    result, clipped, conversions = np.zeros((len(x), weights.shape[1])), 0, 0
    for n, vector in enumerate(x):
        for o in range(weights.shape[1]):
            for first in range(0, weights.shape[0], rows):
                for at in range(0, bits, pulse_bits):
                    top = at + pulse_bits >= bits
                    width = min(pulse_bits, bits - at)
                    for s in range(slices):
                        total = 0
                        for i in range(first, min(first + rows, weights.shape[0])):
                            digit = (int(vector[i]) % 2**bits) // 2**at % 2**width
                            if top and digit >= 2 ** (width - 1):
                                digit -= 2**width
                            weight = int(weights[i, o])
                            total += digit * (abs(weight) // base**s % base) * (1 if weight > 0 else -1)
                        sign = -1 if top and width == 1 else 1
                        code = int(np.rint(sign * total / adc_step))
                        low, high = -(2 ** (adc_bits - 1)), 2 ** (adc_bits - 1) - 1
                        clipped += not low <= code <= high
                        conversions += 1
                        result[n, o] += sign * min(max(code, low), high) * adc_step * 2**at * base**s
    return result, clipped, conversions


@pytest.mark.parametrize(("bits", "pulse_bits", "adc_bits", "adc_step"), [(6, 1, 4, 1.0), (6, 2, 5, 2.0), (7, 3, 3, 4.0)])
def test_narrow_converters_round_and_clip_as_a_plain_loop_does(bits, pulse_bits, adc_bits, adc_step):
    device = Memristor(0.0, 3e-6, levels=Levels(4))
    crossbar = Crossbar(16, 24, device, Dac(bits, pulse_bits=pulse_bits), Adc(adc_bits, adc_step), slices=2)
    rng = np.random.default_rng(adc_bits)
    weights = rng.integers(-15, 16, (40, 9))
    x = rng.integers(*crossbar.dac.range, (5, 40), endpoint=True)
    found = crossbar.program(weights, seed=0, scale=1.0).read(x, seed=0)
    expected, clipped, conversions = plain(
        x, weights, rows=16, outputs=6, bits=bits, pulse_bits=pulse_bits, base=4, slices=2, adc_bits=adc_bits, adc_step=adc_step
    )  # fmt: skip
    assert np.array_equal(found.values, expected)
    assert not np.array_equal(expected, x @ weights)
    assert found.counts.adc_clipped == clipped > 0
    assert found.counts.adc_conversions == found.counts.shift_adds == conversions


def test_inputs_beyond_the_range_are_clipped_and_counted():
    crossbar = Crossbar(4, 4, PERFECT, Dac(4, step=0.5))
    found = crossbar.program([[1.0, -1.0]], seed=0).read([[3.0], [3.6], [9.0], [-9.0], [0.25]], seed=0)
    np.testing.assert_allclose(found.values[:, 0], [3.0, 3.5, 3.5, -4.0, 0.0], atol=1e-12)
    assert found.counts.dac_clipped == 2


def test_analogue_weights_and_ideal_converters():
    rng = np.random.default_rng(1)
    weights, x = rng.standard_normal((70, 50)), rng.standard_normal((9, 70))
    matrix = Crossbar(32, 32, PERFECT).program(weights, seed=0)
    assert matrix.tiles == (3, 4)
    np.testing.assert_allclose(matrix.apply(x, seed=0), x @ weights, rtol=1e-10, atol=1e-10)
    for one in range(9):
        assert np.array_equal(matrix.apply(x[one : one + 1], seed=0)[0], matrix.apply(x, seed=0)[one])


def test_calibrated_converters_just_fit():
    rng = np.random.default_rng(2)
    weights, x = rng.standard_normal((64, 10)), rng.standard_normal((200, 64))
    errors = []
    for bits in (6, 8, 10):
        crossbar = Crossbar(64, 64, PERFECT, Dac(10), Adc(bits)).calibrated(weights, x)
        found = crossbar.program(weights, seed=0).read(x, seed=0)
        assert found.counts.adc_clipped == found.counts.dac_clipped == 0
        errors.append(np.sqrt(np.mean((found.values - x @ weights) ** 2)))
        step = np.abs(x @ weights).max() / (2 ** (bits - 1) - 1)
        dac_step = np.abs(x).max() / 511
        expected = np.sqrt(step**2 / 12 + (weights**2).sum(axis=0).mean() * dac_step**2 / 12)
        assert errors[-1] == pytest.approx(expected, rel=0.05)
    tight = Crossbar(64, 64, PERFECT, Dac(10), Adc(8)).calibrated(weights, x, share=0.9)
    clipped = tight.program(weights, seed=0).read(x, seed=0).counts.adc_clipped
    assert clipped == pytest.approx(200, rel=0.15)


# --- noise ----------------------------------------------------------------------------------------------------------------------


def test_programming_noise_of_a_product():
    """Each output is a device of its own: Σ x²(σ² + σ²)/step² around the exact product, before any converter."""
    sigma, rng = 3e-6, np.random.default_rng(3)
    device = Memristor(20e-6, 100e-6, programming=GaussianProgramming(sigma))
    column, x = rng.uniform(-1, 1, 24), rng.standard_normal(24)
    weights = np.repeat(column[:, None], 20_000, axis=1)
    matrix = Crossbar(24, 4096, device).program(weights, seed=4, scale=1.0)
    agrees(matrix.apply(x[None], seed=0)[0], x @ column, (x**2).sum() * 2 * (sigma / 80e-6) ** 2)


def test_lognormal_programming_noise_of_a_product():
    s, rng = 0.1, np.random.default_rng(13)
    device = Memristor(10e-6, 90e-6, programming=LognormalProgramming(s))
    column, x = rng.uniform(-1, 1, 24), rng.standard_normal(24)
    matrix = Crossbar(24, 4096, device).program(np.repeat(column[:, None], 20_000, axis=1), seed=4, scale=1.0)
    g = np.stack([10e-6 + 80e-6 * np.maximum(column, 0), 10e-6 + 80e-6 * np.maximum(-column, 0)])
    mean = np.exp(s * s / 2) * (x @ column)
    variance = (x**2 * (g**2).sum(axis=0)).sum() / 80e-6**2 * np.exp(s * s) * (np.exp(s * s) - 1)
    agrees(matrix.apply(x[None], seed=0)[0], mean, variance)


def test_slices_weigh_the_noise_of_their_digits():
    """Σ_s base^(2s) times the variance of a pair."""
    sigma = 2e-6
    device = Memristor(30e-6, 60e-6, levels=Levels(4), programming=GaussianProgramming(sigma))
    crossbar = Crossbar(8, 6000, device, slices=3)
    weights = np.full((8, 20_000), 27.0)
    x = np.arange(1.0, 9.0)
    found = crossbar.program(weights, seed=1, scale=1.0).apply(x[None], seed=0)[0]
    agrees(found, 27 * x.sum(), (x**2).sum() * (1 + 16 + 256) * 2 * (sigma / 10e-6) ** 2)


@pytest.mark.parametrize("sensing", ["differential", "separate"])
def test_read_noise_of_a_product(sensing):
    """Σ x²(σ₊² + σ₋²): every read anew, the share of it by the conductance of each cell."""
    rng = np.random.default_rng(5)
    device = Memristor(10e-6, 90e-6, reading=GaussianReading(1e-6, 0.05))
    weights, x = rng.uniform(-1, 1, (40, 1)), rng.standard_normal(40)
    matrix = Crossbar(16, 2, device, sensing=sensing).program(weights, seed=0, scale=1.0)
    found = matrix.apply(np.repeat(x[None], 40_000, axis=0), seed=7)[:, 0]
    plus = 10e-6 + 80e-6 * np.maximum(weights[:, 0], 0)
    minus = 10e-6 + 80e-6 * np.maximum(-weights[:, 0], 0)
    variance = (x**2 * (2 * 1e-12 + 0.0025 * (plus**2 + minus**2))).sum() / 80e-6**2
    agrees(found, x @ weights[:, 0], variance)
    assert np.array_equal(found, matrix.apply(np.repeat(x[None], 40_000, axis=0), seed=7)[:, 0])
    assert not np.array_equal(found, matrix.apply(np.repeat(x[None], 40_000, axis=0), seed=8)[:, 0])


def test_read_noise_of_bit_serial_inputs():
    """Pulses are reads of their own: Σ_p 4^p Σ_i bit² · 2σ²."""
    device = Memristor(0.0, 10e-6, levels=Levels(2), reading=GaussianReading(0.5e-6))
    x = np.array([5, -3, 7, -8, 0, 1])
    matrix = Crossbar(6, 2, device, Dac(4, pulse_bits=1)).program(np.ones((6, 1)), seed=0, scale=1.0)
    found = matrix.apply(np.repeat(x[None], 40_000, axis=0), seed=1)[:, 0]
    ones = sum(4**p * sum((int(v) % 16) >> p & 1 for v in x) for p in range(4))
    agrees(found, x.sum(), ones * 2 * 0.05**2)


def test_phase_change_reads_scatter_more_with_time():
    device = phase_change_memory()
    matrix = Crossbar(8, 2, device).program(np.linspace(-1, 1, 8)[:, None], seed=0, scale=1.0)
    x = np.ones((20_000, 8))
    for time_s in (20.0, 1e6):
        later = matrix.at(time_s)
        g = later.conductance_siemens[0, 0] * 1e6
        with np.errstate(divide="ignore"):
            q = np.minimum(0.0088 * (g / 25) ** -0.65, 0.2)
        sigma = g * q * np.sqrt(np.log((time_s + 250e-9) / 500e-9))
        agrees(later.apply(x, seed=3)[:, 0], (g[:, 0] - g[:, 1]).sum() / 25, (sigma**2).sum() / 25**2)


def test_formed_weights_have_no_mean_and_twice_the_variance():
    device = Memristor(0.0, 100e-6, programming=GaussianProgramming(6e-6))
    crossbar = Crossbar(512, 512, device)
    assert crossbar.cell_count == 256 * 1024
    matrix = crossbar.form(512, 256, target_siemens=50e-6, seed=1, scale=2.0)
    assert matrix.tiles == (1, 1)
    agrees(matrix.weights().ravel(), 0.0, 4 * 2 * 0.06**2)


def test_stuck_cells_replace_what_was_written():
    device = Memristor(10e-6, 50e-6, cells=StuckCells(0.2, 0.1))
    matrix = Crossbar(64, 64, device).program(np.full((64, 32), 0.5), seed=6, scale=1.0)
    stuck = matrix.cells.stuck[0, 0]
    held = np.where(stuck > 0, 1.0, np.where(stuck < 0, 0.0, np.array([0.5, 0.0] * 32)))
    np.testing.assert_allclose(matrix.weights(), held[:, 0::2] - held[:, 1::2], atol=1e-12)
    assert {-1, 0, 1} == set(stuck.ravel().tolist())


# --- drift ----------------------------------------------------------------------------------------------------------------------


def test_drift_and_its_compensation():
    rng = np.random.default_rng(8)
    weights, x = rng.uniform(-1, 1, (64, 32)), rng.standard_normal((20, 64))
    same = Memristor(1e-6, 50e-6, retention=PowerLawDrift(0.06))
    matrix = Crossbar(64, 64, same).program(weights, seed=0).at(1e4)
    np.testing.assert_allclose(matrix.weights(), weights * 1e4**-0.06, rtol=1e-9, atol=1e-12)
    mended = matrix.compensated(seed=0)
    assert mended.gain == pytest.approx(1e4**0.06, rel=1e-12)
    np.testing.assert_allclose(mended.apply(x, seed=0), x @ weights, rtol=1e-9, atol=1e-9)
    spread = replace(same, retention=PowerLawDrift(0.06, 0.015), reading=GaussianReading(share=0.01))
    matrix = Crossbar(64, 64, spread).program(weights, seed=0).at(1e4)
    errors = [np.abs(one.weights() - weights).mean() for one in (matrix, matrix.compensated(seed=0))]
    assert errors[1] < 0.4 * errors[0]


# --- wires ----------------------------------------------------------------------------------------------------------------------


def nodal(g, wires, volts):
    """Currents of the columns: each resistor is entered into the node equations on its own, sources and ground are known."""
    rows, columns = g.shape
    names: dict[object, int] = {}

    def node(*name):
        return names.setdefault(name, len(names))

    resistors = []
    for i in range(rows):
        resistors.append((node("source", i), node("driver", i), wires.driver_ohm))
        before = ("driver", i)
        for j in range(columns):
            resistors.append((node(*before), node("row", i, j), wires.row_ohm))
            resistors.append((node("row", i, j), node("column", i, j), 1 / g[i, j]))
            before = ("row", i, j)
    for j in range(columns):
        for i in range(rows - 1):
            resistors.append((node("column", i, j), node("column", i + 1, j), wires.column_ohm))
        resistors.append((node("column", rows - 1, j), node("sense", j), wires.column_ohm))
        resistors.append((node("sense", j), node("ground"), wires.sense_ohm))
    laplace = np.zeros((len(names), len(names)))
    for a, b, ohm in resistors:
        laplace[[a, b], [a, b]] += 1 / ohm
        laplace[[a, b], [b, a]] -= 1 / ohm
    fixed = {node("source", i): volts[i] for i in range(rows)} | {node("ground"): 0.0}
    v = np.zeros(len(names))
    v[list(fixed)] = list(fixed.values())
    free = np.array([k for k in range(len(names)) if k not in fixed])
    v[free] = np.linalg.solve(laplace[np.ix_(free, free)], -(laplace @ v)[free])
    return np.array([v[node("sense", j)] / wires.sense_ohm for j in range(columns)])


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (6, 1), (3, 4), (9, 7), (11, 16)])
@pytest.mark.parametrize("ohm", [0.1, 20.0, 3000.0])
def test_wires_against_a_nodal_analysis(shape, ohm):
    rng = np.random.default_rng(shape[0])
    g = rng.uniform(1e-6, 100e-6, shape)
    volts = rng.uniform(-0.3, 0.3, shape[0])
    wires = Wires(ohm, 2.5 * ohm, driver_ohm=40.0, sense_ohm=70.0)
    expected = nodal(g, wires, volts)
    size = np.abs(expected).max()
    np.testing.assert_allclose(volts @ wires.effective_direct(g), expected, rtol=0, atol=1e-9 * size)
    np.testing.assert_allclose(volts @ wires.effective(g), expected, rtol=0, atol=1e-8 * size)


def test_one_cell_is_a_chain_of_resistors():
    found = Wires(3.0, 5.0, driver_ohm=7.0, sense_ohm=11.0).effective(np.array([[1e-3]]))
    assert found[0, 0] == pytest.approx(1 / (7 + 3 + 1000 + 5 + 11), rel=1e-12)


@pytest.mark.parametrize(("rows", "columns", "ohm"), [(64, 64, 1.0), (40, 90, 5.0), (90, 33, 0.5)])
def test_the_iterative_solution_of_larger_arrays(rows, columns, ohm):
    g = np.random.default_rng(rows).uniform(1e-6, 100e-6, (rows, columns))
    wires = Wires(ohm, ohm, driver_ohm=100.0, sense_ohm=50.0)
    direct, iterative = wires.effective_direct(g), wires.effective(g)
    assert direct.sum() < 0.95 * g.sum()
    assert np.abs(iterative - direct).max() < 1e-8 * direct.max()
    loose = replace(wires, tolerance=1e-3).effective(g)
    assert 1e-9 * direct.max() < np.abs(loose - direct).max() < 1e-2 * direct.max()


def test_wires_in_a_crossbar():
    """Weights lose what the wires take, the far ones most; and less resistance loses less."""
    g = np.random.default_rng(0).uniform(-1, 1, (32, 40))
    lost = []
    for wires in (Wires(8.0, 8.0), Wires(1.0, 1.0), Wires(1e-6, 1e-6), IdealWires()):
        crossbar = Crossbar(16, 32, Memristor(1e-6, 100e-6), wires=wires)
        matrix = crossbar.program(g, seed=0)
        lost.append(1 - (matrix.weights() * np.sign(g)).sum() / np.abs(g).sum())
        x = np.random.default_rng(1).standard_normal((3, 32))
        np.testing.assert_allclose(matrix.apply(x, seed=0), x @ matrix.weights(), rtol=1e-9, atol=1e-12)
    assert lost[0] > 3 * lost[1] > 0.01
    assert lost[2] == pytest.approx(0, abs=1e-6)
    assert lost[3] == pytest.approx(0, abs=1e-9)


def test_read_noise_through_wires_is_right_to_first_order():
    """Against arrays whose cells are all drawn anew and whose networks are solved whole; the drop here is 3 %."""
    rng = np.random.default_rng(4)
    wires = Wires(15.0, 15.0)
    device = Memristor(5e-6, 100e-6, reading=GaussianReading(share=0.1))
    matrix = Crossbar(12, 2, device, wires=wires).program(rng.uniform(-1, 1, (12, 1)), seed=0, scale=1.0)
    g, x = matrix.conductance_siemens[0, 0], rng.uniform(0, 1, 12)
    drawn = []
    for _ in range(4000):
        noisy = wires.effective(g * (1 + 0.1 * rng.standard_normal(g.shape)))
        drawn.append(x @ (noisy[:, 0] - noisy[:, 1]) / device.step_siemens)
    found = matrix.apply(np.repeat(x[None], 40_000, axis=0), seed=0)[:, 0]
    clean = x @ matrix.weights()[:, 0]
    assert abs(np.mean(drawn) - clean) < 0.02 * np.abs(x @ np.abs(matrix.weights()[:, 0]))
    assert found.std() == pytest.approx(np.std(drawn), rel=0.08)


# --- costs ----------------------------------------------------------------------------------------------------------------------


def test_counts_of_a_tiled_read():
    """300 × 50 weights of two slices in arrays of 128 × 64 cells: 3 × 4 tiles, of 16 outputs, the last of 2."""
    device = Memristor(0.0, 3e-6, levels=Levels(4))
    crossbar = Crossbar(128, 64, device, Dac(8, pulse_bits=2), Adc(12), slices=2, columns_per_adc=8)
    matrix = crossbar.program(np.ones((300, 50)), seed=0, scale=1.0)
    assert matrix.tiles == (3, 4)
    assert matrix.read(np.ones((7, 300)), seed=0).counts == Counts(
        vectors=7, pulses=4, dac_conversions=7 * 4 * 300 * 4, cell_reads=7 * 4 * 300 * 50 * 4, adc_conversions=7 * 4 * 3 * 50 * 2,
        shift_adds=7 * 4 * 3 * 50 * 2, conversions_per_adc=8,
    )  # fmt: skip
    apart = replace(crossbar, sensing="separate").program(np.ones((300, 50)), seed=0, scale=1.0)
    assert apart.read(np.ones((7, 300)), seed=0).counts.adc_conversions == 2 * 7 * 4 * 3 * 50 * 2


def test_isaac_arrays_at_work_take_the_published_power():
    """Eight full arrays of one unit, 16 one-bit pulses: the published unit takes 24.08 mW, 1.47 of which are its registers."""
    device = Memristor(0.0, 3e-6, levels=Levels(4))
    crossbar = Crossbar(128, 128, device, Dac(16, pulse_bits=1), Adc(8), sensing="separate", columns_per_adc=128)
    counts = crossbar.program(np.ones((8 * 128, 64)), seed=0, scale=1.0).read(np.ones((1, 1024)), seed=0).counts
    costs = ISAAC.costs(counts, dac_bits=1, adc_bits=8)
    assert counts.adc_conversions == 8 * 128 * 16
    assert counts.dac_conversions == 1024 * 16
    assert costs.unknown == ()
    assert costs.total_energy_pj == pytest.approx(
        counts.dac_conversions * 0.390625
        + counts.cell_reads * 2.4e9 / (131072 * 1e7)
        + counts.adc_conversions * (16 / 9.6 + 0.2 / 9.6 + 0.0009765625)
    )
    assert costs.latency_ns == pytest.approx(16 * 128 / 1.2 + 100)
    assert costs.total_energy_pj / (16 * 128 / 1.2) == pytest.approx(24.08 - 1.47, rel=0.02)


def test_what_is_unknown_stays_unknown():
    counts = Counts(vectors=2, pulses=3, dac_conversions=10, cell_reads=100, adc_conversions=20, shift_adds=20)
    costs = CHOO.costs(counts, adc_bits=6)
    assert costs.energy_pj == {
        "dac_conversion": None, "cell_read": None, "sample_hold": None, "adc_conversion": 20 * 1.26, "shift_add": None,
    }  # fmt: skip
    assert costs.total_energy_pj is None
    assert costs.latency_ns is None
    assert costs.known_energy_pj == 20 * 1.26
    assert "latency: choo2016 gives no read time" in costs.unknown
    assert len(costs.unknown) == 5
    assert ISAAC.costs(counts, adc_bits=6).energy_pj["adc_conversion"] is None
    assert ISAAC.costs(counts, dac_bits=2).unknown == ("dac_conversion: the figure is for 1 bits, not 2",)
    in_turn = CostTable("own", "a guess", 1, 8, read_time_ns=10.0, adc_time_ns=2.0).costs(replace(counts, conversions_per_adc=4))
    assert in_turn.latency_ns == 6 * (10 + 8)


# --- what is refused ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Crossbar(0, 8, PERFECT), "rows: expected an integer ≥ 1, got 0"),
        (lambda: Crossbar(8, 1, PERFECT), "columns: expected at least 2, those of one weight, got 1"),
        (lambda: Crossbar(8, 8, PERFECT, slices=2), "slices: 2 need a device with levels"),
        (lambda: Crossbar(8, 8, PERFECT, sensing="both"), "sensing: expected 'differential' or 'separate', got 'both'"),
        (lambda: Crossbar(8, 8, PERFECT, adc=Adc(8, signed=False)), "adc: expected a signed one, as differences are converted"),
        (lambda: Dac(60), "bits: expected at most 53, which a double holds, got 60"),
        (lambda: Adc(8, step=0), "step: expected a finite number > 0, got 0"),
        (lambda: Wires(0, 1), "row_ohm: expected a finite number > 0, got 0"),
        (lambda: Wires(1, 1, sense_ohm=-1), "sense_ohm: expected a finite number ≥ 0, got -1"),
        (lambda: Wires(1, 1, iterations=1).effective(np.full((30, 30), 1e-4)), "wires: 1 iterations do not reach the tolerance"),
        (lambda: Crossbar(8, 8, PERFECT).program([1.0, 2.0], seed=0), "weights: expected finite numbers"),
        (lambda: Crossbar(8, 8, PERFECT).program([[np.inf]], seed=0), "weights: expected finite numbers"),
        (lambda: Crossbar(8, 8, PERFECT).program([[3.0]], seed=0, scale=2.0), "weights: expected magnitudes up to 2, got 3"),
        (
            lambda: Crossbar(8, 8, PERFECT).program([[1.0]], seed=0).apply([[1, 2]], seed=0),
            r"expected finite numbers \(vectors, 1\)",
        ),
        (lambda: Crossbar(8, 8, PERFECT).program([[1.0]], seed=0).apply([[np.nan]], seed=0), "vectors: expected finite numbers"),
        (lambda: Crossbar(8, 8, PERFECT).form(2, 2, target_siemens=5e-6, seed=0), "device: expected one with programming noise"),
        (lambda: Crossbar(8, 8, PERFECT).calibrated([[1.0]], [[1.0]], share=2), "share: expected at most 1, got 2"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_all_zero_weights_and_no_vectors():
    matrix = Crossbar(8, 8, PERFECT, IdealDac(), IdealAdc()).program(np.zeros((3, 2)), seed=0)
    assert not matrix.apply(np.ones((4, 3)), seed=0).any()
    assert matrix.apply(np.ones((0, 3)), seed=0).shape == (0, 2)
