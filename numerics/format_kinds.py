"""Kinds of number formats, as data: what each bit of a code means, and how many bits an element takes in memory.

Sources: IEEE 754-2019 (binary16/32/64); BF16, Google Cloud TPU documentation; TF32, NVIDIA A100 whitepaper (19 significant
bits, stored in 32); OCP 8-bit Floating Point Specification 1.0 (E4M3, E5M2); the FNUZ variants, arXiv 2206.02915; OCP
Microscaling Formats 1.0 (FP6, FP4, E8M0, MXINT8, blocks of 32); NVFP4, NVIDIA (E2M1, an E4M3 scale per 16 and an FP32 scale
per tensor); dynamic codes of 8-bit optimizers, Dettmers et al., arXiv 2110.02861.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from numerics._display import displayed_by
from numerics._fields import check_integer, settle
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Specials = Literal["ieee", "max_is_nan", "negative_zero_is_nan", "none"]
"""What the special codes mean: ``ieee``, the highest exponent holds Inf (mantissa 0) and NaN; ``max_is_nan``, only the code of
all ones is NaN, there is no Inf ("fn"); ``negative_zero_is_nan``, the code of −0 is the only NaN, there is no Inf ("fnuz");
``none``, every code is a number."""

TABLE_BITS = 16
"""Widest code that ``table()`` lists."""


def _packed_bytes(elements: int, bits: int) -> int:
    if type(elements) is not int or elements < 0:  # the check of anything else takes longer than all else
        elements = check_integer("elements", elements, least=0)
    return -(-elements * bits // 8)


def _where(name: Any) -> str:
    """How the errors of a format begin.

    Raises:
        InputError: the name is not text, or empty.
    """
    if not isinstance(name, str) or not name:
        raise InputError(f"format: name: expected a name such as 'bf16', got {name!r}")
    return f"format {name!r}"


@displayed_by("numerics._cards:float_format")
@dataclass(frozen=True)
class FloatFormat:
    """A floating-point format.

    Attributes:
        name: what it is called.
        exponent_bits: 1 to 11 (0 to 11 bits beside at least one of mantissa).
        mantissa_bits: stored bits of the significand, 0 to 52.
        bias: exponent bias; 2^(exponent_bits − 1) − 1 unless given.
        specials: what the special codes mean; see ``Specials``.
        subnormals: whether an exponent field of 0 holds subnormals; otherwise results below the smallest normal number
            are flushed to zero.
        signed: whether there is a sign bit.
        zero: whether the exponent field 0 is kept for zero and subnormals; E8M0 has neither.
        storage_bits: bits an element takes in memory where that is more than sign + exponent + mantissa (TF32).

    Raises:
        InputError: a field outside its range.
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    bias: int | None = None
    specials: Specials = "ieee"
    subnormals: bool = True
    signed: bool = True
    zero: bool = True
    storage_bits: int | None = None

    def __post_init__(self) -> None:
        where = _where(self.name)
        given = tuple(f for f in ("bias", "storage_bits") if getattr(self, f) is not None)
        settle(self, where, integers=("exponent_bits", "mantissa_bits", *given), flags=("subnormals", "signed", "zero"))
        if not 1 <= self.exponent_bits <= 11:
            raise InputError(f"{where}: exponent_bits: expected 1 to 11, got {self.exponent_bits}")
        if not 0 <= self.mantissa_bits <= 52:
            raise InputError(f"{where}: mantissa_bits: expected 0 to 52, got {self.mantissa_bits}")
        if self.specials not in ("ieee", "max_is_nan", "negative_zero_is_nan", "none"):
            known = ("ieee", "max_is_nan", "negative_zero_is_nan", "none")
            raise unknown_name(f"{where}: specials", str(self.specials), known)
        if self.specials == "ieee" and self.mantissa_bits == 0:
            raise InputError(
                f"{where}: specials: 'ieee' needs a mantissa bit to tell NaN from Inf; expected 'max_is_nan' or 'none'"
            )
        if self.specials == "negative_zero_is_nan" and not self.signed:
            raise InputError(f"{where}: specials: 'negative_zero_is_nan' needs a sign bit (signed=True)")
        if not self.zero and self.specials == "negative_zero_is_nan":
            raise InputError(f"{where}: specials: 'negative_zero_is_nan' needs a zero (zero=True)")
        object.__setattr__(self, "bias", (1 << (self.exponent_bits - 1)) - 1 if self.bias is None else self.bias)
        if not (self.emin - self.mantissa_bits >= -1074 and self.emax <= 1023):
            raise InputError(
                f"{where}: bias: {self.bias} puts values outside those of a 64-bit float, in which they are computed "
                f"(exponents {self.emin} to {self.emax})"
            )
        if self._top_code < (1 << self.mantissa_bits if self.zero else 0):
            raise InputError(f"{where}: exponent_bits: {self.exponent_bits} leaves no code for a normal number")
        if self.storage_bits is not None and self.storage_bits < self.code_bits:
            raise InputError(f"{where}: storage_bits: expected at least the {self.code_bits} of a code, got {self.storage_bits}")

    # --- codes ------------------------------------------------------------------------------------------------------

    @property
    def code_bits(self) -> int:
        """Bits of a code: sign + exponent + mantissa."""
        return int(self.signed) + self.exponent_bits + self.mantissa_bits

    @property
    def bits(self) -> int:
        """Bits of one element in memory."""
        return self.code_bits if self.storage_bits is None else self.storage_bits

    @property
    def _top_code(self) -> int:
        """The magnitude code of the largest finite value."""
        all_ones = (1 << (self.exponent_bits + self.mantissa_bits)) - 1
        if self.specials == "ieee":
            return all_ones - (1 << self.mantissa_bits)
        return all_ones - (self.specials == "max_is_nan")

    # --- values -----------------------------------------------------------------------------------------------------

    @property
    def emin(self) -> int:
        """Exponent of the smallest normal number."""
        assert self.bias is not None
        return (1 if self.zero else 0) - self.bias

    @property
    def emax(self) -> int:
        """Exponent of the largest finite number."""
        return self.emin + (self._top_code >> self.mantissa_bits) - (1 if self.zero else 0)

    @property
    def max(self) -> float:
        """Largest finite value."""
        significand = (self._top_code & ((1 << self.mantissa_bits) - 1)) + (1 << self.mantissa_bits)
        return math.ldexp(significand, self.emax - self.mantissa_bits)

    @property
    def min(self) -> float:
        """Most negative finite value (the smallest value of an unsigned format)."""
        return -self.max if self.signed else (0.0 if self.zero else self.smallest_normal)

    @property
    def smallest_normal(self) -> float:
        """Smallest positive normal value."""
        return math.ldexp(1.0, self.emin)

    @property
    def smallest_subnormal(self) -> float:
        """Smallest positive value (``smallest_normal`` where there are no subnormals)."""
        return math.ldexp(1.0, self.emin - self.mantissa_bits) if self.subnormals and self.zero else self.smallest_normal

    @property
    def eps(self) -> float:
        """Gap between 1 and the next value above it."""
        return math.ldexp(1.0, -self.mantissa_bits)

    @property
    def has_inf(self) -> bool:
        """Whether it has infinities."""
        return self.specials == "ieee"

    @property
    def has_nan(self) -> bool:
        """Whether it has a NaN."""
        return self.specials != "none"

    @property
    def has_negative_zero(self) -> bool:
        """Whether −0 differs from +0."""
        return self.signed and self.zero and self.specials != "negative_zero_is_nan"

    @cached_property
    def _table(self) -> NDArray[np.float64]:
        import numpy as np

        if self.code_bits > TABLE_BITS:
            raise InputError(
                f"format {self.name!r}: table: {self.code_bits} bits have too many codes to list; expected ≤ {TABLE_BITS}"
            )
        magnitudes = np.arange(1 << (self.exponent_bits + self.mantissa_bits))
        exponent = magnitudes >> self.mantissa_bits
        fraction = magnitudes & ((1 << self.mantissa_bits) - 1)
        normal = exponent > 0 if self.zero else np.ones(magnitudes.shape, bool)
        significand = fraction + normal * (1 << self.mantissa_bits)
        power = np.where(normal, exponent - int(self.zero), 0) + self.emin - self.mantissa_bits
        values = np.ldexp(significand.astype(np.float64), power)
        if not self.subnormals:
            values[~normal] = 0.0
        if self.specials == "ieee":
            values[self._top_code + 1] = np.inf
            values[self._top_code + 2 :] = np.nan
        elif self.specials == "max_is_nan":
            values[-1] = np.nan
        if self.signed:
            values = np.concatenate([values, -values])
            if self.specials == "negative_zero_is_nan":
                values[len(magnitudes)] = np.nan
        values.setflags(write=False)
        return values

    def table(self) -> NDArray[np.float64]:
        """The value of every code, in the order of the codes; shape (2^code_bits,), float64, read-only.

        Raises:
            InputError: more than 16 bits.
        """
        return self._table

    def storage_bytes(self, elements: int) -> int:
        """Bytes that ``elements`` densely packed elements take."""
        return _packed_bytes(elements, self.bits)


class _Stepped:
    """What integers and fixed-point numbers share: values that are multiples of a step."""

    name: str
    bits: int
    signed: bool
    symmetric: bool
    fraction_bits: int

    @property
    def code_min(self) -> int:
        """Smallest integer code."""
        return (-(1 << (self.bits - 1)) + int(self.symmetric)) if self.signed else 0

    @property
    def code_max(self) -> int:
        """Largest integer code."""
        return (1 << (self.bits - int(self.signed))) - 1

    @property
    def step(self) -> float:
        """Gap between neighbouring values."""
        return math.ldexp(1.0, -self.fraction_bits)

    @property
    def eps(self) -> float:
        """Gap between 1 and the next value above it: the step."""
        return self.step

    @property
    def min(self) -> float:
        """Smallest value."""
        return self.code_min * self.step

    @property
    def max(self) -> float:
        """Largest value."""
        return self.code_max * self.step

    def table(self) -> NDArray[np.float64]:
        """The value of every code, in the order of the codes read as unsigned integers; float64, read-only.

        A symmetric format does not use its most negative code, which is NaN here.

        Raises:
            InputError: more than 16 bits.
        """
        import numpy as np

        if self.bits > TABLE_BITS:
            raise InputError(
                f"format {self.name!r}: table: {self.bits} bits have too many codes to list; expected ≤ {TABLE_BITS}"
            )
        codes = np.arange(1 << self.bits)
        values = np.where(self.signed & (codes > self.code_max), codes - (1 << self.bits), codes) * self.step
        values[values < self.min] = np.nan
        values.setflags(write=False)
        return values

    def storage_bytes(self, elements: int) -> int:
        """Bytes that ``elements`` densely packed elements take."""
        return _packed_bytes(elements, self.bits)


@displayed_by("numerics._cards:stepped_format")
@dataclass(frozen=True)
class IntFormat(_Stepped):
    """A two's-complement (signed) or unsigned integer; ``bool`` is an unsigned integer held in a byte.

    Attributes:
        name: what it is called.
        bits: 1 to 64.
        signed: two's complement, or unsigned.
        symmetric: without the most negative value (signed only), so that negation never overflows.

    Raises:
        InputError: a field outside its range.
    """

    name: str
    bits: int
    signed: bool = True
    symmetric: bool = False

    def __post_init__(self) -> None:
        settle(self, _where(self.name), integers=("bits",), flags=("signed", "symmetric"))
        if not 1 <= self.bits <= 64:
            raise InputError(f"format {self.name!r}: bits: expected 1 to 64, got {self.bits}")
        if self.symmetric and (not self.signed or self.bits < 2):
            raise InputError(
                f"format {self.name!r}: symmetric: only signed integers of at least 2 bits are, got {self.bits} bits"
            )

    @property
    def fraction_bits(self) -> int:  # type: ignore[override]
        """Bits after the binary point: none."""
        return 0


@displayed_by("numerics._cards:stepped_format")
@dataclass(frozen=True)
class FixedFormat(_Stepped):
    """A fixed-point number: an integer code times 2^−fraction_bits.

    Attributes:
        name: what it is called.
        integer_bits: bits before the binary point, the sign included (``q4.12``: 4).
        fraction_bits: bits after it.
        signed: two's complement, or unsigned.
        symmetric: without the most negative value (signed only).

    Raises:
        InputError: fewer than 1 or more than 64 bits.
    """

    name: str
    integer_bits: int
    fraction_bits: int
    signed: bool = True
    symmetric: bool = False

    def __post_init__(self) -> None:
        settle(self, _where(self.name), integers=("integer_bits", "fraction_bits"), flags=("signed", "symmetric"))
        if not 1 <= self.bits <= 64:
            raise InputError(f"format {self.name!r}: integer_bits + fraction_bits: expected 1 to 64, got {self.bits}")
        if abs(self.fraction_bits) > 64:
            raise InputError(f"format {self.name!r}: fraction_bits: expected −64 to 64, got {self.fraction_bits}")
        if self.symmetric and (not self.signed or self.bits < 2):
            raise InputError(f"format {self.name!r}: symmetric: only signed numbers of at least 2 bits are, got {self.bits} bits")

    @property
    def bits(self) -> int:  # type: ignore[override]
        """Bits of one element."""
        return self.integer_bits + self.fraction_bits


def _number(field: str, value: Any) -> float:
    try:
        if not isinstance(value, str | bytes):
            return float(value)
    except (TypeError, ValueError):
        pass
    raise InputError(f"{field}: expected numbers, got {value!r}")


@displayed_by("numerics._cards:codebook_format")
@dataclass(frozen=True)
class CodebookFormat:
    """Codes that stand for listed values, times a scale: binary, ternary, NF4, or the centres that clustering found.

    Attributes:
        name: what it is called.
        values: the value of each code, ascending; 2 to 65,536 of them, finite.

    Raises:
        InputError: values that do not ascend, or are not finite.
    """

    name: str
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        where = f"{_where(self.name)}: values"
        if not isinstance(self.values, Iterable):
            raise InputError(f"{where}: expected a sequence of numbers, got {self.values!r}")
        object.__setattr__(self, "values", tuple(_number(where, v) for v in self.values))
        if not 2 <= len(self.values) <= 1 << TABLE_BITS:
            raise InputError(f"{where}: expected 2 to {1 << TABLE_BITS}, got {len(self.values)}")
        for value in self.values:
            if not math.isfinite(value):
                raise InputError(f"{where}: expected finite numbers, got {value}")
        for below, above in zip(self.values, self.values[1:], strict=False):
            if not below < above:
                raise InputError(f"{where}: expected ascending numbers, got {below:g} before {above:g}")

    @property
    def bits(self) -> int:
        """Bits of one code."""
        return max(1, math.ceil(math.log2(len(self.values))))

    @property
    def min(self) -> float:
        """Smallest value."""
        return self.values[0]

    @property
    def max(self) -> float:
        """Largest value."""
        return self.values[-1]

    @cached_property
    def _table(self) -> NDArray[np.float64]:
        import numpy as np

        values = np.array(self.values)
        values.setflags(write=False)
        return values

    def table(self) -> NDArray[np.float64]:
        """The value of every code; float64, read-only."""
        return self._table

    def storage_bytes(self, elements: int) -> int:
        """Bytes that the codes of ``elements`` elements take, densely packed; the table itself is not counted."""
        return _packed_bytes(elements, self.bits)


def dynamic_format(bits: int = 8, *, signed: bool = True) -> CodebookFormat:
    """The dynamic data type of 8-bit optimizers: evenly spaced fractions in each of ``bits`` − 1 decades, twice as many in each
    decade as in the one below it, besides 0 and 1 (Dettmers, arXiv 1511.04561; unsigned: arXiv 2110.02861, section 1.3).

    Raises:
        InputError: fewer than 3 or more than 12 bits.
    """
    bits = check_integer("bits", bits)
    if not 3 <= bits <= 12:
        raise InputError(f"bits: a dynamic format takes 3 to 12, got {bits}")
    decades = bits - 1
    values = [0.0, 1.0]
    for decade in range(decades):
        count = 2 ** (decade if signed else decade + 1)
        middles = [0.1 + 0.9 * (i + 0.5) / count for i in range(count)]
        magnitudes = [10.0 ** (decade - decades + 1) * middle for middle in middles]
        values += magnitudes + ([-m for m in magnitudes] if signed else [])
    return CodebookFormat(f"dynamic{bits}" if signed else f"udynamic{bits}", tuple(sorted(values)))


ScaleRounding = Literal["floor", "up", "nearest"]
"""How a block's scale is found from its largest magnitude ``amax``: ``floor``, 2^(⌊log2 amax⌋ − emax of the element) (OCP MX 1.0,
section 6.3; a power of two whatever the scale's format, and elements above the largest value saturate); ``up``, the smallest
scale ≥ amax / largest element (nothing saturates); ``nearest``, amax / largest element rounded to nearest even."""


@displayed_by("numerics._cards:block_format")
@dataclass(frozen=True)
class BlockFormat:
    """Elements that share one scale for each block of ``block_size``.

    Attributes:
        name: what it is called.
        element: format of an element, or its name.
        block_size: elements that share a scale.
        scale: format of the scale, or its name.
        scale_rounding: how the scale is found; see ``ScaleRounding``.
        tensor_scale: whether an FP32 scale for the whole tensor brings the block scales into range (NVFP4):
            amax of the tensor / (largest element × largest scale).

    Raises:
        InputError: a block of fewer than 1 element, an element without a sign or a zero, a scale that is no float or has no
            NaN, an unknown name or rounding.
    """

    name: str
    element: FloatFormat | IntFormat | FixedFormat
    block_size: int
    scale: FloatFormat
    scale_rounding: ScaleRounding = "floor"
    tensor_scale: bool = False

    if TYPE_CHECKING:  # names are taken as well; the fields hold what they stand for

        def __init__(
            self,
            name: str,
            element: str | FloatFormat | IntFormat | FixedFormat,
            block_size: int,
            scale: str | FloatFormat,
            scale_rounding: ScaleRounding = "floor",
            tensor_scale: bool = False,
        ) -> None: ...

    def __post_init__(self) -> None:
        where = _where(self.name)
        settle(self, where, integers=("block_size",), flags=("tensor_scale",))
        element = _part(f"{where}: element", self.element, FloatFormat | IntFormat | FixedFormat, "float, integer or fixed-point")
        object.__setattr__(self, "element", element)
        object.__setattr__(self, "scale", _part(f"{where}: scale", self.scale, FloatFormat, "float"))
        if self.block_size < 1:
            raise InputError(f"format {self.name!r}: block_size: expected ≥ 1, got {self.block_size}")
        if self.scale_rounding not in ("floor", "up", "nearest"):
            raise unknown_name(f"format {self.name!r}: scale_rounding", str(self.scale_rounding), ("floor", "up", "nearest"))
        if not self.element.signed or (isinstance(self.element, FloatFormat) and not self.element.zero):
            raise InputError(f"format {self.name!r}: element: expected a signed format with a zero, got {self.element.name!r}")
        if not self.scale.has_nan:
            raise InputError(
                f"format {self.name!r}: scale: {self.scale.name!r} has no NaN to mark a block with; expected one that has"
            )

    @property
    def bits(self) -> float:
        """Mean bits of one element in memory, its share of the block's scale included."""
        return self.element.bits + self.scale.bits / self.block_size

    @property
    def max(self) -> float:
        """Largest element × largest scale."""
        return self.element.max * self.scale.max

    @property
    def min(self) -> float:
        """Smallest (most negative) element × largest scale."""
        return self.element.min * self.scale.max

    @property
    def smallest_subnormal(self) -> float:
        """Smallest positive element × smallest positive scale."""
        smallest = self.element.smallest_subnormal if isinstance(self.element, FloatFormat) else self.element.step
        return smallest * self.scale.smallest_subnormal

    def table(self) -> NoReturn:
        """There is none: a code's value depends on its block's scale.

        Raises:
            InputError: always; it names the formats that have a table.
        """
        raise InputError(
            f"format {self.name!r}: table: a code's value depends on its block's scale; "
            f"expected the element ({self.element.name!r}) or the scale ({self.scale.name!r})"
        )

    def storage_bytes(self, elements: int) -> int:
        """Bytes that ``elements`` elements take, one scale for each begun block included (a tensor's scale is not)."""
        elements = check_integer("elements", elements, least=0)
        blocks = -(-elements // self.block_size)
        return _packed_bytes(1, elements * self.element.bits + blocks * self.scale.bits)


def _part(field: str, given: Any, kinds: Any, expected: str) -> Any:
    """The format of a block's elements or scales, of one of the kinds."""
    found = given
    if isinstance(given, str):
        from numerics.formats import get_format  # which is made of the kinds here

        try:
            found = get_format(given)
        except InputError as error:
            raise InputError(f"{field}: {str(error).removeprefix('format: ')}") from None
    if not isinstance(found, kinds):
        shown = found.name if isinstance(found, Format) else found
        raise InputError(f"{field}: expected a {expected} format, got {shown!r}")
    return found


Format = FloatFormat | IntFormat | FixedFormat | CodebookFormat | BlockFormat
