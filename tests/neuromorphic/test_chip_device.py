"""The spiking chip as a device: from a NIR file to a report, its rungs, its pictures, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from chip_networks import dense, network, population

import hwsim
from hwsim.api import workload_from
from hwsim.registry import device_names, get_device
from hwsim.report import Report
from hwsim.views.files import report_figures
from neuromorphic import Events, NeuromorphicChip, bernoulli_events, chip_costs, spiking_workload
from neuromorphic.chip.analytic import layer_cores
from numerics import InputError

DATA = Path(__file__).parent / "data"
CHIPS = device_names(event_driven=True)


def small(seed=0, rate=0.3, steps=30, hidden=20):
    rng = np.random.default_rng(seed)
    net = network(
        [population("in", 12, "input"), population("hidden", hidden), population("out", 4)],
        [
            dense("in-hidden", "in", "hidden", rng.integers(-1, 4, (hidden, 12)) / 4),
            dense("hidden-out", "hidden", "out", rng.integers(-1, 3, (4, hidden)) / 4),
        ],
        name="small",
    )
    events = {"in": bernoulli_events(np.full(12, rate), seed=seed, steps=steps)}
    return net, spiking_workload(net, steps=steps, rates=0.2, events=events)


def test_all_chips_are_registered():
    assert {"loihi", "loihi2", "truenorth", "spinnaker2", "odin", "seneca"} <= set(CHIPS)
    assert not set(CHIPS) & set(device_names(event_driven=False))
    assert all(isinstance(get_device(name), NeuromorphicChip) for name in CHIPS)


@pytest.mark.parametrize("name", [name for name in CHIPS if name not in ("truenorth",)])
def test_every_chip_gives_a_true_report(name):
    """Parts add up, and the report survives its JSON."""
    net, workload = small()
    device = get_device(name)
    report = device.simulate(workload)
    ran = device.run(net, workload.events)
    assert [op.name for op in report.ops] == ["hidden", "out"]
    assert report.energy_j == pytest.approx(ran.costs.total_j)
    assert report.time_s == pytest.approx(ran.costs.time_s)
    assert sum(report.energy_by_component_j.values()) == pytest.approx(report.energy_j)
    spikes = {row["population"]: row["spikes"] for row in report.tables["populations"]}
    assert spikes == {one: ran.activity.events[one].count for one in ("in", "hidden", "out")}
    assert spikes["out"] > 0
    assert sum(row["synaptic_operations"] for row in report.tables["populations"]) == ran.activity.synaptic_operations.sum()
    steps = report.tables["time_steps"]
    assert sum(sum(v for k, v in row.items() if k.startswith("energy_")) for row in steps) == pytest.approx(report.energy_j)
    for figure in ran.costs.unknown:
        assert any(figure in note for note in report.notes)
    assert any(repr(device.spec.event_set) in note for note in report.notes)
    assert any(note.startswith("quantisation: ") and note.endswith("scale auto, timing aligned") for note in report.notes)
    again = Report.from_dict(json.loads(report.to_json()))
    assert again.to_dict() == report.to_dict()


@pytest.mark.parametrize("file", ["cnn_nmnist", "braille_noDelay_bias_zero"])
@pytest.mark.parametrize("name", ["loihi", "spinnaker2"])
def test_networks_of_other_frameworks_run(file, name):
    workload = hwsim.load_workload(DATA / f"{file}.nir", steps=20, rate=0.1, seed=3)
    report = hwsim.simulate(workload, device=name)
    assert sum(row["spikes"] for row in report.tables["populations"] if not row["input"]) > 20
    assert sum(op.time_s for op in report.ops) == pytest.approx(report.time_s)
    assert [op.name for op in report.ops] == [op.name for op in workload.ops]
    cores = report.tables["core_map"]
    assert sum(row["neurons"] for row in cores) >= workload.network.neurons
    assert {"raster", "core_map", "time_steps", "time", "energy"} <= set(report_figures(report))
    assert "roofline" not in report_figures(report)


def test_one_workload_on_two_kinds_of_machine():
    _, workload = small()
    chip, array = (hwsim.simulate(workload, device=name) for name in ("loihi", "gemmini_16x16"))
    # The array computes every synapse in every step; the chip those that a spike passes.
    assert array.macs == 30 * (12 * 20 + 20 * 4)
    operations = sum(row["synaptic_operations"] for row in chip.tables["populations"])
    assert 0 < operations < array.macs


def test_rungs_agree_where_they_must():
    """With the rates that came about, the analytic rung has the same operations, updates and their energies."""
    net, workload = small()
    device = get_device("loihi", overrides={"event_set": "sanafe2", "event_sets.sanafe2.neuron_update_inactive.energy_pj": 72.8})
    ran = device.run(net, workload.events)
    rates = {name: one.count / (30 * one.size) for name, one in ran.activity.events.items()}
    counted = spiking_workload(net, steps=30, rates=rates)
    analytic, event = device.simulate(counted, fidelity="analytic"), device.simulate(workload)
    exact = sum(op.synaptic_operations for op in counted.ops)
    # Fan-out is alike for all neurons of a layer, but not all spikes of the last steps arrive within 30 steps.
    assert exact == ran.activity.synaptic_operations.sum()
    assert analytic.energy_by_component_j["synapses"] == pytest.approx(event.energy_by_component_j["synapses"])
    # The run goes on for some steps until the last spikes are out; these updates are all that differs.
    late = ran.network.latency * net.neurons * 72.8e-12
    assert analytic.energy_by_component_j["neurons"] == pytest.approx(event.energy_by_component_j["neurons"] - late)
    assert analytic.energy_by_component_j["axons"] == pytest.approx(event.energy_by_component_j["axons"])
    assert analytic.time_s <= event.time_s
    assert [layer_cores(device.spec, op) for op in counted.ops] == [1, 1]


def test_values_may_be_given_with_the_call():
    net, workload = small()
    device = get_device("loihi")
    dense_input = workload.events["in"].dense()
    assert device.simulate(workload, inputs={"in": dense_input}).to_dict() == device.simulate(workload).to_dict()
    bare = spiking_workload(net, steps=30, rates=0.2)
    assert device.simulate(bare, inputs=workload.events).energy_j == device.simulate(workload).energy_j


def test_accuracy_and_energy_are_of_one_spec():
    """What ``emulate`` computes is what ``simulate`` counted."""
    import torch

    from neuromorphic import LIF, SpikingSequential, to_network

    torch.manual_seed(0)
    module = SpikingSequential(torch.nn.Linear(6, 5), LIF(0.875, threshold=1.0), torch.nn.Linear(5, 3), LIF(0.875, threshold=1.0))
    x = (torch.rand(25, 1, 6, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    device = get_device("loihi")
    emulated = device.emulate(module)
    spikes = emulated(x)
    net = to_network(module, (6,))
    events = {net.inputs[0]: Events.from_dense(x[:, 0].numpy())}
    ran = device.run(net, events)
    assert spikes[:, 0].sum() == ran.activity.aligned(net.outputs[0]).count > 0
    assert np.array_equal(ran.activity.aligned(net.outputs[0]).dense()[: len(spikes)], spikes[:, 0].numpy())


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda d, w: d.simulate(workload_from("mlp0")), r"workload 'mlp0': loihi runs spiking layers only, and '.*' is a"),
        (lambda d, w: d.simulate(w, fidelity="tile"), "fidelity"),
        (lambda d, w: d.simulate(w, fidelity="analytic", inputs={}), "inputs: fidelity 'analytic' computes no values"),
        (lambda d, w: d.simulate(w, inputs={}), "inputs: expected events of 'in'"),
        (lambda d, w: d.simulate(w, inputs={"x": w.events["in"]}), "inputs: unknown name 'x'"),
        (lambda d, w: d.simulate(w, inputs={"in": np.zeros((4, 3))}), "expected 12 neurons, got 3"),
        (lambda d, w: d.emulate(None, "int8"), "recipe: loihi computes in its own integers"),
    ],
)
def test_bad_requests(call, text):
    _, workload = small()
    with pytest.raises(InputError, match=text):
        call(get_device("loihi"), workload)


def test_layers_without_a_network_have_no_spikes_to_run():
    _, workload = small()
    plain = hwsim.Workload("plain", workload.ops, workload.tensors)
    device = get_device("loihi")
    with pytest.raises(InputError, match="has no neurons and synapses to run; fidelity 'analytic' needs none"):
        device.simulate(plain)
    assert device.simulate(plain, fidelity="analytic").time_s > 0


def test_a_chip_that_is_too_small_says_so():
    net, workload = small(hidden=300)
    with pytest.raises(InputError, match=r"needs \d+ cores, odin has 1|core 0: \d+ of 256"):
        get_device("odin").simulate(workload)
    with pytest.raises(InputError, match=r"needs 2 cores, loihi has 1"):
        get_device("loihi", overrides={"cores": 1, "neurons_per_core": 200}).run(net, workload.events)


def test_the_run_is_as_long_as_the_workload():
    """Events may end before, and never after; what nothing drives runs all the same."""
    net, _ = small()
    device = get_device("loihi")
    early = {"in": bernoulli_events(np.full(12, 0.3), seed=0, steps=10)}
    report = device.simulate(spiking_workload(net, steps=30, rates=0.2, events=early))
    assert len(report.tables["time_steps"]) == 30 + device.quantise(net).latency
    late = {"in": bernoulli_events(np.full(12, 0.3), seed=0, steps=100)}
    with pytest.raises(InputError, match=r"inputs: 'in': events of 100 steps, more than the 32 to run"):
        device.simulate(spiking_workload(net, steps=30, rates=0.2, events=late))
    alone = network([population("clock", 3, bias=0.5)], [], name="alone")
    found = device.simulate(spiking_workload(alone, steps=9, rates=0.0))
    assert found.tables["populations"][0]["spikes"] == 3 * 3
    with pytest.raises(InputError, match="steps: expected an integer ≥ 0, as nothing comes in"):
        device.run(alone, {})


def test_what_is_unknown_makes_a_lower_bound():
    _, workload = small()
    assert get_device("loihi").simulate(workload).origin == {"time": "lower bound", "energy": "lower bound"}
    silent = spiking_workload(workload.network, steps=5, rates=0.0, events={"in": Events.from_dense(np.zeros((5, 12)))})
    known = get_device("loihi", overrides={"static_power_w": 0, "idle_power_w_per_core": 0}).simulate(silent)
    assert known.origin == {"time": "predicted", "energy": "lower bound"}
    assert "barrier.energy_pj" in " ".join(known.notes)


def test_widths_and_formats_are_the_chips_own():
    net, workload = small()
    with pytest.raises(InputError, match=r"bits.voltage: expected 24, as this chip computes, got 20"):
        get_device("loihi", overrides={"bits.voltage": 20}).quantise(net)
    with pytest.raises(InputError, match=r"bits.weight: expected at most 9"):
        get_device("loihi", overrides={"bits.weight": 12}).quantise(net)
    coarse, fine = (get_device("loihi", overrides={"bits.weight": bits}).quantise(net).weight for bits in (3, 9))
    assert np.unique(coarse).size < np.unique(fine).size
    with pytest.raises(InputError, match=r"^formats: loihi computes in its own integers"):
        get_device("loihi").simulate(workload.with_formats("int8"))


def test_other_mappings_and_networks_are_refused():
    net, workload = small()
    device = get_device("loihi")
    other, _ = small(hidden=21)
    with pytest.raises(InputError, match=r"^core_of: 'hidden': expected 20 core numbers"):
        device.run(net, workload.events, mapping=device.map(other))
    with pytest.raises(InputError, match=r"^mapping: 'hidden': expected the mapping that the activity was run with"):
        chip_costs(device.run(net, workload.events).activity, device.map(net, neurons_per_core=5))
    with pytest.raises(InputError, match=r"^mapping: expected what map\(\) gives, got dict"):
        device.run(net, workload.events, mapping={})
    renamed = network([population("in", 12, "input"), population("x", 4)], [dense("in-x", "in", "x", np.ones((4, 12)))])
    with pytest.raises(InputError, match=r"^parameters: 'hidden' is not both a layer"):
        device.simulate(workload, parameters=renamed)
    biased = network(
        [population("in", 3, "input"), population("x", 2, decay_i=0.5, input_bias=0.3)],
        [dense("in-x", "in", "x", np.ones((2, 3)))],
    )
    events = {"in": Events.from_dense(np.ones((4, 3)))}
    mapped = device.run(biased, events, mapping=device.map(biased))
    assert mapped.activity.events["x"] == device.run(biased, events).activity.events["x"]


def test_the_analytic_rung_counts_synapses_in_memory():
    wide = network(
        [population("in", 2048, "input"), population("x", 1024)], [dense("in-x", "in", "x", np.full((1024, 2048), 0.25))]
    )
    workload = spiking_workload(wide, steps=2, rates=0.01)
    device = get_device("loihi")
    assert layer_cores(device.spec, workload.ops[0]) == pytest.approx(len(device.map(wide).used), abs=4)
