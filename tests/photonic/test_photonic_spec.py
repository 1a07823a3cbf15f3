"""Specs of photonic engines: their figures against the table of devices, counts of parts, and what is refused."""

import copy
import csv
import math
import re
from importlib import resources

import numpy as np
import pytest
from mesh_reference import haar

import hwsim
from hwsim.registry import read_spec
from hwsim.spec import set_field
from numerics.errors import InputError
from photonic.decomposition import decompose
from photonic.device import PhotonicEngine
from photonic.imperfections import Ideal, PhaseQuantisation

NAMES = ("coherent_mzi_56", "ideal_photonic", "mrr_bank", "tempo_like")


def data(name, **changes):
    found = copy.deepcopy(dict(read_spec(PhotonicEngine.bundled()[name])))
    for field, value in changes.items():
        set_field(found, field.replace("__", "."), value)
    return found


def engine(name, **changes):
    return PhotonicEngine.from_data(data(name, **changes), source="test")


def rows():
    text = resources.files("photonic").joinpath("data/photonic_devices.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


def figures():
    """(device, quantity) → (least, largest value)."""
    found = {}
    for row in rows():
        low, dash, high = row["value"].partition("-") if not row["value"].startswith("-") else (row["value"], "", "")
        found[row["device"], row["quantity"]] = float(low), float(high if dash else low)
    return found


FIGURES = figures()
UNITS = {(row["device"], row["quantity"]): row["unit"] for row in rows()}


def test_bundled():
    assert tuple(PhotonicEngine.bundled()) == NAMES


SCALES = {"G": 1e9, "m": 1e-3, "u": 1e-6, "p": 1e-12, "f": 1e-15, "": 1.0}
IN_FIELDS = {"_pj_per_sample": 1e-12, "_pj_per_setting": 1e-12, "_pj_per_byte": 1e-12, "_fj_per_bit": 1e-15}
CITED = re.compile(r"^(?: *)(\w+): (\S+) +#.*?\[D\] ([\w. *+]+\w\.\w+)")


def in_si(device, quantity):
    """A figure of the table, but dB, dBm and areas as they are."""
    low, high = FIGURES[device, quantity]
    assert low == high, (device, quantity)
    unit = UNITS[device, quantity]
    return low if unit in ("dB", "dBm", "um", "um2", "A/W", "1") else low * SCALES[unit[0]]


def cited_value(expression):
    """``2 * a.b + c.d``, of figures of the table."""
    total = 0.0
    for term in expression.split("+"):
        factors = [part.strip() for part in term.split("*")]
        total += math.prod(float(part) if part.isdigit() else in_si(*part.split(".")) for part in factors)
    return total


def citations(name):
    """(field, value, expression) of each line with a [D] in it; the line that says what [D] is left out."""
    lines = PhotonicEngine.bundled()[name].read_text(encoding="utf-8").splitlines()
    for line in lines:
        if "[D]" in line and "photonic_devices.csv" not in line:
            found = CITED.match(line)
            assert found, f"no figure and row: {line}"
            yield found[1], float(found[2].replace("_", "")), found[3]


@pytest.mark.parametrize(("name", "least"), [("coherent_mzi_56", 24), ("mrr_bank", 24), ("tempo_like", 24)])
def test_figures_are_those_of_the_table(name, least):
    """Each [D] names the row that its figure is, or what of which rows."""
    found = list(citations(name))
    assert len(found) >= least
    for field, value, expression in found:
        scale = next((scale for ending, scale in IN_FIELDS.items() if field.endswith(ending)), 1.0)
        assert value * scale == pytest.approx(cited_value(expression), rel=1e-9), (field, expression)


@pytest.mark.parametrize("name", ["coherent_mzi_56", "mrr_bank", "tempo_like"])
def test_a_modulator_is_one_device(name):
    """Its loss, its energy and its area come from the same one, which modulates as fast as a bit a symbol at least."""
    cited = [part for _, _, expression in citations(name) for part in re.findall(r"(mzm\w*)\.", expression)]
    assert len(cited) == 4
    (device,) = set(cited)
    assert in_si(device, "modulation_rate") >= engine(name).spec.engine.symbol_rate_hz
    for quantity in ("energy_per_bit", "insertion_loss"):
        low, high = FIGURES["mzm", quantity]
        assert low <= FIGURES[device, quantity][0] <= high


def test_every_figure_of_the_table_has_a_unit_and_a_source():
    for row in rows():
        assert row["unit"], row
        assert row["source"], row


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
    device = engine("coherent_mzi_56")
    by_hand = 4 * 1600 * 460 + 4 * 11_000 + 56 * (2 * 31 * 6.5 + 2 * 100 * 25) + 8 * 16 * 20 + 4 * 50 + 4 * 2850
    area = device.area()
    assert area.known_mm2 == pytest.approx(by_hand * 1e-6)
    assert area.unknown == ("laser_lines", "accumulators", "buffer", "vector_unit")
    assert not any(note.startswith("area") for note in hwsim.simulate("mlp0", device=device).notes)  # said once


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("coherent_mzi_56", {"engine__interferometers_on_chip": 9}, "4 ports take 10, got 9"),
        ("coherent_mzi_56", {"engine__ports": 0}, "engine.ports"),
        ("coherent_mzi_56", {"engine__symbol_rate_hz": 20e9}, "dac.samples_per_s: expected at least 2e+10"),
        ("coherent_mzi_56", {"engine__symbol_rate_hz": 12e9}, "adc.samples_per_s: expected at least 1.2e+10"),
        ("tempo_like", {"receiver__bandwidth_hz": 1e9}, "receiver.bandwidth_hz: expected at least 2.5e+09"),
        ("tempo_like", {"engine__summed": 5}, "count: expected a multiple of summed × shared (5 × 6), got 36"),
        ("coherent_mzi_56", {"wanted_bits": 12}, "wanted_bits: expected less than the 8.84 that laser.relative_intensity_noise"),
        (
            "coherent_mzi_56",
            {"laser__relative_intensity_noise_db_per_hz": 155},
            "laser.relative_intensity_noise_db_per_hz: input",
        ),
        (
            "coherent_mzi_56",
            {"laser__relative_intensity_noise_db_per_hz": -100},
            "laser.relative_intensity_noise_db_per_hz: expected noise that leaves a bit at least in the 5e+09 Hz",
        ),
        ("coherent_mzi_56", {"laser__relative_intensity_noise_db_per_hz": "idea"}, "expected a number or 'ideal' (got 'idea')"),
        ("coherent_mzi_56", {"receiver__sensitivity_dbm": float("nan")}, "receiver.sensitivity_dbm: input should be a finite"),
        (
            "coherent_mzi_56",
            {"receiver__responsivity_a_per_w": 1.3},
            "receiver.responsivity_a_per_w: expected at most 1.25, an electron a photon at 1550 nm, got 1.3",
        ),
        ("mrr_bank", {"laser__wavelength_nm": 1310}, "expected at most 1.057, an electron a photon at 1310 nm, got 1.1"),
        ("coherent_mzi_56", {"engine__style": "crossbar"}, "engine: a crossbar has no field 'mesh'; known: count, integration"),
        ("coherent_mzi_56", {"engine__style": "lens"}, "style: expected one of mesh, weight_bank, crossbar, got 'lens'"),
        ("coherent_mzi_56", {"engine": {"ports": 4}}, "style: expected one of mesh, weight_bank, crossbar, got none"),
        ("coherent_mzi_56", {"engine__meshs": 1}, "a mesh has no field 'meshs'; did you mean 'meshes' or 'mesh'?"),
        ("mrr_bank", {"losses_db__ring_passed": "unkown"}, "expected a number or 'unknown' (got 'unkown')"),
        ("mrr_bank", {"imperfections__setting": {"arms": "both"}}, "imperfections.setting: a weight_bank has no such part"),
        ("coherent_mzi_56", {"imperfections__setting": {"arms": "two"}}, "imperfections.setting.arms"),
        ("coherent_mzi_56", {"imperfections__setting": {"full_scale_rad": 6}}, "imperfections.setting.full_scale_rad"),
        (
            "coherent_mzi_56",
            {"imperfections__drift": "idael"},
            "imperfections.drift: expected a section or 'ideal' (got 'idael')",
        ),
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


def test_which_phases_are_set_in_steps():
    def steps(setting, bits=16):
        return engine("coherent_mzi_56", imperfections__setting=setting).spec.imperfections.of_mesh(bits).phase_quantisation

    assert steps("ideal") == Ideal()
    assert steps("tuning_bits") == steps({}) == PhaseQuantisation(16)
    both = {"arms": "both", "outputs": "ideal", "full_scale_rad": 7.0}
    assert steps(both, 6) == PhaseQuantisation(6, full_scale_rad=7.0, arms="both", outputs=False)


def test_slices():
    spec = engine("mrr_bank", dac__bits=4, tuning__bits=4).spec
    assert spec.slices(("int8", "int8")) == (2, 2)
    assert spec.slices(("int8", "int4")) == (2, 1)
    assert engine("tempo_like", dac__bits=4).spec.slices(("int6", "int4")) == (2, 1)
