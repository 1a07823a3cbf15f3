"""The events of a ``torch.profiler`` Chrome trace: operators as a tree, each with its time, module and phase."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hwsim.operators import Phase
from hwsim.tracing._profiler_checks import DEEPEST, EventError, check_events, event_error
from numerics.errors import InputError

KERNELS = frozenset({"kernel", "gpu_memcpy", "gpu_memset"})
"""Categories of what runs on a GPU."""
_LAUNCHES = frozenset({"cuda_runtime", "cuda_driver", "hip_runtime"})
_CROSSING = ("HtoD", "DtoH")
_MODULE = "nn.Module: "
_BACKWARD = "autograd::engine::evaluate_function"
_UPDATE = "Optimizer.step"
_SCRIPTED = re.compile(r"(\w+)\(\w+\)::\w+")

Interval = tuple[float, float]
"""(start, end) in microseconds."""


@dataclass
class Event:
    """A call that the profiler saw.

    Attributes:
        name: such as ``aten::addmm``.
        start_us, duration_us: on the host.
        args: the event's arguments as the trace holds them.
        module: path of the module it belongs to ("" where the trace does not tell).
        phase: forward, backward (under an autograd node) or update (under an optimizer's step).
        children: calls made by it.
        kernels: what it launched on a GPU itself, its children not included.
        crossings: how many of those carry data between host and GPU.
    """

    name: str
    start_us: float
    duration_us: float
    args: Mapping[str, Any]
    module: str = ""
    phase: Phase = "forward"
    children: list[Event] = field(default_factory=list)
    kernels: list[Interval] = field(default_factory=list)
    crossings: int = 0

    def all_kernels(self) -> list[Interval]:
        """What it and everything below it launched."""
        return [interval for event in self.subtree() for interval in event.kernels]

    def subtree(self) -> Iterator[Event]:
        """It and everything below it, in the order they began."""
        waiting = [self]
        while waiting:
            event = waiting.pop()
            yield event
            waiting += event.children[::-1]

    def time_s(self, on_gpu: bool) -> float:
        """Seconds: those in which any of its kernels runs, or its own duration on the host."""
        return busy_us(self.all_kernels()) * 1e-6 if on_gpu else self.duration_us * 1e-6


@dataclass(frozen=True)
class Events:
    """A trace.

    Attributes:
        roots: operators that no other operator called, in the order they began.
        on_gpu: whether kernels ran on a GPU, so that times are theirs.
        stray_us: time of kernels that belong to no operator (launched by a CUDA graph, or outside of PyTorch).
    """

    roots: tuple[Event, ...]
    on_gpu: bool
    stray_us: float


def busy_us(intervals: Iterable[Interval]) -> float:
    """Length of the union of intervals: kernels that run at the same time count once."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def read_events(path: str | Path) -> Events:
    """The operators of a trace written by ``export_chrome_trace`` (``.json``, or gzipped).

    Raises:
        InputError: the file cannot be read, is no such trace, has a malformed event, or holds no operators or no sizes of their
            operands.
    """
    raw = _traced(path)
    check_events(path, raw)
    complete = [entry for entry in raw if isinstance(entry, Mapping) and entry.get("ph") == "X"]
    calls = [entry for entry in complete if entry.get("cat") == "cpu_op"]
    if not calls:
        raise InputError(f"{path}: holds no operators (events of category 'cpu_op'); profile with ProfilerActivity.CPU")
    if not any((entry.get("args") or {}).get("Input Dims") for entry in calls):
        raise InputError(f"{path}: holds no sizes of operands; profile with record_shapes=True")
    kernels = [entry for entry in complete if entry.get("cat") in KERNELS]
    launches: dict[Any, Event] = {}
    outer: dict[Any, Event] = {}
    try:
        roots = _nested(complete, launches, outer)
    except _DepthError as error:
        raise event_error(path, raw.index(error.entry), error.entry, error) from None
    stray: list[Interval] = []
    for entry in kernels:
        args = entry.get("args") or {}
        owner = launches.get(args.get("correlation")) or outer.get(args.get("External id"))
        span = (float(entry["ts"]), float(entry["ts"]) + float(entry["dur"]))
        (stray if owner is None else owner.kernels).append(span)
        if owner is not None and any(mark in str(entry.get("name")) for mark in _CROSSING):
            owner.crossings += 1
    _give_backward_modules(roots)
    return Events(tuple(roots), bool(kernels), busy_us(stray))


def _traced(path: str | Path) -> list[Any]:
    try:
        data = Path(path).read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        found = json.loads(data.decode("utf-8"))
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except RecursionError:
        raise InputError(f"{path}: not a torch.profiler trace: its lists and objects are nested too deeply") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None
    events = found.get("traceEvents") if isinstance(found, Mapping) else None
    if not isinstance(events, list):
        raise InputError(f"{path}: not a torch.profiler trace: expected a list 'traceEvents' (prof.export_chrome_trace)")
    return events


class _DepthError(EventError):
    """Calls inside one another without end."""

    def __init__(self, entry: Mapping[str, Any]) -> None:
        super().__init__(f"ts: expected at most {DEEPEST} operators around it on its thread, got more at {entry['ts']!r}")
        self.entry = entry


@dataclass
class _Open:
    """A call, module or annotation that has not ended yet, with what those inside it inherit."""

    end_us: float
    op: Event | None
    module: str
    phase: Phase
    depth: int = 0


def _nested(entries: list[Mapping[str, Any]], launches: dict[Any, Event], outer: dict[Any, Event]) -> list[Event]:
    """Operators as trees, from their intervals on each thread.

    ``launches`` gets correlation id → innermost operator around the launch, ``outer`` external id → operator.
    """
    threads: dict[Any, list[Mapping[str, Any]]] = {}
    for entry in entries:
        category = entry.get("cat")
        module = category == "python_function" and str(entry.get("name", "")).startswith(_MODULE)
        if category in ("cpu_op", "user_annotation") or category in _LAUNCHES or module:
            threads.setdefault((entry.get("pid"), entry.get("tid")), []).append(entry)
    roots: list[Event] = []
    for found in threads.values():
        stack: list[_Open] = []
        for entry in sorted(found, key=lambda e: (e["ts"], -e["dur"])):
            start, end = float(entry["ts"]), float(entry["ts"]) + float(entry["dur"])
            while stack and stack[-1].end_us <= start:
                stack.pop()
            around = stack[-1] if stack else _Open(end, None, "", "forward")
            category, name, args = entry["cat"], str(entry.get("name", "")), entry.get("args") or {}
            if category in _LAUNCHES:
                if around.op is not None and "correlation" in args:
                    launches[args["correlation"]] = around.op
            elif category == "python_function":
                path = ".".join(part for part in (around.module, name.removeprefix(_MODULE)) if part)
                stack.append(_Open(end, around.op, path, around.phase, around.depth))
            elif category == "user_annotation":
                phase = "update" if name.startswith(_UPDATE) else around.phase
                stack.append(_Open(end, around.op, around.module, phase, around.depth))
            else:
                if around.depth > DEEPEST:
                    raise _DepthError(entry)
                phase = "backward" if name.startswith(_BACKWARD) else "update" if name.startswith(_UPDATE) else around.phase
                scripted = _SCRIPTED.findall(str(args.get("Module Hierarchy", "")))
                path = ".".join(part for part in scripted if part != "TOP") or around.module
                event = Event(name, start, float(entry["dur"]), args, path, phase)
                (roots if around.op is None else around.op.children).append(event)
                if "External id" in args:
                    outer[args["External id"]] = event
                stack.append(_Open(end, event, path, phase, around.depth + 1))
    return sorted(roots, key=lambda event: event.start_us)


def _give_backward_modules(roots: Iterable[Event]) -> None:
    """Give what autograd runs the module of the forward call whose node it runs: both bear the node's sequence number.

    A call bears the number that the next node will get, so that the last one with a number made its node.
    """
    events = [event for root in roots for event in root.subtree()]
    made = {
        event.args["Sequence number"]: event.module
        for event in events
        if event.phase == "forward" and "Sequence number" in event.args
    }
    for event in events:
        if event.name.startswith(_BACKWARD):
            for inner in event.subtree():
                inner.module = inner.module or made.get(event.args.get("Sequence number"), "")
