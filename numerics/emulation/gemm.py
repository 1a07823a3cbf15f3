"""Matrix products of quantised operands, forward and backward.

A product has three of them: Y = A·Bᵀ, dA = dY·B and dB = dYᵀ·A, each with its operands in the formats of their roles. Throughout,
the last axis of an operand is the one that is summed along: A is (…, M, K), B (…, N, K), dY (…, M, N).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from numerics.accumulator import Accumulator, get_accumulator
from numerics.emulation.elementwise import round_gradient
from numerics.emulation.quantised import Quantised, Rule, estimate, operand_names, quantise, wide
from numerics.errors import InputError
from numerics.formats import FixedFormat, FloatFormat, Format, IntFormat, formats_text, get_format
from numerics.quantizer import quantize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numerics.emulation.context import Context, Site
    from numerics.encoding import BlockCodes

_EXACT, _EXACT_SINGLE = 2.0**53, 2.0**24
"""Sums of integers below these are exact in 64-bit and in 32-bit floats, in any order."""


class MatrixUnit(Protocol):
    """Something else than ``numerics.matmul`` that computes products: a model of a machine's matrix unit."""

    def __call__(
        self, a: Any, b: Any, *, accumulator: Accumulator, a_format: Format, b_format: Format, module: str
    ) -> NDArray[Any]:
        """``a @ b`` of arrays (…, M, K) and (…, K, N) whose leading axes broadcast; integers of an integer format as they are.

        Args:
            a, b: numbers that their formats hold.
            accumulator: how they are summed.
            a_format, b_format: formats of the operands.
            module: path of the module that asks for it.
        """
        ...


@dataclass(frozen=True)
class Sum:
    """How products are summed.

    Attributes:
        fmt: format of the accumulator.
        stated: name of the format that the recipe has for it. A matrix unit may keep fewer bits of that: its preset says which.
        accumulation: name of an accumulator, or one; None leaves the sum to the library.
        unit: computes products in place of ``numerics.matmul``, for the module ``module``.
        site: the operator, where faults strike its sums.
    """

    fmt: Format
    stated: str
    accumulation: Any = None
    unit: MatrixUnit | None = None
    module: str = ""
    site: Site | None = None

    @classmethod
    def of(cls, context: Context, module: str) -> Sum:
        """The sum that the recipe asks for in a module."""
        accumulation, stated = context.accumulation(module), context.recipe.format_for("accumulator", module)
        if accumulation is None:
            return cls(get_format(stated), stated)
        return cls(get_format(get_accumulator(accumulation).format), stated, accumulation, context.matrix_unit, module)

    @property
    def library(self) -> bool:
        """Whether the library sums, from values."""
        return self.accumulation is None and self.fmt.name in ("fp32", "fp64")

    @property
    def block_scaled(self) -> bool:
        """Whether the accumulator takes blocks with their scales."""
        return self.accumulation is not None and get_accumulator(self.accumulation).scale is not None

    def _left_to_library(self, a: Rule, b: Rule) -> bool:
        """Whether the library sums such operands: an integer accumulator takes products of integers only."""
        return self.library or (isinstance(self.fmt, IntFormat) and not (a.integer and b.integer))

    def format_of(self, a: Rule, b: Rule) -> str:
        """The format in which such operands are summed."""
        return "fp32" if not self.library and self._left_to_library(a, b) else self.stated

    def order_of(self, a: Rule, b: Rule) -> str:
        """How the list says that such products are summed: an accumulator's name, its order, ``exact`` or ``library``."""
        if self._left_to_library(a, b):
            return "library"
        if self.accumulation is None:
            return "exact" if isinstance(self.fmt, IntFormat) else "sequential"
        if isinstance(self.accumulation, str):
            return self.accumulation
        group = f" {self.accumulation.group}" if self.accumulation.group else ""
        return f"{self.accumulation.order}{group}"


def _undefined(module: str) -> InputError:
    return InputError(
        f"module {module!r}: faults in accumulators: the order of its sums is not defined; expected a recipe with an "
        "accumulation that adds one product at a time (such as 'fp32'), or integers"
    )


def multiply(a: Quantised, b: Quantised, how: Sum, seed: int) -> torch.Tensor:
    """A·Bᵀ of quantised operands, in 32-bit floats (64-bit ones for an ``fp64`` accumulator or 64-bit operands).

    Without ``accumulation``: floats are multiplied and summed by the library in FP32 (FP64); integers by integers exactly, then
    wrapped to the width of an integer accumulator; a float accumulator of another format rounds once an addition, in order. An
    integer accumulator takes products of integers; all others are summed in FP32. Scales that are constant along the sum multiply
    its result, except where the library sums floats. Where they differ along it by groups, each group is summed alone and the
    results, scaled, are added in FP32, as DeepSeek-V3 does. Where they differ from element to element (the scales of channels, in
    the backward pass), no matrix unit can take them out of the sum: the values themselves are multiplied, and summed in FP32.

    Args:
        a: shape (…, M, K).
        b: shape (…, N, K).
        how: accumulator.
        seed: for an accumulator that rounds stochastically.

    Returns:
        Shape (…, M, N).
    """
    integers = a.rule.integer and b.rule.integer and isinstance(how.fmt, IntFormat)
    if how.site is not None and 0 in (_runs(a), _runs(b)):
        raise _undefined(how.site.module)
    if how.library or (isinstance(how.fmt, IntFormat) and not integers) or a.codes.device.type == "meta":
        return _library(a.values, b.values, how)
    if a.blocks is not None and b.blocks is not None and how.block_scaled:
        return _block_scaled(a.blocks, b.blocks, how, seed).to(a.codes)
    runs = _runs(a), _runs(b)
    if 0 in runs:
        return _library(a.values, b.values, how)
    length = a.codes.shape[-1]
    size = math.gcd(*(run for run in runs if run is not None)) or max(length, 1)
    parts = [slice(start, min(start + size, length)) for start in range(0, max(length, 1), size)]
    total = _scaled_sum(a, b, how, parts[0], integers, seed)
    for number, part in enumerate(parts[1:], 1):
        total = total + _scaled_sum(a, b, how, part, integers, seed + number)
    return total


def _library(a: torch.Tensor, b: torch.Tensor, how: Sum) -> torch.Tensor:
    dtype = torch.float64 if how.fmt.name == "fp64" else torch.float32
    product = torch.matmul(a.to(dtype), b.to(dtype).mT)
    return product if a.dtype == torch.float32 else product.to(a.dtype)


def _runs(x: Quantised) -> int | None:
    """Elements along the sum that share a scale: None for all of them, 0 for scales that differ from element to element."""
    if x.scale is None or x.scale.ndim == 0 or x.scale.shape[-1] == 1:
        return None
    if not x.rule.follows_contraction:
        return 0
    size = x.rule.scaling.size
    return size[1] if isinstance(size, tuple) else size


def _scaled_sum(a: Quantised, b: Quantised, how: Sum, part: slice, integers: bool, seed: int) -> torch.Tensor:
    """The sum over a part of K in which the scales are constant, times the scales."""
    left, right, step = a.codes[..., part], b.codes[..., part], 1.0
    bound = math.inf
    if integers:
        left, right, step = left / a.step, right / b.step, a.step * b.step
        bound = left.shape[-1] * _largest_code(a.rule) * _largest_code(b.rule)
    if how.accumulation is None and bound < _EXACT:
        assert isinstance(how.fmt, IntFormat)
        if bound >= _EXACT_SINGLE:
            left, right = left.double(), right.double()
        total = torch.matmul(left, right.mT)
        total = _wrap(total.double(), how.fmt) if bound > how.fmt.code_max else total
    else:
        from numerics.products import matmul

        accumulator = _accumulator(how, a.rule, b.rule)
        seeds = {"seed": seed & _MASK} if accumulator.rounding == "stochastic" else {}
        if how.unit is None:
            total = matmul(left, right.mT, accumulator=accumulator, **seeds)
        else:
            formats = {"a_format": _unit_format(a.rule.fmt, integers), "b_format": _unit_format(b.rule.fmt, integers)}
            host = (v.detach().cpu().numpy() for v in (left, right.mT))
            total = torch.from_numpy(how.unit(*host, accumulator=accumulator, module=how.module, **formats)).to(left.device)
    if how.site is not None:
        total = _with_faults(total, left, right.mT, how, a.rule, b.rule)
    double = how.fmt.name == "fp64" or torch.float64 in (a.codes.dtype, b.codes.dtype)
    total = total.to(torch.float64 if double else torch.float32)
    if step != 1.0:
        total = total * step
    for scale, column in ((a.scale, False), (b.scale, True)):
        if scale is not None:
            factor = scale[..., part][..., :1] if scale.ndim and scale.shape[-1] > 1 else scale
            total = total * (factor.mT if column and factor.ndim >= 2 else factor).to(total.dtype)
    return total


def _with_faults(total: torch.Tensor, a: torch.Tensor, b: torch.Tensor, how: Sum, a_rule: Rule, b_rule: Rule) -> torch.Tensor:
    """The sums with what strikes their accumulators."""
    assert how.site is not None
    injection = how.site.context.injection
    if injection is None:  # a backward pass after the faults' block
        return total
    sums, left, right = (v.detach().cpu().numpy() for v in (total, a, b))
    return torch.from_numpy(injection.sums(sums, left, right, how, _accumulator(how, a_rule, b_rule))).to(total)


def _unit_format(fmt: Format, integers: bool) -> Format:
    """The format of what a matrix unit is given: fixed-point operands of an integer sum come as integers."""
    if integers and isinstance(fmt, FixedFormat):
        return IntFormat(f"{'' if fmt.signed else 'u'}int{fmt.bits}", fmt.bits, fmt.signed)
    return fmt


_MASK = (1 << 64) - 1


def _block_scaled(a: BlockCodes, b: BlockCodes, how: Sum, seed: int) -> torch.Tensor:
    """Blocks and their scales as a matrix unit takes them, one pair of matrices at a time."""
    from numerics.products import matmul

    accumulator = get_accumulator(how.accumulation)
    seeds = {"seed": seed & _MASK} if accumulator.rounding == "stochastic" else {}
    batch = a.shape[:-2]
    results = []
    for index in np.ndindex(*batch):
        left = replace(a, codes=a.codes[index], scales=a.scales[index], shape=a.shape[-2:], axis=1)
        right = replace(b, codes=b.codes[index].mT, scales=b.scales[index], shape=b.shape[:-3:-1], axis=0)
        results.append(torch.as_tensor(matmul(left, right, accumulator=accumulator, **seeds)))
    return torch.stack(results).reshape(*batch, *results[0].shape) if batch else results[0]


def _accumulator(how: Sum, a: Rule, b: Rule) -> Accumulator:
    """The accumulator for operands in these formats.

    A tensor core's instruction for one of the two FP8 formats computes alike for the other (the table of MMA-Sim has one row for
    both), and training needs it for both: activations in E4M3, gradients in E5M2.
    """
    found = get_accumulator(how.fmt.name if how.accumulation is None else how.accumulation)
    names = (a.fmt.name, b.fmt.name)
    if set(names) <= _FP8 and found.a_formats and found.b_formats and set(found.a_formats + found.b_formats) <= _FP8:
        return replace(found, a_formats=names[:1], b_formats=names[1:])
    return found


_FP8 = {"e4m3fn", "e5m2"}


def _largest_code(rule: Rule) -> float:
    fmt = rule.fmt
    assert isinstance(fmt, IntFormat | FixedFormat)
    reach = fmt.code_max - fmt.code_min if not rule.scaling.symmetric else max(-fmt.code_min, fmt.code_max)
    return float(reach)


def _wrap(total: torch.Tensor, fmt: IntFormat) -> torch.Tensor:
    """Integers in two's complement of a width; exact 64-bit floats."""
    span = 2.0**fmt.bits
    return torch.remainder(total - fmt.code_min, span) + fmt.code_min


@dataclass(frozen=True)
class ProductPlan:
    """One product: where it is, the rules of its operands, how it is summed.

    Attributes:
        site: the operator.
        a, b, gradient: rules of A, B and dY.
        names: of A and B, for their keys.
        how: accumulator.
        kind: what the list calls it.
    """

    site: Site
    a: Rule
    b: Rule
    gradient: Rule
    names: tuple[str, ...]
    how: Sum
    kind: str

    @classmethod
    def make(cls, context: Context, kind: str, role_a: str, role_b: str) -> ProductPlan:
        """The plan for the next operator, which goes on the list."""
        site = context.site()
        a, b, gradient = site.rule(role_a), site.rule(role_b), site.rule("gradient")
        how = Sum.of(context, site.module)
        if context.injection is not None and context.injection.strikes("accumulator", site.module):
            if how._left_to_library(a, b) or how.block_scaled:
                raise _undefined(site.module)
            how = replace(how, site=site)
        plan = cls(site, a, b, gradient, operand_names((role_a, role_b)), how, kind)
        context.list(site, kind, plan.formats, plan.gradients, sums=plan.how.order_of(a, b))
        return plan

    @property
    def formats(self) -> str:
        """Formats of the forward product."""
        return product_formats(self.a, self.b, self.how)

    @property
    def gradients(self) -> str:
        """Formats of the backward products."""
        return f"{product_formats(self.gradient, self.b, self.how)}, {product_formats(self.gradient, self.a, self.how)}"

    def identity(self, *tensors: torch.Tensor) -> bool:
        """Whether the library's own product of these tensors is what the recipe asks for."""
        return all(self.site.context.identity(self.site.module, x.dtype) for x in tensors)

    def quantise(self, x: torch.Tensor, rule: Rule, name: str) -> Quantised:
        """One of its operands."""
        return quantise(x, rule, self.site, name, codes=not self.how.library)

    def seed(self, name: str) -> int:
        """The seed of a sum that rounds stochastically."""
        return 0 if self.how.accumulation is None else self.site.seed(name)

    def reread(self, x: torch.Tensor, quantised: Quantised, rule: Rule) -> Quantised:
        """An operand of the forward product, turned round for a backward one: quantised anew where blocks follow the sum."""
        return self.quantise(x.mT, rule, f"{rule.role}_9") if rule.follows_contraction else quantised.mT


def product_formats(a: Rule, b: Rule, how: Sum) -> str:
    """``"bf16×e4m3fn→fp32"``, ``"e4m3fn→fp32"``."""
    return formats_text([a.fmt.name, b.fmt.name], how.format_of(a, b))


class Product(torch.autograd.Function):
    """Y = A·Bᵀ + bias, A (…, M, K), B (…, N, K), bias (N,)."""

    @staticmethod
    def forward(
        ctx: Any, a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None, plan: ProductPlan, stored: Quantised | None
    ) -> torch.Tensor:
        """The product of the quantised operands; shape (…, M, N), type of A."""
        qa = plan.quantise(a, plan.a, plan.names[0]) if stored is None else stored
        qb = plan.quantise(b, plan.b, plan.names[1])
        ctx.save_for_backward(a, b)
        ctx.plan, ctx.qa, ctx.qb = plan, qa, qb
        return add_bias(multiply(qa, qb, plan.how, plan.seed("accumulator")), bias, qa, qb, plan.how).to(a.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """dA = dY·B, dB = dYᵀ·A, each rounded as a result is; the bias takes the sum of dY."""
        (gradient,), plan = gradients, ctx.plan
        a, b = ctx.saved_tensors
        grad_a = grad_b = grad_bias = None
        qg = None
        if ctx.needs_input_grad[0]:
            qg = plan.quantise(gradient, plan.gradient, "gradient")
            product = multiply(qg, plan.reread(b, ctx.qb, plan.b), plan.how, plan.seed("accumulator_2"))
            grad_a = round_gradient(estimate(product, a, ctx.qa), plan.site, 3).to(a.dtype)
        if ctx.needs_input_grad[1]:
            if qg is None or plan.gradient.follows_contraction:
                turned = plan.quantise(gradient.mT, plan.gradient, "gradient_2")
            else:
                turned = qg.mT
            product = multiply(turned, plan.reread(a, ctx.qa, plan.a), plan.how, plan.seed("accumulator_3"))
            grad_b = round_gradient(estimate(product, b, ctx.qb), plan.site, 4).to(b.dtype)
        if ctx.needs_input_grad[2]:
            summed = wide(gradient).sum(dim=tuple(range(gradient.ndim - 1)))
            grad_bias = round_gradient(summed, plan.site, 5).to(gradient.dtype)
        return grad_a, grad_b, grad_bias, None, None


def add_bias(y: torch.Tensor, bias: torch.Tensor | None, a: Quantised, b: Quantised, how: Sum) -> torch.Tensor:
    """The sum with a bias added: an integer accumulator holds it as a multiple of the product of the scales, a float accumulator
    as a value of its own format, to which the sum is rounded again. Behind ``accumulation`` it is added in FP32."""
    if bias is None:
        return y
    values = bias.detach().to(y.dtype)
    if isinstance(how.fmt, IntFormat):
        if a.rule.integer and b.rule.integer and _runs(a) is None and _runs(b) is None:
            step = torch.full((), a.step * b.step, dtype=y.dtype, device=y.device)
            for factor in (a.scale, None if b.scale is None else b.scale.mT if b.scale.ndim >= 2 else b.scale):
                step = step if factor is None else step * factor.to(step)
            codes = torch.round(values.double() / step.double()).clamp(how.fmt.code_min, how.fmt.code_max)
            values = (codes * step.double()).to(y.dtype)
        return y + values
    if how.accumulation is None and isinstance(how.fmt, FloatFormat) and how.fmt.name not in ("fp32", "fp64"):
        return quantize(y + quantize(values, how.fmt), how.fmt)
    return y + values
