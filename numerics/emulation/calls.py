"""A torch function that an emulated module calls, and what becomes of those that are no products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode

from numerics.emulation.context import Context, Site
from numerics.emulation.elementwise import rounded
from numerics.emulation.function_names import STATEFUL, base_name, is_in_place
from numerics.emulation.gemm import Product, ProductPlan
from numerics.emulation.quantised import Quantised


@dataclass(frozen=True)
class Call:
    """A torch function that a module calls.

    Attributes:
        context: the emulation.
        mode: under which further functions are emulated as well.
        func, args, kwargs: the call.
    """

    context: Context
    mode: TorchFunctionMode
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the function, without marks."""
        return base_name(self.func)

    def plain(self) -> Any:
        """What torch itself computes."""
        return self.func(*self.args, **self.kwargs)

    def bound(self, *names: str, **defaults: Any) -> list[Any]:
        """The arguments by name; positional ones take the names in order."""
        given = dict(zip((*names, *defaults), self.args, strict=False)) | self.kwargs
        return [given.get(name, defaults.get(name)) for name in (*names, *defaults)]


def is_real(x: Any) -> bool:
    """Whether it is a tensor of floats that formats apply to."""
    return isinstance(x, torch.Tensor) and x.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def tensors_in(values: Any, wanted: Callable[[Any], bool] = is_real) -> list[torch.Tensor]:
    """Tensors of floats among arguments, those in lists, tuples and mappings among them."""
    if wanted(values):
        return [values]
    if isinstance(values, dict):
        values = tuple(values.values())
    return [x for v in values for x in tensors_in(v, wanted)] if isinstance(values, tuple | list) else []


def _is_number(x: Any) -> bool:
    """Whether it is a tensor of floats or of complex numbers."""
    return isinstance(x, torch.Tensor) and (x.is_floating_point() or x.is_complex())


def change(values: Any, how: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The same arguments with every tensor of floats changed."""
    if is_real(values):
        return how(values)
    if isinstance(values, dict):
        return {k: change(v, how) for k, v in values.items()}
    if isinstance(values, tuple) and hasattr(values, "_fields"):
        return type(values)(*(change(v, how) for v in values))
    if isinstance(values, tuple | list):
        return type(values)(change(v, how) for v in values)
    return values


# --- what is no product ---------------------------------------------------------------------------------------------------


def move(call: Call) -> Any:
    """Values in another place: in the format they had."""
    operands = [call.context.traits_of(x) for x in tensors_in((*call.args, call.kwargs))]
    result = call.plain()
    if operands:
        clean = all(t.rounded for t in operands)
        roles = {t.role for t in operands}
        role = "kv_cache" if "kv_cache" in roles else "weight" if roles == {"weight"} else "activation"
        role = "constant" if roles <= FIXED else role
        for x in tensors_in((result,)):
            call.context.mark(x, role=role, rounded=clean)
        if call.name in ("setitem", "copy") and is_real(call.args[0]):
            call.context.mark(call.args[0], role=role, rounded=clean)
    return result


def compute(call: Call) -> Any:
    """Values computed from values: operands and results in the elementwise format."""
    context = call.context
    operands = tensors_in((*call.args, call.kwargs))
    if len(operands) < len(tensors_in((*call.args, call.kwargs), _is_number)):
        return unknown(call)  # complex numbers
    if not operands:
        return call.plain()
    if call.name not in STATEFUL and all(context.traits_of(x).role in FIXED for x in operands):
        return constant(call)
    site = context.site(aside="dropout" in call.name)
    dtype = max((x.dtype for x in operands), key=lambda d: d.itemsize)
    rule = site.rule("elementwise")
    context.list(site, call.name.strip("_"), rule.fmt.name, context.result_gradient(site.module).fmt.name)
    if context.identity(site.module, dtype) and context.observer is None:
        return call.plain()
    counter = iter(range(1, len(operands) + 1))

    def operand(x: torch.Tensor) -> torch.Tensor:
        traits = context.traits_of(x)
        number = next(counter)
        if traits.rounded or (traits.role == "state" and call.name in STATEFUL):
            return x
        if traits.role == "weight":
            return parameter(x, site, number)
        return rounded(x, rule, site, f"elementwise_{number + 1}")

    func, args, kwargs, target = _out_of_place(call)
    if func is None:
        context.list(site, call.name, "", reason="works in place, and torch has no such function that does not")
        return call.plain()
    result = func(*change(args, operand), **change(kwargs, operand))
    result = finish(result, site, call.name, *operands)
    if target is None:
        return result
    target.copy_(result)
    context.mark(target, rounded=True)
    return target


FIXED = {"constant", "state"}
"""Roles of what depends on neither inputs nor parameters: buffers, and what a module makes for itself (positions, masks)."""


def constant(call: Call) -> Any:
    """Values that depend on neither inputs nor parameters: no operator of a machine; rounded where an operator takes them."""
    result = call.plain()
    for x in tensors_in((result,)):
        call.context.mark(x, role="constant", rounded=False)
    return result


def _out_of_place(call: Call) -> tuple[Callable[..., Any] | None, tuple[Any, ...], dict[str, Any], torch.Tensor | None]:
    """The same function with a result of its own, and the tensor that the result belongs into."""
    kwargs = dict(call.kwargs)
    if is_in_place(call.func):
        found = next((getattr(m, call.name) for m in (torch.Tensor, torch, torch.nn.functional) if hasattr(m, call.name)), None)
        if found is None:
            found = getattr(torch.Tensor, f"__{call.name}__", None)
        kwargs.pop("inplace", None)
        return found, call.args, kwargs, call.args[0]
    if kwargs.get("inplace"):
        kwargs["inplace"] = False
        return call.func, call.args, kwargs, call.args[0] if call.args else kwargs.get("input")
    if call.name in _INPLACE_POSITION and len(call.args) > _INPLACE_POSITION[call.name]:
        place = _INPLACE_POSITION[call.name]
        if call.args[place] is True:
            return call.func, (*call.args[:place], False, *call.args[place + 1 :]), kwargs, call.args[0]
    if isinstance(kwargs.get("out"), torch.Tensor):
        target = kwargs.pop("out")
        return call.func, call.args, kwargs, target
    return call.func, call.args, kwargs, None


_INPLACE_POSITION = {
    "dropout": 3, "dropout1d": 3, "dropout2d": 3, "dropout3d": 3, "alpha_dropout": 3, "feature_alpha_dropout": 3, "relu": 1,
    "relu6": 1, "elu": 2, "selu": 1, "celu": 2, "leaky_relu": 2, "rrelu": 4, "hardtanh": 3, "hardswish": 1, "hardsigmoid": 1,
    "silu": 1, "mish": 1, "threshold": 3,
}  # fmt: skip
"""Where functions of ``torch.nn.functional`` take ``inplace`` by position."""


def parameter(x: torch.Tensor, site: Site, number: int) -> torch.Tensor:
    """A parameter that no product takes: vectors (biases, gains) in the accumulator's format where that is a float, others in
    that of weights."""
    rule = site.rule("accumulator" if x.ndim <= 1 else "weight")
    if x.ndim <= 1 and rule.integer:
        return x
    return rounded(x, rule, site, f"{rule.role}_{number}")


def finish(result: Any, site: Site, kind: str, *operands: torch.Tensor) -> Any:
    """Results in the elementwise format; one that is an operand itself stays."""
    rule = site.rule("elementwise")
    counter = iter(range(1, 1 << 20))

    def one(x: torch.Tensor) -> torch.Tensor:
        number = next(counter)
        if any(x is other for other in operands):
            return x
        y = rounded(x, rule, site, "elementwise" if number == 1 else f"elementwise_{len(operands) + number}")
        site.context.mark(y, rounded=True)
        return y

    return change(result, one)


def unknown(call: Call) -> Any:
    """A function without a rule: computed as it is, and listed so."""
    operands = tensors_in((*call.args, call.kwargs), _is_number)
    result = call.plain()
    results = [
        x for x in tensors_in((result,), _is_number) if not any(x is other for other in operands) or is_in_place(call.func)
    ]
    if operands and results:
        site = call.context.site()
        dtypes = ["/".join(sorted({str(x.dtype).removeprefix("torch.") for x in xs})) for xs in (operands, results)]
        call.context.list(site, call.name, "→".join(dict.fromkeys(dtypes)), reason="no rule for this function; computed as it is")
    return result


# --- what products share ---------------------------------------------------------------------------------------------------


def role_of(call: Call, x: torch.Tensor, otherwise: str = "activation") -> str:
    """The role of an operand of a product."""
    role = call.context.traits_of(x).role
    return role if role in ("weight", "kv_cache") else otherwise


def product(
    plan: ProductPlan,
    a: torch.Tensor,
    b: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    stored: Quantised | None = None,
) -> torch.Tensor:
    """A·Bᵀ + bias, emulated, before its result is rounded; ``stored`` is A where it is quantised already."""
    return Product.apply(a, b, bias, plan, stored)


def quiet(call: Call, plan: ProductPlan, *operands: torch.Tensor) -> bool:
    """Whether torch's own function does what the recipe asks for; whoever looks on sees the operands all the same. Where it does
    not, shapes are refused that torch refuses."""
    if not plan.identity(*operands):
        check_shapes(call)
        return False
    for x, name in zip(operands, plan.names, strict=False):
        call.context.notify(plan.site.key(name), x.detach())
    return True


# --- what torch refuses ----------------------------------------------------------------------------------------------------


class _Like(NamedTuple):
    """What of a tensor decides whether torch takes it; floats of all types as one, since each operand has a format of its own."""

    shape: tuple[int, ...]
    dtype: torch.dtype


def check_shapes(call: Call) -> None:
    """Let torch refuse what it refuses, with its own error, before an emulated product bends it into shape.

    Raises:
        Exception: whatever torch raises, ``RuntimeError`` nearly always.
    """
    kwargs = tuple((name, _like(value)) for name, value in call.kwargs.items() if name != "out")
    # Without data, torch multiplies integers by floats, which its kernels refuse.
    mixed = len({is_real(value) for value in call.args[:2] if isinstance(value, torch.Tensor)}) > 1
    if mixed or not _taken(call.func, tuple(_like(value) for value in call.args), kwargs):
        # What runs without data may be stricter than torch's kernels: these have the last word, and the words of the error.
        call.plain()


def _like(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return _Like(tuple(value.shape), torch.float32 if is_real(value) else value.dtype)
    return tuple(_like(v) for v in value) if isinstance(value, tuple | list) else value


@lru_cache(maxsize=4096)
def _taken(func: Callable[..., Any], args: tuple[Any, ...], kwargs: tuple[tuple[str, Any], ...]) -> bool:
    """Whether torch runs a function on tensors of these shapes, which hold no data."""
    name = base_name(func)
    if name.startswith("conv"):
        # Without data, convolutions let channels pass that do not fit: these run on one image of zeros.
        axes = int(name[-2]) + 2
        device, args = "cpu", (_one_image(args[0], axes), *args[1:]) if args else args
        kwargs = tuple((key, _one_image(value, axes) if key == "input" else value) for key, value in kwargs)
    else:
        device = "meta"
    try:
        with torch.no_grad():
            func(*(_zeros(value, device) for value in args), **{key: _zeros(value, device) for key, value in kwargs})
    except Exception:  # whatever torch raises
        return False
    return True


def _one_image(like: Any, axes: int) -> Any:
    batched = isinstance(like, _Like) and len(like.shape) == axes
    return like._replace(shape=(min(like.shape[0], 1), *like.shape[1:])) if batched else like


def _zeros(value: Any, device: str) -> Any:
    if isinstance(value, _Like):
        return torch.zeros((), dtype=value.dtype, device=device).expand(value.shape)
    return tuple(_zeros(v, device) for v in value) if isinstance(value, tuple) else value
