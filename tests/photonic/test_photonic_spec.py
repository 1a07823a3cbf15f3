"""Specs of photonic engines: their figures against the table of devices, counts of parts, and what is refused."""

import copy
import csv
from importlib import resources

import numpy as np
import pytest
from mesh_reference import haar

from hwsim.registry import read_spec
from hwsim.spec import set_field
from numerics.errors import InputError
from photonic.decomposition import decompose
from photonic.device import PhotonicEngine

NAMES = ("coherent_mzi_56", "ideal_photonic", "mrr_bank", "tempo_like")


def data(name, **changes):
    found = copy.deepcopy(dict(read_spec(PhotonicEngine.bundled()[name])))
    for field, value in changes.items():
        set_field(found, field.replace("__", "."), value)
    return found


def engine(name, **changes):
    return PhotonicEngine.from_data(data(name, **changes), source="test")


def figures():
    """(device, quantity) → (least, largest value)."""
    text = resources.files("photonic").joinpath("data/photonic_devices.csv").read_text(encoding="utf-8")
    found = {}
    for row in csv.DictReader(line for line in text.splitlines() if not line.startswith("#")):
        low, dash, high = row["value"].partition("-") if not row["value"].startswith("-") else (row["value"], "", "")
        found[row["device"], row["quantity"]] = float(low), float(high if dash else low)
    return found


FIGURES = figures()


def test_bundled():
    assert tuple(PhotonicEngine.bundled()) == NAMES


@pytest.mark.parametrize("name", ["coherent_mzi_56", "mrr_bank", "tempo_like"])
def test_figures_are_those_of_the_table(name):
    spec = engine(name).spec

    def within(value, device, quantity, scale=1.0):
        low, high = FIGURES[device, quantity]
        assert low * scale * (1 - 1e-9) <= value <= high * scale * (1 + 1e-9), (device, quantity)

    within(spec.dac.energy_pj_per_sample, "dac_8b", "energy_per_sample")
    within(spec.adc.energy_pj_per_sample, "adc_8b", "energy_per_sample")
    within(spec.modulator.energy_fj_per_bit, "mzm", "energy_per_bit")
    within(spec.losses_db["modulator"], "mzm", "insertion_loss")
    within(spec.losses_db["laser_coupler"], "coupler", "loss")
    within(spec.losses_db["splitter"], "y_branch", "loss")
    within(spec.laser.wall_plug_efficiency, "laser", "wall_plug_efficiency")
    within(spec.receiver.responsivity_a_per_w, "photodetector", "responsivity")
    within(spec.receiver.bandwidth_hz, "photodetector", "bandwidth", 1e9)
    assert spec.receiver.sensitivity_dbm == FIGURES["photodetector", "sensitivity"][0]
    within(spec.area_um2["adcs"], "adc_8b", "area")
    within(spec.area_um2["dacs"], "dac_8b", "area")
    within(spec.area_um2["amplifiers"], "tia", "area")
    integrator = FIGURES["integrator", "power"][0] if name == "tempo_like" else 0.0
    assert spec.receiver.amplifier_power_w == pytest.approx((FIGURES["tia", "power"][0] + integrator) * 1e-3)
    if name == "coherent_mzi_56":
        coupler, shifter = 0.33, FIGURES["heater_phase_shifter", "insertion_loss"][0]
        assert spec.losses_db["interferometer"] == pytest.approx(2 * coupler + 2 * shifter)
        within(spec.losses_db["combiner"], "coupler", "loss")
        within(spec.tuning.power_per_pi_w, "heater_phase_shifter", "mean_power", 1e-3)
        within(spec.tuning.settling_s, "heater_phase_shifter", "response", 1e-6)
    if name == "mrr_bank":
        within(spec.losses_db["ring_dropped"], "mrr_router", "insertion_loss")
        within(spec.tuning.power_per_pi_w, "mrr_router", "power", 1e-3)
        assert spec.losses_db["ring_passed"] == "unknown"
    if name == "tempo_like":
        within(spec.losses_db["crossing"], "crossing", "loss")
        within(spec.off_chip.energy_pj_per_byte, "hbm", "energy_per_byte")
        within(spec.off_chip.bandwidth_bytes_per_s, "hbm", "bandwidth", 1e9)


def test_converter_energy_is_power_over_rate():
    assert FIGURES["adc_8b", "power_at_10GSps"][0] / 10 == pytest.approx(FIGURES["adc_8b", "energy_per_sample"][0])
    assert FIGURES["dac_8b", "power_at_14GSps"][0] / 14 == pytest.approx(FIGURES["dac_8b", "energy_per_sample"][0], rel=0.01)


def test_the_56_interferometers_of_shen():
    """56 are on the chip; the program uses an SU(4) core of 6 and 4 attenuators, and two layers of U and V have 48 phases."""
    found = engine("coherent_mzi_56").spec.engine
    assert found.parts["interferometers"] == 56
    assert found.interferometers == 6 + 4
    assert found.layout.mzis * 2 * 2 * found.passes == 48
    assert found.depth == 5 + 1  # Reck's triangle of four ports, and the attenuators
    assert found.tuners == 2 * 10 + 4


def test_parts_of_two_meshes():
    found = engine("ideal_photonic").spec.engine
    each = 2 * 64 * 63 // 2 + 64
    assert found.parts["interferometers"] == 8 * each
    assert (found.depth, found.passes, found.tuners) == (2 * 64 + 1, 1, 8 * (2 * each + 2 * 64))


def test_peak_of_tempo():
    """368.6 TOPS (abstract of the paper)."""
    found = engine("tempo_like").spec.engine
    assert 2 * found.parts["nodes"] * found.symbol_rate_hz == pytest.approx(368.6e12, rel=1e-3)


@pytest.mark.parametrize("kind", ["triangular", "rectangular"])
def test_phases_of_random_weights_are_those_of_decomposed_matrices(kind):
    changes = {"engine__ports": 8, "engine__mesh": kind, "tuning__power_per_pi_w": 1.0}
    spec = engine("ideal_photonic", **changes).spec
    phases = [
        np.concatenate([mesh.theta, mesh.phi, mesh.output_phase])
        for mesh in (decompose(haar(8, seed), mesh=kind) for seed in range(300))
    ]
    attenuators = 8 * (0.5 + 1)
    expected = 8 * (2 * np.sum(phases) / np.pi / 300 + attenuators)
    assert spec.held_power_w["heaters"] == pytest.approx(expected, rel=0.01)
    assert 0.6 < spec.engine.random_phases_over_pi < 0.8


@pytest.mark.parametrize("name", NAMES)
def test_held_power(name):
    spec = engine(name).spec
    held = spec.held_power_w
    assert held["laser"] == spec.budget.electrical_w > 0
    assert held["receivers"] == spec.engine.parts["amplifiers"] * spec.receiver.amplifier_power_w
    if name == "coherent_mzi_56":
        assert held["heaters"] == pytest.approx(24 * 10e-3)
    if name == "mrr_bank":
        assert held["heaters"] == pytest.approx(16 * 256 * 0.275e-3)
    assert ("heaters" in held) is (name != "tempo_like")


def test_area():
    spec = engine("coherent_mzi_56").spec
    by_hand = 4 * 1600 * 460 + 4 * 11_000 + 56 * (2 * 200 * 20 + 2 * 100 * 25) + 8 * 16 * 20 + 4 * 50 + 4 * 2850
    assert spec.known_area_um2 == pytest.approx(by_hand)
    assert spec.unknown_areas == ("laser_lines",)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("coherent_mzi_56", {"engine__interferometers_on_chip": 9}, "4 ports take 10, got 9"),
        ("coherent_mzi_56", {"engine__ports": 0}, "engine.ports"),
        ("coherent_mzi_56", {"engine__symbol_rate_hz": 20e9}, "dac.samples_per_s: expected at least 2e+10"),
        ("coherent_mzi_56", {"engine__symbol_rate_hz": 12e9}, "adc.samples_per_s: expected at least 1.2e+10"),
        ("tempo_like", {"receiver__bandwidth_hz": 1e9}, "receiver.bandwidth_hz: expected at least 2.5e+09"),
        ("tempo_like", {"engine__summed": 5}, "count: expected a multiple of summed × shared (5 × 6), got 36"),
        ("coherent_mzi_56", {"wanted_bits": 12}, "wanted_bits: laser noise allows less than"),
        ("coherent_mzi_56", {"tuning": None}, "tuning: expected the section for engine.style 'mesh'"),
        ("mrr_bank", {"tuning__mean_phase_over_pi": "random_weights"}, "give the number of the weight_bank"),
        ("mrr_bank", {"accumulators__capacity_bytes": 1000}, "one row of all engines takes 1024 bytes, got room for 1000"),
        ("mrr_bank", {"losses_db": {"modulator": 1}}, "losses_db: 'laser_coupler' is missing"),
        ("mrr_bank", {"losses_db__crossing": 1}, "losses_db: unknown part 'crossing'; a weight_bank has laser_coupler"),
        ("mrr_bank", {"area_um2__nodes": 1}, "area_um2: unknown part 'nodes'"),
        ("mrr_bank", {"mac_formats": {"int8": {}, "fp16": {}}}, "expected integers"),
        ("mrr_bank", {"losses_db__splitter": "none"}, "losses_db.splitter"),
        (
            "coherent_mzi_56",
            {"engine__ports": 128, "engine__interferometers_on_chip": None},
            "laser.largest_line_w: losses of 299 dB ask for",
        ),
    ],
)
def test_refused(name, changes, message):
    with pytest.raises(InputError) as error:
        engine(name, **changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_mesh_too_deep_for_its_light_is_dark():
    changes = {"engine__ports": 128, "engine__interferometers_on_chip": None, "laser__largest_line_w": 0.1}
    budget = engine("coherent_mzi_56", **changes).spec.budget
    assert budget.bits == 0.0
    assert budget.electrical_w < 200


def test_what_is_wrong_with_bundled_machines():
    """Shen et al. name 5e-3 rad and 0.1 % of noise in detection, which 8 bits of full scale are; ideal_photonic has nothing."""
    shen, ideal, bank, tempo = (
        engine(name).spec for name in ("coherent_mzi_56", "ideal_photonic", "mrr_bank", "tempo_like")
    )  # fmt: skip
    assert shen.imperfections.phase_error.sigma_rad == 5e-3
    assert 1 / (np.sqrt(12) * 2**shen.wanted_bits) == pytest.approx(1e-3, rel=0.15)
    assert set(ideal.imperfections.model_dump().values()) == {"ideal"}
    for spec in (shen, bank, tempo):
        assert spec.imperfections.shot_noise == "counted"
        assert spec.imperfections.adc.full_scale <= 1
    # A ring's resonance is off such that weights miss by about 2/2^9 (Zhang et al.: 9 bits are a deviation of that).
    rings = bank.imperfections.rings
    share = np.linspace(0.02, 0.98, 1000)
    far = np.sqrt(1 / share - 1) / 2
    slope = 2 * 8 * far / (1 + 4 * far**2) ** 2 / rings.linewidth_ghz  # of the weight, 2·T − 1
    assert rings.resonance_error_ghz * np.sqrt(np.mean(slope**2)) == pytest.approx(2 / 2**9, rel=0.25)


def test_slices():
    spec = engine("mrr_bank", dac__bits=4, tuning__bits=4).spec
    assert spec.slices(("int8", "int8")) == (2, 2)
    assert spec.slices(("int8", "int4")) == (2, 1)
    assert engine("tempo_like", dac__bits=4).spec.slices(("int6", "int4")) == (2, 1)
