"""A programmed mesh of Mach–Zehnder interferometers.

The one convention of this package: ports are numbered from 0 at the top; light goes from left to right; a vector is a column of
complex amplitudes, and what comes out is matrix · vector. An MZI has its two phases on the upper arm, φ before the first
splitter and θ between the splitters::

    upper ──[φ]──┐     ┌──[θ]──┐     ┌── upper
                 │50:50│       │50:50│
    lower ───────┘     └───────┘     └── lower

With a splitter S = [[1, i], [i, 1]]/√2 its matrix is S·diag(e^{iθ}, 1)·S·diag(e^{iφ}, 1) =
i·e^{iθ/2}·[[e^{iφ}·sin θ/2, cos θ/2], [e^{iφ}·cos θ/2, −sin θ/2]]: all light crosses at θ = 0, none at θ = π. Each output port
has one more phase behind the last column. Phases are in radians; those that ``decomposition`` finds are in [0, 2π).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.views.display import displayed_by
from numerics._fields import check_integer
from numerics.errors import InputError
from photonic._numbers import complex_numbers, finite, is_one_of, real_numbers
from photonic.layouts import MeshLayout
from photonic.propagation import CellChain, UnitaryChain, light, mzi_cells

if TYPE_CHECKING:
    import numpy.typing as npt


@displayed_by("photonic.cards:mesh")
@dataclass(frozen=True, eq=False)
class Mesh:
    """Phases in a layout, nothing else: every splitter halves, nothing is lost.

    Attributes:
        layout: where the MZIs are.
        theta, phi: (MZIs,) radians, in the layout's order.
        output_phase: (ports,) radians.

    Raises:
        InputError: no layout; an array of another shape, a phase that is not finite.
    """

    layout: MeshLayout
    theta: npt.NDArray[np.float64]
    phi: npt.NDArray[np.float64]
    output_phase: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        is_one_of("layout", self.layout, MeshLayout)
        for name, count in (("theta", self.layout.mzis), ("phi", self.layout.mzis), ("output_phase", self.layout.ports)):
            phases = real_numbers(name, getattr(self, name))
            if phases.shape != (count,):
                raise InputError(f"{name}: expected shape ({count},), got {phases.shape}")
            finite(name, phases)
            phases.setflags(write=False)
            object.__setattr__(self, name, phases)

    @classmethod
    def random(cls, layout: MeshLayout, *, seed: int) -> Mesh:
        """All phases uniform in [0, 2π), which does not make the matrix uniform among the unitary ones.

        Raises:
            InputError: no layout; a seed that is no integer ≥ 0.
        """
        is_one_of("layout", layout, MeshLayout)
        phases = np.random.default_rng(check_integer("seed", seed, 0)).uniform(0, 2 * np.pi, 2 * layout.mzis + layout.ports)
        return cls(layout, phases[: layout.mzis], phases[layout.mzis : 2 * layout.mzis], phases[2 * layout.mzis :])

    @property
    def ports(self) -> int:
        """Waveguides."""
        return self.layout.ports

    @property
    def phases(self) -> dict[str, npt.NDArray[np.float64]]:
        """``theta``, ``phi`` and ``output_phase`` by name."""
        return {"theta": self.theta, "phi": self.phi, "output_phase": self.output_phase}

    def with_phases(self, **phases: npt.ArrayLike) -> Mesh:
        """The same mesh with some of ``phases`` replaced.

        Raises:
            InputError: a name that is not there, or what ``Mesh`` refuses.
        """
        for name in phases:
            if name not in self.phases:
                raise InputError(f"phases: expected {', '.join(self.phases)}, got {name!r}")
        changes: dict[str, Any] = dict(phases)
        return replace(self, **changes)

    def cells(self) -> npt.NDArray[np.complex128]:
        """(MZIs, 2, 2) the matrix of each MZI."""
        return mzi_cells(self.theta, self.phi)

    def apply(self, vectors: npt.ArrayLike) -> npt.NDArray[Any]:
        """Light that comes out for light that goes in, (ports,) or (ports, batch).

        It is computed in single precision for complex64, float32 and smaller, in double precision otherwise. The bits depend
        neither on the number of threads nor on the other vectors of the batch.

        Raises:
            InputError: another number of ports, numbers that are not finite.
        """
        given = light(vectors, self.ports)
        return self._chain.forward(given, self._factor).reshape(np.shape(vectors))

    def matrix(self) -> npt.NDArray[np.complex128]:
        """(ports, ports), complex128. Of a diamond, ``layout.signal_ports`` are the rows and columns that carry signals."""
        return self._chain.forward(np.eye(self.ports, dtype=np.complex128), self._factor)

    @cached_property
    def _chain(self) -> UnitaryChain:
        return UnitaryChain.of_phases(self.layout, self.theta, self.phi)

    @property
    def _factor(self) -> npt.NDArray[np.complex128]:
        return np.exp(1j * self.output_phase)


def propagate(layout: MeshLayout, cells: npt.ArrayLike, output: npt.ArrayLike, vectors: npt.ArrayLike) -> npt.NDArray[Any]:
    """Light through a mesh of any 2×2 matrices, unitary or not: what a fabricated mesh is.

    Args:
        layout: where they are.
        cells: (MZIs, 2, 2) complex.
        output: (ports,) complex factor at each output.
        vectors: (ports,) or (ports, batch), as for ``Mesh.apply``.

    Raises:
        InputError: no layout; arrays of other shapes, numbers that are not finite.
    """
    is_one_of("layout", layout, MeshLayout)
    ends = complex_numbers("output", output)
    chain = CellChain(layout, complex_numbers("cells", cells))
    if ends.shape != (layout.ports,):
        raise InputError(f"output: expected shape ({layout.ports},), got {ends.shape}")
    finite("cells", chain.cells)
    finite("output", ends)
    out, _ = chain.forward(light(vectors, layout.ports), ends)
    return out.reshape(np.shape(vectors))
