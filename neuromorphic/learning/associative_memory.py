"""A sparse distributed associative memory: codes of one winner a module, chosen with as much noise as an input is new.

>>> import numpy as np
>>> memory = SparseMemory(64, modules=8, units=6, seed=1)
>>> item = np.arange(64) % 5 == 0
>>> code = memory.store(item)
>>> memory.familiarity(item), bool((memory.recall(item) == code).all())
(1.0, True)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hwsim.views.display import displayed
from neuromorphic.learning.plasticity import LearningCounts
from numerics.errors import InputError
from numerics.faults.maps import FaultMap, stream

if TYPE_CHECKING:
    import numpy.typing as npt


@displayed
class SparseMemory:
    """Binary inputs, ``modules`` winner-take-all modules of ``units`` units, a bit of weight for each pair of input and unit.

    G. J. Rinkus, "Superposed episodic and semantic memory via sparse distributed representation", arXiv 1710.07829, 2017, and the
    code selection algorithm of his "Sparsey: event recognition via deep hierarchical sparse distributed codes", Frontiers in
    Computational Neuroscience 8:160, 2014, for one field without recurrence; the constants are ours.

    - support V of a unit: share of the active inputs whose weight to it is 1;
    - familiarity G: the mean over the modules of their largest V;
    - η = 1 + expansion · units · (max(G − least_familiarity, 0) / (1 − least_familiarity))^exponent;
    - ψ = 1 + (η − 1) / (1 + exp(−slope · (V − centre))); to store, each module draws its winner with probability ψ / Σ ψ: by
      chance where nothing is known, almost surely the best where all is; to recall, the largest V wins (the first of equals).
    - storing sets the weights of the active inputs to the winners, once.

    Attributes:
        weights: (inputs, modules · units) uint8, 0 or 1; unit k of module q is column q · units + k.
        counts: of what storing wrote.

    Raises:
        InputError: a size below 1 or a constant out of range.
    """

    def __init__(
        self,
        inputs: int,
        *,
        modules: int,
        units: int,
        seed: int = 0,
        least_familiarity: float = 0.1,
        exponent: float = 2.0,
        expansion: float = 100.0,
        slope: float = 10.0,
        centre: float = 1.0,
    ) -> None:
        for name, value in (("inputs", inputs), ("modules", modules), ("units", units)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise InputError(f"{name}: expected an integer ≥ 1, got {value!r}")
        if not 0 <= least_familiarity < 1:
            raise InputError(f"least_familiarity: expected 0 to below 1, got {least_familiarity!r}")
        for name, number in (("exponent", exponent), ("expansion", expansion), ("slope", slope)):
            if not (np.isfinite(number) and number > 0):
                raise InputError(f"{name}: expected a number > 0, got {number!r}")
        if not 0 <= centre <= 1:
            raise InputError(f"centre: expected 0 to 1, got {centre!r}")
        self.inputs, self.modules, self.units, self.seed = int(inputs), int(modules), int(units), seed
        self.least_familiarity, self.exponent, self.expansion = least_familiarity, exponent, expansion
        self.slope, self.centre = slope, centre
        self.weights = np.zeros((self.inputs, self.modules * self.units), np.uint8)
        self.counts = LearningCounts()
        self._stored = 0
        self._faults = FaultMap.none()

    def fail(self, faults: FaultMap) -> None:
        """Let bits of the weights fail from now on: elements as in ``weights``, bit 0. Flips happen once; stuck bits stay.

        Raises:
            InputError: an element that is not there, or another bit than 0.
        """
        faults.check(self.weights.size)
        if (faults.clear | faults.set | faults.flip).max(initial=0) > 1:
            raise InputError("faults: a weight has bit 0 only")
        self.weights = faults.apply(self.weights)
        held = (faults.clear | faults.set) != 0
        stuck = FaultMap(faults.elements[held], faults.clear[held], faults.set[held], np.zeros(int(held.sum()), np.uint64))
        self._faults = self._faults.merged(stuck)

    def support(self, x: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """V of every unit, (modules, units).

        Raises:
            InputError: x is not (inputs,) of 0 and 1, or nothing in it is active.
        """
        active = self._active(x)
        return self.weights[active].mean(axis=0, dtype=np.float64).reshape(self.modules, self.units)

    def familiarity(self, x: npt.ArrayLike) -> float:
        """G, from 0, nothing of it was ever stored, to 1."""
        return float(self.support(x).max(axis=1).mean())

    def chances(self, x: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Probability that each unit would win if x were stored now, (modules, units)."""
        v = self.support(x)
        above = max(float(v.max(axis=1).mean()) - self.least_familiarity, 0.0) / (1 - self.least_familiarity)
        widened = self.expansion * self.units * above**self.exponent
        psi = 1 + widened / (1 + np.exp(-self.slope * (v - self.centre)))
        return psi / psi.sum(axis=1, keepdims=True)

    def store(self, x: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Choose a code for x and learn it; returns the winner of each module, (modules,)."""
        active = self._active(x)
        bounds = np.cumsum(self.chances(x), axis=1)
        drawn = stream(self.seed, "store", self._stored).random((self.modules, 1)) * bounds[:, -1:]
        code = (drawn >= bounds).sum(axis=1)
        columns = np.arange(self.modules) * self.units + code
        block = np.ix_(active, columns)
        written = int((self.weights[block] == 0).sum())
        self.weights[block] = 1
        self.weights = self._faults.apply(self.weights)
        self.counts.weight_updates += written
        self.counts.synapses_read += active.size * self.weights.shape[1]
        self._stored += 1
        return code

    def recall(self, x: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """The code that x brings back, (modules,)."""
        return self.support(x).argmax(axis=1)

    def pattern(self, code: npt.ArrayLike, active: int) -> npt.NDArray[np.bool_]:
        """The input that a code stands for: the ``active`` inputs that most of its units have a weight to, (inputs,).

        Raises:
            InputError: a code that is none, or more active inputs than there are.
        """
        winners = np.asarray(code)
        fits = winners.shape == (self.modules,) and winners.dtype.kind in "iu"
        if not fits or not 0 <= winners.min() <= winners.max() < self.units:
            raise InputError(f"code: expected {self.modules} integers from 0 to {self.units - 1}, got {code!r}")
        if not 0 < active <= self.inputs:
            raise InputError(f"active: expected 1 to {self.inputs}, got {active!r}")
        votes = self.weights[:, np.arange(self.modules) * self.units + winners].sum(axis=1, dtype=np.int64)
        found = np.zeros(self.inputs, np.bool_)
        found[np.argsort(-votes, kind="stable")[:active]] = True
        return found

    def _active(self, x: npt.ArrayLike) -> npt.NDArray[np.int64]:
        given = np.asarray(x)
        if given.shape != (self.inputs,) or not np.isin(given, (0, 1)).all():
            raise InputError(f"x: expected ({self.inputs},) of 0 and 1, got {given.dtype} {given.shape}")
        active = np.flatnonzero(given)
        if not active.size:
            raise InputError("x: expected at least one active input")
        return active


def overlap(codes: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Share of modules with the same winner for every pair of codes (items, modules), (items, items)."""
    winners = np.asarray(codes)
    return (winners[:, None] == winners[None]).mean(axis=2)
