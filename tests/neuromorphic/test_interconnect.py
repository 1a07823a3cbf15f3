"""The on-chip network against the routers of the RTL, against routers written differently, and what a network must never do."""

import ast
import os
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numba
import numpy as np
import pytest
import yaml

from neuromorphic.chip.interconnect import ChipLink, Interconnect
from neuromorphic.chip.packets import Packets, joined
from neuromorphic.chip.spec import ChipSpec
from neuromorphic.router import FlitFormat, Mesh
from numerics.errors import InputError

LOIHI = {"hop_east_west_ns": 4.1, "hop_north_south_ns": 6.5, "within_tile_ns": 2.1, "occupancy_ns": 1.16}
RUNGS = ["cycle", "event"]


def pattern(rng, name, cores, columns, count):
    """Sources and destinations of packets on a mesh with so many columns."""
    source, target = rng.integers(0, cores, (2, count))
    if name == "hot_spot":
        target[rng.random(count) < 0.3] = cores // 2
    elif name == "transpose":
        target = cores - 1 - source
    elif name == "neighbour":
        target = np.clip(source + rng.choice([-1, 1, columns, -columns], count), 0, cores - 1)
    elif name == "bursty":
        source = np.repeat(rng.integers(0, cores, -(-count // 10)), 10)[:count]
    return source, target


PATTERNS = ["random", "hot_spot", "transpose", "neighbour", "bursty"]


def packets_of(rng, net, name, *, steps=3, count=400, spread=200.0, spikes=False):
    """Packets in some steps, released within ``spread`` ns; with ``spikes``, one to seven of each."""
    total = steps * count
    source, target = pattern(rng, name, net.core_count, net.columns, total)
    release = np.rint(rng.random(total) * spread) * 1e-9
    spike = None
    if spikes:
        spike = np.repeat(np.arange(total), rng.integers(1, 8, total))[:total]
        lead = np.searchsorted(spike, spike)
        source, release = source[lead], release[lead]
    step = np.repeat(np.arange(steps), count)
    return Packets.from_arrays(step, source, target, spike=spike, release_s=release)


class Tick:
    """Routers written as lists that are looked at in every tick: what holds in a tick is decided by what was before it.

    A packet is (goals, key), a queue a list of [packet, when it is there, outputs that still want it, when it is gone from the
    outputs that had it]; it is gone when no output wants it any more and that time is over.
    """

    WAYS = {"N": (0, -1), "E": (1, 0), "S": (0, 1), "W": (-1, 0)}  # noqa: RUF012
    INPUTS = "NESWL"
    FACING = {"N": "S", "E": "W", "S": "N", "W": "E"}  # noqa: RUF012

    def __init__(self, net):
        self.net = net
        self.width, self.height = net.chips[0] * net.columns, net.chips[1] * net.rows
        self.tiles = [(x, y) for y in range(self.height) for x in range(self.width)]

    def link(self, place, way):
        """Hop, occupancy and depth beyond of a link, and what shares its time."""
        net, (dx, dy) = self.net, self.WAYS[way]
        x, y = place
        here, there = (x // net.columns, y // net.rows), ((x + dx) // net.columns, (y + dy) // net.rows)
        if here == there:
            hop = net.hop_east_west_ns if dx else net.hop_north_south_ns
            return hop, net.occupancy_ns, net.queue_depth or 10**9, (place, way)
        side, number = (net.rows, y % net.rows) if dx else (net.columns, x % net.columns)
        link = net.chip_link
        lanes = min(link.channels or side, side)
        return link.hop_ns, link.occupancy_ns or link.hop_ns, link.queue_depth or 10**9, (here, there, number * lanes // side)

    def wishes(self, place, goals):
        """Output → goals beyond it."""
        found = defaultdict(set)
        for x, y in goals:
            way = "E" if x > place[0] else "W" if x < place[0] else "S" if y > place[1] else "N" if y < place[1] else "L"
            found[way].add((x, y))
        return found

    def step(self, released):
        """released: (time, place, goals, key) in order of release; returns key → {goal: time delivered}."""
        net = self.net
        tile = net.tile_occupancy_ns or net.occupancy_ns
        waiting = {place: [r for r in released if r[1] == place] for place in self.tiles}
        queues = {(place, i): [] for place in self.tiles for i in self.INPUTS}
        turn = {(place, o): 0 for place in self.tiles for o in self.INPUTS}
        free, entry_free, channel_turn = defaultdict(int), defaultdict(int), defaultdict(int)
        shared = defaultdict(list)
        for place in self.tiles:
            for way, (dx, dy) in self.WAYS.items():
                if (place[0] + dx, place[1] + dy) in waiting:
                    shared[self.link(place, way)[3]].append((place, way))
        delivered = defaultdict(dict)
        t = 0
        while any(waiting.values()) or any(queues.values()):
            for queue in queues.values():
                while queue and not queue[0][2] and queue[0][3] <= t:
                    queue.pop(0)
            length = {key: len(queue) for key, queue in queues.items()}
            asking = defaultdict(list)  # output → inputs whose head wants it
            for (place, i), queue in queues.items():
                if queue and queue[0][1] <= t:
                    for way in queue[0][2]:
                        asking[place, way].append(self.INPUTS.index(i))
            sends = []
            for unit, lanes in [*((("out", p), [(p, "L")]) for p in self.tiles), *shared.items()]:
                if free[unit] > t:
                    continue
                for k in range(len(lanes)):
                    lane = lanes[(channel_turn[unit] + k) % len(lanes)]
                    place, way = lane
                    if not asking[lane]:
                        continue
                    first = min(asking[lane], key=lambda i: (i - turn[lane]) % 5)
                    turn[lane] = first
                    if way == "L":
                        hop, hold, beyond = 0, tile, None
                    else:
                        hop, hold, depth, _ = self.link(place, way)
                        dx, dy = self.WAYS[way]
                        beyond = ((place[0] + dx, place[1] + dy), self.FACING[way])
                        if length[beyond] >= depth:
                            continue
                    turn[lane] = (first + 1) % 5
                    channel_turn[unit] = (channel_turn[unit] + k + 1) % len(lanes)
                    free[unit] = t + hold
                    sends.append(((place, self.INPUTS[first]), way, beyond, hop, hold))
                    break
            for place in self.tiles:
                queue = waiting[place]
                room = length[place, "L"] < (net.queue_depth or 10**9)
                if queue and queue[0][0] <= t and entry_free[place] <= t and room:
                    _, _, goals, key = queue.pop(0)
                    entry_free[place] = t + tile
                    queues[place, "L"].append([(goals, key), t + net.within_tile_ns, self.wishes(place, goals), 0])
            for origin, way, beyond, hop, hold in sends:
                head = queues[origin][0]
                (_, key), _, wishes, gone = head
                goals = wishes.pop(way)
                head[3] = max(gone, t + hold)
                if beyond is None:
                    for goal in goals:
                        assert goal not in delivered[key]
                        delivered[key][goal] = t
                else:
                    queues[beyond].append([(goals, key), t + hop, self.wishes(beyond[0], goals), 0])
            t += 1
        return delivered

    def delivered(self, packets, *, multicast=False):
        """(packets,) times."""
        places = list(zip(*(a.tolist() for a in self.net.position(np.arange(self.net.core_count))), strict=True))
        times = np.zeros(packets.count)
        for t in range(packets.steps):
            a, b = packets.first[t : t + 2]
            spikes = []
            for k in range(a, b):
                again = multicast and k > a and packets.spike[k] == packets.spike[k - 1]
                if again and packets.source[k] == packets.source[k - 1]:
                    spikes[-1][2].add(places[packets.target[k]])
                    spikes[-1][3].append(k)
                else:
                    release = round(packets.release_s[k] * 1e9)
                    spikes.append((release, places[packets.source[k]], {places[packets.target[k]]}, [k]))
            keyed = [(release, place, goals, n) for n, (release, place, goals, _) in enumerate(spikes)]
            found = self.step(sorted(keyed, key=lambda one: one[0]))
            for n, (_, _, goals, members) in enumerate(spikes):
                assert set(found[n]) == goals
                for k in members:
                    times[k] = found[n][places[packets.target[k]]]
        return times


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize(("rows", "columns", "depth"), [(3, 3, 1), (2, 4, 2), (8, 8, 4), (1, 6, 1), (5, 2, 3)])
def test_cycle_equals_the_routers_of_the_rtl(name, rows, columns, depth):
    """Every packet in the same cycle, every link with the same load; each step is a mesh just reset."""
    rng = np.random.default_rng(rows * columns)
    net = Interconnect.synchronous(columns, rows, queue_depth=depth)
    packets = packets_of(rng, net, name, count=500, spread=500 / rows / columns)
    found = net.traffic(packets, rung="cycle", record=True)
    passed = np.zeros((rows, columns, 5), np.int64)
    for t in range(packets.steps):
        of_step = slice(*packets.first[t : t + 2])
        cycle = np.rint(packets.release_s[of_step] * 1e9).astype(int)
        order = np.argsort(cycle, kind="stable")
        mesh = Mesh(rows, columns, depth=depth, flit_format=FlitFormat(4, 4, 16))
        y, x = np.divmod(packets.target[of_step][order], columns)
        run = mesh.run(mesh.flit_format.pack(x, y), router=packets.source[of_step][order], not_before=cycle[order])
        left = np.empty(order.size, np.int64)
        left[order[run.packet]] = run.left
        assert np.array_equal(np.rint(found.delivered_s[of_step] * 1e9), left)
        assert round(found.latency_s[t] * 1e9) == left.max()
        passed += mesh.passed.sum(axis=2)
    assert np.array_equal(found.link_load, passed)


CHIPS = ChipLink(hop_ns=9, occupancy_ns=6, channels=1, queue_depth=2)
NETWORKS = {
    "pipelined": {"columns": 3, "rows": 3, "occupancy_ns": 2, "queue_depth": 3},
    "slow_links": {"columns": 4, "rows": 2, "occupancy_ns": 3, "queue_depth": 1, "tile_occupancy_ns": 1},
    "endless_queues": {"columns": 3, "rows": 2, "occupancy_ns": 1},
    "at_once": {"columns": 3, "rows": 2, "occupancy_ns": 2, "within_tile_ns": 0, "queue_depth": 2},
    "chips": {"columns": 2, "rows": 3, "chips": (2, 2), "occupancy_ns": 1, "queue_depth": 2, "chip_link": CHIPS},
    "many_channels": {
        "columns": 3, "rows": 4, "chips": (1, 2), "occupancy_ns": 1, "queue_depth": 2, "cores_per_tile": 2, "cores": 23,
        "chip_link": ChipLink(hop_ns=7, channels=2),
    },
}  # fmt: skip


def network(name):
    return Interconnect(**{"hop_east_west_ns": 3, "hop_north_south_ns": 5, "within_tile_ns": 2, **NETWORKS[name]})


@pytest.mark.parametrize("multicast", [False, True])
@pytest.mark.parametrize("name", [n for n in NETWORKS if n != "at_once"])
def test_cycle_equals_routers_that_are_looked_at_in_every_tick(name, multicast):
    net = network(name)
    rng = np.random.default_rng(len(name))
    for kind, spread in (("random", 100.0), ("hot_spot", 30.0)):
        packets = packets_of(rng, net, kind, steps=2, count=90, spread=spread, spikes=multicast)
        found = net.traffic(packets, rung="cycle", multicast=multicast, record=True)
        assert np.array_equal(np.rint(found.delivered_s * 1e9), Tick(net).delivered(packets, multicast=multicast))


def check(net, packets, found, multicast):
    """Nothing lost, doubled or faster than possible."""
    steps = np.repeat(np.arange(packets.steps), np.diff(packets.first))
    received = np.zeros((packets.steps, net.core_count), np.int64)
    np.add.at(received, (steps, packets.target), 1)
    assert np.array_equal(found.received, received)
    assert np.array_equal(found.packets, np.diff(packets.first))
    release = 0.0 if packets.release_s is None else packets.release_s
    alone = release + net.path_s(packets.source, packets.target)
    assert (found.delivered_s >= alone - 1e-15).all()
    last, waiting = np.zeros(packets.steps), np.zeros(packets.steps)
    np.maximum.at(last, steps, found.delivered_s)
    np.add.at(waiting, steps, found.delivered_s - alone)
    assert np.array_equal(found.latency_s, last)
    assert found.waiting_s == pytest.approx(waiting, rel=1e-9, abs=1e-15)
    assert (found.latency_s >= found.bound_s).all()
    longest = np.zeros(packets.steps)
    np.maximum.at(longest, steps, alone)
    assert found.longest_path_s == pytest.approx(longest, rel=1e-12)
    # Links of each step, counted one by one along x, then y.
    (x, y), (to_x, to_y) = net.position(packets.source), net.position(packets.target)
    hops, loads = defaultdict(int), defaultdict(int)
    seen, tiles, entries = set(), defaultdict(set), defaultdict(set)
    for k in range(packets.count):
        lead = k
        if multicast:
            while lead and steps[lead - 1] == steps[k] and packets.spike[lead - 1] == packets.spike[k]:
                lead -= 1
        entries[steps[k]].add(lead)
        tiles[steps[k]].add((lead, to_x[k], to_y[k]))
        at = (x[k], y[k])
        while at != (to_x[k], to_y[k]):
            dx, dy = np.sign(to_x[k] - at[0]), np.sign(to_y[k] - at[1])
            dy = 0 if dx else dy
            new = (at[0] + dx, at[1] + dy)
            if (lead, at, new) not in seen:
                seen.add((lead, at, new))
                crosses = at[0] // net.columns != new[0] // net.columns or at[1] // net.rows != new[1] // net.rows
                hops[steps[k], "between_chips" if crosses else "east_west" if dx else "north_south"] += 1
                loads[at, {(0, -1): 0, (1, 0): 1, (0, 1): 2, (-1, 0): 3}[int(dx), int(dy)]] += 1
            at = new
    for way in ("east_west", "north_south", "between_chips"):
        assert getattr(found, f"hops_{way}").tolist() == [hops[t, way] for t in range(packets.steps)]
    assert found.entered.tolist() == [len(entries[t]) for t in range(packets.steps)]
    assert found.left.tolist() == [len(tiles[t]) for t in range(packets.steps)]
    links = {((c, r), o): n for (r, c, o), n in np.ndenumerate(found.link_load) if n and o < 4}
    assert links == dict(loads)
    assert found.link_load[:, :, 4].sum() == found.left.sum()
    assert np.array_equal(found.within_tile, np.bincount(steps[(x == to_x) & (y == to_y)], minlength=packets.steps))


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("multicast", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_is_lost_doubled_or_too_fast(rung, multicast, name):
    """Far above what the network carries, with every depth of the queues."""
    rng = np.random.default_rng(7)
    for depth in (1, 2, None):
        net = replace(network(name), queue_depth=depth)
        packets = packets_of(rng, net, "hot_spot", steps=2, count=600, spread=40.0, spikes=multicast)
        found = net.traffic(packets, rung=rung, multicast=multicast, record=True)  # it ends: no deadlock
        check(net, packets, found, multicast)
        unrecorded = net.traffic(packets, rung=rung, multicast=multicast)
        assert unrecorded.delivered_s is None
        assert np.array_equal(unrecorded.latency_s, found.latency_s)
    late = replace(packets, release_s=None)
    check(net, late, net.traffic(late, rung=rung, multicast=multicast, record=True), multicast)


@pytest.mark.exhaustive
@pytest.mark.parametrize("multicast", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_conservation_over_many_patterns(multicast, name):
    for seed in range(12):
        rng = np.random.default_rng(seed)
        net = replace(network(name), queue_depth=int(rng.integers(1, 5)))
        for kind in PATTERNS:
            packets = packets_of(rng, net, kind, count=int(rng.integers(1, 1500)), spread=float(rng.choice([0, 50, 2000])),
                                 spikes=multicast)  # fmt: skip
            for rung in RUNGS:
                check(net, packets, net.traffic(packets, rung=rung, multicast=multicast, record=True), multicast)


@pytest.mark.parametrize("rung", RUNGS)
def test_alone_a_packet_takes_its_path(rung):
    net = Interconnect(
        columns=3, rows=2, chips=(2, 2), cores_per_tile=2, queue_depth=1, chip_link=ChipLink(hop_ns=50, channels=1), **LOIHI
    )
    source, target = (a.ravel() for a in np.meshgrid(np.arange(48), np.arange(48)))
    packets = Packets.from_arrays(np.arange(source.size), source, target)
    found = net.traffic(packets, rung=rung, record=True)
    assert found.delivered_s == pytest.approx(net.path_s(source, target), rel=1e-12)
    assert not found.waiting_s.any()
    (x, y), (to_x, to_y) = net.position(source), net.position(target)
    crossed = abs(x // 3 - to_x // 3) + abs(y // 2 - to_y // 2)
    by_hand = 2.1 + 4.1 * abs(x - to_x) + 6.5 * abs(y - to_y) + 50 * crossed
    by_hand -= 4.1 * abs(x // 3 - to_x // 3) + 6.5 * abs(y // 2 - to_y // 2)
    assert found.latency_s * 1e9 == pytest.approx(by_hand, rel=1e-12)


def test_cores_are_numbered_by_chip_tile_and_place():
    net = Interconnect(columns=4, rows=2, cores_per_tile=3, cores=22, chips=(2, 2), chip_link=ChipLink(hop_ns=20), **LOIHI)
    x, y = net.position([0, 2, 3, 21, 22, 44, 87])
    assert list(zip(x.tolist(), y.tolist(), strict=True)) == [(0, 0), (0, 0), (1, 0), (3, 1), (4, 0), (0, 2), (7, 3)]
    assert net.core_count == 88
    assert net.hops(0, 87).tolist() == [6, 2, 2]


@pytest.mark.parametrize("name", ["loihi", "spinnaker2", "truenorth"])
def test_cores_are_where_the_spec_of_a_chip_says(name):
    text = (files("neuromorphic") / "specs" / f"{name}.yaml").read_text()
    spec = ChipSpec.model_validate({**yaml.safe_load(text), "chips": {"columns": 3, "rows": 2}})
    net = Interconnect(
        columns=spec.mesh.columns, rows=spec.mesh.rows, cores_per_tile=spec.mesh.cores_per_tile, cores=spec.cores,
        chips=(spec.chips.columns, spec.chips.rows), chip_link=ChipLink(hop_ns=20), **LOIHI,
    )  # fmt: skip
    x, y, chip = spec.positions()
    assert net.core_count == x.size
    assert np.array_equal(net.position(np.arange(x.size)), (x, y))
    assert np.array_equal(net.hops(0, np.arange(x.size))[2], chip % 3 + chip // 3)


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize(("occupancy", "tile"), [(1.16, None), (4.1, 1.0)])
def test_a_stream_runs_at_the_rate_of_its_slowest_part(rung, occupancy, tile):
    net = Interconnect(columns=5, rows=1, **{**LOIHI, "occupancy_ns": occupancy}, tile_occupancy_ns=tile)
    packets = Packets.from_arrays(np.zeros(1000, int), np.zeros(1000, int), np.full(1000, 4))
    found = net.traffic(packets, rung=rung)
    assert found.latency_s[0] * 1e9 == pytest.approx(2.1 + 4 * 4.1 + 999 * occupancy, rel=1e-9)
    between = replace(net, chips=(2, 1), chip_link=ChipLink(hop_ns=100, occupancy_ns=40, channels=1))
    crossing = Packets.from_arrays(np.zeros(1000, int), np.zeros(1000, int), np.full(1000, 9))
    assert between.traffic(crossing, rung=rung).latency_s[0] * 1e9 == pytest.approx(2.1 + 8 * 4.1 + 100 + 999 * 40, rel=1e-9)


@pytest.mark.parametrize("depth", [1, 2, 3, 8])
def test_a_short_queue_slows_a_stream(depth):
    """A place in it is taken for a hop and an occupancy."""
    net = Interconnect(columns=5, rows=1, queue_depth=depth, **LOIHI)
    packets = Packets.from_arrays(np.zeros(500, int), np.zeros(500, int), np.full(500, 4))
    period = max(1.16, (4.1 + 1.16) / depth)
    for rung in RUNGS:
        latency = net.traffic(packets, rung=rung).latency_s[0] * 1e9
        assert latency == pytest.approx(2.1 + 4 * 4.1 + 499 * period, rel=0.02)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_channels_between_chips_are_shared_fairly(channels):
    """Four rows send over as many channels as there are, whichever row is first."""
    net = Interconnect(
        columns=2, rows=4, chips=(2, 1), queue_depth=4, chip_link=ChipLink(hop_ns=30, channels=channels, queue_depth=4), **LOIHI
    )
    row = np.tile(np.arange(4), 200)
    packets = Packets.from_arrays(np.zeros(800, int), 2 * row, 8 + 2 * row + 1)
    found = net.traffic(packets, rung="cycle", record=True)
    assert found.hops_between_chips.tolist() == [800]
    assert found.latency_s[0] * 1e9 == pytest.approx(800 / channels * 30, rel=0.03)
    last = [found.delivered_s[row == r].max() for r in range(4)]
    assert max(last) - min(last) < 4 * 30.1e-9


def test_multicast_passes_each_link_once():
    net = Interconnect(columns=4, rows=3, cores_per_tile=2, **LOIHI)
    targets = np.arange(24)
    packets = Packets.from_arrays(np.zeros(24, int), np.full(24, 10), targets, spike=np.zeros(24, int))
    for rung in RUNGS:
        tree, single = (net.traffic(packets, rung=rung, multicast=m) for m in (True, False))
        assert tree.hops_east_west + tree.hops_north_south == 11  # a tree of twelve tiles
        assert single.hops_east_west + single.hops_north_south == net.hops(10, targets).sum()
        assert (tree.entered[0], tree.left[0], tree.packets[0]) == (1, 12, 24)
        assert np.array_equal(tree.received, single.received)
        assert tree.latency_s[0] == pytest.approx(net.path_s(10, targets).max())
        assert not tree.waiting_s.any()


def traffic_digests(threads):
    """What a run with so many threads gives, by rung; and how many threads it had."""
    import hashlib

    numba.set_num_threads(threads)
    net = Interconnect(columns=4, rows=4, queue_depth=2, **LOIHI)
    packets = packets_of(np.random.default_rng(0), net, "hot_spot", steps=150, count=120, spikes=True)
    digests = []
    for rung in RUNGS:
        digest = hashlib.sha256()
        for name, values in sorted(vars(net.traffic(packets, rung=rung, multicast=True, record=True)).items()):
            digest.update(name.encode() + np.ascontiguousarray(values).tobytes())
        digests.append(digest.hexdigest())
    return numba.get_num_threads(), digests


def test_threads_change_no_bit():
    """In processes of their own, as this one may have been started with one thread only."""
    found = []
    for threads in (1, 2):
        here = Path(__file__)
        code = (
            f"import sys; sys.path.insert(0, {str(here.parent)!r}); import {here.stem} as t; print(t.traffic_digests({threads}))"
        )
        ran = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "NUMBA_NUM_THREADS": "2"}, capture_output=True, text=True, check=True
        )
        found.append(ast.literal_eval(ran.stdout))
    assert [used for used, _ in found] == [1, 2]
    assert found[0][1] == found[1][1]


@pytest.mark.parametrize("rung", RUNGS)
def test_grouping_changes_no_bit(rung):
    rng = np.random.default_rng(0)
    net = Interconnect(columns=4, rows=4, queue_depth=2, **LOIHI)
    packets = packets_of(rng, net, "hot_spot", steps=150, count=120, spikes=True)
    whole = net.traffic(packets, rung=rung, multicast=True, record=True)
    cut = int(packets.first[70])
    parts = [
        Packets(first=packets.first[:71], **{n: getattr(packets, n)[:cut] for n in ("source", "target", "spike", "release_s")}),
        Packets(
            first=packets.first[70:] - cut, **{n: getattr(packets, n)[cut:] for n in ("source", "target", "spike", "release_s")}
        ),
    ]
    halves = [net.traffic(part, rung=rung, multicast=True, record=True) for part in parts]
    for name, values in vars(whole).items():
        of_halves = [getattr(half, name) for half in halves]
        assert np.array_equal(values, sum(of_halves) if name == "link_load" else np.concatenate(of_halves))


def test_threads_are_used(monkeypatch):
    """And each has its own steps."""
    import neuromorphic.chip.interconnect as module

    rng = np.random.default_rng(0)
    net = Interconnect(columns=4, rows=4, queue_depth=2, **LOIHI)
    packets = packets_of(rng, net, "random", steps=100, count=50)
    whole = net.traffic(packets, rung="cycle", record=True)
    parts = []

    def in_parts(work, count, *, smallest):
        parts.extend([(60, count), (0, 7), (7, 60)])
        return [work(*part) for part in parts]

    monkeypatch.setattr(module, "run_parts", in_parts)
    cut = net.traffic(packets, rung="cycle", record=True)
    assert len(parts) == 3
    for name, values in vars(whole).items():
        assert np.array_equal(values, getattr(cut, name))


@pytest.mark.parametrize("name", PATTERNS)
def test_error_of_the_event_rung(name):
    """Mean latency on Loihi's mesh beside the exact one: nearly right where links have time to spare, roughly where they do not.

    The benchmark of the interconnect prints the whole table.
    """
    errors = {}
    for depth in (4, None):
        net = Interconnect(columns=8, rows=4, queue_depth=depth, **LOIHI)
        for spread in (0.0, 464.0):  # all at once, and at a quarter of what the ways into the routers take
            packets = packets_of(np.random.default_rng(1), net, name, steps=20, count=3200, spread=spread)
            exact, event = (net.traffic(packets, rung=rung) for rung in RUNGS)
            assert np.array_equal(exact.bound_s, event.bound_s)
            errors[depth, spread] = event.latency_s.mean() / exact.latency_s.mean() - 1
    assert abs(errors[None, 0.0]) < 0.1
    assert abs(errors[4, 0.0]) < 0.35
    if name != "hot_spot":
        assert abs(errors[None, 464.0]) < 0.02


def test_packets_of_spikes():
    core_of, routes = np.array([0, 0, 1, 2]), [[1, 2], [], [0], [0, 1, 2]]
    route_first = np.concatenate(([0], np.cumsum([len(r) for r in routes])))
    packets = Packets.of_spikes(
        [0, 2, 2, 5], [0, 2, 0, 1, 3], core_of=core_of, route_first=route_first, route_core=np.concatenate(routes).astype(int)
    )
    assert packets.first.tolist() == [0, 3, 3, 8]
    assert packets.source.tolist() == [0, 0, 1, 0, 0, 2, 2, 2]
    assert packets.target.tolist() == [1, 2, 0, 1, 2, 0, 1, 2]
    assert packets.spike.tolist() == [0, 0, 2, 0, 0, 3, 3, 3]
    paced = packets.paced(2e-9, begin_s=[1e-9, 0.0, 5e-9])
    assert np.rint(paced.release_s * 1e9).tolist() == [1, 1, 0, 1, 1, 5, 5, 5]
    single = replace(packets, spike=None).paced(2e-9)
    assert np.rint(single.release_s * 1e9).tolist() == [0, 2, 0, 0, 2, 0, 2, 4]
    silent = Packets.of_spikes(
        [0, 0], [], core_of=core_of, route_first=route_first, route_core=np.concatenate(routes).astype(int)
    )
    assert (silent.steps, silent.count) == (1, 0)


def test_joined_packets_keep_their_steps():
    rng = np.random.default_rng(3)
    parts = []
    for count in (7, 0, 12):
        step = np.sort(rng.integers(0, 4, count))
        parts.append(
            Packets.from_arrays(step, rng.integers(0, 5, count), rng.integers(0, 5, count), steps=4,
                                spike=np.arange(count), release_s=rng.random(count))
        )  # fmt: skip
    whole = joined(parts)
    assert whole.count == 19
    for t in range(4):
        rows = [
            (part.source[k], part.target[k], part.release_s[k]) for part in parts for k in range(part.first[t], part.first[t + 1])
        ]
        a, b = whole.first[t : t + 2]
        assert rows == list(zip(whole.source[a:b], whole.target[a:b], whole.release_s[a:b], strict=True))
    assert np.unique(whole.spike).size == 19


def test_nothing_to_carry():
    net = Interconnect(columns=2, rows=2, **LOIHI)
    for rung in RUNGS:
        for steps in (0, 5):
            found = net.traffic(Packets.from_arrays([], [], [], steps=steps), rung=rung, record=True)
            assert found.latency_s.tolist() == [0.0] * steps
            assert not found.link_load.any()


def simple(**given):
    return Interconnect(**{"columns": 2, "rows": 2, **LOIHI, **given})


def send(source=(0,), target=(1,), **given):
    how = {k: given.pop(k) for k in ("rung", "multicast") if k in given}
    return simple().traffic(Packets.from_arrays(given.pop("step", [0] * len(source)), source, target, **given), **how)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: simple(columns=0), "columns: expected an integer ≥ 1, got 0"),
        (lambda: simple(cores_per_tile=True), "cores_per_tile: expected an integer ≥ 1, got True"),
        (lambda: simple(cores=5), "cores: expected at most the 4 places of the mesh, got 5"),
        (lambda: simple(queue_depth=0), "queue_depth: expected an integer ≥ 1, got 0"),
        (lambda: simple(chips=(2, 1)), "chip_link: 2 chips need one"),
        (lambda: simple(hop_east_west_ns=0), "hop_east_west_ns: expected a time of at least 0.001 ns, got 0"),
        (lambda: simple(occupancy_ns=5), "occupancy_ns: expected at most hop_east_west_ns, 4.1, got 5"),
        (lambda: simple(within_tile_ns=-1), "within_tile_ns: expected a time ≥ 0, got -1"),
        (
            lambda: simple(within_tile_ns=0, occupancy_ns=None),
            "tile_occupancy_ns: expected a time above 0, because within_tile_ns is 0",
        ),
        (lambda: ChipLink(hop_ns=5, occupancy_ns=6), "chip_link: occupancy_ns: expected at most the 5 ns of a hop, got 6"),
        (lambda: ChipLink(hop_ns=5, channels=0), "chip_link: channels: expected an integer ≥ 1, got 0"),
        (lambda: Interconnect.synchronous(2, 2, clock_hz=0), "clock_hz: expected above 0, at most 1e12, got 0"),
        (lambda: send(target=(4,)), "target: expected cores 0 to 3, got 4 to 4"),
        (lambda: send(source=(-1,)), "source: expected 0 to 2147483646, got -1 to -1"),
        (lambda: send(rung="packet"), "rung: unknown name 'packet'; known: cycle, event"),
        (lambda: send(multicast=True), "multicast: the packets' spikes are not known"),
        (
            lambda: send((0, 0), (1, 2), spike=[3, 3], release_s=[0.0, 1.0], multicast=True),
            "release_s: packet 1 is of the spike before it, but released apart",
        ),
        (lambda: send(release_s=[-1.0]), "release_s: expected seconds from 0 to 1e6, got -1 to -1"),
        (lambda: send(release_s=[np.nan]), "release_s: expected seconds from 0 to 1e6, got nan to nan"),
        (lambda: send(release_s=[0.0, 1.0]), "release_s: expected shape (1,), got (2,)"),
        (lambda: send((0, 0), (1, 1), step=[1, 0]), "step: expected ascending numbers ≥ 0, one a packet"),
        (lambda: send(step=[3], steps=2), "steps: a packet is in step 3, got 2 steps"),
        (lambda: send(target=(0.5,)), "target: expected integers, got float64"),
        (lambda: send(target=(1, 1)), "target: expected shape (1,), got (2,)"),
        (lambda: simple().position(4), "core: expected 0 to 3, got 4 to 4"),
        (lambda: joined([]), "parts: expected packets of equally many steps, got []"),
        (
            lambda: Packets.of_spikes([0, 1], [2], core_of=[0], route_first=[0, 0], route_core=[]),
            "neuron: expected 0 to 0, got 2 to 2",
        ),
        (
            lambda: Packets.of_spikes([0, 2], [0], core_of=[0], route_first=[0, 0], route_core=[]),
            "first: does not divide the 1 spikes among the steps",
        ),
        (
            lambda: Packets.of_spikes([0, 1], [0], core_of=[0], route_first=[0, 2], route_core=[1]),
            "route_first: does not divide the 1 routes among the 1 neurons",
        ),
    ],
)
def test_bad_input(call, text):
    with pytest.raises(InputError) as error:
        call()
    assert str(error.value) == text
