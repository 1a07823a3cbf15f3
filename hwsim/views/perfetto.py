"""The timeline in the trace-event format that Perfetto and Chrome's tracing page open.

The format: "Trace Event Format", Google, https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU.
Times are microseconds, here rounded to picoseconds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hwsim.report import Report, Span
from hwsim.views.rows import source_text

OFF_CHIP = "off_chip"
_PID = 1
_DIGITS = 6
_SLACK_US = 5e-6
"""Ends and starts that differ by less touch: a few times the rounding of the times."""

_PHASES = frozenset("BEXIiCbnestfPNODMVvRc(),")
_METADATA_ARGUMENT = {
    "process_name": ("name", str),
    "thread_name": ("name", str),
    "process_labels": ("labels", str),
    "process_sort_index": ("sort_index", int),
    "thread_sort_index": ("sort_index", int),
}


def _microseconds(span: Span) -> tuple[float, float]:
    """Start and end."""
    return round(span.start_s * 1e6, _DIGITS), round((span.start_s + span.duration_s) * 1e6, _DIGITS)


def _plain(value: Any) -> Any:
    """``value`` as something JSON can hold."""
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Iterable):
        return [_plain(item) for item in value]
    return _plain(value.item()) if hasattr(value, "item") else str(value)


def _lanes(spans: Sequence[Span]) -> list[list[Span]]:
    """The spans of one track on as few threads as it takes for those of a thread to be nested or disjoint."""
    lanes: list[list[Span]] = []
    open_ends: list[list[float]] = []
    for span in sorted(spans, key=lambda s: (_microseconds(s)[0], -_microseconds(s)[1])):
        start, end = _microseconds(span)
        for lane, ends in zip(lanes, open_ends, strict=True):
            while ends and ends[-1] <= start + _SLACK_US / 2:
                ends.pop()
            if not ends or end <= ends[-1] + _SLACK_US / 2:
                lane.append(span)
                ends.append(end)
                break
        else:
            lanes.append([span])
            open_ends.append([end])
    return lanes


def _bandwidth(spans: Iterable[Span]) -> list[dict[str, Any]]:
    """Counter events: bytes a second over all transfers under way."""
    changes: dict[float, list[tuple[int, float]]] = {}
    for span in spans:
        start, end = _microseconds(span)
        moved = span.details.get("bytes")
        if isinstance(moved, bool) or not isinstance(moved, int | float) or end <= start or span.duration_s <= 0:
            continue
        changes.setdefault(start, []).append((1, moved / span.duration_s))
        changes.setdefault(end, []).append((-1, moved / span.duration_s))
    events = []
    active, rate = 0, 0.0
    for ts in sorted(changes):
        for sign, bytes_per_s in changes[ts]:
            active += sign
            rate += sign * bytes_per_s
        # Sums of floats leave a residue; nothing under way is exactly nothing.
        rate = max(rate, 0.0) if active else 0.0
        args = {"bytes/s": rate}
        events.append({"name": "off-chip bandwidth", "ph": "C", "ts": ts, "pid": _PID, "args": args})
    return events


def trace_events(report: Report) -> dict[str, Any]:
    """The spans of ``report`` as a trace: one thread a track, and a counter of the off-chip bandwidth.

    The format wants the spans of a thread nested or disjoint; those of a track that are neither go to further
    threads of that track.
    """
    tracks: dict[str, list[Span]] = {}
    for span in report.spans:
        tracks.setdefault(span.track, []).append(span)

    def metadata(kind: str, tid: int, **args: Any) -> dict[str, Any]:
        return {"name": kind, "ph": "M", "pid": _PID, "tid": tid, "args": args}

    events = [metadata("process_name", 0, name=f"{report.workload} on {report.device}")]
    timed: list[dict[str, Any]] = []
    tid = 0
    for track, spans in tracks.items():
        for number, lane in enumerate(_lanes(spans), 1):
            tid += 1
            events.append(metadata("thread_name", tid, name=track if number == 1 else f"{track} ({number})"))
            events.append(metadata("thread_sort_index", tid, sort_index=tid))
            for span in lane:
                start, end = _microseconds(span)
                timed.append(
                    {
                        "name": span.name,
                        "cat": track,
                        "ph": "X",
                        "ts": start,
                        "dur": round(end - start, _DIGITS),
                        "pid": _PID,
                        "tid": tid,
                        "args": _plain(dict(span.details)),
                    }
                )
    timed += _bandwidth(tracks.get(OFF_CHIP, ()))
    timed.sort(key=lambda event: (event["ts"], -event.get("dur", 0.0)))
    return {
        "traceEvents": events + timed,
        "displayTimeUnit": "ns",
        "otherData": {"source": source_text(report), "version": report.version},
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _event_problems(event: Mapping[str, Any]) -> list[str]:
    """What is wrong with one event, taken alone."""
    phase = event.get("ph")
    if not isinstance(phase, str) or phase not in _PHASES:
        return [f"ph: unknown phase {phase!r}"]
    problems = []
    if not isinstance(event.get("name"), str) and phase != "E":
        problems.append("name: expected a string")
    if not _is_integer(event.get("pid")):
        problems.append(f"pid: expected an integer, got {event.get('pid')!r}")
    if (phase in "XBE" or "tid" in event) and not _is_integer(event.get("tid")):
        problems.append(f"tid: expected an integer, got {event.get('tid')!r}")
    for key in ("ts",) * (phase != "M") + ("dur",) * (phase == "X"):
        value = event.get(key)
        if not _is_number(value) or value < 0:  # type: ignore[operator]
            problems.append(f"{key}: expected a number ≥ 0, got {value!r}")
    args = event.get("args", {})
    if not isinstance(args, Mapping):
        return [*problems, "args: expected an object"]
    if phase == "C" and (not args or not all(_is_number(value) for value in args.values())):
        problems.append("args: a counter needs one or more numbers")
    if phase == "M":
        key, kind = _METADATA_ARGUMENT.get(str(event.get("name")), ("", object))
        if not key:
            problems.append(f"name: unknown metadata {event.get('name')!r}")
        elif not isinstance(args.get(key), kind):
            problems.append(f"args: {event['name']} needs {key!r} ({kind.__name__})")
    return problems


def validate_trace(data: Any) -> list[str]:
    """Where ``data`` departs from the trace-event format, one line a problem (none: it conforms).

    Checks the keys and types that each phase requires, that complete events of one thread are nested or
    disjoint, that begin and end events pair up, and that the whole is JSON.
    """
    if not isinstance(data, Mapping) or not isinstance(data.get("traceEvents"), list):
        return ["expected an object with a list 'traceEvents'"]
    problems = []
    try:
        json.dumps(data, allow_nan=False)
    except (TypeError, ValueError) as error:
        problems.append(f"not JSON: {error}")
    if data.get("displayTimeUnit", "ms") not in ("ms", "ns"):
        problems.append(f"displayTimeUnit: expected 'ms' or 'ns', got {data['displayTimeUnit']!r}")
    threads: dict[tuple[int, int], list[tuple[float, float, str]]] = {}
    begun: dict[tuple[int, int], int] = {}
    for index, event in enumerate(data["traceEvents"]):
        if not isinstance(event, Mapping):
            problems.append(f"event {index}: expected an object")
            continue
        found = _event_problems(event)
        problems += [f"event {index}: {problem}" for problem in found]
        if found or event["ph"] not in ("X", "B", "E"):
            continue
        thread = (event["pid"], event["tid"])
        if event["ph"] == "X":
            threads.setdefault(thread, []).append((event["ts"], event["ts"] + event["dur"], event["name"]))
            continue
        begun[thread] = begun.get(thread, 0) + (1 if event["ph"] == "B" else -1)
        if begun[thread] < 0:
            problems.append(f"event {index}: ends what was not begun")
            begun[thread] = 0
    problems += [f"thread {thread}: {n} begun and not ended" for thread, n in begun.items() if n]
    for thread, spans in threads.items():
        enclosing: list[tuple[float, float, str]] = []
        for span in sorted(spans, key=lambda s: (s[0], -s[1])):
            while enclosing and enclosing[-1][1] <= span[0] + _SLACK_US:
                enclosing.pop()
            if enclosing and span[1] > enclosing[-1][1] + _SLACK_US:
                problems.append(f"thread {thread}: {span[2]!r} overlaps {enclosing[-1][2]!r} without nesting")
            enclosing.append(span)
    return problems
