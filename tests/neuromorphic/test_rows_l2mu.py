"""Row l2mu: the Legendre memory unit, its delay error, streaming against parallel, and its A and B in populations of neurons."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.special import eval_sh_legendre

from neuromorphic.cells.memory_units import LMU, LegendreMemory, delay_readout, legendre_system, zero_order_hold
from neuromorphic.cells.neural_memory import Ensemble, neural_memory
from neuromorphic.dynamics import simulate
from neuromorphic.network import Neurons, Population, Projection, SpikingNetwork, Synapses
from numerics.errors import InputError

WINDOW = 250


def white_noise(seed, *, window, windows, cycles):
    """Gaussian noise with nothing above ``cycles`` a window."""
    steps = window * windows
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(steps))
    return np.fft.irfft(spectrum * (np.fft.rfftfreq(steps, 1 / window) <= cycles), steps)


def nrmse(found, wanted):
    return float(np.sqrt(np.mean((found - wanted) ** 2) / np.mean(wanted**2)))


def delayed(u, steps):
    return np.concatenate([np.zeros(steps), u[:-steps]])


def memory_of(u, order, window):
    """The state before each step's input, (steps, order): a loop over the discrete system."""
    a, b = zero_order_hold(*legendre_system(order, window))
    states, m = np.zeros((len(u), order)), np.zeros(order)
    for t, value in enumerate(u):
        states[t] = m
        m = a @ m + b * value
    return states


@pytest.mark.parametrize(("order", "published"), [(6, 0.70), (12, 0.027), (24, 0.023)])
def test_delay_error(order, published):
    """White noise of up to 3 cycles a window, 8 windows of 250 steps from rest: root mean square of the error over that of the
    delayed input, the state read before it takes in the step's input."""
    u = white_noise(1, window=WINDOW, windows=8, cycles=3)
    found = nrmse((memory_of(u, order, WINDOW) @ delay_readout(order))[1:], delayed(u, WINDOW)[1:])
    assert float(f"{found:.2g}") == published


@pytest.mark.parametrize(("order", "expected"), [(6, 0.776), (12, 0.0202), (24, 0.0219)])
def test_delay_error_over_many_windows_is_that_of_the_transfer_function(order, expected):
    """No noise, no seed: the error's mean square over all frequencies up to 3 cycles a window."""
    a, b = zero_order_hold(*legendre_system(order, WINDOW))
    errors = []
    for cycles in (np.arange(300) + 0.5) / 100:
        z = np.exp(2j * np.pi * cycles / WINDOW)
        errors.append(abs(delay_readout(order) @ np.linalg.solve(z * np.eye(order) - a, b) - z**-WINDOW) ** 2)
    found = float(np.sqrt(np.mean(errors)))
    assert found == pytest.approx(expected, rel=0.01)
    sampled = []
    for seed in range(3):
        u = white_noise(seed, window=WINDOW, windows=40, cycles=3)
        settled = slice(4 * WINDOW, None)
        sampled.append(nrmse((memory_of(u, order, WINDOW) @ delay_readout(order))[settled], delayed(u, WINDOW)[settled]))
    assert np.mean(sampled) == pytest.approx(found, rel=0.06)


def test_the_system_holds_the_window_as_legendre_polynomials():
    """An independent integrator of the differential equation, and the polynomial that u was."""
    order, window = 8, 2.0
    a, b = legendre_system(order, window)
    u = np.poly1d([0.3, -1.0, 0.5, 0.2])
    run = solve_ivp(lambda t, m: a @ m + b * u(t), (0, 5), np.zeros(order), rtol=1e-10, atol=1e-12, method="Radau")
    for delay in (0.0, 0.3, 0.5, 1.0):
        weights = eval_sh_legendre(np.arange(order), delay)
        assert delay_readout(order, delay) == pytest.approx(weights)
        assert weights @ run.y[:, -1] == pytest.approx(u(5 - delay * window), abs=0.02)
    assert (np.linalg.eigvals(a).real < 0).all()


def test_zero_order_hold_is_exact_for_a_constant_input():
    a, b = legendre_system(5, 7.0)
    a_bar, b_bar = zero_order_hold(a, b)
    np.testing.assert_allclose(b_bar, np.linalg.solve(a, (a_bar - np.eye(5)) @ b), rtol=1e-10)
    run = solve_ivp(lambda t, m: a @ m + b * 0.7, (0, 3), np.zeros(5), rtol=1e-11, atol=1e-13)
    m = np.zeros(5)
    for _ in range(3):
        m = a_bar @ m + b_bar * 0.7
    np.testing.assert_allclose(m, run.y[:, -1], atol=1e-9)
    assert zero_order_hold(np.zeros((1, 1)), np.ones(1), step=2.0)[1].tolist() == [2.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_streaming_is_parallel(dtype):
    torch.manual_seed(0)
    unit = LMU(3, 8, order=12, window_steps=50.0, recurrent=False).to(dtype)
    x = torch.randn(400, 2, 3, dtype=dtype)
    together = unit.parallel(x)
    state, outputs = None, []
    for now in x:
        output, state = unit.step(now, state)
        outputs.append(output)
    difference = float((torch.stack(outputs) - together).detach().abs().max())
    assert difference < 1e-6
    memory = LegendreMemory(12, 50.0).to(dtype)
    assert float((memory(x) - memory.parallel(x)).abs().max()) < (1e-5 if dtype == torch.float32 else 1e-12)


def test_gradients_of_streaming_and_parallel_agree():
    torch.manual_seed(0)
    unit = LMU(2, 4, order=6, window_steps=20.0, recurrent=False).double()
    x, weights = torch.randn(60, 2, 2, dtype=torch.float64), torch.randn(60, 2, 4, dtype=torch.float64)
    grads = []
    for run in (unit, unit.parallel):
        unit.zero_grad()
        (run(x) * weights).sum().backward()
        grads.append([p.grad.clone() for p in unit.parameters()])
    for streamed, parallel in zip(*grads, strict=True):
        torch.testing.assert_close(streamed, parallel, rtol=1e-9, atol=1e-9)


def test_recurrent_unit_against_its_equations():
    torch.manual_seed(0)
    unit = LMU(2, 3, order=4, window_steps=10.0).double()
    torch.nn.init.normal_(unit.write_memory.weight)
    x = torch.randn(7, 1, 2, dtype=torch.float64)
    w = {name: value.detach().numpy() for name, value in unit.named_parameters()}
    a, b = unit.memory.a.numpy(), unit.memory.b.numpy()
    m, h = np.zeros(4), np.zeros(3)
    for now, found in zip(x[:, 0].numpy(), unit(x)[:, 0].detach().numpy(), strict=True):
        u = w["write.weight"][0] @ now + w["write_hidden.weight"][0] @ h + w["write_memory.weight"][0] @ m
        m = a @ m + b * u
        drive = w["from_input.weight"] @ now + w["from_input.bias"] + w["from_hidden.weight"] @ h + w["from_memory.weight"] @ m
        h = np.tanh(drive)
        np.testing.assert_allclose(found, h, atol=1e-12)
    with pytest.raises(InputError, match="recurrent: a recurrent LMU has no parallel form"):
        unit.parallel(x)


def test_rates_of_an_ensemble_are_those_of_its_neurons():
    """The closed form against spikes counted, and what the decoders make of the spikes."""

    ensemble = Ensemble.random(30, np.random.default_rng(0), decay_v=0.95, refractory_steps=2, rates=(0.1, 0.2))
    network = SpikingNetwork(
        "one",
        (Population("u", (1,), Neurons("input")), Population("e", (30,), ensemble.neurons(decay_i=0.0))),
        (Projection("in", "u", "e", Synapses.from_dense((ensemble.gain * ensemble.encoder)[:, None])),),
        ("e",),
    )
    for x in (-1.0, -0.2, 0.6):
        counts = simulate(network, {"u": np.full((3000, 1), x)}).events["e"].dense().sum(axis=0)
        rates = ensemble.rates([x])[0]
        assert np.abs(counts - 3000 * rates).max() <= 1
        assert rates @ ensemble.decoders() == pytest.approx(x, abs=0.05)


def test_populations_of_neurons_hold_the_window():
    """Spikes alone carry A and B: the delayed input comes back, better with more neurons and a slower synapse."""
    window, order = 1000, 6
    u = white_noise(1, window=window, windows=6, cycles=1)
    u /= np.abs(u).max()
    ideal = memory_of(u, order, window)
    wanted = delayed(u, window)
    errors = {}
    for neurons, synapse in ((10, 50.0), (100, 50.0), (100, 200.0)):
        held = neural_memory(order, window, neurons=neurons, seed=0, synapse_steps=synapse, radius=np.abs(ideal).max())
        activity = simulate(held.network, {"u": u[:, None]})
        state = activity.values["state"]
        errors[neurons, synapse] = (nrmse(held.delayed(state), wanted), nrmse(state, ideal))
        assert 0.01 < activity.events["memory"].rate < 0.1
    assert errors[100, 200.0][0] < 0.15
    assert errors[100, 200.0][1] < 0.10
    assert errors[10, 50.0][1] > 1.15 * errors[100, 50.0][1] > 1.5 * errors[100, 200.0][1]


def test_without_recurrent_weights_nothing_is_held():
    window = 500
    u = white_noise(1, window=window, windows=4, cycles=1)
    u /= np.abs(u).max()
    held = neural_memory(4, window, neurons=50, seed=0)
    cut = held.network.with_projections([p for p in held.network.projections if p.source != "memory"])
    assert nrmse(held.delayed(simulate(cut, {"u": u[:, None]}).values["state"]), delayed(u, window)) > 0.9


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: legendre_system(0, 1.0), "order: expected an integer ≥ 1, got 0"),
        (lambda: legendre_system(3, -1.0), "window: expected a finite number > 0, got -1.0"),
        (lambda: delay_readout(3, 1.5), "delay: expected 0 to 1 windows, got 1.5"),
        (lambda: neural_memory(2, 10.0, neurons=1, seed=0), "neurons: expected an integer ≥ 2, got 1"),
        (lambda: neural_memory(2, 10.0, neurons=5, seed=0, rates=(0.1, 0.4)), "rates: expected 0 < low ≤ high < 0.333"),
        (lambda: neural_memory(2, 10.0, neurons=5, seed=0, radius=0), "radius: expected a number > 0, got 0"),
    ],
)
def test_errors(make, text):
    with pytest.raises(InputError) as raised:
        make()
    assert str(raised.value).startswith(text)
