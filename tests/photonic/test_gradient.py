"""Gradients through meshes, against finite differences and against torch's own through a chain of full 2×2 products."""

import numpy as np
import pytest
import torch
from mesh_reference import mesh_matrix

from numerics import _parallel
from numerics.errors import InputError
from photonic.gradient import apply_cells, apply_mesh
from photonic.layouts import layout
from photonic.mesh import Mesh
from photonic.propagation import CellChain

KINDS = ("rectangular", "triangular", "butterfly", "binary_tree", "diamond")


def cells_of(theta, phi, first=0.0, second=0.0):
    """MZIs whose splitters couple by π/4 + first, π/4 + second, as torch differentiates it."""

    def splitter(extra):
        angle = np.pi / 4 + extra
        c, s = torch.cos(angle * torch.ones_like(theta)) + 0j, 1j * torch.sin(angle * torch.ones_like(theta))
        return torch.stack([torch.stack([c, s], -1), torch.stack([s, c], -1)], -2)

    def phase(angle):
        return torch.diag_embed(torch.stack([torch.exp(1j * angle), torch.ones_like(angle) + 0j], -1))

    return splitter(second) @ phase(theta) @ splitter(first) @ phase(phi)


def chain(plan, cells, output, vectors):
    rows = list(vectors)
    for cell, upper, lower in zip(cells, plan.upper, plan.lower, strict=True):
        a, b = rows[upper], rows[lower]
        rows[upper], rows[lower] = cell[0, 0] * a + cell[0, 1] * b, cell[1, 0] * a + cell[1, 1] * b
    return output[:, None] * torch.stack(rows)


def loss(out, seed=5):
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.complex128)
    return (weight * out).real.sum() + (out.abs() ** 4).mean()


def numbers(plan, batch, seed=1, dtype=torch.complex128):
    generator = torch.Generator().manual_seed(seed)
    theta, phi = torch.rand(2, plan.mzis, generator=generator, dtype=torch.float64) * 14 - 7
    output = torch.rand(plan.ports, generator=generator, dtype=torch.float64) * 6
    return theta, phi, output, torch.randn(plan.ports, batch, generator=generator, dtype=dtype)


def leaves(*tensors):
    return [tensor.clone().requires_grad_() for tensor in tensors]


def assert_same_gradients(found, expected, tolerance):
    for a, b in zip(found, expected, strict=True):
        assert (a.grad - b.grad).abs().max() <= tolerance * (b.grad.abs().max() if b.numel() else 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "batch"), [(1, 3), (2, 1), (4, 33), (8, 70)])
def test_against_torch_through_a_chain(kind, n, batch):
    plan = layout(kind, n)
    given = numbers(plan, batch)
    expected = leaves(*given)
    loss(chain(plan, cells_of(*expected[:2]), torch.exp(1j * expected[2]), expected[3])).backward()
    mine = leaves(*given)
    loss(apply_mesh(plan, *mine)).backward()
    used = slice(None) if plan.mzis else slice(2, None)
    assert_same_gradients(mine[used], expected[used], 1e-12)
    for unitary in (True, False):
        through = leaves(*given)
        loss(apply_cells(plan, cells_of(*through[:2]), torch.exp(1j * through[2]), through[3], unitary=unitary)).backward()
        assert_same_gradients(through[used], expected[used], 1e-12)


@pytest.mark.parametrize("unitary", [True, False])
def test_splitters_that_are_not_equal(unitary):
    plan = layout("rectangular", 8)
    theta, phi, output, vectors = numbers(plan, 9)
    errors = 0.1 * torch.randn(2, plan.mzis, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    given = (theta, phi, *errors, output, vectors)
    mine, expected = leaves(*given), leaves(*given)
    loss(apply_cells(plan, cells_of(*mine[:4]), torch.exp(1j * mine[4]), mine[5], unitary=unitary)).backward()
    loss(chain(plan, cells_of(*expected[:4]), torch.exp(1j * expected[4]), expected[5])).backward()
    assert_same_gradients(mine, expected, 1e-12)


def test_any_cells_and_factors():
    plan = layout("triangular", 9)
    generator = torch.Generator().manual_seed(3)
    cells = 0.7 * torch.randn(plan.mzis, 2, 2, generator=generator, dtype=torch.complex128)
    output = torch.randn(9, generator=generator, dtype=torch.complex128)
    vectors = torch.randn(9, 40, generator=generator, dtype=torch.complex128)
    mine, expected = leaves(cells, output, vectors), leaves(cells, output, vectors)
    loss(apply_cells(plan, *mine)).backward()
    loss(chain(plan, *expected)).backward()
    assert_same_gradients(mine, expected, 1e-12)


def test_losses_that_differ_between_arms():
    """Half of the light of one arm is lost in each MZI: run backwards it would have been amplified 2^depth times."""
    plan = layout("rectangular", 30)
    theta, phi, output, vectors = numbers(plan, 5)
    arm = torch.diag(torch.tensor([0.5, 1.0], dtype=torch.complex128))
    mine, expected = leaves(theta, phi, output, vectors), leaves(theta, phi, output, vectors)
    loss(apply_cells(plan, cells_of(*mine[:2]) @ arm, torch.exp(1j * mine[2]), mine[3])).backward()
    loss(chain(plan, cells_of(*expected[:2]) @ arm, torch.exp(1j * expected[2]), expected[3])).backward()
    assert_same_gradients(mine, expected, 1e-12)


@pytest.mark.parametrize("n", [16, 64])
def test_against_finite_differences(n):
    """Fourth-order differences along one random direction of all numbers at once, and of single phases."""
    plan = layout("rectangular", n)
    given = numbers(plan, 10)
    mine = leaves(*given)
    loss(apply_mesh(plan, *mine)).backward()
    generator = torch.Generator().manual_seed(7)
    directions = [[torch.randn(t.shape, generator=generator, dtype=t.dtype) for t in given]]
    for which in range(3):
        for place in (0, given[which].numel() // 2, given[which].numel() - 1):
            one = [torch.zeros_like(t) for t in given]
            one[which][place] = 1
            directions.append(one)
    for direction in directions:
        size = 1e-3 if direction is not directions[0] else 1e-3 / n
        steps = {
            k: loss(apply_mesh(plan, *(t + k * size * d for t, d in zip(given, direction, strict=True)))) for k in (-2, -1, 1, 2)
        }
        expected = (8 * (steps[1] - steps[-1]) - (steps[2] - steps[-2])) / (12 * size)
        found = sum((m.grad.conj() * d).real.sum() for m, d in zip(mine, direction, strict=True))
        scale = max(m.grad.abs().max() for m in mine)
        assert abs(found - expected) <= 1e-6 * max(abs(expected), scale)


def test_forward_is_the_mesh_bit_for_bit():
    plan = layout("rectangular", 12)
    theta, phi, output, vectors = numbers(plan, 40)
    mesh = Mesh(plan, theta.numpy(), phi.numpy(), output.numpy())
    found = apply_mesh(plan, theta, phi, output, vectors)
    np.testing.assert_array_equal(found.numpy(), mesh.apply(vectors.numpy()))
    np.testing.assert_allclose(found.numpy(), mesh_matrix(mesh) @ vectors.numpy(), atol=1e-13)
    flat = apply_mesh(plan, theta, phi, output, vectors[:, 0])
    np.testing.assert_array_equal(flat.numpy(), found[:, 0].numpy())


def test_single_precision():
    plan = layout("rectangular", 64)
    theta, phi, output, vectors = numbers(plan, 50)
    exact, single = (
        leaves(theta, phi, output, vectors),
        leaves(theta.float(), phi.float(), output.float(), vectors.to(torch.complex64)),
    )
    loss(apply_mesh(plan, *(t.double() for t in single[:3]), single[3].to(torch.complex128))).backward()
    for tensor, value in zip(exact[:3], single, strict=False):
        tensor.data = value.detach().double()
    exact[3].data = single[3].detach().to(torch.complex128)
    reference = [t.grad.clone() for t in single]
    for t in single:
        t.grad = None
    out = apply_mesh(plan, *single)
    assert out.dtype == torch.complex64
    loss(out).backward()
    for t, expected in zip(single, reference, strict=True):
        assert t.grad.dtype == t.dtype
        assert (t.grad - expected).abs().max() <= 2e-5 * expected.abs().max()


def test_bits_do_not_depend_on_threads(monkeypatch):
    plan = layout("rectangular", 40)
    given = numbers(plan, 700)
    results = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(_parallel, "thread_count", lambda threads=threads: threads)
        mine, lossy = leaves(*given), leaves(*given)
        loss(apply_mesh(plan, *mine)).backward()
        loss(apply_cells(plan, 0.99 * cells_of(*lossy[:2]), torch.exp(1j * lossy[2]), lossy[3])).backward()
        results.append([t.grad.numpy() for t in mine + lossy])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_real_vectors_and_conjugate_views():
    plan = layout("rectangular", 6)
    theta, phi, output, vectors = numbers(plan, 4)
    real = vectors.real.clone().requires_grad_()
    whole = vectors.real.to(torch.complex128).requires_grad_()
    loss(apply_mesh(plan, theta, phi, output, real)).backward()
    loss(apply_mesh(plan, theta, phi, output, whole)).backward()
    np.testing.assert_array_equal(real.grad.numpy(), whole.grad.real.numpy())
    turned = apply_mesh(plan, theta, phi, output, vectors.conj())
    np.testing.assert_array_equal(turned.numpy(), apply_mesh(plan, theta, phi, output, vectors.conj().resolve_conj()).numpy())


def test_losses_keep_light_every_square_root_of_depth_columns():
    """In tiles of 32 vectors, beside which a backward pass needs the same again for one tile."""
    for n, checkpoints in ((16, 4), (64, 8), (100, 10)):
        plan = layout("rectangular", n)
        cells = np.broadcast_to(np.eye(2, dtype=complex), (plan.mzis, 2, 2))
        _, saved = CellChain(plan, cells).forward(np.ones((n, 64), complex), np.ones(n, complex), keep=True)
        assert saved.shape == (2, checkpoints, 2 * 32 * n)
        np.testing.assert_array_equal(saved.reshape(2, checkpoints, n, 2, 32)[:, :, :, 0], 1)


def test_no_vectors():
    plan = layout("rectangular", 4)
    theta, phi, output, _ = numbers(plan, 1)
    mine = leaves(theta, phi, output, torch.zeros(4, 0, dtype=torch.complex128))
    apply_mesh(plan, *mine).abs().sum().backward()
    assert all((t.grad == 0).all() for t in mine)


def test_memory_without_loss_grows_with_ports_times_batch_only():
    """Nothing but the output is kept between forward and backward."""
    plan = layout("rectangular", 16)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        apply_mesh(plan, *leaves(*numbers(plan, 100)))
    assert kept == [1600]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, a: apply_mesh(p, a[0][:-1], *a[1:]), r"theta: expected real numbers of shape .6,., got torch.float64 of .5,."),
        (
            lambda p, a: apply_mesh(p, *a[:2], a[2].long(), a[3]),
            r"output_phase: expected real numbers of shape \(4,\), got torch.int64",
        ),
        (lambda p, a: apply_mesh(p, *a[:3], a[3][:3]), r"vectors: expected shape \(4,\) or \(4, batch\), got \(3, 2\)"),
        (
            lambda p, a: apply_cells(p, a[0], a[2] + 0j, a[3]),
            r"cells: expected complex numbers of shape \(6, 2, 2\), got torch.float64",
        ),
        (
            lambda p, a: apply_cells(p, 2 * cells_of(*a[:2]), a[2] + 0j, a[3], unitary=True),
            r"cells: expected unitary matrices, got one with \|U†U − 1\| = 3",
        ),
        (lambda p, a: apply_cells(p, cells_of(*a[:2]), 0j * a[2], a[3], unitary=True), "output: expected factors other than 0"),
        (lambda p, a: apply_mesh(p, *a[:3], a[3].to("meta")), "vectors: expected a tensor on the CPU, got one on meta"),
    ],
)
def test_errors(call, message):
    plan = layout("rectangular", 4)
    with pytest.raises(InputError, match=message):
        call(plan, numbers(plan, 2))
