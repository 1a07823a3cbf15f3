"""Quantised tensors: the rule for a role, what it makes of a tensor, and what of a gradient passes back."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from numerics._arrays import has_every_float
from numerics._display import displayed
from numerics.encoding import BlockCodes, decode, encode
from numerics.errors import InputError
from numerics.formats import BlockFormat, CodebookFormat, FixedFormat, FloatFormat, Format, IntFormat, get_format
from numerics.quantizer import quantize
from numerics.scaling import Scales, Scaling, find_scales, finite, largest_magnitude, scale_of

if TYPE_CHECKING:
    from numerics.emulation.context import Site
    from numerics.recipes import Recipe


@displayed
class OperandKey(NamedTuple):
    """Names one operand of an emulated module.

    Attributes:
        module: path of the module in whose forward the operator runs.
        operator: its position among the operators of that forward, from 0.
        role: role of the operand in the recipe; a second operand of the same role has ``_2`` appended, a third ``_3``.
    """

    module: str
    operator: int
    role: str

    @property
    def recipe_role(self) -> str:
        """The role without the number of the operand."""
        head, _, tail = self.role.rpartition("_")
        return head if tail.isdigit() else self.role


@displayed
@dataclass(frozen=True)
class Rule:
    """What a recipe says about one role in one module.

    Attributes:
        role: the role.
        fmt: its format.
        scaling: its scales.
        rounding: rounding mode.
        estimator: what passes backward.
    """

    role: str
    fmt: Format
    scaling: Scaling
    rounding: str = "nearest_even"
    estimator: str = "straight_through"

    def identity(self, dtype: torch.dtype) -> bool:
        """Whether every float of this type is a value of the format and nothing scales it, so that nothing happens."""
        width = 64 if dtype == torch.float64 else 32
        return self.scaling.granularity == "none" and isinstance(self.fmt, FloatFormat) and has_every_float(self.fmt, width)

    @property
    def follows_contraction(self) -> bool:
        """Whether the result depends on the axis along which a product sums."""
        return isinstance(self.fmt, BlockFormat) or self.scaling.granularity in ("group", "tile")

    @property
    def integer(self) -> bool:
        """Whether codes are integers."""
        return isinstance(self.fmt, IntFormat | FixedFormat)


def make_rule(recipe: Recipe, role: str, module: str) -> Rule:
    """The rule of a role in a module.

    Raises:
        InputError: scales that the format cannot have.
    """
    fmt, scaling = get_format(recipe.format_for(role, module)), recipe.scaling_for(role, module)
    where = f"recipe {recipe.name!r}: scaling.{role}"
    known = ("tensor", "none") if isinstance(fmt, BlockFormat) and fmt.tensor_scale else ("none",)
    if isinstance(fmt, BlockFormat) and scaling.granularity not in known:
        wanted = " or ".join(map(repr, known))
        got = f"got {scaling.granularity!r}"
        raise InputError(f"{where}: {fmt.name!r} finds its blocks' scales itself; expected granularity {wanted}, {got}")
    if not scaling.symmetric and not isinstance(fmt, IntFormat):
        raise InputError(f"{where}: symmetric: only integer codes have a zero point, {fmt.name!r} has not; expected true")
    return Rule(role, fmt, scaling, recipe.rounding_for(role), recipe.gradient_estimator)


@displayed
@dataclass(frozen=True)
class Quantised:
    """A quantised operand: values = codes · scale.

    Attributes:
        codes: values before they are multiplied by their scales; multiples of the format's step, centred at the zero point.
        scale: broadcasts to codes; None for none.
        rule: how it was quantised.
        passes: 1 where the value did not saturate, else 0; None unless the estimator asks for it.
        dynamic: whether the scale comes from the tensor itself.
        blocks: codes and scales of blocks, where an accumulator takes them so, or faults strike them.
        zero_point: the code of 0, of integers.
    """

    codes: torch.Tensor
    scale: torch.Tensor | None
    rule: Rule
    passes: torch.Tensor | None = None
    dynamic: bool = False
    blocks: BlockCodes | None = None
    zero_point: torch.Tensor | None = None

    @property
    def values(self) -> torch.Tensor:
        """The real numbers that it stands for."""
        return self.codes if self.scale is None else self.codes * self.scale

    @property
    def step(self) -> float:
        """What an integer code of 1 is worth before scaling; 1 for formats that are no integers."""
        return self.rule.fmt.step if isinstance(self.rule.fmt, IntFormat | FixedFormat) else 1.0

    @property
    def mT(self) -> Quantised:  # noqa: N802 (torch's own name)
        """The last two axes exchanged."""
        swapped = None if self.scale is None else self.scale.mT if self.scale.ndim >= 2 else self.scale
        return replace(self, codes=self.codes.mT, scale=swapped, passes=None, blocks=None)


def wide(x: torch.Tensor) -> torch.Tensor:
    """As 32-bit floats, unless they are 64 bits wide."""
    return x if x.dtype == torch.float64 else x.float()


def quantise(x: torch.Tensor, rule: Rule, site: Site, name: str, *, codes: bool = True, keep_infinite: bool = False) -> Quantised:
    """A tensor in the format of its role, whose last axis is the one a product sums along.

    Args:
        x: any shape; the axis before the last holds its rows (output channels of a weight, tokens of an activation).
        rule: format, scales and rounding.
        site: the operator it belongs to.
        name: which operand it is; see ``OperandKey.role``.
        codes: whether codes and scales are wanted apart; otherwise the result may hold the values alone.
        keep_infinite: leave ±Inf as it is where the format has none: what a mask adds is no number to be rounded.
    """
    given, x = x, wide(x.detach())
    site.context.notify(site.key(name), x)
    injection = site.context.injection
    if injection is None:
        return _quantise(x, rule, site, name, codes, keep_infinite)
    return injection.operand(_quantise(x, rule, site, name, True, keep_infinite), given, site, name)


def _quantise(x: torch.Tensor, rule: Rule, site: Site, name: str, codes: bool, keep_infinite: bool) -> Quantised:
    key = site.key(name)
    if rule.identity(x.dtype) or not x.numel() or x.device.type == "meta":
        return Quantised(x, None, rule)
    seed = site.seed(name) if rule.rounding == "stochastic" else None
    if isinstance(rule.fmt, BlockFormat):
        return _quantise_blocks(x, rule, site, key, seed)
    scales = _scales(x, rule, site, key)
    scale = None if scales is None else scales.scale.to(x)
    zero_point = None if scales is None or scales.zero_point is None else scales.zero_point.to(x)
    # A scaled value beyond the largest saturates, as conversion instructions have it; otherwise overflow is the format's.
    how: dict[str, Any] = {"rounding": rule.rounding, "seed": seed, "overflow": None if scale is None else "saturate"}
    through = rule.estimator == "straight_through"
    if not codes and through and zero_point is None and scale is not None and scale.numel() == 1 and x.device.type == "cpu":
        found = Quantised(quantize(x, rule.fmt, scale=scale, **how), None, rule)
    else:
        steps = x if scale is None else x / scale
        rounded = quantize(steps, rule.fmt, **how) if zero_point is None else _affine_codes(steps, zero_point, rule, seed)
        passes = None if through else _passes(steps, zero_point, rule)
        dynamic = scales is not None and rule.scaling.update == "dynamic"
        found = Quantised(rounded, scale, rule, passes, dynamic, zero_point=zero_point)
    if keep_infinite and not (isinstance(rule.fmt, FloatFormat) and rule.fmt.has_inf) and not finite(x):
        found = replace(found, codes=torch.where(torch.isinf(x), x, found.codes))
    return found


def _affine_codes(steps: torch.Tensor, zero_point: torch.Tensor, rule: Rule, seed: int | None) -> torch.Tensor:
    """Integer codes less their zero point."""
    assert isinstance(rule.fmt, IntFormat)
    low, high = rule.fmt.code_min - zero_point, rule.fmt.code_max - zero_point
    # Clipped on both sides of the rounding, so that an intermediate integer as wide as the floats allow takes any value.
    bounded = torch.minimum(torch.maximum(steps, low - 1), high + 1)
    return torch.minimum(torch.maximum(quantize(bounded, _STEPS, rounding=rule.rounding, seed=seed), low), high)


_STEPS = IntFormat("steps", 24)


def _scales(x: torch.Tensor, rule: Rule, site: Site, key: OperandKey) -> Scales | None:
    scaling = rule.scaling
    if scaling.granularity == "none":
        return None
    if scaling.update == "static":
        return site.context.static_scales(key, x)
    if scaling.update == "delayed":
        largest = largest_magnitude(x)
        history = site.context.history(key, scaling)
        if site.training:
            history.record(largest)
        return Scales(scale_of(history.largest(largest), rule.fmt, scaling))
    return find_scales(x, rule.fmt, scaling)


def _quantise_blocks(x: torch.Tensor, rule: Rule, site: Site, key: OperandKey, seed: int | None) -> Quantised:
    """Blocks along the last axis; the last one is filled up with zeros, which change no scale."""
    fmt = rule.fmt
    assert isinstance(fmt, BlockFormat)
    length = x.shape[-1] if x.ndim else 1
    flat = x.reshape(1) if x.ndim == 0 else x
    padded = torch.nn.functional.pad(flat, (0, -length % fmt.block_size))
    scales = None if rule.scaling.update == "dynamic" else _scales(x, rule, site, key)
    whole = None if scales is None else float(scales.scale)
    values = quantize(padded, fmt, rounding=rule.rounding, seed=seed, scale=whole)[..., :length].reshape(x.shape)
    passes = None
    if rule.estimator != "straight_through":
        codes = encode(padded, fmt, scale=whole)
        factors = decode(codes.scales, fmt.scale).to(x).reshape(*padded.shape[:-1], -1) * codes.tensor_scale
        limit = factors.repeat_interleave(fmt.block_size, dim=-1)[..., :length].reshape(x.shape) * _reach(fmt.element)
        passes = (x.abs() < limit).to(x)
    wanted = site.context.block_scaled(site.module) or site.context.injection is not None
    blocks = encode(padded, fmt, rounding=rule.rounding, seed=seed, scale=whole) if wanted else None
    return Quantised(values, None, rule, passes, blocks=blocks)


def _reach(fmt: FloatFormat | FixedFormat | IntFormat) -> float:
    """The magnitude from which on values saturate: half a step beyond the largest."""
    step = math.ldexp(1.0, fmt.emax - fmt.mantissa_bits) if isinstance(fmt, FloatFormat) else fmt.step
    return float(fmt.max) + step / 2


def _passes(steps: torch.Tensor, zero_point: torch.Tensor | None, rule: Rule) -> torch.Tensor:
    """1 where a value rounds to one that the format has, 0 where it saturates."""
    fmt = rule.fmt
    if isinstance(fmt, IntFormat | FixedFormat):
        nearest = torch.round(steps / fmt.step) + (0.0 if zero_point is None else zero_point)
        return ((nearest >= fmt.code_min) & (nearest <= fmt.code_max)).to(steps)
    if isinstance(fmt, CodebookFormat):
        return ((steps >= fmt.min) & (steps <= fmt.max)).to(steps)
    assert isinstance(fmt, FloatFormat)
    inside = steps.abs() < _reach(fmt)
    return (inside if fmt.signed else inside & (steps >= 0)).to(steps)


def estimate(gradient: torch.Tensor, x: torch.Tensor, quantised: Quantised) -> torch.Tensor:
    """What of a gradient by the quantised values reaches the tensor itself.

    For ``exact``, with q = s·r(x/s), a dynamic s = max|x|·c and r the rounding: ∂q/∂s = r(x/s) − x/s where nothing saturates and
    r(x/s) where it does (Esser et al., equation 3), and ∂s/∂x = c·sign(x) at the largest magnitude, 0 elsewhere. Elements that
    share the largest magnitude share the derivative, as in ``torch.amax``. A scale that is a power of two, or that blocks round
    to a format of their own, is constant between its steps and adds nothing.

    Args:
        gradient: by the quantised values, shape of x.
        x: what was quantised.
        quantised: what became of it.
    """
    if quantised.passes is None:
        return gradient
    passed = gradient * quantised.passes
    scaling = quantised.rule.scaling
    if quantised.rule.estimator != "exact" or quantised.scale is None or not quantised.dynamic or scaling.power_of_two:
        return passed
    with torch.enable_grad():
        source = wide(x.detach()).requires_grad_()
        scales = find_scales(source, quantised.rule.fmt, scaling)
        assert scales is not None
        slope = quantised.codes - quantised.passes * source.detach() / quantised.scale
        (through_scale,) = torch.autograd.grad(scales.scale.expand_as(source), source, gradient * slope)
    return passed + through_scale


def operand_names(roles: tuple[str, ...]) -> tuple[str, ...]:
    """A name for each operand: its role, numbered from the second of a role on."""
    seen: dict[str, int] = {}
    names = []
    for role in roles:
        seen[role] = seen.get(role, 0) + 1
        names.append(role if seen[role] == 1 else f"{role}_{seen[role]}")
    return tuple(names)
