"""Gradients measured in the mesh: equal to the true ones without noise, and right on average with it."""

import numpy as np
import pytest
import torch
from training_tasks import accuracy, chip, digits, machines, optical, train

from numerics.errors import InputError
from photonic.detection import Homodyne, Modulator, Receiver, ShotNoise, ThermalNoise
from photonic.fabrication import fabricate
from photonic.imperfections import Drift, Imperfections, InsertionLoss, PhaseError, PhaseQuantisation, SplitterError
from photonic.training import InSituLayer, InSituMesh, OpticalLayer, Probes, random_mesh
from photonic.training.in_situ import tapped_backward, tapped_forward


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


ERRORS = Imperfections(PhaseError(0.1), PhaseQuantisation(6), SplitterError(0.05), drift=Drift(0.1))
PHASES = ("theta", "phi", "output_phase")


def made(kind="rectangular", errors=ERRORS, ports=6):
    return fabricate(random_mesh(ports, kind, seed=1), errors, seed=2).aged(3.0)


def numbers(rows, columns, seed=0, size=0.4):
    rng = np.random.default_rng(seed)
    return size * (rng.uniform(-1, 1, (rows, columns)) + 1j * rng.uniform(-1, 1, (rows, columns)))


def true_gradient(mesh, vectors, gradient):
    """By differences of the chip's own matrix: what real phases turn, not what is programmed."""
    ports = mesh.layout.signal_ports
    plan, found = mesh.layout, []
    parts = mesh.chip.parts
    for name in PHASES:
        slopes = np.empty(mesh.phases[name].size)
        for index in range(slopes.size):
            sides = []
            for turn in (np.pi / 2, -np.pi / 2):
                real = {key: value.copy() for key, value in mesh.real_phases.items()}
                real[name][index] += turn
                cells = parts.cells(real["theta"], real["phi"])
                state = np.eye(plan.ports, dtype=complex)
                for upper, lower, cell in zip(plan.upper, plan.lower, cells, strict=True):
                    state[[upper, lower]] = cell @ state[[upper, lower]]
                matrix = (parts.output * np.exp(1j * real["output_phase"]))[:, None] * state
                sides.append(matrix[ports, ports] @ vectors)
            # Fields are a + e^{ix}·b in a phase x: half the difference is the derivative, exactly.
            slopes[index] = np.sum(np.conj(gradient) * (sides[0] - sides[1]) / 2).real
        found.append(slopes)
    return found


@pytest.mark.parametrize("way", ["toggled", "subtracted"])
@pytest.mark.parametrize("kind", ["rectangular", "triangular", "diamond", "butterfly"])
def test_measured_is_the_true_gradient(kind, way):
    mesh = made(kind, ports=4 if kind == "butterfly" else 5)
    signals = mesh.layout.signals
    x, g = numbers(signals, 7), numbers(signals, 7, seed=1, size=3.0)
    found = InSituMesh(mesh, way=way).gradient(x, g)
    for name, true in zip(PHASES, true_gradient(mesh, x, g), strict=True):
        np.testing.assert_allclose(found.phases[name], true, atol=1e-10)
    ports = mesh.layout.signal_ports
    np.testing.assert_allclose(found.inputs, mesh.matrix()[ports, ports].conj().T @ g, atol=1e-10)


def test_light_inside_is_that_of_the_matrix():
    mesh = made(errors=Imperfections(splitter_error=SplitterError(0.1), insertion_loss=InsertionLoss(0.2, 0.3, column_db=0.1)))
    light = numbers(6, 3)
    np.testing.assert_allclose(tapped_forward(mesh, light)[-1], mesh.matrix() @ light, atol=1e-13)
    np.testing.assert_allclose(tapped_backward(mesh, light)[-1], mesh.matrix().T @ light, atol=1e-13)


@pytest.mark.parametrize("way", ["toggled", "subtracted"])
@pytest.mark.parametrize("seen", ["power", "field"])
def test_layer_has_the_gradients_of_its_twin(seen, way):
    mesh = made()
    twin, layer = OpticalLayer(5, 4, chip=mesh, seen=seen), InSituLayer(InSituMesh(mesh, way=way), 5, 4, seen=seen)
    x = torch.from_numpy(np.random.default_rng(3).uniform(-0.5, 0.5, (7, 5)))
    sides = []
    for module, phases in ((twin, twin.linear), (layer, layer)):
        given = x.clone().requires_grad_()
        out = module(given)
        (out.sin() * torch.arange(4)).sum().backward()
        sides.append([out.detach(), given.grad, *(getattr(phases, name).grad for name in PHASES)])
    for expected, found in zip(*sides, strict=True):
        np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-10)


def noisy(**parts):
    return Receiver(shot=ShotNoise(), thermal=ThermalNoise(1e3), **parts)


def readings(probes, way, count, mesh, x, g):
    device = InSituMesh(mesh, probes, way=way, seed=5)
    return np.array([np.concatenate(list(device.gradient(x, g).phases.values())) for _ in range(count)])


def test_noise_leaves_no_bias():
    mesh, x, g = made(ports=4), numbers(4, 5), numbers(4, 5, seed=1)
    true = np.concatenate(true_gradient(mesh, x, g))
    spread = {}
    for power_w in (1e-4, 4e-4):
        probes = Probes(Modulator(power_w), Homodyne(1e-3, noisy()), noisy(), tap_share=0.1)
        found = readings(probes, "toggled", 400, mesh, x, g)
        error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
        assert (np.abs(found.mean(axis=0) - true) < 4 * error).all()
        assert error.min() > 1e-4
        spread[power_w] = found.std(axis=0).mean()
    # Thermal noise is the same for any light: four times the light, a quarter of the error.
    assert spread[1e-4] / spread[4e-4] == pytest.approx(4, rel=0.15)


def test_subtracting_powers_adds_the_noise_of_the_resent_light():
    # ĝ = g + n goes in again: (|ĝ|² − |g|²)/2 is left over, on average half the variance of n, at every phase.
    mesh, x, g = made(ports=4), numbers(4, 5), numbers(4, 5, seed=1)
    ends = Homodyne(1e-3, Receiver(thermal=ThermalNoise(20.0)))
    probes = Probes(Modulator(3e-7), ends)
    diode = ThermalNoise(20.0).density_a2_per_hz * ends.receiver.bandwidth_hz
    variance = 4 * diode / ends.local_w / 3e-7
    expected = np.linalg.norm(g, axis=0).sum() * variance / 2
    true = np.concatenate(true_gradient(mesh, x, g))
    off = {way: readings(probes, way, 400, mesh, x, g) - true for way in ("toggled", "subtracted")}
    for way, bias in (("toggled", 0.0), ("subtracted", expected)):
        mean = off[way].mean()
        error = off[way].mean(axis=1).std() / np.sqrt(400)
        assert abs(mean - bias) < 4 * error, way
    assert expected > 8 * off["subtracted"].mean(axis=1).std() / np.sqrt(400)


def test_loss_common_to_all_ways_keeps_the_direction_and_uneven_loss_does_not():
    x, g = numbers(6, 9), numbers(6, 9, seed=1)
    cosines = []
    for loss in (0.0, 0.3, 1.0):
        mesh = made(errors=Imperfections(insertion_loss=InsertionLoss(phase_shifter_db=loss)))
        true = np.concatenate(true_gradient(mesh, x, g))
        found = np.concatenate(list(InSituMesh(mesh).gradient(x, g).phases.values()))
        cosines.append(found @ true / np.linalg.norm(found) / np.linalg.norm(true))
    assert cosines[0] == pytest.approx(1, abs=1e-12)
    assert 1 - 1e-6 > cosines[1] > cosines[2] > 0.8
    # Of loss alike on all ports in a column, a phase in column c has its gradient times the power left there.
    even = InsertionLoss(column_db=1.0)
    mesh = made(errors=Imperfections(insertion_loss=even))
    found, true = InSituMesh(mesh).gradient(x, g).phases["theta"], true_gradient(mesh, x, g)[0]
    np.testing.assert_allclose(found, true * 10 ** (-0.1 * (mesh.layout.column + 1)), atol=1e-10)


def test_trains_through_errors_that_nobody_knows():
    x, y, test_x, test_y = digits()
    plain = train(optical(OpticalLayer(16, 16, seed=1), OpticalLayer(16, 10, seed=2)), x, y, epochs=8)
    errors = Imperfections(PhaseError(0.15), splitter_error=SplitterError(0.08))
    deployed = accuracy(machines(plain, errors, seed=3), test_x, test_y)
    devices = [
        InSituMesh(fabricate(layer.linear.mesh, errors, seed=6 + k), Probes(ends=Homodyne(1e-3, noisy()), taps=noisy()), seed=k)
        for k, layer in enumerate((plain[0], plain[2]))
    ]
    on_chip = optical(InSituLayer(devices[0], 16, 16), InSituLayer(devices[1], 16, 10))
    before = accuracy(on_chip, test_x, test_y)
    train(on_chip, x, y, epochs=2)
    after, digital = accuracy(on_chip, test_x, test_y), accuracy(plain, test_x, test_y)
    assert digital > 0.8
    assert max(deployed, before) < 0.6
    assert after > 0.75


def test_settings_and_light_are_counted_once():
    layer = InSituLayer(InSituMesh(made()), 5, 4)
    x = torch.zeros(3, 5, dtype=torch.float64)
    layer(x)
    layer(x)
    assert layer.device.tally.work.settlings == 0  # the chip has these phases already
    with torch.no_grad():
        layer.theta += 0.1
    layer(x)
    assert layer.device.tally.work.phase_settings == 2 * 15 + 6
    assert layer.device.tally.work.light_vectors == 9


def test_same_seed_same_bits():
    probes = Probes(ends=Homodyne(1e-3, noisy()), taps=noisy())
    x, g = numbers(6, 4), numbers(6, 4, seed=1)
    found = [InSituMesh(made(), probes, seed=3).gradient(x, g).phases["theta"] for _ in range(2)]
    np.testing.assert_array_equal(*found)
    assert not np.array_equal(found[0], InSituMesh(made(), probes, seed=4).gradient(x, g).phases["theta"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: InSituMesh(random_mesh(3, seed=0)), "chip: expected FabricatedMesh"),
        (lambda: InSituMesh(chip(3, 1), way="guessed"), "guessed"),
        (lambda: Probes(tap_share=0.0), "tap_share: expected"),
        (lambda: Probes(tap_share=1.5), "tap_share: expected at most 1, got 1.5"),
        (lambda: Probes(ends=Receiver()), "ends: expected Homodyne"),
        (lambda: InSituMesh(chip(3, 1)).forward(np.ones((4, 2))), r"vectors: expected shape \(3, batch\), got \(4, 2\)"),
        (lambda: InSituMesh(chip(3, 1)).gradient(np.ones((3, 2)), np.ones((3, 3))), "gradient: expected the shape"),
        (lambda: InSituLayer(InSituMesh(chip(3, 1)), 4, 2), "chip: expected at least 4 signals"),
        (lambda: InSituLayer(InSituMesh(chip(3, 1)), 3, 2, seen="phase"), "phase"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
