"""What describes a DRAM: its organisation, timings, energies and controller, and the presets of ``data/dram_timings.yaml``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache, cached_property
from importlib import resources
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hwsim.dram.mapping import Part, parse_mapping
from hwsim.spec import Count, NaturalNumber, NotNegative, Positive, SpecPart
from numerics.errors import InputError, unknown_name

Cycles = NaturalNumber

ROUNDING_GUARD = 0.025
"""Share of a clock cycle by which a time may exceed whole cycles without costing another (JEDEC SPD annex L, rounding)."""

MOST_UNITS, MOST_BANKS, MOST_BYTES, MOST_CYCLES = 1024, 4096, 1 << 60, 10**9
"""Beyond any memory; bounds that keep counts in 64 bits and tables small."""
_MEANT = {"channels": "channels and pseudo-channels", "ranks": "banks of a unit", "rows": "bytes"}


class Timing(SpecPart):
    """A minimum time: ``ns`` in whole clock cycles, or ``cycles`` where those are more.

    Attributes:
        ns: in nanoseconds.
        cycles: in clock cycles.
    """

    ns: NotNegative = 0.0
    cycles: Cycles = 0

    def at(self, clock_hz: float) -> int:
        """Clock cycles it takes at this clock."""
        return max(self.cycles, math.ceil(self.ns * 1e-9 * clock_hz - ROUNDING_GUARD), 0)


class DramTimings(SpecPart):
    """Minimum times between commands, by their JEDEC names. Column commands are reads and writes.

    Attributes:
        t_rcd_rd, t_rcd_wr: activate to read, to write.
        t_rp, t_rp_ab: precharge of a bank, of all banks (``t_rp`` if left out), to its next activate.
        t_ras, t_rc: activate to precharge, to the next activate of the bank.
        t_cl, t_cwl: read, write command to its first data.
        t_ccd_s, t_ccd_l: column command to the next of its kind, in another, in the same bank group.
        t_rrd_s, t_rrd_l: activate to activate of a bank in another, in the same bank group.
        t_faw: window in which a rank takes at most four activates.
        t_wr: last data of a write to precharge.
        t_wtr_s, t_wtr_l: last data of a write to a read in another, in the same bank group.
        t_rtp: read to precharge.
        t_turnaround: gap on the data bus when its direction changes. With it tRTW = tCL + burst + t_turnaround - tCWL.
        t_rank: gap on the data bus when the rank changes.
        t_refi: average interval between all-bank refreshes of a rank.
        t_rfc, t_rfc_pb: all-bank, per-bank refresh to the next command.
        t_rrefd: per-bank refresh to an activate of another bank.
    """

    t_rcd_rd: Timing
    t_rcd_wr: Timing
    t_rp: Timing
    t_rp_ab: Timing | None = None
    t_ras: Timing
    t_rc: Timing
    t_cl: Timing
    t_cwl: Timing
    t_ccd_s: Timing
    t_ccd_l: Timing
    t_rrd_s: Timing
    t_rrd_l: Timing
    t_faw: Timing
    t_wr: Timing
    t_wtr_s: Timing
    t_wtr_l: Timing
    t_rtp: Timing
    t_turnaround: Timing
    t_rank: Timing
    t_refi: Timing
    t_rfc: Timing
    t_rfc_pb: Timing | None = None
    t_rrefd: Timing | None = None


class DramEnergy(SpecPart):
    """Energy of the commands of a channel (of a pseudo-channel, where it has two), above the background.

    Attributes:
        activate_pj: an activate and its precharge.
        read_pj, write_pj: a burst.
        refresh_pj: an all-bank refresh (a per-bank refresh takes its share).
        background_w: power of a rank that flows anyway.
    """

    activate_pj: NotNegative
    read_pj: NotNegative
    write_pj: NotNegative
    refresh_pj: NotNegative
    background_w: NotNegative


class DramSpec(SpecPart):
    """A DRAM and its controller.

    A *unit* is what works on its own: a pseudo-channel, or a channel without them.

    Attributes:
        preset: entry of ``data/dram_timings.yaml`` that gives every field left out.
        channels: channels, all alike.
        pseudo_channels: units of a channel.
        ranks: ranks of a unit.
        bank_groups, banks_per_group: banks of a rank; one group where the standard has none.
        rows: rows of a bank.
        row_bytes: size of a row (page) over all chips of a rank.
        width_bits: data pins of a unit.
        burst_length: transfers of a pin for a column command.
        data_rate_bits_per_s: of a pin.
        bits_per_clock: transfers of a pin in a cycle of the command clock.
        command_buses: 1 for all commands; 2 where row and column commands have a bus each. A bus takes a command a cycle.
        mapping: which bits of a burst's number are what, from the highest: ``row``, ``rank``, ``group``, ``bank``,
            ``column``, ``channel`` and ``pseudo``, split where a number of bits follows a name
            (``row:rank:bank:column:channel:column2:group``).
        bank_hash: ``xor``: the bank's number (groups included) is XORed with the row's lowest bits.
        channel_hash: ``multiplicative``: channel and pseudo-channel are rotated by a hash of all higher bits.
        window: requests of each kind that a unit's controller chooses from.
        write_high, write_low: waiting writes at which it turns to writing, and back.
        row_hit_limit: accesses to an open row that may overtake an older one to another row of the bank.
        refresh: ``all_bank``, ``per_bank`` (in turn) or ``none``.
        timings: see ``DramTimings``.
        energy: see ``DramEnergy``.
    """

    preset: str = ""
    channels: Count = 1
    pseudo_channels: Count = 1
    ranks: Count = 1
    bank_groups: Count
    banks_per_group: Count
    rows: Count
    row_bytes: Count
    width_bits: Count
    burst_length: Count
    data_rate_bits_per_s: Positive
    bits_per_clock: Count
    command_buses: Annotated[int, Field(ge=1, le=2, strict=True)] = 1
    mapping: str
    bank_hash: Literal["none", "xor"] = "none"
    channel_hash: Literal["none", "multiplicative"] = "none"
    window: Annotated[int, Field(ge=1, le=4096, strict=True)] = 64
    write_high: Count = 48
    write_low: Cycles = 16
    row_hit_limit: Count = 64
    refresh: Literal["all_bank", "per_bank", "none"] = "all_bank"
    timings: DramTimings
    energy: DramEnergy

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("preset"):
            return _merged(preset(str(data["preset"])), data)
        return data

    @model_validator(mode="after")
    def _consistent(self) -> DramSpec:
        if self.width_bits % 8:
            raise ValueError(f"width_bits: expected whole bytes, got {self.width_bits}")
        if self.burst_length % self.bits_per_clock:
            raise ValueError(
                f"burst_length: expected a multiple of bits_per_clock {self.bits_per_clock}, got {self.burst_length}"
            )
        if self.row_bytes % self.burst_bytes:
            raise ValueError(f"row_bytes: expected a multiple of the {self.burst_bytes} bytes of a burst, got {self.row_bytes}")
        if not self.write_low < self.write_high <= self.window:
            raise ValueError(
                f"write_low {self.write_low}, write_high {self.write_high}, window {self.window}: expected low < high ≤ window"
            )
        banks = self.bank_groups * self.banks_per_group
        if self.bank_hash == "xor" and banks & (banks - 1):
            raise ValueError(f"bank_hash: xor takes a power of two of banks, got {banks}")
        for name, value, most in (
            ("channels", self.units, MOST_UNITS),
            ("ranks", self.ranks * banks, MOST_BANKS),
            ("rows", self.capacity_bytes, MOST_BYTES),
        ):
            if value > most:
                raise ValueError(f"{name}: expected at most {most} {_MEANT[name]} in all, got {value}")
        parse_mapping(self.mapping, self.sizes)
        times = self.cycles
        longest = max(times, key=lambda name: times[name])
        if times[longest] > MOST_CYCLES:
            raise ValueError(f"timings.{longest}: expected at most {MOST_CYCLES} clock cycles, got {times[longest]}")
        if times["t_refi"] <= times["t_rfc"] + times["t_rp_ab"] + times["t_rc"] and self.refresh != "none":
            raise ValueError("timings.t_refi: expected more than t_rfc + t_rp + t_rc, which would leave no time for data")
        if times["t_rc"] < times["t_ras"]:
            raise ValueError(f"timings.t_rc: expected t_ras ({times['t_ras']} cycles) or more, got {times['t_rc']} cycles")
        for name in ("t_ccd", "t_rrd", "t_wtr"):
            if times[f"{name}_l"] < times[f"{name}_s"]:
                raise ValueError(
                    f"timings.{name}_l: expected {name}_s ({times[f'{name}_s']} cycles) or more, got {times[f'{name}_l']} cycles"
                )
        if self.refresh == "per_bank" and (self.timings.t_rfc_pb is None or self.timings.t_rrefd is None):
            raise ValueError("refresh: per_bank takes timings.t_rfc_pb and timings.t_rrefd")
        if self.refresh == "per_bank" and times["t_refi"] // banks <= times["t_rc"] + times["t_rp"]:
            raise ValueError(f"timings.t_refi: too short to refresh {banks} banks one after another")
        return self

    # Computed once a spec: a cached property lies outside pydantic's fields and does not count in a comparison.

    @cached_property
    def cycles(self) -> dict[str, int]:
        """Timing → clock cycles, optional ones resolved (0 where there is none)."""
        found: dict[str, int] = {}
        for name in DramTimings.model_fields:
            timing = getattr(self.timings, name)
            found[name] = timing.at(self.clock_hz) if timing is not None else 0
        if self.timings.t_rp_ab is None:
            found["t_rp_ab"] = found["t_rp"]
        return found

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The mapping's parts, lowest first."""
        return parse_mapping(self.mapping, self.sizes)

    @cached_property
    def _hash(self) -> int:
        return hash(self.model_dump_json())

    def __hash__(self) -> int:
        return self._hash

    @property
    def clock_hz(self) -> float:
        """Clock of the commands."""
        return self.data_rate_bits_per_s / self.bits_per_clock

    @property
    def burst_bytes(self) -> int:
        """Bytes a column command moves."""
        return self.width_bits * self.burst_length // 8

    @property
    def burst_cycles(self) -> int:
        """Clock cycles its data take."""
        return self.burst_length // self.bits_per_clock

    @property
    def units(self) -> int:
        """Pseudo-channels (channels, where there are none) in all."""
        return self.channels * self.pseudo_channels

    @property
    def sizes(self) -> dict[str, int]:
        """Field of the mapping → how many there are."""
        return {
            "channel": self.channels,
            "pseudo": self.pseudo_channels,
            "rank": self.ranks,
            "group": self.bank_groups,
            "bank": self.banks_per_group,
            "row": self.rows,
            "column": self.row_bytes // self.burst_bytes,
        }

    @property
    def capacity_bytes(self) -> int:
        """Bytes of all channels."""
        return self.units * self.ranks * self.bank_groups * self.banks_per_group * self.rows * self.row_bytes

    @property
    def peak_bytes_per_s(self) -> float:
        """Bytes a second when every data pin moves a bit at every transfer."""
        return self.units * self.width_bits / 8 * self.data_rate_bits_per_s

    @property
    def streaming_pj_per_byte(self) -> float:
        """Energy of a byte read at full speed from rows read in whole: the closed form, without gaps."""
        energy = self.energy
        of_unit = self.peak_bytes_per_s / self.units
        refresh = energy.refresh_pj * self.clock_hz / self.cycles["t_refi"] if self.refresh != "none" else 0.0
        idle_w = self.ranks * (energy.background_w + refresh * 1e-12)
        return energy.activate_pj / self.row_bytes + energy.read_pj / self.burst_bytes + idle_w * 1e12 / of_unit

    @property
    def idle_read_s(self) -> float:
        """From a read that finds its bank closed to its last data, with nothing before it."""
        return (self.cycles["t_rcd_rd"] + self.cycles["t_cl"] + self.burst_cycles) / self.clock_hz


@cache
def _presets() -> dict[str, dict[str, Any]]:
    from hwsim.registry import read_spec

    return read_spec(str(resources.files("hwsim").joinpath("data/dram_timings.yaml")))


def preset_names() -> list[str]:
    """Names of the presets."""
    return sorted(_presets())


def preset(name: str) -> Mapping[str, Any]:
    """The data of a preset.

    Raises:
        InputError: an unknown name (nearest names listed).
    """
    if name not in _presets():
        raise unknown_name("preset", name, _presets())
    return _presets()[name]


def _merged(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with what is given in its place; sections are merged field by field, a timing is replaced whole."""
    merged = {**base, **given}
    for section in ("timings", "energy"):
        below, above = (x.model_dump() if isinstance(x, SpecPart) else x for x in (base.get(section), given.get(section)))
        if isinstance(below, Mapping) and isinstance(above, Mapping):
            merged[section] = {**below, **above}
    return merged


def dram_spec(spec: str | Mapping[str, Any] | DramSpec, **changes: Any) -> DramSpec:
    """A validated spec from a preset's name, from data or as given, with fields changed.

    Raises:
        InputError: one line on the first mistake.
    """
    from hwsim.spec import validate_spec

    if isinstance(spec, DramSpec):
        if not changes:
            return spec
        data: dict[str, Any] = spec.model_dump()
    elif isinstance(spec, str):
        data = {"preset": spec}
    elif isinstance(spec, Mapping):
        data = dict(spec)
    else:
        raise InputError(f"spec: expected a preset's name, its data or a DramSpec, got {type(spec).__name__}")
    return validate_spec(DramSpec, _merged(data, changes), source="dram")
