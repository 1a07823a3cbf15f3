"""Memristive cells against the closed forms of their laws: means and variances of many cells, within what chance allows."""

import numpy as np
import pytest
from scipy import stats

from neuromorphic.crossbars.memristor import (
    Cells,
    FlickerReading,
    GaussianProgramming,
    GaussianReading,
    Levels,
    LognormalProgramming,
    Memristor,
    PowerLawDrift,
    StateDependentDrift,
    StuckCells,
    WriteVerify,
    phase_change_memory,
)
from numerics.errors import InputError

LOW, HIGH = 1e-6, 101e-6
CELLS = 200_000
CHANCE = 4.5  # standard errors: one in 150,000


def agrees(samples, mean, variance):
    """Mean and variance of independent samples, each within the chance that its own standard error leaves."""
    n = samples.size
    fourth = np.mean((samples - samples.mean()) ** 4)
    assert abs(samples.mean() - mean) < CHANCE * np.sqrt(variance / n)
    assert abs(samples.var() - variance) < CHANCE * np.sqrt((fourth - variance**2) / n)


def programmed(programming, target, **others):
    return Memristor(LOW, HIGH, programming=programming, **others).program(np.full(CELLS, target), seed=5)


def test_perfect_cells_hold_their_targets():
    targets = np.linspace(LOW, HIGH, 77).reshape(7, 11)
    cells = Memristor(LOW, HIGH).program(targets, seed=0)
    assert np.array_equal(cells.conductance_siemens, targets)
    assert not cells.exponent.any()
    assert not cells.stuck.any()
    assert (cells.pulses == 1).all()
    assert np.array_equal(Memristor(LOW, HIGH).drifted(cells, 1e9), targets)


def test_targets_go_to_the_nearest_level():
    device = Memristor(LOW, HIGH, levels=Levels(5))
    levels = np.array([1e-6, 26e-6, 51e-6, 76e-6, 101e-6])
    targets = np.random.default_rng(0).uniform(LOW, HIGH, 1000)
    held = device.program(targets, seed=0).conductance_siemens
    np.testing.assert_allclose(held, levels[np.abs(targets[:, None] - levels).argmin(axis=1)], rtol=1e-12)


def test_gaussian_programming():
    agrees(programmed(GaussianProgramming(3e-6), 50e-6).conductance_siemens, 50e-6, 9e-12)


def test_a_conductance_is_never_negative():
    """Around a target of one σ: the moments of a normal deviate whose negative part became 0."""
    sigma, target = 4e-6, 4e-6
    cells = programmed(GaussianProgramming(sigma), target).conductance_siemens
    mean = target * stats.norm.cdf(1) + sigma * stats.norm.pdf(1)
    square = (target**2 + sigma**2) * stats.norm.cdf(1) + target * sigma * stats.norm.pdf(1)
    assert cells.min() == 0
    agrees(cells, mean, square - mean**2)


@pytest.mark.parametrize(("share", "sigma_us"), [(0.0, 0.2635), (0.5, 0.952725), (0.84, 1.086361), (1.0, 1.0554)])
def test_phase_change_programming_noise_depends_on_the_state(share, sigma_us):
    device = phase_change_memory()
    deviation = device.programming.deviation(np.array([share * 25e-6]), device.g_max_siemens)
    assert deviation[0] * 1e6 == pytest.approx(sigma_us, abs=1e-6)


def test_lognormal_programming():
    s, target = 0.3, 20e-6
    mean = target * np.exp(s * s / 2)
    cells = programmed(LognormalProgramming(s), target).conductance_siemens
    agrees(cells, mean, mean**2 * (np.exp(s * s) - 1))
    assert np.median(cells) == pytest.approx(target, rel=0.005)


def test_write_verify():
    """Accepted pulses are a normal law cut to the tolerance; what the last attempt leaves may be its tail."""
    sigma, tolerance, attempts, target = 5e-6, 2e-6, 3, 50e-6
    cells = programmed(WriteVerify(GaussianProgramming(sigma), tolerance, attempts), target)
    cut = tolerance / sigma
    hit = 2 * stats.norm.cdf(cut) - 1
    reached = 1 - (1 - hit) ** attempts
    inside = stats.truncnorm.var(-cut, cut)
    tail = (1 - hit * inside) / (1 - hit)
    agrees(cells.conductance_siemens, target, sigma**2 * (reached * inside + (1 - reached) * tail))
    within = np.abs(cells.conductance_siemens - target) <= tolerance
    assert abs(within.mean() - reached) < CHANCE * np.sqrt(reached * (1 - reached) / CELLS)
    tries = np.array([hit, hit * (1 - hit), (1 - hit) ** 2])
    mean = tries @ [1, 2, 3]
    agrees(cells.pulses.astype(float), mean, tries @ [1, 4, 9] - mean**2)
    assert (cells.pulses[~within] == attempts).all()


def test_verifying_reads_stray_as_well():
    """What passes a noisy check is the normal law weighted by the probability that its read is within the tolerance."""
    sigma, noise, tolerance, target = 5e-6, 3e-6, 4e-6, 50e-6
    programming = WriteVerify(GaussianProgramming(sigma), tolerance, 1000, GaussianReading(noise))
    x = np.linspace(-8 * sigma, 8 * sigma, 200_001)
    weight = stats.norm.pdf(x / sigma) * (stats.norm.cdf((tolerance - x) / noise) - stats.norm.cdf((-tolerance - x) / noise))
    agrees(programmed(programming, target).conductance_siemens, target, (weight * x * x).sum() / weight.sum())


def test_read_deviation():
    g = np.array([0.0, 30e-6])
    np.testing.assert_allclose(GaussianReading(4e-7, 0.1).deviation(g, HIGH, 1.0), [4e-7, np.sqrt(16e-14 + 9e-12)])
    # One second after, g = g_max / 2: Q = 0.0088 · 2^0.65 = 0.013808…, √ln(1.00000025 / 5e-7) = 3.809…
    found = FlickerReading().deviation(np.array([12.5e-6, 0.0]), 25e-6, 1.0)
    assert found[0] == pytest.approx(12.5e-6 * 0.0088 * 1.569168 * 3.809026, rel=1e-5)
    assert found[1] == 0
    assert FlickerReading().deviation(np.array([1e-9]), 25e-6, 1.0)[0] == pytest.approx(1e-9 * 0.2 * 3.809026, rel=1e-5)


def test_power_law_drift():
    """exp(−νL), L = ln(t/t₀), ν normal: a lognormal law."""
    device = Memristor(LOW, HIGH, retention=PowerLawDrift(0.05, 0.02, reference_s=2.0))
    cells = device.program(np.full(CELLS, 40e-6), seed=3)
    span = np.log(1e5 / 2)
    ratio = device.drifted(cells, 1e5) / 40e-6
    mean = np.exp(-0.05 * span + (0.02 * span) ** 2 / 2)
    agrees(ratio, mean, mean**2 * (np.exp((0.02 * span) ** 2) - 1))
    assert np.array_equal(device.drifted(cells, 2.0), cells.conductance_siemens)
    with pytest.raises(InputError, match=r"time_s: expected a finite number ≥ 2, got 1\.0"):
        device.drifted(cells, 1.0)


@pytest.mark.parametrize(
    ("share", "mean", "spread"),
    [
        (1.0, 0.049, 0.008),
        (0.1, -0.0155 * np.log(0.1) + 0.0244, -0.0125 * np.log(0.1) - 0.0059),
        (1e-4, 0.1, 0.045),
        (0, 0.1, 0.045),
    ],
)
def test_phase_change_drift_depends_on_the_state(share, mean, spread):
    exponents = StateDependentDrift().exponents(np.full(CELLS, share * 25e-6), 25e-6, np.random.default_rng(1))
    agrees(exponents, mean, spread**2)


def test_stuck_cells():
    faults = StuckCells(off_share=0.03, on_share=0.01)
    device = Memristor(LOW, HIGH, programming=GaussianProgramming(2e-6), retention=PowerLawDrift(0.1), cells=faults)
    cells = device.program(np.full(CELLS, 50e-6), seed=2)
    for kind, share, held in ((-1, 0.03, LOW), (1, 0.01, HIGH)):
        which = cells.stuck == kind
        assert abs(which.mean() - share) < CHANCE * np.sqrt(share * (1 - share) / CELLS)
        assert (device.drifted(cells, 1e6)[which] == held).all()
    free = cells.stuck == 0
    np.testing.assert_allclose(device.drifted(cells, 1e6)[free], cells.conductance_siemens[free] * 1e6**-0.1, rtol=1e-12)


def test_each_imperfection_has_a_stream_of_its_own():
    every = {
        "programming": GaussianProgramming(2e-6),
        "retention": PowerLawDrift(0.05, 0.02),
        "cells": StuckCells(0.1, 0.1),
    }
    target = np.full(1000, 50e-6)

    def held(**parts):
        return Memristor(LOW, HIGH, **parts).program(target, seed=9)

    whole = held(**every)
    free = whole.stuck == 0
    programmed_alone = held(programming=every["programming"]).conductance_siemens
    assert np.array_equal(programmed_alone[free], whole.conductance_siemens[free])
    assert np.array_equal(held(cells=every["cells"]).stuck, whole.stuck)
    assert np.array_equal(held(retention=every["retention"]).exponent[free], whole.exponent[free])
    again = held(**every)
    assert np.array_equal(again.conductance_siemens, whole.conductance_siemens)
    other = Memristor(LOW, HIGH, **every).program(target, seed=10)
    assert not np.array_equal(other.conductance_siemens, whole.conductance_siemens)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Memristor(1e-6, 1e-6), "g_max_siemens: expected more than g_min_siemens 1e-06, got 1e-06"),
        (lambda: Memristor(-1e-6, 1e-6), "g_min_siemens: expected a finite number ≥ 0, got -1e-06"),
        (lambda: Levels(1), "levels: expected an integer ≥ 2, got 1"),
        (lambda: GaussianProgramming(-1.0), "sigma_siemens: expected a finite number ≥ 0, got -1.0"),
        (lambda: GaussianProgramming(()), r"sigma_siemens: expected a number or at least one coefficient, got \(\)"),
        (lambda: LognormalProgramming(float("nan")), "sigma: expected a finite number ≥ 0, got nan"),
        (lambda: WriteVerify(GaussianProgramming(1e-6), 0.0, 3), "tolerance_siemens: expected a finite number > 0, got 0.0"),
        (lambda: WriteVerify(GaussianProgramming(1e-6), 1e-6, 0), "attempts: expected an integer ≥ 1, got 0"),
        (lambda: StuckCells(0.7, 0.4), r"off_share \+ on_share: expected at most 1, got 1.1"),
        (lambda: PowerLawDrift(0.1, reference_s=0.0), "reference_s: expected a finite number > 0, got 0.0"),
        (lambda: StateDependentDrift(mean=(0, 0, 1, 0)), r"mean: expected \(a, b, low, high\) with low ≤ high"),
        (lambda: FlickerReading(read_time_s=True), "read_time_s: expected a finite number > 0, got True"),
        (lambda: Memristor(LOW, HIGH).program([2e-4], seed=0), "target_siemens: expected 1e-06 to 0.000101, got 0.0002"),
        (lambda: Memristor(LOW, HIGH).program([np.nan], seed=0), "target_siemens: expected 1e-06 to 0.000101, got nan"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_cells_are_plain_arrays():
    cells = phase_change_memory().program(np.zeros((2, 3)), seed=0)
    assert isinstance(cells, Cells)
    assert {getattr(cells, name).shape for name in ("conductance_siemens", "exponent", "stuck", "pulses")} == {(2, 3)}
