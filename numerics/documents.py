"""YAML and JSON files, as recipes, specs and workloads are, and archives of arrays: read in one strict way by all that read them.

What a reader would let pass in silence is an error here: a field given twice (the last would win), nesting or references without
end (whatever prints the value would not return), NaN in JSON, characters that cannot be written again.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numerics.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

DEEPEST = 100
"""Lists and mappings inside one another."""

MOST_VALUES = 1_000_000
"""In a YAML file, those that references repeat counted each time."""


def read_text(path: str | Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # no such file, another encoding, a path with a NUL
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def read_yaml(text: str) -> Any:
    """What a YAML text holds; 700e6 is a number (YAML 1.1 wants 700.0e+6).

    Raises:
        InputError: no YAML, or what this module refuses; the message begins with ``not valid YAML``.
    """
    import yaml

    try:
        _check_depth(text)
        found = yaml.load(text, Loader=_loader())
        _check_tree(found, most=MOST_VALUES)
    except yaml.YAMLError as error:
        raise InputError(f"not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise InputError(f"not valid YAML: expected at most {DEEPEST} lists and mappings inside one another") from None
    except (ValueError, TypeError, OverflowError, AttributeError) as error:  # of a value that its tag does not fit
        raise InputError(f"not valid YAML: {error}") from None
    return found


def read_json(text: str) -> Any:
    """What a JSON text holds.

    Raises:
        InputError: no JSON, or what this module refuses; the message begins with ``not valid JSON``.
    """
    try:
        found = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
        _check_tree(found)
    except RecursionError:
        raise InputError(f"not valid JSON: expected at most {DEEPEST} lists and objects inside one another") from None
    except ValueError as error:
        raise InputError(f"not valid JSON: {error}") from None
    return found


def read_arrays(path: str | Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an ``.npz`` file, by name; none of objects.

    Raises:
        InputError: no such archive; the message is what numpy or zipfile stumbled over.
    """
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (Exception, MemoryError) as error:  # whatever the bytes provoke, a header that asks for all memory among it
        text = str(error).strip()
        raise InputError(text.splitlines()[0] if text else type(error).__name__) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the field {next(name for name in names if names.count(name) > 1)!r} is given twice")
    return made


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no number in JSON")


def _check_depth(text: str) -> None:
    """See that a YAML text is not nested deeply, before it is read: libyaml recurses without end, and the process dies."""
    import yaml

    depth = 0
    for event in yaml.parse(text, Loader=_loader()):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise RecursionError


def _check_tree(tree: Any, *, most: int | None = None) -> None:
    waiting, count = [(tree, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if isinstance(value, str):
            if not value.isascii():
                value.encode("utf-8")  # half a pair of surrogates is an error
            continue
        if isinstance(value, dict | list):
            inside = [*value, *value.values()] if isinstance(value, dict) else value
            if depth >= DEEPEST:
                raise RecursionError
            if most is not None and count + len(waiting) > most:
                raise ValueError(f"expected at most {most} values, those that references repeat counted each time")
            waiting += [(one, depth + 1) for one in inside]


@cache
def _loader() -> Any:
    """YAML's safe loader, with the numbers that people write."""
    import yaml

    base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc, valid-type]
        """Refuses a key given twice, which YAML would let win in silence."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[Any] = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise yaml.YAMLError(f"expected a name for a field, in line {key.start_mark.line + 1}")
                if key.value in seen:
                    raise yaml.YAMLError(f"the field {key.value!r} is given twice, again in line {key.start_mark.line + 1}")
                seen.add(key.value)
            return super().construct_mapping(node, deep=deep)

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
    )
    return Loader
