"""Gradients of digital twins: as good as the twin; and noise in training, on chips that nobody measured."""

import numpy as np
import pytest
import torch
from training_tasks import NOISY, accuracy, chip, digits, machines, optical, train

from numerics.errors import InputError
from photonic.fabrication import fabricate
from photonic.imperfections import Imperfections, PhaseError, SplitterError
from photonic.training import InSituLayer, InSituMesh, OpticalLayer, PhysicalLayer, TwinLayer, UnitPower, deploy, random_mesh


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


PHASES = ("theta", "phi", "output_phase")


def slopes(net, parameters, x):
    out = net(x)
    (out.sin() * torch.arange(out.shape[1])).sum().backward()
    return np.concatenate([p.grad.numpy() for p in parameters])


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_a_twin_that_knows_its_chip_has_the_measured_gradient():
    made = chip(6, 1)
    x = torch.from_numpy(np.random.default_rng(0).uniform(0, 0.5, (5, 6)))
    measured = InSituLayer(InSituMesh(made), 6, 4)
    expected = slopes(measured, [getattr(measured, name) for name in PHASES], x)
    found = {}
    for name, known in (("exact", made), ("ideal", made.mesh), ("stale", chip(6, 1, drift=0.3).aged(1.0))):
        twin = OpticalLayer(6, 4, chip=known)
        layer = TwinLayer(PhysicalLayer(made, outputs=4), twin)
        np.testing.assert_allclose(layer(x).detach().numpy(), measured(x).detach().numpy(), atol=1e-12)
        found[name] = slopes(layer, twin.parameters(), x)
    np.testing.assert_allclose(found["exact"], expected, atol=1e-10)
    assert 0.3 < cosine(found["ideal"], expected) < 0.999
    assert 0.3 < cosine(found["stale"], expected) < 0.999


def test_errors_are_those_of_the_machine():
    # The loss's slope is taken where the machine is: 2·(read − wanted), not 2·(believed − wanted).
    made, x = chip(4, 2), torch.eye(4, dtype=torch.float64)
    twin = OpticalLayer(4, 4, chip=made.mesh)
    layer = TwinLayer(PhysicalLayer(made, detection=NOISY, seed=1), twin)
    read = PhysicalLayer(made, detection=NOISY, seed=1)(x)
    wanted = torch.full((4, 4), 0.25, dtype=torch.float64)
    (layer(x) - wanted).square().sum().backward()
    found = [p.grad.clone() for p in twin.parameters()]
    twin.zero_grad()
    (twin(x) * 2 * (read - wanted)).sum().backward()
    for a, p in zip(found, twin.parameters(), strict=True):
        np.testing.assert_allclose(a.numpy(), p.grad.numpy(), atol=1e-12)


def test_deploy_sets_what_differs():
    layer, machine = OpticalLayer(4, 4, seed=3), PhysicalLayer(chip(4, 1))
    deploy(layer, machine)
    deploy(layer, machine)
    assert machine.tally.work.settlings == 1
    np.testing.assert_array_equal(machine.chip.phases["theta"], layer.linear.theta.detach().numpy())
    with pytest.raises(InputError, match="theta: expected shape"):
        deploy(OpticalLayer(5, 4), PhysicalLayer(chip(4, 1)))


def test_trained_through_a_twin_the_machine_is_better_than_set_from_a_file():
    # The twin knows only the layout; light knows the rest.
    x, y, test_x, test_y = digits()
    plain = train(optical(OpticalLayer(16, 16, seed=1), OpticalLayer(16, 10, seed=2)), x, y, epochs=8)
    deployed = accuracy(machines(plain, ERRORS, seed=3), test_x, test_y)
    layers = [
        TwinLayer(machine, OpticalLayer(16, machine.outputs, chip=machine.chip.mesh))
        for machine in (machines(plain, ERRORS, seed=3)[k] for k in (0, 2))
    ]
    aware = optical(*layers)
    before = accuracy(aware, test_x, test_y)
    train(aware, x, y, epochs=6)
    assert before == pytest.approx(deployed, abs=0.02)
    assert accuracy(aware, test_x, test_y) > deployed + 0.1


ERRORS = Imperfections(PhaseError(0.15), splitter_error=SplitterError(0.08))


def on_chips(net, errors, count, x, y):
    return np.array([accuracy(machines(net, errors, seed=seed), x, y) for seed in range(count)])


def noise_study(epochs, chips, sigma=0.1):
    """Accuracy on so many chips: trained without noise, and with a chip drawn anew for each step."""
    x, y, test_x, test_y = digits()
    errors = Imperfections(PhaseError(sigma), splitter_error=SplitterError(sigma / 2))
    plain = optical(OpticalLayer(16, 16, seed=0), OpticalLayer(16, 10, seed=1))
    aware = optical(OpticalLayer(16, 16, redrawn=errors, seed=0), OpticalLayer(16, 10, redrawn=errors, seed=1))
    found = []
    for net in (plain, aware):
        optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
        steps = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * 12)
        for epoch in range(epochs):
            for batch in torch.from_numpy(np.random.default_rng(epoch).permutation(len(x))).split(100):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
                optimizer.step()
                steps.step()
        found.append(on_chips(net.eval(), errors, chips, test_x, test_y))
    return found


def test_noise_in_training_helps_the_worst_chips():
    plain, aware = noise_study(epochs=20, chips=12)
    assert aware.min() > plain.min() + 0.02
    assert aware.std() < plain.std()


@pytest.mark.exhaustive
@pytest.mark.parametrize("sigma", [0.05, 0.1])
def test_noise_in_training_on_many_chips(sigma):
    plain, aware = noise_study(epochs=60, chips=60, sigma=sigma)
    better = aware - plain
    print(f"sigma {sigma}: plain {plain.mean():.3f}, worst {plain.min():.3f}; aware {aware.mean():.3f}, worst {aware.min():.3f}")
    assert better.mean() > -0.01
    assert np.percentile(aware, 10) > np.percentile(plain, 10)


def test_only_the_gradient_of_an_exact_twin_is_right_after_a_bend():
    # A layer of digital weights in front gets its gradient through the twin, too.
    made = chip(5, 3)
    x = torch.from_numpy(np.random.default_rng(0).uniform(0, 1, (6, 5)))
    weights = torch.eye(5, dtype=torch.float64, requires_grad=True)
    found = []
    for layer in (TwinLayer(PhysicalLayer(made), OpticalLayer(5, 5, chip=made)), InSituLayer(InSituMesh(made), 5, 5)):
        weights.grad = None
        layer(UnitPower()(x @ weights)).sin().sum().backward()
        found.append(weights.grad.numpy())
    np.testing.assert_allclose(*found, atol=1e-10)


def test_bad_input():
    with pytest.raises(InputError, match="machine: expected PhysicalLayer"):
        TwinLayer(OpticalLayer(3, 3), OpticalLayer(3, 3))
    with pytest.raises(InputError, match="twin: expected OpticalLayer"):
        TwinLayer(PhysicalLayer(fabricate(random_mesh(3, seed=0), ERRORS, seed=0)), PhysicalLayer(chip(3, 1)))
