"""How fast a crossbar is beside a dense product of the same size: 1024 vectors, 512 × 256 weights, one thread.

Nothing is asserted as a time; ``make bench`` prints the figures, and ``extra_info`` holds each in dense products.
"""

import time

import numba
import numpy as np
import pytest

from neuromorphic.crossbars.crossbar import Adc, Crossbar, Dac
from neuromorphic.crossbars.memristor import GaussianProgramming, GaussianReading, Levels, Memristor
from neuromorphic.crossbars.wires import Wires

VECTORS, ROWS, COLUMNS = 1024, 512, 256
NOISY = Memristor(1e-6, 100e-6, programming=GaussianProgramming(2e-6), reading=GaussianReading(share=0.02))
CASES = {
    "ideal cells and converters": Crossbar(512, 512, Memristor(1e-6, 100e-6)),
    "8-bit converters": Crossbar(512, 512, Memristor(1e-6, 100e-6), Dac(8), Adc(8)),
    "8-bit converters, read noise": Crossbar(512, 512, NOISY, Dac(8), Adc(8)),
    "8 one-bit pulses, 2 slices of 4 bits": Crossbar(
        512, 1024, Memristor(1e-6, 100e-6, levels=Levels(16)), Dac(8, pulse_bits=1), Adc(16), slices=2
    ),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


def fastest(call, rounds=7):
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.benchmark(group="crossbar")
@pytest.mark.parametrize("name", CASES)
def test_apply(benchmark, name):
    rng = np.random.default_rng(0)
    weights, x = rng.standard_normal((ROWS, COLUMNS)), rng.standard_normal((VECTORS, ROWS))
    crossbar = CASES[name].calibrated(weights, x[:64])
    matrix = crossbar.program(weights, seed=0)
    matrix.apply(x[:2], seed=0)
    dense = fastest(lambda: x @ weights)
    found = benchmark.pedantic(lambda: matrix.apply(x, seed=0), rounds=5, warmup_rounds=1)
    ratio = benchmark.stats.stats.min / dense
    benchmark.extra_info["of_dense_product"] = round(ratio, 2)
    print(f"\n{name}: {ratio:.1f} dense products of {dense * 1e3:.2f} ms")
    assert np.corrcoef(found.ravel(), (x @ weights).ravel())[0, 1] > 0.95


@pytest.mark.benchmark(group="wires")
@pytest.mark.parametrize("size", [64, 128, 256])
def test_wires(benchmark, size):
    """The network of one array, all right-hand sides, beside its sparse factorisation."""
    g = np.random.default_rng(0).uniform(1e-6, 100e-6, (size, size))
    wires = Wires(1.0, 1.0, driver_ohm=100.0, sense_ohm=50.0)
    wires.effective(g[:8, :8])
    direct = fastest(lambda: wires.effective_direct(g), rounds=1)
    found = benchmark.pedantic(lambda: wires.effective(g), rounds=2)
    benchmark.extra_info["direct_over_this"] = round(direct / benchmark.stats.stats.min, 1)
    error = np.abs(found - wires.effective_direct(g)).max() / found.max()
    print(f"\n{size} × {size}: {benchmark.stats.stats.min * 1e3:.0f} ms, direct {direct * 1e3:.0f} ms, error {error:.1e}")
    assert error < 1e-8
