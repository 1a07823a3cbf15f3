"""One faulty bit a trial: which bits, and the strata that they are drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwsim.faults.network import FaultSite, NetworkUnderTest
from hwsim.faults.sampling import SamplingPlan, Stratum
from hwsim.views.display import displayed
from numerics.errors import InputError, unknown_name
from numerics.faults import BitFaults

if TYPE_CHECKING:
    from numerics.faults.models import FaultKind


@displayed
@dataclass(frozen=True, kw_only=True)
class SingleBits:
    """One faulty bit a trial.

    Attributes:
        targets: roles of the tensors whose bits fail: ``weight``, ``activation``, ``kv_cache``, ``elementwise``.
        kind: as in ``BitFaults``.
        modules: pattern of the modules' paths.
        bits: which bits of a code: None for all, a field, or positions.
        allocation: of the trials to the strata: ``proportional`` to their bits, or ``equal``. Estimates weigh strata by their
            bits either way.
    """

    targets: tuple[str, ...] = ("weight", "activation")
    kind: FaultKind = "flip"
    modules: str = "*"
    bits: str | tuple[int, ...] | None = None
    allocation: str = "proportional"

    def __post_init__(self) -> None:
        known = ("weight", "activation", "kv_cache", "elementwise")
        if not self.targets:
            raise InputError("targets: expected at least one role, got none")
        for target in self.targets:
            if target not in known:
                raise unknown_name("targets", target, known)
        BitFaults(kind=self.kind, count=1)
        if self.allocation not in ("proportional", "equal"):
            raise unknown_name("allocation", self.allocation, ("proportional", "equal"))


def site_name(site: FaultSite) -> str:
    return f"{site.layer}/{site.key.role}"


def single_sites(network: NetworkUnderTest, single: SingleBits) -> list[FaultSite]:
    from fnmatch import fnmatchcase

    found = [site for site in network.sites(single.targets) if fnmatchcase(site.key.module, single.modules)]
    if not found:
        raise InputError(f"faults: the network has no {' or '.join(single.targets)} in modules that match {single.modules!r}")
    return found


def sampling_plan(sites: Sequence[FaultSite], single: SingleBits, images: int, seed: int) -> SamplingPlan:
    from numerics.faults import bit_positions

    strata = [Stratum(site_name(site), bit, site.elements) for site in sites for bit in bit_positions(site.format, single.bits)]
    return SamplingPlan(tuple(strata), images=images, seed=seed, allocation=single.allocation)
