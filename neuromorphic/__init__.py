"""Spiking networks and the chips that run them: networks, their training and learning, mapping, on-chip network, energy.

>>> import neuromorphic
>>> neuron = neuromorphic.LoihiNeuron(decay_u=4095, decay_v=163, threshold_mantissa=25)
>>> state = neuron.state(2)
>>> neuron.step(state, neuromorphic.synaptic_weight([10, 30])).tolist()
[False, True]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numerics._lazy import lazy_names

if TYPE_CHECKING:
    from neuromorphic.cells.conversion import accuracy_by_step, constant_input, convert, fold_batch_norm
    from neuromorphic.cells.cutoff import reduce_steps, run_until_clear
    from neuromorphic.cells.event_costs import break_even_batch
    from neuromorphic.cells.memory_units import EGRU, LMU, LegendreMemory
    from neuromorphic.cells.neuron_cells import (
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
    from neuromorphic.cells.operation_counts import count_operations, energy_ratio
    from neuromorphic.cells.spiking_attention import SpikeDrivenAttention, SpikeDrivenBlock
    from neuromorphic.cells.surrogate import Surrogate
    from neuromorphic.cells.torch_network import to_network
    from neuromorphic.chip.campaign import ChipCampaign, ChipFaultRates
    from neuromorphic.chip.costs import ChipCosts, chip_costs
    from neuromorphic.chip.emulation import ChipModule, emulate
    from neuromorphic.chip.faults import ChipFaults, StateFlip, StuckBit
    from neuromorphic.chip.interconnect import ChipLink, Interconnect, Traffic
    from neuromorphic.chip.mapping import Mapping, map_network
    from neuromorphic.chip.network import ChipNetwork
    from neuromorphic.chip.packets import Packets
    from neuromorphic.chip.quantisation import quantise
    from neuromorphic.chip.running import ChipActivity
    from neuromorphic.chip.spec import ChipSpec
    from neuromorphic.chip.synchronisation import Asynchronous, Barrier, FixedStep, Schedule
    from neuromorphic.core import CoreTrace, LifCore
    from neuromorphic.crossbars.contrastive import Alignment, align
    from neuromorphic.crossbars.costs import CHOO, ISAAC, CostTable, Counts
    from neuromorphic.crossbars.crossbar import Adc, Crossbar, CrossbarMatrix, Dac, IdealAdc, IdealDac
    from neuromorphic.crossbars.layers import CrossbarLinear, to_crossbar
    from neuromorphic.crossbars.liquid import Liquid, Probe
    from neuromorphic.crossbars.memristor import (
        FlickerReading,
        GaussianProgramming,
        GaussianReading,
        IdealLevels,
        IdealProgramming,
        IdealReading,
        IdealRetention,
        IdealYield,
        Levels,
        LognormalProgramming,
        Memristor,
        PowerLawDrift,
        StateDependentDrift,
        StuckCells,
        WriteVerify,
        phase_change_memory,
    )
    from neuromorphic.crossbars.wires import IdealWires, Wires
    from neuromorphic.device import ChipRun, NeuromorphicChip
    from neuromorphic.dynamics import Activity, simulate
    from neuromorphic.encoders import bernoulli_events, delta_events, latency_events, poisson_events
    from neuromorphic.events import Events
    from neuromorphic.learning.associative_memory import SparseMemory, overlap
    from neuromorphic.learning.connectome import Connectome, LinearReadout, generated_connectome, reservoir_network
    from neuromorphic.learning.hebbian import HebbianClassifier, SoftHebbianLayer
    from neuromorphic.learning.learning_engine import LearningEngine
    from neuromorphic.learning.plastic_simulation import PlasticSimulation
    from neuromorphic.learning.plasticity import STDP, LearningCounts, ThreeFactor
    from neuromorphic.network import Neurons, Population, Projection, SpikingNetwork, Synapses
    from neuromorphic.neurons import LoihiNeuron, LoihiState, synaptic_weight
    from neuromorphic.nir import load_nir, to_nir
    from neuromorphic.router import FlitFormat, Mesh, MeshRun, PortTrace, RouterPort, spike_router
    from neuromorphic.standard_networks import brunel_network, cuba_network
    from neuromorphic.workload import SpikingWorkload, spiking_workload

_HOME = {
    ".cells.conversion": ("accuracy_by_step", "constant_input", "convert", "fold_batch_norm"),
    ".cells.cutoff": ("reduce_steps", "run_until_clear"),
    ".cells.event_costs": ("break_even_batch",),
    ".cells.memory_units": ("EGRU", "LMU", "LegendreMemory"),
    ".cells.neuron_cells": (
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
    ".cells.operation_counts": ("count_operations", "energy_ratio"),
    ".cells.spiking_attention": ("SpikeDrivenAttention", "SpikeDrivenBlock"),
    ".cells.surrogate": ("Surrogate",),
    ".cells.torch_network": ("to_network",),
    ".chip.campaign": ("ChipCampaign", "ChipFaultRates"),
    ".chip.costs": ("ChipCosts", "chip_costs"),
    ".chip.emulation": ("ChipModule", "emulate"),
    ".chip.faults": ("ChipFaults", "StateFlip", "StuckBit"),
    ".chip.interconnect": ("ChipLink", "Interconnect", "Traffic"),
    ".chip.mapping": ("Mapping", "map_network"),
    ".chip.network": ("ChipNetwork",),
    ".chip.packets": ("Packets",),
    ".chip.quantisation": ("quantise",),
    ".chip.running": ("ChipActivity",),
    ".chip.spec": ("ChipSpec",),
    ".chip.synchronisation": ("Asynchronous", "Barrier", "FixedStep", "Schedule"),
    ".core": ("CoreTrace", "LifCore"),
    ".crossbars.contrastive": ("Alignment", "align"),
    ".crossbars.costs": ("CHOO", "CostTable", "Counts", "ISAAC"),
    ".crossbars.crossbar": ("Adc", "Crossbar", "CrossbarMatrix", "Dac", "IdealAdc", "IdealDac"),
    ".crossbars.layers": ("CrossbarLinear", "to_crossbar"),
    ".crossbars.liquid": ("Liquid", "Probe"),
    ".crossbars.memristor": (
        "FlickerReading",
        "GaussianProgramming",
        "GaussianReading",
        "IdealLevels",
        "IdealProgramming",
        "IdealReading",
        "IdealRetention",
        "IdealYield",
        "Levels",
        "LognormalProgramming",
        "Memristor",
        "PowerLawDrift",
        "StateDependentDrift",
        "StuckCells",
        "WriteVerify",
        "phase_change_memory",
    ),
    ".crossbars.wires": ("IdealWires", "Wires"),
    ".device": ("ChipRun", "NeuromorphicChip"),
    ".dynamics": ("Activity", "simulate"),
    ".encoders": ("bernoulli_events", "delta_events", "latency_events", "poisson_events"),
    ".events": ("Events",),
    ".learning.associative_memory": ("SparseMemory", "overlap"),
    ".learning.connectome": ("Connectome", "LinearReadout", "generated_connectome", "reservoir_network"),
    ".learning.hebbian": ("HebbianClassifier", "SoftHebbianLayer"),
    ".learning.learning_engine": ("LearningEngine",),
    ".learning.plastic_simulation": ("PlasticSimulation",),
    ".learning.plasticity": ("LearningCounts", "STDP", "ThreeFactor"),
    ".network": ("Neurons", "Population", "Projection", "SpikingNetwork", "Synapses"),
    ".neurons": ("LoihiNeuron", "LoihiState", "synaptic_weight"),
    ".nir": ("load_nir", "to_nir"),
    ".router": ("FlitFormat", "Mesh", "MeshRun", "PortTrace", "RouterPort", "spike_router"),
    ".standard_networks": ("brunel_network", "cuba_network"),
    ".workload": ("SpikingWorkload", "spiking_workload"),
}
__all__ = [
    "CHOO",
    "EGRU",
    "ISAAC",
    "LIF",
    "LMU",
    "STDP",
    "Activity",
    "AdaptiveLIF",
    "Adc",
    "Alignment",
    "Asynchronous",
    "BalancedResonateAndFire",
    "Barrier",
    "ChipActivity",
    "ChipCampaign",
    "ChipCosts",
    "ChipFaultRates",
    "ChipFaults",
    "ChipLink",
    "ChipModule",
    "ChipNetwork",
    "ChipRun",
    "ChipSpec",
    "Connectome",
    "CoreTrace",
    "CostTable",
    "Counts",
    "Crossbar",
    "CrossbarLinear",
    "CrossbarMatrix",
    "CubaLIF",
    "Dac",
    "Events",
    "FixedStep",
    "FlickerReading",
    "FlitFormat",
    "GaussianProgramming",
    "GaussianReading",
    "HebbianClassifier",
    "IdealAdc",
    "IdealDac",
    "IdealLevels",
    "IdealProgramming",
    "IdealReading",
    "IdealRetention",
    "IdealWires",
    "IdealYield",
    "Interconnect",
    "LearningCounts",
    "LearningEngine",
    "LegendreMemory",
    "Levels",
    "LifCore",
    "LinearReadout",
    "Liquid",
    "LognormalProgramming",
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
    "PowerLawDrift",
    "Probe",
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
    "StateDependentDrift",
    "StateFlip",
    "StuckBit",
    "StuckCells",
    "Surrogate",
    "Synapses",
    "ThreeFactor",
    "Threshold",
    "TimeFirst",
    "Traffic",
    "Wires",
    "WriteVerify",
    "accuracy_by_step",
    "align",
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
    "phase_change_memory",
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

__getattr__, __dir__ = lazy_names(__name__, _HOME)
