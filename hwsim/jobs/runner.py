"""Runs a study to its end: gives out batches, keeps what comes back, looks where it was declared, and survives what dies.

The table is a function of the study alone. Trials are judged in trial order and never in order of completion: a look at ``n``
waits until every trial below ``n`` is done, and what workers did beyond a look that stops the study is dropped.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from hwsim.jobs.coordinator import Coordinator, Note
from hwsim.jobs.executors import check_workers, choose_workers
from hwsim.jobs.progress import show_progress
from hwsim.jobs.store import JobStore
from hwsim.jobs.study import Study
from hwsim.jobs.worker import one_thread_here
from hwsim.views.display import displaying
from numerics.errors import InputError


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM; everything that was done is stored. Its text says how far the run came and how it goes on."""


@displaying("trials_per_s")
@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """How a run ended.

    Attributes:
        end: trials in the final table: ``size``, or the look that stopped it.
        looks: each look that was made and whether it said stop.
        failed: trials below ``end`` that have no result; the store's failures say why.
        resumed: trials that were in the file before.
        ran: trials done by this run, those beyond ``end`` included.
        retried: attempts of this run that failed.
        deaths: times that workers died under a chunk.
        elapsed_s: wall-clock time of this run.
    """

    end: int
    looks: tuple[tuple[int, bool], ...]
    failed: int
    resumed: int
    ran: int
    retried: int
    deaths: int
    elapsed_s: float

    @property
    def trials_per_s(self) -> float:
        return self.ran / self.elapsed_s if self.elapsed_s > 0 else 0.0


def run_study(
    study: Study,
    *,
    store: str | Path,
    workers: int | None = None,
    executor: Executor | Callable[[], Executor] | None = None,
    scheduler: str | None = None,
    retries: int = 2,
    most_failed: int = 100,
    retry_failed: bool = False,
    note: Note | None = None,
    progress: str = "auto",
    label: str = "trials",
) -> RunSummary:
    """Run the study into the file, or go on where the file ends.

    Args:
        store: the file; made if it is not there.
        workers: spawned processes of this machine; 1, the default, runs the trials in this process.
        executor: any ``concurrent.futures`` executor, or a function that makes one (so that it can be made anew when it breaks);
            it stays the caller's to shut down, unless a function made it.
        scheduler: ``tcp://HOST:PORT`` of a Dask scheduler; its workers need this package.
        retries: further attempts at a batch that raised or whose worker died. After these it is run trial by trial, each with
            as many attempts, and a trial that still fails is recorded as failed for good. A batch under way when workers died
            twice is run alone from then on, so that only the one at fault is blamed.
        most_failed: give up when more trials than this have failed.
        retry_failed: run trials again that an earlier run recorded as failed.
        note: gets the ``(trial, row)`` pairs just stored, in order of completion and on resuming those in the file first, with
            None for the row of a trial that failed for good; gives a text to show. Called with no pairs when the run has ended.
            For display only.
        progress: ``auto``, ``bar``, ``lines`` or ``silent``, on standard error.
        label: name of the run in the progress.

    Raises:
        InputError: arguments that contradict each other, a file in use or of another study, a study that cannot be pickled.
        JobError: the disk is full, the study's setup fails, workers die before any trial, too many trials fail. What was stored
            is kept and the same call goes on from there.
        Interrupted: Ctrl-C or SIGTERM.
    """
    for name, value in (("retries", retries), ("most_failed", most_failed)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise InputError(f"{name}: expected a whole number of at least 0, got {value!r}")
    check_workers(workers=workers, executor=executor, scheduler=scheduler)
    start_s = time.monotonic()
    here = workers in (None, 1) and executor is None and scheduler is None
    with JobStore.write(store, study.identity()) as opened, _gentle_stop() as stop_asked:
        if retry_failed:
            opened.forget_failures()
        run = Coordinator(study, opened, retries=retries, most_failed=most_failed, note=note)
        with (
            show_progress(label, study.size, done=run.done, mode=progress) as update,
            one_thread_here() if here else nullcontext(),
        ):
            try:
                end = run.run(
                    lambda: choose_workers(study, workers=workers, executor=executor, scheduler=scheduler),
                    stop_asked=stop_asked,
                    update=update,
                )
            except InputError:
                if opened.counts() == (0, 0):
                    # Of a study that never began no file stays, so that the mended call is not held against it.
                    opened.discard()
                raise
        if opened.end is None:
            raise Interrupted(
                f"interrupted: {run.done:,} of {study.size:,} trials are kept in {str(opened.path)!r}; run it again to go on"
            )
        return RunSummary(
            end=end,
            looks=tuple(run.looks_made),
            failed=opened.counts()[1],
            resumed=run.resumed,
            ran=run.done - run.resumed,
            retried=run.retried,
            deaths=run.deaths,
            elapsed_s=time.monotonic() - start_s,
        )


@contextmanager
def _gentle_stop() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C or SIGTERM only sets a mark that the run sees after the chunk in hand; the second interrupts."""
    asked = False

    def mark(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    # Python lets only the main thread set handlers; a run in another thread leaves signals to it.
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, mark) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
