"""How the time steps of a chip follow one another: with a barrier, by a clock of fixed steps, or on their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.views.display import displayed
from neuromorphic._arrays import integers
from numerics.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt


@displayed
@dataclass(frozen=True)
class Schedule:
    """When the steps of a run happened, seconds.

    Attributes:
        begin_s, end_s: (steps,) when each began and when all its work was done.
        total_s: length of the run.
        step_time_s: of a fixed step; None: there is none.
        excess_s: (steps,) by how much a step's own work is longer than ``step_time_s``; 0 without one.
        late_s: (steps,) by how much it was done after the tick that should have ended it, its own excess or that of steps before;
            0 without ``step_time_s``.
    """

    begin_s: npt.NDArray[np.float64]
    end_s: npt.NDArray[np.float64]
    total_s: float
    step_time_s: float | None
    excess_s: npt.NDArray[np.float64]
    late_s: npt.NDArray[np.float64]

    @property
    def overloaded(self) -> npt.NDArray[np.int64]:
        """Steps that did not fit into their time."""
        return np.flatnonzero(self.excess_s > 0)

    @property
    def steps_late(self) -> npt.NDArray[np.int64]:
        """Steps that were done too late."""
        return np.flatnonzero(self.late_s > 0)

    def note(self) -> str:
        """What to print about the overload, empty where there is none."""
        if not self.steps_late.size:
            return ""
        worst, own = int(np.argmax(self.late_s)), self.overloaded.size
        return (
            f"overload: {own} of {self.excess_s.size} steps took longer than their {self.step_time_s:g} s (by up to "
            f"{self.excess_s.max():.3g} s); {self.steps_late.size} were done late, step {worst} by {self.late_s[worst]:.3g} s"
        )


@displayed
@dataclass(frozen=True)
class Barrier:
    """A step ends when all tiles are done and have told one another.

    The news floods the mesh, so its time grows with the mesh's diameter (the most hops between two tiles); between the numbers of
    tiles that were measured, and beyond the largest, it is taken as linear in it, which is our assumption. Of Loihi, a range is
    published: 113 to 465 ns for 1 to 32 tiles, so 35 ns a hop (M. Davies et al., "Loihi: a neuromorphic manycore processor with
    on-chip learning", IEEE Micro 38(1), 2018, table 2).

    Attributes:
        time_ns: number of tiles → nanoseconds.
        columns, rows: of the mesh, which is filled row by row.

    Raises:
        InputError: no times, negative ones, or more tiles than the mesh has.
    """

    time_ns: Mapping[int, float]
    columns: int
    rows: int

    def __post_init__(self) -> None:
        for name in ("columns", "rows"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise InputError(f"{name}: expected an integer ≥ 1, got {value!r}")
        if not self.time_ns:
            raise InputError("time_ns: expected nanoseconds by number of tiles, got none")
        for tiles, time in self.time_ns.items():
            if not 1 <= tiles <= self.columns * self.rows:
                raise InputError(f"time_ns: expected 1 to {self.columns * self.rows} tiles, got {tiles}")
            if not 0 <= time < np.inf:
                raise InputError(f"time_ns: expected nanoseconds ≥ 0, got {time!r} for {tiles} tiles")

    @classmethod
    def loihi(cls) -> Barrier:
        """Loihi's."""
        return cls({1: 113.0, 32: 465.0}, 8, 4)

    @cached_property
    def _known(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Diameters and their times; where several numbers of tiles have one diameter, that of the most tiles."""
        by_diameter = {self.diameter(tiles): self.time_ns[tiles] for tiles in sorted(self.time_ns)}
        return np.array(list(by_diameter)), np.array(list(by_diameter.values()), np.float64)

    def diameter(self, tiles: int) -> int:
        """Most hops between two of the first so many tiles."""
        if not 1 <= tiles <= self.columns * self.rows:
            raise InputError(f"tiles: expected 1 to {self.columns * self.rows}, got {tiles}")
        number = np.arange(tiles)
        return diameter(number % self.columns, number // self.columns)

    @property
    def known_diameter(self) -> int:
        """The largest that was measured; beyond it, times are extrapolated."""
        return int(self._known[0].max())

    def time_s(self, tiles: int | None = None, *, diameter: int | None = None) -> float:
        """Seconds of a barrier of the first so many tiles, or of any whose diameter is given.

        Raises:
            InputError: neither or both are given, or tiles that are not there.
        """
        if (tiles is None) == (diameter is None):
            raise InputError("time_s: expected either tiles or a diameter")
        hops = self.diameter(tiles) if tiles is not None else diameter
        assert hops is not None
        if hops < 0:
            raise InputError(f"diameter: expected an integer ≥ 0, got {hops!r}")
        known, times = self._known
        if hops > known[-1] and known.size > 1:
            slope = (times[-1] - times[-2]) / (known[-1] - known[-2])
            return float(times[-1] + slope * (hops - known[-1])) * 1e-9
        return float(np.interp(hops, known, times)) * 1e-9

    def schedule(self, busy_s: npt.ArrayLike, *, tiles: int | None = None, diameter: int | None = None) -> Schedule:
        """Steps one after another, a barrier at the end of each.

        Args:
            busy_s: (steps,) time of each until its last core and packet is done.
            tiles, diameter: that take part, as for ``time_s``.

        Raises:
            InputError: times that are negative or not finite.
        """
        busy = _times("busy_s", busy_s, 1)
        barrier = self.time_s(tiles, diameter=diameter)
        ends = np.cumsum(busy + barrier)
        none = np.zeros(busy.size)
        begin = np.concatenate((np.zeros(1), ends))[: busy.size]
        return Schedule(begin, begin + busy, float(ends[-1]) if ends.size else 0.0, None, none, none)


@displayed
@dataclass(frozen=True)
class FixedStep:
    """A clock ticks every ``step_time_s``, as TrueNorth's and SpiNNaker's every millisecond.

    A step begins with its tick. One that is not done by the next tick delays the steps behind it, which begin as soon as the one
    before is done, until they have caught up; nothing is left out.

    Attributes:
        step_time_s: from tick to tick.

    Raises:
        InputError: a time not above 0.
    """

    step_time_s: float

    def __post_init__(self) -> None:
        if not 0 < self.step_time_s < np.inf:
            raise InputError(f"step_time_s: expected seconds > 0, got {self.step_time_s!r}")

    def schedule(self, busy_s: npt.ArrayLike) -> Schedule:
        """Steps with so much work, (steps,) seconds each.

        Raises:
            InputError: times that are negative or not finite.
        """
        busy = _times("busy_s", busy_s, 1)
        tick = np.arange(busy.size) * self.step_time_s
        begin, done = np.empty(busy.size), 0.0
        # Sums of many steps carry rounding errors, which must not pass for lateness.
        rounding = 1e-9 * self.step_time_s
        for t in range(busy.size):
            begin[t] = done if done > tick[t] + rounding else tick[t]
            done = begin[t] + busy[t]
        end = begin + busy
        late = np.maximum(end - (tick + self.step_time_s), 0.0)
        late[late < rounding] = 0.0
        total = max(float(end[-1]), busy.size * self.step_time_s) if busy.size else 0.0
        return Schedule(begin, end, total, self.step_time_s, np.maximum(busy - self.step_time_s, 0.0), late)


@displayed
@dataclass(frozen=True)
class Asynchronous:
    """No barrier and no clock: a core begins a step when it is done with its last one, and so are all that send to it.

    With every core sending to every other this is a barrier that takes no time; with none, each core runs on its own. Steps may
    also be tied to the time at which the world's events come in.

    Attributes:
        step_time_s: the events of step t come in at t · step_time_s; None: all are there from the beginning.

    Raises:
        InputError: a time not above 0.
    """

    step_time_s: float | None = None

    def __post_init__(self) -> None:
        if self.step_time_s is not None:
            FixedStep(self.step_time_s)

    def schedule(self, busy_s: npt.ArrayLike, *, sender: npt.ArrayLike = (), receiver: npt.ArrayLike = ()) -> Schedule:
        """Steps of cores, (steps, cores) seconds of work each.

        Args:
            busy_s: work of each core in each step.
            sender, receiver: (pairs,) cores of which one waits for the other's last step.

        Raises:
            InputError: times that are negative or not finite, cores that are not there.
        """
        busy = _times("busy_s", busy_s, 2)
        steps, cores = busy.shape
        pairs: dict[str, Any] = {"sender": integers("sender", sender), "receiver": integers("receiver", receiver)}
        for name, core in pairs.items():
            if core.shape != pairs["sender"].shape or core.ndim != 1:
                raise InputError(f"{name}: expected one core a pair, got shape {core.shape}")
            if core.size and not 0 <= core.min() <= core.max() < cores:
                raise InputError(f"{name}: expected cores 0 to {cores - 1}, got {core.min()} to {core.max()}")
        done = np.zeros(cores)
        begin_s, end_s = np.zeros(steps), np.zeros(steps)
        for t in range(steps):
            ready = done.copy()
            np.maximum.at(ready, pairs["receiver"], done[pairs["sender"]])
            if self.step_time_s is not None:
                ready = np.maximum(ready, t * self.step_time_s)
            done = ready + busy[t]
            begin_s[t], end_s[t] = ready.min(initial=np.inf) if cores else 0.0, done.max(initial=0.0)
        total = float(end_s.max(initial=0.0))
        excess = late = np.zeros(steps)
        if self.step_time_s is not None:
            total = max(total, steps * self.step_time_s)
            excess = np.maximum(busy.max(axis=1, initial=0.0) - self.step_time_s, 0.0)
            late = np.maximum(end_s - (np.arange(steps) + 1) * self.step_time_s, 0.0)
            late[late < 1e-9 * self.step_time_s] = 0.0
        return Schedule(begin_s, end_s, total, self.step_time_s, excess, late)


def diameter(x: npt.ArrayLike, y: npt.ArrayLike) -> int:
    """Most hops between two of the tiles at (x, y), (tiles,) each, on a mesh.

    Raises:
        InputError: no tiles, or numbers that are no integers.
    """
    column, row = integers("x", x), integers("y", y)
    if not column.size or column.shape != row.shape:
        raise InputError(f"x: expected as many as y, and at least one, got {column.size} and {row.size}")
    return int(max(np.ptp(column + row), np.ptp(column - row)))


def _times(name: str, values: npt.ArrayLike, axes: int) -> npt.NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    if array.ndim != axes:
        raise InputError(f"{name}: expected {'steps' if axes == 1 else 'steps and cores'} as axes, got shape {array.shape}")
    if array.size and not (array.min() >= 0 and np.isfinite(array).all()):
        raise InputError(f"{name}: expected finite seconds ≥ 0, got {array.min():g} to {array.max():g}")
    return array
