"""Many faults a second: an emulated network compiled into steps, of which each fault runs again only what it changes."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwsim.faults.incremental.engine import Incremental, IncrementalSite, Outcomes, SiteFaults
    from hwsim.faults.incremental.recording import Unsupported

_HOME = {
    "engine": ("Incremental", "IncrementalSite", "Outcomes", "SiteFaults"),
    "recording": ("Unsupported",),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = ["Incremental", "IncrementalSite", "Outcomes", "SiteFaults", "Unsupported"]


def __getattr__(name: str) -> Any:
    if name in _MODULE:
        return getattr(import_module(f"hwsim.faults.incremental.{_MODULE[name]}"), name)
    raise AttributeError(f"module 'hwsim.faults.incremental' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_MODULE)
