"""``systolic_os`` against the cycle-level model of an output-stationary array."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from rtl.benches.systolic_bench import SystolicBench, tiles


class SystolicOsBench(SystolicBench):
    """A fold takes columns of a band of A and rows of a band of B."""

    unit = "systolic_os"
    uses = ("os_element",)
    dataflow: ClassVar[Literal["weight_stationary", "output_stationary"]] = "output_stationary"
    takes = (("activations_i", "ready"), ("weights_i", "ready"))
    flags = (("busy_o", "busy"), ("ready_o", "ready"), ("valid_o", "valid"))

    burst = (1, 1, 5)

    def length(self, m: int, k: int) -> int:
        return k

    def paced(self, taken: npt.NDArray[np.int64], shown: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return taken

    def operands(self, parameters: Mapping[str, int], a: Any, b: Any) -> dict[str, npt.NDArray[Any]]:
        rows, columns = parameters["Rows"], parameters["Columns"]
        bands_a = tiles(a.T, 1, rows)[:, :, 0]  # (k, down, rows)
        bands_b = tiles(b, 1, columns)[:, :, 0]  # (k, across, columns)
        order = [(down, across) for across in range(bands_b.shape[1]) for down in range(bands_a.shape[1])]
        return {
            "activations_i": np.concatenate([bands_a[:, down] for down, _ in order]),
            "weights_i": np.concatenate([bands_b[:, across] for _, across in order]),
        }
