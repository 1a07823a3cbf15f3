"""A banked DRAM: what its timings leave of the peak bandwidth for a given stream of addresses.

>>> from hwsim.dram import Dram
>>> dram = Dram("ddr4_2400", channels=2)
>>> dram.peak_bytes_per_s
38400000000.0
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwsim.dram.controller import Dram, DramRun
    from hwsim.dram.spec import DramSpec, preset_names
    from hwsim.dram.steady import Pattern
    from hwsim.dram.streams import Stream, block, interleaved

_HOME = {
    "Dram": "hwsim.dram.controller",
    "DramRun": "hwsim.dram.controller",
    "DramSpec": "hwsim.dram.spec",
    "Pattern": "hwsim.dram.steady",
    "Stream": "hwsim.dram.streams",
    "block": "hwsim.dram.streams",
    "interleaved": "hwsim.dram.streams",
    "preset_names": "hwsim.dram.spec",
}

__all__ = ["Dram", "DramRun", "DramSpec", "Pattern", "Stream", "block", "interleaved", "preset_names"]


def __getattr__(name: str) -> Any:
    """Names load when first used: specs are read without numba."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'hwsim.dram' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
