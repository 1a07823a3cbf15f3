"""Emulated ``einsum`` and ``tensordot``: as batched products of two operands."""

from __future__ import annotations

import math
from typing import Any

import torch

from numerics.emulation.calls import Call, check_shapes, compute, finish, is_real, product, quiet, role_of, unknown
from numerics.emulation.gemm import ProductPlan


def einsum(call: Call) -> Any:
    """``einsum`` of two operands or, from left to right, of more."""
    equation: Any = call.args[0]
    operands = list(call.args[1:])
    if len(operands) == 1 and isinstance(operands[0], tuple | list):
        operands = list(operands[0])
    parsed = _parse(equation, operands) if isinstance(equation, str) and all(map(is_real, operands)) else None
    if parsed is None or len(operands) < 2:
        return unknown(call) if parsed is None else compute(call)
    check_shapes(call)
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
    for d, e in zip(first, second, strict=True):  # an axis of size 1 is stretched
        a, b = (x.expand(*x.shape[:i], max(a.shape[d], b.shape[e]), *x.shape[i + 1 :]) for x, i in ((a, d), (b, e)))
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
