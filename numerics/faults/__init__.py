"""Bit faults in emulated formats: which bits fail, what becomes of the numbers, and what protects them.

>>> import numpy, numerics
>>> from numerics.faults import FaultMap, corrupt
>>> one = numpy.float32([1.0, 1.0])
>>> corrupt(one, "bf16", FaultMap.from_places([1], [14], "flip")).tolist()  # the exponent's highest bit
[1.0, inf]
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numerics.faults.fields import bit_fields, bit_positions, code_bits
    from numerics.faults.injection import Injection, inject
    from numerics.faults.maps import FaultMap, corrupt, draw_map, draw_places, stream
    from numerics.faults.models import BitFaults, Burst
    from numerics.faults.protection import Clipping, Duplication, Hardening, Parity, Protection, SecdedWords

_HOME = {
    "fields": ("bit_fields", "bit_positions", "code_bits"),
    "injection": ("Injection", "inject"),
    "maps": ("FaultMap", "corrupt", "draw_map", "draw_places", "stream"),
    "models": ("BitFaults", "Burst"),
    "protection": ("Clipping", "Duplication", "Hardening", "Parity", "Protection", "SecdedWords"),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "BitFaults",
    "Burst",
    "Clipping",
    "Duplication",
    "FaultMap",
    "Hardening",
    "Injection",
    "Parity",
    "Protection",
    "SecdedWords",
    "bit_fields",
    "bit_positions",
    "code_bits",
    "corrupt",
    "draw_map",
    "draw_places",
    "inject",
    "stream",
]


def __getattr__(name: str) -> Any:
    if name in _MODULE:
        return getattr(import_module(f"numerics.faults.{_MODULE[name]}"), name)
    raise AttributeError(f"module 'numerics.faults' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_MODULE)
