"""Measuring a list of kernels into a file that keeps what it has, whatever happens."""

from __future__ import annotations

import csv
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.measuring.backends import Backend
from hwsim.measuring.kernels import build, why_not
from hwsim.measuring.shapes import Sizes, sampled_shapes
from hwsim.scoreboard.measurements import measured_point
from hwsim.scoreboard.single import OPERATOR_SIZES
from hwsim.views.display import displayed
from numerics.errors import InputError

COLD_FACTOR = 3
"""Sets of tensors take turns until all of them are this many times the last level of cache."""

MEASURED = ("time_s", "std_s", "min_s", "repetitions", "calls", "rotated_bytes")
_SAME = ("backend", "device", "threads", "operands", "torch")
"""Comments that must be equal for rows to stand in one file."""


@displayed
@dataclass(frozen=True)
class Kernel:
    """What one row measures.

    Attributes:
        operator: a name of ``OPERATOR_SIZES``.
        sizes: its sizes.
        formats: of its operands.
    """

    operator: str
    sizes: Mapping[str, int]
    formats: str

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for equal kernels."""
        return self.operator, self.formats, tuple(sorted(self.sizes.items()))


@displayed
@dataclass
class Outcome:
    """What came of a session.

    Attributes:
        measured: rows written.
        before: rows that the file had already.
        left_out: reason → kernels that could not be measured.
        unreached: kernels that the time did not suffice for.
    """

    measured: int = 0
    before: int = 0
    left_out: dict[str, list[Kernel]] = field(default_factory=dict)
    unreached: int = 0

    def lines(self) -> list[str]:
        """What was not measured, a line each reason."""
        found = []
        for reason, kernels in self.left_out.items():
            operators, formats = (", ".join(dict.fromkeys(names)) for names in zip(*map(_names, kernels), strict=True))
            found.append(f"left out: {len(kernels)} ({operators} in {formats}): {reason}")
        if self.unreached:
            found.append(f"not reached in the time given: {self.unreached}")
        return found


def planned_kernels(
    backend: Backend, operators: Sequence[str], formats: Sequence[str], count: int, *, seed: int = 0
) -> tuple[list[Kernel], dict[str, list[Kernel]]]:
    """What to measure: ``count`` shapes in each of the formats, in an order that mixes sizes, operators and formats.

    Sides of matmuls are rounded up to the backend's granule.

    Returns:
        The kernels, and reason → those that PyTorch does not have.
    """
    found: dict[tuple[Any, ...], Kernel] = {}
    without: dict[str, list[Kernel]] = {}
    for operator, sizes in sampled_shapes(operators, count, backend.limits, seed=seed):
        for name in formats:
            kernel = Kernel(operator, _rounded(operator, sizes, backend.granule(name)), name)
            reason = why_not(operator, name)
            if reason:
                without.setdefault(reason, []).append(kernel)
            else:
                found.setdefault(kernel.key, kernel)
    order = list(found.values())
    mixed = np.random.default_rng(seed).permutation(len(order))
    return [order[i] for i in mixed.tolist()], without


def _rounded(operator: str, sizes: Sizes, granule: int) -> Sizes:
    if operator != "matmul" or granule == 1:
        return sizes
    # The integer matmul of cuBLASLt also wants more than 16 rows.
    rounded = {name: -(-value // granule) * granule for name, value in sizes.items() if name != "batch"}
    return {"batch": 1, **rounded, "m": max(rounded["m"], 2 * granule)}


@displayed
class Session:
    """Measures kernels into a CSV file (``hwsim.scoreboard.measurements`` reads it).

    Args:
        backend: the machine.
        path: of the file.
        hot: use one set of tensors again and again, so that it stays in the caches.
        seed: of the shapes and of the tensors' values.
        resume: go on with a file that exists: rows that it has are not measured again, half a row at its end is cut off.

    Raises:
        InputError: the file exists and ``resume`` is not given; it is no such file, or comes from another machine or setting.
    """

    def __init__(self, backend: Backend, path: str | Path, *, hot: bool = False, seed: int = 0, resume: bool = False) -> None:
        self.backend = backend
        self.path = Path(path)
        self.hot = hot
        self.seed = seed
        self.comments = self._comments()
        self.known: set[tuple[Any, ...]] = set()
        self.columns: list[str] = []
        if self.path.exists() and not resume:
            raise InputError(f"--out: {str(path)!r} exists; go on with it by --resume, or name another file")
        if self.path.exists():
            self._read()

    def measure(
        self,
        wanted: Sequence[Kernel],
        *,
        budget_s: float = math.inf,
        progress: Callable[[str], None] = lambda text: None,
    ) -> Outcome:
        """Measure what the file does not have yet, each row written when it is known.

        Args:
            wanted: kernels, in the order they are measured in.
            budget_s: no kernel is begun after this time.
            progress: takes a line after each kernel.
        """
        import torch

        outcome = Outcome()
        missing = [kernel for kernel in wanted if kernel.key not in self.known]
        outcome.before = len(wanted) - len(missing)
        begun = time.monotonic()
        torch.manual_seed(self.seed)
        with self.backend.ready(), torch.inference_mode(), self._opened(wanted) as file:
            writer = csv.DictWriter(file, self.columns, restval="", lineterminator="\n")
            for number, kernel in enumerate(missing, 1):
                if time.monotonic() - begun > budget_s:
                    outcome.unreached = len(missing) - number + 1
                    break
                try:
                    row = self.row(kernel)
                except (InputError, RuntimeError, NotImplementedError) as error:
                    outcome.left_out.setdefault(_first_line(error), []).append(kernel)
                    continue
                writer.writerow(row)
                file.flush()
                self.known.add(kernel.key)
                outcome.measured += 1
                progress(f"{number}/{len(missing)} {kernel.operator} {kernel.formats} {float(row['time_s']) * 1e6:.1f} µs")
        return outcome

    def row(self, kernel: Kernel) -> dict[str, Any]:
        """One kernel measured.

        Raises:
            InputError: PyTorch has no such kernel, or there is no memory for it.
            RuntimeError: PyTorch refuses these sizes on this machine.
        """
        built = build(kernel.operator, kernel.sizes, kernel.formats, self.backend.device)
        if 2 * built.bytes > self.backend.memory_bytes:
            raise InputError("no memory for two sets of its tensors")
        built.call(*built.tensors)
        sets = [built.tensors, *(built.copy() for _ in range(self.sets_of(built.bytes) - 1))]
        turns = itertools.cycle(sets)
        call = built.call

        def run(calls: int) -> None:
            for tensors in itertools.islice(turns, calls):
                call(*tensors)

        sample = self.backend.method.sample(lambda calls: self.backend.elapsed(run, calls))
        readings = self.backend.readings(run, sample.calls, sample.time_s)
        return {
            "operator": kernel.operator,
            **kernel.sizes,
            "formats": kernel.formats,
            "time_s": f"{sample.time_s:.6g}",
            "std_s": f"{sample.std_s:.3g}",
            "min_s": f"{sample.min_s:.6g}",
            "repetitions": sample.repetitions,
            "calls": sample.calls,
            "rotated_bytes": len(sets) * built.bytes,
            **{name: "" if value is None else f"{value:.6g}" for name, value in readings.items()},
        }

    def sets_of(self, set_bytes: int) -> int:
        """Sets of tensors that take turns: enough to be out of the cache when their turn comes again, if memory allows."""
        if self.hot:
            return 1
        wanted = max(2, math.ceil(COLD_FACTOR * self.backend.cache_bytes / max(1, set_bytes)))
        return min(wanted, self.backend.most_sets, max(1, self.backend.memory_bytes // max(1, set_bytes)))

    def _comments(self) -> dict[str, str]:
        import torch

        backend = self.backend
        cold = (
            f"cold: sets of tensors take turns that are together {COLD_FACTOR} times the last-level cache (rotated_bytes; at "
            f"most {backend.most_sets} sets, so that those of small kernels may stay in it)"
        )
        return {
            "backend": backend.name,
            **backend.describe(),
            "torch": torch.__version__,
            "date": _today(),
            "method": str(backend.method),
            "operands": "hot: one set of tensors, which stays in the caches as far as it fits" if self.hot else cold,
            "results": "written to a given tensor by matmuls, softmax and elementwise operators, to new memory by the others",
            "seed": str(self.seed),
        }

    def _opened(self, wanted: Iterable[Kernel]) -> Any:
        if self.columns:
            needed = self._columns(wanted)
            lacking = [name for name in needed if name not in self.columns]
            if lacking:
                raise InputError(f"--resume: {self.path}: has no column {lacking[0]!r}; begin another file")
            file = self.path.open("a", encoding="utf-8", newline="")
            file.write(f"# resumed: {_today()}\n")
            return file
        self.columns = self._columns(wanted)
        try:
            file = self.path.open("w", encoding="utf-8", newline="")
        except OSError as error:
            raise InputError(f"--out: {str(self.path)!r} cannot be written: {error.strerror}") from None
        file.writelines(f"# {name}: {text}\n" for name, text in self.comments.items())
        csv.writer(file, lineterminator="\n").writerow(self.columns)
        file.flush()
        return file

    def _columns(self, wanted: Iterable[Kernel]) -> list[str]:
        used = {name for kernel in wanted for name in kernel.sizes}
        sizes = [name for groups in OPERATOR_SIZES.values() for group in groups for name in group if name in used]
        return ["operator", *dict.fromkeys(sizes), "formats", *MEASURED, *self.backend.columns]

    def _read(self) -> None:
        """What the file has; half a line at its end, left by a run that was killed, is cut off."""
        try:
            data = self.path.read_bytes()
            text = data.decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--resume: {self.path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
        whole = text[: text.rfind("\n") + 1]
        lines = whole.splitlines()
        told = dict(line[2:].split(": ", 1) for line in lines if line.startswith("# ") and ": " in line)
        try:
            rows = list(csv.reader(line for line in lines if line.strip() and not line.startswith("#")))
        except csv.Error as error:
            raise InputError(f"--resume: {self.path}: not valid CSV: {error}") from None
        if not rows:
            if data and not text.startswith("# backend:"):
                raise InputError(f"--resume: {self.path}: no file of hwsim measure")
            return
        for name in _SAME:
            if told.get(name) != self.comments.get(name):
                raise InputError(
                    f"--resume: {self.path}: {name}: the file has {told.get(name)!r}, this run {self.comments.get(name)!r}"
                )
        header, *rest = rows
        if not {"operator", "formats", "time_s"} <= set(header) or len(set(header)) < len(header):
            raise InputError(f"--resume: {self.path}: no file of hwsim measure")
        for row in rest:
            if len(row) != len(header):
                raise InputError(f"--resume: {self.path}: expected {len(header)} values in a row, got {len(row)}: {row}")
            named = dict(zip(header, row, strict=True))
            try:
                measured_point(named, "time_s")
                sizes = {name: int(named[name]) for name in header if name in _SIZES and named[name]}
            except ValueError as error:
                raise InputError(f"--resume: {self.path}: row {', '.join(row)}: {error}") from None
            self.known.add(Kernel(named["operator"], sizes, named["formats"]).key)
        self.columns = header
        if whole != text:
            sys.stderr.write(f"{self.path}: half a row at its end cut off\n")
            self.path.write_bytes(whole.encode("utf-8"))


_SIZES = frozenset(name for groups in OPERATOR_SIZES.values() for group in groups for name in group)


def _names(kernel: Kernel) -> tuple[str, str]:
    return kernel.operator, kernel.formats


def _today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:160]
