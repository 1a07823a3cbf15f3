"""Fault campaigns: networks under bit faults, at low voltage, with protections and what they cost.

The faults themselves, and what they make of numbers, are in ``numerics.faults``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwsim.faults.network import FaultSite, MapOutcome, NetworkUnderTest, Place, PlaceOutcome
    from hwsim.faults.protection_cost import (
        ProtectedEnergy,
        ProtectionCost,
        clipping_cost,
        cost_of,
        duplication_cost,
        hardening_cost,
        parity_cost,
        secded_cost,
    )
    from hwsim.faults.retention import RetentionCurve, get_retention, refresh_power_w, retention_names
    from hwsim.faults.voltage import SramCurve, curve_names, get_curve
    from hwsim.faults.voltage_plan import ScaledEnergy, VoltagePlan
    from hwsim.faults.weak_cells import FailedBits, LeakyCells, WeakCells

_HOME = {
    "network": ("FaultSite", "MapOutcome", "NetworkUnderTest", "Place", "PlaceOutcome"),
    "protection_cost": (
        "ProtectedEnergy", "ProtectionCost", "clipping_cost", "cost_of", "duplication_cost", "hardening_cost", "parity_cost",
        "secded_cost",
    ),
    "retention": ("RetentionCurve", "get_retention", "refresh_power_w", "retention_names"),
    "voltage": ("SramCurve", "curve_names", "get_curve"),
    "voltage_plan": ("ScaledEnergy", "VoltagePlan"),
    "weak_cells": ("FailedBits", "LeakyCells", "WeakCells"),
}  # fmt: skip
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "FailedBits",
    "FaultSite",
    "LeakyCells",
    "MapOutcome",
    "NetworkUnderTest",
    "Place",
    "PlaceOutcome",
    "ProtectedEnergy",
    "ProtectionCost",
    "RetentionCurve",
    "ScaledEnergy",
    "SramCurve",
    "VoltagePlan",
    "WeakCells",
    "clipping_cost",
    "cost_of",
    "curve_names",
    "duplication_cost",
    "get_curve",
    "get_retention",
    "hardening_cost",
    "parity_cost",
    "refresh_power_w",
    "retention_names",
    "secded_cost",
]


def __getattr__(name: str) -> Any:
    if name in _MODULE:
        return getattr(import_module(f"hwsim.faults.{_MODULE[name]}"), name)
    raise AttributeError(f"module 'hwsim.faults' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_MODULE)
