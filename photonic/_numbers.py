"""Checks of numbers, names and objects that a user gives."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    import numpy.typing as npt


def number(name: str, value: object, least: float = 0.0, *, above: bool = False) -> None:
    """Refuses anything but a finite number ≥ ``least`` (> it with ``above``).

    Raises:
        InputError: the field, what was expected and what was given.
    """
    plain = not isinstance(value, bool) and isinstance(value, int | float | np.integer | np.floating)
    try:
        finite = plain and math.isfinite(value)  # type: ignore[arg-type]
    except OverflowError:  # an integer that no double holds
        finite = False
    if not finite or value < least or (above and value == least):  # type: ignore[operator]
        raise InputError(f"{name}: expected a finite number {'>' if above else '≥'} {least:g}, got {shown(value)}")


def array(name: str, values: object, expected: str = "numbers") -> npt.NDArray[Any]:
    """Numbers as numpy has them, without a copy where there need be none; booleans are 0 and 1.

    Raises:
        InputError: no numbers; rows of different lengths; a tensor that autograd follows, or that is not on the CPU.
    """
    try:
        given = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        why = str(error).split("\n")[0].rstrip(".").lower()
        if getattr(values, "requires_grad", False):
            why = "a tensor with a gradient to keep (give its .detach())"
        elif "inhomogeneous" in why:
            why = "rows of different lengths"
        raise InputError(f"{name}: expected an array of {expected}, got {why}") from None
    if given.dtype.kind not in "biufc":
        raise InputError(f"{name}: expected {expected}, got {shown(values) if given.ndim == 0 else given.dtype}")
    return given


def real_numbers(name: str, values: object) -> npt.NDArray[np.float64]:
    """A copy as float64.

    Raises:
        InputError: values that are no real numbers, complex ones among them; rows of different lengths.
    """
    given = array(name, values, "real numbers")
    if given.dtype.kind == "c":
        raise InputError(f"{name}: expected real numbers, got {given.dtype}")
    return np.array(given, np.float64)


def complex_numbers(name: str, values: object) -> npt.NDArray[np.complex128]:
    """As complex128.

    Raises:
        InputError: no numbers; rows of different lengths.
    """
    return np.asarray(array(name, values), np.complex128)


def finite(name: str, values: npt.NDArray[Any]) -> None:
    """Refuses nan and inf.

    Raises:
        InputError: the field and the first of them.
    """
    with np.errstate(all="ignore"):
        if np.isfinite(values.sum()):  # as nan and inf are not lost in a sum; half the time of looking at each
            return
    sound = np.isfinite(values)
    if not sound.all():
        raise InputError(f"{name}: expected finite numbers, got {values[~sound].flat[0]}")


def one_of(name: str, value: object, known: Iterable[str]) -> None:
    """Refuses anything but one of some names.

    Raises:
        InputError: the field, the value, and the names that resemble it.
    """
    names = tuple(known)
    if not isinstance(value, str):
        raise InputError(f"{name}: expected {' or '.join(repr(each) for each in names)}, got {shown(value)}")
    if value not in names:
        raise unknown_name(name, value, names)


def is_one_of(name: str, value: object, *kinds: type) -> None:
    """Refuses an object of any other class.

    Raises:
        InputError: the field, what was expected and what was given.
    """
    if not isinstance(value, kinds):
        names = ("None" if kind is type(None) else kind.__name__ for kind in kinds)
        raise InputError(f"{name}: expected {' or '.join(names)}, got {shown(value)}")


def shown(value: object) -> str:
    """A plain value as it is, of anything else its class."""
    if value is None or isinstance(value, bool | int | float | complex | str | np.number):
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:57]}…"
    return value.__name__ if isinstance(value, type) else type(value).__name__
