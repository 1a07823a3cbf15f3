"""A banked DRAM: what its timings leave of the peak bandwidth for a given stream of addresses.

>>> from hwsim.dram import Dram
>>> dram = Dram("ddr4_2400", channels=2)
>>> dram.peak_bytes_per_s
38400000000.0
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numerics._lazy import lazy_names

if TYPE_CHECKING:
    from hwsim.dram.controller import Dram, DramRun
    from hwsim.dram.spec import DramSpec, preset_names
    from hwsim.dram.steady import Pattern
    from hwsim.dram.streams import Stream, block, interleaved

_HOME = {
    ".controller": ("Dram", "DramRun"),
    ".spec": ("DramSpec", "preset_names"),
    ".steady": ("Pattern",),
    ".streams": ("Stream", "block", "interleaved"),
}

__all__ = ["Dram", "DramRun", "DramSpec", "Pattern", "Stream", "block", "interleaved", "preset_names"]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
