"""Hardware simulation and emulation: one workload, many machines.

>>> import hwsim
>>> hwsim.simulate(model, example_input, device="tpu_v1").print()  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hwsim._distribution import VERSION, check_owner

check_owner()
__version__ = VERSION

if TYPE_CHECKING:
    from hwsim import zoo as zoo
    from hwsim.api import load_workload, simulate
    from hwsim.device import Device
    from hwsim.planning import MemoryPlan, plan_memory
    from hwsim.registry import device_names, get_device
    from hwsim.report import Report
    from hwsim.serving import Serving, serve
    from hwsim.tracing.torch import trace
    from hwsim.workload import Tensor, Workload
    from numerics.errors import InputError
    from numerics.recipes import Recipe

_HOME = {
    "Device": "hwsim.device",
    "InputError": "numerics.errors",
    "MemoryPlan": "hwsim.planning",
    "Recipe": "numerics.recipes",
    "Report": "hwsim.report",
    "Serving": "hwsim.serving",
    "Tensor": "hwsim.workload",
    "Workload": "hwsim.workload",
    "device_names": "hwsim.registry",
    "get_device": "hwsim.registry",
    "load_workload": "hwsim.api",
    "plan_memory": "hwsim.planning",
    "serve": "hwsim.serving",
    "simulate": "hwsim.api",
    "trace": "hwsim.tracing.torch",
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
    "get_device",
    "load_workload",
    "plan_memory",
    "serve",
    "simulate",
    "trace",
    "zoo",
]


def __getattr__(name: str) -> Any:
    """Names load when first used, so that ``import hwsim`` costs no torch, numba or pandas."""
    if name == "zoo":
        return import_module("hwsim.zoo")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'hwsim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
