"""Number formats as data: a name and how many bits an element takes in memory.

Sources of the widths: IEEE 754-2019 (binary16/32/64); BF16, Google Cloud TPU documentation; TF32, NVIDIA A100 whitepaper
(19 significant bits, stored in 32); OCP 8-bit Floating Point Specification 1.0 (E4M3, E5M2); the FNUZ variants, arXiv
2206.02915; OCP Microscaling Formats 1.0 (FP6, FP4, E8M0, blocks of 32); NVFP4, NVIDIA (E2M1, an E4M3 scale per 16).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from numerics.errors import InputError, unknown_name


@dataclass(frozen=True)
class FloatFormat:
    """A floating-point format: one sign bit (unless unsigned), exponent and mantissa bits."""

    name: str
    exponent_bits: int
    mantissa_bits: int
    signed: bool = True
    storage_bits: int | None = None
    """Bits an element takes in memory where that is more than sign + exponent + mantissa (TF32)."""

    @property
    def bits(self) -> int:
        """Bits of one element in memory."""
        own = int(self.signed) + self.exponent_bits + self.mantissa_bits
        return own if self.storage_bits is None else self.storage_bits

    def storage_bytes(self, elements: int) -> int:
        """Bytes that ``elements`` densely packed elements take."""
        return -(-elements * self.bits // 8)


@dataclass(frozen=True)
class IntFormat:
    """A two's-complement (signed) or unsigned integer; ``bool`` is an unsigned integer held in a byte."""

    name: str
    bits: int
    signed: bool = True

    def storage_bytes(self, elements: int) -> int:
        """Bytes that ``elements`` densely packed elements take."""
        return -(-elements * self.bits // 8)


@dataclass(frozen=True)
class BlockFormat:
    """Elements that share one scale for each block of ``block_size``."""

    name: str
    element: FloatFormat | IntFormat
    block_size: int
    scale: FloatFormat

    @property
    def bits(self) -> float:
        """Mean bits of one element in memory, its share of the scale included."""
        return self.element.bits + self.scale.bits / self.block_size

    def storage_bytes(self, elements: int) -> int:
        """Bytes that ``elements`` elements take, one scale for each begun block included."""
        blocks = math.ceil(elements / self.block_size)
        return -(-(elements * self.element.bits + blocks * self.scale.bits) // 8)


Format = FloatFormat | IntFormat | BlockFormat

_FLOATS = [
    FloatFormat("fp64", 11, 52),
    FloatFormat("fp32", 8, 23),
    FloatFormat("tf32", 8, 10, storage_bits=32),
    FloatFormat("bf16", 8, 7),
    FloatFormat("fp16", 5, 10),
    FloatFormat("e5m2", 5, 2),
    FloatFormat("e5m2fnuz", 5, 2),
    FloatFormat("e4m3", 4, 3),
    FloatFormat("e4m3fn", 4, 3),
    FloatFormat("e4m3fnuz", 4, 3),
    FloatFormat("e3m4", 3, 4),
    FloatFormat("e3m2fn", 3, 2),
    FloatFormat("e2m3fn", 2, 3),
    FloatFormat("e2m1fn", 2, 1),
    FloatFormat("e8m0fnu", 8, 0, signed=False),
]
_INTS = [IntFormat(f"int{b}", b) for b in (*range(2, 17), 32, 64)] + [
    IntFormat(f"uint{b}", b, signed=False) for b in (*range(1, 17), 32, 64)
]
_PLAIN: list[Format] = [*_FLOATS, *_INTS]
_BY_NAME: dict[str, Format] = {f.name: f for f in _PLAIN}
_BY_NAME["bool"] = IntFormat("bool", 8, signed=False)
# A complex number is carried for its bytes: two floats.
_BY_NAME["complex64"] = FloatFormat("complex64", 8, 23, storage_bits=64)
_BY_NAME["complex128"] = FloatFormat("complex128", 11, 52, storage_bits=128)


def _block(name: str, element: str, block_size: int, scale: str) -> None:
    element_format, scale_format = _BY_NAME[element], _BY_NAME[scale]
    assert isinstance(element_format, FloatFormat | IntFormat)
    assert isinstance(scale_format, FloatFormat)
    _BY_NAME[name] = BlockFormat(name, element_format, block_size, scale_format)


_block("mxfp8_e4m3", "e4m3fn", 32, "e8m0fnu")
_block("mxfp8_e5m2", "e5m2", 32, "e8m0fnu")
_block("mxfp6_e2m3", "e2m3fn", 32, "e8m0fnu")
_block("mxfp6_e3m2", "e3m2fn", 32, "e8m0fnu")
_block("mxfp4", "e2m1fn", 32, "e8m0fnu")
_block("mxint8", "int8", 32, "e8m0fnu")
_block("nvfp4", "e2m1fn", 16, "e4m3fn")

_FIXED_POINT = re.compile(r"^(u?)q(\d+)\.(\d+)$")


def format_names() -> list[str]:
    """Names of every bundled format (fixed-point ``q4.12`` and ``uq4.12`` are understood besides)."""
    return sorted(_BY_NAME)


def get_format(name: str) -> Format:
    """The format called ``name``.

    Raises:
        InputError: no such format; the message lists the nearest names.
    """
    if not isinstance(name, str):
        raise InputError(f"format: expected a name such as 'bf16', got {name!r}")
    found = _BY_NAME.get(name)
    if found is not None:
        return found
    fixed = _FIXED_POINT.match(name)
    if fixed:
        bits = int(fixed[2]) + int(fixed[3])
        if bits:
            return IntFormat(name, bits, signed=not fixed[1])
    raise unknown_name("format", name, _BY_NAME)


def is_float(name: str) -> bool:
    """Whether tensors in this format hold real values that a recipe may re-format (integers, booleans are left)."""
    return isinstance(get_format(name), FloatFormat | BlockFormat) and not name.startswith("complex")
