"""The syntax of liberty files: groups of attributes. Source: Liberty User Guides, volume 1, chapter 2."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from numerics.errors import InputError


@dataclass(frozen=True)
class Group:
    """``kind (arguments) { attributes and groups }``.

    Attributes:
        attributes: by name, the values of each statement; a simple attribute has one value.
    """

    kind: str
    arguments: tuple[str, ...]
    attributes: dict[str, list[list[str]]] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)

    def text(self, name: str, default: str | None = None) -> str:
        """A simple attribute.

        Raises:
            InputError: it is missing and has no default.
        """
        if name in self.attributes:
            return self.list(name)[0]
        if default is None:
            raise InputError(f"liberty: {self.kind} {' '.join(self.arguments)} lacks {name!r}")
        return default

    def number(self, name: str, default: float | None = None) -> float:
        """A simple attribute that is a number.

        Raises:
            InputError: it is missing and has no default, or is no number.
        """
        return number(self.text(name, None if default is None else str(default)), name)

    @property
    def label(self) -> str:
        """What the group is called: its first argument.

        Raises:
            InputError: it has none.
        """
        if not self.arguments:
            raise InputError(f"liberty: a {self.kind} has no name")
        return self.arguments[0]

    def list(self, name: str) -> list[str]:
        """The first statement of a complex attribute.

        Raises:
            InputError: it is missing or empty.
        """
        if not self.attributes.get(name) or not self.attributes[name][0]:
            raise InputError(f"liberty: {self.kind} {' '.join(self.arguments)} lacks {name!r}")
        return self.attributes[name][0]


def number(text: str, name: str) -> float:
    """A finite number.

    Raises:
        InputError: anything else.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"liberty: {name}: expected a number, got {text!r}")
    return value


_TOKEN = re.compile(
    r'\s+|/\*.*?\*/|//[^\n]*|\\\r?\n|"(?P<string>(?:[^"\\]|\\.)*)"|(?P<word>[^\s(){}:;,"\\]+)|(?P<sign>[(){}:;,])', re.DOTALL
)


def parse_groups(text: str) -> Group:
    """The outermost group of a liberty file.

    Raises:
        InputError: the text is not liberty; the message names the line.
    """
    tokens: list[tuple[str, str, int]] = []
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise InputError(f"liberty: line {text.count(chr(10), 0, at) + 1}: unexpected {text[at : at + 10]!r}")
        if found.lastgroup is not None:
            tokens.append((found.lastgroup, found[found.lastgroup].replace("\\\n", ""), at))
        at = found.end()
    tokens.append(("end", "", at))
    position = 0

    def fail(wanted: str) -> InputError:
        _, value, where = tokens[position]
        return InputError(f"liberty: line {text.count(chr(10), 0, where) + 1}: expected {wanted}, got {value!r}")

    def is_sign(sign: str) -> bool:
        return tokens[position][:2] == ("sign", sign)

    def statement(parent: Group | None) -> Group | None:
        nonlocal position
        if tokens[position][0] != "word":
            raise fail("a name")
        name = tokens[position][1]
        position += 1
        if is_sign(":"):
            position += 1
            if tokens[position][0] not in ("word", "string"):
                raise fail(f"a value of {name}")
            assert parent is not None
            parent.attributes.setdefault(name, []).append([tokens[position][1]])
            position += 1
            if is_sign(";"):
                position += 1
            return None
        if not is_sign("("):
            raise fail("':' or '('")
        position += 1
        values = []
        while not is_sign(")"):
            if tokens[position][0] in ("word", "string"):
                values.append(tokens[position][1])
            elif not is_sign(","):
                raise fail("')'")
            position += 1
        position += 1
        if not is_sign("{"):
            if parent is None:
                raise fail("'{'")
            parent.attributes.setdefault(name, []).append(values)
            if is_sign(";"):
                position += 1
            return None
        position += 1
        group = Group(name, tuple(values))
        while not is_sign("}"):
            inner = statement(group)
            if inner is not None:
                group.groups.append(inner)
        position += 1
        if is_sign(";"):
            position += 1
        return group

    if tokens[0][0] != "word" or tokens[1][:2] != ("sign", "("):
        raise fail("library (name) {")
    try:
        root = statement(None)
    except RecursionError:
        raise fail("fewer groups inside one another") from None
    assert root is not None
    return root
