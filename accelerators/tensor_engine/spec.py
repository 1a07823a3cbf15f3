"""The spec of a tensor engine: what its YAML file may say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from hwsim.memory import OffChip
from hwsim.spec import (
    Count,
    Fraction,
    MatrixMachineSpec,
    NaturalNumber,
    NotNegative,
    Positive,
    Share,
    SpecPart,
)
from hwsim.vector import VectorUnit
from numerics.accumulator import Accumulator, get_accumulator
from numerics.formats import get_format


class EngineFormat(SpecPart):
    """What a multiply-accumulate in one pair of formats takes.

    Attributes:
        macs_per_cycle: of one unit.
        energy_pj: energy of one.
        pipe: ``matrix``: the matrix units, with their tiles; ``vector``: the vector lanes (an FP32 product on a GPU).
        accumulators: format in which a recipe asks for sums → the accumulator that makes them: a name of
            ``numerics.accumulator_names()``, a format, or the fields of an ``Accumulator``. Others are refused.
    """

    macs_per_cycle: Positive
    energy_pj: NotNegative
    pipe: Literal["matrix", "vector"] = "matrix"
    accumulators: Mapping[str, Any] = Field(min_length=1)

    @field_validator("accumulators")
    @classmethod
    def _known(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        for entry in value.values():
            accumulator_of(entry)
        return {get_format(name).name: entry for name, entry in value.items()}


def accumulator_of(entry: Any) -> Accumulator:
    """The accumulator that a spec names or describes.

    Raises:
        InputError: there is none of that name.
        ValueError: neither a name nor the fields of one.
    """
    if isinstance(entry, Mapping):
        try:
            return Accumulator(**entry)
        except TypeError as error:
            raise ValueError(f"accumulator: {str(error).split('__init__() ')[-1]}") from None
    if not isinstance(entry, str):
        raise ValueError(f"accumulator: expected a name or the fields of an accumulator, got {entry!r}")
    return get_accumulator(entry)


class Tile(SpecPart):
    """A tile of results that one unit computes at a time.

    Attributes:
        m, n: its size.
        warp_m, warp_n: the part of it for which operands are read from shared memory once (a warp's).
        rate_fraction: share of the matrix rate that this tile can use (a tile smaller than a systolic array: the share it fills).
    """

    m: Count
    n: Count
    warp_m: Count
    warp_n: Count
    rate_fraction: Fraction = 1.0


class Instruction(SpecPart):
    """Shape of one matrix instruction, which sets how often registers are read and written.

    Attributes:
        m, n: results.
        k_bytes: products of a result, in bytes of an operand: narrower operands make more of them.
        operands: where it reads them: ``registers`` or straight from ``shared`` memory.
    """

    m: Count
    n: Count
    k_bytes: Count
    operands: Literal["registers", "shared"] = "registers"


class MatrixUnits(SpecPart):
    """How matrix products are run.

    Attributes:
        tiles: from which the fastest is chosen for each product.
        efficiency: share of the rate that the main loop of a tile reaches.
        k_step_bytes: products of a result that a stage holds, in bytes of an operand; k is rounded up to it.
        stages: stages of operands in shared memory.
        tile_latency_s: to fill the pipeline of the first tile of a wave and to write its results.
        split_k: into how many parts k may be cut, the parts' sums being added afterwards.
        instruction: shape of one instruction.
        edges: tiles at the edges of a product: ``whole`` ones, of which a part is of no use; ``even``: rows and columns are cut
            into as many equal tiles as those of full size would be, rounded up to ``warp_m`` and ``warp_n`` only.
    """

    tiles: tuple[Tile, ...] = Field(min_length=1)
    efficiency: Fraction
    k_step_bytes: Count
    stages: Count
    tile_latency_s: NotNegative
    split_k: tuple[Count, ...] = Field(default=(1,), min_length=1)
    instruction: Instruction
    edges: Literal["whole", "even"] = "whole"

    @field_validator("split_k")
    @classmethod
    def _whole(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if 1 not in value:
            raise ValueError("split_k must hold 1, the product in one part")
        return value

    @model_validator(mode="after")
    def _parts_fill_tiles(self) -> MatrixUnits:
        for tile in self.tiles:
            if self.edges == "even" and (tile.m % tile.warp_m or tile.n % tile.warp_n):
                raise ValueError(
                    f"edges: even needs tiles of whole parts, but {tile.m}×{tile.n} is no multiple of {tile.warp_m}×{tile.warp_n}"
                )
        return self


class UnitMemory(SpecPart):
    """A memory of each unit.

    Attributes:
        capacity_bytes: of one unit.
        bytes_per_cycle: one unit reads and writes.
        energy_pj_per_byte: of a byte read or written.
    """

    capacity_bytes: Count
    bytes_per_cycle: Positive
    energy_pj_per_byte: NotNegative


class SharedCache(SpecPart):
    """The cache (or scratch memory) that all units share, L2.

    Attributes:
        capacity_bytes: size.
        bytes_per_cycle: all units together.
        unit_bytes_per_cycle: one unit at most.
        achieved_fraction: share of the bandwidth that is reached.
        energy_pj_per_byte: of a byte read or written.
        retained_capacity_bytes: part of it in which results wait for the next operators that read them.
    """

    capacity_bytes: Count
    bytes_per_cycle: Positive
    unit_bytes_per_cycle: Positive
    achieved_fraction: Fraction = 1.0
    energy_pj_per_byte: NotNegative
    retained_capacity_bytes: NaturalNumber = 0

    @model_validator(mode="after")
    def _retained_fits(self) -> SharedCache:
        if self.retained_capacity_bytes > self.capacity_bytes:
            raise ValueError("retained_capacity_bytes is more than capacity_bytes")
        return self


class DeviceMemory(OffChip):
    """Off-chip memory.

    Attributes:
        capacity_bytes: size.
        in_flight_bytes_per_unit: bytes that one unit can have asked for; over the latency, the most bandwidth of one unit.
        sector_bytes: least that is moved: shorter rows of a gather move as much.
    """

    capacity_bytes: Count
    in_flight_bytes_per_unit: Positive
    sector_bytes: Count = 32


class Levels(SpecPart):
    """The memories, from the units outwards: ``register``, ``shared``, ``l2``, ``off_chip``."""

    register_file: UnitMemory
    shared: UnitMemory
    l2: SharedCache
    off_chip: DeviceMemory


class KernelSpec(SpecPart):
    """How the operators of one kind are run; what is left out is as in ``kernels.default``.

    Attributes:
        launch_interval_s: the host's time for a call.
        exposed_fraction: share of it that the kernel's work waits for; the rest is hidden behind the kernel.
        bandwidth_fraction: share of the off-chip bandwidth that its transfers reach; left out everywhere,
            ``memory.off_chip.achieved_fraction``.
        passes: how often a row is read that is not kept in registers (for each statistic, and to apply them).
        kept_row_elements: rows up to this length are kept in registers.
        rows_per_unit: longer rows that one unit has under way at a time.
        reread_fraction: share of L2's bandwidth that further passes reach.
        efficiency: share of ``matrix.efficiency`` that a product reaches; for others of the lanes' rate (1).
        direct_efficiency: share of the lanes' rate that a grouped convolution without tiles reaches (1).
        overlap: share of the shorter of units' work and off-chip transfers that hides behind the longer one (1). Threads that
            wait in turn hide all of it; one thread's caches and arithmetic mostly take turns (Stengel et al., "Quantifying
            performance bottlenecks of stencil computations using the Execution-Cache-Memory model", ICS 2015, section 2).
        row_cycles: of a unit for each row of a row-wise operator, besides its elements' (0).
        pack_bytes_per_cycle: at which a unit first copies both operands of a product into the order of its main loop (0: it does
            not; products with a vector never are: Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", ACM
            TOMS 34(3), 2008, section 4).
        skips_padding: whether a convolution leaves out MACs with the padding's zeros (false).
    """

    launch_interval_s: NotNegative | None = None
    exposed_fraction: Share | None = None
    bandwidth_fraction: Fraction | None = None
    passes: Count | None = None
    kept_row_elements: NaturalNumber | None = None
    rows_per_unit: Count | None = None
    reread_fraction: Fraction | None = None
    efficiency: Fraction | None = None
    direct_efficiency: Fraction | None = None
    overlap: Share | None = None
    row_cycles: NotNegative | None = None
    pack_bytes_per_cycle: NotNegative | None = None
    skips_padding: bool | None = None

    @property
    def hidden(self) -> float:
        """``overlap``, 1 where nothing is said."""
        return 1.0 if self.overlap is None else self.overlap


NEEDED = ("launch_interval_s", "exposed_fraction", "passes", "kept_row_elements", "rows_per_unit", "reread_fraction")
"""Fields of ``KernelSpec`` that ``kernels.default`` gives."""


class Launch(SpecPart):
    """How operators follow one another.

    Attributes:
        mode: ``waited``: the host waits for each, as when one is measured alone: max(launch interval, exposed part + work) of
            its kernel; ``queued``: the host runs ahead: an operator starts when the one before has ended and its own call was
            made;
            ``graph``: recorded once and started as a whole.
        interval_s: the host's time for a call (``queued``).
        gap_s: from the end of one kernel to the start of the next (``queued``, ``graph``).
    """

    mode: Literal["waited", "queued", "graph"] = "waited"
    interval_s: NotNegative
    gap_s: NotNegative


class FusedAttention(SpecPart):
    """Attention.

    Attributes:
        kernel: ``fused``: in one kernel, scores never leave the unit (FlashAttention); ``unfused``: two products and a softmax.
        query_rows, key_columns: the tile of scores.
        tiles_per_unit: tiles that a unit has under way, one multiplying while another takes exponentials.
        efficiency: share of ``matrix.efficiency`` that its products reach.
        least_rows: fewer query rows take as long as these.
        stacks_heads: whether query heads that share keys lie in one tile, or each reads them again from L2.
    """

    kernel: Literal["fused", "unfused"] = "fused"
    query_rows: Count = 128
    key_columns: Count = 64
    tiles_per_unit: Count = 2
    efficiency: Fraction = 1.0
    least_rows: Count = 16
    stacks_heads: bool = True


class Sparsity(SpecPart):
    """Structured sparsity of weights: ``n`` of each ``m`` along k are kept.

    Attributes:
        enabled: whether weights whose traced density is at most n / m count as pruned in this pattern. Density alone does not
            show a pattern, so this is for the user to say.
        n, m: the pattern.
        rate: matrix rate with it, over the dense rate.
        index_bits: of each kept value.
        formats: pairs of ``mac_formats`` that have it.
    """

    enabled: bool = False
    n: Count = 2
    m: Count = 4
    rate: Annotated[Positive, Field(ge=1)] = 2.0
    index_bits: NotNegative = 2.0
    formats: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _keeps_some(self) -> Sparsity:
        if self.n >= self.m:
            raise ValueError(f"n must be below m, got {self.n} of {self.m}")
        return self

    @property
    def density(self) -> float:
        """Share of the weights that are kept."""
        return self.n / self.m


class PowerLimit(SpecPart):
    """The clock under a limit of power.

    Attributes:
        limit_w: of the whole chip; while a kernel would draw more, the clock is lower.
        minimum_clock_hz: it does not fall below.
        energy_exponent: energy of an event on the chip ~ clock to this power (it goes with the square of the voltage).
    """

    limit_w: Positive
    minimum_clock_hz: Positive
    energy_exponent: NotNegative = 1.0


class TensorEngineSpec(MatrixMachineSpec):
    """A tensor engine.

    Attributes:
        kind: ``tensor_engine``; ``processor`` for one whose units are cores (``accelerators.tensor_engine.processor``).
        clock_hz: the highest clock, of units and L2.
        units: streaming multiprocessors, compute units, matrix engines.
        mac_formats: ``"fp16"`` (both operands) or ``"bf16*int8"`` → what a MAC takes.
        matrix: how matrix products are run.
        memory: the levels.
        vector_unit: lanes of all units together.
        kernels: an operation (``gelu``), a kind of operator (``softmax``) or ``default`` → how it is run.
        launch: how operators follow one another.
        fusion: ``none``: a kernel for each operator; ``epilogue``: elementwise operators behind a product run in its kernel.
        attention: the kernel for attention.
        sparsity: structured sparsity of weights.
        power: the clock under a limit of power.
    """

    kind: Literal["tensor_engine", "processor"]
    units: Count
    mac_formats: Mapping[str, EngineFormat] = Field(min_length=1)
    matrix: MatrixUnits
    memory: Levels
    vector_unit: VectorUnit
    kernels: Mapping[str, KernelSpec] = Field(min_length=1)
    launch: Launch
    fusion: Literal["none", "epilogue"] = "none"
    attention: FusedAttention = FusedAttention()
    sparsity: Sparsity = Sparsity()
    power: PowerLimit

    @field_validator("kernels")
    @classmethod
    def _complete_default(cls, value: Mapping[str, KernelSpec]) -> Mapping[str, KernelSpec]:
        from hwsim.operations import operation_names
        from hwsim.operators import OPERATORS

        default = value.get("default")
        if default is None:
            raise ValueError("kernels needs an entry 'default'")
        missing = [name for name in NEEDED if getattr(default, name) is None]
        if missing:
            raise ValueError(f"kernels.default needs {', '.join(missing)}")
        unknown = sorted(set(value) - set(OPERATORS) - operation_names() - {"default"})
        if unknown:
            raise ValueError(f"kernels: {unknown[0]!r} is neither an operation, a kind of operator nor 'default'")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> TensorEngineSpec:
        if self.power.minimum_clock_hz > self.clock_hz:
            raise ValueError("power.minimum_clock_hz is above clock_hz")
        for name, kernel in self.kernels.items():
            if 2 * (kernel.pack_bytes_per_cycle or 0.0) > self.memory.shared.bytes_per_cycle:
                raise ValueError(
                    f"kernels.{name}.pack_bytes_per_cycle: a byte is read and written: expected at most half of "
                    f"memory.shared.bytes_per_cycle ({self.memory.shared.bytes_per_cycle:g}), got {kernel.pack_bytes_per_cycle:g}"
                )
        if self.static_power_w >= self.power.limit_w:
            raise ValueError("power.limit_w must be above static_power_w")
        for name in self.sparsity.formats:
            if name not in self.mac_formats:
                raise ValueError(f"sparsity.formats: {name!r} is not among mac_formats")
        return self

    @property
    def lanes_per_unit(self) -> float:
        """Vector lanes of one unit."""
        return self.vector_unit.lanes / self.units
