"""The network that carries a chip's spikes: packets, first along x, then along y, through a mesh of routers, one router a tile.

Routing is that of ``router.Mesh`` (dimension-ordered: W. J. Dally and C. L. Seitz, IEEE Trans. Computers C-36(5), 1987), so no
cycle of waiting can close, at any depth of the queues, with multicast and between chips. Time is continuous, in whole
picoseconds: links along x and along y may differ in time, as on Loihi, whose routers have no clock. With one time for
everything (``Interconnect.synchronous``) the exact rung is ``Mesh``, cycle for cycle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from hwsim.views.display import displayed, displayed_by, displaying
from neuromorphic._arrays import integers
from neuromorphic.chip.packets import ENDLESS, Packets, or_empty
from neuromorphic.router import PORTS, RouterPort
from numerics._parallel import run_parts
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    import numpy.typing as npt

Rung = Literal["cycle", "event"]

STRIDE, IN, NONE = 8, 5, 7  # of the kernels' ports
KINDS = IN_KIND, OUT_KIND, EAST_WEST, NORTH_SOUTH, BETWEEN = range(5)
STEP = {RouterPort.NORTH: (0, -1), RouterPort.EAST: (1, 0), RouterPort.SOUTH: (0, 1), RouterPort.WEST: (-1, 0)}
SMALLEST_PART = 32
"""Steps below which another thread costs more than it saves."""


@displayed
@dataclass(frozen=True, kw_only=True)
class ChipLink:
    """What joins the edge routers of neighbouring chips.

    A row's (or column's) packets wait in queues of their own; ``channels`` says how many packets may be on the way over a side
    at once, in each direction. A channel takes the rows that it serves in turn, and none whose queue beyond is full, so sharing
    it does not close a cycle of waiting.

    Attributes:
        hop_ns: time of a packet from an edge router to the other chip's.
        occupancy_ns: time from one packet to the next on a channel; ``hop_ns`` by default.
        channels: on each side of a chip, for each direction; by default one for each row or column.
        queue_depth: packets that the queue beyond holds; None: all.

    Raises:
        InputError: a time not above 0, a packet that is there before it is sent, a number below 1.
    """

    hop_ns: float
    occupancy_ns: float | None = None
    channels: int | None = None
    queue_depth: int | None = None

    def __post_init__(self) -> None:
        _check_time("chip_link: hop_ns", self.hop_ns)
        if self.occupancy_ns is not None:
            _check_time("chip_link: occupancy_ns", self.occupancy_ns)
            if self.occupancy_ns > self.hop_ns:
                raise InputError(
                    f"chip_link: occupancy_ns: expected at most the {self.hop_ns:g} ns of a hop, got {self.occupancy_ns:g}"
                )
        for name, value in (("channels", self.channels), ("queue_depth", self.queue_depth)):
            if value is not None:
                _check_count(f"chip_link: {name}", value)


@displayed_by("neuromorphic.cards:traffic")
@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What the network did, by step.

    Attributes:
        packets: (steps,) that were sent, all of which were delivered.
        latency_s: (steps,) from the beginning of the step until its last packet is delivered; 0 without packets.
        waiting_s: (steps,) how much later than alone in the network packets were delivered, their sum.
        entered, left: (steps,) that went into the first router and out of the last; with multicast fewer than packets.
        hops_east_west, hops_north_south, hops_between_chips: (steps,) links passed.
        within_tile: (steps,) packets whose core is in the tile that they come from.
        longest_path_s: (steps,) latency if no packet were in another's way.
        busiest_link_s: (steps,) the least time in which the packets of the busiest link, or way into or out of a tile, pass it.
        received: (steps, cores) int32 packets that each core got.
        link_load: (rows, columns, 5) packets that left each router by ``RouterPort``, all steps together.
        delivered_s: (packets,) from the beginning of the step, where it was asked for.
    """

    packets: npt.NDArray[np.int64]
    latency_s: npt.NDArray[np.float64]
    waiting_s: npt.NDArray[np.float64]
    entered: npt.NDArray[np.int64]
    left: npt.NDArray[np.int64]
    hops_east_west: npt.NDArray[np.int64]
    hops_north_south: npt.NDArray[np.int64]
    hops_between_chips: npt.NDArray[np.int64]
    within_tile: npt.NDArray[np.int64]
    longest_path_s: npt.NDArray[np.float64]
    busiest_link_s: npt.NDArray[np.float64]
    received: npt.NDArray[np.int32]
    link_load: npt.NDArray[np.int64]
    delivered_s: npt.NDArray[np.float64] | None = None

    @property
    def bound_s(self) -> npt.NDArray[np.float64]:
        """(steps,) what no arbitration can beat: the longest path, and the busiest link."""
        return np.maximum(self.longest_path_s, self.busiest_link_s)


@displaying("core_count", "chip_count")
@dataclass(frozen=True, kw_only=True)
class Interconnect:
    """Chips of tiles, each a router with some cores, in a mesh.

    A packet gets from its core into the router's queue in ``within_tile_ns``, one at a time in each tile; over a link in the time
    of a hop, one at a time on each link; and out to its core, one at a time in each tile. Alone it is delivered after
    ``within_tile_ns`` and its hops. Each output takes the queues in turn. A packet is sent when the queue beyond has room,
    and holds its place in its own queue until the link has taken it: with hops longer than ``occupancy_ns`` a queue of depth d
    lets d packets pass in the time of a hop and an occupancy.

    Cores of a chip are numbered tile by tile, tiles row by row from the corner; core c of chip k is k · cores + c, and chips are
    numbered row by row, too. y grows to the south.

    Attributes:
        columns, rows: of tiles on a chip.
        cores_per_tile: cores at each router.
        cores: of a chip, the first of its places; all of them by default.
        chips: columns and rows of chips.
        hop_east_west_ns, hop_north_south_ns: time of a hop.
        within_tile_ns: time from a core into its router, which is all that a packet within a tile takes.
        occupancy_ns: time from one packet to the next on a link; by default a link is free again when its packet is through.
        tile_occupancy_ns: the same for the ways into and out of a router; by default ``occupancy_ns``, or if that is not given
            either, ``within_tile_ns``.
        queue_depth: packets that each queue of a router holds; None: all, so that only links and turns make packets wait.
        chip_link: between chips; needed with more than one.

    Raises:
        InputError: a number below 1, a time not above 0, a packet that is there before it is sent, chips without a link.
    """

    columns: int
    rows: int
    cores_per_tile: int = 1
    cores: int | None = None
    chips: tuple[int, int] = (1, 1)
    hop_east_west_ns: float
    hop_north_south_ns: float
    within_tile_ns: float
    occupancy_ns: float | None = None
    tile_occupancy_ns: float | None = None
    queue_depth: int | None = None
    chip_link: ChipLink | None = None

    def __post_init__(self) -> None:
        for name in ("columns", "rows", "cores_per_tile"):
            _check_count(name, getattr(self, name))
        for count in self.chips:
            _check_count("chips", count)
        places = self.columns * self.rows * self.cores_per_tile
        if self.cores is not None:
            _check_count("cores", self.cores)
            if self.cores > places:
                raise InputError(f"cores: expected at most the {places} places of the mesh, got {self.cores}")
        if self.queue_depth is not None:
            _check_count("queue_depth", self.queue_depth)
        if self.chip_count > 1 and self.chip_link is None:
            raise InputError(f"chip_link: {self.chip_count} chips need one")
        for name in ("hop_east_west_ns", "hop_north_south_ns"):
            _check_time(name, getattr(self, name))
            if self.occupancy_ns is not None and self.occupancy_ns > getattr(self, name):
                raise InputError(f"occupancy_ns: expected at most {name}, {getattr(self, name):g}, got {self.occupancy_ns:g}")
        if not 0 <= self.within_tile_ns < np.inf:
            raise InputError(f"within_tile_ns: expected a time ≥ 0, got {self.within_tile_ns!r}")
        for name in ("occupancy_ns", "tile_occupancy_ns"):
            if getattr(self, name) is not None:
                _check_time(name, getattr(self, name))
        if self.tile_occupancy_ns is None and self.occupancy_ns is None and not self.within_tile_ns:
            raise InputError("tile_occupancy_ns: expected a time above 0, because within_tile_ns is 0")

    @classmethod
    def synchronous(
        cls, columns: int, rows: int, *, clock_hz: float = 1e9, queue_depth: int = 2, cores_per_tile: int = 1
    ) -> Interconnect:
        """A mesh with a clock, in which everything takes one cycle: ``Mesh(rows, columns, depth=queue_depth)``."""
        if not 0 < clock_hz <= 1e12:
            raise InputError(f"clock_hz: expected above 0, at most 1e12, got {clock_hz!r}")
        cycle = 1e9 / clock_hz
        return cls(
            columns=columns, rows=rows, cores_per_tile=cores_per_tile, hop_east_west_ns=cycle, hop_north_south_ns=cycle,
            within_tile_ns=cycle, occupancy_ns=cycle, queue_depth=queue_depth,
        )  # fmt: skip

    @property
    def chip_count(self) -> int:
        """Number of chips."""
        return self.chips[0] * self.chips[1]

    @property
    def cores_per_chip(self) -> int:
        """Cores of a chip."""
        return self.columns * self.rows * self.cores_per_tile if self.cores is None else self.cores

    @property
    def core_count(self) -> int:
        """Cores of all chips."""
        return self.chip_count * self.cores_per_chip

    def position(self, core: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """x and y of the routers of cores, in the joined meshes.

        Raises:
            InputError: cores that are not there.
        """
        numbers = integers("core", core)
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < self.core_count:
            raise InputError(f"core: expected 0 to {self.core_count - 1}, got {numbers.min()} to {numbers.max()}")
        chip, inside = np.divmod(numbers, self.cores_per_chip)
        row, column = np.divmod(inside // self.cores_per_tile, self.columns)
        chip_row, chip_column = np.divmod(chip, self.chips[0])
        return chip_column * self.columns + column, chip_row * self.rows + row

    def hops(self, source: npt.ArrayLike, target: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Links from core to core, (3, …): along x and along y on the chips, and between chips.

        Raises:
            InputError: cores that are not there.
        """
        (x, y), (to_x, to_y) = self.position(source), self.position(target)
        crossed_x = np.abs(x // self.columns - to_x // self.columns)
        crossed_y = np.abs(y // self.rows - to_y // self.rows)
        return np.stack([np.abs(x - to_x) - crossed_x, np.abs(y - to_y) - crossed_y, crossed_x + crossed_y])

    def path_s(self, source: npt.ArrayLike, target: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Seconds from core to core, alone in the network.

        Raises:
            InputError: cores that are not there.
        """
        between = 0.0 if self.chip_link is None else self.chip_link.hop_ns
        times = np.array([self.hop_east_west_ns, self.hop_north_south_ns, between])
        return 1e-9 * (self.within_tile_ns + np.tensordot(times, self.hops(source, target), axes=1))

    def traffic(self, packets: Packets, *, rung: Rung = "cycle", multicast: bool = False, record: bool = False) -> Traffic:
        """Carry the packets of a run.

        ``cycle`` is exact: every router decides whenever something changes. ``event``, some three times as fast, sends one packet
        after another on all its way, in the order in which they get into the network; a link serves its packets in that order, a
        short queue slows the link before it but never fills up, and a packet is not in the way of those behind it that go
        elsewhere. Its mean latency of a step was within some 5 % of the exact one where no link was busy for most of the time,
        and 20 % above to 30 % below it where many were, the more below the shorter the queues; the benchmark of the interconnect
        prints the table. Neither rung loses a packet, doubles one or beats ``Traffic.bound_s``, and neither depends on the
        number of threads.

        Args:
            packets: by step.
            rung: ``cycle`` or ``event``.
            multicast: the packets of a spike share their way, as a tree that branches where their ways part, and leave a router
                towards all cores of its tile at once. Without it each goes on its own, as on Loihi.
            record: whether to keep when each packet was delivered.

        Raises:
            InputError: a core that is not there, an unknown rung, multicast of packets whose spikes are not known, or whose spike
                is released at several times.
        """
        if rung not in get_args(Rung):
            raise unknown_name("rung", rung, get_args(Rung))
        for name in ("source", "target"):
            cores = getattr(packets, name)
            if cores.size and not 0 <= cores.min() <= cores.max() < self.core_count:
                raise InputError(f"{name}: expected cores 0 to {self.core_count - 1}, got {cores.min()} to {cores.max()}")
        if multicast:
            _check_spikes(packets)
        from neuromorphic.chip._interconnect_kernels import paths

        net, steps = self._network, packets.steps
        given = [
            packets.first, packets.source, packets.target, or_empty(packets.spike if multicast else None, np.int32),
            or_empty(packets.release_s, np.float64),
        ]  # fmt: skip
        alone, longest, inside, latency, total, busiest = (np.zeros(steps, np.int64) for _ in range(6))
        received = np.zeros((steps, self.core_count), np.int32)
        links = paths(
            *given[:3], given[4], net.router_of, net.column, net.row, net.column // self.columns, net.row // self.rows,
            net.path, alone, longest, inside, received,
        )  # fmt: skip
        used = np.zeros((steps, len(KINDS)), np.int64)
        delivered = np.empty(packets.count if record else 0, np.int64)
        written = (latency, total, busiest, used)
        loads = run_parts(net.work(rung, given, links, written, delivered), steps, smallest=SMALLEST_PART)
        load = np.sum(loads, axis=0).reshape(self.chips[1] * self.rows, self.chips[0] * self.columns, STRIDE)
        return Traffic(
            packets=np.diff(packets.first), latency_s=_seconds(latency), waiting_s=_seconds(total - alone),
            entered=used[:, IN_KIND], left=used[:, OUT_KIND], hops_east_west=used[:, EAST_WEST],
            hops_north_south=used[:, NORTH_SOUTH], hops_between_chips=used[:, BETWEEN], within_tile=inside,
            longest_path_s=_seconds(longest), busiest_link_s=_seconds(busiest), received=received,
            link_load=load[:, :, :PORTS].copy(), delivered_s=_seconds(delivered) if record else None,
        )  # fmt: skip

    @cached_property
    def _network(self) -> _Network:
        return _Network(self)


class _Network:
    """An interconnect as the kernels take it: see their module."""

    def __init__(self, given: Interconnect) -> None:
        columns, rows = given.chips[0] * given.columns, given.chips[1] * given.rows
        routers = columns * rows
        ports = STRIDE * routers
        self.row, self.column = (a.astype(np.int32) for a in np.divmod(np.arange(routers), columns))
        x, y = given.position(np.arange(given.core_count))
        self.router_of = (y * columns + x).astype(np.int32)
        link = given.chip_link or ChipLink(hop_ns=1.0)
        hop_ns = {
            IN_KIND: given.within_tile_ns, OUT_KIND: 0.0, EAST_WEST: given.hop_east_west_ns,
            NORTH_SOUTH: given.hop_north_south_ns, BETWEEN: link.hop_ns,
        }  # fmt: skip
        tile = next(ns for ns in (given.tile_occupancy_ns, given.occupancy_ns, given.within_tile_ns) if ns is not None)
        hold_ns = {k: given.occupancy_ns or ns for k, ns in hop_ns.items()} | {IN_KIND: tile, OUT_KIND: tile}
        hold_ns[BETWEEN] = link.occupancy_ns or link.hop_ns
        self.path = _picoseconds([hop_ns[k] for k in (IN_KIND, EAST_WEST, NORTH_SOUTH, BETWEEN)])

        number = np.arange(routers)
        self.to, self.back = np.full(ports, -1, np.int32), np.full(ports, NONE, np.int32)
        self.kind, self.unit = np.zeros(ports, np.int64), np.arange(ports, dtype=np.int32)
        depth = np.full(ports, _depth(given.queue_depth), np.int32)
        lanes: dict[tuple[int, int, int], list[int]] = {}
        for port, (dx, dy) in STEP.items():
            there = (self.column + dx >= 0) & (self.column + dx < columns) & (self.row + dy >= 0) & (self.row + dy < rows)
            at = STRIDE * number + port
            beyond = STRIDE * (number + dx + columns * dy) + (port + 2) % 4
            self.to[at[there]], self.back[beyond[there]] = beyond[there], at[there]
            old, new = (self.column, self.column + dx) if dx else (self.row, self.row + dy)
            chip_size, across, side = (given.columns, self.row, given.rows) if dx else (given.rows, self.column, given.columns)
            crosses = there & (old // chip_size != new // chip_size)
            self.kind[at] = np.where(crosses, BETWEEN, EAST_WEST if dx else NORTH_SOUTH)
            depth[beyond[crosses]] = _depth(link.queue_depth)
            channels = min(side if link.channels is None else link.channels, side)
            for router in number[crosses].tolist():
                chip, place = divmod(int(across[router]), side)
                border = int(old[router]) // chip_size * given.chips[1 if dx else 0] + chip
                lanes.setdefault((port, border, place * channels // side), []).append(STRIDE * router + port)
        self.to[STRIDE * number + IN], self.back[STRIDE * number + RouterPort.LOCAL] = (
            STRIDE * number + RouterPort.LOCAL,
            STRIDE * number + IN,
        )
        self.kind[STRIDE * number + RouterPort.LOCAL], self.kind[STRIDE * number + IN] = OUT_KIND, IN_KIND
        self.depth = depth
        for channel, members in enumerate(lanes.values()):
            self.unit[members] = ports + channel
        self.units = ports + len(lanes)
        self.lane_first = np.concatenate(([0], np.cumsum([len(m) for m in lanes.values()]))).astype(np.int32)
        self.lane_port = np.array([p for members in lanes.values() for p in members], np.int32)
        self.hop = _picoseconds([hop_ns[k] for k in KINDS])[self.kind]
        self.hold = _picoseconds([hold_ns[k] for k in KINDS])[self.kind]
        # A place in the queue beyond is taken from when a packet is sent until it has left that queue.
        leads, used = self.to >= 0, (self.to >= 0) | (np.arange(ports) % STRIDE == RouterPort.LOCAL)
        behind = np.where(leads, self.hop + self.hold[used].min(), 0)
        self.pace = np.maximum(self.hold, -(-behind // np.where(leads, depth[self.to], 1)))
        self.delays = np.unique(np.concatenate([self.hop[leads], self.hold[used]]))
        self.flow = np.zeros((2, ports), np.uint8)
        self.flow[0, leads] = np.searchsorted(self.delays, self.hop[leads])
        self.flow[1, used] = np.searchsorted(self.delays, self.hold[used])
        self.events = int(2 * used.sum() + (self.hop[used] // self.hold[used]).sum())
        # Whose turn it is, by who is first in turn and who asks.
        asked = (np.arange(32)[:, None] >> np.arange(5)) & 1
        self.pick = np.array([[(t + np.argmax(np.roll(row, -t))) % 5 for row in asked] for t in range(5)], np.uint8)

    def work(
        self, rung: Rung, given: list[Any], links: int, written: tuple[Any, ...], delivered: Any
    ) -> Callable[[int, int], Any]:
        """A function that carries some steps and returns the load of each port."""
        from neuromorphic.chip._interconnect_kernels import exact_steps, ordered_steps

        def carry(begin: int, end: int) -> npt.NDArray[np.int64]:
            load = np.zeros(self.to.size, np.int64)
            result = (*written, load, delivered)
            shared = (begin, end, *given, links, self.router_of, self.column, self.row, self.to)
            if rung == "event":
                ordered_steps(*shared, self.hop, self.hold, self.pace, self.kind, self.unit, self.units, *result)
            else:
                room = 1 << int(self.events).bit_length()
                exact_steps(
                    *shared, self.back, self.hop, self.hold, self.kind, self.unit, self.units, self.lane_first, self.lane_port,
                    self.flow, self.delays.size, room, self.depth, self.pick, *result,
                )  # fmt: skip
            return load

        return carry


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InputError(f"{name}: expected an integer ≥ 1, got {value!r}")


def _check_time(name: str, value: Any) -> None:
    if not 1e-3 <= value <= 1e12:
        raise InputError(f"{name}: expected a time of at least 0.001 ns, got {value!r}")


def _check_spikes(packets: Packets) -> None:
    """A spike leaves its core once."""
    if packets.spike is None:
        raise InputError("multicast: the packets' spikes are not known")
    if packets.release_s is not None and packets.count:
        again = (packets.spike[1:] == packets.spike[:-1]) & (packets.source[1:] == packets.source[:-1])
        again[packets.first[(packets.first > 0) & (packets.first < packets.count)] - 1] = False
        wrong = again & (packets.release_s[1:] != packets.release_s[:-1])
        if wrong.any():
            raise InputError(f"release_s: packet {int(np.argmax(wrong)) + 1} is of the spike before it, but released apart")


def _depth(queue_depth: int | None) -> int:
    return ENDLESS if queue_depth is None else queue_depth


def _seconds(times_ps: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.asarray(times_ps * 1e-12, np.float64)


def _picoseconds(times_ns: list[float]) -> npt.NDArray[np.int64]:
    return np.rint(np.array(times_ns) * 1e3).astype(np.int64)
