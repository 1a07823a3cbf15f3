"""Clock, energy and power limit of an NVIDIA GPU, read from the driver's management library (NVML) without a package."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

_LIBRARY = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
_SM_CLOCK = 1
"""NVML_CLOCK_SM of nvml.h: the clock of the streaming multiprocessors."""


class Nvml:
    """One GPU. A reading that the GPU or the driver does not offer is None."""

    def __init__(self, library: Any, handle: Any) -> None:
        self._library = library
        self._handle = handle

    def _read(self, function: str, cell: Any, *arguments: Any) -> int | None:
        call = getattr(self._library, function, None)
        if call is None or call(self._handle, *arguments, ctypes.byref(cell)) != 0:
            return None
        return int(cell.value)

    def clock_hz(self) -> float | None:
        """Present clock of the multiprocessors."""
        found = self._read("nvmlDeviceGetClockInfo", ctypes.c_uint(), ctypes.c_int(_SM_CLOCK))
        return None if found is None else found * 1e6

    def energy_j(self) -> float | None:
        """Energy that the whole board used since the driver was loaded; the counter is in millijoules."""
        found = self._read("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong())
        return None if found is None else found * 1e-3

    def power_limit_w(self) -> float | None:
        """The power that the board is held to."""
        found = self._read("nvmlDeviceGetEnforcedPowerLimit", ctypes.c_uint())
        return None if found is None else found * 1e-3

    def driver(self) -> str:
        """Version of the driver ("" where it does not tell)."""
        text = ctypes.create_string_buffer(96)
        call = getattr(self._library, "nvmlSystemGetDriverVersion", None)
        return text.value.decode() if call is not None and call(text, ctypes.c_uint(len(text))) == 0 else ""


def open_nvml(uuid: str, library: Any = None) -> Nvml | None:
    """The GPU of that UUID (``GPU-…``; an index would be wrong where CUDA_VISIBLE_DEVICES hides some), or None without NVML.

    Args:
        library: the loaded library, for tests; the driver's otherwise.
    """
    if library is None:
        try:
            library = ctypes.CDLL(_LIBRARY)
        except OSError:
            return None
    handle = ctypes.c_void_p()
    opened = library.nvmlInit_v2() == 0
    if not opened or library.nvmlDeviceGetHandleByUUID(ctypes.c_char_p(uuid.encode()), ctypes.byref(handle)) != 0:
        return None
    return Nvml(library, handle)
