"""What protects stored bits and values: error-correcting words, parity, hardened cells, duplication, range clipping.

A protection sees the faults of a tensor and says what is read in spite of them. Its own bits (check bits, parity bits, the second
copy) fail as the data's do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from numerics._display import displayed
from numerics.ecc import Secded
from numerics.errors import InputError, unknown_name
from numerics.faults.fields import bit_positions, code_bits
from numerics.faults.maps import FaultMap
from numerics.faults.models import TARGETS
from numerics.formats import Format

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from numerics.emulation import Emulation, OperandKey

OnDetected = Literal["keep", "zero"]

Draw = Callable[[str, int, int], FaultMap]
"""(name, size, bits): the faults of so many further codes of so many bits, drawn as the tensor's own are."""


@displayed
@dataclass(frozen=True)
class Read:
    """What is read of a tensor with faults.

    Attributes:
        faults: those that remain.
        zeroed: flat indices of elements that are read as 0.
        corrected, detected: words (elements, where a protection has no words) that were corrected, and that were found wrong and
            not corrected.
    """

    faults: FaultMap
    zeroed: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    corrected: int = 0
    detected: int = 0


@displayed
@dataclass(frozen=True, kw_only=True)
class Protection:
    """What protects the tensors of a role in some modules.

    Attributes:
        target: the role, as in ``BitFaults``.
        modules: pattern of the paths of the modules whose operators use the tensors (``fnmatch``).
    """

    target: str = "weight"
    modules: str = "*"

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise unknown_name("target", self.target, TARGETS)

    def read(self, codes: NDArray[np.uint64], faults: FaultMap, fmt: Format, draw: Draw) -> Read:
        """What is read of a tensor whose codes have faults.

        Args:
            codes: of the whole tensor, flat.
            faults: in them.
            fmt: of an element.
            draw: gives the faults of bits that the protection adds.
        """
        return Read(faults)

    def extra_bits(self, bits: int) -> float:
        """Bits stored besides, for each element of ``bits``."""
        return 0.0


def _check_policy(policy: str) -> None:
    if policy not in ("keep", "zero"):
        raise unknown_name("on_detected", policy, ("keep", "zero"))


@displayed
@dataclass(frozen=True, kw_only=True)
class SecdedWords(Protection):
    """Consecutive elements share a word of ``numerics.Secded``: one wrong bit of a word is corrected, two are detected.

    Attributes:
        data_bits: of a word; a multiple of the bits of an element.
        on_detected: whether the elements of a word that cannot be corrected are kept as read or zeroed.
    """

    data_bits: int = 64
    on_detected: OnDetected = "keep"

    def __post_init__(self) -> None:
        super().__post_init__()
        Secded(self.data_bits)
        _check_policy(self.on_detected)

    def extra_bits(self, bits: int) -> float:
        """Check bits, shared by the elements of a word."""
        return Secded(self.data_bits).check_bits * bits / self.data_bits

    def read(self, codes: NDArray[np.uint64], faults: FaultMap, fmt: Format, draw: Draw) -> Read:
        """See ``Protection.read``; check bits fail as data bits do."""
        bits = code_bits(fmt)
        if self.data_bits % bits:
            raise InputError(f"data_bits: expected a multiple of the {bits} bits of {fmt.name!r}, got {self.data_bits}")
        code, each = Secded(self.data_bits), self.data_bits // bits
        words = -(-codes.size // each)
        checks = draw("check", words, code.check_bits)
        hit = np.union1d(faults.elements // each, checks.elements)
        if not hit.size:
            return Read(faults)
        members = hit[:, None] * each + np.arange(each)
        inside = members < codes.size
        stored = np.where(inside, codes[np.minimum(members, codes.size - 1)], np.uint64(0))
        wrong = stored.copy()
        row, column = np.searchsorted(hit, faults.elements // each), faults.elements % each
        wrong[row, column] = faults.read(stored[row, column])
        shifts = np.arange(each, dtype=np.uint64) * np.uint64(bits)
        check = code.encode(_joined(stored, shifts))
        at = np.searchsorted(hit, checks.elements)
        check[at] = checks.read(check[at])
        decoded = code.decode(_joined(wrong, shifts), check)
        mask = np.uint64((1 << bits) - 1)
        read = decoded.data[:, None] >> shifts & mask
        zeroed = members[inside & (decoded.double_error & (self.on_detected == "zero"))[:, None]]
        remaining = (read ^ stored)[inside]
        kept = remaining != 0
        zero = np.zeros(int(kept.sum()), np.uint64)
        return Read(
            FaultMap(members[inside][kept], zero, zero, remaining[kept]),
            zeroed,
            int(decoded.single_error.sum()),
            int(decoded.double_error.sum()),
        )


def _joined(codes: NDArray[np.uint64], shifts: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Words of elements, the first in the lowest bits."""
    return np.bitwise_or.reduce(codes << shifts, axis=1)


@displayed
@dataclass(frozen=True, kw_only=True)
class Parity(Protection):
    """One parity bit an element: an odd number of wrong bits is detected, and the element is read as 0."""

    def extra_bits(self, bits: int) -> float:
        """The parity bit."""
        return 1.0

    def read(self, codes: NDArray[np.uint64], faults: FaultMap, fmt: Format, draw: Draw) -> Read:
        """See ``Protection.read``; parity bits fail as data bits do."""
        parity = draw("parity", codes.size, 1)
        hit = np.union1d(faults.elements, parity.elements)
        wrong = np.zeros(hit.size, np.uint64)
        stored = codes[hit]
        at = np.searchsorted(hit, faults.elements)
        wrong[at] = faults.read(stored[at]) ^ stored[at]
        right = (np.bitwise_count(stored) & 1).astype(np.uint64)
        seen = right.copy()
        at = np.searchsorted(hit, parity.elements)
        seen[at] = parity.read(right[at])
        odd = (np.bitwise_count(wrong) + (seen ^ right)) % 2 == 1
        return Read(faults, hit[odd], 0, int(odd.sum()))


@displayed
@dataclass(frozen=True, kw_only=True)
class Hardening(Protection):
    """Cells that do not fail.

    Attributes:
        bits: which bits of an element they hold: None for all, a field, or positions.
    """

    bits: str | tuple[int, ...] | None = None

    def hardened(self, fmt: Format) -> tuple[int, ...]:
        """The bits of an element that they hold."""
        return bit_positions(fmt, self.bits)

    def read(self, codes: NDArray[np.uint64], faults: FaultMap, fmt: Format, draw: Draw) -> Read:
        """See ``Protection.read``."""
        mask = sum(1 << bit for bit in self.hardened(fmt))
        return Read(faults.only(((1 << code_bits(fmt)) - 1) & ~mask))


@displayed
@dataclass(frozen=True, kw_only=True)
class Duplication(Protection):
    """Two copies that are compared: what differs is detected; what fails alike in both is not.

    Attributes:
        on_detected: whether an element whose copies differ is kept as the first has it or zeroed.
    """

    on_detected: OnDetected = "keep"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_policy(self.on_detected)

    def extra_bits(self, bits: int) -> float:
        """The second copy."""
        return float(bits)

    def read(self, codes: NDArray[np.uint64], faults: FaultMap, fmt: Format, draw: Draw) -> Read:
        """See ``Protection.read``; the copy fails as the data do."""
        copy = draw("copy", codes.size, code_bits(fmt))
        hit = np.union1d(faults.elements, copy.elements)
        first, second = codes[hit], codes[hit]
        for values, given in ((first, faults), (second, copy)):
            at = np.searchsorted(hit, given.elements)
            values[at] = given.read(values[at])
        differs = first != second
        zeroed = hit[differs] if self.on_detected == "zero" else np.zeros(0, np.int64)
        return Read(faults, zeroed, 0, int(differs.sum()))


@displayed
@dataclass(frozen=True, kw_only=True)
class Clipping(Protection):
    """Values outside the range of a run without faults are brought back to its ends (Chen et al., "A low-cost fault corrector for
    deep neural networks through range restriction", DSN 2021); NaN becomes 0.

    Attributes:
        ranges: operand → its smallest and largest value; operands that are not named are left alone. ``observed`` finds them.
    """

    target: str = "activation"
    ranges: Mapping[OperandKey, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def observed(cls, emulation: Emulation, inputs: Sequence[Any], *, target: str = "activation", modules: str = "*") -> Clipping:
        """The ranges that the operands of an emulated module have on some inputs.

        Args:
            inputs: tensors, or tuples of positional arguments, one a forward pass.
        """
        import torch

        ranges: dict[OperandKey, tuple[float, float]] = {}

        def note(key: OperandKey, x: torch.Tensor) -> None:
            if key.recipe_role == target and x.numel():
                low, high = ranges.get(key, (float("inf"), float("-inf")))
                ranges[key] = min(low, float(x.min())), max(high, float(x.max()))

        with emulation.observe(note), torch.no_grad():
            for given in inputs:
                emulation(*given) if isinstance(given, tuple) else emulation(given)
        return cls(target=target, modules=modules, ranges=ranges)
