"""Hardware simulation and emulation: one workload, many machines.

>>> import hwsim
>>> hwsim.simulate(model, example_input, device="tpu_v1").print()  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwsim._distribution import VERSION, check_owner

check_owner()  # before anything that would fail less clearly

from hwsim import explore, zoo  # noqa: E402
from numerics._lazy import lazy_names  # noqa: E402

__version__ = VERSION

if TYPE_CHECKING:
    from hwsim.api import load_workload, simulate
    from hwsim.device import Device
    from hwsim.explore.searches import search
    from hwsim.explore.sweeps import sweep
    from hwsim.planning import MemoryPlan, plan_memory
    from hwsim.registry import device_names, get_device
    from hwsim.report import Report
    from hwsim.serving import Serving, serve
    from hwsim.tracing.torch import trace
    from hwsim.workload import Tensor, Workload
    from numerics.errors import InputError
    from numerics.recipes import Recipe

_HOME = {
    ".api": ("load_workload", "simulate"),
    ".device": ("Device",),
    ".explore.searches": ("search",),
    ".explore.sweeps": ("sweep",),
    ".planning": ("MemoryPlan", "plan_memory"),
    ".registry": ("device_names", "get_device"),
    ".report": ("Report",),
    ".serving": ("Serving", "serve"),
    ".tracing.torch": ("trace",),
    ".workload": ("Tensor", "Workload"),
    "numerics.errors": ("InputError",),
    "numerics.recipes": ("Recipe",),
}

__all__ = [
    "Device",
    "InputError",
    "MemoryPlan",
    "Recipe",
    "Report",
    "Serving",
    "Tensor",
    "Workload",
    "__version__",
    "device_names",
    "explore",
    "get_device",
    "load_workload",
    "plan_memory",
    "search",
    "serve",
    "simulate",
    "sweep",
    "trace",
    "zoo",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
