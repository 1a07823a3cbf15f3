"""Recipes: which number format each kind of value takes, and in which modules.

One object serves both questions: ``workload.with_formats(recipe)`` (what it costs) and emulation (what it computes).
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from numerics.errors import InputError, nearest_names, unknown_name
from numerics.formats import IntFormat, get_format

ROLES = ("weight", "activation", "gradient", "optimizer_state", "kv_cache", "accumulator")
"""The roles a value can have in a recipe. ``kv_cache`` and ``gradient`` default to the activation's format,
``optimizer_state`` to ``fp32``, ``accumulator`` to ``fp32`` (``int32`` beside integer weights)."""


def _check_formats(where: str, formats: Mapping[str, str]) -> None:
    for role, name in formats.items():
        if role not in ROLES:
            raise unknown_name(f"{where}: role", role, ROLES)
        get_format(name)


@dataclass(frozen=True)
class Override:
    """Formats for the modules whose path matches a shell pattern (``"*.lm_head"``, ``"layer1.*"``)."""

    pattern: str
    formats: Mapping[str, str]


@dataclass(frozen=True)
class Recipe:
    """A named choice of formats by role, with overrides by module path (the first that matches wins).

    Attributes:
        name: what reports call it.
        formats: role → format name; ``weight`` and ``activation`` are required.
        overrides: exceptions by module path.

    Raises:
        InputError: a role or format that does not exist, or a missing ``weight``/``activation``.
    """

    name: str
    formats: Mapping[str, str]
    overrides: tuple[Override, ...] = field(default=())

    def __post_init__(self) -> None:
        _check_formats(f"recipe {self.name!r}", self.formats)
        for required in ("weight", "activation"):
            if required not in self.formats:
                raise InputError(f"recipe {self.name!r}: formats.{required} is missing (a format name, such as 'bf16')")
        for override in self.overrides:
            _check_formats(f"recipe {self.name!r}, modules {override.pattern!r}", override.formats)

    def format_for(self, role: str, module: str = "") -> str:
        """The format name of a value of this role in the module at this path."""
        if role not in ROLES:
            raise unknown_name("role", role, ROLES)
        for override in self.overrides:
            if fnmatch.fnmatchcase(module, override.pattern):
                chosen = {**self.formats, **override.formats}
                break
        else:
            chosen = dict(self.formats)
        if role in chosen:
            return chosen[role]
        if role in ("kv_cache", "gradient"):
            return chosen["activation"]
        if role == "accumulator" and isinstance(get_format(chosen["weight"]), IntFormat):
            return "int32"
        return "fp32"

    def excepting(self, pattern: str, **formats: str) -> Recipe:
        """A copy in which the modules that match ``pattern`` take other formats."""
        return replace(self, overrides=(Override(pattern, formats), *self.overrides))

    def to_dict(self) -> dict[str, Any]:
        """Plain data; ``Recipe.from_dict`` reads it back."""
        return {
            "name": self.name,
            "formats": dict(self.formats),
            "overrides": [{"pattern": o.pattern, "formats": dict(o.formats)} for o in self.overrides],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """The recipe described by ``{name, formats, overrides: [{pattern, formats}]}``."""
        unknown = set(data) - {"name", "formats", "overrides"}
        if unknown:
            raise unknown_name("recipe: field", sorted(unknown)[0], ("name", "formats", "overrides"))
        if not isinstance(data.get("formats"), Mapping):
            raise InputError(f"recipe: formats must map roles to format names, got {data.get('formats')!r}")
        listed = data.get("overrides", ())
        if not isinstance(listed, list | tuple):
            raise InputError(f"recipe: overrides: expected a list of {{pattern, formats}}, got {listed!r}")
        overrides = []
        for entry in listed:
            whole = isinstance(entry, Mapping) and set(entry) == {"pattern", "formats"}
            if not whole or not isinstance(entry["formats"], Mapping):
                raise InputError(f"recipe: overrides: expected {{pattern, formats}}, got {entry!r}")
            overrides.append(Override(str(entry["pattern"]), dict(entry["formats"])))
        return cls(str(data.get("name", "custom")), dict(data["formats"]), tuple(overrides))


def uniform(name: str, accumulator: str = "fp32") -> Recipe:
    """Weights, activations and gradients all in one format."""
    return Recipe(name, {"weight": name, "activation": name, "gradient": name, "accumulator": accumulator})


_NAMED = {
    recipe.name: recipe
    for recipe in (
        uniform("fp32"),
        uniform("bf16"),
        uniform("fp16"),
        uniform("int8", accumulator="int32"),
        uniform("int16", accumulator="int32"),
        Recipe("fp8", {"weight": "e4m3fn", "activation": "e4m3fn", "gradient": "e5m2", "accumulator": "fp32"}),
        Recipe("w8a16", {"weight": "int8", "activation": "bf16", "accumulator": "fp32"}),
        Recipe("w4a16", {"weight": "int4", "activation": "bf16", "accumulator": "fp32"}),
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
            content = path.read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"recipe: cannot read {text!r}: {error.strerror}") from None
        try:
            if path.suffix == ".json":
                data = json.loads(content)
            else:
                import yaml

                data = yaml.safe_load(content)
        except ValueError as error:
            raise InputError(f"recipe: {text!r} is not valid {path.suffix[1:].upper()}: {error}") from None
        except Exception as error:  # yaml.YAMLError; the module is imported only where needed
            raise InputError(f"recipe: {text!r} is not valid YAML: {str(error).splitlines()[0]}") from None
        if not isinstance(data, Mapping):
            raise InputError(f"recipe: {text!r} must hold a mapping with name and formats")
        return Recipe.from_dict(data)
    hint = nearest_names(text, _NAMED)
    raise InputError(f"recipe: unknown name {text!r}; {hint}; or give a .json or .yaml file")
