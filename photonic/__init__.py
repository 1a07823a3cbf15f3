"""Meshes of interferometers, optical engines and what they cost: decomposition, propagation, gradients, machines.

>>> import numpy as np
>>> import photonic
>>> mesh = photonic.decompose(np.array([[0, 1], [1, 0]]))
>>> np.allclose(mesh.apply(np.array([1.0, 0.0])), [0, 1])
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numerics._lazy import lazy_names

if TYPE_CHECKING:
    from photonic.analog.chain import Chain, reseed
    from photonic.analog.conversion import layer_list, to_analog
    from photonic.analog.layers import AnalogSettings
    from photonic.calibration import Bench, align, descend, fidelity, refine, self_configure
    from photonic.campaign import PhotonicCampaign
    from photonic.decomposition import decompose
    from photonic.detection import (
        Converter,
        DeadDetectors,
        ExtinctionRatio,
        Homodyne,
        LaserNoise,
        Modulator,
        Receiver,
        ShotNoise,
        ThermalNoise,
    )
    from photonic.device import PhotonicEngine
    from photonic.emulation.faults import PhotonicFaults
    from photonic.emulation.layers import LayerRecord
    from photonic.emulation.unit import OpticalUnit
    from photonic.fabrication import FabricatedMesh, fabricate
    from photonic.gradient import apply_cells, apply_mesh
    from photonic.imperfections import (
        Drift,
        ExponentialKernel,
        Ideal,
        Imperfections,
        InsertionLoss,
        MeasuredKernel,
        PhaseError,
        PhaseQuantisation,
        SplitterError,
        StuckShifters,
        ThermalCrosstalk,
    )
    from photonic.layouts import MeshLayout, layout
    from photonic.mesh import Mesh, propagate
    from photonic.propagation import CellChain, UnitaryChain, mzi_cells
    from photonic.spec import PhotonicSpec
    from photonic.svd_engine import SvdEngine
    from photonic.training.forward_forward import ForwardForward
    from photonic.training.in_situ import InSituLayer
    from photonic.training.optical_layers import OpticalLayer
    from photonic.training.physical_layer import PhysicalLayer
    from photonic.training.projections import OpticalProjection

_HOME = {
    ".analog.chain": ("Chain", "reseed"),
    ".analog.conversion": ("layer_list", "to_analog"),
    ".analog.layers": ("AnalogSettings",),
    ".calibration": ("Bench", "align", "descend", "fidelity", "refine", "self_configure"),
    ".campaign": ("PhotonicCampaign",),
    ".decomposition": ("decompose",),
    ".detection": (
        "Converter",
        "DeadDetectors",
        "ExtinctionRatio",
        "Homodyne",
        "LaserNoise",
        "Modulator",
        "Receiver",
        "ShotNoise",
        "ThermalNoise",
    ),
    ".device": ("PhotonicEngine",),
    ".emulation.faults": ("PhotonicFaults",),
    ".emulation.layers": ("LayerRecord",),
    ".emulation.unit": ("OpticalUnit",),
    ".fabrication": ("FabricatedMesh", "fabricate"),
    ".gradient": ("apply_cells", "apply_mesh"),
    ".imperfections": (
        "Drift",
        "ExponentialKernel",
        "Ideal",
        "Imperfections",
        "InsertionLoss",
        "MeasuredKernel",
        "PhaseError",
        "PhaseQuantisation",
        "SplitterError",
        "StuckShifters",
        "ThermalCrosstalk",
    ),
    ".layouts": ("MeshLayout", "layout"),
    ".mesh": ("Mesh", "propagate"),
    ".propagation": ("CellChain", "UnitaryChain", "mzi_cells"),
    ".spec": ("PhotonicSpec",),
    ".svd_engine": ("SvdEngine",),
    ".training.forward_forward": ("ForwardForward",),
    ".training.in_situ": ("InSituLayer",),
    ".training.optical_layers": ("OpticalLayer",),
    ".training.physical_layer": ("PhysicalLayer",),
    ".training.projections": ("OpticalProjection",),
}
__all__ = [
    "AnalogSettings",
    "Bench",
    "CellChain",
    "Chain",
    "Converter",
    "DeadDetectors",
    "Drift",
    "ExponentialKernel",
    "ExtinctionRatio",
    "FabricatedMesh",
    "ForwardForward",
    "Homodyne",
    "Ideal",
    "Imperfections",
    "InSituLayer",
    "InsertionLoss",
    "LaserNoise",
    "LayerRecord",
    "MeasuredKernel",
    "Mesh",
    "MeshLayout",
    "Modulator",
    "OpticalLayer",
    "OpticalProjection",
    "OpticalUnit",
    "PhaseError",
    "PhaseQuantisation",
    "PhotonicCampaign",
    "PhotonicEngine",
    "PhotonicFaults",
    "PhotonicSpec",
    "PhysicalLayer",
    "Receiver",
    "ShotNoise",
    "SplitterError",
    "StuckShifters",
    "SvdEngine",
    "ThermalCrosstalk",
    "ThermalNoise",
    "UnitaryChain",
    "align",
    "apply_cells",
    "apply_mesh",
    "decompose",
    "descend",
    "fabricate",
    "fidelity",
    "layer_list",
    "layout",
    "mzi_cells",
    "propagate",
    "refine",
    "reseed",
    "self_configure",
    "to_analog",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
