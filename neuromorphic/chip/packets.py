"""Packets of spikes by step: made of spikes and routes, paced by their cores, joined."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.views.display import displaying
from neuromorphic._arrays import integers
from numerics.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

ENDLESS = np.iinfo(np.int32).max


@displaying("count", "steps")
@dataclass(frozen=True, kw_only=True)
class Packets:
    """Packets of a run by step; the network is empty when a step begins.

    Attributes:
        first: (steps + 1,) int64: those of step t are first[t] to first[t + 1].
        source, target: (packets,) int32 cores.
        spike: (packets,) int32; packets in a row with the same number, step and source are of one spike. None: not known.
        release_s: (packets,) when each is ready in its core, from the beginning of its step; None: all at 0. Of one tile's
            packets the earlier gets in first, and of those released at one time the one that is given first.

    Raises:
        InputError: arrays that do not fit together, a release that is negative, not finite or above 10⁶ s, two in one spike.
    """

    first: npt.NDArray[np.int64]
    source: npt.NDArray[np.int32]
    target: npt.NDArray[np.int32]
    spike: npt.NDArray[np.int32] | None = None
    release_s: npt.NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        first = integers("first", self.first)
        count = np.size(self.source)
        if first.ndim != 1 or first.size < 1 or first[0] or (np.diff(first) < 0).any() or first[-1] != count:
            raise InputError(f"first: does not divide the {count} packets among the steps")
        object.__setattr__(self, "first", first)
        for name in ("source", "target", "spike"):
            values = getattr(self, name)
            if values is not None:
                object.__setattr__(self, name, _narrow(name, values, count))
        if self.release_s is not None:
            release = np.ascontiguousarray(self.release_s, np.float64)
            if release.shape != (count,):
                raise InputError(f"release_s: expected shape ({count},), got {release.shape}")
            if count and not (release.min() >= 0 and release.max() <= 1e6):
                raise InputError(f"release_s: expected seconds from 0 to 1e6, got {release.min():g} to {release.max():g}")
            object.__setattr__(self, "release_s", release)

    @classmethod
    def from_arrays(
        cls,
        step: npt.ArrayLike,
        source: npt.ArrayLike,
        target: npt.ArrayLike,
        *,
        steps: int | None = None,
        spike: Any = None,
        release_s: Any = None,
    ) -> Packets:
        """Of the step of each packet, (packets,), ascending; ``steps``: how many there are, up to the last packet's by default.

        Raises:
            InputError: steps that do not ascend, or more than there are; as for the class.
        """
        number = integers("step", step)
        if number.ndim != 1 or (number.size and (number[0] < 0 or (np.diff(number) < 0).any())):
            raise InputError("step: expected ascending numbers ≥ 0, one a packet")
        there = int(number[-1]) + 1 if number.size else 0
        if steps is not None and steps < there:
            raise InputError(f"steps: a packet is in step {there - 1}, got {steps} steps")
        first = np.searchsorted(number, np.arange((there if steps is None else steps) + 1))
        return cls(first=first, source=source, target=target, spike=spike, release_s=release_s)  # type: ignore[arg-type]

    @classmethod
    def of_spikes(
        cls,
        first: npt.ArrayLike,
        neuron: npt.ArrayLike,
        *,
        core_of: npt.ArrayLike,
        route_first: npt.ArrayLike,
        route_core: npt.ArrayLike,
    ) -> Packets:
        """One packet for each core that a spike goes to.

        Args:
            first, neuron: spikes by step, (steps + 1,) and (spikes,).
            core_of: of each neuron, (neurons,).
            route_first, route_core: neuron n sends to the cores route_first[n] to route_first[n + 1] of ``route_core``.

        Raises:
            InputError: neurons without core or route, arrays that do not fit together.
        """
        from neuromorphic.chip._interconnect_kernels import expand

        spikes, begins, routes = (
            integers("first", first),
            integers("route_first", route_first),
            integers("route_core", route_core),
        )
        neurons = _narrow("neuron", neuron, np.size(neuron))
        cores = _narrow("core_of", core_of, np.size(core_of))
        if spikes.ndim != 1 or not spikes.size or spikes[0] or (np.diff(spikes) < 0).any() or spikes[-1] != neurons.size:
            raise InputError(f"first: does not divide the {neurons.size} spikes among the steps")
        if begins.shape != (cores.size + 1,) or begins[0] or (np.diff(begins) < 0).any() or begins[-1] != routes.size:
            raise InputError(f"route_first: does not divide the {routes.size} routes among the {cores.size} neurons")
        if neurons.size and not 0 <= neurons.min() <= neurons.max() < cores.size:
            raise InputError(f"neuron: expected 0 to {cores.size - 1}, got {neurons.min()} to {neurons.max()}")
        sent = np.zeros(spikes.size, np.int64)
        out = [np.empty(0, np.int32)] * 3
        for _ in range(2):  # count, then write
            expand(spikes, neurons, cores, begins, routes.astype(np.int32), sent, *out)
            out = [np.empty(sent[-1], np.int32) for _ in range(3)] if out[0].size != sent[-1] else out
        return cls(first=sent, source=out[0], target=out[1], spike=out[2])

    @property
    def steps(self) -> int:
        """Number of steps."""
        return int(self.first.size - 1)

    @property
    def count(self) -> int:
        """Number of packets."""
        return int(self.source.size)

    def paced(self, interval_s: float, *, begin_s: npt.ArrayLike = 0.0) -> Packets:
        """The same, each core sending its spikes (packets, if those are not known) one after another, in the order given.

        Args:
            interval_s: from one to the next.
            begin_s: when each core has its first, a number or one a core.

        Raises:
            InputError: negative times, or too few cores.
        """
        from neuromorphic.chip._interconnect_kernels import pace

        cores = int(self.source.max(initial=-1)) + 1
        begin = np.asarray(begin_s, np.float64)
        begin = np.ascontiguousarray(np.broadcast_to(begin, cores) if begin.ndim == 0 else begin)
        if begin.ndim != 1 or begin.size < cores:
            raise InputError(f"begin_s: expected a number or one for each of {cores} cores, got shape {begin.shape}")
        release = np.empty(self.count)
        pace(self.first, self.source, or_empty(self.spike, np.int32), begin, float(interval_s), release)
        return replace(self, release_s=release)


def joined(parts: tuple[Packets, ...] | list[Packets]) -> Packets:
    """Packets of several sources, such as populations, in one; within a step in the order of the parts.

    Raises:
        InputError: different numbers of steps, releases or spikes that only some of them have, no parts.
    """
    if not parts or len({part.steps for part in parts}) > 1:
        raise InputError(f"parts: expected packets of equally many steps, got {[part.steps for part in parts]}")
    for name in ("spike", "release_s"):
        if len({getattr(part, name) is None for part in parts}) > 1:
            raise InputError(f"parts: {name}: expected of all or of none")
    counts = np.array([np.diff(part.first) for part in parts])
    first = np.concatenate(([0], np.cumsum(counts.sum(axis=0)))).astype(np.int64)
    ahead = np.cumsum(counts, axis=0) - counts
    made: dict[str, Any] = {"first": first}
    for name in ("source", "target", "spike", "release_s"):
        arrays = [getattr(part, name) for part in parts]
        if arrays[0] is None:
            continue
        made[name] = np.empty(first[-1], arrays[0].dtype)
        numbered = 0
        for k, part in enumerate(parts):
            at = np.repeat(first[:-1] + ahead[k] - part.first[:-1], counts[k]) + np.arange(part.count)
            made[name][at] = arrays[k] + np.int32(numbered) if name == "spike" else arrays[k]
            numbered += int(arrays[k].max(initial=-1)) + 1 if name == "spike" else 0
    return Packets(**made)


def _narrow(name: str, values: Any, count: int) -> npt.NDArray[np.int32]:
    """As int32, without a copy of what is."""
    array = np.asarray(values)
    if array.dtype != np.int32:
        wide = integers(name, array)
        if wide.size and not 0 <= wide.min() <= wide.max() < ENDLESS:
            raise InputError(f"{name}: expected 0 to {ENDLESS - 1}, got {wide.min()} to {wide.max()}")
        array = wide.astype(np.int32)
    if array.shape != (count,):
        raise InputError(f"{name}: expected shape ({count},), got {array.shape}")
    return np.ascontiguousarray(array)


def or_empty(array: Any, dtype: Any) -> Any:
    """The array, or an empty one where there is none, as the kernels take it."""
    return np.empty(0, dtype) if array is None else array
