"""How fast the on-chip network is, on one thread, and how far its event rung is from the exact one.

Nothing is asserted as a time; ``make bench`` prints the figures. Aim: packets of a run as large as DVS-gesture's (1000 steps, one
to five million packets) in 0.7 s, within 200 MB.
"""

import resource
import time

import numba
import numpy as np
import pytest

from neuromorphic.chip.interconnect import Interconnect
from neuromorphic.chip.packets import Packets

STEPS = 1000
LOIHI = {
    "columns": 8, "rows": 4, "hop_east_west_ns": 4.1, "hop_north_south_ns": 6.5, "within_tile_ns": 2.1, "occupancy_ns": 1.16
}  # fmt: skip
NETWORKS = {
    "Loihi, queues of 8": Interconnect(**LOIHI, queue_depth=8),
    "Loihi, endless queues": Interconnect(**LOIHI),
    "RTL, queues of 2": Interconnect.synchronous(8, 4),
}
LOADS = {"at once": 0.0, "at capacity": 1.0, "half": 2.0, "quarter": 4.0}
PATTERNS = ["random", "hot_spot", "transpose", "neighbour", "bursty"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


def layered(rng, count):
    """Packets of layers that lie on neighbouring cores of 128, each core sending its own in turn, as a placed network does."""
    source = np.sort(rng.integers(0, 128, (STEPS, count // STEPS)), axis=1).ravel()
    target = (source + rng.integers(4, 20, source.size)) % 128
    made = Packets.from_arrays(np.repeat(np.arange(STEPS), count // STEPS), source, target)
    return made.paced(30e-9)


def pattern(rng, name, tiles, columns, count):
    source, target = rng.integers(0, tiles, (2, count))
    if name == "hot_spot":
        target[rng.random(count) < 0.3] = tiles // 2
    elif name == "transpose":
        target = tiles - 1 - source
    elif name == "neighbour":
        target = np.clip(source + rng.choice([-1, 1, columns, -columns], count), 0, tiles - 1)
    elif name == "bursty":
        source = np.repeat(rng.integers(0, tiles, -(-count // 10)), 10)[:count]
    return source, target


@pytest.mark.benchmark(group="1000 steps on Loihi's mesh")
@pytest.mark.parametrize("rung", ["event", "cycle"])
@pytest.mark.parametrize("count", [1_000_000, 5_000_000])
def test_layers(benchmark, rung, count):
    packets = layered(np.random.default_rng(0), count)
    net = Interconnect(**LOIHI, cores_per_tile=4, queue_depth=8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []

    def carry():
        start = time.process_time()
        made = net.traffic(packets, rung=rung)
        times.append(time.process_time() - start)
        return made

    found = benchmark.pedantic(carry, rounds=3, warmup_rounds=1)
    seconds = min(times)
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    moves = int(found.link_load.sum() + found.entered.sum())
    benchmark.extra_info.update(cpu_s=round(seconds, 3), ns_per_link=round(seconds / moves * 1e9, 1), more_mb=round(more))
    print(
        f"\n{rung}, {count / 1e6:g} million packets, {moves / count:.1f} links each: {seconds:.2f} s, "
        f"{seconds / moves * 1e9:.0f} ns a link, {more:.0f} MB more"
    )


@pytest.mark.benchmark(group="error of the event rung")
@pytest.mark.parametrize("name", NETWORKS)
def test_error_of_the_event_rung(benchmark, name):
    """Latency of a step beside the exact one: mean error, and the largest of any step."""
    net = NETWORKS[name]
    columns = "".join(f"{load:>18}" for load in LOADS)
    print(f"\n{name}: error of the mean latency (largest of a step), %\n{'packets a step':>26}{columns}")

    def table():
        for count in (320, 3200):
            for kind in PATTERNS:
                cells = ""
                for spread in LOADS.values():
                    rng = np.random.default_rng(1)
                    source, target = pattern(rng, kind, 32, 8, 50 * count)
                    # At capacity packets come as fast as the ways into the routers take them.
                    release = rng.random(source.size) * spread * count / 32 * net.occupancy_ns * 1e-9
                    packets = Packets.from_arrays(np.repeat(np.arange(50), count), source, target, release_s=release)
                    exact, event = (net.traffic(packets, rung=rung).latency_s for rung in ("cycle", "event"))
                    cells += f"{100 * (event.mean() / exact.mean() - 1):10.1f} ({100 * abs(event / exact - 1).max():4.1f})"
                print(f"{kind:>20}{count:6}{cells}")

    benchmark.pedantic(table, rounds=1)
