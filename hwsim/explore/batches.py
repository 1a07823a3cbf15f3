"""Batches of configurations on any workers, each kept in a file until its caller has it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hwsim.explore.evaluation import Metrics, evaluate_many, identity_of
from hwsim.explore.space import Configuration

Evaluate = Callable[[Configuration], Mapping[str, Any]]

POOLS = 3
"""Times that a broken pool is replaced for one batch."""


@dataclass(frozen=True)
class Place:
    """Where configurations are evaluated, as ``run_study`` is told."""

    workers: int | None = None
    executor: Executor | Callable[[], Executor] | None = None
    scheduler: str | None = None


@contextmanager
def places(
    workers: int | None, executor: Executor | Callable[[], Executor] | None, scheduler: str | None
) -> Iterator[Callable[[], Place]]:
    """Processes that live as long as the block rather than a batch; a pool that broke is made anew when next asked for."""
    if workers in (None, 1) or executor is not None or scheduler is not None:
        yield lambda: Place(workers, executor, scheduler)
        return
    from concurrent.futures.process import ProcessPoolExecutor
    from multiprocessing import get_context

    from hwsim.jobs.worker import start_worker

    pools: list[ProcessPoolExecutor] = []

    def place() -> Place:
        if not pools or getattr(pools[-1], "_broken", False):
            pools.append(
                ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=start_worker, initargs=("", b""))
            )
        return Place(executor=pools[-1])

    try:
        yield place
    finally:
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def kept_in(store: str | Path | None) -> Iterator[Path]:
    """The store asked for, or one that goes at the end."""
    if store is not None:
        yield Path(store)
        return
    with tempfile.TemporaryDirectory(prefix="hwsim-explore-") as folder:
        yield Path(folder) / "trials.sqlite"


def same(evaluate: Evaluate) -> Evaluate:
    """The state of a worker: the evaluator as it came."""
    return evaluate


def _some(configurations: Sequence[Configuration], evaluate: Evaluate, trials: range) -> list[Metrics]:
    return evaluate_many(evaluate, [configurations[i] for i in trials])


def evaluate_batch(
    evaluate: Evaluate,
    configurations: Sequence[Configuration],
    *,
    label: str,
    path: Path | None,
    place: Callable[[], Place],
    note: Callable[[Sequence[tuple[int, Any]]], str] | None = None,
) -> list[Metrics]:
    """Metrics of each configuration.

    Args:
        label: of the batch among others of the same evaluator.
        path: the file that keeps what is done, to go on with after a kill; it is left to the caller.
        place: where to evaluate, asked anew when a pool broke.
        note: as of ``run_study``.
    """
    from hwsim.jobs.runner import run_study
    from hwsim.jobs.store import JobStore
    from hwsim.jobs.study import JobError, Study

    together = hasattr(evaluate, "many") and place() in (Place(), Place(workers=1))
    study = Study(
        key={"explore": "batch", "label": label, "configurations": list(configurations), "evaluate": identity_of(evaluate)},
        size=len(configurations),
        setup=partial(same, evaluate),
        run=partial(_some, list(configurations)),
        batch=len(configurations) if together else 1,
    )
    with kept_in(path) as store:
        for attempt in range(POOLS):
            here = place()
            try:
                run_study(
                    study, store=store, workers=here.workers, executor=here.executor, scheduler=here.scheduler, note=note,
                    progress="silent", most_failed=len(configurations),
                )  # fmt: skip
                break
            except JobError:
                if place() == here or attempt == POOLS - 1:
                    raise
        kept = JobStore.read(store)
        rows = dict(kept.results())
        failures = {t: one.error for one in kept.failures(final=True) for t in range(one.trial, one.stop)}
    return [rows.get(i) or {"error": f"failed: {failures.get(i, 'no result')}"} for i in range(len(configurations))]


@dataclass
class Anew:
    """Evaluates what is looked at a second time, on the same workers; with a store each batch keeps a file beside it.

    Attributes:
        store: of the sweep or search.
        place: where to evaluate.
        progress: as of ``run_study``.
        label: of the progress.
    """

    store: str | Path | None
    place: Callable[[], Place]
    progress: str
    label: str

    def __post_init__(self) -> None:
        self._batches = 0

    def __call__(self, evaluate: Evaluate, configurations: Sequence[Configuration]) -> list[Metrics]:
        """Metrics of each configuration."""
        from hwsim.jobs.progress import show_progress

        label = f"rescored-{self._batches:04d}"
        self._batches += 1
        path = None if self.store is None else Path(self.store).with_name(f"{Path(self.store).name}.{label}")
        with show_progress(f"{self.label}, anew", len(configurations), mode=self.progress) as update:
            done = 0

            def note(pairs: Sequence[tuple[int, Any]]) -> str:
                nonlocal done
                done += len(pairs)
                update(min(done, len(configurations)), "")
                return ""

            return evaluate_batch(evaluate, configurations, label=label, path=path, place=self.place, note=note)
