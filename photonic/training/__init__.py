"""Training of physical layers: gradients measured in the mesh, through digital twins, or not needed at all; and what each costs.

>>> import torch
>>> from photonic import training
>>> layer = training.OpticalLayer(4, 2, seed=0)
>>> layer(torch.eye(4)).shape
torch.Size([4, 2])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numerics._lazy import lazy_names

if TYPE_CHECKING:
    from photonic.training.costs import SCHEMES, Scheme, mesh_macs, scheme_work
    from photonic.training.feedback import FeedbackNetwork, Parameters, wide_narrow_wide
    from photonic.training.forward_forward import ForwardForward, cosine_goodness
    from photonic.training.in_situ import InSituLayer, InSituMesh, Measured, Probes
    from photonic.training.optical_layers import MeshLinear, OpticalLayer, UnitPower, random_mesh
    from photonic.training.physical_layer import PhysicalLayer
    from photonic.training.projections import OpticalProjection, scattering, ternarised
    from photonic.training.tallies import Tally, Work, light_time_s, work_energy_j
    from photonic.training.twins import TwinLayer, deploy

_HOME = {
    ".costs": ("SCHEMES", "Scheme", "mesh_macs", "scheme_work"),
    ".feedback": ("FeedbackNetwork", "Parameters", "wide_narrow_wide"),
    ".forward_forward": ("ForwardForward", "cosine_goodness"),
    ".in_situ": ("InSituLayer", "InSituMesh", "Measured", "Probes"),
    ".optical_layers": ("MeshLinear", "OpticalLayer", "UnitPower", "random_mesh"),
    ".physical_layer": ("PhysicalLayer",),
    ".projections": ("OpticalProjection", "scattering", "ternarised"),
    ".tallies": ("Tally", "Work", "light_time_s", "work_energy_j"),
    ".twins": ("TwinLayer", "deploy"),
}
__all__ = [
    "SCHEMES",
    "FeedbackNetwork",
    "ForwardForward",
    "InSituLayer",
    "InSituMesh",
    "Measured",
    "MeshLinear",
    "OpticalLayer",
    "OpticalProjection",
    "Parameters",
    "PhysicalLayer",
    "Probes",
    "Scheme",
    "Tally",
    "TwinLayer",
    "UnitPower",
    "Work",
    "cosine_goodness",
    "deploy",
    "light_time_s",
    "mesh_macs",
    "random_mesh",
    "scattering",
    "scheme_work",
    "ternarised",
    "wide_narrow_wide",
    "work_energy_j",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
