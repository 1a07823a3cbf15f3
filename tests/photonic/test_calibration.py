"""Chips programmed by their detectors: fidelity before and after, never by looking at what is wrong with them."""

import numpy as np
import pytest
from mesh_reference import haar

from numerics.errors import InputError
from photonic.calibration import Bench, align, descend, fidelity, highest, refine, self_configure
from photonic.decomposition import decompose
from photonic.detection import Converter, Homodyne, LaserNoise, Receiver, ShotNoise, ThermalNoise
from photonic.fabrication import fabricate
from photonic.imperfections import (
    ExponentialKernel,
    Imperfections,
    InsertionLoss,
    PhaseError,
    PhaseQuantisation,
    SplitterError,
    StuckShifters,
    ThermalCrosstalk,
)
from photonic.layouts import layout
from photonic.mesh import Mesh

SOME = Imperfections(PhaseError(0.05), splitter_error=SplitterError(0.02))
MANY = Imperfections(PhaseError(0.1), splitter_error=SplitterError(0.05))
SEES_FIELDS, SEES_POWERS = Homodyne(1e-3), Receiver()


def chip(unitary, kind="rectangular", faults=SOME, seed=3):
    return fabricate(decompose(unitary, kind), faults, seed=seed)


def quality(mesh, target):
    """Fidelity of the signals, but for loss."""
    ports = mesh.layout.signal_ports
    return fidelity(mesh.matrix()[ports, ports], target, common_loss=True)


def power_quality(mesh, target):
    """The same where only powers are detected: output phases do not matter."""
    found = np.abs(np.diagonal(mesh.matrix() @ target.conj().T)).mean() ** 2
    return float(found)


def test_fidelity_by_hand():
    assert fidelity(1j * np.eye(3), np.eye(3)) == pytest.approx(1.0)
    assert fidelity(np.diag([1, 1, -1]), np.eye(3)) == pytest.approx(1 / 9)
    assert fidelity(0.5 * np.eye(2), np.eye(2)) == pytest.approx(0.25)
    assert fidelity(0.5 * np.eye(2), np.eye(2), common_loss=True) == pytest.approx(1.0)
    assert fidelity(np.diag([1, 0.5]), np.eye(2), common_loss=True) == pytest.approx(1.5**2 / (2 * 1.25))


def test_highest_is_the_top():
    rng = np.random.default_rng(1)
    turn = np.linspace(0, 2 * np.pi, 400)
    order = np.arange(-1, 2)
    raster = np.exp(1j * order[:, None] * turn)
    for _ in range(200):
        waves = rng.standard_normal((3, 3)) + 1j * rng.standard_normal((3, 3))
        waves = waves + waves[::-1, ::-1].conj()
        x, y = highest(waves)
        top = (np.exp(1j * order * x) @ waves @ np.exp(1j * order * y)).real
        assert top >= (raster.T @ waves @ raster).real.max() - 1e-9


def test_a_triangle_configures_itself_from_any_phases():
    """One pass of nulls, powers alone, and no idea of the phases at first: exact, as every row is a matter of its diagonal."""
    unitary = haar(8, 5)
    unknown = Imperfections(PhaseError(3.0), splitter_error=SplitterError(0.02))
    made = chip(unitary, "triangular", unknown)
    assert power_quality(made, unitary) < 0.6
    found = self_configure(Bench(made, SEES_POWERS), unitary, sweeps=1)
    assert 1 - power_quality(found.mesh, unitary) < 1e-10
    assert 1 - found.score[-1] < 1e-10
    made = chip(unitary, "triangular", unknown)
    assert quality(made, unitary) < 0.1
    found = self_configure(Bench(made, SEES_FIELDS), unitary, sweeps=1)
    assert 1 - quality(found.mesh, unitary) < 1e-10


@pytest.mark.parametrize(("kind", "sweeps", "gain"), [("rectangular", 5, 15), ("diamond", 4, 10)])
def test_self_configuration_by_powers(kind, sweeps, gain):
    unitary = haar(8, 5)
    made = chip(unitary, kind)
    found = self_configure(Bench(made, SEES_POWERS), unitary, sweeps=sweeps)
    assert (np.diff(found.score) > 0).all()
    assert (1 - found.score[0]) / (1 - found.score[-1]) > gain


@pytest.mark.parametrize("kind", ["rectangular", "triangular", "diamond"])
def test_refinement_removes_what_a_mesh_can_undo(kind):
    unitary = haar(8, 5)
    made = chip(unitary, kind)
    assert quality(made, unitary) < 0.99
    found = refine(Bench(made, SEES_FIELDS), unitary, steps=6)
    assert 1 - quality(found.mesh, unitary) < 1e-6
    assert found.score[-1] == pytest.approx(quality(found.mesh, unitary), abs=1e-12)


def test_refinement_with_loss_and_heat():
    heat = ThermalCrosstalk(ExponentialKernel(0.02, 50.0), 100.0, 100.0)
    faults = Imperfections(
        PhaseError(0.1), splitter_error=SplitterError(0.05), insertion_loss=InsertionLoss(0.1, 0.1), crosstalk=heat
    )
    unitary = haar(8, 5)
    made = chip(unitary, faults=faults)
    found = refine(Bench(made, SEES_FIELDS), unitary, steps=6)
    assert quality(made, unitary) < 0.91
    assert quality(found.mesh, unitary) > 0.997


def test_one_phase_of_all_light_is_no_error():
    """Nothing goes there: the mean output phase stays where it was."""
    unitary = haar(6, 12)
    made = chip(unitary)
    turned = made.with_phases(output_phase=(made.phases["output_phase"] + 2.5) % (2 * np.pi))
    found = refine(Bench(turned, SEES_FIELDS), unitary, steps=5)
    assert 1 - quality(found.mesh, unitary) < 1e-9
    moved = found.mesh.phases["output_phase"] - turned.phases["output_phase"]
    assert np.abs(np.angle(np.exp(1j * moved))).max() < 1.0


def test_dark_current_is_taken_off():
    light = np.eye(4, dtype=complex)
    dark, bright = (Bench(chip(haar(4, 1)), Receiver(dark_a=dark_a)).powers(light) for dark_a in (1e-4, 0.0))
    np.testing.assert_allclose(dark, bright, atol=1e-12)


def test_each_reading_has_noise_of_its_own():
    bench = Bench(chip(haar(4, 1)), Receiver(shot=ShotNoise()), seed=1)
    first, second = (bench.powers(np.eye(4, dtype=complex)) for _ in range(2))
    assert (first != second).all()
    np.testing.assert_allclose(first, second, atol=0.02)


def test_refinement_around_stuck_shifters():
    """The others make up for a few that cannot be set."""
    unitary = haar(8, 5)
    faults = Imperfections(stuck=StuckShifters(0.05))
    made = chip(unitary, faults=faults, seed=4)
    found = refine(Bench(made, SEES_FIELDS), unitary, steps=10)
    assert np.count_nonzero(~np.isnan(made.chip.stuck)) >= 2
    assert 1 - quality(found.mesh, unitary) < 0.5 * (1 - quality(made, unitary))


def test_descent_follows_the_gradient():
    """Half a turn's difference is the slope, and all of it together climbs."""
    unitary = haar(5, 6)
    made = chip(unitary, faults=MANY)
    found = descend(Bench(made, SEES_FIELDS), unitary, goal="field", steps=50)
    assert quality(made, unitary) < 0.95
    assert 1 - quality(found.mesh, unitary) < 0.1 * (1 - quality(made, unitary))
    powers = descend(Bench(made, SEES_POWERS), unitary, steps=50)
    assert 1 - power_quality(powers.mesh, unitary) < 0.1 * (1 - power_quality(made, unitary))
    np.testing.assert_array_equal(powers.mesh.phases["output_phase"], made.phases["output_phase"])


def test_noisy_detectors_with_converters():
    """Noise, converters and 10-bit phases: what is left is theirs."""
    unitary = haar(6, 7)
    faults = Imperfections(PhaseError(0.1), PhaseQuantisation(10), SplitterError(0.03))
    made = chip(unitary, faults=faults)
    diode = Receiver(0.9, 1e8, shot=ShotNoise(), thermal=ThermalNoise(1e3), laser=LaserNoise(1e-15), adc=Converter(12, 4e-3))
    bench = Bench(made, Homodyne(4e-3, diode), power_w=1e-3, seed=8)
    found = refine(bench, unitary, steps=5)
    assert quality(made, unitary) < 0.93
    assert quality(found.mesh, unitary) > 0.999
    assert bench.clipped == 0
    again = refine(Bench(made, Homodyne(4e-3, diode), power_w=1e-3, seed=8), unitary, steps=5)
    np.testing.assert_array_equal(again.mesh.matrix(), found.mesh.matrix())
    other = refine(Bench(made, Homodyne(4e-3, diode), power_w=1e-3, seed=9), unitary, steps=5)
    assert (other.mesh.matrix() != found.mesh.matrix()).any()
    blind = Bench(made, Receiver(0.9, 1e8, adc=Converter(4, 1e-5, signed=False)), power_w=1e-3)
    blind.powers(np.eye(6, dtype=complex))
    assert blind.clipped > 0


class Sealed:
    """A chip of which nothing is to be had but phases set and light sent."""

    def __init__(self, mesh):
        self.layout, self.phases = mesh.layout, mesh.phases
        self.apply = mesh.apply
        self.with_phases = lambda **phases: Sealed(mesh.with_phases(**phases))


@pytest.mark.parametrize("search", [self_configure, descend, refine])
def test_only_the_outputs_are_seen(search):
    unitary = haar(4, 9)
    amount = {"sweeps" if search is self_configure else "steps": 2}
    open_bench, sealed = (Bench(chip(unitary, "triangular"), SEES_FIELDS) for _ in range(2))
    sealed.mesh = Sealed(sealed.mesh)
    seen = search(open_bench, unitary, **amount).mesh.phases
    for name, phases in search(sealed, unitary, **amount).mesh.phases.items():
        np.testing.assert_array_equal(phases, seen[name])


def test_readings_are_counted():
    """Nine of one row and one more for each MZI of a triangle, all rows at the beginning and end, and to align the outputs."""
    unitary = haar(6, 10)
    found = self_configure(Bench(chip(unitary, "triangular"), SEES_FIELDS), unitary, sweeps=1)
    assert found.readings == 6 + 15 * (9 + 1) + 6 + 6
    bench = Bench(chip(unitary), SEES_FIELDS)
    found = descend(bench, unitary, goal="field", steps=2)
    assert found.readings == bench.readings == 6 * (1 + 2 * (2 * 36 + 1))


def test_align_sets_the_output_phases():
    unitary = haar(6, 11)
    perfect = fabricate(decompose(unitary), Imperfections(), seed=0)
    turned = perfect.with_phases(output_phase=np.linspace(0, 6, 6))
    bench = Bench(turned, SEES_FIELDS)
    assert quality(turned, unitary) < 0.9
    align(bench, unitary)
    assert quality(bench.mesh, unitary) == pytest.approx(1.0)


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["rectangular", "triangular"])
@pytest.mark.parametrize("faults", [SOME, MANY], ids=["some", "many"])
def test_sixteen_ports(kind, faults):
    unitary = haar(16, 5)
    made = chip(unitary, kind, faults)
    nulls = self_configure(Bench(made, SEES_FIELDS), unitary, sweeps=4)
    newton = refine(Bench(made, SEES_FIELDS), unitary, steps=8)
    print(
        f"{kind}: fidelity {quality(made, unitary):.5f}; self_configure {quality(nulls.mesh, unitary):.8f} after "
        f"{nulls.readings} readings; refine {quality(newton.mesh, unitary):.8f} after {newton.readings}"
    )
    assert 1 - quality(nulls.mesh, unitary) < 0.15 * (1 - quality(made, unitary))
    assert 1 - quality(newton.mesh, unitary) < 0.01 * (1 - quality(made, unitary))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda b: self_configure(b, np.eye(3)), "target: expected shape (4, 4), got (3, 3)"),
        (lambda b: self_configure(b, np.ones((4, 4))), "target: expected a unitary matrix"),
        (lambda b: self_configure(b, np.full((4, 4), np.nan)), "target: expected a unitary matrix"),
        (lambda b: self_configure(b, np.eye(4), goal="field"), "goal: expected 'power', because photodiodes do not see phases"),
        (lambda b: self_configure(b, np.eye(4), goal="feild"), "goal: unknown name 'feild'"),
        (lambda b: self_configure(b, np.eye(4), settings=2), "settings: expected ≥ 3, got 2"),
        (lambda b: self_configure(b, np.eye(4), sweeps=0), "sweeps: expected ≥ 1, got 0"),
        (lambda b: refine(b, np.eye(4)), "goal: expected 'power'"),
        (lambda b: descend(b, np.eye(4), rate=0.0), "rate: expected a finite number > 0, got 0.0"),
        (lambda b: b.amplitudes(np.eye(4, dtype=complex)), "detection: expected Homodyne"),
        (lambda b: Bench(b.mesh, None), "detection: expected Receiver or Homodyne, got None"),
        (lambda b: Bench(b.mesh.mesh, SEES_POWERS), "mesh: expected FabricatedMesh"),
        (lambda b: fidelity(np.eye(2), np.eye(3)), "matrix: expected two square matrices of one shape, got (2, 2) and (3, 3)"),
        (lambda b: fidelity(1e200 * np.eye(2), 1e200 * np.eye(2)), "matrix: expected matrices whose fidelity a float64 can hold"),
        (lambda b: fidelity(np.zeros((2, 2)), np.eye(2), common_loss=True), "matrix: expected one that lets light pass"),
    ],
)
def test_bad_input_is_one_line(make, says):
    bench = Bench(fabricate(Mesh.random(layout("rectangular", 4), seed=0), Imperfections(), seed=0), SEES_POWERS)
    with pytest.raises(InputError) as error:
        make(bench)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
