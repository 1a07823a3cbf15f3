"""``systolic_ws`` against the cycle-level model of a weight-stationary array."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from rtl.benches.systolic_bench import SystolicBench, tiles


class SystolicWsBench(SystolicBench):
    """A fold takes a tile of B, row by row, and streams the rows of A's columns beside it."""

    unit = "systolic_ws"
    uses = ("ws_element",)
    dataflow: ClassVar[Literal["weight_stationary", "output_stationary"]] = "weight_stationary"
    takes = (("weights_i", "weight_ready"), ("activations_i", "ready"))
    flags = (("busy_o", "busy"), ("weight_ready_o", "weight_ready"), ("activation_ready_o", "ready"), ("valid_o", "valid"))

    burst = (5, 1, 1)

    def length(self, m: int, k: int) -> int:
        return m

    def paced(self, taken: npt.NDArray[np.int64], shown: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return shown

    def operands(self, parameters: Mapping[str, int], a: Any, b: Any) -> dict[str, npt.NDArray[Any]]:
        rows, columns = parameters["Rows"], parameters["Columns"]
        held = tiles(b, rows, columns)
        streamed = tiles(a, 1, rows)[:, :, 0]  # (m, down, rows)
        order = [(down, across) for across in range(held.shape[1]) for down in range(held.shape[0])]
        return {
            "weights_i": np.concatenate([held[down, across] for down, across in order]),
            "activations_i": np.concatenate([streamed[:, down] for down, _ in order]),
        }
