"""Converters, modulators and detectors: mean and variance of each noise before the ADC against theory, alone and together."""

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest

from numerics.errors import InputError
from photonic.detection import (
    Converter,
    DeadDetectors,
    ExtinctionRatio,
    Homodyne,
    LaserNoise,
    Modulator,
    Receiver,
    ShotNoise,
    ThermalNoise,
)
from photonic.link_budget import Detection

CHANCE = 4.5  # standard errors: one in 150,000
Q, K = 1.602176634e-19, 1.380649e-23  # C, J/K: exact in the SI
SAMPLES = 200_000
BARE = Receiver(responsivity_a_per_w=0.8, bandwidth_hz=5e9)


def agrees(samples, mean, variance):
    """Mean and variance of independent samples, each within the chance that its own standard error leaves."""
    n = samples.size
    fourth = np.mean((samples - samples.mean()) ** 4)
    assert abs(samples.mean() - mean) < CHANCE * sqrt(variance / n)
    assert abs(samples.var() - variance) < CHANCE * sqrt((fourth - variance**2) / n)


def currents(receiver, power, seed=1):
    return receiver.currents(np.full((1, SAMPLES), power), seed=seed)[0]


# --- noise before the ADC -------------------------------------------------------------------------------------------------------


def test_without_noise_a_current_is_responsivity_times_light():
    powers = np.array([[0.0, 1e-6], [2e-3, 1.0]])
    np.testing.assert_array_equal(BARE.currents(powers, seed=1), 0.8 * powers)
    np.testing.assert_array_equal(replace(BARE, dark_a=1e-9).currents(powers, seed=1), 0.8 * powers + 1e-9)
    assert BARE.variances_a2(1e-3) == {}


@pytest.mark.parametrize("power", [1e-9, 1e-7, 1e-4, 5e-3])
def test_shot_noise(power):
    """2qIB on both sides of a million electrons."""
    receiver = replace(BARE, shot=ShotNoise())
    agrees(currents(receiver, power), 0.8 * power, 2 * Q * 0.8 * power * 5e9)
    assert receiver.variances_a2(power)["shot"] == pytest.approx(2 * Q * 0.8 * power * 5e9)


def test_shot_noise_counts_electrons():
    """Of a Poisson law: whole numbers, with P(0) = e^{−mean} and a third moment equal to the mean; none where it is dark."""
    receiver = replace(BARE, shot=ShotNoise())
    sample_s = 1 / (2 * 5e9)
    mean = 3.0
    counts = currents(receiver, mean * Q / sample_s / 0.8) * sample_s / Q
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-9)
    nothing = np.mean(np.rint(counts) == 0)
    assert abs(nothing - np.exp(-mean)) < CHANCE * sqrt(np.exp(-mean) / SAMPLES)
    third = (counts - counts.mean()) ** 3
    assert abs(third.mean() - mean) < CHANCE * third.std() / sqrt(SAMPLES)
    assert not currents(receiver, 0.0).any()
    wide = replace(BARE, shot=ShotNoise(poisson_below=0))
    assert (np.abs(currents(wide, 1e-7) * sample_s / Q % 1 - 0.5) < 0.4).any()
    agrees(currents(wide, 1e-7), 0.8e-7, 2 * Q * 0.8e-7 * 5e9)


def test_dark_current_has_shot_noise():
    receiver = replace(BARE, shot=ShotNoise(), dark_a=2e-7)
    agrees(currents(receiver, 0.0), 2e-7, 2 * Q * 2e-7 * 5e9)


@pytest.mark.parametrize("power", [0.0, 1e-3])
def test_thermal_noise(power):
    receiver = replace(BARE, thermal=ThermalNoise(resistance_ohm=1e3, temperature_k=350.0))
    agrees(currents(receiver, power), 0.8 * power, 4 * K * 350.0 / 1e3 * 5e9)
    assert receiver.variances_a2(power)["thermal"] == pytest.approx(4 * K * 350.0 / 1e3 * 5e9)


def test_laser_noise():
    """RIN·B of the light, the same on every port of a sample, another in the next."""
    receiver = replace(BARE, laser=LaserNoise(rin_per_hz=1e-14))
    powers = np.array([[1e-3], [2e-5]]) * np.ones(SAMPLES)
    found = receiver.currents(powers, seed=2)
    agrees(found[0], 0.8e-3, 1e-14 * 5e9 * 0.8e-3**2)
    np.testing.assert_allclose(found[1] / found[0], 0.02, rtol=1e-12)
    steps = np.diff(found[0])[::2]
    agrees(steps, 0.0, 2 * 1e-14 * 5e9 * 0.8e-3**2)
    assert receiver.variances_a2(1e-3)["laser"] == pytest.approx(1e-14 * 5e9 * 0.8e-3**2)
    one = receiver.currents(powers[:, 0], seed=2)
    assert one[1] / one[0] == pytest.approx(0.02)


def noisy():
    # So strong that each of the three is a good part of the whole.
    return replace(BARE, shot=ShotNoise(), thermal=ThermalNoise(1e3), laser=LaserNoise(1.5e-15))


def test_noises_add_up_and_are_independent():
    """Together: the sum of variances. Each one's share is far beyond chance, so that none can be missing."""
    power = 1e-4
    parts = {"shot": 2 * Q * 0.8 * power * 5e9, "thermal": 4 * K * 300 / 1e3 * 5e9, "laser": 1.5e-15 * 5e9 * (0.8 * power) ** 2}
    total = sum(parts.values())
    assert min(parts.values()) > 0.03 * total
    agrees(currents(noisy(), power), 0.8 * power, total)
    assert noisy().variances_a2(power) == pytest.approx(parts)
    budget = Detection(0.8, 5e9, thermal_a2_per_hz=4 * K * 300 / 1e3, laser_noise_per_hz=1.5e-15)
    assert sum(budget.variances_a2(power).values()) == pytest.approx(total)


def test_one_noise_off_leaves_the_draws_of_the_others():
    powers = np.full((3, 50), 1e-4)
    thermal = replace(BARE, thermal=ThermalNoise(1e3))
    with_laser = replace(thermal, laser=LaserNoise(1.5e-15))
    only_laser = replace(BARE, laser=LaserNoise(1.5e-15))
    both = with_laser.currents(powers, seed=4) - only_laser.currents(powers, seed=4)
    np.testing.assert_allclose(both, thermal.currents(powers, seed=4) - 0.8 * powers, atol=1e-18)


def test_dead_detectors():
    """They give what one gives in the dark: mean and variance of dark current and thermal noise."""
    powers = np.full((3, SAMPLES), 1e-4)
    receiver = replace(noisy(), dark_a=1e-6, dead=DeadDetectors((1,)))
    found = receiver.currents(powers, seed=10)
    agrees(found[1], 1e-6, 2 * Q * 1e-6 * 5e9 + 4 * K * 300 / 1e3 * 5e9)
    alive = replace(receiver, dead=DeadDetectors(())).currents(powers, seed=10)
    assert (found[0] > 3e-5).all()
    assert alive[1].mean() == pytest.approx(8.1e-5, rel=0.01)
    field = Homodyne(1e-3, replace(BARE, dead=DeadDetectors((0,)))).amplitudes(np.array([0.1 + 0.2j, 0.3]), seed=1)
    np.testing.assert_allclose(field, [0, 0.3], atol=1e-15)


def test_a_seed_is_a_reading():
    powers = np.full((3, 50), 1e-4)
    np.testing.assert_array_equal(noisy().currents(powers, seed=5), noisy().currents(powers, seed=5))
    assert (noisy().currents(powers, seed=5) != noisy().currents(powers, seed=6)).all()


# --- converters -----------------------------------------------------------------------------------------------------------------


def test_converter_by_hand():
    signed, unsigned = Converter(3, 6.0), Converter(2, 3.0, signed=False)
    values, clipped = signed.convert([[-9.0, -6.0, -1.01, 0.9], [1.1, 5.0, 6.9, 7.1]])
    assert values.tolist() == [[-6.0, -6.0, -2.0, 0.0], [2.0, 4.0, 6.0, 6.0]]
    assert clipped == 2
    values, clipped = unsigned.convert([-0.4, -0.6, 0.6, 1.4, 3.4, 3.6])
    assert values.tolist() == [0.0, 0.0, 1.0, 1.0, 3.0, 3.0]
    assert clipped == 2
    assert len(set(signed.convert(np.linspace(-6, 6, 999))[0])) == 7
    assert len(set(unsigned.convert(np.linspace(0, 3, 999))[0])) == 4


@pytest.mark.parametrize("bits", [2, 6, 12])
def test_rounding_error(bits):
    """Mean 0 and variance step²/12 where the range is used."""
    converter = Converter(bits, 1.0)
    values = np.random.default_rng(7).uniform(-1, 1, SAMPLES)
    rounded, clipped = converter.convert(values)
    agrees(rounded - values, 0.0, converter.step**2 / 12)
    assert clipped == 0


def test_adc_rounds_what_noise_left():
    adc = Converter(5, 1e-4, signed=False)
    receiver = replace(noisy(), adc=adc)
    powers = np.full((1, SAMPLES), 1e-4)
    reading = receiver.read(powers, seed=8)
    before = receiver.currents(powers, seed=8)
    np.testing.assert_array_equal(reading.values, adc.convert(before)[0])
    assert reading.clipped == np.count_nonzero(before > 1e-4 + adc.step / 2)
    bright = receiver.read(2 * powers, seed=8)
    assert (bright.values == 1e-4).all()
    assert bright.clipped == SAMPLES
    assert noisy().read(powers, seed=8).clipped == 0


# --- modulators -----------------------------------------------------------------------------------------------------------------


def test_extinction_ratio():
    """Largest over least power; powers are (1 − ε²)·x² + ε², of mean (1 + 2ε²)/3 for uniform x, and fields err by ε·√(1 − x²)."""
    modulator = Modulator(2e-3, ExtinctionRatio(20.0))
    values = np.array([-1.0, 0.0, 0.5, 1.0])
    light = modulator.modulate(values).field
    np.testing.assert_allclose(np.abs(light) ** 2, 2e-3 * (0.99 * values**2 + 0.01), rtol=1e-12)
    power = np.abs(light) ** 2
    assert 10 * np.log10(power.max() / power.min()) == pytest.approx(20.0)
    np.testing.assert_allclose(light.real, sqrt(2e-3) * values, atol=1e-18)
    uniform = np.random.default_rng(9).uniform(-1, 1, SAMPLES)
    light = modulator.modulate(uniform).field / sqrt(2e-3)
    # Var x² = 4/45; Var of the leak ε·√(1 − x²): ε²·(2/3 − (π/4)²).
    agrees(np.abs(light) ** 2, (1 + 2 * 0.01) / 3, 0.99**2 * 4 / 45)
    agrees(light.imag, 0.1 * np.pi / 4, 0.01 * (2 / 3 - (np.pi / 4) ** 2))
    assert not Modulator(2e-3).modulate(uniform).field.imag.any()


def test_powers_as_values():
    modulator = Modulator(1e-3, ExtinctionRatio(10.0))
    values = np.array([0.0, 0.25, 1.0])
    found = modulator.modulate_power(values)
    np.testing.assert_allclose(np.abs(found.field) ** 2, 1e-3 * (0.9 * values + 0.1), rtol=1e-12)
    np.testing.assert_allclose(np.abs(Modulator(1e-3).modulate_power(values).field) ** 2, 1e-3 * values, rtol=1e-12)
    assert modulator.modulate_power(np.array([-0.1, 0.5, 1.1])).clipped == 2


def test_complex_values_and_dac():
    dac = Converter(3, 1.0)
    values = np.array([0.3 - 0.7j, 1.0 + 0.0j])
    light = Modulator(4.0, dac=dac).modulate(values)
    np.testing.assert_allclose(light.field, 2 * np.array([1 / 3 - 2j / 3, 1.0]))
    assert light.clipped == 0
    assert Modulator(4.0, dac=dac).modulate(np.array([1.3, 2j, -1.2 - 1.2j])).clipped == 4
    assert Modulator(4.0).modulate(np.array([1.3, 0.2, -1.2])).clipped == 2
    np.testing.assert_allclose(Modulator(4.0).modulate(np.array([1.3, -1.2])).field, [2.0, -2.0])
    leaky = Modulator(1.0, ExtinctionRatio(20.0)).modulate(np.array([0.0j])).field
    np.testing.assert_allclose(leaky, [0.1j + 1j * 0.1j])


# --- homodyne -------------------------------------------------------------------------------------------------------------------


def test_homodyne_sees_fields():
    light = np.array([[0.3 + 0.1j, -0.02j], [0.0, -1.0]])
    np.testing.assert_allclose(Homodyne(0.5, BARE).amplitudes(light, seed=1), light, atol=1e-15)
    np.testing.assert_allclose(Homodyne(0.5, replace(BARE, dark_a=1e-6)).amplitudes(light, seed=1), light, atol=1e-15)


@pytest.mark.parametrize("noise", ["shot", "thermal", "laser", "all"])
@pytest.mark.parametrize("poisson_below", [0, 1e6])
def test_homodyne_noise(noise, poisson_below):
    """Each quadrature has the shot noise of half of all light, the thermal noise of two photodiodes, the laser's of itself."""
    light, local = 4e-3 - 2e-3j, 1e-4
    every = replace(noisy(), shot=ShotNoise(poisson_below))
    receiver = every if noise == "all" else replace(BARE, **{noise: getattr(every, noise)})
    found = Homodyne(local, receiver).amplitudes(np.full((1, SAMPLES), light), seed=11)[0]
    gain = (0.8 * sqrt(local)) ** 2
    shot = 2 * Q * 5e9 * 0.8 * (abs(light) ** 2 + local) / 2 / gain * (noise in ("shot", "all"))
    thermal = 2 * 4 * K * 300 / 1e3 * 5e9 / gain * (noise in ("thermal", "all"))
    laser = 1.5e-15 * 5e9 * (noise in ("laser", "all"))
    agrees(found.real, light.real, shot + thermal + laser * light.real**2)
    agrees(found.imag, light.imag, shot + thermal + laser * light.imag**2)
    together = np.mean((found.real - light.real) * (found.imag - light.imag))
    apart = sqrt(np.var(found.real) * np.var(found.imag) * 2 / SAMPLES)
    assert abs(together - laser * light.real * light.imag) < CHANCE * apart


def test_homodyne_adc():
    adc = Converter(8, 1e-3)
    homodyne = Homodyne(1e-3, replace(BARE, adc=adc))
    light = np.array([0.01 - 0.02j, 0.1 + 0.01j])
    reading = homodyne.read(light, seed=1)
    gain = 0.8 * sqrt(1e-3)
    np.testing.assert_allclose(reading.values.real * gain, adc.convert(light.real * gain)[0])
    np.testing.assert_allclose(reading.values.imag * gain, adc.convert(light.imag * gain)[0])
    assert reading.clipped == 1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Converter(1, 1.0), "bits: expected ≥ 2, got 1"),
        (lambda: Converter(33, 1.0), "bits: expected at most 32, got 33"),
        (lambda: Converter(8, 0.0), "full_scale: expected a finite number > 0, got 0.0"),
        (lambda: ExtinctionRatio(0.0), "decibel: expected a finite number > 0, got 0.0"),
        (lambda: Modulator(1.0, 20.0), "extinction: expected ExtinctionRatio or Ideal, got 20.0"),
        (lambda: Modulator(-1.0), "power_w: expected a finite number > 0, got -1.0"),
        (lambda: Modulator(1.0).modulate([np.nan]), "values: expected finite numbers"),
        (lambda: Modulator(1.0).modulate_power([1j]), "values: expected real numbers, got complex128"),
        (lambda: ShotNoise(-1), "poisson_below"),
        (lambda: ShotNoise(1e17), "poisson_below: expected at most 2^53"),
        (lambda: ThermalNoise(0.0), "resistance_ohm"),
        (lambda: LaserNoise(-1e-15), "rin_per_hz"),
        (
            lambda: Receiver(laser=LaserNoise(1e-10), bandwidth_hz=1e9),
            "laser: expected RIN · bandwidth ≤ 0.0225, got 1e-10 · 1e+09",
        ),
        (lambda: Receiver(shot=True), "shot: expected ShotNoise or Ideal, got True"),
        (lambda: Receiver(0.0), "responsivity_a_per_w"),
        (lambda: DeadDetectors((-1,)), "ports: expected ≥ 0, got -1"),
        (lambda: Receiver(dead=DeadDetectors((2,))).currents([1.0, 1.0], seed=1), "dead: expected ports below 2, got 2"),
        (lambda: BARE.currents([-1.0], seed=1), "power_w: expected finite powers ≥ 0"),
        (lambda: BARE.currents(1.0, seed=1), "power_w: expected shape (ports,) or (ports, batch), got ()"),
        (lambda: BARE.currents([1.0], seed="a"), "seed: expected an integer, got 'a'"),
        (lambda: Homodyne(0.0), "local_w"),
        (lambda: Homodyne(1.0, 3), "receiver: expected Receiver, got 3"),
    ],
)
def test_bad_input_is_one_line(make, says):
    with pytest.raises(InputError) as error:
        make()
    assert says in str(error.value)
    assert "\n" not in str(error.value)
