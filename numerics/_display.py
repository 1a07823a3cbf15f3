"""How objects look at the end of a notebook's cell: cards, tables and small pictures as HTML that stands on its own, and texts of
one line for everywhere else.

Styles are inline and colours are the reader's own, or legible on light and dark alike: nothing is fetched, and no style leaks
into the notebook around it. Whatever an object holds is escaped, and cut to a size that a page bears.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from importlib import import_module
from pathlib import PurePath
from reprlib import recursive_repr
from typing import Any, TypeVar

T = TypeVar("T")

Fields = Mapping[str, Any] | Iterable[tuple[str, Any]]
"""Label → what stands beside it: text, or a number written to six digits."""
Speller = Callable[[str, Any], tuple[str, str]]
"""Name of an attribute and its value → label and text."""

BLUE, ORANGE, GREEN, PINK, RED, GREY = "#2b8cbe", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#8a8f98"
"""Colours of pictures, told apart by the colour-blind and on either background."""

LONGEST_LINE = 240
"""Characters of a ``repr``."""
LONGEST_TEXT = 160
"""Characters of a value on a card; a longer one is cut in the middle."""
LONGEST_CELL = 90
MOST_ROWS = 12
MOST_FIELDS = 60
_LINE_VALUE = 72
_INLINE = 34

_MUTED = "opacity:.65"
_RULE = "1px solid rgba(128,128,128,.35)"


class Html(str):
    """Text that is HTML already, and is put on a card as it is."""


# --- what a class says of itself --------------------------------------------------------------------------------------


def displayed_by(place: str, *names: str) -> Callable[[type[T]], type[T]]:
    """A class decorator: instances are shown by ``place``, and have a ``repr`` of one line where none was written for them.

    Args:
        place: ``package.module:function``, loaded when something is shown; it is called with the object and ``names``.
        names: attributes beside the fields that are worth showing.
    """
    module, _, function = place.partition(":")

    def _repr_html_(self: Any) -> str:
        show: Callable[..., str] = getattr(import_module(module), function)
        return show(self, *names)

    @recursive_repr("…")
    def __repr__(self: Any) -> str:  # noqa: N807
        return one_line(self, *names)

    def decorate(cls: type[T]) -> type[T]:
        if "_repr_html_" not in vars(cls):
            cls._repr_html_ = _repr_html_  # type: ignore[attr-defined]
        if not _has_written_repr(cls):
            __repr__._made_here = True  # type: ignore[attr-defined]
            cls.__repr__ = __repr__  # type: ignore[method-assign]
        return cls

    return decorate


def displayed(cls: type[T]) -> type[T]:
    """The card of ``anything``, for objects whose fields say it all."""
    return displayed_by("numerics._display:anything")(cls)


def displaying(*names: str) -> Callable[[type[T]], type[T]]:
    """The card of ``anything``, with further attributes beside the fields."""
    return displayed_by("numerics._display:anything", *names)


def _has_written_repr(cls: type) -> bool:
    """Whether someone wrote its ``__repr__``: not ``object``'s, nor one that ``dataclass``, ``NamedTuple`` or pydantic made."""
    found = inspect.unwrap(cls.__repr__)
    code = getattr(found, "__code__", None)
    if code is None or code.co_filename == "<string>" or getattr(cls.__repr__, "_made_here", False):
        return False
    return found.__globals__.get("__name__", "").partition(".")[0] not in ("pydantic", "collections")


def attributes(value: Any, *names: str) -> dict[str, Any]:
    """Name → value: the fields of a dataclass, a model or a named tuple, the public attributes of any other object, and
    ``names``; one that cannot be had is its own error."""
    found: dict[str, Any] = {}
    if dataclasses.is_dataclass(value):
        own: Iterable[str] = (field.name for field in dataclasses.fields(value))
    elif hasattr(type(value), "model_fields"):
        own = type(value).model_fields
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        own = value._fields
    else:
        own = (() if names else vars(value)) if hasattr(value, "__dict__") else ()
    for name in (*own, *names):
        if name.startswith("_") or name in found:
            continue
        try:
            found[name] = getattr(value, name)
        except (ValueError, AttributeError) as error:
            found[name] = error
    return found


class Listing(list[T]):
    """A list that a notebook shows as a table, and that prints on one line; in all else a list.

    Args:
        entries: objects of one class, most often.
        show: ``package.module:function`` that makes its HTML; one table of their fields unless given.
    """

    def __init__(self, entries: Iterable[T] = (), show: str = "") -> None:
        super().__init__(entries)
        self._show = show

    def _repr_html_(self) -> str:
        if self._show:
            module, _, function = self._show.partition(":")
            found: str = getattr(import_module(module), function)(self)
            return found
        return listing(self)

    def __repr__(self) -> str:
        kept: list[str] = []
        room = LONGEST_LINE - 20
        for entry in self:
            text = repr(entry)
            room -= len(text) + 2
            if room < 0:
                break
            kept.append(text)
        if len(kept) == len(self):
            return f"[{', '.join(kept)}]"
        return f"[{', '.join([*kept, '…'])}] ({len(self):,} in all)"


# --- one line ---------------------------------------------------------------------------------------------------------


def one_line(value: Any, *names: str) -> str:
    """``Name(field=value, …)`` on one line of at most ``LONGEST_LINE`` characters: as dataclasses print it where that is short;
    arrays by their shape, and long values by their length."""
    parts = [f"{name}={short(entry)}" for name, entry in attributes(value, *names).items()]
    name = type(value).__qualname__
    line = f"{name}({', '.join(parts)})"
    if len(line) <= LONGEST_LINE:
        return line
    room = LONGEST_LINE - len(name) - 5
    kept: list[str] = []
    for part in parts:
        room -= len(part) + 2
        if room < 0:
            break
        kept.append(part)
    return f"{name}({', '.join([*kept, '…'])})"


def short(value: Any, most: int = _LINE_VALUE) -> str:
    """A ``repr`` of at most about ``most`` characters on one line."""
    if isinstance(value, str | bytes):
        text = repr(value if len(value) <= 2 * most else value[: 2 * most])
        return cut(text, most)
    if _is_array(value):
        return f"<{array_text(value, with_range=False)}>"
    if isinstance(value, Mapping):
        return _short_items(value, most, "{", "}", ((f"{short(k, most // 2)}: {short(v, most // 2)}") for k, v in value.items()))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return cut(one_line(value), most)
    if isinstance(value, list | tuple | set | frozenset):
        around = {list: ("[", "]"), tuple: ("(", ")"), set: ("{", "}"), frozenset: ("frozenset({", "})")}
        opening, closing = around.get(type(value), ("{", "}"))
        if not value:
            return repr(value)
        end = ",)" if isinstance(value, tuple) and len(value) == 1 else closing
        return _short_items(value, most, opening, end, (short(entry, most // 2) for entry in value))
    if isinstance(value, range | type | int | float | bool | None) or value is None:
        return cut(value.__qualname__ if isinstance(value, type) else repr(value), most)
    if _is_module(value):
        return f"<{type(value).__name__}>"
    if callable(value) and hasattr(value, "__qualname__"):
        return f"<function {cut(value.__qualname__, most)}>"
    if dataclasses.is_dataclass(value) or hasattr(type(value), "model_fields"):
        own = repr(value) if hasattr(value, "_repr_html_") else one_line(value)
        return own if len(own) <= most else f"<{_title(value)}>"
    return cut(" ".join(repr(value).split()), most)


def _short_items(value: Any, most: int, opening: str, closing: str, texts: Iterable[str]) -> str:
    """The items that fit, or how many there are."""
    kept: list[str] = []
    room = most
    for text in texts:
        room -= len(text) + 2
        if room < 0:
            return f"<{type(value).__name__} of {len(value):,}>"
        kept.append(text)
    return f"{opening}{', '.join(kept)}{closing}"


def cut(text: str, most: int) -> str:
    """``text`` in at most ``most`` characters; the middle goes, for names differ at the ends."""
    if len(text) <= most:
        return text
    tail = most // 3
    return f"{text[: most - tail - 1]}…{text[-tail:]}"


# --- values as text ---------------------------------------------------------------------------------------------------


def label_of(name: str) -> str:
    """The name of an attribute, as words."""
    return name.strip("_").replace("_", " ")


def number(value: float) -> str:
    """Six significant digits; whole numbers with their thousands."""
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**15 else f"{value:.6g}"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    return f"{value:.6g}"


def plain(name: str, value: Any) -> tuple[str, str]:
    """An attribute as label and text; a ``Speller``."""
    return label_of(name), text_of(value)


def text_of(value: Any) -> str:
    """A value as people read it, on one line."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return cut(" ".join(value[: 4 * LONGEST_TEXT].split()), LONGEST_TEXT)
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, Exception):
        return cut(f"not known: {value}", LONGEST_TEXT)
    if isinstance(value, PurePath):
        return cut(str(value), LONGEST_TEXT)
    if _is_array(value):
        return array_text(value)
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return text_of(value.item())
    if _is_module(value):
        return module_text(value)
    if isinstance(value, Mapping):
        return _joined(value, lambda key: f"{text_of(key)}: {text_of(value[key])}")
    if isinstance(value, list | tuple | set | frozenset) and not hasattr(value, "_fields"):
        if isinstance(value, tuple) and value and all(isinstance(v, int) and not isinstance(v, bool) for v in value):
            return " × ".join(map(number, value)) if len(value) <= 5 else _joined(value, text_of)
        return _joined(value, text_of)
    if type(value).__str__ is not object.__str__:
        return cut(" ".join(str(value)[: 4 * LONGEST_TEXT].split()), LONGEST_TEXT)
    return cut(repr(value), LONGEST_TEXT) if hasattr(value, "_repr_html_") else short(value, LONGEST_TEXT)


def _joined(values: Any, text: Callable[[Any], str]) -> str:
    kept: list[str] = []
    room = LONGEST_TEXT
    for value in values:
        entry = text(value)
        room -= len(entry) + 2
        if room < 0 and kept:
            return f"{', '.join(kept)} … ({len(values):,} in all)"
        kept.append(entry)
    return ", ".join(kept) if kept else "none"


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape") and value.shape != () and not isinstance(value, type)


def _is_module(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def array_text(value: Any, *, with_range: bool = True) -> str:
    """An array or tensor by its shape, type and range."""
    shape = " × ".join(f"{size:,}" for size in value.shape)
    text = f"{shape} {str(value.dtype).removeprefix('torch.')}"
    if not with_range or not all(value.shape):
        return text
    import numpy as np

    numbers = value.detach().cpu().double().numpy() if hasattr(value, "detach") and not value.is_complex() else value
    if hasattr(numbers, "detach"):
        return text
    numbers = np.asarray(numbers)
    if numbers.dtype.kind == "b":
        return f"{text}, {int(numbers.sum()):,} set"
    if numbers.dtype.kind not in "iuf":
        return text
    numbers = numbers[np.isfinite(numbers)] if numbers.dtype.kind == "f" else numbers
    return f"{text}, {number(numbers.min().item())} … {number(numbers.max().item())}" if numbers.size else text


def module_text(module: Any) -> str:
    """A module by its class and its parameters."""
    count = sum(parameter.numel() for parameter in module.parameters())
    return f"{type(module).__name__} ({count:,} parameters)" if count else type(module).__name__


# --- HTML -------------------------------------------------------------------------------------------------------------


def html_of(value: Any) -> str:
    """A value as HTML: what is ``Html`` as it is, all else as escaped text."""
    return str(value) if isinstance(value, Html) else escape(text_of(value))


def card(title: str, fields: Fields = (), *parts: str, subtitle: str = "", notes: Iterable[str] = ()) -> str:
    """A card.

    Args:
        title: what is shown.
        fields: label → value; short ones flow beside one another, long ones take a line each.
        parts: further HTML, below the fields (``table``, ``drawing``, ``section``).
        subtitle: what it is, in muted letters.
        notes: sentences at the end.
    """
    sub = f' <span style="{_MUTED}">{escape(cut(subtitle, 4 * LONGEST_TEXT))}</span>' if subtitle else ""
    last = "".join(f'<div style="{_MUTED}">{escape(cut(note, 4 * LONGEST_TEXT))}</div>' for note in notes)
    head = f"<div><b>{escape(cut(title, LONGEST_TEXT))}</b>{sub}</div>"
    return f'<div style="line-height:1.4;max-width:70rem">{head}{_fields(fields)}{"".join(parts)}{last}</div>'


def section(title: str, fields: Fields = (), *parts: str) -> str:
    """A part of a card with a heading of its own."""
    head = f'<div style="border-top:{_RULE};margin-top:4px;padding-top:3px;font-weight:600">{escape(title)}</div>'
    return f"{head}{_fields(fields)}{''.join(parts)}"


def folded(title: str, *parts: str) -> str:
    """A part of a card that opens when its title is clicked."""
    return f'<details style="margin-top:4px"><summary style="cursor:pointer">{escape(title)}</summary>{"".join(parts)}</details>'


def _fields(fields: Fields) -> str:
    pairs = list(fields.items() if isinstance(fields, Mapping) else fields)
    shown_pairs = pairs[:MOST_FIELDS]
    flowing, lines = [], []
    for label, value in shown_pairs:
        name, text = escape(cut(str(label), LONGEST_TEXT)), html_of(value)
        if isinstance(value, Html) or len(text) <= _INLINE:
            flowing.append(
                f'<div><div style="{_MUTED};font-size:.85em">{name}</div><div style="font-variant-numeric:tabular-nums">'
                f"{text}</div></div>"
            )
        else:
            lines.append(f'<div><span style="{_MUTED};font-size:.85em">{name}</span> {text}</div>')
    if len(pairs) > len(shown_pairs):
        lines.append(f'<div style="{_MUTED}">… and {len(pairs) - len(shown_pairs):,} more</div>')
    flow = f'<div style="display:flex;flex-wrap:wrap;gap:3px 22px;margin:4px 0">{"".join(flowing)}</div>' if flowing else ""
    return flow + "".join(lines)


def table(
    rows: Sequence[Mapping[str, Any]],
    *,
    columns: Sequence[str] | None = None,
    most: int = MOST_ROWS,
    total: int | None = None,
    speller: Speller = plain,
) -> str:
    """Rows as a table: numbers to the right, at most ``most`` rows, and how many there are beside them.

    Args:
        rows: column → value; ``Html`` stays as it is.
        columns: which, in this order; all unless given.
        most: rows to show.
        total: how many rows there are in all, where ``rows`` are the first of them only.
        speller: how a column's name and a value are written.
    """
    drawn = rows[:most]
    names = list(columns) if columns is not None else list(dict.fromkeys(name for row in drawn for name in row))
    if not names:
        return ""
    left, right = "text-align:left;padding:1px 10px 1px 0", "text-align:right;padding:1px 10px 1px 0"
    sides = {name: right if all(_is_figure(row.get(name)) for row in drawn) else left for name in names}
    heads = "".join(f'<th style="{sides[name]};font-weight:600">{escape(speller(name, None)[0])}</th>' for name in names)
    lines = "".join(
        "<tr>"
        + "".join(f'<td style="{sides[n]};white-space:nowrap">{_cell(n, row.get(n), speller)}</td>' for n in names)
        + "</tr>"
        for row in drawn
    )
    left_out = (len(rows) if total is None else total) - len(drawn)
    more = f'<div style="{_MUTED}">… and {left_out:,} more</div>' if left_out > 0 else ""
    style = "border-collapse:collapse;margin:4px 0;font-size:inherit"
    body = f'<table style="{style}"><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>'
    return f'<div style="overflow-x:auto">{body}</div>{more}'


def _cell(name: str, value: Any, speller: Speller) -> str:
    return str(value) if isinstance(value, Html) else escape(cut(speller(name, value)[1], LONGEST_CELL))


def _is_figure(value: Any) -> bool:
    """A number, one with its unit, or none."""
    if isinstance(value, str) and not isinstance(value, Html):
        return value in ("", "–") or bool(re.fullmatch(r"[−-]?[\d,.]+(e[+-]?\d+)?( ?\S{1,8})?", value))
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def drawing(body: str, width: float, height: float, label: str) -> str:
    """SVG elements as a picture that shrinks with the page; lines and letters in ``currentColor`` follow the reader's theme."""
    return (
        f'<div style="overflow-x:auto;margin:4px 0"><svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'style="max-width:100%;height:auto;font:11px system-ui,sans-serif" role="img" aria-label="{escape(label)}">'
        f"{body}</svg></div>"
    )


def bar(fraction: float, *, colour: str = BLUE, width: int = 90) -> Html:
    """A bar filled to ``fraction``, for a cell of a table."""
    filled = width * min(max(fraction, 0.0), 1.0)
    return Html(
        f'<span style="display:inline-block;width:{width}px;height:9px;background:rgba(128,128,128,.22)">'
        f'<span style="display:block;width:{filled:.1f}px;height:9px;background:{colour}"></span></span>'
    )


def curve(
    xs: Sequence[float],
    ys: Sequence[float],
    label: str,
    *,
    ends: tuple[str, str, str, str] = ("", "", "", ""),
    log_y: bool = False,
    colour: str = BLUE,
) -> str:
    """A line through points, at most 240 of them.

    Args:
        xs, ys: the points; those that are not finite (or not positive, by the logarithm) are left out.
        label: what it shows, for those who cannot see it.
        ends: texts at the least and greatest x and y.
        log_y: y by its logarithm.
    """
    points = [(float(x), math.log10(y) if log_y else float(y)) for x, y in zip(xs, ys, strict=True) if not log_y or y > 0]
    points = [point for point in points if all(map(math.isfinite, point))]
    if len(points) < 2:
        return ""
    points = [points[round(i * (len(points) - 1) / (min(len(points), 240) - 1))] for i in range(min(len(points), 240))]
    width, height, edge, base = 360, 120, 74, 100
    low_x, high_x = min(x for x, _ in points), max(x for x, _ in points)
    low_y, high_y = min(y for _, y in points), max(y for _, y in points)
    across = (width - edge - 8) / ((high_x - low_x) or 1.0)
    along = (base - 8) / ((high_y - low_y) or 1.0)
    path = " ".join(f"{edge + (x - low_x) * across:.1f},{base - (y - low_y) * along:.1f}" for x, y in points)
    text = 'fill="currentColor" opacity=".75"'
    body = (
        f'<path d="M{edge} 6V{base}H{width - 6}" fill="none" stroke="currentColor" opacity=".4"/>'
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>'
        f'<text x="{edge}" y="{base + 14}" {text}>{escape(ends[0])}</text>'
        f'<text x="{width - 6}" y="{base + 14}" text-anchor="end" {text}>{escape(ends[1])}</text>'
        f'<text x="{edge - 5}" y="{base}" text-anchor="end" {text}>{escape(ends[2])}</text>'
        f'<text x="{edge - 5}" y="14" text-anchor="end" {text}>{escape(ends[3])}</text>'
    )
    return drawing(body, width, height, label)


def heat(rows: Sequence[Sequence[float | None]], label: str, *, titles: bool = False, colour: str = BLUE, side: int = 14) -> str:
    """Numbers as squares, the stronger the larger; None leaves a gap. At most 48 rows and columns are drawn.

    Args:
        rows: from the top; not negative.
        label: what it shows.
        titles: whether a square says its number when pointed at.
        colour, side: of a square.
    """
    drawn = [list(row[:48]) for row in rows[:48]]
    largest = max((value for row in drawn for value in row if value is not None), default=0.0) or 1.0
    squares: dict[int, list[str]] = {}
    parts = []
    for y, row in enumerate(drawn):
        for x, value in enumerate(row):
            if value is None:
                continue
            level = round(15 * value / largest)  # a path a shade, which is smaller than an element a square
            squares.setdefault(level, []).append(f"M{x * side} {y * side}h{side - 1}v{side - 1}h{1 - side}z")
            if titles:
                place = f'x="{x * side}" y="{y * side}" width="{side}" height="{side}"'
                parts.append(f'<rect {place} fill-opacity="0"><title>{x}, {y}: {number(value)}</title></rect>')
    shades = [
        f'<path d="{"".join(squares[level])}" fill="{colour}" fill-opacity="{0.08 + 0.92 * level / 15:.2f}"/>'
        for level in squares
    ]
    parts = [*shades, *parts]
    if not parts:
        return ""
    width = max(len(row) for row in drawn) * side
    caption = f'<text x="1" y="{len(drawn) * side + 13}" fill="currentColor" opacity=".75">{escape(label)}</text>'
    return drawing("".join(parts) + caption, max(width, 7 * len(label)), len(drawn) * side + 18, label)


# --- any object -------------------------------------------------------------------------------------------------------


def anything(value: Any, *names: str, speller: Speller = plain) -> str:
    """An object by its fields: numbers and texts side by side, lists of like objects as tables, modules by their children.

    Args:
        value: a dataclass, a model of a spec, a module, or any other object with public attributes.
        names: further attributes to show.
        speller: how a name and a value are written.
    """
    if _is_module(value):
        return module_card(value, *names)
    fields, parts = spelled(attributes(value, *names), speller)
    return card(_title(value), fields, *parts, subtitle=purpose(type(value)))


def spelled(found: Mapping[str, Any], speller: Speller = plain) -> tuple[list[tuple[str, Any]], list[str]]:
    """Attributes as fields of a card, and as tables those that are lists of like objects, or long mappings to numbers."""
    fields: list[tuple[str, Any]] = []
    parts: list[str] = []
    for name, entry in found.items():
        rows = _rows(entry)
        if rows is None:
            fields.append(speller(name, entry))
        else:
            title, _ = speller(name, None)
            parts.append(section(title, (), table(rows, total=len(entry), speller=speller)))
    return fields, parts


def listing(values: Sequence[Any], *, speller: Speller = plain, most: int = 20) -> str:
    """Objects as one table of their fields."""
    rows = [
        value if isinstance(value, Mapping) else attributes(value) if _has_fields(type(value)) else {"": value}
        for value in values[:most]
    ]
    kinds = {type(value).__name__ for value in values}
    title = f"{len(values):,} × {kinds.pop()}" if len(kinds) == 1 else f"{len(values):,} entries"
    return card(title, (), table(rows, most=most, total=len(values), speller=speller))


def _rows(value: Any) -> list[Mapping[str, Any]] | None:
    """What is better read as a table: objects of the same class, or plain rows."""
    if isinstance(value, Mapping) and len(value) > 1:
        kinds = {type(entry) for entry in value.values()}
        if len(kinds) == 1 and _has_fields(next(iter(kinds))):
            return [{"": key, **attributes(value[key])} for key in list(value)[:MOST_ROWS]]
        return None
    if not isinstance(value, list | tuple) or hasattr(value, "_fields") or not value:
        return None
    kinds = {type(entry) for entry in value[:MOST_ROWS]}
    if kinds <= {dict} and all(value[:MOST_ROWS]):
        return list(value[:MOST_ROWS])
    return [attributes(entry) for entry in value[:MOST_ROWS]] if len(kinds) == 1 and _has_fields(kinds.pop()) else None


def _has_fields(kind: type) -> bool:
    if dataclasses.is_dataclass(kind):
        return len(dataclasses.fields(kind)) > 0
    return bool(getattr(kind, "model_fields", None)) or bool(issubclass(kind, tuple) and getattr(kind, "_fields", None))


def module_card(module: Any, *names: str) -> str:
    """A module: its settings, and its children with their parameters."""
    rows = [
        {"module": path, "kind": type(child).__name__, "parameters": sum(p.numel() for p in child.parameters())}
        for path, child in module.named_children()
    ]
    settings = str(module.extra_repr())
    count = sum(parameter.numel() for parameter in module.parameters())
    fields = {"settings": settings} if settings else {}
    fields |= {"parameters": count} if count else {}
    extra, parts = spelled({name: getattr(module, name) for name in names})
    return card(type(module).__name__, [*fields.items(), *extra], table(rows), *parts, subtitle=purpose(type(module)))


def _title(value: Any) -> str:
    """The class, and the name of the object where it has one."""
    name = getattr(value, "name", None)
    kind = type(value).__name__
    return f"{kind} {name}" if isinstance(name, str) and name else kind


def purpose(cls: type) -> str:
    """The first sentence of a class's own docstring."""
    text = cls.__dict__.get("__doc__") or ""
    if text.startswith(f"{cls.__name__}("):  # made by dataclass
        return ""
    paragraph = " ".join(text.strip().split("\n\n")[0].split()).replace("``", "")
    return paragraph.split(". ")[0].removesuffix(".").partition("; ")[0]
