"""How fast the cycle-level array is: processing elements times cycles, a second, on one core. Nothing is asserted as a time.

Aim: 200 million.
"""

import numpy as np
import pytest

from accelerators.systolic.cycle import control_cycles, simulate_matmul
from accelerators.systolic.spec import ArraySpec
from numerics import quantize

SIZES = [16, 32, 128]
FORMATS = {"int8": "int32", "bf16": "fp32"}


def operands(fmt, m, n, k):
    rng = np.random.default_rng(0)
    if fmt == "int8":
        return rng.integers(-128, 128, (m, k)), rng.integers(-128, 128, (k, n))
    return tuple(quantize(rng.standard_normal(shape).astype(np.float32), fmt) for shape in ((m, k), (k, n)))


@pytest.mark.benchmark(group="every register")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dataflow", ["ws", "os"])
@pytest.mark.parametrize("fmt", FORMATS)
def test_every_register(benchmark, fmt, dataflow, size):
    array = ArraySpec(rows=size, columns=size, dataflow=dataflow, timing="rtl")
    a, b = operands(fmt, 512, 2 * size, 512)
    how = {"array": array, "a_format": fmt, "b_format": fmt, "accumulator": FORMATS[fmt]}
    run = benchmark.pedantic(simulate_matmul, (a, b), how, rounds=5, warmup_rounds=1)
    rate = run.cycles * size * size / benchmark.stats.stats.min / 1e6
    benchmark.extra_info["million_pe_cycles_per_s"] = round(rate)
    print(f"\n{fmt} {dataflow} {size}×{size}: {rate:.0f} million PE-cycles/s, {run.cycles} cycles")


@pytest.mark.benchmark(group="control")
@pytest.mark.parametrize("dataflow", ["ws", "os"])
def test_control_alone(benchmark, dataflow):
    array = ArraySpec(rows=128, columns=128, dataflow=dataflow, timing="rtl")
    cycles = benchmark.pedantic(control_cycles, (4096, 4096, 1024), {"array": array}, rounds=5, warmup_rounds=1)
    rate = cycles / benchmark.stats.stats.min / 1e6
    benchmark.extra_info["million_cycles_per_s"] = round(rate)
    print(f"\n{dataflow}: {rate:.0f} million cycles/s, {cycles} cycles")
