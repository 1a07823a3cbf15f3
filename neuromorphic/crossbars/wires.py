"""What the resistance of its wires makes of a crossbar.

::

    driver ──R_d──r──(0,0)──r──(0,1)── …      rows, driven from the left
                       │ g        │ g
                     (0,0)      (0,1)
                       c          c           columns, sensed at the foot, at ground
                       …          …
                       R_s        R_s

A cell of conductance g joins the node of its row to the node of its column; r and c are segments of wire, one before each row
node and one behind each column node. The network is linear: all that matters to its user is the *effective* conductance of each
cell, the current of its column when its row alone is driven by one volt. The currents of any input are sums of those.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hwsim.views.display import displayed
from neuromorphic._checks import number, whole
from numerics.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


@displayed
@dataclass(frozen=True)
class IdealWires:
    """No resistance but the cells'."""

    def effective(self, conductance_siemens: Floats) -> Floats:
        """The conductances themselves."""
        return conductance_siemens


@displayed
@dataclass(frozen=True)
class Wires:
    """Wires with resistance.

    Attributes:
        row_ohm, column_ohm: of a segment between two cells, > 0.
        driver_ohm, sense_ohm: at the head of each row and at the foot of each column.
        tolerance: of the iterative solution: residual over right-hand side.
        iterations: at most.

    Raises:
        InputError: a number out of range.
    """

    row_ohm: float
    column_ohm: float
    driver_ohm: float = 0.0
    sense_ohm: float = 0.0
    tolerance: float = 1e-10
    iterations: int = 1000

    def __post_init__(self) -> None:
        for name in ("row_ohm", "column_ohm", "tolerance"):
            number(name, getattr(self, name), above=True)
        for name in ("driver_ohm", "sense_ohm"):
            number(name, getattr(self, name))
        whole("iterations", self.iterations, 1)

    @property
    def _siemens(self) -> tuple[float, float, float, float]:
        """Of a row segment, a column segment, the way from driver to row, from column to ground."""
        return (
            1 / self.row_ohm, 1 / self.column_ohm,
            1 / (self.driver_ohm + self.row_ohm), 1 / (self.sense_ohm + self.column_ohm),
        )  # fmt: skip

    def effective(self, conductance_siemens: Floats) -> Floats:
        """Effective conductances (rows, columns), siemens, by conjugate gradients to ``tolerance``.

        Raises:
            InputError: it does not converge within ``iterations``.
        """
        from neuromorphic.crossbars import _crossbar_kernels as kernels

        g = np.ascontiguousarray(conductance_siemens, np.float64)
        found = np.empty(g.shape)
        if kernels.transfer(g, *self._siemens, self.tolerance, self.iterations, found) < 0:
            raise InputError(
                f"wires: {self.iterations} iterations do not reach the tolerance {self.tolerance:g} in an array of"
                f" {g.shape[0]} × {g.shape[1]} cells; expected less resistance, more iterations or a larger tolerance"
            )
        return found

    def effective_direct(self, conductance_siemens: Floats) -> Floats:
        """The same by sparse factorisation of the whole network (SuperLU): slower, without tolerance."""
        from scipy import sparse
        from scipy.sparse.linalg import splu

        g = np.asarray(conductance_siemens, np.float64)
        rows, columns = g.shape
        row, column, drive, sense = self._siemens
        nodes = np.arange(rows * columns).reshape(rows, columns)
        foot = nodes + nodes.size
        pairs = [
            (nodes, foot, g),
            (nodes[:, :-1], nodes[:, 1:], np.full((rows, columns - 1), row)),
            (foot[:-1], foot[1:], np.full((rows - 1, columns), column)),
        ]
        a = np.concatenate([one[0].ravel() for one in pairs])
        b = np.concatenate([one[1].ravel() for one in pairs])
        value = np.concatenate([one[2].ravel() for one in pairs])
        diagonal = np.zeros(2 * nodes.size)
        np.add.at(diagonal, np.concatenate((a, b)), np.concatenate((value, value)))
        diagonal[nodes[:, 0]] += drive
        diagonal[foot[-1]] += sense
        every = np.arange(2 * nodes.size)
        matrix = sparse.csc_array(
            (np.concatenate((diagonal, -value, -value)), (np.concatenate((every, a, b)), np.concatenate((every, b, a)))),
            shape=(every.size, every.size),
        )
        factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}, diag_pivot_thresh=0.0)
        found = np.empty(g.shape)
        for i in range(rows):
            right = np.zeros(every.size)
            right[nodes[i, 0]] = drive
            found[i] = sense * factors.solve(right)[foot[-1]]
        return found
