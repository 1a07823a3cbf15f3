"""Whole networks on every device after warm-up (≤ 100 ms each), and 10⁵ matmuls at once (≤ 5 s)."""

from __future__ import annotations

import numpy as np
import pytest

from hwsim import zoo
from hwsim.api import workload_from
from hwsim.registry import device_names, get_device

SHAPES = 100_000


@pytest.mark.parametrize("name", device_names(event_driven=False))
def test_the_slowest_network(benchmark, name):
    """The network of the zoo that takes this device longest; its name and time are in ``extra_info``."""
    import time

    device = get_device(name)
    workloads = {model: workload_from(model) for model in zoo.names()}
    taken = {}
    for model, workload in workloads.items():
        device.simulate(workload)
        start = time.perf_counter()
        device.simulate(workload)
        taken[model] = time.perf_counter() - start
    slowest = max(taken, key=lambda model: taken[model])
    benchmark.extra_info["model"] = slowest
    benchmark.extra_info["all_ms"] = {model: round(1e3 * seconds, 1) for model, seconds in taken.items()}
    benchmark.pedantic(device.simulate, args=(workloads[slowest],), rounds=3, warmup_rounds=1)


@pytest.mark.parametrize(("name", "fidelity"), [("a100", "tile"), ("tpu_v4", "analytic"), ("tpu_v1", "analytic")])
def test_many_matmuls(benchmark, name, fidelity):
    device = get_device(name)
    m, n, k = (2 ** np.random.default_rng(0).uniform(4, 14, (3, SHAPES))).astype(np.int64)
    device.matmul_time_s(m[:8], n[:8], k[:8], fidelity=fidelity)
    times = benchmark.pedantic(device.matmul_time_s, args=(m, n, k), kwargs={"fidelity": fidelity}, rounds=1)
    assert times.shape == (SHAPES,)
