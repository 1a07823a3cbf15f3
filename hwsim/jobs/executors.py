"""Where chunks of trials run: in this process, in processes of our own, on any executor, on a Dask cluster.

Each gives futures, says how many chunks it can use at a time, and can begin anew after its workers died.
"""

from __future__ import annotations

import pickle
import time
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from concurrent.futures.process import ProcessPoolExecutor
from typing import Any, TypeAlias

from hwsim.jobs.study import JobError, Study, fingerprint
from hwsim.jobs.worker import Kit, Parcel, Reply, forget, one_line, start_worker, work
from numerics.errors import InputError

# A kit below this size goes with every chunk; a larger one only to the workers that ask for it.
SMALL_KIT_BYTES = 16 * 1024
CONNECT_S = 10.0
COUNT_EVERY_S = 1.0

# Start and stop of its batches, in turn: one small object to pickle, which Dask does not search for futures.
Chunk: TypeAlias = "array[int]"

DEATH_SHOWS_S = 5.0
"""Time in which a pool must notice that one of its processes died, or its thread end once all did."""


class Workers(ABC):
    """Runs chunks of one study.

    Attributes:
        chunk_s: how long a chunk should take: long enough that sending it costs little.
    """

    chunk_s = 0.25

    def __init__(self, study: Study) -> None:
        self.token = fingerprint(study.identity())
        self.kit: Kit = (study.setup, study.run, study.aggregated)

    @abstractmethod
    def slots(self) -> int:
        """Chunks that can run at the same time, at least 1."""

    def in_flight(self) -> int:
        """Chunks to keep under way: one to run and one to wait for each slot, so that none idles."""
        return 2 * self.slots()

    @abstractmethod
    def submit(self, chunk: Chunk, *, with_kit: bool = False) -> Future[Reply]:
        """Start a chunk. Raises ``BrokenExecutor`` where all workers are gone."""

    def needs_restart(self, error: BaseException) -> bool:
        """Whether a chunk lost with this error means that no worker is left."""
        return isinstance(error, BrokenExecutor)

    def deaths(self, error: BaseException) -> int:
        """Workers that died under a chunk lost with this error."""
        return 1

    def watch(self) -> None:
        """Called several times a second while chunks are under way: bring down what would hang for ever."""
        return

    def trouble(self) -> str:
        """Why nothing may be going on, to be shown; empty where all is well."""
        return ""

    @abstractmethod
    def restart(self, reason: str) -> None:
        """Fresh workers in place of dead ones.

        Raises:
            JobError: there is no way to get any.
        """

    @abstractmethod
    def close(self, *, abandon: bool) -> None:
        """Let go; ``abandon``: without waiting for chunks under way."""


class ThisProcess(Workers):
    """One chunk at a time, here, without a pool."""

    def slots(self) -> int:
        return 1

    def in_flight(self) -> int:
        return 1

    def submit(self, chunk: Chunk, *, with_kit: bool = False) -> Future[Reply]:
        future: Future[Reply] = Future()
        future.set_result(work(self.token, self.kit, chunk))
        return future

    def restart(self, reason: str) -> None:
        raise AssertionError("a chunk run here returns or takes the process along")

    def close(self, *, abandon: bool) -> None:
        forget()


class _Remote(Workers):
    """Workers that need the kit pickled."""

    def __init__(self, study: Study) -> None:
        super().__init__(study)
        try:
            self.parcel = pickle.dumps(self.kit, protocol=pickle.HIGHEST_PROTOCOL)
        except Exception as error:  # pickle raises whatever an object's own methods raise
            raise InputError(
                f"study: setup and run must be picklable to reach the workers, or workers=1: {type(error).__name__}: {error}"
            ) from None

    def _parcel(self, with_kit: bool) -> Parcel:
        return self.parcel if with_kit or len(self.parcel) <= SMALL_KIT_BYTES else None


class LocalProcesses(_Remote):
    """Spawned processes of this machine; each makes the study's state once and ends when this process does, killed or not."""

    def __init__(self, study: Study, *, workers: int) -> None:
        super().__init__(study)
        self._workers = workers
        self._pool = self._start()
        self._death_s: float | None = None

    def slots(self) -> int:
        return self._workers

    def _start(self) -> ProcessPoolExecutor:
        from multiprocessing import get_context

        return ProcessPoolExecutor(
            self._workers, mp_context=get_context("spawn"), initializer=start_worker, initargs=(self.token, self.parcel)
        )

    def submit(self, chunk: Chunk, *, with_kit: bool = False) -> Future[Reply]:
        return self._pool.submit(work, self.token, None, chunk)

    def watch(self) -> None:
        from multiprocessing.connection import wait

        dead = wait([process.sentinel for process in self._processes()], timeout=0)
        self._death_s = (self._death_s or time.monotonic()) if dead else None
        if self._death_s is not None and time.monotonic() - self._death_s > DEATH_SHOWS_S:
            self._kill(self._processes(), self._pool._result_queue)

    def _processes(self) -> list[Any]:
        return list((getattr(self._pool, "_processes", None) or {}).values())

    @staticmethod
    def _kill(processes: list[Any], results: Any) -> None:
        """Kill a pool's processes so that its thread notices, also where one died with half of a result written: the thread then
        waits for the other half as long as anybody, this process among them, could still write it."""
        for process in processes:
            process.kill()
        if results is not None:
            results._writer.close()

    def restart(self, reason: str) -> None:
        self.close(abandon=True)
        self._pool, self._death_s = self._start(), None

    def close(self, *, abandon: bool) -> None:
        processes, results = self._processes(), self._pool._result_queue
        manager = getattr(self._pool, "_executor_manager_thread", None)
        self._pool.shutdown(wait=not abandon, cancel_futures=abandon)
        if abandon:
            self._kill(processes, results)
            if manager is not None:
                # Python would stumble over a thread that ends while this process exits.
                manager.join(DEATH_SHOWS_S)


class Borrowed(_Remote):
    """An executor of the caller's, or a function that gives one each time it is called."""

    def __init__(self, study: Study, executor: Executor | Callable[[], Executor], *, workers: int | None) -> None:
        super().__init__(study)
        self._make = None if isinstance(executor, Executor) else executor
        self._executor = executor if isinstance(executor, Executor) else executor()
        if not isinstance(self._executor, Executor):
            kind = type(self._executor).__name__
            raise InputError(f"executor: expected a concurrent.futures.Executor or a function that gives one, got {kind}")
        known = getattr(self._executor, "_max_workers", None)
        self._slots = workers or (known if isinstance(known, int) and known > 0 else 1)
        self._sent: list[Future[Reply]] = []

    def slots(self) -> int:
        return self._slots

    def submit(self, chunk: Chunk, *, with_kit: bool = False) -> Future[Reply]:
        future = self._executor.submit(work, self.token, self._parcel(with_kit), chunk)
        self._sent = [f for f in self._sent if not f.done()] + [future]
        return future

    def restart(self, reason: str) -> None:
        if self._make is None:
            raise JobError(f"executor: it broke ({reason}); give a function that makes one, to have it made anew")
        self._executor.shutdown(wait=False)
        self._executor = self._make()

    def close(self, *, abandon: bool) -> None:
        for future in self._sent:
            future.cancel()
        if self._make is not None:
            self._executor.shutdown(wait=not abandon, cancel_futures=True)


class SchedulerLostError(ConnectionError):
    """A Dask scheduler that went, or cancelled what it was given."""


class DaskCluster(_Remote):
    """A Dask scheduler's workers, counted anew as they come and go. The scheduler itself moves the chunks of a lost worker."""

    chunk_s = 1.0

    def __init__(self, study: Study, address: str) -> None:
        super().__init__(study)
        try:
            from distributed import Client
        except ImportError:
            raise InputError("scheduler: Dask is not installed; pip install 'hwsim[cluster]'") from None
        try:
            # First without a client: one that finds nobody leaves threads behind and an error when it is collected.
            _call_on(address)
            self._client: Any = Client(address, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as error:  # what distributed raises: nobody answers; no such address
            raise InputError(
                f"scheduler: no Dask scheduler at {address!r} ({one_line(error)}); expected tcp://HOST:PORT"
            ) from None
        self._address = address
        self._counted_s = 0.0
        self._slots = 1
        self._theirs: dict[Future[Reply], Any] = {}

    def slots(self) -> int:
        return max(1, self._count())

    def _count(self) -> int:
        if time.monotonic() - self._counted_s > COUNT_EVERY_S and self._client.status == "running":
            self._slots = sum(self._client.ncores().values())
            self._counted_s = time.monotonic()
        return self._slots

    def trouble(self) -> str:
        if self._client.status != "running":
            return f"no connection to {self._address}"
        return "" if self._count() else f"no workers at {self._address}"

    def deaths(self, error: BaseException) -> int:
        # KilledWorker: Dask had moved the chunk on after each of so many deaths.
        return int(getattr(error, "allowed_failures", 0)) + 1

    def submit(self, chunk: Chunk, *, with_kit: bool = False) -> Future[Reply]:
        # Not through the client's own executor: its futures stay pending for ever when a finished chunk cannot be fetched
        # because its worker has just gone (distributed 2026.8, cfexecutor.py).
        ours: Future[Reply] = Future()
        ours.set_running_or_notify_cancel()
        theirs = self._client.submit(work, self.token, self._parcel(with_kit), chunk, pure=False)
        self._theirs[ours] = theirs
        theirs.add_done_callback(lambda _: self._pass_on(ours, theirs))
        return ours

    def _pass_on(self, ours: Future[Reply], theirs: Any) -> None:
        """In Dask's callback thread. Waits again where the result was lost with its worker and is being computed anew."""
        try:
            ours.set_result(theirs.result())
        except BaseException as error:  # cancelled futures raise what is no Exception
            ours.set_exception(SchedulerLostError(one_line(error)) if theirs.cancelled() else error)
        finally:
            self._theirs.pop(ours, None)

    def needs_restart(self, error: BaseException) -> bool:
        return isinstance(error, SchedulerLostError) or self._client.status != "running"

    def restart(self, reason: str) -> None:
        patience_s = time.monotonic() + CONNECT_S
        while self._client.status != "running" and time.monotonic() < patience_s:
            time.sleep(0.1)
        if self._client.status != "running":
            raise JobError(
                f"scheduler: {self._address} is gone ({reason}); what was stored is kept: start it and run the same study again"
            )

    def close(self, *, abandon: bool) -> None:
        if self._client.status == "running":
            self._client.cancel(list(self._theirs.values()))
        self._client.close(timeout=CONNECT_S)


def _call_on(address: str) -> None:
    """See that a Dask scheduler answers.

    Raises:
        OSError, ValueError: it does not; no such address.
    """
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    from distributed.core import rpc

    async def ask() -> None:
        scheduler = rpc(address, timeout=CONNECT_S)
        try:
            await asyncio.wait_for(scheduler.identity(), CONNECT_S)
        finally:
            await scheduler.close_rpc()

    # In a thread of its own: the caller may be a notebook, whose thread has a loop that runs.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, ask()).result()


def check_workers(*, workers: int | None, executor: Executor | Callable[[], Executor] | None, scheduler: str | None) -> None:
    """See that the arguments go together, before anything is made.

    Raises:
        InputError: an executor and a scheduler at once, workers and a scheduler, workers below 1.
    """
    if workers is not None and (not isinstance(workers, int) or isinstance(workers, bool) or workers < 1):
        raise InputError(f"workers: expected a whole number of at least 1, got {workers!r}")
    if executor is not None and scheduler is not None:
        raise InputError(f"scheduler: {scheduler!r} and an executor were both given; expected one of them")
    if scheduler is not None and workers is not None:
        raise InputError(f"workers: a Dask scheduler has its own, got workers={workers} and scheduler={scheduler!r}")


def choose_workers(
    study: Study, *, workers: int | None, executor: Executor | Callable[[], Executor] | None, scheduler: str | None
) -> Workers:
    """The place a run's arguments name.

    Raises:
        InputError: an executor and a scheduler at once, workers below 1, a study that cannot be pickled, no scheduler there.
    """
    check_workers(workers=workers, executor=executor, scheduler=scheduler)
    if scheduler is not None:
        return DaskCluster(study, scheduler)
    if executor is not None:
        return Borrowed(study, executor, workers=workers)
    return ThisProcess(study) if workers in (None, 1) else LocalProcesses(study, workers=workers or 1)
