"""Any matrix on meshes and attenuators, against the matrix."""

import numpy as np
import pytest
from mesh_reference import haar, mesh_matrix

from numerics.errors import InputError
from photonic.layouts import layout
from photonic.mesh import Mesh
from photonic.svd_engine import SvdEngine, SvdTile


def random_matrix(shape, seed, *, real):
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal(shape)
    return matrix if real else matrix + 1j * rng.standard_normal(shape)


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize(
    ("shape", "size"), [((8, 8), None), ((3, 7), None), ((7, 3), 8), ((20, 33), 8), ((1, 1), None), ((5, 64), 16)]
)
def test_equals_the_matrix(shape, size, real):
    matrix = random_matrix(shape, 1, real=real)
    engine = SvdEngine.program(matrix, size=size)
    scale = np.linalg.norm(matrix, 2)
    np.testing.assert_allclose(engine.matrix(), matrix, atol=1e-13 * scale)
    vectors = random_matrix((shape[1], 40), 2, real=False)
    np.testing.assert_allclose(engine.apply(vectors), matrix @ vectors, atol=1e-13 * scale * np.linalg.norm(vectors, 2))
    assert engine.apply(vectors[:, 0]).shape == (shape[0],)
    single = engine.apply(vectors.astype(np.complex64))
    assert single.dtype == np.complex64
    np.testing.assert_allclose(single, matrix @ vectors, atol=1e-5 * scale * np.linalg.norm(vectors, 2))


def test_parts_by_hand():
    """gain · U · diag(a) · V†, with full matrices of the meshes; amplitudes in [0, 1], the largest 1."""
    matrix = random_matrix((6, 6), 3, real=False)
    engine = SvdEngine.program(matrix)
    tile = engine.tiles[0][0]
    by_hand = engine.gain * mesh_matrix(tile.left) @ np.diag(tile.attenuation) @ mesh_matrix(tile.right)
    np.testing.assert_allclose(by_hand, matrix, atol=1e-13)
    assert tile.attenuation.max() == 1
    assert tile.attenuation.min() >= 0
    np.testing.assert_allclose(engine.gain, np.linalg.norm(matrix, 2), rtol=1e-14)


def test_number_of_mzis():
    """56 for eight ports: two meshes of 28; a tile each where the matrix does not fit."""
    assert SvdEngine.program(haar(8, 1)).mzis == 56
    engine = SvdEngine.program(np.ones((9, 17)), size=8)
    assert [len(row) for row in engine.tiles] == [3, 3]
    assert (engine.mzis, engine.attenuators) == (6 * 56, 6 * 8)


@pytest.mark.parametrize("mesh", ["rectangular", "triangular", "diamond"])
def test_every_universal_mesh(mesh):
    matrix = random_matrix((9, 11), 4, real=False)
    np.testing.assert_allclose(SvdEngine.program(matrix, size=6, mesh=mesh).matrix(), matrix, atol=1e-12)


def test_matrices_without_full_rank():
    for matrix in (
        np.zeros((3, 4)),
        np.ones((4, 4)),
        np.diag([1.0, 0.0, -2.0]),
        np.eye(5)[:, :2],
        1e-200 * np.eye(3),
        1e200 * np.ones((2, 2)),
    ):
        engine = SvdEngine.program(matrix, size=3)
        np.testing.assert_allclose(engine.matrix(), matrix, atol=1e-14 * max(np.abs(matrix).max(), 0))


def test_one_gain_for_all_tiles():
    """The strongest tile alone uses its attenuators to the full."""
    matrix = np.diag([4.0, 2.0, 1.0, 0.5])
    engine = SvdEngine.program(matrix, size=2)
    assert engine.gain == 4
    assert [tile.attenuation.max() for row in engine.tiles for tile in row] == [1, 0, 0, 0.25]


def test_meshes_can_be_replaced():
    matrix = random_matrix((4, 4), 5, real=False)
    engine = SvdEngine.program(matrix, size=2)
    seen = []

    def swap(mesh, number):
        seen.append(number)
        return Mesh(mesh.layout, mesh.theta, mesh.phi, mesh.output_phase + np.pi)

    np.testing.assert_allclose(engine.with_meshes(swap).matrix(), matrix, atol=1e-13)
    assert seen == list(range(8))

    def turn_left_ones(mesh, number):
        return swap(mesh, number) if number % 2 else mesh

    np.testing.assert_allclose(engine.with_meshes(turn_left_ones).matrix(), -matrix, atol=1e-13)


def tile(attenuation, ports=2):
    mesh = Mesh.random(layout("rectangular", ports), seed=1)
    return SvdTile(mesh, np.array(attenuation), mesh)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: SvdEngine.program(np.ones(3)),
            r"matrix: expected numbers of shape \(rows, columns\), got float64 of shape \(3,\)",
        ),
        (
            lambda: SvdEngine.program(np.ones((0, 3))),
            r"matrix: expected numbers of shape \(rows, columns\), got float64 of shape \(0, 3\)",
        ),
        (lambda: SvdEngine.program([[np.inf]]), "matrix: expected finite numbers, got inf"),
        (lambda: SvdEngine.program(np.eye(2), size=0), "size: expected an integer from 1 to 65536, got 0"),
        (lambda: SvdEngine.program(np.eye(2), mesh="butterfly"), "mesh: expected rectangular, triangular or diamond"),
        (lambda: SvdEngine.program(np.eye(2), mesh="square"), "mesh: unknown name 'square'"),
        (lambda: SvdEngine.program(np.eye(2)).apply(np.ones(3)), r"vectors: expected shape \(2,\) or \(2, batch\), got \(3,\)"),
        (lambda: tile([0.5, 1.5]), "attenuation: expected amplitudes 0 to 1, got 0.5 to 1.5"),
        (lambda: tile([0.5, 0.5, 0.5]), r"tile: meshes of 2 and 2 signals, attenuators of shape \(3,\)"),
    ],
)
def test_errors(call, message):
    with pytest.raises(InputError, match=message):
        call()
