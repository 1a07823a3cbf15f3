"""How a sum of products is computed: precision, order and width of the accumulator, and the arithmetic of known matrix units.

Sources: the tensor cores of NVIDIA GPUs, MMA-Sim (arXiv 2511.10909), which dissected them bit for bit; promotion every 128
products, DeepSeek-V3 technical report (arXiv 2412.19437), section 3.3.2; compensated summation, Kahan, CACM 8(1), 1965.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from numbers import Integral
from typing import Literal

from numerics._display import displayed
from numerics.errors import InputError, unknown_name
from numerics.formats import FloatFormat, Format, IntFormat, format_names, get_format
from numerics.rounding import check_rounding

Order = Literal["sequential", "pairwise", "tree", "systolic", "fused", "exact"]
"""In which order products are added.

- ``sequential``: one after the other onto the stored sum.
- ``pairwise``: a balanced binary tree over all products (neighbours are added, level by level; an odd one out moves up
  unchanged), whose result is added to the initial value.
- ``tree``: the products of each ``group`` in such a tree, the trees' results onto the stored sum in sequence (a
  multiplier-adder tree with an accumulator).
- ``systolic``: each ``group`` in sequence from zero (down a column of an array with ``group`` rows), then the groups' sums onto
  the stored sum in sequence.
- ``fused``: the stored sum and the products of a ``group`` are aligned to the largest exponent among them, each is truncated to
  ``fraction_bits`` bits after the point, and their exact sum is rounded to the stored sum's format (tensor cores).
- ``exact``: no rounding but one at the end.
"""

ORDERS = ("sequential", "pairwise", "tree", "systolic", "fused", "exact")
OVERFLOWS = ("ieee", "saturate", "infinity", "wrap")

WIDEST_MANTISSA = 50
"""Mantissa bits up to which a sum in 64-bit floats, rounded to odd, still rounds correctly (Boldo, Melquiond, 2008)."""


@displayed
@dataclass(frozen=True)
class Promotion:
    """Every ``interval`` products the sum is added to a wider one (rounded to nearest even) and restarts at zero.

    Attributes:
        interval: products between two promotions.
        format: float format of the wider sum.
    """

    interval: int
    format: str | FloatFormat = "fp32"

    def __post_init__(self) -> None:
        object.__setattr__(self, "interval", _plain_integer(self.interval))


@displayed
@dataclass(frozen=True, kw_only=True)
class Accumulator:
    """How a sum of products is computed.

    Attributes:
        format: of the stored sum: a float format, or an integer format (for integer operands).
        product: ``exact``, or the float format that each product is rounded to (nearest even) before it is added.
        rounding: of every addition; see ``numerics.rounding.Rounding``. ``stochastic`` compares 24 random bits.
        order: see ``Order``.
        group: products in a group, for ``tree``, ``systolic`` and ``fused``.
        fraction_bits: bits after the point that ``fused`` keeps of an aligned product, 1 to 40.
        exact_run: ``fused``: neighbouring products that are summed exactly before they are aligned, as block-scaled instructions
            do; the exponent of such a sum is that of its scales.
        promotion: of a limited sum to a wider one.
        overflow: floats: ``ieee`` (Inf, or NaN where the format has no Inf; a directed rounding may stop at the largest number),
            ``saturate``, or ``infinity`` (Inf whatever the rounding); None is ``ieee`` where the format has Inf, else
            ``saturate``. Integers: ``wrap`` (None as well) or ``saturate``, at every addition.
        compensated: Kahan's summation, for ``sequential``.
        a_formats, b_formats: float formats that the operands may be in; empty for any. TF32 operands are truncated to it, others
            must be exact.
        scale: format of the scales of operand blocks along K, for block-scaled instructions.
        scale_block: elements of an operand that share a scale.

    Raises:
        InputError: an unknown name, or a combination that means nothing.
    """

    format: str | Format = "fp32"
    product: str | FloatFormat = "exact"
    rounding: str = "nearest_even"
    order: Order = "sequential"
    group: int | None = None
    fraction_bits: int | None = None
    exact_run: int = 1
    promotion: Promotion | None = None
    overflow: str | None = None
    compensated: bool = False
    a_formats: tuple[str, ...] = ()
    b_formats: tuple[str, ...] = ()
    scale: str | None = None
    scale_block: int | None = None

    def __post_init__(self) -> None:
        for field in ("group", "fraction_bits", "exact_run", "scale_block"):
            object.__setattr__(self, field, _plain_integer(getattr(self, field)))
        fmt = get_format(self.format)
        check_rounding(self.rounding)
        if self.order not in ORDERS:
            raise unknown_name("order", str(self.order), ORDERS)
        if self.overflow is not None and self.overflow not in OVERFLOWS:
            raise unknown_name("overflow", str(self.overflow), OVERFLOWS)
        if isinstance(fmt, IntFormat):
            self._check_integer(fmt)
        elif isinstance(fmt, FloatFormat):
            self._check_float(fmt)
        else:
            raise InputError(f"format: an accumulator is a float or an integer, got {fmt.name!r}")
        self._check_order()
        self._check_operands()

    def _check_integer(self, fmt: IntFormat) -> None:
        if not fmt.signed or fmt.symmetric or not 2 <= fmt.bits <= 62:
            raise InputError(f"format: an integer accumulator is signed, of 2 to 62 bits, got {fmt.name!r}")
        if self.overflow not in (None, "wrap", "saturate"):
            raise InputError(f"overflow: an integer accumulator takes 'wrap' or 'saturate', got {self.overflow!r}")
        if self.order in ("fused", "exact"):
            raise InputError(f"order: {self.order!r} needs a float format, got {fmt.name!r}")
        for field, value, default in (
            ("product", self.product, "exact"),
            ("rounding", self.rounding, "nearest_even"),
            ("promotion", self.promotion, None),
            ("compensated", self.compensated, False),
        ):
            if value != default:
                raise InputError(f"{field}: an integer accumulator is exact and takes none, got {value!r}")

    def _check_float(self, fmt: FloatFormat) -> None:
        if self.overflow == "wrap":
            raise InputError(f"overflow: 'wrap' is for integer accumulators, and {fmt.name!r} is a float; expected 'ieee'")
        if self.overflow == "infinity" and not fmt.has_inf:
            raise InputError(f"overflow: {fmt.name!r} has no Inf; expected 'ieee' or 'saturate'")
        if self.overflow == "ieee" and not (fmt.has_inf or fmt.has_nan):
            raise InputError(f"overflow: {fmt.name!r} has neither Inf nor NaN; expected 'saturate'")
        _check_width("format", fmt)
        native = self.rounding == "nearest_even" and self.overflow in (None, "ieee") and self.order not in ("fused", "exact")
        if fmt.mantissa_bits > WIDEST_MANTISSA and not native:
            raise InputError(
                f"format: {fmt.name!r} takes nearest_even with overflow 'ieee' and an order that rounds every addition; "
                f"expected a format of at most {WIDEST_MANTISSA} mantissa bits otherwise"
            )
        if self.rounding == "stochastic" and fmt.mantissa_bits > 27:
            raise InputError(f"rounding: 'stochastic' needs a format of at most 27 mantissa bits, got {fmt.name!r}")
        if self.product != "exact":
            product = get_format(self.product)
            if not isinstance(product, FloatFormat):
                raise InputError(f"product: expected 'exact' or a float format, got {product.name!r}")
            _check_width("product", product)
            if product.mantissa_bits > WIDEST_MANTISSA or not (product.has_inf or product.has_nan) or not product.zero:
                raise InputError(
                    f"product: expected a float format with a zero, Inf or NaN and at most {WIDEST_MANTISSA} mantissa bits, "
                    f"got {product.name!r}"
                )
            if self.order in ("fused", "exact"):
                raise InputError(f"product: order {self.order!r} adds exact products; leave product out")

    def _check_order(self) -> None:
        grouped = self.order in ("tree", "systolic", "fused")
        if grouped and (not _is_count(self.group)):
            raise InputError(f"group: order {self.order!r} needs the number of products in a group, ≥ 1, got {self.group!r}")
        if not grouped and self.group is not None:
            raise InputError(f"group: order {self.order!r} has no groups; leave group out or give order 'tree' or 'systolic'")
        if self.order == "fused":
            assert self.group is not None
            if not _is_count(self.fraction_bits, most=40):
                raise InputError(f"fraction_bits: order 'fused' needs 1 to 40, got {self.fraction_bits!r}")
            if self.group > 256:
                raise InputError(f"group: order 'fused' takes at most 256 products, got {self.group}")
            if not _is_count(self.exact_run) or self.group % self.exact_run:
                raise InputError(f"exact_run: expected a divisor of the group of {self.group}, got {self.exact_run!r}")
        elif self.fraction_bits is not None:
            raise InputError(f"fraction_bits: order {self.order!r} aligns nothing; leave it out or give order 'fused'")
        elif self.exact_run != 1:
            raise InputError(f"exact_run: order {self.order!r} has none; leave it out or give order 'fused'")
        if not isinstance(self.compensated, bool):
            raise InputError(f"compensated: expected True or False, got {self.compensated!r}")
        if self.compensated and (self.order != "sequential" or self.rounding not in ("nearest_even", "nearest_away")):
            raise InputError("compensated: Kahan's sum needs order 'sequential' and rounding to nearest")
        if self.promotion is not None:
            if not isinstance(self.promotion, Promotion):
                raise InputError(f"promotion: expected a Promotion, such as Promotion(128, 'fp32'), got {self.promotion!r}")
            self._check_promotion(self.promotion)

    def _check_promotion(self, promotion: Promotion) -> None:
        wide = get_format(promotion.format)
        if not isinstance(wide, FloatFormat) or not wide.has_inf:
            raise InputError(f"promotion: expected a float format with Inf, got {wide.name!r}")
        _check_width("promotion", wide)
        if not _is_count(promotion.interval):
            raise InputError(f"promotion: expected an interval ≥ 1, got {promotion.interval!r}")
        if self.order in ("pairwise", "exact") or self.compensated:
            kind = "Kahan's sum" if self.compensated else f"order {self.order!r}"
            raise InputError(f"promotion: {kind} keeps one sum over all products; leave promotion out")
        if promotion.interval % (self.group or 1):
            raise InputError(f"promotion: expected a multiple of the group of {self.group}, got {promotion.interval}")

    def _check_operands(self) -> None:
        for field, names in (("a_formats", self.a_formats), ("b_formats", self.b_formats)):
            if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
                raise InputError(f"{field}: expected a tuple of names of float formats, such as ('e4m3fn',), got {names!r}")
            for name in names:
                if not isinstance(get_format(name), FloatFormat):
                    raise InputError(f"{field}: expected float formats, got {name!r}")
        if (self.scale is None) != (self.scale_block is None):
            raise InputError("scale: a scale's format and scale_block go together; give both or neither")
        if self.exact_run > 1 and self.scale is None:
            raise InputError("exact_run: the exponent of an exact run is that of its scales; give scale and scale_block")
        if self.scale is not None:
            if self.order != "fused" or not isinstance(get_format(self.scale), FloatFormat):
                raise InputError(f"scale: expected a float format, with order 'fused', got {self.scale!r} with {self.order!r}")
            if not _is_count(self.scale_block) or self.scale_block % self.exact_run:  # type: ignore[operator]
                raise InputError(f"scale_block: expected a multiple of exact_run ({self.exact_run}), got {self.scale_block!r}")
            if not self.a_formats or not self.b_formats:
                raise InputError("a_formats: block-scaled operands have a format; name those allowed")


def _plain_integer(value: object) -> object:
    """Integers of other libraries, such as numpy's, as Python's own; anything else as it is."""
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else value


def _is_count(value: object, *, most: int = 1 << 40) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _check_width(field: str, fmt: FloatFormat) -> None:
    """Sums are formed in 64-bit floats: they must not overflow there before they do in the format."""
    if not fmt.signed or not fmt.zero:
        raise InputError(f"{field}: sums need a sign and a zero, and {fmt.name!r} lacks one; expected another float format")
    is_fp64 = fmt.mantissa_bits == 52 and fmt.exponent_bits == 11
    if not is_fp64 and (fmt.emax > 511 or fmt.emin < -511 or fmt.mantissa_bits > WIDEST_MANTISSA):
        raise InputError(
            f"{field}: expected fp64, or exponents from −511 to 511 and at most {WIDEST_MANTISSA} mantissa bits, got {fmt.name!r}"
        )


# --- names ----------------------------------------------------------------------------------------------------------------

_FP8 = ("e4m3", "e5m2")
_F8F6F4 = (*_FP8, "e3m2", "e2m3", "e2m1")
_BOTH = ("f32", "f16")

_INSTRUCTIONS: tuple[tuple[tuple[str, ...], str, tuple[str, ...], int, int, int, tuple[str, ...]], ...] = (
    # architectures, instruction, inputs, K, products that are summed at once, fraction bits, outputs
    (("volta",), "mma", ("f16",), 4, 4, 23, _BOTH),
    (("turing",), "mma", ("f16",), 8, 8, 24, _BOTH),
    (("ampere", "ada"), "mma", ("f16", "bf16"), 8, 8, 24, _BOTH),
    (("ampere", "ada"), "mma", ("f16", "bf16"), 16, 8, 24, _BOTH),
    (("ampere", "ada"), "mma", ("tf32",), 4, 4, 24, ("f32",)),
    (("ampere", "ada"), "mma", ("tf32",), 8, 4, 24, ("f32",)),
    (("ada",), "mma", _FP8, 16, 16, 13, _BOTH),
    (("ada",), "mma", _FP8, 32, 16, 13, _BOTH),
    (("hopper",), "mma", ("f16", "bf16"), 16, 16, 25, _BOTH),
    (("hopper",), "mma", ("tf32",), 8, 8, 25, ("f32",)),
    (("hopper",), "wgmma", ("f16", "bf16"), 16, 16, 25, _BOTH),
    (("hopper",), "wgmma", ("tf32",), 8, 8, 25, ("f32",)),
    (("hopper",), "wgmma", _FP8, 32, 32, 13, _BOTH),
    (("blackwell",), "tcgen05", ("f16", "bf16"), 16, 16, 25, _BOTH),
    (("blackwell",), "tcgen05", _F8F6F4, 32, 32, 25, _BOTH),
)
"""The table of MMA-Sim. Instructions that do their K in two halves sum half of it at once."""

_FORMAT_OF = {"f16": "fp16", "e4m3": "e4m3fn", "e3m2": "e3m2fn", "e2m3": "e2m3fn", "e2m1": "e2m1fn"}
_SPELLINGS = {"fp32": "f32", "fp16": "f16", "e4m3fn": "e4m3", "fp4": "e2m1", "e2m1fn": "e2m1", "e2m3fn": "e2m3", "e3m2fn": "e3m2"}
_PTX = re.compile(r"^(\w+)\.(\w+)\.m\d+n\d+k(\d+)\.(f32|f16)\.(\w+)\.(\w+)(?:\.(f32|f16))?$")
_SATURATING = re.compile(r"^(int\d+)_saturate$")


def _tensor_core(a: str, b: str, group: int, fraction_bits: int, output: str) -> Accumulator:
    eight_bit_sum = fraction_bits == 13 and output == "f32"
    return Accumulator(
        format="fp16" if output == "f16" else "e8m13" if eight_bit_sum else "fp32",
        rounding="nearest_even" if output == "f16" else "toward_zero",
        order="fused",
        group=group,
        fraction_bits=fraction_bits,
        overflow="infinity",
        a_formats=(_FORMAT_OF.get(a, a),),
        b_formats=(_FORMAT_OF.get(b, b),),
    )


def _block_scaled() -> dict[str, Accumulator]:
    """Blackwell's block-scaled instructions."""
    every = tuple(_FORMAT_OF.get(name, name) for name in _F8F6F4)
    plain = _tensor_core("e4m3", "e4m3", 32, 25, "f32")
    mxf8 = replace(plain, a_formats=every, b_formats=every, scale="e8m0fnu", scale_block=32)
    mxf4 = replace(mxf8, group=64, fraction_bits=35, exact_run=16, a_formats=("e2m1fn",), b_formats=("e2m1fn",))
    prefix = "blackwell.tcgen05"
    found = {
        f"{prefix}.k32.mxf8f6f4.f32": mxf8,
        f"{prefix}.k64.mxf4.f32": mxf4,
        f"{prefix}.k64.nvf4.f32": replace(mxf4, scale="e4m3fn", scale_block=16),
    }
    for a in _F8F6F4:
        for b in _F8F6F4:
            types = a if a == b else f"{a}.{b}"
            pair = replace(mxf8, a_formats=(_FORMAT_OF.get(a, a),), b_formats=(_FORMAT_OF.get(b, b),))
            found[f"{prefix}.k32.mxf8f6f4.{types}.f32"] = pair
    return found


@lru_cache(maxsize=1)
def _presets() -> dict[str, Accumulator]:
    found: dict[str, Accumulator] = {}
    for architectures, instruction, inputs, k, group, fraction_bits, outputs in _INSTRUCTIONS:
        for architecture in architectures:
            for a in inputs:
                # Only the formats of 8 bits and fewer mix.
                for b in inputs if inputs in (_FP8, _F8F6F4) else (a,):
                    types = a if a == b else f"{a}.{b}"
                    for output in outputs:
                        name = f"{architecture}.{instruction}.k{k}.{types}.{output}"
                        found[name] = _tensor_core(a, b, group, fraction_bits, output)
    found |= _block_scaled()
    found["deepseek"] = replace(found["hopper.wgmma.k32.e4m3.f32"], promotion=Promotion(128, "fp32"))
    found["exact"] = Accumulator(format="fp32", order="exact")
    return found


@lru_cache(maxsize=1)
def _aliases() -> dict[str, str]:
    """Names without K where one K exists, without the output where that is f32, and with e8m13 where its sums have 13 bits."""
    presets = _presets()
    names = [name for name in presets if ".k" in name]
    whole: dict[str, list[str]] = {}
    for name in names:
        architecture, instruction, _, *types = name.split(".")
        whole.setdefault(".".join([architecture, instruction, *types]), []).append(name)
    found = {short: full[0] for short, full in whole.items() if len(full) == 1}
    sums = {name: name for name in names} | found
    found |= {short[:-3] + "e8m13": full for short, full in sums.items() if presets[full].format == "e8m13"}
    found |= {name.removesuffix(".f32"): name for name in names if name.endswith(".f32")}
    found |= {short.removesuffix(".f32"): full for short, full in found.items() if short.endswith(".f32")}
    return found


def _canonical(name: str) -> str:
    """A name in the spelling of ``accumulator_names``: PTX qualifiers, other names of formats and aliases taken back."""
    ptx = _PTX.match(name)
    if ptx and ptx[7] in (None, ptx[4]):
        types = ptx[5] if ptx[5] == ptx[6] else f"{ptx[5]}.{ptx[6]}"
        name = f"{ptx[1]}.{ptx[2]}.k{ptx[3]}.{types}.{ptx[4]}"
    if "." in name:
        name = ".".join(_SPELLINGS.get(part, part) for part in name.split("."))
    return _aliases().get(name, name)


def accumulator_names() -> list[str]:
    """Names of the matrix units and general accumulators there are by name; formats' names are understood besides."""
    return sorted([*_presets(), *(f"int{bits}_saturate" for bits in (16, 32))])


def get_accumulator(name: str | Accumulator) -> Accumulator:
    """The accumulator called ``name`` (an ``Accumulator`` is returned as it is).

    Large and small letters are one.

    - A float format (``fp32``, ``bf16``, ``e6m9``): exact products, added in sequence, every sum rounded to nearest even.
    - An integer format (``int32``): exact, wrapping; ``int32_saturate``: clipped at every addition.
    - ``exact``: rounded once, to fp32, at the end.
    - ``architecture.instruction.kK.inputs.output``, a tensor core's instruction: ``hopper.wgmma.k32.e4m3.f32``. ``.f32`` may be
      left out, and so may ``.kK`` where there is one: ``hopper.wgmma.e4m3``. Two different inputs: ``e4m3.e5m2``. The spelling of
      PTX is understood: ``ampere.mma.m16n8k16.f32.bf16.bf16.f32``.
      The FP8 instructions of Ada and Hopper, whose sums keep 13 bits, may be written with the output ``e8m13``.
    - ``deepseek``: FP8 on Hopper's tensor cores, promoted to fp32 every 128 products.

    Raises:
        InputError: no such name; the message lists the nearest ones.
    """
    if isinstance(name, Accumulator):
        return name
    if not isinstance(name, str):
        raise InputError(f"accumulator: expected an Accumulator or a name such as 'fp32', got {name!r}")
    return _named(name)


@lru_cache(maxsize=1024)
def _named(name: str) -> Accumulator:
    small = name.lower()
    found = _presets().get(_canonical(small))
    if found is not None:
        return found
    saturating = _SATURATING.match(small)
    try:
        fmt = get_format(saturating[1] if saturating else name)
    except InputError:
        if "fp6" in small.split("."):
            raise InputError(f"accumulator: {name!r} leaves open which fp6; expected 'e2m3' or 'e3m2' in its place") from None
        raise unknown_name("accumulator", name, [*accumulator_names(), *_aliases(), *format_names()]) from None
    if saturating:
        return Accumulator(format=fmt, overflow="saturate")
    if isinstance(fmt, FloatFormat) and not (fmt.has_inf or fmt.has_nan):
        return Accumulator(format=fmt, overflow="saturate")
    return Accumulator(format=fmt)
