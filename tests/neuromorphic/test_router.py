"""Routers and meshes against queues written differently, and the properties that a network must have."""

from collections import Counter, deque

import numpy as np
import pytest

from neuromorphic import FlitFormat, Mesh, RouterPort, spike_router
from numerics.errors import InputError

STEP = {"N": (0, -1), "E": (1, 0), "S": (0, 1), "W": (-1, 0)}
FACING = {"N": "S", "E": "W", "S": "N", "W": "E"}
ORDER = "NESWL"


class QueueMesh:
    """Routers as named queues of (x, y, flit); whose turn it is is a rotated string of port names."""

    def __init__(self, rows, columns, depth, corner=(0, 0)):
        self.depth = depth
        self.at = {(corner[0] + c, corner[1] + r): {p: deque() for p in ORDER} for r in range(rows) for c in range(columns)}
        self.turns = {(place, out): ORDER for place in self.at for out in ORDER}

    @staticmethod
    def wish(place, packet):
        dx, dy = packet[0] - place[0], packet[1] - place[1]
        return ("E" if dx > 0 else "W") if dx else ("S" if dy > 0 else "N") if dy else "L"

    def cycle(self, offers, sinks):
        """offers: {(place, port): packet}; sinks: set of (place, port) that take. Returns (taken offers, what outputs show)."""
        space = {(place, port) for place, queues in self.at.items() for port, queue in queues.items() if len(queue) < self.depth}
        shown, moves = {}, []
        for place, queues in self.at.items():
            for out in ORDER:
                asking = [p for p in self.turns[place, out] if queues[p] and self.wish(place, queues[p][0]) == out]
                if not asking:
                    continue
                winner = asking[0]
                shown[place, out] = queues[winner][0]
                beyond = None
                if out != "L":
                    beyond = (place[0] + STEP[out][0], place[1] + STEP[out][1])
                    if beyond not in self.at:
                        beyond = None
                free = (beyond, FACING[out]) in space if beyond else (place, out) in sinks
                cut = ORDER.index(winner) + free
                self.turns[place, out] = (ORDER + ORDER)[cut : cut + 5]
                if free:
                    moves.append((queues[winner], self.at[beyond][FACING[out]] if beyond else None))
        for queue, target in moves:
            packet = queue.popleft()
            if target is not None:
                target.append(packet)
        taken = {key for key in offers if key in space}
        for place, port in taken:
            self.at[place][port].append(offers[place, port])
        return taken, shown


def against_queues(mesh, flits, entry, port, first, ready, cycles):
    """Play the same traffic into the queues and compare all that shows in every cycle."""
    trace = mesh.run(flits, router=entry, port=port, not_before=first, ready=ready, cycles=cycles, record=True).trace
    other = QueueMesh(mesh.rows, mesh.columns, mesh.depth, (mesh.x, mesh.y))
    x, y, _ = mesh.flit_format.unpack(flits)
    places = [(mesh.x + n % mesh.columns, mesh.y + n // mesh.columns) for n in range(mesh.rows * mesh.columns)]
    sources = {}
    for i in range(flits.size):
        sources.setdefault((places[entry[i]], ORDER[port[i]]), deque()).append((first[i], (int(x[i]), int(y[i]), int(flits[i]))))
    shape = (mesh.rows * mesh.columns, 5)
    pins = {(place, p): (n, k) for n, place in enumerate(places) for k, p in enumerate(ORDER)}
    for t in range(cycles):
        offers = {key: queue[0][1] for key, queue in sources.items() if queue and queue[0][0] <= t}
        accepts = np.zeros(shape, bool)
        for key, pin in pins.items():
            accepts[pin] = len(other.at[key[0]][key[1]]) < mesh.depth
        sinks = {key for key, pin in pins.items() if ready[t % len(ready)][pin]}
        taken, shown = other.cycle(offers, sinks)
        for key in taken:
            sources[key].popleft()
        in_flit, out_flit = np.full(shape, -1), np.full(shape, -1)
        for key, packet in offers.items():
            in_flit[pins[key]] = packet[2]
        for key, packet in shown.items():
            out_flit[pins[key]] = packet[2]
        assert np.array_equal(trace.in_ready[t].reshape(shape), accepts)
        assert np.array_equal(np.where(trace.in_valid[t], trace.in_flit[t], -1).reshape(shape), in_flit)
        assert np.array_equal(np.where(trace.out_valid[t], trace.out_flit[t], -1).reshape(shape), out_flit)
    return trace


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_router_equals_queues(depth):
    rng = np.random.default_rng(depth)
    mesh = spike_router(x=2, y=1, depth=depth, flit_format=FlitFormat(2, 2, 10))
    count = 1500
    flits = mesh.flit_format.pack(rng.integers(0, 4, count), rng.integers(0, 4, count), rng.integers(0, 1024, count))
    port = rng.integers(0, 5, count)
    first = np.sort(rng.integers(0, 700, count))
    ready = rng.random((900, 1, 5)) < [0.3, 0.9, 0.6, 1.0, 0.8]
    trace = against_queues(mesh, flits, np.zeros(count, int), port, first, ready, 900)
    assert trace.out_valid.mean() > 0.3
    assert (~trace.in_ready).mean() > 0.1


@pytest.mark.parametrize(("rows", "columns", "depth"), [(2, 2, 2), (3, 4, 1), (1, 5, 3)])
def test_mesh_equals_queues(rows, columns, depth):
    rng = np.random.default_rng(10 * rows + columns)
    mesh = Mesh(rows, columns, depth=depth, x=3, y=2)
    routers, count = rows * columns, 800
    flits = mesh.flit_format.pack(
        3 + rng.integers(0, columns, count), 2 + rng.integers(0, rows, count), rng.integers(0, 256, count)
    )
    ready = rng.random((300, routers, 5)) < 0.6
    first = np.sort(rng.integers(0, 200, count))
    against_queues(mesh, flits, rng.integers(0, routers, count), np.full(count, 4), first, ready, 300)


def traffic(rng, mesh, count, rate):
    """Numbered packets between random routers: entry, destination, flits, first cycles."""
    routers = mesh.rows * mesh.columns
    source, target = rng.integers(0, routers, (2, count))
    hot = rng.random(count) < 0.3
    target[hot] = routers // 2
    row, column = np.divmod(target, mesh.columns)
    flits = mesh.flit_format.pack(column, row, np.arange(count))
    return source, target, flits, np.sort((rng.random(count) * count / (rate * routers)).astype(int))


@pytest.mark.parametrize(("rows", "columns", "depth"), [(8, 8, 1), (4, 7, 2), (16, 16, 4), (1, 9, 1)])
@pytest.mark.parametrize("rate", [0.02, 5.0])
def test_nothing_is_lost_doubled_or_overtaken(rows, columns, depth, rate):
    """Under random traffic with a hot spot, far above what the mesh carries, and sinks that often refuse."""
    rng = np.random.default_rng(rows * columns)
    mesh = Mesh(rows, columns, depth=depth, flit_format=FlitFormat(4, 4, 16))
    source, target, flits, first = traffic(rng, mesh, 12000, rate)
    run = mesh.run(
        flits, router=source, not_before=first, ready=rng.random((997, rows * columns, 5)) < 0.5
    )  # it ends: no deadlock
    assert np.array_equal(np.sort(run.packet), np.arange(12000))
    assert np.array_equal(run.flit, flits[run.packet])
    assert np.array_equal(run.port, target[run.packet] * 5 + RouterPort.LOCAL)
    assert (run.entered >= first).all()
    assert (run.left - run.entered[run.packet] >= 1 + mesh.hops(source, *mesh.flit_format.unpack(flits)[:2])[run.packet]).all()
    pair = source * rows * columns + target
    for values in (run.packet, run.entered[run.packet]):
        for key in np.unique(pair)[::7]:
            assert (np.diff(values[pair[run.packet] == key]) > 0).all()
    assert not mesh.occupancy.any()
    # No turn from y to x, and none back.
    passed = mesh.passed.sum(axis=(0, 1))
    north, east, south, west, _ = RouterPort
    for entry, output in [
        (north, east),
        (north, west),
        (south, east),
        (south, west),
        *((p, p) for p in (north, east, south, west)),
    ]:
        assert passed[entry, output] == 0
    assert passed.sum() == (1 + mesh.hops(source, *mesh.flit_format.unpack(flits)[:2])).sum()


def test_alone_a_packet_takes_one_cycle_and_one_a_hop():
    mesh = Mesh(5, 6, depth=1)
    for source in range(30):
        for target in range(30):
            run = mesh.run(mesh.flit_format.pack([target % 6], [target // 6]), router=source)
            assert run.left[0] - run.entered[0] == 1 + abs(source % 6 - target % 6) + abs(source // 6 - target // 6)


@pytest.mark.parametrize(("depth", "gap"), [(1, 2), (2, 1), (4, 1)])
def test_full_rate(depth, gap):
    """Through all five outputs at once, and all inputs to one output."""
    mesh = spike_router(x=1, y=1, depth=depth)
    ahead = {0: (1, 0), 1: (2, 1), 2: (1, 2), 3: (0, 1), 4: (1, 1)}
    port = np.tile(np.arange(5), 50)
    x, y = np.array([ahead[(p + 1) % 5] for p in port]).T
    run = mesh.run(mesh.flit_format.pack(x, y, np.arange(250)), port=port)
    for p in range(5):
        assert (np.diff(run.left[run.port == p]) == gap).all()
    run = mesh.run(mesh.flit_format.pack(np.full(250, 1), 1, np.arange(250)), port=port)
    assert run.left.tolist() == list(range(1, 251))  # five inputs keep one output busy, whatever the depth
    assert all(Counter(port[run.packet[i : i + 5] - 250]) == Counter(range(5)) for i in range(0, 250, 5))  # in turn


def test_what_shows_stays_until_it_passes():
    rng = np.random.default_rng(6)
    mesh = spike_router(x=1, y=1, depth=2)
    count = 3000
    flits = mesh.flit_format.pack(rng.integers(0, 3, count), rng.integers(0, 3, count), rng.integers(0, 256, count))
    trace = mesh.run(
        flits,
        port=rng.integers(0, 5, count),
        not_before=np.arange(count) // 3,
        ready=rng.random((50, 1, 5)) < 0.3,
        cycles=2000,
        record=True,
    ).trace
    waits = (trace.out_valid & ~trace.out_ready)[:-1]
    assert waits.sum() > 500
    assert trace.out_valid[1:][waits].all()
    assert np.array_equal(trace.out_flit[1:][waits], trace.out_flit[:-1][waits])


def test_runs_continue_one_another():
    rng = np.random.default_rng(7)
    mesh = Mesh(3, 3, flit_format=FlitFormat(2, 2, 16))
    source, _, flits, _ = traffic(rng, mesh, 30, 1)
    part = mesh.run(flits, router=source, cycles=4)
    taken = np.flatnonzero(part.entered >= 0)
    rest = mesh.run(flits[:3], router=source[:3])
    assert sorted([*part.packet, *rest.packet]) == [*taken, 30, 31, 32]
    last = rest.packet >= 30
    assert np.array_equal(rest.flit[~last], flits[rest.packet[~last]])
    assert mesh.run().cycles == 0


def test_packets_leave_an_open_edge():
    mesh = Mesh(2, 2, open_edges=True, x=1, y=1)
    run = mesh.run(mesh.flit_format.pack([0, 5, 1], [1, 2, 9]), router=3)
    assert {(p // 5, p % 5) for p in run.port.tolist()} == {(2, 3), (3, 1), (2, 2)}  # x first


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: Mesh(0, 1), "rows: expected an integer ≥ 1, got 0"),
        (lambda: Mesh(1, 1, depth=0), "depth: expected an integer ≥ 1, got 0"),
        (lambda: Mesh(1, 17), "flit_format: 4 and 4 bits do not address 17 columns from 0 and 1 rows from 0"),
        (lambda: FlitFormat(0), "x_bits: expected an integer ≥ 1, got 0"),
        (lambda: FlitFormat(4, 4, 60), "flit: expected at most 62 bits, got 68"),
        (lambda: FlitFormat().pack(16, 0), "x: expected 4-bit numbers, got 16 to 16"),
        (lambda: Mesh(2, 2).run([0x2000]), "flits: packet 0 goes to (2, 0), outside of the mesh"),
        (lambda: Mesh(2, 2).run([0], router=4), "router: expected numbers ≥ 0 below 4, got 4 to 4"),
        (lambda: Mesh(2, 2).run([0], port=0), "port: nothing enters at the north port of router 0"),
        (lambda: Mesh(2, 2, open_edges=True).run([0], port=1), "port: nothing enters at the east port of router 0"),
        (lambda: Mesh(2, 2).run([0, 0], not_before=[1, 2, 3]), "not_before: expected shape (2,), got (3,)"),
        (lambda: Mesh(2, 2).run([0], ready=np.ones((3, 4))), "ready: expected shape (pattern, 4, 5), got (3, 4)"),
        (
            lambda: Mesh(1, 1).run([0], ready=np.zeros((3, 1, 5))),
            "ready: without cycles every sink must take flits, or the mesh never gets empty",
        ),
        (lambda: Mesh(1, 1).run([0], record=True), "record: needs a number of cycles"),
        (lambda: Mesh(1, 1).run([0], cycles=1.5), "cycles: expected an integer ≥ 0, got 1.5"),
        (lambda: Mesh(1, 1).run([0], cycles=True), "cycles: expected an integer ≥ 0, got True"),
        (lambda: Mesh(1, 1).run([0], cycles=-1), "cycles: expected an integer ≥ 0, got -1"),
        (lambda: Mesh(1, 1).run([0.5]), "flits: expected integers, got float64"),
        (lambda: Mesh(1, 1).run([1 << 63]), f"flits: expected integers below 2^63, got {1 << 63}"),
        (lambda: Mesh(2, 2).run([0], router=0.5), "router: expected integers, got float64"),
        (lambda: Mesh(2, 2).run([0], port=4.0), "port: expected integers, got float64"),
        (lambda: Mesh(2, 2).run([0], not_before=[1.5]), "not_before: expected integers, got float64"),
        (lambda: Mesh(1, 1).run([0], ready=np.full((3, 1, 5), 2)), "ready: expected booleans, or 0 and 1, got 2"),
        (lambda: FlitFormat().pack([1.5], 0), "x: expected integers, got float64"),
        (lambda: FlitFormat().unpack([1.5]), "flits: expected integers, got float64"),
        (lambda: Mesh(2, 2).hops(0.5, 0, 0), "router: expected integers, got float64"),
    ],
)
def test_bad_input(call, text):
    with pytest.raises(InputError) as error:
        call()
    assert str(error.value) == text
