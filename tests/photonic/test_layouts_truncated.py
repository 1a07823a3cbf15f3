"""Meshes cut off after some of their columns."""

import numpy as np
import pytest
from mesh_reference import mesh_matrix

from numerics.errors import InputError
from photonic.layouts import MeshLayout, layout
from photonic.mesh import Mesh

KINDS = ("rectangular", "triangular", "butterfly", "binary_tree", "diamond")


def test_eight_columns_of_256_modes():
    """Of a rectangle, columns of 128 and 127 MZIs in turn."""
    plan = layout("rectangular", 256).truncated(8)
    assert (plan.kind, plan.mzis, plan.depth, plan.ports) == ("truncated rectangular", 4 * 128 + 4 * 127, 8, 256)
    assert np.bincount(plan.column).tolist() == [128, 127] * 4


@pytest.mark.parametrize("kind", KINDS)
def test_front_and_back_make_the_whole(kind):
    """Light that went through the first columns goes through the others."""
    plan = layout(kind, 16)
    whole = Mesh.random(plan, seed=1)
    for columns in range(1, plan.depth + 1):
        front = plan.truncated(columns)
        there = plan.column < columns
        assert (front.depth, front.mzis, front.signal_ports) == (columns, there.sum(), plan.signal_ports)
        for name in ("upper", "lower", "column"):
            np.testing.assert_array_equal(getattr(front, name), getattr(plan, name)[there])
        first = Mesh(front, whole.theta[there], whole.phi[there], np.zeros(plan.ports))
        np.testing.assert_allclose(first.matrix(), mesh_matrix(first), atol=1e-14)
        after = MeshLayout("back", plan.ports, plan.upper[~there], plan.lower[~there], plan.column[~there])
        last = Mesh(after, whole.theta[~there], whole.phi[~there], whole.output_phase)
        np.testing.assert_allclose(last.matrix() @ first.matrix(), whole.matrix(), atol=1e-14)
    assert plan.truncated(plan.depth) is plan


def test_light_reaches_few_ports():
    """Two more on each side in every two columns: what a truncated rectangle cannot do, and a butterfly of the same depth can."""
    matrix = Mesh.random(layout("rectangular", 64).truncated(6), seed=2).matrix()
    distance = np.abs(np.subtract.outer(np.arange(64), np.arange(64)))
    assert (np.abs(matrix)[distance > 6] == 0).all()
    assert (np.abs(matrix) > 0).sum(axis=0).max() == 12
    assert (np.abs(Mesh.random(layout("butterfly", 64), seed=2).matrix()) > 0).all()


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (0, "columns: expected ≥ 1, got 0"),
        (2.0, "columns: expected an integer, got 2.0"),
        (9, "columns: expected at most 8, which the rectangular mesh has, got 9"),
    ],
)
def test_errors(columns, says):
    with pytest.raises(InputError) as caught:
        layout("rectangular", 8).truncated(columns)
    assert str(caught.value) == says
