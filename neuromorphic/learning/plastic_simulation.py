"""A network whose synapses learn while it runs, step by step.

>>> import numpy as np
>>> from neuromorphic.network import Neurons, Population, Projection, SpikingNetwork, Synapses
>>> from neuromorphic.learning.plasticity import STDP
>>> network = SpikingNetwork(
...     "pair",
...     (Population("in", (1,), Neurons("input")), Population("out", (1,), Neurons("threshold", threshold=0.5))),
...     (Projection("learns", "in", "out", Synapses.from_dense([[1.0]])),),
...     ("out",),
... )
>>> run = PlasticSimulation(network, {"learns": STDP(plus=0.1, minus=0.1, tau_plus_s=0.02, tau_minus_s=0.02, high=2.0)})
>>> activity = run.run({"in": np.ones((1, 1))})
>>> run.weights("learns").tolist(), run.counts["learns"].weight_updates
([1.1], 1)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.views.display import displayed
from neuromorphic.events import Events
from neuromorphic.learning.plasticity import Arrivals, Learning, LearningCounts, LearningRule, Stuck
from neuromorphic.network import Population, SpikingNetwork
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    import numpy.typing as npt


@displayed
@dataclass(frozen=True)
class PlasticActivity:
    """What a run sent and learned.

    Attributes:
        steps: of this run.
        events: of the inputs and of each population that spikes, by name.
        values: of each readout, (steps, size).
        weights: by projection that was to be recorded, (steps, synapses): after each step.
    """

    steps: int
    events: Mapping[str, Events]
    values: Mapping[str, npt.NDArray[np.float64]]
    weights: Mapping[str, npt.NDArray[np.float64]]


@displayed
class PlasticSimulation:
    """A network with projections that learn. Runs follow one another: neurons, traces and weights go on where the last one ended.

    In a step all populations add up, update and send as in ``SpikingNetwork``, with the weights of the step's beginning; then
    the projections learn from what arrived and what fired. A projection into a readout has no firing to learn from.

    Args:
        network: which.
        rules: by projection; the others keep their weights.
        seed: of random rounding.
        stuck: by projection, synapses that a faulty memory holds.

    Attributes:
        network: as given, with the first weights.
        counts: by projection with a rule, since the beginning.

    Raises:
        InputError: a rule for a projection that is not there or that leads to a readout, weights that its rule does not allow.
    """

    def __init__(
        self,
        network: SpikingNetwork,
        rules: Mapping[str, LearningRule],
        *,
        seed: int = 0,
        stuck: Mapping[str, Stuck] | None = None,
    ) -> None:
        self.network = network
        self._rules = dict(rules)
        names = [one.name for one in network.projections]
        for name in (*rules, *(stuck or {})):
            if name not in names:
                raise unknown_name("projection", name, names)
        for name in stuck or {}:
            if name not in rules:
                raise InputError(f"stuck: projection {name!r} does not learn; write its weights instead")
        self._learning: dict[str, Learning] = {}
        for number, projection in enumerate(network.projections):
            if projection.name in rules:
                target = network.population(projection.target)
                if not target.neurons.spiking:
                    raise InputError(f"projection {projection.name!r}: {target.name!r} never fires, so nothing can be learned")
                self._learning[projection.name] = rules[projection.name].start(
                    projection,
                    target.size,
                    dt_s=network.dt_s,
                    seed=seed * 1_000_003 + number,
                    stuck=(stuck or {}).get(projection.name),
                )
        self.counts: dict[str, LearningCounts] = {name: one.counts for name, one in self._learning.items()}
        longest = {one.name: 1 for one in network.populations}
        for projection in network.projections:
            longest[projection.source] = max(longest[projection.source], int(projection.delays.max()) + 1)
        # What was sent longest ago is added first, as in ``dynamics``.
        self._lags = {}
        for one in network.projections:
            order = np.argsort(-one.delays, kind="stable")
            self._lags[one.name] = (order, one.delays[order])
        self._sent = {one.name: np.zeros((longest[one.name], one.size)) for one in network.populations}
        self._neurons = {one.name: _NeuronState(one) for one in network.populations if one.neurons.kind != "input"}
        self._step = 0

    def weights(self, projection: str) -> npt.NDArray[np.float64]:
        """Of a projection as they are now, (synapses,).

        Raises:
            InputError: there is none of that name.
        """
        if projection in self._learning:
            return self._learning[projection].weight.copy()
        for one in self.network.projections:
            if one.name == projection:
                return one.synapses.weight.copy()
        raise unknown_name("projection", projection, [one.name for one in self.network.projections])

    def learned(self) -> SpikingNetwork:
        """The network with the weights as they are now."""
        return self.network.with_projections(
            [
                replace(one, synapses=replace(one.synapses, weight=self.weights(one.name), stored=one.synapses.count))
                if one.name in self._learning
                else one
                for one in self.network.projections
            ]
        )

    def run(
        self,
        inputs: Mapping[str, Events | npt.ArrayLike],
        *,
        steps: int | None = None,
        modulator: Mapping[str, npt.ArrayLike] | None = None,
        record: Sequence[str] = (),
    ) -> PlasticActivity:
        """Go on for some steps.

        Args:
            inputs: by input population: events, or an array (steps, size) of what each sends in each step.
            steps: how many; None: as many as the inputs have.
            modulator: by projection whose rule takes one: (steps,), or (steps, targets).
            record: projections whose weights are kept after every step.

        Raises:
            InputError: an input or modulator that is missing, unknown or of another size.
        """
        given = self._inputs(inputs, steps)
        count = next(iter(given.values())).shape[0] if given else int(steps or 0)
        factors = self._modulators(modulator or {}, count)
        for name in record:
            if name not in self._learning:
                raise unknown_name("record", name, list(self._learning))
        kept = {name: np.zeros((count, self._learning[name].weight.size)) for name in record}
        shown = {one.name: np.zeros((count, one.size)) for one in self.network.populations}
        for t in range(count):
            self._advance({name: values[t] for name, values in given.items()}, {name: one[t] for name, one in factors.items()})
            for name in record:
                kept[name][t] = self._learning[name].weight
            for name, sent in shown.items():
                sent[t] = self._sent[name][(self._step - 1) % self._sent[name].shape[0]]
        values = {one.name: shown.pop(one.name) for one in self.network.populations if one.neurons.kind == "readout"}
        return PlasticActivity(count, {name: Events.from_dense(sent) for name, sent in shown.items()}, values, kept)

    def _inputs(self, inputs: Mapping[str, Events | npt.ArrayLike], steps: int | None) -> dict[str, npt.NDArray[np.float64]]:
        for name in inputs:
            if name not in self.network.inputs:
                raise unknown_name("inputs", name, self.network.inputs)
        given = {}
        for name in self.network.inputs:
            if name not in inputs:
                raise InputError(f"inputs: {name!r} is missing")
            one = inputs[name]
            array = one.dense() if isinstance(one, Events) else np.asarray(one, np.float64)
            size = self.network.population(name).size
            if array.ndim != 2 or array.shape[1] != size or not np.isfinite(array).all():
                raise InputError(f"inputs: {name!r}: expected finite numbers (steps, {size}), got {array.shape}")
            given[name] = array
        lengths = {array.shape[0] for array in given.values()} | ({steps} if steps is not None else set())
        if len(lengths) != 1:
            raise InputError(f"steps: expected one number of steps, got {sorted(lengths) or 'none'}")
        return given

    def _modulators(self, modulator: Mapping[str, npt.ArrayLike], steps: int) -> dict[str, npt.NDArray[np.float64]]:
        found = {}
        takes = [name for name in self._learning if self._rules[name].modulated]
        for name in modulator:
            if name not in takes:
                raise unknown_name("modulator", name, takes)
        for projection in self.network.projections:
            if projection.name not in takes:
                continue
            if projection.name not in modulator:
                raise InputError(f"modulator: {projection.name!r} is missing")
            array = np.asarray(modulator[projection.name], np.float64)
            size = self.network.population(projection.target).size
            if array.shape not in ((steps,), (steps, size)) or not np.isfinite(array).all():
                raise InputError(
                    f"modulator: {projection.name!r}: expected finite numbers ({steps},) or ({steps}, {size}), got {array.shape}"
                )
            whole = array if array.ndim == 2 else array[:, None]
            found[projection.name] = np.ascontiguousarray(np.broadcast_to(whole, (steps, size)))
        return found

    def _advance(self, inputs: Mapping[str, npt.NDArray[np.float64]], modulator: Mapping[str, npt.NDArray[np.float64]]) -> None:
        from neuromorphic.learning._plasticity_kernels import deliver

        arrived: dict[str, tuple[Any, Any]] = {}
        for name in self.network.order:
            ring = self._sent[name]
            place = self._step % ring.shape[0]
            if name in inputs:
                ring[place] = inputs[name]
                continue
            for projection in self.network.projections:
                if projection.target != name:
                    continue
                source = self._sent[projection.source]
                order, lag = self._lags[projection.name]
                values = source[(self._step - lag) % source.shape[0], order]
                active = np.flatnonzero(values)
                who, values = order[active], values[active]
                arrived[projection.name] = (who, values)
                learning = self._learning.get(projection.name)
                synapses = projection.synapses
                weight = synapses.weight if learning is None else learning.weight
                currents = self._neurons[name].currents[projection.receptor]
                deliver(synapses.first, synapses.target, weight, who, values, currents)
            ring[place] = self._neurons[name].step()
        for projection in self.network.projections:
            if projection.name in self._learning:
                ring = self._sent[projection.target]
                fired = np.flatnonzero(ring[self._step % ring.shape[0]])
                who, values = arrived[projection.name]
                self._learning[projection.name].step(Arrivals(self._step, who, values, fired, modulator.get(projection.name)))
        self._step += 1


class _NeuronState:
    """The neurons of a population as they are now; sums go in the order of ``dynamics``, so that spikes are equal bit for bit.

    ``currents`` is where arrivals are added: what is left of the currents, and the input's bias.
    """

    def __init__(self, population: Population) -> None:
        self.neurons, size = population.neurons, population.size
        self.of = population.neurons.arrays(size)
        self.v, self.w, self.a = self.of["v_init"].copy(), np.zeros(size), np.zeros(size)
        self.currents = (self.of["input_bias"].copy(), np.zeros(size))
        self.level = self.of["threshold"].copy()
        self.left = np.zeros(size)
        self.fired = np.zeros(size, np.bool_)
        self.cosine = self.of["decay_v"] * np.cos(self.of["angle"])
        self.sine = self.of["decay_v"] * np.sin(self.of["angle"])

    def step(self) -> npt.NDArray[np.float64]:
        """What each sends, after all arrivals were added."""
        kind, of, (i, i2) = self.neurons.kind, self.of, self.currents
        if self.neurons.reset_next_step:
            self._reset()
        waits = self.left > 0
        if kind == "resonate_and_fire":
            w = self.sine * self.v + self.cosine * self.w
            v = self.cosine * self.v - self.sine * self.w + of["gain"] * i + of["bias"]
            self.w = np.where(waits, self.w, w)
        elif kind == "threshold":
            v = of["gain"] * i + of["bias"]
        else:
            v = of["decay_v"] * self.v + of["gain"] * i + of["gain2"] * i2 + of["bias"]
        self.v = np.where(waits, self.v, v)
        stays = 0.0 if kind == "threshold" else of["decay_i"]
        self.currents = (stays * i + of["input_bias"], of["decay_i2"] * i2)
        if kind == "readout":
            return self.v.copy()
        self.level = of["threshold"] + of["adaptation"] * self.a
        passes = self.v >= self.level if self.neurons.fires_at_threshold else self.v > self.level
        self.fired = passes & ~waits
        self.a = of["decay_a"] * self.a + self.fired
        if not self.neurons.reset_next_step:
            self._reset()
        self.left = np.where(self.fired, of["refractory_steps"], np.maximum(self.left - 1, 0))
        return self.fired.astype(np.float64)

    def _reset(self) -> None:
        if self.neurons.kind == "threshold" or not self.fired.any():
            return
        if self.neurons.reset == "zero":
            self.v = np.where(self.fired, self.of["v_reset"], self.v)
            self.w = np.where(self.fired, 0.0, self.w)
        elif self.neurons.reset == "subtract":
            self.v = np.where(self.fired, self.v - self.level, self.v)
