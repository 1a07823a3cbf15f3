"""Which fault each trial injects: a function of the seed and the trial's number, so that any worker can work out any trial.

>>> from hwsim.faults.sampling import SamplingPlan, Stratum
>>> plan = SamplingPlan((Stratum("conv1", 7, 432), Stratum("conv2", 7, 4608)), images=100, seed=1)
>>> trials = plan.trials(0, 6)
>>> [plan.strata[s].layer for s in trials.strata]
['conv2', 'conv2', 'conv2', 'conv2', 'conv2', 'conv1']
>>> len(set(zip(trials.elements.tolist(), trials.images.tolist())))
6
>>> plan.counts(10_000).tolist()  # as the sizes are
[857, 9143]
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np

from hwsim.faults.permutation import hashed, permuted
from hwsim.faults.turns import EXACT, EqualTurns, Turns, WeightedTurns
from hwsim.views.display import displayed, displaying
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LIMIT = 2**63 - 1


@displayed
@dataclass(frozen=True)
class Stratum:
    """Places alike: one bit of all elements of a layer's operand.

    Attributes:
        layer: its name, whatever else it says: strata with the same draws have the same name.
        bit: position in the element's code, 0 the lowest.
        elements: of the operand.
    """

    layer: str
    bit: int
    elements: int

    def __post_init__(self) -> None:
        for name, least in (("bit", 0), ("elements", 1)):
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool) or not least <= int(value) <= _LIMIT:
                raise InputError(f"{self.layer}: {name}: expected an integer from {least} to 2⁶³ - 1, got {value!r}")


@displayed
@dataclass(frozen=True, kw_only=True)
class Trials:
    """Faults of consecutive trials; int64, one number a trial.

    Attributes:
        numbers: of the trials.
        strata: index of each one's stratum in the plan.
        elements, bits, images: the fault, and the image it is tried on.
    """

    numbers: NDArray[np.int64]
    strata: NDArray[np.int64]
    elements: NDArray[np.int64]
    bits: NDArray[np.int64]
    images: NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.numbers.size)


@displaying("population", "limit")
@dataclass(frozen=True)
class SamplingPlan:
    """A sequence of faults whose every prefix is a stratified sample.

    Strata take turns in a fixed order that keeps each one's share of every prefix close to what it should be; within a stratum a
    keyed permutation, or a keyed hash where ``replacement`` is asked for, picks the place. Nothing is kept between trials, and a
    stratum's draws depend on the seed and its own name, bit and size only.

    Args:
        strata: of the population, each (layer, bit) once.
        images: a place is an element and one of so many images; 1 where each trial runs over all data.
        seed: of the draws.
        allocation: ``proportional`` to the strata's sizes, elements × images; ``equal``, a round robin in which strata that are
            used up no longer take part; or trials of each stratum, as ``sizes.allocate`` gives: those are all the plan has.
        replacement: draw each trial's place anew.

    Raises:
        InputError: no strata, one twice, a population above 2⁶³ - 1, an allocation that is unknown or exceeds its stratum.
    """

    strata: tuple[Stratum, ...]
    images: int = 1
    seed: int = 0
    allocation: str | tuple[int, ...] = "proportional"
    replacement: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "strata", tuple(self.strata))
        if not self.strata:
            raise InputError("strata: expected at least one, got none")
        names = [(stratum.layer, stratum.bit) for stratum in self.strata]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"strata: expected each layer and bit once, got {twice[0]!r}, bit {twice[1]}, more than once")
        for name, value, least in (("images", self.images, 1), ("seed", self.seed, 0)):
            if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
                raise InputError(f"{name}: expected an integer ≥ {least}, got {value!r}")
        if sum(self._sizes) > _LIMIT:
            raise InputError(f"strata: expected at most 2⁶³ - 1 places together, got {sum(self._sizes)}")
        if isinstance(self.allocation, str):
            if self.allocation not in ("proportional", "equal"):
                raise unknown_name("allocation", self.allocation, ("proportional", "equal"))
            return
        given = tuple(self.allocation)
        if len(given) != len(self.strata) or not all(isinstance(n, Integral) and n >= 0 for n in given):
            raise InputError(f"allocation: expected trials of each of {len(self.strata)} strata, got {given}")
        if not 0 < sum(given) <= EXACT:
            raise InputError(f"allocation: expected from 1 to {EXACT} trials together, got {sum(given)}")
        for stratum, size, n in zip(self.strata, self._sizes, given, strict=True):
            if n > size and not self.replacement:
                raise InputError(f"allocation: {stratum.layer}, bit {stratum.bit}, holds {size} places, got {n} trials")
        object.__setattr__(self, "allocation", tuple(int(n) for n in given))

    @cached_property
    def _sizes(self) -> tuple[int, ...]:
        return tuple(int(stratum.elements) * int(self.images) for stratum in self.strata)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Places of each stratum: elements × images."""
        return np.array(self._sizes, np.int64)

    @property
    def population(self) -> int:
        """Places of all strata."""
        return sum(self._sizes)

    @cached_property
    def limit(self) -> int:
        """Trials the plan has: with ``replacement`` as many as can be numbered, else one a place. A proportional plan of more
        than 2³² places rounds their shares to some 2³¹ parts, and has as many trials; an allocation has its own.
        """
        if not isinstance(self.allocation, str):
            return sum(self.allocation)
        if self.replacement:
            return _LIMIT
        return self.population if self.allocation == "equal" else sum(self._weights)

    def counts(self, trials: int) -> NDArray[np.int64]:
        """How many of the first so many trials each stratum gets; int64.

        Raises:
            InputError: more than ``limit``.
        """
        self._check("trials", trials, 0)
        return self._turns.counts(int(trials))

    def trials(self, start: int, stop: int) -> Trials:
        """The faults of trials ``start`` to ``stop`` - 1.

        Raises:
            InputError: trials beyond ``limit``, a stop before the start.
        """
        self._check("start", start, 0)
        self._check("stop", stop, int(start))
        start, stop = int(start), int(stop)
        strata, ranks = self._turns.turns(start, stop)
        places = (hashed if self.replacement else permuted)(ranks, self.sizes[strata], self._keys[strata])
        return Trials(
            numbers=np.arange(start, stop, dtype=np.int64),
            strata=strata,
            elements=places // self.images,
            bits=np.array([stratum.bit for stratum in self.strata], np.int64)[strata],
            images=places % self.images,
        )

    def _check(self, name: str, value: int, least: int) -> None:
        if not isinstance(value, Integral) or isinstance(value, bool) or not least <= value <= self.limit:
            raise InputError(f"{name}: expected an integer from {least} to the plan's limit, {self.limit}, got {value!r}")

    @cached_property
    def _turns(self) -> Turns:
        if self.allocation == "equal":
            return EqualTurns(self._sizes, endless=self.replacement)
        return WeightedTurns(self._weights)

    @cached_property
    def _weights(self) -> tuple[int, ...]:
        if not isinstance(self.allocation, str):
            return self.allocation
        weights, shift = self._sizes, 0
        while sum(weights) > EXACT:
            shift += 1
            # Never above the size itself, so that no stratum is asked for more than it holds.
            weights = tuple(max(size >> shift, 1) for size in self._sizes)
        return weights

    @cached_property
    def _keys(self) -> NDArray[np.uint64]:
        words = (f"{self.seed}/{stratum.layer}/{stratum.bit}" for stratum in self.strata)
        return np.array([int.from_bytes(hashlib.blake2b(w.encode(), digest_size=8).digest(), "little") for w in words], np.uint64)
