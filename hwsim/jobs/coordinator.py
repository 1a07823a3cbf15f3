"""One run of a study: batches out, rows in, looks in trial order, deaths and errors survived."""

from __future__ import annotations

import json
from array import array
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from dataclasses import dataclass

from hwsim.jobs.executors import Workers
from hwsim.jobs.plan import Batch, ChunkSize, Frontier, batches, left_to_do
from hwsim.jobs.progress import Update
from hwsim.jobs.store import Failure, JobStore
from hwsim.jobs.study import JobError, Row, Study
from hwsim.jobs.worker import Reply, one_line

SIGNAL_EVERY_S = 0.2
DRAIN_S = 10.0
MOST_BARREN_STARTS = 3
NOTE_ROWS = 4096

Note = Callable[[Sequence[tuple[int, Row | None]]], str]
"""Trials that are done, a failed one without a row → a text to show. Asked once more, with none, when the run has ended."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """A chunk under way; without batches it only makes the study's state, to see whether a fresh worker lives through that."""

    chunk: list[Batch]
    alone: bool


class Coordinator:
    """Holds what is done, what waits and what is under way. ``run`` is called once.

    Attributes:
        done: trials finished, those found in the store included.
        looks_made: each look and whether it said stop.
    """

    def __init__(self, study: Study, store: JobStore, *, retries: int, most_failed: int, note: Note | None) -> None:
        self.study = study
        self.store = store
        self.retries = retries
        self.most_failed = most_failed
        self.note = note
        self.note_text = ""
        self.looks_made: list[tuple[int, bool]] = []
        self.retried = 0
        self.deaths = 0
        self._frontier = Frontier()
        gaps, position = left_to_do(study, store.done(), self._frontier)
        self._gaps = [(batch.start, batch.stop) for batch in gaps]
        self._waiting = deque(gaps)
        self._fresh = batches(study, start=position)
        self._next_fresh = position
        self.resumed = self.done = position - sum(stop - start for start, stop in self._gaps)
        self._looks = deque(study.looks)
        self._suspects: deque[list[Batch]] = deque()
        self._probed = False
        self._barren_starts = 0
        self._under_way: dict[Future[Reply], _Sent] = {}
        self._rows: list[tuple[int, str]] = []
        self._failures: list[Failure] = []
        self._fatal = ""
        self._broken = ""
        self._failed = 0

    def run(self, make_workers: Callable[[], Workers], *, stop_asked: Callable[[], bool], update: Update) -> int:
        """Run to the end; gives the number of trials at which it ended. ``make_workers`` is called only if there is work.

        Returns early, with what is done stored, once ``stop_asked``: then ``store.end`` is ``None``.
        """
        self._show_stored()
        end = self._look()
        if end is not None:
            self._end(end, update)
            return end
        update(self.done, self.note_text, self._goal)
        self.store.reopen(self._gaps)
        self._failed = self.store.counts()[1]
        self._workers = make_workers()
        self._sizes = ChunkSize(self._workers.chunk_s)
        try:
            while end is None:
                if stop_asked():
                    self._collect([future for future in self._under_way if future.done()])
                    break
                self._fill()
                finished, _ = wait(self._under_way, timeout=SIGNAL_EVERY_S, return_when=FIRST_COMPLETED)
                self._collect(finished)
                self._workers.watch()
                end = self._look()
                update(self.done, " · ".join(filter(None, (self.note_text, self._workers.trouble()))), self._goal)
            if end is not None:
                self._end(end, update)
        except BaseException:
            self._workers.close(abandon=True)
            raise
        self._workers.close(abandon=bool(self._under_way))
        return self._frontier.reached if end is None else end

    @property
    def _goal(self) -> int:
        """Trials at the next look."""
        return self._looks[0] if self._looks else self.study.size

    def _end(self, end: int, update: Update) -> None:
        self.store.finish(end)
        update(end, self.note_text if self.note is None else self.note([]), end)

    def _look(self) -> int | None:
        """The trials at which to end, if that is now."""
        while self._looks and self._frontier.reached >= self._looks[0]:
            size = self._looks.popleft()
            decide = self.study.decide
            stop = decide is not None and bool(decide(self.store.results(0, size), size))
            self.looks_made.append((size, stop))
            if stop:
                return size
        return self.study.size if self._frontier.reached >= self.study.size else None

    def _fill(self) -> None:
        if self._suspects:
            # One at a time and nothing beside it, so that a death has one cause.
            if not self._under_way:
                if not self._probed:
                    self._send([], alone=True)
                else:
                    self._send(self._suspects.popleft(), alone=True)
            return
        while len(self._under_way) < self._workers.in_flight():
            chunk = self._next_chunk()
            if not chunk:
                assert self._under_way, "trials that are neither done nor anywhere"
                return
            if not self._send(chunk):
                return

    def _next_chunk(self) -> list[Batch]:
        """What waits to be done again first, as looks wait for it; then fresh batches, up to the next look."""
        left = len(self._waiting) - (-(self.study.size - self._next_fresh) // self.study.batch)
        count = self._sizes.next(left=max(left, 1), slots=self._workers.slots())
        chunk: list[Batch] = []
        while self._waiting and len(chunk) < count:
            chunk.append(self._waiting.popleft())
        while len(chunk) < count:
            fresh = next(self._fresh, None)
            if fresh is None:
                break
            chunk.append(Batch(*fresh))
            self._next_fresh = fresh[1]
            if self._looks and self._next_fresh == self._looks[0]:
                break
        return chunk

    def _send(self, chunk: list[Batch], *, alone: bool = False, with_kit: bool = False) -> bool:
        bounds = array("q", [bound for batch in chunk for bound in (batch.start, batch.stop)])
        try:
            future = self._workers.submit(bounds, with_kit=with_kit)
        except BrokenExecutor as error:
            self._broken = one_line(error)
            self._lose(_Sent(chunk, alone), self._broken)
            return False
        self._under_way[future] = _Sent(chunk, alone)
        return True

    def _collect(self, finished: Collection[Future[Reply]]) -> None:
        """Take in what came back and commit it; begin with fresh workers where they died."""
        probe_lost = ""
        for future in finished:
            sent = self._under_way.pop(future)
            error = _error(future)
            if error is None:
                self._take(sent, future.result())
            else:
                reason = one_line(error)
                self._lose(sent, reason, deaths=self._workers.deaths(error))
                if self._workers.needs_restart(error):
                    self._broken = reason
                elif not sent.chunk:
                    probe_lost = reason
        if self._broken:
            # The others are lost with it, but for those that had just ended.
            wait(self._under_way, timeout=DRAIN_S)
            lost, self._under_way = self._under_way, {}
            for future, sent in lost.items():
                if future.done() and _error(future) is None:
                    self._take(sent, future.result())
                else:
                    self._lose(sent, self._broken)
        self._commit()
        if self._fatal:
            raise JobError(self._fatal)
        if self._broken or probe_lost:
            self._barren(self._broken or probe_lost)
        if self._broken:
            reason, self._broken, self._probed = self._broken, "", False
            self._workers.restart(reason)

    def _commit(self) -> None:
        if self._rows or self._failures:
            self.store.add(self._rows, self._failures)
        lost = [(trial, None) for f in self._failures if f.final for trial in range(f.trial, f.stop)]
        if (self._rows or lost) and self.note is not None:
            self.note_text = self.note([*((trial, json.loads(row)) for trial, row in self._rows), *lost])
        self._rows, self._failures = [], []

    def _take(self, sent: _Sent, reply: Reply) -> None:
        if reply.missing:
            self._send(sent.chunk, alone=sent.alone, with_kit=True)
            return
        if reply.setup_error:
            self._fatal = f"study: setup failed in a worker: {reply.setup_error}"
            return
        self._probed = True
        self._barren_starts = 0
        self._sizes.learn(len(sent.chunk), reply.elapsed_s)
        for batch, outcome in zip(sent.chunk, reply.outcomes, strict=True):
            if outcome.rows is not None:
                self._rows.extend(zip(range(batch.start, batch.stop), outcome.rows, strict=False))
                self._finish(batch)
            else:
                batch.raised += 1
                last = batch.raised > self.retries
                self._fail(batch, outcome.error, outcome.traceback, last=last)
                if not last:
                    self._waiting.appendleft(batch)

    def _lose(self, sent: _Sent, reason: str, *, deaths: int = 1) -> None:
        self.deaths += deaths
        for batch in reversed(sent.chunk):
            batch.died += deaths
            last = sent.alone and len(sent.chunk) == 1 and batch.died > self.retries
            self._fail(batch, f"lost with its worker: {reason}", "", last=last)
        if not sent.alone and all(batch.died < 2 for batch in sent.chunk):
            self._waiting.extendleft(reversed(sent.chunk))
        elif not sent.alone:
            self._suspects.append(sent.chunk)
        elif len(sent.chunk) > 1:
            self._suspects.extendleft([batch] for batch in reversed(sent.chunk))
        elif sent.chunk and sent.chunk[0].died <= self.retries:
            self._suspects.appendleft(sent.chunk)

    def _fail(self, batch: Batch, error: str, traceback: str, *, last: bool) -> None:
        """Record an attempt; after the last one, go on with the batch's trials one by one, or give its one trial up."""
        self.retried += 1
        divisible = batch.stop - batch.start > 1 and not self.study.aggregated
        final = last and not divisible
        attempt = batch.raised + batch.died
        self._failures.append(
            Failure(trial=batch.start, stop=batch.stop, attempt=attempt, final=final, error=error, traceback=traceback)
        )
        if final:
            self._failed += batch.stop - batch.start
            self._finish(batch)
            if self._failed > self.most_failed:
                self._fatal = (
                    f"study: {self._failed} trials failed, more than most_failed = {self.most_failed}; "
                    f"the last: trial {batch.start}: {error}"
                )
        elif last:
            singles = [Batch(trial, trial + 1) for trial in range(batch.start, batch.stop)]
            if batch.raised > self.retries:
                self._waiting.extendleft(reversed(singles))
            else:
                self._suspects.extendleft([single] for single in reversed(singles))

    def _finish(self, batch: Batch) -> None:
        self._frontier.finish(batch.start, batch.stop)
        self.done += batch.stop - batch.start

    def _barren(self, reason: str) -> None:
        self._barren_starts += 1
        if self._barren_starts > MOST_BARREN_STARTS:
            raise JobError(
                f"workers: they failed {self._barren_starts} times in a row and finished nothing ({reason}); a script that "
                "starts a run must do so under 'if __name__ == \"__main__\":'; what was stored is kept"
            )

    def _show_stored(self) -> None:
        if self.note is None:
            return
        page: list[tuple[int, Row | None]] = [
            (trial, None) for f in self.store.failures(final=True) for trial in range(f.trial, f.stop)
        ]
        for pair in self.store.results():
            page.append(pair)
            if len(page) == NOTE_ROWS:
                self.note_text = self.note(page)
                page = []
        if page:
            self.note_text = self.note(page)


def _error(future: Future[Reply]) -> BaseException | None:
    try:
        return future.exception()
    except CancelledError as error:
        return error
