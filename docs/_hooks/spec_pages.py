"""The fields of every kind of spec, read off its pydantic models."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from markdown_text import attribute_texts, fenced, indented, parsed, table
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

_UNITS = {
    "s": "s", "ms": "ms", "us": "µs", "ns": "ns", "ps": "ps", "hz": "Hz", "ghz": "GHz", "bytes": "bytes", "bits": "bits",
    "j": "J", "nj": "nJ", "pj": "pJ", "fj": "fJ", "w": "W", "mw": "mW", "uw": "µW", "v": "V", "mv": "mV", "a": "A", "ma": "mA",
    "ua": "µA", "na": "nA", "c": "°C", "mm": "mm", "um": "µm", "nm": "nm", "pm": "pm", "mm2": "mm²", "um2": "µm²", "db": "dB",
    "dbm": "dBm", "rad": "rad", "deg": "°", "ohm": "Ω", "cycles": "cycles", "macs": "MACs", "elements": "elements",
    "operations": "operations", "samples": "samples", "symbols": "symbols", "fraction": "share of 1", "gates": "gates",
}  # fmt: skip
_DIVISORS = {**_UNITS, "mac": "MAC"}
ENDLESS = 1e15
"""A bound beyond this is one of arithmetic, and says nothing of a machine."""
_LIMITS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤", "multiple_of": "a multiple of"}


def unit_of(name: str) -> str:
    """The unit that ends a field's name, as ``energy_pj_per_byte`` → ``pJ/byte``; empty where it names none."""
    first, *divisors = name.split("_per_")
    words = first.split("_")
    if len(words) == 1 and not divisors and words[0] not in ("cycles", "bits", "samples"):
        return ""
    unit = "K" if words[-2:] == ["temperature", "k"] else _UNITS.get(words[-1], "")
    # Data sheets of DRAM call a timing tCCD_S where it is the short one of two.
    if not unit or words[0] == "t":
        return ""
    named = [d.removeprefix("root_") for d in divisors]
    return "/".join(
        [unit, *("√" * (d != n) + _DIVISORS.get(n, n.replace("_", " ")) for d, n in zip(divisors, named, strict=True))]
    )


def _inner_models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _inner_models(part)


def _anchor(model: type[BaseModel]) -> str:
    return model.__name__.lower()


def _limits(metadata: Any) -> str:
    found = []
    for entry in metadata:
        if isinstance(entry, FieldInfo):
            found.append(_limits(entry.metadata))
            continue
        for key, sign in _LIMITS.items():
            bound = getattr(entry, key, None)
            if bound is not None and abs(bound) < ENDLESS:
                found.append(f"{sign} {bound:g}")
        if (least := getattr(entry, "min_length", None)) is not None:
            found.append(f"at least {least} {'entry' if least == 1 else 'entries'}")
    return ", ".join(filter(None, found))


def type_text(annotation: Any, metadata: Any = ()) -> str:
    """What a field takes, in words, its bounds included."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    limits = _limits(metadata)
    if origin is typing.Annotated:
        return type_text(parts[0], [*parts[1:], *metadata])
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in parts)
    if origin in (typing.Union, types.UnionType):
        named = [type_text(part, metadata) for part in parts if part is not type(None)]
        return " or ".join(named) + (" or nothing" if type(None) in parts else "")
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{_anchor(annotation)})"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        said = f"mapping: {type_text(parts[0])} → {type_text(parts[1])}"
    elif origin in (tuple, list) or (isinstance(origin, type) and issubclass(origin, typing.Sequence)):
        several = origin is not tuple or (parts and parts[-1] is Ellipsis)
        said = f"list of {type_text(parts[0])}" if several else f"list ({', '.join(type_text(p) for p in parts)})"
    else:
        words = {
            int: "whole number",
            float: "number",
            str: "text",
            bool: "`true` or `false`",
            Any: "as the kind says",
            Path: "file",
        }
        said = words.get(annotation, f"`{getattr(annotation, '__name__', annotation)}`")
    if limits.startswith("at least"):
        return f"{said}, {limits}"
    return f"{said} {limits}" if limits else said


def default_text(info: FieldInfo) -> str:
    """A field's default; *required* where it has none."""
    if info.is_required():
        return "*required*"
    value = info.default_factory() if info.default_factory is not None else info.default  # type: ignore[call-arg]
    if value is PydanticUndefined:
        return "*required*"
    if isinstance(value, BaseModel):
        return "its defaults" if value == type(value).model_construct() else _compact(value)
    if value is None or (isinstance(value, Mapping | tuple | list | str) and not value):
        return "none"
    if isinstance(value, tuple):
        value = list(value)
    return f"`{str(value).lower() if isinstance(value, bool) else _number(value)}`"


def _number(value: Any) -> Any:
    return f"{value:g}" if isinstance(value, float) else value


def _compact(value: BaseModel) -> str:
    given = ", ".join(f"{name}: {_number(getattr(value, name))}" for name in type(value).model_fields)
    return f"`{{{given}}}`"


def field_table(model: type[BaseModel]) -> str:
    """The fields of one model."""
    texts = attribute_texts(model)
    rows = []
    for name, info in model.model_fields.items():
        rows.append(
            (
                f"`{name}`",
                type_text(info.annotation, info.metadata),
                unit_of(name),
                default_text(info),
                texts.get(name) or info.description or "",
            )
        )
    return table(("field", "takes", "unit", "default", "meaning"), rows)


def all_models(model: type[BaseModel]) -> list[type[BaseModel]]:
    """A model and those of its fields, each once, in order of appearance."""
    found, todo = [], [model]
    while todo:
        current = todo.pop(0)
        if current in found:
            continue
        found.append(current)
        todo = [m for info in current.model_fields.values() for m in _inner_models(info.annotation)] + todo
    return found


def kind_page(kind: str, device: type[Any]) -> str:
    """The reference of one kind of device: its models, its rungs, and the bundled specs with their sources."""
    spec = device.spec_class
    guide = parsed(spec)
    rungs = ", ".join(f"`{f}`" + (" (default)" if f == device.default_fidelity else "") for f in device.fidelities)
    parts = [
        f"# {kind}\n",
        guide.text + "\n",
        f"Class `{device.__module__}.{device.__qualname__}`; rungs of fidelity: {rungs}.\n",
    ]
    for model in all_models(spec):
        about = parsed(model)
        if model is not spec:
            parts += [f"## {model.__name__} {{: #{_anchor(model)} }}\n", about.text + "\n"]
        else:
            parts.append(f"## The file {{: #{_anchor(model)} }}\n")
        parts.append(field_table(model))
    parts.append("## Bundled specs\n")
    for name, path in sorted(device.bundled().items()):
        parts += [f'??? abstract "{name}"\n', indented(fenced(Path(path).read_text(encoding="utf-8"), "yaml"))]
    return "\n".join(parts)


def kind_pages() -> dict[str, str]:
    """Kind → page, for every registered kind whose spec is a pydantic model."""
    from hwsim.registry import device_classes

    return {kind: kind_page(kind, cls) for kind, cls in sorted(device_classes().items()) if hasattr(cls, "spec_class")}


def devices_page() -> str:
    """Every bundled device, by kind."""
    from hwsim.registry import device_names, get_device
    from hwsim.views.units import si

    rows = []
    for name in device_names():
        device: Any = get_device(name)
        formats = " · ".join(f"{role} {fmt}" for role, fmt in device.spec.default_formats.items())
        rows.append(
            (
                f"`{name}`",
                f"[{device.kind}](specs/{device.kind}.md)",
                device.spec.summary,
                si(device.spec.clock_hz, "Hz"),
                formats,
                ", ".join(device.fidelities),
            )
        )
    text = "# Devices\n\nWhat `get_device` and `--device` know by name. `hwsim devices NAME` prints a spec with its sources.\n\n"
    return text + table(("name", "kind", "what it is", "clock", "default formats", "fidelities"), rows, "lllrll")


def specs_index(kinds: Mapping[str, str]) -> str:
    """What the kinds are, and how a spec is read."""
    from hwsim.registry import device_classes

    classes: dict[str, Any] = dict(device_classes())
    rows = [(f"[`{kind}`]({kind}.md)", parsed(classes[kind].spec_class).first) for kind in kinds]
    return (
        "# Specs\n\nA spec is a YAML file that begins with `kind:`. These pages list the fields of each kind as the validation "
        "reads them: what a field takes, its unit (the end of its name says it), and its default. An unknown field, a wrong type "
        "or a number out of range is [an error of one line](../../own-device.md#errors).\n\n"
        + table(("kind", "what it describes"), rows)
    )


def study_page() -> str | None:
    """The fields of a study file; None while there is no such module."""
    try:
        from hwsim.explore import study_file
    except ImportError:
        return None
    models = [
        m for m in vars(study_file).values()
        if isinstance(m, type) and issubclass(m, BaseModel) and m.__module__ == study_file.__name__ and m.__name__[0] != "_"
    ]  # fmt: skip
    about = parsed(study_file)
    parts = ["# Study files\n", about.text + "\n"]
    for model in models:
        parts += [f"## {model.__name__} {{: #{_anchor(model)} }}\n", parsed(model).text + "\n", field_table(model)]
    return "\n".join(parts)
