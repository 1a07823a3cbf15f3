"""What the runner itself costs, and how it scales: ``python -m hwsim.jobs.scaling`` prints a table.

Trials that do next to nothing show the cost of handing out, taking back and storing a trial; trials of a known length show how
much of each worker is left for the study.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hwsim.jobs.runner import run_study
from hwsim.jobs.study import Study
from hwsim.views.display import displayed

ROUND_HASHES = 32


@displayed
@dataclass(frozen=True, kw_only=True)
class Point:
    """One measured run.

    Attributes:
        rounds: work of a trial, in rounds of 32 hashes (about 20 µs); 0 for one hash.
        bytes_per_trial: of the finished file.
    """

    workers: int
    batch: int
    aggregated: bool
    rounds: int
    trials: int
    elapsed_s: float
    bytes_per_trial: float

    @property
    def trials_per_s(self) -> float:
        return self.trials / self.elapsed_s


def count_hits(rounds: int, aggregated: bool, state: None, trials: range) -> list[dict[str, Any]]:
    """A trial hits when a hash of its number begins with a small byte: an estimate whose truth is 16/256."""
    hits = [_hit(trial, rounds) for trial in trials]
    return [{"trials": len(hits), "hits": sum(hits)}] if aggregated else [{"hit": hit} for hit in hits]


def _hit(trial: int, rounds: int) -> bool:
    digest = trial.to_bytes(8, "little")
    for _ in range(1 + rounds * ROUND_HASHES):
        digest = hashlib.blake2b(digest, digest_size=8).digest()
    return digest[0] < 16


def measure(trials: int, *, workers: int, batch: int = 1, aggregated: bool = False, rounds: int = 0) -> Point:
    """Run that many trials into a file in a temporary folder. The start of the workers counts as well."""
    study = Study(
        key={"rounds": rounds}, size=trials, batch=batch, aggregated=aggregated, run=partial(count_hits, rounds, aggregated)
    )
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "results.sqlite"
        summary = run_study(study, store=store, workers=workers, progress="silent")
        size_bytes = store.stat().st_size
    return Point(
        workers=workers, batch=batch, aggregated=aggregated, rounds=rounds, trials=trials, elapsed_s=summary.elapsed_s,
        bytes_per_trial=size_bytes / trials,
    )  # fmt: skip


def table(points: Sequence[Point]) -> str:
    """One line a run; the sixth column is the time of a worker that a trial takes, work and all."""
    lines = ["workers  batch  stored       rounds     trials   trials/s  worker µs/trial  bytes/trial"]
    lines += [
        f"{p.workers:>7}  {p.batch:>5}  {'row a batch' if p.aggregated else 'row a trial':<11}  {p.rounds:>6}  {p.trials:>9,}"
        f"  {p.trials_per_s:>9,.0f}  {1e6 * p.workers / p.trials_per_s:>15,.2f}  {p.bytes_per_trial:>11,.3f}"
        for p in points
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure 1, 2, 4 … workers up to the number of cores, or as asked."""
    parser = argparse.ArgumentParser(prog="python -m hwsim.jobs.scaling", description=(__doc__ or "").splitlines()[0])
    cores = os.cpu_count() or 1
    parser.add_argument("--workers", type=int, nargs="+", default=[1 << i for i in range(cores.bit_length()) if 1 << i <= cores])
    parser.add_argument("--trials", type=int, default=200_000, help="of each run; less where a trial is long (default 200000)")
    chosen = parser.parse_args(arguments)
    points = []
    for workers in chosen.workers:
        points += [measure(chosen.trials, workers=workers, batch=batch) for batch in (1, 64)]
        points += [measure(10 * chosen.trials, workers=workers, batch=batch, aggregated=True) for batch in (64, 4096)]
        points += [measure(chosen.trials, workers=workers, rounds=4), measure(chosen.trials // 10, workers=workers, rounds=100)]
    print(table(points))


if __name__ == "__main__":
    main()
