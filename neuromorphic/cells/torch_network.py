"""A torch module of this package's cells becomes a ``SpikingNetwork``: a population a cell, linear layers between as synapses.

>>> import torch
>>> from neuromorphic.cells.neuron_cells import LIF
>>> network = to_network(torch.nn.Sequential(torch.nn.Linear(3, 2), LIF(0.9)), (3,))
>>> [population.name for population in network.populations], network.synapses
(['input', '1'], 6)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from neuromorphic.cells.memory_units import LegendreMemory
from neuromorphic.cells.neuron_cells import NeuronCell, Recurrent, SpikingSequential
from neuromorphic.cells.torch_maps import LINEAR, linear_map, pooling_windows
from neuromorphic.linear_maps import LinearMap, dense
from neuromorphic.network import Neurons, Population, Projection, SpikingNetwork, Synapses
from numerics.errors import InputError

if TYPE_CHECKING:
    pass


def to_network(
    module: nn.Module, input_shape: Sequence[int] | torch.Tensor, *, dt_s: float = 1e-3, name: str = "network"
) -> SpikingNetwork:
    """The network that ``module`` computes, step by step, on spikes or values.

    Args:
        module: a cell, or (nested) ``nn.Sequential`` or ``SpikingSequential`` of cells, ``Recurrent`` cells, ``LegendreMemory``
            and layers that are linear in evaluation (Linear, Conv1d, Conv2d, AvgPool2d, BatchNorm, Flatten, Dropout, Identity);
            MaxPool2d of spikes becomes threshold neurons. Linear layers between two populations become one projection, their bias
            the target's ``input_bias``. What comes after the last cell becomes a readout without memory.
        input_shape: features of one step's input, without steps and batch; or an example (steps, batch, *features).
        dt_s: length of a step, seconds.
        name: of the network.

    Returns:
        Populations ``input`` and one a cell, named by its path in the module. Their arithmetic is float64; the spikes equal those
        of ``module.double()`` unless a voltage meets its threshold to the last bit, as the order of a sum differs.

    Raises:
        InputError: a module that has no spiking counterpart or is not in evaluation, shapes that do not fit.
    """
    shape = tuple(input_shape.shape[2:]) if isinstance(input_shape, torch.Tensor) else tuple(int(n) for n in input_shape)
    build = _Builder(shape)
    for path, layer in _layers(module, ""):
        build.add(path, layer)
    build.finish()
    return SpikingNetwork(
        name, tuple(build.populations), tuple(build.projections), (build.source,), dt_s=dt_s, notes=tuple(build.notes)
    )


def _layers(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(module, nn.Sequential | SpikingSequential):
        for name, child in module.named_children():
            yield from _layers(child, f"{path}.{name}" if path else name)
    else:
        yield path or "cell", module


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Errors within say where."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


class _Builder:
    """Populations and projections so far, and the linear map since the last population."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.populations = [Population("input", shape, Neurons("input"))]
        self.projections: list[Projection] = []
        self.notes: list[str] = []
        self.source = "input"
        self.map = LinearMap(None, None, shape)
        self.pending = False

    def add(self, path: str, layer: nn.Module) -> None:
        """One more layer."""
        where = f"layer {path!r} ({type(layer).__name__})"
        if isinstance(layer, Recurrent):
            self._cell(path, layer.cell)
            weights = Synapses.from_dense(layer.weights.weight.detach().double().cpu().numpy())
            self._join(path, path, weights, delay_steps=1)
        elif isinstance(layer, NeuronCell):
            self._cell(path, layer)
        elif isinstance(layer, LegendreMemory):
            self._memory(path, layer)
        elif isinstance(layer, nn.MaxPool2d):
            self._max_pool(path, layer, where)
        elif isinstance(layer, nn.Identity | nn.Dropout | nn.Dropout1d | nn.Dropout2d):
            if layer.training and not isinstance(layer, nn.Identity):
                raise InputError(f"{where}: still in training; call eval() first")
        elif isinstance(layer, LINEAR):
            with _named(where):
                self.map = linear_map(layer, self.map.shape).after(self.map)
            self.pending = True
        else:
            raise InputError(f"{where}: no population computes it; known: this package's spiking cells and linear layers")

    def finish(self) -> None:
        """A readout for linear layers behind the last cell."""
        if len(self.populations) == 1 and not self.pending:
            raise InputError("module: no layer that computes anything")
        if self.pending:
            self._population("output", Neurons("readout", decay_v=0.0))

    def _cell(self, path: str, cell: NeuronCell) -> None:
        self._population(path, cell.neurons(self.map.shape))

    def _population(self, path: str, neurons: Neurons) -> None:
        offset = self.map.offset
        if offset is not None:
            neurons = replace(neurons, input_bias=np.asarray(neurons.input_bias) + offset)
        self.populations.append(Population(path, self.map.shape, neurons))
        self._join(self.source, path, self.map.synapses())
        self._restart(path, self.map.shape)

    def _memory(self, path: str, layer: LegendreMemory) -> None:
        if len(self.map.shape) != 1:
            raise InputError(f"layer {path!r} (LegendreMemory): expected features (channels,), got {self.map.shape}")
        channels, order = self.map.shape[0], layer.order
        a, b = (np.asarray(part.detach().double().cpu()) for part in (layer.a, layer.b))
        write = dense(np.broadcast_to(b[:, None], (channels, order, 1)))
        self.map = replace(write, shape=(channels * order,)).after(self.map)
        self._population(path, Neurons("readout", decay_v=0.0))
        self._join(path, path, dense(np.broadcast_to(a, (channels, order, order))).synapses(), delay_steps=1)
        self.notes.append(f"{path}: the Legendre memory sends values, not spikes")

    def _max_pool(self, path: str, layer: nn.MaxPool2d, where: str) -> None:
        if self.pending:
            raise InputError(f"{where}: of weighted sums, not of spikes; put a cell before it")
        with _named(where):
            self.map = pooling_windows(layer, self.map.shape)
        self._population(path, Neurons("threshold", threshold=0.5))
        self.notes.append(f"{path}: the maximum of spikes is a neuron that spikes where any of its inputs does")

    def _join(self, source: str, target: str, synapses: Synapses, *, delay_steps: int = 0) -> None:
        self.projections.append(Projection(f"{source}->{target}", source, target, synapses, delay_steps=delay_steps))

    def _restart(self, source: str, shape: tuple[int, ...]) -> None:
        self.source, self.map, self.pending = source, LinearMap(None, None, shape), False
