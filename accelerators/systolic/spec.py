"""The spec of a systolic array: what its YAML file may say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from hwsim.memory import Count, MemorySystem, NotNegative, Positive, SpecPart
from hwsim.vector import VectorUnit
from numerics.errors import InputError
from numerics.formats import get_format
from numerics.recipes import Recipe

DATAFLOWS = {
    "ws": "weight_stationary",
    "os": "output_stationary",
    "is": "input_stationary",
}
"""Short names of the dataflows."""

Dataflow = Annotated[
    Literal["weight_stationary", "output_stationary", "input_stationary"],
    BeforeValidator(lambda value: DATAFLOWS.get(value, value) if isinstance(value, str) else value),
]


class Timing(SpecPart):
    """How folds follow one another in the array.

    Attributes:
        fold_overlap: ``none``: a fold starts when the one before has left the array; ``weights``: the next fold's stationary
            operand is loaded meanwhile; ``full``: its operands also stream right behind. Output-stationary arrays load nothing
            beforehand, so that ``weights`` is ``none`` for them.
        output_drain: ``hidden``: results leave beside the computation; ``shift``: an output-stationary array shifts them out
            row by row afterwards. In the other dataflows results leave at the bottom and the field has no effect.
        mac_latency_cycles: cycles from a processing element's operands to its sum.
    """

    fold_overlap: Literal["none", "weights", "full"] = "none"
    output_drain: Literal["hidden", "shift"] = "hidden"
    mac_latency_cycles: Count = 1


TIMINGS: Mapping[str, Timing] = {
    "scale_sim": Timing(fold_overlap="none", output_drain="hidden"),
    "double_buffered": Timing(fold_overlap="weights", output_drain="hidden"),
    "back_to_back": Timing(fold_overlap="full", output_drain="hidden"),
    "rtl": Timing(fold_overlap="full", output_drain="shift"),
}
"""Named settings. ``scale_sim`` is the array that SCALE-Sim models, ``rtl`` that of ``systolic_ws`` and ``systolic_os``."""


class ArraySpec(SpecPart):
    """The array of processing elements.

    Attributes:
        rows, columns: size. Weight-stationary: k along rows, n along columns; output-stationary: m along rows, n along
            columns; input-stationary: k along rows, m along columns.
        dataflow: which operand stays in the array (``ws``, ``os``, ``is`` for short).
        timing: how folds follow one another; a name of ``TIMINGS`` or its fields.
        group_packing: ``block_diagonal`` lays several small groups (of a depthwise convolution, of a batch) into one fold,
            with zeros between them; ``none`` gives each a fold of its own.
    """

    rows: Count
    columns: Count
    dataflow: Dataflow
    timing: Timing = Timing()
    group_packing: Literal["none", "block_diagonal"] = "none"

    @field_validator("timing", mode="before")
    @classmethod
    def _named_timing(cls, value: Any) -> Any:
        if isinstance(value, str):
            if value not in TIMINGS:
                raise ValueError(f"unknown timing {value!r}; known: {', '.join(TIMINGS)}")
            return TIMINGS[value]
        return value


class MacFormat(SpecPart):
    """What a multiply-accumulate in one pair of formats takes.

    Attributes:
        cycles_per_mac: cycles a processing element is taken.
        energy_pj: energy of one.
    """

    cycles_per_mac: Count = 1
    energy_pj: NotNegative


class Conversion(SpecPart):
    """What converting one element on the vector unit takes, beyond reading and writing it."""

    cycles_per_element: NotNegative
    energy_pj_per_element: NotNegative


class Calibration(SpecPart):
    """A fitted field: what was fitted, to which data."""

    data: str
    fields: tuple[str, ...]


class SystolicSpec(SpecPart):
    """A systolic array with its buffers, memory and vector unit.

    Attributes:
        kind: ``systolic_array``.
        name: name of the device.
        summary: one line on what it is and where its figures come from.
        clock_hz: clock of array, buffers and vector unit.
        array: the processing elements.
        mac_formats: ``"int8"`` (both operands) or ``"bf16*int8"`` → what a MAC takes.
        default_formats: formats by role that apply when the workload has no recipe.
        conversions: ``"fp32->int8"`` → what a conversion takes; pairs not listed are errors.
        memory: buffers and off-chip memory.
        vector_unit: for everything that is no matrix product.
        static_power_w: power whenever it is on.
        launch_overhead_cycles: fixed cycles to start an operator (a group of operators that run together).
        energy_source: node and source of the energies above.
        calibrated: fitted fields, by name of the fit.
    """

    kind: Literal["systolic_array"]
    name: str
    summary: str = ""
    clock_hz: Positive
    array: ArraySpec
    mac_formats: Mapping[str, MacFormat] = Field(min_length=1)
    default_formats: Mapping[str, str]
    conversions: Mapping[str, Conversion] = Field(default_factory=dict)
    memory: MemorySystem
    vector_unit: VectorUnit
    static_power_w: NotNegative = 0.0
    launch_overhead_cycles: NotNegative = 0.0
    energy_source: str
    calibrated: Mapping[str, Calibration] = Field(default_factory=dict)

    @field_validator("mac_formats")
    @classmethod
    def _known_formats(cls, value: Mapping[str, MacFormat]) -> Mapping[str, MacFormat]:
        return {"*".join(get_format(part).name for part in key.split("*")): mac for key, mac in value.items()}

    @field_validator("conversions")
    @classmethod
    def _known_conversions(cls, value: Mapping[str, Conversion]) -> Mapping[str, Conversion]:
        found = {}
        for key, conversion in value.items():
            source, arrow, target = key.partition("->")
            if not arrow:
                raise ValueError(f'{key!r} must read "from->to", such as "fp32->int8"')
            found[f"{get_format(source).name}->{get_format(target).name}"] = conversion
        return found

    @model_validator(mode="after")
    def _defaults_run(self) -> SystolicSpec:
        recipe = self.default_recipe
        pair = recipe.format_for("activation"), recipe.format_for("weight")
        if self.mac_format(*pair) is None:
            raise ValueError(f"default_formats: {'*'.join(pair)} is not among mac_formats ({', '.join(self.mac_formats)})")
        return self

    @model_validator(mode="after")
    def _fitted_fields_exist(self) -> SystolicSpec:
        for name, fit in self.calibrated.items():
            for field in fit.fields:
                place: Any = self
                for part in field.split("."):
                    place = place.get(part) if isinstance(place, Mapping) else getattr(place, part, None)
                    if place is None:
                        raise ValueError(f"calibrated.{name}.fields: there is no field {field!r}")
        return self

    @property
    def default_recipe(self) -> Recipe:
        """The recipe of ``default_formats``."""
        return Recipe("default", dict(self.default_formats))

    def mac_format(self, a: str, b: str) -> MacFormat | None:
        """What a MAC on operands in these formats takes; None if the array has no such MAC."""
        if a == b and a in self.mac_formats:
            return self.mac_formats[a]
        return self.mac_formats.get(f"{a}*{b}") or self.mac_formats.get(f"{b}*{a}")

    def compute_formats(self, a: str, b: str) -> tuple[str, str]:
        """The pair in which a product of ``a`` and ``b`` is computed: as given, or with one operand converted.

        Raises:
            InputError: the array has no MAC for the pair and no conversion that leads to one.
        """
        if self.mac_format(a, b) is not None:
            return a, b
        for pair, change in (((a, a), f"{b}->{a}"), ((b, b), f"{a}->{b}")):
            if self.mac_format(*pair) is not None and change in self.conversions:
                return pair
        for target in self.mac_formats:
            if "*" in target:
                continue
            if all(x == target or f"{x}->{target}" in self.conversions for x in (a, b)):
                return target, target
        raise InputError(
            f"device {self.name!r}: no multiply-accumulate for {a}×{b} (mac_formats: {', '.join(self.mac_formats)}) and no "
            f"conversion to one (conversions: {', '.join(self.conversions) or 'none'})"
        )
