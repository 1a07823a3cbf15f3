"""What stands where in the vectors that the pipeline's kernels take and give."""

import numpy as np

# Fields of the machine vector `hw` (float64).
ROWS, COLUMNS, LATENCY, OVERLAP, DRAIN_SHIFT, DATAFLOW, MAC_CYCLES = 0, 1, 2, 3, 4, 5, 6
IN_BPC, WEIGHT_BPC, OUT_BPC, OFF_BPC, OFF_LATENCY = 7, 8, 9, 10, 11
IN_CAP, WEIGHT_CAP, OUT_CAP = 12, 13, 14
IN_DOUBLE, WEIGHT_DOUBLE, OUT_DOUBLE = 15, 16, 17
EXTRA_ARRAYS = 18
"""Arrays beside the first."""
HW_FIELDS = 19
WS, OS, IS = 0, 1, 2
NONE, WEIGHTS, FULL = 0, 1, 2

# Fields of the problem vector `job` (float64).
BATCH, A_BYTES, B_BYTES, P_BYTES, A_HERE, B_HERE = 0, 1, 2, 3, 4, 5
VECTOR_CYCLES, ROW_CYCLES, EXTRA_LOAD, STORE = 6, 7, 8, 9
OTHER_OFF, OTHER_IN = 10, 11
EXTRA_PACKED, EXTRA_BESIDE, EXTRA_SPLIT = 12, 13, 14
"""Beside the first: groups in a fold, products at the same time on arrays of their own, arrays that share a fold's stream."""
JOB_FIELDS = 15

# Fields of a result (float64).
TIME, LOAD_A, LOAD_B, LOAD_PARTIAL, LOAD_EXTRA, STORE_PARTIAL, STORE_OUT = 0, 1, 2, 3, 4, 5, 6
IN_READ, WEIGHT_READ, OUT_READ, OUT_WRITE, FOLDS, ARRAY_BUSY, STEPS, ARRAY_LEFT = 7, 8, 9, 10, 11, 12, 13, 14
LOAD_WAIT, LOAD_SHOWN = 15, 16
"""Cycles in which nothing streams because the operand that is loaded (weights, where they do not stay) is not at hand, and
because it is being loaded into the array."""
PROGRESS, LOADED = 17, 18
"""While there is a time to beat: how far the folds so far take their clock at the least, and the cycles of their loads."""
RESULT_FIELDS = 19

TILE_FIELDS = 6
"""Columns of the record of tiles: as in ``_cycle_kernels``."""

UNLIMITED = (np.inf, 0.0, 0.0, 0.0)
"""The ``limit`` of a mapping that is run to its end, whatever it takes."""

ORDERS = np.array([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]], dtype=np.int64)
"""Loop orders, outermost first: 0 = m, 1 = n, 2 = k."""

MAX_STEPS = 1 << 20
