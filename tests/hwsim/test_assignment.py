"""Layers of several networks on several machines: whole reports, schedules checked rule by rule, exhaustive search, bounds."""

import itertools
import json
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import hwsim
from hwsim.explore.space import Space
from hwsim.explore.sub_accelerators import SubAccelerators, array_of
from hwsim.operators import Convolution, Matmul
from hwsim.planning.assignment import Assignment, Handover, assign
from hwsim.planning.assignment_costs import costs_on, cut, layer_costs
from hwsim.planning.assignment_search import Problem, exact, heuristic, list_schedule, lower_bounds
from hwsim.views.perfetto import validate_trace
from hwsim.workload import chain
from numerics import InputError
from numerics.recipes import get_recipe


class Residual(nn.Module):
    """Two paths that meet again, then a depthwise convolution and a classifier."""

    def __init__(self, width=8):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.left = nn.Conv2d(width, width, 3, padding=1)
        self.right = nn.Conv2d(width, width, 1)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.relu(self.left(x)) + self.right(x)
        return self.head(torch.relu(self.depthwise(x)).mean((2, 3)))


def residual(width=8, size=12):
    with torch.device("meta"):
        return hwsim.trace(Residual(width).eval(), torch.empty(1, 3, size, size))


def attention():
    with torch.device("meta"):
        return hwsim.trace(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval(), torch.empty(1, 6, 16))


def int8_array(**overrides):
    return hwsim.get_device("gemmini_16x16", overrides=overrides)


OS = {"array.dataflow": "os", "array.rows": 8, "name": "os"}


# --- what a layer costs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["gemmini_16x16", "eyeriss", "nvdla_512", "scale_sim_32x32"])
def test_layers_alone_add_up_to_the_whole_where_nothing_stays_on_chip(device):
    machine = hwsim.get_device(device)
    for workload in (residual(), attention()):
        report = machine.simulate(workload)
        found = layer_costs([workload], [machine])
        assert sum(len(layer.ops) for layer in found.layers) == len(report.ops)
        assert found.time_s.sum() == pytest.approx(report.time_s, rel=1e-12)
        static = found.static_power_w[0] * found.time_s.sum()
        assert found.energy_j.sum() + static == pytest.approx(report.energy_j, rel=1e-12)
        assert sum(layer.macs for layer in found.layers) == report.macs


def test_one_machine_runs_one_network_as_simulate_says():
    workload, machine = residual(), int8_array()
    report, found = machine.simulate(workload), assign(workload, [machine])
    assert found.makespan_s == pytest.approx(report.time_s, rel=1e-12)
    assert found.energy_j == pytest.approx(report.energy_j, rel=1e-12)
    assert found.least_makespan_s == pytest.approx(report.time_s, rel=1e-6)
    assert found.optimal
    assert found.utilization == {"gemmini_16x16": pytest.approx(1.0)}


def test_what_would_stay_on_chip_is_loaded_again():
    """Weights apart, a layer alone moves what it reads and writes; a machine that keeps results moves less in one piece."""
    workload, machine = residual(), hwsim.get_device("tpu_v1")
    assert machine.spec.memory.input.retained_capacity_bytes > 0
    whole = machine.simulate(workload).bytes_offchip
    network = cut(workload.with_formats(machine.spec.default_recipe))
    alone = sum(machine.simulate(layer).bytes_offchip for layer in network.alone)
    assert alone > whole


def test_layers_wait_for_what_they_read():
    network = cut(residual().with_formats(get_recipe("int8")))
    names = [layer.name for layer in network.layers]
    needs = {layer.name: {names[i]: size for i, size in layer.needs} for layer in network.layers}
    whole = 8 * 12 * 12
    assert needs["stem"] == {}
    assert needs["left"] == {"stem": whole}
    assert needs["right"]["stem"] == whole
    assert sum("left" in one or "right" in one for one in needs.values()) >= 1
    reached = set()
    for layer in reversed(network.layers):
        if layer.name == names[-1] or layer.name in reached:
            reached |= {names[i] for i, _ in layer.needs}
    assert reached == set(names[:-1])


# --- schedules, rule by rule ---------------------------------------------------------------------------------


def check(found: Assignment, costs, handover=None):
    """Every rule that a schedule has to keep, from its table alone."""
    handover = handover or Handover()
    by_layer = {(one.network, one.layer): one for one in found.layers}
    assert len(by_layer) == len(costs.layers) == len(found.layers)
    total = crossing = 0.0
    for number, layer in enumerate(costs.layers):
        one = by_layer[found.networks[layer.network], layer.name]
        machine = found.devices.index(one.device)
        assert one.end_s - one.start_s == pytest.approx(costs.time_s[number, machine], rel=1e-9)
        total += costs.energy_j[number, machine]
        for earlier, size in layer.needs:
            before = by_layer[found.networks[costs.layers[earlier].network], costs.layers[earlier].name]
            way = 0.0
            if before.device != one.device and size:
                way = handover.latency_s + size / handover.bytes_per_s
                crossing += size * handover.energy_pj_per_byte * 1e-12
            assert one.start_s >= (before.end_s + way) * (1 - 1e-12)
    for device in found.devices:
        own = sorted((one.start_s, one.end_s) for one in found.layers if one.device == device)
        assert all(b[0] >= a[1] * (1 - 1e-12) for a, b in itertools.pairwise(own))
    assert found.makespan_s == pytest.approx(max(one.end_s for one in found.layers))
    energy = total + crossing + costs.static_power_w.sum() * found.makespan_s
    assert found.energy_j == pytest.approx(energy, rel=1e-12)
    assert found.least_makespan_s <= found.makespan_s


@pytest.mark.parametrize("handover", [None, Handover(bytes_per_s=1e9, latency_s=1e-6, energy_pj_per_byte=50)])
@pytest.mark.parametrize("objective", ["energy_j", "makespan_s"])
def test_a_schedule_keeps_every_rule(objective, handover):
    networks = [residual(8), residual(16, size=10)]
    machines = [int8_array(), int8_array(**OS), "scale_sim_32x32"]
    found = assign(networks, machines, objective=objective, handover=handover)
    assert found.networks == ("Residual", "Residual (2)")
    check(found, layer_costs(networks, [hwsim.get_device(m) for m in machines]), handover)
    again = assign(networks, machines, objective=objective, handover=handover)
    assert again == found
    assert found.latency_s["Residual"] <= found.makespan_s == max(found.latency_s.values())


def test_a_deadline_costs_energy_and_a_hopeless_one_is_said_to_be():
    networks, machines = [residual(8), residual(16)], [int8_array(), int8_array(**OS)]
    quickest = assign(networks, machines, objective="makespan_s", search="exact")
    free = assign(networks, machines, search="exact")
    tight = assign(networks, machines, deadline_s=quickest.makespan_s, search="exact")
    assert tight.meets_deadline
    assert quickest.makespan_s < free.makespan_s
    assert free.energy_j < tight.energy_j <= quickest.energy_j
    assert free.least_energy_j <= tight.least_energy_j <= tight.energy_j
    late = assign(networks, machines, deadline_s=quickest.least_makespan_s * 0.9)
    assert not late.meets_deadline
    assert not late.optimal
    assert late.least_energy_j == np.inf
    assert "no schedule keeps the deadline" in late.notes[0]
    json.dumps(late.to_dict(), allow_nan=False)


def test_handing_over_is_avoided_where_it_costs_too_much():
    networks, machines = [residual(8), residual(16)], [int8_array(), int8_array(**OS)]
    near = assign(networks, machines, objective="makespan_s", search="exact")
    far = assign(networks, machines, objective="makespan_s", handover=Handover(latency_s=1.0), search="exact")
    assert any(len(set(near.machine_of(name).values())) > 1 for name in near.networks)
    assert all(len(set(far.machine_of(name).values())) == 1 for name in far.networks)
    assert far.makespan_s > near.makespan_s


# --- the search against all schedules ------------------------------------------------------------------------


def random_problem(rng, layers, machines):
    """Times and energies of a few whole numbers, so that ties come up; some layers run on some machines only."""
    time = rng.integers(1, 10, (layers, machines)).astype(float)
    if rng.random() < 0.3 and machines > 1:
        time[rng.integers(layers), rng.integers(machines)] = np.inf
    energy = np.where(np.isfinite(time), rng.integers(1, 10, time.shape), 0.0)
    needs = tuple(
        tuple((e, float(rng.integers(0, 4)), float(rng.integers(0, 3))) for e in range(layer) if rng.random() < 0.35)
        for layer in range(layers)
    )
    deadline = np.inf if rng.random() < 0.4 else float(rng.integers(5, 25))
    return Problem(time, energy, float(rng.integers(0, 3)), needs, str(rng.choice(["energy_j", "makespan_s"])), deadline)


def best_of_all(problem):
    """Rank of the best schedule: every assignment in every order that the layers may run in."""
    layers, machines = problem.time_s.shape
    best = [(np.inf,) * 3]

    def extend(chosen, done, free, ends):
        if len(done) == layers:
            end = max(ends.values())
            best[0] = min(best[0], problem.rank(problem.dynamic_energy(chosen) + problem.static_w * end, end))
            return
        for layer in range(layers):
            if layer in done or any(earlier not in done for earlier, *_ in problem.needs[layer]):
                continue
            own = chosen[layer]
            ways = [ends[e] + (delay if chosen[e] != own else 0.0) for e, delay, _ in problem.needs[layer]]
            end = max([free[own], *ways]) + problem.time_s[layer, own]
            extend(chosen, done | {layer}, [end if m == own else f for m, f in enumerate(free)], {**ends, layer: end})

    for chosen in itertools.product(*problem.options):
        extend(chosen, frozenset(), [0.0] * machines, {})
    return best[0]


def compare(seeds, most_layers=6, most_machines=3):
    """(schedules of the heuristic that are not the best, largest share by which they miss it)."""
    missed, gap = 0, 0.0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        problem = random_problem(rng, int(rng.integers(2, most_layers + 1)), int(rng.integers(1, most_machines + 1)))
        truth = best_of_all(problem)
        quick = heuristic(problem)
        found, known = exact(problem, quick, nodes=10**6)
        assert known
        late, value, _ = problem.rank(found.energy_j, found.makespan_s)
        assert (late, value) == pytest.approx(truth[:2])
        least_makespan, least_energy = lower_bounds(problem)
        assert least_makespan <= found.makespan_s
        assert least_energy <= found.energy_j or truth[0] > 0
        if least_energy == np.inf:
            assert truth[0] > 0
        late, value, _ = problem.rank(quick.energy_j, quick.makespan_s)
        assert late == pytest.approx(truth[0])
        missed += value > truth[1] * (1 + 1e-9)
        gap = max(gap, value / truth[1] - 1)
    return missed, gap


def test_exact_is_the_best_of_all_schedules_and_the_heuristic_near_it():
    missed, gap = compare(range(16), most_layers=5, most_machines=2)
    assert missed == 0
    assert gap <= 1e-9


@pytest.mark.exhaustive
def test_exact_is_the_best_of_all_schedules_over_many():
    missed, gap = compare(range(1000, 1150), most_layers=5)
    assert missed <= 3
    assert gap <= 0.05


def test_compiled_and_plain_schedules_are_the_same():
    from hwsim.planning._assignment_kernels import makespan

    for seed in range(40):
        rng = np.random.default_rng(seed)
        problem = random_problem(rng, 12, 3)
        machines = [int(rng.choice(options)) for options in problem.options]
        urgency = rng.choice([0.0, 0.3, 1.0]) * rng.random(12)
        first, later, delay, _, waits = problem.arrays
        room = np.zeros(12), np.zeros(12), np.zeros(3), np.zeros(12, dtype=np.int64)
        end = makespan(problem.time_s, np.array(machines), urgency, first, later, delay, waits, *room)
        assert end == list_schedule(problem, machines, urgency.tolist()).makespan_s


def test_a_search_cut_short_says_so():
    rng = np.random.default_rng(5)
    time = rng.random((14, 3)) + 0.1
    chains = tuple(() if layer in (0, 7) else ((layer - 1, 0.0, 0.0),) for layer in range(14))
    problem = Problem(time, rng.random((14, 3)), 0.5, chains, "energy_j")
    start = heuristic(problem)
    found, known = exact(problem, start, nodes=50)
    assert not known
    assert found.energy_j <= start.energy_j


# --- what comes out and what is refused ----------------------------------------------------------------------


def test_tables_timeline_and_picture():
    found = assign([residual(8), residual(16)], [int8_array(), int8_array(**OS)], deadline_s=1.0)
    assert validate_trace(found.timeline()) == []
    assert {span.track for span in found.spans} <= set(found.devices)
    assert list(found.to_pandas()["layer"]) == [one.layer for one in found.layers]
    assert found.to_dict()["meets_deadline"] is True
    assert len(repr(found).splitlines()) == 1
    axes = found.plot().axes[0]
    assert len(axes.patches) == len(found.layers)


def test_area_is_that_of_the_machines():
    machines = [int8_array(), int8_array(**OS)]
    expected = sum(machine.area(28).total_mm2 for machine in machines)
    assert assign(residual(), machines, node_nm=28).area_mm2 == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"devices": []}, "devices: expected at least one, got none"),
        ({"workloads": []}, "workloads: expected at least one with operators, got none"),
        ({"objective": "time"}, "objective"),
        ({"search": "best"}, "search"),
        ({"deadline_s": 0}, "deadline_s: expected a finite number above 0, got 0"),
        ({"devices": ["gemmini_16x16", "eyeriss"]}, "'gemmini_16x16' and 'eyeriss' have different default formats"),
        ({"fidelity": "best"}, "fidelity"),
        ({"recipe": "fp32"}, "devices: none can run layer 'stem'"),
    ],
)
def test_bad_requests_are_one_line(arguments, message):
    given = {"workloads": [residual()], "devices": ["gemmini_16x16"], **arguments}
    with pytest.raises(InputError, match=message) as caught:
        assign(given.pop("workloads"), given.pop("devices"), **given)
    assert "\n" not in str(caught.value)


def test_a_handover_takes_numbers():
    for change, message in [
        ({"bytes_per_s": 0}, "handover: bytes_per_s: expected a number above 0, got 0"),
        ({"latency_s": -1.0}, "handover: latency_s: expected a number ≥ 0, got -1.0"),
        ({"energy_pj_per_byte": "2"}, "handover: energy_pj_per_byte: expected a number ≥ 0, got '2'"),
    ]:
        with pytest.raises(InputError, match=message):
            Handover(**change)


def test_unknown_energy_is_none_and_no_objective():
    devices = [hwsim.get_device(name) for name in hwsim.device_names(event_driven=False)]
    workload = chain("one", [Matmul(name="a", m=8, n=8, k=8)])
    unknown = [d for d in devices if (r := d.simulate(workload)).known_energy_j is None and r.known_time_s is not None]
    for device in unknown[:1]:
        with pytest.raises(InputError, match="knows nothing of energy"):
            assign(workload, [device])
        assert assign(workload, [device], objective="makespan_s").energy_j is None
    dark = layer_costs([workload], [int8_array()])
    assert np.isfinite(dark.energy_j).all()


def test_a_layer_goes_where_it_can_run():
    """An array of int8 multipliers refuses every product in single precision; the GPU beside it takes them all."""
    machines = ["gemmini_16x16", "a100"]
    found = assign(residual(), machines, recipe="fp32", objective="makespan_s")
    costs = layer_costs([residual()], [hwsim.get_device(m) for m in machines], recipe=get_recipe("fp32"))
    refused = {layer.name for layer, row in zip(costs.layers, costs.time_s, strict=True) if np.isinf(row[0])}
    assert {"stem", "left", "right", "depthwise", "head"} <= refused
    assert {found.machine_of("Residual")[name] for name in refused} == {"a100"}
    alone = costs_on(cut(residual().with_formats(get_recipe("fp32"))), int8_array())
    assert "gemmini_16x16" in alone.refusals[0]


# --- the evaluator -------------------------------------------------------------------------------------------


def small(width):
    layers = [
        Convolution(
            name="conv",
            batch=1,
            in_channels=4,
            out_channels=width,
            input_size=(8, 8),
            output_size=(8, 8),
            kernel=(3, 3),
            stride=(1, 1),
            dilation=(1, 1),
            padding=((1, 1), (1, 1)),
        ),
        Matmul(name="head", m=1, n=10, k=width),
    ]
    return chain(f"small{width}", layers)


def accuracy(width):
    return 1 - 1 / width


SPACE = {
    "sub1.template": ["ws", "os"],
    "sub1.pes": [64, 128],
    "sub2.template": ["ws", "none"],
    "sub2.off_chip.bandwidth_bytes_per_s": [8e9, 16e9],
    "a.width": [8, 16],
}


def evaluator(**keywords):
    templates = {"ws": "gemmini_16x16", "os": int8_array(**OS)}
    return SubAccelerators({"a": small, "b": small(32)}, templates, node_nm=28, **keywords)


def test_the_evaluator_gives_what_assign_gives():
    evaluate = evaluator()
    configuration = {"sub1.template": "os", "sub1.pes": 128, "sub2.template": "ws", "a.width": 16}
    row = evaluate(configuration)
    machines = [
        int8_array(**OS | {"array.rows": 8, "array.columns": 16}),
        int8_array(),
    ]
    found = assign([small(16), small(32)], machines)
    assert row["time_s"] == found.makespan_s
    assert row["energy_j"] == found.energy_j
    assert row["area_mm2"] == pytest.approx(sum(machine.area(28).total_mm2 for machine in machines))
    assert row["pes"] == 128 + 256
    assert row["bandwidth_bytes_per_s"] == 32e9
    assert row["weight_bytes"] == sum(4 * 9 * w + 10 * w for w in (16, 32))
    assert "accuracy" not in row
    copy = pickle.loads(pickle.dumps(evaluate))
    assert copy(configuration) == row
    assert json.dumps(copy.identity()) == json.dumps(evaluate.identity())


def test_fewer_sub_accelerators_and_accuracy():
    evaluate = evaluator(accuracy={"a": accuracy, "b": lambda: 0.5}, fixed={"sub1.template": "ws", "sub2.template": "none"})
    row = evaluate({"a.width": 8})
    assert row["pes"] == 256
    assert row["accuracy"] == pytest.approx((0.875 + 0.5) / 2)
    assert row["accuracy.a"] == 0.875
    evaluate.check(Space(SPACE))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("sub1.template", ["rs"], "sub1.template"),
        ("sub1.rowz", [8], "sub1.rowz: .*unknown field 'rowz'"),
        ("c.width", [8], "c.width: expected sub1.FIELD, or NETWORK.KEY of one of the networks a, b"),
        ("rows", [8], "rows: expected sub1.FIELD"),
    ],
)
def test_a_space_that_means_nothing_is_refused(name, values, message):
    with pytest.raises(InputError, match=message):
        evaluator().check(Space({name: values}))


def test_configurations_that_are_none():
    evaluate = evaluator()
    for configuration, message in [
        ({"a.width": 8}, "expected at least one sub-accelerator"),
        ({"sub1.template": "none", "a.width": 8}, "expected at least one sub-accelerator"),
        ({"sub1.pes": 64, "a.width": 8}, "sub1.template: missing"),
        ({"sub1.template": "ws", "sub1.pes": 0, "a.width": 8}, "sub1.pes: expected an integer ≥ 1, got 0"),
        ({"sub1.template": "ws", "a.width": 8, "b.width": 8}, "b.width: the network is a workload"),
    ]:
        with pytest.raises(InputError, match=message):
            evaluate(configuration)
    for networks, message in [
        ({}, "networks: expected at least one"),
        ({"a.b": small}, "without a dot"),
        ({"sub1": small}, "without"),
    ]:
        with pytest.raises(InputError, match=message):
            SubAccelerators(networks, {"ws": "gemmini_16x16"})


def test_arrays_as_square_as_can_be():
    assert [array_of(n) for n in (1, 2, 12, 36, 97, 128)] == [(1, 1), (1, 2), (3, 4), (6, 6), (1, 97), (8, 16)]
