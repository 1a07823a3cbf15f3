"""The emulated operators: what takes the place of a torch function while a module runs."""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from numerics._context import Context, Site
from numerics._elementwise import rounded
from numerics._function_names import COMPUTES, CONSTANT, MOVES, PASSIVE_GETTERS, STATEFUL, base_name, is_in_place
from numerics._gemm import Product, ProductPlan


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
    site = context.site(aside="dropout" in call.name)
    dtype = max((x.dtype for x in operands), key=lambda d: d.itemsize)
    rule = site.rule("elementwise")
    context.list(site, call.name.strip("_"), f"{rule.fmt.name}→{rule.fmt.name}", context.result_gradient(site.module).fmt.name)
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
    with torch.no_grad() if not torch.is_grad_enabled() else torch.enable_grad():
        target.copy_(result)
    context.mark(target, rounded=True)
    return target


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
        call.context.list(site, call.name, "→".join(dtypes), reason="no rule for this function; computed as it is")
    return result


# --- products -------------------------------------------------------------------------------------------------------------


def role_of(call: Call, x: torch.Tensor, otherwise: str = "activation") -> str:
    """The role of an operand of a product."""
    role = call.context.traits_of(x).role
    return role if role in ("weight", "kv_cache") else otherwise


def product(plan: ProductPlan, a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """A·Bᵀ + bias, emulated, before its result is rounded."""
    return Product.apply(a, b, bias, plan)


def quiet(call: Call, plan: ProductPlan, *operands: torch.Tensor) -> bool:
    """Whether torch's own function does what the recipe asks for; whoever looks on sees the operands all the same."""
    if not plan.identity(*operands):
        return False
    for x, name in zip(operands, plan.names, strict=False):
        call.context.notify(plan.site.key(name), x.detach())
    return True


def linear(call: Call) -> Any:
    """x·Wᵀ + b."""
    x, weight, bias = call.bound("input", "weight", bias=None)
    plan = ProductPlan.make(call.context, "linear", role_of(call, x), role_of(call, weight, "weight"))
    if quiet(call, plan, x, weight):
        return call.plain()
    if weight.ndim == 1:
        y = product(plan, x.reshape(-1, x.shape[-1]), weight[None], None if bias is None else bias.reshape(1))
        return finish(y.reshape(x.shape[:-1]), plan.site, "linear")
    y = product(plan, x.reshape(-1, x.shape[-1]), weight, bias)
    return finish(y.reshape(*x.shape[:-1], weight.shape[0]), plan.site, "linear")


def _matmul(plan: ProductPlan, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``torch.matmul`` of any shapes, as products (…, M, K)·(…, K, N)."""
    if a.ndim == 1:
        return _matmul(plan, a[None], b).squeeze(-1 if b.ndim == 1 else -2)
    if b.ndim == 1:
        return _matmul(plan, a, b[:, None]).squeeze(-1)
    if b.ndim == 2:
        # Rows of all matrices of the batch meet the same B: one product, as a library does it.
        return product(plan, a.reshape(-1, a.shape[-1]), b.mT).reshape(*a.shape[:-1], b.shape[-1])
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = a.expand(*batch, *a.shape[-2:]), b.expand(*batch, *b.shape[-2:])
    return product(plan, a, b.mT)


def matmul(call: Call) -> Any:
    """``matmul``, ``mm``, ``bmm``, ``mv``, ``dot`` and their kin."""
    names = {"mv": ("input", "vec"), "mm": ("input", "mat2"), "bmm": ("input", "mat2"), "dot": ("input", "tensor")}
    a, b, *_ = call.bound(*names.get(call.name, ("input", "other")))
    if call.name == "rmatmul":
        a, b = b, a
    plan = ProductPlan.make(call.context, "matmul", role_of(call, a), role_of(call, b))
    if quiet(call, plan, a, b):
        return call.plain()
    if call.name == "inner" and a.ndim and b.ndim:
        y = product(plan, a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])).reshape(*a.shape[:-1], *b.shape[:-1])
    else:
        y = _matmul(plan, a, b)
    y = finish(y, plan.site, "matmul")
    return y if call.kwargs.get("out") is None else call.kwargs["out"].copy_(y)


def add_matmul(call: Call) -> Any:
    """``addmm``, ``addmv``, ``baddbmm``, ``addbmm``: beta · input + alpha · product."""
    second = {"addmv": ("mat", "vec"), "addmm": ("mat1", "mat2")}.get(call.name, ("batch1", "batch2"))
    added, a, b, beta, alpha = call.bound("input", *second, beta=1, alpha=1)
    plan = ProductPlan.make(call.context, call.name, role_of(call, a), role_of(call, b))
    if quiet(call, plan, a, b):
        return call.plain()
    if call.name == "addbmm":
        a, b = a.transpose(0, 1).reshape(a.shape[1], -1), b.reshape(-1, b.shape[2])
    if call.name == "addmm" and alpha == 1 and beta == 1 and added.ndim == 1 and added.shape[0] == b.shape[1]:
        y = product(plan, a, b.mT, added)
    else:
        y = alpha * _matmul(plan, a, b)
        y = y if beta == 0 else y + beta * added
    result = finish(y, plan.site, call.name)
    if is_in_place(call.func):
        call.args[0].copy_(result)
        call.context.mark(call.args[0], rounded=True)
        return call.args[0]
    return result


def einsum(call: Call) -> Any:
    """``einsum`` of two operands or, from left to right, of more."""
    equation: Any = call.args[0]
    operands = list(call.args[1:])
    if len(operands) == 1 and isinstance(operands[0], tuple | list):
        operands = list(operands[0])
    parsed = _parse(equation, operands) if isinstance(equation, str) and all(map(is_real, operands)) else None
    if parsed is None or len(operands) < 2:
        return unknown(call) if parsed is None else compute(call)
    labels, wanted = parsed
    roles = [role_of(call, x) for x in operands]
    left, left_labels, left_role = operands[0], labels[0], roles[0]
    for i in range(1, len(operands)):
        plan = ProductPlan.make(call.context, "einsum", left_role, roles[i])
        if len(operands) == 2 and quiet(call, plan, *operands):
            return call.plain()
        keep = set(wanted).union(*labels[i + 1 :])
        left, left_labels = _contract(plan, left, left_labels, operands[i], labels[i], keep)
        left, left_role = finish(left, plan.site, "einsum"), "activation"
    result = left.permute([left_labels.index(label) for label in wanted])
    call.context.mark(result, rounded=True)
    return result


def tensordot(call: Call) -> Any:
    """``tensordot``: the axes named by ``dims`` are summed along."""
    a, b, dims = call.bound("a", "b", dims=2)
    if isinstance(dims, torch.Tensor):
        dims = dims.tolist()
    first, second = (range(a.ndim - dims, a.ndim), range(dims)) if isinstance(dims, int) else dims
    first, second = [d % a.ndim for d in first], [d % b.ndim for d in second]
    plan = ProductPlan.make(call.context, "tensordot", role_of(call, a), role_of(call, b))
    if quiet(call, plan, a, b):
        return call.plain()
    left = [d for d in range(a.ndim) if d not in first]
    right = [d for d in range(b.ndim) if d not in second]
    length = math.prod(a.shape[d] for d in first)
    rows, columns = a.permute(*left, *first).reshape(-1, length), b.permute(*right, *second).reshape(-1, length)
    y = product(plan, rows, columns).reshape([*(a.shape[d] for d in left), *(b.shape[d] for d in right)])
    return finish(y, plan.site, "tensordot")


def _parse(equation: str, operands: list[torch.Tensor]) -> tuple[list[list[str]], list[str]] | None:
    """Labels of each operand and of the result; None where a label repeats in one operand (a diagonal)."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if len(terms) != len(operands):
        return None
    labels, dotted = [], 0
    for term, x in zip(terms, operands, strict=True):
        head, dots, tail = term.partition("...")
        hidden = x.ndim - len(head) - len(tail) if dots else 0
        dotted = max(dotted, hidden)
        labels.append([*head, *(f".{i}" for i in range(hidden, 0, -1)), *tail])
        if len(set(labels[-1])) != x.ndim:
            return None
    every = [label for term in labels for label in term]
    rest = [f".{i}" for i in range(dotted, 0, -1)]
    if arrow:
        head, dots, tail = output.partition("...")
        wanted = [*head, *(rest if dots else []), *tail]
    else:
        wanted = [*rest, *sorted(label for label in set(every) if every.count(label) == 1 and not label.startswith("."))]
    sizes: dict[str, set[int]] = {}
    for x, names in zip(operands, labels, strict=True):
        for size, label in zip(x.shape, names, strict=True):
            sizes.setdefault(label, set()).add(size)
    if any(len(found) > 1 for found in sizes.values()):
        return None  # an axis of size 1 that is stretched
    return labels, wanted


def _contract(
    plan: ProductPlan, a: torch.Tensor, la: list[str], b: torch.Tensor, lb: list[str], keep: set[str]
) -> tuple[torch.Tensor, list[str]]:
    """Two operands of an ``einsum`` as one batched product."""
    a, la = _drop(a, la, keep | set(lb))
    b, lb = _drop(b, lb, keep | set(la))
    batch = [label for label in la if label in lb and label in keep]
    summed = [label for label in la if label in lb and label not in keep]
    rows = [label for label in la if label not in lb]
    columns = [label for label in lb if label not in la]
    size = dict(zip([*la, *lb], [*a.shape, *b.shape], strict=True))

    def arrange(x: torch.Tensor, labels: list[str], free: list[str]) -> torch.Tensor:
        order = [labels.index(label) for label in (*batch, *free, *summed)]
        shape = [math.prod(size[label] for label in group) for group in (batch, free, summed)]
        return x.permute(order).reshape(shape)

    y = product(plan, arrange(a, la, rows), arrange(b, lb, columns))
    found = [*batch, *rows, *columns]
    return y.reshape([size[label] for label in found]), found


def _drop(x: torch.Tensor, labels: list[str], keep: set[str]) -> tuple[torch.Tensor, list[str]]:
    """Sum over the axes that nothing else names."""
    gone = [i for i, label in enumerate(labels) if label not in keep]
    return (x.sum(dim=gone), [label for label in labels if label in keep]) if gone else (x, labels)


def embedding(call: Call) -> Any:
    """Rows of a table in the format of weights."""
    builtin = call.func is torch.embedding
    order = ("weight", "input") if builtin else ("input", "weight")
    more = {"offsets": None} if call.name == "embedding_bag" else {"padding_idx": None}
    given = dict(zip(order, call.bound(*order), strict=False)) if builtin else _embedding_arguments(call, order, more)
    table = given["weight"]
    site = call.context.site()
    rule, result = site.rule("weight"), site.rule("elementwise")
    gradient = call.context.result_gradient(site.module).fmt.name
    if call.context.identity(site.module, table.dtype) and call.context.observer is None:
        call.context.list(site, call.name, f"{rule.fmt.name}→{result.fmt.name}", gradient)
        return call.plain()
    for name, why in (("max_norm", "max_norm changes the table in place"), ("sparse", "its gradient is sparse")):
        if given.get(name):
            dtype = str(table.dtype).removeprefix("torch.")
            call.context.list(site, call.name, f"{dtype}→{dtype}", reason=f"{why}; computed as it is")
            return call.plain()
    call.context.list(site, call.name, f"{rule.fmt.name}→{result.fmt.name}", gradient)
    changed = rounded(table, rule, site, "weight")
    args = tuple(changed if x is table else x for x in call.args)
    kwargs = {name: changed if x is table else x for name, x in call.kwargs.items()}
    return finish(call.func(*args, **kwargs), site, call.name)


def _embedding_arguments(call: Call, order: tuple[str, ...], more: dict[str, Any]) -> dict[str, Any]:
    """Arguments of ``torch.nn.functional.embedding`` or ``embedding_bag`` by name."""
    defaults = {**more, "max_norm": None, "norm_type": 2.0, "scale_grad_by_freq": False}
    defaults |= {"mode": "mean", "sparse": False} if "offsets" in more else {"sparse": False}
    return dict(zip((*order, *defaults), call.bound(*order, **defaults), strict=True))


def attention(call: Call) -> Any:
    """``scaled_dot_product_attention`` as the product Q·Kᵀ, scale, mask, softmax and the product with V."""
    q, k, v, mask, dropout, causal, scale, grouped = call.bound(
        "query", "key", "value", attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
    )
    if call.context.identity(call.context.frames[-1].module, q.dtype) and call.context.observer is None:
        ProductPlan.make(call.context, "attention", role_of(call, q), role_of(call, k))
        return call.plain()
    with call.mode:
        if grouped:
            k = k.repeat_interleave(q.shape[-3] // k.shape[-3], dim=-3)
            v = v.repeat_interleave(q.shape[-3] // v.shape[-3], dim=-3)
        scores = torch.matmul(q, k.mT) * (1.0 / math.sqrt(q.shape[-1]) if scale is None else scale)
        if causal:
            below = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
            scores = scores.masked_fill(~below, -math.inf)
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
        weights = torch._safe_softmax(scores, -1) if causal or mask is not None else torch.softmax(scores, -1)
        if dropout:
            weights = torch.nn.functional.dropout(weights, dropout)
        return torch.matmul(weights, v)


def opened(call: Call) -> Any:
    """A function of ``torch.nn.functional`` that calls others, with these emulated one by one."""
    dtype = tensors_in((*call.args, call.kwargs))[0].dtype
    if call.context.identity(call.context.frames[-1].module, dtype) and call.context.observer is None:
        ProductPlan.make(call.context, call.name, "activation", "weight")
        return call.plain()
    func = call.func
    assert isinstance(func, types.FunctionType)
    # The function asks first whether a mode wants it; this copy is told no, and goes on to what it calls.
    no = dict.fromkeys(("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"), _no)
    inner = types.FunctionType(func.__code__, {**func.__globals__, **no}, func.__name__, func.__defaults__, func.__closure__)
    inner.__kwdefaults__ = func.__kwdefaults__
    with call.mode:
        return inner(*call.args, **call.kwargs)


def _no(*_: Any) -> bool:
    return False


HANDLERS: dict[str, Callable[[Call], Any]] = {
    "linear": linear,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot", "vdot", "inner", "rmatmul", "linalg_matmul"), matmul),
    **dict.fromkeys(("addmm", "addmv", "baddbmm", "addbmm"), add_matmul),
    "einsum": einsum,
    "tensordot": tensordot,
    "embedding": embedding,
    "embedding_bag": embedding,
    "scaled_dot_product_attention": attention,
    "multi_head_attention_forward": opened,
}
"""Name of a torch function → what takes its place."""


def dispatch(call: Call) -> Any:
    """Run one torch function as the recipe has it."""
    name = call.name
    if getattr(call.func, "__name__", "") == "__get__":
        return move(call) if name in PASSIVE_GETTERS else call.plain()
    if not call.context.frames or isinstance(call.func, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
        return unknown(call) if call.context.frames else call.plain()
    handler = HANDLERS.get(name)
    if handler is not None:
        return handler(call)
    if name in MOVES:
        return move(call)
    if name in COMPUTES:
        return compute(call)
    return call.plain() if name in CONSTANT else unknown(call)
