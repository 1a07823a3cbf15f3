"""What may vary: named parameters, each with the values that it can take."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hwsim.views.display import displayed, displayed_by
from numerics.errors import InputError, unknown_name

Configuration = dict[str, Any]
"""Parameter → value."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(name: str, value: Any, least: int | None = None) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or (least is not None and value < least):
        raise InputError(f"{name}: expected an integer{'' if least is None else f' ≥ {least}'}, got {value!r}")


@displayed
@dataclass(frozen=True)
class Choice:
    """One of several values: numbers, texts, truth values.

    Attributes:
        values: at least one, none twice.

    Raises:
        InputError: no values, a value given twice or one that is no number, text or truth value.
    """

    kind: ClassVar[str] = "choice"
    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if isinstance(self.values, str) or not isinstance(self.values, Sequence):
            raise InputError(f"values: expected a list, got {self.values!r}")
        object.__setattr__(self, "values", tuple(v.item() if isinstance(v, np.generic) else v for v in self.values))
        if not self.values:
            raise InputError("values: expected at least one, got none")
        seen: set[Hashable] = set()
        for value in self.values:
            if not isinstance(value, str | int | float | bool) or (isinstance(value, float) and not math.isfinite(value)):
                raise InputError(f"values: expected finite numbers, texts or truth values, got {value!r}")
            if (type(value) is bool, value) in seen:
                raise InputError(f"values: {value!r} is given twice")
            seen.add((type(value) is bool, value))

    @property
    def ordered(self) -> bool:
        """Whether the values are numbers, between which there is a distance."""
        return all(_is_number(value) for value in self.values)

    @property
    def size(self) -> int:
        """Number of values."""
        return len(self.values)

    def at(self, index: int) -> Any:
        """The value at a place of the grid."""
        return self.values[index]

    def sample(self, rng: np.random.Generator) -> Any:
        """A value, all as likely."""
        return self.values[int(rng.integers(len(self.values)))]

    def holds(self, value: Any) -> bool:
        """Whether the parameter can take this value."""
        return any(value == own and isinstance(value, bool) is isinstance(own, bool) for own in self.values)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"kind": self.kind, "values": list(self.values), "ordered": self.ordered}


@displayed
@dataclass(frozen=True, kw_only=True)
class Integer:
    """The integers low, low + step, … up to high.

    Attributes:
        low, high: least and largest.
        step: between neighbours.
        log: neighbours of large values count as closer (for sampling and search).

    Raises:
        InputError: bounds that are no integers, ``high`` below ``low``, a step below one, ``log`` with a step or a bound below
            one.
    """

    kind: ClassVar[str] = "integer"
    low: int
    high: int
    step: int = 1
    log: bool = False

    def __post_init__(self) -> None:
        _whole("low", self.low)
        _whole("high", self.high)
        _whole("step", self.step, 1)
        if self.high < self.low:
            raise InputError(f"high: expected an integer ≥ low = {self.low}, got {self.high}")
        if self.log and (self.low < 1 or self.step != 1):
            raise InputError(f"log: needs low ≥ 1 and step 1, got low {self.low} and step {self.step}")

    ordered: ClassVar[bool] = True

    @property
    def size(self) -> int:
        """Number of values."""
        return (self.high - self.low) // self.step + 1

    def at(self, index: int) -> int:
        """The value at a place of the grid."""
        return self.low + index * self.step

    def sample(self, rng: np.random.Generator) -> int:
        """A value: all as likely, or all logarithms."""
        if self.log:
            drawn = math.exp(rng.uniform(math.log(self.low - 0.5), math.log(self.high + 0.5)))
            return min(self.high, max(self.low, round(drawn)))
        return self.at(int(rng.integers(self.size)))

    def holds(self, value: Any) -> bool:
        """Whether the parameter can take this value."""
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and self.low <= value <= self.high and (value - self.low) % self.step == 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"kind": self.kind, "low": self.low, "high": self.high, "step": self.step, "log": self.log, "ordered": True}


@displayed
@dataclass(frozen=True, kw_only=True)
class Real:
    """The real numbers from low to high.

    Attributes:
        low, high: least and largest.
        log: even in the logarithm (for sampling and search).

    Raises:
        InputError: bounds that are not finite, ``high`` below ``low``, ``log`` with ``low`` not above zero.
    """

    kind: ClassVar[str] = "real"
    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            value = getattr(self, name)
            if not _is_number(value) or not math.isfinite(value):
                raise InputError(f"{name}: expected a finite number, got {value!r}")
        if self.high < self.low:
            raise InputError(f"high: expected a number ≥ low = {self.low}, got {self.high}")
        if self.log and self.low <= 0:
            raise InputError(f"log: needs low above 0, got {self.low}")

    ordered: ClassVar[bool] = True
    size: ClassVar[None] = None

    def sample(self, rng: np.random.Generator) -> float:
        """A value: all as likely, or all logarithms."""
        if self.log:
            return min(self.high, max(self.low, math.exp(rng.uniform(math.log(self.low), math.log(self.high)))))
        return float(rng.uniform(self.low, self.high))

    def holds(self, value: Any) -> bool:
        """Whether the parameter can take this value."""
        return _is_number(value) and self.low <= value <= self.high

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"kind": self.kind, "low": self.low, "high": self.high, "log": self.log, "ordered": True}


Parameter = Choice | Integer | Real


def parameter_from(data: Any) -> Parameter:
    """A parameter from plain data: a list of values, or the fields of a ``Choice``, an ``Integer`` or a ``Real``.

    Without ``kind``, ``values`` make a choice, two integers as bounds an ``Integer``, other bounds a ``Real``.
    """
    if isinstance(data, Choice | Integer | Real):
        return data
    if isinstance(data, list | tuple | range | np.ndarray):
        return Choice(tuple(data))
    if not isinstance(data, Mapping):
        raise InputError(f"expected a list of values or a mapping with low and high, got {data!r}")
    fields = {name: value for name, value in data.items() if name not in ("kind", "ordered")}
    kind = data.get("kind")
    if kind is None:
        whole = all(isinstance(data.get(name), int) for name in ("low", "high"))
        kind = "choice" if "values" in data else "integer" if whole else "real"
    known: dict[str, tuple[type[Parameter], tuple[str, ...], tuple[str, ...]]] = {
        "choice": (Choice, ("values",), ("values",)),
        "integer": (Integer, ("low", "high"), ("low", "high", "step", "log")),
        "real": (Real, ("low", "high"), ("low", "high", "log")),
    }
    if not isinstance(kind, str) or kind not in known:
        raise unknown_name("kind", str(kind), known)
    made, needed, taken = known[kind]
    for name in fields:
        if name not in taken:
            raise unknown_name(f"field of a parameter of kind {kind!r}", str(name), taken)
    for name in needed:
        if name not in fields:
            raise InputError(f"{name}: missing from a parameter of kind {kind!r}")
    if not isinstance(fields.get("log", False), bool):
        raise InputError(f"log: expected true or false, got {fields['log']!r}")
    return made(**fields)


@displayed_by("hwsim.views.study_cards:space")
class Space:
    """Named parameters, each independent of the others.

    Args:
        parameters: name → ``Choice``, ``Integer``, ``Real``, or a list of values.

    Raises:
        InputError: no parameter, a name that is no text, a parameter that is none.

    >>> space = Space({"array.rows": [16, 32], "array.dataflow": ["ws", "os"]})
    >>> space.size, space.configuration(2)
    (4, {'array.rows': 32, 'array.dataflow': 'ws'})
    """

    def __init__(self, parameters: Mapping[str, Parameter | Sequence[Any]]) -> None:
        if not isinstance(parameters, Mapping) or not parameters:
            raise InputError(f"space: expected a mapping from names to values with at least one name, got {parameters!r}")
        found: dict[str, Parameter] = {}
        for name, data in parameters.items():
            if not isinstance(name, str) or not name.strip():
                raise InputError(f"space: expected names of parameters, got {name!r}")
            try:
                found[name] = parameter_from(data)
            except InputError as error:
                raise InputError(f"space: {name}: {error}") from None
        self._parameters = found

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """Name → parameter, in the order given."""
        return dict(self._parameters)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return tuple(self._parameters)

    @property
    def size(self) -> int | None:
        """Configurations on the grid; None where a parameter is real."""
        sizes = [parameter.size for parameter in self._parameters.values()]
        return None if None in sizes else math.prod(size for size in sizes if size is not None)

    def __repr__(self) -> str:
        size = "infinitely many" if self.size is None else f"{self.size:,}"
        return f"Space({', '.join(self._parameters)}: {size} configurations)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and list(self._parameters.items()) == list(other._parameters.items())

    def __hash__(self) -> int:
        return hash(tuple(self._parameters.items()))

    def configuration(self, index: int) -> Configuration:
        """The configuration at a place of the grid; the last parameter varies fastest.

        Raises:
            InputError: a place beyond the grid, a space with a real parameter.
        """
        size = self._grid_size()
        if not 0 <= index < size:
            raise InputError(f"index: expected 0 … {size - 1}, got {index}")
        found: Configuration = {}
        for name, parameter in reversed(self._parameters.items()):
            assert not isinstance(parameter, Real)
            index, place = divmod(index, parameter.size)
            found[name] = parameter.at(place)
        return {name: found[name] for name in self._parameters}

    def grid(self) -> Iterator[Configuration]:
        """All configurations, the last parameter varying fastest."""
        return (self.configuration(index) for index in range(self._grid_size()))

    def _grid_size(self) -> int:
        if self.size is None:
            real = [name for name, parameter in self._parameters.items() if isinstance(parameter, Real)]
            raise InputError(f"space: {real[0]} is real, so there is no grid; draw a sample, or give a list of values")
        return self.size

    def sample(self, rng: np.random.Generator) -> Configuration:
        """A random configuration; parameters are drawn one after another, in their order."""
        return {name: parameter.sample(rng) for name, parameter in self._parameters.items()}

    def check(self, configuration: Mapping[str, Any]) -> None:
        """Raise ``InputError`` where a configuration is not one of this space."""
        for name in configuration:
            if name not in self._parameters:
                raise unknown_name("parameter", str(name), self._parameters)
        for name, parameter in self._parameters.items():
            if name not in configuration:
                raise InputError(f"{name}: missing from the configuration")
            if not parameter.holds(configuration[name]):
                raise InputError(f"{name}: expected a value of {parameter}, got {configuration[name]!r}")

    # --- as numbers ---------------------------------------------------------------------------------------------------

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the columns of ``encode``: the parameter's, or ``name=value`` for values without an order."""
        found: list[str] = []
        for name, parameter in self._parameters.items():
            if isinstance(parameter, Choice) and not parameter.ordered:
                found += [f"{name}={value}" for value in parameter.values]
            else:
                found.append(name)
        return tuple(found)

    def encode(self, configurations: Sequence[Mapping[str, Any]]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Configurations as numbers (configurations, features): numbers as they are, in logarithms where the parameter has
        ``log``, one column of 0 and 1 for each value without an order."""
        columns: list[list[float]] = []
        for name, parameter in self._parameters.items():
            values = [configuration[name] for configuration in configurations]
            if isinstance(parameter, Choice) and not parameter.ordered:
                columns += [
                    [float(v == own and isinstance(v, bool) is isinstance(own, bool)) for v in values] for own in parameter.values
                ]
            elif not isinstance(parameter, Choice) and parameter.log:
                columns.append([math.log(value) for value in values])
            else:
                columns.append([float(value) for value in values])
        return np.array(columns, dtype=np.float64).T.reshape(len(configurations), len(columns))

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain data; ``Space(data)`` reads it back."""
        return {name: parameter.to_dict() for name, parameter in self._parameters.items()}
