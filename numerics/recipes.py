"""Recipes: which number format each kind of value takes, how it is scaled, rounded and summed, and in which modules.

One object serves both questions: ``workload.with_formats(recipe)`` (what it costs) and ``emulate(module, recipe)`` (what it
computes).

Sources of the bundled training recipes: FP32 master weights and loss scaling, Micikevicius et al., "Mixed Precision Training"
(arXiv 1710.03740); BF16 tensors with FP32 sums, Kalamkar et al. (arXiv 1905.12322); BF16 alone with stochastic rounding or Kahan
sums, Zamirai et al., "Revisiting BFloat16 Training" (arXiv 2010.06192); E4M3 forward and E5M2 backward, Micikevicius et al.
(arXiv 2209.05433), with NVIDIA Transformer Engine's delayed scaling; tiles of 1×128 and 128×128 in E4M3, DeepSeek-V3
(arXiv 2412.19437), section 3.3; MXFP8, Mishra et al. (arXiv 2506.08027); MXFP4 with stochastically rounded gradients, Tseng et
al. (arXiv 2502.20586); NVFP4, NVIDIA (arXiv 2509.25149); integers in training, Jacob et al. (arXiv 1712.05877).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from numerics._display import displayed, displayed_by
from numerics.documents import read_json, read_text, read_yaml
from numerics.errors import InputError, nearest_names, unknown_name
from numerics.formats import CodebookFormat, FixedFormat, Format, IntFormat, get_format, register_format
from numerics.rounding import ROUNDINGS
from numerics.scaling import Scaling

if TYPE_CHECKING:
    from numerics.accumulator import Accumulator

ROLES = (
    "weight",
    "activation",
    "gradient",
    "optimizer_state",
    "kv_cache",
    "accumulator",
    "elementwise",
    "master_weight",
)
"""The roles a value can have in a recipe. ``elementwise`` is what operators that are no matrix products read and write, the
results of products among it; ``master_weight`` is what the optimizer updates. ``kv_cache``, ``gradient`` and ``elementwise``
default to the activation's format, ``optimizer_state`` and ``master_weight`` to ``fp32``, ``accumulator`` to ``fp32`` (``int32``
beside integer weights)."""

GradientEstimator = Literal["straight_through", "clipped", "exact"]
"""What passes backward through a quantiser: ``straight_through``, all of the gradient; ``clipped``, nothing where the value
saturates; ``exact``, as ``clipped``, plus the derivative of a dynamic scale with respect to the element that sets it (the
derivative by the scale is that of LSQ, Esser et al., arXiv 1902.08153, equation 3)."""

GRADIENT_ESTIMATORS = ("straight_through", "clipped", "exact")

_FOLLOW_ACTIVATION = ("kv_cache", "gradient", "elementwise")
_WHOLE = Scaling("tensor")
_UNSCALED = Scaling("none")


def _checked_formats(where: str, formats: Mapping[str, str]) -> dict[str, str]:
    """Role → the format's own name, whatever it was spelled as; a format given itself becomes known by its name."""
    found = {}
    for role, name in formats.items():
        if role not in ROLES:
            raise unknown_name(f"{where}: role", role, ROLES)
        found[role] = (register_format(name) if isinstance(name, Format) else get_format(name)).name
    return found


def _check_scalings(where: str, scaling: Mapping[str, Scaling]) -> None:
    for role, entry in scaling.items():
        if role not in ROLES or role == "accumulator":
            raise unknown_name(f"{where}: scaling: role", role, [r for r in ROLES if r != "accumulator"])
        if not isinstance(entry, Scaling):
            raise InputError(f"{where}: scaling.{role}: expected a Scaling, got {entry!r}")


@displayed
@dataclass(frozen=True)
class LossScaling:
    """A factor on the loss that keeps small gradients out of the subnormals (Micikevicius et al., arXiv 1710.03740, section 3.2).

    Attributes:
        initial: the factor at the first step.
        growth: what it is multiplied by after ``interval`` steps without an overflow; 1 keeps it as it is.
        interval: those steps.
        backoff: what it is multiplied by after a step that overflowed, which is not taken.

    Raises:
        InputError: a factor that is not positive and finite, or one that turns growth into shrinking or backoff into growth.
    """

    initial: float = 2.0**16
    growth: float = 2.0
    interval: int = 2000
    backoff: float = 0.5

    def __post_init__(self) -> None:
        for name, least, most in (("initial", 0.0, float("inf")), ("growth", 1.0, float("inf")), ("backoff", 0.0, 1.0)):
            value = getattr(self, name)
            real = isinstance(value, int | float) and not isinstance(value, bool)
            if not real or not least <= value <= most or value in (0.0, float("inf")):
                wanted = {"initial": "a positive number", "growth": "a number ≥ 1", "backoff": "a number in (0, 1]"}[name]
                raise InputError(f"loss_scaling: {name}: expected {wanted}, got {value!r}")
        if not isinstance(self.interval, int) or isinstance(self.interval, bool) or self.interval < 1:
            raise InputError(f"loss_scaling: interval: expected an integer ≥ 1, got {self.interval!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data; ``LossScaling.from_dict`` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LossScaling:
        """The loss scaling described by its fields."""
        if not isinstance(data, Mapping):
            raise InputError(f"loss_scaling: expected a mapping of fields, got {data!r}")
        known = [f.name for f in fields(cls)]
        for name in data:
            if name not in known:
                raise unknown_name("loss_scaling: field", str(name), known)
        return cls(**data)


@displayed
@dataclass(frozen=True)
class Override:
    """Formats for the modules whose path matches a shell pattern (``"*.lm_head"``, ``"layer1.*"``).

    Attributes:
        pattern: shell pattern of module paths.
        formats: role → format name, for the roles that differ.
        scaling: role → scales, for the roles that differ.
    """

    pattern: str
    formats: Mapping[str, str]
    scaling: Mapping[str, Scaling] = field(default_factory=dict)


@displayed_by("numerics._cards:recipe")
@dataclass(frozen=True)
class Recipe:
    """A named choice of formats by role, with overrides by module path (the first that matches wins).

    Attributes:
        name: what reports call it.
        formats: role → format name; ``weight`` and ``activation`` are required.
        overrides: exceptions by module path.
        scaling: role → scales. Where a role's format is an integer or a codebook and nothing is said, one dynamic scale a tensor;
            none elsewhere. ``kv_cache``, ``gradient`` and ``elementwise`` follow the activation where their format does. In a
            module whose override gives the role another format, that format's default or the override's own scaling.
        rounding: role → rounding mode; ``nearest_even`` where none is given.
        accumulation: how products are summed: the name of an accumulator or an ``Accumulator``, bit for bit; None leaves the sum
            to the library, in the accumulator's format, which is fast. A module whose override names the ``accumulator`` takes
            that format instead, in the order of an
            ``Accumulator``, or by the library where ``accumulation`` is a name.
        gradient_estimator: what passes backward through a quantiser.
        loss_scaling: a factor on the loss; None for none.
        compensated: whether updates of master weights are summed with Kahan's compensation.
        first_and_last: role → format name for the first and the last module whose weight enters a matrix product.

    Raises:
        InputError: a role, format or mode that does not exist, or a missing ``weight``/``activation``.
    """

    name: str
    formats: Mapping[str, str]
    overrides: tuple[Override, ...] = field(default=())
    scaling: Mapping[str, Scaling] = field(default_factory=dict, kw_only=True)
    rounding: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    accumulation: str | Accumulator | None = field(default=None, kw_only=True)
    gradient_estimator: GradientEstimator = field(default="straight_through", kw_only=True)
    loss_scaling: LossScaling | None = field(default=None, kw_only=True)
    compensated: bool = field(default=False, kw_only=True)
    first_and_last: Mapping[str, str] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        where = f"recipe {self.name!r}"
        object.__setattr__(self, "formats", _checked_formats(where, self.formats))
        for required in ("weight", "activation"):
            if required not in self.formats:
                raise InputError(f"{where}: formats.{required} is missing (a format name, such as 'bf16')")
        _check_scalings(where, self.scaling)
        for role, mode in self.rounding.items():
            if role not in ROLES or role == "accumulator":
                # An accumulator's rounding belongs to ``accumulation``.
                raise unknown_name(f"{where}: rounding: role", role, [r for r in ROLES if r != "accumulator"])
            if not isinstance(mode, str) or mode not in ROUNDINGS:
                raise unknown_name(f"{where}: rounding.{role}", str(mode), ROUNDINGS)
        if not isinstance(self.gradient_estimator, str) or self.gradient_estimator not in GRADIENT_ESTIMATORS:
            raise unknown_name(f"{where}: gradient_estimator", str(self.gradient_estimator), GRADIENT_ESTIMATORS)
        if self.loss_scaling is not None and not isinstance(self.loss_scaling, LossScaling):
            raise InputError(f"{where}: loss_scaling: expected a LossScaling or None, got {self.loss_scaling!r}")
        if not isinstance(self.compensated, bool):
            raise InputError(f"{where}: compensated: expected true or false, got {self.compensated!r}")
        if self.first_and_last is not None:
            object.__setattr__(self, "first_and_last", _checked_formats(f"{where}, first_and_last", self.first_and_last))
        if self.accumulation is not None:
            _check_accumulation(where, self.accumulation)
        overrides = []
        for override in self.overrides:
            inner = f"{where}, modules {override.pattern!r}"
            overrides.append(replace(override, formats=_checked_formats(inner, override.formats)))
            _check_scalings(inner, override.scaling)
        object.__setattr__(self, "overrides", tuple(overrides))

    def override_for(self, module: str) -> Override | None:
        """The override that applies to the module at this path."""
        return next((o for o in self.overrides if fnmatch.fnmatchcase(module, o.pattern)), None)

    def format_for(self, role: str, module: str = "") -> str:
        """The format name of a value of this role in the module at this path."""
        if role not in ROLES:
            raise unknown_name("role", role, ROLES)
        override = self.override_for(module)
        return _format_in(role, {**self.formats, **override.formats} if override else self.formats)

    @property
    def has_elementwise(self) -> bool:
        """Whether values between matrix products have a format of their own, anywhere."""
        given = [self.formats, *(o.formats for o in self.overrides), self.first_and_last or {}]
        return any("elementwise" in formats for formats in given)

    def elementwise_for(self, role: str, module: str = "") -> str:
        """The format of an activation or gradient in operators that are no matrix products; other roles keep theirs."""
        override = self.override_for(module)
        chosen = {**self.formats, **(override.formats if override else {})}
        follows = role in ("activation", "gradient") and "elementwise" in chosen
        return chosen["elementwise"] if follows else self.format_for(role, module)

    def scaling_for(self, role: str, module: str = "") -> Scaling:
        """The scales of a value of this role in the module at this path."""
        name = self.format_for(role, module)
        override = self.override_for(module)
        if override and role in override.scaling:
            return override.scaling[role]
        if role in self.scaling and name == _format_in(role, self.formats):
            return self.scaling[role]
        chosen = {**self.formats, **(override.formats if override else {})}
        if role in _FOLLOW_ACTIVATION and role not in chosen and role not in self.scaling:
            return self.scaling_for("activation", module)
        integers = isinstance(get_format(name), IntFormat | CodebookFormat)
        return _WHOLE if integers and role != "accumulator" else _UNSCALED

    def rounding_for(self, role: str) -> str:
        """The rounding mode of values of this role."""
        return self.rounding.get(role, "nearest_even")

    def excepting(self, pattern: str, every: str | None = None, **formats: str) -> Recipe:
        """A copy in which the modules that match ``pattern`` take other formats.

        Args:
            pattern: shell pattern of module paths.
            every: a format for all that these modules compute with: weights, activations, gradients, the cache and what lies
                between; sums are then in ``fp32`` unless ``accumulator`` is given (``fp64`` for ``every="fp64"``).
            formats: role → format name, for single roles.
        """
        if every is not None:
            roles = ("weight", "activation", "gradient", "kv_cache", "elementwise")
            formats = {**dict.fromkeys(roles, every), "accumulator": "fp64" if every == "fp64" else "fp32", **formats}
        return replace(self, overrides=(Override(pattern, formats), *self.overrides))

    def with_ends(self, first: str, last: str) -> Recipe:
        """A copy in which ``first_and_last`` has become overrides for the modules at these two paths.

        Overrides that match them stay in force for the roles that ``first_and_last`` does not name.
        """
        if self.first_and_last is None:
            return self
        added = []
        for path in dict.fromkeys((first, last)):
            under = self.override_for(path)
            formats = {**(under.formats if under else {}), **self.first_and_last}
            pattern = "".join(f"[{c}]" if c in "*?[" else c for c in path)
            added.append(Override(pattern, formats, under.scaling if under else {}))
        return replace(self, overrides=(*added, *self.overrides), first_and_last=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, fields at their default left out; ``Recipe.from_dict`` reads it back."""
        overrides: list[dict[str, Any]] = []
        for o in self.overrides:
            overrides.append({"pattern": o.pattern, "formats": dict(o.formats)})
            if o.scaling:
                overrides[-1]["scaling"] = {role: s.to_dict() for role, s in o.scaling.items()}
        data: dict[str, Any] = {"name": self.name, "formats": dict(self.formats), "overrides": overrides}
        if self.scaling:
            data["scaling"] = {role: s.to_dict() for role, s in self.scaling.items()}
        if self.rounding:
            data["rounding"] = dict(self.rounding)
        if self.accumulation is not None:
            data["accumulation"] = _accumulator_to_dict(self.accumulation)
        if self.gradient_estimator != "straight_through":
            data["gradient_estimator"] = self.gradient_estimator
        if self.loss_scaling is not None:
            data["loss_scaling"] = self.loss_scaling.to_dict()
        if self.compensated:
            data["compensated"] = True
        if self.first_and_last is not None:
            data["first_and_last"] = dict(self.first_and_last)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """The recipe described by its fields: ``{name, formats, overrides: [{pattern, formats, scaling}], scaling, …}``.

        Raises:
            InputError: a field that does not exist or does not hold what it should.
        """
        known = [f.name for f in fields(cls)]
        for name in sorted(map(str, data)):
            if name not in known:
                raise unknown_name("recipe: field", name, known)
        if not isinstance(data.get("formats"), Mapping):
            raise InputError(f"recipe: formats must map roles to format names, got {data.get('formats')!r}")
        listed = data.get("overrides", ())
        if not isinstance(listed, list | tuple):
            raise InputError(f"recipe: overrides: expected a list of {{pattern, formats}}, got {listed!r}")
        overrides = []
        for entry in listed:
            whole = isinstance(entry, Mapping) and {"pattern", "formats"} <= set(entry) <= {"pattern", "formats", "scaling"}
            if not whole or not isinstance(entry["formats"], Mapping):
                raise InputError(f"recipe: overrides: expected {{pattern, formats}}, got {entry!r}")
            overrides.append(Override(str(entry["pattern"]), dict(entry["formats"]), _scalings(entry.get("scaling"))))
        more: dict[str, Any] = {name: data[name] for name in ("gradient_estimator", "compensated") if name in data}
        for name in ("rounding", "first_and_last"):
            if data.get(name) is not None:
                if not isinstance(data[name], Mapping):
                    raise InputError(f"recipe: {name}: expected a mapping by role, got {data[name]!r}")
                more[name] = dict(data[name])
        if data.get("loss_scaling") is not None:
            more["loss_scaling"] = LossScaling.from_dict(data["loss_scaling"])
        if isinstance(data.get("accumulation"), Mapping):
            more["accumulation"] = _accumulator_from(data["accumulation"])
        elif data.get("accumulation") is not None:
            more["accumulation"] = data["accumulation"]
        scaling = _scalings(data.get("scaling"))
        return cls(str(data.get("name", "custom")), dict(data["formats"]), tuple(overrides), scaling=scaling, **more)


def _format_in(role: str, chosen: Mapping[str, str]) -> str:
    """The format of a role where these formats are given."""
    if role in chosen:
        return chosen[role]
    if role in _FOLLOW_ACTIVATION:
        return chosen["activation"]
    if role == "accumulator" and isinstance(get_format(chosen["weight"]), IntFormat | FixedFormat):
        return "int32"
    return "fp32"


def _scalings(data: Any) -> dict[str, Scaling]:
    if data is None:
        return {}
    if not isinstance(data, Mapping):
        raise InputError(f"recipe: scaling: expected a mapping by role, got {data!r}")
    return {str(role): entry if isinstance(entry, Scaling) else Scaling.from_dict(entry) for role, entry in data.items()}


def _check_accumulation(where: str, accumulation: Any) -> None:
    from numerics.accumulator import Accumulator, get_accumulator

    if isinstance(accumulation, str):
        get_accumulator(accumulation)
    elif not isinstance(accumulation, Accumulator):
        raise InputError(f"{where}: accumulation: expected the name of an accumulator or an Accumulator, got {accumulation!r}")


def _accumulator_to_dict(accumulation: str | Accumulator) -> str | dict[str, Any]:
    """An accumulator as plain data, fields at their default left out."""
    if isinstance(accumulation, str):
        return accumulation
    data: dict[str, Any] = {}
    for entry in fields(accumulation):
        value = getattr(accumulation, entry.name)
        if value == entry.default:
            continue
        if entry.name == "promotion":
            data[entry.name] = {"interval": value.interval, "format": _plain_name(value.format)}
        else:
            data[entry.name] = list(value) if isinstance(value, tuple) else _plain_name(value)
    return data


def _plain_name(value: Any) -> Any:
    """A format by its name; anything else as it is."""
    return value if isinstance(value, str | int | float) else get_format(get_format(value).name).name


def _accumulator_from(data: Mapping[str, Any]) -> Accumulator:
    from numerics.accumulator import Accumulator, Promotion

    known = [f.name for f in fields(Accumulator)]
    for name in data:
        if name not in known:
            raise unknown_name("recipe: accumulation: field", str(name), known)
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
    promotion = values.get("promotion")
    if isinstance(promotion, Mapping):
        if not {"interval"} <= set(promotion) <= {"interval", "format"}:
            raise InputError(f"recipe: accumulation: promotion: expected {{interval, format}}, got {promotion!r}")
        values["promotion"] = Promotion(**promotion)
    return Accumulator(**values)


def uniform(name: str, accumulator: str = "fp32") -> Recipe:
    """Weights, activations and gradients all in one format."""
    return Recipe(name, {"weight": name, "activation": name, "gradient": name, "accumulator": accumulator})


def _products(name: str, forward: str, gradient: str | None = None, *, elementwise: str = "bf16", **more: Any) -> Recipe:
    """Matrix products in one format (or another for gradients), everything between them in a wider one."""
    formats = {"weight": forward, "activation": forward, "gradient": gradient or forward}
    return Recipe(name, {**formats, "accumulator": "fp32", "elementwise": elementwise}, **more)


def _pure(name: str, **more: Any) -> Recipe:
    """BF16 for everything, optimizer included."""
    roles = ("weight", "activation", "gradient", "optimizer_state", "master_weight")
    return Recipe(name, {**dict.fromkeys(roles, "bf16"), "accumulator": "fp32"}, **more)


_DELAYED = Scaling("tensor", update="delayed", history=16)
_ROW_TILE = Scaling("tile", (1, 128))
_A16 = {"activation": "bf16", "accumulator": "fp32"}

_NAMED = {
    recipe.name: recipe
    for recipe in (
        uniform("fp32"),
        uniform("bf16"),
        uniform("fp16"),
        uniform("int8", accumulator="int32"),
        replace(
            uniform("int8", accumulator="int32"),
            name="int8_static",
            scaling={"weight": Scaling("channel", update="static"), "activation": Scaling("tensor", update="static")},
        ),
        uniform("int16", accumulator="int32"),
        Recipe("fp8", {"weight": "e4m3fn", "activation": "e4m3fn", "gradient": "e5m2", "accumulator": "fp32"}),
        Recipe("w8a16", {"weight": "int8", **_A16}, scaling={"weight": Scaling("channel")}),
        Recipe("w4a16", {"weight": "int4", **_A16}, scaling={"weight": Scaling("group", 128)}),
        replace(uniform("bf16"), name="bf16_mixed"),
        _pure("bf16_pure"),
        _pure("bf16_pure_sr", rounding={"master_weight": "stochastic"}),
        _pure("bf16_pure_kahan", compensated=True),
        replace(uniform("fp16"), name="fp16_loss_scaled", loss_scaling=LossScaling()),
        _products("fp8_delayed", "e4m3fn", "e5m2", scaling=dict.fromkeys(("weight", "activation", "gradient"), _DELAYED)),
        _products(
            "fp8_block",
            "e4m3fn",
            scaling={"weight": Scaling("tile", (128, 128)), "activation": _ROW_TILE, "gradient": _ROW_TILE},
        ),
        _products("mxfp8", "mxfp8_e4m3"),
        _products("mxfp4", "mxfp4", rounding={"gradient": "stochastic"}),
        _products("nvfp4", "nvfp4", rounding={"gradient": "stochastic"}),
        Recipe(
            "int8_qat",
            {"weight": "int8_symmetric", "activation": "int8", "gradient": "fp32", "accumulator": "int32", "elementwise": "fp32"},
            scaling={"weight": Scaling("channel"), "activation": Scaling("tensor", symmetric=False)},
            gradient_estimator="clipped",
        ),
    )
}


def recipe_names() -> list[str]:
    """Names of the bundled recipes."""
    return sorted(_NAMED)


def get_recipe(recipe: str | Path | Recipe) -> Recipe:
    """A recipe by name, from a ``.json`` or ``.yaml`` file, or as given.

    Raises:
        InputError: unknown name (nearest names listed) or a file that does not describe a recipe.
    """
    if isinstance(recipe, Recipe):
        return recipe
    text = str(recipe)
    if text in _NAMED:
        return _NAMED[text]
    path = Path(text)
    if path.suffix in (".json", ".yaml", ".yml"):
        try:
            content = read_text(path)
        except InputError as error:
            raise InputError(f"recipe: cannot read {text!r}: {str(error).partition(': cannot be read: ')[2]}") from None
        try:
            data = read_json(content) if path.suffix == ".json" else read_yaml(content)
        except InputError as error:
            raise InputError(f"recipe: {text!r} is {error}") from None
        if not isinstance(data, Mapping):
            raise InputError(f"recipe: {text!r} must hold a mapping with name and formats")
        return Recipe.from_dict(data)
    hint = nearest_names(text, _NAMED)
    raise InputError(f"recipe: unknown name {text!r}; {hint}; or give a .json or .yaml file")
