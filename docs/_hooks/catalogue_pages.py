"""What the packages know by name: formats, recipes, networks of the zoo, commands and their options."""

from __future__ import annotations

import argparse
import re
from dataclasses import fields
from importlib import metadata
from typing import Any

from markdown_text import attribute_texts, fenced, parsed, table


def _short(value: Any) -> str:
    return "–" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def formats_page() -> str:
    """Every number format with its range."""
    from hwsim.commands.formats import describe
    from numerics import format_names, get_format

    titles = {
        "float": "Floats", "int": "Integers", "codebook": "Codebooks", "block": "Blocks with a shared scale",
        "fixed": "Fixed point",
    }  # fmt: skip
    columns = {
        "float": {
            "bits": "bits", "exponent_bits": "exponent", "mantissa_bits": "mantissa", "bias": "bias", "max": "largest",
            "smallest_normal": "smallest normal", "smallest_subnormal": "smallest", "eps": "eps", "specials": "special values",
        },
        "int": {"bits": "bits", "min": "least", "max": "largest"},
        "codebook": {"bits": "bits", "min": "least", "max": "largest"},
        "block": {
            "bits": "bits an element", "element": "element", "scale": "scale", "block_size": "block",
            "scale_rounding": "scale rounding", "max": "largest",
        },
        "fixed": {"bits": "bits", "min": "least", "max": "largest", "step": "step"},
    }  # fmt: skip
    known: dict[str, list[dict[str, Any]]] = {}
    for name in format_names():
        facts = describe(get_format(name))
        known.setdefault(str(facts["kind"]), []).append(facts)
    parts = [
        "# Formats\n",
        "What `get_format` and the roles of a recipe know by name. [Number formats](../number-formats.md) says what the columns "
        "mean and how to make one of your own; `q4.12`, `uq0.8` (fixed point) and `e6m9` (any IEEE-like float) are understood "
        "besides.\n",
    ]
    for kind, found in known.items():
        shown = columns.get(kind, {"bits": "bits", "max": "largest"})
        found.sort(key=lambda facts: (facts["bits"], facts["name"]))
        rows = [(f"`{facts['name']}`", *(_short(facts.get(key)) for key in shown)) for facts in found]
        parts += [f"## {titles.get(kind, kind)}\n", table(("name", *shown.values()), rows, "l" + "r" * len(shown))]
    return "\n".join(parts)


def recipes_page() -> str:
    """The bundled recipes, and the fields of a recipe's file."""
    from numerics import Recipe, get_recipe, recipe_names
    from numerics.accumulator import Accumulator
    from numerics.recipes import LossScaling, Override
    from numerics.scaling import Scaling

    roles = ("weight", "activation", "gradient", "accumulator", "elementwise")
    rows = []
    for name in recipe_names():
        recipe = get_recipe(name)
        data = recipe.to_dict()
        more = [f"{role} {fmt}" for role, fmt in recipe.formats.items() if role not in roles]
        more += [key.replace("_", " ") for key in data if key not in ("name", "formats", "overrides")]
        rows.append((f"`{name}`", *(recipe.formats.get(role, "–") for role in roles), ", ".join(more)))
    parts = [
        "# Recipes\n",
        "A recipe says which role has which format; `--formats` and every `recipe=` take its name, a `.yaml` or `.json` file, or "
        "the object.\n",
        "## Bundled\n",
        table(("name", *roles, "besides"), rows),
        "## The file\n",
        "The keys of a file are the fields of `Recipe`; those of its sections are the fields of the classes below.\n",
        fenced(
            "name: mine\nformats: {weight: int4, activation: bf16, accumulator: fp32}\n"
            "scaling: {weight: {granularity: group, size: 128}}\noverrides:\n  - {pattern: head, formats: {weight: int8}}",
            "yaml",
        ),
    ]
    for cls in (Recipe, Override, Scaling, LossScaling, Accumulator):
        texts = attribute_texts(cls)
        parts += [f"### {cls.__name__}\n", parsed(cls).text + "\n"]
        entries = [(f"`{f.name}`", _default(f), texts.get(f.name, "")) for f in fields(cls) if not f.name.startswith("_")]
        parts.append(table(("field", "default", "meaning"), entries))
    return "\n".join(parts)


def _default(entry: Any) -> str:
    from dataclasses import MISSING

    if entry.default is not MISSING:
        return "none" if entry.default in (None, ()) else f"`{entry.default}`"
    return "*required*" if entry.default_factory is MISSING else "none"


def zoo_page() -> str:
    """The networks of the zoo."""
    from hwsim import zoo
    from hwsim.views.units import si

    rows = []
    for name in zoo.names():
        model = zoo.get(name)
        macs = si(model.published_macs, "") if model.published_macs else "–"
        options = " ".join(f"`--{o.replace('_', '-')}`" for o in sorted(model.options))
        rows.append((f"`{name}`", model.summary, si(model.published_parameters, ""), macs, options, model.source))
    text = (
        "# Networks\n\nWhat MODEL and `hwsim.zoo.build` know by name. Parameters and MACs are published figures, which the tests "
        "hold the traced networks against; MACs are of one forward pass with the inputs that the source names.\n\n"
    )
    return text + table(("name", "what it is", "parameters", "MACs", "options", "source"), rows, "llrr")


# --- the command line -----------------------------------------------------------------------------------------------------


def _parser(command: str) -> argparse.ArgumentParser:
    from hwsim.cli import CommandParser

    (entry,) = (e for e in metadata.entry_points(group="hwsim.commands") if e.name == command)
    parser = CommandParser(prog=f"hwsim {command}")
    entry.load().add_arguments(parser)
    return parser


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [a for a in parser._actions if "--help" not in a.option_strings]


def _shared(name: str) -> list[argparse.Action]:
    from hwsim.commands import _options

    parser = argparse.ArgumentParser()
    {"model": _options.add_model, "machine": _options.add_machine}[name](parser)
    return _actions(parser)


def _spelling(action: argparse.Action) -> str:
    names = ", ".join(action.option_strings)
    if action.nargs == 0:
        return f"`{names}`"
    value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    return f"`{names} {value}`" if names else f"`{value}`"


def options_table(name: str) -> str:
    """The options of a command as argparse has them; of ``model`` and ``machine``, those that several commands share.

    A command's table leaves out what it shares.
    """
    if name in ("model", "machine"):
        actions = [a for a in _shared(name) if a.option_strings]
    else:
        parser = _parser(name)
        known = {tuple(a.option_strings) for a in _actions(parser)}
        left_out: set[tuple[str, ...]] = set()
        for group in ("model", "machine"):
            shared = {tuple(a.option_strings) for a in _shared(group)} - {()}
            if shared <= known:
                left_out |= shared
        actions = [a for a in _actions(parser) if tuple(a.option_strings) not in left_out]
    rows = []
    for action in actions:
        text = re.sub(r"(?<![\w`])(--[a-z][\w-]*)", r"`\1`", (action.help or "").replace("%%", "%"))
        rows.append((_spelling(action), text + (" **Required.**" if action.required and action.option_strings else "")))
    return table(("option", "meaning"), rows) if rows else ""
