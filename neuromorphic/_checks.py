"""Checks of numbers that a user gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
        limit = "" if least == -np.inf else f" {'>' if above else '≥'} {least:g}"
        raise InputError(f"{name}: expected a finite number{limit}, got {value!r}")


def whole(name: str, value: object, least: int) -> None:
    """Refuses anything but an integer ≥ ``least``.

    Raises:
        InputError: the field, what was expected and what was given.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name}: expected an integer ≥ {least}, got {value!r}")


def finite_numbers(name: str, values: npt.NDArray[Any]) -> None:
    """Refuses an array with inf or nan.

    Raises:
        InputError: the field, the first such number and its place.
    """
    wrong = np.flatnonzero(~np.isfinite(values))
    if wrong.size:
        place = ", ".join(str(int(i)) for i in np.unravel_index(int(wrong[0]), values.shape))
        raise InputError(f"{name}: expected finite numbers, got {values.flat[wrong[0]]} at [{place}]")
