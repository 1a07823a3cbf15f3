"""SystemVerilog units, their benches, and the Python that runs them beside the models of the other packages.

>>> import rtl
>>> [c.name for c in rtl.configurations(["mac_int8"])]
['wrapping', 'saturating']
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numerics._lazy import lazy_names

if TYPE_CHECKING:
    from rtl.bench import Bench, Latency, Port, Trace
    from rtl.verification import Configuration, Difference, Result, configurations, unit_names, verify

_HOME = {
    ".bench": ("Bench", "Latency", "Port", "Trace"),
    ".verification": ("Configuration", "Difference", "Result", "configurations", "unit_names", "verify"),
}
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

__getattr__, __dir__ = lazy_names(__name__, _HOME)
