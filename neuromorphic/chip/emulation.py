"""A spiking module in a chip's arithmetic, as a torch module: the same numbers that ``chip.run`` counts energy for.

>>> import torch
>>> from neuromorphic.cells.neuron_cells import LIF, SpikingSequential
>>> net = SpikingSequential(torch.nn.Linear(2, 1, bias=False), LIF(0.75, threshold=1.0)).eval()
>>> _ = net[0].weight.data.copy_(torch.tensor([[0.6, 0.2]]))
>>> spikes = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]], [[0.0, 1.0]]])
>>> emulate(net, "loihi")(spikes).flatten().tolist(), net(spikes).flatten().tolist()
([0.0, 1.0, 0.0], [0.0, 1.0, 0.0])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from hwsim.views.display import displayed
from neuromorphic.chip.arithmetic import get_arithmetic
from neuromorphic.chip.faults import ChipFaults
from neuromorphic.chip.network import ChipNetwork
from neuromorphic.chip.quantisation import quantise
from neuromorphic.chip.running import ChipActivity, run
from neuromorphic.events import Events
from neuromorphic.network import SpikingNetwork
from numerics.errors import InputError


@displayed
class ChipModule(nn.Module):
    """A network in a chip's numbers that takes and gives what the module did. It has no gradient.

    Attributes:
        network: in the chip's numbers; None until the first input shows its shape.
        activity: of the last input's runs, one an element of the batch.
        faults: what is broken, or None.
    """

    def __init__(
        self, source: nn.Module | SpikingNetwork | ChipNetwork, chip: Any, *, faults: ChipFaults | None = None, **how: Any
    ) -> None:
        super().__init__()
        self.arithmetic = source.arithmetic if isinstance(source, ChipNetwork) else get_arithmetic(chip)
        self.faults = faults
        self.network: ChipNetwork | None = None
        self.activity: tuple[ChipActivity, ...] = ()
        self._how = how
        # A list, so that the float module is no part of this one's state.
        self._source = [source]
        if isinstance(source, ChipNetwork):
            self.network = source
        elif isinstance(source, SpikingNetwork):
            self.network = quantise(source, self.arithmetic, **how)

    def prepare(self, features: Sequence[int]) -> ChipNetwork:
        """The network in the chip's numbers, for the shape of one step's input without the batch.

        Raises:
            InputError: as ``to_network`` and ``quantise``.
        """
        if self.network is None:
            from neuromorphic.cells.torch_network import to_network

            module: Any = self._source[0]
            self.network = quantise(to_network(module, tuple(features)), self.arithmetic, **self._how)
        return self.network

    @torch.no_grad()
    def forward(self, x: torch.Tensor | Mapping[str, torch.Tensor]) -> Any:
        """Spikes, or a readout's values in the network's unit, (steps, batch, *shape), in the network's steps.

        Args:
            x: (steps, batch, *features) of spikes or values; for several inputs, one by name.

        Returns:
            Of the network's output; for several, a mapping by name.

        Raises:
            InputError: inputs that do not fit, or values that the chip has not.
        """
        given = dict(x) if isinstance(x, Mapping) else None
        if given is None:
            network = self.prepare(tuple(x.shape[2:]))  # type: ignore[union-attr]
            if len(network.inputs) != 1:
                raise InputError(f"x: expected a mapping of the inputs {', '.join(network.inputs)}, got one tensor")
            given = {network.inputs[0]: x}  # type: ignore[dict-item]
        elif self.network is None:
            raise InputError("x: a module that was not prepared takes one tensor")
        network = self.network  # type: ignore[assignment]
        first = next(iter(given.values()))
        steps, batch = first.shape[:2]
        if not steps or not batch:
            raise InputError(f"x: expected at least one step and one sample, got shape {tuple(first.shape)}")
        arrays = {name: one.detach().cpu().double().reshape(steps, batch, -1).numpy() for name, one in given.items()}
        seed = self.faults.seed if self.faults else 0
        runs = []
        for b in range(batch):
            broken = replace(self.faults, seed=seed + b) if self.faults else None
            inputs = {name: Events.from_dense(array[:, b]) for name, array in arrays.items()}
            runs.append(run(network, inputs, steps=steps + network.latency, faults=broken))
        self.activity = tuple(runs)
        found = {name: torch.as_tensor(self._output(name, runs, steps)).to(first) for name in network.outputs}
        return found if len(found) > 1 else next(iter(found.values()))

    @staticmethod
    def _output(name: str, runs: list[ChipActivity], steps: int) -> Any:
        one = runs[0].network.population(name)
        each = [(a.real_values(name) if name in a.values else a.aligned(name).dense())[:steps] for a in runs]
        return np.stack(each, axis=1).reshape(steps, len(runs), *one.shape)

    def extra_repr(self) -> str:
        return f"arithmetic={self.arithmetic.name!r}"


def emulate(
    module: nn.Module | SpikingNetwork | ChipNetwork, chip: Any = None, *, faults: ChipFaults | None = None, **how: Any
) -> ChipModule:
    """``module`` computed in a chip's arithmetic.

    Args:
        module: spiking torch module in evaluation (``torch_network.to_network`` takes it), or a network.
        chip: name of an arithmetic, an ``Arithmetic`` or a chip's spec; not needed for a ``ChipNetwork``.
        faults: what is broken; element b of a batch loses spikes by seed + b.
        how: further arguments of ``quantise``.

    Raises:
        InputError: what ``quantise`` refuses; no chip.
    """
    if chip is None and not isinstance(module, ChipNetwork):
        raise InputError("chip: expected a name, an Arithmetic or a chip's spec, got None")
    return ChipModule(module, chip, faults=faults, **how)
