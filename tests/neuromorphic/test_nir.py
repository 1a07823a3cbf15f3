"""NIR files and graphs: the networks of the NIR paper against dense loops in torch, every primitive, what exporters leave out.

Files in ``data``: github.com/neuromorphs/NIR (BSD 3-Clause), paper/01_lif, paper/02_cnn and paper/03_rnn, as published with
J. E. Pedersen et al., Nature Communications 15, 2024.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from neuromorphic.dynamics import simulate
from neuromorphic.network import Neurons, Population, Projection, SpikingNetwork, Synapses
from neuromorphic.nir import load_nir, to_nir
from neuromorphic.nir_graph import natural
from numerics.errors import InputError

nir = pytest.importorskip("nir")

DATA = Path(__file__).parent / "data"
CNN, BRAILLE, LIF = (DATA / f"{name}.nir" for name in ("cnn_nmnist", "braille_noDelay_bias_zero", "lif"))


def random_spikes(steps, size, rate, seed=0):
    return (np.random.default_rng(seed).random((steps, size)) < rate).astype(np.float64)


def given(network, spikes):
    activity = simulate(network, {network.inputs[0]: spikes})
    return {name: events.dense() for name, events in activity.events.items()} | dict(activity.values)


def lif(**more):
    """Parameters of one LIF neuron as NIR wants them."""
    values = {"tau": 5e-3, "r": 1.0, "v_leak": 0.0, "v_threshold": 0.5, "v_reset": 0.0} | more
    return nir.LIF(**{key: np.atleast_1d(np.asarray(value, np.float64)) for key, value in values.items()})


def chain(*nodes, shape=(3,)):
    names = [f"n{i}" for i in range(len(nodes))]
    edges = list(zip(["input", *names], [*names, "output"], strict=True))
    every = {"input": nir.Input(np.array(shape)), **dict(zip(names, nodes, strict=True)), "output": nir.Output(np.array([1]))}
    return nir.NIRGraph(every, edges, type_check=False)


# --- the networks of the paper -------------------------------------------------------------------------------------------


def test_the_nmnist_network_spikes_as_torch_convolutions_do():
    network = load_nir(CNN)
    shapes = {one.name: one.shape for one in network.populations}
    assert shapes == {"input": (2, 34, 34), "1": (16, 16, 16), "3": (16, 16, 16), "6": (8, 8, 8), "10": (256,), "12": (10,)}
    assert [(p.name, p.synapses.stored, p.synapses.kind) for p in network.projections] == [
        ("input->1", 800, "convolution"), ("1->3", 2304, "convolution"), ("3->6", 1152, "convolution"),
        ("6->10", 131072, "sparse"), ("10->12", 2560, "dense"),
    ]  # fmt: skip
    spikes = random_spikes(40, 2 * 34 * 34, 0.3)
    found = given(network, spikes)
    nodes = nir.read(CNN).nodes
    weight = {name: torch.tensor(node.weight, dtype=torch.float64) for name, node in nodes.items() if hasattr(node, "weight")}
    v = dict.fromkeys(("1", "3", "6", "10", "12"), torch.zeros(()))

    def fire(name, current):
        v[name] = v[name] + current
        z = (v[name] > 1.0).double()
        v[name] = v[name] * (1 - z)
        return z

    expected = {name: [] for name in v}
    for step in spikes:
        z1 = fire("1", functional.conv2d(torch.tensor(step).reshape(1, 2, 34, 34), weight["0"], stride=2, padding=1))
        z3 = fire("3", functional.conv2d(z1, weight["2"], padding=1))
        pooled = functional.avg_pool2d(z3, 2) * 4
        z6 = fire("6", functional.conv2d(pooled, weight["5"], padding=1))
        z10 = fire("10", (functional.avg_pool2d(z6, 2) * 4).flatten(1) @ weight["9"].T)
        z12 = fire("12", z10 @ weight["11"].T)
        for name, z in zip(expected, (z1, z3, z6, z10, z12), strict=True):
            expected[name].append(z.numpy().ravel())
    for name, rows in expected.items():
        np.testing.assert_array_equal(found[name], np.array(rows))
        assert np.sum(rows) > 10


@pytest.mark.parametrize("rate", [0.02, 0.1])
def test_the_braille_network_spikes_as_its_equations(rate):
    network = load_nir(BRAILLE)
    assert network.dt_s == 1e-4
    assert "loop: lif1.lif->lif1.lif arrives one step later" in network.notes
    spikes = random_spikes(200, 12, rate, seed=4)
    found = given(network, spikes)
    nodes = {name: node.__dict__ for name, node in nir.read(BRAILLE).nodes.items()}
    state = {name: [np.zeros(n), np.zeros(n), np.zeros(n)] for name, n in (("lif1.lif", 38), ("lif2", 7))}

    def affine(name, x):
        return nodes[name]["weight"].astype(np.float64) @ x + nodes[name]["bias"].astype(np.float64)

    def fire(name, x):
        i, v, _ = state[name]
        p = {key: np.asarray(value, np.float64) for key, value in nodes[name].items() if key.startswith(("tau", "r", "w", "v"))}
        i = i + 1e-4 / p["tau_syn"] * (p["w_in"] * x - i)
        v = v + 1e-4 / p["tau_mem"] * (p["v_leak"] - v + p["r"] * i)
        z = (v > p["v_threshold"]).astype(np.float64)
        state[name] = [i, np.where(z > 0, p["v_reset"], v), z]
        return z

    for t, step in enumerate(spikes):
        z1 = fire("lif1.lif", affine("fc1", step) + affine("lif1.w_rec", state["lif1.lif"][2]))
        z2 = fire("lif2", affine("fc2", z1))
        np.testing.assert_array_equal(found["lif1.lif"][t], z1)
        np.testing.assert_array_equal(found["lif2"][t], z2)
    assert found["lif1.lif"].sum() > 10
    assert found["lif2"].sum() > 100


@pytest.mark.parametrize("integration", ["euler", "exponential"])
@pytest.mark.parametrize("reset", ["immediate", "next_step"])
@pytest.mark.parametrize("reset_mode", ["zero", "subtract"])
def test_one_neuron_step_by_step(integration, reset, reset_mode):
    network = load_nir(LIF, dt_s=1e-4, integration=integration, reset=reset, reset_mode=reset_mode)
    spikes = random_spikes(300, 1, 0.6, seed=2)
    found = given(network, spikes)["1"][:, 0]
    k = 0.04 if integration == "euler" else 1 - np.exp(-0.04)
    v, fired, expected = 0.0, False, []
    for x in spikes[:, 0]:
        if fired and reset == "next_step":
            v = 0.0 if reset_mode == "zero" else v - 0.1
        v += k * (x - v)
        fired = v > 0.1
        expected.append(fired)
        if fired and reset == "immediate":
            v = 0.0 if reset_mode == "zero" else v - 0.1
    np.testing.assert_array_equal(found, expected)
    assert 20 < sum(expected) < 280
    assert {"dt: 0.0001 s", f"integration: {integration}"} <= set(network.notes)


@pytest.mark.parametrize(
    ("tau", "dt"), [(5e-3, 1e-3), (1e-3, 1e-3), (np.float32(1e-4), 1e-4), (9.9e-5, 1e-5), (0.99e-3, 1e-4), (2e-5, 1e-5)]
)
def test_a_step_is_no_longer_than_a_time_constant(tau, dt):
    network = load_nir(chain(lif(tau=float(tau), v_threshold=0.9, r=2.0), shape=(1,)))
    assert (network.dt_s, network.notes[0]) == (dt, f"dt: {dt:g} s")
    assert network.population("n0").neurons.decay_v == pytest.approx(1 - dt / tau, abs=1e-6)


# --- every primitive -------------------------------------------------------------------------------------------------------


def test_every_neuron_follows_its_equation():
    steps, dt, k, s = 30, 1e-3, 0.2, 0.5
    x = random_spikes(steps, 2, 0.5, seed=5)
    p = {"r": np.array([1.5, 0.7]), "v_leak": np.array([0.05, -0.1])}
    tau, syn = np.full(2, dt / k), np.full(2, dt / s)
    fires = {"v_threshold": np.array([0.4, 0.3]), "v_reset": np.array([0.0, 0.1])}
    nodes = {
        "I": nir.I(r=p["r"]),
        "LI": nir.LI(tau=tau, **p),
        "CubaLI": nir.CubaLI(tau_syn=syn, tau_mem=tau, w_in=np.array([1.0, 2.0]), **p),
        "IF": nir.IF(r=p["r"], v_threshold=np.array([2.0, 1.0]), v_reset=np.array([0.0, 0.5])),
        "LIF": nir.LIF(tau=tau, **p, **fires),
        "CubaLIF": nir.CubaLIF(tau_syn=syn, tau_mem=tau, w_in=np.array([1.0, 2.0]), **p, **fires),
        "Threshold": nir.Threshold(threshold=np.array([0.0, 1.0])),
    }
    w_in = np.array([1.0, 2.0])
    for name, node in nodes.items():
        network = load_nir(chain(node, shape=(2,)), dt_s=dt)
        found = given(network, x)["n0"]
        leaks = "L" in name
        v, i, rows = (p["v_leak"].copy() if leaks else np.zeros(2)), np.zeros(2), []
        for row in x:
            i = (1 - s) * i + s * w_in * row if name.startswith("Cuba") else row
            v = v + k * (p["v_leak"] - v + p["r"] * i) if leaks else v + p["r"] * i
            if name == "Threshold":
                rows.append(row > node.threshold)
            elif name.endswith("F"):
                z = v > node.v_threshold
                v = np.where(z, node.v_reset, v)
                rows.append(z)
            else:
                rows.append(v)
        np.testing.assert_allclose(found, np.array(rows, np.float64), rtol=0, atol=1e-12)
        assert network.population("n0").neurons.spiking == (name not in ("I", "LI", "CubaLI"))


def test_linear_nodes_between_neurons_are_one_projection():
    rng = np.random.default_rng(6)
    zeros = np.zeros(4)
    conv1 = nir.Conv1d(None, rng.normal(size=(4, 1, 3)), 2, "valid", 1, 1, zeros)
    conv2 = nir.Conv2d(None, rng.normal(size=(4, 1, 3, 2)), 1, "same", (1, 2), 2, rng.normal(size=4))
    nodes = (
        conv2, nir.AvgPool2d(np.array([2, 2]), np.array([1, 2]), np.array([1, 0])), nir.Scale(rng.normal(size=(4, 7, 3))),
        nir.SumPool2d(np.array([7, 1]), np.array([7, 1]), np.array([0, 0])), nir.Flatten(None, 0, -1),
        nir.Linear(rng.normal(size=(9, 12))), conv1, nir.Flatten(None, 0, -1),
        nir.Affine(rng.normal(size=(5, 16)), rng.normal(size=5)),
    )  # fmt: skip
    network = load_nir(chain(*nodes, shape=(2, 6, 6)))
    (projection,) = network.projections
    x = rng.normal(size=(3, 72))

    def numbers(value):
        return torch.tensor(np.asarray(value, np.float64))

    y = functional.conv2d(
        numbers(x).reshape(3, 2, 6, 6), numbers(conv2.weight), numbers(conv2.bias), padding="same", dilation=(1, 2), groups=2
    )
    y = functional.avg_pool2d(y, 2, (1, 2), (1, 0)) * numbers(nodes[2].scale)
    y = y.sum(dim=2).flatten(1) @ numbers(nodes[5].weight).T
    y = functional.conv1d(y[:, None], numbers(conv1.weight), stride=2)
    y = y.flatten(1) @ numbers(nodes[8].weight).T + numbers(nodes[8].bias)
    np.testing.assert_allclose(given(network, x)["output"], y.numpy(), rtol=0, atol=1e-10)
    assert (projection.source, projection.target, network.outputs) == ("input", "output", ("output",))


def test_paths_that_meet_are_added_and_delays_are_steps():
    nodes = {
        "input": nir.Input(np.array([3])),
        "early": nir.Delay(np.array([0.0, 2e-3, 5.0004e-3])),
        "w": nir.Affine(np.array([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]]), np.array([0.5, 0.25])),
        "late": nir.Delay(np.array([1e-3, 3e-3])),
        "skip": nir.Linear(np.ones((2, 3))),
        "v": nir.I(np.ones(2)),
        "output": nir.Output(np.array([2])),
    }
    edges = [("input", "early"), ("early", "w"), ("w", "late"), ("late", "v"), ("input", "skip"), ("skip", "v"), ("v", "output")]
    network = load_nir(nir.NIRGraph(nodes, edges), dt_s=1e-3)
    x = np.zeros((14, 3))
    x[0] = 1.0
    now = np.diff(given(network, x)["v"], axis=0, prepend=0) - [0.5, 0.25]
    expected = np.zeros((14, 2))
    expected[0] = 3  # the way without delay
    for source, delay in enumerate((0, 2, 5)):
        expected[delay + 1, 0] += 2.0**source
        expected[delay + 3, 1] += 8 * 2.0**source
    np.testing.assert_allclose(now, expected, atol=1e-12)
    assert "early: delays rounded to whole steps, such as 0.0050004 s to 5" in network.notes


def test_loops_close_one_step_later_wherever_they_begin():
    """Two populations, each exciting the other: what is farther from the input sends back late. A delay in the loop is enough."""

    def loop(delay=None, names=("a", "b")):
        one, two = names
        nodes = {
            "input": nir.Input(np.array([1])), one: lif(tau=1e-3, v_threshold=0.9), two: lif(tau=1e-3, v_threshold=0.9),
            "forth": nir.Linear(np.ones((1, 1))), "back": nir.Linear(np.ones((1, 1))), "output": nir.Output(np.array([1])),
        }  # fmt: skip
        edges = [("input", one), (one, "forth"), ("forth", two), (two, "output")]
        if delay is None:
            edges += [(two, "back"), ("back", one)]
        else:
            nodes["wait"] = nir.Delay(np.array([delay]))
            edges += [(two, "back"), ("back", "wait"), ("wait", one)]
        return nir.NIRGraph(nodes, edges[::-1], type_check=False)

    for names in (("a", "b"), ("b", "a")):
        network = load_nir(loop(names=names), dt_s=1e-3)
        one, two = names
        delays = {p.name: p.delay_steps for p in network.projections}
        assert delays == {f"input->{one}": 0, f"{one}->{two}": 0, f"{two}->{one}": 1}
        assert f"loop: {two}->{one} arrives one step later" in network.notes
        x = np.array([[1.0]] + [[0.0]] * 3)
        np.testing.assert_array_equal(given(network, x)[one].ravel(), [1, 1, 1, 1])
    slow = load_nir(loop(delay=3e-3), dt_s=1e-3)
    assert {p.name: p.delay_steps for p in slow.projections} == {"b->a": 3, "input->a": 0, "a->b": 0}
    assert not any(note.startswith("loop") for note in slow.notes)


def test_names_sort_as_people_count():
    assert sorted(["b", "a10", "a9", "a", "a09", "10", "2"], key=natural) == ["2", "10", "a", "a09", "a9", "a10", "b"]


def test_subgraphs_dissolve():
    inner = nir.NIRGraph(
        {"input": nir.Input(np.array([3])), "w": nir.Linear(np.eye(3)), "lif": lif(tau=[5e-3] * 3, r=[4.0] * 3, v_leak=[0] * 3,
         v_threshold=[0.5] * 3, v_reset=[0] * 3), "output": nir.Output(np.array([3]))},
        [("input", "lif"), ("lif", "w"), ("w", "lif"), ("lif", "output")],
    )  # fmt: skip
    outer = nir.NIRGraph(
        {"input": nir.Input(np.array([3])), "body": nir.NIRGraph({"input": nir.Input(np.array([3])), "core": inner,
         "output": nir.Output(np.array([3]))}, [("input", "core"), ("core", "output")]), "output": nir.Output(np.array([3]))},
        [("input", "body"), ("body", "output")], type_check=False,
    )  # fmt: skip
    network = load_nir(outer, dt_s=1e-3)
    assert [one.name for one in network.populations] == ["input", "body.core.lif"]
    assert {(p.source, p.delay_steps) for p in network.projections} == {("input", 0), ("body.core.lif", 1)}
    assert network.outputs == ("body.core.lif",)


# --- what exporters leave out -------------------------------------------------------------------------------------------------


def test_what_snntorch_writes_is_repaired():
    """As snnTorch 1.0 exports: a batch in the input's shape, neurons of shape (), no shapes of convolution, pool and flatten."""
    tau = np.array(1e-3)
    scalar = {"tau": tau, "r": tau / 1e-4, "v_leak": np.array(0.0), "v_threshold": np.array(1.0), "v_reset": np.array(0.0)}
    pool = nir.AvgPool2d(2, 2, (0, 0))
    nodes = (
        nir.Conv2d(None, torch.ones(4, 1, 3, 3), 1, 0, 1, 1, torch.zeros(4)), nir.LIF(**scalar), pool, nir.Flatten(None, 0, -1),
        nir.Affine(np.ones((3, 36)), np.zeros(3)), nir.LIF(**scalar),
    )  # fmt: skip
    network = load_nir(chain(*nodes, shape=(1, 1, 8, 8)))
    assert [one.shape for one in network.populations] == [(1, 1, 8, 8), (4, 6, 6), (3,)]
    assert network.dt_s == 1e-3  # the time constant itself: a step that it forgets everything in
    assert "repaired: n0: takes shape (1, 1, 8, 8) as (1, 8, 8)" in network.notes
    assert "repaired: n1: parameters of shape (1,) count for all of (4, 6, 6)" in network.notes
    assert "repaired: output says shape (1,), but gets (3,)" in network.notes


@pytest.mark.parametrize("nothing", [None, np.array([]), np.array([0]), np.array([-1, 3])])
def test_an_input_without_shape_takes_that_of_what_follows(nothing):
    def shape(*nodes):
        graph = chain(*nodes)
        graph.nodes["input"] = nir.Input({"input": nothing})
        network = load_nir(graph)
        assert any(note.startswith("repaired: input had no shape") for note in network.notes)
        return network.population("input").shape

    assert shape(nir.Affine(np.ones((2, 7)), np.zeros(2)), lif()) == (7,)
    assert shape(nir.Scale(np.ones((2, 3)))) == (2, 3)
    assert shape(nir.Conv2d((6, 5), np.ones((2, 1, 3, 3)), 1, 0, 1, 2, np.zeros(2)), lif()) == (2, 6, 5)
    assert shape(lif(), nir.Linear(np.ones((2, 4)))) == (4,)
    assert shape(lif()) == (1,)


def test_a_flatten_that_counts_a_batch_and_one_too_many():
    network = load_nir(chain(nir.Flatten(None, 1, -1), nir.Linear(np.ones((2, 24))), nir.Flatten(None), lif(), shape=(2, 3, 4)))
    assert network.population("n3").shape == (2,)
    assert "repaired: n0 gives shape (2, 12) and n1 takes (24,): in C order" in network.notes


def test_graphs_without_input_or_output_get_them():
    graph = nir.NIRGraph({"w": nir.Linear(np.ones((2, 3))), "v": lif()}, [("w", "v"), ("w", "v")], type_check=False)
    network = load_nir(graph)
    assert (network.inputs, network.outputs, network.population("input_w").size) == (("input_w",), ("v",), 3)
    assert {
        "repaired: 1 edges were there twice and count once", "repaired: w gets nothing; input_w was added",
        "repaired: v gives nothing; output_v was added",
    } <= set(network.notes)  # fmt: skip


# --- and back ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [BRAILLE, LIF])
def test_files_come_back_with_the_same_spikes(path, tmp_path):
    network = load_nir(path)
    nir.write(tmp_path / "again.nir", to_nir(network))
    again = load_nir(tmp_path / "again.nir", dt_s=network.dt_s)
    spikes = random_spikes(150, network.population("input").size, 0.2, seed=8)
    before, after = given(network, spikes), given(again, spikes)
    assert before.keys() == after.keys()
    for name, rows in before.items():
        np.testing.assert_array_equal(rows, after[name])
    assert sum(rows.sum() for name, rows in before.items() if name != "input") > 20


def everything():
    """A network of all that NIR can say."""
    rng = np.random.default_rng(9)

    def synapses(sources, targets):
        return Synapses.from_dense(rng.normal(0, 0.5, (targets, sources)))

    populations = (
        Population("input", (2, 3), Neurons("input")),
        Population("lif", (4,), Neurons("integrate_and_fire", decay_v=0.8, gain=0.7, bias=0.02, v_init=0.1, threshold=0.4,
                                        input_bias=rng.normal(size=4) / 9, v_reset=-0.1)),
        Population("cuba", (5,), Neurons("integrate_and_fire", decay_i=0.5, decay_v=rng.uniform(0.5, 0.9, 5), threshold=0.6,
                                         reset="subtract")),
        Population("if", (3,), Neurons("integrate_and_fire", threshold=0.8, reset_next_step=True)),
        Population("gate", (3,), Neurons("threshold", threshold=0.3, gain=2.0, bias=0.1)),
        Population("leaky", (2,), Neurons("readout", decay_v=0.9)),
        Population("slow", (2,), Neurons("readout", decay_i=0.6, decay_v=0.9, gain=0.5)),
        Population("sum", (2,), Neurons("readout")),
        Population("plain", (2,), Neurons("readout", decay_v=0.0)),
    )  # fmt: skip
    made = [
        ("input", "lif", 0), ("lif", "lif", 1), ("lif", "cuba", np.array([0, 1, 2, 7])), ("cuba", "lif", 2), ("cuba", "if", 0),
        ("if", "gate", 1), ("if", "if", 3), ("gate", "leaky", 0), ("gate", "slow", 0), ("cuba", "sum", 0), ("leaky", "plain", 0),
    ]  # fmt: skip
    size = {one.name: one.size for one in populations}
    projections = tuple(Projection(f"{a} to {b}", a, b, synapses(size[a], size[b]), delay_steps=d) for a, b, d in made)
    return SpikingNetwork("all", populations, projections, ("plain", "sum", "slow", "if"), dt_s=2e-3)


def test_all_that_nir_can_say_comes_back(tmp_path):
    network = everything()
    nir.write(tmp_path / "all.nir", to_nir(network))
    again = load_nir(tmp_path / "all.nir", dt_s=network.dt_s)
    spikes = random_spikes(80, 6, 0.4, seed=10)
    before, after = given(network, spikes), given(again, spikes)
    assert before.keys() == after.keys()
    for name, rows in before.items():
        np.testing.assert_allclose(rows, after[name], rtol=0, atol=1e-9)
        assert np.ptp(rows) > 0, name
    assert sorted(again.outputs) == sorted(network.outputs)
    assert not any("repaired" in note for note in again.notes if "if" not in note)


@pytest.mark.parametrize(
    ("neurons", "text"),
    [
        (Neurons("integrate_and_fire", refractory_steps=2), "refractory_steps: NIR has none"),
        (Neurons("integrate_and_fire", adaptation=0.1), "adaptation: NIR has none"),
        (Neurons("resonate_and_fire", decay_v=0.9), "kind: NIR has no such neurons, got 'resonate_and_fire'"),
        (Neurons("integrate_and_fire", reset="none"), "reset: NIR has no such neurons, got 'none'"),
        (Neurons("integrate_and_fire", fires_at_threshold=True), "fires_at_threshold: NIR has no such neurons"),
        (
            Neurons("integrate_and_fire", decay_v=np.array([1.0, 0.5])),
            "decay_v: NIR has neurons of one kind together, got 0.5 to 1",
        ),
        (Neurons("integrate_and_fire", decay_i=0.5), "decay_i, decay_v: NIR's currents belong to"),
        (Neurons("integrate_and_fire", decay_v=0.5, v_init=0.3), "v_init: NIR's neurons begin at v_leak"),
        (Neurons("integrate_and_fire", bias=0.3), "bias: NIR has none without leak"),
        (Neurons("threshold", gain=-1.0), "gain: expected > 0, got -1"),
    ],
)
def test_what_nir_cannot_say(neurons, text):
    network = SpikingNetwork(
        "n", (Population("input", (2,), Neurons("input")), Population("p", (2,), neurons)),
        (Projection("w", "input", "p", Synapses.from_dense(np.ones((2, 2)))),), ("p",),
    )  # fmt: skip
    with pytest.raises(InputError) as raised:
        to_nir(network)
    assert str(raised.value).startswith(f"population 'p': {text}")


NAN = np.array([[1.0, 1, 1], [1, 1, np.nan]])


def lifs(**more):
    """Three LIF neurons."""
    every = {key: np.ones(3) for key in ("tau", "r", "v_leak", "v_threshold", "v_reset")}
    return nir.LIF(**every | {key: np.asarray(value) for key, value in more.items()})


def without(*edges, joins=None):
    """input → linear → LIF → output, with edges missing, and one more."""
    graph = chain(nir.Linear(np.ones((2, 3))), lif())
    kept = [edge for edge in graph.edges if tuple(edge) not in edges]
    return nir.NIRGraph(graph.nodes, kept + ([joins] if joins else []), type_check=False)


# --- bad input ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("graph", "options", "text"),
    [
        (lambda: 5, {}, "path_or_graph: expected a path or a nir.NIRGraph, got int"),
        (lambda: DATA / "none.nir", {}, "none.nir: no such file"),
        (lambda: DATA / "loihi_lif_trace.csv", {}, "cannot be read as NIR: OSError"),
        (lambda: LIF, {"integration": "heun"}, "integration: unknown name 'heun'"),
        (lambda: LIF, {"reset": "never"}, "reset: unknown name 'never'"),
        (lambda: LIF, {"dt_s": 0.0}, "dt_s: expected a finite number > 0, got 0.0"),
        (lambda: LIF, {"dt_s": 1e-2}, "lif: dt_s: expected at most 0.0025 s, tau of '1', as euler needs it"),
        (lambda: chain(lif(v_reset=0.2)), {"reset_mode": "subtract"}, "n0 has a v_reset other than 0"),
        (lambda: chain(lif(tau=0.0)), {}, "node 'n0' (LIF): tau: expected seconds > 0, got 0"),
        (lambda: chain(lifs(tau=[1, np.nan, 1])), {}, "node 'n0' (LIF): tau: expected finite numbers, got nan at [1]"),
        (lambda: chain(lifs(v_threshold=[1, 1, np.inf])), {}, "'n0' (LIF): v_threshold: expected finite numbers, got inf at [2]"),
        (lambda: chain(nir.Delay(np.array([np.nan]))), {}, "node 'n0' (Delay): delay: expected finite numbers, got nan at [0]"),
        (lambda: chain(nir.Linear(NAN)), {}, "node 'n0' (Linear): weight: expected finite numbers, got nan at [1, 2]"),
        (lambda: chain(nir.Affine(np.ones((2, 3)), NAN[:, 2])), {}, "(Affine): bias: expected finite numbers, got nan at [1]"),
        (lambda: without(("input", "n0")), {}, "node 'input' (Input): gives nothing; expected an edge from it"),
        (lambda: without(("n0", "n1"), joins=("n0", "output")), {}, "node 'n1' (LIF): gets nothing; expected an edge to it"),
        (lambda: without(("n0", "n1")), {}, "node 'n0' (Linear): gives nothing; expected an edge from it"),
        (lambda: without(("n1", "output")), {}, "node 'n1' (LIF): gives nothing; expected an edge from it"),
        (lambda: without(("n0", "n1"), ("n1", "output")), {}, "node 'n0' (Linear): gives nothing"),
        (lambda: chain(nir.Linear(np.ones((2, 4)))), {}, "edge 'input' to 'n0': gives shape (3,), takes (4,)"),
        (lambda: chain(nir.Delay(np.array([-1.0]))), {}, "node 'n0' (Delay): delay: expected seconds ≥ 0, got -1"),
        (lambda: chain(nir.Affine(np.ones((2, 3)), np.ones(4))), {}, "node 'n0' (Affine): bias: expected shape (2,), got (4,)"),
        (lambda: chain(nir.Conv1d(None, np.ones((1, 1, 3)), 0, 0, 1, 1, np.ones(1)), shape=(1, 9)), {}, "(Conv1d): stride: e"),
        (lambda: nir.NIRGraph({}, [], type_check=False), {}, "no nodes"),
        (lambda: nir.NIRGraph({"a": lif()}, [("a", "b")], type_check=False), {}, "edge ('a', 'b'): node: unknown name 'b'"),
        (
            lambda: nir.NIRGraph({"i": nir.Input(np.array([1])), "a": nir.Scale(np.ones(1)), "b": nir.Scale(np.ones(1)),
                                  "v": lif()}, [("i", "a"), ("a", "b"), ("b", "a"), ("b", "v")], type_check=False),
            {}, "a loop without neurons through a, b",
        ),
        (
            lambda: nir.NIRGraph({"i": nir.Input(None), "f": nir.Flatten(None)}, [("i", "f")], type_check=False),
            {}, "its shape is not given, and nothing around it says one",
        ),
    ],
)  # fmt: skip
def test_errors(graph, options, text):
    with pytest.raises(InputError) as raised:
        load_nir(graph(), **options)
    assert text in str(raised.value)
    assert "\n" not in str(raised.value)


def test_without_the_package_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "nir", None)
    for call in (lambda: load_nir(LIF), lambda: to_nir(everything())):
        with pytest.raises(InputError, match=r"nir \(1.0.8 or later\): pip install 'hwsim\[nir\]'"):
            call()


def loaded(source):
    """Any other exception than an InputError comes through."""
    try:
        load_nir(source)
    except InputError as error:
        found = str(error)
    else:
        found = "a network"
    assert len(found.splitlines()) == 1


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_a_file_cut_short_is_one_error(share, tmp_path):
    data = LIF.read_bytes()
    (tmp_path / "cut.nir").write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match=r"cut\.nir: cannot be read as NIR: \w+"):
        load_nir(tmp_path / "cut.nir")


@pytest.mark.parametrize("seed", range(100))
def test_a_file_of_other_contents_is_one_error(seed, tmp_path):
    """A sound HDF5 file in which entries are missing, renamed, of another type or shape."""
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(seed)
    path = tmp_path / "other.nir"
    path.write_bytes((LIF if seed % 2 else BRAILLE).read_bytes())
    bad = (1, -1.5, "text", np.array([]), np.zeros((3, 1)), np.array([b"a", b"b"]), np.nan, h5py.Empty("f"), 2**62, True)
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        for _ in range(rng.integers(1, 4)):
            name = str(rng.choice(names))
            if name not in file:
                continue
            if rng.random() < 0.3:
                file.move(name, f"{name}x")
                continue
            del file[name]
            if rng.random() < 0.7:
                file[name] = bad[rng.integers(len(bad))]
    loaded(path)


def test_an_array_larger_than_its_file_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "large.nir"
    path.write_bytes(LIF.read_bytes())
    with h5py.File(path, "r+") as file:
        del file["node/nodes/0/weight"]
        file.create_dataset("node/nodes/0/weight", (10**6, 10**6), "f8", chunks=(1000, 1000))
    with pytest.raises(InputError, match="node/nodes/0/weight: 8000000000000 bytes do not fit into the file"):
        load_nir(path)


@pytest.mark.parametrize("seed", range(120))
def test_a_broken_graph_is_one_error(seed):
    """Fields of nodes exchanged for what they must not be: it loads, or there is one line."""
    rng = np.random.default_rng(seed)
    graph = nir.read(BRAILLE if seed % 2 else CNN, type_check=False)
    bad = (
        None, np.nan, np.inf, -1, 0, "same", b"x", np.array([]), np.array([1, 2, 3]), np.zeros((2, 2, 2)), "", [], {}, 2**40,
        -0.5, np.array(["a"]), np.array([[None]]), 1e-30, True,
    )  # fmt: skip
    for _ in range(rng.integers(1, 4)):
        name = str(rng.choice(list(graph.nodes)))
        node = graph.nodes[name]
        key = str(rng.choice(list(node.__dict__)))
        setattr(node, key, bad[rng.integers(len(bad))])
        if rng.random() < 0.2:
            graph.edges.append((name, str(rng.choice(list(graph.nodes)))))
        if rng.random() < 0.1:
            del graph.nodes[name]
    loaded(graph)
