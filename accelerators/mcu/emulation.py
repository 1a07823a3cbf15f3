"""What the cores compute: their formats, and sums one product after another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from numerics.accumulator import Accumulator, get_accumulator
from numerics.errors import InputError
from numerics.formats import FloatFormat, IntFormat, get_format
from numerics.recipes import Override, Recipe

if TYPE_CHECKING:
    from accelerators.mcu.spec import McuClusterSpec


def own_sums(spec: McuClusterSpec, pair: tuple[str, str]) -> Accumulator:
    """How the cores sum products of these formats.

    Integers: exact, in 32-bit registers that wrap, so that their order has no effect. Floats: in the operands' format, one after
    another, rounded to nearest even; where multiply and add are two instructions the product is rounded before it is added.
    """
    fmt = get_format(pair[0])
    if isinstance(fmt, FloatFormat):
        mac = spec.mac_format(*pair)
        return Accumulator(format=fmt.name, product="exact" if mac.fused else fmt.name)
    return Accumulator(format="int32")


def check_sums(spec: McuClusterSpec, pair: tuple[str, str], accumulator: str) -> None:
    """See that the cores make sums of this format.

    Raises:
        InputError: they do not.
    """
    own = get_format(own_sums(spec, pair).format)
    wanted = get_format(accumulator)
    if wanted.name != own.name:
        raise InputError(
            f"device {spec.name!r}: accumulator: sums of {pair[0]}×{pair[1]} are made in {own.name}, got {wanted.name!r}"
        )


def cluster_recipe(spec: McuClusterSpec, recipe: Recipe) -> Recipe:
    """The recipe as the cores compute it: operands in formats that they multiply, sums in their order.

    Raises:
        InputError: a pair of formats that the cores neither multiply nor convert, sums that they do not make.
    """
    pair = spec.compute_formats(recipe.formats["activation"], recipe.formats["weight"])
    check_sums(spec, pair, recipe.format_for("accumulator"))
    sums = own_sums(spec, pair)
    if recipe.accumulation is not None:
        asked = get_accumulator(recipe.accumulation)
        if asked != sums and not _same_integers(asked, sums):
            raise InputError(
                f"device {spec.name!r}: recipe {recipe.name!r}: accumulation: the cores add one product after another in "
                f"{get_format(sums.format).name} (product {_name(sums.product)}); got {asked!r}"
            )
    overrides = []
    for o in recipe.overrides:
        formats = {**recipe.formats, **o.formats}
        used = spec.compute_formats(formats["activation"], formats["weight"])
        if own_sums(spec, used) != sums:
            raise InputError(
                f"device {spec.name!r}: recipe {recipe.name!r}: overrides: {o.pattern!r} computes in {used[0]}×{used[1]}, whose "
                f"sums differ from those of {pair[0]}×{pair[1]}; give it a recipe of its own"
            )
        overrides.append(Override(o.pattern, {**o.formats, **_changed(formats, used)}, o.scaling))
    return replace(
        recipe, formats={**recipe.formats, **_changed(recipe.formats, pair)}, overrides=tuple(overrides), accumulation=sums
    )


def _changed(formats: Mapping[str, str], pair: tuple[str, str]) -> dict[str, str]:
    return {role: used for role, used in zip(("activation", "weight"), pair, strict=True) if used != formats[role]}


def _same_integers(asked: Accumulator, own: Accumulator) -> bool:
    """Whether both are wrapping integer sums of one width: their order has no effect."""
    a, b = get_format(asked.format), get_format(own.format)
    return isinstance(a, IntFormat) and a.name == b.name and asked.overflow in (None, "wrap")


def _name(product: str | FloatFormat) -> str:
    return product if isinstance(product, str) else product.name
