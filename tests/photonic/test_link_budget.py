"""The light that bits need: against counted photons, direct solutions, and figures worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numerics.errors import InputError
from photonic.detection import LaserNoise, Receiver, ShotNoise, ThermalNoise
from photonic.engines import Crossbar, MeshEngine, WeightBank
from photonic.link_budget import ELECTRON_C, Detection, LinkBudget, Path, interference_swing

PHOTON_1550_J = 6.62607015e-34 * 299792458 / 1550e-9
SHOT = Detection(responsivity_a_per_w=0.9, noise_bandwidth_hz=2.5e9)
NOISY = Detection(0.9, 2.5e9, swing=2.0, thermal_a2_per_hz=4 * 1.380649e-23 * 300 / 50, laser_noise_per_hz=10**-14.5)


def detections():
    return st.builds(
        Detection,
        st.floats(0.1, 1.3),
        st.floats(1e6, 1e11),
        swing=st.floats(0.1, 2.0),
        thermal_a2_per_hz=st.sampled_from([0.0, 1e-23, 3e-22]),
        laser_noise_per_hz=st.sampled_from([0.0, 1e-16, 1e-15]),
    )


# --- noise ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("photons", [300.0, 30_000.0])
def test_shot_noise_is_that_of_counted_electrons(photons):
    sample_s = 1 / (2 * SHOT.noise_bandwidth_hz)
    power = photons * ELECTRON_C / SHOT.responsivity_a_per_w / sample_s
    counted = np.random.default_rng(1).poisson(photons, 400_000)
    current = counted * ELECTRON_C / sample_s
    assert current.mean() == pytest.approx(SHOT.responsivity_a_per_w * power, rel=1e-3)
    assert current.var() == pytest.approx(SHOT.variances_a2(power)["shot noise"], rel=0.01)
    assert SHOT.bits(power) == pytest.approx(math.log2(photons / (math.sqrt(12) * counted.std())), abs=0.01)


def test_all_noise_together_is_that_of_simulated_samples():
    rng, power, count = np.random.default_rng(2), 2e-4, 400_000
    sample_s = 1 / (2 * NOISY.noise_bandwidth_hz)
    light = power * (1 + math.sqrt(NOISY.laser_noise_per_hz * NOISY.noise_bandwidth_hz) * rng.standard_normal(count))
    electrons = rng.poisson(light * NOISY.responsivity_a_per_w * sample_s / ELECTRON_C)
    thermal = math.sqrt(NOISY.thermal_a2_per_hz * NOISY.noise_bandwidth_hz) * rng.standard_normal(count)
    current = electrons * ELECTRON_C / sample_s + thermal
    assert current.var() == pytest.approx(sum(NOISY.variances_a2(power).values()), rel=0.01)
    full_scale = 2 * NOISY.responsivity_a_per_w * power
    assert NOISY.bits(power) == pytest.approx(math.log2(full_scale / (math.sqrt(12) * current.std())), abs=0.01)


@given(detections(), st.floats(1.0, 12.0))
@settings(max_examples=80, deadline=None)
def test_least_power_gives_the_bits_and_less_does_not(detection, bits):
    if bits >= detection.most_bits - 1e-3:
        return
    power = detection.least_power_w(bits)
    assert detection.bits(power) == pytest.approx(bits, abs=1e-6)
    assert detection.bits(power * 0.99) < bits
    low, high = 1e-15, 1e6
    for _ in range(200):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if detection.bits(middle) >= bits else (middle, high)
    assert power == pytest.approx(high, rel=1e-6)


def test_laser_noise_bounds_the_bits():
    assert NOISY.bits(1e9) == pytest.approx(NOISY.most_bits, abs=1e-6)
    with pytest.raises(InputError, match=r"^bits: laser noise allows less than 7\.68, however much light; got 9$"):
        NOISY.least_power_w(9)


def test_sensitivity_is_a_floor():
    dull = replace(SHOT, sensitivity_w=1e-5)
    assert SHOT.least_power_w(4) < 1e-5 == dull.least_power_w(4)
    assert dull.bits(0.9e-5) == 0.0 < dull.bits(1.1e-5) == SHOT.bits(1.1e-5)
    assert (dull.limit(1e-5), NOISY.limit(1e-9), NOISY.limit(1.0)) == ("sensitivity", "thermal noise", "laser noise")


@pytest.mark.parametrize("ratio", [0.05, 1.0, 9.0])
def test_interference_of_two_fields(ratio):
    a, b = math.sqrt(1 / (1 + ratio)), math.sqrt(ratio / (1 + ratio))
    fields = a * np.exp(1j * np.linspace(0, 2 * np.pi, 10_001))
    difference = abs(fields + b) ** 2 / 2 - abs(fields - b) ** 2 / 2
    assert np.ptp(difference) == pytest.approx(interference_swing(ratio), rel=1e-6)
    assert interference_swing(1.0) == 2.0


# --- the budget -----------------------------------------------------------------------------------------------------------

MESH_LOSS = {"laser_coupler": 0.4, "modulator": 3.1, "splitter": 0.1, "interferometer": 0.7, "combiner": 0.3}


def budget(**changes):
    engine = MeshEngine(style="mesh", mesh="rectangular", meshes=2, ports=8, symbol_rate_hz=5e9, local_oscillator_ratio=1.0)
    signal, reference = engine.paths(MESH_LOSS)
    values = {
        "signal": signal, "reference": reference, "detection": NOISY, "wanted_bits": 6, "wall_plug_efficiency": 0.2,
        "samples_per_s": 8 * 5e9, "macs_per_sample": 8.0,
    }  # fmt: skip
    return LinkBudget(**{**values, **changes})


def test_a_mesh_by_hand():
    found = budget()
    # Two meshes of 8 columns and the attenuators; three stages of splitters make eight paths.
    assert found.signal.total_db == pytest.approx(0.4 + 3.1 + 0.3 + 17 * 0.7 + 0.3)
    assert found.signal.layer_db == pytest.approx(17 * 0.7)
    assert found.reference.total_db == pytest.approx(0.4 + 0.3 + 0.3)
    half = NOISY.least_power_w(6) / 2
    launched = 8 * half * 10**1.6 + 8 * half * 10**0.1
    assert found.optical_w == pytest.approx(launched)
    assert found.electrical_w == pytest.approx(launched / 0.2)
    assert found.bits == pytest.approx(6)
    assert found.optical_j_per_mac == pytest.approx(launched / (64 * 5e9))


def test_a_weight_bank_by_hand():
    bank = WeightBank(style="weight_bank", sign="differential", ports=16, count=3, symbol_rate_hz=5e9)
    path, none = bank.paths({"laser_coupler": 0.4, "modulator": 1.2, "splitter": 0.1, "ring_passed": 0.02, "ring_dropped": 0.9})
    assert none is None
    assert path.total_db == pytest.approx(0.4 + 1.2 + 10 * math.log10(16) + 4 * 0.1 + 15 * 0.02 + 0.9)
    assert (path.sources, path.share) == (48, 1 / 16)
    light = budget(signal=path, reference=None)
    assert light.optical_w == pytest.approx(48 / 16 * NOISY.least_power_w(6) * 10 ** (path.total_db / 10))
    once, twice = bank, bank.model_copy(update={"sign": "two_pass"})
    assert (once.passes, once.swing, twice.passes, twice.swing) == (1, 2.0, 2, 1.0)
    assert bank.fill(4) == (0.25, 1.0)
    assert light.bits_of(0.25) == pytest.approx(NOISY.bits(NOISY.least_power_w(6) / 4))


def test_a_crossbar_by_hand():
    bar = Crossbar(
        style="crossbar", ports=4, count=12, summed=3, shared=2, wavelengths=2, integration_symbols=10, symbol_rate_hz=5e9
    )
    rows, columns = bar.paths({"laser_coupler": 0.4, "modulator": 4.5, "splitter": 0.1, "crossing": 0.13, "combiner": 0.3})
    assert columns.total_db == pytest.approx(0.4 + 4.5 + 10 * math.log10(4) + 2 * 0.1 + 3 * 0.13 + 0.3)
    assert rows.total_db == pytest.approx(0.4 + 4.5 + 10 * math.log10(8) + 3 * 0.1 + 3 * 0.13 + 0.3)
    assert (columns.sources, rows.sources, columns.share, rows.share) == (12 * 4 * 2, 6 * 4 * 2, 1 / 12, 1 / 12)
    assert (bar.clusters, bar.results, bar.macs_per_sample) == (2, 64, 60)
    assert (bar.parts["nodes"], bar.parts["detectors"], bar.parts["modulators"]) == (192, 384, 144)
    assert (bar.fill(6), bar.fill(3)) == ((1.0, 0.1), (0.5, 0.1))
    # A tenth of the time takes in a tenth of the light with ten times the bandwidth.
    light = budget(signal=rows, reference=columns)
    shorter = replace(NOISY, noise_bandwidth_hz=NOISY.noise_bandwidth_hz * 10)
    assert light.bits_of(1.0, 0.1) == pytest.approx(shorter.bits(light.detector_w))
    # Rows need the more light; what limits them limits both.
    assert light.line_w == light.launched_w(rows) > light.launched_w(columns)
    dim = budget(signal=rows, reference=columns, largest_line_w=light.line_w / 4)
    assert dim.launched_w(columns) == pytest.approx(light.launched_w(columns) / 4)
    assert dim.optical_w == pytest.approx(light.optical_w / 4)


def test_noise_is_that_of_the_emulated_detectors():
    receiver = Receiver(0.9, 2.5e9, shot=ShotNoise(), thermal=ThermalNoise(50, 300), laser=LaserNoise(10**-14.5))
    for power in (1e-6, 3e-4):
        emulated = {name: float(variance) for name, variance in receiver.variances_a2(power).items()}
        assert NOISY.variances_a2(power) == pytest.approx({f"{name} noise": value for name, value in emulated.items()})


@pytest.mark.parametrize("bits", [2, 6, 8])
def test_shot_limit_in_photons(bits):
    """12·4ⁿ/swing² electrons a sample, whatever the rate."""
    found = budget(wanted_bits=bits, detection=replace(NOISY, laser_noise_per_hz=0.0))
    electrons = found.shot_limit_j_per_mac * 8 * 0.9 / ELECTRON_C
    assert electrons == pytest.approx(12 * 4**bits / 4)
    counted = np.random.default_rng(3).poisson(electrons, 200_000)
    assert math.log2(2 * electrons / (math.sqrt(12) * counted.std())) == pytest.approx(bits, abs=0.02)
    assert found.shot_limit_j_per_mac < found.optical_j_per_mac
    # Other noise is no part of the limit.
    noisy = budget(wanted_bits=bits, detection=replace(NOISY, laser_noise_per_hz=1e-16))
    assert noisy.shot_limit_j_per_mac == pytest.approx(found.shot_limit_j_per_mac, rel=1e-12)


def test_fifty_zeptojoules_are_some_bits_of_long_sums():
    """50 zJ a MAC (Hamerly 2019) is 0.4 photons: a sum of 784 products at that light has about three bits."""
    detector = Detection(ELECTRON_C / PHOTON_1550_J, 5e9, swing=2.0)
    sample_j = 784 * 50e-21
    assert sample_j / PHOTON_1550_J == pytest.approx(306, rel=0.01)
    assert detector.bits(sample_j * 2 * 5e9) == pytest.approx(0.5 * math.log2(4 * 306 / 12), abs=0.01)


def test_less_light_than_wanted():
    full = budget()
    dim = budget(largest_line_w=full.line_w / 10)
    assert dim.optical_w == pytest.approx(full.optical_w / 10)
    assert dim.detector_w == pytest.approx(full.detector_w / 10)
    assert dim.bits == pytest.approx(NOISY.bits(full.least_detector_w / 10))
    assert dim.bits < 6
    assert budget(largest_line_w=full.line_w * 10).optical_w == full.optical_w


def test_a_stack_starves():
    strong = budget(wanted_bits=7, signal=Path({"ends": 2.0, "mesh": 0.25}, 1.0, 8, layer_db=0.25), reference=None)
    bits = [strong.bits_after(layers) for layers in range(1, 80)]
    assert bits[0] == pytest.approx(7)
    assert (np.diff(bits) <= 0).all()
    for wanted in (7, 6, 4.5, 2):
        assert strong.layers_until_starved(wanted) == sum(found >= wanted - 1e-9 for found in bits)
    assert strong.layers_until_starved(7.5) == 0
    lossless = replace(strong, signal=Path({"ends": 2.0}, 1.0, 8))
    assert lossless.layers_until_starved(7, most=500) == 500


def test_light_beyond_any_power_is_darkness():
    dark = budget(signal=Path({"mesh": 5000.0}, 1.0, 8), reference=None, largest_line_w=0.1)
    assert (dark.line_w, dark.detector_w, dark.bits) == (0.1, 0.0, 0.0)
