"""Where a workload's tensors lie and when they live, and which of several machines its layers run on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numerics._lazy import lazy_names

if TYPE_CHECKING:
    from hwsim.planning.assignment import Assignment, Handover, assign
    from hwsim.planning.buffers import Buffer
    from hwsim.planning.chains import Chain, Tiling
    from hwsim.planning.plan import MemoryPlan, plan_memory

_HOME = {
    ".assignment": ("Assignment", "Handover", "assign"),
    ".buffers": ("Buffer",),
    ".chains": ("Chain", "Tiling"),
    ".plan": ("MemoryPlan", "plan_memory"),
}

__all__ = ["Assignment", "Buffer", "Chain", "Handover", "MemoryPlan", "Tiling", "assign", "plan_memory"]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
