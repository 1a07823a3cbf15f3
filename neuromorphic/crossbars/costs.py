"""What reading a crossbar costs: what was counted, times a table of published figures. A figure that nobody published is None,
and what needs it is None as well and named.

>>> ISAAC.costs(Counts(vectors=1, pulses=1, dac_conversions=128, cell_reads=16384, adc_conversions=128), adc_bits=6).unknown
('adc_conversion: the figure is for 8 bits, not 6',)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from hwsim.views.display import displayed
from neuromorphic._checks import number, whole
from numerics.errors import InputError


@displayed
@dataclass(frozen=True)
class Counts:
    """What happened in reads of a crossbar.

    Attributes:
        vectors: that were applied.
        pulses: of each vector, one after another.
        dac_conversions: one a row and pulse in each tile.
        cell_reads: one a cell of a used row and column and pulse.
        adc_conversions: one a sensed column (or pair) and pulse in each tile.
        shift_adds: one a conversion.
        conversions_per_adc: of one pulse, as columns share a converter.
        dac_clipped: inputs beyond the range of the converter.
        adc_clipped: conversions beyond it.
    """

    vectors: int = 0
    pulses: int = 0
    dac_conversions: int = 0
    cell_reads: int = 0
    adc_conversions: int = 0
    shift_adds: int = 0
    conversions_per_adc: int = 1
    dac_clipped: int = 0
    adc_clipped: int = 0

    def plus(self, other: Counts) -> Counts:
        """Of both, reads of the same array one after another.

        Raises:
            InputError: reads of different arrays, which differ in pulses a vector or conversions a pulse.
        """
        same = {name: getattr(self, name) for name in ("pulses", "conversions_per_adc")}
        for name, value in same.items():
            if self.vectors and other.vectors and getattr(other, name) != value:
                raise InputError(f"{name}: expected the same in both counts, got {value} and {getattr(other, name)}")
        summed = {one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)}
        return Counts(**(summed | {name: getattr(self if self.vectors else other, name) for name in same}))


@displayed
@dataclass(frozen=True)
class Costs:
    """Energy and time of reads.

    Attributes:
        energy_pj: by component; None: unknown.
        latency_ns: of all vectors; None: unknown.
        unknown: what is not known and why.
        table: name of the table of figures.
    """

    energy_pj: Mapping[str, float | None]
    latency_ns: float | None
    unknown: tuple[str, ...]
    table: str

    @property
    def known_energy_pj(self) -> float:
        """Sum of the components that are known: no less than this."""
        return sum(value for value in self.energy_pj.values() if value is not None)

    @property
    def total_energy_pj(self) -> float | None:
        """Sum of all components; None where one is unknown."""
        return None if None in self.energy_pj.values() else self.known_energy_pj


@displayed
@dataclass(frozen=True)
class CostTable:
    """Energy and time of each event; None: unknown.

    Attributes:
        name, source: of the figures.
        dac_bits, adc_bits: of the converters that the figures are for.
        dac_conversion_pj: one row's pulse, driver included.
        cell_read_pj: one cell in one pulse.
        sample_hold_pj: one sensed column in one pulse.
        adc_conversion_pj, shift_add_pj: one each.
        read_time_ns: of a pulse.
        adc_time_ns: of a conversion.
        pipelined: whether the converters work on one pulse while the array reads the next.

    Raises:
        InputError: a negative figure.
    """

    name: str
    source: str
    dac_bits: int
    adc_bits: int
    dac_conversion_pj: float | None = None
    cell_read_pj: float | None = None
    sample_hold_pj: float | None = None
    adc_conversion_pj: float | None = None
    shift_add_pj: float | None = None
    read_time_ns: float | None = None
    adc_time_ns: float | None = None
    pipelined: bool = False

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name.endswith(("_pj", "_ns")) and value is not None:
                number(one.name, value)
        whole("dac_bits", self.dac_bits, 1)
        whole("adc_bits", self.adc_bits, 1)

    def costs(self, counts: Counts, *, dac_bits: int | None = None, adc_bits: int | None = None) -> Costs:
        """Of what was counted.

        Args:
            counts: of any number of reads.
            dac_bits, adc_bits: of a pulse and of the converter; where they differ from the table's, its figures do not hold and
                the component is unknown. None: as the table's.

        A pulse takes the array ``read_time_ns`` and its converters ``conversions_per_adc · adc_time_ns``, one after the other or,
        ``pipelined``, the longer of the two once the pipeline is full.
        """
        unknown = []
        events = {
            "dac_conversion": (counts.dac_conversions, self.dac_conversion_pj, dac_bits, self.dac_bits),
            "cell_read": (counts.cell_reads, self.cell_read_pj, None, 0),
            "sample_hold": (counts.adc_conversions, self.sample_hold_pj, None, 0),
            "adc_conversion": (counts.adc_conversions, self.adc_conversion_pj, adc_bits, self.adc_bits),
            "shift_add": (counts.shift_adds, self.shift_add_pj, None, 0),
        }
        energy: dict[str, float | None] = {}
        for name, (count, each, bits, table_bits) in events.items():
            if each is None:
                unknown.append(f"{name}: {self.name} gives no energy")
            elif bits not in (None, table_bits):
                unknown.append(f"{name}: the figure is for {table_bits} bits, not {bits}")
                each = None
            energy[name] = None if each is None else count * each
        latency = None
        if self.read_time_ns is None or self.adc_time_ns is None:
            unknown.append(f"latency: {self.name} gives no {'read' if self.read_time_ns is None else 'conversion'} time")
        else:
            stages = (self.read_time_ns, counts.conversions_per_adc * self.adc_time_ns)
            pulses = counts.vectors * counts.pulses
            latency = pulses * max(stages) + min(stages) * (pulses > 0) if self.pipelined else pulses * sum(stages)
        return Costs(energy, latency, tuple(unknown), self.name)


ISAAC = CostTable(
    name="isaac2016",
    source="A. Shafiee et al., ISAAC, ISCA 2016, table I: powers of one in-situ multiply-accumulate unit of 8 arrays of 128 × 128"
    " cells (32 nm) over its rates: 1024 one-bit drivers 4 mW and 1024 sample-and-holds 10 µW at 10 MHz, arrays 2.4 mW,"
    " 8 converters of 8 bits at 1.2 GS/s 16 mW, shift-and-add 0.2 mW",
    dac_bits=1,
    adc_bits=8,
    dac_conversion_pj=4e9 / (1024 * 1e7),
    cell_read_pj=2.4e9 / (8 * 128 * 128 * 1e7),
    sample_hold_pj=10e6 / (1024 * 1e7),
    adc_conversion_pj=16e9 / (8 * 1.2e9),
    shift_add_pj=0.2e9 / (8 * 1.2e9),
    read_time_ns=100.0,
    adc_time_ns=1 / 1.2,
    pipelined=True,
)

CHOO = CostTable(
    name="choo2016",
    source="K. D. Choo, J. Bell, M. P. Flynn, Area-efficient 1 GS/s 6 b SAR ADC with charge-injection-cell-based DAC, ISSCC 2016:"
    " 1.26 mW at 1 GS/s; a converter alone, nothing of the array",
    dac_bits=1,
    adc_bits=6,
    adc_conversion_pj=1.26,
    adc_time_ns=1.0,
)
