"""Layouts, the convention of ports and phases, and light through meshes, against full matrices."""

from math import ceil, log2

import numpy as np
import pytest
from mesh_reference import mesh_matrix, mzi, through_cells

from numerics import _parallel
from numerics.errors import InputError
from photonic.layouts import MeshLayout, layout
from photonic.mesh import Mesh, propagate
from photonic.propagation import UnitaryChain, mzi_cells

KINDS = ("rectangular", "triangular", "butterfly", "binary_tree", "diamond")


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 13, 16, 64])
def test_number_of_mzis_and_depth(n):
    full = n * (n - 1) // 2
    assert (layout("rectangular", n).mzis, layout("rectangular", n).depth) == (full, n if n > 2 else n - 1)
    assert (layout("triangular", n).mzis, layout("triangular", n).depth) == (full, max(2 * n - 3, 0))
    assert (layout("diamond", n).mzis, layout("diamond", n).depth) == ((n - 1) ** 2, max(2 * n - 3, 0))
    assert layout("diamond", n).ports == max(2 * n - 2, 1)
    assert (layout("binary_tree", n).mzis, layout("binary_tree", n).depth) == (n - 1, ceil(log2(n)))
    if n & (n - 1) == 0:
        assert (layout("butterfly", n).mzis, layout("butterfly", n).depth) == (n // 2 * int(log2(n)), int(log2(n)))
    assert layout("rectangular", 8).mzis == 28


def test_layouts_drawn_by_hand():
    def places(kind, n):
        plan = layout(kind, n)
        return list(zip(plan.column.tolist(), plan.upper.tolist(), plan.lower.tolist(), strict=True))

    assert places("rectangular", 4) == [(0, 0, 1), (0, 2, 3), (1, 1, 2), (2, 0, 1), (2, 2, 3), (3, 1, 2)]
    assert places("triangular", 4) == [(0, 0, 1), (1, 1, 2), (2, 0, 1), (2, 2, 3), (3, 1, 2), (4, 0, 1)]
    assert places("butterfly", 4) == [(0, 0, 1), (0, 2, 3), (1, 0, 2), (1, 1, 3)]
    assert places("binary_tree", 5) == [(0, 0, 1), (0, 2, 3), (1, 0, 2), (2, 0, 4)]
    assert places("diamond", 3) == [(0, 1, 2), (1, 0, 1), (1, 2, 3), (2, 1, 2)]


@pytest.mark.parametrize("kind", KINDS)
def test_orders_of_execution_keep_what_feeds_what(kind):
    plan = layout(kind, 64)
    for order in (plan.execution_order(), plan.execution_order(5)):
        assert sorted(order.tolist()) == list(range(plan.mzis))
        reached = np.full(plan.ports, -1)
        for e in order:
            ports = [plan.upper[e], plan.lower[e]]
            assert (reached[ports] < plan.column[e]).all()
            reached[ports] = plan.column[e]


def test_bar_and_cross_states():
    """At θ = 0 all light crosses, at θ = π none does; φ is on the upper arm, before the MZI."""
    plan = layout("rectangular", 2)
    cross, bar = Mesh(plan, [0.0], [0.3], [0.0, 0.0]), Mesh(plan, [np.pi], [0.3], [0.0, 0.0])
    np.testing.assert_allclose(cross.matrix(), [[0, 1j], [1j * np.exp(0.3j), 0]], atol=1e-15)
    np.testing.assert_allclose(bar.matrix(), [[-np.exp(0.3j), 0], [0, 1]], atol=1e-15)
    later = bar.with_phases(output_phase=[0.5, 0.7]).matrix()
    np.testing.assert_allclose(later, np.diag([-np.exp(0.8j), np.exp(0.7j)]), atol=1e-15)


def test_mzi_equals_splitters_and_phases():
    rng = np.random.default_rng(1)
    theta, phi = rng.uniform(-20, 20, (2, 50))
    plain = np.array([mzi(t, p) for t, p in zip(theta, phi, strict=True)])
    np.testing.assert_allclose(mzi_cells(theta, phi), plain, atol=1e-14)


def test_light_goes_from_left_to_right():
    """Column 0 acts first."""
    plan = layout("triangular", 3)
    mesh = Mesh.random(plan, seed=2)
    steps = []
    for e in range(3):
        step = np.eye(3, dtype=complex)
        step[plan.upper[e] : plan.lower[e] + 1, plan.upper[e] : plan.lower[e] + 1] = mzi(mesh.theta[e], mesh.phi[e])
        steps.append(step)
    expected = np.diag(np.exp(1j * mesh.output_phase)) @ steps[2] @ steps[1] @ steps[0]
    np.testing.assert_allclose(mesh.matrix(), expected, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 4, 8, 32])
def test_matrix_equals_full_matrices(kind, n):
    plan = layout(kind, n)
    rng = np.random.default_rng(n)
    mesh = Mesh(plan, rng.uniform(-30, 30, plan.mzis), rng.uniform(-30, 30, plan.mzis), rng.uniform(-30, 30, plan.ports))
    matrix = mesh.matrix()
    np.testing.assert_allclose(matrix, mesh_matrix(mesh), atol=2e-14)
    assert np.abs(matrix.conj().T @ matrix - np.eye(plan.ports)).max() < 1e-13


@pytest.mark.parametrize("theta", [0.0, np.pi, -np.pi, 2 * np.pi, 3 * np.pi, -7.0])
def test_angles_at_quarter_turns(theta):
    """Where signs are taken out of a rotation."""
    plan = layout("rectangular", 6)
    for phi in (0.0, np.pi / 2, np.pi, -np.pi / 2, 1e-17, np.pi + 1e-15):
        mesh = Mesh(plan, np.full(plan.mzis, theta), np.full(plan.mzis, phi), np.zeros(6))
        np.testing.assert_allclose(mesh.matrix(), mesh_matrix(mesh), atol=1e-14)


def test_apply_equals_matrix():
    mesh = Mesh.random(layout("rectangular", 48), seed=3)
    matrix = mesh_matrix(mesh)
    rng = np.random.default_rng(4)
    for batch in (1, 31, 32, 33, 63, 64, 65, 100):
        vectors = rng.standard_normal((48, batch)) + 1j * rng.standard_normal((48, batch))
        np.testing.assert_allclose(mesh.apply(vectors), matrix @ vectors, atol=1e-13)
        single = mesh.apply(vectors.astype(np.complex64))
        assert single.dtype == np.complex64
        np.testing.assert_allclose(single, matrix @ vectors, atol=1e-5)
    one = rng.standard_normal(48)
    assert mesh.apply(one).shape == (48,)
    np.testing.assert_allclose(mesh.apply(one), matrix @ one, atol=1e-13)
    np.testing.assert_allclose(mesh.apply(np.arange(48)), matrix @ np.arange(48), atol=1e-11)
    assert mesh.apply(np.zeros((48, 0))).shape == (48, 0)


def test_energy_is_conserved():
    for dtype, tolerance in ((np.complex128, 1e-13), (np.complex64, 1e-5)):
        mesh = Mesh.random(layout("rectangular", 256), seed=5)
        rng = np.random.default_rng(6)
        vectors = (rng.standard_normal((256, 8)) + 1j * rng.standard_normal((256, 8))).astype(dtype)
        before, after = (np.sum(np.abs(v.astype(complex)) ** 2, axis=0) for v in (vectors, mesh.apply(vectors)))
        np.testing.assert_allclose(after, before, rtol=tolerance)


def test_bits_depend_on_no_other_vector_and_on_no_thread(monkeypatch):
    mesh = Mesh.random(layout("rectangular", 64), seed=7)
    rng = np.random.default_rng(8)
    vectors = rng.standard_normal((64, 1000)) + 1j * rng.standard_normal((64, 1000))
    cells, output = mesh.cells() * 0.99, np.exp(1j * mesh.output_phase)
    whole, lossy = mesh.apply(vectors), propagate(mesh.layout, cells, output, vectors)
    for k in (0, 37, 999):
        np.testing.assert_array_equal(mesh.apply(vectors[:, k]), whole[:, k])
        np.testing.assert_array_equal(propagate(mesh.layout, cells, output, vectors[:, k]), lossy[:, k])
    for threads in (2, 3, 7):
        monkeypatch.setattr(_parallel, "thread_count", lambda threads=threads: threads)
        np.testing.assert_array_equal(mesh.apply(vectors), whole)
        np.testing.assert_array_equal(propagate(mesh.layout, cells, output, vectors), lossy)


@pytest.mark.parametrize("kind", KINDS)
def test_any_cells(kind):
    plan = layout(kind, 16)
    rng = np.random.default_rng(9)
    cells = 0.6 * (rng.standard_normal((plan.mzis, 2, 2)) + 1j * rng.standard_normal((plan.mzis, 2, 2)))
    output = rng.standard_normal(plan.ports) + 1j * rng.standard_normal(plan.ports)
    vectors = rng.standard_normal((plan.ports, 40))
    expected = through_cells(plan, cells, output) @ vectors
    np.testing.assert_allclose(propagate(plan, cells, output, vectors), expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())


def test_unitary_cells_as_a_chain_of_shears():
    plan = layout("rectangular", 20)
    rng = np.random.default_rng(10)
    cells = np.linalg.qr(rng.standard_normal((plan.mzis, 2, 2)) + 1j * rng.standard_normal((plan.mzis, 2, 2)))[0]
    cells[3], cells[4], cells[5] = np.eye(2), [[0, 1], [1, 0]], [[0, -1j], [1, 0]]
    cells[6] = [[1e-200, 1], [-1, 1e-200]]
    ones = np.ones(20, complex)
    found = UnitaryChain.of_cells(plan, cells).forward(np.eye(20, dtype=complex), ones)
    np.testing.assert_allclose(found, through_cells(plan, cells, ones), atol=1e-14)


def test_a_mesh_keeps_its_own_phases():
    theta = np.zeros(1)
    mesh = Mesh(layout("rectangular", 2), theta, [0.0], [0.0, 0.0])
    theta[0] = 1.0
    assert mesh.theta[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        mesh.theta[0] = 1.0
    changed = mesh.with_phases(phi=[0.25])
    assert changed.phases["phi"] == [0.25]
    assert mesh.phi == [0.0]
    assert (
        Mesh.random(layout("rectangular", 4), seed=1).theta.tolist()
        == Mesh.random(layout("rectangular", 4), seed=1).theta.tolist()
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: layout("rectangle", 4), "mesh: unknown name 'rectangle'; did you mean 'rectangular'"),
        (lambda: layout("butterfly", 6), "ports: a butterfly has a power of two, got 6"),
        (lambda: layout("rectangular", 0), "ports: expected an integer from 1 to 65536, got 0"),
        (lambda: layout("rectangular", True), "ports: expected an integer from 1 to 65536, got True"),
        (lambda: MeshLayout("own", 3, [0], [0], [0]), "layout: expected 0 ≤ upper < lower < 3 for every MZI"),
        (lambda: MeshLayout("own", 3, [0, 1], [1, 2], [0, 0]), "layout: two MZIs of one column share a port"),
        (lambda: MeshLayout("own", 3, [0, 1], [1, 2], [1, 0]), "column: expected numbers ≥ 0 that never fall"),
        (lambda: MeshLayout("own", 3, [0], [1, 2], [0]), "layout: 1 upper ports, 2 lower ports, 1 columns"),
        (lambda: MeshLayout("own", 3, [0.0], [1], [0]), r"upper: expected integers, one an MZI, got float64 of shape \(1,\)"),
        (lambda: Mesh(layout("rectangular", 2), [], [0], [0, 0]), r"theta: expected shape \(1,\), got \(0,\)"),
        (lambda: Mesh(layout("rectangular", 2), [np.nan], [0], [0, 0]), "theta: expected finite numbers, got nan"),
        (
            lambda: Mesh.random(layout("rectangular", 2), seed=1).with_phases(psi=[0]),
            "phases: expected theta, phi, output_phase, got 'psi'",
        ),
        (
            lambda: Mesh.random(layout("rectangular", 2), seed=1).apply(np.ones(3)),
            r"vectors: expected shape \(2,\) or \(2, batch\), got \(3,\)",
        ),
        (
            lambda: Mesh.random(layout("rectangular", 2), seed=1).apply(["a", "b"]),
            "vectors: expected numbers, got <U1",
        ),
        (
            lambda: propagate(layout("rectangular", 2), np.eye(2), [1, 1], [1, 1]),
            r"cells: expected shape \(1, 2, 2\), got \(2, 2\)",
        ),
        (lambda: propagate(layout("rectangular", 2), [np.eye(2)], [1], [1, 1]), r"output: expected shape \(2,\), got \(1,\)"),
    ],
)
def test_errors(call, message):
    with pytest.raises(InputError, match=message):
        call()
