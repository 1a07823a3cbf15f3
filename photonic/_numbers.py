"""Checks of numbers that a user gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numerics.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt


def number(name: str, value: object, least: float = 0.0, *, above: bool = False) -> None:
    """Refuses anything but a finite number ≥ ``least`` (> it with ``above``).

    Raises:
        InputError: the field, what was expected and what was given.
    """
    plain = not isinstance(value, bool) and isinstance(value, int | float | np.integer | np.floating)
    if not plain or not np.isfinite(value) or value < least or (above and value == least):  # type: ignore[operator, call-overload]
        raise InputError(f"{name}: expected a finite number {'>' if above else '≥'} {least:g}, got {value!r}")


def real_numbers(name: str, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """A copy as float64.

    Raises:
        InputError: values that are no real numbers, complex ones among them; rows of different lengths.
    """
    try:
        given = np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name}: expected an array of real numbers, got {str(error).lower()}") from None
    if given.dtype.kind not in "biuf":
        raise InputError(f"{name}: expected real numbers, got {given.dtype}")
    return np.array(given, np.float64)


def is_one_of(name: str, value: object, *kinds: type) -> None:
    """Refuses an object of any other class.

    Raises:
        InputError: the field, what was expected and what was given.
    """
    if not isinstance(value, kinds):
        shown = repr(value) if value is None or isinstance(value, bool | int | float | str) else type(value).__name__
        raise InputError(f"{name}: expected {' or '.join(kind.__name__ for kind in kinds)}, got {shown}")
