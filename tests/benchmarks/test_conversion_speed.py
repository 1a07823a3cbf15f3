"""How fast conversion is: fp32 in, fp32 values into a given ``out``, 16 Mi elements, one thread, beside ``numpy.copyto``.

Nothing is asserted as a time; ``make bench`` prints the figures, and each benchmark's ``extra_info`` holds its fraction.
"""

import time

import gfloat
import ml_dtypes
import numba
import numpy as np
import pytest
import torch
from gfloat.formats import format_info_ocp_e4m3

from numerics import decode, encode, quantize

ELEMENTS = 1 << 24
WARMUP = {"rounds": 7, "warmup_rounds": 1}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = numba.get_num_threads(), torch.get_num_threads()
    numba.set_num_threads(1)
    torch.set_num_threads(1)
    yield
    numba.set_num_threads(before[0])
    torch.set_num_threads(before[1])


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).standard_normal(ELEMENTS).astype(np.float32)


@pytest.fixture(scope="module")
def out(x):
    return np.empty_like(x)


def fastest(call, rounds=7):
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(benchmark, call, x, out, *, share=1.0, rounds=7):
    """Run ``call`` on ``share`` of x, and note its speed as a fraction of that of ``numpy.copyto`` measured beside it."""
    copy = fastest(lambda: np.copyto(out, x))
    benchmark.pedantic(call, rounds=rounds, warmup_rounds=1)
    fraction = copy * share / benchmark.stats.stats.min
    benchmark.extra_info["of_copyto"] = round(fraction, 3)
    print(f"\n{benchmark.name}: {fraction:.3f} of copyto ({copy * 1e3:.2f} ms)")


OURS = [
    *((name, {}) for name in ("e4m3fn", "e5m2", "bf16", "fp16", "e4m3fnuz", "e2m1fn", "tf32")),
    *((name, {"rounding": "stochastic", "seed": 1}) for name in ("e4m3fn", "bf16", "fp16")),
    *(("e4m3fn", {"rounding": mode}) for mode in ("nearest_away", "toward_zero", "to_odd")),
    ("int8", {"scale": 0.03}),
    ("int8", {"scale": 0.03, "rounding": "stochastic", "seed": 1}),
    *((name, {}) for name in ("mxfp4", "mxfp6_e2m3", "mxfp8_e4m3", "mxint8", "nvfp4")),
    ("mxfp4", {"rounding": "stochastic", "seed": 1}),
    ("nf4", {"scale": 3.0}),
]
NAMES = [f"{name}-{options['rounding']}" if "rounding" in options else name for name, options in OURS]


@pytest.mark.benchmark(group="fp32 to values")
@pytest.mark.parametrize(("name", "options"), OURS, ids=NAMES)
def test_quantize(benchmark, x, out, name, options):
    measure(benchmark, lambda: quantize(x, name, out=out, **options), x, out, rounds=3 if name == "nf4" else 7)
    assert np.isfinite(out).all()


@pytest.mark.benchmark(group="fp32 to codes")
@pytest.mark.parametrize("name", ["e4m3fn", "e5m2", "bf16", "fp16", "int8", "mxfp4", "mxint8", "nvfp4"])
def test_encode(benchmark, x, out, name):
    options = {"scale": 0.03} if name == "int8" else {}
    measure(benchmark, lambda: encode(x, name, **options), x, out)


@pytest.mark.benchmark(group="codes to values")
@pytest.mark.parametrize("name", ["e4m3fn", "bf16", "int8", "mxfp4"])
def test_decode(benchmark, x, out, name):
    codes = encode(x, name, **({"scale": 0.03} if name == "int8" else {}))
    measure(benchmark, lambda: decode(codes) if name == "mxfp4" else decode(codes, name), x, out)


@pytest.mark.benchmark(group="peers, fp32 to values")
@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "bfloat16", "float16"])
def test_torch(benchmark, x, out, name):
    source, target, kind = torch.from_numpy(x), torch.from_numpy(out), getattr(torch, name)
    measure(benchmark, lambda: target.copy_(source.to(kind)), x, out)


@pytest.mark.benchmark(group="peers, fp32 to values")
@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "bfloat16", "float4_e2m1fn"])
def test_ml_dtypes(benchmark, x, out, name):
    kind = getattr(ml_dtypes, name)
    measure(benchmark, lambda: np.copyto(out, x.astype(kind), casting="unsafe"), x, out, rounds=3)


@pytest.mark.benchmark(group="peers, fp32 to values")
def test_gfloat(benchmark, x, out):
    part = x[: ELEMENTS // 16]
    measure(benchmark, lambda: gfloat.round_ndarray(format_info_ocp_e4m3, part), x, out, share=1 / 16, rounds=2)
    np.testing.assert_array_equal(gfloat.round_ndarray(format_info_ocp_e4m3, part[:1000]), quantize(part[:1000], "e4m3fn"))
