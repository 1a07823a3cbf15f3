"""Spiking networks in discrete time: populations of neurons, joined by projections of synapses. They know no file and no chip.

A step goes so: each population adds up what its projections bring (the spikes, or values, that their sources sent
``delay_steps`` steps before, 0 meaning this very step, times their weights), updates its neurons and sends.
``SpikingNetwork.order`` is an order of the populations in which whatever arrives within a step was sent before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from hwsim.views.display import displayed, displayed_by, displaying
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    import numpy.typing as npt

Reset = Literal["zero", "subtract", "none"]
Kind = Literal["input", "integrate_and_fire", "resonate_and_fire", "threshold", "readout"]


@displayed_by("neuromorphic.cards:neurons")
@dataclass(frozen=True)
class Neurons:
    """Point neurons of one kind with real parameters, each an array (neurons,) (or a number for all).

    With x = input_bias + the sum of a step's input, in this order:

    - ``integrate_and_fire``: i ← decay_i · i + x; v ← decay_v · v + gain · i + bias; with adaptation, the threshold is
      threshold + adaptation · a. It spikes where v > that, and v ≥ it where ``fires_at_threshold``; then v is reset and, with
      adaptation, a ← decay_a · a + spike. For ``refractory_steps`` steps after a spike v stays as reset, while i and a go on.
      What projections bring to receptor 1 makes a second current, i2 ← decay_i2 · i2 + x2, which adds gain2 · i2 to v.
    - ``resonate_and_fire``: the complex z = v + j·w ← rotation · z + gain · x + bias, rotation = decay_v · exp(j · angle);
      it spikes where v passes the threshold, and z is reset (to v_reset + 0j by ``zero``); adaptation, refractory steps as above.
    - ``threshold``: no state: it spikes where gain · x + bias passes the threshold.
    - ``readout``: integrate_and_fire that never fires: what it sends is v.
    - ``input``: no state: what it sends is what it is given.

    Attributes:
        kind: which of them.
        decay_i: share of the synaptic current that a step keeps; 0: the current is the input.
        decay_v: share of the membrane voltage that a step keeps; 1: it never leaks.
        gain, bias, input_bias: as above.
        threshold: in the unit of v.
        reset: ``zero`` sets v to ``v_reset``, ``subtract`` takes off the threshold that v passed (adapted, where it adapts),
            ``none`` leaves it.
        v_reset: what ``zero`` sets v to.
        reset_next_step: v is reset in the next step, before it is updated, as snnTorch does it; otherwise at once.
        fires_at_threshold: also fires where v equals the threshold.
        refractory_steps: whole numbers; 0: none.
        adaptation, decay_a: of the threshold; 0: none.
        angle: of a resonate-and-fire neuron, radians a step.
        v_init: at the start.
        decay_i2, gain2: of the second current, which only projections to receptor 1 feed.

    Raises:
        InputError: an unknown kind or reset, a decay outside 0 to 1, a number that is not finite, arrays of different sizes.
    """

    kind: Kind
    decay_i: Any = 0.0
    decay_v: Any = 1.0
    gain: Any = 1.0
    bias: Any = 0.0
    input_bias: Any = 0.0
    threshold: Any = 1.0
    reset: Reset = "zero"
    v_reset: Any = 0.0
    reset_next_step: bool = False
    fires_at_threshold: bool = False
    refractory_steps: Any = 0
    adaptation: Any = 0.0
    decay_a: Any = 0.0
    angle: Any = 0.0
    v_init: Any = 0.0
    decay_i2: Any = 0.0
    gain2: Any = 1.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise unknown_name("kind", str(self.kind), get_args(Kind))
        if self.reset not in get_args(Reset):
            raise unknown_name("reset", str(self.reset), get_args(Reset))
        for name in PARAMETERS:
            values = np.asarray(getattr(self, name), np.float64)
            if values.ndim > 1 or not np.isfinite(values).all():
                raise InputError(f"{name}: expected a finite number or one a neuron, got {getattr(self, name)!r}")
            if name.startswith("decay") and values.size and not 0 <= values.min() <= values.max() <= 1:
                raise InputError(f"{name}: expected 0 to 1, got {values.min():g} to {values.max():g}")
            if name == "refractory_steps" and values.size and (values.min() < 0 or (values % 1).any()):
                raise InputError(f"{name}: expected whole numbers ≥ 0, got {getattr(self, name)!r}")
        sizes = {np.size(getattr(self, name)) for name in PARAMETERS if np.ndim(getattr(self, name))}
        if len(sizes) > 1:
            raise InputError(f"neurons: parameters of {' and '.join(map(str, sorted(sizes)))} neurons")

    @property
    def spiking(self) -> bool:
        """Whether it sends spikes, not values."""
        return self.kind not in ("input", "readout")

    def arrays(self, count: int) -> dict[str, npt.NDArray[np.float64]]:
        """Every parameter as an array (count,).

        Raises:
            InputError: arrays of another size.
        """
        found = {}
        for name in PARAMETERS:
            values = np.asarray(getattr(self, name), np.float64)
            if values.ndim and values.size != count:
                raise InputError(f"{name}: expected {count} numbers, one a neuron, got {values.size}")
            found[name] = np.ascontiguousarray(np.broadcast_to(values, count))
        return found


PARAMETERS = tuple(f.name for f in fields(Neurons) if f.name not in ("kind", "reset", "reset_next_step", "fires_at_threshold"))


@displaying("size")
@dataclass(frozen=True)
class Population:
    """Neurons of one kind under one name.

    Attributes:
        name: unique in its network.
        shape: of the neurons; their number is its product, in C order.
        neurons: what they are.

    Raises:
        InputError: no neurons, or parameters for another number of them.
    """

    name: str
    shape: tuple[int, ...]
    neurons: Neurons

    def __post_init__(self) -> None:
        if not self.shape or any(isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1 for n in self.shape):
            raise InputError(f"population {self.name!r}: expected a shape of integers ≥ 1, got {self.shape!r}")
        self.neurons.arrays(self.size)

    @property
    def size(self) -> int:
        """Number of neurons."""
        return prod(self.shape)


@displayed_by("neuromorphic.cards:synapses")
@dataclass(frozen=True)
class Synapses:
    """Synapses by their source (compressed rows).

    Attributes:
        first: (sources + 1,) int64: synapses first[s] to first[s + 1] are those of source s.
        target: (synapses,) int32, ascending within a source.
        weight: (synapses,) float64.
        stored: how many different weights a machine that shares them has to store (a convolution's kernel); all otherwise.
        kind: ``dense``, ``sparse``, ``convolution`` or ``pooling``: what its chip may treat on its own.

    Raises:
        InputError: arrays that do not fit together.
    """

    first: npt.NDArray[np.int64]
    target: npt.NDArray[np.int32]
    weight: npt.NDArray[np.float64]
    stored: int
    kind: str = "sparse"

    def __post_init__(self) -> None:
        if self.first.ndim != 1 or self.first.size < 2 or self.first[0] or self.first[-1] != self.target.size:
            raise InputError("synapses: first does not divide the synapses among their sources")
        if (np.diff(self.first) < 0).any() or self.weight.shape != self.target.shape or self.target.ndim != 1:
            raise InputError("synapses: first, target and weight do not fit together")
        if not np.isfinite(self.weight).all():
            raise InputError("synapses: a weight is not finite")

    @classmethod
    def from_dense(cls, matrix: npt.ArrayLike, *, keep_zeros: bool = True) -> Synapses:
        """Of a matrix (targets, sources), as torch and NIR write weights; ``keep_zeros``: a weight of 0 is a synapse, too."""
        dense = np.asarray(matrix, np.float64)
        if dense.ndim != 2 or 0 in dense.shape:
            raise InputError(f"matrix: expected shape (targets, sources), got {dense.shape}")
        there = np.ones(dense.T.shape, np.bool_) if keep_zeros else dense.T != 0
        first = np.concatenate(([0], np.cumsum(there.sum(axis=1)))).astype(np.int64)
        target = np.nonzero(there)[1].astype(np.int32)
        return cls(first, target, np.ascontiguousarray(dense.T[there]), int(target.size), "dense" if keep_zeros else "sparse")

    @classmethod
    def from_coo(
        cls,
        source: npt.ArrayLike,
        target: npt.ArrayLike,
        weight: npt.ArrayLike,
        *,
        sources: int,
        stored: int | None = None,
        kind: str = "sparse",
    ) -> Synapses:
        """Of lists; several synapses of one pair stay several."""
        src, dst, values = np.asarray(source, np.int64), np.asarray(target, np.int64), np.asarray(weight, np.float64)
        if src.size and not 0 <= int(src.min()) <= int(src.max()) < sources:
            raise InputError(f"source: expected 0 to {sources - 1}, got {int(src.min())} to {int(src.max())}")
        order = np.lexsort((dst, src))
        first = np.searchsorted(src[order], np.arange(sources + 1)).astype(np.int64)
        return cls(first, dst[order].astype(np.int32), values[order], src.size if stored is None else stored, kind)

    @property
    def count(self) -> int:
        """Number of synapses."""
        return int(self.target.size)

    @property
    def sources(self) -> int:
        """Number of sources."""
        return int(self.first.size - 1)

    def dense(self, targets: int) -> npt.NDArray[np.float64]:
        """The matrix (targets, sources); several synapses of a pair are added."""
        found = np.zeros((targets, self.sources))
        np.add.at(found, (self.target, np.repeat(np.arange(self.sources), np.diff(self.first))), self.weight)
        return found


@displayed
@dataclass(frozen=True)
class Projection:
    """Synapses from one population to another (or itself).

    Attributes:
        name: unique in its network.
        source, target: names of populations.
        synapses: with as many sources as the source has neurons.
        delay_steps: steps from sending to arriving, a whole number ≥ 0 (or one a source, (sources,)); 0: within the step.
        receptor: 0: it feeds the current i; 1: the second current i2.
    """

    name: str
    source: str
    target: str
    synapses: Synapses
    delay_steps: Any = 0
    receptor: int = 0

    def __post_init__(self) -> None:
        if self.receptor not in (0, 1):
            raise InputError(f"projection {self.name!r}: receptor: expected 0 or 1, got {self.receptor!r}")
        delays = np.asarray(self.delay_steps)
        if delays.dtype.kind not in "iu" or delays.ndim > 1 or (delays.size and delays.min() < 0):
            raise InputError(f"projection {self.name!r}: delay_steps: expected whole numbers ≥ 0, got {self.delay_steps!r}")
        if delays.ndim and delays.size != self.synapses.sources:
            raise InputError(f"projection {self.name!r}: delay_steps: expected {self.synapses.sources}, got {delays.size}")

    @property
    def delays(self) -> npt.NDArray[np.int64]:
        """Of each source, (sources,)."""
        return np.ascontiguousarray(np.broadcast_to(np.asarray(self.delay_steps, np.int64), self.synapses.sources))

    @property
    def at_once(self) -> bool:
        """Whether anything arrives within the step it was sent in."""
        return bool((np.asarray(self.delay_steps) == 0).any())


@displayed_by("neuromorphic.cards:network")
@dataclass(frozen=True)
class SpikingNetwork:
    """Populations and projections; ``inputs`` are the populations of kind ``input``.

    Attributes:
        name: of the network.
        populations, projections: in any order.
        outputs: names of the populations whose spikes (or values) are the result.
        dt_s: length of a step, seconds.
        notes: what was chosen where a file left it open (integration, reset, repaired shapes), to be printed.

    Raises:
        InputError: a name twice or unknown, synapses that do not fit their populations, a loop without delay.
    """

    name: str
    populations: tuple[Population, ...]
    projections: tuple[Projection, ...]
    outputs: tuple[str, ...]
    dt_s: float = 1e-3
    notes: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not np.isfinite(self.dt_s) or self.dt_s <= 0:
            raise InputError(f"dt_s: expected seconds > 0, got {self.dt_s!r}")
        for what, named in (("population", self.populations), ("projection", self.projections)):
            names = [one.name for one in named]
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise InputError(f"network {self.name!r}: {what} {sorted(twice)[0]!r} is there twice")
        for name in self.outputs:
            self.population(name)
        for projection in self.projections:
            sources, targets = self.population(projection.source).size, self.population(projection.target).size
            synapses = projection.synapses
            if synapses.sources != sources:
                raise InputError(f"projection {projection.name!r}: {synapses.sources} sources, but {sources} neurons send")
            if synapses.count and not 0 <= int(synapses.target.min()) <= int(synapses.target.max()) < targets:
                raise InputError(
                    f"projection {projection.name!r}: a target beyond the {targets} neurons of {projection.target!r}"
                )
            kind = self.population(projection.target).neurons.kind
            if kind == "input":
                raise InputError(f"projection {projection.name!r}: {projection.target!r} is an input")
            if projection.receptor and kind not in ("integrate_and_fire", "readout"):
                raise InputError(f"projection {projection.name!r}: receptor 1: {kind} has one input only")
        _ = self.order

    @cached_property
    def _by_name(self) -> dict[str, Population]:
        return {population.name: population for population in self.populations}

    def population(self, name: str) -> Population:
        """The one of that name.

        Raises:
            InputError: there is none.
        """
        if name not in self._by_name:
            raise unknown_name("population", name, list(self._by_name))
        return self._by_name[name]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the populations that are given from outside."""
        return tuple(one.name for one in self.populations if one.neurons.kind == "input")

    @property
    def neurons(self) -> int:
        """How many neurons compute: all but the inputs."""
        return sum(one.size for one in self.populations if one.neurons.kind != "input")

    @property
    def synapses(self) -> int:
        """How many synapses there are."""
        return sum(one.synapses.count for one in self.projections)

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Populations so that what arrives within a step was sent before."""
        waits = {one.name: {p.source for p in self.projections if p.target == one.name and p.at_once} for one in self.populations}
        found: list[str] = []
        while waits:
            ready = [name for name, sources in waits.items() if not sources & waits.keys()]
            if not ready:
                raise InputError(f"network {self.name!r}: a loop without delay through {', '.join(sorted(waits))}")
            found += ready
            for name in ready:
                del waits[name]
        return tuple(found)

    @cached_property
    def depth(self) -> dict[str, int]:
        """Most projections without delay on a way to each population."""
        found: dict[str, int] = {}
        for name in self.order:
            before = [found[p.source] + 1 for p in self.projections if p.target == name and p.at_once]
            found[name] = max(before, default=0)
        return found

    def with_projections(self, projections: Sequence[Projection]) -> SpikingNetwork:
        """The same with other projections."""
        return replace(self, projections=tuple(projections))
