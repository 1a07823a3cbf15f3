"""The machines that kernels are measured on: what a session needs of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from hwsim.measuring.method import Method
from hwsim.measuring.shapes import Limits
from numerics.errors import InputError

if TYPE_CHECKING:
    import torch

Run = Callable[[int], None]
"""Number of calls → makes that many, on the next sets of tensors."""


class Backend(Protocol):
    """A machine that runs PyTorch's kernels.

    Attributes:
        name: ``cpu`` or ``cuda``.
        device: where the tensors live.
        default_formats: measured unless others are asked for.
        limits: of the shapes.
        method: how it times a kernel.
        memory_bytes: that all tensors of a kernel may take together.
        cache_bytes: of the last level of cache.
        most_sets: of tensors that take turns.
        columns: what ``readings`` gives beside the time.
    """

    name: str
    device: torch.device
    default_formats: tuple[str, ...]
    limits: Limits
    method: Method
    memory_bytes: int
    cache_bytes: int
    most_sets: int
    columns: tuple[str, ...]

    def granule(self, formats: str) -> int:
        """What the sides of a matmul must be multiples of in these formats."""
        ...

    def describe(self) -> dict[str, str]:
        """What a reader of the measurements must know of the machine."""
        ...

    def ready(self) -> contextlib.AbstractContextManager[None]:
        """The machine's settings while it measures."""
        ...

    def elapsed(self, run: Run, calls: int) -> float:
        """Seconds that ``calls`` calls take."""
        ...

    def readings(self, run: Run, calls: int, time_s: float) -> dict[str, float | None]:
        """The extra columns of a kernel of which ``calls`` calls make a run and one takes ``time_s``."""
        ...


def open_backend(name: str, *, threads: int | None = None) -> Backend:
    """The backend of that name.

    Raises:
        InputError: no GPU, ``threads`` for a GPU or below one.
    """
    from hwsim.measuring.cpu import CpuBackend
    from hwsim.measuring.cuda import CudaBackend

    if name == "cuda":
        if threads is not None:
            raise InputError("--threads: of the cpu backend only")
        return CudaBackend()
    return CpuBackend(threads)
