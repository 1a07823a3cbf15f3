"""Numbered, independent, deterministic trials, run on any workers and kept in one file that survives a kill.

A ``Study`` says what a trial is, ``run_study`` runs it and ``JobStore.read`` gives the rows back:

>>> from hwsim.jobs import JobStore, Study, run_study
>>> study = Study(key={"what": "squares"}, size=4, run=squares)  # doctest: +SKIP
>>> run_study(study, store="squares.sqlite", workers=2)  # doctest: +SKIP
>>> list(JobStore.read("squares.sqlite").results())  # doctest: +SKIP
[(0, {'square': 0}), (1, {'square': 1}), (2, {'square': 4}), (3, {'square': 9})]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numerics._lazy import lazy_names

if TYPE_CHECKING:
    from hwsim.jobs.runner import Interrupted, RunSummary, run_study
    from hwsim.jobs.store import Failure, JobStore
    from hwsim.jobs.study import JobError, Study

_HOME = {
    ".runner": ("Interrupted", "RunSummary", "run_study"),
    ".store": ("Failure", "JobStore"),
    ".study": ("JobError", "Study"),
}

__all__ = ["Failure", "Interrupted", "JobError", "JobStore", "RunSummary", "Study", "run_study"]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
