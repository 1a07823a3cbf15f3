"""What a product with sparse operands takes on the lanes, from densities: cycles, bytes and work, in expectation.

Zeros are taken to lie independently of one another, so that a block of b values is not all zero with probability 1 − (1 − d)^b.
A lane's work in a row is binomial; lanes that wait for each other take the expected maximum (``imbalance``). Which activations
are skipped is common to all lanes, so that only their number shortens the row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from accelerators.sparse.imbalance import expected_maximum
from accelerators.sparse.spec import SparseSpec, Sparsity, Storage
from hwsim.views.display import displayed


@displayed
@dataclass(frozen=True)
class Product:
    """A product on the engine: ``m`` rows of activations, ``n`` rows of weights (outputs), summed along ``k``.

    Attributes:
        batch, m, n, k: sizes.
        activation_bits, weight_bits, output_bits: of an element.
        activation_density, weight_density: share that is not zero.
    """

    batch: int
    m: int
    n: int
    k: int
    activation_bits: float
    weight_bits: float
    output_bits: float
    activation_density: float
    weight_density: float


@displayed
@dataclass(frozen=True)
class SparseCost:
    """What it takes.

    Attributes:
        storage: how the weights lie in memory.
        lane_cycles: with all operands at hand.
        executed_macs: multiply-accumulates that are done.
        decoded_blocks: stored blocks that lanes look up.
        stored_bytes: of the weights in memory, indices and pointers included.
        operand_bytes: read from and written to the operands' memory.
        balance: mean work of a lane over that of the slowest.
    """

    storage: Storage
    lane_cycles: float
    executed_macs: float
    decoded_blocks: float
    stored_bytes: float
    operand_bytes: float
    balance: float


def kept_share(density: float, size: int) -> float:
    """Probability that a block of ``size`` values is not all zero."""
    return 1.0 if density >= 1 else -math.expm1(size * math.log1p(-density))


def stored_bits(sparsity: Sparsity, storage: Storage, *, rows: int, k: int, bits: float, density: float) -> float:
    """Expected bits of a weight matrix of ``rows`` × ``k`` in memory."""
    if storage == "dense":
        return rows * k * bits
    if storage == "n_m":
        kept = rows * kept_of_row(k, sparsity.n, sparsity.m)
        return kept * (bits + place_bits(sparsity.m))
    block = sparsity.block
    blocks = rows / block.outputs * k / block.inputs * kept_share(density, block.outputs * block.inputs)
    pointers = (math.ceil(rows / block.outputs) + 1) * sparsity.pointer_bits
    return blocks * (block.outputs * block.inputs * bits + sparsity.index_bits) + pointers


def kept_of_row(k: int, n: int, m: int) -> int:
    """Values of a row that N:M stores; a last group of fewer than m has at most n of them."""
    return k // m * n + min(k % m, n)


def place_bits(m: int) -> int:
    """Bits that name a place among m."""
    return (m - 1).bit_length()


def product_cost(spec: SparseSpec, product: Product, storage: Storage, *, cycles_per_mac: int = 1) -> SparseCost:
    """What the product takes with its weights stored so."""
    lanes, sparsity, block = spec.lanes, spec.sparsity, spec.sparsity.block
    p = product
    compressed = storage != "dense"
    weights_skipped = sparsity.skips_weights and (compressed or sparsity.weights == "dense")
    kept = 1.0
    if weights_skipped:
        structured = kept_of_row(p.k, sparsity.n, sparsity.m) / p.k
        kept = structured if storage == "n_m" else kept_share(p.weight_density, block.outputs * block.inputs)
    decoded = weights_skipped and compressed
    block_cycles = block.inputs * cycles_per_mac + (sparsity.decode_cycles_per_block if decoded else 0.0)
    begin = lanes.row_cycles if decoded else 0.0
    apart = weights_skipped and storage != "n_m"  # lanes are at places of their own

    whole, rest = divmod(p.m, lanes.width)
    tiles = [(whole, lanes.width)] * (whole > 0) + [(1, rest)] * (rest > 0)
    cycles = steps = reads = executed = slowest = mean = 0.0
    for count, rows in tiles:
        seen = kept_share(p.activation_density, rows * block.inputs) if sparsity.skips_activations else 1.0
        length = p.k / block.inputs * seen
        exact = not apart and (not weights_skipped or seen == 1.0)
        for times, outputs, waves in _waves(spec, p.n):
            groups = math.ceil(min(outputs, lanes.count) / block.outputs)
            most = length * waves * kept if exact else expected_maximum(length * waves, kept, groups)
            cycles += count * times * (most * block_cycles + waves * begin)
            slowest += count * times * most
            mean += count * times * length * waves * kept
        steps += count * p.n * length * kept
        executed += count * rows * p.n * length * block.inputs * kept
        broadcast = math.ceil(p.n / lanes.count) * length
        fetched = p.n / block.outputs * length * kept if apart else broadcast
        masks = math.ceil(p.n / lanes.count) * p.k / block.inputs / 8 if sparsity.skips_activations else 0.0
        reads += count * (fetched * block.inputs * rows * p.activation_bits / 8 + masks)
    stored = p.batch * stored_bits(sparsity, storage, rows=p.n, k=p.k, bits=p.weight_bits, density=p.weight_density) / 8
    flags = p.n * p.k / (block.outputs * block.inputs) / 8 if weights_skipped and not compressed else 0.0  # which blocks are zero
    results = p.batch * p.m * p.n * p.output_bits / 8
    return SparseCost(
        storage=storage,
        lane_cycles=p.batch * cycles,
        executed_macs=p.batch * executed,
        decoded_blocks=p.batch * steps / block.outputs if decoded else 0.0,
        stored_bytes=stored,
        operand_bytes=p.batch * reads + sum(count for count, _ in tiles) * (stored + p.batch * flags) + results,
        balance=mean / slowest if slowest else 1.0,
    )


def _waves(spec: SparseSpec, n: int) -> list[tuple[int, int, int]]:
    """(how often, rows of weights in it, rows that a lane does before the barrier) of the waves of ``n`` rows of weights."""
    lanes = spec.lanes.count
    if spec.lanes.barrier == "tile":
        waves, rest = -(-n // lanes), n % lanes
        return [(1, rest or min(n, lanes), waves)]
    full, rest = divmod(n, lanes)
    return [(full, lanes, 1)] * (full > 0) + [(1, rest, 1)] * (rest > 0)
