"""Bit faults in emulated formats: which bits fail, what becomes of the numbers, and what protects them.

>>> import numpy, numerics
>>> from numerics.faults import FaultMap, corrupt
>>> one = numpy.float32([1.0, 1.0])
>>> corrupt(one, "bf16", FaultMap.from_places([1], [14], "flip")).tolist()  # the exponent's highest bit
[1.0, inf]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numerics._lazy import lazy_names

if TYPE_CHECKING:
    from numerics.faults.fields import bit_fields, bit_positions, code_bits
    from numerics.faults.injection import Injection, inject
    from numerics.faults.maps import FaultMap, corrupt, draw_map, draw_places, stream
    from numerics.faults.models import BitFaults, Burst
    from numerics.faults.protection import Clipping, Duplication, Hardening, Parity, Protection, SecdedWords

_HOME = {
    ".fields": ("bit_fields", "bit_positions", "code_bits"),
    ".injection": ("Injection", "inject"),
    ".maps": ("FaultMap", "corrupt", "draw_map", "draw_places", "stream"),
    ".models": ("BitFaults", "Burst"),
    ".protection": ("Clipping", "Duplication", "Hardening", "Parity", "Protection", "SecdedWords"),
}
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

__getattr__, __dir__ = lazy_names(__name__, _HOME)
