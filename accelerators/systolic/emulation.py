"""What a systolic array computes: its formats, and its sums in the order in which its folds make them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from accelerators.systolic.spec import ArraySpec, SystolicSpec
from numerics.accumulator import Accumulator
from numerics.recipes import Override, Recipe

if TYPE_CHECKING:
    from numerics.emulation import Emulation


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
