"""Meshes as torch modules, and physics as a module that has no gradient."""

import numpy as np
import pytest
import torch
from torch import nn
from training_tasks import NOISY, chip

from numerics.errors import InputError
from photonic.detection import Converter, ExtinctionRatio, Homodyne, Modulator, Receiver, ShotNoise
from photonic.fabrication import fabricate
from photonic.imperfections import (
    Drift,
    ExponentialKernel,
    Imperfections,
    InsertionLoss,
    PhaseError,
    PhaseQuantisation,
    SplitterError,
    StuckShifters,
    ThermalCrosstalk,
)
from photonic.training import MeshLinear, OpticalLayer, PhysicalLayer, Tally, UnitPower, random_mesh


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


FAULTS = {
    "phase error": Imperfections(PhaseError(0.2)),
    "splitters": Imperfections(splitter_error=SplitterError(0.1)),
    "loss": Imperfections(splitter_error=SplitterError(0.1), insertion_loss=InsertionLoss(0.3, 0.5)),
    "bits": Imperfections(phase_quantisation=PhaseQuantisation(4)),
    "both arms": Imperfections(phase_quantisation=PhaseQuantisation(4, arms="both", outputs=False)),
    "crosstalk": Imperfections(crosstalk=ThermalCrosstalk(ExponentialKernel(0.1, 100.0), 100.0, 50.0)),
    "stuck": Imperfections(stuck=StuckShifters(0.3)),
    "drift": Imperfections(drift=Drift(0.3)),
}


def amplitudes(batch, inputs, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).uniform(-0.5, 0.5, (batch, inputs)))


@pytest.mark.parametrize("kind", ["rectangular", "triangular", "butterfly", "diamond"])
@pytest.mark.parametrize("seen", ["power", "field"])
def test_layer_is_its_matrix(kind, seen):
    layer = OpticalLayer(7, 5, mesh=kind, seen=seen, chip=random_mesh(8, kind, seed=1))
    ports = layer.linear.layout.signal_ports
    matrix = layer.linear.mesh.matrix()[ports, ports][:5, :7]
    x = amplitudes(6, 7)
    field = x.numpy() @ matrix.T
    expected = np.abs(field) ** 2 if seen == "power" else field.real
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, atol=1e-13)
    assert layer(x.float()).dtype == torch.float32


@pytest.mark.parametrize("name", FAULTS)
def test_twin_of_a_chip_is_the_chip(name):
    made = fabricate(random_mesh(6, seed=2), FAULTS[name], seed=3).aged(2.0)
    layer = OpticalLayer(6, 6, chip=made)
    x = amplitudes(5, 6)
    np.testing.assert_allclose(layer(x).detach().numpy(), np.abs(x.numpy() @ made.matrix().T) ** 2, atol=1e-13)
    ideal = OpticalLayer(6, 6, chip=made.mesh)(x)
    assert float((layer(x) - ideal).detach().abs().max()) > 1e-3


@pytest.mark.parametrize("name", ["phase error", "splitters", "loss", "drift"])
def test_gradients_on_a_chip_against_differences(name):
    made = fabricate(random_mesh(6, seed=2), FAULTS[name], seed=3).aged(1.0)
    layer, x = OpticalLayer(6, 4, chip=made), amplitudes(5, 6)
    weights = torch.from_numpy(np.random.default_rng(1).normal(size=(5, 4)))

    def loss():
        return float((weights * layer(x).sin()).sum())

    (weights * layer(x).sin()).sum().backward()
    for phases in layer.parameters():
        for index in range(0, len(phases), 3):
            sides = []
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    phases[index] += step
                    sides.append(loss())
                    phases[index] -= step
            assert phases.grad[index] == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-6, abs=1e-9)


def test_stuck_shifters_have_no_gradient():
    made = fabricate(random_mesh(6, seed=2), FAULTS["stuck"], seed=3)
    layer = MeshLinear(made)
    layer(amplitudes(5, 6)).real.sin().sum().backward()
    found = torch.cat([layer.theta.grad, layer.phi.grad, layer.output_phase.grad]).numpy()
    stuck = ~np.isnan(made.chip.stuck)
    assert 0 < stuck.sum() < stuck.size
    assert (found[stuck] == 0).all()
    assert (found[~stuck] != 0).any()


def test_chips_drawn_anew_while_it_trains():
    errors = Imperfections(PhaseError(0.1), splitter_error=SplitterError(0.05))
    x = amplitudes(4, 6)

    def layer():
        return OpticalLayer(6, 6, redrawn=errors, reading_sigma=0.01, seed=5)

    first, again = layer(), layer()
    seen = [first(x) for _ in range(3)]
    assert all(torch.equal(a, again(x)) for a in seen)
    assert not torch.equal(seen[0], seen[1])
    quiet = OpticalLayer(6, 6, redrawn=errors, seed=5)
    made = fabricate(quiet.linear.mesh, errors, seed=(5 << 32) + 1).matrix()
    np.testing.assert_allclose(quiet(x).detach().numpy(), np.abs(x.numpy() @ made.T) ** 2, atol=1e-13)
    first.eval()
    np.testing.assert_allclose(first(x).detach().numpy(), np.abs(x.numpy() @ quiet.linear.mesh.matrix().T) ** 2, atol=1e-13)


def test_reading_noise_has_its_variance():
    layer, x = OpticalLayer(4, 4, reading_sigma=0.02, seed=1), amplitudes(1, 4).expand(40_000, 4)
    off = (layer(x) - layer.eval()(x)).detach().numpy()
    assert abs(off.mean()) < 4 * 0.02 / 400
    assert off.std() == pytest.approx(0.02, rel=0.01)


# --- physics --------------------------------------------------------------------------------------------------------------------


def test_physical_layer_reads_what_the_chip_does():
    made, x = chip(6, 1), amplitudes(4, 5)
    field = x.numpy() @ made.matrix()[:3, :5].T
    np.testing.assert_allclose(PhysicalLayer(made, inputs=5, outputs=3)(x).numpy(), np.abs(field) ** 2, atol=1e-13)
    homodyne = PhysicalLayer(made, inputs=5, outputs=3, detection=Homodyne(1e-3))
    np.testing.assert_allclose(homodyne(x).numpy(), field.real, atol=1e-12)


def test_physical_layer_has_no_gradient():
    layer, x = PhysicalLayer(chip(6, 1)), amplitudes(4, 6).requires_grad_()
    assert list(layer.parameters()) == []
    out = layer(x)
    with pytest.raises(InputError, match="gradient: expected no call for it"):
        out.sum().backward()
    with pytest.raises(InputError, match="gradient: expected no call for it"):
        torch.autograd.grad(nn.Linear(6, 2).double()(layer(nn.Linear(6, 6).double()(x))).sum(), x)
    # Behind it there are gradients as ever.
    weights = torch.ones(6, 2, dtype=torch.float64, requires_grad=True)
    (layer(x.detach()) @ weights).sum().backward()
    assert weights.grad is not None


def test_noise_of_readings_in_mean_and_variance():
    made = chip(4, 1)
    x = amplitudes(1, 4).expand(20_000, 4)
    layer = PhysicalLayer(made, detection=NOISY, seed=7)
    seen = layer(x).numpy()
    power = np.abs(made.matrix() @ x[0].numpy()) ** 2
    variance = sum(NOISY.variances_a2(1e-3 * power).values()) / 1e-3**2
    np.testing.assert_allclose(seen.mean(axis=0), power, atol=4 * np.sqrt(variance.max() / len(x)))
    np.testing.assert_allclose(seen.var(axis=0), variance, rtol=0.05)
    assert not np.array_equal(layer(x).numpy(), seen)
    np.testing.assert_array_equal(PhysicalLayer(made, detection=NOISY, seed=7)(x).numpy(), seen)


def test_converters_and_modulators_are_there():
    made, x = chip(4, 1), amplitudes(3, 4)
    coarse = PhysicalLayer(made, modulator=Modulator(1e-3, ExtinctionRatio(20), Converter(3, 1.0)), detection=Receiver())
    driven = Converter(3, 1.0).convert(x.numpy())[0]
    leaky = ExtinctionRatio(20).modulated(driven)
    np.testing.assert_allclose(coarse(x).numpy(), np.abs(leaky @ made.matrix().T) ** 2, atol=1e-13)
    assert coarse.clipped == 0
    coarse(4 * x)
    assert coarse.clipped == int((np.rint(np.abs(4 * x.numpy()) * 3) > 3).sum())


def test_drift_and_programming():
    tally = Tally()
    layer, x = PhysicalLayer(chip(6, 1, drift=0.3), tally=tally), amplitudes(4, 6)
    before = layer(x)
    layer.advance(4.0)
    np.testing.assert_allclose(layer(x).numpy(), np.abs(x.numpy() @ chip(6, 1, drift=0.3).aged(4.0).matrix().T) ** 2, atol=1e-13)
    assert not torch.allclose(before, layer(x), atol=1e-3)
    layer.program(theta=torch.zeros(15, requires_grad=True))
    assert (layer.chip.phases["theta"] == 0).all()
    work = tally.work
    assert (work.light_vectors, work.dac_samples, work.adc_samples, work.phase_settings, work.settlings) == (12, 72, 72, 15, 1)


def test_unit_power():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert torch.equal(UnitPower()(x), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: OpticalLayer(0, 3), "inputs"),
        (lambda: OpticalLayer(3, 3, seen="phase"), "phase"),
        (lambda: OpticalLayer(3, 3, chip=random_mesh(2, seed=1)), "chip: expected at least 3 signals, got 2"),
        (lambda: OpticalLayer(3, 3, reading_sigma=-1), "reading_sigma: expected"),
        (lambda: OpticalLayer(3, 3)(torch.ones(2, 4)), r"x: expected shape \(batch, 3\), got \(2, 4\)"),
        (lambda: OpticalLayer(3, 3)(torch.ones(2, 3, dtype=torch.complex64)), "x: expected a tensor of real numbers"),
        (lambda: MeshLinear(chip(3, 1), redrawn=Imperfections(PhaseError(0.1))), "redrawn: expected Ideal for a chip"),
        (lambda: MeshLinear(np.eye(3)), "mesh: expected Mesh or FabricatedMesh"),
        (lambda: MeshLinear(random_mesh(3, seed=0))(torch.ones(3)), "vectors: expected shape"),
        (lambda: PhysicalLayer(random_mesh(3, seed=0)), "chip: expected FabricatedMesh"),
        (lambda: PhysicalLayer(chip(3, 1), outputs=4), "chip: expected at least 4 signals, got 3"),
        (lambda: PhysicalLayer(chip(3, 1)).advance(-1), "seconds: expected"),
        (lambda: PhysicalLayer(chip(3, 1)).program(chi=[1.0]), "phases: expected theta, phi, output_phase, got 'chi'"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_shot_noise_alone():
    # Without thermal noise a dark port reads 0 exactly.
    layer = PhysicalLayer(fabricate(random_mesh(4, seed=0), Imperfections(), seed=0), detection=Receiver(shot=ShotNoise()))
    assert (layer(torch.zeros(3, 4, dtype=torch.float64)) == 0).all()
