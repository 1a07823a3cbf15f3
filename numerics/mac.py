"""One multiply-accumulate at a time: what a processing element does in a cycle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from numerics import _product_operands as operands
from numerics._display import displayed
from numerics.accumulator import Accumulator, get_accumulator
from numerics.errors import InputError
from numerics.formats import FloatFormat, IntFormat, get_format
from numerics.rounding import ROUNDINGS


@displayed
@dataclass(frozen=True)
class MacPlan:
    """How one multiply-accumulate of an accumulator is computed, for kernels that call ``numerics._mac_kernels.mac``.

    Attributes:
        dtype: of the sum and of both operands.
        mode, how, by: compile-time constants of the kernel.
        p, q: parameters of the sum and of the product.
        bits: of the stored sum.
    """

    dtype: np.dtype[Any]
    mode: int
    how: int
    by: int
    p: tuple[Any, ...]
    q: tuple[Any, ...]
    bits: int


def mac_plan(accumulator: str | Accumulator) -> MacPlan:
    """The plan of an accumulator that adds one product at a time (orders ``sequential`` and ``systolic``).

    Operands of an integer accumulator are integers below 2³¹; those of a float accumulator have at most 26 significant bits and
    magnitudes between 2⁻⁵⁰⁰ and 2²⁵⁰.

    Raises:
        InputError: an accumulator that sums several products at once, promotes, compensates or rounds stochastically.
    """
    from numerics import _mac_kernels as mac_kernels
    from numerics import _product_kernels as kernels
    from numerics._product_plan import _is_fp32, _is_fp64, parameters

    found = get_accumulator(accumulator)
    for field, usual in (("order", ("sequential", "systolic")), ("promotion", (None,)), ("compensated", (False,))):
        if getattr(found, field) not in usual:
            raise InputError(f"{field}: a multiply-accumulate adds one product at a time; expected {usual[0]!r}, "
                             f"got {getattr(found, field)!r}")  # fmt: skip
    if found.rounding == "stochastic":
        raise InputError("rounding: a multiply-accumulate draws no random bits; expected another rounding than 'stochastic'")
    fmt = get_format(found.format)
    bits = int(fmt.bits)
    if isinstance(fmt, IntFormat):
        saturating = found.overflow == "saturate"
        dtype = np.dtype(np.int32 if bits == 32 and not saturating else np.int64)
        return MacPlan(dtype, bits, mac_kernels.SATURATE if saturating else mac_kernels.WRAP, kernels.EXACT, (), (), bits)
    assert isinstance(fmt, FloatFormat)
    plain = found.overflow in (None, "ieee") and found.rounding == "nearest_even"
    exact = found.product == "exact"
    native = plain and (_is_fp64(fmt) or (_is_fp32(fmt) and exact))
    lane = 32 if native and _is_fp32(fmt) else 64
    how = kernels.NATIVE if native else kernels.CASTING if plain and _is_fp32(fmt) else kernels.GENERAL
    q = parameters(None if exact else get_format(found.product), None if exact else "nearest_even", lane, None)
    p = parameters(fmt, found.rounding, lane, found.overflow)
    by = kernels.EXACT if exact else kernels.GENERAL
    return MacPlan(np.dtype(f"f{lane // 8}"), ROUNDINGS[found.rounding], how, by, p, q, bits)


def multiply_add(total: Any, a: Any, b: Any, *, accumulator: str | Accumulator = "fp32") -> npt.NDArray[Any]:
    """``total + a · b`` element by element, rounded once as the accumulator rounds.

    Args:
        total: sums that the accumulator can hold.
        a, b: real numbers; the three broadcast against each other.
        accumulator: an ``Accumulator`` or its name, of order ``sequential`` or ``systolic``.

    Returns:
        float32 or float64, int32 or int64, as the accumulator's format needs; a NaN is the default one.

    Raises:
        InputError: shapes that do not match, numbers that the accumulator does not take, an accumulator that needs more than one
            product at a time.
    """
    from numerics._mac_kernels import elementwise
    from numerics._parallel import run_parts
    from numerics._product_plan import check_initial

    found = get_accumulator(accumulator)
    plan = mac_plan(found)
    arrays = [operands.as_values(v, name) for v, name in ((total, "total"), (a, "a"), (b, "b"))]
    try:
        shape = np.broadcast_shapes(*(v.shape for v in arrays))
    except ValueError:
        raise InputError(f"total, a, b: shapes {[v.shape for v in arrays]} do not broadcast") from None
    arrays = [np.ascontiguousarray(np.broadcast_to(v, shape)) for v in arrays]  # of at least one axis
    check_initial(arrays[0], found, "total")
    for values, name in zip(arrays[1:], ("a", "b"), strict=True):
        _check_operand(values, plan, name)
    sums = arrays[0].astype(plan.dtype).reshape(-1)
    x, y = (v.astype(plan.dtype, copy=False).reshape(-1) for v in arrays[1:])
    kernel = elementwise(plan.mode, plan.how, plan.by)
    run_parts(lambda first, last: kernel(sums, x, y, first, last, plan.p, plan.q), sums.size, smallest=1 << 14)
    return returned(sums, found).reshape(shape)


def returned(sums: npt.NDArray[Any], accumulator: Accumulator) -> npt.NDArray[Any]:
    """Sums as ``numerics.matmul`` returns them: in the narrowest type for the accumulator's format, with the default NaN."""
    from numerics._product_plan import _in_fp32

    fmt = get_format(accumulator.format)
    if isinstance(fmt, IntFormat):
        return sums.astype(np.int32) if fmt.bits <= 32 else sums
    assert isinstance(fmt, FloatFormat)
    sums[np.isnan(sums)] = np.nan
    return sums.astype(np.float32) if _in_fp32(fmt) else sums


def _check_operand(values: npt.NDArray[Any], plan: MacPlan, field: str) -> None:
    bounds = operands.extent(values)
    if plan.dtype.kind == "i":
        if not bounds.finite or not np.array_equal(values, np.rint(values)) or bounds.high > 30:
            raise InputError(f"{field}: an integer accumulator takes integers below 2^31, got others")
    elif plan.dtype == np.float32:
        if not np.array_equal(values.astype(np.float32), values, equal_nan=True):
            raise InputError(f"{field}: expected numbers that fp32 holds; quantise them")
    elif bounds.bits > 26 or (values.size and (bounds.high > 250 or bounds.low < -500)):
        raise InputError(f"{field}: expected at most 26 significant bits and magnitudes from 2^-500 to 2^250; quantise it")


@dataclass(frozen=True)
class SumBits:
    """How a register holds the sums of an accumulator, for ``numerics._mac_kernels.sum_code``.

    Attributes:
        kind: ``INTEGER_BITS``, ``SINGLE_BITS`` or ``FLOAT_BITS``.
        bits: of the register.
        mantissa_bits, bias, has_inf, has_nan: of a float format.
    """

    kind: int
    bits: int
    mantissa_bits: int = 0
    bias: int = 0
    has_inf: bool = False
    has_nan: bool = False

    @property
    def key(self) -> tuple[int, int, int, int, bool, bool]:
        """As kernels take it."""
        return self.kind, self.bits, self.mantissa_bits, self.bias, self.has_inf, self.has_nan


def sum_bits(accumulator: str | Accumulator) -> SumBits:
    """The bits of the register that holds an accumulator's sum: those of its format's codes."""
    from numerics import _mac_kernels as kernels

    plan = mac_plan(accumulator)
    fmt = get_format(get_accumulator(accumulator).format)
    if isinstance(fmt, IntFormat):
        return SumBits(kernels.INTEGER_BITS, plan.bits)
    assert isinstance(fmt, FloatFormat)
    if plan.dtype == np.float32:
        return SumBits(kernels.SINGLE_BITS, plan.bits)
    bits = 1 + fmt.exponent_bits + fmt.mantissa_bits
    return SumBits(kernels.FLOAT_BITS, bits, fmt.mantissa_bits, 1 - fmt.emin, fmt.has_inf, fmt.has_nan)
