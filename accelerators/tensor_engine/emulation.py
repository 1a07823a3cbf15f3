"""What a tensor engine computes: its formats, and its sums as its matrix units make them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from accelerators.tensor_engine.spec import EngineFormat, TensorEngineSpec, accumulator_of
from numerics.accumulator import Accumulator, get_accumulator
from numerics.errors import InputError
from numerics.recipes import Override, Recipe

if TYPE_CHECKING:
    from numerics.formats import Format


def sums_in(spec: TensorEngineSpec, mac: EngineFormat, pair: tuple[str, str], stated: str) -> Accumulator:
    """The accumulator with which products of ``pair`` are summed where ``stated`` is asked for.

    Raises:
        InputError: the engine has no sums in that format for the pair.
    """
    if stated not in mac.accumulators:
        raise InputError(
            f"device {spec.name!r}: products of {'×'.join(pair)} are summed in {' or '.join(mac.accumulators)}, not in {stated!r}"
        )
    return accumulator_of(mac.accumulators[stated])


def any_operands(accumulator: Accumulator) -> Accumulator:
    """The accumulator without its restriction to operands of one format."""
    return replace(accumulator, a_formats=(), b_formats=())


def engine_recipe(spec: TensorEngineSpec, recipe: Recipe) -> Recipe:
    """The recipe as the engine computes it: operands in formats that it multiplies, sums as its units make them.

    Raises:
        InputError: a pair of formats that the engine neither multiplies nor converts, sums that it does not make.
    """
    overrides = []
    for o in recipe.overrides:
        formats = {**recipe.formats, **o.formats}
        overrides.append(Override(o.pattern, {**o.formats, **_converted(spec, formats)}, o.scaling))
    computed = {**recipe.formats, **_converted(spec, recipe.formats)}
    first, *others = [any_operands(sums) for sums in _sums(spec, recipe)]
    if recipe.accumulation is not None:
        asked = get_accumulator(recipe.accumulation)
        if any(any_operands(replace(asked, promotion=None)) != own for own in (first, *others)):
            raise InputError(
                f"device {spec.name!r}: recipe {recipe.name!r}: accumulation: expected that of the device's matrix units "
                f"(order {first.order!r}, group {first.group}), promoted or not, got {recipe.accumulation!r}"
            )
        first = any_operands(asked)
    return replace(recipe, formats=computed, overrides=tuple(overrides), accumulation=first)


def _sums(spec: TensorEngineSpec, recipe: Recipe) -> Iterator[Accumulator]:
    """The accumulator of the recipe, then those of its overrides."""
    for formats in (recipe.formats, *({**recipe.formats, **o.formats} for o in recipe.overrides)):
        pair = spec.compute_formats(formats["activation"], formats["weight"])
        stated = Recipe("part", formats).format_for("accumulator")
        yield sums_in(spec, spec.mac_format(*pair), pair, stated)


def _converted(spec: TensorEngineSpec, formats: Mapping[str, str]) -> dict[str, str]:
    """The operands that are converted before they are multiplied, and the formats they are converted to."""
    pair = spec.compute_formats(formats["activation"], formats["weight"])
    return {role: used for role, used in zip(("activation", "weight"), pair, strict=True) if used != formats[role]}


def one_unit(spec: TensorEngineSpec, recipe: Recipe) -> bool:
    """Whether one accumulator serves all modules of a recipe."""
    found = {any_operands(sums) for sums in _sums(spec, recipe)}
    return len(found) == 1


@dataclass
class EngineUnits:
    """The matrix units of an engine as those of an emulation: each pair of formats is summed by its own accumulator.

    Attributes:
        spec: of the device.
    """

    spec: TensorEngineSpec

    def __call__(self, a: Any, b: Any, *, accumulator: Accumulator, a_format: Format, b_format: Format, module: str) -> Any:
        """``a @ b`` of arrays (…, M, K) and (…, K, N)."""
        import numerics
        from numerics.formats import get_format

        pair = self.spec.compute_formats(a_format.name, b_format.name)
        mac = self.spec.mac_format(*pair)
        asked = get_format(accumulator.format).name
        own = mac.accumulators.get(asked) or next(iter(mac.accumulators.values()))
        return numerics.matmul(a, b, accumulator=replace(any_operands(accumulator_of(own)), promotion=accumulator.promotion))
