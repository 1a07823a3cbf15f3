"""From a network to a chip: validate, split among cores, place the cores, route. What a chip cannot hold is an error.

Neurons fill cores population by population; a core is left when its next neuron would pass one of the chip's limits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping as Table
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from hwsim.views.display import displayed, displayed_by
from neuromorphic.chip.placement import Method, Places, place_cores
from neuromorphic.chip.spec import ChipSpec
from neuromorphic.chip.splitting import LIMITS, Routes, Splitter, Wiring, core_limits
from neuromorphic.network import Population, SpikingNetwork
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    import numpy.typing as npt


Order = Literal["best", "flat", "spatial", "connected"]

MOST_GATHERED = 20_000
"""Neurons up to which ``best`` tries the order ``connected``, whose time grows with their square."""


@displayed
class Slice(NamedTuple):
    """Neurons ``first`` to ``last`` (that one, too) of a population, which lie on one core."""

    core: int
    population: str
    first: int
    last: int


@displayed_by("neuromorphic.cards:mapping")
@dataclass(frozen=True)
class Mapping:
    """A network on a chip.

    Attributes:
        network: its name.
        spec: of the chip.
        slices: which neurons lie where, by core.
        core_of: population that computes → the core of each neuron, (neurons,) int32. Core c of chip k is k · cores + c.
        routes: population, inputs too → the cores it sends to.
        used: (used,) int64 cores that hold neurons, ascending.
        usage: name of ``LIMITS`` → what each of ``used`` takes of it, (used,) int64.
        input_core: the first core at the router where spikes from outside enter.
        placement: how the cores were placed.
        hops: links that the packets of a run pass, with the traffic assumed.
    """

    network: str
    spec: ChipSpec
    slices: tuple[Slice, ...]
    core_of: Table[str, npt.NDArray[np.int32]]
    routes: Table[str, Routes]
    used: npt.NDArray[np.int64]
    usage: Table[str, npt.NDArray[np.int64]]
    input_core: int
    placement: str
    hops: float

    @cached_property
    def positions(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """x and y of the routers of all cores, and their chips; see ``ChipSpec.positions``."""
        return self.spec.positions()

    @property
    def chips(self) -> int:
        """How many chips are used."""
        return int(np.unique(self.used // self.spec.cores).size)

    @cached_property
    def limits(self) -> dict[str, int | None]:
        """Name of ``LIMITS`` → what a core has of it, None where none is known."""
        return core_limits(self.spec)

    @cached_property
    def cores(self) -> dict[int, tuple[Slice, ...]]:
        """Core that is used → what lies on it."""
        found: dict[int, list[Slice]] = {}
        for one in self.slices:
            found.setdefault(one.core, []).append(one)
        return {core: tuple(found[core]) for core in sorted(found)}

    def table(self) -> list[dict[str, Any]]:
        """One row for each core that is used: where it is, what lies on it and what it takes."""
        x, y, chip = self.positions
        rows = []
        for k, core in enumerate(self.used.tolist()):
            held: dict[str, int] = {}
            for one in self.cores[core]:
                held[one.population] = held.get(one.population, 0) + one.last - one.first + 1
            rows.append(
                {
                    "core": core, "chip": int(chip[core]), "x": int(x[core]), "y": int(y[core]),
                    "holds": ", ".join(f"{count} of {name}" for name, count in held.items()),
                    **{name: int(values[k]) for name, values in self.usage.items()},
                }
            )  # fmt: skip
        return rows

    def packet_hops(self, traffic: Table[str, Any] | None = None) -> float:
        """Links that the packets of a run pass when each neuron sends ``traffic`` spikes (one where it says nothing).

        Args:
            traffic: population → spikes a neuron, a number or (neurons,).
        """
        x, y, _ = self.positions
        total = 0.0
        for name, routes in self.routes.items():
            neurons = routes.first.size - 1
            source = self.core_of.get(name, np.full(neurons, self.input_core, np.int32))
            sender = np.repeat(np.arange(neurons), np.diff(routes.first))
            links = np.abs(x[source[sender]] - x[routes.core]) + np.abs(y[source[sender]] - y[routes.core])
            total += float(links @ _sent(name, neurons, traffic)[sender])
        return total


def map_network(
    network: Any,
    spec: ChipSpec,
    *,
    placement: Method = "annealed",
    seed: int = 0,
    traffic: Table[str, Any] | None = None,
    weight_bits: int | None = None,
    neurons_per_core: int | None = None,
    order: Order = "best",
) -> Mapping:
    """Map a network onto a chip, or onto as few of its chips as hold it.

    Args:
        network: a ``SpikingNetwork``, or a ``ChipNetwork`` of it, whose neurons ``quantise`` has checked.
        spec: of the chip.
        placement: ``annealed`` (the least hops), ``greedy``, ``in_order`` or ``random``.
        seed: of ``random`` and ``annealed``.
        traffic: population → spikes that a neuron sends in a run, a number or (neurons,); 1 where it says nothing.
        weight_bits: of a stored weight; those of the spec otherwise.
        neurons_per_core: fewer than the chip has, to spread the work.
        order: in which the neurons of a population fill cores: ``flat`` (C order), ``spatial`` (images patch by patch, see
            ``filling_rank``), ``connected`` (those that talk to each other together, see ``connected_rank``) or ``best``
            (whichever takes fewest cores, then fewest packets).

    Raises:
        InputError: neurons, delays, weights or spikes that the chip does not have; a neuron that no core can hold; more cores
            than there are.
    """
    if isinstance(network, SpikingNetwork):
        check(network, spec)
    wires = Wiring.of(network)
    _check_wires(wires, spec)
    computing = wires.computing
    if order not in get_args(Order):
        raise unknown_name("order", str(order), get_args(Order))
    orders: list[str] = [order]
    if order == "best":
        images = any(len(one.shape) > 1 for one in computing)
        size = {one.name: one.size for one in computing}
        talkative = any(one.source == one.target_name and size[one.source] <= MOST_GATHERED for one in wires.bundles)
        orders = ["flat", *(["spatial"] if images else []), *(["connected"] if talkative else [])]
    splitter, core_of, usage, routes = _best_split([(spec, wires, weight_bits, neurons_per_core, one) for one in orders])
    cores = len(usage)
    there = spec.cores * spec.chips.count
    if cores > there:
        raise InputError(f"network {network.name!r} needs {cores} cores, {spec.name} has {there} (chips: {spec.chips.count})")
    sources = {one.name: splitter.source_core(one, core_of, cores) for one in wires.layers}
    places = Places.of(spec, math.ceil(cores / spec.cores))
    matrix = _traffic_matrix(routes, sources, traffic, cores)
    place = place_cores(matrix, places, method=placement, seed=seed)

    used = np.sort(place)
    rank = np.argsort(place, kind="stable")
    placed = {one.name: place[splitter.of(one, core_of)].astype(np.int32) for one in computing}
    slices = [one for population in computing for one in _slices(population.name, placed[population.name])]
    mapping = Mapping(
        network=network.name,
        spec=spec,
        slices=tuple(sorted(slices, key=lambda one: one.core)),
        core_of=placed,
        routes={name: _placed_routes(one, place) for name, one in routes.items()},
        used=used,
        usage={name: usage[rank, k] for k, name in enumerate(LIMITS)},
        input_core=places.input_core,
        placement=placement,
        hops=0.0,
    )
    return replace(mapping, hops=mapping.packet_hops(traffic))


# --- validate ---------------------------------------------------------------------------------------------------------


def check(network: SpikingNetwork, spec: ChipSpec) -> None:
    """Raise InputError where a network has neurons that the chip's cores do not have."""
    for population in network.populations:
        if population.neurons.kind != "input":
            _check_neurons(network, population, spec)


def _check_wires(wires: Wiring, spec: ChipSpec) -> None:
    kinds = {one.name: one.kind for one in wires.layers}
    for one in wires.bundles:
        if one.longest_delay > spec.delay_steps_max:
            raise InputError(
                f"projection {one.name!r}: a delay of {one.longest_delay} steps, {spec.name} has at most {spec.delay_steps_max}"
            )
        if kinds[one.source] == "readout" and not spec.bits.spike_value:
            raise InputError(f"projection {one.name!r}: {one.source!r} sends values, {spec.name} sends spikes only")


def _check_neurons(network: SpikingNetwork, population: Population, spec: ChipSpec) -> None:
    neurons, where = population.neurons, f"population {population.name!r}"
    models = dict(spec.neuron_models)
    if neurons.kind not in models:
        raise unknown_name(f"{where}: {spec.name} has no such neurons: kind", neurons.kind, list(models))
    model = models[neurons.kind]
    given = neurons.arrays(population.size)
    if neurons.kind in ("integrate_and_fire", "readout"):
        two = any(one.target == population.name and one.receptor for one in network.projections)
        currents = int(given["decay_i"].any()) + int(two and (given["decay_i2"] != given["decay_i"]).any())
        if currents > model.currents:
            raise InputError(f"{where}: {currents} synaptic currents (decay_i, decay_i2), {spec.name} has {model.currents}")
    if neurons.kind != "threshold" and (given["decay_v"] != 1).any() and model.leak == "none":
        raise InputError(f"{where}: decay_v {given['decay_v'].min():g}, {spec.name} leaks by a bias only (decay_v: 1)")
    if given["adaptation"].any() and not model.adaptation:
        raise InputError(f"{where}: adaptation {given['adaptation'].max():g}, {spec.name} has no adaptive threshold")
    if given["refractory_steps"].max() > model.refractory_steps_max:
        raise InputError(
            f"{where}: {given['refractory_steps'].max():g} refractory steps, {spec.name} has at most {model.refractory_steps_max}"
        )
    if neurons.kind in ("integrate_and_fire", "resonate_and_fire"):
        if neurons.reset not in model.resets:
            raise InputError(f"{where}: reset {neurons.reset!r}, {spec.name} has {', '.join(model.resets)}")
        if neurons.reset == "zero" and given["v_reset"].any() and not model.reset_anywhere:
            raise InputError(f"{where}: v_reset {given['v_reset'].max():g}, {spec.name} resets to 0")


def _best_split(
    tries: Sequence[tuple[Any, ...]],
) -> tuple[Splitter, npt.NDArray[np.int64], npt.NDArray[np.int64], dict[str, Routes]]:
    """The split that takes the fewest cores, then the fewest packets; an error where none succeeds."""
    found, failed = [], []
    for one in tries:
        try:
            splitter = Splitter(*one)
            core_of, usage = splitter.split()
        except InputError as error:
            failed.append(error)
            continue
        found.append((splitter, core_of, usage, splitter.routes(core_of)))
    if not found:
        raise failed[0]
    return min(found, key=lambda one: (len(one[2]), sum(routes.core.size for routes in one[3].values())))


# --- place and route --------------------------------------------------------------------------------------------------


def _sent(name: str, neurons: int, traffic: Table[str, Any] | None) -> npt.NDArray[np.float64]:
    """Spikes that each neuron of a population sends."""
    values = np.asarray(1.0 if traffic is None else traffic.get(name, 1.0), np.float64)
    if values.shape not in ((), (neurons,)) or not np.isfinite(values).all() or values.min() < 0:
        raise InputError(f"traffic: {name!r}: expected finite numbers ≥ 0, one or {neurons}, got shape {values.shape}")
    return np.broadcast_to(values, neurons)


def _traffic_matrix(
    routes: Table[str, Routes], sources: Table[str, npt.NDArray[np.int64]], traffic: Table[str, Any] | None, cores: int
) -> npt.NDArray[np.float64]:
    """Packets of a run from core to core, (cores + 1, cores); the last row is what comes from outside."""
    from neuromorphic.chip._splitting_kernels import add_traffic

    unknown = set(traffic or ()) - set(routes)
    if unknown:
        raise unknown_name("traffic: population", sorted(unknown)[0], list(routes))
    matrix = np.zeros((cores + 1, cores))
    for name, one in routes.items():
        add_traffic(one.first, one.core, sources[name], _sent(name, one.first.size - 1, traffic), matrix)
    return matrix


def _placed_routes(routes: Routes, place: npt.NDArray[np.int64]) -> Routes:
    """Routes to the places of their cores, ascending within a neuron."""
    core = place[routes.core].astype(np.int32)
    sender = np.repeat(np.arange(routes.first.size - 1), np.diff(routes.first))
    return Routes(routes.first, np.ascontiguousarray(core[np.lexsort((core, sender))]))


def _slices(population: str, core_of: npt.NDArray[np.int32]) -> list[Slice]:
    """The runs of neurons that lie on one core."""
    starts = np.concatenate(([0], np.flatnonzero(np.diff(core_of)) + 1, [core_of.size])).tolist()
    return [Slice(int(core_of[a]), population, a, b - 1) for a, b in pairwise(starts)]
