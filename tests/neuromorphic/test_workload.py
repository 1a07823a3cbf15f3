"""Spiking networks as workloads: counts against the synapses themselves, files against the network's own activity."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest

import hwsim
from hwsim.cli import main
from hwsim.workload import Workload
from neuromorphic.dynamics import simulate
from neuromorphic.events import Events
from neuromorphic.network import Neurons, Population, Projection, SpikingNetwork, Synapses
from neuromorphic.workload import SpikingWorkload, load, spiking_workload
from numerics.errors import InputError

DATA = Path(__file__).parent / "data"
CNN, BRAILLE = DATA / "cnn_nmnist.nir", DATA / "braille_noDelay_bias_zero.nir"


def sparse(rng, sources, targets, share):
    matrix = rng.normal(size=(targets, sources)) * (rng.random((targets, sources)) < share)
    return Synapses.from_dense(matrix, keep_zeros=False)


def loop_network():
    """input → a ⇄ b → out, a with an own loop and two kinds of input, out without memory."""
    rng = np.random.default_rng(0)
    fire = {"decay_v": 0.9, "threshold": 0.3}
    populations = (
        Population("input", (9,), Neurons("input")),
        Population("a", (7,), Neurons("integrate_and_fire", decay_i=0.5, **fire)),
        Population("b", (5,), Neurons("integrate_and_fire", refractory_steps=2, adaptation=0.1, decay_a=0.9, **fire)),
        Population("gate", (5,), Neurons("threshold")),
        Population("out", (2,), Neurons("readout", decay_v=0.0)),
    )
    projections = (
        Projection("in", "input", "a", sparse(rng, 9, 7, 0.4)),
        Projection("a", "a", "a", sparse(rng, 7, 7, 0.5), delay_steps=1),
        Projection("second", "b", "a", sparse(rng, 5, 7, 0.6), delay_steps=2, receptor=1),
        Projection("forth", "a", "b", sparse(rng, 7, 5, 0.7)),
        Projection("gate", "b", "gate", Synapses.from_coo(range(5), range(5), np.ones(5), sources=5)),
        Projection("out", "gate", "out", Synapses.from_dense(rng.normal(size=(2, 5)))),
    )
    return SpikingNetwork("loop", populations, projections, ("out", "b"), dt_s=1e-3)


RATES = {"input": 0.3, "a": 0.11, "b": 0.07, "gate": 0.05}


def test_synaptic_operations_are_those_of_the_synapses():
    network, steps = loop_network(), 1000
    found = spiking_workload(network, steps=steps, rates=RATES)
    assert [op.name for op in found.ops] == ["a", "b", "gate", "out"]
    for op in found.ops:
        arriving = [p for p in network.projections if p.target == op.name]
        exact = sum(RATES[p.source] * p.synapses.count for p in arriving) * steps
        assert op.synaptic_operations == round(exact)
        assert op.sources * op.fan_out == pytest.approx(sum(p.synapses.count for p in arriving), rel=1e-12)
        assert (op.neurons, op.time_steps) == (network.population(op.name).size, steps)
    assert {op.name: op.recurrent for op in found.ops} == {"a": (1, 2), "b": (0,), "gate": (), "out": ()}


def test_tensors_are_events_weights_and_states():
    found = spiking_workload(loop_network(), steps=20, rates=0.1)
    tensors = found.tensors
    assert {name for name, one in tensors.items() if one.role == "state"} == {"a.state", "b.state"}
    assert tensors["a.state"].shape == (3 - 1, 7)  # v and i: the second current does not last
    assert tensors["b.state"].shape == (3, 5)  # v, adaptation, refractory steps
    assert {tensors[f"{name}.spikes"].format for name in ("input", "a", "b", "gate")} == {"uint1"}
    assert tensors["out.spikes"].format == "fp32"
    assert (found.inputs, found.outputs) == (("input.spikes",), ("out.spikes", "b.spikes"))
    # A machine without events keeps the rows and columns that have a synapse, and knows how many are zero.
    synapses = loop_network().projections[0].synapses
    rows, columns = len(set(synapses.target.tolist())), int(np.count_nonzero(np.diff(synapses.first)))
    assert tensors["in.weight"].shape == (rows, columns)
    assert tensors["in.weight"].density == pytest.approx(synapses.count / (rows * columns))
    found.check_operands()


def test_a_machine_without_events_computes_the_whole_network():
    network = loop_network()
    found = spiking_workload(network, steps=20, rates=0.1)
    products = sum(np.prod(found.tensors[f"{p.name}.weight"].shape) for p in network.projections if p.name != "gate")
    expanded = found.expanded()
    assert expanded.macs == 20 * products
    assert isinstance(expanded, SpikingWorkload)
    assert expanded.network is network
    report = hwsim.get_device("gemmini_16x16").simulate(found)
    assert sum(row.macs for row in report.ops) == expanded.macs


def test_the_network_stays_with_the_workload_but_not_in_its_file():
    network = loop_network()
    events = {"input": Events.from_list([0, 1], [3, 4], steps=20, size=9)}
    found = spiking_workload(network, steps=20, rates=RATES, events=events)
    formatted = found.with_formats("int8")
    assert isinstance(formatted, SpikingWorkload)
    assert formatted.network is network
    assert formatted.events is events
    again = Workload.from_json(found.to_json())
    assert again.ops == found.ops
    assert again.expanded().ops == found.expanded().ops
    assert "network" not in found.to_json()
    assert repr(found).startswith("Workload('loop': 4 ops")


def test_readouts_send_every_step():
    network = SpikingNetwork(
        "values", (Population("r", (3,), Neurons("readout", bias=0.1)), Population("s", (2,), Neurons("readout"))),
        (Projection("w", "r", "s", Synapses.from_dense(np.ones((2, 3)))),), ("s",),
    )  # fmt: skip
    r, s = spiking_workload(network, steps=4, rates={}).ops
    assert (r.sources, r.synaptic_operations, s.synaptic_operations) == (0, 0, 4 * 6)
    assert [op.kind for op in spiking_workload(network, steps=4, rates={}).expanded().ops] == ["scan", "matmul", "scan"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"steps": 0, "rates": 0.1}, "steps: expected an integer ≥ 1, got 0"),
        ({"steps": 4, "rates": -0.1}, "rates: input: expected a finite number ≥ 0, got -0.1"),
        ({"steps": 4, "rates": {"input": 0.1}}, "rates: missing population: unknown name 'a'"),
        ({"steps": 4, "rates": RATES | {"c": 0.1}}, "population: unknown name 'c'"),
    ],
)
def test_errors(options, text):
    with pytest.raises(InputError) as raised:
        spiking_workload(loop_network(), **options)
    assert str(raised.value).startswith(text)
    empty = SpikingNetwork("e", (Population("input", (1,), Neurons("input")),), (), ("input",))
    with pytest.raises(InputError, match="no population computes anything"):
        spiking_workload(empty, steps=1, rates=1.0)


# --- files -------------------------------------------------------------------------------------------------------------------


def test_a_file_runs_on_random_events():
    pytest.importorskip("nir")
    found = load(CNN, steps=12, rate=0.2, seed=3)
    given = found.events["input"]
    assert (given.steps, given.size) == (12, 2312)
    assert given.rate == pytest.approx(0.2, abs=0.01)
    activity = simulate(found.network, found.events)
    assert found.metadata["rates"] == {name: one.rate for name, one in activity.events.items()}
    assert "probability 0.2 (seed 3, 12 steps)" in found.notes[0]
    same, other = load(CNN, steps=12, rate=0.2, seed=3), load(CNN, steps=12, rate=0.2, seed=4)
    np.testing.assert_array_equal(same.events["input"].neuron, given.neuron)
    assert other.events["input"].neuron.tolist() != given.neuron.tolist()
    assert load(BRAILLE).ops[0].time_steps == 100


def test_convolutions_stay_convolutions():
    pytest.importorskip("nir")
    expanded = load(CNN, steps=5).expanded()
    kinds = [op.kind for op in expanded.ops if op.kind != "scan"]
    assert kinds == ["convolution", "convolution", "reduction", "convolution", "reduction", "matmul", "matmul"]
    each = 16 * 16 * 16 * 50 + 16 * 16 * 16 * 144 + 8 * 8 * 8 * 144 + 256 * 128 + 2560
    assert expanded.macs == 5 * each
    assert expanded.parameters == 800 + 2304 + 1152 + 32768 + 2560


def test_a_file_runs_on_given_events(tmp_path):
    pytest.importorskip("nir")
    events = Events.from_dense((np.random.default_rng(1).random((30, 12)) < 0.2).astype(np.float64))
    events.save(tmp_path / "touch.npz")
    found = load(BRAILLE, events=tmp_path / "touch.npz")
    assert found.ops[0].time_steps == 30
    np.testing.assert_array_equal(found.events["input"].dense(), events.dense())
    assert f"touch.npz, {events.count} events in 30 steps" in found.notes[0]
    longer, shorter = (load(BRAILLE, events=tmp_path / "touch.npz", steps=steps) for steps in (50, 10))
    assert (longer.ops[0].time_steps, shorter.ops[0].time_steps) == (50, 10)
    np.testing.assert_array_equal(shorter.events["input"].dense(), events.dense()[:10])
    for option in ("rate", "seed"):
        with pytest.raises(InputError, match=f"{option}: of random events"):
            load(BRAILLE, events=tmp_path / "touch.npz", **{option: 0})
    with pytest.raises(InputError, match="rate: expected at most 1"):
        load(BRAILLE, rate=1.5)


def test_a_file_runs_on_events_in_memory():
    pytest.importorskip("nir")
    dense = (np.random.default_rng(1).random((30, 12)) < 0.2).astype(np.float64)
    for given in (Events.from_dense(dense), dense, dense.tolist()):
        found = hwsim.load_workload(BRAILLE, events=given, steps=20)
        np.testing.assert_array_equal(found.events["input"].dense(), dense[:20])
        assert found.notes[0] == f"input: given, {int(dense.sum())} events in 30 steps, of which the first 20"
    for given, text in (
        (Events.from_dense(np.ones((4, 5))), r"^events: expected 12 neurons, those of input 'input', got 5$"),
        (np.ones((4, 5)), r"^events: expected 12 neurons, those of input 'input', got 5$"),
        (3, r"^events: expected numbers \(steps, neurons\), got int64 \(\)$"),
        ({"input": dense}, r"^events: expected numbers \(steps, neurons\), got object \(\)$"),
    ):
        with pytest.raises(InputError, match=text):
            load(BRAILLE, events=given)
    for options in ({}, {"events": dense}):
        with pytest.raises(InputError, match=r"^duplicates: of a file's events, but "):
            load(BRAILLE, duplicates="once", **options)


def test_choices_reach_the_network_and_the_events(tmp_path):
    """Each from the command line as well."""
    pytest.importorskip("nir")
    (tmp_path / "twice.csv").write_text("step,neuron\n0,1\n0,1\n2,3\n")
    options = ["run", str(BRAILLE), "--device", "loihi", "--json", "--input", str(tmp_path / "twice.csv")]

    def notes(*more):
        out = io.StringIO()
        with redirect_stdout(out):
            assert main([*options, *more]) == 0
        return json.loads(out.getvalue())["notes"]

    err = io.StringIO()
    with redirect_stderr(err):
        assert main(options) != 0
    assert "step 0: neuron 1 is there twice; duplicates=once or add makes one of them" in err.getvalue()
    assert "input: twice.csv, 2 events in 3 steps" in notes("--duplicates", "once")
    once = ("--duplicates", "once")
    assert "integration: euler" in notes(*once)
    assert {"integration: exponential", "reset: to v_reset, next_step"} <= set(
        load(BRAILLE, integration="exponential", reset="next_step").network.notes
    )
    assert "integration: exponential" in notes(*once, "--integration", "exponential")
    assert "reset: to v_reset, next_step" in load(BRAILLE, reset="next_step").network.notes
    assert load(BRAILLE, reset_mode="subtract").network.population("lif2").neurons.reset == "subtract"
    added = load(BRAILLE, events=tmp_path / "twice.csv", duplicates="add")
    assert added.events["input"].values.tolist() == [2.0, 1.0]


@pytest.mark.parametrize("chip", ["odin", "truenorth"])
def test_leaks_run_on_chips_with_a_constant_one(chip, tmp_path, capsys):
    nir = pytest.importorskip("nir")
    lif = nir.LIF(*(np.full(4, value) for value in (0.01, 10.0, 0.0)), v_threshold=np.full(4, 1.0), v_reset=np.zeros(4))
    nodes = {"input": nir.Input(np.array([3])), "w": nir.Linear(np.full((4, 3), 0.5)), "lif": lif}
    graph = nir.NIRGraph(nodes | {"output": nir.Output(np.array([4]))}, [("input", "w"), ("w", "lif"), ("lif", "output")])
    nir.write(tmp_path / "lif.nir", graph)
    words = ["run", str(tmp_path / "lif.nir"), "--device", chip, "--rate", "0.5", "--json"]
    assert main(words) != 0
    assert "a constant leak, so 1 (exponential_leak=linear approximates it), got 0.9" in capsys.readouterr().err
    assert main([*words, "--set", "exponential_leak=linear"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert any(note.startswith("lif: decay_v 0.9 became a leak of 0.05 a step") for note in report["notes"])
    assert sum(row["spikes"] for row in report["tables"]["populations"] if not row["input"]) > 20
