"""What the engine computes: recipes of binary networks, and sums of ±1 and of integers, both exact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from accelerators.binary.spec import BINARY
from numerics.accumulator import Accumulator
from numerics.errors import InputError
from numerics.recipes import Override, Recipe
from numerics.scaling import Scaling

if TYPE_CHECKING:
    from accelerators.binary.spec import BinarySpec


def bnn_recipe(*signs: str) -> Recipe:
    """A binary network: weights and activations are their signs, the first and the last layer integers of 8 bits.

    What lies between two products (normalisation, clipping) reads their sums as they are; the sign is taken where the next one
    reads it. A value of 0 counts as −1.

    Args:
        signs: shell patterns of modules between products that take signs or work on them, one bit each: ``sign`` itself, and
            max-pools behind it.
    """
    integers = {"weight": "int8", "activation": "int8", "accumulator": "int32"}
    formats = {"weight": BINARY, "activation": BINARY, "gradient": "fp32", "accumulator": "fp32", "elementwise": "fp32"}
    overrides = tuple(Override(pattern, {"elementwise": BINARY}, {"elementwise": Scaling("none")}) for pattern in signs)
    return Recipe(
        "bnn",
        formats,
        overrides,
        scaling={"weight": Scaling("none"), "activation": Scaling("none")},
        gradient_estimator="clipped",
        first_and_last=integers,
    )


def sum_format(a: str, b: str) -> str:
    """What sums of such products are stated in: ``int32``, or ``fp32`` where a factor is binary (exact to 2^24 products)."""
    return "fp32" if BINARY in (a, b) else "int32"


def check_sum(device: str, a: str, b: str, accumulator: str) -> None:
    """See that the engine makes such sums.

    Raises:
        InputError: it does not.
    """
    if accumulator != sum_format(a, b):
        raise InputError(
            f"device {device!r}: accumulator: sums of {a}×{b} are exact integers, stated as {sum_format(a, b)}; "
            f"got {accumulator!r}"
        )


def engine_recipe(spec: BinarySpec, recipe: Recipe) -> Recipe:
    """The recipe as the engine computes it: operands in formats that it multiplies, every product added without rounding.

    Raises:
        InputError: formats that the engine neither multiplies nor converts, or sums that it does not make.
    """
    if recipe.accumulation is not None:
        raise InputError(f"device {spec.name!r}: recipe {recipe.name!r}: accumulation: the engine's sums are exact; leave it out")

    def converted(formats: Mapping[str, str]) -> dict[str, str]:
        whole = {**recipe.formats, **formats}
        pair = spec.compute_formats(whole["activation"], whole["weight"])
        check_sum(spec.name, *pair, Recipe("sums", whole).format_for("accumulator"))
        return {role: used for role, used in zip(("activation", "weight"), pair, strict=True) if used != whole[role]}

    ends = recipe.first_and_last
    overrides = tuple(replace(o, formats={**o.formats, **converted(o.formats)}) for o in recipe.overrides)
    return replace(
        recipe,
        formats={**recipe.formats, **converted({})},
        overrides=overrides,
        first_and_last=None if ends is None else {**ends, **converted(ends)},
        accumulation=Accumulator(format=recipe.format_for("accumulator")),
    )
