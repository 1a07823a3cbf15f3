"""What stands where in the arrays of many configurations: their specs, and the operators of a workload."""

from hwsim.operations import PRIMITIVES

# Columns of a configuration (float64).
CLOCK, STATIC, LAUNCH, ROWS, COLUMNS, DATAFLOW, OVERLAP, DRAIN, LATENCY, PACKING, ARRAYS, STREAMING = range(12)
IN_CAP, IN_BANKS, IN_BANK_BPC, IN_DOUBLE, IN_PJ = range(12, 17)
WEIGHT_CAP, WEIGHT_BANKS, WEIGHT_BANK_BPC, WEIGHT_DOUBLE, WEIGHT_PJ = range(17, 22)
OUT_CAP, OUT_BANKS, OUT_BANK_BPC, OUT_DOUBLE, OUT_PJ = range(22, 27)
OFF_BANDWIDTH, OFF_LATENCY, OFF_PJ, OFF_FRACTION = range(27, 31)
LANES, SCAN_STEP = 31, 32
CORES, WINDOW, STORE_FRACTION = 33, 34, 35
LINK_BANDWIDTH, LINK_LATENCY, LINK_PJ = 36, 37, 38
OFF_ACHIEVED = 39
"""Bytes a second that long reads reach; follows from the others where there is no banked DRAM."""
CYCLES = 40
"""Of the first primitive operation; the others follow."""
ENERGY = CYCLES + len(PRIMITIVES)
FORMATS = ENERGY + len(PRIMITIVES)
"""Cycles and energy of a MAC for each of ``mac_formats``, then of an element for each of ``conversions``."""

WS, OS, IS = 0, 1, 2
NONE, WEIGHTS, FULL = 0, 1, 2

NUMBERS = {
    "weight_stationary": WS, "output_stationary": OS, "input_stationary": IS,
    "none": NONE, "weights": WEIGHTS, "full": FULL, "hidden": 0, "shift": 1, "block_diagonal": 1,
}  # fmt: skip
"""What stands for a word of the spec."""

_BUFFER = ("capacity_bytes", "banks", "bank_bytes_per_cycle", "double_buffered", "energy_pj_per_byte")

NAMES = (
    "clock_hz", "static_power_w", "launch_overhead_cycles", "array.rows", "array.columns", "array.dataflow",
    "array.timing.fold_overlap", "array.timing.output_drain", "array.timing.mac_latency_cycles", "array.group_packing",
    "array.count", "array.streaming_fraction",
    *(f"memory.{place}.{field}" for place in ("input", "weight", "output") for field in _BUFFER),
    "memory.off_chip.bandwidth_bytes_per_s", "memory.off_chip.latency_s", "memory.off_chip.energy_pj_per_byte",
    "memory.off_chip.achieved_fraction", "vector_unit.lanes", "vector_unit.scan_step_cycles",
    "kernel.cores", "kernel.window", "kernel.store_fraction",
    "host_link.link_bytes_per_s", "host_link.link_latency_s", "host_link.link_pj_per_byte",
    "",
    *(f"vector_unit.cycles_per_operation.{primitive}" for primitive in PRIMITIVES),
    *(f"vector_unit.energy_pj_per_operation.{primitive}" for primitive in PRIMITIVES),
)  # fmt: skip
"""Dotted field of the spec, in the order of the columns."""

# Columns of an operator (float64): of both kinds, of a matrix operator, of a vector operator.
LOAD, STORE, HOST = 0, 1, 2
BATCH, M, N, K, A_BYTES, B_BYTES, P_BYTES, A_HERE, B_HERE, MAC, MACS, RESULT, ONCE_A, ONCE_B, OUTPUTS = range(3, 18)
TOUCHED, HANDED, ROW_WISE, ROW_BYTES, SCAN_LENGTH = range(3, 8)
OPERATOR_FIELDS = 18

# Columns of a group (int64): its first operator, the one after its last, whether the first is on the array, how many stream.
FIRST, END, MATRIX, STREAMED = 0, 1, 2, 3

# Columns of an operator's cost (float64): its share of the cycles, bytes at each level.
COST_CYCLES, COST_IN, COST_WEIGHT, COST_OUT, COST_OFF = 0, 1, 2, 3, 4
COST_FIELDS = 5
COMPONENTS = 7
"""Of energy, as a report lists them, static power apart."""


def untimed(macs: int, conversions: int) -> list[int]:
    """Columns of a configuration that energy alone depends on."""
    formats = range(FORMATS + 1, FORMATS + 2 * (macs + conversions), 2)
    return [STATIC, IN_PJ, WEIGHT_PJ, OUT_PJ, OFF_PJ, LINK_PJ, *range(ENERGY, ENERGY + len(PRIMITIVES)), *formats]
