"""Spiking networks and the chips that run them: networks, their training and learning, mapping, on-chip network, energy.

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
    from neuromorphic.associative_memory import SparseMemory, overlap
    from neuromorphic.cells import (
        LIF,
        AdaptiveLIF,
        BalancedResonateAndFire,
        CubaLIF,
        Readout,
        Recurrent,
        ResonateAndFire,
        SpikingSequential,
        Threshold,
        TimeFirst,
    )
    from neuromorphic.chip import ChipActivity
    from neuromorphic.chip_costs import ChipCosts, chip_costs
    from neuromorphic.chip_faults import ChipFaults, StateFlip, StuckBit
    from neuromorphic.chip_network import ChipNetwork
    from neuromorphic.connectome import Connectome, LinearReadout, generated_connectome, reservoir_network
    from neuromorphic.conversion import accuracy_by_step, constant_input, convert, fold_batch_norm
    from neuromorphic.core import CoreTrace, LifCore
    from neuromorphic.crossbar import Adc, Crossbar, CrossbarMatrix, Dac, IdealAdc, IdealDac
    from neuromorphic.crossbar_layers import CrossbarLinear, to_crossbar
    from neuromorphic.cutoff import reduce_steps, run_until_clear
    from neuromorphic.device import ChipRun, NeuromorphicChip
    from neuromorphic.dynamics import Activity, simulate
    from neuromorphic.emulation import ChipModule, emulate
    from neuromorphic.encoders import bernoulli_events, delta_events, latency_events, poisson_events
    from neuromorphic.event_costs import break_even_batch
    from neuromorphic.events import Events
    from neuromorphic.hebbian import HebbianClassifier, SoftHebbianLayer
    from neuromorphic.interconnect import ChipLink, Interconnect, Traffic
    from neuromorphic.learning_engine import LearningEngine
    from neuromorphic.liquid import Liquid
    from neuromorphic.mapping import Mapping, map_network
    from neuromorphic.memory_units import EGRU, LMU, LegendreMemory
    from neuromorphic.memristor import Memristor
    from neuromorphic.network import Neurons, Population, Projection, SpikingNetwork, Synapses
    from neuromorphic.neurons import LoihiNeuron, LoihiState, synaptic_weight
    from neuromorphic.nir import load_nir, to_nir
    from neuromorphic.operation_counts import count_operations, energy_ratio
    from neuromorphic.packets import Packets
    from neuromorphic.plastic_simulation import PlasticSimulation
    from neuromorphic.plasticity import STDP, LearningCounts, ThreeFactor
    from neuromorphic.quantisation import quantise
    from neuromorphic.router import FlitFormat, Mesh, MeshRun, PortTrace, RouterPort, spike_router
    from neuromorphic.spec import ChipSpec
    from neuromorphic.spiking_attention import SpikeDrivenAttention, SpikeDrivenBlock
    from neuromorphic.standard_networks import brunel_network, cuba_network
    from neuromorphic.surrogate import Surrogate
    from neuromorphic.synchronisation import Asynchronous, Barrier, FixedStep, Schedule
    from neuromorphic.torch_network import to_network
    from neuromorphic.workload import SpikingWorkload, spiking_workload

_HOME = {
    "associative_memory": (
        "SparseMemory",
        "overlap",
    ),
    "cells": (
        "AdaptiveLIF",
        "BalancedResonateAndFire",
        "CubaLIF",
        "LIF",
        "Readout",
        "Recurrent",
        "ResonateAndFire",
        "SpikingSequential",
        "Threshold",
        "TimeFirst",
    ),
    "chip": ("ChipActivity",),
    "chip_costs": (
        "ChipCosts",
        "chip_costs",
    ),
    "chip_faults": (
        "ChipFaults",
        "StateFlip",
        "StuckBit",
    ),
    "chip_network": ("ChipNetwork",),
    "connectome": (
        "Connectome",
        "LinearReadout",
        "generated_connectome",
        "reservoir_network",
    ),
    "conversion": (
        "accuracy_by_step",
        "constant_input",
        "convert",
        "fold_batch_norm",
    ),
    "core": (
        "CoreTrace",
        "LifCore",
    ),
    "crossbar": (
        "Adc",
        "Crossbar",
        "CrossbarMatrix",
        "Dac",
        "IdealAdc",
        "IdealDac",
    ),
    "crossbar_layers": (
        "CrossbarLinear",
        "to_crossbar",
    ),
    "cutoff": (
        "reduce_steps",
        "run_until_clear",
    ),
    "device": (
        "ChipRun",
        "NeuromorphicChip",
    ),
    "dynamics": (
        "Activity",
        "simulate",
    ),
    "emulation": (
        "ChipModule",
        "emulate",
    ),
    "encoders": (
        "bernoulli_events",
        "delta_events",
        "latency_events",
        "poisson_events",
    ),
    "event_costs": ("break_even_batch",),
    "events": ("Events",),
    "hebbian": (
        "HebbianClassifier",
        "SoftHebbianLayer",
    ),
    "interconnect": (
        "ChipLink",
        "Interconnect",
        "Traffic",
    ),
    "learning_engine": ("LearningEngine",),
    "liquid": ("Liquid",),
    "mapping": (
        "Mapping",
        "map_network",
    ),
    "memory_units": (
        "EGRU",
        "LMU",
        "LegendreMemory",
    ),
    "memristor": ("Memristor",),
    "network": (
        "Neurons",
        "Population",
        "Projection",
        "SpikingNetwork",
        "Synapses",
    ),
    "neurons": (
        "LoihiNeuron",
        "LoihiState",
        "synaptic_weight",
    ),
    "nir": (
        "load_nir",
        "to_nir",
    ),
    "operation_counts": (
        "count_operations",
        "energy_ratio",
    ),
    "packets": ("Packets",),
    "plastic_simulation": ("PlasticSimulation",),
    "plasticity": (
        "LearningCounts",
        "STDP",
        "ThreeFactor",
    ),
    "quantisation": ("quantise",),
    "router": (
        "FlitFormat",
        "Mesh",
        "MeshRun",
        "PortTrace",
        "RouterPort",
        "spike_router",
    ),
    "spec": ("ChipSpec",),
    "spiking_attention": (
        "SpikeDrivenAttention",
        "SpikeDrivenBlock",
    ),
    "standard_networks": (
        "brunel_network",
        "cuba_network",
    ),
    "surrogate": ("Surrogate",),
    "synchronisation": (
        "Asynchronous",
        "Barrier",
        "FixedStep",
        "Schedule",
    ),
    "torch_network": ("to_network",),
    "workload": (
        "SpikingWorkload",
        "spiking_workload",
    ),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "EGRU",
    "LIF",
    "LMU",
    "STDP",
    "Activity",
    "AdaptiveLIF",
    "Adc",
    "Asynchronous",
    "BalancedResonateAndFire",
    "Barrier",
    "ChipActivity",
    "ChipCosts",
    "ChipFaults",
    "ChipLink",
    "ChipModule",
    "ChipNetwork",
    "ChipRun",
    "ChipSpec",
    "Connectome",
    "CoreTrace",
    "Crossbar",
    "CrossbarLinear",
    "CrossbarMatrix",
    "CubaLIF",
    "Dac",
    "Events",
    "FixedStep",
    "FlitFormat",
    "HebbianClassifier",
    "IdealAdc",
    "IdealDac",
    "Interconnect",
    "LearningCounts",
    "LearningEngine",
    "LegendreMemory",
    "LifCore",
    "LinearReadout",
    "Liquid",
    "LoihiNeuron",
    "LoihiState",
    "Mapping",
    "Memristor",
    "Mesh",
    "MeshRun",
    "NeuromorphicChip",
    "Neurons",
    "Packets",
    "PlasticSimulation",
    "Population",
    "PortTrace",
    "Projection",
    "Readout",
    "Recurrent",
    "ResonateAndFire",
    "RouterPort",
    "Schedule",
    "SoftHebbianLayer",
    "SparseMemory",
    "SpikeDrivenAttention",
    "SpikeDrivenBlock",
    "SpikingNetwork",
    "SpikingSequential",
    "SpikingWorkload",
    "StateFlip",
    "StuckBit",
    "Surrogate",
    "Synapses",
    "ThreeFactor",
    "Threshold",
    "TimeFirst",
    "Traffic",
    "accuracy_by_step",
    "bernoulli_events",
    "break_even_batch",
    "brunel_network",
    "chip_costs",
    "constant_input",
    "convert",
    "count_operations",
    "cuba_network",
    "delta_events",
    "emulate",
    "energy_ratio",
    "fold_batch_norm",
    "generated_connectome",
    "latency_events",
    "load_nir",
    "map_network",
    "overlap",
    "poisson_events",
    "quantise",
    "reduce_steps",
    "reservoir_network",
    "run_until_clear",
    "simulate",
    "spike_router",
    "spiking_workload",
    "synaptic_weight",
    "to_crossbar",
    "to_network",
    "to_nir",
]


def __getattr__(name: str) -> Any:
    """Names load when first used, so that ``import neuromorphic`` costs no numba."""
    if name in _MODULE:
        return getattr(import_module(f"neuromorphic.{_MODULE[name]}"), name)
    raise AttributeError(f"module 'neuromorphic' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_MODULE)
