"""Which classes of the six packages a user meets: the public ones, those that the documentation imports, and those that their
functions, methods, properties and fields give."""

import ast
import enum
import importlib
import inspect
import pkgutil
import re
import types
import typing
from functools import cache
from pathlib import Path

ROOMS = ("numerics", "hwsim", "accelerators", "neuromorphic", "photonic", "rtl")


def public_packages():
    """Every package of the rooms that has ``__all__``."""
    for room in ROOMS:
        package = importlib.import_module(room)
        inside = (m.name for m in pkgutil.walk_packages(package.__path__, f"{room}.") if m.ispkg)
        for name in (room, *inside):
            module = importlib.import_module(name)
            if hasattr(module, "__all__"):
                yield module


def documented():
    """What the pages of the documentation import: objects."""
    root = Path(__file__).parent.parent.parent
    texts = [path.read_text(encoding="utf-8") for path in (root / "README.md", *sorted((root / "docs").rglob("*.md")))]
    pattern = rf"^ *from ((?:{'|'.join(ROOMS)})[\w.]*) import ([\w, ]+)"
    for home, names in (found for text in texts for found in re.findall(pattern, text, re.MULTILINE)):
        for name in re.findall(r"\w+", names):
            module = importlib.import_module(home)
            if hasattr(module, name):  # another name is a submodule, or defined on the page
                yield getattr(module, name)


@cache
def names_for_types(module_name):
    """What a module imports for its annotations alone: name → (module, name there)."""
    tree = ast.parse(inspect.getsource(importlib.import_module(module_name)))
    return {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


def resolved(name, module_name):
    module = importlib.import_module(module_name)
    if hasattr(module, name):
        return getattr(module, name)
    if name in names_for_types(module_name):
        home, there = names_for_types(module_name)[name]
        if home.partition(".")[0] in ROOMS:
            return getattr(importlib.import_module(home), there, None)
    return None


def classes_in(annotation, module_name):
    """The classes of ours that an annotation names."""
    if not isinstance(annotation, str):
        yield from _of_object(annotation)
        return
    for node in ast.walk(ast.parse(annotation, mode="eval")):
        if isinstance(node, ast.Name):
            yield from _of_object(resolved(node.id, module_name))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            yield from _of_object(resolved(node.value, module_name))


def _of_object(found):
    if inspect.isclass(found) and not isinstance(found, types.GenericAlias):
        if found.__module__.partition(".")[0] in ROOMS:
            yield found
        return
    for part in typing.get_args(found):
        yield from _of_object(part)


def given_by(cls):
    """Classes of what the public fields, properties and methods of a class give."""
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] not in ROOMS:
            continue
        for name, annotation in vars(base).get("__annotations__", {}).items():
            if not name.startswith("_"):
                yield from classes_in(annotation, base.__module__)
        for name, member in vars(base).items():
            if name.startswith("_"):
                continue
            function = getattr(member, "fget", None) or getattr(member, "func", None) or getattr(member, "__func__", member)
            returns = getattr(function, "__annotations__", {}).get("return") if inspect.isfunction(function) else None
            if returns is not None:
                yield from classes_in(returns, base.__module__)


def met_by_users():
    """The classes, by module and name."""
    from hwsim.registry import device_classes

    pending = []
    public = (getattr(module, name) for module in public_packages() for name in module.__all__)
    for found in (*public, *documented()):
        if inspect.isfunction(found):
            returns = found.__annotations__.get("return")
            pending += classes_in(returns, found.__module__) if returns is not None else ()
        else:
            pending += _of_object(found) if inspect.isclass(found) or typing.get_args(found) else _of_object(type(found))

    pending += device_classes().values()
    met = set()
    while pending:
        cls = pending.pop()
        if cls in met or _is_no_object(cls):
            continue
        met.add(cls)
        pending += given_by(cls)
        pending += [sub for sub in cls.__subclasses__() if sub.__module__.partition(".")[0] in ROOMS and _is_public(sub)]
    return sorted(met, key=lambda cls: (cls.__module__, cls.__qualname__))


def _is_public(cls):
    return not any(part.startswith("_") for part in (cls.__name__, *cls.__module__.split(".")))


def _is_no_object(cls):
    """Errors, enumerations and protocols, what is private, and the networks of the zoo, which are torch's."""
    is_kind = issubclass(cls, BaseException | enum.Enum) or getattr(cls, "_is_protocol", False)
    return (
        is_kind or not _is_public(cls) or (cls.__module__.startswith("hwsim.zoo.") and not hasattr(cls, "__dataclass_fields__"))
    )
