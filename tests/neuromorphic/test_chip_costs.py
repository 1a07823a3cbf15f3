"""Costs of a run on a chip: against sums made event by event, and what no arrangement may change or beat."""

import numpy as np
import pytest
from chip_networks import chip, dense, network, population, sparse

from neuromorphic.chip import running as chip_run
from neuromorphic.chip.costs import chip_costs, interconnect_of
from neuromorphic.chip.mapping import map_network
from neuromorphic.chip.quantisation import quantise
from neuromorphic.chip.running import KINDS
from neuromorphic.chip.spec import EventCost
from neuromorphic.encoders import bernoulli_events

STEPS = 40


def recurrent(seed=0, sizes=(30, 60, 40, 7)):
    """Inputs, two layers of which one is recurrent, and outputs."""
    rng = np.random.default_rng(seed)
    inputs, first, second, out = (
        population(name, size, "input" if name == "in" else "integrate_and_fire", **({} if name == "in" else {"decay_v": 0.875}))
        for name, size in zip(("in", "a", "b", "out"), sizes, strict=True)
    )

    def weights(target, source, scale=0.4):
        return np.round(rng.normal(0.1, scale, (target, source)) * 64) / 64

    return network(
        [inputs, first, second, out],
        [
            dense("in-a", "in", "a", weights(sizes[1], sizes[0])),
            sparse("a-a", "a", "a", weights(sizes[1], sizes[1]) * (rng.random((sizes[1], sizes[1])) < 0.2)),
            dense("a-b", "a", "b", weights(sizes[2], sizes[1], 0.2)),
            dense("b-out", "b", "out", weights(sizes[3], sizes[2])),
        ],
    )


def ran(spec, net=None, *, seed=0, rate=0.2, **mapping):
    net = recurrent(seed) if net is None else net
    numbers = quantise(net, spec)
    mapped = map_network(numbers, spec, **mapping)
    events = bernoulli_events(np.full(net.population("in").size, rate), seed=seed + 1, steps=STEPS)
    activity = chip_run.run(numbers, {"in": events}, mapping=mapped)
    return activity, mapped, chip_costs(activity, mapped)


@pytest.mark.parametrize("event_set", ["davies2018", "sanafe2"])
@pytest.mark.parametrize("seed", range(3))
def test_energy_is_the_sum_over_events(event_set, seed):
    """Counted here from the spikes alone, neuron by neuron."""
    spec = chip("loihi", event_set=event_set)
    net = recurrent(seed)
    activity, mapped, costs = ran(spec, net, seed=seed, neurons_per_core=16)
    events, cost = activity.events, spec.events
    x, y, _ = mapped.positions
    operations = dict.fromkeys(KINDS, 0)
    east_west = north_south = packets = 0
    for name, sent in events.items():
        for neuron in sent.neuron.tolist():
            cores = set()
            for projection in net.projections:
                if projection.source == name:
                    first, last = projection.synapses.first[neuron], projection.synapses.first[neuron + 1]
                    targets = projection.synapses.target[first:last]
                    operations[projection.synapses.kind] += len(targets)
                    cores |= set(mapped.core_of[projection.target][targets].tolist())
            start = mapped.core_of[name][neuron] if name in mapped.core_of else mapped.input_core
            packets += len(cores)
            east_west += sum(abs(int(x[start] - x[core])) for core in cores)
            north_south += sum(abs(int(y[start] - y[core])) for core in cores)
    assert packets > 500
    pj = 1e-12
    assert costs.energy_j["synapses"].sum() == pytest.approx(
        pj * sum(count * cost.energy_pj("synaptic_operation", kind) for kind, count in operations.items())
    )
    assert costs.counts["hop_east_west"].sum() == east_west
    assert costs.counts["hop_north_south"].sum() == north_south
    assert costs.counts["spike_within_tile"].sum() == packets == costs.counts["axon_in"].sum()
    moved = east_west * cost.energy_pj("hop_east_west") + north_south * cost.energy_pj("hop_north_south")
    assert costs.energy_j["network"].sum() == pytest.approx(pj * (moved + packets * cost.energy_pj("spike_within_tile")))
    updates = costs.counts["neuron_update_active"] + costs.counts["neuron_update_inactive"]
    assert updates.tolist() == [net.neurons] * activity.steps
    spikes = sum(sent.count for name, sent in events.items() if name != "in")
    assert costs.counts["neuron_spike"].sum() == spikes
    if event_set == "sanafe2":
        own = (costs.counts["neuron_update_active"] * 72.8 + costs.counts["neuron_update_inactive"] * 51.2).sum() + spikes * 69.3
        assert costs.energy_j["neurons"].sum() == pytest.approx(pj * own)
        assert costs.energy_j["axons"].sum() == pytest.approx(pj * 111 * activity.axons_out.sum())
    total = sum(part.sum() for part in costs.energy_j.values())
    assert costs.total_j == pytest.approx(total)


def test_a_core_updates_then_takes_what_comes():
    """Two cores, one spike: every time by hand."""
    spec = chip("loihi")
    net = network(
        [population("in", 1, "input"), population("a", 1), population("b", 3)],
        [dense("in-a", "in", "a", [[2.0]]), dense("a-b", "a", "b", [[2.0]] * 3)],
    )
    numbers = quantise(net, spec)
    mapped = map_network(numbers, spec, neurons_per_core=1, placement="in_order")
    events = bernoulli_events(np.ones(1), seed=0, steps=1)
    activity = chip_run.run(numbers, {"in": events}, mapping=mapped, steps=4)
    costs = chip_costs(activity, mapped)
    assert [int(n) for n in activity.spikes.sum(axis=1)] == [0, 1, 3, 0]
    # Step 1: a, which is active, spikes and sends to the three cores of b, on the same tile: each takes it and one synapse.
    ns = 1e-9
    update, idle, synapse, within = 8.4 * ns, 5.3 * ns, 3.5 * ns, 2.1 * ns
    assert mapped.used.tolist() == [0, 1, 2, 3]
    assert costs.update_s[1].tolist() == pytest.approx([update, idle, idle, idle])
    assert costs.receive_s[1].tolist() == pytest.approx([0, synapse, synapse, synapse])
    # The three packets leave the tile's queue one after another.
    arrivals = update + within * np.arange(1, 4)
    assert costs.network_s[1] == pytest.approx(arrivals[-1])
    assert sorted(costs.core_s[1, 1:]) == pytest.approx(np.maximum(arrivals + synapse, idle + synapse))
    assert costs.busy_s[1] == pytest.approx(arrivals[-1] + synapse)
    assert costs.time_s == pytest.approx(costs.busy_s.sum() + 4 * 113 * ns)


@pytest.mark.parametrize("rung", ["event", "cycle"])
def test_no_step_is_faster_than_its_work(rung):
    activity, mapped, _ = ran(chip("loihi", event_set="sanafe2"), neurons_per_core=8)
    costs = chip_costs(activity, mapped, rung=rung)
    assert (costs.busy_s >= (costs.update_s + costs.receive_s).max(axis=1) - 1e-15).all()
    assert (costs.busy_s >= costs.network_s - 1e-15).all()
    assert (costs.waiting_s >= 0).all()
    assert costs.time_s >= costs.busy_s.sum()
    assert costs.waiting_s.sum() > 0


def test_placement_changes_costs_and_no_spike():
    spec = chip("loihi")
    found = [ran(spec, neurons_per_core=8, placement=name, seed=2) for name in ("random", "annealed")]
    (activity, _, random), (other, _, annealed) = found
    assert all(activity.events[name] == other.events[name] for name in activity.events)
    for name in ("synapses", "neurons", "axons"):
        assert random.energy_j[name].sum() == pytest.approx(annealed.energy_j[name].sum())
    assert annealed.energy_j["network"].sum() < random.energy_j["network"].sum()


def test_what_is_unknown_is_named_and_nothing_else():
    *_, costs = ran(chip("loihi"))
    assert "neuron_spike.energy_pj" in costs.unknown
    assert "synaptic_operation.energy_pj" not in costs.unknown
    *_, complete = ran(chip("loihi", event_set="sanafe2", static_power_w=0.0, idle_power_w_per_core=0.0))
    assert complete.unknown == ("barrier.energy_pj",)
    silent = ran(chip("loihi"), rate=0.0)[2]
    assert "neuron_spike.energy_pj" not in silent.unknown


def test_power_that_is_always_on():
    *_, bare = ran(chip("loihi"))
    _, mapped, costs = ran(chip("loihi", static_power_w=0.5, idle_power_w_per_core=0.01))
    assert costs.energy_j["static"].sum() == pytest.approx(0.5 * costs.time_s)
    assert costs.energy_j["idle"].sum() == pytest.approx(0.01 * mapped.used.size * costs.time_s)
    assert bare.energy_j["static"].sum() == 0


def test_a_step_that_overruns_its_time():
    quick = chip("loihi", synchronisation="fixed", step_time_s=1e-6)
    *_, costs = ran(quick)
    assert costs.schedule.overloaded.size > 0
    assert costs.time_s > STEPS * 1e-6
    assert "overload" in costs.schedule.note()
    slow = chip("loihi", synchronisation="fixed", step_time_s=1e-3)
    activity, _, calm = ran(slow)
    assert calm.schedule.note() == ""
    assert calm.time_s == pytest.approx(activity.steps * 1e-3)


def test_several_chips():
    spec = chip(
        "loihi", cores=4, mesh={"columns": 2, "rows": 2, "cores_per_tile": 1}, chips={"columns": 2, "rows": 2, "hop_time_ns": 50}
    )
    activity, mapped, costs = ran(spec, neurons_per_core=12)
    assert mapped.chips > 1
    assert costs.counts["hop_between_chips"].sum() > 0
    assert "chips.hop_energy_pj" in costs.unknown
    one, _, _ = ran(chip("loihi"), neurons_per_core=12)
    assert all(activity.events[name] == one.events[name] for name in one.events)
    priced = chip_costs(activity, map_network(activity.network, spec, neurons_per_core=12))
    assert priced.total_j == pytest.approx(costs.total_j)


def test_a_network_whose_times_nobody_published_takes_none():
    spec = chip("loihi")
    events = spec.events.model_copy(update={"hop_east_west": EventCost()})
    data = spec.model_copy(update={"event_sets": {"davies2018": events}})
    network, known = interconnect_of(data)
    assert not known
    *_, costs = ran(data, neurons_per_core=8)
    assert "hop.time_ns" in costs.unknown
    assert costs.network_s.sum() == 0
    assert costs.counts["hop_east_west"].sum() > 0
    assert network.hop_east_west_ns == 1.0
