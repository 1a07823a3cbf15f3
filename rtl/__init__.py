"""SystemVerilog units, their benches, and the Python that runs them beside the models of the other packages.

>>> import rtl
>>> [c.name for c in rtl.configurations(["mac_int8"])]
['wrapping', 'saturating']
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rtl.bench import Bench, Latency, Port, Trace
    from rtl.verification import Configuration, Difference, Result, configurations, unit_names, verify

_HOME = {
    "bench": ("Bench", "Latency", "Port", "Trace"),
    "verification": ("Configuration", "Difference", "Result", "configurations", "unit_names", "verify"),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Bench",
    "Configuration",
    "Difference",
    "Latency",
    "Port",
    "Result",
    "Trace",
    "configurations",
    "unit_names",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Names load when first used."""
    if name in _MODULE:
        return getattr(import_module(f"rtl.{_MODULE[name]}"), name)
    raise AttributeError(f"module 'rtl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
