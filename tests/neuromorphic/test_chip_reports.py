"""What reports of spiking chips say of what is unknown, rounded, added and silent; and spiking modules on chips."""

import json

import numpy as np
import pytest
import torch
from chip_networks import dense, network, population

import hwsim
from hwsim.api import workload_from
from hwsim.cli import main
from hwsim.registry import get_device
from hwsim.report import Report
from hwsim.views.html import comparison_html, notebook_html, report_html
from hwsim.views.rows import comparison_rows
from neuromorphic import LIF, Events, SpikingSequential, bernoulli_events, cuba_network, quantise, spiking_workload
from neuromorphic.workload import module_workload
from numerics import InputError


def small(*, rate=0.3, steps=20, dt_s=1e-3, **neurons):
    rng = np.random.default_rng(0)
    net = network(
        [population("in", 12, "input"), population("out", 6, **neurons)],
        [dense("p", "in", "out", rng.integers(-1, 4, (6, 12)) / 4)],
    )
    events = {"in": bernoulli_events(np.full(12, rate), seed=0, steps=steps)}
    return spiking_workload(net, steps=steps, rates=0.2, events=events)


# --- what is unknown -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("chip", "energy"), [("loihi2", False), ("seneca", True)])
def test_what_nothing_is_known_of_is_unknown(chip, energy, capsys):
    report = get_device(chip).simulate(small())
    assert report.known_time_s is None
    assert (report.known_energy_j is not None) == energy
    assert report.average_power_w is None
    report.print()
    lines = capsys.readouterr().out.splitlines()
    fields = {line.split("  ")[0].strip(): line for line in lines}
    assert fields["latency"].split() == ["latency", "unknown"]
    assert (fields["energy"].split() == ["energy", "unknown"]) != energy
    assert " ".join(fields[next(f for f in fields if f.startswith("average power"))].split()) == "average power unknown"
    (row,) = [line for line in lines if line.startswith("out ")]
    assert " unknown " in row
    assert " 0 s" not in "\n".join(lines)
    for page in (notebook_html(report), report_html(report), comparison_html([report])):
        assert ">0 s<" not in page
        assert ">0 J<" not in page
        assert ">0 W<" not in page
        assert "unknown" in page
    totals = json.loads(report.to_json())["totals"]
    assert (totals["time_s"], totals["average_power_w"]) == (None, None)
    assert (totals["energy_j"] is None) != energy
    assert Report.from_dict(json.loads(report.to_json())).to_dict() == report.to_dict()


def test_a_comparison_leaves_out_what_is_unknown(capsys):
    from hwsim.views.table import print_comparison

    workload = small()
    reports = [get_device(name).simulate(workload) for name in ("loihi2", "loihi")]
    unknown, known = comparison_rows(reports)
    assert (unknown["time_s"], unknown["relative_time"], unknown["energy_j"], unknown["average_power_w"]) == (None,) * 4
    assert (known["time_s"], known["relative_time"]) == (reports[1].time_s, 1.0)
    assert known["average_power_w"] is None, "lower bounds have no ratio"
    print_comparison(reports)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("loihi2")]
    assert line.split()[1:4] == ["unknown", "–", "unknown"]


def test_known_time_and_energy_have_a_power():
    report = hwsim.simulate("mlp0", device="gemmini_16x16")
    assert (report.known_time_s, report.known_energy_j) == (report.time_s, report.energy_j)
    assert report.average_power_w == pytest.approx(report.energy_j / report.time_s)


# --- where time goes -------------------------------------------------------------------------------------------------


def test_parts_of_the_time_are_work_waiting_and_the_rest():
    """Against the costs themselves: the busiest core works, packets are waited for, the rest is the barrier's."""
    workload = small(rate=0.9)
    device = get_device(
        "loihi",
        overrides={
            "neurons_per_core": 1,
            "event_sets.davies2018.hop_east_west.time_ns": 3e4,
            "event_sets.davies2018.hop_north_south.time_ns": 3e4,
        },
    )
    report, costs = device.simulate(workload), device.run(workload.network, workload.events).costs
    worked = (costs.update_s + costs.receive_s).max(axis=1).sum()
    parts = [sum(getattr(op, f"{name}_cycles") for op in report.ops) / 1e9 for name in ("compute", "stall", "overhead")]
    assert parts == pytest.approx([worked, costs.busy_s.sum() - worked, costs.time_s - costs.busy_s.sum()])
    assert parts[1] > 0, "otherwise work and waiting are the same"


def test_nothing_is_below_zero_and_time_begins_at_zero():
    for name, changes in (("loihi", {}), ("odin", {"exponential_leak": "linear"}), ("spinnaker2", {"step_time_s": 1e-9})):
        report = get_device(name, overrides=changes).simulate(small(threshold=1.0, fires_at_threshold=True))
        assert report.tables["time_steps"][0]["begin_s"] == 0.0
        assert all(op.overhead_cycles >= 0 for op in report.ops)
        assert "1 cores" not in " ".join(report.notes)
        assert ", 1 core" in report.notes[0]
    # Sums in another order: a share of −0 % of nothing.
    workload = small(threshold=1.0, fires_at_threshold=True, rate=0.05, steps=26)
    costs = get_device("odin").run(workload.network, workload.events).costs
    assert costs.time_s - costs.busy_s.sum() < 0
    assert all(op.overhead_cycles == 0 for op in get_device("odin").simulate(workload).ops)


def test_a_chip_with_another_pace_says_so():
    workload = small()
    text = "a step of the network is 0.001 s, of the chip 0.0005 s: 0.5 times as long"
    assert text in get_device("truenorth", overrides={"step_time_s": 5e-4}).simulate(workload).notes
    assert not any("a step of the network" in note for note in get_device("truenorth").simulate(workload).notes)


# --- spikes and what was added -----------------------------------------------------------------------------------------


def test_spikes_are_counted_in_one_way():
    report = get_device("loihi").simulate(small(decay_i=0.5, decay_v=0.9, input_bias=0.3))
    spikes = {row["population"]: row["spikes"] for row in report.tables["populations"]}
    steps = len(report.tables["time_steps"])
    assert spikes["constant"] == steps
    neurons = spikes["out"] + spikes["constant"]
    assert report.notes[0].startswith(f"{steps} steps: {neurons} spikes of neurons and {spikes['in']} that enter, ")
    assert len(report.tables["raster"]) == sum(spikes.values())
    added = f"{steps} of the spikes and {steps * 6} of the synaptic operations are of 'constant', which was added for the chip"
    assert added in report.notes
    assert "'constant' that always fires: its spikes and synapses cost" in " ".join(report.notes)
    assert not any("added for the chip" in note for note in get_device("loihi").simulate(small()).notes)


def test_errors_name_what_the_user_wrote():
    workload = small(decay_i=0.5, decay_v=0.9, input_bias=np.array([1e-9, 0, 0, 0, 0, 0]), threshold=1.0)
    with pytest.raises(InputError, match=r"^projection 'input_bias of out': weight: loihi has none below"):
        get_device("loihi").simulate(workload)
    with pytest.raises(InputError, match=r"^population 'out': threshold: loihi has thresholds ≥ v_reset, 2, got 1$"):
        get_device("loihi").simulate(small(threshold=1.0, v_reset=2.0))
    with pytest.raises(InputError, match=r"^population 'out': threshold: loihi has thresholds ≥ 0, got -1$"):
        get_device("loihi").simulate(small(threshold=-1.0))


# --- what rounding does --------------------------------------------------------------------------------------------------


def test_a_network_that_rounding_silences_says_so():
    """E. g. CUBA, whose neurons drift to −49 mV above a threshold of −50 mV, and in bfloat16 to −62.5 mV."""
    made = quantise(cuba_network(seed=1, neurons=50), "seneca")
    (decay,) = [note for note in made.notes if note.startswith("neurons: decay_v ")]
    assert decay.endswith("0.995012 became 0.996094: its time constant is 1.28 times as long")
    text = "neurons: 50 of 50 neurons no longer fire without input: v went toward -49 at a threshold of -50, and with rounded"
    assert any(note.startswith(text) and note.endswith("-62.5") for note in made.notes)
    assert not any("without input" in note for note in quantise(cuba_network(seed=1, neurons=50), "float32").notes)
    workload = small(decay_v=0.998, bias=0.0021, threshold=1.0, rate=0.0)
    report = get_device("seneca").simulate(workload)
    assert "never spikes in this chip's numbers: 'out' (0.2 spikes a neuron and step expected)" in report.notes
    assert not any("never spikes" in note for note in get_device("seneca").simulate(small()).notes)


# --- torch modules ---------------------------------------------------------------------------------------------------------


def spiking():
    torch.manual_seed(0)
    module = SpikingSequential(torch.nn.Linear(6, 5), LIF(0.875, threshold=1.0), torch.nn.Linear(5, 3), LIF(0.875, threshold=1.0))
    x = (torch.rand(25, 1, 6, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    return module.eval(), x


def test_a_spiking_module_runs_on_a_chip():
    """Its example goes in; the spikes are those of the chip's emulation."""
    module, x = spiking()
    device = get_device("loihi")
    report = hwsim.simulate(module, x, device="loihi")
    spikes = {row["population"]: row["spikes"] for row in report.tables["populations"]}
    assert spikes["input"] == x.sum()
    assert spikes["3"] == device.emulate(module)(x).sum() > 0
    assert f"input: the example's, {int(x.sum())} events in 25 steps" in report.notes
    assert device.simulate(device.workload(module, x)).energy_j == report.energy_j
    shaped = hwsim.simulate(module, x.to("meta"), device="loihi")
    assert "input: random events, each neuron spikes in a step with probability 0.05 (seed 0, 25 steps)" in shaped.notes


def test_other_events_may_go_into_a_module(tmp_path):
    module, x = spiking()
    events = Events.from_dense(x[:9, 0].numpy())
    events.save(tmp_path / "e.npz")
    for given in (events, tmp_path / "e.npz", x[:9, 0].numpy()):
        found = module_workload(module, x, events=given)
        assert found.ops[0].time_steps == 9
        np.testing.assert_array_equal(found.events["input"].dense(), x[:9, 0].numpy())
    drawn = module_workload(module, torch.zeros(4, 8, 6), rate=0.5, seed=1, steps=30, dt_s=1e-4, name="mine")
    assert (drawn.name, drawn.ops[0].time_steps, drawn.network.dt_s) == ("mine", 30, 1e-4)
    assert drawn.events["input"].rate == pytest.approx(0.5, abs=0.1)
    assert module_workload(module, x, steps=7).ops[0].time_steps == 7


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda m, x: get_device("loihi").simulate(m),
            r"^workload: expected a Workload, got SpikingSequential; workload\(module",
        ),
        (lambda m, x: hwsim.simulate(m, device="loihi"), r"^example inputs: expected one tensor \(steps, batch, \*features\)"),
        (lambda m, x: hwsim.simulate(m, x[:, 0], device="loihi"), r"^example inputs: expected one tensor .*, got \(25, 6\)"),
        (
            lambda m, x: hwsim.simulate(m, torch.zeros(4, 2, 6), device="loihi"),
            r"^example inputs: expected a batch of 1, .* got 2",
        ),
        (
            lambda m, x: hwsim.simulate(torch.nn.Sequential(torch.nn.Linear(6, 2), torch.nn.ReLU()), x, device="loihi"),
            r"^layer '1' \(ReLU\): no population computes it; .*; neuromorphic.convert makes",
        ),
        (lambda m, x: get_device("loihi").workload(m, x, reset="immediate"), r"^reset: a torch module leaves no such choice"),
        (lambda m, x: hwsim.simulate(len, x, device="loihi"), r"^module: expected a torch module of spiking cells, got builtin"),
    ],
)
def test_what_is_no_spiking_module_is_one_error(call, text):
    with pytest.raises(InputError, match=text):
        call(*spiking())


MODEL = """
import torch
from neuromorphic import LIF, SpikingSequential, spiking_workload, to_network

def model():
    torch.manual_seed(0)
    return SpikingSequential(torch.nn.Linear(6, 5), LIF(0.875, threshold=1.0)).eval(), torch.ones(12, 1, 6)

def made():
    return spiking_workload(to_network(model()[0], (6,)), steps=3, rates=0.1)
"""


def test_modules_from_the_command_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "spiking_model_of_mine.py").write_text(MODEL)
    monkeypatch.syspath_prepend(tmp_path)
    name = "spiking_model_of_mine:model"

    def notes(*options):
        assert main(["run", name, "--device", "loihi", "--json", *options]) == 0
        return json.loads(capsys.readouterr().out)["notes"]

    assert "input: the example's, 72 events in 12 steps" in notes()
    assert any("probability 0.2 (seed 3, 7 steps)" in note for note in notes("--rate", "0.2", "--seed", "3", "--steps", "7"))
    assert main(["compare", name, "--device", "gemmini_16x16", "--device", "loihi", "--json"]) == 0
    both = json.loads(capsys.readouterr().out)["reports"]
    assert [report["device"] for report in both] == ["gemmini_16x16", "loihi"]
    assert both[0]["totals"]["macs"] == 12 * 6 * 5
    for words, text in (
        ((name, "--device", "loihi", "--reset", "immediate"), "reset: a torch module leaves no such choice; leave reset out"),
        (
            (name, "--device", "tpu_v1", "--rate", "0.2"),
            "rate: files of spiking networks (.nir) take it, and spiking modules for",
        ),
        (
            ("spiking_model_of_mine:made", "--device", "loihi", "--rate", "0.2"),
            "rate: spiking_model_of_mine:made returns a workload",
        ),
    ):
        assert main(["run", *words]) != 0
        assert text in capsys.readouterr().err
    assert workload_from(name).ops[0].kind != "spiking_layer"
