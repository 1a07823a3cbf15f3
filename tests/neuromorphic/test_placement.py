"""Placements against every assignment where there are few, and against random and greedy ones where there are many."""

import itertools

import numpy as np
import pytest
from chip_networks import chip, connectome, image_network

from neuromorphic.chip.mapping import map_network
from neuromorphic.chip.placement import Places, hops, place_cores
from numerics.errors import InputError

METHODS = ("annealed", "greedy", "in_order", "random")


def grid(columns, rows, cores_per_tile=1, gate=0):
    number = np.arange(columns * rows * cores_per_tile)
    row, column = np.divmod(number // cores_per_tile, columns)
    return Places(column.astype(float), row.astype(float), gate, 2 * cores_per_tile, columns * cores_per_tile)


def random_traffic(cores, density, seed):
    generator = np.random.default_rng(seed)
    shape = (cores + 1, cores)
    return np.where(generator.random(shape) < density, generator.integers(1, 100, shape), 0).astype(float)


def grid_traffic(columns, rows, seed=0):
    """Cores that talk to their neighbours in a grid, under numbers that hide it; no packets from outside."""
    number = np.random.default_rng(seed).permutation(columns * rows).reshape(rows, columns)
    traffic = np.zeros((columns * rows + 1, columns * rows))
    traffic[number[:, :-1].ravel(), number[:, 1:].ravel()] = 1
    traffic[number[:-1].ravel(), number[1:].ravel()] = 1
    return traffic


def plain_hops(traffic, places, place):
    """Packet by packet."""
    total = 0.0
    for source, target in itertools.product(range(len(traffic)), range(len(traffic) - 1)):
        at = places.input_core if source == len(traffic) - 1 else place[source]
        links = abs(places.x[at] - places.x[place[target]]) + abs(places.y[at] - places.y[place[target]])
        total += traffic[source, target] * links
    return total


@pytest.mark.parametrize(("columns", "rows", "tile"), [(3, 2, 1), (5, 1, 1), (2, 2, 1), (2, 1, 3), (4, 2, 1)])
@pytest.mark.parametrize("seed", range(4))
def test_the_best_of_all_assignments_on_tiny_meshes(columns, rows, tile, seed):
    places = grid(columns, rows, tile, gate=seed % (columns * rows * tile))
    cores = places.x.size - (seed % 3 if places.x.size < 8 else 0)
    traffic = random_traffic(cores, 0.6, seed)
    every = np.array(list(itertools.permutations(range(places.x.size), cores)))
    x, y = places.x[every], places.y[every]
    cost = np.zeros(len(every))
    for a, b in itertools.product(range(cores), range(cores)):
        cost += traffic[a, b] * (np.abs(x[:, a] - x[:, b]) + np.abs(y[:, a] - y[:, b]))
    for b in range(cores):
        gate = places.input_core
        cost += traffic[-1, b] * (np.abs(x[:, b] - places.x[gate]) + np.abs(y[:, b] - places.y[gate]))
    place = place_cores(traffic, places, seed=seed)
    assert hops(traffic, places, place) == plain_hops(traffic, places, place)
    assert hops(traffic, places, place) == cost.min()
    assert cost.max() > cost.min()


@pytest.mark.parametrize("seed", range(8))
def test_never_worse_than_its_starts(seed):
    places = grid(6, 4, 2, gate=5)
    traffic = random_traffic(10 + 4 * seed, (0.05, 0.3, 0.9)[seed % 3], seed)
    found = {}
    for method in METHODS:
        place = place_cores(traffic, places, method=method, seed=seed)
        assert np.unique(place).size == place.size == traffic.shape[1]
        assert 0 <= place.min() <= place.max() < places.x.size
        assert (place == place_cores(traffic, places, method=method, seed=seed)).all()
        found[method] = hops(traffic, places, place)
    assert found["annealed"] <= min(found["greedy"], found["in_order"])
    assert found["annealed"] < found["random"]
    assert found["greedy"] < found["random"]


def test_no_exchange_helps_any_more():
    places = grid(5, 4)
    traffic = random_traffic(17, 0.4, 3)
    place = place_cores(traffic, places)
    reached = hops(traffic, places, place)
    holder = {int(p): c for c, p in enumerate(place)}
    for core, to in itertools.product(range(17), range(20)):
        other = place.copy()
        other[core] = to
        if to in holder:
            other[holder[to]] = place[core]
        assert hops(traffic, places, other) >= reached


def test_a_hidden_grid_is_nearly_found():
    """At best every packet passes one link: 24 on 4 × 4, 112 on 8 × 8."""
    small = grid_traffic(4, 4)
    assert hops(small, grid(4, 4), place_cores(small, grid(4, 4))) == 24
    large, places = grid_traffic(8, 8), grid(8, 8)
    found = {method: hops(large, places, place_cores(large, places, method=method)) for method in METHODS}
    assert 112 <= found["annealed"] < 1.5 * 112
    assert found["annealed"] < 0.65 * found["greedy"] < 0.4 * found["random"]


@pytest.mark.parametrize(
    ("net", "limit", "to_random", "to_greedy"),
    [
        (image_network((2, 24, 24), [(16, 3, 1), (8, 3, 1), (16, 5, 2)], [64, 11]), 256, 0.3, 0.95),
        (connectome(), 32, 0.8, 0.99),
        (connectome(1200, 20_000, 1, 24), 16, 0.7, 0.97),
    ],
    ids=["images", "connectome", "small connectome"],
)
def test_networks_on_loihi(net, limit, to_random, to_greedy):
    found = {m: map_network(net, chip("loihi"), placement=m, neurons_per_core=limit, seed=1).hops for m in METHODS}
    assert found["annealed"] < to_random * found["random"]
    assert found["annealed"] < to_greedy * found["greedy"]
    assert found["annealed"] <= found["in_order"]


def test_places_of_a_chip():
    spec = chip("loihi", mesh={"input_column": 3, "input_row": 2}, chips={"columns": 2, "hop_weight": 4.0})
    places = Places.of(spec, 2)
    assert places.input_core == (2 * 8 + 3) * 4
    # From column 7 of the first chip to column 0 of the second is one link, which weighs four.
    assert places.x[128] - places.x[127] == 4
    assert (places.near, places.row) == (8, 32)
    with pytest.raises(InputError, match=r"spinnaker2: mesh: no core at the input router \(7, 4\)"):
        Places.of(chip("spinnaker2", mesh={"input_column": 7, "input_row": 4}))


def test_what_cannot_be_placed():
    traffic = np.zeros((5, 4))
    with pytest.raises(InputError, match="placement: unknown name 'best'"):
        place_cores(traffic, grid(2, 2), method="best")
    with pytest.raises(InputError, match=r"traffic: expected \(cores \+ 1, cores\) for at most 3 cores, got \(5, 4\)"):
        place_cores(traffic, grid(3, 1))
    with pytest.raises(InputError, match="seed: expected an integer ≥ 0, got -1"):
        place_cores(traffic, grid(2, 2), seed=-1)
    assert sorted(place_cores(traffic, grid(2, 2)).tolist()) == [0, 1, 2, 3]  # without traffic any place is as good
    assert place_cores(np.zeros((2, 1)), grid(1, 1)).tolist() == [0]
