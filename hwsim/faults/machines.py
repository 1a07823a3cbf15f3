"""Campaigns over fault maps of a machine: what those of arrays, spiking chips and optical engines have in common.

A package that has a machine of its own gives ``hwsim.faults.trials.TrialCampaign`` a ``MapSubject``, whose network under test may
be an ``AnswersUnderTest``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from hwsim.faults.network import MapOutcome
from numerics.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

FaultsT = TypeVar("FaultsT")


@dataclass(frozen=True, kw_only=True)
class MapSubject:
    """What workers need of a campaign over fault maps; a subclass adds what is broken, and ``network``.

    Attributes:
        scenarios: name → faults, each a dataclass.
        seed: of everything drawn.
    """

    scenarios: tuple[tuple[str, Any], ...]
    seed: int
    single: None = None
    protections: tuple[()] = ()

    def described(self, **parts: Any) -> dict[str, Any]:
        """What is tried, as plain data: ``parts`` of the machine, its model and its data, and the scenarios."""
        return {
            **parts,
            "metric": "accuracy",
            "faults": {name: asdict(some) for name, some in self.scenarios},
            "protections": [],
        }


class AnswersUnderTest:
    """Samples, a machine's answers to them without faults, and the right ones.

    Args:
        answers: class of each sample without faults.
        labels: the right classes; None: those without faults.

    Raises:
        InputError: labels of another number.
    """

    def __init__(self, answers: Sequence[int], labels: Sequence[int] | None) -> None:
        self._answers = np.asarray(answers)
        if labels is not None and len(labels) != self.images:
            raise InputError(f"labels: expected {self.images}, one a sample, got {len(labels)}")
        self.labels = labels
        self._expected = self._answers if labels is None else np.asarray(labels)

    @property
    def images(self) -> int:
        """Number of samples."""
        return len(self._answers)

    @property
    def labelled(self) -> bool:
        """Whether there are right answers."""
        return self.labels is not None

    @property
    def golden_score(self) -> float:
        """Share of right answers without faults."""
        return float(np.mean(self._answers == self._expected))

    def outcome(self, answers: Sequence[int], *, same: Iterable[bool], lost: Iterable[bool] = (), broken: int) -> MapOutcome:
        """What one map of faults did.

        Args:
            answers: class of each sample with it.
            same: whether a sample's outputs are equal in every bit.
            lost: whether they hold Inf or NaN.
            broken: parts that were.
        """
        masked, gone, found = sum(map(bool, same)), sum(map(bool, lost)), np.asarray(answers)
        worst = "masked" if masked == self.images else "nan" if gone else "silent"
        changed, right = int((found != self._answers).sum()), float(np.mean(found == self._expected))
        return MapOutcome(worst, masked, gone, changed, right, broken, 0, 0)


def checked_scenarios(faults: object, kind: type[FaultsT], hint: str = "") -> tuple[tuple[str, FaultsT], ...]:
    """Named scenarios.

    Args:
        faults: scenario → faults.
        kind: their class.
        hint: what to do with others, for the error.

    Raises:
        InputError: none, or something of another class.
    """
    if not isinstance(faults, Mapping) or not faults:
        raise InputError(f"faults: expected named scenarios of {kind.__name__}, got none")
    for name, some in faults.items():
        if not isinstance(some, kind):
            raise InputError(f"faults: {name}: expected {kind.__name__}, got {type(some).__name__}{hint}")
    return tuple(faults.items())


def checked_labels(labels: ArrayLike | None) -> tuple[int, ...] | None:
    """Right classes as plain integers; None stays.

    Raises:
        InputError: no list of whole numbers.
    """
    if labels is None:
        return None
    try:
        given = np.asarray(labels)
    except (ValueError, TypeError, RuntimeError):
        raise InputError("labels: expected a list of integers, one a sample") from None
    whole = given.dtype.kind in "biu" or (given.dtype.kind == "f" and bool(np.isfinite(given).all() and (given % 1 == 0).all()))
    if given.ndim != 1 or not whole:
        raise InputError(f"labels: expected a list of integers, one a sample, got {given.dtype} of shape {given.shape}")
    return tuple(int(label) for label in given.tolist())
