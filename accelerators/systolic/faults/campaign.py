"""Fault campaigns on a systolic array: which bits of its registers are stuck is drawn anew for each trial.

The trials, their looks and intervals are those of ``hwsim.faults``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from accelerators.systolic.cycle import Fault, registers
from accelerators.systolic.faults.unit import FaultyArrayUnit
from hwsim.faults.campaign import fingerprint_of, hash_of
from hwsim.faults.machines import MapSubject, checked_scenarios
from hwsim.faults.network import MapOutcome, NetworkUnderTest, refusing_data
from hwsim.faults.statistics import MeanMethod
from hwsim.faults.trials import TrialCampaign
from hwsim.views.display import displayed
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    import torch

    from accelerators.systolic.device import SystolicArray
    from numerics.emulation import Emulation
    from numerics.recipes import Recipe

KINDS = ("stuck_at_0", "stuck_at_1")


@displayed
@dataclass(frozen=True, kw_only=True)
class ArrayFaults:
    """Stuck bits in the registers of an array: so many, each bit of each register as likely as any other, none twice.

    Attributes:
        count: stuck bits.
        kinds: what they are stuck at, alike likely.
        registers: names of the registers that fail (``accelerators.systolic.cycle.registers``); None for all that the array has.

    Raises:
        InputError: a count below 1, no kinds or others than ``stuck_at_0`` and ``stuck_at_1``.
    """

    count: int = 1
    kinds: tuple[str, ...] = KINDS
    registers: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.count, int) or isinstance(self.count, bool) or self.count < 1:
            raise InputError(f"count: expected an integer ≥ 1, got {self.count!r}")
        if not self.kinds:
            raise InputError(f"kinds: expected some of {', '.join(KINDS)}, got none")
        for kind in self.kinds:
            if kind not in KINDS:
                raise unknown_name("kinds", kind, KINDS)

    def draw(self, widths: Mapping[str, int], *, rows: int, columns: int, seed: int) -> tuple[Fault, ...]:
        """The stuck bits that a seed gives.

        Args:
            widths: bits of each register of an element.
            rows, columns: of the array.

        Raises:
            InputError: a register that the array has not, more bits than it has.
        """
        names = tuple(widths) if self.registers is None else self.registers
        for name in names:
            if name not in widths:
                raise unknown_name("registers", name, widths)
        bits = [(name, bit) for name in names for bit in range(widths[name])]
        total = len(bits) * rows * columns
        if self.count > total:
            raise InputError(f"count: expected at most the {total} bits of these registers, got {self.count}")
        rng = np.random.Generator(np.random.Philox(seed))
        places = rng.choice(total, self.count, replace=False)
        kinds = rng.integers(len(self.kinds), size=self.count)
        found = []
        for place, kind in zip(places.tolist(), kinds.tolist(), strict=True):
            element, which = divmod(place, len(bits))
            name, bit = bits[which]
            row, column = divmod(element, columns)
            found.append(Fault(kind=self.kinds[kind], register=name, row=row, column=column, bit=bit))
        return tuple(found)


def register_widths(unit: FaultyArrayUnit, recipe: Recipe) -> dict[str, int]:
    """Bits of each register of an element that computes a recipe: an operand's, or a sum's."""
    from numerics.accumulator import get_accumulator
    from numerics.faults import code_bits
    from numerics.formats import get_format

    array = unit.spec.array
    assert recipe.accumulation is not None
    sums = get_accumulator(recipe.accumulation).format
    hidden = array.timing.output_drain == "hidden"
    found = {}
    for name in registers(array.dataflow):
        if name == "drain" and hidden:
            continue
        fmt = sums if name in ("sum", "drain") else recipe.format_for(name.partition("_")[0])
        found[name] = code_bits(get_format(fmt))
    return found


class ArrayUnderTest(NetworkUnderTest):
    """A network on an array whose ``matrix_unit`` is a ``FaultyArrayUnit``; otherwise as ``NetworkUnderTest``."""

    def run_map(self, faults: Any, *, protections: Sequence[Any] = (), seed: int = 0) -> MapOutcome:
        """What all images come to with the stuck bits that this seed gives (``ArrayFaults``)."""
        unit = self.emulation.matrix_unit
        assert isinstance(unit, FaultyArrayUnit)
        array = unit.spec.array
        widths = register_widths(unit, self.emulation.recipe)
        unit.faults = faults.draw(widths, rows=array.rows, columns=array.columns, seed=seed)
        try:
            return replace(super().run_map(()), faulty_bits=len(unit.faults))
        finally:
            unit.faults = ()


@dataclass(frozen=True, kw_only=True)
class _Subject(MapSubject):
    emulation: Emulation
    inputs: Any
    labels: Any
    batch: int

    def network(self) -> ArrayUnderTest:
        return ArrayUnderTest(self.emulation, self.inputs, self.labels, batch=self.batch)


class ArrayCampaign(TrialCampaign):
    """A network on a systolic array, its data, and the stuck bits that are tried on it.

    Args:
        device: whose array computes the products.
        module: the network.
        data: inputs, or a pair (inputs, labels); as of ``hwsim.faults.Campaign``.
        faults: scenario → ``ArrayFaults``.
        recipe: number formats; the device's own if not given. Static scales are calibrated on the data's inputs.
        margin: half the width of the interval of each scenario's mean score that ends the campaign.
        confidence, seed, first, maximum, interval, batch: as of ``hwsim.faults.Campaign``.

    ``run`` and ``result`` are those of ``hwsim.faults.Campaign``; a trial's faulty bits are the stuck ones.

    Raises:
        InputError: something of another kind, registers that the array has not, numbers out of range.
    """

    def __init__(
        self,
        device: SystolicArray,
        module: torch.nn.Module,
        data: Any,
        faults: Mapping[str, ArrayFaults],
        *,
        recipe: str | Recipe | None = None,
        margin: float = 0.05,
        confidence: float = 0.95,
        seed: int = 0,
        first: int | None = None,
        maximum: int | None = None,
        interval: MeanMethod = "bernstein",
        batch: int = 256,
    ) -> None:
        import numerics
        from accelerators.systolic.device import SystolicArray
        from accelerators.systolic.emulation import array_recipe

        if not isinstance(device, SystolicArray):
            raise InputError(f"device: expected a systolic array, got {type(device).__name__}")
        hint = "; what given faults do shows one run with FaultyArrayUnit"
        scenarios = checked_scenarios(faults, ArrayFaults, hint)
        chosen = array_recipe(device.spec, numerics.get_recipe(recipe or device.spec.default_recipe))
        emulation = numerics.emulate(module, chosen, matrix_unit=FaultyArrayUnit(device.spec)).eval()
        inputs, labels = data if isinstance(data, tuple | list) and len(data) == 2 else (data, None)
        if any(scaling.update == "static" for scaling in emulation.recipe.scaling.values()):
            with refusing_data(inputs):
                numerics.calibrate(emulation, [inputs])
        subject = _Subject(emulation=emulation, inputs=inputs, labels=labels, batch=batch, scenarios=scenarios, seed=seed)
        super().__init__(subject, margin=margin, confidence=confidence, first=first, maximum=maximum, interval=interval)
        array, widths = device.spec.array, register_widths(FaultyArrayUnit(device.spec), emulation.recipe)
        for _, some in subject.scenarios:
            some.draw(widths, rows=array.rows, columns=array.columns, seed=0)

    def _described(self) -> dict[str, Any]:
        subject: _Subject = self.subject
        return subject.described(
            model=fingerprint_of(subject.emulation),
            recipe=subject.emulation.recipe.name,
            data=hash_of([subject.inputs, subject.labels]),
            batch=subject.batch,
        )
