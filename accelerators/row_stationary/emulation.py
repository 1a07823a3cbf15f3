"""What the array computes: 16-bit products of 16-bit numbers, summed in 16 bits.

A PE multiplies 16 by 16 bits, keeps 16 of the 32 bits of the product and adds them to a partial sum of 16 bits. Which bits it
keeps is set for each layer beforehand (Chen et al., JSSC 2017, section V-C); here, the highest for which no sum overflows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from accelerators.row_stationary.spec import RowStationarySpec
from numerics.accumulator import Accumulator
from numerics.errors import InputError
from numerics.recipes import Recipe

if TYPE_CHECKING:
    from numerics.formats import Format

SUM = "int16"
"""Format of partial sums."""


def check_sum(device: str, accumulator: str) -> None:
    """See that sums are of the array's format.

    Raises:
        InputError: they are not.
    """
    if accumulator != SUM:
        raise InputError(f"device {device!r}: accumulator: the array sums in {SUM}; expected {SUM!r}, got {accumulator!r}")


def truncating_recipe(spec: RowStationarySpec, recipe: Recipe) -> Recipe:
    """The recipe as the array computes it: operands in formats that its MACs have, truncated products summed in 16 bits.

    Raises:
        InputError: a pair of formats that the array does not multiply, another accumulator.
    """
    overrides = []
    for override in recipe.overrides:
        formats = {**recipe.formats, **override.formats}
        pair = spec.compute_formats(formats["activation"], formats["weight"])
        check_sum(spec.name, override.formats.get("accumulator", SUM))
        overrides.append(replace(override, formats={**override.formats, "activation": pair[0], "weight": pair[1]}))
    pair = spec.compute_formats(recipe.format_for("activation"), recipe.format_for("weight"))
    check_sum(spec.name, recipe.format_for("accumulator"))
    if recipe.accumulation is not None:
        raise InputError(
            f"device {spec.name!r}: recipe {recipe.name!r}: accumulation: the array truncates products and sums them in {SUM}; "
            f"expected none, got {recipe.accumulation!r}"
        )
    formats = {**recipe.formats, "activation": pair[0], "weight": pair[1]}
    return replace(recipe, formats=formats, overrides=tuple(overrides), accumulation=Accumulator(format=SUM))


def truncated_sums(a: Any, b: Any, shift: int) -> Any:
    """``Σ_k ⌊a[…, m, k] · b[…, k, n] / 2^shift⌋``: the definition, of integers (…, M, K) and (…, K, N)."""
    products = a.astype(np.int64)[..., :, :, None] * b.astype(np.int64)[..., None, :, :]
    return (products >> shift).sum(axis=-2)


@dataclass
class TruncatingUnit:
    """The PEs as the matrix unit of an emulation.

    Attributes:
        shifts: of each product so far: its module and how many low bits were dropped.
    """

    shifts: list[tuple[str, int]] = field(default_factory=list)

    def __call__(self, a: Any, b: Any, *, accumulator: Accumulator, a_format: Format, b_format: Format, module: str) -> Any:
        """``a @ b`` of arrays (…, M, K) and (…, K, N), from truncated products; multiples of 2^shift."""
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        left = np.broadcast_to(a, (*batch, *a.shape[-2:])).astype(np.int64)
        right = np.broadcast_to(b, (*batch, *b.shape[-2:])).astype(np.int64)
        if 0 in (*batch, left.shape[-2], right.shape[-1]):
            return np.zeros((*batch, left.shape[-2], right.shape[-1]))
        shift, sums = fitting_sums(left, right)
        self.shifts.append((module, shift))
        return np.ldexp(sums.astype(np.float64), shift)


def fitting_sums(a: Any, b: Any) -> tuple[int, Any]:
    """(shift, sums) for the smallest shift whose sums fit 16 bits. What passes 16 bits on the way does no harm: it wraps, and
    wraps back."""
    from accelerators.row_stationary._sum_kernels import truncated_sums as run

    rows, columns = np.ascontiguousarray(a), np.ascontiguousarray(np.swapaxes(b, -1, -2))
    largest = int(np.abs(np.matmul(a, b)).max())
    shift = max(0, largest.bit_length() - 15)
    sums = np.zeros((*a.shape[:-1], b.shape[-1]), dtype=np.int64)
    while True:
        for place in np.ndindex(*a.shape[:-2]):
            run(rows[place], columns[place], shift, sums[place])
        if sums.min() >= -(2**15) and sums.max() < 2**15:
            return shift, sums
        shift += 1
