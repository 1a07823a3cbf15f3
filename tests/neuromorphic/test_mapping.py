"""Mappings against a plain count of what each core holds, hears and says."""

import math
import re

import numpy as np
import pytest
from chip_networks import chip, connectome, dense, image_network, network, population, random_network, sparse

from neuromorphic.chip.mapping import map_network
from neuromorphic.chip.quantisation import quantise
from neuromorphic.chip.splitting import LIMITS, filling_rank
from neuromorphic.network import Projection, Synapses
from numerics.errors import InputError

SMALL = {"neurons_per_core": 20, "synapse_memory_bytes_per_core": 1500, "input_axons_per_core": 180, "output_axons_per_core": 200}


def list_bits(count, bits, storage):
    """Of a list of synapses, group by group."""
    group = storage.group_synapses or count
    total = 0
    while count > 0:
        words = math.ceil((min(count, group) * bits + storage.group_header_bits) / storage.word_bits)
        total += words * storage.word_bits
        count -= group
    return total


def counted(net, spec, core_of, weight_bits=None):
    """What each core takes, by going through all synapses: core → name of a limit → number."""
    storage = spec.synapses
    bits = weight_bits or storage.weight_bits or spec.bits.weight
    cores = sorted({int(core) for array in core_of.values() for core in array})
    found = {core: dict.fromkeys(LIMITS, 0) for core in cores}
    heard = {core: set() for core in cores}
    lists, kernels = {}, {}
    for name, array in core_of.items():
        for core in array.tolist():
            found[core]["neurons"] += 1
        assert net.population(name).size == array.size
    for one in net.projections:
        shared = storage.shares_weights and one.synapses.kind in ("convolution", "pooling")
        for source in range(one.synapses.sources):
            for k in range(one.synapses.first[source], one.synapses.first[source + 1]):
                core = int(core_of[one.target][one.synapses.target[k]])
                found[core]["synapses"] += 1
                heard[core].add((one.source, source))
                place = (core, one.name) if shared else (core, one.name, source)
                kept = kernels if shared else lists
                kept[place] = kept.get(place, 0) + 1
    by_name = {one.name: one for one in net.projections}
    memory = dict.fromkeys(cores, 0)
    for place, count in (*lists.items(), *kernels.items()):
        one = by_name[place[1]]
        each = bits + (0 if one.synapses.kind == "dense" else storage.index_bits)
        each += storage.delay_bits if one.delays.max() > 1 else 0
        memory[place[0]] += list_bits(min(count, one.synapses.stored) if len(place) == 2 else count, each, storage)
    for core in cores:
        states = found[core]["neurons"] * storage.state_bytes_per_neuron
        found[core]["memory_bytes"] = math.ceil(memory[core] / 8) + states + storage.reserved_bytes
        found[core]["input_axons"] = len(heard[core])
        for population_name, source in heard[core]:
            if population_name in core_of:
                found[int(core_of[population_name][source])]["output_axons"] += 1
    return found


def check(net, spec, mapping, weight_bits=None):
    """All that must hold of any mapping."""
    assert set(mapping.core_of) == {one.name for one in net.populations if one.neurons.kind != "input"}
    plain = counted(net, spec, mapping.core_of, weight_bits)
    assert list(plain) == mapping.used.tolist() == list(mapping.cores)
    for k, core in enumerate(plain):
        assert plain[core] == {name: int(values[k]) for name, values in mapping.usage.items()}
        for name, limit in mapping.limits.items():
            assert limit is None or plain[core][name] <= limit
    # Slices are every neuron once.
    for name, array in mapping.core_of.items():
        lies = np.full(array.size, -1)
        for one in mapping.slices:
            if one.population == name:
                assert (lies[one.first : one.last + 1] == -1).all()
                lies[one.first : one.last + 1] = one.core
        assert (lies == array).all()
    assert mapping.used.max() < spec.cores * spec.chips.count
    # Routes are where the synapses' targets lie, all of them and no other.
    for one in net.populations:
        routes = mapping.routes[one.name]
        for neuron in range(one.size):
            ways = routes.core[routes.first[neuron] : routes.first[neuron + 1]].tolist()
            wanted = set()
            for projection in net.projections:
                if projection.source == one.name:
                    first = projection.synapses.first
                    targets = projection.synapses.target[first[neuron] : first[neuron + 1]]
                    wanted |= set(mapping.core_of[projection.target][targets].tolist())
            assert ways == sorted(wanted)
    # Hops by hand.
    x, y, _ = mapping.positions
    total = 0
    for one in net.populations:
        for neuron in range(one.size):
            source = int(mapping.core_of[one.name][neuron]) if one.name in mapping.core_of else mapping.input_core
            routes = mapping.routes[one.name]
            for core in routes.core[routes.first[neuron] : routes.first[neuron + 1]]:
                total += abs(x[source] - x[core]) + abs(y[source] - y[core])
    assert mapping.packet_hops() == total


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    "changes",
    [
        {},
        SMALL,
        {"neurons_per_core": 7},
        {"synapse_memory_bytes_per_core": 1500},
        {"input_axons_per_core": 130, "max_fan_in": 400},
        {"output_axons_per_core": 60, "neurons_per_core": 25},
        {"synapses_per_core": 120},
    ],
    ids=lambda changes: "+".join(sorted(changes)) or "none",
)
def test_any_network_within_any_limit(seed, changes):
    net, spec = random_network(seed), chip("loihi", **changes)
    check(net, spec, map_network(net, spec, placement="greedy"))


@pytest.mark.parametrize("name", ["loihi", "spinnaker2", "seneca", "loihi2"])
@pytest.mark.parametrize("order", ["flat", "spatial"])
def test_images_on_every_chip(name, order):
    net = image_network((2, 12, 12), [(6, 3, 1), (4, 3, 2)], [20, 5])
    few = {"neurons_per_core": 60, "output_axons_per_core": 150}
    spec = chip(name, **few)
    check(net, spec, map_network(net, spec, order=order, placement="greedy"))
    check(net, spec, map_network(net, spec, order=order, weight_bits=3, placement="in_order"), weight_bits=3)


@pytest.mark.parametrize("order", ["flat", "spatial", "connected", "best"])
def test_any_order(order):
    net, spec = random_network(2), chip("loihi", **SMALL)
    check(net, spec, map_network(net, spec, order=order, neurons_per_core=6))


@pytest.mark.parametrize("name", ["loihi", "spinnaker2", "seneca", "loihi2"])
def test_a_network_in_the_chips_numbers_maps_alike(name):
    net, spec = image_network((2, 12, 12), [(6, 3, 1), (4, 3, 2)], [20, 5]), chip(name)
    one, other = map_network(net, spec, neurons_per_core=50), map_network(quantise(net, spec), spec, neurons_per_core=50)
    assert one.table() == other.table()
    assert one.slices == other.slices
    assert all((one.routes[layer].core == other.routes[layer].core).all() for layer in net.order)


@pytest.mark.parametrize("seed", range(6))
def test_no_core_is_left_before_it_is_full(seed):
    """The first neuron of each core would not have fitted on the core before."""
    net = random_network(seed)
    spec = chip("loihi", **{**SMALL, "output_axons_per_core": None})
    mapping = map_network(net, spec, placement="in_order", order="flat")
    named = [(name, n) for name in net.order if name in mapping.core_of for n in range(net.population(name).size)]
    core = np.array([mapping.core_of[name][n] for name, n in named])
    assert (np.diff(core) >= 0).all()
    assert core.max() > 0
    for start in np.flatnonzero(np.diff(core)) + 1:
        moved = {name: array.copy() for name, array in mapping.core_of.items()}
        name, n = named[start]
        moved[name][n] = core[start] - 1
        taken = counted(net, spec, moved)[int(core[start]) - 1]
        assert any(limit is not None and taken[what] > limit for what, limit in mapping.limits.items())


def test_a_kernel_is_stored_once_on_a_core_that_shares_it():
    net = image_network((1, 10, 10), [(2, 3, 1)], [])
    assert net.projections[0].synapses.count == 2 * 64 * 9
    # 18 weights of 8 bits and an index of 10, a header of 10, in words of 64 bits.
    (shared,) = map_network(net, chip("loihi")).table()
    assert shared["memory_bytes"] == math.ceil((18 * 18 + 10) / 64) * 8
    (alone,) = map_network(net, chip("loihi", synapses={"shares_weights": False})).table()
    assert alone["memory_bytes"] > 20 * shared["memory_bytes"]


def test_an_image_is_cut_into_patches():
    rank = filling_rank((3, 4, 4), True).reshape(3, 4, 4)
    assert sorted(rank.ravel().tolist()) == list(range(48))
    # The first quarter of the order is one corner of the image, all its channels.
    channel, y, x = np.nonzero(rank < 12)
    assert (set(y.tolist()), set(x.tolist()), set(channel.tolist())) == ({0, 1}, {0, 1}, {0, 1, 2})
    assert (filling_rank((3, 4, 4), False) == np.arange(48)).all()
    assert (filling_rank((7,), True) == np.arange(7)).all()

    net = image_network((2, 24, 24), [(16, 3, 1), (8, 3, 1)], [10])
    found = {order: map_network(net, chip("loihi"), order=order) for order in ("flat", "spatial", "best")}
    cores = {order: mapping.used.size for order, mapping in found.items()}
    assert cores["best"] == cores["spatial"] < cores["flat"] / 2


def test_neurons_that_talk_lie_together():
    """Modules whose neurons are strangers by number: fewer cores hear of a spike, and those are nearer."""
    net, spec = connectome(), chip("loihi")
    found = {order: map_network(net, spec, order=order, neurons_per_core=128) for order in ("flat", "connected", "best")}
    packets = {order: sum(one.core.size for one in mapping.routes.values()) for order, mapping in found.items()}
    assert found["connected"].used.size == found["flat"].used.size == 24
    assert packets["best"] == packets["connected"] < 0.4 * packets["flat"]
    assert found["connected"].hops < 0.25 * found["flat"].hops
    # Two cores' worth of neurons in two cliques, mixed by number: each core gets one.
    clique = np.arange(16) % 2
    matrix = (clique[:, None] == clique).astype(float)
    apart = map_network(network([population("a", 16)], [sparse("a_a", "a", "a", matrix)]), spec, neurons_per_core=8)
    assert apart.packet_hops({"a": 1}) == 0
    assert all(np.unique(apart.core_of["a"][clique == one]).size == 1 for one in (0, 1))


def test_traffic_weighs_packets():
    net = random_network(3)
    spec = chip("loihi", **SMALL)
    sent = {"in": np.linspace(0, 4, net.population("in").size), "a": 3.0}
    mapping = map_network(net, spec, traffic=sent, placement="greedy")
    alone = {name: mapping.packet_hops({other: 0.0 for other in net.order if other != name}) for name in ("a", "b")}
    weighed = mapping.packet_hops({"in": sent["in"], "a": 0, "b": 0})
    assert mapping.hops == pytest.approx(weighed + 3 * alone["a"] + alone["b"])
    with pytest.raises(InputError, match="traffic: population: unknown name 'c'"):
        map_network(net, spec, traffic={"c": 1.0})
    with pytest.raises(InputError, match="traffic: 'a': expected finite numbers ≥ 0, one or"):
        map_network(net, spec, traffic={"a": [1.0, 2.0]})


def test_the_same_every_time():
    net, spec = random_network(5), chip("loihi", neurons_per_core=3)
    one, two, other = (map_network(net, spec, seed=seed) for seed in (4, 4, 5))
    assert one.slices == two.slices
    assert one.hops == two.hops
    assert all((one.core_of[name] == two.core_of[name]).all() for name in one.core_of)
    assert one.slices != other.slices  # equally good, but found another way


def test_several_chips_when_one_is_full():
    net = network([population("in", 4, "input"), population("a", 140)], [sparse("in_a", "in", "a", np.ones((140, 4)))])
    with pytest.raises(InputError) as error:
        map_network(net, chip("loihi"), neurons_per_core=1)
    assert str(error.value) == "network 'net' needs 140 cores, loihi has 128 (chips: 1)"
    spec = chip("loihi", chips={"columns": 3})
    mapping = map_network(net, spec, neurons_per_core=1)
    check(net, spec, mapping)
    assert mapping.chips == 2
    assert mapping.positions[0][mapping.used].max() < 16  # the third chip stays empty
    big = network([population("in", 1, "input"), population("a", 385)], [sparse("p", "in", "a", np.ones((385, 1)))])
    with pytest.raises(InputError, match=r"needs 385 cores, loihi has 384 \(chips: 3\)"):
        map_network(big, spec, neurons_per_core=1)


def test_costly_links_between_chips_are_spared():
    """Two cliques on two chips: with such links dear each clique keeps to a chip."""
    matrix = np.kron(np.eye(2), np.ones((6, 6)))
    net = network([population("a", 12)], [sparse("a_a", "a", "a", matrix)])
    spec = chip("loihi", mesh={"columns": 3, "rows": 2, "cores_per_tile": 1}, cores=6, chips={"columns": 2, "hop_weight": 50.0})
    mapping = map_network(net, spec, neurons_per_core=1)
    chips = mapping.positions[2][mapping.core_of["a"]]
    assert set(chips[:6].tolist()) == {chips[0]} != set(chips[6:].tolist())


def test_a_core_says_what_it_lacks():
    inputs, wide = population("in", 16_700, "input"), chip("loihi", input_axons_per_core=None)
    matrix = np.zeros((13, 16_700))
    matrix[:12, 0] = 1
    matrix[12] = 1
    net = network([inputs, population("a", 13)], [sparse("in_a", "in", "a", matrix)])
    with pytest.raises(InputError) as error:
        map_network(net, wide, neurons_per_core=1)
    assert str(error.value) == "core 12: 131 KB of 128 KB synapse memory; neuron 12 of 'a' alone needs as much (loihi)"
    with pytest.raises(InputError) as error:
        map_network(net, chip("loihi", synapse_memory_bytes_per_core=2**20), neurons_per_core=1)
    assert str(error.value) == "core 12: 16700 of 4096 input axons; neuron 12 of 'a' alone needs as much (loihi)"
    few = chip("loihi", synapses_per_core=100)
    with pytest.raises(InputError, match=r"core 1: 16700 of 100 synapses; neuron 12 of 'a' alone"):
        map_network(net, few)
    fan = network([population("a", 1), population("b", 9)], [sparse("a_b", "a", "b", np.ones((9, 1)))])
    with pytest.raises(InputError, match=r"core 0: 9 of 4 output axons; neuron 0 of 'a' alone"):
        map_network(fan, chip("loihi", output_axons_per_core=4), neurons_per_core=1)
    with pytest.raises(InputError, match=r"neuron 12 of 'a': 16700 synapses, loihi has at most 5000"):
        map_network(net, chip("loihi", max_fan_in=5000))


@pytest.mark.parametrize(
    ("name", "kind", "parameters", "text"),
    [
        ("loihi", "resonate_and_fire", {}, "loihi has no such neurons: kind: unknown name 'resonate_and_fire'"),
        ("loihi", "integrate_and_fire", {"adaptation": 0.1}, "adaptation 0.1, loihi has no adaptive threshold"),
        ("loihi", "integrate_and_fire", {"reset": "subtract"}, "reset 'subtract', loihi has zero, none"),
        ("loihi", "integrate_and_fire", {"v_reset": 0.5}, "v_reset 0.5, loihi resets to 0"),
        ("loihi", "integrate_and_fire", {"refractory_steps": 64}, "64 refractory steps, loihi has at most 62"),
        ("truenorth", "integrate_and_fire", {"decay_v": 0.9}, "decay_v 0.9, truenorth leaks by a bias only (decay_v: 1)"),
        ("truenorth", "integrate_and_fire", {"decay_i": 0.5}, "1 synaptic currents (decay_i, decay_i2), truenorth has 0"),
        ("odin", "readout", {}, "odin has no such neurons: kind: unknown name 'readout'"),
    ],
)
def test_neurons_that_a_chip_does_not_have(name, kind, parameters, text):
    net = network([population("in", 2, "input"), population("a", 3, kind, **parameters)], [])
    with pytest.raises(InputError, match=re.escape(f"population 'a': {text}")):
        map_network(net, chip(name))


def test_delays_and_values_that_a_chip_does_not_have():
    def late(steps):
        return network([population("a", 2), population("b", 2)], [dense("slow", "a", "b", np.ones((2, 2)), steps)])

    map_network(late(62), chip("loihi"))
    with pytest.raises(InputError, match="projection 'slow': a delay of 63 steps, loihi has at most 62"):
        map_network(late(63), chip("loihi"))
    graded = network([population("r", 2, "readout"), population("b", 2)], [dense("values", "r", "b", np.ones((2, 2)))])
    with pytest.raises(InputError, match="projection 'values': 'r' sends values, loihi sends spikes only"):
        map_network(graded, chip("loihi"))
    map_network(graded, chip("loihi2"))


def test_rows_of_a_crossbar_with_named_weights():
    """TrueNorth: a row names one of its targets' four weights; a source that needs two takes two rows."""
    weights = np.array([[1.0, -1.0, 0.0], [-1.0, -1.0, 2.0], [0.0, -1.0, 2.0]])
    net = network([population("in", 3, "input"), population("a", 3)], [dense("p", "in", "a", weights)])
    (row,) = map_network(net, chip("truenorth")).table()
    # Ranks by target: {-1, 1} → 0, 1; {-1, 2} → 0, 1; {-1, 2} → 0, 1. Source 0 needs 1 and 0, source 1 only 0, source 2 only 1.
    assert (row["synapses"], row["input_axons"], row["memory_bytes"]) == (7, 4, 4 * 256 // 8)
    many = network([population("in", 9, "input"), population("a", 2)], [dense("p", "in", "a", np.arange(18.0).reshape(2, 9))])
    with pytest.raises(InputError, match="neuron 0 of 'a': 8 different weights, truenorth has 4 a neuron"):
        map_network(many, chip("truenorth"))


def test_a_neuron_with_one_axon_reaches_one_core():
    net = network([population("a", 2), population("b", 300)], [sparse("p", "a", "b", np.ones((300, 2)))])
    with pytest.raises(InputError, match="neuron 0 of 'a': sends to 2 axons, truenorth has 1 a neuron"):
        map_network(net, chip("truenorth"))
    map_network(net, chip("truenorth", max_target_axons=None, output_axons_per_core=None))


def test_rows_of_a_crossbar_with_signs():
    """ODIN: rows are excitatory or inhibitory; a pair with two synapses takes two rows."""
    weights = np.array([[1.0, -2.0, 3.0], [2.0, 2.0, 0.0]])
    net = network([population("in", 3, "input"), population("a", 2)], [dense("p", "in", "a", weights)])
    (row,) = map_network(net, chip("odin")).table()
    assert (row["synapses"], row["input_axons"], row["memory_bytes"]) == (5, 4, 4 * 256 * 4 // 8)
    twice = Synapses.from_coo([0, 0, 1], [0, 0, 0], [1.0, 2.0, 1.0], sources=2)
    pair = network([population("in", 2, "input"), population("a", 1)], [Projection("p", "in", "a", twice)])
    assert map_network(pair, chip("odin")).table()[0]["input_axons"] == 3
    full = network([population("in", 250, "input"), population("a", 1)], [dense("p", "in", "a", np.ones((1, 250)))])
    assert map_network(full, chip("odin")).table()[0]["input_axons"] == 250


def test_tables_name_what_lies_where():
    net = network(
        [population("in", 2, "input"), population("a", 5), population("b", 4)], [sparse("p", "a", "b", np.ones((4, 5)))]
    )
    rows = map_network(net, chip("loihi"), neurons_per_core=6, placement="in_order").table()
    assert [row["holds"] for row in rows] == ["5 of a, 1 of b", "3 of b"]
    assert [row["output_axons"] for row in rows] == [10, 0]
    with pytest.raises(InputError, match="neurons_per_core: expected an integer from 1 to 1024, got 2000"):
        map_network(net, chip("loihi"), neurons_per_core=2000)
    with pytest.raises(InputError, match="weight_bits: expected an integer from 1 to 8, got 9"):
        map_network(net, chip("loihi"), weight_bits=9)
    with pytest.raises(InputError, match="order: unknown name 'sorted'"):
        map_network(net, chip("loihi"), order="sorted")


def test_a_connectome_fits_loihi():
    """3,000 neurons and 65,000 synapses, 0.72 % dense."""
    net = connectome()
    mapping = map_network(net, chip("loihi"))
    assert mapping.used.size == 3
    spread = map_network(net, chip("loihi"), neurons_per_core=32)
    assert spread.used.size == math.ceil(3000 / 32)


@pytest.mark.parametrize(("limit", "text"), [(600, r"0\.5859"), (24_000, r"23\.44"), (32_768, "32")])
def test_limits_have_few_digits(limit, text):
    net = network([population("in", 60_000, "input"), population("a", 1)], [dense("p", "in", "a", np.ones((1, 60_000)))])
    with pytest.raises(InputError, match=rf"^core 0: \d+ KB of {text} KB synapse memory; "):
        map_network(net, chip("loihi", synapse_memory_bytes_per_core=limit, input_axons_per_core=100_000))


def test_large_sizes_are_plain_numbers():
    net = network([population("in", 2_000_000, "input"), population("a", 1)], [dense("p", "in", "a", np.ones((1, 2_000_000)))])
    with pytest.raises(InputError, match=r"^core 0: \d{4,} KB of 1172 KB synapse memory; "):
        map_network(net, chip("loihi", synapse_memory_bytes_per_core=1_200_000, input_axons_per_core=3_000_000))
