"""How fast photonic meshes are, in CPU time of one core, beside LAPACK and dense products. Nothing is asserted as a time.

Aims: a decomposition of 64 ports in 1 ms, of 512 ports in six times LAPACK's zgeqrf of the same matrix; 256 vectors through 256
ports in eight (better four) times a dense complex product; gradient and forward together in four times the forward alone.
"""

from time import process_time

import numba
import numpy as np
import pytest
import torch
from scipy.linalg import lapack
from threadpoolctl import threadpool_limits

from photonic.decomposition import decompose
from photonic.gradient import apply_cells, apply_mesh
from photonic.layouts import layout
from photonic.mesh import Mesh, propagate

PORTS, BATCH = 256, 256


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = numba.get_num_threads(), torch.get_num_threads()
    numba.set_num_threads(1)
    torch.set_num_threads(1)
    # BLAS and LAPACK too: process time adds up all threads, so that with more of them what is beside looks slower than it is.
    with threadpool_limits(1):
        yield
    numba.set_num_threads(before[0])
    torch.set_num_threads(before[1])


def least(call, rounds=15):
    call()
    times = []
    for _ in range(rounds):
        start = process_time()
        call()
        times.append(process_time() - start)
    return min(times)


def measure(benchmark, call, beside, name, rounds=15):
    """Run ``call`` and note its time over that of ``beside``, measured before it."""
    other = least(beside)
    benchmark.pedantic(call, rounds=rounds, warmup_rounds=1)
    mine = benchmark.stats.stats.min
    benchmark.extra_info[f"of_{name}"] = round(mine / other, 2)
    print(f"\n{benchmark.name}: {mine * 1e3:.2f} ms, {mine / other:.2f} times {name} ({other * 1e3:.2f} ms)")


def unitary(n, seed=1):
    rng = np.random.default_rng(seed)
    return np.linalg.qr(rng.standard_normal((n, n)) + 1j * rng.standard_normal((n, n)))[0]


def vectors(dtype):
    rng = np.random.default_rng(2)
    return (rng.standard_normal((PORTS, BATCH)) + 1j * rng.standard_normal((PORTS, BATCH))).astype(dtype)


@pytest.mark.benchmark(group="decomposition", timer=process_time)
@pytest.mark.parametrize("n", [64, 128, 512])
@pytest.mark.parametrize("kind", ["rectangular", "triangular"])
def test_decompose(benchmark, kind, n):
    given = unitary(n)
    columns = np.asfortranarray(given)
    measure(benchmark, lambda: decompose(given, kind), lambda: lapack.zgeqrf(columns, lwork=64 * n), "zgeqrf", rounds=7)
    # Here by the mesh's own loops; the tests compare with full matrices.
    off = np.linalg.norm(decompose(given, kind).matrix() - given) / np.sqrt(n)
    print(f"relative error {off:.1e}")
    assert off < 1e-13


@pytest.mark.benchmark(group="256 vectors through 256 ports", timer=process_time)
@pytest.mark.parametrize("dtype", [np.complex128, np.complex64])
def test_apply(benchmark, dtype):
    mesh, given = Mesh.random(layout("rectangular", PORTS), seed=1), vectors(dtype)
    dense = mesh.matrix().astype(dtype)
    measure(benchmark, lambda: mesh.apply(given), lambda: dense @ given, "matmul")


@pytest.mark.benchmark(group="256 vectors through 256 ports", timer=process_time)
@pytest.mark.parametrize("dtype", [np.complex128, np.complex64])
def test_propagate_any_cells(benchmark, dtype):
    mesh, given = Mesh.random(layout("rectangular", PORTS), seed=1), vectors(dtype)
    dense, cells, output = mesh.matrix().astype(dtype), mesh.cells(), np.exp(1j * mesh.output_phase)
    measure(benchmark, lambda: propagate(mesh.layout, cells, output, given), lambda: dense @ given, "matmul")


@pytest.mark.benchmark(group="forward and gradient", timer=process_time)
@pytest.mark.parametrize("dtype", [np.complex128, np.complex64])
@pytest.mark.parametrize("way", ["phases", "unitary cells", "any cells"])
def test_gradient(benchmark, way, dtype):
    """New phases every time, as in training; beside the forward with the same new phases."""
    mesh = Mesh.random(layout("rectangular", PORTS), seed=1)
    given, weight = torch.from_numpy(vectors(dtype)).requires_grad_(), torch.from_numpy(vectors(dtype))
    if way == "phases":
        numbers = [torch.tensor(phases).requires_grad_() for phases in mesh.phases.values()]
    else:
        ends = np.exp(1j * mesh.output_phase)
        numbers = [torch.from_numpy(mesh.cells()).requires_grad_(), torch.from_numpy(ends).requires_grad_()]

    def forward():
        if way == "phases":
            return apply_mesh(mesh.layout, *numbers, given)
        return apply_cells(mesh.layout, *numbers, given, unitary=way == "unitary cells")

    def both():
        return torch.autograd.grad(forward(), [*numbers, given], weight)

    with torch.no_grad():
        alone = least(forward)
    benchmark.pedantic(both, rounds=15, warmup_rounds=1)
    total = benchmark.stats.stats.min
    benchmark.extra_info["of_forward"] = round(total / alone, 2)
    print(f"\n{benchmark.name}: {total * 1e3:.2f} ms, {total / alone:.2f} times the forward ({alone * 1e3:.2f} ms)")
