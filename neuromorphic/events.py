"""Spikes of one population, step by step: the neurons that fired, in a sparse list. From arrays and from address-event files.

>>> events = Events.from_list([0, 2, 2], [1, 0, 3], steps=3, size=4)
>>> events.counts().tolist(), events.rate
([1, 0, 2], 0.25)
>>> events.dense()[2].tolist()
[1.0, 0.0, 0.0, 1.0]
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, get_args

import numpy as np

from hwsim.views.display import displayed_by
from neuromorphic._arrays import integers
from numerics.documents import read_arrays
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    import numpy.typing as npt

Duplicates = Literal["refuse", "once", "add"]
MOST_STEPS = 2**27
"""Of a recording: what is kept for each of them fills a gigabyte."""
HEADERS = (("step", "neuron"), ("time_s", "address"))


@displayed_by("neuromorphic.cards:events")
@dataclass(frozen=True, eq=False)
class Events:
    """What a population sent: which neurons in which step, and what each sent.

    Attributes:
        size: neurons of the population.
        first: (steps + 1,) int64: events first[t] to first[t + 1] are those of step t.
        neuron: (events,) int32, ascending within a step, each at most once.
        value: (events,) float64; None: every one is 1.

    Raises:
        InputError: arrays that do not fit together, a neuron out of range or twice in a step, a value that is not finite.
    """

    size: int
    first: npt.NDArray[np.int64]
    neuron: npt.NDArray[np.int32]
    value: npt.NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        _whole("size", self.size, 1)
        first, neuron = integers("first", self.first), integers("neuron", self.neuron)
        if (
            first.ndim != 1
            or not first.size
            or neuron.ndim != 1
            or first[0]
            or first[-1] != neuron.size
            or (np.diff(first) < 0).any()
        ):
            raise InputError("events: first does not divide the events among their steps")
        if neuron.size:
            if not 0 <= int(neuron.min()) <= int(neuron.max()) < self.size:
                raise InputError(f"neuron: expected 0 to {self.size - 1}, got {int(neuron.min())} to {int(neuron.max())}")
            falls = np.flatnonzero(np.diff(neuron) <= 0) + 1
            wrong = falls[~np.isin(falls, first)]
            if wrong.size:
                step = int(np.searchsorted(first, wrong[0], side="right")) - 1
                raise InputError(f"step {step}: neuron {neuron[wrong[0]]} after {neuron[wrong[0] - 1]}, expected ascending ones")
        object.__setattr__(self, "first", np.ascontiguousarray(first))
        object.__setattr__(self, "neuron", np.ascontiguousarray(neuron, np.int32))
        if self.value is not None:
            value = np.ascontiguousarray(self.value, np.float64)
            if value.shape != neuron.shape or not np.isfinite(value).all():
                raise InputError(f"value: expected {neuron.size} finite numbers, one an event")
            object.__setattr__(self, "value", value)

    def __eq__(self, other: object) -> bool:
        """Whether the same neurons sent the same values in the same steps."""
        if not isinstance(other, Events):
            return NotImplemented
        return (
            self.size == other.size
            and np.array_equal(self.first, other.first)
            and np.array_equal(self.neuron, other.neuron)
            and np.array_equal(self.values, other.values)
        )

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def from_dense(cls, sent: npt.ArrayLike) -> Events:
        """Of an array (steps, size) of what each neuron sent in each step, 0 where it was silent.

        Raises:
            InputError: another shape, no neurons, or a number that is not finite.
        """
        array = np.asarray(sent)
        if array.ndim != 2 or not array.shape[1] or array.dtype.kind not in "biuf":
            raise InputError(f"events: expected numbers (steps, neurons), got {array.dtype} {array.shape}")
        step, neuron = np.nonzero(array)
        value = array[step, neuron].astype(np.float64)
        first = np.searchsorted(step, np.arange(array.shape[0] + 1))
        return cls(int(array.shape[1]), first, neuron.astype(np.int32), None if (value == 1).all() else value)

    @classmethod
    def from_list(
        cls,
        step: npt.ArrayLike,
        neuron: npt.ArrayLike,
        value: npt.ArrayLike | None = None,
        *,
        steps: int,
        size: int,
        duplicates: Duplicates = "refuse",
    ) -> Events:
        """Of lists in any order.

        Args:
            step, neuron: (events,) integers.
            value: (events,); None: every one is 1.
            steps, size: how many there are.
            duplicates: of a neuron that is there several times in a step: ``refuse`` raises; ``once`` makes one event of them
                with the value of the first; ``add`` one with the sum of their values.

        Raises:
            InputError: a step or neuron out of range, lists of different lengths, duplicates that are refused.
        """
        when, who = integers("step", step).ravel(), integers("neuron", neuron).ravel()
        what = None if value is None else np.asarray(value, np.float64).ravel()
        _whole("steps", steps, 0)
        if steps > MOST_STEPS:
            raise InputError(f"steps: expected at most 2^27, got {steps}")
        _whole("size", size, 1)
        if duplicates not in get_args(Duplicates):
            raise unknown_name("duplicates", str(duplicates), get_args(Duplicates))
        if when.size != who.size or (what is not None and what.size != who.size):
            raise InputError(f"events: {when.size} steps, {who.size} neurons{'' if what is None else f', {what.size} values'}")
        for name, numbers, limit in (("step", when, steps), ("neuron", who, size)):
            if numbers.size and not 0 <= int(numbers.min()) <= int(numbers.max()) < limit:
                worst = int(numbers.min()) if numbers.min() < 0 else int(numbers.max())
                raise InputError(f"{name}: expected {f'0 to {limit - 1}' if limit else 'none'}, got {worst}")
        order = np.lexsort((who, when))
        when, who, what = when[order], who[order], None if what is None else what[order]
        again = np.zeros(who.size, np.bool_)
        again[1:] = (np.diff(when) == 0) & (np.diff(who) == 0)
        if again.any():
            if duplicates == "refuse":
                at = int(np.argmax(again))
                raise InputError(f"step {when[at]}: neuron {who[at]} is there twice; duplicates=once or add makes one of them")
            starts = np.flatnonzero(~again)
            if duplicates == "add":
                what = np.add.reduceat(np.ones(who.size) if what is None else what, starts)
            elif what is not None:
                what = what[starts]
            when, who = when[starts], who[starts]
        return cls(size, np.searchsorted(when, np.arange(steps + 1)), who.astype(np.int32), what)

    @staticmethod
    def is_timed(path: str | Path) -> bool:
        """Whether an address-event file gives times, so that ``load`` needs ``dt_s``.

        Raises:
            InputError: as ``load``.
        """
        return "time_s" in _columns(Path(path))

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        size: int | None = None,
        steps: int | None = None,
        dt_s: float | None = None,
        duplicates: Duplicates = "refuse",
    ) -> Events:
        """Of an address-event file.

        Args:
            path: ``.csv`` with the columns ``step,neuron`` or ``time_s,address`` and perhaps ``value``, or ``.npz`` with arrays
                of these names or as :meth:`save` writes them.
            size: neurons of the population; None where an ``.npz`` states it.
            steps: how many; None: as the ``.npz`` states, otherwise up to the last event.
            dt_s: length of a step, for times: step t holds the times from t · dt_s to (t + 1) · dt_s. A time that differs from a
                whole number of steps by no more than the rounding of doubles counts as that number.
            duplicates: as in :meth:`from_list`.

        Raises:
            InputError: no such file, a file of another kind, or what is wrong in which line (of a CSV) or event (of an NPZ).
        """
        path = Path(path)
        columns = _columns(path)
        if size is not None:
            _whole("size", size, 1)
        if steps is not None:
            _whole("steps", steps, 0)
        if "first" in columns:
            stored = cls._stored(path, columns)
            for name, asked, found in (("size", size, stored.size), ("steps", steps, stored.steps)):
                if asked is not None and asked != found:
                    raise InputError(f"{path.name}: {name} {found}, expected {asked}")
            return stored
        if size is None:
            raise InputError(f"{path.name}: size: expected the number of neurons, which the file does not state")
        when, who = next(pair for pair in HEADERS if pair[0] in columns)
        if when == "time_s":
            if dt_s is None or not (np.isfinite(dt_s) and dt_s > 0):
                raise InputError(f"{path.name}: dt_s: expected the length of a step in seconds > 0, got {dt_s!r}")
            with np.errstate(over="ignore", invalid="ignore"):  # no times, which are told below
                bins = columns["time_s"] / dt_s
                nearest = np.rint(bins)
                at_edge = np.abs(bins - nearest) <= 4 * np.finfo(np.float64).eps * np.abs(bins)
                step = np.where(at_edge, nearest, np.floor(bins))
        else:
            if dt_s is not None:
                raise InputError(f"{path.name}: dt_s: for times only, and the file gives steps")
            step = columns["step"]
        last = steps if steps is not None else 2**53
        _check(path, when, columns[when], (step >= 0) & (step < last), _times(last, dt_s) if dt_s else _wholes(last))
        _check(path, when, columns[when], step < MOST_STEPS, "one of the first 2^27 steps")
        if when == "step":
            _check(path, when, step, step % 1 == 0, _wholes(last))
        neuron = columns[who]
        _check(path, who, neuron, (neuron >= 0) & (neuron < size), _wholes(size))
        _check(path, who, neuron, neuron % 1 == 0, _wholes(size))
        value = columns.get("value")
        if value is not None:
            _check(path, "value", value, np.isfinite(value), "a finite number")
        found = int(step.max()) + 1 if step.size else 0
        try:
            return cls.from_list(
                step.astype(np.int64), neuron.astype(np.int64), value,
                steps=found if steps is None else steps, size=size, duplicates=duplicates,
            )  # fmt: skip
        except InputError as error:
            raise InputError(f"{path.name}: {error}") from None

    @classmethod
    def _stored(cls, path: Path, columns: dict[str, npt.NDArray[np.float64]]) -> Events:
        missing = {"size", "neuron"} - columns.keys()
        if missing:
            raise InputError(f"{path.name}: no array {sorted(missing)[0]!r}")
        for name in ("size", "first", "neuron"):
            array = columns[name].reshape(-1)
            _check(path, name, array, (array >= 0) & (array < 2**53), _wholes(2**53))
            _check(path, name, array, array % 1 == 0, _wholes(2**53))
        try:
            return cls(
                int(columns["size"].reshape(-1)[0]), columns["first"].astype(np.int64), columns["neuron"].astype(np.int64),
                columns.get("value"),
            )  # fmt: skip
        except (InputError, IndexError, OverflowError) as error:
            raise InputError(f"{path.name}: {error}") from None

    def save(self, path: str | Path) -> None:
        """Into a ``.csv`` (step, neuron and, unless every one is 1, value) or a ``.npz`` (which also states size and steps).

        Raises:
            InputError: another ending.
        """
        path = Path(path)
        if path.suffix == ".npz":
            arrays = {"size": np.asarray(self.size), "first": self.first, "neuron": self.neuron}
            np.savez_compressed(path, **arrays, **({} if self.value is None else {"value": self.value}))  # type: ignore[arg-type]
        elif path.suffix == ".csv":
            columns: list[npt.NDArray[Any]] = [self.step, self.neuron]
            if self.value is not None:
                columns.append(self.value)
            formats = ["%d", "%d", "%.17g"][: len(columns)]
            header = ",".join(("step", "neuron", "value")[: len(columns)])
            np.savetxt(path, np.column_stack(columns), formats, ",", header=header, comments="")
        else:
            raise InputError(f"{path.name}: expected a name that ends in .csv or .npz")

    @property
    def steps(self) -> int:
        """How many steps."""
        return int(self.first.size - 1)

    @property
    def count(self) -> int:
        """How many events."""
        return int(self.neuron.size)

    @property
    def rate(self) -> float:
        """Events a neuron a step."""
        return self.count / (self.steps * self.size) if self.steps else 0.0

    @property
    def step(self) -> npt.NDArray[np.int64]:
        """Of each event, (events,)."""
        return np.repeat(np.arange(self.steps), np.diff(self.first))

    @property
    def values(self) -> npt.NDArray[np.float64]:
        """Of each event, (events,), ones where there is no ``value``."""
        return np.ones(self.count) if self.value is None else self.value

    def counts(self) -> npt.NDArray[np.int64]:
        """Events in each step, (steps,)."""
        return np.diff(self.first)

    def dense(self) -> npt.NDArray[np.float64]:
        """What each neuron sent in each step, (steps, size), 0 where it was silent."""
        found = np.zeros((self.steps, self.size))
        found[self.step, self.neuron] = self.values
        return found


def _whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name}: expected an integer ≥ {least}, got {value!r}")


def _wholes(limit: int) -> str:
    return f"a whole number from 0 to {limit - 1}" if limit < 2**53 else "a whole number ≥ 0"


def _times(steps: int, dt_s: float) -> str:
    return f"a time from 0 to {steps * dt_s:g} s" if steps < 2**53 else "a time ≥ 0"


def _check(path: Path, name: str, values: npt.NDArray[np.float64], good: npt.NDArray[np.bool_], expected: str) -> None:
    """One line for the first value that is not ``good``; NaN never is, as comparisons with it are false."""
    if not good.all():
        at = int(np.argmin(good))
        place = f"event {at}" if path.suffix == ".npz" else f"line {_line(path, at)}"
        raise InputError(f"{path.name}: {place}: {name}: expected {expected}, got {values[at]:.17g}")


def _line(path: Path, row: int) -> int:
    """Number of the line that holds a row of data; empty lines hold none."""
    with path.open(encoding="utf-8-sig") as file:
        filled = (number for number, line in enumerate(file, 1) if line.strip())
        return next(number for place, number in enumerate(filled) if place == row + 1)


def _columns(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Columns of an address-event file, or what ``Events.save`` wrote."""
    if path.suffix not in (".csv", ".npz"):
        raise InputError(f"{path.name}: expected an event file that ends in .csv or .npz")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return _npz_columns(path) if path.suffix == ".npz" else _csv_columns(path)


def _npz_columns(path: Path) -> dict[str, npt.NDArray[np.float64]]:
    try:
        columns = read_arrays(path)
    except InputError as error:
        raise InputError(f"{path.name}: no readable NPZ archive ({error})") from None
    for name, array in columns.items():
        if array.dtype.kind not in "biuf":
            raise InputError(f"{path.name}: {name}: expected numbers, got {array.dtype}")
    found = {name: array.astype(np.float64) for name, array in columns.items()}
    if "first" in found:
        return found
    pair = next((pair for pair in HEADERS if set(pair) <= found.keys()), None)
    if pair is None:
        raise InputError(f"{path.name}: expected arrays step and neuron, or time_s and address, got {', '.join(found) or 'none'}")
    kept = {name: found[name] for name in (*pair, "value") if name in found}
    shapes = {array.shape for array in kept.values()}
    if len(shapes) > 1 or len(next(iter(shapes))) != 1:
        raise InputError(f"{path.name}: expected arrays of one length, got {', '.join(map(str, sorted(shapes)))}")
    return kept


def _csv_columns(path: Path) -> dict[str, npt.NDArray[np.float64]]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            names = tuple(name.strip() for name in next((line for line in file if line.strip()), "").split(","))
            if names not in {pair + more for pair in HEADERS for more in ((), ("value",))}:
                known = " or ".join(",".join(pair) + "[,value]" for pair in HEADERS)
                raise InputError(f"{path.name}: line 1: expected the header {known}, got {','.join(names)!r}")
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*input contained no data", category=UserWarning)
                filled = (line for line in file if line.strip())
                table = np.loadtxt(filled, np.float64, delimiter=",", comments=None, ndmin=2)
    except UnicodeDecodeError:
        raise InputError(f"{path.name}: no text in UTF-8") from None
    except InputError:
        raise
    except ValueError:
        _complain(path, len(names))
    table = table.reshape(-1, len(names)) if not table.size else table
    if table.shape[1] != len(names):
        _complain(path, len(names))
    return {name: np.ascontiguousarray(table[:, column]) for column, name in enumerate(names)}


def _complain(path: Path, columns: int) -> NoReturn:
    """One line for the first line of data that is no row of so many numbers."""
    with path.open(encoding="utf-8-sig") as file:
        filled = [(number, line.strip()) for number, line in enumerate(file, 1) if line.strip()]
    for number, line in filled[1:]:
        fields = line.split(",")
        if len(fields) != columns:
            raise InputError(f"{path.name}: line {number}: expected {columns} values, got {len(fields)} in {line!r}")
        for text in fields:
            try:
                float(text)
            except ValueError:
                raise InputError(f"{path.name}: line {number}: expected a number, got {text.strip()!r}") from None
    raise InputError(f"{path.name}: no table of numbers separated by commas")
