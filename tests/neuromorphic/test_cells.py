"""Torch cells against the equations of ``Neurons`` written for one neuron at a time, and against their own gradients."""

import numpy as np
import pytest
import torch
from digit_networks import accuracy, digits, train
from torch import nn

from neuromorphic.cells.neuron_cells import (
    LIF,
    AdaptiveLIF,
    BalancedResonateAndFire,
    CubaLIF,
    Readout,
    Recurrent,
    ResonateAndFire,
    SpikingSequential,
    Threshold,
    decay,
)
from neuromorphic.cells.surrogate import Surrogate
from neuromorphic.cells.torch_network import to_network
from neuromorphic.dynamics import simulate
from neuromorphic.encoders import bernoulli_events, latency_events
from numerics.errors import InputError


def one_neuron(neurons, inputs):
    """Outputs and voltages (before and after the reset) of one neuron, by the words of ``network.Neurons``."""
    g = {name: float(values[0]) for name, values in neurons.arrays(1).items()}
    z, i, a, level, rests_until, spiked = complex(g["v_init"]), 0.0, 0.0, 0.0, -1, False

    def reset(z):
        if neurons.reset == "zero":
            return complex(g["v_reset"])
        return z - level if neurons.reset == "subtract" else z

    outputs = []
    for t, x in enumerate(inputs):
        if spiked and neurons.reset_next_step:
            z = reset(z)
        i = g["decay_i"] * i + (g["input_bias"] + x)
        rests = t <= rests_until
        if neurons.kind == "threshold":
            z = complex(g["gain"] * i + g["bias"])
        elif not rests:
            turn = np.exp(1j * g["angle"]) if neurons.kind == "resonate_and_fire" else 1.0
            z = g["decay_v"] * turn * z + g["gain"] * i + g["bias"]
        if neurons.kind == "readout":
            outputs.append(z.real)
            continue
        level = g["threshold"] + g["adaptation"] * a
        spiked = not rests and (z.real >= level if neurons.fires_at_threshold else z.real > level)
        a = g["decay_a"] * a + spiked
        if spiked:
            rests_until = t + g["refractory_steps"]
        if spiked and not neurons.reset_next_step and neurons.kind != "threshold":
            z = reset(z)
        outputs.append(float(spiked))
    return outputs


CELLS = {
    "lif": lambda **k: LIF(0.9, threshold=0.8, **k),
    "lif with everything": lambda **k: LIF(
        0.85, threshold=0.7, gain=0.6, bias=0.02, input_bias=-0.03, v_reset=-0.2, v_init=0.4, refractory_steps=2, **k
    ),
    "cuba": lambda **k: CubaLIF(0.7, 0.9, threshold=1.1, gain=0.4, **k),
    "adaptive": lambda **k: AdaptiveLIF(0.95, 0.5, 0.8, threshold=0.6, **k),
    "adaptive current": lambda **k: AdaptiveLIF(0.95, 0.5, 0.8, threshold=0.6, decay_i=0.5, refractory_steps=1, **k),
    "resonate": lambda **k: ResonateAndFire(0.95, 0.4, threshold=1.3, v_reset=0.1, **k),
    "resonate, refractory": lambda **k: ResonateAndFire(0.95, 0.4, threshold=1.0, refractory_steps=3, **k),
    "threshold": lambda **k: Threshold(0.5, gain=2.0, bias=0.1, **k),
}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("reset", ["zero", "subtract", "none"])
@pytest.mark.parametrize("next_step", [False, True])
def test_cells_equal_the_equations(cell, reset, next_step):
    module = CELLS[cell](reset=reset, reset_next_step=next_step).double()
    rng = np.random.default_rng(3)
    inputs = rng.normal(0.3, 0.6, (80, 2, 4))
    found = module(torch.tensor(inputs)).numpy()
    neurons = module.neurons((4,))
    expected = np.array([[one_neuron(neurons, inputs[:, b, n]) for n in range(4)] for b in range(2)])
    assert 0.02 < found.mean() < 0.95
    np.testing.assert_array_equal(found, expected.transpose(2, 0, 1))


def test_threshold_met_exactly():
    ones = torch.ones(4, 1, 1)
    assert LIF(1.0, threshold=2.0)(ones).flatten().tolist() == [0, 0, 1, 0]
    assert LIF(1.0, threshold=2.0, fires_at_threshold=True)(ones).flatten().tolist() == [0, 1, 0, 1]


def test_readout_is_a_filter():
    x = torch.randn(12, 1, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = Readout(0.8, decay_i=0.5).double()(x)[:, 0].numpy()
    neurons = Readout(0.8, decay_i=0.5).double().neurons((3,))
    expected = np.array([one_neuron(neurons, x[:, 0, n].tolist()) for n in range(3)]).T
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15)
    kernel = [sum(0.8**k * 0.5 ** (t - k) for k in range(t + 1)) for t in range(12)]
    np.testing.assert_allclose(found[:, 0], np.convolve(x[:, 0, 0].numpy(), kernel)[:12], atol=1e-12)


@pytest.mark.parametrize("cell", [*CELLS, "recurrent"])
def test_steps_in_a_row_are_the_sequence(cell):
    module = Recurrent(LIF(0.9), 4) if cell == "recurrent" else CELLS[cell]()
    x = torch.rand(20, 3, 4, generator=torch.Generator().manual_seed(1))
    whole = module(x)
    state, outputs = None, []
    for now in x:
        output, state = module.step(now, state)
        outputs.append(output)
    assert torch.equal(torch.stack(outputs), whole)
    first, state = module.unroll(x[:7])
    assert torch.equal(torch.cat([first, module.unroll(x[7:], state)[0]]), whole)


def test_recurrent_weights_carry_the_step_before():
    cell = Recurrent(LIF(0.0, threshold=0.5), 2)
    with torch.no_grad():
        cell.weights.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    x = torch.zeros(4, 1, 2)
    x[0, 0, 0] = 1
    assert cell(x)[:, 0].tolist() == [[1, 0], [0, 1], [1, 0], [0, 1]]


def test_sequential_folds_steps_into_the_batch():
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(1, 2, 3),
        LIF(0.8, threshold=0.2),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8, 3),
        LIF(0.9, threshold=0.1),
    ]
    module = SpikingSequential(*layers)
    x = torch.rand(6, 2, 1, 6, 6)
    maps = torch.stack([layers[0](now) for now in x])
    spikes = layers[1](maps)
    drive = torch.stack([layers[4](layers[2](now).flatten(1)) for now in spikes])
    assert torch.equal(module(x), layers[5](drive))
    state, outputs = None, []
    for now in x:
        output, state = module.step(now, state)
        outputs.append(output)
    assert torch.equal(torch.stack(outputs), module(x))
    assert 0 < module(x).mean() < 1


def test_gradient_through_time_by_hand():
    """Two steps, one neuron, reset by subtraction: the product of surrogate and decay, written out."""
    surrogate = Surrogate("arctan", 2.0)
    cell = LIF(0.5, threshold=1.0, reset="subtract", surrogate=surrogate, learn=("decay_v", "threshold")).double()
    x = torch.tensor([[[0.9]], [[0.7]]], dtype=torch.float64, requires_grad=True)
    cell(x).sum().backward()
    v1, v2 = 0.9, 0.5 * 0.9 + 0.7
    d1, d2 = (float(surrogate.derivative(torch.tensor(v - 1.0, dtype=torch.float64))) for v in (v1, v2))
    np.testing.assert_allclose(x.grad.flatten().numpy(), [d1 + 0.5 * d2, d2], rtol=1e-12)
    assert cell.decay_v.grad.item() == pytest.approx(0.9 * d2, rel=1e-12)
    assert cell.threshold.grad.item() == pytest.approx(-d1 - d2, rel=1e-12)


def test_gradient_through_the_reset_only_where_asked():
    grads = []
    for detach in (True, False):
        cell = LIF(0.5, threshold=1.0, reset="subtract", detach_reset=detach, surrogate=Surrogate("straight_through", 1.0))
        x = torch.tensor([[[1.5]], [[0.0]]], requires_grad=True)
        cell(x)[1].sum().backward()
        grads.append(x.grad[0].item())
    assert grads == [0.5, 0.0]  # decay · (1 − threshold · surrogate)


def test_learned_decay_stays_within_0_and_1():
    cell = LIF(0.9, learn=("decay_v",))
    with torch.no_grad():
        cell.decay_v.fill_(1.7)
    assert cell.neurons((1,)).decay_v == 1.0
    assert cell(torch.full((3, 1, 1), 0.4)).flatten().tolist() == [0, 0, 1]


def test_parameters_one_a_channel():
    cell = LIF(torch.tensor([0.5, 0.9]).reshape(2, 1, 1), threshold=np.array([1.0, 2.0]).reshape(2, 1, 1)).double()
    neurons = cell.neurons((2, 3, 3))
    assert neurons.decay_v.tolist() == [pytest.approx(0.5)] * 9 + [pytest.approx(0.9)] * 9
    with pytest.raises(InputError, match=r"decay_v: shape \(2, 1, 1\) does not broadcast to features \(3, 3, 3\)"):
        cell.neurons((3, 3, 3))


def test_decay_of_a_time_constant():
    assert decay(0.02, 0.001) == pytest.approx(np.exp(-0.05))
    with pytest.raises(InputError, match="time_constant_s: expected seconds > 0, got 0"):
        decay(0, 0.001)


def test_balanced_resonators_by_complex_numbers():
    """Higuchi et al. 2024 with Python's complex numbers, and that the edge of divergence is where |1 + δ(b + jω)| = 1."""
    frequency, offset = np.array([5.0, 20.0, 60.0]), np.array([0.5, 1.0, 3.0])
    cell = BalancedResonateAndFire(torch.tensor(frequency), torch.tensor(offset), dt=0.01, threshold=0.05).double()
    x = np.random.default_rng(0).normal(0, 3, (120, 2, 3))
    found = cell(torch.tensor(x)).detach().numpy()
    edge = cell.edge().detach().numpy()
    np.testing.assert_allclose(abs(1 + 0.01 * (edge + 1j * cell.frequency.detach().numpy())), 1, rtol=1e-12)
    expected = np.zeros_like(x)
    for b, n in np.ndindex(2, 3):
        u, q = 0j, 0.0
        for t in range(120):
            damping = edge[n] - cell.offset[n].item() - q
            u += 0.01 * ((damping + 1j * cell.frequency[n].item()) * u + x[t, b, n])
            expected[t, b, n] = u.real > cell.threshold.item() + q
            q = 0.9 * q + expected[t, b, n]
    np.testing.assert_array_equal(found, expected)
    assert 0.01 < expected.mean() < 0.5
    with pytest.raises(InputError, match=r"frequency: expected 0 to 1/dt = 100 radians, got 5 to 120"):
        BalancedResonateAndFire(torch.tensor([5.0, 120.0]), 1.0, dt=0.01)


def rate_code(images):
    return bernoulli_events(images.numpy().ravel(), seed=0, steps=8).dense().reshape(8, *images.shape)


def latency_code(images):
    return latency_events(images.numpy().ravel(), steps=8, threshold=0.05).dense().reshape(8, *images.shape)


@pytest.mark.parametrize("encode", [rate_code, latency_code])
def test_digits_as_events_are_learned_with_surrogate_gradients(encode):
    """One hidden layer of 100 LIF neurons, 8 steps: at least 93 % of the digits; the trained network in the reference simulator
    gives the same readout."""
    x, _, x_test, y_test = digits()
    torch.manual_seed(0)
    surrogate = Surrogate("arctan", 2.0)
    module = SpikingSequential(
        nn.Linear(64, 100), LIF(0.9, surrogate=surrogate, learn=("decay_v",)), nn.Linear(100, 10), Readout(0.95)
    )
    events, tests = (torch.tensor(encode(images), dtype=torch.float32) for images in (x, x_test))
    train(module, lambda m, x, y: nn.functional.cross_entropy(m(x).mean(0), y), epochs=6, rate=1e-2, events=events)
    with torch.no_grad():
        assert accuracy(module(tests).mean(0), y_test) >= 0.93
        module = module.double()
        expected = module(tests[:, :20].double()).numpy()
    assert module[1].decay_v.item() != pytest.approx(0.9, abs=1e-4)
    network = to_network(module, (64,))
    for k in range(20):
        found = simulate(network, {"input": tests[:, k].double().numpy()}).values["3"]
        np.testing.assert_allclose(found, expected[:, k], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: LIF(1.2), "decay_v: expected 0 to 1, got 1.2 to 1.2"),
        (lambda: LIF(0.5, reset="substract"), "reset: unknown name 'substract'; did you mean 'subtract'?"),
        (
            lambda: LIF(0.5, learn=("decay_i",)),
            "learn: 'decay_i' is no parameter that this cell can learn; known: decay_v, threshold",
        ),
        (lambda: LIF(0.5, refractory_steps=1.5), "refractory_steps: expected whole numbers ≥ 0, got 1.5"),
        (lambda: LIF(0.5, angle=1.0), "parameter of integrate_and_fire: unknown name 'angle'"),
        (lambda: ResonateAndFire(0.5, 1.0, decay_i=0.1), "parameter of resonate_and_fire: unknown name 'decay_i'"),
        (lambda: Readout(0.5, treshold=1.0), "parameter of readout: unknown name 'treshold'"),
        (lambda: LIF(float("nan")), "decay_v: expected a finite number"),
        (lambda: LIF(0.5)(torch.zeros(3)), "x: expected shape (steps, batch, …)"),
        (lambda: LIF(0.5)(torch.zeros(0, 2, 3)), "x: expected shape (steps, batch, …)"),
    ],
)
def test_errors(make, text):
    with pytest.raises(InputError) as raised:
        make()
    assert str(raised.value).startswith(text)
