"""Incremental runs: a compiled network, its golden run, and what single faults make of its outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.faults.incremental import layout
from hwsim.faults.incremental.program import Compiler
from hwsim.faults.incremental.recording import Unsupported
from hwsim.views.display import displayed, displaying
from numerics.errors import InputError
from numerics.formats import FixedFormat, IntFormat

if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike, NDArray

    from hwsim.faults.incremental.product_steps import OperandCodes
    from numerics.emulation import Emulation, OperandKey

FAULTS_A_THREAD = 256
"""Faults below which another thread costs more than it saves."""

_CHECKED_IMAGES = 4


@displayed
@dataclass(frozen=True)
class IncrementalSite:
    """An operand whose codes can be faulty.

    Attributes:
        key: module, operator and operand.
        role: ``weight`` or ``activation``.
        format: its format's name.
        shape: for one image; elements count through it, its last axis first.
        elements, bits: of the operand for one image, and of an element's code.
    """

    key: OperandKey
    role: str
    format: str
    shape: tuple[int, ...]
    elements: int
    bits: int


@displayed
@dataclass(frozen=True)
class SiteFaults:
    """Faults, each in one operand of one image: a code c of an element is read as ((c ⊕ flip) ∧ ¬clear) ∨ set.

    Attributes:
        site, image: of each fault; int64.
        elements: flat indices in the sites' operands; int64. An element is named once a fault.
        clear, set, flip: masks of the elements' codes; uint64.
        starts: where the elements of each fault begin, and their number; None for one element a fault.
    """

    site: NDArray[np.int64]
    image: NDArray[np.int64]
    elements: NDArray[np.int64]
    clear: NDArray[np.uint64]
    set: NDArray[np.uint64]
    flip: NDArray[np.uint64]
    starts: NDArray[np.int64] | None = None

    @classmethod
    def from_bits(cls, site: ArrayLike, image: ArrayLike, elements: ArrayLike, bits: ArrayLike, kind: str = "flip") -> SiteFaults:
        """One faulty bit a fault.

        Args:
            kind: ``flip``, ``stuck_at_0`` or ``stuck_at_1``.

        Raises:
            InputError: lengths that differ, an unknown kind.
        """
        from numerics.errors import unknown_name
        from numerics.faults.models import KINDS

        if kind not in KINDS:
            raise unknown_name("kind", kind, KINDS)
        masks = np.uint64(1) << np.asarray(bits, np.uint64).reshape(-1)
        zero = np.zeros_like(masks)
        some = [masks if kind == name else zero for name in ("stuck_at_0", "stuck_at_1", "flip")]
        where = [np.asarray(v, np.int64).reshape(-1) for v in (site, image, elements)]
        return cls(where[0], where[1], where[2], some[0], some[1], some[2])

    def __len__(self) -> int:
        return int(self.site.size)


@displayed
@dataclass(frozen=True)
class Outcomes:
    """What faults made of the outputs.

    Attributes:
        outputs: (faults, classes) float32; a NaN is the default one.
        changed: whether any bit of the outputs is another than without the fault.
        top1: the class of the largest output (of the first of them; of a NaN before all), as ``torch.argmax``.
        moved: whether that is another.
        refused: whether a NaN met a format that has none, integers most often, where the emulation raises; outputs are NaN then.
    """

    outputs: NDArray[np.float32]
    changed: NDArray[np.bool_]
    top1: NDArray[np.int64]
    moved: NDArray[np.bool_]
    refused: NDArray[np.bool_]


@displaying("sites", "own_order")
class Incremental:
    """An emulated network whose faults are run on what they change.

    The golden run and the faulty ones go through the same kernels. Where the emulation defines the order of every sum (integers;
    ``accumulation="fp32"``) they compute its very bits. Where it leaves sums to a library, the kernels add in an order of their
    own, one fused multiply-add after the other, and ``own_order`` lists these operators.

    Args:
        emulation: of ``numerics.emulate``, put into eval mode.
        images: (images, channels, rows, columns) or (images, features), float32.
        memory_bytes: for the golden maps.
        in_turns: whether images are run in turns where their golden maps do not fit.

    Raises:
        Unsupported: an operator, a format or a scale that incremental runs do not take; too little memory, without turns.
        InputError: no emulation, other images, a memory that holds no image.
    """

    def __init__(self, emulation: Emulation, images: torch.Tensor, *, memory_bytes: int = 1 << 30, in_turns: bool = True) -> None:
        import torch

        from numerics.emulation import Emulation as Emulated

        if not isinstance(emulation, Emulated):
            raise InputError(f"emulation: expected a module from numerics.emulate, got {type(emulation).__name__}")
        if not isinstance(images, torch.Tensor) or images.dtype != torch.float32 or images.ndim not in (2, 4) or not len(images):
            got = f"{images.dtype} of shape {tuple(images.shape)}" if isinstance(images, torch.Tensor) else type(images).__name__
            raise InputError(f"images: expected 32-bit floats (images, channels, rows, columns) or (images, features), got {got}")
        if any(x.device.type != "cpu" for x in (images, *emulation.module.parameters())):
            raise InputError("emulation, images: expected all of them on the CPU")
        if emulation._context.injection is not None:
            raise InputError("emulation: has an injection at work; expected none")
        self._program = Compiler(emulation.eval()).compile(images[:2])
        self._images = images.detach().cpu()
        program = self._program
        each = 4 * program.golden_size
        self._slots = min(len(images), int(memory_bytes) // each)
        if not in_turns and self._slots < len(images):
            raise Unsupported(f"images: {len(images)} golden maps take {each * len(images)} bytes, more than {memory_bytes}")
        if not self._slots:
            raise InputError(f"memory_bytes: one image takes {each}, got {memory_bytes}")
        self._maps = np.empty((self._slots, program.golden_size), np.float32)
        self._first = -1
        self._products = [(i, step.product) for i, step in enumerate(program.steps) if step.product is not None]
        classes = program.shapes[-1][2]
        self.golden = np.empty((len(images), classes), np.float32)
        for first in range(0, len(images), self._slots):
            self._load(first)
            start = int(program.values[-1, layout.GOLDEN])
            count = min(self._slots, len(images) - first)
            self.golden[first : first + count] = _plain(self._maps[:count, start : start + classes])
        self._check(emulation)

    @property
    def own_order(self) -> tuple[str, ...]:
        """Operators that are computed in an order of these kernels' own; none where every output has the emulation's bits."""
        return self._program.own_order

    @property
    def sites(self) -> tuple[IncrementalSite, ...]:
        """Operands that can be faulty, in the order of the products: the activation, then the weight of each."""
        from numerics.faults import code_bits

        found = []
        for _, product in self._products:
            for operand, role in ((product.activation, "activation"), (product.weight, "weight")):
                elements = int(np.prod(operand.shape))
                found.append(
                    IncrementalSite(operand.key, role, operand.fmt.name, operand.shape, elements, code_bits(operand.fmt))
                )
        return tuple(found)

    # --- running ------------------------------------------------------------------------------------------------------------

    def _call(self, first: int, last: int, *, golden_run: bool, faults: _Packed, outputs: Any, refused: Any) -> int:
        from hwsim.faults.incremental._fault_kernels import runner

        p = self._program
        return int(
            runner()(
                first, last, golden_run, p.table, p.values, p.constants, p.constants.view(np.int32), p.operations, p.formats,
                self._maps, self._maps.view(np.int32), p.areas[:-1], int(p.areas[-1]), p.most_indices, faults.step, faults.kind,
                faults.image, faults.starts, faults.elements, faults.values, outputs, refused,
            )
        )  # fmt: skip

    def _load(self, first: int) -> None:
        """The golden maps of the images from ``first`` on, as many as there is memory for."""
        if first == self._first:
            return
        from numerics._parallel import run_parts

        self._first = -1
        count = min(self._slots, len(self._images) - first)
        part = self._images[first : first + count].numpy()
        part = part.transpose(0, 2, 3, 1) if part.ndim == 4 else part
        start = int(self._program.values[0, layout.GOLDEN])
        self._maps[:count, start : start + part[0].size] = part.reshape(count, -1)
        nothing, blank = _Packed.none(), np.empty((0, 1), np.float32)

        def work(begin: int, end: int) -> int:
            return self._call(begin, end, golden_run=True, faults=nothing, outputs=blank, refused=np.empty(0, np.bool_))

        bad = max(run_parts(work, count, smallest=4))
        if bad >= 0:
            raise InputError(f"images: number {first + bad}: a NaN meets a format of integers, which has none; expected numbers")
        self._first = first

    def _check(self, emulation: Emulation) -> None:
        """See that the golden run is the emulation's: in every bit where the order of all sums is defined."""
        import torch

        some = self._images[:_CHECKED_IMAGES]
        with torch.no_grad():
            expected = _plain(emulation(some).numpy().copy())
        found = self.golden[: len(some)]
        if not self.own_order:
            if not np.array_equal(found.view(np.int32), expected.view(np.int32)):
                raise Unsupported("model: incremental runs do not compute the emulation's bits for it; use the emulation itself")
            return
        both = np.isfinite(found) & np.isfinite(expected)
        first, second = (np.where(both, v, 0.0).astype(np.float64) for v in (found, expected))
        apart = np.linalg.norm(first - second) > 0.1 * np.linalg.norm(second)
        if apart or not np.array_equal(np.isfinite(found), np.isfinite(expected)):
            raise Unsupported("model: incremental runs compute something else than the emulation; use the emulation itself")

    def run(self, faults: SiteFaults) -> Outcomes:
        """What each fault makes of its image's outputs. The same bits on any number of threads.

        Raises:
            InputError: sites, images, elements or bits that there are not.
        """
        starts = self._checked(faults)
        outputs = np.empty((len(faults), self.golden.shape[1]), np.float32)
        refused = np.zeros(len(faults), np.bool_)
        # Faults of one image and step lie together, so that its maps stay in the cache.
        order = np.lexsort((faults.site, faults.image))
        for first in range(0, len(self._images), self._slots):
            low, high = np.searchsorted(faults.image[order], (first, first + self._slots))
            if low < high:
                self._load(first)
                chosen = order[low:high]
                outputs[chosen], refused[chosen] = self._run(faults, starts, chosen)
        outputs, golden = _plain(outputs), self.golden[faults.image]
        top1 = np.argmax(outputs, axis=1)
        changed = (outputs.view(np.int32) != golden.view(np.int32)).any(axis=1)
        return Outcomes(outputs, changed, top1, top1 != np.argmax(golden, axis=1), refused)

    def _run(
        self, faults: SiteFaults, starts: NDArray[np.int64], chosen: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Faults of the images whose golden maps are there."""
        from numerics._parallel import run_parts

        packed = self._packed(faults, starts, chosen)
        outputs = np.empty((len(chosen), self.golden.shape[1]), np.float32)
        refused = np.zeros(len(chosen), np.bool_)

        def work(begin: int, end: int) -> int:
            return self._call(begin, end, golden_run=False, faults=packed, outputs=outputs, refused=refused)

        run_parts(work, len(chosen), smallest=FAULTS_A_THREAD)
        return outputs, refused

    def _checked(self, faults: SiteFaults) -> NDArray[np.int64]:
        """Where each fault's elements begin."""
        count, total = len(faults), faults.elements.size
        starts = np.arange(count + 1) if faults.starts is None else np.asarray(faults.starts, np.int64)
        if faults.image.size != count:
            raise InputError(f"image: expected {count}, one a fault, got {faults.image.size}")
        if starts.size != count + 1 or starts[0] != 0 or starts[-1] != total or (np.diff(starts) < 0).any():
            raise InputError(f"starts: expected {count + 1} numbers from 0 up to the {total} elements, in order")
        for name in ("clear", "set", "flip"):
            if getattr(faults, name).size != total:
                raise InputError(f"{name}: expected {total} masks, one an element, got {getattr(faults, name).size}")
        sites = self.sites
        for name, values, most in (("site", faults.site, len(sites)), ("image", faults.image, len(self._images))):
            if count and (values.min() < 0 or values.max() >= most):
                raise InputError(f"{name}: expected 0 to {most - 1}, got {values.min()} to {values.max()}")
        if not total:
            return starts
        of = np.repeat(faults.site, np.diff(starts))
        sizes, widths = (np.array([getattr(site, name) for site in sites]) for name in ("elements", "bits"))
        beyond = (faults.elements < 0) | (faults.elements >= sizes[of])
        if beyond.any():
            at = int(np.argmax(beyond))
            raise InputError(f"elements: site {of[at]} has {sizes[of[at]]}, got {faults.elements[at]}")
        masks = faults.clear | faults.set | faults.flip
        wide = (widths[of] < 64) & (masks >> np.minimum(widths[of], 63).astype(np.uint64) != 0)
        if wide.any():
            at = int(np.argmax(wide))
            raise InputError(f"bits: codes of site {of[at]} have {widths[of[at]]}, got mask {int(masks[at]):#x}")
        return starts

    # --- new values of operands ---------------------------------------------------------------------------------------------

    def _packed(self, faults: SiteFaults, starts: NDArray[np.int64], chosen: NDArray[np.int64]) -> _Packed:
        """Faults as the kernel takes them, with the values that the faulty codes stand for."""
        lengths = np.diff(starts)[chosen]
        begins = np.concatenate([[0], np.cumsum(lengths)])
        number = np.arange(begins[-1]) - np.repeat(begins[:-1], lengths) + np.repeat(starts[:-1][chosen], lengths)
        site, slot = faults.site[chosen], faults.image[chosen] - self._first
        of, slots, elements = np.repeat(site, lengths), np.repeat(slot, lengths), faults.elements[number]
        values = np.empty(elements.size, np.float32)
        for which in np.unique(of):
            step, product = self._products[which // 2]
            at = np.flatnonzero(of == which)
            masks = tuple(mask[number[at]] for mask in (faults.clear, faults.set, faults.flip))
            if which % 2:
                old = product.weights.reshape(-1)[elements[at]]
                values[at] = _faulty(old, product.weight, elements[at] // product.weights.shape[1], masks)
            else:
                rows, columns, channels = self._program.shapes[self._program.steps[step].inputs[0]]
                channel, place = np.divmod(elements[at], rows * columns)
                start = int(self._program.table[step, layout.OPERAND])
                old = self._maps[slots[at], start + place * channels + channel]
                values[at] = _faulty(old, product.activation, None, masks)
        steps = np.array([step for step, _ in self._products], np.int64)
        return _Packed(steps[site // 2], site % 2 + 1, slot, begins, elements, values)


@dataclass(frozen=True)
class _Packed:
    """Faults as the kernel takes them; see ``_fault_kernels.runner``."""

    step: NDArray[np.int64]
    kind: NDArray[np.int64]
    image: NDArray[np.int64]
    starts: NDArray[np.int64]
    elements: NDArray[np.int64]
    values: NDArray[np.float32]

    @classmethod
    def none(cls) -> _Packed:
        """No faults."""
        empty = np.zeros(0, np.int64)
        return cls(empty, empty, empty, np.zeros(1, np.int64), empty, np.zeros(0, np.float32))


def _faulty(
    old: NDArray[np.float32], operand: OperandCodes, rows: NDArray[np.int64] | None, masks: tuple[NDArray[np.uint64], ...]
) -> NDArray[np.float32]:
    """What products multiply instead of ``old`` when the masks strike its codes; ``rows`` are output channels of weights."""
    from numerics.faults import FaultMap
    from numerics.faults.maps import read_values

    scale, zeros = (v if v is None or v.ndim == 0 or rows is None else v[rows] for v in (operand.scale, operand.zero_point))
    assert zeros is not None
    steps = _unscaled(old * np.float32(operand.step), operand, scale)
    read = read_values(steps, operand.fmt, FaultMap(np.arange(old.size), *masks), zeros.astype(np.int64))
    found: NDArray[np.float32] = read.astype(np.float32) / np.float32(operand.step)
    return found if scale is None else np.asarray(found * scale, np.float32)


def _unscaled(values: NDArray[np.float32], operand: OperandCodes, scale: Any) -> NDArray[np.float32]:
    """Values before scaling: a value divided by its scale is next to the one that it came from."""
    from numerics.quantizer import quantize

    if scale is None:
        return values
    fmt = operand.fmt
    if isinstance(fmt, IntFormat | FixedFormat):
        return np.asarray(np.rint(values / scale / np.float32(fmt.step)) * np.float32(fmt.step), np.float32)
    return np.asarray(quantize(values / scale, fmt, overflow="saturate"), np.float32)


def _plain(outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same with every NaN the default one: which one an operation gives depends on the processor."""
    found = np.array(outputs, np.float32)
    found[np.isnan(found)] = np.nan
    return found
