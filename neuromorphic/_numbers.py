"""Checks of single numbers that a user gives."""

from __future__ import annotations

import numpy as np

from numerics.errors import InputError


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
