"""The mapping of a layer onto the array: its parameters, what it moves and takes (Chen et al., JSSC 2017, section IV-A).

A *PE set* computes one two-dimensional convolution plane: R rows of PEs, one for each filter row, and e columns, one for each
output row; a PE convolves a filter row with an input row in time. A *pass* works on n images, e output rows, q·r channels and
p·t filters: each PE interleaves p filters and q channels, r sets add up other channels, t sets compute other filters. Partial
sums of m filters wait in the global buffer, where a pass finds those of the channels before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from accelerators.row_stationary import _kernels as kernels
from accelerators.row_stationary.nest import Nest, balanced
from accelerators.row_stationary.spec import RowStationarySpec
from hwsim.views.display import displayed
from numerics.errors import InputError

WORD_BYTES = 2
"""Words of the buffers and buses: 16 bits."""


@displayed
@dataclass(frozen=True)
class LayerMapping:
    """One mapping; names as in the papers.

    Attributes:
        m: filters whose partial sums the global buffer holds.
        n: images of a pass.
        e: output rows of a pass, the width of a PE set.
        p, q: filters and channels that a PE interleaves.
        r, t: PE sets that work on other channels, and on other filters.
    """

    m: int
    n: int
    e: int
    p: int
    q: int
    r: int
    t: int

    def array(self) -> np.ndarray:
        """As the kernels read it."""
        return np.array([self.n, self.e, self.p, self.q, self.r, self.t, self.m], dtype=np.int64)


@displayed
@dataclass(frozen=True)
class MappingCost:
    """What a mapping moves and takes.

    Attributes:
        off_chip_ifmap_words, off_chip_filter_words: read from off-chip memory.
        buffer_ifmap_words: read from the global buffer; what comes from off chip is written to it once.
        psum_write_words, psum_read_words: partial sums to and from the global buffer.
        network_ifmap_words, network_filter_words, network_psum_words: taken by a PE, from the buffer or from a neighbour, or by
            the buffer.
        passes: processing passes.
        prologue_cycles: filters and first windows, before the MACs of each pass.
        steady_cycles: from the first MAC of each pass to its last partial sum.
    """

    off_chip_ifmap_words: int
    off_chip_filter_words: int
    buffer_ifmap_words: int
    psum_write_words: int
    psum_read_words: int
    network_ifmap_words: int
    network_filter_words: int
    network_psum_words: int
    passes: int
    prologue_cycles: float
    steady_cycles: float


def limits(spec: RowStationarySpec) -> np.ndarray:
    """What bounds a mapping, as the kernels read it."""
    values = np.zeros(8, dtype=np.int64)
    values[kernels.PE_ROWS], values[kernels.PE_COLUMNS] = spec.array.rows, spec.array.columns
    values[kernels.IFMAP_WORDS], values[kernels.FILTER_WORDS] = spec.scratchpads.ifmap_words, spec.scratchpads.filter_words
    values[kernels.PSUM_WORDS], values[kernels.BANKS] = spec.scratchpads.psum_words, spec.buffer.banks
    values[kernels.BANK_WORDS] = spec.buffer.capacity_bytes // spec.buffer.banks // WORD_BYTES
    values[kernels.FILTER_BUFFER_WORDS] = spec.filter_buffer.capacity_bytes // WORD_BYTES
    return values


def rates(spec: RowStationarySpec) -> np.ndarray:
    """Words a cycle, as the kernels read them."""
    values = np.zeros(4)
    values[kernels.IFMAP_RATE] = spec.network.ifmap_words_per_cycle
    values[kernels.FILTER_RATE] = spec.network.filter_words_per_cycle
    values[kernels.PSUM_RATE] = spec.network.psum_words_per_cycle
    values[kernels.OFF_CHIP_RATE] = spec.off_chip.achieved_bytes_per_s / spec.clock_hz / WORD_BYTES
    return values


_OBJECTIVES: Mapping[str, int] = {
    "off_chip_traffic": kernels.OFF_CHIP_TRAFFIC,
    "energy": kernels.ENERGY,
    "latency": kernels.LATENCY,
}


def fits(mapping: LayerMapping, nest: Nest, spec: RowStationarySpec) -> bool:
    """Whether a mapping keeps to the limits of scratchpads, array and buffers.

    The global buffer holds n·q·r channels of the input rows that e output rows need, and m filters' partial sums of n images and
    e output rows, each in banks of their own, padding included.
    """
    bound = limits(spec)
    pieces = nest.row_pieces(spec.array.rows)
    high = -(-nest.kernel_rows // pieces)
    long = -(-nest.kernel_columns // -(-nest.kernel_columns // spec.scratchpads.ifmap_words))
    lines = int(kernels.input_rows(mapping.e, high, nest.row_stride, nest.row_dilation))
    ifmap = mapping.n * mapping.q * mapping.r * lines * nest.planned_columns
    sums = mapping.n * min(mapping.m, nest.filters) * mapping.e * nest.out_columns
    bank = int(bound[kernels.BANK_WORDS])
    return bool(
        mapping.q * long <= spec.scratchpads.ifmap_words
        and mapping.p * mapping.q * long <= spec.scratchpads.filter_words
        and mapping.p <= spec.scratchpads.psum_words
        and mapping.r * mapping.t <= kernels.sets_in_array(mapping.e, high, spec.array.rows, spec.array.columns)
        and mapping.p * mapping.q * mapping.r * mapping.t * high * long <= bound[kernels.FILTER_BUFFER_WORDS]
        and -(-ifmap // bank) + -(-sums // bank) <= spec.buffer.banks
    )


def cost(mapping: LayerMapping, nest: Nest, spec: RowStationarySpec, *, cycles_per_mac: int = 1) -> MappingCost:
    """What a mapping moves and takes; padding is neither stored nor moved."""
    window = spec.scratchpads.ifmap_words
    return _costed(mapping, nest, spec.array.rows, window, cycles_per_mac, tuple(rates(spec).tolist()))


@lru_cache(maxsize=4096)
def _costed(
    mapping: LayerMapping, nest: Nest, pe_rows: int, window_words: int, cycles_per_mac: int, speeds: tuple[float, ...]
) -> MappingCost:
    rows = nest.rows_read(mapping.e, nest.row_pieces(pe_rows), padding=False)
    array = nest.array(pe_rows=pe_rows, window_words=window_words, cycles_per_mac=cycles_per_mac)
    counts = np.zeros(9, dtype=np.int64)
    kernels.mapping_counts(array, mapping.array(), rows, nest.read_columns, counts)
    filters = float(counts[kernels.OFF_CHIP_FILTER])
    prologue, steady = kernels.mapping_cycles(array, mapping.array(), filters, np.array(speeds))
    return MappingCost(
        off_chip_ifmap_words=int(counts[kernels.OFF_CHIP_IFMAP]),
        off_chip_filter_words=int(counts[kernels.OFF_CHIP_FILTER]),
        buffer_ifmap_words=int(counts[kernels.BUFFER_IFMAP]),
        psum_write_words=int(counts[kernels.PSUM_WRITES]),
        psum_read_words=int(counts[kernels.PSUM_READS]),
        network_ifmap_words=int(counts[kernels.NETWORK_IFMAP]),
        network_filter_words=int(counts[kernels.NETWORK_FILTER]),
        network_psum_words=int(counts[kernels.NETWORK_PSUM]),
        passes=int(counts[kernels.PASSES]),
        prologue_cycles=prologue,
        steady_cycles=steady,
    )


def best_mapping(nest: Nest, spec: RowStationarySpec, *, cycles_per_mac: int = 1) -> LayerMapping:
    """The mapping that minimises the spec's objective, planned with padded, uncompressed feature maps as the papers do.

    Raises:
        InputError: none fits.
    """
    found = _searched(
        nest,
        spec.objective,
        cycles_per_mac,
        tuple(limits(spec).tolist()),
        tuple(rates(spec).tolist()),
        (
            spec.off_chip.energy_pj_per_byte * WORD_BYTES,
            spec.buffer.energy_pj_per_byte * WORD_BYTES,
            spec.network.energy_pj_per_word,
        ),
    )
    if found is None:
        raise InputError(
            f"device {spec.name!r}: no mapping of {nest.kernel_rows}×{nest.kernel_columns} filters fits in its scratchpads, "
            f"array and buffers (scratchpads.filter_words {spec.scratchpads.filter_words}, filter_buffer.capacity_bytes "
            f"{spec.filter_buffer.capacity_bytes}, buffer.capacity_bytes {spec.buffer.capacity_bytes})"
        )
    return found


@lru_cache(maxsize=4096)
def _searched(
    nest: Nest,
    objective: str,
    cycles_per_mac: int,
    bounds: tuple[int, ...],
    speeds: tuple[float, ...],
    energies: tuple[float, ...],
) -> LayerMapping | None:
    pe_rows, pe_columns, window = bounds[kernels.PE_ROWS], bounds[kernels.PE_COLUMNS], bounds[kernels.IFMAP_WORDS]
    pieces = nest.row_pieces(pe_rows)
    widest = pe_rows // -(-nest.kernel_rows // pieces) * pe_columns
    rows = np.array(
        [(e, nest.rows_read(e, pieces, padding=True)) for e in balanced(nest.out_rows) if e <= widest], dtype=np.int64
    )
    array = nest.array(pe_rows=pe_rows, window_words=window, cycles_per_mac=cycles_per_mac)
    best = np.zeros(7, dtype=np.int64)
    found = kernels.search(
        array, np.array(bounds), np.array(speeds), np.array(energies), rows,
        np.array(balanced(nest.images)), _OBJECTIVES[objective], best,
    )  # fmt: skip
    n, e, p, q, r, t, m = best.tolist()
    return LayerMapping(m=m, n=n, e=e, p=p, q=q, r=r, t=t) if found else None
