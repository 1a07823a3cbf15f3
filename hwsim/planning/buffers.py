"""Buffers: the memory of one or several tensors, and the operators during which it must be there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hwsim.operators import Elementwise, Normalization, Op, Softmax
from hwsim.views.display import displaying
from hwsim.workload import Workload


@displaying("end")
@dataclass(frozen=True)
class Buffer:
    """A piece of memory.

    Attributes:
        name: the tensor that first lies in it.
        tensors: memory owners that lie in it, one after another, in the order they are written.
        bytes: size.
        first, last: indices of the operators between which it is taken, both included.
        offset: where it begins (0 until it is placed).
    """

    name: str
    tensors: tuple[str, ...]
    bytes: int
    first: int
    last: int
    offset: int = 0

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.offset + self.bytes

    def meets(self, other: Buffer) -> bool:
        """Whether both are taken during one operator at least."""
        return self.first <= other.last and other.first <= self.last


def buffers_of(workload: Workload, roles: Iterable[str]) -> dict[str, Buffer]:
    """Memory owner → a buffer of its own, for the tensors in these roles that hold any bytes.

    Lifetimes are those of ``Workload.lifetimes``, within the operators: what the caller gives is there from the first operator
    on, results stay to the last.
    """
    wanted = frozenset(roles)
    most = max(0, len(workload.ops) - 1)
    found = {}
    for name, (first, last) in workload.lifetimes.items():
        tensor = workload.tensors[name]
        if tensor.role in wanted and tensor.bytes and workload.ops:
            found[name] = Buffer(name, (name,), tensor.bytes, min(max(first, 0), most), min(max(last, 0), most))
    return found


def with_parts(workload: Workload) -> Workload:
    """The workload in which a tensor that is only read in parts is written as these parts, each with memory of its own.

    So the three parts of a projection to queries, keys and values end their lives one by one. A tensor is left whole when it is
    an input or output of the workload, when several operators write it, when anything reads all of it, or when its parts are
    larger together than it is.
    """
    lifetimes, end = workload.lifetimes, len(workload.ops)
    writers: dict[str, list[int]] = {}
    parts: dict[str, dict[str, None]] = {}
    for index, op in enumerate(workload.ops):
        for name in op.outputs:
            writers.setdefault(workload.tensors[name].owner, []).append(index)
        for name in op.inputs:
            parts.setdefault(workload.tensors[name].owner, {})[name] = None
    split: dict[str, tuple[str, ...]] = {}
    for owner, names in parts.items():
        first, last = lifetimes[owner]
        written = writers.get(owner, [])
        if len(names) < 2 or owner in names or len(written) != 1 or first < 0 or last >= end:
            continue
        if (
            owner in workload.ops[written[0]].outputs
            and sum(workload.tensors[n].bytes for n in names) <= workload.tensors[owner].bytes
        ):
            split[owner] = tuple(names)
    if not split:
        return workload
    own = {name for names in split.values() for name in names}
    tensors = {n: replace(t, storage="") if n in own else t for n, t in workload.tensors.items()}
    ops = []
    for op in workload.ops:
        outputs = tuple(part for name in op.outputs for part in split.get(name, (name,)))
        ops.append(op if outputs == op.outputs else replace(op, outputs=outputs))
    return replace(workload, ops=tuple(ops), tensors=tensors)


def overwrites(workload: Workload, op: Op) -> bool:
    """Whether the operator may write its result over an operand: element by element, or whole rows once they are read."""
    if isinstance(op, Elementwise):
        return op.aligned
    if isinstance(op, Softmax):
        return op.aligned and op.operation in ("softmax", "log_softmax")
    return isinstance(op, Normalization) and op.operation in ("layer_norm", "rms_norm", "group_norm", "batch_norm")


def in_place_pairs(workload: Workload) -> list[tuple[str, str]]:
    """(result, operand that it may overwrite) by memory owner, in execution order.

    The operand is read for the last time there, is as large as the result, is read through one tensor only, and is no tensor
    that must outlive the operator; the result is written there for the first time. Of two such operands the later is taken.
    """
    lifetimes = workload.lifetimes
    pairs = []
    for index, op in enumerate(workload.ops):
        if not overwrites(workload, op) or len(op.outputs) != 1:
            continue
        result = workload.tensors[op.outputs[0]]
        if result.owner != result.name or lifetimes[result.name][0] != index:
            continue
        owners = [workload.tensors[name].owner for name in op.inputs]
        for name, owner in reversed(list(zip(op.inputs, owners, strict=True))):
            held, seen = workload.tensors[owner], workload.tensors[name]
            dies = lifetimes[owner][1] == index
            whole = held.bytes == result.bytes and held.elements == result.elements == seen.elements
            if dies and whole and len({n for n, o in zip(op.inputs, owners, strict=True) if o == owner}) == 1:
                pairs.append((result.name, owner))
                break
    return pairs


def merged(buffers: Mapping[str, Buffer], pairs: Iterable[tuple[str, str]], *, same_size: bool = True) -> dict[str, Buffer]:
    """Memory owner → buffer after each (upper, lower) pair shares the buffer of ``lower``.

    With ``same_size``, pairs whose buffers differ in size stay apart: so nothing is ever larger for longer.
    """
    found = dict(buffers)
    for upper, lower in pairs:
        if upper not in found or lower not in found:
            continue
        a, b = found[lower], found[upper]
        if a is b or (same_size and a.bytes != b.bytes):
            continue
        both = replace(
            a,
            tensors=(*a.tensors, *b.tensors),
            bytes=max(a.bytes, b.bytes),
            first=min(a.first, b.first),
            last=max(a.last, b.last),
        )
        for name in both.tensors:
            found[name] = both
    return found


def distinct(buffers: Mapping[str, Buffer]) -> list[Buffer]:
    """Each buffer once, in order of first use."""
    return sorted({id(b): b for b in buffers.values()}.values(), key=lambda b: (b.first, b.last, b.name))


def live_bytes(buffers: Sequence[Buffer], operators: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Bytes taken during each of ``operators`` operators; their largest is below no placement's peak."""
    change = np.zeros(operators + 1, dtype=np.int64)
    for buffer in buffers:
        change[buffer.first] += buffer.bytes
        change[buffer.last + 1] -= buffer.bytes
    return np.cumsum(change)[:operators]
