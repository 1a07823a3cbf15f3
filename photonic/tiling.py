"""How a matrix product is cut for an optical engine of N×N, and what that counts: symbols, settings, samples, accesses.

Engines whose weights are set (meshes, weight banks) keep a tile of weights and stream inputs past it. Tiles are gone through in
one of two orders, for blocks of rows whose sums the accumulators hold; every block sets all tiles again:

- columns outside: the tiles of a column of tiles follow one another, so that few columns of sums are held. Inputs come anew for
  each column of tiles, unless a block's inputs stay in the buffer.
- inner dimension outside: a slice of inputs meets all columns, so that inputs come once and all columns of sums are held.

An engine that modulates both operands keeps N×N results instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hwsim.views.display import displayed

SUM_BYTES = 4


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


@displayed
@dataclass(frozen=True)
class Tiling:
    """Counts of one product.

    Attributes:
        tiles: N×N blocks of work.
        rounds: tiles that the busiest engine gets.
        rows: of a block.
        blocks: times that the tiles are gone through.
        order: what is outside, ``columns``, ``inner`` or, where results are kept, ``results``.
        a_loads, b_loads: times that an operand that is not on chip is loaded.
        symbols: symbols on the busiest engine.
        settings: times that the busiest engine is set anew, one after the other.
        all_settings: on all engines.
        settings_if_inputs_stayed: of the busiest engine in the other order, every tile set anew for each input vector.
        dac_samples, adc_samples: of inputs and results.
        sums: digital additions.
        a_reads, b_reads: elements of the operands read from the buffer.
        sum_accesses: accumulator words read and written.
    """

    tiles: int
    rounds: int
    rows: int
    blocks: int
    order: str
    a_loads: int
    b_loads: int
    symbols: int
    settings: int
    all_settings: int
    settings_if_inputs_stayed: int
    dac_samples: int
    adc_samples: int
    sums: int
    a_reads: int
    b_reads: int
    sum_accesses: int


def weights_kept(
    shape: tuple[int, int, int, int],
    *,
    ports: int,
    engines: int,
    vectors: int,
    passes: int,
    slices: tuple[int, int],
    sum_capacity_bytes: float,
    buffer_bytes: float,
    element_bytes: tuple[float, float],
    setting_symbols: float,
    samples: Callable[[int, int], tuple[int, int]],
) -> Tiling:
    """Tiles of weights stay, inputs stream: in the order and blocks that take least time on the engines, then least loads.

    Args:
        shape: batch, m, n, k.
        ports: N.
        engines: that hold a tile each.
        vectors: that pass an engine at the same time (on wavelengths of their own).
        passes: settings, and passes of each input, that a tile takes.
        slices: parts of fewer bits into which inputs and weights are cut; each of the one meets each of the other.
        sum_capacity_bytes: of the accumulators, at least for one row of all engines.
        buffer_bytes: for operands, a half for each.
        element_bytes: of the operands.
        setting_symbols: symbols for which a setting lasts.
        samples: (rows, columns used of a tile) → samples (put in, taken out) of one vector, all passes.
    """
    batch, m, n, k = shape
    inputs, weights = slices
    across, down = _ceil(n, ports), _ceil(k, ports)
    parts = down * inputs * weights  # that are added up
    half = buffer_bytes / 2
    put = taken = 0
    for high, many_high in ((ports, k // ports), (k % ports, 1)):
        for wide, many_wide in ((ports, n // ports), (n % ports, 1)):
            if high and wide:
                into, out = samples(high, wide)
                put += into * many_high * many_wide
                taken += out * many_high * many_wide
    vectors_in_all = batch * m * inputs * weights
    tiles = batch * across * down * weights
    rounds = _ceil(tiles, engines)

    def held(columns: int) -> int:
        """Rows of which so many columns of sums can be held."""
        return m if parts == 1 else min(m, int(sum_capacity_bytes // (SUM_BYTES * columns)))

    def cut(rows: int, order: str, a_loads: int) -> Tiling:
        if vectors <= rows < m:
            rows -= rows % vectors
        blocks = _ceil(m, rows)
        per_tile = (blocks - 1) * _ceil(rows, vectors) + _ceil(m - (blocks - 1) * rows, vectors)
        return Tiling(
            tiles=tiles,
            rounds=rounds,
            rows=rows,
            blocks=blocks,
            order=order,
            a_loads=a_loads,
            b_loads=1 if k * n * element_bytes[1] <= half else blocks,
            symbols=rounds * per_tile * passes * inputs,
            settings=rounds * blocks * passes,
            all_settings=tiles * blocks * passes,
            settings_if_inputs_stayed=rounds * _ceil(m, vectors) * passes,
            dac_samples=vectors_in_all * put,
            adc_samples=vectors_in_all * taken,
            sums=batch * m * n * (parts - 1),
            a_reads=batch * m * k * across * weights,
            b_reads=batch * k * n * blocks,
            sum_accesses=2 * batch * m * n * parts,
        )

    most = held(min(engines, batch * across) * ports)
    staying = int(half // (k * element_bytes[0]))  # rows whose inputs the buffer holds
    turns = _ceil(across, engines)
    found = [cut(most, "columns", 1 if most <= staying else turns)]
    if 0 < staying < most:
        found.append(cut(staying, "columns", 1))
    together = max(1, min(batch, engines // (across * down)))  # products that run side by side
    sliced = int(half // (ports * min(engines, down) * element_bytes[0]))
    fewest = min(held(n * together), sliced)
    if fewest:
        found.append(cut(fewest, "inner", 1))

    def cost(tiling: Tiling) -> tuple[float, float]:
        loads = tiling.a_loads * m * k * element_bytes[0] + tiling.b_loads * k * n * element_bytes[1]
        return tiling.symbols + tiling.settings * setting_symbols, loads

    return min(found, key=cost)


def results_kept(
    shape: tuple[int, int, int, int],
    *,
    ports: int,
    clusters: int,
    shared: int,
    products: int,
    integration: int,
    slices: tuple[int, int],
) -> Tiling:
    """N×N results stay; a step of ``products`` of each arrives with each symbol.

    Args:
        shape, ports, slices: as in ``weights_kept``.
        clusters: of engines that work on rows of their own.
        shared: engines of a cluster, which work on the same rows and on columns of their own.
        products: of one result in a symbol.
        integration: symbols that are added up before a sample is taken.
    """
    batch, m, n, k = shape
    inputs, weights = slices
    across, down = _ceil(n, ports), _ceil(m, ports)
    steps = _ceil(k, products)
    tiles = batch * across * down
    turns = _ceil(across, shared)
    rounds = _ceil(batch * down * turns, clusters)
    parts = _ceil(steps, integration) * inputs * weights
    a_reads, b_reads = batch * m * k * turns, batch * n * k * down
    return Tiling(
        tiles=tiles,
        rounds=rounds,
        rows=min(m, ports),
        blocks=1,
        order="results",
        a_loads=1,
        b_loads=1,
        symbols=rounds * steps * inputs * weights,
        settings=0,
        all_settings=0,
        settings_if_inputs_stayed=0,
        dac_samples=(a_reads + b_reads) * inputs * weights,
        adc_samples=batch * m * n * parts,
        sums=batch * m * n * (parts - 1),
        a_reads=a_reads,
        b_reads=b_reads,
        sum_accesses=2 * batch * m * n * parts,
    )
