"""What a faulty register costs through the mapping: beside the clean product and the cycle-level array, in one run on one core.
Nothing is asserted as a time.

Aim: at most twice the clean product.
"""

import time

import numpy as np
import pytest
import torch
from torch import nn

import hwsim
import numerics
from accelerators.systolic.cycle import Fault, registers, simulate_matmul
from accelerators.systolic.emulation import ArrayUnit, array_recipe, fold_accumulator
from accelerators.systolic.faults.products import faulty_matmul
from accelerators.systolic.faults.unit import FaultyArrayUnit
from accelerators.systolic.spec import ArraySpec
from numerics import matmul, quantize

SIZES = {"256": (256, 256, 256), "convolution 64 × 28 × 28": (784, 64, 576)}
FORMATS = {"int8": "int32", "bf16": "fp32"}
FAULTS = [(d, name) for d in ("ws", "os", "is") for name in registers(d)]


def operands(fmt, m, n, k):
    rng = np.random.default_rng(0)
    if fmt == "int8":
        return tuple(rng.integers(-128, 128, shape).astype(np.float32) for shape in ((m, k), (k, n)))
    return tuple(quantize(rng.standard_normal(shape).astype(np.float32), fmt) for shape in ((m, k), (k, n)))


def best(call, rounds):
    call()
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return min(found)


@pytest.mark.benchmark(group="a stuck bit, mapped")
@pytest.mark.parametrize(("dataflow", "register"), FAULTS)
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("size", SIZES)
def test_a_stuck_bit(benchmark, size, fmt, dataflow, register):
    array = ArraySpec(rows=16, columns=16, dataflow=dataflow, timing="rtl")
    a, b = operands(fmt, *SIZES[size])
    # Element (0, 0) has the most sums behind it.
    fault = [Fault(kind="stuck_at_1", register=register, row=0, column=0, bit=5)]
    how = {"array": array, "a_format": fmt, "b_format": fmt, "accumulator": FORMATS[fmt]}
    sums = fold_accumulator(array, FORMATS[fmt])
    clean = best(lambda: matmul(a, b, accumulator=sums), 10)
    stepped = best(lambda: simulate_matmul(a, b, **how, faults=fault), 1)
    benchmark.pedantic(faulty_matmul, (a, b, fault), how, rounds=10, warmup_rounds=1)
    mapped = benchmark.stats.stats.min
    benchmark.extra_info["times_the_clean_product"] = round(mapped / clean, 2)
    benchmark.extra_info["times_faster_than_cycle_level"] = round(stepped / mapped, 1)
    print(
        f"\n{size} {fmt} {dataflow} {register}: {mapped * 1e3:.2f} ms, {mapped / clean:.2f} × clean ({clean * 1e3:.2f} ms), "
        f"cycle-level / {stepped / mapped:.0f}"
    )


@pytest.mark.benchmark(group="a network, mapped")
@pytest.mark.parametrize("register", registers("ws"))
def test_a_network(benchmark, register):
    """Four convolutions of 32 × 32 and a linear layer, eight images, int8."""
    device = hwsim.get_device("gemmini_16x16")
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU()]
    for inside, out in ((32, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(inside, out, 3, padding=1, stride=1 if inside == out else 2), nn.ReLU()]
    network, x = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 256, 10)), torch.randn(8, 3, 32, 32)
    recipe = array_recipe(device.spec, device.spec.default_recipe)
    faults = (Fault(kind="stuck_at_1", register=register, row=0, column=0, bit=5),)
    emulations = [
        numerics.emulate(network, recipe, matrix_unit=unit)
        for unit in (None, ArrayUnit(device.spec, faults), FaultyArrayUnit(device.spec, faults))
    ]
    with torch.no_grad():
        clean, stepped = best(lambda: emulations[0](x), 3), best(lambda: emulations[1](x), 1)
        benchmark.pedantic(emulations[2], (x,), rounds=3, warmup_rounds=1)
        assert torch.equal(emulations[1](x), emulations[2](x))
    mapped = benchmark.stats.stats.min
    benchmark.extra_info["times_the_clean_network"] = round(mapped / clean, 2)
    benchmark.extra_info["times_faster_than_cycle_level"] = round(stepped / mapped, 1)
    print(f"\n{register}: {mapped * 1e3:.0f} ms, {mapped / clean:.2f} × clean ({clean * 1e3:.0f} ms), / {stepped / mapped:.0f}")
