"""Many faults a second: an emulated network compiled into steps, of which each fault runs again only what it changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numerics._lazy import lazy_names

if TYPE_CHECKING:
    from hwsim.faults.incremental.engine import Incremental, IncrementalSite, Outcomes, SiteFaults
    from hwsim.faults.incremental.recording import Unsupported

_HOME = {
    ".engine": ("Incremental", "IncrementalSite", "Outcomes", "SiteFaults"),
    ".recording": ("Unsupported",),
}
__all__ = ["Incremental", "IncrementalSite", "Outcomes", "SiteFaults", "Unsupported"]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
