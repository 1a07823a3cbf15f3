"""The emulated operators: what takes the place of a torch function while a module runs."""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from typing import Any

import torch

from numerics.emulation import convolution, einsum, recurrent
from numerics.emulation.calls import (
    Call,
    check_shapes,
    compute,
    constant,
    finish,
    move,
    product,
    quiet,
    role_of,
    tensors_in,
    unknown,
)
from numerics.emulation.elementwise import rounded
from numerics.emulation.function_names import COMPUTES, CONSTANT, MOVES, PASSIVE_GETTERS, is_in_place
from numerics.emulation.gemm import ProductPlan
from numerics.formats import formats_text


def linear(call: Call) -> Any:
    """x·Wᵀ + b."""
    x, weight, bias = call.bound("input", "weight", bias=None)
    plan = ProductPlan.make(call.context, "linear", role_of(call, x), role_of(call, weight, "weight"))
    if quiet(call, plan, x, weight):
        return call.plain()
    inside = bias is None or bias.ndim == 1
    if weight.ndim == 1 or not inside:
        call.plain()  # what runs without data takes biases that torch's kernels refuse
    if weight.ndim == 1:
        y = product(plan, x.reshape(-1, x.shape[-1]), weight[None], None if bias is None else bias.reshape(1))
        return finish(y.reshape(x.shape[:-1]), plan.site, "linear")
    y = product(plan, x.reshape(-1, x.shape[-1]), weight, bias if inside else None).reshape(*x.shape[:-1], weight.shape[0])
    return finish(y if inside else y + bias, plan.site, "linear")


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
        y = product(plan, a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])).reshape(a.shape[:-1] + b.shape[:-1])
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
        added = added.expand(y.shape)
        y = y if beta == 0 else y + beta * added
    result = finish(y, plan.site, call.name)
    if is_in_place(call.func):
        call.args[0].copy_(result)
        call.context.mark(call.args[0], rounded=True)
        return call.args[0]
    return result


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
        call.context.list(site, call.name, formats_text([rule.fmt.name], result.fmt.name), gradient)
        return call.plain()
    for name, why in (("max_norm", "max_norm changes the table in place"), ("sparse", "its gradient is sparse")):
        if given.get(name):
            dtype = str(table.dtype).removeprefix("torch.")
            call.context.list(site, call.name, dtype, reason=f"{why}; computed as it is")
            return call.plain()
    call.context.list(site, call.name, formats_text([rule.fmt.name], result.fmt.name), gradient)
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
    check_shapes(call)
    if mask is not None and mask.ndim < 2:
        call.plain()  # which kernel torch takes decides whether it refuses
    with call.mode:
        if grouped:
            k = k.repeat_interleave(q.shape[-3] // k.shape[-3], dim=-3)
            v = v.repeat_interleave(q.shape[-3] // v.shape[-3], dim=-3)
        scores = torch.matmul(q, k.mT) * (1.0 / math.sqrt(q.shape[-1]) if scale is None else scale)
        if causal:
            below = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
            scores = scores.masked_fill(~below, -math.inf)
        if mask is not None:
            mask = mask.expand(scores.shape)
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
    "einsum": einsum.einsum,
    "tensordot": einsum.tensordot,
    **dict.fromkeys([f"conv{t}{n}d" for t in ("", "_transpose") for n in (1, 2, 3)], convolution.convolution),
    **recurrent.HANDLERS,
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
    return constant(call) if name in CONSTANT else unknown(call)
