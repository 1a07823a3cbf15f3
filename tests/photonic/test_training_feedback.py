"""Random projections by light, and networks that learn by feedback through them."""

import numpy as np
import pytest
import torch
from training_tasks import NOISY, TRAINED, batches, digits

from numerics.errors import InputError
from photonic.detection import Converter, Receiver
from photonic.training import FeedbackNetwork, OpticalProjection, random_mesh, scattering, ternarised, wide_narrow_wide


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def vectors(batch, inputs, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, inputs))


def test_projections_are_the_medium():
    medium, x = scattering(6, 9, seed=1), vectors(4, 6)
    light = OpticalProjection(medium)
    np.testing.assert_allclose(light.powers(x), np.abs(x @ medium.T) ** 2, atol=1e-12)
    np.testing.assert_allclose(light.linear(x), (x @ medium.T).real, atol=1e-12)
    signs = np.sign(np.round(x))
    np.testing.assert_allclose(light.ternary(signs), (signs @ medium.T).real, atol=1e-12)
    assert (light.linear(np.zeros((1, 6))) == 0).all()
    mesh = random_mesh(6, seed=2).matrix()
    np.testing.assert_allclose(OpticalProjection(mesh).linear(x), (x @ mesh.T).real, atol=1e-12)


def test_medium_is_normal():
    medium = scattering(40, 500, seed=3)
    assert np.mean(np.abs(medium) ** 2) * 40 == pytest.approx(1, rel=0.03)
    assert abs(np.mean(medium**2)) * 40 < 0.03
    # Powers behind it are exponential: as large a deviation as their mean.
    speckle = OpticalProjection(medium).powers(vectors(20, 40))
    assert speckle.std(axis=1).mean() / speckle.mean() == pytest.approx(1, rel=0.05)
    np.testing.assert_array_equal(medium, scattering(40, 500, seed=3))


def test_noise_of_the_camera_in_mean_and_variance():
    medium, x = scattering(6, 4, seed=1), np.repeat(vectors(1, 6), 20_000, axis=0)
    light = OpticalProjection(medium, camera=NOISY, seed=3)
    seen, size = light.linear(x), np.linalg.norm(x[0])
    true = (x[0] @ medium.T).real
    reference = np.sqrt(1e-3 * np.mean(np.abs(medium) ** 2))
    field = np.sqrt(1e-3) * (x[0] / size @ medium.T)
    variance = sum(v for sign in (1, -1) for v in NOISY.variances_a2(np.abs(field + sign * reference) ** 2).values())
    variance *= (size / (4 * reference * np.sqrt(1e-3))) ** 2
    np.testing.assert_allclose(seen.mean(axis=0), true, atol=4 * np.sqrt(variance.max() / len(x)))
    np.testing.assert_allclose(seen.var(axis=0), variance, rtol=0.05)


def test_ternarised():
    np.testing.assert_array_equal(ternarised([-0.5, -0.1, 0.0, 0.1, 0.11], 0.1), [-1, 0, 0, 0, 1])
    with pytest.raises(InputError, match="threshold: expected"):
        ternarised([0.0], -1)


def test_coarse_cameras_are_coarse():
    medium, x = scattering(6, 5, seed=1), vectors(4, 6)
    coarse = OpticalProjection(medium, camera=Receiver(adc=Converter(3, 1e-3, signed=False)))
    fine = OpticalProjection(medium, camera=Receiver(adc=Converter(16, 1e-3, signed=False)))
    true = np.abs(x @ medium.T) ** 2
    assert np.abs(coarse.powers(x) - true).max() > 100 * np.abs(fine.powers(x) - true).max() > 0


# --- networks -------------------------------------------------------------------------------------------------------------------


def centred():
    """8×8 digits with mean 0, of size about 1."""
    x, y, test_x, test_y = digits(8)
    mean = x.mean(dim=0)
    return 16 * (x - mean), y, 16 * (test_x - mean), test_y


def network(seed=0, camera=NOISY, **settings):
    back = OpticalProjection(scattering(10, 96, seed=seed), camera=camera, seed=seed)
    return FeedbackNetwork((64, 64, 32, 10), back, **({"rate": 3e-3} | settings))


def share_right(net, x, y):
    return float((net.predict(x) == y).double().mean())


def test_step_by_hand():
    rng = np.random.default_rng(0)
    x, labels = torch.from_numpy(rng.normal(size=(5, 7))), torch.tensor([0, 2, 1, 1, 0])
    medium = scattering(3, 10, seed=1)
    net = FeedbackNetwork((7, 6, 4, 3), OpticalProjection(medium))
    for layer in net.layers:
        torch.nn.init.normal_(layer.weight, std=0.4, generator=torch.Generator().manual_seed(1))
    w = [layer.weight.detach().numpy().copy() for layer in net.layers]
    first = np.tanh(x.numpy() @ w[0].T)
    second = np.tanh(first @ w[1].T)
    scores = second @ w[2].T
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    error = (p - np.eye(3)[labels]) / 5
    back = error @ medium.real.T
    expected = [
        (back[:, :6] * (1 - first**2)).T @ x.numpy(),
        (back[:, 6:] * (1 - second**2)).T @ first,
        error.T @ second,
    ]
    loss = net.step(x, labels)
    assert loss == pytest.approx(-np.log(p[np.arange(5), labels]).mean(), rel=1e-12)
    for layer, gradient, before in zip(net.layers, expected, w, strict=True):
        np.testing.assert_allclose(layer.weight.grad.numpy(), gradient, atol=1e-12)
        # Adam's first step is the rate in the gradient's direction.
        np.testing.assert_allclose(layer.weight.detach().numpy(), before - 1e-3 * np.sign(gradient), atol=1e-6)


@pytest.mark.parametrize("threshold", [None, 0.25])
def test_angle_below_90_degrees_in_every_layer_all_along(threshold):
    x, y, test_x, test_y = centred()
    for seed in (0, 1, 2):
        net, angles = network(seed, threshold=threshold), []
        for step, batch in enumerate(batches(6, 100, seed)):
            net.step(x[batch], y[batch])
            if step and step % 6 == 0:
                angles.append(net.angles_deg(x[:600], y[:600]))
        angles = np.array(angles)
        assert angles.shape == (11, 3)
        # Two directions drawn at random in so many dimensions are 90° apart, give or take 0.9° and 1.3°.
        assert (angles[:, :2] < 90).all(), angles
        assert (angles[:, :2].mean(axis=0) < 78).all()
        assert (angles[:, 2] < 1e-4).all()
        assert share_right(net, test_x, test_y) > 0.87


def test_angles_know_when_feedback_is_wrong():
    # Feedback through the transposed weights themselves is backpropagation; through their negative, the opposite.
    x, y, *_ = centred()
    for sign, angle in ((1, 0.0), (-1, 180.0)):
        net = FeedbackNetwork((64, 32, 10), OpticalProjection(np.ones((32, 10))))
        for layer in net.layers:
            torch.nn.init.normal_(layer.weight, std=0.2, generator=torch.Generator().manual_seed(1))
        net.feedback = OpticalProjection(sign * net.layers[1].weight.detach().numpy().T)
        assert net.angles_deg(x[:100], y[:100])[0] == pytest.approx(angle, abs=1e-3)


def test_measuring_angles_counts_and_changes_nothing():
    x, y, *_ = centred()
    net = network(camera=Receiver())
    before = [p.clone() for layer in net.layers for p in layer.parameters()]
    net.angles_deg(x[:50], y[:50])
    assert net.tally.work == type(net.tally.work)()
    assert net.feedback.tally.work == type(net.tally.work)()
    assert all(torch.equal(a, p) for a, p in zip(before, (p for layer in net.layers for p in layer.parameters()), strict=True))


def test_wide_layers_cost_no_update():
    x, y, test_x, test_y = centred()
    net = wide_narrow_wide(64, 256, 24, 10, camera=NOISY, seed=1)
    media = [medium.medium.copy() for medium in (*net.media, net.feedback)]
    assert net.parameters.trained == (256 + 1) * 24 + (256 + 1) * 10
    assert net.parameters.fixed == (64 + 1) * 256 + (24 + 1) * 256
    assert sum(p.numel() for layer in net.layers for p in layer.parameters()) == net.parameters.trained
    angles = []
    for step, batch in enumerate(batches(6, 50, 1)):
        net.step(x[batch], y[batch])
        if step % 24 == 12:
            angles.append(net.angles_deg(x[:600], y[:600])[0])
    assert max(angles) < 90
    for before, medium in zip(media, (*net.media, net.feedback), strict=True):
        np.testing.assert_array_equal(before, medium.medium)
    steps = 6 * TRAINED // 50
    assert net.tally.work.updates == steps * net.parameters.trained
    assert net.tally.work.phase_settings == net.media[0].tally.work.phase_settings == 0
    assert net.media[0].tally.work.light_vectors == 6 * TRAINED
    assert net.feedback.tally.work.light_vectors == 2 * 6 * TRAINED
    learned = share_right(net, test_x, test_y)
    # The narrow layer has learned something: drawn at random and left so, the rest does worse.
    fixed = wide_narrow_wide(64, 256, 24, 10, camera=NOISY, seed=1)
    torch.nn.init.normal_(fixed.layers[0].weight, std=1 / 16, generator=torch.Generator().manual_seed(1))
    fixed._optimizer = torch.optim.Adam(fixed.layers[1].parameters(), lr=1e-3)
    for batch in batches(6, 50, 1):
        fixed.step(x[batch], y[batch])
    assert learned > 0.92
    assert learned > share_right(fixed, test_x, test_y) + 0.01


def test_same_seed_same_bits():
    x, y, *_ = centred()
    nets = [network(4), network(4)]
    for net in nets:
        for batch in batches(1, 300):
            net.step(x[batch], y[batch])
    np.testing.assert_array_equal(nets[0].layers[0].weight.detach(), nets[1].layers[0].weight.detach())


@pytest.mark.exhaustive
@pytest.mark.parametrize("threshold", [None, 0.25])
def test_feedback_comes_near_backpropagation(threshold):
    x, y, test_x, test_y = centred()
    for seed in range(3):
        net = network(seed, threshold=threshold)
        for batch in batches(30, 100, seed):
            net.step(x[batch], y[batch])
        torch.manual_seed(seed)
        dense = torch.nn.Sequential(
            torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, 10)
        ).double()
        optimizer = torch.optim.Adam(dense.parameters(), lr=3e-3)
        for batch in batches(30, 100, seed):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(dense(x[batch]), y[batch]).backward()
            optimizer.step()
        back = float((dense(test_x).argmax(dim=1) == test_y).double().mean())
        print(threshold, seed, share_right(net, test_x, test_y), back, net.angles_deg(x, y))
        assert share_right(net, test_x, test_y) > back - 0.06


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scattering(0, 3, seed=1), "inputs"),
        (lambda: OpticalProjection(np.full((2, 2), np.nan)), "medium: expected finite numbers"),
        (lambda: OpticalProjection(np.eye(2), power_w=0), "power_w: expected"),
        (lambda: OpticalProjection(np.eye(2)).powers(np.ones((1, 3))), r"vectors: expected numbers of shape \(batch, 2\)"),
        (lambda: OpticalProjection(np.eye(2)).linear([[np.inf, 0]]), "vectors: expected finite numbers"),
        (lambda: OpticalProjection(np.eye(2)).ternary([[0.5, 0]]), "signs: expected −1, 0 and 1"),
        (lambda: FeedbackNetwork((3, 2), OpticalProjection(np.eye(2))), "sizes: expected inputs"),
        (lambda: FeedbackNetwork((3, 4, 2), OpticalProjection(np.eye(2))), "feedback: expected a medium from 2 to 4, got 2 to 2"),
        (lambda: FeedbackNetwork((3, 2, 2), OpticalProjection(np.eye(2)), media=[None]), "media: expected 2"),
        (
            lambda: FeedbackNetwork((3, 2, 2), OpticalProjection(np.eye(2)), media=[OpticalProjection(np.eye(3)), None]),
            "media: expected 4 inputs in front of layer 0, got 3",
        ),
        (lambda: network().step(torch.ones(2, 63), torch.tensor([0, 1])), r"x: expected shape \(batch, 64\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
