"""A layer of physics: a fabricated mesh between modulators and detectors, which can be set, sent light and read, and no more.

It knows no gradient, has no parameters of its own, adds the noise of its detectors to each reading, and drifts as time goes by.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from hwsim.views.display import displayed
from numerics._fields import check_integer
from numerics.errors import InputError
from photonic._numbers import is_one_of, number, real_numbers
from photonic.detection import Homodyne, Modulator, Receiver
from photonic.fabrication import FabricatedMesh
from photonic.layouts import MeshLayout
from photonic.training.optical_layers import check_ports, check_real
from photonic.training.tallies import Tally


@displayed
class PhysicalLayer(nn.Module):
    """(batch, inputs) → (batch, outputs), real; where autograd asks for a gradient, it gets an ``InputError``.

    Args:
        chip: the mesh.
        inputs, outputs: the first ports; by default all signals.
        modulator: what puts values from −1 to 1 onto light.
        detection: photodiodes: what is read is power, over that of an input of 1; or homodyne: the real part of the field.
        seed: of the noise of all readings.
        tally: where light and conversions are counted; by default a new one.

    Attributes:
        chip: with the phases and the age that it has now.
        clipped: numbers beyond the range of modulators or converters so far.
        tally: as given.

    Raises:
        InputError: an object of another class, a number out of range.
    """

    def __init__(
        self,
        chip: FabricatedMesh,
        *,
        inputs: int | None = None,
        outputs: int | None = None,
        modulator: Modulator = Modulator(1e-3),  # noqa: B008
        detection: Receiver | Homodyne = Receiver(),  # noqa: B008
        seed: int = 0,
        tally: Tally | None = None,
    ) -> None:
        super().__init__()
        is_one_of("chip", chip, FabricatedMesh)
        is_one_of("modulator", modulator, Modulator)
        is_one_of("detection", detection, Receiver, Homodyne)
        signals = chip.layout.signals or 0
        self.inputs = signals if inputs is None else check_integer("inputs", inputs, 1)
        self.outputs = signals if outputs is None else check_integer("outputs", outputs, 1)
        check_ports(chip.layout, max(self.inputs, self.outputs))
        self.chip = chip
        self.modulator, self.detection = modulator, detection
        is_one_of("tally", tally, Tally, type(None))
        self.tally = Tally() if tally is None else tally
        self.clipped = 0
        self._seed, self._shots = check_integer("seed", seed, 0), 0

    @property
    def layout(self) -> MeshLayout:
        """Of the mesh."""
        return self.chip.layout

    def program(self, **phases: Any) -> None:
        """Set some of ``theta``, ``phi`` and ``output_phase``, radians; tensors are taken without their gradient.

        Raises:
            InputError: as ``FabricatedMesh.with_phases``.
        """
        held = {name: real_numbers(name, p.detach() if isinstance(p, torch.Tensor) else p) for name, p in phases.items()}
        self.chip = self.chip.with_phases(**held)
        self.tally.add(phase_settings=sum(p.size for p in held.values()), settlings=1)

    def advance(self, seconds: float) -> None:
        """Let time pass: phases drift.

        Raises:
            InputError: negative seconds.
        """
        number("seconds", seconds)
        self.chip = self.chip.aged(seconds)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What is read for values (batch, inputs), of their dtype.

        Raises:
            InputError: another shape; when autograd wants the gradient.
        """
        check_real(x, self.inputs)
        out: torch.Tensor = _Opaque.apply(x, self)
        return out

    def measure(self, values: Any) -> Any:
        """The same for numpy arrays.

        Raises:
            InputError: another shape, or numbers that are not real and finite.
        """
        given = real_numbers("values", values)
        if given.ndim != 2 or given.shape[1] != self.inputs:
            raise InputError(f"values: expected shape (batch, {self.inputs}), got {given.shape}")
        field = self._sent(given.T)
        seed = self.next_seed()
        power_w = self.modulator.power_w
        if isinstance(self.detection, Homodyne):
            reading = self.detection.read(field, seed=seed)
            read = reading.values.real / np.sqrt(power_w)
        else:
            reading = self.detection.read(np.abs(field) ** 2, seed=seed)
            read = (reading.values - self.detection.dark_a) / (self.detection.responsivity_a_per_w * power_w)
        self.clipped += reading.clipped
        self.tally.add(adc_samples=read.size)
        return read.T

    def next_seed(self) -> int:
        """That of the next reading: none is used twice."""
        self._shots += 1
        return (self._seed << 40) + self._shots

    def _sent(self, values: Any) -> Any:
        """Fields at the read outputs, (outputs, batch), √W, for values (inputs, batch)."""
        light = self.modulator.modulate(values)
        self.clipped += light.clipped
        wires = np.zeros((self.layout.ports, values.shape[1]), np.complex128)
        first = self.layout.first_signal
        wires[first : first + self.inputs] = light.field
        self.tally.add(light_vectors=values.shape[1], dac_samples=values.size)
        return self.chip.apply(wires)[first : first + self.outputs]


class _Opaque(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, layer: PhysicalLayer) -> Any:
        return torch.from_numpy(layer.measure(x.detach().double().numpy())).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise InputError("gradient: expected no call for it, because a physical layer has none; see photonic.training")
