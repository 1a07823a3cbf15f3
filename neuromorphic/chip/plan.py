"""The tables that a chip's compiled steps work on: populations, projections, blocks of neurons by core, ways of spikes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from neuromorphic.chip import _tables as tables
from neuromorphic.chip._route_kernels import routes, solid_rows
from neuromorphic.chip.faults import ChipFaults, state_bits
from neuromorphic.chip.network import ChipNetwork
from neuromorphic.events import Events

if TYPE_CHECKING:
    import numpy.typing as npt

SHORTEST_RUN = 32
"""Neurons in a row on one core, on average, from which each run is a block of its own."""

KINDS = ("dense", "sparse", "convolution", "pooling")
RESETS = {"zero": tables.ZERO, "subtract": tables.SUBTRACT, "none": tables.NONE}
STATES = {"loihi": tables.Loihi, "fixed": tables.Fixed, "event": tables.Event, "float": tables.Float}
STATE_TYPES: dict[str, tuple[Any, Any]] = {
    "loihi": (np.int32, np.int32),
    "fixed": (np.int64, np.int64),
    "event": (np.int32, np.int32),
    "float": (np.float32, np.float32),
}


class Kept(NamedTuple):
    """What a run writes."""

    record: tables.Record
    begin: npt.NDArray[np.int64]


@dataclass(frozen=True)
class ChipPlan:
    """Tables of one network in one placement.

    Attributes:
        network: whose.
        populations: one row a population, columns of ``_tables``.
        wiring: of the synapses.
        cores: blocks of neurons, and ways of spikes.
        rank: of each sender, its place among those of its core.
        values, recorded: population → its first column of what is written.
        low, sender: population → its first neuron among those that are updated, among all.
        count: cores.
        graded: whether spikes carry values.
    """

    network: ChipNetwork
    populations: npt.NDArray[np.int64]
    wiring: tables.Wiring
    cores: tables.Cores
    rank: npt.NDArray[np.int32]
    values: Mapping[str, int]
    recorded: Mapping[str, int]
    low: Mapping[str, int]
    sender: Mapping[str, int]
    count: int
    graded: bool

    @classmethod
    def of(
        cls, network: ChipNetwork, core_of: Mapping[str, npt.NDArray[np.int32]], record: tuple[str, ...], *, graded: bool
    ) -> ChipPlan:
        """Tables for a placement: population → core of each neuron."""
        order = sorted(range(len(network.projections)), key=lambda q: network.projections[q].target)
        projections = [network.projections[q] for q in order]
        low, sender, values, recorded = {}, {}, {}, {}  # type: dict[str, int], dict[str, int], dict[str, int], dict[str, int]
        table = np.zeros((len(network.populations), 20), np.int64)
        neurons = senders = sent = kept = given = blocks = 0
        block_rows: list[npt.NDArray[np.int32]] = []
        for p, one in enumerate(network.populations):
            row = table[p]
            sender[one.name] = senders
            row[tables.SENDER], row[tables.SIZE] = senders, one.size
            row[tables.KIND] = {"input": tables.INPUT, "spiking": tables.SPIKING, "readout": tables.READOUT}[one.kind]
            row[tables.SHIFT] = -2 if network.arithmetic.family == "event" else one.shift
            row[tables.RECORD] = row[tables.VALUE] = -1
            senders += one.size
            if one.kind == "input":
                row[tables.GIVEN], given = given, given + 1
                continue
            low[one.name] = neurons
            row[tables.LOW], row[tables.START], row[tables.RESET] = neurons, one.start, RESETS[one.reset]
            numbers = one.numbers
            row[tables.SECOND], row[tables.ADAPTIVE] = "decay_u2" in numbers, "adaptation" in numbers
            row[tables.RESONANT], row[tables.AT_THRESHOLD] = "cosine" in numbers, one.at_threshold
            row[tables.UNIFORM] = all(
                x.size < 2 or (x == x.flat[0]).all() for name, x in numbers.items() if name not in ("v_init", "axon_weights")
            )
            row[tables.BIASED] = numbers["bias"].any() or (numbers["input_bias"].any() if "input_bias" in numbers else False)
            mine = [q for q, one_way in enumerate(projections) if one_way.target == one.name]
            row[tables.FIRST_IN], row[tables.LAST_IN] = (mine[0], mine[-1] + 1) if mine else (0, 0)
            if one.kind == "readout":
                values[one.name] = row[tables.VALUE] = sent
                sent += one.size
            if one.name in record:
                recorded[one.name] = row[tables.RECORD] = kept
                kept += one.size
            rows = _blocks(core_of[one.name], neurons, p)
            row[tables.FIRST_BLOCK], row[tables.LAST_BLOCK] = blocks, blocks + len(rows)
            blocks += len(rows)
            block_rows.append(rows)
            neurons += one.size
        wiring, starts = _wiring(network, projections)
        home = np.concatenate([core_of[one.name] for one in network.populations]).astype(np.int32)
        count = int(home.max(initial=0)) + 1
        block = np.concatenate(block_rows) if block_rows else np.zeros((0, 4), np.int32)
        ways = _routes(network, projections, starts, wiring, home, sender, count)
        cores = tables.Cores(block, ways[0], ways[1], ways[2], ways[3], home)
        return cls(network, table, wiring, cores, _rank(home, table), values, recorded, low, sender, count, graded)

    def arrays(self, given: Mapping[str, Events], steps: int, faults: ChipFaults) -> tuple[tuple[Any, ...], Kept]:
        """Arguments of ``chip_steps``, and what it writes."""
        network, chip = self.network, self.network.arithmetic
        wide, narrow = STATE_TYPES[chip.family]
        neurons = network.neurons
        own = [one for one in network.populations if one.kind != "input"]

        def joined(name: str, kind: Any = wide) -> npt.NDArray[Any]:
            if not any(name in one.numbers for one in own):
                return np.zeros(neurons if name == "input_bias" else 0, kind)
            return np.concatenate([one.numbers.get(name, np.zeros(one.size)).astype(kind) for one in own])

        low, high = chip.voltage_range
        fraction = chip.decay_bits or 0
        limit = (1 << (chip.current_bits - 1)) if chip.current_bits else 1 << 62
        parameters = tables.Parameters(
            joined("decay_u"), joined("decay_u2"), joined("decay_v"), joined("bias"), joined("input_bias"), joined("threshold"),
            joined("drop"), joined("adaptation"), joined("decay_a"), joined("v_reset"), joined("cosine"), joined("sine"),
            joined("refractory", np.int32), low, high, -limit, limit - 1, fraction,
            (1 << fraction) >> 1 if chip.nearest else 0, 7 if chip.format == "bf16" else 23,
        )  # fmt: skip

        def zeros(there: bool, kind: Any = narrow) -> npt.NDArray[Any]:
            return np.zeros(neurons if there else 0, kind)

        second, adaptive, resonant = (
            bool(self.populations[:, c].any()) for c in (tables.SECOND, tables.ADAPTIVE, tables.RESONANT)
        )
        state = STATES[chip.family](
            zeros(True, wide), zeros(second, wide), zeros(True), zeros(second), joined("v_init", narrow), zeros(resonant),
            zeros(adaptive), zeros(True, np.int32), zeros(True, np.uint8 if chip.family != "event" else np.int32),
        )  # fmt: skip
        alive = np.array([state.v[a:b].any() for a, b, _, _ in self.cores.block], np.uint8)
        kept_size = sum(network.population(name).size for name in self.recorded)
        value_size = sum(network.population(name).size for name in self.values)
        record = tables.Record(
            np.zeros((steps, self.count, 4), np.int32), np.zeros((steps, self.count, len(KINDS)), np.int32),
            np.zeros((steps, value_size), narrow), np.zeros((steps, kept_size), narrow), np.zeros((steps, kept_size), narrow),
            np.zeros((steps, kept_size), np.int32), np.zeros(3, np.int64),
        )  # fmt: skip
        # A share of 2^53, so that 1 loses every spike.
        lost = np.uint64(round(faults.lost_rate * 2**53))
        broken = tables.Faults(
            faults.flip_table(network, self.low), faults.dead(network, self.sender, self.cores.home.size), lost,
            np.uint64(faults.seed), state_bits(network),
        )  # fmt: skip
        wiring = self.wiring._replace(weight=faults.weights(network))
        begin = np.zeros(steps * len(network.populations) + 1, np.int64)
        arguments = (
            steps, self.populations, wiring, self.cores, state, parameters, _inputs(network, given, steps),
            broken, self.graded, alive, record, begin,
        )  # fmt: skip
        return arguments, Kept(record, begin)


def _blocks(core: npt.NDArray[np.int32], low: int, population: int) -> npt.NDArray[np.int32]:
    """(blocks, 4): first and last neuron, population, core: neurons in a row, not too many; core −1: on several cores, where
    those of one are too few to be worth a block."""
    edges = np.concatenate(([0], np.flatnonzero(np.diff(core)) + 1, [core.size]))
    if core.size < SHORTEST_RUN * (edges.size - 1):
        whole = np.arange(0, core.size, tables.BLOCK)
        ends = np.minimum(whole + tables.BLOCK, core.size)
        several = np.array([(core[a:b] != core[a]).any() for a, b in zip(whole, ends, strict=True)], np.bool_)
        marked = np.where(several, -1, core[whole])
        return np.stack([low + whole, low + ends, np.full(whole.size, population), marked], axis=1).astype(np.int32)
    rows = []
    for a, b in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        rows += [
            (low + k, low + min(k + tables.BLOCK, b), population, int(core[a])) for k in range(a, b, tables.BLOCK)
        ]  # fmt: skip
    return np.array(rows, np.int32).reshape(-1, 4)


def _wiring(network: ChipNetwork, projections: list[Any]) -> tuple[tables.Wiring, npt.NDArray[np.int64]]:
    table = np.zeros((len(projections), 7), np.int64)
    number = {one.name: p for p, one in enumerate(network.populations)}
    lags: list[int] = []
    delays: list[npt.NDArray[np.int64]] = []
    rows = held = 0
    wide, _ = STATE_TYPES[network.arithmetic.family]
    for q, one in enumerate(projections):
        row = table[q]
        row[tables.SOURCE], row[tables.RECEPTOR], row[tables.ROWS] = number[one.source], one.receptor, rows
        row[tables.FACTOR], row[tables.LAGS] = q, len(lags)
        each = np.unique(one.delays).tolist()
        lags += each
        row[tables.LAGS_END] = len(lags)
        row[tables.DELAYS] = -1
        if len(each) > 1:
            row[tables.DELAYS] = held
            delays.append(one.delays)
            held += one.delays.size
        rows += one.first.size
    first = np.concatenate([one.first for one in projections]) if projections else np.zeros(1, np.int64)
    starts = table[:, tables.ROWS].copy()
    solid = np.zeros(first.size, np.bool_)
    for start, one in zip(starts, projections, strict=True):
        solid_rows(start, one.first.size - 1, first, network.target, solid)
    factor = np.array([one.factor for one in projections], np.float32 if wide is np.float32 else np.int64)
    wiring = tables.Wiring(
        table, first, solid, network.target, network.weight, np.array(lags, np.int64),
        np.concatenate(delays) if delays else np.zeros(0, np.int64), factor,
    )  # fmt: skip
    return wiring, starts


def _routes(
    network: ChipNetwork,
    projections: list[Any],
    starts: npt.NDArray[np.int64],
    wiring: tables.Wiring,
    home: npt.NDArray[np.int32],
    sender: Mapping[str, int],
    count: int,
) -> tuple[Any, ...]:
    sizes = [one.size for one in network.populations]
    out = [[q for q, p in enumerate(projections) if p.source == one.name] for one in network.populations]
    kind = np.array([KINDS.index(p.kind) if p.kind in KINDS else 1 for p in projections], np.uint8)
    base = np.array([sender[p.target] for p in projections], np.int64)
    return routes(
        sum(sizes), np.concatenate(([0], np.cumsum(sizes))), np.concatenate(([0], np.cumsum([len(o) for o in out]))),
        np.array([q for o in out for q in o], np.int64), starts, kind, home, base, wiring.first, network.target, count,
        len(KINDS),
    )  # fmt: skip


def _rank(home: npt.NDArray[np.int32], table: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """Place of each neuron among those that its core updates, −1 for inputs."""
    updated = np.concatenate([np.full(row[tables.SIZE], row[tables.KIND] != tables.INPUT) for row in table])
    mine = np.flatnonzero(updated)
    order = mine[np.argsort(home[mine], kind="stable")]
    rank = np.full(home.size, -1, np.int32)
    rank[order] = np.arange(order.size) - np.searchsorted(home[order], home[order])
    return rank


def _inputs(network: ChipNetwork, given: Mapping[str, Events], steps: int) -> tables.Given:
    wide, _ = STATE_TYPES[network.arithmetic.family]
    first, place = np.zeros((len(given), steps + 1), np.int64), 0
    graded = any(events.value is not None for events in given.values())
    values = []
    for g, (name, events) in enumerate(given.items()):
        first[g] = place + events.first[np.minimum(np.arange(steps + 1), events.steps)]
        place += events.count
        if graded:
            units = events.values * network.population(name).value_scale
            values.append(units.astype(np.float32) if wide is np.float32 else np.rint(units).astype(wide))
    neuron = np.concatenate([events.neuron for events in given.values()]) if given else np.zeros(0, np.int32)
    return tables.Given(first, neuron.astype(np.int32), np.concatenate(values) if values else np.zeros(0, wide))
