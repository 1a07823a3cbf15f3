"""The sizes that are measured: powers of two, odd and arbitrary ones, spread evenly over their logarithms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwsim.scoreboard.single import single_operator
from hwsim.views.display import displayed
from numerics.errors import InputError, unknown_name

Sizes = dict[str, int]
Draw = Callable[[float, float], int]
"""(least, largest) → a size."""

SHAPE_COUNTS: Mapping[str, int] = {"small": 24, "standard": 160, "large": 640}
"""Name → shapes of all operators together."""

_SHARES = {"matmul": 4, "convolution": 2, "attention": 2}
"""Operator → its share of the shapes; 1 for the others."""

_ATTEMPTS = 400
"""Draws a shape that is not yet listed and fits the limits may take."""


@displayed
@dataclass(frozen=True)
class Limits:
    """How large a measured kernel may be.

    Attributes:
        edge: the longest side of a matrix.
        macs: multiply-accumulates of one call.
        bytes: of all its tensors in FP32.
    """

    edge: int
    macs: int
    bytes: int


class _Draws:
    """Sizes of one shape: all powers of two, all odd, or as they come."""

    def __init__(self, generator: np.random.Generator, kind: int) -> None:
        self.generator = generator
        self.kind = kind

    def size(self, least: float, largest: float) -> int:
        """Log-uniform between two bounds."""
        value = math.exp(self.generator.uniform(math.log(least), math.log(largest)))
        if self.kind == 0:
            return int(2 ** round(math.log2(value)))
        return int(value) | 1 if self.kind == 1 else max(1, round(value))

    def choice(self, options: Sequence[int]) -> int:
        """One of a few."""
        return options[int(self.generator.integers(len(options)))]


def _matmul(draws: _Draws, limits: Limits) -> Sizes:
    # Networks have a single row (one token, one image), but no single column or product.
    m, n, k = draws.size(1, limits.edge), *(draws.size(min(16, limits.edge), limits.edge) for _ in range(2))
    batched = draws.generator.random() < 1 / 8
    return {"batch": draws.size(2, 64) if batched else 1, "m": m, "n": n, "k": k}


def _convolution(draws: _Draws, limits: Limits) -> Sizes:
    del limits
    inside, outside = draws.size(3, 1024), draws.size(8, 1024)
    depthwise = draws.generator.random() < 1 / 5
    height = draws.size(7, 256)
    kernel = draws.choice((1, 1, 3, 3, 3, 5, 7))
    width = height if draws.generator.random() < 2 / 3 else draws.size(7, 256)
    return {
        "batch": draws.size(1, 64), "in_channels": inside, "out_channels": inside if depthwise else outside,
        "height": height, "width": width, "kernel": kernel, "stride": draws.choice((1, 1, 2)), "padding": kernel // 2,
        "groups": inside if depthwise else 1,
    }  # fmt: skip


def _attention(draws: _Draws, limits: Limits) -> Sizes:
    del limits
    heads = draws.choice((1, 4, 8, 12, 16, 32))
    keys = draws.size(16, 8192)
    form = draws.generator.random()  # one new token, a whole sequence, or a part of one
    causal = int(0.25 <= form < 0.6)
    query = 1 if form < 0.25 else keys if causal else draws.size(1, 8192)
    grouped = draws.generator.random() < 1 / 4 and heads % 4 == 0
    return {
        "batch": draws.size(1, 32), "heads": heads, "query_length": query, "key_length": keys,
        "head_dim": draws.choice((32, 64, 64, 80, 128, 128)), "kv_heads": heads // 4 if grouped else heads, "causal": causal,
    }  # fmt: skip


def _rows(draws: _Draws, limits: Limits) -> Sizes:
    return {"m": draws.size(1, 16 * limits.edge), "n": draws.size(8, 8 * limits.edge)}


def _elements(draws: _Draws, limits: Limits) -> Sizes:
    return {"n": draws.size(64, limits.bytes / 8)}


_KINDS: Mapping[str, Callable[[_Draws, Limits], Sizes]] = {
    "matmul": _matmul, "convolution": _convolution, "attention": _attention, "softmax": _rows, "layer_norm": _rows,
    "gelu": _elements, "relu": _elements, "silu": _elements, "add": _elements, "multiply": _elements,
}  # fmt: skip

OPERATORS: tuple[str, ...] = tuple(_KINDS)
"""Operators that can be measured."""


def sampled_shapes(operators: Sequence[str], count: int, limits: Limits, *, seed: int = 0) -> list[tuple[str, Sizes]]:
    """``count`` shapes, shared out among ``operators``: (operator, sizes), operator by operator.

    An operator's shapes depend on the limits and the seed alone: a longer list begins with the shorter one's.

    Raises:
        InputError: an unknown operator, fewer shapes than operators, limits that leave too few shapes.
    """
    for operator in operators:
        if operator not in _KINDS:
            raise unknown_name("operator", operator, _KINDS)
    if count < len(operators):
        raise InputError(f"shapes: expected at least one for each of {len(operators)} operators, got {count}")
    found = []
    for operator, number in zip(operators, _shared_out(count, [_SHARES.get(name, 1) for name in operators]), strict=True):
        stream = _stream(operator, limits, seed)
        found += [(operator, next(stream)) for _ in range(number)]
    return found


def _shared_out(count: int, shares: Sequence[int]) -> list[int]:
    """Whole numbers ≥ 1 that add up to ``count``, in proportion to ``shares``: each next one goes where most is owed."""
    numbers = [1] * len(shares)
    for _ in range(count - len(shares)):
        owed = [number / share for number, share in zip(numbers, shares, strict=True)]
        numbers[owed.index(min(owed))] += 1
    return numbers


def _stream(operator: str, limits: Limits, seed: int) -> Iterator[Sizes]:
    generator = np.random.default_rng([seed, OPERATORS.index(operator)])
    seen: set[tuple[Any, ...]] = set()
    number = 0
    while True:
        for attempt in range(_ATTEMPTS):
            # Powers of two may all be listed: then as they come.
            kind = number % 3 if attempt < _ATTEMPTS // 4 else 2
            sizes = _KINDS[operator](_Draws(generator, kind), limits)
            if tuple(sizes.values()) not in seen and _fits(operator, sizes, limits):
                break
        else:
            raise InputError(f"shapes: no more than {number} shapes of {operator} within the limits of this backend")
        seen.add(tuple(sizes.values()))
        number += 1
        yield sizes


def _fits(operator: str, sizes: Sizes, limits: Limits) -> bool:
    try:
        workload = single_operator(operator, sizes)
    except InputError:  # a convolution whose kernel is larger than its image
        return False
    return workload.macs <= limits.macs and sum(tensor.bytes for tensor in workload.tensors.values()) <= limits.bytes
