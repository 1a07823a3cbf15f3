"""What every machine with a matrix unit beside a vector unit shares: which operators run together, and what stays on chip.

Both decisions depend on the workload alone (and, for what stays, on one capacity), so that a machine with more of anything
makes the same or more of them. ``schedule`` keeps them with the workload.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from operator import attrgetter
from typing import Any

import numpy as np

from hwsim.operators import OPERATORS, Elementwise, Matmul, Normalization, Op, Softmax
from hwsim.views.display import displayed
from hwsim.workload import Workload


@displayed
@dataclass(frozen=True)
class Group:
    """Operators that run together; groups run one after another.

    Attributes:
        matrix: index of the operator on the matrix unit, or None for a vector operator alone.
        streamed: vector operators that work on its results as they come, in order.
        row_wise: those of ``streamed`` that need a whole row of the result first.
        background: vector operators that neither wait for those above nor are waited for by them, one after another.
    """

    matrix: int | None
    streamed: tuple[int, ...] = ()
    row_wise: frozenset[int] = frozenset()
    background: tuple[int, ...] = ()

    @property
    def members(self) -> tuple[int, ...]:
        """All operator indices, in execution order."""
        first = () if self.matrix is None else (self.matrix,)
        return tuple(sorted((*first, *self.streamed, *self.background)))


@dataclass
class _Open:
    matrix: int
    streamed: list[int] = field(default_factory=list)
    row_wise: set[int] = field(default_factory=set)
    background: list[int] = field(default_factory=list)

    def close(self) -> Group:
        return Group(self.matrix, tuple(self.streamed), frozenset(self.row_wise), tuple(self.background))


def form_groups(workload: Workload) -> list[Group]:
    """Groups in execution order: each matrix operator with what can run beside it, the other operators one by one.

    A vector operator *streams* when it works element by element (or on whole rows of a matmul's result) on tensors as large
    as the result, all made in the group. It runs in the *background* of a matrix operator when neither waits for the other.
    """
    return list(workload.derived("groups", lambda: _form_groups(workload)))


def _form_groups(workload: Workload) -> list[Group]:
    ops, needs = workload.ops, workload.dependencies
    groups: list[Group] = []
    current: _Open | None = None
    pending: list[int] = []  # vector operators since the last group closed

    for index, op in enumerate(ops):
        if op.is_matrix:
            if current is not None:
                groups.append(current.close())
            before = _required(index, pending, needs)
            groups.extend(Group(None, background=(i,)) for i in pending if i in before)
            current = _Open(index, background=[i for i in pending if i not in before])
            pending = []
            continue
        if current is None:
            pending.append(index)
            continue
        chain = {current.matrix, *current.streamed}
        inside = set(needs[index]) & (chain | set(current.background))
        if not inside:
            current.background.append(index)
        elif inside <= chain and _streams(workload, index, current):
            current.streamed.append(index)
            if not _element_by_element(workload, index):
                current.row_wise.add(index)
        else:
            groups.append(current.close())
            current, pending = None, [index]
    if current is not None:
        groups.append(current.close())
    groups.extend(Group(None, background=(i,)) for i in pending)
    return groups


def _required(index: int, pending: list[int], needs: tuple[tuple[int, ...], ...]) -> set[int]:
    """Those of ``pending`` that operator ``index`` waits for, directly or through one another."""
    wanted = set(needs[index]) & set(pending)
    for i in reversed(pending):
        if i in wanted:
            wanted |= set(needs[i]) & set(pending)
    return wanted


def _element_by_element(workload: Workload, index: int) -> bool:
    op = workload.ops[index]
    return isinstance(op, Elementwise) or (isinstance(op, Normalization) and op.operation == "batch_norm")


def _streams(workload: Workload, index: int, group: _Open) -> bool:
    op, head = workload.ops[index], workload.ops[group.matrix]
    if not getattr(op, "aligned", False) and not isinstance(op, Normalization):
        return False
    size = head.elements_out
    made = {workload.tensors[t].owner for i in (group.matrix, *group.streamed) for t in workload.ops[i].outputs}
    own = [workload.tensors[t] for t in op.inputs if workload.tensors[t].owner in made]
    if op.elements_out != size or any(t.elements != size for t in own):
        return False
    if _element_by_element(workload, index):
        return True
    if not isinstance(op, Softmax | Normalization) or op.operation == "batch_norm_training":
        return False
    return isinstance(head, Matmul) and op.row_length == head.n


@dataclass(frozen=True)
class Residency:
    """What stays on chip between groups.

    Attributes:
        kept: memory owners that stay from the group that writes them to the last that reads them.
        internal: memory owners that exist only inside one group.
    """

    kept: frozenset[str]
    internal: frozenset[str]


def plan_residency(workload: Workload, groups: Sequence[Group], capacity_bytes: int) -> Residency:
    """Which activations and gradients stay on chip in a store of ``capacity_bytes``.

    Shorter-lived tensors come first: a tensor stays when it and all tensors that come before it and live at the same time fit
    together, kept or not. So a larger store keeps all that a smaller one keeps.
    """
    group_of = {index: g for g, group in enumerate(groups) for index in group.members}
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for index, op in enumerate(workload.ops):
        g = group_of[index]
        for name in op.outputs:
            owner = workload.tensors[name].owner
            first.setdefault(owner, g)
            last[owner] = max(last.get(owner, g), g)
        for name in op.inputs:
            owner = workload.tensors[name].owner
            if owner in first:
                last[owner] = max(last[owner], g)
    outside = {workload.tensors[t].owner for t in (*workload.outputs, *workload.inputs)}
    spans: list[tuple[int, int, int, str]] = []
    internal: set[str] = set()
    for owner, start in first.items():
        tensor = workload.tensors[owner]
        if tensor.role not in ("activation", "gradient", "index"):
            continue
        if last[owner] == start and owner not in outside:
            internal.add(owner)
        elif owner not in outside or last[owner] > start:
            spans.append((last[owner] - start, tensor.bytes, start, owner))
    live = np.zeros(len(groups) + 1, dtype=np.int64)
    kept: set[str] = set()
    for length, size, start, owner in sorted(spans):
        window = live[start : start + length + 1]
        window += size
        if window.max() <= capacity_bytes:
            kept.add(owner)
    return Residency(frozenset(kept), frozenset(internal))


@displayed
@dataclass(frozen=True)
class Traffic:
    """What one operator of a group moves, in bytes.

    Attributes:
        op: the operator.
        load_bytes, store_bytes: from and to off-chip memory.
        touched_bytes: all it reads and writes.
        handed_bytes: results of its own group that it reads as they come, where nothing keeps them.
        outside_bytes: what it reads that its group did not make.
        result_bytes: what it writes that its group alone does not use up.
    """

    op: Op
    load_bytes: int
    store_bytes: int
    touched_bytes: int
    handed_bytes: int
    outside_bytes: int
    result_bytes: int


def group_traffic(workload: Workload, group: Group, kept: Residency) -> dict[int, Traffic]:
    """Operator index → what it moves, for the operators of a group.

    Of several that overwrite one result in place, only the last stores it (``rewritten``).
    """
    tensors, outputs = workload.tensors, _output_owners(workload)
    made: set[str] = set()
    parts: dict[int, Traffic] = {}
    for index in group.members:
        op = workload.ops[index]
        load = store = touched = handed = outside = result = 0
        for position, name in enumerate(op.inputs):
            if name in op.inputs[:position]:
                continue  # read once, used twice
            owner = tensors[name].owner
            size = workload.read_bytes(op, position)
            touched += size
            if owner in made:
                handed += 0 if owner in kept.kept else size
                continue
            outside += size
            if owner not in kept.kept:
                load += size
        for position, name in enumerate(op.outputs):
            owner = tensors[name].owner
            size = workload.write_bytes(op, position)
            touched += size
            if owner in kept.internal:
                continue
            result += size
            if owner not in kept.kept or owner in outputs:
                store += size
        parts[index] = Traffic(op, load, store, touched, handed, outside, result)
        made |= {tensors[t].owner for t in op.outputs}
    for index in _rewritten(workload, group):
        parts[index] = replace(parts[index], store_bytes=0, result_bytes=0)
    return parts


def _output_owners(workload: Workload) -> frozenset[str]:
    """Memory owners that the caller gets."""
    return workload.derived("output owners", lambda: frozenset(workload.tensors[t].owner for t in workload.outputs))


def _rewritten(workload: Workload, group: Group) -> set[int]:
    """Operators whose results a later one of the group overwrites in place: only the last version is stored."""
    chain = [*([] if group.matrix is None else [group.matrix]), *group.streamed]
    last = {workload.tensors[t].owner: i for i in chain for t in workload.ops[i].outputs}
    return {i for i in chain if all(last[workload.tensors[t].owner] != i for t in workload.ops[i].outputs)}


@displayed
@dataclass(frozen=True)
class Schedule:
    """How a workload runs on a machine that keeps so many bytes on chip.

    Attributes:
        groups: in execution order.
        residency: what stays on chip.
        traffic: for each group, operator index → what it moves.
        likeness: for each group, a number that it shares with those that cost the same on any machine: networks repeat layers.
    """

    groups: tuple[Group, ...]
    residency: Residency
    traffic: tuple[Mapping[int, Traffic], ...]
    likeness: tuple[int, ...]


def schedule(
    workload: Workload, capacity_bytes: int, *, grouping: Callable[[Workload], Sequence[Group]] = form_groups
) -> Schedule:
    """Groups, what stays of them in a store of ``capacity_bytes``, and what they move; made once and kept with the workload.

    Args:
        grouping: a module's function that says which operators run together.
    """
    return workload.derived(("schedule", grouping, capacity_bytes), lambda: _schedule(workload, capacity_bytes, grouping))


def _schedule(workload: Workload, capacity_bytes: int, grouping: Callable[[Workload], Sequence[Group]]) -> Schedule:
    groups = tuple(grouping(workload))
    kept = plan_residency(workload, groups, capacity_bytes)
    numbers: dict[Hashable, int] = {}
    likeness = tuple(numbers.setdefault(_description(workload, group, kept), len(numbers)) for group in groups)
    return Schedule(groups, kept, tuple(group_traffic(workload, group, kept) for group in groups), likeness)


_NAMES = frozenset({"name", "inputs", "outputs", "module", "source"})


@cache
def _sizes(kind: str) -> Callable[[Op], Any]:
    """Reads all fields of an operator but its names."""
    return attrgetter(*(f.name for f in fields(OPERATORS[kind]) if f.name not in _NAMES))


def _description(workload: Workload, group: Group, kept: Residency) -> Hashable:
    """All that a group's cost can depend on: its operators and their tensors, numbered in the order in which they come up instead
    of named, and where those lie."""
    tensors, outputs = workload.tensors, _output_owners(workload)
    numbers: dict[str, int] = {}
    found: list[Hashable] = []

    def number(name: str) -> int:
        known = numbers.get(name)
        if known is None:
            known = numbers[name] = len(numbers)
            tensor = tensors[name]
            owner = tensor.owner
            place = owner in kept.kept, owner in kept.internal, owner in outputs
            held = known if owner == name else number(owner)
            found.append((known, tensor.shape, tensor.format, tensor.role, tensor.density, held, place))
        return known

    for index in group.members:
        op = workload.ops[index]
        part = index == group.matrix, index in group.streamed, index in group.row_wise
        reads, writes = tuple(map(number, op.inputs)), tuple(map(number, op.outputs))
        found.append((op.kind, _sizes(op.kind)(op), part, reads, writes))
    return tuple(found)
