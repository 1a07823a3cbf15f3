"""What a convolution engine computes: the sums of its multiplier cells and accumulators.

A multiplier cell adds the products of one atomic operation (in a tree: guess); the accumulator adds the cell's sums one after the
other and, for integers, saturates (NVDLA hardware manual, unit description, "Convolution MAC" and "Convolution Accumulator").
There the sums have 34 bits for int8 and 48 for int16, and saturate to 32 as they leave; here they have 32 throughout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from accelerators.convolution_engine.spec import ConvolutionEngineSpec
from numerics.accumulator import Accumulator, get_accumulator
from numerics.errors import InputError
from numerics.formats import IntFormat, get_format
from numerics.recipes import Override, Recipe

SUMS: Mapping[bool, str] = {True: "int32", False: "fp32"}
"""Whether operands are integers → format in which the accumulator delivers."""


def cell_accumulator(spec: ConvolutionEngineSpec, accumulator: str) -> Accumulator:
    """How the engine sums in a format: trees of atomic-C products, then one after the other; integers saturate."""
    fmt = get_format(accumulator)
    overflow = "saturate" if isinstance(fmt, IntFormat) else None
    return Accumulator(format=fmt.name, order="tree", group=spec.mac_array.channels, overflow=overflow)


def engine_recipe(spec: ConvolutionEngineSpec, recipe: Recipe) -> Recipe:
    """The recipe as the engine computes it: operands in formats that its multipliers have, its sums.

    Raises:
        InputError: a pair of formats that it neither multiplies nor converts, or sums that it does not make.
    """
    overrides = []
    for o in recipe.overrides:
        formats = {**recipe.formats, **o.formats}
        converted = _computed(spec, formats)
        overrides.append(Override(o.pattern, {**o.formats, **converted}, o.scaling))
    formats = {**recipe.formats, **_computed(spec, recipe.formats)}
    sums = cell_accumulator(spec, recipe.format_for("accumulator"))
    if recipe.accumulation is not None and get_accumulator(recipe.accumulation) != sums:
        raise InputError(
            f"device {spec.name!r}: recipe {recipe.name!r}: accumulation: the engine sums trees of {sums.group} products one "
            f"after the other; expected none, got {recipe.accumulation!r}"
        )
    return replace(recipe, formats=formats, overrides=tuple(overrides), accumulation=sums)


def _computed(spec: ConvolutionEngineSpec, formats: Mapping[str, str]) -> dict[str, str]:
    """The operands' formats as computed; checks the accumulator."""
    pair = spec.compute_formats(formats["activation"], formats["weight"])
    wanted = SUMS[isinstance(get_format(pair[0]), IntFormat)]
    given = formats.get("accumulator")
    if given is not None and get_format(given).name != wanted:
        raise InputError(f"device {spec.name!r}: accumulator: sums of {pair[0]} are {wanted}; expected {wanted!r}, got {given!r}")
    return {"activation": pair[0], "weight": pair[1]}
