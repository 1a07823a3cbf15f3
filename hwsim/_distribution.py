"""The six packages of this distribution belong together: check it, and know our version."""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("hwsim", "accelerators", "numerics", "neuromorphic", "photonic", "rtl")
VERSION = metadata.version("hwsim")


def foreign_packages(home: Path) -> dict[str, str]:
    """Packages of ours that Python would import from elsewhere than ``home``: name → where from."""
    found: dict[str, str] = {}
    for name in PACKAGES[1:]:
        spec = find_spec(name)
        where = None
        if spec is not None:
            where = spec.origin or next(iter(spec.submodule_search_locations or ()), None)
        if where is None:
            found[name] = "nowhere (not installed)"
        elif Path(where).resolve().parent.parent != home and Path(where).resolve().parent != home:
            found[name] = where
    return found


def check_owner() -> None:
    """Raise ImportError, in one line, if a general name such as ``numerics`` belongs to somebody else here."""
    foreign = foreign_packages(Path(__file__).resolve().parent.parent)
    if not foreign:
        return
    name, where = next(iter(foreign.items()))
    owners = ", ".join(d for d in metadata.packages_distributions().get(name, []) if d != "hwsim")
    raise ImportError(
        f"hwsim: the package {name!r} comes from {where}{f' (distribution {owners})' if owners else ''}, "
        "not from hwsim; uninstall it or use a fresh environment"
    )
