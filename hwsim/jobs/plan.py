"""Which trials go together, which are done, and how many batches to send at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hwsim.jobs.study import Study

GROWTH = 4
MOST_BATCHES = 20_000


@dataclass(slots=True)
class Batch:
    """Trials ``start … stop-1`` of one call, and how often the call failed."""

    start: int
    stop: int
    raised: int = 0
    died: int = 0


def batches(study: Study, *, start: int = 0) -> Iterator[tuple[int, int]]:
    """The batches in trial order, from the one that begins at ``start``: cut at every look, so that a look sees whole ones."""
    cuts = [look for look in study.looks if look > start]
    if not cuts or cuts[-1] != study.size:
        cuts.append(study.size)
    for cut in cuts:
        while start < cut:
            stop = min(start + study.batch, cut)
            yield start, stop
            start = stop


class Frontier:
    """How far trials are done without a gap, whatever the order they are finished in."""

    def __init__(self) -> None:
        self.reached = 0
        self._beyond: dict[int, int] = {}

    def finish(self, start: int, stop: int) -> None:
        self._beyond[start] = stop
        while self.reached in self._beyond:
            self.reached = self._beyond.pop(self.reached)


def left_to_do(study: Study, stored: Iterable[int], frontier: Frontier) -> tuple[list[Batch], int]:
    """The gaps among the stored trials, which are told to ``frontier``.

    Args:
        stored: increasing numbers of the trials with a row or a final failure (the first of each batch where aggregated).

    Returns:
        Batches to run again, and the trial from which on nothing is stored.
    """
    gaps: list[Batch] = []
    ids = iter(stored)
    trial = next(ids, None)
    position = 0
    for start, stop in batches(study):
        if trial is None:
            break
        found = 0
        while trial is not None and trial < stop:
            found += 1
            trial = next(ids, None)
        # A batch half done was being run trial by trial; it is done again from its beginning.
        if found == (1 if study.aggregated else stop - start):
            frontier.finish(start, stop)
        else:
            gaps.append(Batch(start, stop))
        position = stop
    return gaps, position


class ChunkSize:
    """Batches to send at a time, so that a chunk takes about ``target_s``: sending costs little, and little is lost by a kill."""

    def __init__(self, target_s: float) -> None:
        self.target_s = target_s
        self._batch_s: float | None = None
        self._last = 1

    def learn(self, count: int, elapsed_s: float) -> None:
        if count:
            batch_s = elapsed_s / count
            self._batch_s = batch_s if self._batch_s is None else 0.5 * (self._batch_s + batch_s)

    def next(self, *, left: int, slots: int) -> int:
        """At most the ``left`` batches' fair share, so that all workers end together."""
        if self._batch_s is not None:
            wanted = self.target_s / self._batch_s if self._batch_s > 0 else MOST_BATCHES
            self._last = int(max(1, min(wanted, GROWTH * self._last, MOST_BATCHES)))
        return max(1, min(self._last, -(-left // (2 * slots))))
