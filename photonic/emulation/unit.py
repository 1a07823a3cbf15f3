"""An optical engine as the matrix unit of an emulation: integers in, out what its detectors and digital sums make of them.

A product is computed as ``photonic.tiling`` cuts it. Operands are cut into slices that fit converters and weights. Each slice of
inputs meets each tile of weights; what a tile gives is detected, converted and added up; sums are put together with the slices'
weights, times one gain for a whole matrix, and rounded to the integers of the accumulator.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.views.display import displayed_by
from numerics._fields import check_integer
from numerics.errors import InputError
from numerics.faults.maps import stream
from numerics.formats import IntFormat
from photonic._numbers import is_one_of
from photonic.emulation.crossbars import NodeArray
from photonic.emulation.faults import PhotonicFaults
from photonic.emulation.layers import LayerRecord
from photonic.emulation.reading import Reader
from photonic.emulation.slices import Slice, bits_needed, slices
from photonic.emulation.weights import BankWeights, MeshWeights, Tiles
from photonic.engines import Crossbar, MeshEngine

if TYPE_CHECKING:
    import numpy.typing as npt

    from numerics.accumulator import Accumulator
    from numerics.formats import Format
    from photonic.spec import PhotonicSpec

CACHE_BYTES = 1 << 29
"""Memory for matrices of tiles that are met again."""


@displayed_by("photonic.cards:optical_unit")
@dataclass
class OpticalUnit:
    """The engine of a spec, with what was drawn when it was made.

    Noise is drawn anew for each product, from the seed and the product's number; ``rewind`` begins with the first again.

    Attributes:
        spec: of the machine.
        seed: of what was drawn when it was made, and of all noise.
        faults: what broke; None for nothing.
        calls: products so far.
        layers: module → what was found out about it.

    Raises:
        InputError: an object of another class; a seed that is no integer ≥ 0; a drift that the spec does not have.
    """

    spec: PhotonicSpec
    seed: int = 0
    faults: PhotonicFaults | None = None
    calls: int = 0
    layers: dict[str, LayerRecord] = field(default_factory=dict)
    _kept: OrderedDict[bytes, Tiles] = field(default_factory=OrderedDict, repr=False)

    def __post_init__(self) -> None:
        from photonic.spec import PhotonicSpec

        is_one_of("spec", self.spec, PhotonicSpec)
        check_integer("seed", self.seed, 0)
        is_one_of("faults", self.faults, PhotonicFaults, type(None))
        spec, engine = self.spec, self.spec.engine
        drift = spec.imperfections.drift
        if self.faults is not None and self.faults.drift_s and isinstance(drift, str):
            raise InputError(f"drift_s: device {spec.name!r} has no drift (imperfections.drift is 'ideal')")
        self.reader = Reader(spec, self.faults)
        self.weights: MeshWeights | BankWeights | None = None
        self.nodes: NodeArray | None = None
        if isinstance(engine, Crossbar):
            self.nodes = NodeArray(spec, self.reader, self.seed, self.faults)
        else:
            kind = MeshWeights if isinstance(engine, MeshEngine) else BankWeights
            self.weights = kind(spec, self.seed, self.faults)

    def rewind(self) -> None:
        """Noise as from the first product on; what was found out about layers is forgotten."""
        self.calls = 0
        self.layers.clear()

    @property
    def broken(self) -> int:
        """Shifters, rings and detectors that are faulty."""
        found = self.nodes.broken if self.nodes is not None else int(self.reader.dead.sum())
        return found + (0 if self.weights is None else self.weights.broken)

    def table(self) -> list[dict[str, Any]]:
        """A row for each layer; see ``LayerRecord``."""
        return [record.row() for record in self.layers.values()]

    def __str__(self) -> str:
        rows = self.table()
        if not rows:
            return f"{self.spec.name}: no products yet"
        head = list(rows[0])
        lines = [head, *([f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)

    def __call__(
        self, a: Any, b: Any, *, accumulator: Accumulator, a_format: Format, b_format: Format, module: str
    ) -> npt.NDArray[np.float64]:
        """``a @ b`` of integers (…, M, K) and (…, K, N) whose leading axes broadcast; see ``numerics.emulation.gemm.MatrixUnit``.

        Integers of an asymmetric format come without their zero point, and take a bit more.
        """
        assert isinstance(a_format, IntFormat)
        assert isinstance(b_format, IntFormat)
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        shape = (*batch, a.shape[-2], b.shape[-1])
        if 0 in (*shape, a.shape[-1]):
            return np.zeros(shape)
        left, right = (np.rint(v).astype(np.int64) for v in (a, b))
        if right.ndim == 2:  # one matrix for all: the rows of the batch are rows of one product
            left, right = left.reshape(1, -1, left.shape[-1]), right[None]
        else:
            left = np.broadcast_to(left, (*batch, *left.shape[-2:])).reshape(-1, *left.shape[-2:])
            right = np.broadcast_to(right, (*batch, *right.shape[-2:])).reshape(-1, *right.shape[-2:])
        record = self.layers.setdefault(module, self._record(module))
        bits = bits_needed(left, a_format.bits), bits_needed(right, b_format.bits)
        cut_a, cut_b = slices(bits[0], self.spec.dac.bits), slices(bits[1], self._weight_bits)
        rng = stream(self.seed, "product", self.calls)
        self.calls += 1
        pairs = enumerate(zip(left, right, strict=True))
        total = np.stack([self._product(x, w, cut_a, cut_b, first, rng, record) for first, (x, w) in pairs])
        sums = _wrapped(np.rint(total), accumulator)
        self._note(record, left, right, sums, bits)
        return sums.reshape(shape)

    @property
    def _weight_bits(self) -> int:
        return self.spec.dac.bits if self.spec.tuning is None else self.spec.tuning.bits

    def _record(self, module: str) -> LayerRecord:
        return LayerRecord(module, swing=self.reader.swing, detector_w=self.spec.budget.detector_w)

    def _note(self, record: LayerRecord, left: Any, right: Any, sums: Any, bits: tuple[int, int]) -> None:
        count, m, k = left.shape
        record.products += 1
        record.macs += count * m * k * right.shape[-1]
        record.asked_bits = max(record.asked_bits, *bits)
        record.light_bits = min(record.light_bits, self.spec.budget.bits_of(*self.spec.engine.fill(k)))
        record.add_results(sums, np.matmul(left.astype(np.float64), right.astype(np.float64)))

    def _product(
        self,
        x: npt.NDArray[np.int64],
        w: npt.NDArray[np.int64],
        cut_a: tuple[Slice, ...],
        cut_b: tuple[Slice, ...],
        first: int,
        rng: np.random.Generator,
        record: LayerRecord,
    ) -> npt.NDArray[np.float64]:
        """One product (M, K) · (K, N), number ``first`` of a batch."""
        total = np.zeros((len(x), w.shape[1]))
        for number, some in enumerate(cut_b):
            held = some.digits(w)
            engines = self._engines(w.shape, first, number, len(cut_b))
            tiles = None if self.weights is None else self._tiles(held, engines)
            for part in cut_a:
                driven = part.digits(x)
                if self.nodes is not None:
                    found = self.nodes.product(driven, held, first, rng, record)
                else:
                    assert tiles is not None
                    found = self.reader.product(driven, part.signed, tiles, w.shape[0], w.shape[1], engines, rng, record)
                total += found * float(part.weight * some.weight)
        return total

    def _engines(self, shape: tuple[int, ...], first: int, number: int, parts: int) -> npt.NDArray[np.int64]:
        """(K tiles, N tiles) the engine that each tile is set on: dealt in turn, as ``photonic.tiling`` counts them."""
        n = self.spec.engine.ports
        down, across = (-(-size // n) for size in shape)
        place = ((first * across + np.arange(across)) * down + np.arange(down)[:, None]) * parts + number
        return np.asarray(place % self.spec.engine.count, np.int64)

    def _tiles(self, held: npt.NDArray[np.float64], engines: npt.NDArray[np.int64]) -> Tiles:
        """Weights (K, N) as light meets them, tiles in the order of ``_engines``; kept, as most are met again."""
        assert self.weights is not None
        n, (k, columns) = self.spec.engine.ports, held.shape
        digest = hashlib.blake2b(held.tobytes() + engines.tobytes(), digest_size=16)
        digest.update(repr(held.shape).encode())
        key = digest.digest()
        found = self._kept.get(key)
        if found is None:
            down, across = engines.shape
            padded = np.zeros((down * n, across * n))
            padded[:k, :columns] = held
            blocks = padded.reshape(down, n, across, n).transpose(0, 2, 3, 1).reshape(-1, n, n)  # by output, then input
            found = self._kept[key] = self.weights.tiles(np.ascontiguousarray(blocks), engines)
            size = sum(tiles.nbytes for tiles in self._kept.values())
            while size > CACHE_BYTES and len(self._kept) > 1:
                size -= self._kept.popitem(last=False)[1].nbytes
        else:
            self._kept.move_to_end(key)
        return found


def _wrapped(total: npt.NDArray[np.float64], accumulator: Accumulator) -> npt.NDArray[np.float64]:
    """In two's complement of the accumulator's width."""
    from numerics.formats import get_format

    fmt = get_format(accumulator.format)
    assert isinstance(fmt, IntFormat)
    return np.remainder(total - fmt.code_min, 2.0**fmt.bits) + fmt.code_min
