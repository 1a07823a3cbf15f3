"""Checks of arrays that are given as integers or as flags, so that none is cut or turned into another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numerics.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt


def integers(name: str, values: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """``values`` as int64.

    Raises:
        InputError: floats, booleans or anything else that is no integer of 64 bits.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "iu" and array.size:
        raise InputError(f"{name}: expected integers, got {array.dtype}")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise InputError(f"{name}: expected integers below 2^63, got {array.max()}")
    return array.astype(np.int64)


def flags(name: str, values: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """``values`` as bool.

    Raises:
        InputError: anything but booleans, 0 and 1.
    """
    array = np.asarray(values)
    if array.dtype != np.bool_:
        wrong = (array != 0) & (array != 1)
        if wrong.any():
            raise InputError(f"{name}: expected booleans, or 0 and 1, got {array[wrong].flat[0]}")
    return array.astype(np.bool_)
