"""How one kernel is timed: warmed up, in runs that are long for the clock, the median of many of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from hwsim.views.display import displayed

TimedRun = Callable[[int], float]
"""Number of calls → seconds that they took together."""


@displayed
@dataclass(frozen=True)
class Sample:
    """The time of one call.

    Attributes:
        time_s: median over the runs.
        std_s: standard deviation over the runs.
        min_s: the fastest run; far below the median where something else used the machine.
        repetitions: runs.
        calls: calls in each.
    """

    time_s: float
    std_s: float
    min_s: float
    repetitions: int
    calls: int


@displayed
@dataclass(frozen=True)
class Method:
    """How long to warm up, to run and to repeat.

    Attributes:
        warm_up_s: least time spent before anything counts.
        run_s: what a run should take: long for the clock's resolution, short beside what disturbs it.
        kernel_s: time spent on the runs of one kernel.
        least_runs, most_runs: bounds of their number.
        most_calls: bound of the calls in one run.
    """

    warm_up_s: float = 0.05
    run_s: float = 1e-3
    kernel_s: float = 0.25
    least_runs: int = 7
    most_runs: int = 200
    most_calls: int = 4096

    def __str__(self) -> str:
        return (
            f"warm-up {self.warm_up_s:g} s, runs of about {self.run_s:g} s (one call at least), "
            f"{self.least_runs} to {self.most_runs} of them in about {self.kernel_s:g} s; time_s is their median for one call"
        )

    def sample(self, timed: TimedRun) -> Sample:
        """Time a kernel.

        The calls in a warm-up run double until it is as long as a run should be: the first call may compile, choose an algorithm
        or fault in memory, so that its time says nothing about the next.
        """
        calls, spent = 1, timed(1)
        while True:
            last = timed(calls)
            spent += last
            if last < self.run_s and calls < self.most_calls:
                calls = min(2 * calls, self.most_calls)
            elif spent >= self.warm_up_s or last <= 0:
                break
        calls = self._calls(last / calls)
        times: list[float] = []
        spent = 0.0
        while len(times) < self.least_runs or (spent < self.kernel_s and len(times) < self.most_runs):
            took = timed(calls)
            spent += took
            times.append(took / calls)
            if len(times) == self.least_runs and calls < (better := self._calls(statistics.median(times))) // 2:
                calls, times, spent = better, [], 0.0  # the warm-up ended on a slow call
        return Sample(statistics.median(times), statistics.stdev(times), min(times), len(times), calls)

    def _calls(self, call_s: float) -> int:
        """Calls that make a run long enough."""
        return max(1, min(math.ceil(self.run_s / call_s), self.most_calls)) if call_s > 0 else self.most_calls
