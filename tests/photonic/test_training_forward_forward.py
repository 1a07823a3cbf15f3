"""Forward-forward training of physics that nobody has a model of, and what drift does to it and to its rivals."""

import numpy as np
import pytest
import torch
from training_tasks import NOISY, TRAINED, accuracy, batches, chip, digits, optical

from numerics.errors import InputError
from photonic.training import ForwardForward, OpticalLayer, PhysicalLayer, TwinLayer, cosine_goodness


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


DRIFT_RAD = 0.3


def stack(seed, units=(26, 26), drift=1.0, **settings):
    layers = [
        PhysicalLayer(chip(ports, seed + 50 * k, drift=drift), detection=NOISY, seed=seed + k)
        for k, ports in enumerate((26, units[0]))
    ]
    settings = {"rate": 0.02, "sharpness": 10.0, "label_share": 0.3, "seed": seed} | settings
    return ForwardForward(layers, 10, units=units, **settings)


def share_right(net, x, y):
    return float((net.predict(x) == y).double().mean())


def run(net, epochs, x, y, seed=0, size=50):
    for batch in batches(epochs, size, seed):
        losses = net.step(x[batch], y[batch])
    return losses


def test_goodness_and_its_slope():
    rng = np.random.default_rng(0)
    y = torch.from_numpy(rng.normal(size=(7, 5))).requires_grad_()
    direction = torch.from_numpy(np.abs(rng.normal(size=5)))
    direction /= direction.norm()
    expected = torch.nn.functional.cosine_similarity(y.abs(), direction[None], dim=1)
    found = cosine_goodness(y.detach(), direction)
    np.testing.assert_allclose(found.goodness, expected.detach(), atol=1e-14)
    (slope,) = torch.autograd.grad(expected.sum(), y)
    np.testing.assert_allclose(found.slope, slope, atol=1e-14)
    assert (cosine_goodness(torch.zeros(1, 5, dtype=torch.float64), direction).slope == 0).all()


def test_prediction_sums_the_goodness_of_all_layers():
    chips = [chip(8, 1), chip(8, 2)]
    net = ForwardForward([PhysicalLayer(made) for made in chips], 3, units=(8, 4), label_share=0.4, seed=2)
    x = torch.rand(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.zeros(6, 3, dtype=torch.float64)
    for label in range(3):
        mark = torch.eye(3, dtype=torch.float64)[label].expand(6, 3)
        light = torch.cat([0.4**0.5 * mark, 0.6**0.5 * x / x.norm(dim=1, keepdim=True)], dim=1)
        for k, made in enumerate(chips):
            power = torch.from_numpy(np.abs(light.numpy() @ made.matrix().T) ** 2)
            y = power @ net.weights[k].T + net.biases[k]
            expected[:, label] += torch.nn.functional.cosine_similarity(y.abs(), net.directions[k][None], dim=1)
            light = y.abs() / y.norm(dim=1, keepdim=True)
    np.testing.assert_allclose(net.goodness(x), expected, atol=1e-9)
    assert torch.equal(net.predict(x), net.goodness(x).argmax(dim=1))


def test_step_is_adam_on_the_written_loss():
    # The same step with autograd on W alone, in front of physics without noise.
    made, x = chip(8, 1), torch.rand(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    net = ForwardForward([PhysicalLayer(made)], 3, units=(4,), rate=0.1, sharpness=7.0, label_share=0.4, seed=2)
    weight = net.weights[0].clone().requires_grad_()
    bias = net.biases[0].clone().requires_grad_()
    other = ForwardForward([PhysicalLayer(made)], 3, units=(4,), rate=0.1, sharpness=7.0, label_share=0.4, seed=2)
    wrong = (labels + torch.from_numpy(other._wrong.integers(1, 3, 6))) % 3
    goodness = []
    for marks in (labels, wrong):
        light = torch.cat(
            [0.4**0.5 * torch.eye(3, dtype=torch.float64)[marks], 0.6**0.5 * x / x.norm(dim=1, keepdim=True)], dim=1
        )
        power = torch.from_numpy(np.abs(light.numpy() @ made.matrix().T) ** 2)
        y = power @ weight.T + bias
        goodness.append(torch.nn.functional.cosine_similarity(y.abs(), net.directions[0][None], dim=1))
    loss = torch.log1p(torch.exp(-7.0 * (goodness[0] - goodness[1]))).mean()
    loss.backward()
    optimizer = torch.optim.Adam([weight, bias], lr=0.1)
    assert net.step(x, labels)[0] == pytest.approx(loss.item(), rel=1e-12)
    optimizer.step()
    np.testing.assert_allclose(net.weights[0], weight.detach(), atol=1e-9)
    np.testing.assert_allclose(net.biases[0], bias.detach(), atol=1e-9)


def test_no_gradient_is_asked_for(monkeypatch):
    def refuse(*_args, **_settings):
        raise AssertionError("a gradient was asked for")

    x, y, *_ = digits()
    net = stack(1)
    for name in ("backward", "grad"):
        monkeypatch.setattr(torch.autograd, name, refuse)
    monkeypatch.setattr(torch.Tensor, "backward", refuse)
    before = [w.clone() for w in net.weights]
    first = net.step(x[:50], y[:50])
    last = run(net, 3, x, y)
    assert all(a < b for a, b in zip(last, first, strict=True))
    assert all(not torch.equal(a, b) for a, b in zip(before, net.weights, strict=True))
    # Nor could one be had.
    monkeypatch.undo()
    with pytest.raises(InputError, match="gradient"):
        net.layers[0](torch.ones(1, 26, requires_grad=True)).sum().backward()


def test_layers_learn_by_themselves():
    # A layer's update does not depend on the layer behind it.
    x, y, *_ = digits()
    alone = ForwardForward([PhysicalLayer(chip(26, 1))], 10, units=(26,), seed=1)
    deep = ForwardForward([PhysicalLayer(chip(26, 1)), PhysicalLayer(chip(26, 9))], 10, units=(26, 26), seed=1)
    deep.weights[0].copy_(alone.weights[0])
    deep.directions[0].copy_(alone.directions[0])
    alone._wrong, deep._wrong = np.random.default_rng(0), np.random.default_rng(0)
    for net in (alone, deep):
        run(net, 1, x, y)
    np.testing.assert_array_equal(alone.weights[0], deep.weights[0])


def test_learns_digits_and_same_seed_same_bits():
    x, y, test_x, test_y = digits()
    nets = [stack(3), stack(3)]
    for net in nets:
        run(net, 1, x, y)
    np.testing.assert_array_equal(nets[0].weights[1], nets[1].weights[1])
    run(nets[0], 11, x, y, seed=1)
    right = share_right(nets[0], test_x, test_y)
    assert right > 0.72
    shuffled = y[torch.from_numpy(np.random.default_rng(0).permutation(TRAINED))]
    fooled = stack(3)
    run(fooled, 3, x, shuffled)
    assert share_right(fooled, test_x, test_y) < 0.25


# --- drift in the middle of training --------------------------------------------------------------------------------------------


def through_twins(seed, epochs, x, y, test_x, test_y, *, light, fresh=False):
    """Two meshes whose phases are trained through twins that knew the chips before they drifted.

    Args:
        light: errors are those of the machine, with the twin's way back; else all of it is the twin's.
        fresh: the twins are told of the drift.
    """
    made = [chip(16, seed, drift=1.0), chip(16, seed + 50, drift=1.0)]
    machines = [
        PhysicalLayer(c, outputs=out, detection=NOISY, seed=seed + k)
        for k, (c, out) in enumerate(zip(made, (16, 10), strict=True))
    ]
    twins = [OpticalLayer(16, machine.outputs, chip=machine.chip) for machine in machines]
    real = optical(*(TwinLayer(machine, twin) for machine, twin in zip(machines, twins, strict=True)))
    net = real if light else optical(*twins)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
    found = []
    for epoch, batch in enumerate(list(batch) for batch in grouped(epochs, seed)):
        if epoch == epochs // 2:
            found.append(accuracy(real, test_x, test_y))
            for machine, twin in zip(machines, twins, strict=True):
                machine.advance(DRIFT_RAD**2)
                if fresh:
                    twin.linear.chip = twin.linear.chip.aged(DRIFT_RAD**2)
            found.append(accuracy(real, test_x, test_y))
        for rows in batch:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    return *found, accuracy(real, test_x, test_y)


def grouped(epochs, seed, size=50):
    """Batches, epoch by epoch."""
    every = list(batches(epochs, size, seed))
    step = len(every) // epochs
    return [every[k * step : (k + 1) * step] for k in range(epochs)]


def forward_only(seed, epochs, x, y, test_x, test_y):
    net, found = stack(seed), []
    for epoch, batch in enumerate(grouped(epochs, seed)):
        if epoch == epochs // 2:
            found.append(share_right(net, test_x, test_y))
            net.advance(DRIFT_RAD**2)
            found.append(share_right(net, test_x, test_y))
        for rows in batch:
            net.step(x[rows], y[rows])
    return *found, share_right(net, test_x, test_y)


def test_recovers_from_drift_where_a_stale_twin_does_not():
    data = digits()
    for seed in (0, 1):
        before, drifted, after = forward_only(seed, 8, *data)
        assert drifted < before - 0.3
        assert after > before - 0.05
        for light in (True, False):
            stale = through_twins(seed, 8, *data, light=light)
            assert stale[0] > 0.7
            assert stale[2] < after - 0.2, (seed, light)


@pytest.mark.exhaustive
def test_whole_digits():
    x, y, test_x, test_y = digits(8)
    layers = [PhysicalLayer(chip(ports, seed), detection=NOISY, seed=seed) for ports, seed in ((74, 1), (148, 2))]
    net = ForwardForward(layers, 10, units=(148, 74), rate=0.01, sharpness=20.0, label_share=0.1, seed=0)
    run(net, 30, x, y, size=100)
    right = share_right(net, test_x, test_y)
    print(f"digits of 8×8 pixels: {right:.3f}")
    assert right > 0.93


class UnitMagnitude(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.normalize(x.abs(), dim=1)


class Times(torch.nn.Module):
    def forward(self, x):
        return 26 * x


def weights_alone(seed, epochs, x, y, test_x, test_y):
    """What forward-forward has, meshes that nobody sets and digital weights behind them, by a stale twin's way back."""
    layers = []
    for k in range(2):
        made = chip(26, seed + 50 * k, drift=1.0)
        machine = PhysicalLayer(made, inputs=16 if k == 0 else 26, detection=NOISY, seed=seed + k)
        twin = OpticalLayer(machine.inputs, 26, chip=made)
        layers.append(TwinLayer(machine, twin.requires_grad_(False)))
    generator = torch.Generator().manual_seed(seed)
    dense = [torch.nn.Linear(26, out, dtype=torch.float64) for out in (26, 10)]
    for layer in dense:
        torch.nn.init.normal_(layer.weight, std=0.2, generator=generator)
    net = torch.nn.Sequential(layers[0], Times(), dense[0], UnitMagnitude(), layers[1], Times(), dense[1])
    optimizer = torch.optim.Adam([p for layer in dense for p in layer.parameters()], lr=0.01)
    found = []
    for epoch, batch in enumerate(grouped(epochs, seed)):
        if epoch == epochs // 2:
            found.append(accuracy(net, test_x, test_y))
            for layer in layers:
                layer.machine.advance(DRIFT_RAD**2)
            found.append(accuracy(net, test_x, test_y))
        for rows in batch:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    return *found, accuracy(net, test_x, test_y)


@pytest.mark.exhaustive
def test_where_only_weights_are_trained_a_stale_twin_serves_as_random_feedback():
    data = digits()
    rival, mine = (np.array([way(seed, 20, *data) for seed in range(4)]) for way in (weights_alone, forward_only))
    print("weights alone through a stale twin", rival.mean(axis=0).round(3), "forward-forward", mine.mean(axis=0).round(3))
    assert (rival[:, 2] > rival[:, 1] + 0.4).all()
    assert rival[:, 2].mean() > mine[:, 2].mean() - 0.05


@pytest.mark.exhaustive
def test_drift_with_many_seeds():
    data, rows = digits(), {}
    for seed in range(6):
        rows.setdefault("forward-forward", []).append(forward_only(seed, 20, *data))
        for name, settings in (
            ("stale twin, errors of the machine", {"light": True}),
            ("stale twin alone", {"light": False}),
            ("twin told of the drift", {"light": True, "fresh": True}),
        ):
            rows.setdefault(name, []).append(through_twins(seed, 20, *data, **settings))
    for name, found in rows.items():
        print(name, np.round(np.mean(found, axis=0), 3), np.round(np.std(found, axis=0), 3))
    last = {name: np.array(found)[:, 2] for name, found in rows.items()}
    for name in ("stale twin, errors of the machine", "stale twin alone"):
        assert (last[name] < last["forward-forward"]).all()
    assert last["twin told of the drift"].mean() > 0.8


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ForwardForward([], 3, units=()), "units: expected one number for each"),
        (lambda: ForwardForward([PhysicalLayer(chip(4, 1))], 4, units=(4,)), "layers: expected more than 4 inputs"),
        (lambda: stack(1, label_share=1.0), "label_share: expected less than 1"),
        (lambda: stack(1, rate=0.0), "rate: expected"),
        (
            lambda: ForwardForward([PhysicalLayer(chip(8, 1)), PhysicalLayer(chip(8, 1))], 3, units=(7, 8)),
            "layers: expected 7 inputs",
        ),
        (lambda: ForwardForward([OpticalLayer(8, 8)], 3, units=(7,)), "layers: expected PhysicalLayer"),
        (lambda: stack(1).step(torch.zeros(2, 16), torch.tensor([0, 1])), "x: expected values ≥ 0, in no row all of them 0"),
        (lambda: stack(1).predict(torch.ones(2, 17)), r"x: expected shape \(batch, 16\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
