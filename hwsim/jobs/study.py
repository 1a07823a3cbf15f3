"""What is to be run: trials with numbers, the order they are judged in, and the name they go by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hwsim.views.display import displayed
from numerics.errors import InputError

Row = dict[str, Any]
Results = Iterator[tuple[int, Row]]


class JobError(RuntimeError):
    """A run cannot go on though its input is good (a full disk, workers that die at once): one line; what was stored is kept."""


def nothing() -> None:
    """The setup of a study that needs none."""
    return


@displayed
@dataclass(frozen=True, kw_only=True)
class Study:
    """Trials ``0 … size-1``, each a function of its number alone.

    Attributes:
        key: JSON-able description of everything a row depends on (model, formats, seed, stop rule). A file is resumed only by
            a study with an equal key, size, looks and batches.
        size: the most trials there can be.
        run: ``run(state, trials)`` with ``trials`` a ``range``; gives one JSON-able dict a trial, in order, or a single one for
            the whole range where ``aggregated``. Pickled to the workers, so a function of a module, a method or a ``partial``.
        setup: gives ``state`` once in each worker (a loaded model, golden outputs). Pickled to the workers.
        looks: increasing numbers of trials at which ``decide`` is asked, declared before the first trial.
        decide: ``decide(results, size)`` gets ``(trial, row)`` of the trials below ``size`` in trial order, and says whether to
            stop there. A trial that failed for good is missing from them. Stays in the coordinating process.
        batch: trials of one call of ``run``. Batches begin at fixed trials (at 0, at each look and every ``batch`` from there),
            so a call sees the same ranges whatever the workers, kills and restarts: a model whose last bits depend on the
            size of a batch still gives the same table.
        aggregated: one row a batch (counts, sums), for studies too large to keep a row a trial.

    Raises:
        InputError: a size, look or batch below one, looks that do not increase or exceed ``size``, looks without ``decide``,
            a key that JSON cannot hold.
    """

    key: Mapping[str, Any]
    size: int
    run: Callable[[Any, range], Sequence[Row]]
    setup: Callable[[], Any] = nothing
    looks: tuple[int, ...] = ()
    decide: Callable[[Results, int], bool] | None = None
    batch: int = 1
    aggregated: bool = False

    def __post_init__(self) -> None:
        for name in ("size", "batch"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"{name}: expected a whole number of trials of at least 1, got {value!r}")
        object.__setattr__(self, "looks", tuple(self.looks))
        previous = 0
        for look in self.looks:
            if not isinstance(look, int) or isinstance(look, bool) or not previous < look <= self.size:
                raise InputError(f"looks: expected increasing whole numbers from 1 to size = {self.size}, got {list(self.looks)}")
            previous = look
        if self.looks and self.decide is None:
            raise InputError(f"looks: {list(self.looks)} need a decide function")
        self.identity()

    def identity(self) -> dict[str, Any]:
        """What two runs must have in common to share a file, as JSON gives it back."""
        plan = {"size": self.size, "looks": list(self.looks), "batch": self.batch, "aggregated": self.aggregated}
        try:
            return dict(json.loads(json.dumps({"study": dict(self.key), "plan": plan}, allow_nan=False)))
        except (TypeError, ValueError) as error:
            raise InputError(f"key: expected a dict that JSON can hold, got {self.key!r} ({error})") from None


def fingerprint(identity: Mapping[str, Any]) -> str:
    """A hash of an identity: the name under which workers keep a study's state."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def differences(stored: Any, asked: Any, *, place: str = "") -> list[str]:
    """Where two JSON values differ, one line a leaf."""
    if isinstance(stored, dict) and isinstance(asked, dict):
        return [
            line
            for name in sorted(stored.keys() | asked.keys())
            for line in differences(stored.get(name), asked.get(name), place=f"{place}.{name}" if place else name)
        ]
    if stored == asked and type(stored) is type(asked):
        return []
    return [f"{place}: stored {_short(stored)}, asked for {_short(asked)}"]


def _short(value: Any, *, most: int = 60) -> str:
    text = json.dumps(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"
