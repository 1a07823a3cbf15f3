"""Faulty registers of the systolic array through the mapping: which sums see a wrong value, and those sums alone computed anew.

The outputs are those of ``accelerators.systolic.cycle.simulate_matmul`` with the same faults, bit for bit, at about the cost of
the product itself. A register holds a known operand or sum in every cycle, so that a fault is a change of

- what streams, for all elements that it passes later (``activation`` of a weight-stationary array);
- what stays, in one row, or in all rows below (``weight_shadow``, ``weight_transport``), or from the second operand of a fold on
  (``weight``: the first is multiplied in the cycle in which the register is loaded, before the fault has struck);
- a sum between two elements, or, where sums stay, in each cycle of its making;
- a result on its way out (``drain``).

A stuck wire (``LineFault``) changes an operand as it enters the array; a faulty word of a buffer (``BufferFault``) those elements
and sums that the mapping lays there (``accelerators.systolic.faults.tile_layout``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from accelerators.systolic.cycle import (
    TABLE_BITS,
    Fault,
    _array,
    _check_order,
    _code_bits,
    _fault_table,
    _in_fp32,
    _Operand,
    _sides,
    check_product,
)
from accelerators.systolic.emulation import fold_accumulator
from accelerators.systolic.faults.fold_times import FoldTimes
from accelerators.systolic.faults.sums import FaultySums, Side, Stored
from accelerators.systolic.faults.tile_layout import TileLayout
from accelerators.systolic.faults.words import BufferFault, FaultyWords, LineFault, line_rows, struck
from accelerators.systolic.spec import ArraySpec
from numerics._product_operands import in_format
from numerics.accumulator import Accumulator, get_accumulator
from numerics.errors import InputError
from numerics.formats import FloatFormat, Format, IntFormat, get_format
from numerics.mac import MacPlan, SumBits, mac_plan, returned, sum_bits

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


AnyFault = Fault | LineFault | BufferFault


def faulty_matmul(
    a: ArrayLike,
    b: ArrayLike,
    faults: Sequence[AnyFault] | AnyFault,
    *,
    array: ArraySpec,
    a_format: str | Format = "int8",
    b_format: str | Format = "int8",
    accumulator: str | Accumulator | None = None,
    cycles_per_mac: int = 1,
    layout: TileLayout | None = None,
) -> NDArray[Any]:
    """A·B on a faulty array.

    Args:
        a: (m, k), or (batch, m, k) for independent products one after the other; numbers that ``a_format`` holds.
        b: (k, n) or (batch, k, n); numbers that ``b_format`` holds.
        faults: in registers (a flip must lie within the run, which is never stalled here), in wires, in words of buffers.
        array, a_format, b_format, accumulator, cycles_per_mac: as for ``simulate_matmul``.
        layout: where the product's tiles lie in the buffers, for faults there. It moves no flip: folds follow one another as if
            the product were one tile.

    Returns:
        (…, m, n), as ``simulate_matmul`` and ``numerics.matmul`` return them. The sign of a NaN sum that a fault strikes is
        the processor's in formats other than fp32, there as here.

    Raises:
        InputError: as ``simulate_matmul``; a wire or word that is not there, a faulty word without a layout or with that of
            another product.
    """
    x, y = _array(a, "a"), _array(b, "b")
    check_product(x, y, cycles_per_mac)
    formats = get_format(a_format), get_format(b_format)
    x, y = _numbers(x, formats[0], "a"), _numbers(y, formats[1], "b")
    found, plan = _accumulator(accumulator, formats, array)
    for name, fmt in zip(("a_format", "b_format"), formats, strict=True):
        if isinstance(get_format(found.format), IntFormat) and not isinstance(fmt, IntFormat):
            raise InputError(f"{name}: an integer accumulator takes integers, got {fmt.name!r}")
    given = (faults,) if isinstance(faults, AnyFault) else tuple(faults)
    left, right = x.reshape(-1, *x.shape[-2:]), y.reshape(-1, *y.shape[-2:])
    product = _Product(array, formats, found, plan, sum_bits(found), int(cycles_per_mac), (*left.shape, right.shape[2]))
    table = product.table(given)
    words = tuple(f for f in given if isinstance(f, BufferFault))
    if words and layout is None:
        raise InputError("layout: a faulty word needs one; product_layout gives that of a product")
    faulty = FaultyWords(layout, words) if words and layout is not None else None
    sums = product.run(left, right, table, faulty)
    return returned(sums.reshape(*x.shape[:-1], y.shape[-1]), found)


def run_cycles(array: ArraySpec, *, batch: int, m: int, n: int, k: int, step: int = 1) -> int:
    """Cycles of a product whose multiply-accumulates take ``step`` each, never stalled: those of ``control_cycles``."""
    return _times(array, batch=batch, m=m, n=n, k=k, step=step).cycles


def _times(array: ArraySpec, *, batch: int, m: int, n: int, k: int, step: int) -> FoldTimes:
    along, across, stream = _sides(m, n, k, array.dataflow)
    folds = batch * -(-along // array.rows) * -(-across // array.columns)
    return FoldTimes.of(array, folds=folds, stream=stream, step=step)


@dataclass(frozen=True)
class _Product:
    """A checked product.

    Attributes:
        array, formats, accumulator, plan, layout, step: how it is computed.
        sizes: batch, m, k, n.
    """

    array: ArraySpec
    formats: tuple[Format, Format]
    accumulator: Accumulator
    plan: MacPlan
    layout: SumBits
    step: int
    sizes: tuple[int, int, int, int]

    @property
    def turned(self) -> bool:
        """Whether the transposed product is computed, as on a weight-stationary array."""
        return self.array.dataflow == "input_stationary"

    @property
    def times(self) -> FoldTimes:
        """Of the folds."""
        batch, m, k, n = self.sizes
        return _times(self.array, batch=batch, m=m, n=n, k=k, step=self.step)

    def table(self, faults: Sequence[AnyFault]) -> NDArray[np.int64]:
        """Faults in registers and wires, flips first.

        Raises:
            InputError: a fault that the array cannot have.
        """
        registers = tuple(f for f in faults if isinstance(f, Fault))
        formats = self.formats[::-1] if self.turned else self.formats
        rows = _fault_table(registers, self.array, *formats, self.layout, np.zeros(0, np.int64))
        cycles = self.times.cycles
        for fault in registers:
            if fault.cycle is not None and fault.cycle >= cycles:
                raise InputError(f"cycle: the run has cycles 0 to {cycles - 1}, got {fault.cycle}")
        sides = (self.array.columns, self.array.rows) if self.turned else (self.array.rows, self.array.columns)
        lines = line_rows(
            [f for f in faults if isinstance(f, LineFault)],
            self.array.dataflow,
            dict(zip(("activation", "weight"), sides, strict=True)),
            dict(zip(("activation", "weight"), map(_code_bits, self.formats), strict=True)),
        )
        return np.concatenate([rows, np.array(lines, np.int64).reshape(-1, rows.shape[1])])

    def run(self, left: NDArray[Any], right: NDArray[Any], table: NDArray[np.int64], words: FaultyWords | None) -> NDArray[Any]:
        """Sums (batch, m, n) of (batch, m, k) and (batch, k, n)."""
        if words is None:
            return self._struck(left, right, table, ())
        batch, m, k, n = self.sizes
        formats = dict(zip(("input", "weight"), self.formats, strict=True))
        words.check({**formats, "output": get_format(self.accumulator.format)}, (batch, m, n, k))
        stays = self.array.dataflow == "output_stationary"
        stored = words.stored(None if stays else self.array.rows, self.turned)
        sums = self._struck(left, right, table, stored)
        for region in words.regions():
            at = region.batch
            wrong = left.copy(), right.copy()
            wrong[0][at] = struck(left[at], self.formats[0], region.a)
            wrong[1][at] = struck(right[at], self.formats[1], region.b)
            if table.size or stored:
                # Faulty registers see the wrong operands too.
                whole = self._struck(*wrong, table, stored)
                sums[at][np.ix_(region.rows, region.columns)] = whole[at][np.ix_(region.rows, region.columns)]
                continue
            target = self._sums(*wrong, sums.transpose(0, 2, 1) if self.turned else sums)
            rows = np.intersect1d(region.rows, np.concatenate([np.zeros(0, np.int64), *(f.rows for f in region.a)]))
            columns = np.intersect1d(region.columns, np.concatenate([np.zeros(0, np.int64), *(f.columns for f in region.b)]))
            for part in ((rows, region.columns), (region.rows, columns)):
                first, second = part[::-1] if self.turned else part
                if first.size and second.size:
                    target.compute(at, first, second, target.left.values(at, first), target.top.values(at, second))
        return sums

    def _struck(
        self, left: NDArray[Any], right: NDArray[Any], table: NDArray[np.int64], stored: tuple[Stored, ...]
    ) -> NDArray[Any]:
        """Sums under faults in registers and wires and in the memory of sums."""
        from numerics.products import matmul

        batch, m, _, n = self.sizes
        sums = np.empty((batch, n, m) if self.turned else (batch, m, n), self.plan.dtype)

        def clean(columns: NDArray[np.int64] | slice) -> NDArray[Any]:
            if self.turned:
                return np.asarray(matmul(left[:, columns], right, accumulator=self.accumulator)).transpose(0, 2, 1)
            return np.asarray(matmul(left, right[:, :, columns], accumulator=self.accumulator))

        replace(self._sums(left, right, sums), stored=stored).strike(table, clean)
        return sums.transpose(0, 2, 1) if self.turned else sums

    def _sums(self, left: NDArray[Any], right: NDArray[Any], sums: NDArray[Any]) -> FaultySums:
        depth = self.sizes[2]
        if self.array.dataflow != "output_stationary":
            depth += -depth % self.array.rows
        streams = Side(left.transpose(0, 2, 1), self.formats[0], self.plan.dtype, depth)
        stays = Side(right, self.formats[1], self.plan.dtype, depth)
        if self.turned:
            streams, stays = stays, streams
        return FaultySums(self.array, self.times, self.plan, self.layout, streams, stays, sums)


def _numbers(values: NDArray[Any], fmt: Format, field_name: str) -> NDArray[Any]:
    """Numbers of a format, as floats of 32 bits where those hold them all.

    Raises:
        InputError: values that the format lacks, or a format that no register holds.
    """
    if isinstance(fmt, IntFormat) and fmt.bits <= TABLE_BITS and values.dtype.kind in "fiub":
        within = bool(fmt.code_min <= values.min() and values.max() <= fmt.code_max)
        if within and (values.dtype.kind != "f" or bool((values == np.rint(values)).all())):
            return values.astype(np.float32, copy=False)
    elif isinstance(fmt, FloatFormat) and _in_fp32(fmt) and values.dtype.kind in "fiub":
        small = values.astype(np.float32, copy=False)
        same = values.dtype == np.float32 or np.array_equal(small, values, equal_nan=True)
        if same and (_code_bits(fmt) <= TABLE_BITS or fmt.name == "fp32") and in_format(small, fmt):
            return small
    return _Operand.of(values, fmt, field_name).values


def _accumulator(
    accumulator: str | Accumulator | None, formats: tuple[Format, Format], array: ArraySpec
) -> tuple[Accumulator, MacPlan]:
    """The accumulator, in the order in which the array adds, and its multiply-accumulate."""
    own = fold_accumulator(array, "fp32")
    if accumulator is None:
        accumulator = "int32" if all(isinstance(f, IntFormat) for f in formats) else "fp32"
    found = get_accumulator(accumulator)
    _check_order(found, array)
    plan = mac_plan(found)  # before the order is the array's: not every order has one
    return replace(found, order=own.order, group=own.group), plan
