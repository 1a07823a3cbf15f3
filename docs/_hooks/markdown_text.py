"""Markdown out of data: tables, and the docstrings of this code base."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

_SECTIONS = ("Args", "Attributes", "Raises", "Returns", "Yields")
_ENTRY = re.compile(r"^(\*{0,2}[\w.`]+(?:, \*{0,2}[\w.`]+)*|`[^`]+`): (.*)$")


@dataclass(frozen=True)
class Docstring:
    """A docstring in its parts.

    Attributes:
        text: paragraphs before the first section, as Markdown.
        sections: ``Args``, ``Attributes``, ``Raises``, ``Returns`` → name → text; a section without names has the name "".
    """

    text: str
    sections: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def first(self) -> str:
        """The first paragraph, on one line."""
        return " ".join(self.text.split("\n\n")[0].split())


def prose(text: str) -> str:
    """Docstring text as Markdown: code has one backtick, and what looks like HTML is shown as it is."""
    parts = re.split(r"(``.+?``)", text, flags=re.DOTALL)
    return "".join(
        f"`{p[2:-2]}`" if p.startswith("``") else re.sub(r"\\?\*", r"\\*", re.sub(r"<(?=[\w/!])", "&lt;", p)) for p in parts
    )


def parsed(target: object) -> Docstring:
    """The docstring of an object, or of a text."""
    raw = target if isinstance(target, str) else inspect.getdoc(target)
    lines = inspect.cleandoc(raw or "").splitlines()
    body: list[str] = []
    sections: dict[str, dict[str, str]] = {}
    section, name = "", ""
    for line in lines:
        heading = line.removesuffix(":")
        if line.endswith(":") and heading in _SECTIONS:
            section, name = heading, ""
            sections[section] = {}
        elif section and line.strip() and not line.startswith(" "):
            section = ""
            body.append(line)
        elif not section:
            body.append(line)
        elif line.strip():
            indent = len(line) - len(line.lstrip())
            entry = _ENTRY.match(line.strip()) if indent == 4 else None
            if entry:
                name = entry[1].replace("`", "")
                sections[section][name] = entry[2]
            else:
                sections[section][name] = f"{sections[section].get(name, '')} {line.strip()}".strip()
    found = {key: {n: prose(t) for n, t in entries.items()} for key, entries in sections.items()}
    return Docstring(_examples(prose("\n".join(body).strip())), found)


def _examples(text: str) -> str:
    """Paragraphs of doctests and of indented text become code."""
    done = []
    for paragraph in text.split("\n\n"):
        lines = paragraph.splitlines()
        code = paragraph.startswith(">>>") or (lines and all(line.startswith("    ") for line in lines))
        plain = paragraph.replace(r"\*", "*").replace("&lt;", "<").replace("  # doctest: +SKIP", "")
        done.append(
            f"```pycon\n{plain}\n```" if code and paragraph.startswith(">>>") else f"```\n{plain}\n```" if code else paragraph
        )
    return "\n\n".join(done)


def attribute_texts(cls: type) -> dict[str, str]:
    """Field → what the docstrings of a class and of its bases say of it, the class's own first."""
    found: dict[str, str] = {}
    for base in cls.__mro__:
        if base.__module__.split(".")[0] in ("pydantic", "builtins", "abc", "typing"):
            continue
        for names, text in parsed(base.__doc__ or "").sections.get("Attributes", {}).items():
            for name in names.split(", "):
                found.setdefault(name, text)
    return found


def cell(text: object) -> str:
    """Text that stays within a cell of a table."""
    parts = re.split(r"(`[^`]+`)", " ".join(str(text).split()))
    return "".join(part if part.startswith("`") else part.replace("|", r"\|") for part in parts)


def table(header: Sequence[str], rows: Iterable[Sequence[object]], align: str = "") -> str:
    """A Markdown table; ``align`` has a letter a column: l (the default), r or c."""
    rules = {"l": "---", "r": "--:", "c": ":-:"}
    marks = [rules[letter] for letter in align.ljust(len(header), "l")]
    lines = [header, marks, *rows]
    return (
        "\n".join("| " + " | ".join(c if c in marks and line is marks else cell(c) for c in line) + " |" for line in lines) + "\n"
    )


def fenced(text: str, language: str = "") -> str:
    """A code block, with a fence longer than any in it."""
    ticks = max((len(run) for run in re.findall(r"^`{3,}", text, re.MULTILINE)), default=2) + 1
    fence = "`" * max(3, ticks)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}\n"


def indented(text: str, by: int = 4) -> str:
    """Text moved to the right, as the content of a details block."""
    return "".join(" " * by + line if line.strip() else line for line in text.splitlines(keepends=True))
