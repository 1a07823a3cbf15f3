"""Kernels on an NVIDIA GPU: CUDA events behind a spin kernel, clock and energy through NVML."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hwsim.measuring.backends import Run
from hwsim.measuring.method import Method
from hwsim.measuring.nvml import Nvml, open_nvml
from hwsim.measuring.shapes import Limits
from numerics.errors import InputError

_CACHE_GUESS = 64 << 20
"""Bytes of the L2 cache where PyTorch does not tell (guess: above what GPUs up to the H200 have)."""


class CudaBackend:
    """The present NVIDIA GPU.

    A run is timed by two events around its kernels, in their stream. A spin kernel before the first event holds the GPU until the
    host has queued the run, so that kernels shorter than their launch are timed back to back and not at the host's pace.

    Args:
        cuda: ``torch.cuda``, or what stands for it in tests.
        nvml: the GPU's management interface; looked for by default.

    Raises:
        InputError: no GPU that PyTorch can use.
    """

    name = "cuda"
    default_formats: tuple[str, ...] = ("bf16", "fp16", "fp8", "int8")
    limits = Limits(edge=16384, macs=1 << 41, bytes=1 << 31)
    method = Method(run_s=2e-3, most_calls=256)
    most_sets = 1024
    energy_s = 0.5
    """A run for the energy counter, which the driver renews some ten times a second or more."""
    busy_share = 0.9
    """Share of that run in which kernels must have run for its energy to be theirs."""

    def __init__(self, cuda: Any = None, nvml: Nvml | None = None) -> None:
        import torch

        self._cuda = torch.cuda if cuda is None else cuda
        if not self._cuda.is_available():
            raise InputError("--backend: PyTorch finds no CUDA GPU here; use --backend cpu")
        self._properties = self._cuda.get_device_properties(self._cuda.current_device())
        self.device = torch.device("cuda", self._cuda.current_device())
        self.memory_bytes = int(self._properties.total_memory) // 2
        self.cache_bytes = int(getattr(self._properties, "L2_cache_size", _CACHE_GUESS))
        identity = str(getattr(self._properties, "uuid", ""))
        self._nvml = nvml or (open_nvml(identity if identity.startswith("GPU-") else f"GPU-{identity}") if identity else None)
        offered = (
            ("clock_hz", self._nvml is not None and self._nvml.clock_hz() is not None),
            ("energy_j", self._nvml is not None and self._nvml.energy_j() is not None),
        )
        self.columns: tuple[str, ...] = tuple(name for name, there in offered if there)
        self._queueing_s = 0.0
        self._spin_hz = float(getattr(self._properties, "clock_rate", 0) or 2e6) * 1e3

    def granule(self, formats: str) -> int:
        """16 for the 8-bit matmuls, which cuBLASLt wants aligned."""
        return 16 if formats in ("fp8", "int8") else 1

    def describe(self) -> dict[str, str]:
        """GPU, driver, caches, power limit."""
        import torch

        p = self._properties
        found = {
            "device": f"{p.name}, {p.multi_processor_count} SMs, {p.total_memory / 2**30:.0f} GiB",
            "caches": f"L2 {self.cache_bytes / 2**20:g} MiB",
            "cuda": str(torch.version.cuda),
        }
        if self._nvml is not None:
            limit = self._nvml.power_limit_w()
            found["driver"] = self._nvml.driver() or "unknown"
            found["power limit"] = "unknown" if limit is None else f"{limit:g} W"
        if "clock_hz" not in self.columns:
            found["clock"] = "not known"
        if "energy_j" in self.columns:
            found["energy"] = (
                f"energy_j is that of the whole board for one call, over {self.energy_s:g} s of them; empty where the host could "
                "not keep the GPU busy"
            )
        return found

    @contextmanager
    def ready(self) -> Iterator[None]:
        """FP32 as FP32, not TF32; cuDNN tries its algorithms on the first call."""
        import torch

        matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = False, False, True
        try:
            yield
        finally:
            matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before
            self._cuda.empty_cache()

    def elapsed(self, run: Run, calls: int) -> float:
        """By CUDA events around the run, with a spin kernel before them as long as the host took to queue the last run."""
        start, end = (self._cuda.Event(enable_timing=True) for _ in range(2))
        self._cuda.synchronize()
        spin_s = min(1.5 * self._queueing_s + 20e-6, 0.05)
        self._cuda._sleep(int(spin_s * self._spin_hz))
        queued = time.perf_counter()
        start.record()
        run(calls)
        end.record()
        self._queueing_s = time.perf_counter() - queued
        self._cuda.synchronize()
        return float(start.elapsed_time(end)) * 1e-3

    def readings(self, run: Run, calls: int, time_s: float) -> dict[str, float | None]:
        """Clock in mid-run; energy of one call over a longer run."""
        found: dict[str, float | None] = {}
        if self._nvml is None or not self.columns:
            return found
        begun, made = time.perf_counter(), 0
        before = self._nvml.energy_j()
        while (spent := time.perf_counter() - begun) < self.energy_s:
            run(calls)
            made += calls
            if "clock_hz" in self.columns and spent > self.energy_s / 2 and "clock_hz" not in found:
                found["clock_hz"] = self._nvml.clock_hz()
            self._cuda.synchronize()
        spent = time.perf_counter() - begun
        after = self._nvml.energy_j()
        if "energy_j" in self.columns:
            busy = made * time_s >= self.busy_share * spent
            found["energy_j"] = (after - before) / made if busy and before is not None and after is not None else None
        return found
