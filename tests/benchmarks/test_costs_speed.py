"""ResNet-50 on many configurations of a systolic array, one process with one thread; nothing is asserted as a time.

Aim, of two such processes: 10⁵ configurations a minute at ``analytic``, 5,000 at ``tile``.
"""

import random

import pytest

from hwsim.api import workload_from
from hwsim.registry import get_device


def choices(rng):
    """A configuration of a grid."""
    return {
        "rows": rng.choice([8, 16, 32, 64, 128]), "columns": rng.choice([8, 16, 32, 64, 128]),
        "dataflow": rng.choice(["ws", "os", "is"]),
        "clock_hz": rng.choice([5e8, 1e9]), "memory.input.capacity_bytes": rng.choice([1 << 16, 1 << 17, 1 << 18, 1 << 19]),
        "memory.off_chip.bandwidth_bytes_per_s": rng.choice([4e9, 8e9, 16e9, 32e9]), "vector_unit.lanes": rng.choice([8, 16, 32]),
    }  # fmt: skip


def numbers(rng):
    """A configuration of which no value comes up twice."""
    return {
        "rows": rng.randint(8, 128), "columns": rng.randint(8, 128), "dataflow": rng.choice(["ws", "os", "is"]),
        "clock_hz": rng.uniform(5e8, 1e9), "memory.input.capacity_bytes": rng.randint(1 << 16, 1 << 19),
        "memory.weight.capacity_bytes": rng.randint(1 << 16, 1 << 19),
        "memory.off_chip.bandwidth_bytes_per_s": rng.uniform(4e9, 32e9), "vector_unit.lanes": rng.randint(8, 32),
    }  # fmt: skip


@pytest.mark.parametrize("draw", [choices, numbers])
@pytest.mark.parametrize(("fidelity", "count"), [("analytic", 10_000), ("tile", 200)])
def test_configurations(benchmark, fidelity, count, draw):
    workload, rng = workload_from("resnet50"), random.Random(1)
    changes = [draw(rng) for _ in range(count)]
    get_device("gemmini_16x16").costs(workload, changes[:3], fidelity=fidelity)  # compiles
    found = benchmark.pedantic(
        lambda device: device.costs(workload, changes, fidelity=fidelity),
        setup=lambda: ((get_device("gemmini_16x16"),), {}),
        rounds=3,
    )
    seconds = benchmark.stats.stats.min
    benchmark.extra_info.update(configurations=count, a_minute_in_two_processes=round(120 * count / seconds))
    assert not any(found.errors[:10]) or fidelity == "tile"
