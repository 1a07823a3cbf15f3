"""How synapses learn: by pairs of spikes (STDP) and by eligibility under a modulator, in floating point.

``learning_engine`` beside it learns in a chip's integers; ``plastic_simulation`` runs a network that learns.

>>> rule = STDP(plus=0.5, minus=0.25, tau_plus_s=0.02, tau_minus_s=0.02)
>>> rule.window([0.0, 0.02, -0.02]).round(3).tolist()
[0.5, 0.184, -0.092]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, get_args

import numpy as np

from hwsim.views.display import displayed
from neuromorphic.network import Projection
from numerics.errors import InputError, unknown_name
from numerics.faults.maps import FaultMap

if TYPE_CHECKING:
    import numpy.typing as npt

Pairing = Literal["all", "nearest"]
Stuck = Mapping[int, float] | FaultMap
"""Synapse → the weight that it keeps whatever it learns; or, where weights have codes, the bits of the codes that fail."""


@displayed
@dataclass
class LearningCounts:
    """What learning did, to be charged by event; what such an event costs is for a chip's spec to say.

    Attributes:
        weight_updates: weights that were read, changed and written.
        trace_updates: traces of neurons that were written: by a spike; in an integer engine also by each decay.
        eligibility_updates: eligibilities (tags) of synapses that were written.
        synapses_read: synapses whose rule was worked out, whether or not a weight changed.
    """

    weight_updates: int = 0
    trace_updates: int = 0
    eligibility_updates: int = 0
    synapses_read: int = 0


@dataclass(frozen=True)
class SynapseIndex:
    """Synapses in both orders.

    Attributes:
        first, target: by source, as in ``Synapses``.
        column, synapse: by target: synapse[column[n] : column[n + 1]] are those of target n, by ascending source.
        source: of each synapse.
    """

    first: npt.NDArray[np.int64]
    target: npt.NDArray[np.int32]
    column: npt.NDArray[np.int64]
    synapse: npt.NDArray[np.int64]
    source: npt.NDArray[np.int32]

    @classmethod
    def of(cls, projection: Projection, targets: int) -> SynapseIndex:
        """Of a projection to so many neurons."""
        synapses = projection.synapses
        order = np.argsort(synapses.target, kind="stable")
        column = np.searchsorted(synapses.target[order], np.arange(targets + 1)).astype(np.int64)
        source = np.repeat(np.arange(synapses.sources, dtype=np.int32), np.diff(synapses.first))
        return cls(synapses.first.astype(np.int64), synapses.target, column, order.astype(np.int64), source)


@dataclass(frozen=True)
class Arrivals:
    """What a step brings to the synapses of a projection.

    Attributes:
        step: since the simulation began.
        source, value: sources whose spikes arrive, each once, and what each sent.
        fired: targets that fire, each once.
        modulator: (targets,) float64, or None.
    """

    step: int
    source: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    fired: npt.NDArray[np.int64]
    modulator: npt.NDArray[np.float64] | None


class Learning(Protocol):
    """Synapses of one projection under one rule, as a simulation holds them."""

    weight: npt.NDArray[np.float64]
    counts: LearningCounts

    def step(self, arrivals: Arrivals) -> None:
        """Learn from a step, after it: what arrived in it was weighed before it changed anything."""


class LearningRule(Protocol):
    """What a projection learns by."""

    @property
    def modulated(self) -> bool:
        """Whether it needs a modulator."""

    def start(self, projection: Projection, targets: int, *, dt_s: float, seed: int, stuck: Stuck | None = None) -> Learning:
        """Synapses at their first weights.

        Args:
            projection: they are its.
            targets: neurons of its target.
            dt_s: length of a step.
            seed: of random rounding.
            stuck: synapses that fail.
        """


@displayed
@dataclass(frozen=True, kw_only=True)
class STDP:
    """Weights change with pairs of spikes (Bi and Poo, J. Neurosci. 18, 1998; traces: Morrison, Diesmann and Gerstner 2008).

    A pair of a spike that arrives in step a and one that its target fires in step f, Δ = (f − a) · dt_s, changes the weight by
    plus · exp(−Δ / tau_plus_s) where Δ ≥ 0 and by −minus · exp(Δ / tau_minus_s) where Δ < 0. Within a step arriving spikes come
    first. A spike of value v counts as v spikes.

    Attributes:
        plus, minus: in the unit of the weights.
        tau_plus_s, tau_minus_s: time constants of the window, seconds.
        pairing: ``all`` spikes with all; ``nearest``: a firing with the last arrival before it, an arrival with the last firing
            before it (section 4.1.2 of Morrison et al., the symmetric scheme).
        low, high: bounds of a weight.
        exponent: μ of the bounds: a rise is scaled by ((high − w) / (high − low))^μ, a fall by ((w − low) / (high − low))^μ
            (Gütig et al., J. Neurosci. 23, 2003); 0: additive, 1: multiplicative. Weights are clipped to the bounds in any case.

    Raises:
        InputError: a time constant or exponent out of range, bounds in the wrong order, a number that is not finite.
    """

    plus: float
    minus: float
    tau_plus_s: float
    tau_minus_s: float
    pairing: Pairing = "all"
    low: float = 0.0
    high: float = 1.0
    exponent: float = 0.0

    modulated = False

    def __post_init__(self) -> None:
        if self.pairing not in get_args(Pairing):
            raise unknown_name("pairing", str(self.pairing), get_args(Pairing))
        for name in ("plus", "minus", "low", "high"):
            if not np.isfinite(getattr(self, name)):
                raise InputError(f"{name}: expected a finite number, got {getattr(self, name)!r}")
        for name in ("tau_plus_s", "tau_minus_s"):
            _positive(name, getattr(self, name))
        if not self.low < self.high:
            raise InputError(f"high: expected more than low = {self.low:g}, got {self.high:g}")
        if not (np.isfinite(self.exponent) and self.exponent >= 0):
            raise InputError(f"exponent: expected a number ≥ 0, got {self.exponent!r}")

    def window(self, delta_s: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """What a pair changes a weight by, before the bounds; ``delta_s``: from arriving to firing."""
        delta = np.asarray(delta_s, np.float64)
        rise = self.plus * np.exp(-np.maximum(delta, 0) / self.tau_plus_s)
        fall = -self.minus * np.exp(np.minimum(delta, 0) / self.tau_minus_s)
        return np.where(delta >= 0, rise, fall)

    def start(self, projection: Projection, targets: int, *, dt_s: float, seed: int, stuck: Stuck | None = None) -> _PairLearning:
        """As in ``LearningRule``.

        Raises:
            InputError: a first weight beyond the bounds, a stuck synapse that is not there.
        """
        return _PairLearning(self, projection, targets, dt_s, stuck)


@displayed
@dataclass(frozen=True, kw_only=True)
class ThreeFactor:
    """Pairs of spikes leave an eligibility, which a modulator (reward, surprise) turns into a change of the weight.

    e ← exp(−dt_s / tau_eligibility_s) · e + what ``pairs`` would change; then w ← w + rate · modulator · e. With a reward as the
    modulator this is R-STDP (Izhikevich, Cereb. Cortex 17, 2007; Florian, Neural Comput. 19, 2007).

    Attributes:
        pairs: the window, and the bounds of the weights.
        tau_eligibility_s: seconds.
        rate: per unit of the modulator.

    Raises:
        InputError: a time constant ≤ 0 or a rate that is not finite.
    """

    pairs: STDP
    tau_eligibility_s: float
    rate: float = 1.0

    modulated = True

    def __post_init__(self) -> None:
        _positive("tau_eligibility_s", self.tau_eligibility_s)
        if not np.isfinite(self.rate):
            raise InputError(f"rate: expected a finite number, got {self.rate!r}")

    def start(
        self, projection: Projection, targets: int, *, dt_s: float, seed: int, stuck: Stuck | None = None
    ) -> _EligibilityLearning:
        """As in ``LearningRule``.

        Raises:
            InputError: a first weight beyond the bounds, a stuck synapse that is not there.
        """
        return _EligibilityLearning(self, projection, targets, dt_s, stuck)


class _PairLearning:
    """Traces and weights under ``STDP``."""

    def __init__(self, rule: STDP, projection: Projection, targets: int, dt_s: float, stuck: Stuck | None) -> None:
        self.rule, self.index, self.counts = rule, SynapseIndex.of(projection, targets), LearningCounts()
        self.weight = projection.synapses.weight.copy()
        self.held = np.zeros(self.weight.size, np.bool_)
        if isinstance(stuck, FaultMap):
            raise InputError(f"stuck: projection {projection.name!r} has weights without codes, expected synapse → weight")
        for synapse, value in (stuck or {}).items():
            if not 0 <= synapse < self.weight.size:
                raise InputError(f"stuck: expected synapses 0 to {self.weight.size - 1}, got {synapse}")
            self.weight[synapse], self.held[synapse] = value, True
        free = self.weight[~self.held]
        if free.size and not rule.low <= free.min() <= free.max() <= rule.high:
            found = f"{free.min():g} to {free.max():g}"
            raise InputError(f"projection {projection.name!r}: weights {found}, expected {rule.low:g} to {rule.high:g}")
        self.keep = (float(np.exp(-dt_s / rule.tau_plus_s)), float(np.exp(-dt_s / rule.tau_minus_s)))
        self.x, self.y = np.zeros(projection.synapses.sources), np.zeros(targets)

    def step(self, arrivals: Arrivals) -> None:
        from neuromorphic.learning._plasticity_kernels import pair_step

        rule, at = self.rule, self.index
        weights, traces = pair_step(
            at.first, at.target, at.column, at.synapse, at.source, self.weight, self.held, self.x, self.y,
            arrivals.source, arrivals.value, arrivals.fired, *self.keep, rule.plus, rule.minus, rule.pairing == "nearest",
            float(rule.exponent), float(rule.low), float(rule.high),
        )  # fmt: skip
        self.counts.weight_updates += weights
        self.counts.synapses_read += weights
        self.counts.trace_updates += traces


class _EligibilityLearning(_PairLearning):
    """Traces, eligibilities and weights under ``ThreeFactor``."""

    def __init__(self, rule: ThreeFactor, projection: Projection, targets: int, dt_s: float, stuck: Stuck | None) -> None:
        super().__init__(rule.pairs, projection, targets, dt_s, stuck)
        self.gain, self.keep_e = rule.rate, float(np.exp(-dt_s / rule.tau_eligibility_s))
        self.eligibility, self.written = np.zeros(self.weight.size), np.zeros(self.weight.size, np.int64)

    def step(self, arrivals: Arrivals) -> None:
        from neuromorphic.learning._plasticity_kernels import eligibility_step, modulate

        rule, at = self.rule, self.index
        eligible, traces = eligibility_step(
            at.first, at.target, at.column, at.synapse, at.source, self.eligibility, self.written, arrivals.step, self.x, self.y,
            arrivals.source, arrivals.value, arrivals.fired, *self.keep, self.keep_e, rule.plus, rule.minus,
            rule.pairing == "nearest",
        )  # fmt: skip
        self.counts.eligibility_updates += eligible
        self.counts.trace_updates += traces
        assert arrivals.modulator is not None
        if arrivals.modulator.any():
            gain = self.gain * arrivals.modulator
            self.counts.weight_updates += modulate(
                at.target, self.weight, self.held, self.eligibility, self.written, arrivals.step, self.keep_e, gain,
                float(rule.exponent), float(rule.low), float(rule.high),
            )  # fmt: skip
            self.counts.synapses_read += self.weight.size


def _positive(name: str, value: float) -> None:
    if not (np.isfinite(value) and value > 0):
        raise InputError(f"{name}: expected seconds > 0, got {value!r}")
