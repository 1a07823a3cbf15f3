"""Torch modules as spiking networks: the same spikes in the float reference, and linear layers as synapses against torch."""

import numpy as np
import pytest
import torch
from torch import nn

from neuromorphic.cells.memory_units import EGRU, LegendreMemory
from neuromorphic.cells.neuron_cells import (
    LIF,
    AdaptiveLIF,
    CubaLIF,
    Readout,
    Recurrent,
    ResonateAndFire,
    SpikingSequential,
    Threshold,
)
from neuromorphic.cells.torch_network import to_network
from neuromorphic.dynamics import simulate
from numerics.errors import InputError


def both(module, shape, *, steps=60, rate=0.3, seed=0, values=False):
    """Outputs of the module in float64 and of its network, (steps, neurons), on seeded spikes or values."""
    rng = np.random.default_rng(seed)
    given = rng.normal(0.3, 1, (steps, *shape)) if values else (rng.random((steps, *shape)) < rate).astype(np.float64)
    module = module.double().eval()
    with torch.no_grad():
        expected = module(torch.tensor(given)[:, None])[:, 0].flatten(1).numpy()
    network = to_network(module, shape)
    activity = simulate(network, {"input": given.reshape(steps, -1)})
    name = network.outputs[0]
    found = activity.events[name].dense() if network.population(name).neurons.spiking else activity.values[name]
    return expected, found, network


CELLS = {
    "lif": lambda **k: LIF(0.9, threshold=0.3, **k),
    "lif with everything": lambda **k: LIF(
        0.85, threshold=0.2, gain=0.6, bias=0.02, input_bias=-0.03, v_reset=-0.1, v_init=0.1, refractory_steps=2, **k
    ),
    "cuba": lambda **k: CubaLIF(0.7, 0.9, threshold=0.4, gain=0.4, **k),
    "adaptive": lambda **k: AdaptiveLIF(0.95, 0.3, 0.8, threshold=0.2, **k),
    "adaptive current": lambda **k: AdaptiveLIF(0.95, 0.3, 0.8, threshold=0.2, decay_i=0.5, **k),
    "resonate": lambda **k: ResonateAndFire(0.95, 0.4, threshold=0.4, v_reset=0.1, **k),
    "resonate with everything": lambda **k: ResonateAndFire(
        0.9, 0.3, threshold=0.2, refractory_steps=2, adaptation=0.1, decay_a=0.9, gain=0.8, bias=0.01, **k
    ),
    "threshold": lambda **k: Threshold(0.2, gain=2.0, bias=0.1, input_bias=0.05, **k),
}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("reset", ["zero", "subtract", "none"])
@pytest.mark.parametrize("next_step", [False, True])
def test_spikes_equal_the_reference(cell, reset, next_step):
    torch.manual_seed(1)
    options = {"reset": reset, "reset_next_step": next_step}
    module = SpikingSequential(
        nn.Linear(12, 20), CELLS[cell](**options), nn.Linear(20, 10), Recurrent(CELLS[cell](**options), 10), nn.Linear(10, 4)
    )
    expected, found, network = both(module, (12,))
    assert [one.name for one in network.populations] == ["input", "1", "3", "output"]
    assert network.synapses == 12 * 20 + 20 * 10 + 10 * 10 + 10 * 4
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)  # the readout: a spike more or less would show
    assert 0.02 < simulate(network, {"input": np.ones((60, 12))}).events["3"].rate <= 1


def test_convolutions_pools_and_norms_equal_the_reference():
    torch.manual_seed(2)
    module = SpikingSequential(
        nn.Conv2d(2, 4, 3, padding=1, stride=2),
        nn.BatchNorm2d(4),
        LIF(torch.linspace(0.5, 0.9, 4).reshape(4, 1, 1), threshold=0.2),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 2, groups=2, dilation=2, bias=False),
        CubaLIF(0.5, 0.9, threshold=0.05),
        nn.AvgPool2d(2, stride=1, padding=1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(4 * 4 * 4, 5),
        Readout(0.95),
    )
    with torch.no_grad():
        module[1].running_mean.uniform_(-0.2, 0.2)
        module[1].running_var.uniform_(0.5, 2)
        module[1].weight.uniform_(0.5, 2)
        module[1].bias.uniform_(-0.1, 0.3)
    expected, found, network = both(module, (2, 20, 20), steps=30)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    kinds = {one.name: (one.synapses.kind, one.synapses.stored) for one in network.projections}
    assert kinds["input->2"] == ("convolution", 2 * 4 * 9)
    assert kinds["2->3"] == ("pooling", 1)
    assert kinds["3->5"] == ("convolution", 4 * 2 * 4)
    assert kinds["5->10"][0] == "sparse"
    assert network.notes == ("3: the maximum of spikes is a neuron that spikes where any of its inputs does",)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(7, 5), (7,)),
        (nn.Conv1d(2, 3, 4, stride=2, padding=1, dilation=2), (2, 17)),
        (nn.Conv1d(4, 4, 3, padding="same", groups=4), (4, 9)),
        (nn.Conv2d(3, 6, (3, 2), stride=(2, 1), padding=(1, 2), groups=3), (3, 8, 7)),
        (nn.Conv2d(1, 2, 3, padding="same", dilation=(1, 2)), (1, 9, 8)),
        (nn.Conv2d(2, 2, 2, padding="valid", bias=False), (2, 5, 5)),
        (nn.AvgPool1d(3, stride=2, padding=1), (2, 11)),
        (nn.AvgPool2d((2, 3), stride=(1, 2), padding=(1, 1), count_include_pad=False), (2, 6, 7)),
        (nn.AvgPool2d(2, divisor_override=3), (1, 6, 4)),
    ],
)
def test_a_linear_layer_is_its_matrix(layer, shape):
    expected, found, network = both(SpikingSequential(layer), shape, steps=4, values=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        assert network.projections[0].synapses.stored == layer.weight.numel()


def test_weights_of_zero_are_synapses():
    layer = nn.Conv2d(1, 2, 3, padding=1)
    nn.init.zeros_(layer.weight)
    network = to_network(nn.Sequential(layer, LIF(0.9)), (1, 4, 4))
    # a 3×3 kernel over 4×4 places: (2 + 3 + 3 + 2)² taps inside
    assert network.synapses == 2 * 100
    assert to_network(nn.Sequential(nn.Linear(3, 4), LIF(0.9)), torch.zeros(1, 1, 3)).synapses == 12


def test_the_legendre_memory_is_a_readout_that_feeds_itself():
    expected, found, network = both(nn.Sequential(LegendreMemory(6, 20.0), LIF(0.0, threshold=0.1)), (2,), values=True)
    assert 0.05 < expected.mean() < 0.95
    np.testing.assert_array_equal(found, expected)
    assert network.population("0").neurons.kind == "readout"


def test_a_cell_alone_and_named_layers():
    assert [p.name for p in to_network(LIF(0.5), (3,)).populations] == ["input", "cell"]
    nested = nn.Sequential()
    nested.add_module("body", nn.Sequential(nn.Linear(3, 2), Threshold(0.1)))
    nested.add_module("head", nn.Linear(2, 2))
    network = to_network(nested, (3,), dt_s=1e-4, name="small")
    assert [p.name for p in network.populations] == ["input", "body.1", "output"]
    assert (network.name, network.dt_s, network.outputs) == ("small", 1e-4, ("output",))


@pytest.mark.parametrize(
    ("module", "shape", "text"),
    [
        (nn.Sequential(nn.Linear(3, 2), nn.ReLU()), (3,), "layer '1' (ReLU): no population computes it"),
        (nn.Sequential(EGRU(3, 2)), (3,), "layer '0' (EGRU): no population computes it"),
        (nn.Sequential(nn.Linear(3, 2)), (4,), "layer '0' (Linear): takes shape (3,), got (4,)"),
        (
            nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(8, 1)),
            (1, 4, 4),
            "layer '1' (Linear): takes shape (8,), got (2, 2, 2)",
        ),
        (
            nn.Sequential(nn.Conv2d(2, 2, 3)),
            (1, 4, 4),
            "layer '0' (Conv2d): weight (2, 2, 3, 3) in 1 groups takes",
        ),
        (
            nn.Sequential(nn.Conv2d(1, 2, 3)),
            (4,),
            "layer '0' (Conv2d): weight (2, 1, 3, 3) in 1 groups takes",
        ),
        (nn.Sequential(nn.BatchNorm1d(3)), (3,), "layer '0' (BatchNorm1d): statistics of a batch"),
        (nn.Sequential(nn.Dropout(0.1), nn.Linear(3, 2)), (3,), "layer '0' (Dropout): still in training; call eval() first"),
        (nn.Sequential(nn.Conv2d(1, 1, 1), nn.MaxPool2d(2)), (1, 4, 4), "layer '1' (MaxPool2d): of weighted sums, not of spikes"),
        (
            nn.Sequential(nn.AvgPool2d(2, ceil_mode=True)),
            (1, 4, 4),
            "layer '0' (AvgPool2d): ceil_mode and dilation are not",
        ),
        (
            nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")),
            (1, 4, 4),
            "layer '0' (Conv2d): expected padding_mode",
        ),
        (nn.Sequential(nn.Identity()), (3,), "module: no layer that computes anything"),
    ],
)
def test_errors(module, shape, text):
    with pytest.raises(InputError) as raised:
        to_network(module, shape)
    assert str(raised.value).startswith(text)
