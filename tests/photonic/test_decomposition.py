"""Meshes from unitary matrices, put together again by full matrices."""

import numpy as np
import pytest
from mesh_reference import haar, mesh_matrix
from scipy.linalg import block_diag, expm

from numerics.errors import InputError
from photonic.decomposition import decompose
from photonic.layouts import layout
from photonic.mesh import Mesh

UNIVERSAL = ("rectangular", "triangular", "diamond")


def error(mesh, unitary):
    signals = mesh.layout.signal_ports
    return np.linalg.norm(mesh_matrix(mesh)[signals, signals] - unitary) / np.linalg.norm(unitary)


def fourier(n):
    """From exact multiples of the angle: a fast transform's own rounding would count as ours."""
    k = np.outer(np.arange(n), np.arange(n)) % n
    return np.exp(-2j * np.pi * k / n) / np.sqrt(n)


def orthogonal(n, seed):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]


def matrices(n):
    rng = np.random.default_rng(n)
    noise = rng.standard_normal((n, n)) + 1j * rng.standard_normal((n, n))
    half = n // 2
    yield "haar", haar(n, 1)
    yield "identity", np.eye(n)
    yield "minus identity", -np.eye(n)
    yield "phases", np.diag(np.exp(1j * rng.uniform(0, 7, n)))
    yield "permutation", np.eye(n)[rng.permutation(n)]
    yield "reversal", np.eye(n)[::-1]
    yield "cyclic shift", np.roll(np.eye(n), 1, axis=0)
    yield "blocks", block_diag(haar(half, 2), haar(n - half, 3)) if half else haar(n, 3)
    yield "blocks off the diagonal", np.roll(block_diag(haar(half, 2), haar(n - half, 3)), half, axis=0) if half else haar(n, 3)
    yield "real orthogonal", orthogonal(n, 4)
    yield "Fourier", fourier(n)
    yield "nearly diagonal", expm(1e-9 * (noise - noise.conj().T))
    yield "very nearly diagonal", expm(1e-160 * (noise - noise.conj().T))
    yield "two ports in a thousand", block_diag(np.eye(n - n // 3), haar(n // 3, 5)) if n >= 3 else haar(n, 5)


@pytest.mark.parametrize("kind", UNIVERSAL)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 17, 64])
def test_every_unitary_matrix(kind, n):
    for name, unitary in matrices(n):
        mesh = decompose(unitary, kind)
        assert error(mesh, unitary) <= 1e-14, name
        for phases in mesh.phases.values():
            assert ((phases >= 0) & (phases < 2 * np.pi)).all(), name


def test_eight_ports():
    """28 MZIs, error below 1e-14."""
    for seed in range(20):
        unitary = haar(8, seed)
        mesh = decompose(unitary)
        assert mesh.layout.mzis == 28
        assert error(mesh, unitary) < 1e-14
        assert np.abs(mesh.matrix() - unitary).max() < 1e-14


@pytest.mark.parametrize("kind", ["rectangular", "triangular"])
def test_large(kind):
    """More rows than what is brought up to date at once."""
    for n in (65, 150, 256):
        unitary = haar(n, n)
        mesh = decompose(unitary, kind)
        assert error(mesh, unitary) <= 3e-14
        assert np.linalg.norm(mesh.matrix() - unitary) / np.sqrt(n) <= 3e-14


@pytest.mark.exhaustive
def test_512_ports():
    unitary = haar(512, 1)
    for kind in ("rectangular", "triangular"):
        assert error(decompose(unitary, kind), unitary) <= 1e-13


def test_no_light_crosses_an_identity():
    """Zeros that are there stay: every MZI in its bar state, no phase on its arm."""
    for kind in ("rectangular", "triangular"):
        mesh = decompose(np.eye(9), kind)
        assert (mesh.theta == np.pi).all()


def test_rotations_of_a_known_mesh_come_back():
    """Angles θ in (0, π) of a rectangular mesh, where no phase is free, are found again."""
    plan = layout("rectangular", 7)
    rng = np.random.default_rng(3)
    mesh = Mesh(plan, rng.uniform(0.3, 2.8, plan.mzis), rng.uniform(0, 6, plan.mzis), rng.uniform(0, 6, 7))
    found = decompose(mesh_matrix(mesh))
    for name, phases in mesh.phases.items():
        np.testing.assert_allclose(found.phases[name], phases, atol=1e-12)


@pytest.mark.parametrize("kind", ["butterfly", "binary_tree"])
@pytest.mark.parametrize("n", [1, 2, 4, 16, 64])
def test_what_small_meshes_compute(kind, n):
    mesh = Mesh.random(layout(kind, n), seed=n)
    for unitary in (mesh_matrix(mesh), np.eye(n), np.diag(np.exp(1j * np.arange(n)))):
        assert error(decompose(unitary, kind), unitary) < 3e-15


def test_trees_of_any_size():
    for n in (3, 5, 6, 7, 11):
        unitary = mesh_matrix(Mesh.random(layout("binary_tree", n), seed=n))
        assert error(decompose(unitary, "binary_tree"), unitary) < 3e-15


def test_fast_fourier_transform_on_a_butterfly():
    """Columns join bits from the lowest up, so the inputs come in bit-reversed order (J. W. Cooley and J. W. Tukey, 1965)."""
    order = [int(f"{i:05b}"[::-1], 2) for i in range(32)]
    mesh = decompose(fourier(32)[:, order], "butterfly")
    assert error(mesh, fourier(32)[:, order]) < 1e-14
    assert mesh.layout.mzis == 80
    np.testing.assert_allclose(mesh.theta, np.pi / 2, atol=1e-14)
    with pytest.raises(InputError, match="expected one that a butterfly mesh computes"):
        decompose(fourier(32), "butterfly")


def test_not_unitary_says_how_far_off():
    unitary = haar(6, 1)
    far = np.linalg.norm((1.1 * unitary).conj().T @ (1.1 * unitary) - np.eye(6)) / np.sqrt(6)
    with pytest.raises(InputError, match=rf"unitary: expected a unitary matrix, got ‖U†U − 1‖/√N = {far:.3g}, above"):
        decompose(1.1 * unitary)
    almost = unitary + 1e-6 * haar(6, 2)
    with pytest.raises(InputError, match="above tolerance 1e-08"):
        decompose(almost)
    mesh = decompose(almost, tolerance=1e-5)
    assert 1e-7 < error(mesh, almost) < 2e-6
    assert error(decompose(unitary.astype(np.complex64), tolerance=1e-6), unitary) < 1e-6


@pytest.mark.parametrize("kind", ["butterfly", "binary_tree"])
def test_what_small_meshes_cannot_compute(kind):
    with pytest.raises(InputError, match=rf"unitary: expected one that a {kind} mesh computes, nearest found is [01]\.\d+ off"):
        decompose(haar(8, 1), kind)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: decompose(np.ones((2, 3))), r"unitary: expected a square matrix of numbers, got float64 of shape \(2, 3\)"),
        (lambda: decompose(np.ones(3)), r"unitary: expected a square matrix of numbers, got float64 of shape \(3,\)"),
        (lambda: decompose(np.zeros((0, 0))), r"unitary: expected a square matrix of numbers, got float64 of shape \(0, 0\)"),
        (lambda: decompose([["a"]]), "unitary: expected numbers, got <U1"),
        (lambda: decompose(np.full((2, 2), np.nan)), "unitary: expected finite numbers, got nan"),
        (lambda: decompose(np.zeros((2, 2))), "‖U†U − 1‖/√N = 1,"),
        (lambda: decompose(1e300 * np.eye(2)), r"unitary: expected a unitary matrix, got numbers of up to 1e\+300"),
        (lambda: decompose(np.eye(2), "clements"), "mesh: unknown name 'clements'"),
        (lambda: decompose(np.eye(3), "butterfly"), "ports: a butterfly has a power of two, got 3"),
        (lambda: decompose(np.eye(2), tolerance=-1.0), "tolerance: expected a finite number ≥ 0, got -1.0"),
    ],
)
def test_errors(call, message):
    with pytest.raises(InputError, match=message):
        call()
