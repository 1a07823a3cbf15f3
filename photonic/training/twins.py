"""Backpropagation through a digital twin: light goes through the machine, the gradient through a model of it.

The errors are those of the real outputs, their way back is the model's (physics-aware training, L. G. Wright et al., Nature 601,
549, 2022). As good as the twin is: it may not know how its chip was made, or how it has drifted since.
"""

from __future__ import annotations

import torch
from torch import nn

from hwsim.views.display import displayed
from photonic._numbers import is_one_of
from photonic.training.costs import mesh_macs
from photonic.training.optical_layers import PHASES, OpticalLayer
from photonic.training.physical_layer import PhysicalLayer


@displayed
class TwinLayer(nn.Module):
    """What a physical layer gives, with the gradient that its twin has at the same inputs and phases.

    Args:
        machine: the physical layer.
        twin: the model; its phases are the parameters, and the machine is set to them before light is sent.

    Raises:
        InputError: an object of another class.
    """

    def __init__(self, machine: PhysicalLayer, twin: OpticalLayer) -> None:
        super().__init__()
        is_one_of("machine", machine, PhysicalLayer)
        is_one_of("twin", twin, OpticalLayer)
        self.machine, self.twin = machine, twin

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What is read for values (batch, inputs); the twin's digital operations are counted in the machine's tally."""
        deploy(self.twin, self.machine)
        with torch.no_grad():
            real = self.machine(x)
        if not torch.is_grad_enabled():
            return real
        believed = self.twin(x)
        forward, backward = mesh_macs(self.machine.layout, len(x))
        self.machine.tally.add(macs=forward)
        if believed.requires_grad:
            believed.register_hook(lambda _: self.machine.tally.add(macs=backward))
        return believed + (real - believed.detach())


def deploy(layer: OpticalLayer, machine: PhysicalLayer) -> None:
    """Program a machine to the phases of a layer that was trained elsewhere, if it is not.

    Raises:
        InputError: an object of another class, another number of phases.
    """
    is_one_of("layer", layer, OpticalLayer)
    is_one_of("machine", machine, PhysicalLayer)
    wanted, held = layer.linear.phases, machine.chip.phases
    if any((wanted[name] != held[name]).any() if wanted[name].shape == held[name].shape else True for name in PHASES):
        machine.program(**{name: phases.copy() for name, phases in wanted.items()})
