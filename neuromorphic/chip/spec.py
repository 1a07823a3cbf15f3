"""The spec of a neuromorphic chip: what its YAML file may say. A figure that nobody published is null there and stays unknown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from hwsim.spec import Count, MachineSpec, NaturalNumber, NotNegative, Positive, SpecPart

if TYPE_CHECKING:
    import numpy.typing as npt

NEURON_MODELS = ("integrate_and_fire", "resonate_and_fire", "threshold", "readout")
"""Kinds of ``neuromorphic.network.Neurons`` that a core can hold."""

EVENTS = (
    "synaptic_operation",
    "neuron_update_active",
    "neuron_update_inactive",
    "neuron_spike",
    "axon_out",
    "axon_in",
    "spike_within_tile",
    "hop_east_west",
    "hop_north_south",
    "barrier",
)
"""What costs energy and time on a chip: one synapse that a spike passes; the update in one step of a neuron that gets input or
has a state to decay, or of one that has neither; a spike being made (beyond the update); its packet sent to one core; taken in
by it; delivered within a tile; carried over one link; the barrier that ends a step, once on all of the chip."""


MOST_PLACES = 2**20
"""Of cores on all chips, each of which is laid out: a million, as in the largest machine of SpiNNaker's first generation."""


class Mesh(SpecPart):
    """The routers, one a tile, numbered row by row from the corner at column 0 and row 0.

    Attributes:
        columns, rows: of routers; x grows to the east, y to the south.
        cores_per_tile: cores at one router; cores are numbered tile by tile.
        input_column, input_row: of the router where spikes from outside enter.
    """

    columns: Count
    rows: Count
    cores_per_tile: Count
    input_column: NaturalNumber = 0
    input_row: NaturalNumber = 0


class Chips(SpecPart):
    """Chips in a grid whose meshes join edge to edge; they are numbered row by row and filled in this order.

    Attributes:
        columns, rows: of chips, at most.
        hop_weight: what placement counts for a link between chips, in links on a chip.
        hop_energy_pj, hop_time_ns: of a packet over a link between chips; null: unknown.
    """

    columns: Count = 1
    rows: Count = 1
    hop_weight: Positive = 1.0
    hop_energy_pj: NotNegative | None = None
    hop_time_ns: NotNegative | None = None

    @property
    def count(self) -> int:
        """Chips at most."""
        return self.columns * self.rows


class Bits(SpecPart):
    """Widths of a core's integers, the sign among them; null: unknown, or the chip has no such value.

    Attributes:
        weight: of a synapse.
        input: of what a step's synapses add up to.
        current, voltage: of the state.
        decay: of a decay factor.
        threshold, bias: of their mantissas.
        spike_value: of what a spike carries; 0: it is just there or not.
    """

    weight: Count
    input: Count | None = None
    current: Count | None = None
    voltage: Count | None = None
    decay: Count | None = None
    threshold: Count | None = None
    bias: Count | None = None
    spike_value: NaturalNumber = 0


class NeuronModel(SpecPart):
    """What neurons of one kind can be on a core.

    Attributes:
        currents: synaptic currents that decay (decay_i ≠ 0, decay_i2 ≠ decay_i), at most; 0: input goes to the voltage at once.
        leak: ``exponential``: any decay_v; ``none``: decay_v = 1, the voltage changes by input and bias alone.
        adaptation: their threshold may adapt.
        resets: what a spike may do to the voltage.
        reset_anywhere: it may be reset to another value than 0.
        refractory_steps_max: steps at most.
    """

    currents: NaturalNumber = 1
    leak: Literal["exponential", "none"] = "exponential"
    adaptation: bool = False
    resets: tuple[Literal["zero", "subtract", "none"], ...] = ("zero", "subtract", "none")
    reset_anywhere: bool = False
    refractory_steps_max: NaturalNumber = 0


class SynapseStorage(SpecPart):
    """How a core stores synapses.

    Attributes:
        layout: ``list``: those of a source one after the other; ``crossbar``: a row for each source with a place for each neuron.
        weight_bits: of a stored weight; null: the width of a weight.
        index_bits: beside each weight, to name its target; lists of a dense projection do without.
        delay_bits: beside each weight, where any delay of the projection exceeds one step.
        group_synapses: a list is cut into groups of so many.
        group_header_bits: of each.
        word_bits: a group fills whole words.
        shares_weights: a convolution's or pooling's kernel is stored once a core.
        weights_per_neuron: a crossbar whose neurons have so many weights, of which a row names one for all its synapses: a source
            that needs several takes as many rows. Null: every synapse has a weight of its own.
        sign_by_row: a crossbar whose rows are excitatory or inhibitory: a source that is both takes two.
        state_bytes_per_neuron: where neurons share the memory of the synapses.
        reserved_bytes: of that memory, for programs.
    """

    layout: Literal["list", "crossbar"] = "list"
    weight_bits: Count | None = None
    index_bits: NaturalNumber = 0
    delay_bits: NaturalNumber = 0
    group_synapses: Count | None = None
    group_header_bits: NaturalNumber = 0
    word_bits: Count = 1
    shares_weights: bool = False
    weights_per_neuron: Annotated[Count, Field(le=4096)] | None = None
    sign_by_row: bool = False
    state_bytes_per_neuron: NaturalNumber = 0
    reserved_bytes: NaturalNumber = 0


class EventCost(SpecPart):
    """What one event takes; null: unknown."""

    energy_pj: NotNegative | None = None
    time_ns: NotNegative | None = None


class BarrierCost(SpecPart):
    """What a barrier takes; null: unknown.

    Attributes:
        energy_pj: of one.
        time_ns: by the tiles that take part, those first in the mesh; of others ``Barrier`` finds it by their diameter.
    """

    energy_pj: NotNegative | None = None
    time_ns: Mapping[int, NotNegative] | None = None

    @field_validator("time_ns")
    @classmethod
    def _tiles(cls, value: Mapping[int, float] | None) -> Mapping[int, float] | None:
        if value is not None and (not value or min(value) < 1):
            raise ValueError("expected nanoseconds by number of tiles, one or above")
        return value if value is None else dict(sorted(value.items()))

    def time_at(self, tiles: int) -> float | None:
        """Nanoseconds with so many tiles."""
        if self.time_ns is None:
            return None
        return float(np.interp(tiles, list(self.time_ns), list(self.time_ns.values())))


class EventSet(SpecPart):
    """One source's figures for the ``EVENTS``; those left out are unknown.

    Attributes:
        source: where they are from.
        synaptic_operation_by_kind: kind of projection (``dense``, ``sparse``, ``convolution``, ``pooling``) → what a synaptic
            operation takes there; for the others it is ``synaptic_operation``.
    """

    source: str
    synaptic_operation: EventCost = EventCost()
    synaptic_operation_by_kind: Mapping[Literal["dense", "sparse", "convolution", "pooling"], EventCost] = Field(
        default_factory=dict
    )
    neuron_update_active: EventCost = EventCost()
    neuron_update_inactive: EventCost = EventCost()
    neuron_spike: EventCost = EventCost()
    axon_out: EventCost = EventCost()
    axon_in: EventCost = EventCost()
    spike_within_tile: EventCost = EventCost()
    hop_east_west: EventCost = EventCost()
    hop_north_south: EventCost = EventCost()
    barrier: BarrierCost = BarrierCost()

    def energy_pj(self, event: str, kind: str | None = None) -> float | None:
        """Of one event of ``EVENTS``, None where unknown; ``kind``: of the projection, for a synaptic operation."""
        if event == "synaptic_operation":
            return self.synaptic(kind).energy_pj
        cost: EventCost | BarrierCost = getattr(self, event)
        return cost.energy_pj

    def time_ns(self, event: str, kind: str | None = None, *, tiles: int = 1) -> float | None:
        """Of one event of ``EVENTS``, None where unknown; ``tiles``: that wait at the barrier."""
        if event == "barrier":
            return self.barrier.time_at(tiles)
        if event == "synaptic_operation":
            return self.synaptic(kind).time_ns
        cost: EventCost = getattr(self, event)
        return cost.time_ns

    def synaptic(self, kind: str | None = None) -> EventCost:
        """What a synaptic operation in a projection of this kind takes."""
        return self.synaptic_operation_by_kind.get(kind, self.synaptic_operation)  # type: ignore[call-overload]

    @property
    def unknown(self) -> tuple[str, ...]:
        """Figures that are unknown, such as ``axon_out.energy_pj``."""
        found = []
        for event in EVENTS:
            cost: EventCost | BarrierCost = getattr(self, event)
            found += [f"{event}.{field}" for field in ("energy_pj", "time_ns") if getattr(cost, field) is None]
        return tuple(found)


class ChipSpec(MachineSpec):
    """A chip (or several) of cores that hold spiking neurons and their synapses, joined by a mesh of routers.

    Attributes:
        kind: ``neuromorphic_chip``.
        clock_hz: what cycles of a report count.
        mesh: the routers of a chip.
        cores: of a chip; the first of its mesh's places.
        chips: how many it may be.
        neurons_per_core: at most.
        synapse_memory_bytes_per_core, synapses_per_core: at most; null: no such limit is known.
        max_fan_in: synapses of one neuron at most.
        input_axons_per_core: sources that one core hears at most (rows of a crossbar).
        output_axons_per_core: pairs of a neuron and a core that it sends to, at most.
        max_target_axons: axons that one neuron sends to, at most.
        synapses: how a core stores them.
        arithmetic: ``loihi`` (``LoihiNeuron``), ``fixed`` (integers of the widths under ``bits``), ``float32``.
        bits: widths of its integers.
        delay_steps_max: of a synapse; what is sent in a step arrives in the next at the earliest, which is a delay of 1.
        neuron_models: kind of neurons → what they can be.
        exponential_leak: where the chip has only a constant leak: ``refuse`` networks with another, or make it ``linear``, as
            ``quantise`` does.
        synchronisation: ``barrier``: a step ends when all cores are done; ``fixed``: it lasts ``step_time_s``.
        step_time_s: of a fixed step.
        static_power_w: of a chip whenever it is on; null: unknown.
        idle_power_w_per_core: of a core that is used, beyond ``static_power_w`` and its events; null: unknown.
        event_sets: name → energies and times by one source.
        event_set: the one that counts.
    """

    kind: Literal["neuromorphic_chip"]
    mesh: Mesh
    cores: Count
    chips: Chips = Chips()
    neurons_per_core: Count
    synapse_memory_bytes_per_core: Count | None = None
    synapses_per_core: Count | None = None
    max_fan_in: Count | None = None
    input_axons_per_core: Count | None = None
    output_axons_per_core: Count | None = None
    max_target_axons: Count | None = None
    synapses: SynapseStorage
    arithmetic: Literal["loihi", "fixed", "float32"]
    bits: Bits
    delay_steps_max: Count
    neuron_models: Mapping[Literal["integrate_and_fire", "resonate_and_fire", "threshold", "readout"], NeuronModel] = Field(
        min_length=1
    )
    exponential_leak: Literal["refuse", "linear"] = "refuse"
    synchronisation: Literal["barrier", "fixed"]
    step_time_s: Positive | None = None
    static_power_w: NotNegative | None = None  # type: ignore[assignment]  # elsewhere a machine without a figure has none
    idle_power_w_per_core: NotNegative | None = None
    event_sets: Mapping[str, EventSet] = Field(min_length=1)
    event_set: str

    @model_validator(mode="after")
    def _consistent(self) -> ChipSpec:
        places = self.mesh.columns * self.mesh.rows * self.mesh.cores_per_tile
        if self.cores > places:
            raise ValueError(f"cores: expected at most the {places} places of the mesh, got {self.cores}")
        if places * self.chips.count > MOST_PLACES:
            raise ValueError(f"chips: expected at most 2^20 places of cores in all, got {places * self.chips.count}")
        if self.mesh.input_column >= self.mesh.columns or self.mesh.input_row >= self.mesh.rows:
            raise ValueError(f"mesh: the input router ({self.mesh.input_column}, {self.mesh.input_row}) is outside of the mesh")
        dotted = [name for name in self.event_sets if "." in name]
        if dotted:
            raise ValueError(f"event_sets: expected names without a dot, got {dotted[0]!r}")
        if self.event_set not in self.event_sets:
            raise ValueError(f"event_set: expected one of {', '.join(self.event_sets)}, got {self.event_set!r}")
        if (self.synchronisation == "fixed") != (self.step_time_s is not None):
            raise ValueError("step_time_s: expected seconds with fixed synchronisation, null with a barrier")
        if self.synapses.layout == "crossbar" and self.input_axons_per_core is None:
            raise ValueError("input_axons_per_core: a crossbar has so many rows; it is missing")
        if self.synapses.layout != "crossbar" and (self.synapses.weights_per_neuron is not None or self.synapses.sign_by_row):
            raise ValueError("synapses: weights_per_neuron and sign_by_row are of the rows of a crossbar; layout is 'list'")
        return self

    @property
    def events(self) -> EventSet:
        """The set that counts."""
        return self.event_sets[self.event_set]

    @property
    def unknown(self) -> tuple[str, ...]:
        """What nobody published, as far as it bears on energy and time: of the set that counts, and powers."""
        powers = [name for name in ("static_power_w", "idle_power_w_per_core") if getattr(self, name) is None]
        links = [f"chips.{name}" for name in ("hop_energy_pj", "hop_time_ns") if getattr(self.chips, name) is None]
        return (*(f"{self.event_set}.{name}" for name in self.events.unknown), *powers, *(links if self.chips.count > 1 else ()))

    def positions(
        self, cores: npt.ArrayLike | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """x and y of the routers of cores in the joined meshes, and their chips; of all cores of all chips by default.

        Core c of chip k is number k · cores + c.
        """
        number = np.arange(self.chips.count * self.cores) if cores is None else np.asarray(cores, np.int64)
        chip, core = np.divmod(number, self.cores)
        row, column = np.divmod(core // self.mesh.cores_per_tile, self.mesh.columns)
        chip_row, chip_column = np.divmod(chip, self.chips.columns)
        return chip_column * self.mesh.columns + column, chip_row * self.mesh.rows + row, chip
