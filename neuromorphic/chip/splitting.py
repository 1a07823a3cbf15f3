"""Neurons split among cores: each core takes the next neurons until one of the chip's limits would be passed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hwsim.views.display import displayed
from neuromorphic.chip.spec import ChipSpec
from neuromorphic.network import SpikingNetwork
from numerics.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

LIMITS = {
    "neurons": "neurons",
    "synapses": "synapses",
    "memory_bytes": "bytes of synapse memory",
    "input_axons": "input axons",
    "output_axons": "output axons",
}
"""What a core has a limit of."""


@displayed
@dataclass(frozen=True)
class Routes:
    """The cores that each neuron of a population sends its spikes to.

    Attributes:
        first: (neurons + 1,) int64: neuron n's are first[n] to first[n + 1] of ``core``.
        core: (routes,) int32, ascending within a neuron.
    """

    first: npt.NDArray[np.int64]
    core: npt.NDArray[np.int32]


def core_limits(spec: ChipSpec) -> dict[str, int | None]:
    """Name of ``LIMITS`` → what a core of the chip has of it, None where none is known."""
    return {
        "neurons": spec.neurons_per_core,
        "synapses": spec.synapses_per_core,
        "memory_bytes": spec.synapse_memory_bytes_per_core,
        "input_axons": spec.input_axons_per_core,
        "output_axons": spec.output_axons_per_core,
    }


class Layer(NamedTuple):
    """A population as splitting sees it; ``kind`` ``input``: it is not on the chip."""

    name: str
    shape: tuple[int, ...]
    kind: str

    @property
    def size(self) -> int:
        """Number of neurons."""
        return math.prod(self.shape)


class Bundle(NamedTuple):
    """A projection as splitting sees it; ``first``, ``target``, ``weight``, ``kind``, ``stored`` as of ``network.Synapses``."""

    name: str
    source: str
    target_name: str
    first: npt.NDArray[np.int64]
    target: npt.NDArray[np.int32]
    weight: npt.NDArray[Any]
    kind: str
    stored: int
    longest_delay: int


class Wiring(NamedTuple):
    """A network as splitting sees it: its populations in order, and its projections."""

    layers: tuple[Layer, ...]
    bundles: tuple[Bundle, ...]

    @classmethod
    def of(cls, network: Any) -> Wiring:
        """That of a ``SpikingNetwork`` or a ``ChipNetwork``."""
        if isinstance(network, SpikingNetwork):
            ordered = [network.population(name) for name in network.order]
            layers = tuple(Layer(one.name, one.shape, one.neurons.kind) for one in ordered)
            wires = [(p, p.synapses.first, p.synapses.target, p.synapses.weight, p.synapses) for p in network.projections]
        else:
            layers = tuple(Layer(one.name, one.shape, one.kind) for one in network.populations)
            wires = [(p, p.first - p.first[0], network.target[p.part], network.weight[p.part], p) for p in network.projections]
        return cls(
            layers,
            tuple(
                Bundle(
                    p.name, p.source, p.target, first.astype(np.int64, copy=False), target.astype(np.int32, copy=False), weight,
                    kept.kind, kept.stored, int(p.delays.max(initial=0)),
                )
                for p, first, target, weight, kept in wires
            ),
        )  # fmt: skip

    @property
    def computing(self) -> list[Layer]:
        """Populations that lie on cores."""
        return [one for one in self.layers if one.kind != "input"]


REFILLS = 6
"""How often cores are filled anew with what their neurons send to, which depends on how all cores were filled, before they are
just cut where they still send to too many."""


class Splitter:
    """A network's neurons and synapses as the kernels take them: neurons numbered through all populations that compute, in the
    order in which they fill cores; sources numbered through all populations.
    """

    def __init__(
        self,
        spec: ChipSpec,
        wires: Wiring,
        weight_bits: int | None,
        neurons_per_core: int | None,
        order: str,
    ) -> None:
        from neuromorphic.chip._splitting_kernels import by_target, count_targets

        self.spec, self.wires, self.computing = spec, wires, wires.computing
        offsets = _offsets(self.computing)

        self.source_offset = _offsets(wires.layers)
        self.neurons = sum(one.size for one in self.computing)
        self.sources = sum(one.size for one in wires.layers)
        if not self.neurons:
            raise InputError("network: nothing in it computes")
        self.most_neurons = most = _at_most("neurons_per_core", neurons_per_core, spec.neurons_per_core)
        self.number = {
            one.name: offsets[one.name]
            + (connected_rank(one, wires, most) if order == "connected" else filling_rank(one.shape, order == "spatial"))
            for one in self.computing
        }
        stored_bits = spec.synapses.weight_bits or spec.bits.weight
        self.weight_bits = _at_most("weight_bits", weight_bits, stored_bits)

        counts = np.zeros(self.neurons, np.int64)
        for bundle in wires.bundles:
            count_targets(bundle.target, self.number[bundle.target_name], counts)
        self.first = np.concatenate(([0], np.cumsum(counts)))
        size = int(self.first[-1])
        crossbar = spec.synapses.layout == "crossbar"
        self.axon: npt.NDArray[Any] = np.empty(size, np.int64 if crossbar else np.int32)
        self.projection = np.empty(size, np.int16)
        weights = np.empty(size if crossbar else 0)
        free = self.first[:-1].copy()
        for own, bundle in enumerate(wires.bundles):
            weight = bundle.weight.astype(np.float64) if crossbar else weights
            by_target(
                bundle.first, bundle.target, self.number[bundle.target_name], self.source_offset[bundle.source], own, free,
                self.axon, self.projection, weight, weights, crossbar,
            )  # fmt: skip
        if crossbar:  # a weight of 0 is no synapse there
            counts = np.bincount(np.repeat(np.arange(self.neurons), counts)[weights != 0], minlength=self.neurons)
        self._check_fan_in(counts)
        self.rows_a_source = self._rows(weights) if crossbar else 1

    def of(self, population: Layer, per_neuron: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The part of an array over all neurons that is a population's."""
        return per_neuron[self.number[population.name]]

    def named(self, neuron: int) -> str:
        """A neuron by the name of its population."""
        found = ((one.name, np.flatnonzero(self.number[one.name] == neuron)) for one in self.computing)
        name, place = next((name, place) for name, place in found if place.size)
        return f"neuron {place[0]} of {name!r}"

    def _check_fan_in(self, counts: npt.NDArray[np.int64]) -> None:
        most = self.spec.max_fan_in
        if most is not None and counts.max() > most:
            worst = int(counts.argmax())
            raise InputError(f"{self.named(worst)}: {counts[worst]} synapses, {self.spec.name} has at most {most} a neuron")

    def _rows(self, weights: npt.NDArray[np.float64]) -> int:
        """Turn sources into rows of a crossbar; returns how many a source may have."""
        from neuromorphic.chip._splitting_kernels import crossbar_rows

        storage = self.spec.synapses
        kinds = storage.weights_per_neuron or 0
        copies = np.zeros(self.sources * (kinds or (2 if storage.sign_by_row else 1)), np.int64)
        rows, neuron = crossbar_rows(self.first, self.axon, weights, kinds, storage.sign_by_row, copies)
        if neuron >= 0:
            own = weights[self.first[neuron] : self.first[neuron + 1]]
            different = np.unique(own[own != 0]).size
            raise InputError(f"{self.named(neuron)}: {different} different weights, {self.spec.name} has {kinds} a neuron")
        there = np.asarray(self.axon >= 0)
        self.axon[there] = self.axon[there] * rows + weights[there].astype(np.int64)
        return int(rows)

    def _storage(self) -> tuple[Any, ...]:
        """What the kernels need to count memory, from the bits of a row on."""
        spec, storage = self.spec, self.spec.synapses
        bits, stored, shift = [], [], []
        group_base = 0
        for one in self.wires.bundles:
            index = 0 if one.kind == "dense" else storage.index_bits
            bits.append(self.weight_bits + index + (storage.delay_bits if one.longest_delay > 1 else 0))
            shared = storage.shares_weights and one.kind in ("convolution", "pooling")
            stored.append(one.stored if shared else -1)
            shift.append(group_base - self.source_offset[one.source])
            group_base += one.first.size - 1
        row_bits = spec.neurons_per_core * self.weight_bits if storage.layout == "crossbar" else 0
        return (
            row_bits, np.array(bits, np.int64), np.array(shift, np.int64), np.array(stored, np.int64),
            storage.group_synapses or 2**40, storage.group_header_bits, storage.word_bits,
            self.sources * self.rows_a_source, group_base,
        )  # fmt: skip

    def split(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The core of each neuron, ascending, and what each core takes of ``LIMITS``, (cores, 5).

        Raises:
            InputError: a neuron that no core can hold.
        """
        from neuromorphic.chip._splitting_kernels import cut, fill, use

        spec, storage, endless = self.spec, self._storage(), 2**62
        limits = core_limits(spec)
        memory = limits["memory_bytes"]
        room = endless if memory is None else 8 * (memory - spec.synapses.reserved_bytes)
        state_bits = 8 * spec.synapses.state_bytes_per_neuron
        core_of, out = np.empty(self.neurons, np.int64), np.zeros(self.neurons, np.int64)
        most_out = limits["output_axons"] or endless
        for _ in range(REFILLS):
            cores, neuron, limit, need = fill(
                self.first, self.axon, self.projection, *storage, state_bits, out, self.most_neurons,
                limits["synapses"] or endless, room, limits["input_axons"] or endless, most_out, core_of,
            )  # fmt: skip
            if neuron >= 0:
                name = ("synapses", "memory_bytes", "input_axons")[limit - 1]
                taken = -(-need // 8) + spec.synapses.reserved_bytes if limit == 2 else need
                raise self._too_much(cores, neuron, name, taken, limits[name] or 0)
            out = self._out(core_of)
            if np.bincount(core_of, weights=out).max() <= most_out:
                break
        while True:
            now, neuron = cut(core_of, out, most_out)
            if neuron >= 0:
                raise self._too_much(int(now), neuron, "output_axons", int(out[neuron]), most_out)
            if now == cores:
                break
            cores, out = now, self._out(core_of)
        usage = np.zeros((cores, 4), np.int64)
        use(self.first, self.axon, self.projection, *storage, state_bits, core_of, usage)
        bytes_used = -(-usage[:, 2] // 8) + spec.synapses.reserved_bytes
        sent = np.bincount(core_of, weights=out, minlength=cores).astype(np.int64)
        return core_of, np.stack([usage[:, 0], usage[:, 1], bytes_used, usage[:, 3], sent], axis=1)

    def _too_much(self, core: int, neuron: int, name: str, need: int, limit: int) -> InputError:
        if name == "memory_bytes":
            amount = f"{_kilobytes(need, up=True)} of {_kilobytes(limit)} synapse memory"
        else:
            amount = f"{need} of {limit} {LIMITS[name]}"
        return InputError(f"core {core}: {amount}; {self.named(neuron)} alone needs as much ({self.spec.name})")

    def _out(self, core_of: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Axons that each neuron that computes sends to: one for each core, or for each row that it has on one."""
        most = self.spec.max_target_axons
        out = np.zeros(self.sources, np.int64)
        if self.rows_a_source == 1:
            for name, routes in self.routes(core_of).items():
                out[self.source_offset[name] : self.source_offset[name] + routes.first.size - 1] = np.diff(routes.first)
        else:
            cores = int(core_of[-1]) + 1
            entry_core = np.repeat(core_of, np.diff(self.first))
            there = np.asarray(self.axon >= 0)
            pairs = np.unique(self.axon[there] * cores + entry_core[there])
            out = np.bincount(pairs // cores // self.rows_a_source, minlength=self.sources)
        found = np.empty(self.neurons, np.int64)
        for one in self.computing:
            found[self.number[one.name]] = out[self.source_offset[one.name] : self.source_offset[one.name] + one.size]
        if most is not None and found.max() > most:
            worst = int(found.argmax())
            raise InputError(f"{self.named(worst)}: sends to {found[worst]} axons, {self.spec.name} has {most} a neuron")
        return found

    def routes(self, core_of: npt.NDArray[np.int64]) -> dict[str, Routes]:
        """The cores that every population sends to, as they are numbered in ``core_of``."""
        from neuromorphic.chip._splitting_kernels import list_routes, mark_routes

        words = (int(core_of[-1]) >> 6) + 1
        found = {}
        for one in self.wires.layers:
            reached = np.zeros((one.size, words), np.uint64)
            for bundle in self.wires.bundles:
                if bundle.source == one.name:
                    mark_routes(bundle.first, bundle.target, self.number[bundle.target_name], core_of, reached)
            first, nothing = np.zeros(one.size + 1, np.int64), np.empty(0, np.int32)
            core = np.empty(list_routes(reached, first, nothing), np.int32)
            list_routes(reached, first, core)
            found[one.name] = Routes(first, core)
        return found

    def source_core(self, population: Layer, core_of: npt.NDArray[np.int64], cores: int) -> npt.NDArray[np.int64]:
        """The core each of a population's spikes comes from; ``cores``, one more than there are, for those from outside."""
        if population.kind == "input":
            return np.full(population.size, cores, np.int64)
        return self.of(population, core_of)


def filling_rank(shape: tuple[int, ...], spatial: bool) -> npt.NDArray[np.int64]:
    """When each neuron of a population, in C order, is put on a core.

    ``spatial``: those of a shape (channels, rows, columns) or (channels, places) go place by place, all channels of one after the
    other, and the places of an image along a Z-order curve (G. M. Morton, IBM, 1966), so that a core holds a patch of it; other
    shapes, and without ``spatial`` all, go in C order.
    """
    size = math.prod(shape)
    if not spatial or len(shape) not in (2, 3) or size == shape[0]:
        return np.arange(size)
    channel, *place = np.unravel_index(np.arange(size), shape)
    curve = np.zeros(size, np.int64)
    for bit in range(max(shape[1:]).bit_length()):
        for k, axis in enumerate(reversed(place)):
            curve |= ((axis >> bit) & 1) << (bit * len(place) + k)
    rank = np.empty(size, np.int64)
    rank[np.lexsort((channel, curve))] = np.arange(size)
    return rank


def connected_rank(layer: Layer, wires: Wiring, room: int) -> npt.NDArray[np.int64]:
    """When each neuron of a population is put on a core, so that cores of ``room`` neurons hold such as talk to each other.

    Those of a population without synapses among its own go in C order.
    """
    from scipy.sparse import csr_array

    from neuromorphic.chip._splitting_kernels import gather

    own = [one for one in wires.bundles if one.source == one.target_name == layer.name]
    if not own:
        return np.arange(layer.size)
    joined = csr_array((layer.size, layer.size))
    for one in own:
        joined = joined + csr_array((np.ones(one.target.size), one.target, one.first), shape=(layer.size, layer.size))
    both = (joined + joined.T).tocsr()
    rank = np.full(layer.size, -1, np.int64)
    gather(both.indptr.astype(np.int64), both.indices.astype(np.int64), both.data, room, rank)
    return rank


def _offsets(populations: Sequence[Layer]) -> dict[str, int]:
    """Population → number of its first neuron."""
    ends = np.cumsum([0, *(one.size for one in populations)])
    return {one.name: int(start) for one, start in zip(populations, ends[:-1], strict=True)}


def _at_most(name: str, value: int | None, limit: int) -> int:
    if value is None:
        return limit
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 1 <= value <= limit:
        raise InputError(f"{name}: expected an integer from 1 to {limit}, got {value!r}")
    return int(value)


def _kilobytes(count: int, *, up: bool = False) -> str:
    value = math.ceil(count / 1024) if up else count / 1024
    return f"{value:.4g} KB" if value < 1000 else f"{value:.0f} KB"
