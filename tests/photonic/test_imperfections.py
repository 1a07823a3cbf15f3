"""Each imperfection of a mesh: against full matrices, one component after another, and its law against closed forms."""

from dataclasses import replace
from math import cos, pi, sqrt

import numpy as np
import pytest
from mesh_reference import haar

from numerics.errors import InputError
from photonic.decomposition import decompose
from photonic.fabrication import Chip, fabricate
from photonic.imperfections import (
    Drift,
    ExponentialKernel,
    Ideal,
    Imperfections,
    InsertionLoss,
    MeasuredKernel,
    PhaseError,
    PhaseQuantisation,
    SplitterError,
    StuckShifters,
    ThermalCrosstalk,
    crossings,
)
from photonic.layouts import layout
from photonic.mesh import Mesh
from photonic.svd_engine import SvdEngine

CHANCE = 4.5  # standard errors: one in 150,000
KINDS = ("rectangular", "triangular", "butterfly", "binary_tree", "diamond")
LOSS = InsertionLoss(splitter_db=0.2, phase_shifter_db=0.3, crossing_db=0.15, column_db=0.05)
HEAT = ThermalCrosstalk(ExponentialKernel(0.1, 60.0), shifter_um=100.0, port_um=40.0)
EACH = {
    "nothing": Imperfections(),
    "phase error": Imperfections(phase_error=PhaseError(0.2)),
    "quantisation": Imperfections(phase_quantisation=PhaseQuantisation(4)),
    "two turns": Imperfections(phase_quantisation=PhaseQuantisation(5, full_scale_rad=4 * pi)),
    "inner phases": Imperfections(phase_quantisation=PhaseQuantisation(4, outputs=False)),
    "both arms": Imperfections(phase_quantisation=PhaseQuantisation(4, arms="both", outputs=False)),
    "splitter angle": Imperfections(splitter_error=SplitterError(0.1)),
    "splitter amplitude": Imperfections(splitter_error=SplitterError(0.05, of="amplitude")),
    "splitter loss": Imperfections(insertion_loss=InsertionLoss(splitter_db=0.4)),
    "shifter loss": Imperfections(insertion_loss=InsertionLoss(phase_shifter_db=0.4)),
    "dummy shifters": Imperfections(insertion_loss=InsertionLoss(phase_shifter_db=0.4, dummy_shifters=True)),
    "crossing loss": Imperfections(insertion_loss=InsertionLoss(crossing_db=0.4)),
    "column loss": Imperfections(insertion_loss=InsertionLoss(column_db=0.4)),
    "heat": Imperfections(crosstalk=HEAT),
    "drift": Imperfections(drift=Drift(0.05)),
    "stuck": Imperfections(stuck=StuckShifters(0.5)),
    "all": Imperfections(PhaseError(0.2), PhaseQuantisation(5), SplitterError(0.1), LOSS, HEAT, Drift(0.05), StuckShifters(0.2)),
    "all, both arms": Imperfections(
        PhaseError(0.2), PhaseQuantisation(5, 7.0, arms="both"), SplitterError(0.1), LOSS, HEAT, Drift(0.05), StuckShifters(0.2)
    ),
}


def on(size, first, second, block):
    """A 2×2 block on two ports of a unit matrix."""
    found = np.eye(size, dtype=complex)
    found[np.ix_([first, second], [first, second])] = block
    return found


def times_crossed(plan, column, port):
    """By hand, wire against wire: both keep their side, or change it where lower ports are led up to their partners."""
    pairs = {low: up for up, low, at in zip(plan.upper, plan.lower, plan.column, strict=True) if at == column}

    def there(p):
        return pairs[p] + 0.5 if p in pairs else p

    return sum((other < port) != (there(other) < there(port)) for other in range(plan.ports) if other != port)


def nearest(phase, every):
    """Of all phases that can be driven, modulo 2π; the lowest where some are as near."""
    off = np.abs(np.angle(np.exp(1j * (every - phase))))
    return every[np.argmax(off < off.min() + 1e-11)]


def reference(made):
    """Full matrices, component after component, with the chip's own draws."""
    plan, faults, n = made.layout, made.imperfections, made.layout.mzis
    loss = InsertionLoss() if isinstance(faults.insertion_loss, Ideal) else faults.insertion_loss
    sizes = [made.mesh.theta, made.mesh.phi, made.mesh.output_phase]
    phases = [float(x) for part in sizes for x in part]
    programmed, both = list(phases), False
    if not isinstance(faults.phase_quantisation, Ideal):
        steps = faults.phase_quantisation
        step, both = steps.full_scale_rad / 2**steps.bits, steps.arms == "both"
        driven = [round(x / step) * step for x in phases]
        if both:
            driven[:n] = [2 * round(x / 2 / step) * step for x in phases[:n]]
        if steps.full_scale_rad != 2 * pi:
            every = step * np.arange(2**steps.bits)
            driven = [nearest(x, every) for x in phases]
            if both:
                driven[:n] = [2 * nearest(x / 2, every) for x in phases[:n]]
        phases = [*driven[: 2 * n], *(driven if steps.outputs else phases)[2 * n :]]
    phases = [x if np.isnan(s) else s for x, s in zip(phases, made.chip.stuck, strict=True)]
    common = [np.exp(-0.5j * (x - y)) if both else 1.0 for x, y in zip(phases[:n], programmed, strict=False)]
    if not isinstance(faults.crosstalk, Ideal):
        phases = heated([x % (2 * pi) for x in phases], plan, faults.crosstalk)
    shift = made.chip.phase_errors + made._drifted
    phases = [x + e for x, e in zip(phases, shift, strict=True)]

    def kept(db):
        return 10 ** (-db / 20)

    lower = kept(loss.phase_shifter_db) if loss.dummy_shifters else 1.0
    matrix = np.eye(plan.ports, dtype=complex)
    for column in range(plan.depth):
        ways = np.diag([kept(loss.crossing_db * times_crossed(plan, column, p)) for p in range(plan.ports)])
        matrix = ways @ (kept(loss.column_db) * matrix)
        for e in np.flatnonzero(plan.column == column):
            steps = []
            for which, phase in ((0, phases[n + e]), (1, phases[e])):
                angle = made.chip.splitter_angles[e, which]
                steps.append(np.diag([kept(loss.phase_shifter_db) * np.exp(1j * phase), lower]))
                steps.append(
                    kept(loss.splitter_db) * np.array([[cos(angle), 1j * np.sin(angle)], [1j * np.sin(angle), cos(angle)]])
                )
            steps.append(common[e] * np.eye(2))
            for step in steps:
                matrix = on(plan.ports, plan.upper[e], plan.lower[e], step) @ matrix
        matrix = ways @ matrix
    return np.diag(kept(loss.phase_shifter_db) * np.exp(1j * np.array(phases[2 * n :]))) @ matrix


def heated(phases, plan, crosstalk):
    """Every heater on every phase shifter."""
    places = [(2 * c + 1, u) for c, u in zip(plan.column, plan.upper, strict=True)]
    places += [(2 * c, u) for c, u in zip(plan.column, plan.upper, strict=True)]
    places += [(2 * plan.depth, p) for p in range(plan.ports)]
    found = []
    for i, (x, y) in enumerate(places):
        total = phases[i]
        for j, (x1, y1) in enumerate(places):
            if i != j:
                distance = np.hypot((x - x1) * crosstalk.shifter_um, (y - y1) * crosstalk.port_um)
                total += float(crosstalk.kernel.share(distance)) * phases[j]
        found.append(total)
    return found


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("kind", KINDS)
def test_matrix_equals_full_matrices(kind, name):
    plan = layout(kind, 4)
    made = fabricate(Mesh.random(plan, seed=1), EACH[name], seed=2).aged(3.0).aged(1.5)
    matrix = made.matrix()
    np.testing.assert_allclose(matrix, reference(made), atol=1e-13)
    off = np.abs(matrix - made.mesh.matrix()).max()
    neighbours = name == "crossing loss" and kind in ("rectangular", "triangular", "diamond")
    assert off < 1e-14 if name == "nothing" or neighbours else off > 1e-3
    vectors = np.random.default_rng(3).standard_normal((plan.ports, 40))
    np.testing.assert_allclose(made.apply(vectors), matrix @ vectors, atol=1e-13)
    single = made.apply(vectors[:, 0].astype(np.float32))
    assert single.dtype == np.complex64
    np.testing.assert_allclose(single, matrix @ vectors[:, 0], atol=1e-5)
    energy = np.linalg.eigvalsh(matrix.conj().T @ matrix)
    assert np.abs(energy - 1).max() < 1e-13 if made.lossless else energy.max() < 1 + 1e-13


@pytest.mark.parametrize("kind", KINDS)
def test_larger_meshes_equal_full_matrices(kind):
    made = fabricate(Mesh.random(layout(kind, 16), seed=4), EACH["all"], seed=5)
    np.testing.assert_allclose(made.matrix(), reference(made), atol=1e-12)


# --- laws -----------------------------------------------------------------------------------------------------------------------


def agrees(samples, mean, second):
    """Sample mean and mean square of independent numbers, each within what chance allows."""
    assert abs(samples.mean() - mean) < CHANCE * samples.std() / sqrt(len(samples))
    squares = np.abs(samples) ** 2
    assert abs(squares.mean() - second) < CHANCE * squares.std() / sqrt(len(samples))


def moments(mesh, phase, splitter):
    """Exact mean of a mesh's matrix and of |matrix|² where errors are independent: products of mean cells, and of mean cells ⊗
    their conjugates. ``phase``: E e^{iδ}; ``splitter``: E r, E t, E r², E t², E rt."""
    r, t, rr, tt, rt = splitter
    mean_splitter = np.array([[r, 1j * t], [1j * t, r]])
    pair = np.zeros((4, 4), complex)
    straight, crossed = np.eye(2), np.array([[0, 1], [1, 0]])
    for a, x in ((1, straight), (1j, crossed)):
        for b, y in ((1, straight), (-1j, crossed)):
            weight = {(True, True): rr, (False, False): tt}.get((a == 1, b == 1), rt)
            pair += a * b * weight * np.kron(x, y)

    def shifted(angle):
        arm = np.exp(1j * angle) * phase
        return np.diag([arm, 1]), np.diag([1, arm, np.conj(arm), 1])

    plan = mesh.layout
    first, square = np.eye(plan.ports, dtype=complex), np.eye(plan.ports**2, dtype=complex)
    for e in range(plan.mzis):
        (theta, theta2), (phi, phi2) = shifted(mesh.theta[e]), shifted(mesh.phi[e])
        u, w = plan.upper[e], plan.lower[e]
        # Where a cell acts on one copy of the mesh alone it is by its mean, on both copies by its mean square.
        cell, both = mean_splitter @ theta @ mean_splitter @ phi, pair @ theta2 @ pair @ phi2
        first = on(plan.ports, u, w, cell) @ first
        step = np.kron(on(plan.ports, u, w, cell), np.eye(plan.ports)) @ np.kron(
            np.eye(plan.ports), on(plan.ports, u, w, cell.conj())
        )
        inside = [a * plan.ports + b for a in (u, w) for b in (u, w)]
        step[:, inside] = 0
        step[np.ix_(inside, inside)] = both
        square = step @ square
    ends = np.exp(1j * mesh.output_phase) * phase
    diagonal = [p * plan.ports + p for p in range(plan.ports)]
    return ends[:, None] * first, square[np.ix_(diagonal, diagonal)].real


def splitter_moments(error):
    x, weight = np.polynomial.hermite_e.hermegauss(60)
    weight = weight / weight.sum()
    if error.of == "angle":
        r, t = np.cos(pi / 4 + error.sigma * x), np.sin(pi / 4 + error.sigma * x)
    else:
        r = np.clip(sqrt(0.5) + error.sigma * x, 0, 1)
        t = np.sqrt(1 - r**2)
    return tuple(float(weight @ v) for v in (r, t, r * r, t * t, r * t))


EQUAL = (sqrt(0.5), sqrt(0.5), 0.5, 0.5, 0.5)


@pytest.mark.parametrize("name", ["phase error", "splitter angle", "splitter amplitude", "drift"])
def test_mean_and_mean_square_of_every_element(name):
    """Monte Carlo over chips against the exact law of a whole mesh."""
    faults, phase, splitter = EACH[name], 1.0, EQUAL
    if name == "phase error":
        phase = np.exp(-(0.2**2) / 2)
    elif name == "drift":
        faults, phase = Imperfections(drift=Drift(0.1)), np.exp(-(0.1**2) * 5 / 2)
    else:
        splitter = splitter_moments(faults.splitter_error)
    mesh = Mesh.random(layout("rectangular", 3), seed=6)
    mean, square = moments(mesh, phase, splitter)
    chips = [fabricate(mesh, faults, seed=k).aged(2.0).aged(3.0).matrix() for k in range(2500)]
    samples = np.array(chips).reshape(len(chips), -1)
    for found, m, s in zip(samples.T, mean.ravel(), square.ravel(), strict=True):
        agrees(found, m, s)


def big(faults, seed=7):
    return Chip(layout("rectangular", 200), faults, seed)


def normal(samples, sigma):
    n = samples.size
    assert abs(samples.mean()) < CHANCE * sigma / sqrt(n)
    assert abs(samples.var() - sigma**2) < CHANCE * sigma**2 * sqrt(2 / n)
    assert abs(np.mean(samples**4) - 3 * sigma**4) < CHANCE * sigma**4 * sqrt(96 / n)


def test_draws_are_normal_and_independent():
    chip = big(Imperfections(phase_error=PhaseError(0.03), splitter_error=SplitterError(0.02)))
    normal(chip.phase_errors, 0.03)
    normal(chip.splitter_angles - pi / 4, 0.02)
    first, second = chip.splitter_angles.T - pi / 4
    assert abs(np.mean(first * second)) < CHANCE * 0.02**2 / sqrt(len(first))
    amplitude = big(Imperfections(splitter_error=SplitterError(0.02, of="amplitude"))).splitter_angles
    normal(np.cos(amplitude) - sqrt(0.5), 0.02)
    assert (amplitude - pi / 4).std() == pytest.approx(sqrt(2) * 0.02, rel=0.02)


def test_stuck_shifters():
    """A binomial number, each at a uniform phase or the one given; what is programmed reaches the others only."""
    stuck = big(Imperfections(stuck=StuckShifters(0.1))).stuck
    n, there = stuck.size, stuck[~np.isnan(stuck)]
    assert abs(there.size - 0.1 * n) < CHANCE * sqrt(0.1 * 0.9 * n)
    assert abs(there.mean() - pi) < CHANCE * pi / sqrt(3 * there.size)
    assert abs(there.var() - pi**2 / 3) < CHANCE * pi**2 / 3 * sqrt(0.8 / there.size)
    mesh = Mesh.random(layout("rectangular", 12), seed=18)
    made = fabricate(mesh, Imperfections(stuck=StuckShifters(0.3, phase_rad=1.0)), seed=19)
    real = np.concatenate(list(made.real_phases.values()))
    fixed = ~np.isnan(made.chip.stuck)
    assert 0 < fixed.sum() < fixed.size
    np.testing.assert_array_equal(real, np.where(fixed, 1.0, np.concatenate(list(mesh.phases.values()))))
    assert np.isnan(Chip(mesh.layout, Imperfections(stuck=StuckShifters(0.0)), 0).stuck).all()


def test_drift_walks():
    """Variance grows as time, whatever the steps; steps are independent of one another."""
    mesh = Mesh.random(layout("rectangular", 150), seed=8)
    new = fabricate(mesh, Imperfections(drift=Drift(0.01)), seed=9)
    sooner = new.aged(2.0)
    later = sooner.aged(7.0)
    first, last = (np.concatenate(list(m.real_phases.values())) for m in (sooner, later))
    start = np.concatenate(list(mesh.phases.values()))
    normal(first - start, 0.01 * sqrt(2))
    normal(last - start, 0.01 * 3)
    normal(last - first, 0.01 * sqrt(7))
    assert abs(np.mean((last - first) * (first - start))) < CHANCE * 0.01**2 * sqrt(14 / first.size)
    np.testing.assert_array_equal(new.aged(0.0).matrix(), new.matrix())
    np.testing.assert_array_equal(later.with_phases(phi=mesh.phi).matrix(), later.matrix())


def test_quantisation_error_is_uniform():
    """Variance step²/12; every driven phase is one of 2^bits in [0, 2π), and none nearer is."""
    phases = np.random.default_rng(10).uniform(-6 * pi, 6 * pi, 200_000)  # whole turns
    for bits in (1, 3, 8):
        grid = PhaseQuantisation(bits)
        driven = grid.driven(phases)
        codes = np.rint(driven / grid.step_rad)
        np.testing.assert_allclose(codes * grid.step_rad, driven, rtol=1e-15)
        assert set(codes) == set(range(2**bits))
        error = np.angle(np.exp(1j * (driven - phases)))
        assert np.abs(error).max() <= grid.step_rad / 2 + 1e-12
        variance = grid.step_rad**2 / 12
        assert abs(error.mean()) < CHANCE * sqrt(variance / phases.size)
        assert abs(error.var() - variance) < CHANCE * variance * sqrt(0.8 / phases.size)


@pytest.mark.parametrize("turns", [1, 1.05, 1.5, 2, 4.9, 64])
def test_the_nearest_phase_of_any_full_scale(turns):
    """Beside all that can be driven: steps that do not divide a turn lie elsewhere in each, and those past one come round."""
    phases = np.append(np.random.default_rng(11).uniform(-6 * pi, 6 * pi, 400), [0.0, 1.95 * pi, 2 * pi, -1e-300])
    for bits in (1, 2, 5, 8):
        grid = PhaseQuantisation(bits, full_scale_rad=turns * 2 * pi)
        driven, every = grid.driven(phases), grid.step_rad * np.arange(2**bits)
        np.testing.assert_allclose(driven, [nearest(phase, every) for phase in phases], rtol=0, atol=1e-11)
        assert not np.signbit(driven).any()
    assert PhaseQuantisation(2, full_scale_rad=2.1 * pi).driven([1.95 * pi])[0] == 0


@pytest.mark.parametrize("bits", [6, 8, 10])
def test_matrix_error_against_phase_bits(bits):
    """Each of the 64 phases of an 8×8 mesh moves the matrix by its error at right angles to the others', on average:
    ‖error‖²/‖matrix‖² = 64 · step²/12 / 8, where errors are small."""
    faults = Imperfections(phase_quantisation=PhaseQuantisation(bits))
    squares = []
    for k in range(60):
        unitary = haar(8, k)
        squares.append(np.linalg.norm(fabricate(decompose(unitary), faults, seed=0).matrix() - unitary) ** 2 / 8)
    expected = 64 * (2 * pi / 2**bits) ** 2 / 12 / 8
    assert np.sqrt(np.mean(squares)) == pytest.approx(sqrt(expected), rel=0.04)


def test_both_arms_turn_opposite_ways():
    """Arms of an MZI at ±θ/2 rounded and the mean that was designed in: no light meets a common phase of rounding."""
    grid = PhaseQuantisation(3, arms="both", outputs=False)
    mesh = Mesh.random(layout("rectangular", 2), seed=5)
    theta, phi = mesh.theta[0], mesh.phi[0]
    arm, outer = (round(x / grid.step_rad) * grid.step_rad for x in (theta / 2, phi))
    splitter = np.array([[1, 1j], [1j, 1]]) / sqrt(2)
    arms = np.exp(0.5j * theta) * np.diag([np.exp(1j * arm), np.exp(-1j * arm)])
    expected = np.diag(np.exp(1j * mesh.output_phase)) @ splitter @ arms @ splitter @ np.diag([np.exp(1j * outer), 1])
    made = fabricate(mesh, Imperfections(phase_quantisation=grid), seed=0)
    np.testing.assert_allclose(made.matrix(), expected, atol=1e-14)
    assert np.abs(made.matrix() - mesh.matrix()).max() > 0.05


# --- heat and loss --------------------------------------------------------------------------------------------------------------


def test_kernels():
    kernel = MeasuredKernel((50.0, 100.0, 300.0), (0.1, 0.04, 0.01))
    np.testing.assert_allclose(kernel.share(np.array([10.0, 75.0, 200.0, 300.0, 301.0])), [0.1, 0.07, 0.025, 0.01, 0.0])
    np.testing.assert_allclose(ExponentialKernel(0.2, 50.0).share(np.array([50.0, 100.0])), 0.2 * np.exp([-1.0, -2.0]))
    mesh = Mesh.random(layout("triangular", 7), seed=11)
    heat = ThermalCrosstalk(kernel, shifter_um=45.0, port_um=127.0)
    made = fabricate(mesh, Imperfections(crosstalk=heat), seed=0)
    flat = np.concatenate(list(mesh.phases.values()))
    real = np.concatenate(list(made.real_phases.values()))
    np.testing.assert_allclose(real, heated(list(flat), mesh.layout, heat), atol=1e-12)


def test_heat_of_one_heater():
    plan = layout("rectangular", 6)
    dark = Mesh(plan, np.zeros(plan.mzis), np.zeros(plan.mzis), np.zeros(6))
    one = plan.index[2, 2]
    lit = dark.with_phases(theta=np.eye(plan.mzis)[one])
    real = fabricate(lit, Imperfections(crosstalk=HEAT), seed=0).real_phases
    assert real["theta"][one] == pytest.approx(1.0)
    assert real["phi"][one] == pytest.approx(0.1 * np.exp(-100 / 60))
    assert real["phi"][plan.index[3, 3]] == pytest.approx(0.1 * np.exp(-np.hypot(100, 40) / 60))
    assert real["output_phase"][5] == pytest.approx(0.1 * np.exp(-np.hypot(7 * 100, 3 * 40) / 60), abs=1e-14)


def test_losses_that_all_paths_share_are_one_factor():
    unitary = haar(8, 12)
    for kind in ("rectangular", "triangular"):
        mesh = decompose(unitary, kind)
        made = fabricate(mesh, Imperfections(insertion_loss=InsertionLoss(column_db=0.3)), seed=0)
        np.testing.assert_allclose(made.matrix(), 10 ** (-0.3 * mesh.layout.depth / 20) * unitary, atol=1e-13)
    fft = Mesh.random(layout("butterfly", 8), seed=13)
    made = fabricate(fft, Imperfections(insertion_loss=replace(LOSS, crossing_db=0.0, dummy_shifters=True)), seed=0)
    total = 3 * (2 * 0.2 + 2 * 0.3 + 0.05) + 0.3
    np.testing.assert_allclose(made.matrix(), 10 ** (-total / 20) * fft.matrix(), atol=1e-13)


def test_number_of_crossings():
    """Halves of h waveguides shuffled: the j-th of the upper half crosses j of the lower, that one's partner h − 1 − j."""
    for column, row in enumerate(crossings(layout("butterfly", 16))):
        half = 1 << column
        block = [*range(half), *reversed(range(half))]
        assert row.tolist() == block * (8 // half)
    assert crossings(layout("binary_tree", 8))[2].tolist() == [0, 1, 1, 1, 3, 0, 0, 0]
    assert not crossings(layout("rectangular", 9)).any()


# --- chips ----------------------------------------------------------------------------------------------------------------------


def test_a_seed_is_a_chip():
    mesh = Mesh.random(layout("rectangular", 8), seed=14)
    made = fabricate(mesh, EACH["all"], seed=15)
    np.testing.assert_array_equal(made.matrix(), fabricate(mesh, EACH["all"], seed=15).matrix())
    assert np.abs(made.matrix() - fabricate(mesh, EACH["all"], seed=16).matrix()).max() > 0.01
    alone = fabricate(mesh, EACH["phase error"], seed=15)
    np.testing.assert_array_equal(alone.chip.phase_errors, made.chip.phase_errors)
    other = made.with_phases(theta=mesh.theta[::-1])
    assert other.chip is made.chip
    np.testing.assert_allclose(other.matrix(), reference(other), atol=1e-13)
    assert np.abs(other.matrix() - made.matrix()).max() > 0.01


def test_fabricated_meshes_in_an_engine():
    weights = np.random.default_rng(17).standard_normal((6, 5))
    engine = SvdEngine.program(weights)
    faults = Imperfections(PhaseError(0.01))
    made = engine.with_meshes(lambda mesh, number: fabricate(mesh, faults, seed=number))
    off = np.linalg.norm(made.matrix() - weights) / np.linalg.norm(weights)
    assert 0.005 < off < 0.1
    same = engine.with_meshes(lambda mesh, number: fabricate(mesh, Imperfections(), seed=number))
    np.testing.assert_allclose(same.matrix(), weights, atol=1e-13)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: PhaseError(-1.0), "sigma_rad: expected a finite number ≥ 0, got -1.0"),
        (lambda: PhaseError(float("nan")), "sigma_rad"),
        (lambda: PhaseQuantisation(0), "bits: expected ≥ 1, got 0"),
        (lambda: PhaseQuantisation(33), "bits: expected at most 32, got 33"),
        (lambda: PhaseQuantisation(4, full_scale_rad=3.0), "full_scale_rad: expected a finite number ≥ 6.28319, got 3.0"),
        (lambda: PhaseQuantisation(4, full_scale_rad=403.0), "full_scale_rad: expected at most 64 turns, 128π, got 403.0"),
        (
            lambda: PhaseQuantisation(4).driven_in(layout("rectangular", 4), np.ones(3)),
            "phases: expected shape (…, 16), got (3,)",
        ),
        (
            lambda: PhaseQuantisation(4, outputs=False).driven_in(layout("rectangular", 2), [0, 0, 0, np.inf]),
            "phases: expected fin",
        ),
        (lambda: PhaseQuantisation(4, arms="two"), "arms: unknown name 'two'; known: both, one"),
        (lambda: PhaseQuantisation(4, outputs=1), "outputs: expected True or False, got 1"),
        (lambda: StuckShifters(1.5), "share: expected 0 to 1, got 1.5"),
        (lambda: StuckShifters(0.5, 7.0), "phase_rad: expected 0 to below 2π, got 7.0"),
        (lambda: SplitterError(0.1, of="power"), "of: unknown name 'power'; known: amplitude, angle"),
        (lambda: InsertionLoss(crossing_db=-0.1), "crossing_db"),
        (lambda: InsertionLoss(dummy_shifters=1), "dummy_shifters: expected True or False, got 1"),
        (lambda: ExponentialKernel(2.0, 1.0), "strength: expected 0 to 1, got 2.0"),
        (lambda: MeasuredKernel((2.0, 1.0), (0.1, 0.1)), "distances_um: expected a finite number > 2, got 1.0"),
        (lambda: MeasuredKernel((1.0,), (0.1, 0.1)), "shares: expected one for each of 1 distances, got 2"),
        (lambda: MeasuredKernel((1.0,), (1.5,)), "shares: expected −1 to 1, got 1.5"),
        (lambda: ThermalCrosstalk(lambda d: 0.1, 1.0, 1.0), "kernel: expected ExponentialKernel or MeasuredKernel"),
        (lambda: Imperfections(phase_error=0.1), "phase_error: expected PhaseError or Ideal, got 0.1"),
        (lambda: Imperfections(PhaseQuantisation(4)), "phase_error: expected PhaseError or Ideal"),
        (lambda: big(Imperfections(splitter_error=SplitterError(0.3, of="amplitude"))).splitter_angles, "sigma: expected one"),
        (lambda: fabricate(Mesh.random(layout("rectangular", 2), seed=0), None, seed=1), "imperfections: expected Imp"),
        (lambda: fabricate(np.eye(2), Imperfections(), seed=1), "mesh: expected a Mesh, got ndarray"),
        (lambda: fabricate(Mesh.random(layout("rectangular", 2), seed=0), Imperfections(), seed=0.5), "seed: expected an int"),
        (lambda: fabricate(Mesh.random(layout("rectangular", 2), seed=0), Imperfections(), seed=0).aged(-1), "seconds"),
    ],
)
def test_bad_input_is_one_line(make, says):
    with pytest.raises(InputError) as error:
        make()
    assert says in str(error.value)
    assert "\n" not in str(error.value)
