"""Fault maps: the faulty bits of one tensor, drawn from a model, and what they make of its values."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from numerics._display import displayed_by
from numerics.encoding import decode, encode
from numerics.errors import InputError
from numerics.faults.fields import bit_positions, code_bits
from numerics.faults.models import KINDS, BitFaults, Burst
from numerics.formats import BlockFormat, CodebookFormat, FixedFormat, FloatFormat, Format, IntFormat, get_format
from numerics.quantizer import is_tensor

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_CHUNK = 1 << 16


def stream(seed: int, *words: object) -> np.random.Generator:
    """A generator of its own for every (seed, words): the same bits wherever it runs.

    Philox keyed by a hash (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
    """
    text = "/".join(map(str, (seed, *words)))
    key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))


@displayed_by("numerics._cards:fault_map")
@dataclass(frozen=True)
class FaultMap:
    """The faulty bits of one tensor: a code c is read as ((c ⊕ flip) ∧ ¬clear) ∨ set. No flip undoes a stuck bit.

    Attributes:
        elements: flat indices of the elements with a faulty bit, increasing; int64.
        clear, set, flip: bits that are stuck at 0, stuck at 1, inverted; uint64, one mask an element.
    """

    elements: NDArray[np.int64]
    clear: NDArray[np.uint64]
    set: NDArray[np.uint64]
    flip: NDArray[np.uint64]

    @classmethod
    def none(cls) -> FaultMap:
        """No fault."""
        empty = np.zeros(0, np.uint64)
        return cls(np.zeros(0, np.int64), empty, empty, empty)

    @classmethod
    def from_places(cls, elements: ArrayLike, bits: ArrayLike, kind: str = "flip") -> FaultMap:
        """Bit ``bits[i]`` of element ``elements[i]`` is faulty. A bit that is named twice flips twice.

        Raises:
            InputError: lengths that differ, an unknown kind.
        """
        if kind not in KINDS:
            raise InputError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
        at, bit = np.asarray(elements, np.int64).reshape(-1), np.asarray(bits, np.uint64).reshape(-1)
        if at.shape != bit.shape:
            raise InputError(f"bits: expected as many as elements, {at.size}, got {bit.size}")
        if not at.size:
            return cls.none()
        order = np.argsort(at, kind="stable")
        unique, starts = np.unique(at[order], return_index=True)
        join = np.bitwise_xor if kind == "flip" else np.bitwise_or
        masks = join.reduceat(np.uint64(1) << bit[order], starts)
        zero = np.zeros_like(masks)
        return cls(unique, *(masks if kind == name else zero for name in ("stuck_at_0", "stuck_at_1", "flip")))

    def __len__(self) -> int:
        return int(self.elements.size)

    @property
    def bits_affected(self) -> int:
        """Faulty bits."""
        return int(np.bitwise_count(self.clear | self.set | self.flip).sum())

    def merged(self, other: FaultMap) -> FaultMap:
        """Both at once. Where they hold one bit at different values, this map's is held."""
        if not len(other) or not len(self):
            return self if len(self) else other
        elements = np.union1d(self.elements, other.elements)
        masks = np.zeros((2, 3, elements.size), np.uint64)
        for which, given in enumerate((self, other)):
            at = np.searchsorted(elements, given.elements)
            masks[which][:, at] = given.clear, given.set, given.flip
        held = masks[0, 0] | masks[0, 1]
        clear, set_ = masks[0, 0] | (masks[1, 0] & ~held), masks[0, 1] | (masks[1, 1] & ~held)
        return FaultMap(elements, clear, set_, (masks[0, 2] ^ masks[1, 2]) & ~(clear | set_))

    def only(self, bits: int) -> FaultMap:
        """The faults in the bits of a mask."""
        mask = np.uint64(bits)
        parts = [part & mask for part in (self.clear, self.set, self.flip)]
        kept = (parts[0] | parts[1] | parts[2]) != 0
        return FaultMap(self.elements[kept], *(part[kept] for part in parts))

    def read(self, codes: NDArray[Any]) -> NDArray[Any]:
        """What the codes of ``elements`` are read as; unsigned integers of the same type."""
        wide = codes.astype(np.uint64)
        return (((wide ^ self.flip) & ~self.clear) | self.set).astype(codes.dtype)

    def apply(self, codes: NDArray[Any]) -> NDArray[Any]:
        """A copy of a tensor's codes with the faults in it.

        Raises:
            InputError: an element beyond the tensor.
        """
        found = np.array(codes)
        self.check(found.size)
        flat = found.reshape(-1)
        flat[self.elements] = self.read(flat[self.elements])
        return found

    def check(self, size: int) -> None:
        """See that all elements lie within a tensor of ``size``."""
        if len(self) and (self.elements[0] < 0 or self.elements[-1] >= size):
            worst = self.elements[0] if self.elements[0] < 0 else self.elements[-1]
            raise InputError(f"elements: the tensor has {size}, 0 to {size - 1}, got {worst}")


# --- drawing --------------------------------------------------------------------------------------------------------------------


def draw_places(
    size: int, bits: Sequence[int], rng: np.random.Generator, *, rate: float | None = None, count: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Faulty bits among ``size`` elements: (elements, bits), each pair at most once, in the order of the elements.

    Args:
        bits: those of an element that can fail.
        rate: every bit fails with this probability, independently: gaps between failures are geometric.
        count: so many of them, all choices alike.

    Raises:
        InputError: more bits than there are.
    """
    total = size * len(bits)
    if count is not None:
        if count > total:
            raise InputError(f"count: the tensor has {total} bits that can fail, got {count}")
        at = np.sort(rng.choice(total, count, replace=False, shuffle=False))
    else:
        assert rate is not None
        at = _bernoulli(total, float(rate), rng)
    return at // len(bits), np.asarray(bits, np.int64)[at % len(bits)]


def _bernoulli(total: int, rate: float, rng: np.random.Generator) -> NDArray[np.int64]:
    if rate <= 0 or total == 0:
        return np.zeros(0, np.int64)
    if rate >= 1:
        return np.arange(total)
    found: list[NDArray[np.int64]] = []
    last = -1
    while last < total:
        expected = (total - last) * rate
        gaps = rng.geometric(rate, min(_CHUNK, int(expected + 6 * math.sqrt(expected) + 16)))
        # A gap may be as long as an integer; none is longer than what is left.
        at = last + np.cumsum(np.minimum(gaps, total + 1))
        found.append(at[at < total])
        last = int(at[-1])
    return np.concatenate(found)


def draw_map(model: BitFaults, shape: Sequence[int], fmt: str | Format, rng: np.random.Generator) -> FaultMap:
    """The faulty bits that a model gives a tensor of a format.

    Raises:
        InputError: a field or bit that the format lacks; places beyond the tensor; more faults than it has bits.
    """
    size = math.prod(shape)
    return place_faults(model, shape, bit_positions(fmt, model.bits), rng, code_bits(fmt)) if size else FaultMap.none()


def place_faults(model: BitFaults, shape: Sequence[int], bits: Sequence[int], rng: np.random.Generator, width: int) -> FaultMap:
    """The same for codes of ``width`` bits of which ``bits`` can fail."""
    size = math.prod(shape)
    if model.places is not None:
        elements = np.array([element for element, _ in model.places], np.int64)
        positions = np.array([bit for _, bit in model.places], np.int64)
        for name, values, limit in (("element", elements, size), ("bit", positions, width)):
            if values.size and values.max() >= limit:
                raise InputError(f"places: {name} from 0 to {limit - 1} expected, got {values.max()}")
    else:
        elements, positions = draw_places(size, bits, rng, rate=model.rate, count=model.count)
    if model.burst is not None:
        elements, positions = _spread(elements, positions, shape, model.burst)
    return FaultMap.from_places(elements, positions, model.kind)


def _spread(
    elements: NDArray[np.int64], bits: NDArray[np.int64], shape: Sequence[int], burst: Burst
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every place and those that its burst reaches."""
    columns = shape[-1] if shape else 1
    rows = shape[-2] if len(shape) > 1 else 1
    step, left = (1, columns - elements % columns) if burst.axis == "row" else (columns, rows - elements // columns % rows)
    reach = np.arange(burst.length)
    inside = reach < left[:, None]
    return (elements[:, None] + step * reach)[inside], np.broadcast_to(bits[:, None], inside.shape)[inside]


# --- values ---------------------------------------------------------------------------------------------------------------------


def corrupt(x: Any, fmt: str | Format, faults: FaultMap, *, scale: Any = None, zero_point: Any = 0) -> Any:
    """A tensor's values as they are read from codes with faults in them; all others stay bit for bit.

    Args:
        x: values that the format holds, times ``scale``; numpy or torch, 16-bit floats among them.
        fmt: their format; no block format, whose codes ``numerics.encode`` gives: ``FaultMap.apply`` changes them.
        faults: in its codes.
        scale: what codes are multiplied by; broadcasts to x. A faulty element is its new code times its scale.
        zero_point: the code of 0, of integers; broadcasts to x.

    Raises:
        InputError: an element beyond the tensor.
    """
    found = get_format(fmt)
    if isinstance(found, BlockFormat):
        raise InputError(f"fmt: expected a format of single elements, got {found.name!r}; change the codes of numerics.encode")
    if is_tensor(x):
        import torch

        narrow = (torch.bfloat16, torch.float16)
        host = [
            (v.float() if v.dtype in narrow else v).detach().cpu().numpy() if is_tensor(v) else v for v in (x, scale, zero_point)
        ]
        struck = torch.from_numpy(corrupt(host[0], found, faults, scale=host[1], zero_point=host[2]))
        back = struck.to(x.device, x.dtype)
        if x.dtype in narrow and not torch.equal(back.float().nan_to_num(), struck.to(x.device).nan_to_num()):
            raise InputError(
                f"x: {found.name!r} has values that {str(x.dtype).removeprefix('torch.')} does not hold; expected float32"
            )
        return back
    result = np.array(x)
    faults.check(result.size)
    if not len(faults):
        return result
    flat = result.reshape(-1)
    at = faults.elements
    factors, zeros = _of_elements(scale, result.shape, at), _of_elements(zero_point, result.shape, at)
    steps = flat[at] if factors is None else (flat[at] / factors).astype(result.dtype)
    read = read_values(steps, found, faults, zeros)
    flat[at] = read if factors is None else (read * factors).astype(result.dtype)
    return result


def read_values(steps: NDArray[Any], fmt: Format, faults: FaultMap, zero_point: Any = None) -> NDArray[Any]:
    """What the faulty elements' values, before scaling, are read as.

    Args:
        steps: values of ``faults.elements``, in that order; multiples of the format's step less the zero point.
    """
    if isinstance(fmt, IntFormat):
        zeros = 0 if zero_point is None else zero_point
        mask = (1 << fmt.bits) - 1
        codes = (np.rint(steps.astype(np.float64)).astype(np.int64) + np.asarray(zeros, np.int64)) & mask
        read = faults.read(codes.astype(np.uint64)).astype(np.int64)
        if fmt.signed:
            # A code that a symmetric format does not use is read as what two's complement says.
            read = np.where(read >> (fmt.bits - 1), read - (1 << fmt.bits), read)
        return (read - zeros).astype(steps.dtype)
    codes = faults.read(encode(steps, fmt))
    if isinstance(fmt, CodebookFormat):
        # A table of fewer entries than its index has codes gives nothing for the others.
        beyond = codes >= len(fmt.values)
        values = decode(np.where(beyond, 0, codes).astype(codes.dtype), fmt, dtype=np.float64)
        return np.where(beyond, 0.0, values).astype(steps.dtype)
    if isinstance(fmt, FloatFormat):
        return np.asarray(decode(codes, fmt, dtype=np.float64)).astype(steps.dtype)
    assert isinstance(fmt, FixedFormat)
    return np.asarray(decode(codes, replace(fmt, symmetric=False), dtype=np.float64)).astype(steps.dtype)


def _of_elements(given: Any, shape: tuple[int, ...], at: NDArray[np.int64]) -> Any:
    """The entries of something that broadcasts to ``shape``, for some elements; a single one as it is, None for nothing."""
    if given is None:
        return None
    values = np.asarray(given)
    return values.reshape(()) if values.size == 1 else np.broadcast_to(values, shape)[np.unravel_index(at, shape)]
