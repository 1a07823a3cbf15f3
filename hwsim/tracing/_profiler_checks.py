"""What the events of a profiler's trace must hold before anything is made of them: files are cut and put together by hand."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from numerics.errors import InputError

LATEST_US = float(2**63)
"""Bound of times: beyond any clock, and sums of such numbers stay finite."""

DEEPEST = 200
"""Operators inside one another at most."""

_IDS = ("correlation", "External id", "Sequence number")
_SIZES = {"Input Dims": 0, "Input Strides": None}
"""Lists with an entry an argument → the smallest number in them."""
_TEXTS = ("Input type", "Concrete Inputs")

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60


class EventError(ValueError):
    """A field of an event and what is wrong with it."""


def check_events(path: object, events: list[Any]) -> None:
    """Complete events have names, times and threads; those of operators, kernels and launches also ids and sizes.

    Raises:
        InputError: the first that does not, with its index in ``traceEvents``, its name, the field, its value and what was
            expected.
    """
    for index, entry in enumerate(events):
        if not isinstance(entry, Mapping) or entry.get("ph") != "X":
            continue
        try:
            _check_times(entry)
            _check_place(entry)
            _check_arguments(entry.get("args") or {}, sizes=entry.get("cat") == "cpu_op")
        except EventError as error:
            raise event_error(path, index, entry, error) from None


def event_error(path: object, index: int, entry: Mapping[str, Any], what: object) -> InputError:
    """The error for an event of a file, as one line."""
    return InputError(f"{path}: event {index} ({_short.repr(entry.get('name'))}): {what}")


def _wrong(field: str, expected: str, value: Any) -> EventError:
    return EventError(f"{field}: expected {expected}, got {_short.repr(value)}")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_times(entry: Mapping[str, Any]) -> None:
    for key, least in (("ts", -LATEST_US), ("dur", 0)):
        value = entry.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong(key, "numbers for 'ts' and 'dur'", value)
        if not least <= value <= LATEST_US:
            raise _wrong(key, f"microseconds from {'0' if least == 0 else '-2^63'} to 2^63", value)


def _check_place(entry: Mapping[str, Any]) -> None:
    for key in ("name", "cat"):
        _check_text(key, entry.get(key, ""))
    for key in ("pid", "tid"):
        if not (entry.get(key) is None or _whole(entry[key]) or isinstance(entry[key], str)):
            raise _wrong(key, "an integer or text", entry[key])
    if not (entry.get("args") is None or isinstance(entry["args"], Mapping)):
        raise _wrong("args", "an object of names and values", entry["args"])


def _check_text(field: str, value: Any) -> None:
    """A string that can be printed: JSON may hold halves of surrogate pairs, which no encoding has."""
    if not isinstance(value, str):
        raise _wrong(field, "text", value)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _wrong(field, "text that is valid Unicode", value) from None


def _check_arguments(args: Mapping[str, Any], *, sizes: bool) -> None:
    for key in _IDS:
        if key in args and not (_whole(args[key]) or isinstance(args[key], str)):
            raise _wrong(key, "an integer or text", args[key])
    if not sizes:
        return
    _check_text("Module Hierarchy", args.get("Module Hierarchy", ""))
    for key in _TEXTS:
        given = args.get(key)
        if not (given is None or (isinstance(given, list) and all(isinstance(part, str) for part in given))):
            raise _wrong(key, "a list of texts, one an argument", given)
    kinds = args.get("Input type") or []
    for key, least in _SIZES.items():
        _check_sizes(key, args.get(key), kinds, least)


def _check_sizes(key: str, given: Any, kinds: list[str], least: int | None) -> None:
    """An entry an argument: the sizes of a tensor, or those of each tensor of a list."""
    if given is None:
        return
    numbers = "integers" if least is None else f"integers ≥ {least}"
    if not isinstance(given, list) or not all(isinstance(part, list) for part in given):
        raise _wrong(key, f"a list with a list of {numbers} an argument", given)
    for place, part in enumerate(given):
        kind = kinds[place] if place < len(kinds) else ""
        unknown = kind == "" or (kind.endswith("List") and kind != "TensorList")
        nested = bool(part) and isinstance(part[0], list) if unknown else kind == "TensorList"
        if nested and not all(isinstance(inner, list) for inner in part):
            raise _wrong(f"{key}[{place}]", f"a list of {numbers} for each tensor of the list", part)
        flat = [size for inner in part for size in inner] if nested else part
        if not all(_whole(size) and (least is None or size >= least) for size in flat):
            raise _wrong(f"{key}[{place}]", numbers, part)
