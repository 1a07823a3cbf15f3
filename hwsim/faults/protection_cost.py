"""What protection against faults takes: bits, energy, latency.

The logic's energy is a ratio to that of an int8 multiply-accumulate, from ``hwsim.rtl_ratios``: the caller gives what a MAC takes
on the machine. A circuit that was not synthesised counts its gates against those of the (72,64) codec.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from hwsim.faults.error_rates import positive
from hwsim.operations import primitive_counts
from hwsim.rtl_ratios import ratio
from hwsim.views.display import displaying
from numerics.ecc import Secded
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    from hwsim.report import Report
    from numerics.faults import Protection

CELLS: Mapping[str, float] = {"6t": 1.0, "8t": 8 / 6, "dice": 12 / 6}
"""Hardened cells: transistors over those of a 6T cell, taken as area and (guess) as energy. 8T cells have a read port of their
own; DICE is that of Calin, Nicolaidis, Velazco, "Upset hardened memory design for submicron CMOS technology", IEEE Trans. Nuclear
Science 43(6), 1996. Srinivasan et al., "Significance driven hybrid 8T-6T SRAM …", DATE 2016 (abstract), with the highest bits of
weights in 8T cells, have 10.41 % more area: 8/6 gives 8.3 % for two bits of eight and 12.5 % for three."""


@displaying("added_j", "overhead")
@dataclass(frozen=True, kw_only=True)
class ProtectedEnergy:
    """What a protection adds to a report.

    Attributes:
        extra_bytes: moved besides, at the protected level.
        storage_j: energy of moving them, and of hardened cells.
        logic_j: energy of encoders, decoders and comparators.
        compute_j: energy of repeated arithmetic.
        latency_s: the pipeline filled once an operator; more bits through the same port are not in it.
        before_j: energy of the whole report.
    """

    extra_bytes: float
    storage_j: float
    logic_j: float
    compute_j: float
    latency_s: float
    before_j: float

    @property
    def added_j(self) -> float:
        """All that is added."""
        return self.storage_j + self.logic_j + self.compute_j

    @property
    def overhead(self) -> float:
        """Added energy over the report's."""
        return self.added_j / self.before_j if self.before_j else 0.0


@displaying("bits_per_word", "storage_factor")
@dataclass(frozen=True, kw_only=True)
class ProtectionCost:
    """What one scheme takes for each word.

    Attributes:
        scheme: its name.
        word_bits: data bits that are protected together.
        extra_bits: stored besides, a word.
        energy_j_per_access: of the logic, a word written or read.
        latency_cycles: that a read takes longer.
        cell_factor: area and energy of the word's own cells over those of plain ones.
        compute_factor: arithmetic done over that without protection.
        basis: what the figures rest on.
    """

    scheme: str
    word_bits: int
    extra_bits: float = 0.0
    energy_j_per_access: float = 0.0
    latency_cycles: int = 0
    cell_factor: float = 1.0
    compute_factor: float = 1.0
    basis: str = ""

    def __post_init__(self) -> None:
        for name, least in (("word_bits", 1), ("latency_cycles", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(f"{name}: expected an integer ≥ {least}, got {value!r}")
        for name, low in (("extra_bits", 0), ("energy_j_per_access", 0), ("cell_factor", 1), ("compute_factor", 1)):
            if not low <= getattr(self, name) < float("inf"):
                raise InputError(f"{name}: expected a number ≥ {low}, got {getattr(self, name)!r}")

    @property
    def bits_per_word(self) -> float:
        """Bits stored for a word."""
        return self.word_bits + self.extra_bits

    @property
    def storage_factor(self) -> float:
        """Cells and access energy over those without protection; bits that are added are plain ones."""
        return self.cell_factor + self.extra_bits / self.word_bits

    def added_to(
        self, report: Report, *, level: str, component: str, compute: str = "mac", modules: str = "*"
    ) -> ProtectedEnergy:
        """What the scheme adds to a report when it protects one memory.

        Args:
            level: memory level whose bytes are protected.
            component: energy of the accesses there.
            compute: energy of the arithmetic, which ``compute_factor`` repeats.
            modules: pattern of the module paths whose operators are protected (``fnmatch``): selective hardening of layers.

        Raises:
            InputError: a level or component that the report lacks; a pattern that fits no operator.
        """
        for name, value, known in (
            ("level", level, set(report.bytes_by_level)),
            ("component", component, set(report.energy_by_component_j)),
            *((("compute", compute, set(report.energy_by_component_j)),) if self.compute_factor > 1 else ()),
        ):
            if value not in known:
                raise unknown_name(name, value, known)
        ops = [op for op in report.ops if fnmatch.fnmatchcase(op.module, modules)]
        if not ops:
            raise InputError(f"modules: pattern {modules!r} fits none of the {len(report.ops)} operators")
        moved = [op.bytes.get(level, 0) for op in ops]
        words = 8 * sum(moved) / self.word_bits
        return ProtectedEnergy(
            extra_bytes=words * self.extra_bits / 8,
            storage_j=(self.storage_factor - 1) * sum(op.energy_j.get(component, 0.0) for op in ops),
            logic_j=words * self.energy_j_per_access,
            compute_j=(self.compute_factor - 1) * sum(op.energy_j.get(compute, 0.0) for op in ops),
            latency_s=sum(size > 0 for size in moved) * self.latency_cycles / report.clock_hz,
            before_j=report.energy_j,
        )


# --- gates ----------------------------------------------------------------------------------------------------------------------


@cache
def secded_gates(data_bits: int) -> int:
    """Two-input XORs of an encoder, the syndromes and the correction of ``numerics.ecc.Secded``.

    A row of the parity-check matrix with n ones over data bits takes n - 1 to encode and n to check.
    """
    code = Secded(data_bits)
    ones = int(np.bitwise_count(code.columns[:data_bits]).sum())
    return (ones - code.check_bits) + ones + data_bits


def _gate_energy_j(mac_energy_j: float) -> float:
    """Energy of one gate of the (72,64) codec, all of its energy spread over its XORs."""
    each = float(positive("mac_energy_j", mac_energy_j))
    return ratio("energy", "secded_72_64", "standard") * each / secded_gates(64)


# --- schemes --------------------------------------------------------------------------------------------------------------------


def secded_cost(data_bits: int = 64, *, mac_energy_j: float, latency_cycles: int = 1) -> ProtectionCost:
    """Single-error correction, double-error detection.

    Args:
        data_bits: 8, 16, 32 or 64.
        mac_energy_j: energy of an int8 multiply-accumulate.
        latency_cycles: of a read (guess: the decoder of ``rtl`` is combinational, with a register behind it here).

    An access is charged a word encoded and a word decoded, which the ratio is of: more than a read or a write alone takes.
    """
    code = Secded(data_bits)
    return ProtectionCost(
        scheme=f"secded_{code.code_bits}_{data_bits}",
        word_bits=data_bits,
        extra_bits=code.check_bits,
        energy_j_per_access=secded_gates(data_bits) * _gate_energy_j(mac_energy_j),
        latency_cycles=latency_cycles,
        basis="rtl_ratios.csv: energy of secded_72_64" + ("" if data_bits == 64 else ", scaled by XOR gates"),
    )


def parity_cost(word_bits: int = 8, *, mac_energy_j: float, latency_cycles: int = 0) -> ProtectionCost:
    """One parity bit a word; a word that fails is read as 0.

    n - 1 XORs to write, n to check and n ANDs to zero, each taken as a gate of the (72,64) codec.
    """
    return ProtectionCost(
        scheme=f"parity_{word_bits}",
        word_bits=word_bits,
        extra_bits=1,
        energy_j_per_access=(3 * word_bits - 1) * _gate_energy_j(mac_energy_j),
        latency_cycles=latency_cycles,
        basis="rtl_ratios.csv: gates of secded_72_64",
    )


def hardening_cost(word_bits: int = 8, *, hardened_bits: int, cell: str = "8t") -> ProtectionCost:
    """Some bits of each word in hardened cells.

    Args:
        hardened_bits: how many.
        cell: of ``CELLS``.
    """
    if cell not in CELLS:
        raise unknown_name("cell", cell, CELLS)
    if not isinstance(hardened_bits, int) or isinstance(hardened_bits, bool) or not 0 <= hardened_bits <= word_bits:
        raise InputError(f"hardened_bits: expected an integer from 0 to {word_bits}, got {hardened_bits!r}")
    return ProtectionCost(
        scheme=f"hardening_{hardened_bits}_of_{word_bits}_{cell}",
        word_bits=word_bits,
        cell_factor=1 + (CELLS[cell] - 1) * hardened_bits / word_bits,
        basis="transistors of the cells",
    )


def clipping_cost(word_bits: int = 8, *, compare_energy_j: float, latency_cycles: int = 1) -> ProtectionCost:
    """Each value brought into its range: the comparisons of ``clamp`` in operations.csv, two a value.

    Args:
        compare_energy_j: energy of one, as the machine's vector unit has it.
        latency_cycles: guess: a stage of the pipeline.
    """
    compares = primitive_counts("clamp", 1)["compare"]
    return ProtectionCost(
        scheme="clipping",
        word_bits=word_bits,
        energy_j_per_access=compares * float(positive("compare_energy_j", compare_energy_j)),
        latency_cycles=latency_cycles,
        basis="operations.csv: clamp",
    )


def duplication_cost(word_bits: int = 8, *, mac_energy_j: float, compute: bool = True, latency_cycles: int = 0) -> ProtectionCost:
    """Two copies, compared when read: n XORs and n - 1 ORs, each taken as a gate of the (72,64) codec.

    Args:
        compute: whether the arithmetic is done twice as well.
    """
    return ProtectionCost(
        scheme="duplication" if compute else "duplication_of_storage",
        word_bits=word_bits,
        extra_bits=word_bits,
        energy_j_per_access=(2 * word_bits - 1) * _gate_energy_j(mac_energy_j),
        latency_cycles=latency_cycles,
        compute_factor=2.0 if compute else 1.0,
        basis="rtl_ratios.csv: gates of secded_72_64",
    )


def cost_of(
    protection: Protection, fmt: str, *, mac_energy_j: float, compare_energy_j: float | None = None, cell: str = "8t"
) -> ProtectionCost:
    """What a protection of ``numerics.faults`` takes for tensors of a format.

    Args:
        compare_energy_j: for clipping.
        cell: for hardening.

    Raises:
        InputError: a protection without a cost here; clipping without ``compare_energy_j``.
    """
    from numerics.faults import Clipping, Duplication, Hardening, Parity, SecdedWords, code_bits
    from numerics.formats import get_format

    bits = code_bits(fmt)
    if isinstance(protection, SecdedWords):
        return secded_cost(protection.data_bits, mac_energy_j=mac_energy_j)
    if isinstance(protection, Parity):
        return parity_cost(bits, mac_energy_j=mac_energy_j)
    if isinstance(protection, Hardening):
        return hardening_cost(bits, hardened_bits=len(protection.hardened(get_format(fmt))), cell=cell)
    if isinstance(protection, Duplication):
        return duplication_cost(bits, mac_energy_j=mac_energy_j, compute=False)
    if isinstance(protection, Clipping):
        if compare_energy_j is None:
            raise InputError("compare_energy_j: clipping needs the energy of a comparison, got None")
        return clipping_cost(bits, compare_energy_j=compare_energy_j)
    raise unknown_name("protection", type(protection).__name__, ("Clipping", "Duplication", "Hardening", "Parity", "SecdedWords"))
