"""The spec of a cluster of microcontroller cores: what its YAML file may say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator, model_validator

from hwsim.memory import OffChip
from hwsim.operations import PRIMITIVES
from hwsim.spec import Count, MatrixMachineSpec, NaturalNumber, NotNegative, Positive, Share, SpecPart
from numerics.errors import InputError
from numerics.formats import FloatFormat, get_format


class Core(SpecPart):
    """One core: what its instructions around the arithmetic take.

    Attributes:
        load_cycles, store_cycles: of a word between a register and L1, its address computed.
        loop_cycles: of closing an inner loop (0 with hardware loops).
        energy_pj_per_cycle: of a core that executes, instruction fetch included.
        idle_energy_pj_per_cycle: of a core that waits, its clock gated.
        kilo_gates: thousand gate equivalents of one, for its area; None: not known.
    """

    load_cycles: Positive = 1.0
    store_cycles: Positive = 1.0
    loop_cycles: NotNegative = 0.0
    energy_pj_per_cycle: NotNegative
    idle_energy_pj_per_cycle: NotNegative = 0.0
    kilo_gates: Positive | None = None


class Fpus(SpecPart):
    """Floating-point units that the cores share, each by as many cores.

    Attributes:
        count: units; a divisor of the number of cores. Each takes an instruction a cycle.
    """

    count: Count


class McuMac(SpecPart):
    """The inner loop of a matrix product in one pair of formats: a block of sums stays in registers.

    Attributes:
        macs_per_instruction: multiply-accumulates of one instruction (of a SIMD dot product: its lanes).
        instruction_cycles: cycles of it, of the calls that stand for it where it is emulated.
        on_fpu: it takes a floating-point unit.
        block_rows, block_columns: sums of a block: rows of the first operand × columns of the second.
        output_cycles: cycles to finish one sum: scale, clip, pack, address.
        fused: the product is not rounded before it is added (floats).
        energy_pj: of one multiply-accumulate beyond the core's cycles.
    """

    macs_per_instruction: Count = 1
    instruction_cycles: Positive
    on_fpu: bool = False
    block_rows: Count = 1
    block_columns: Count = 1
    output_cycles: NotNegative = 0.0
    fused: bool = True
    energy_pj: NotNegative = 0.0


class Arithmetic(SpecPart):
    """What primitive operations in one format take on one core, beside loads and stores.

    Attributes:
        cycles_per_operation: primitive → cycles; below one where an instruction does several.
        on_fpu: they take a floating-point unit.
    """

    cycles_per_operation: Mapping[str, Positive]
    on_fpu: bool = False

    @field_validator("cycles_per_operation")
    @classmethod
    def _complete(cls, value: Mapping[str, float]) -> Mapping[str, float]:
        missing = [p for p in PRIMITIVES if p not in value]
        if missing:
            raise ValueError(f"needs a figure for each primitive operation; missing: {', '.join(missing)}")
        unknown = sorted(set(value) - set(PRIMITIVES))
        if unknown:
            raise ValueError(f"unknown primitive {unknown[0]!r}; known: {', '.join(PRIMITIVES)}")
        return value

    def cycles(self, operations: Mapping[str, int]) -> float:
        """Cycles of these primitive operations on one core."""
        return sum(n * self.cycles_per_operation[p] for p, n in operations.items())


class L1(SpecPart):
    """The memory that all cores load from: banks of words, each serving one access a cycle.

    Attributes:
        capacity_bytes: that tiles may take.
        banks: that work at the same time; neighbouring words lie in neighbouring banks.
        double_buffered: one half is filled while the other is used.
        retained_capacity_bytes: further bytes that hold whole tensors between operators (0 for none).
        energy_pj_per_byte: of a byte loaded or stored by a core.
    """

    capacity_bytes: Count
    banks: Count
    double_buffered: bool = True
    retained_capacity_bytes: NaturalNumber = 0
    energy_pj_per_byte: NotNegative

    @property
    def tile_bytes(self) -> float:
        """Bytes that one tile may take: a half when double-buffered."""
        return self.capacity_bytes / 2 if self.double_buffered else float(self.capacity_bytes)


class Dma(SpecPart):
    """The engine that moves tiles between L2 and L1.

    Attributes:
        bytes_per_cycle: both directions together.
        setup_cycles: from programming a transfer to its first byte.
        energy_pj_per_byte: of a byte moved, the L2 access included.
    """

    bytes_per_cycle: Positive
    setup_cycles: NotNegative = 0.0
    energy_pj_per_byte: NotNegative


class Parallel(SpecPart):
    """What running on several cores takes; nothing of it on one.

    Attributes:
        fork_cycles: to hand a workload to the team of cores, once.
        barrier_cycles: from the last core's arrival to all going on.
        serial_fraction: share of every operator's instructions that one core executes while the others wait.
    """

    fork_cycles: NotNegative = 0.0
    barrier_cycles: NotNegative = 0.0
    serial_fraction: Share = 0.0


class McuClusterSpec(MatrixMachineSpec):
    """Cores around one banked memory.

    Attributes:
        kind: ``mcu_cluster``.
        cores: number of cores.
        core: what one is like.
        fpus: floating-point units; None for none.
        mac_formats: ``"int8"`` or ``"int8*int16"`` → the inner loop of a product.
        arithmetic: format → primitive operations in it. Integers that are not listed run in the narrowest listed one that holds
            them, or in several words of the widest.
        l1: the memory that the cores load from.
        l2_capacity_bytes: on-chip memory behind it; a workload that fits is not read from outside.
        l2_memory: what it is made of, for its area.
        dma: between the two.
        off_chip: memory behind L2.
        parallel: what running on several cores takes.
        op_setup_cycles: each core's prologue of an operator: its slice, addresses, loop registers.
        scan_step_cycles: from one step of a recurrence to the next.
    """

    kind: Literal["mcu_cluster"]
    cores: Count
    core: Core
    fpus: Fpus | None = None
    mac_formats: Mapping[str, McuMac] = Field(min_length=1)
    arithmetic: Mapping[str, Arithmetic] = Field(min_length=1)
    l1: L1
    l2_capacity_bytes: Count
    l2_memory: Literal["sram", "flash"] = "sram"
    dma: Dma
    off_chip: OffChip
    parallel: Parallel = Parallel()
    op_setup_cycles: NotNegative = 0.0
    scan_step_cycles: NotNegative = 4.0

    @field_validator("arithmetic")
    @classmethod
    def _named(cls, value: Mapping[str, Arithmetic]) -> Mapping[str, Arithmetic]:
        return {get_format(name).name: part for name, part in value.items()}

    @model_validator(mode="after")
    def _fpus_serve_all(self) -> McuClusterSpec:
        if self.fpus is not None and self.cores % self.fpus.count:
            raise ValueError(f"fpus.count: {self.fpus.count} units cannot be shared evenly by {self.cores} cores")
        if self.fpus is None:
            for section, parts in (("mac_formats", self.mac_formats), ("arithmetic", self.arithmetic)):
                for name, part in parts.items():
                    if part.on_fpu:
                        raise ValueError(f"{section}.{name}.on_fpu: the cluster has no fpus")
        return self

    def arithmetic_for(self, name: str) -> tuple[Arithmetic, int]:
        """(arithmetic, words an element takes) of operations on elements of a format.

        Raises:
            InputError: a float format that is not listed, an integer where no integer is listed.
        """
        if name in self.arithmetic:
            return self.arithmetic[name], 1
        wanted = get_format(name)
        listed = {n: get_format(n) for n in self.arithmetic}
        whole = {n: f for n, f in listed.items() if not isinstance(f, FloatFormat)}
        if isinstance(wanted, FloatFormat) or not whole:
            raise InputError(f"device {self.name!r}: no arithmetic in {name} (arithmetic: {', '.join(self.arithmetic)})")
        wide = [n for n, f in whole.items() if f.bits >= wanted.bits]
        chosen = min(wide, key=lambda n: whole[n].bits) if wide else max(whole, key=lambda n: whole[n].bits)
        return self.arithmetic[chosen], math.ceil(wanted.bits / whole[chosen].bits)
