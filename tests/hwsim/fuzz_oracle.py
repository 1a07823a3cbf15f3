"""What may come of a mutated file: one line that says what is wrong, or a sound answer. Anything else is a defect."""

from __future__ import annotations

import math
import random
import resource
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mutations import Mutant

from hwsim.report import Report
from numerics.errors import InputError

LONGEST_ERROR = 400
SECONDS = 10
"""Of the processor, that an answer may take; six times as long on the wall, where others use it as well."""
MEMORY_BYTES = 8 << 30
"""Address space that a mutant may take beside what is taken: what it asks for beyond is a defect, not the machine's end."""


class Unsound(Exception):  # noqa: N818 (said of an answer)
    """An answer that cannot be right."""


class Hang(BaseException):
    """It took longer than it may."""


@dataclass(frozen=True)
class FileKind:
    """One kind of file that a command reads.

    Attributes:
        name: of the kind.
        suffix: of its files.
        seeds: makes the files that are right, as the mutator wants them.
        mutate: a mutant of one of them.
        plain: the file's bytes as they are.
        use: reads a file and uses it as its command does; gives plain data, or raises ``Unsound``.
    """

    name: str
    suffix: str
    seeds: Callable[[], Sequence[Any]]
    mutate: Callable[[random.Random, Any], Mutant]
    plain: Callable[[Any], bytes]
    use: Callable[[Path], Any]


@dataclass
class Tally:
    """What came of the mutants of a kind."""

    inputs: int = 0
    refused: int = 0
    answered: int = 0
    defects: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    def add(self, other: Tally) -> None:
        """Another run's counts."""
        self.inputs += other.inputs
        self.refused += other.refused
        self.answered += other.answered


@contextmanager
def bounded(seconds: float = SECONDS) -> Iterator[None]:
    """Time and memory are limited inside."""

    def ring(*_: object) -> None:
        raise Hang

    before = [(number, signal.signal(number, ring)) for number in (signal.SIGALRM, signal.SIGPROF)]
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, hard))
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, 6 * seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        for number, handler in before:
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def complaint(text: str) -> str | None:
    """What is wrong with an error's text."""
    if "\n" in text or "\r" in text:
        return "an error of several lines"
    if len(text) > LONGEST_ERROR:
        return f"an error of {len(text)} characters"
    return None if text.strip() else "an error that says nothing"


def judged(run: Callable[[], Any], mutant: Mutant, expected: Any, tally: Tally) -> str | None:
    """The defect that a mutant shows, None for none."""
    tally.inputs += 1
    start = time.perf_counter()
    try:
        with bounded(), warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # an overflow or a NaN on the way
            found = run()
    except InputError as error:
        tally.refused += 1
        if (wrong := complaint(str(error))) is not None:
            return f"{wrong}: {str(error)[:300]!r}"
        return f"refused, but says the same: {error}" if mutant.must == "same" else None
    except Hang:
        return f"no answer in {SECONDS} s"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}{_where(error)}"
    finally:
        tally.slowest_s = max(tally.slowest_s, time.perf_counter() - start)
    tally.answered += 1
    if mutant.must == "refuse":
        return "taken, but wrong" + (", without any effect" if alike(found, expected) else "")
    if mutant.must == "same" and not alike(found, expected):
        return "another answer, but says the same"
    return None


def alike(a: Any, b: Any) -> bool:
    """Whether plain data are the same but for the rounding of sums in another order."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-300)
    return bool(a == b)


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    lines = []
    while trace is not None:
        lines.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f" [{' '.join(lines[-4:])}]"


def fuzzed(kind: FileKind, count: int, folder: Path, *, start: int = 0) -> Tally:
    """What comes of the mutants ``start … start+count-1`` of a kind; ``start`` shows one again."""
    seeds = list(kind.seeds())
    expected: dict[int, Any] = {}
    tally = Tally()
    path = folder / f"mutant{kind.suffix}"
    for number in range(start, start + count):
        rng = random.Random(f"{kind.name}/{number}")
        which = number % len(seeds)
        if which not in expected:
            path.write_bytes(kind.plain(seeds[which]))
            expected[which] = kind.use(path)
        mutant = kind.mutate(rng, seeds[which])
        path.write_bytes(mutant.data)
        defect = judged(lambda: kind.use(path), mutant, expected[which], tally)
        if defect is not None:
            tally.defects.append(f"{kind.name} {number} (seed {which}; {mutant.what}): {defect}")
    return tally


# --- what a sound answer is -----------------------------------------------------------------------------------------------


def finite(data: Any, where: str = "") -> None:
    """No NaN and no infinity anywhere in plain data."""
    if isinstance(data, dict):
        for key, value in data.items():
            finite(value, f"{where}.{key}")
    elif isinstance(data, list | tuple):
        for place, value in enumerate(data):
            finite(value, f"{where}[{place}]")
    elif isinstance(data, float) and not math.isfinite(data):
        raise Unsound(f"{where} is {data}")


def sound_report(report: Report) -> dict[str, Any]:
    """The report as plain data, once everything in it is finite, nothing is below zero, and the parts add up."""
    data = report.to_dict()
    finite({key: value for key, value in data.items() if key != "spec"})
    for op in report.ops:
        named = {"time_s": op.time_s, "start_s": op.start_s, "busy_cycles": op.busy_cycles, "macs": op.macs}
        named |= {"compute": op.compute_cycles, "stall": op.stall_cycles, "overhead": op.overhead_cycles}
        named |= {f"energy {key}": value for key, value in op.energy_j.items()} | {f"bytes {k}": v for k, v in op.bytes.items()}
        for key, value in named.items():
            if value < -1e-9 * max(1.0, op.cycles):
                raise Unsound(f"op {op.name!r}: {key} is {value}")
        parts = op.compute_cycles + op.stall_cycles + op.overhead_cycles
        if not math.isclose(parts, op.cycles, rel_tol=1e-6, abs_tol=1e-6):
            raise Unsound(f"op {op.name!r}: parts are {parts} cycles, not {op.cycles}")
        if op.time_s and not math.isclose(op.time_s * report.clock_hz, op.cycles, rel_tol=1e-6):
            raise Unsound(f"op {op.name!r}: {op.time_s} s are not {op.cycles} cycles")
        if not 0 <= op.utilization <= 1 + 1e-9:
            raise Unsound(f"op {op.name!r}: utilization {op.utilization}")
    if not math.isclose(sum(report.energy_by_component_j.values()), sum(op.energy_total_j for op in report.ops), rel_tol=1e-9):
        raise Unsound("energies by component do not add up")
    report.to_json()
    return data
