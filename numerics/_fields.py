"""Checks of single fields, shared by what is built of integers, flags and names."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from numerics.errors import InputError


def check_integer(field: str, value: Any, least: int | None = None) -> int:
    """``value`` as an int; numpy's integers are taken, booleans are not.

    Raises:
        InputError: no integer, or one below ``least``.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise InputError(f"{field}: expected an integer, got {value!r}")
    if least is not None and value < least:
        raise InputError(f"{field}: expected ≥ {least}, got {value}")
    return int(value)


def check_flag(field: str, value: Any) -> bool:
    """``value`` as a bool; numpy's booleans are taken, numbers are not.

    Raises:
        InputError: no boolean.
    """
    if not isinstance(value, bool):
        import numpy as np

        if not isinstance(value, np.bool_):
            raise InputError(f"{field}: expected True or False, got {value!r}")
    return bool(value)


def settle(owner: Any, where: str, *, integers: tuple[str, ...] = (), flags: tuple[str, ...] = ()) -> None:
    """Check those fields of a frozen dataclass, and keep them as plain ints and bools.

    Raises:
        InputError: the first that is neither.
    """
    for field in integers:
        object.__setattr__(owner, field, check_integer(f"{where}: {field}", getattr(owner, field)))
    for field in flags:
        object.__setattr__(owner, field, check_flag(f"{where}: {field}", getattr(owner, field)))
