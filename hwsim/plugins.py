"""What other packages add: entry points, of which a broken one is reported and left out, never the end of everything."""

from __future__ import annotations

import sys
from functools import cache
from importlib import metadata
from typing import Any


@cache
def load_group(group: str) -> dict[str, Any]:
    """Name → object of every entry point of ``group`` that can be imported; the others are named on stderr."""
    found: dict[str, Any] = {}
    for entry in metadata.entry_points(group=group):
        try:
            found[entry.name] = entry.load()
        except Exception as error:  # whatever a foreign package raises while it is imported
            owner = entry.dist.name if entry.dist is not None else "unknown"
            sys.stderr.write(f"hwsim: warning: {group} {entry.name!r} of {owner} left out: {type(error).__name__}: {error}\n")
    return found
