"""How fast the banked DRAM is: requests a second on one core, beside copying as many addresses and beside a plain loop over them.
Nothing is asserted as a time.
"""

import time

import numpy as np
import pytest
from numba import njit

from hwsim.dram import Dram, Pattern
from hwsim.dram.steady import _sampled

REQUESTS = 1_000_000


@njit
def plain_loop(addresses, last_row):
    """The least a model can do: look up the row that a bank had open last."""
    hits = 0
    for a in addresses:
        bank, row = (a >> 12) & 15, a >> 16
        hits += last_row[bank] == row
        last_row[bank] = row
    return hits


def addresses_of(dram, kind):
    burst = dram.spec.burst_bytes
    if kind == "stream":
        return np.arange(REQUESTS, dtype=np.int64) * burst
    return np.random.default_rng(0).integers(0, dram.capacity_bytes // burst, REQUESTS) * burst


@pytest.mark.parametrize("kind", ["stream", "random"])
@pytest.mark.parametrize("name", ["ddr4_2400", "hbm2e"])
def test_requests_a_second(benchmark, name, kind):
    dram = Dram(name)
    addresses = addresses_of(dram, kind)
    dram.run(addresses[:10])
    last_row = np.zeros(16, dtype=np.int64)
    plain_loop(addresses, last_row)
    run = benchmark.pedantic(dram.run, (addresses,), rounds=5, warmup_rounds=1)
    start = time.perf_counter()
    plain_loop(addresses, last_row)
    looped = time.perf_counter() - start
    start = time.perf_counter()
    addresses.copy()
    copied = time.perf_counter() - start
    took = benchmark.stats.stats.min
    assert run.bytes == REQUESTS * dram.spec.burst_bytes
    benchmark.extra_info["requests_per_s"] = REQUESTS / took
    print(
        f"\n{name} {kind}: {REQUESTS / took / 1e6:.1f} M requests/s; {took / copied:.0f} copies, {took / looped:.0f} plain loops"
    )


@pytest.mark.parametrize(("name", "channels"), [("ddr4_2400", 2), ("hbm2e", 40)])
def test_a_new_pattern(benchmark, name, channels):
    dram = Dram(name, channels=channels)
    dram.steady(Pattern())

    def forget():
        _sampled.cache_clear()

    found = benchmark.pedantic(dram.steady, (Pattern(1024, 8192),), setup=forget, rounds=5)
    assert found.bytes_per_s < dram.peak_bytes_per_s


def test_a_known_pattern(benchmark):
    dram = Dram("hbm2e", channels=40)
    pattern = Pattern(1024, 8192)
    first = dram.steady(pattern)
    assert benchmark(dram.steady, pattern) == first
