"""What a systolic array computes: its formats, and its sums in the order in which its folds make them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from accelerators.systolic.spec import ArraySpec, SystolicSpec
from numerics.accumulator import Accumulator
from numerics.recipes import Override, Recipe

if TYPE_CHECKING:
    from accelerators.systolic.cycle import ArrayRun, Fault
    from numerics.emulation import Emulation
    from numerics.formats import Format


def fold_accumulator(array: ArraySpec, accumulator: str) -> Accumulator:
    """How the array sums the products of one result, in sums of the format ``accumulator``.

    Weight- and input-stationary: k lies along the rows, so that each fold sums ``rows`` products down a column, from zero, and
    the folds' sums are added to the stored one in their order. Output-stationary: each processing element adds its products
    one after another. Every addition is rounded to nearest even; integers wrap.
    """
    if array.dataflow == "output_stationary":
        return Accumulator(format=accumulator)
    return Accumulator(format=accumulator, order="systolic", group=array.rows)


def array_recipe(spec: SystolicSpec, recipe: Recipe) -> Recipe:
    """The recipe as the array computes it: operands in formats that its MACs have, sums in its order.

    Raises:
        InputError: a pair of formats that the array neither multiplies nor converts.
    """
    overrides = []
    for o in recipe.overrides:
        converted = _converted(spec, {**recipe.formats, **o.formats})
        overrides.append(Override(o.pattern, {**o.formats, **converted}, o.scaling))
    formats = {**recipe.formats, **_converted(spec, recipe.formats)}
    chosen = recipe.accumulation or fold_accumulator(spec.array, recipe.format_for("accumulator"))
    return replace(recipe, formats=formats, overrides=tuple(overrides), accumulation=chosen)


def _converted(spec: SystolicSpec, formats: Mapping[str, str]) -> dict[str, str]:
    """The operands that are converted before they are multiplied, and the formats they are converted to."""
    pair = spec.compute_formats(formats["activation"], formats["weight"])
    return {role: used for role, used in zip(("activation", "weight"), pair, strict=True) if used != formats[role]}


def emulate(spec: SystolicSpec, module: Any, recipe: Recipe, **options: Any) -> Emulation:
    """``numerics.emulate`` with the array's formats and sums."""
    import numerics

    return numerics.emulate(module, array_recipe(spec, recipe), **options)


@dataclass(frozen=True)
class ArrayProduct:
    """A matrix product that ran on the cycle-level array.

    Attributes:
        module: path of the module that asked for it.
        shape: batch, m, n, k.
        run: cycles and activity; its outputs are not kept.
    """

    module: str
    shape: tuple[int, int, int, int]
    run: ArrayRun


@dataclass
class ArrayUnit:
    """The cycle-level array as the matrix unit of an emulation.

    Attributes:
        spec: of the device.
        faults: in its registers, in every product; the cycle of a flip counts from the product's first.
        products: those that it ran, in order.
    """

    spec: SystolicSpec
    faults: tuple[Fault, ...] = ()
    products: list[ArrayProduct] = field(default_factory=list)

    def __call__(self, a: Any, b: Any, *, accumulator: Accumulator, a_format: Format, b_format: Format, module: str) -> Any:
        """``a @ b`` of arrays (…, M, K) and (…, K, N), bit for bit as ``numerics.matmul``."""
        from math import prod

        import numpy as np

        from accelerators.systolic.cycle import simulate_matmul

        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        (m, k), n, count = a.shape[-2:], b.shape[-1], prod(batch)
        if b.ndim == 2:
            # One matrix for all: the rows of the batch are rows of one product.
            left, right = a.reshape(1, -1, k), b[None]
        else:
            left = np.broadcast_to(a, (*batch, m, k)).reshape(count, m, k)
            right = np.broadcast_to(b, (*batch, k, n)).reshape(count, k, n)
        mac = self.spec.mac_format(a_format.name, b_format.name)
        run = simulate_matmul(
            left, right, array=self.spec.array, a_format=a_format, b_format=b_format, accumulator=accumulator,
            cycles_per_mac=1 if mac is None else mac.cycles_per_mac, faults=self.faults,
        )  # fmt: skip
        self.products.append(ArrayProduct(module, (*left.shape[:2], n, k), replace(run, outputs=run.outputs[:0])))
        return run.outputs.reshape(*batch, m, n)
