"""Gradients measured in the mesh itself, from powers at its phase shifters.

With o the light behind a phase shifter and g the loss's gradient there, dL/dphase = Im(g·conj(o)) (T. W. Hughes et al., Optica
5(7), 864, 2018). Three sendings bring it about on the chip as it is, whatever its errors:

1. forward: x goes in; what comes out tells the loss and its gradient at the outputs.
2. adjoint: conj(gradient) goes in at the outputs, backwards; what comes out at the inputs is conj(g) there.
3. interference: x ∓ i·g goes in forwards. A mesh without loss undoes what it did backwards, so that behind every phase shifter
   the field is o ∓ i·g, of power |o|² + |g|² ± 2·Im(g·conj(o)).

``toggled`` sends both signs and takes half the difference of powers (S. Pai et al., Science 380, 398, 2023): linear in g, so that
noise in the measured g leaves no bias. ``subtracted`` sends one sign and takes off the powers of 1 and 2, as the first paper has
it: one sending less, but a noisy g adds its own power.

Loss that differs between ways makes 3 differ from what it should be; ``gradient`` is then an approximation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from torch import nn

from hwsim.views.display import displayed
from numerics._fields import check_integer
from numerics.errors import InputError
from photonic._numbers import array, complex_numbers, is_one_of, number, one_of
from photonic.detection import Homodyne, Modulator, Receiver
from photonic.fabrication import FabricatedMesh
from photonic.training.optical_layers import PHASES, Seen, check_ports, check_real
from photonic.training.tallies import Tally, Way

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Numbers = npt.NDArray[np.complex128]


@displayed
@dataclass(frozen=True)
class Probes:
    """What stands around the chip.

    Attributes:
        modulator: of complex values at either end.
        ends: homodyne detectors at either end.
        taps: a photodiode at each phase shifter; its noise is that of the light it gets.
        tap_share: of the light behind a phase shifter that its photodiode gets; the loss it makes is one of ``InsertionLoss``.

    Raises:
        InputError: an object of another class, a share not in (0, 1].
    """

    modulator: Modulator = field(default_factory=lambda: Modulator(1e-3))
    ends: Homodyne = field(default_factory=lambda: Homodyne(1e-3))
    taps: Receiver = field(default_factory=Receiver)
    tap_share: float = 1.0

    def __post_init__(self) -> None:
        for name, kind in (("modulator", Modulator), ("ends", Homodyne), ("taps", Receiver)):
            is_one_of(name, getattr(self, name), kind)
        number("tap_share", self.tap_share, above=True)
        if self.tap_share > 1:
            raise InputError(f"tap_share: expected at most 1, got {self.tap_share!r}")


@displayed
@dataclass(frozen=True, eq=False)
class Measured:
    """A gradient that was measured.

    Attributes:
        phases: by name, each summed over the batch.
        inputs: (signals, batch) complex, with respect to the fields that went in: dL = Re Σ conj(g)·dx.
    """

    phases: Mapping[str, Floats]
    inputs: Numbers


@displayed
class InSituMesh:
    """A chip with photodiodes inside.

    Args:
        chip: the mesh.
        probes: what is around it.
        way: ``toggled`` or ``subtracted``; see the module.
        seed: of the noise of all readings.
        tally: where light and conversions are counted; by default a new one.

    Attributes:
        chip: with the phases it has now.
        clipped: numbers beyond the range of modulators or converters so far.

    Raises:
        InputError: an object of another class, an unknown way.
    """

    def __init__(
        self,
        chip: FabricatedMesh,
        probes: Probes = Probes(),
        *,
        way: Way = "toggled",
        seed: int = 0,
        tally: Tally | None = None,
    ) -> None:
        is_one_of("chip", chip, FabricatedMesh)
        is_one_of("probes", probes, Probes)
        one_of("way", way, get_args(Way))
        is_one_of("tally", tally, Tally, type(None))
        self.chip, self.probes, self.way = chip, probes, way
        self.tally = Tally() if tally is None else tally
        self.clipped = 0
        self._seed, self._shots = check_integer("seed", seed, 0), 0

    def program(self, **phases: npt.ArrayLike) -> None:
        """Set some of the phases, and wait for them to settle."""
        self.chip = self.chip.with_phases(**phases)
        self.tally.add(phase_settings=sum(np.size(p) for p in phases.values()), settlings=1)

    def advance(self, seconds: float) -> None:
        """Let time pass: phases drift."""
        self.chip = self.chip.aged(seconds)

    def forward(self, vectors: npt.ArrayLike) -> Numbers:
        """Fields that come out, as read, (signals, batch), for vectors (signals, batch) of numbers in the unit square.

        Raises:
            InputError: another number of signals.
        """
        return self._read(self._sent(self._wires(array("vectors", vectors)), 1.0)[-1][self.chip.layout.signal_ports])

    def forward_tapped(self, vectors: npt.ArrayLike) -> tuple[Numbers, list[Floats]]:
        """``forward``, and powers behind θ, φ and output shifters (…, batch), read from the same light.

        Raises:
            InputError: another number of signals.
        """
        light = self._sent(self._wires(array("vectors", vectors)), 1.0)
        return self._read(light[-1][self.chip.layout.signal_ports]), self._tapped(light)

    def gradient(self, vectors: npt.ArrayLike, gradient: npt.ArrayLike, alone: list[Floats] | None = None) -> Measured:
        """The gradient with respect to all phases and the inputs, from sendings 2 and 3.

        Args:
            vectors: (signals, batch) that went in.
            gradient: (signals, batch) complex, of the loss with respect to what came out: dL = Re Σ conj(g)·do. Each is sent at
                norm 1, and the result scaled.
            alone: what ``forward_tapped`` saw of these vectors; only ``subtracted`` needs it, and sends them again without.

        Raises:
            InputError: other shapes.
        """
        x, g = array("vectors", vectors), complex_numbers("gradient", gradient)
        if g.shape != x.shape or g.ndim != 2:
            raise InputError(f"gradient: expected the shape of the vectors {x.shape}, got {g.shape}")
        norm = np.linalg.norm(g, axis=0)
        scale = np.where(norm > 0, norm, 1.0)
        wires, plan = self._wires(x), self.chip.layout
        adjoint = self._returned(self._wires(np.conj(g / scale)))
        # Waveguides beside the signals, as a diamond has, take their part of the light that comes back.
        at_inputs = np.conj(self._read(adjoint[-1]))
        if self.way == "toggled":
            # Half the field, so that modulators reach it: a quarter of the power.
            powers = [self._tapped(self._sent(wires + sign * 1j * at_inputs, 0.5)) for sign in (-1, 1)]
            overlap = [plus - minus for plus, minus in zip(*powers, strict=True)]
        else:
            back = self._tapped(adjoint)
            first = self._tapped(self._sent(wires, 1.0)) if alone is None else alone
            both = self._tapped(self._sent(wires - 1j * at_inputs, 0.5))
            overlap = [2 * c - (a + b) / 2 for a, b, c in zip(first, back, both, strict=True)]
        self.tally.add(elementwise=(2 if self.way == "toggled" else 4) * sum(part.size for part in overlap))
        return Measured(dict(zip(PHASES, (part @ scale for part in overlap), strict=True)), at_inputs[plan.signal_ports] * scale)

    # --- light ------------------------------------------------------------------------------------------------------------------

    def _wires(self, vectors: npt.NDArray[Any]) -> npt.NDArray[Any]:
        plan = self.chip.layout
        if vectors.ndim != 2 or len(vectors) != plan.signals:
            raise InputError(f"vectors: expected shape ({plan.signals}, batch), got {vectors.shape}")
        wires = np.zeros((plan.ports, vectors.shape[1]), vectors.dtype)
        wires[plan.signal_ports] = vectors
        return wires

    def _sent(self, wires: npt.NDArray[Any], share: float) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        """Light forwards: fields (√W) behind θ, φ and output shifters, and at the outputs, which is the same as the last."""
        theta, phi, out = tapped_forward(self.chip, self._modulated(share * wires))
        return theta, phi, out, out

    def _returned(self, wires: Numbers) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        """Light backwards: fields at θ, φ and output shifters, and at the inputs."""
        light = self._modulated(wires)
        theta, phi, out = tapped_backward(self.chip, light)
        return theta, phi, light, out

    def _modulated(self, wires: npt.NDArray[Any]) -> Numbers:
        light = self.probes.modulator.modulate(wires)
        self.clipped += light.clipped
        parts = 2 if wires.dtype.kind == "c" else 1
        self.tally.add(light_vectors=wires.shape[1], dac_samples=parts * wires.size)
        return light.field

    def _read(self, fields: Numbers) -> Numbers:
        reading = self.probes.ends.read(fields, seed=self._next())
        self.clipped += reading.clipped
        self.tally.add(adc_samples=2 * fields.size)
        return np.asarray(reading.values / np.sqrt(self.probes.modulator.power_w))

    def _tapped(self, fields: Any) -> list[Floats]:
        """Powers of light behind θ, φ and output shifters, over that of an input of 1."""
        taps, found = self.probes.taps, []
        for light in fields[:3]:
            reading = taps.read(self.probes.tap_share * np.abs(light) ** 2, seed=self._next())
            self.clipped += reading.clipped
            self.tally.add(adc_samples=light.size)
            full = taps.responsivity_a_per_w * self.probes.tap_share * self.probes.modulator.power_w
            found.append((reading.values - taps.dark_a) / full)
        return found

    def _next(self) -> int:
        self._shots += 1
        return (self._seed << 40) + self._shots


def _columns(chip: FabricatedMesh) -> list[slice]:
    plan = chip.layout
    bounds = np.searchsorted(plan.column, np.arange(plan.depth + 1))
    return [slice(int(a), int(b)) for a, b in pairwise(bounds)]


def tapped_forward(chip: FabricatedMesh, wires: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Fields behind the θ and φ shifters (MZIs, batch) and the output shifters (ports, batch), for light at the inputs."""
    plan, parts, real = chip.layout, chip.chip.parts, chip.real_phases
    turns = {name: np.exp(1j * real[name])[:, None] for name in PHASES}
    state = wires.copy()
    theta, phi = (np.empty((plan.mzis, wires.shape[1]), np.complex128) for _ in range(2))
    for mine in _columns(chip):
        upper, lower = plan.upper[mine], plan.lower[mine]
        inside = np.stack([state[upper], state[lower]], axis=1) * parts.right[mine, :, None]
        inside[:, 0] *= turns["phi"][mine]
        # The shifter stands behind the loss of the waveguides that lead to it, in front of its own, which ``middle`` has.
        phi[mine] = inside[:, 0]
        inside = parts.middle[mine] @ inside
        inside[:, 0] *= turns["theta"][mine]
        theta[mine] = inside[:, 0]
        inside = parts.left[mine] @ inside
        state[upper], state[lower] = inside[:, 0], inside[:, 1]
    return theta, phi, state * parts.output[:, None] * turns["output_phase"]


def tapped_backward(chip: FabricatedMesh, wires: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Fields at the θ and φ shifters and the inputs, for light that enters the outputs: by reciprocity, the transpose."""
    plan, parts, real = chip.layout, chip.chip.parts, chip.real_phases
    turns = {name: np.exp(1j * real[name])[:, None] for name in PHASES}
    state = wires * parts.output[:, None] * turns["output_phase"]
    theta, phi = (np.empty((plan.mzis, wires.shape[1]), np.complex128) for _ in range(2))
    for mine in reversed(_columns(chip)):
        upper, lower = plan.upper[mine], plan.lower[mine]
        inside = parts.left[mine].mT @ np.stack([state[upper], state[lower]], axis=1)
        theta[mine] = inside[:, 0]
        inside[:, 0] *= turns["theta"][mine]
        inside = parts.middle[mine].mT @ inside
        phi[mine] = inside[:, 0]
        inside[:, 0] *= turns["phi"][mine]
        inside *= parts.right[mine, :, None]
        state[upper], state[lower] = inside[:, 0], inside[:, 1]
    return theta, phi, state


# --- as a layer -----------------------------------------------------------------------------------------------------------------


@displayed
class InSituLayer(nn.Module):
    """As ``OpticalLayer``, but on a chip: what comes out is read, and gradients are measured when autograd asks for them.

    Outputs are read by homodyne detectors in any case, since the adjoint needs their phases. Of a chip with crosstalk or
    quantisation the gradient is that of the phases that light meets.

    Args:
        device: the chip and what is around it.
        inputs, outputs: the first ports.
        seen: see ``OpticalLayer``.

    Attributes:
        theta, phi, output_phase: parameters, radians, to which the chip is set before light is sent.

    Raises:
        InputError: an object of another class, more inputs or outputs than signals.
    """

    def __init__(self, device: InSituMesh, inputs: int, outputs: int, *, seen: Seen = "power") -> None:
        super().__init__()
        is_one_of("device", device, InSituMesh)
        one_of("seen", seen, get_args(Seen))
        self.device, self.seen = device, seen
        self.inputs, self.outputs = check_integer("inputs", inputs, 1), check_integer("outputs", outputs, 1)
        check_ports(device.chip.layout, max(inputs, outputs))
        for name in PHASES:
            setattr(self, name, nn.Parameter(torch.tensor(device.chip.phases[name])))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What is read for amplitudes (batch, inputs)."""
        check_real(x, self.inputs)
        out: torch.Tensor = _InSitu.apply(x, *(getattr(self, name) for name in PHASES), self)
        return out


class _InSitu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, theta: Any, phi: Any, output_phase: Any, layer: InSituLayer) -> Any:
        wanted = dict(zip(PHASES, (p.detach().double().numpy() for p in (theta, phi, output_phase)), strict=True))
        device = layer.device
        if any(not np.array_equal(wanted[name], device.chip.phases[name]) for name in PHASES):
            device.program(**{name: phases.copy() for name, phases in wanted.items()})
        vectors = np.zeros((device.chip.layout.signals or 0, len(x)))
        vectors[: layer.inputs] = x.detach().double().numpy().T
        ctx.layer, ctx.vectors, ctx.alone = layer, vectors, None
        if device.way == "subtracted" and any(ctx.needs_input_grad):
            ctx.out, ctx.alone = device.forward_tapped(vectors)
        else:
            ctx.out = device.forward(vectors)
        ctx.kinds = x.dtype, theta.dtype, phi.dtype, output_phase.dtype
        read = ctx.out[: layer.outputs].T
        seen = np.abs(read) ** 2 if layer.seen == "power" else read.real
        return torch.from_numpy(seen).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        layer, out = ctx.layer, ctx.out
        g = np.zeros_like(out)
        given = gradients[0].detach().double().numpy().T
        g[: layer.outputs] = 2 * given * out[: layer.outputs] if layer.seen == "power" else given
        layer.device.tally.add(elementwise=2 * given.size)
        found = layer.device.gradient(ctx.vectors, g, ctx.alone)
        parts = (found.inputs[: layer.inputs].real.T, *(found.phases[name] for name in PHASES))
        return (*(torch.from_numpy(np.ascontiguousarray(p)).to(kind) for p, kind in zip(parts, ctx.kinds, strict=True)), None)
