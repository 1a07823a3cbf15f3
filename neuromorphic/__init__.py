"""Spiking cores, their mapping and on-chip network. So far: Loihi's neuron in its integer arithmetic, a core of such neurons and
the network's routers, cycle by cycle; no chip yet.

>>> import neuromorphic
>>> neuron = neuromorphic.LoihiNeuron(decay_u=4095, decay_v=163, threshold_mantissa=25)
>>> state = neuron.state(2)
>>> neuron.step(state, neuromorphic.synaptic_weight([10, 30])).tolist()
[False, True]
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuromorphic.core import CoreTrace, LifCore
    from neuromorphic.neurons import LoihiNeuron, LoihiState, synaptic_weight
    from neuromorphic.router import FlitFormat, Mesh, MeshRun, PortTrace, RouterPort, spike_router

_HOME = {
    "core": ("CoreTrace", "LifCore"),
    "neurons": ("LoihiNeuron", "LoihiState", "synaptic_weight"),
    "router": ("FlitFormat", "Mesh", "MeshRun", "PortTrace", "RouterPort", "spike_router"),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "CoreTrace",
    "FlitFormat",
    "LifCore",
    "LoihiNeuron",
    "LoihiState",
    "Mesh",
    "MeshRun",
    "PortTrace",
    "RouterPort",
    "spike_router",
    "synaptic_weight",
]


def __getattr__(name: str) -> Any:
    """Names load when first used, so that ``import neuromorphic`` costs no numba."""
    if name in _MODULE:
        return getattr(import_module(f"neuromorphic.{_MODULE[name]}"), name)
    raise AttributeError(f"module 'neuromorphic' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_MODULE)
