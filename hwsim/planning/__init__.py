"""The peak of a workload's working memory: what lives when, what shares memory, where it lies."""

from hwsim.planning.buffers import Buffer
from hwsim.planning.chains import Chain, Tiling
from hwsim.planning.plan import MemoryPlan, plan_memory

__all__ = ["Buffer", "Chain", "MemoryPlan", "Tiling", "plan_memory"]
