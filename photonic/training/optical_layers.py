"""Meshes as torch modules: phases are parameters, real inputs are amplitudes of light, outputs powers or fields.

>>> import torch
>>> layer = OpticalLayer(3, 2, seed=0)
>>> layer(torch.tensor([[0.6, 0.0, 0.8]])).shape
torch.Size([1, 2])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import nn

from hwsim.views.display import displayed
from numerics._fields import check_integer
from numerics.errors import InputError
from numerics.faults.maps import stream
from photonic._numbers import is_one_of, number, one_of
from photonic.decomposition import decompose
from photonic.fabrication import CellParts, FabricatedMesh, fabricate
from photonic.gradient import apply_cells, apply_mesh
from photonic.imperfections import Ideal, Imperfections
from photonic.layouts import MeshKind, MeshLayout, layout
from photonic.mesh import Mesh

if TYPE_CHECKING:
    import numpy.typing as npt

Seen = Literal["power", "field"]
"""What detectors give: squared magnitudes, or the real part of the field (homodyne)."""

PHASES = ("theta", "phi", "output_phase")


def random_mesh(ports: int, kind: MeshKind = "rectangular", *, seed: int) -> Mesh:
    """Phases that begin a training: a unitary matrix drawn uniformly (F. Mezzadri, Notices of the AMS 54(5), 592, 2007), where
    the layout has all of them; phases uniform in [0, 2π) in a butterfly or tree.

    Raises:
        InputError: as ``layout``; a seed that is no integer ≥ 0.
    """
    made = layout(kind, ports)
    if kind in ("butterfly", "binary_tree"):
        return Mesh.random(made, seed=check_integer("seed", seed, 0))
    rng = stream(check_integer("seed", seed, 0), "first phases")
    normal = rng.standard_normal((2, ports, ports))
    q, r = np.linalg.qr(normal[0] + 1j * normal[1])
    diagonal = np.diagonal(r)
    return decompose(q * (diagonal / np.abs(diagonal)), kind)


@displayed
class MeshLinear(nn.Module):
    """A mesh whose phases are parameters, ideal or on a chip that is known: (batch, signals) → (batch, signals), complex.

    What quantisation, crosstalk, errors and drift do to a phase is the chip's; the gradient takes a phase that light meets to
    move as the one programmed does (straight-through), and that of a stuck shifter is 0.

    Args:
        mesh: where training begins; of a ``FabricatedMesh`` the chip, too.
        redrawn: imperfections drawn anew, a chip for each forward pass, while the module trains: noise that it learns to bear.
            Of a module in ``eval`` mode nothing is drawn.
        seed: of those draws.

    Attributes:
        theta, phi, output_phase: parameters, radians, float64.

    Raises:
        InputError: an object of another class; a chip and ``redrawn`` together.
    """

    def __init__(self, mesh: Mesh | FabricatedMesh, *, redrawn: Imperfections | Ideal = Ideal(), seed: int = 0) -> None:  # noqa: B008
        super().__init__()
        self.theta: nn.Parameter
        self.phi: nn.Parameter
        self.output_phase: nn.Parameter
        is_one_of("mesh", mesh, Mesh, FabricatedMesh)
        is_one_of("redrawn", redrawn, Imperfections, Ideal)
        if isinstance(mesh, FabricatedMesh) and not isinstance(redrawn, Ideal):
            raise InputError("redrawn: expected Ideal for a chip, which keeps its imperfections, got Imperfections")
        self._seed = check_integer("seed", seed, 0)
        self.redrawn = redrawn
        self.chip = mesh if isinstance(mesh, FabricatedMesh) else None
        self.layout: MeshLayout = mesh.layout
        self._passes = 0
        for name in PHASES:
            setattr(self, name, nn.Parameter(torch.tensor(mesh.phases[name])))

    @property
    def phases(self) -> dict[str, npt.NDArray[np.float64]]:
        """``theta``, ``phi`` and ``output_phase`` as they are now."""
        return {name: getattr(self, name).detach().numpy().astype(np.float64) for name in PHASES}

    @property
    def mesh(self) -> Mesh:
        """The mesh as it is programmed now."""
        return Mesh(self.layout, **self.phases)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Light that comes out for light that goes in, (batch, signals); complex64 for float32 and complex64.

        Raises:
            InputError: another number of signals.
        """
        wires = self._wires(vectors)
        chip = self.chip
        if not isinstance(self.redrawn, Ideal) and self.training:
            self._passes += 1
            chip = fabricate(self.mesh, self.redrawn, seed=(self._seed << 32) + self._passes)
        if chip is None:
            out = apply_mesh(self.layout, self.theta, self.phi, self.output_phase, wires)
        else:
            cells, ends = self._cells(chip.with_phases(**self.phases))
            out = apply_cells(self.layout, cells, ends, wires, unitary=chip.lossless)
        return out[self.layout.signal_ports].mT

    def _wires(self, vectors: torch.Tensor) -> torch.Tensor:
        signals = self.layout.signals
        is_one_of("vectors", vectors, torch.Tensor)
        if vectors.dim() != 2 or vectors.shape[1] != signals:
            raise InputError(f"vectors: expected shape (batch, {signals}), got {tuple(vectors.shape)}")
        if signals == self.layout.ports:
            return vectors.mT
        ports = self.layout.signal_ports
        return nn.functional.pad(vectors, (ports.start, self.layout.ports - ports.stop)).mT

    def _cells(self, chip: FabricatedMesh) -> tuple[torch.Tensor, torch.Tensor]:
        stuck = torch.from_numpy(~np.isnan(chip.chip.stuck)).split([self.layout.mzis, self.layout.mzis, self.layout.ports])
        real: dict[str, torch.Tensor] = {}
        for name, fixed in zip(PHASES, stuck, strict=True):
            programmed, met = getattr(self, name).double(), torch.from_numpy(chip.real_phases[name])
            real[name] = torch.where(fixed, met, programmed + (met - programmed.detach()))
        parts = chip.chip.parts
        return cells_of(parts, real["theta"], real["phi"]), torch.from_numpy(parts.output) * turned(real["output_phase"])


def turned(phases: torch.Tensor) -> torch.Tensor:
    """e^{i·phases}."""
    return torch.polar(torch.ones_like(phases), phases)


def cells_of(parts: CellParts, theta: torch.Tensor, phi: torch.Tensor) -> torch.Tensor:
    """``CellParts.cells`` as a torch function of the phases that light meets, (MZIs, 2, 2)."""
    one = torch.ones_like(theta, dtype=torch.complex128)
    rows, columns = torch.stack([turned(theta), one], dim=-1), torch.stack([turned(phi), one], dim=-1)
    middle = torch.from_numpy(parts.middle * parts.right[:, None, :])
    return torch.from_numpy(parts.left) @ (rows[:, :, None] * middle * columns[:, None, :])


@displayed
class OpticalLayer(nn.Module):
    """Real numbers → amplitudes of light → mesh → detectors → real numbers: (batch, inputs) → (batch, outputs).

    The other ports of the mesh stay dark, or are not read. In a digital twin of a machine, ``chip`` is what is known of it.

    Args:
        inputs, outputs: the first ports.
        mesh: layout, of as many ports as the larger of both.
        seen: ``power``: |field|², which is what makes the layer nonlinear; ``field``: its real part.
        chip: a mesh to begin with, ideal or fabricated, in place of a random one.
        redrawn: see ``MeshLinear``.
        reading_sigma: standard deviation of a normal deviate added to what is read while the module trains.
        seed: of first phases and noise.

    Raises:
        InputError: a number out of range, a chip of too few ports.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        mesh: MeshKind = "rectangular",
        seen: Seen = "power",
        chip: Mesh | FabricatedMesh | None = None,
        redrawn: Imperfections | Ideal = Ideal(),  # noqa: B008
        reading_sigma: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs = check_integer("inputs", inputs, 1), check_integer("outputs", outputs, 1)
        one_of("seen", seen, get_args(Seen))
        number("reading_sigma", reading_sigma)
        ports = max(inputs, outputs)
        held = random_mesh(ports, mesh, seed=seed) if chip is None else chip
        self.linear = MeshLinear(held, redrawn=redrawn, seed=seed)
        check_ports(self.linear.layout, ports)
        self.seen, self.reading_sigma = seen, float(reading_sigma)
        if check_integer("seed", seed, 0) >= 1 << 63:
            raise InputError(f"seed: expected below 2^63, got {seed}")
        self._noise = torch.Generator().manual_seed(seed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What is read for amplitudes (batch, inputs): powers or fields where an input of 1 is light of power 1.

        Raises:
            InputError: another shape, or numbers that are not real.
        """
        check_real(x, self.inputs)
        field = self.linear(nn.functional.pad(x, (0, (self.linear.layout.signals or 0) - self.inputs)))[:, : self.outputs]
        read = field.abs().square() if self.seen == "power" else field.real
        if self.reading_sigma and self.training:
            read = read + self.reading_sigma * torch.randn(read.shape, generator=self._noise, dtype=read.dtype)
        return read


@displayed
class UnitPower(nn.Module):
    """Rows scaled to norm 1, for the light of the next layer; a row of zeros stays."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of (batch, n).

        Raises:
            InputError: another shape, or numbers that are not real.
        """
        is_one_of("x", x, torch.Tensor)
        check_real(x, x.shape[1] if x.dim() == 2 else 0)
        return nn.functional.normalize(x, dim=1, eps=1e-30)


def check_ports(plan: MeshLayout, ports: int) -> None:
    """Refuses a mesh with fewer signals than ``ports``.

    Raises:
        InputError: the field, what was expected and what was given.
    """
    if (plan.signals or 0) < ports:
        raise InputError(f"chip: expected at least {ports} signals, got {plan.signals}")


def check_labels(labels: Any, x: Any, classes: int) -> None:
    """Refuses anything but an integer below ``classes`` for each row of x.

    Raises:
        InputError: the field, what was expected and what was given.
    """
    is_one_of("x", x, torch.Tensor)
    is_one_of("labels", labels, torch.Tensor)
    if labels.dtype.is_floating_point or labels.is_complex() or labels.dtype == torch.bool:
        raise InputError(f"labels: expected integers, got {labels.dtype}")
    if labels.shape != x.shape[:1]:
        raise InputError(f"labels: expected shape {tuple(x.shape[:1])}, one a row of x, got {tuple(labels.shape)}")
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.numel():
        raise InputError(f"labels: expected 0 to {classes - 1}, got {int(wrong[0])}")


def check_real(x: Any, inputs: int) -> None:
    """Refuses anything but real numbers (batch, inputs).

    Raises:
        InputError: the field, what was expected and what was given.
    """
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        raise InputError(
            f"x: expected a tensor of real numbers, got {x.dtype if isinstance(x, torch.Tensor) else type(x).__name__}"
        )
    if x.dim() != 2 or x.shape[1] != inputs:
        raise InputError(f"x: expected shape (batch, {inputs}), got {tuple(x.shape)}")
