"""Cards of workloads, their operators and tensors, and machines; and the card of any object whose names say their units."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hwsim.views.units import counted, percent, si
from numerics import _display as display
from numerics._display import Html, bar, card, folded, label_of, number, section, table

if TYPE_CHECKING:
    from pydantic import BaseModel

    from hwsim.device import Device
    from hwsim.operators import Op
    from hwsim.workload import PeakMemory, Tensor, Workload

_PREFIXED = {
    "s": "s", "j": "J", "js": "J·s", "hz": "Hz", "w": "W", "v": "V", "bytes": "B", "ohm": "Ω", "siemens": "S", "a": "A",
    "flops": "FLOP",
}  # fmt: skip
"""Unit in a name → its sign, of units that take decimal prefixes."""
_FIXED = {
    "ns": "ns", "us": "µs", "ms": "ms", "pj": "pJ", "fj": "fJ", "nm": "nm", "um": "µm", "pf": "pF", "mhz": "MHz", "ghz": "GHz",
    "mm2": "mm²", "um2": "µm²", "m2": "m²", "cm2": "cm²", "a2": "A²", "db": "dB", "decibel": "dB", "dbm": "dBm", "rad": "rad",
    "c": "°C", "k": "K", "usd": "$", "pt": "pt",
}  # fmt: skip
_SHARES = ("accuracy", "utilization", "utilisation", "fraction", "share", "density", "mfu", "rate")


def unit_of(name: str) -> tuple[str, str, bool]:
    """The words of a name without its unit, the unit, and whether it takes decimal prefixes: ``energy_pj_per_byte`` gives
    ``("energy", "pJ/byte", False)``."""
    words = name.strip("_").split("_")
    if "per" in words[1:-1]:
        at = words.index("per", 1)
        before, after = words[at - 1], words[at + 1 :]
        if after[-1] in _PREFIXED and len(after) > 1:  # energy_per_token_j
            return " ".join(words[:-1]), _PREFIXED[after[-1]], True
        signs = _PREFIXED | _FIXED
        if before in signs:
            below = " ".join(signs.get(word, word) for word in after)
            return " ".join(words[: at - 1]) or "rate", f"{signs[before]}/{below}", before in _PREFIXED
        return " ".join(words), "", False
    if len(words) > 1 or words[0] == "bytes":
        if words[-1] in _PREFIXED:
            return " ".join(words[:-1]) or words[-1], _PREFIXED[words[-1]], True
        if words[-1] in _FIXED:
            return " ".join(words[:-1]), _FIXED[words[-1]], False
    return label_of(name), "", False


def spell(name: str, value: Any) -> tuple[str, str]:
    """An attribute as label and text, with the unit that its name says; a ``Speller``."""
    words, unit, prefixed = unit_of(name)
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()
    if unit in ("A", "K", "°C", "V") and isinstance(value, int | tuple):  # the k of a matmul, the c of a code
        unit, words = "", label_of(name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return words, _with_unit(name, value, unit, prefixed)
    if value is None:
        return words, "not known" if unit else "–"
    if unit and isinstance(value, list | tuple) and all(isinstance(v, int | float) for v in value):
        texts = [_with_unit(name, v, unit, prefixed) for v in value[:12]]
        return words, ", ".join(texts) + (f" … ({len(value):,} in all)" if len(value) > 12 else "") or "none"
    if unit and isinstance(value, Mapping) and all(isinstance(v, int | float | None) for v in value.values()):
        texts = [f"{key}: {_with_unit(name, v, unit, prefixed)}" for key, v in list(value.items())[:12]]
        return words, ", ".join(texts) + (f" … ({len(value):,} in all)" if len(value) > 12 else "") or "none"
    return words if unit else label_of(name), display.text_of(value)


def _with_unit(name: str, value: float | None, unit: str, prefixed: bool) -> str:
    if value is None:
        return "not known"
    if not unit:
        if isinstance(value, float) and name.rpartition("_")[2] in _SHARES and 1e-3 <= abs(value) <= 1:
            return percent(value)
        return number(value)
    return si(value, unit) if prefixed else f"{value:.4g} {unit}"


def anything(value: Any, *names: str) -> str:
    """An object by its fields and ``names``, with units."""
    return display.anything(value, *names, speller=spell)


def listing(values: Sequence[Any]) -> str:
    """Objects as one table of their fields, with units."""
    return display.listing(values, speller=spell)


def figures(value: Any, *names: str) -> list[tuple[str, str]]:
    """Some attributes as label and text."""
    return [spell(name, getattr(value, name)) for name in names]


# --- workloads --------------------------------------------------------------------------------------------------------


def workload(value: Workload, *names: str) -> str:
    """A workload: its totals, its memory by role, and its operators by kind and by work."""
    kinds: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for op in value.ops:
        entry = kinds[op.kind]
        entry[0] += 1
        entry[1] += op.macs
        entry[2] += sum(op.operations.values())
    whole = value.macs or 1
    rows = [
        {
            "kind": kind,
            "operators": count,
            "MACs": si(macs) if macs else "–",
            "": bar(macs / whole) if macs else "",
            "other operations": si(other) if other else "–",
        }
        for kind, (count, macs, other) in sorted(kinds.items(), key=lambda item: (-item[1][1], -item[1][2], item[0]))
    ]
    largest = sorted((op for op in value.ops if op.macs), key=lambda op: -op.macs)[:8]
    fields: list[tuple[str, Any]] = [
        ("operators", len(value.ops)),
        ("MACs", si(value.macs)),
        ("parameters", si(value.parameters) if value.parameters else "none"),
        *((f"{label_of(role)}s", si(size, "B")) for role, size in sorted(value.bytes_by_role().items(), key=lambda i: -i[1])),
        ("formats", value.recipe or "as traced"),
        ("takes", _tensors(value, value.inputs)),
        ("gives", _tensors(value, value.outputs)),
        *(spell(str(key), entry) for key, entry in list(value.metadata.items())[:8] if not isinstance(entry, Mapping)),
    ]
    parts = [table(rows)]
    if largest:
        parts.append(folded(f"operators with most work ({len(value.ops):,} in all)", table([_op_row(op) for op in largest])))
    extra = [spell(name, getattr(value, name)) for name in names if getattr(value, name) is not None]
    return card(value.name, [*fields, *extra], *parts, subtitle=_what(value))


def _what(value: object) -> str:
    """The kind of an object in small letters."""
    name = type(value).__name__
    return "".join(f" {c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))


def _tensors(value: Workload, names: Sequence[str], most: int = 4) -> str:
    texts = [f"{_shape(value.tensors[name].shape)} {value.tensors[name].format}" for name in names[:most]]
    return ", ".join(texts) + (f" … ({len(names):,} in all)" if len(names) > most else "") or "none"


def _shape(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "scalar"


def _op_row(op: Op) -> dict[str, Any]:
    dims = ", ".join(f"{name} {_dim(size)}" for name, size in op.dims.items())
    return {"operator": op.name, "kind": op.kind, "MACs": si(op.macs), "loop nest": dims, "formats": str(op.formats or "")}


def _dim(size: Any) -> str:
    if isinstance(size, tuple):
        return "×".join("..".join(map(str, each)) if isinstance(each, tuple) else str(each) for each in size) or "–"
    return f"{size:,}"


def operator(value: Op, *names: str) -> str:
    """An operator: its loop nest, its work, and the tensors it reads and writes."""
    fields: list[tuple[str, Any]] = [(label_of(name), _dim(size)) for name, size in value.dims.items()]
    fields += [("MACs", si(value.macs))] if value.macs else []
    if value.operations:
        fields.append(("other operations", ", ".join(f"{si(count)} {name}" for name, count in value.operations.items())))
    fields += [(label_of(name), entry) for name, entry in _settings(value).items()]
    fields += [(name, getattr(value, name)) for name in ("phase", "module", "source") if getattr(value, name)]
    fields += [("formats", str(value.formats))] if value.formats is not None else []
    fields += [("reads", ", ".join(value.inputs) or "nothing"), ("writes", ", ".join(value.outputs) or "nothing")]
    return card(value.name, [*fields, *figures(value, *names)], subtitle=f"operator, {value.kind or 'of no kind'}")


def _settings(value: Op) -> dict[str, Any]:
    """What an operator says beside its sizes: its own flags, names and rates."""
    common = {*value.dims, "name", "inputs", "outputs", "module", "phase", "source", "formats", "dense"}
    return {name: entry for name, entry in display.attributes(value).items() if name not in common}


def tensor(value: Tensor, *names: str) -> str:
    """A tensor: its shape, its format, its memory."""
    fields: dict[str, Any] = {
        "shape": _shape(value.shape),
        "format": value.format,
        "role": value.role,
        "elements": value.elements,
        "memory": si(value.bytes, "B"),
    }
    if value.density is not None:
        fields["non-zero"] = percent(value.density)
    if value.storage:
        fields["shares the memory of"] = value.storage
    return card(value.name, [*fields.items(), *figures(value, *names)], subtitle="tensor")


def peak(value: PeakMemory, *names: str) -> str:
    """The peak of a workload's memory, and what is alive at it."""
    rows = [
        {"role": role, "memory": si(size, "B"), "": bar(size / value.bytes if value.bytes else 0.0)}
        for role, size in sorted(value.by_role.items(), key=lambda item: -item[1])
    ]
    return card(si(value.bytes, "B"), figures(value, *names), table(rows), subtitle=f"alive at once, during {value.op or '–'}")


# --- machines ---------------------------------------------------------------------------------------------------------

_AT_THE_TOP = ("kind", "name", "summary", "energy_source", "calibrated", "conversions", "mac_formats", "default_formats")


def device(value: Device, *names: str) -> str:
    """A machine: what it is, its rungs, its formats, and its spec with units."""
    rungs = ", ".join(f"{rung} (default)" if rung == value.default_fidelity else rung for rung in value.fidelities)
    return _machine(value.spec, [("rungs", rungs), *figures(value, *names)], type(value).__name__)


def spec(value: BaseModel, *names: str) -> str:
    """A spec of a machine, its formats and its sections, or a section of one."""
    if not hasattr(value, "default_formats"):
        fields, parts = _parts(display.attributes(value, *names))
        return card(display._title(value), fields, *parts, subtitle=display.purpose(type(value)))
    return _machine(value, figures(value, *names), type(value).__name__)


def spec_line(value: BaseModel) -> str:
    """A spec on one line: its name and summary, or its fields."""
    name, summary = getattr(value, "name", None), getattr(value, "summary", None)
    if isinstance(name, str) and isinstance(summary, str):
        return display.cut(f"{type(value).__name__}({name!r}: {summary or getattr(value, 'kind', '')})", display.LONGEST_LINE)
    return display.one_line(value)


def _machine(found: Any, first: Sequence[tuple[str, Any]], kind: str) -> str:
    """The card of a machine's spec, with ``first`` before its fields."""
    top = {name: entry for name, entry in display.attributes(found).items() if name not in _AT_THE_TOP}
    fields, sections = _parts(top)
    default = ", ".join(f"{role}: {fmt}" for role, fmt in found.default_formats.items())
    formats: list[tuple[str, Any]] = [("used unless a recipe says otherwise", default)]
    macs = getattr(found, "mac_formats", None)
    if macs:
        formats.append(("multiplies", ", ".join(macs)))
    if found.conversions:
        formats.append(("converts", ", ".join(found.conversions)))
    parts = [section("formats", formats), folded("spec", *sections) if sections else ""]
    if found.calibrated:
        fitted = [
            {"fit": name, "field": field, "value": spell(field, entry)[1], "data": fit.data}
            for name, fit in found.calibrated.items()
            for field, entry in fit.values.items()
        ]
        parts.append(folded(f"fitted to measurements ({counted(len(fitted), 'field')})", table(fitted, most=30)))
    notes = [f"energies: {found.energy_source}"] if found.energy_source else []
    title = f"{found.name} ({kind}, {found.kind})" if kind != found.kind else found.name
    return card(title, [*first, *fields], *parts, subtitle=found.summary, notes=notes)


def _parts(found: Mapping[str, Any]) -> tuple[list[tuple[str, Any]], list[str]]:
    """The plain fields of a spec, and its sections as parts of the card; what is switched off or empty is left out."""
    fields: list[tuple[str, Any]] = []
    sections: list[str] = []
    for name, entry in found.items():
        if entry is None or (isinstance(entry, Mapping | tuple | list) and not entry):
            continue
        if isinstance(entry, Mapping) and len(entry) > 1 and all(hasattr(type(v), "model_fields") for v in entry.values()):
            rows = [{"": key, **display.attributes(part)} for key, part in list(entry.items())[:30]]
            sections.append(section(label_of(name), (), table(rows, most=30, total=len(entry), speller=spell)))
        elif isinstance(entry, tuple | list) and all(hasattr(type(v), "model_fields") for v in entry):
            rows = [display.attributes(part) for part in entry[:30]]
            sections.append(section(label_of(name), (), table(rows, most=30, total=len(entry), speller=spell)))
        elif hasattr(type(entry), "model_fields"):
            sections.append(section(label_of(name), *_inner(entry)))
        else:
            fields.append(spell(name, entry))
    return fields, sections


def _inner(part: BaseModel) -> tuple[Any, ...]:
    """A section's own fields, and its sections within a frame."""
    fields, sections = _parts(display.attributes(part))
    inside = "".join(sections)
    return fields, (Html(f'<div style="margin-left:14px">{inside}</div>') if inside else "")
