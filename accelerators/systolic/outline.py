"""A workload as a systolic array's kernels take it: which operators run together and what each moves, before any number of a
spec is put in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from accelerators.systolic import _cost_fields as fields
from accelerators.systolic.device import row_bytes
from accelerators.systolic.ideal import operand_elements
from accelerators.systolic.mapping import Shape, shape_of
from hwsim.operations import PRIMITIVES
from hwsim.operators import Convolution, Matmul, Op, Scan
from hwsim.schedule import Group, Traffic, schedule
from hwsim.workload import Workload

if TYPE_CHECKING:
    from accelerators.systolic.device import SystolicArray

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_PLACE = {primitive: i for i, primitive in enumerate(PRIMITIVES)}


@dataclass(frozen=True)
class Outline:
    """The distinct groups of a workload; groups that cost the same on any machine are listed once.

    Attributes:
        operators: one row an operator (columns as in ``_cost_fields``), group by group: the one on the array first, then those
            that stream, then those in the background.
        groups: one row a group.
        on_array: whether each operator runs on the array.
        work: three arrays: where each operator's primitive operations begin, which they are, how many.
        converted: likewise its conversions: begin, which of the spec's, elements.
        order: for each operator of the workload, in order, its row in ``operators``.
        shapes: of the operator on the array, one a group; None where there is none.
        heads: name of a group's first operator, one a group.
    """

    operators: Floats
    groups: Integers
    on_array: npt.NDArray[np.bool_]
    work: tuple[Integers, Integers, Floats]
    converted: tuple[Integers, Integers, Floats]
    order: Integers
    shapes: tuple[Shape | None, ...]
    heads: tuple[str, ...]


def outline(device: SystolicArray, workload: Workload) -> Outline:
    """The outline of a workload on a device; all devices that differ in numbers alone share it.

    Raises:
        InputError: a format that the device neither computes in nor converts.
    """
    placed = device.placed(workload).expanded()
    spec = device.spec
    kept = spec.memory.input.retained_capacity_bytes
    key = "systolic outline", kept, tuple(spec.mac_formats), tuple(spec.conversions), spec.host_link is None, device.name
    return placed.derived(key, lambda: _Builder(device, placed).outline(kept))


class _Builder:
    def __init__(self, device: SystolicArray, workload: Workload) -> None:
        self.device, self.workload = device, workload
        self.macs, self.conversions = list(device.spec.mac_formats), list(device.spec.conversions)
        self.rows: list[Floats] = []
        self.work: list[list[tuple[int, int]]] = []
        self.converted: list[list[tuple[int, int]]] = []

    def outline(self, kept_bytes: int) -> Outline:
        plan = schedule(self.workload, kept_bytes)
        first: dict[int, int] = {}
        groups: list[tuple[int, int, int, int]] = []
        shapes: list[Shape | None] = []
        heads: list[str] = []
        order = np.zeros(len(self.workload.ops), dtype=np.int64)
        for number, group, traffic in zip(plan.likeness, plan.groups, plan.traffic, strict=True):
            members = [*([] if group.matrix is None else [group.matrix]), *group.streamed, *group.background]
            if number not in first:
                first[number] = len(self.rows)
                self._add(group, traffic, plan.residency)
                groups.append((first[number], len(self.rows), int(group.matrix is not None), len(group.streamed)))
                op = None if group.matrix is None else cast(Matmul | Convolution, self.workload.ops[group.matrix])
                shapes.append(None if op is None else shape_of(op))
                heads.append(self.workload.ops[members[0]].name)
            order[members] = first[number] + np.arange(len(members))
        table = np.array(groups, dtype=np.int64).reshape(-1, 4)
        on_array = np.zeros(len(self.rows), dtype=np.bool_)
        on_array[table[table[:, fields.MATRIX] == 1, fields.FIRST]] = True
        return Outline(
            np.array(self.rows).reshape(-1, fields.OPERATOR_FIELDS),
            table,
            on_array,
            _flat(self.work),
            _flat(self.converted),
            order,
            tuple(shapes),
            tuple(heads),
        )

    def _add(self, group: Group, traffic: Mapping[int, Traffic], kept: Any) -> None:
        if group.matrix is not None:
            self._matrix(traffic[group.matrix], kept)
        for index in group.streamed:
            self._vector(traffic[index], streamed=True, row_wise=index in group.row_wise)
        for index in group.background:
            self._vector(traffic[index], streamed=False, row_wise=False)

    def _operator(self, op: Op, computed: tuple[str, ...] = ()) -> Floats:
        row = np.zeros(fields.OPERATOR_FIELDS)
        self.rows.append(row)
        self.work.append([(_PLACE[primitive], count) for primitive, count in op.operations.items()])
        changes = self.device.converted(self.workload, op, computed)
        self.converted.append([(self.conversions.index(change), elements) for change, elements in changes])
        return row

    def _vector(self, part: Traffic, *, streamed: bool, row_wise: bool) -> None:
        row = self._operator(part.op)
        job = self.device.vector_bytes(self.workload, part, row_wise=row_wise, streamed=streamed)
        row[fields.LOAD], row[fields.STORE], row[fields.HOST] = job.load_bytes, job.store_bytes, job.host_bytes
        row[fields.TOUCHED], row[fields.HANDED], row[fields.ROW_WISE] = job.touched_bytes, job.handed_bytes, row_wise
        row[fields.ROW_BYTES] = row_bytes(part)
        row[fields.SCAN_LENGTH] = part.op.length if isinstance(part.op, Scan) else 0

    def _matrix(self, part: Traffic, kept: Any) -> None:
        job = self.device.matrix_job(self.workload, part, kept)
        assert job.op.formats is not None
        pair = self.device.spec.compute_formats(*job.op.formats.operands[:2])
        row, mac_format = self._operator(job.op, pair), self.device.spec.mac_format(*pair)
        shape, (once_a, once_b) = shape_of(job.op), operand_elements(job.op)
        row[[fields.BATCH, fields.M, fields.N, fields.K]] = shape.batch, shape.m, shape.n, shape.k
        row[[fields.A_BYTES, fields.B_BYTES, fields.P_BYTES]] = job.a_bytes, job.b_bytes, job.partial_bytes
        row[fields.A_HERE], row[fields.B_HERE] = job.a_resident, job.b_resident
        row[fields.MAC] = next(i for i, mac in enumerate(self.device.spec.mac_formats.values()) if mac is mac_format)
        row[fields.MACS], row[fields.OUTPUTS] = job.op.macs, job.op.elements_out
        row[fields.ONCE_A], row[fields.ONCE_B] = once_a, once_b
        row[fields.LOAD], row[fields.STORE] = job.extra_load_bytes, job.store_bytes
        row[fields.RESULT], row[fields.HOST] = job.result_bytes, job.host_bytes


def _flat(lists: list[list[tuple[int, int]]]) -> tuple[Integers, Integers, Floats]:
    starts = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    pairs = [pair for one in lists for pair in one]
    return starts, np.array([p for p, _ in pairs], dtype=np.int64), np.array([n for _, n in pairs], dtype=np.float64)
