"""A ``torch.profiler`` trace as a workload with the times that were measured.

``prof.export_chrome_trace(path)`` after ``profile(record_shapes=True)``. Each operator is dispatched again on fake tensors of the
recorded sizes, through the recorder of ``hwsim.trace``, so that both name and count the same. The trace does not say which call
made the tensors that another one reads: operators have operands of their own, and no dependencies.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.operators import Op, OpFormats
from hwsim.views.display import displayed
from hwsim.workload import Tensor, Workload
from numerics.errors import InputError
from numerics.formats import is_float

if TYPE_CHECKING:
    from hwsim.scoreboard.points import Point
    from hwsim.tracing._profiler_events import Event
    from hwsim.tracing._profiler_replay import Replayed, Replayer

FORMATS = "as profiled"
"""The ``recipe`` of a profile's workloads: every operand in the format it had."""

NO_COST = "moves no data"
OWN_TIME = "own time of calls whose parts are counted"
AROUND = "what PyTorch does around operators"
NO_KERNEL = "ran no kernel on the GPU"
CROSSING = "copies between host and GPU"
_TOGETHER = {
    NO_COST: "views and allocations",
    OWN_TIME: "composite calls",
    AROUND: "autograd and the like",
    NO_KERNEL: "host work",
}
"""Reasons → what calls of any name are called together."""


@displayed
@dataclass(frozen=True)
class MeasuredCall:
    """One call of the trace.

    Attributes:
        source: what was called, such as ``aten::addmm``.
        ops: names of its operators in the profile's workload; several where one measured time is that of all of them.
        time_s: on a GPU, the time in which its kernels ran; on a CPU, its duration with all that it called.
    """

    source: str
    ops: tuple[str, ...]
    time_s: float


@displayed
@dataclass(frozen=True)
class Skipped:
    """Time that no operator of the workload accounts for.

    Attributes:
        name: of the calls.
        reason: why they are left out.
        calls: how many.
        time_s: theirs in the trace.
    """

    name: str
    reason: str
    calls: int
    time_s: float


@displayed
@dataclass(frozen=True)
class Profile:
    """A trace, loaded. Times of ``calls`` and ``skipped`` add up to ``total_s`` (as far as kernels run one after another).

    Attributes:
        workload: its operators, in the order they began.
        calls: what was measured.
        skipped: what was not, the longest first.
        total_s: time of all of the trace's outermost operators.
        on_gpu: whether the times are those of kernels.
        notes: what had to be assumed.
    """

    workload: Workload
    calls: tuple[MeasuredCall, ...]
    skipped: tuple[Skipped, ...]
    total_s: float
    on_gpu: bool
    notes: tuple[str, ...] = ()

    @cached_property
    def measured(self) -> dict[str, float]:
        """Operator → seconds, for the calls that are one operator each."""
        return {call.ops[0]: call.time_s for call in self.calls if len(call.ops) == 1}

    def skipped_lines(self) -> list[str]:
        """What is left out, a line each, with its share of the time."""
        whole = self.total_s or 1.0
        return [f"{100 * s.time_s / whole:.1f} %  {s.name} ({s.calls}): {s.reason}" for s in self.skipped]


def load_profile(path: str | Path) -> Profile:
    """The operators of a trace (``.json`` or ``.json.gz``) and their times.

    The outermost call that stands for one operator counts, with all that it called. One that stands for several gives way to
    those it made, unless they are kernels no one knows (an LSTM of oneDNN): then its time is that of all of them together. On
    traces of a GPU an operator's time is that of the kernels it launched.

    Raises:
        InputError: no such trace, one without sizes, or one that holds no operator that can be replayed.
    """
    from hwsim.tracing._profiler_events import read_events
    from hwsim.tracing._profiler_replay import Replayer

    events = read_events(path)
    builder = _Builder(events.on_gpu)
    replayer = Replayer()
    for root in events.roots:
        builder.take(_resolved(root, replayer, events.on_gpu))
    if events.stray_us:
        builder.skip("kernels", "launched by no operator of the trace (a CUDA graph, another library)", events.stray_us * 1e-6)
    name = Path(path).name.removesuffix(".gz").removesuffix(".json")
    return builder.profile(name, sum(root.time_s(events.on_gpu) for root in events.roots) + events.stray_us * 1e-6)


def measured_points(path: str | Path) -> list[Point]:
    """One point a call of a trace, for ``hwsim.scoreboard.score_points``; what is left out goes to stderr.

    Raises:
        InputError: as ``load_profile``.
    """
    from hwsim.scoreboard.points import Point

    profile = load_profile(path)
    whole = profile.workload
    by_name = {op.name: op for op in whole.ops}
    points = []
    for call in profile.calls:
        ops = [by_name[name] for name in call.ops]
        kind = "+".join(dict.fromkeys(op.kind for op in ops))
        points.append(Point(call.ops[0], _part(whole, ops), {"time_s": call.time_s}, row={"operator": kind}))
    left = sum(part.time_s for part in profile.skipped)
    if left:
        shares = ", ".join(f"{part.name} {100 * part.time_s / profile.total_s:.1f} %" for part in profile.skipped)
        sys.stderr.write(f"{path}: {100 * left / profile.total_s:.1f} % of the time is not compared: {shares}\n")
    return points


def _part(whole: Workload, ops: list[Op]) -> Workload:
    """Some operators of a workload as one of their own."""
    used = {t for op in ops for t in (*op.inputs, *op.outputs)}
    used |= {whole.tensors[t].owner for t in used}
    tensors = {name: tensor for name, tensor in whole.tensors.items() if name in used}
    written = {whole.tensors[t].owner for op in ops for t in op.outputs}
    return Workload(
        name=ops[0].name,
        ops=tuple(ops),
        tensors=tensors,
        inputs=tuple(n for n, t in tensors.items() if t.owner == n and t.role == "input" and n not in written),
        outputs=tuple(dict.fromkeys(t for op in ops for t in op.outputs)),
        recipe=whole.recipe,
        metadata=dict(whole.metadata),
    )


@dataclass(frozen=True)
class _Found:
    event: Event
    replayed: Replayed
    time_s: float


@dataclass(frozen=True)
class _Left:
    name: str
    reason: str
    time_s: float


def _resolved(event: Event, replayer: Replayer, on_gpu: bool) -> list[_Found | _Left]:
    """What an event and those below it stand for; the times add up to the event's."""
    from hwsim.tracing._profiler_replay import UnreplayableError

    time_s = event.time_s(on_gpu)
    if on_gpu and not time_s:
        return [_Left(event.name, NO_KERNEL, 0.0)]
    reason, found = "", None
    if "::" in event.name and not event.name.startswith(("autograd::", "torch::")):
        try:
            found = replayer(event)
        except UnreplayableError as error:
            reason = str(error)
    else:
        reason = AROUND
    if event.children and not (found is not None and _dispatched(event, found)):
        parts = [part for child in event.children for part in _resolved(child, replayer, on_gpu)]
        if found is None or _tell_more(parts, found, time_s):
            label = reason if not any(isinstance(part, _Found) for part in parts) else OWN_TIME
            return [*parts, _Left(event.name, label or NO_COST, max(0.0, time_s - sum(part.time_s for part in parts)))]
    if found is None:
        return [_Left(event.name, reason, time_s)]
    if not found.ops:
        return [_Left(event.name, NO_COST, time_s)]
    if not time_s:
        return [_Left(event.name, "no time in the trace", 0.0)]
    if any(inner.crossings for inner in event.subtree()):
        return [_Left(event.name, CROSSING, time_s)]
    return [_Found(event, found, time_s)]


def _dispatched(event: Event, found: Replayed) -> bool:
    """Whether the event is what the recorder saw, and no composite: those below it are the insides of a kernel."""
    name = event.name.replace("::", ".")
    return bool(found.ops) and all(op.source == name and op.kind != "unmodelled" for op in found.ops)


def _tell_more(parts: Iterable[_Found | _Left], whole: Replayed, time_s: float) -> bool:
    """Whether the calls that a call made say what ran better than the call dispatched again.

    They do where a composite made other operators (a choice that PyTorch makes by more than sizes), or the same ones but several,
    and where an operator that no table knows spends most of its time in ones that are known.
    """
    found = [part for part in parts if isinstance(part, _Found)]
    below = [op for part in found for op in part.replayed.ops]
    if not whole.ops:
        return bool(below)
    if any(op.kind == "unmodelled" for op in whole.ops):
        return sum(part.time_s for part in found) > time_s / 2
    if not below or any(op.kind == "unmodelled" for op in below):
        return False
    return len(whole.ops) != 1 or sorted(map(_nest, below)) != sorted(map(_nest, whole.ops))


def _nest(op: Op) -> tuple[str, str, int, int]:
    return op.kind, str(getattr(op, "operation", "")), op.macs, int(getattr(op, "elements", 0))


class _Builder:
    """Gathers calls into one workload, with names that are unique in it."""

    def __init__(self, on_gpu: bool) -> None:
        self.on_gpu = on_gpu
        self.ops: list[Op] = []
        self.tensors: dict[str, Tensor] = {}
        self.calls: list[MeasuredCall] = []
        self.left: dict[tuple[str, str], tuple[int, float]] = {}
        self.guessed = 0
        self.trains = False
        self._names: dict[str, int] = {}

    def take(self, found: Iterable[_Found | _Left]) -> None:
        for part in found:
            if isinstance(part, _Left):
                self.skip(part.name, part.reason, part.time_s)
            else:
                self._add(part)

    def skip(self, name: str, reason: str, time_s: float) -> None:
        name = _TOGETHER.get(reason, name)
        calls, so_far = self.left.get((name, reason), (0, 0.0))
        self.left[name, reason] = calls + 1, so_far + time_s

    def _add(self, found: _Found) -> None:
        names, prefix = [], ""
        self.trains = self.trains or found.event.phase == "backward"
        self.guessed += found.replayed.guessed
        for op in found.replayed.ops:
            name = self._unique(f"{found.event.module}/{op.name}" if found.event.module else op.name)
            names.append(name)
            prefix = prefix or name
        own = dict(zip((op.name for op in found.replayed.ops), names, strict=True))
        renamed = {old: self._tensor_name(old, own, prefix) for old in found.replayed.tensors}
        for old, tensor in found.replayed.tensors.items():
            storage = renamed[tensor.storage] if tensor.storage else ""
            self.tensors[renamed[old]] = replace(tensor, name=renamed[old], storage=storage)
        for op in found.replayed.ops:
            inputs, outputs = (tuple(renamed[t] for t in names) for names in (op.inputs, op.outputs))
            module = found.event.module
            placed = replace(op, name=own[op.name], inputs=inputs, outputs=outputs, module=module)
            self.ops.append(replace(placed, formats=_formats(placed, self.tensors)))
        self.calls.append(MeasuredCall(found.event.name, tuple(names), found.time_s))

    @staticmethod
    def _tensor_name(old: str, own: Mapping[str, str], prefix: str) -> str:
        for op, name in own.items():
            if old.startswith(f"{op}.out"):
                return name + old.removeprefix(op)
        return f"{prefix}.{old}"

    def _unique(self, name: str) -> str:
        count = self._names.get(name, 0)
        self._names[name] = count + 1
        return f"{name}_{count}" if count else name

    def profile(self, name: str, total_s: float) -> Profile:
        left = tuple(
            Skipped(what, reason, calls, time_s)
            for (what, reason), (calls, time_s) in sorted(self.left.items(), key=lambda entry: -entry[1][1])
        )
        if not self.ops:
            why = f"{left[0].name}: {left[0].reason}" if left else "it holds none"
            raise InputError(f"trace {name!r}: no operator that can be replayed ({why})")
        notes = ["operators stand alone: a trace does not tell which of them made the tensors that another reads"]
        if self.guessed:
            notes.append(f"{self.guessed} calls have lists of tensors whose number format the trace does not hold: fp32 assumed")
        # Statistics and indices are kept for a backward pass; where there is none, nothing reads them (as in hwsim.trace).
        ops = self.ops if self.trains else [replace(op, outputs=op.outputs[:1]) for op in self.ops]
        used = {t for op in ops for t in (*op.inputs, *op.outputs)}
        used |= {self.tensors[t].owner for t in used}
        tensors = {key: tensor for key, tensor in self.tensors.items() if key in used}
        metadata: Mapping[str, Any] = {"source": "torch.profiler", "measured_on": "gpu" if self.on_gpu else "cpu"}
        whole = Workload(name, tuple(ops), tensors, recipe=FORMATS, metadata=metadata)
        return Profile(whole, tuple(self.calls), left, total_s, self.on_gpu, tuple(notes))


def _formats(op: Op, tensors: Mapping[str, Tensor]) -> OpFormats:
    """Operands in the formats they had; sums as wide as PyTorch's."""
    operands = tuple(tensors[name].format for name in op.inputs)
    first = next(_of_values(operands), operands[0] if operands else "fp32")
    accumulator = first if first in ("fp64", "complex64", "complex128") else "fp32" if is_float(first) else "int32"
    return OpFormats(operands, accumulator)


def _of_values(operands: tuple[str, ...]) -> Iterator[str]:
    return (form for form in operands if is_float(form))
