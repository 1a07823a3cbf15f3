"""How fast accumulator-exact products are: 512³ on one thread, and on two. Nothing is asserted as a time."""

import numba
import numpy as np
import pytest

import numerics
from numerics.accumulator import Accumulator, get_accumulator
from numerics.products import matmul

SIZE = 512

EVERY_ADDITION_ROUNDED = {
    "fp32": ("fp32", "bf16"),
    "bf16": ("bf16", "bf16"),
    "fp16": ("fp16", "fp16"),
    "e8m13": ("e8m13", "e4m3fn"),
    "bf16 toward zero": (Accumulator(format="bf16", rounding="toward_zero"), "bf16"),
    "bf16 up": (Accumulator(format="bf16", rounding="up"), "bf16"),
    "bf16 stochastic": (Accumulator(format="bf16", rounding="stochastic"), "bf16"),
    "bf16 pairwise": (Accumulator(format="bf16", order="pairwise"), "bf16"),
    "bf16 tree of 4": (Accumulator(format="bf16", order="tree", group=4), "bf16"),
    "fp32 systolic, 128 rows": (Accumulator(format="fp32", order="systolic", group=128), "bf16"),
    "bf16 Kahan": (Accumulator(format="bf16", compensated=True), "bf16"),
    "bf16 products and sums": (Accumulator(format="bf16", product="bf16"), "bf16"),
    "rounded once": ("exact", "e4m3fn"),
    "rounded once, more than 53 bits": ("exact", "bf16"),
}
TENSOR_CORES = (
    "volta.mma.f16", "turing.mma.f16", "ampere.mma.k8.bf16", "ampere.mma.k16.bf16", "ampere.mma.k8.tf32", "ada.mma.k32.e4m3",
    "hopper.mma.f16", "hopper.wgmma.f16", "hopper.wgmma.f16.f16", "hopper.wgmma.tf32", "hopper.wgmma.e4m3", "hopper.wgmma.e5m2",
    "hopper.wgmma.e4m3.f16", "deepseek", "blackwell.tcgen05.f16", "blackwell.tcgen05.e4m3",
)  # fmt: skip
BLOCK_SCALED = {"mxf8f6f4": "mxfp8_e4m3", "mxf4": "mxfp4", "nvf4": "nvfp4"}


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request):
    if request.param > numba.config.NUMBA_NUM_THREADS:
        pytest.skip("needs another core")
    before = numba.get_num_threads()
    numba.set_num_threads(request.param)
    yield request.param
    numba.set_num_threads(before)


def gaussian(seed):
    return np.random.default_rng(seed).standard_normal((SIZE, SIZE)).astype(np.float32)


def measure(benchmark, threads, a, b, accumulator, **more):
    matmul(a, b, accumulator=accumulator, **more)
    benchmark.pedantic(matmul, (a, b), {"accumulator": accumulator, **more}, rounds=7, warmup_rounds=1)
    benchmark.extra_info["threads"] = threads
    benchmark.extra_info["gmac_per_s"] = SIZE**3 / benchmark.stats.stats.min / 1e9
    print(f"\n{benchmark.extra_info['gmac_per_s']:.2f} GMAC/s on {threads} threads")


@pytest.mark.parametrize("name", EVERY_ADDITION_ROUNDED)
def test_every_addition_rounded(benchmark, threads, name):
    accumulator, fmt = EVERY_ADDITION_ROUNDED[name]
    more = {"seed": 1} if get_accumulator(accumulator).rounding == "stochastic" else {}
    measure(benchmark, threads, *(numerics.quantize(gaussian(seed), fmt) for seed in (0, 1)), accumulator, **more)


@pytest.mark.parametrize("name", TENSOR_CORES)
def test_tensor_cores(benchmark, threads, name):
    fmt = get_accumulator(name).a_formats[0]
    measure(benchmark, threads, *(numerics.quantize(gaussian(seed), fmt) for seed in (0, 1)), name)


@pytest.mark.parametrize("name", BLOCK_SCALED)
def test_block_scaled(benchmark, threads, name):
    a, b = (numerics.encode(gaussian(axis), BLOCK_SCALED[name], axis=1 - axis) for axis in (0, 1))
    measure(benchmark, threads, a, b, f"blackwell.tcgen05.{name}")


@pytest.mark.parametrize("name", ["int32", "int32_saturate"])
def test_int8(benchmark, threads, name):
    rng = np.random.default_rng(2)
    measure(benchmark, threads, *(rng.integers(-128, 128, (SIZE, SIZE), np.int8) for _ in range(2)), name)
