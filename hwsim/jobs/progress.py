"""How far a run is: a bar where a person watches, a line now and then where a file does."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from numerics.errors import unknown_name

MODES = ("auto", "bar", "lines", "silent")
LINE_EVERY_S = 30.0


class Update(Protocol):
    """Shows how far a run is."""

    def __call__(self, done: int, note: str, goal: int | None = None) -> None:
        """``goal``: trials at which the run looks whether to end; None for all of them."""
        ...


@contextmanager
def show_progress(
    label: str, total: int, *, done: int = 0, mode: str = "auto", every_s: float = LINE_EVERY_S, stream: TextIO | None = None
) -> Iterator[Update]:
    """Gives ``update(done, note, goal)``, to be called as often as one likes.

    Args:
        total: trials at most.
        done: trials that were there before; they do not count as speed.
        mode: ``bar``, ``lines`` (one every ``every_s`` seconds, and the last), ``silent``, or ``auto``: a bar on a terminal,
            lines otherwise.
        stream: standard error if not given.

    Raises:
        InputError: an unknown mode.
    """
    if mode not in MODES:
        raise unknown_name("progress", mode, MODES)
    stream = stream or sys.stderr
    if mode == "silent":
        yield lambda done, note, goal=None: None
    elif mode == "bar" or (mode == "auto" and stream.isatty()):
        with _bar(label, total, done, stream) as update:
            yield update
    else:
        with _lines(label, total, done, every_s, stream) as update:
            yield update


def pace(done: int, total: int, before: int, elapsed_s: float, *, goal: int | None = None) -> str:
    """``1,234/5,000 trials · 250/s · 15 s left``; with a goal before the total,
    ``1,234 trials, next look at 2,000 of at most 5,000 · 250/s · 3 s to it``."""
    near = goal is not None and done < goal < total
    end = goal if goal is not None else total
    if near:
        text = f"{done:,} trials, next look at {end:,} of at most {total:,}"
    else:
        text = f"{done:,}/{max(end, done):,} trials"
    speed = (done - before) / elapsed_s if elapsed_s > 0 else 0.0
    if speed > 0:
        text += f" · {speed:,.3g}/s" if speed < 100 else f" · {speed:,.0f}/s"
        if done < end:
            text += f" · {_duration((end - done) / speed)} {'to it' if near else 'left'}"
    return text


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 100 * 3600 else f"{seconds / 86400:.0f} days"


@contextmanager
def _lines(label: str, total: int, before: int, every_s: float, stream: TextIO) -> Iterator[Update]:
    start_s = printed_s = time.monotonic()
    last = ""

    def update(done: int, note: str, goal: int | None = None) -> None:
        nonlocal printed_s, last
        now_s = time.monotonic()
        last = f"{label}: {pace(done, total, before, now_s - start_s, goal=goal)}" + (f" · {note}" if note else "")
        if now_s - printed_s >= every_s:
            print(last, file=stream, flush=True)
            printed_s, last = now_s, ""

    try:
        yield update
    finally:
        if last:
            print(last, file=stream, flush=True)


@contextmanager
def _bar(label: str, total: int, before: int, stream: TextIO) -> Iterator[Update]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    start_s = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}", markup=False))
    console = Console(file=stream, force_terminal=True)
    with Progress(*columns, console=console, refresh_per_second=4) as bar:
        task = bar.add_task(label, total=total, completed=before, text="")

        def update(done: int, note: str, goal: int | None = None) -> None:
            text = pace(done, total, before, time.monotonic() - start_s, goal=goal) + (f" · {note}" if note else "")
            bar.update(task, completed=done, total=max(done, total if goal is None else goal), text=text)

        yield update
