"""A matmul on the systolic array, cycle by cycle: every register of every processing element, with stalls and faults.

The rung below the tile pipeline, and the model that the RTL arrays ``systolic_ws`` and ``systolic_os`` are held against, bit for
bit and cycle for cycle (``hwsim verify systolic_ws systolic_os``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from accelerators.systolic.emulation import fold_accumulator
from accelerators.systolic.spec import DATAFLOWS, ArraySpec
from hwsim.views.display import displayed
from numerics import decode, encode
from numerics.accumulator import Accumulator, get_accumulator
from numerics.errors import InputError, unknown_name
from numerics.formats import FixedFormat, FloatFormat, Format, IntFormat, get_format
from numerics.mac import MacPlan, SumBits, mac_plan, returned, sum_bits
from numerics.quantizer import is_tensor

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

FaultKind = Literal["flip", "stuck_at_0", "stuck_at_1"]

TABLE_BITS = 20
"""Operands of more bits have no table of values; only fp32 is understood besides."""

_REGISTERS: Mapping[str, Mapping[str, int]] = {
    "weight_stationary": {"activation": 0, "weight_transport": 1, "weight_shadow": 2, "weight": 3, "sum": 4},
    "input_stationary": {"weight": 0, "activation_transport": 1, "activation_shadow": 2, "activation": 3, "sum": 4},
    "output_stationary": {"activation": 0, "weight": 3, "sum": 4, "drain": 5},
}


def registers(dataflow: str) -> tuple[str, ...]:
    """Names of an element's data registers: ``weight_transport`` passes weights down, ``weight_shadow`` holds the next fold's.

    ``drain`` is there where results are shifted out.

    Raises:
        InputError: an unknown dataflow.
    """
    full = DATAFLOWS.get(dataflow, dataflow)
    if full not in _REGISTERS:
        raise unknown_name("dataflow", dataflow, [*DATAFLOWS, *_REGISTERS])
    return tuple(_REGISTERS[full])


@displayed
@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault in one bit of one register.

    Attributes:
        kind: ``flip`` changes the bit once, at the end of ``cycle``; ``stuck_at_0`` and ``stuck_at_1`` hold it all along.
        register: see ``registers``.
        row, column: the processing element.
        bit: 0 is the lowest of the register's code: of the operand's format, or of the accumulator's.
        cycle: for ``flip``, counted from the first of the run, stalls included.
    """

    kind: FaultKind
    register: str
    row: int
    column: int
    bit: int
    cycle: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(FaultKind):
            raise unknown_name("kind", self.kind, get_args(FaultKind))
        if (self.kind == "flip") != (self.cycle is not None):
            raise InputError(f"cycle: a flip needs one and a stuck bit has none, got {self.cycle!r} with {self.kind!r}")
        for name in ("row", "column", "bit", "cycle"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 0):
                raise InputError(f"{name}: expected an integer ≥ 0, got {value!r}")


@displayed
@dataclass(frozen=True)
class Activity:
    """What the processing elements did; arrays of shape (rows, columns).

    Attributes:
        toggles: bits that changed, by register.
        zero_operands: multiplications with a zero operand, those of padding included.
        macs: multiplications, those of padding included.
    """

    toggles: Mapping[str, NDArray[np.int64]]
    zero_operands: NDArray[np.int64]
    macs: NDArray[np.int64]


@displayed
@dataclass(frozen=True)
class Signals:
    """What the array shows in each cycle, as the RTL does, stalls included.

    Attributes:
        busy, weight_ready, ready, valid: flags, shape (cycles,): at work; takes a row of what stays; takes a vector of what
            streams; shows sums. An output-stationary array whose drain is hidden shows none.
        sums: codes of the sums that show, aligned to the last column; 0 where none do; shape (cycles, columns).
    """

    busy: NDArray[np.bool_]
    weight_ready: NDArray[np.bool_]
    ready: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    sums: NDArray[np.uint64]


@displayed
@dataclass(frozen=True)
class ArrayRun:
    """What came of a run.

    Attributes:
        outputs: A·B, shape (…, m, n).
        cycles: from the first load to the last result in its register, stalls included.
        stall_cycles: cycles in which the array was held.
        folds: how often it was filled anew.
        load_begins, stream_begins, fold_ends: cycle of each fold's first load (of what stays) and first operands, and the cycle
            after its last result.
        activity: of the elements.
        signals: if recorded.
    """

    outputs: NDArray[Any]
    cycles: int
    stall_cycles: int
    folds: int
    load_begins: NDArray[np.int64]
    stream_begins: NDArray[np.int64]
    fold_ends: NDArray[np.int64]
    activity: Activity
    signals: Signals | None = field(default=None, repr=False)


def simulate_matmul(
    a: ArrayLike,
    b: ArrayLike,
    *,
    array: ArraySpec,
    a_format: str | Format = "int8",
    b_format: str | Format = "int8",
    accumulator: str | Accumulator | None = None,
    cycles_per_mac: int = 1,
    stalls: ArrayLike | None = None,
    faults: Sequence[Fault] = (),
    record: bool = False,
) -> ArrayRun:
    """A·B on an array, with every value in every register.

    Args:
        a: (m, k), or (batch, m, k) for independent products one after the other; numbers that ``a_format`` holds.
        b: (k, n) or (batch, k, n); numbers that ``b_format`` holds.
        array: its size, dataflow and timing.
        a_format, b_format: number formats of the operands: floats, integers or fixed point.
        accumulator: of every addition, in an element and of folds below the array; None is int32 for integers, else fp32.
        cycles_per_mac: cycles an element is taken by one MAC.
        stalls: booleans, one a cycle; the array is held where they are true. None ever after their end.
        faults: in registers; a flip must lie within the run.
        record: whether to keep what the array shows in each cycle.

    Returns:
        Outputs as ``numerics.matmul`` returns them, cycles, activity.

    Raises:
        InputError: shapes that do not match, numbers not in their format, an accumulator that a multiply-accumulate cannot be or
            that does not take the operands, a fault outside the array or its registers.
    """
    x, y = _array(a, "a"), _array(b, "b")
    check_product(x, y, cycles_per_mac)
    formats = get_format(a_format), get_format(b_format)
    left, right = _Operand.of(x, formats[0], "a"), _Operand.of(y, formats[1], "b")
    if accumulator is None:
        integers = all(isinstance(f, IntFormat) for f in formats)
        accumulator = fold_accumulator(array, "int32" if integers else "fp32")
    found = get_accumulator(accumulator)
    _check_order(found, array)
    for name, fmt in zip(("a_format", "b_format"), formats, strict=True):
        if isinstance(get_format(found.format), IntFormat) and not isinstance(fmt, IntFormat):
            raise InputError(f"{name}: an integer accumulator takes integers, got {fmt.name!r}")
    given = (faults,) if isinstance(faults, Fault) else tuple(faults)
    plan, layout = mac_plan(found), sum_bits(found)
    batch, (m, k), n = (x.shape[0] if x.ndim == 3 else 1), x.shape[-2:], y.shape[-1]
    run = _run(
        left.reshaped(batch, m, k), right.reshaped(batch, k, n), array, plan, layout, cycles_per_mac, _moving(stalls),
        given, record,
    )  # fmt: skip
    for fault in given:
        if fault.cycle is not None and fault.cycle >= run.cycles:
            raise InputError(f"cycle: the run has cycles 0 to {run.cycles - 1}, got {fault.cycle}")
    return replace(run, outputs=returned(run.outputs if x.ndim == 3 else run.outputs[0], found))


def check_product(x: NDArray[Any], y: NDArray[Any], cycles_per_mac: Any) -> None:
    """See that arrays are (m, k) and (k, n), or as many of both, and that a MAC takes whole cycles.

    Raises:
        InputError: otherwise.
    """
    if (
        x.ndim not in (2, 3)
        or x.ndim != y.ndim
        or x.shape[-1] != y.shape[-2]
        or x.shape[:-2] != y.shape[:-2]
        or 0 in x.shape + y.shape
    ):
        raise InputError(
            f"a, b: expected (m, k) and (k, n), or a batch of both, without empty sides; got {x.shape} and {y.shape}"
        )
    if not isinstance(cycles_per_mac, int | np.integer) or cycles_per_mac < 1:
        raise InputError(f"cycles_per_mac: expected an integer ≥ 1, got {cycles_per_mac!r}")


def control_cycles(m: int, n: int, k: int, *, array: ArraySpec, batch: int = 1, cycles_per_mac: int = 1) -> int:
    """Cycles of a matmul with all operands at hand: the array's control alone, stepped through every cycle.

    Args:
        m, n, k, batch: sizes.
        array, cycles_per_mac: as for ``simulate_matmul``, which takes as many cycles.

    Raises:
        InputError: a size below one.
    """
    for name, value in (("m", m), ("n", n), ("k", k), ("batch", batch), ("cycles_per_mac", cycles_per_mac)):
        if not isinstance(value, int | np.integer) or value < 1:
            raise InputError(f"{name}: expected an integer ≥ 1, got {value!r}")
    along, across, stream = _sides(m, n, k, array.dataflow)
    folds = batch * -(-along // array.rows) * -(-across // array.columns)
    return step_tiles(array, np.array([[folds, stream, 0.0, 0.0, array.rows, cycles_per_mac]]))


def step_tiles(array: ArraySpec, tiles: NDArray[np.float64]) -> int:
    """The cycle after the last result of a list of tiles; columns as ``_control_kernels.control`` takes them."""
    from accelerators.systolic._control_kernels import control

    return int(control(_job(array), array.dataflow == "output_stationary", tiles))


def _sides(m: int, n: int, k: int, dataflow: str) -> tuple[int, int, int]:
    """Sizes along the rows, along the columns, and of what a fold streams."""
    return {"weight_stationary": (k, n, m), "output_stationary": (m, n, k), "input_stationary": (k, m, n)}[dataflow]


def _job(array: ArraySpec) -> NDArray[np.int64]:
    from accelerators.systolic import _cycle_kernels as kernels

    job = np.zeros(kernels.JOB_FIELDS, np.int64)
    job[kernels.ROWS], job[kernels.COLUMNS] = array.rows, array.columns
    job[kernels.OVERLAP] = {"none": kernels.NONE, "weights": kernels.WEIGHTS, "full": kernels.FULL}[array.timing.fold_overlap]
    job[kernels.LATENCY], job[kernels.DRAIN_SHIFT] = array.timing.mac_latency_cycles, array.timing.output_drain == "shift"
    return job


def _code_bits(fmt: Format) -> int:
    """Bits of a register for a format's codes; TF32, stored in 32, has 19."""
    return fmt.code_bits if isinstance(fmt, FloatFormat) else int(fmt.bits)


def _in_fp32(fmt: FloatFormat) -> bool:
    return fmt.mantissa_bits <= 23 and fmt.emax <= 127 and fmt.emin - fmt.mantissa_bits >= -149


def _array(values: Any, field_name: str) -> NDArray[Any]:
    if is_tensor(values):
        raise InputError(f"{field_name}: expected an array, got a tensor; give its .numpy(force=True)")
    try:
        return np.asarray(values)
    except ValueError:
        raise InputError(f"{field_name}: expected a matrix, or a batch of them, got rows of different lengths") from None


# --- operands ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Operand:
    """An operand as values and as codes.

    Attributes:
        values, codes: (batch, rows, columns).
        fmt: its format.
        table: values by code; empty for fp32, whose codes are its bits.
    """

    values: NDArray[Any]
    codes: NDArray[np.uint32]
    fmt: Format
    table: NDArray[Any]

    @classmethod
    def of(cls, values: NDArray[Any], fmt: Format, field_name: str) -> _Operand:
        if not isinstance(fmt, FloatFormat | IntFormat | FixedFormat):
            raise InputError(
                f"{field_name}_format: a register holds a float, an integer or a fixed-point number, got {fmt.name!r}"
            )
        if _code_bits(fmt) > TABLE_BITS and fmt.name != "fp32":
            raise InputError(f"{field_name}_format: expected at most {TABLE_BITS} bits, or fp32, got {fmt.name!r}")
        if isinstance(fmt, FloatFormat) and not _in_fp32(fmt):
            raise InputError(f"{field_name}_format: expected a format whose numbers fp32 holds, got {fmt.name!r}")
        if values.dtype.kind not in "fiub":
            raise InputError(f"{field_name}: expected real numbers, got {values.dtype}")
        numbers = values.astype(np.float64)
        codes = np.asarray(encode(numbers, fmt))
        if not np.array_equal(decode(codes, fmt), numbers, equal_nan=True):
            raise InputError(f"{field_name}: holds numbers that {fmt.name} does not have; quantise them")
        every = np.arange(0 if fmt.name == "fp32" else 1 << _code_bits(fmt)).astype(codes.dtype)
        return cls(numbers, codes.astype(np.uint32), fmt, np.asarray(decode(every, fmt)))

    def reshaped(self, *shape: int) -> _Operand:
        return replace(self, values=self.values.reshape(shape), codes=self.codes.reshape(shape))

    def padded(self, rows: int, columns: int, turned: bool) -> tuple[NDArray[Any], NDArray[np.uint32]]:
        """Values and codes with sides filled up with zeros to multiples of ``rows`` and ``columns``; transposed if ``turned``."""
        found = []
        for array in (self.values, self.codes):
            part = array.transpose(0, 2, 1) if turned else array
            sides = ((0, 0), (0, -part.shape[1] % rows), (0, -part.shape[2] % columns))
            found.append(np.ascontiguousarray(np.pad(part, sides)))
        return found[0], found[1]


def _check_order(accumulator: Accumulator, array: ArraySpec) -> None:
    """The array decides the order of its additions; an accumulator may only state the same one."""
    own = fold_accumulator(array, "fp32")
    if accumulator.order == "systolic" and (own.order, own.group) != ("systolic", accumulator.group):
        raise InputError(
            f"accumulator: this array sums in order {own.order!r}{f' of {own.group}' if own.group else ''}, "
            f"got 'systolic' of {accumulator.group}"
        )


# --- the run ------------------------------------------------------------------------------------------------------------------


def _moving(stalls: ArrayLike | None) -> NDArray[np.int64]:
    """Cycles, among those that the stalls tell of, in which the array moves."""
    if stalls is None:
        return np.zeros(0, np.int64)
    flags = np.asarray(stalls)
    if flags.size == 0:
        return np.zeros(0, np.int64)
    if flags.ndim != 1 or flags.dtype != np.bool_:
        raise InputError(f"stalls: expected a row of booleans, one a cycle, got {flags.dtype} of shape {flags.shape}")
    return np.concatenate([np.flatnonzero(~flags), [flags.size]])


def _real(moving: NDArray[np.int64], cycle: Any) -> Any:
    """The cycles that the array's own cycles are, stalls included."""
    cycle = np.asarray(cycle)
    if moving.size == 0:
        return cycle
    known = np.minimum(cycle, moving.size - 1)
    return moving[known] + (cycle - known)


def _run(
    left: _Operand,
    right: _Operand,
    array: ArraySpec,
    plan: MacPlan,
    layout: SumBits,
    cycles_per_mac: int,
    moving: NDArray[np.int64],
    faults: tuple[Fault, ...],
    record: bool,
) -> ArrayRun:
    """(batch, m, k) times (batch, k, n), with outputs in the type of the sums."""
    from accelerators.systolic import _cycle_kernels as kernels

    (batch, m, k), n = left.values.shape, right.values.shape[-1]
    rows, columns, dataflow = array.rows, array.columns, array.dataflow
    along, across, stream = _sides(m, n, k, dataflow)
    # What streams and what stays, as the kernel takes them; input-stationary is weight-stationary for the transposed product.
    streamed, held = (right, left) if dataflow == "input_stationary" else (left, right)
    if dataflow == "output_stationary":
        (x, xc), (w, wc) = streamed.padded(1, rows, True), held.padded(1, columns, False)
        factory, sides = kernels.output_stationary, (-(-m // rows) * rows, w.shape[2])
    else:
        turned = dataflow == "input_stationary"
        (x, xc), (w, wc) = streamed.padded(1, rows, turned), held.padded(rows, columns, turned)
        factory, sides = kernels.stationary, (stream, w.shape[2])
    job = _job(array)
    job[kernels.BATCH], job[kernels.STREAM] = batch, stream
    job[kernels.FOLDS_DOWN], job[kernels.FOLDS_ACROSS] = -(-along // rows), -(-across // columns)
    folds = int(batch * job[kernels.FOLDS_DOWN] * job[kernels.FOLDS_ACROSS])
    out = np.zeros((batch, *sides), plan.dtype)
    begins = np.zeros((folds, 3), np.int64)
    activity = np.zeros((kernels.ACTIVITY_ROWS, rows, columns), np.int64)
    table = _fault_table(faults, array, streamed.fmt, held.fmt, layout, moving)
    longest = _longest(job, cycles_per_mac) if record else 0
    signals, shown = np.zeros((longest, 4), np.uint8), np.zeros((longest, columns), np.uint64)
    kernel = factory(plan.mode, plan.how, plan.by, layout.key, cycles_per_mac, array.timing.mac_latency_cycles > 1)
    x, w, x_table, w_table = (v.astype(plan.dtype) for v in (x, w, streamed.table, held.table))
    moved = int(kernel(job, x, xc, w, wc, x_table, w_table, out, plan.p, plan.q, table, begins, activity, signals, shown))
    cycles = int(_real(moving, moved - 1)) + 1
    return ArrayRun(
        (out.transpose(0, 2, 1) if dataflow == "input_stationary" else out)[:, :m, :n].copy(),
        cycles,
        cycles - moved,
        folds,
        _real(moving, begins[:, 0]),
        _real(moving, begins[:, 1]),
        _real(moving, begins[:, 2] - 1) + 1,
        _activity(activity, dataflow, folds * stream),
        _signals(signals[: moved + 1], shown[: moved + 1], moving, cycles) if record else None,
    )


def _longest(job: NDArray[np.int64], cycles_per_mac: int) -> int:
    """More cycles than any run takes: every fold alone, one after the other."""
    from accelerators.systolic import _cycle_kernels as kernels

    folds = job[kernels.BATCH] * job[kernels.FOLDS_DOWN] * job[kernels.FOLDS_ACROSS]
    alone = (job[kernels.LATENCY] + 3) * job[kernels.ROWS] + job[kernels.COLUMNS] + cycles_per_mac * job[kernels.STREAM]
    return int(folds * alone + job[kernels.LATENCY] + 2)


def _fault_table(
    faults: tuple[Fault, ...],
    array: ArraySpec,
    streamed: Format,
    held: Format,
    layout: SumBits,
    moving: NDArray[np.int64],
) -> NDArray[np.int64]:
    known = dict(_REGISTERS[array.dataflow])
    if array.timing.output_drain == "hidden":
        known.pop("drain", None)
    table = np.zeros((len(faults), 6), np.int64)
    # Flips first: no flip undoes a stuck bit.
    for i, fault in enumerate(sorted(faults, key=lambda fault: fault.kind != "flip")):
        if fault.register not in known:
            raise unknown_name(f"register ({array.dataflow})", fault.register, known)
        number = known[fault.register]
        bits = _code_bits(streamed) if number == 0 else _code_bits(held) if number <= 3 else layout.bits
        for name, limit in (("row", array.rows), ("column", array.columns), ("bit", bits)):
            if getattr(fault, name) >= limit:
                raise InputError(f"{name}: register {fault.register!r} has 0 to {limit - 1}, got {getattr(fault, name)}")
        # A flip in a stalled cycle is seen by the next one that moves: it lies at the end of the one before.
        own = -1 if fault.cycle is None else int(_own_cycle(moving, fault.cycle))
        table[i] = get_args(FaultKind).index(fault.kind), number, fault.row, fault.column, fault.bit, own
    return table


def _own_cycle(moving: NDArray[np.int64], cycle: int) -> int:
    """The last cycle in which the array moved, in its own count, up to a given one; −1 if none."""
    if moving.size == 0:
        return cycle
    if cycle >= moving[-1]:
        return int(moving.size - 1 + cycle - moving[-1])
    return int(np.searchsorted(moving, cycle, side="right")) - 1


def _activity(counts: NDArray[np.int64], dataflow: str, macs: int) -> Activity:
    from accelerators.systolic import _cycle_kernels as kernels

    toggles = {name: counts[number] for name, number in _REGISTERS[dataflow].items()}
    return Activity(toggles, counts[kernels.ZEROS], np.full(counts.shape[1:], macs, np.int64))


def _signals(flags: NDArray[np.uint8], sums: NDArray[np.uint64], moving: NDArray[np.int64], cycles: int) -> Signals:
    """What shows in real cycles: a stalled one shows what the next that moves shows, and takes nothing."""
    from accelerators.systolic import _cycle_kernels as kernels

    real = np.arange(cycles + 1)
    if moving.size == 0:
        own, moves = real, np.ones(real.size, np.bool_)
    else:
        own = np.where(real >= moving[-1], moving.size - 1 + real - moving[-1], np.searchsorted(moving, real))
        moves = (real >= moving[-1]) | np.isin(real, moving)
    own = np.minimum(own, len(flags) - 1)
    busy, weight_ready, ready, valid = (flags[own, i].astype(np.bool_) for i in range(kernels.VALID + 1))
    shown = np.where(valid[:, None], sums[own], 0).astype(np.uint64)
    return Signals(busy, weight_ready & moves, ready & moves, valid, shown)
