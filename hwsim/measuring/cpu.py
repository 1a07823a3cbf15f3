"""Kernels on this machine's processor: monotonic clock, cores that others take away, caches and clock as the system tells."""

from __future__ import annotations

import ctypes
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hwsim.measuring.backends import Run
from hwsim.measuring.method import Method
from hwsim.measuring.shapes import Limits
from hwsim.views.display import displayed
from numerics.errors import InputError

_CACHE_GUESS = 64 << 20
"""Bytes of the last-level cache where the system does not tell (guess: above what most processors have)."""


@displayed
class CpuBackend:
    """This machine's processor.

    Where another process took a core away during a run (the system counts involuntary context switches), the run's time on the
    wall says little. With one thread it is then the processor time of that thread; with more it stands as it is.
    ``preempted_share`` is the share of such runs.

    Args:
        threads: that a kernel may use; PyTorch's present number otherwise.
        root: of the file system, for tests.
    """

    name = "cpu"
    default_formats: tuple[str, ...] = ("fp32",)
    limits = Limits(edge=4096, macs=1 << 31, bytes=1 << 27)
    method = Method()
    most_sets = 4096

    def __init__(self, threads: int | None = None, *, root: str | Path = "/") -> None:
        import torch

        if threads is not None and threads < 1:
            raise InputError(f"--threads: expected an integer ≥ 1, got {threads}")
        self.device = torch.device("cpu")
        self.threads = threads or torch.get_num_threads()
        self.memory_bytes = _host_memory() // 4
        self._root = Path(root)
        self._caches = self._cache_levels()
        self.cache_bytes = max(self._caches.values(), default=_CACHE_GUESS)
        self._clock = self._root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"
        offered = (("preempted_share", _switches() is not None), ("clock_hz", self._clock_hz() is not None))
        self.columns: tuple[str, ...] = tuple(name for name, there in offered if there)
        self._runs = self._preempted = 0

    def granule(self, formats: str) -> int:
        """1: oneDNN takes any size."""
        del formats
        return 1

    def describe(self) -> dict[str, str]:
        """Processor, cores, threads, caches, clock."""
        import torch

        info = self._cpuinfo()
        visible = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        caches = ", ".join(f"L{level} {size / 2**20:g} MiB" for level, size in sorted(self._caches.items()))
        name = info.get("model name") or platform.processor() or platform.machine()
        # A virtual machine may hide the rest of the name.
        parts = [f"{word} {info[key]}" for word, key in (("family", "cpu family"), ("model", "model")) if key in info]
        found = {
            "device": ", ".join((name, *parts)),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "cores": str(visible),
            "threads": str(self.threads),
            "caches": caches or f"unknown, a last level of {_CACHE_GUESS >> 20} MiB assumed",
        }
        if "preempted_share" in self.columns:
            what = "its processor time instead" if self.threads == 1 else "left as it is"
            found["preempted"] = f"a run in which another process took a core away is counted, and {what}"
        if "clock_hz" not in self.columns:
            told = info.get("cpu MHz")
            found["clock"] = f"/proc/cpuinfo says {told} MHz; not read while measuring" if told else "not known"
        if hasattr(os, "getloadavg"):
            found["load at start"] = f"{os.getloadavg()[0]:.2f} (average of a minute)"
        return found

    @contextmanager
    def ready(self) -> Iterator[None]:
        """So many threads; freed memory stays with the process, so that results do not fault in new pages at each call."""
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with _kept_heap():
                yield
        finally:
            torch.set_num_threads(before)

    def elapsed(self, run: Run, calls: int) -> float:
        """By the system's monotonic clock; kernels have ended when they return."""
        switches, own, start = _switches(), time.thread_time_ns(), time.perf_counter_ns()
        run(calls)
        took, had, preempted = time.perf_counter_ns() - start, time.thread_time_ns() - own, _switches() != switches
        self._runs += 1
        self._preempted += preempted
        return (had if preempted and self.threads == 1 else took) * 1e-9

    def readings(self, run: Run, calls: int, time_s: float) -> dict[str, float | None]:
        """How often the runs since the last readings were disturbed, and the clock just after another one."""
        del time_s
        found: dict[str, float | None] = {}
        if "preempted_share" in self.columns:
            found["preempted_share"] = self._preempted / max(1, self._runs)
        if "clock_hz" in self.columns:
            run(calls)
            found["clock_hz"] = self._clock_hz()
        self._runs = self._preempted = 0
        return found

    def _clock_hz(self) -> float | None:
        try:
            return float(self._clock.read_text()) * 1e3
        except (OSError, ValueError):
            return None

    def _cpuinfo(self) -> dict[str, str]:
        try:
            text = (self._root / "proc/cpuinfo").read_text()
        except OSError:
            return {}
        pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
        return {key.strip(): value.strip() for key, _, value in pairs}

    def _cache_levels(self) -> dict[int, int]:
        """Level → bytes of the data or unified cache that the first core sees."""
        units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
        found = {}
        for folder in sorted((self._root / "sys/devices/system/cpu/cpu0/cache").glob("index*")):
            try:
                kind, level, size = ((folder / name).read_text().strip() for name in ("type", "level", "size"))
                if kind in ("Data", "Unified"):
                    found[int(level)] = int(size[:-1]) * units[size[-1]]
            except (OSError, ValueError, KeyError, IndexError):
                continue
        return found


def _switches() -> int | None:
    """Involuntary context switches of this process so far, where the system counts them."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _host_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 4 << 30


@contextmanager
def _kept_heap() -> Iterator[None]:
    """Tell glibc to keep freed memory; other C libraries are left as they are."""
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        yield
        return
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    try:
        yield
    finally:
        mallopt(mmap_max, 65536)
        mallopt(trim_threshold, 128 * 1024)
