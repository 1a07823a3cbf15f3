"""Sums of truncated products, for numba; ``emulation.truncated_sums`` is the plain version."""

from __future__ import annotations

from typing import Any

from numba import njit


@njit(cache=True)
def truncated_sums(a: Any, b: Any, shift: int, sums: Any) -> None:
    """``sums[i, j] = Σ_k ⌊a[i, k] · b[j, k] / 2^shift⌋`` of 64-bit integers; shapes (M, K), (N, K), (M, N)."""
    for i in range(a.shape[0]):
        for j in range(b.shape[0]):
            total = 0
            for k in range(a.shape[1]):
                total += (a[i, k] * b[j, k]) >> shift
            sums[i, j] = total
