"""Modules in a chip's arithmetic: the same numbers as ``chip.run``, and close to the module where the chip is."""

import numpy as np
import pytest
import torch
from torch import nn

from neuromorphic.cells.neuron_cells import LIF, CubaLIF, Readout, Recurrent, SpikingSequential
from neuromorphic.cells.torch_network import to_network
from neuromorphic.chip.emulation import emulate
from neuromorphic.chip.faults import ChipFaults
from neuromorphic.chip.quantisation import quantise
from neuromorphic.chip.running import run
from neuromorphic.network import Neurons, Population, Projection, SpikingNetwork, Synapses
from numerics.errors import InputError


def module(seed=0):
    torch.manual_seed(seed)
    found = SpikingSequential(
        nn.Linear(12, 24), CubaLIF(0.5, 0.9, threshold=0.6), nn.Linear(24, 16), Recurrent(LIF(0.8, threshold=0.5), 16),
        nn.Linear(16, 4), Readout(0.95),
    )  # fmt: skip
    for layer in (found[0], found[2]):
        layer.bias.data.abs_().mul_(0.2)
    return found.double().eval()


def spikes(steps=40, batch=3, features=12, rate=0.3):
    return (torch.rand(steps, batch, features, generator=torch.Generator().manual_seed(1)) < rate).double()


def test_float32_is_the_module():
    net, x = module(), spikes()
    with torch.no_grad():
        expected = net(x)
    found = emulate(net, "float32")(x)
    assert found.shape == expected.shape
    assert found.dtype == torch.float64
    assert torch.allclose(found, expected, atol=1e-4)
    assert expected.abs().max() > 0.1


@pytest.mark.parametrize(("name", "most"), [("s16.15", 0.02), ("spinnaker2", 0.02), ("loihi2", 0.25)])
def test_chips_are_near_the_module(name, most):
    """Input bias and current decay exclude Loihi's neuron: the first layer's bias is left out there."""
    net, x = module(), spikes()
    if name == "loihi2":
        net[0].bias.data.zero_()
    with torch.no_grad():
        expected = net(x)
    emulated = emulate(net, name)
    error = (emulated(x) - expected).square().mean() / expected.square().mean()
    assert 0 < error < most
    assert emulated.network.latency == 3


def test_a_batch_is_runs_of_the_chip():
    net, x = module(), spikes()
    emulated = emulate(net, "s16.15")
    found = emulated(x)
    made = quantise(to_network(net, (12,)), "s16.15")
    for b in range(3):
        alone = run(made, {"input": x[:, b].numpy()}, steps=43)
        assert np.array_equal(alone.real_values(made.outputs[0]), found[:, b].numpy())
        assert np.array_equal(alone.operations, emulated.activity[b].operations)
    assert emulated.state_dict() == {}
    assert "arithmetic='s16.15'" in repr(emulated)


def test_spiking_outputs_and_their_shape():
    torch.manual_seed(2)
    net = SpikingSequential(nn.Conv2d(2, 3, 3, bias=False), LIF(0.75, threshold=0.4)).double().eval()
    x = (torch.rand(10, 2, 2, 6, 6) < 0.4).double()
    with torch.no_grad():
        expected = net(x)
    found = emulate(net, "float32")(x)
    assert found.shape == (10, 2, 3, 4, 4)
    assert torch.equal(found, expected)
    assert 0.05 < found.mean() < 0.95


def test_networks_with_several_inputs_and_outputs():
    weights = Synapses.from_dense([[2.0], [1.0]])
    populations = [Population(name, (1,), Neurons("input")) for name in ("x", "y")]
    populations += [Population(name, (2,), Neurons("integrate_and_fire", threshold=1.5)) for name in ("m", "n")]
    network = SpikingNetwork(
        "two", tuple(populations), (Projection("p", "x", "m", weights), Projection("q", "y", "n", weights)), ("m", "n")
    )
    given = {"x": torch.ones(3, 1, 1), "y": torch.zeros(3, 1, 1)}
    found = emulate(network, "loihi")(given)
    assert found["m"][:, 0].tolist() == [[1, 0], [1, 1], [1, 0]]
    assert not found["n"].any()
    with pytest.raises(InputError, match=r"^x: expected a mapping of the inputs x, y, got one tensor$"):
        emulate(quantise(network, "loihi"))(given["x"])


def test_faults_are_repeatable_and_differ_in_a_batch():
    net = module()
    x = spikes()[:, :1].repeat(1, 2, 1)
    faults = ChipFaults(lost_rate=0.2, seed=3)
    first, second = emulate(net, "s16.15", faults=faults), emulate(net, "s16.15", faults=faults)
    found = first(x)
    assert torch.equal(found, second(x))
    assert not torch.equal(found[:, 0], found[:, 1])
    assert not torch.equal(found, emulate(net, "s16.15")(x))
    assert all(one.lost > 0 for one in first.activity)


def test_bad_inputs():
    with pytest.raises(InputError, match=r"^chip: expected a name, an Arithmetic or a chip's spec, got None$"):
        emulate(module())
    with pytest.raises(InputError, match=r"^x: a module that was not prepared takes one tensor$"):
        emulate(module(), "float32")({"input": spikes()})
