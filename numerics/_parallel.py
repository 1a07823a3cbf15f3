"""Independent parts of an array on several threads. Kernels release the interpreter's lock; bits never depend on the threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Part = TypeVar("Part")

SMALLEST_PART = 1 << 16
"""Elements below which another thread costs more than it saves."""


def thread_count() -> int:
    """As many threads as numba is set to use.

    Asking numba itself starts its pool, which changes the number of threads of every OpenMP library in the process, torch's among
    them; so it is asked only where someone has started it (``numba.set_num_threads`` does).
    """
    from numba import config, get_num_threads
    from numba.np.ufunc import parallel

    return int(get_num_threads() if parallel._is_initialized else config.NUMBA_NUM_THREADS)


def run_parts(work: Callable[[int, int], Part], count: int, *, smallest: int = SMALLEST_PART) -> list[Part]:
    """``work(start, stop)`` over parts of ``range(count)``, on as many threads as numba is set to use; results in order."""
    threads = min(thread_count(), count // smallest) if count >= 2 * smallest else 1
    if threads <= 1:
        return [work(0, count)]
    bounds = [count * i // threads for i in range(threads + 1)]
    with ThreadPoolExecutor(max_workers=threads) as pool:
        return list(pool.map(work, bounds[:-1], bounds[1:]))
