"""The public names of every package, with their docstrings."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import Any

from markdown_text import Docstring, fenced, parsed, table

ROOMS = ("hwsim", "numerics", "accelerators", "neuromorphic", "photonic", "rtl")


class _Bare(str):
    """An annotation as it is written, without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def packages() -> Iterator[tuple[str, Any]]:
    """(name, package) of every package that lists public names."""
    for room in ROOMS:
        top = importlib.import_module(room)
        yield room, top
        for found in pkgutil.walk_packages(top.__path__, f"{room}."):
            if found.ispkg and not any(part.startswith("_") for part in found.name.split(".")):
                package = importlib.import_module(found.name)
                if getattr(package, "__all__", None):
                    yield found.name, package


def modules() -> Iterator[tuple[str, str]]:
    """(name, what it is) of every public module of the six packages, read off its source, so that nothing is imported."""
    import ast
    from pathlib import Path

    for room in ROOMS:
        top = importlib.import_module(room)
        folder = Path(next(iter(top.__path__)))
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder.parent).with_suffix("").parts
            if any(part.startswith("_") and part != "__init__" for part in parts):
                continue
            doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            yield ".".join(p for p in parts if p != "__init__"), parsed(doc).first


def signature(name: str, target: Any) -> str:
    """A call as Python would write it, on several lines where it is long."""
    try:
        found = inspect.signature(target)
    except (TypeError, ValueError):
        return name
    plain = [
        p.replace(annotation=_Bare(p.annotation) if isinstance(p.annotation, str) else p.annotation)
        for p in found.parameters.values() if p.name not in ("self", "cls")
    ]  # fmt: skip
    back = found.return_annotation
    found = found.replace(parameters=plain, return_annotation=_Bare(back) if isinstance(back, str) else back)
    line = f"{name}{found}"
    if len(line) <= 100 or not plain:
        return line
    shown, starred = [], False
    for p in plain:
        if p.kind is p.VAR_POSITIONAL:
            starred = True
        elif p.kind is p.KEYWORD_ONLY and not starred:
            shown.append("*")
            starred = True
        shown.append(str(p))
    end = line[line.rindex(") -> ") :] if ") -> " in line else ")"
    return name + "(\n" + "".join(f"    {p},\n" for p in shown) + end


def sections(about: Docstring) -> str:
    """Arguments, attributes, results and errors as lists."""
    titles = {"Args": "Arguments", "Attributes": "Attributes", "Returns": "Returns", "Yields": "Yields", "Raises": "Raises"}
    parts = []
    for key, entries in about.sections.items():
        if not entries:
            continue
        lines = [f"- `{name}`: {text}" if name else text for name, text in entries.items()]
        parts.append(f"**{titles[key]}**\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def entry(name: str, target: Any) -> str:
    """One public name."""
    head = f"## {name} {{: #{name} }}\n"
    if inspect.ismodule(target):
        return f"{head}\nModule: {parsed(target).first}\n"
    if not (inspect.isclass(target) or callable(target)):
        shown = fenced(f"{name} = {target!r}", "python") if len(repr(target)) < 300 else f"A `{type(target).__name__}`.\n"
        return f"{head}\n{shown}"
    about = parsed(target)
    kind = "class " if inspect.isclass(target) else ""
    parts = [head, fenced(kind + signature(name, target), "python"), about.text + "\n", sections(about)]
    if inspect.isclass(target):
        rows = list(_members(target))
        if rows:
            parts.append(table(("member", "what it is"), rows))
    return "\n".join(parts)


def _members(cls: type) -> Iterator[tuple[str, str]]:
    fields = set(parsed(cls).sections.get("Attributes", {}))
    seen: set[str] = set()
    for base in cls.__mro__:
        if base.__module__.split(".")[0] not in ROOMS:
            continue
        for name, member in vars(base).items():
            if name.startswith("_") or name in seen or name in fields:
                continue
            seen.add(name)
            function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            if isinstance(member, property):
                yield f"`.{name}`", parsed(member.fget).first
            elif inspect.isfunction(function) and function.__doc__:
                call = signature(name, function)
                flat = " ".join(call.split()).replace("( ", "(").replace(", )", ")")
                yield f"`.{flat}`" if len(flat) < 60 else f"`.{name}(…)`", parsed(function).first


def page(name: str, package: Any) -> str:
    """The reference of one package."""
    about = parsed(package)
    parts = [f"# {name}\n", about.text + "\n"]
    for public in sorted(getattr(package, "__all__", ()), key=str.lower):
        if public.startswith("__"):
            continue
        parts.append(entry(public, getattr(package, public)))
    return "\n".join(parts)


def pages() -> dict[str, str]:
    """Package → page."""
    return {name: page(name, package) for name, package in packages() if getattr(package, "__all__", None)}


def index(names: list[str]) -> str:
    """The packages with public names, and every module with what it is."""
    links = table(("package", "what it is"), [(f"[`{n}`]({n}.md)", parsed(importlib.import_module(n)).first) for n in names])
    text = "# Python\n\nThe names that each package lists as public. `CHANGELOG.md` names what changes in them.\n\n"
    rows = [(f"`{name}`", what) for name, what in modules() if what]
    return (
        text
        + links
        + "\n## Modules\n\nEvery public module, which can be imported by this name.\n\n"
        + table(("module", "what it is"), rows)
    )
