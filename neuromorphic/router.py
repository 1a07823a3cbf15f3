"""A mesh of spike routers, cycle by cycle: the model of the RTL units ``spike_router`` and ``spike_mesh``.

Routing is dimension-ordered (W. J. Dally and C. L. Seitz, "Deadlock-free message routing in multiprocessor interconnection
networks", IEEE Trans. Computers C-36(5), 1987): first along x, then along y, so that no cycle of waiting can close.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.views.display import displayed, displaying
from neuromorphic._arrays import flags, integers
from numerics.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt


class RouterPort(IntEnum):
    """Ports of a router; y grows to the south."""

    NORTH = 0
    EAST = 1
    SOUTH = 2
    WEST = 3
    LOCAL = 4


PORTS = len(RouterPort)


@displaying("bits")
@dataclass(frozen=True)
class FlitFormat:
    """Fields of a flit, which is a whole packet: x of its destination in the highest bits, y, payload.

    Raises:
        InputError: a field without bits, or more than 62 bits in all.
    """

    x_bits: int = 4
    y_bits: int = 4
    payload_bits: int = 8

    def __post_init__(self) -> None:
        for name, bits in vars(self).items():
            if not isinstance(bits, int) or bits < 1:
                raise InputError(f"{name}: expected an integer ≥ 1, got {bits!r}")
        if self.bits > 62:
            raise InputError(f"flit: expected at most 62 bits, got {self.bits}")

    @property
    def bits(self) -> int:
        """Of a flit."""
        return self.x_bits + self.y_bits + self.payload_bits

    def pack(self, x: npt.ArrayLike, y: npt.ArrayLike, payload: npt.ArrayLike = 0) -> npt.NDArray[np.int64]:
        """Flits of the fields, all of one shape or broadcast to it.

        Raises:
            InputError: a value that is no integer or does not fit its field.
        """
        fields = {"x": (x, self.x_bits), "y": (y, self.y_bits), "payload": (payload, self.payload_bits)}
        arrays = []
        for name, (values, bits) in fields.items():
            array = integers(name, values)
            if array.size and not 0 <= int(array.min()) <= int(array.max()) < 1 << bits:
                raise InputError(f"{name}: expected {bits}-bit numbers, got {int(array.min())} to {int(array.max())}")
            arrays.append(array)
        return (arrays[0] << (self.y_bits + self.payload_bits)) | (arrays[1] << self.payload_bits) | arrays[2]

    def unpack(self, flits: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """x, y and payload of flits.

        Raises:
            InputError: flits that are no integers.
        """
        array = integers("flits", flits)
        y = (array >> self.payload_bits) & ((1 << self.y_bits) - 1)
        return array >> (self.y_bits + self.payload_bits), y, array & ((1 << self.payload_bits) - 1)


@displayed
@dataclass(frozen=True)
class PortTrace:
    """What every port of every router shows, by (cycles, rows, columns, 5); only pins of the mesh show as driven or offered.

    Attributes:
        in_valid, in_flit: what the sources drive; a flit of 0 where none is offered.
        in_ready: whether the router takes a flit; of all its inputs.
        out_valid, out_flit: what all outputs show; a flit of 0 where none is.
        out_ready: what the sinks drive.
    """

    in_valid: npt.NDArray[np.bool_]
    in_flit: npt.NDArray[np.int64]
    in_ready: npt.NDArray[np.bool_]
    out_valid: npt.NDArray[np.bool_]
    out_flit: npt.NDArray[np.int64]
    out_ready: npt.NDArray[np.bool_]


@displayed
@dataclass(frozen=True)
class MeshRun:
    """What came of some cycles.

    Attributes:
        cycles: how many.
        entered: (packets,) cycle in which each packet offered in this run was taken; −1: it was not, and is not kept.
        packet: (left,) number of each packet that left, in order of leaving; packets are numbered as they were offered, over all
            runs of the mesh.
        left, port, flit: (left,) its cycle, port (5 · router + port) and flit.
        trace: of the ports, where it was asked for.
    """

    cycles: int
    entered: npt.NDArray[np.int64]
    packet: npt.NDArray[np.int64]
    left: npt.NDArray[np.int64]
    port: npt.NDArray[np.int64]
    flit: npt.NDArray[np.int64]
    trace: PortTrace | None


@displayed
class Mesh:
    """Routers of five ports each, joined to their neighbours, rows from north to south.

    A flit that enters an empty input shows at its output in the next cycle. Each output passes one flit a cycle and takes the
    inputs in turn; what it shows stays until it passes. An input takes a flit if its queue was not full when the cycle began. So
    a packet alone in the mesh leaves 1 + hops cycles after it entered.

    Attributes:
        rows, columns, depth, flit_format, x, y: as given.
        occupancy: (rows, columns, 5) flits in each input's queue.
        passed: (rows, columns, 5, 5) flits that went from an input to an output so far.

    Args:
        rows, columns: of routers.
        depth: flits that each input can hold.
        flit_format: fields of the packets.
        x, y: coordinates of the north-western router.
        open_edges: whether packets may enter and leave at the edges, for destinations beyond them.

    Raises:
        InputError: a size below 1, coordinates that the format's fields do not hold.
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        *,
        depth: int = 2,
        flit_format: FlitFormat | None = None,
        x: int = 0,
        y: int = 0,
        open_edges: bool = False,
    ) -> None:
        for name, value, low in (("rows", rows, 1), ("columns", columns, 1), ("depth", depth, 1), ("x", x, 0), ("y", y, 0)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low:
                raise InputError(f"{name}: expected an integer ≥ {low}, got {value!r}")
        form = FlitFormat() if flit_format is None else flit_format
        if x + columns > 1 << form.x_bits or y + rows > 1 << form.y_bits:
            fields = f"{form.x_bits} and {form.y_bits} bits"
            raise InputError(f"flit_format: {fields} do not address {columns} columns from {x} and {rows} rows from {y}")
        self.rows, self.columns, self.depth, self.flit_format = rows, columns, depth, form
        self.x, self.y, self.open_edges = x, y, open_edges
        self.reset()

    def reset(self) -> None:
        """Empty it; the first input has its turn everywhere."""
        routers = self.rows * self.columns
        self._flits, self._packets = (np.zeros((routers, PORTS, self.depth), np.int64) for _ in range(2))
        self._head, self._count, self._turn = (np.zeros((routers, PORTS), np.int64) for _ in range(3))
        self._held = np.zeros(routers, np.int64)
        self._passed = np.zeros((routers, PORTS, PORTS), np.int64)
        self._numbered = 0

    @property
    def occupancy(self) -> npt.NDArray[np.int64]:
        return self._count.reshape(self.rows, self.columns, PORTS).copy()

    @property
    def passed(self) -> npt.NDArray[np.int64]:
        return self._passed.reshape(self.rows, self.columns, PORTS, PORTS).copy()

    def hops(self, router: npt.ArrayLike, x: npt.ArrayLike, y: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Links from a router (row · columns + column) to the one at (x, y).

        Raises:
            InputError: numbers that are no integers.
        """
        row, column = np.divmod(integers("router", router), self.columns)
        return np.abs(column + self.x - integers("x", x)) + np.abs(row + self.y - integers("y", y))

    def run(
        self,
        flits: npt.ArrayLike = (),
        *,
        router: npt.ArrayLike = 0,
        port: npt.ArrayLike = RouterPort.LOCAL,
        not_before: npt.ArrayLike = 0,
        ready: npt.ArrayLike | None = None,
        cycles: int | None = None,
        record: bool = False,
    ) -> MeshRun:
        """Offer packets and let cycles pass.

        Args:
            flits: (packets,). Those of one port are offered in this order, each from its cycle on until it is taken.
            router: where each enters, row · columns + column.
            port: at which of that router's ports; local, or at an open edge.
            not_before: its first cycle, counted from the beginning of this run.
            ready: (pattern, routers, 5) whether a sink takes a flit, repeated as often as needed; they always do by default.
            cycles: how many; by default until the mesh is empty.
            record: whether to keep what every port showed (it takes ``cycles``).

        Raises:
            InputError: a destination or entry that the mesh does not have, arrays of the wrong shape, numbers that are no
                integers, neither cycles nor a pattern in which every sink takes flits.
        """
        from neuromorphic._cycle_kernels import mesh_cycles

        routers = self.rows * self.columns
        offered, entry, earliest = self._offered(flits, router, port, not_before)
        pattern = np.ones((1, routers, PORTS), np.bool_) if ready is None else flags("ready", ready)
        if pattern.ndim != 3 or pattern.shape[1:] != (routers, PORTS) or not len(pattern):
            raise InputError(f"ready: expected shape (pattern, {routers}, {PORTS}), got {pattern.shape}")
        if cycles is None:
            if record:
                raise InputError("record: needs a number of cycles")
            if not pattern.any(axis=0).all():
                raise InputError("ready: without cycles every sink must take flits, or the mesh never gets empty")
        elif isinstance(cycles, bool) or not isinstance(cycles, int | np.integer) or cycles < 0:
            raise InputError(f"cycles: expected an integer ≥ 0, got {cycles!r}")
        order = np.argsort(entry, kind="stable")
        first = np.searchsorted(entry[order], np.arange(routers * PORTS + 1)).astype(np.int64)
        entered = np.full(offered.size, -1, np.int64)
        log = np.zeros((offered.size + int(self._held.sum()), 4), np.int64)
        shape = (cycles if record and cycles is not None else 0, routers * PORTS)
        shown: dict[str, Any] = {
            name: np.zeros(shape, np.bool_ if name[-4:] != "flit" else np.int64)
            for name in ("in_valid", "in_flit", "in_ready", "out_valid", "out_flit")
        }
        ran, left = mesh_cycles(
            self.rows, self.columns, self.x, self.y, self.flit_format.y_bits, self.flit_format.payload_bits,
            self._flits, self._packets, self._head, self._count, self._turn, self._held,
            first, first[:-1].copy(), offered[order], earliest[order], order, self._numbered, entered,
            pattern.reshape(len(pattern), -1), np.iinfo(np.int64).max if cycles is None else cycles, cycles is None,
            self._passed, log, record, *shown.values(),
        )  # fmt: skip
        trace = None
        if record:
            shown["out_ready"] = pattern.reshape(len(pattern), -1)[np.arange(ran) % len(pattern)]
            trace = PortTrace(**{name: a.reshape(-1, self.rows, self.columns, PORTS) for name, a in shown.items()})
        self._numbered += offered.size
        packet, cycle, exits, flit = log[:left].T
        return MeshRun(ran, entered, packet, cycle, exits, flit, trace)

    def _offered(
        self, flits: npt.ArrayLike, router: npt.ArrayLike, port: npt.ArrayLike, not_before: npt.ArrayLike
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Checked: flits, entry port (5 · router + port) and first cycle, (packets,) each."""
        array = integers("flits", flits)
        if array.ndim != 1:
            raise InputError(f"flits: expected one axis, got shape {array.shape}")
        given = {}
        for name, values, limit in (
            ("router", router, self.rows * self.columns), ("port", port, PORTS), ("not_before", not_before, None),
        ):  # fmt: skip
            numbers = integers(name, values)
            if numbers.shape not in ((), array.shape):
                raise InputError(f"{name}: expected shape {array.shape}, got {numbers.shape}")
            if numbers.size and (numbers.min() < 0 or (limit is not None and numbers.max() >= limit)):
                upper = "" if limit is None else f" below {limit}"
                raise InputError(f"{name}: expected numbers ≥ 0{upper}, got {int(numbers.min())} to {int(numbers.max())}")
            given[name] = np.broadcast_to(numbers, array.shape)
        if array.size and not 0 <= int(array.min()) <= int(array.max()) < 1 << self.flit_format.bits:
            raise InputError(f"flits: expected {self.flit_format.bits}-bit numbers, got {int(array.min())} to {int(array.max())}")
        x, y, _ = self.flit_format.unpack(array)
        outside = (x < self.x) | (x >= self.x + self.columns) | (y < self.y) | (y >= self.y + self.rows)
        if not self.open_edges and outside.any():
            at = int(np.argmax(outside))
            raise InputError(f"flits: packet {at} goes to ({x[at]}, {y[at]}), outside of the mesh")
        row, column = np.divmod(given["router"], self.columns)
        inner = [row > 0, column < self.columns - 1, row < self.rows - 1, column > 0, np.zeros(row.shape, np.bool_)]
        joined = np.choose(given["port"], inner) | ((given["port"] != RouterPort.LOCAL) & (not self.open_edges))
        if joined.any():
            at = int(np.argmax(joined))
            name = RouterPort(int(given["port"][at])).name.lower()
            raise InputError(f"port: nothing enters at the {name} port of router {int(given['router'][at])}")
        return array, given["router"] * PORTS + given["port"], given["not_before"]


def spike_router(*, x: int = 0, y: int = 0, depth: int = 2, flit_format: FlitFormat | None = None) -> Mesh:
    """One router at (x, y), all of whose ports are open."""
    return Mesh(1, 1, depth=depth, flit_format=flit_format, x=x, y=y, open_edges=True)
