"""The DRAM as an object: addresses in, times, hits and energy out."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hwsim.dram.mapping import FIELDS
from hwsim.dram.spec import DramSpec, dram_spec
from hwsim.views.display import displaying
from numerics.errors import InputError

if TYPE_CHECKING:
    from hwsim.dram.steady import Achieved, Pattern

Ints = npt.NDArray[np.int64]

COMMANDS = ("RD", "WR", "ACT", "PRE", "PREA", "REF", "REFB")
"""Commands of a trace by number."""

ARRAYS_END_S = 1e4
"""Arrivals beyond this, in seconds, are refused: their clock cycles would not fit."""


@displaying("bytes_per_s", "row_hit_rate")
@dataclass(frozen=True)
class DramRun:
    """What a stream of requests took.

    Attributes:
        time_s: from zero to the last data.
        bytes: bytes moved, whole bursts.
        finish_s: (n,) when the last data of each request were moved.
        row_hits: requests that found their row open.
        row_misses: requests that found their bank closed.
        row_conflicts: requests that had to close another row first.
        activates: rows opened.
        refreshes: all-bank refreshes.
        bank_refreshes: per-bank refreshes.
        channel_busy_s: (channels,) time in which each channel's data bus moves data (mean of its pseudo-channels).
        energy_j: ``activate``, ``read``, ``write``, ``refresh``, ``background`` → joules; adds up to the whole.
        commands: the commands issued, if asked for: (unit, cycle, command, bank or rank, row or request) a row, sorted by unit
            and cycle; commands as in ``COMMANDS``, requests numbered within their unit.
    """

    time_s: float
    bytes: int
    finish_s: npt.NDArray[np.float64]
    row_hits: int
    row_misses: int
    row_conflicts: int
    activates: int
    refreshes: int
    bank_refreshes: int
    channel_busy_s: npt.NDArray[np.float64]
    energy_j: Mapping[str, float] = field(default_factory=dict)
    commands: Ints | None = None

    @property
    def bytes_per_s(self) -> float:
        """Bytes over time (0 for no requests)."""
        return self.bytes / self.time_s if self.time_s else 0.0

    @property
    def row_hit_rate(self) -> float:
        """Row hits over requests (0 for no requests)."""
        requests = self.row_hits + self.row_misses + self.row_conflicts
        return self.row_hits / requests if requests else 0.0


@displaying("spec", "capacity_bytes", "peak_bytes_per_s")
class Dram:
    """A banked DRAM with its controllers.

    Args:
        spec: a preset's name (``preset_names()``), data of a ``DramSpec``, or a spec.
        changes: fields in place of those of ``spec``, such as ``channels=8``.

    Raises:
        InputError: a spec that does not validate.
    """

    def __init__(self, spec: str | Mapping[str, Any] | DramSpec, **changes: Any) -> None:
        self.spec = dram_spec(spec, **changes)

    def __repr__(self) -> str:
        return f"Dram({self.spec.preset or 'own'}, {self.spec.channels} channels, {self.peak_bytes_per_s / 1e9:g} GB/s)"

    @property
    def peak_bytes_per_s(self) -> float:
        """Bandwidth of its data pins."""
        return self.spec.peak_bytes_per_s

    @property
    def capacity_bytes(self) -> int:
        """Bytes it holds."""
        return self.spec.capacity_bytes

    def decode(self, addresses: npt.ArrayLike) -> dict[str, Ints]:
        """Where addresses lie.

        Args:
            addresses: (n,) byte addresses.

        Returns:
            ``channel``, ``pseudo``, ``rank``, ``group``, ``bank``, ``row`` and ``column`` → (n,) numbers, hashes applied.

        Raises:
            InputError: addresses that are no integers, or lie beyond the capacity.
        """
        fields = self._fields(self._bursts(addresses))
        return {name: fields[:, i].copy() for i, name in enumerate(FIELDS)}

    def run(
        self,
        addresses: npt.ArrayLike,
        is_write: npt.ArrayLike = False,
        arrival_s: npt.ArrayLike | None = None,
        *,
        threads: int = 1,
        trace: bool = False,
    ) -> DramRun:
        """Serve a stream of requests, a burst each.

        Units (pseudo-channels) work on their own; each takes its requests in the order given.

        Args:
            addresses: (n,) byte addresses; an address means the burst that holds it.
            is_write: (n,) or one for all.
            arrival_s: (n,) times at which the controllers learn of them, not decreasing; all at zero by default.
            threads: units served at the same time; the result is the same for any number.
            trace: record every command.

        Raises:
            InputError: addresses beyond the capacity, shapes that do not match, arrivals that decrease.
        """
        from hwsim.dram import _control_kernels as control
        from hwsim.dram import _kernels as kernels

        spec = self.spec
        bursts = self._bursts(addresses)
        n = bursts.size
        writes = _flags(is_write, n)
        arrival = self._arrival(arrival_s, n)
        if threads < 1:
            raise InputError(f"threads: expected 1 or more, got {threads}")
        par = parameters(spec)
        order, bank, row, writing, arriving, starts = kernels.route(
            bursts, writes, arrival, *mapping_tables(spec), unit_shape(spec), spec.units
        )
        counters = np.zeros((spec.units, control.COUNTERS), dtype=np.int64)
        issued = np.empty(n, dtype=np.int64)
        recorded = np.zeros(spec.units, dtype=np.int64)
        room = 4 * int(np.diff(starts).max(initial=0)) + 1024 if trace else 0
        while True:
            commands = np.zeros((spec.units if trace else 0, room, 4), dtype=np.int64)
            counters[:] = 0
            tables = (starts, bank, row, writing, arriving, par, control.FAR, issued, counters)
            serve = partial(_serve, (*tables, commands, recorded))
            cuts = np.linspace(0, spec.units, min(threads, spec.units) + 1).astype(int).tolist()
            if len(cuts) == 2:
                serve((0, spec.units))
            else:
                with ThreadPoolExecutor(max_workers=threads) as pool:
                    list(pool.map(serve, pairwise(cuts)))
            if not trace or int(recorded.max(initial=0)) < room:
                break
            room *= 2
        finish = np.empty(n, dtype=np.float64)
        control.finish_times(issued, writing, order, par, spec.clock_hz, finish)
        counts = counters.sum(axis=0)
        time_s = float(counters[:, control.LAST].max(initial=0)) / spec.clock_hz
        busy = (counters[:, control.READS] + counters[:, control.WRITES]) * spec.burst_cycles / spec.clock_hz
        return DramRun(
            time_s=time_s,
            bytes=n * spec.burst_bytes,
            finish_s=finish,
            row_hits=int(counts[control.HITS]),
            row_misses=int(counts[control.MISSES]),
            row_conflicts=int(counts[control.CONFLICTS]),
            activates=int(counts[control.ACTIVATES]),
            refreshes=int(counts[control.REFRESHES]),
            bank_refreshes=int(counts[control.BANK_REFRESHES]),
            channel_busy_s=busy.reshape(spec.channels, spec.pseudo_channels).mean(axis=1),
            energy_j=energy(spec, counts, time_s, spec.units),
            commands=_joined(commands, recorded) if trace else None,
        )

    def steady(self, pattern: Pattern) -> Achieved:
        """What a transfer without end in this pattern reaches; see ``hwsim.dram.steady.steady``."""
        from hwsim.dram.steady import steady

        return steady(self.spec, pattern)

    def _bursts(self, addresses: npt.ArrayLike) -> Ints:
        found = np.atleast_1d(np.asarray(addresses))
        if found.ndim != 1 or (found.size and not np.issubdtype(found.dtype, np.integer)):
            raise InputError(f"addresses: expected a list of integers, got {found.dtype} in {found.ndim} dimensions")
        if found.size and (found.min() < 0 or found.max() >= self.capacity_bytes):
            wrong = int(found.min()) if found.min() < 0 else int(found.max())
            raise InputError(f"addresses: expected 0 to {self.capacity_bytes - 1} (the capacity), got {wrong}")
        return found.astype(np.int64) // self.spec.burst_bytes

    def _fields(self, bursts: Ints) -> Ints:
        from hwsim.dram import _kernels as kernels

        out = np.empty((bursts.size, len(FIELDS)), dtype=np.int64)
        kernels.decode(bursts, *mapping_tables(self.spec), out)
        return out

    def _arrival(self, arrival_s: npt.ArrayLike | None, n: int) -> Ints:
        if arrival_s is None:
            return np.zeros(n, dtype=np.int64)
        times = np.asarray(arrival_s, dtype=np.float64)
        if times.shape != (n,):
            raise InputError(f"arrival_s: expected {n} times, one an address, got shape {times.shape}")
        if not n:
            return np.zeros(0, dtype=np.int64)
        if not np.isfinite(times).all() or times.min() < 0 or times.max() > ARRAYS_END_S or (np.diff(times) < 0).any():
            raise InputError(f"arrival_s: expected times from 0 to {ARRAYS_END_S:g} s that do not decrease")
        return np.ceil(times * self.spec.clock_hz - 1e-9).astype(np.int64)


def _serve(tables: tuple[Any, ...], units: tuple[int, int]) -> None:
    """Serve some units; each writes to places of its own."""
    from hwsim.dram import _control_kernels as control

    control.schedule_units(*units, *tables)


def _flags(is_write: npt.ArrayLike, n: int) -> npt.NDArray[np.bool_]:
    flags = np.asarray(is_write)
    if flags.dtype != np.bool_ or flags.shape not in ((), (n,)):
        raise InputError(f"is_write: expected a bool, or {n} of them, got {flags.dtype} of shape {flags.shape}")
    return np.ascontiguousarray(np.broadcast_to(flags, (n,)))


def _joined(commands: Ints, recorded: Ints) -> Ints:
    parts = [np.column_stack((np.full(k, u), commands[u, :k])) for u, k in enumerate(recorded.tolist()) if k]
    return np.concatenate(parts) if parts else np.zeros((0, 5), dtype=np.int64)


def parameters(spec: DramSpec) -> Ints:
    """What ``_control_kernels.schedule`` needs to know of a unit."""
    from hwsim.dram import _control_kernels as control

    found = np.zeros(control.PARAMETERS, dtype=np.int64)
    times = spec.cycles
    refresh = {"all_bank": control.ALL_BANK, "per_bank": control.PER_BANK, "none": control.NO_REFRESH}
    values = {
        control.RANKS: spec.ranks, control.GROUPS: spec.bank_groups, control.BANKS: spec.banks_per_group,
        control.BUSES: spec.command_buses, control.WINDOW: spec.window, control.WRITE_HIGH: spec.write_high,
        control.WRITE_LOW: spec.write_low, control.HIT_LIMIT: spec.row_hit_limit,
        control.REFRESH_MODE: refresh[spec.refresh], control.BURST: spec.burst_cycles,
        control.RCD_RD: times["t_rcd_rd"], control.RCD_WR: times["t_rcd_wr"], control.RP: times["t_rp"],
        control.RP_AB: times["t_rp_ab"], control.RAS: times["t_ras"], control.RC: times["t_rc"], control.CL: times["t_cl"],
        control.CWL: times["t_cwl"], control.CCD_S: times["t_ccd_s"], control.CCD_L: times["t_ccd_l"],
        control.RRD_S: times["t_rrd_s"], control.RRD_L: times["t_rrd_l"], control.FAW: times["t_faw"], control.WR: times["t_wr"],
        control.WTR_S: times["t_wtr_s"], control.WTR_L: times["t_wtr_l"], control.RTP: times["t_rtp"],
        control.TURN: times["t_turnaround"], control.RANK_GAP: times["t_rank"], control.REFI: times["t_refi"],
        control.RFC: times["t_rfc"], control.RFC_PB: times["t_rfc_pb"], control.RREFD: times["t_rrefd"],
    }  # fmt: skip
    for place, value in values.items():
        found[place] = value
    return found


def mapping_tables(spec: DramSpec) -> tuple[Ints, Ints]:
    """Parts and hashes as ``_kernels.decode`` takes them."""
    parts = [
        (FIELDS.index(p.field), p.radix, p.weight, p.radix.bit_length() - 1 if p.radix & (p.radix - 1) == 0 else -1)
        for p in spec.parts
    ]
    banks = spec.bank_groups * spec.banks_per_group if spec.bank_hash == "xor" else 0
    channels = spec.channels if spec.channel_hash == "multiplicative" else 0
    return np.array(parts, dtype=np.int64), np.array(
        [banks, spec.banks_per_group, channels, spec.pseudo_channels], dtype=np.int64
    )


def unit_shape(spec: DramSpec) -> Ints:
    """Pseudo-channels, bank groups, banks of a group."""
    return np.array([spec.pseudo_channels, spec.bank_groups, spec.banks_per_group], dtype=np.int64)


def energy(spec: DramSpec, counts: Ints, time_s: float, units: int) -> dict[str, float]:
    """Joules by cause of the commands of ``counts`` and of ``units`` units over ``time_s``."""
    from hwsim.dram import _control_kernels as control

    each = spec.energy
    share = 1 / (spec.bank_groups * spec.banks_per_group)
    refreshes = float(counts[control.REFRESHES]) + share * float(counts[control.BANK_REFRESHES])
    return {
        "activate": float(counts[control.ACTIVATES]) * each.activate_pj * 1e-12,
        "read": float(counts[control.READS]) * each.read_pj * 1e-12,
        "write": float(counts[control.WRITES]) * each.write_pj * 1e-12,
        "refresh": refreshes * each.refresh_pj * 1e-12,
        "background": units * spec.ranks * each.background_w * time_s,
    }
