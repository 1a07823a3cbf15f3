"""What a systolic array computes: its formats, and its sums in the order in which its folds make them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from accelerators.systolic.spec import ArraySpec, SystolicSpec
from hwsim.views.display import displayed
from numerics.accumulator import Accumulator, get_accumulator
from numerics.errors import InputError
from numerics.formats import IntFormat
from numerics.mac import mac_plan
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
        InputError: a pair of formats that the array neither multiplies nor converts, sums that it does not make.
    """
    overrides = []
    for o in recipe.overrides:
        converted = _converted(spec, {**recipe.formats, **o.formats})
        overrides.append(Override(o.pattern, {**o.formats, **converted}, o.scaling))
    formats = {**recipe.formats, **_converted(spec, recipe.formats)}
    sums = fold_accumulator(spec.array, recipe.format_for("accumulator"))
    if recipe.accumulation is not None:
        sums = _in_order(spec, get_accumulator(recipe.accumulation), recipe.name)
    return replace(recipe, formats=formats, overrides=tuple(overrides), accumulation=sums)


def _in_order(spec: SystolicSpec, accumulator: Accumulator, recipe: str) -> Accumulator:
    """An accumulator that adds one product at a time, in the order in which the array does."""
    own = fold_accumulator(spec.array, "fp32")
    other = accumulator.order == "systolic" and accumulator.group != own.group
    if accumulator.order not in ("sequential", "systolic") or accumulator.promotion or accumulator.compensated or other:
        raise InputError(
            f"device {spec.name!r}: recipe {recipe!r}: accumulation: the array adds one product at a time, in the order of its "
            f"folds; expected order 'sequential' without promotion or compensation, got {accumulator.order!r}"
            f"{f' of {accumulator.group}' if other else ''}"
        )
    return replace(accumulator, order=own.order, group=own.group)


def _converted(spec: SystolicSpec, formats: Mapping[str, str]) -> dict[str, str]:
    """The operands that are converted before they are multiplied, and the formats they are converted to."""
    pair = spec.compute_formats(formats["activation"], formats["weight"])
    return {role: used for role, used in zip(("activation", "weight"), pair, strict=True) if used != formats[role]}


def emulate(spec: SystolicSpec, module: Any, recipe: Recipe, **options: Any) -> Emulation:
    """``numerics.emulate`` with the array's formats and sums."""
    import numerics

    chosen = array_recipe(spec, recipe)
    if options.get("matrix_unit") is not None:
        mac_plan(cast(Accumulator, chosen.accumulation))  # the cycle-level array draws no random bits
    return numerics.emulate(module, chosen, **options)


@displayed
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


@displayed
@dataclass
class ArrayUnit:
    """The cycle-level array as the matrix unit of an emulation: one of a device's arrays, since each sums alike.

    Attributes:
        spec: of the device.
        faults: in its registers, in every product; the cycle of a flip counts from the product's first.
        products: those that it ran, in order.
    """

    spec: SystolicSpec
    faults: tuple[Fault, ...] = ()
    products: list[ArrayProduct] = field(default_factory=list)

    def __call__(self, a: Any, b: Any, *, accumulator: Accumulator, a_format: Format, b_format: Format, module: str) -> Any:
        """``a @ b`` of arrays (…, M, K) and (…, K, N), bit for bit as ``numerics.matmul``.

        Integers of an asymmetric format come without their zero point, and take a bit more.
        """
        import numpy as np

        from accelerators.systolic.cycle import control_cycles, simulate_matmul
        from numerics.mac import returned

        shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
        if 0 in (*shape, a.shape[-1]):
            return returned(np.zeros(shape), accumulator)
        left, right = as_products(a, b)
        (count, m, k), n = left.shape, right.shape[-1]
        mac = self.spec.mac_format(a_format.name, b_format.name)
        # Several products an element makes in a cycle are made one after another here.
        steps = 1 if mac is None else math.ceil(mac.cycles_per_mac)
        formats = [widened(v, fmt) for v, fmt in ((left, a_format), (right, b_format))]
        length = control_cycles(m, n, k, array=self.spec.array, batch=count, cycles_per_mac=steps) if self.faults else 0
        run = simulate_matmul(
            left, right, array=self.spec.array, a_format=formats[0], b_format=formats[1], accumulator=accumulator,
            cycles_per_mac=steps, faults=[f for f in self.faults if f.cycle is None or f.cycle < length],
        )  # fmt: skip
        self.products.append(ArrayProduct(module, (count, m, n, k), replace(run, outputs=run.outputs[:0])))
        return run.outputs.reshape(shape)


def as_products(a: Any, b: Any) -> tuple[Any, Any]:
    """Arrays (…, M, K) and (…, K, N) that broadcast, as products one after the other: (count, m, k) and (count, k, n)."""
    import numpy as np

    batch, k = np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-1]
    if b.ndim == 2:
        # One matrix for all: the rows of the batch are rows of one product.
        return a.reshape(1, -1, k), b[None]
    left = np.broadcast_to(a, (*batch, *a.shape[-2:])).reshape(-1, a.shape[-2], k)
    return left, np.broadcast_to(b, (*batch, *b.shape[-2:])).reshape(-1, k, b.shape[-1])


def widened(values: Any, fmt: Format) -> Format:
    """The format, or that of one bit more where integers do not fit it."""
    if isinstance(fmt, IntFormat) and not (fmt.code_min <= values.min() and values.max() <= fmt.code_max):
        return IntFormat(f"int{fmt.bits + 1}", fmt.bits + 1)
    return fmt
