"""What a device's spec may say: the parts all share, their validation, and the values fitted to measurements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from hwsim.views.display import displayed_by
from numerics.errors import InputError, nearest_names
from numerics.formats import get_format
from numerics.recipes import Recipe


def _no_truth_value(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("input should be a number")
    return value


LARGEST = 1e60
"""Beyond any machine; a bound keeps sums and products of such numbers finite."""


def _not_absurd(value: float) -> float:
    if value > LARGEST or 0 < value < 1 / LARGEST:
        raise ValueError(f"input should lie between {1 / LARGEST:g} and {LARGEST:g}")
    return value


Positive = Annotated[float, BeforeValidator(_no_truth_value), Field(gt=0, allow_inf_nan=False), AfterValidator(_not_absurd)]
"""A finite number above zero."""
NotNegative = Annotated[float, BeforeValidator(_no_truth_value), Field(ge=0, allow_inf_nan=False), AfterValidator(_not_absurd)]
"""A finite number, zero or above."""
Fraction = Annotated[float, BeforeValidator(_no_truth_value), Field(gt=0, le=1)]
"""A share: above zero, at most one."""
Share = Annotated[float, BeforeValidator(_no_truth_value), Field(ge=0, le=1)]
"""A share: from zero to one."""
MOST = 2**56
"""Beyond any machine's bytes; a bound keeps what kernels count within 64 bits."""
Count = Annotated[int, Field(ge=1, le=MOST, strict=True)]
"""A whole number, one or above."""
NaturalNumber = Annotated[int, Field(ge=0, le=MOST, strict=True)]
"""A whole number, zero or above."""


@displayed_by("hwsim.views.cards:spec")
class SpecPart(BaseModel):
    """A section of a device's spec: immutable, unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    def __repr__(self) -> str:
        from hwsim.views.cards import spec_line

        return spec_line(self)


class Conversion(SpecPart):
    """What converting one element on the vector unit takes, beyond reading and writing it."""

    cycles_per_element: NotNegative
    energy_pj_per_element: NotNegative


class Calibration(SpecPart):
    """Values fitted to measurements. They replace those of the spec, which are what is known without the measurements.

    Attributes:
        data: the measurements they were fitted to.
        values: dotted field of the spec → fitted value.
    """

    data: str
    values: Mapping[str, Any] = Field(min_length=1)


class MachineSpec(SpecPart):
    """What the spec of every machine says.

    Attributes:
        kind: which class of device it describes.
        name: of the device.
        summary: one line on what it is.
        clock_hz: the clock its cycles count.
        default_formats: formats by role that apply when the workload has no recipe.
        conversions: ``"fp32->int8"`` → what a conversion takes; pairs not listed are errors.
        static_power_w: power whenever it is on.
        energy_source: node and source of the energies.
        process_nm: process node, which sets the area (``Machine.area``); None: not known.
        calibrated: name of a fit → its data and the values it found, which replace those given elsewhere in the spec.
    """

    kind: str
    name: str
    summary: str = ""
    clock_hz: Positive
    default_formats: Mapping[str, str]
    conversions: Mapping[str, Conversion] = Field(default_factory=dict)
    static_power_w: NotNegative = 0.0
    energy_source: str
    process_nm: Annotated[Positive, Field(ge=3, le=130)] | None = None
    calibrated: Mapping[str, Calibration] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _with_fitted_values(cls, data: Any) -> Any:
        return with_fitted_values(data) if isinstance(data, Mapping) else data

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
    def _formats_known(self) -> MachineSpec:
        self.default_recipe  # noqa: B018  an unknown role or format is an error of the spec
        return self

    @property
    def default_recipe(self) -> Recipe:
        """The recipe of ``default_formats``."""
        return Recipe("default", dict(self.default_formats))

    @property
    def fitted_fields(self) -> tuple[str, ...]:
        """Dotted fields whose values were fitted to measurements."""
        return tuple(field for fit in self.calibrated.values() for field in fit.values)


class MacFormat(SpecPart):
    """What a multiply-accumulate in one pair of formats takes.

    Attributes:
        cycles_per_mac: cycles a processing element is taken.
        energy_pj: energy of one.
    """

    cycles_per_mac: Count = 1
    energy_pj: NotNegative


class MatrixMachineSpec(MachineSpec):
    """What the spec of a machine that multiplies matrices says besides.

    Attributes:
        mac_formats: ``"int8"`` (both operands) or ``"bf16*int8"`` → what a multiply-accumulate takes; the kind of machine
            says in which terms.
    """

    mac_formats: Mapping[str, Any] = Field(min_length=1)

    @field_validator("mac_formats")
    @classmethod
    def _known_formats(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"*".join(get_format(part).name for part in key.split("*")): mac for key, mac in value.items()}

    @model_validator(mode="after")
    def _defaults_run(self) -> MatrixMachineSpec:
        recipe = self.default_recipe
        pair = recipe.format_for("activation"), recipe.format_for("weight")
        if self.mac_format(*pair) is None:
            raise ValueError(f"default_formats: {'*'.join(pair)} is not among mac_formats ({', '.join(self.mac_formats)})")
        return self

    def mac_format(self, a: str, b: str) -> Any:
        """What a MAC on operands in these formats takes; None if the machine has no such MAC."""
        if a == b and a in self.mac_formats:
            return self.mac_formats[a]
        return self.mac_formats.get(f"{a}*{b}") or self.mac_formats.get(f"{b}*{a}")

    def compute_formats(self, a: str, b: str) -> tuple[str, str]:
        """The pair in which a product of ``a`` and ``b`` is computed: as given, or with one operand converted.

        Raises:
            InputError: the machine has no MAC for the pair and no conversion that leads to one.
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


def fitted_values(data: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(fit, dotted field, value) of all under ``calibrated`` in a spec's data; malformed entries are left to validation."""
    section = data.get("calibrated")
    for name, fit in section.items() if isinstance(section, Mapping) else ():
        values = fit.get("values") if isinstance(fit, Mapping) else getattr(fit, "values", None)
        for field, value in values.items() if isinstance(values, Mapping) else ():
            yield str(name), str(field), value


def set_field(data: dict[str, Any], field: str, value: Any) -> None:
    """Set a dotted field of a spec's data; sections on the way are copied, not changed in place, and made where they lack."""
    *parents, leaf = field.split(".")
    place = data
    for part in parents:
        current = place.get(part)
        if isinstance(current, BaseModel):
            current = current.model_dump()
        place[part] = dict(current) if isinstance(current, Mapping) else {}
        place = place[part]
    place[leaf] = value


def with_fitted_values(data: Mapping[str, Any]) -> dict[str, Any]:
    """A spec's data with the values under ``calibrated`` in their places.

    Raises:
        ValueError: one field fitted twice.
    """
    placed = dict(data)
    seen: dict[str, str] = {}
    for fit, field, value in fitted_values(data):
        if field in seen:
            raise ValueError(f"calibrated.{fit}.values: field {field!r} is fitted already (by {seen[field]!r})")
        seen[field] = fit
        set_field(placed, field, value)
    return placed


def without_fitted(data: Mapping[str, Any], field: str) -> dict[str, Any]:
    """A spec's data in which ``field``, and what lies below it, counts as fitted no more."""
    kept: dict[str, Any] = {}
    for name, fit in dict(data.get("calibrated") or {}).items():
        values = {k: v for k, v in fit["values"].items() if k != field and not k.startswith(f"{field}.")}
        if values:
            kept[name] = {**fit, "values": values}
    return {**data, "calibrated": kept}


SpecT = TypeVar("SpecT", bound=BaseModel)


def validate_spec(model: type[SpecT], data: Mapping[str, Any], *, source: str) -> SpecT:
    """The spec in ``data``, or one line on its first mistake: the field, the value and what was expected."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        found = error.errors()
        # A misspelt field explains the one that is missing.
        first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
        path = _field_path(first["loc"], data, missing=first["type"] == "missing")
        field = ".".join(path) or "spec"
        value = first.get("input")
        if first["type"] == "extra_forbidden":
            known = _fields_at(model, path[:-1])
            raise InputError(f"{source}: unknown field {field!r}; {nearest_names(path[-1], known)}") from None
        if first["type"] == "missing":
            raise InputError(f"{source}: field {field!r} is missing") from None
        message = first["msg"].removeprefix("Value error, ")
        shown = "" if isinstance(value, Mapping | BaseModel) else f" (got {value!r})"
        raise InputError(f"{source}: {field}: {message[0].lower()}{message[1:]}{shown}") from None
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def _field_path(location: Sequence[int | str], data: Any, *, missing: bool) -> list[str]:
    """The names that stand in the data, without those that pydantic adds for branches of a union."""
    path: list[str] = []
    current = data
    for part, *rest in (location[i:] for i in range(len(location))):
        if isinstance(current, list) and isinstance(part, int):
            path.append(str(part))
            current = current[part] if part < len(current) else None
        elif not isinstance(current, Mapping):
            break  # branches of a plain value
        elif part in current and not (rest and not isinstance(current[part], Mapping | list) and (missing or rest[0] in current)):
            path.append(str(part))
            current = current[part]
        elif not rest:
            path.append(str(part))  # missing, or put there by fitted values
    return path


def _fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    """Names of the fields of the section at ``path``."""
    current: Any = model
    for part in path:
        field = getattr(current, "model_fields", {}).get(part)
        current = field.annotation if field is not None else None
        for candidate in (current, *getattr(current, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                current = candidate
                break
    return list(getattr(current, "model_fields", {}))
