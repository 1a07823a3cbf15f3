"""NIR networks against the simulators that wrote or read them: the same spikes, every one, on the same seeded events.

Norse (LGPL 3.0) turns a NIR file into its own modules; snnTorch (MIT) exports and imports it. Both run in doubles here. snnTorch
1.0 imports no recurrent graph through NIRTorch 2, leaves IF neurons a leak of 0.9, and its RSynaptic forgets the reset of
``reset_delay=False``; so its imported modules, the recurrent one as a neuron and a matrix, are called one by one. NIRTorch
leaves out the recurrent bias in the first step, which snnTorch does not: Norse's Braille network is called in the same way.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from neuromorphic.dynamics import simulate
from neuromorphic.nir import load_nir, to_nir

nir = pytest.importorskip("nir")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

DATA = Path(__file__).parents[1] / "neuromorphic" / "data"
CNN, BRAILLE, LIF = (DATA / f"{name}.nir" for name in ("cnn_nmnist", "braille_noDelay_bias_zero", "lif"))


def events(steps, shape, rate, seed):
    return (np.random.default_rng(seed).random((steps, *shape)) < rate).astype(np.float64)


def ours(network, given):
    activity = simulate(network, {"input": given.reshape(len(given), -1)})
    return {name: one.dense() for name, one in activity.events.items()}


def through(module, given):
    """What a module with a state gives, step by step."""
    state, rows = None, []
    with torch.no_grad():
        for row in given:
            out, state = module(torch.tensor(row)[None], state)
            rows.append(out.double().numpy().ravel())
    return np.array(rows)


def norse_module(graph, dt):
    norse = pytest.importorskip("norse")
    return norse.torch.from_nir(graph, ignore_warnings=True, dt=dt).double()


def test_norse_runs_the_nmnist_network_alike():
    network = load_nir(CNN)
    given = events(25, (2, 34, 34), 0.3, seed=1)
    expected = through(norse_module(nir.read(CNN), 1e-3), given)
    np.testing.assert_array_equal(ours(network, given)["12"], expected)
    assert expected.sum() > 3


@pytest.mark.parametrize("dt", [1e-4, 1e-3])
def test_norse_runs_a_neuron_alike(dt):
    given = events(400, (1,), 0.5, seed=2)
    expected = through(norse_module(nir.read(LIF), dt), given)
    np.testing.assert_array_equal(ours(load_nir(LIF, dt_s=dt), given)["1"], expected)
    assert 20 < expected.sum() < 380


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("peer", ["norse", "snntorch"])
def test_the_braille_network_spikes_alike(peer, rate):
    graph = nir.read(BRAILLE)
    if peer == "norse":
        pytest.importorskip("norse")
        from norse.torch.utils.import_nir import _import_norse_module

        made = {name: _import_norse_module(node, True, dt=1e-4) for name, node in graph.nodes.items() if "put" not in name}
    else:
        pytest.importorskip("snntorch")
        from snntorch.import_nir import _nir_to_snntorch_module

        made = {name: _nir_to_snntorch_module(node) for name, node in graph.nodes.items() if "put" not in name}
    made = {name: module.double() for name, module in made.items()}
    states = {"lif1.lif": (), "lif2": ()}

    def fire(name, current):
        z, *state = made[name](current, *states[name])
        states[name] = tuple(state)
        return z.double()

    given = events(256, (12,), rate, seed=3)
    found = ours(load_nir(BRAILLE), given)
    before = torch.zeros(1, 38, dtype=torch.float64)
    hidden, out = [], []
    with torch.no_grad():
        for row in given:
            before = fire("lif1.lif", made["fc1"](torch.tensor(row)[None]) + made["lif1.w_rec"](before))
            hidden.append(before.numpy().ravel())
            out.append(fire("lif2", made["fc2"](before)).numpy().ravel())
    np.testing.assert_array_equal(found["lif1.lif"], hidden)
    np.testing.assert_array_equal(found["lif2"], out)
    assert np.sum(hidden) > 10
    assert np.sum(out) > 100


def test_norse_reads_what_is_written():
    network = load_nir(LIF, dt_s=1e-4)
    given = events(300, (1,), 0.5, seed=4)
    np.testing.assert_array_equal(ours(network, given)["1"], through(norse_module(to_nir(network), 1e-4), given))


@pytest.mark.parametrize("reset", ["immediate", "next_step"])
@pytest.mark.parametrize("kind", ["dense", "convolution"])
def test_what_snntorch_exports_spikes_as_its_module(kind, reset):
    """Its exporter leaves out shapes, keeps the batch and writes neurons of no dimension, which NIR's own check refuses."""
    snn, nirtorch = pytest.importorskip("snntorch"), pytest.importorskip("nirtorch")
    from snntorch.export_nir import _extract_snntorch_module

    torch.manual_seed(5)
    common = {"reset_mechanism": "zero", "reset_delay": reset == "next_step", "init_hidden": True}
    shape = (1, 4, 5) if kind == "dense" else (2, 9, 9)
    first = [torch.nn.Flatten(), torch.nn.Linear(20, 16)] if kind == "dense" else [torch.nn.Conv2d(2, 3, 3, padding=1)]
    then = [torch.nn.Linear(16, 6)] if kind == "dense" else [torch.nn.AvgPool2d(3), torch.nn.Flatten(), torch.nn.Linear(27, 6)]
    module = torch.nn.Sequential(
        *first, snn.Leaky(beta=0.9, threshold=0.6, **common), *then, snn.Leaky(beta=0.8, threshold=0.3, **common)
    )
    graph = nirtorch.extract_nir_graph(module, _extract_snntorch_module, torch.zeros(1, *shape), model_name="snntorch")
    network = load_nir(graph, dt_s=1e-4, reset=reset)
    assert any("parameters of shape (1,) count for all of" in note for note in network.notes)
    given = events(80, shape, 0.3, seed=6)
    expected = []
    for layer in module.double():
        if isinstance(layer, snn.Leaky):
            layer.reset_mem()  # the exporter ran it once
    with torch.no_grad():
        for row in given:
            x = torch.tensor(row)[None]
            for layer in module:
                x = layer(x).double()  # its spikes are floats of 32 bits
            expected.append(x.numpy().ravel())
    np.testing.assert_array_equal(ours(network, given)[network.outputs[0]], expected)
    assert 20 < np.sum(expected) < 460
