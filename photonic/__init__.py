"""Meshes of interferometers, optical engines and what they cost: decomposition, propagation, gradients, machines.

>>> import numpy as np
>>> import photonic
>>> mesh = photonic.decompose(np.array([[0, 1], [1, 0]]))
>>> np.allclose(mesh.apply(np.array([1.0, 0.0])), [0, 1])
True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from photonic.decomposition import decompose
    from photonic.device import PhotonicEngine
    from photonic.gradient import apply_cells, apply_mesh
    from photonic.layouts import MeshLayout, layout
    from photonic.mesh import Mesh, propagate
    from photonic.propagation import CellChain, UnitaryChain, mzi_cells
    from photonic.spec import PhotonicSpec
    from photonic.svd_engine import SvdEngine

_HOME = {
    "decomposition": ("decompose",),
    "device": ("PhotonicEngine",),
    "gradient": (
        "apply_cells",
        "apply_mesh",
    ),
    "layouts": (
        "MeshLayout",
        "layout",
    ),
    "mesh": (
        "Mesh",
        "propagate",
    ),
    "propagation": (
        "CellChain",
        "UnitaryChain",
        "mzi_cells",
    ),
    "spec": ("PhotonicSpec",),
    "svd_engine": ("SvdEngine",),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "CellChain",
    "Mesh",
    "MeshLayout",
    "PhotonicEngine",
    "PhotonicSpec",
    "SvdEngine",
    "UnitaryChain",
    "apply_cells",
    "apply_mesh",
    "decompose",
    "layout",
    "mzi_cells",
    "propagate",
]


def __getattr__(name: str) -> Any:
    """Names load when first used, so that ``import photonic`` costs no numba."""
    if name in _MODULE:
        return getattr(import_module(f"photonic.{_MODULE[name]}"), name)
    raise AttributeError(f"module 'photonic' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_MODULE)
