"""The one error for bad input, used by every package."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 400
"""Characters of an error."""
END = 150
"""Of them, those kept of the end of a longer text: what was expected tends to stand there."""


class InputError(ValueError):
    """Something the user gave is wrong: one line that names the field, the value and what was expected.

    The command line prints it and exits with code 2; a library user catches it as a ``ValueError``. Whatever is quoted in it, it
    stays one line of at most ``LONGEST`` characters: breaks become blanks, other controls escapes, and the middle is left out.
    """

    def __init__(self, message: object = "") -> None:
        text = str(message)
        if not text.isprintable():
            text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))
        if len(text) > LONGEST:
            text = f"{text[: LONGEST - END - 3]} … {text[-END:]}"
        super().__init__(text)


def nearest_names(name: str, known: Iterable[str], *, most: int = 3) -> str:
    """A readable hint: the known names that resemble ``name``, or all of them when none does."""
    options = sorted(known)
    close = difflib.get_close_matches(name.lower(), options, n=most, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    return "known: " + (", ".join(options) if options else "none")


def unknown_name(field: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that is not in a closed list."""
    return InputError(f"{field}: unknown name {name!r}; {nearest_names(name, known)}")
