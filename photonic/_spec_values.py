"""Values of a spec that are a number or a word, or a section or a word."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, BeforeValidator


def number_or(*words: str) -> BeforeValidator:
    """Refuses text that is neither a number nor one of ``words``, and names them."""

    def check(value: object) -> object:
        if isinstance(value, str) and value not in words and not _reads_as_number(value):
            raise ValueError(f"expected a number or {_listed(words)}")
        return value

    return BeforeValidator(check)


def section_or(*words: str) -> BeforeValidator:
    """Refuses what is neither a section nor one of ``words``, and names them."""

    def check(value: object) -> object:
        if not isinstance(value, Mapping | BaseModel) and value not in words:
            raise ValueError(f"expected a section or {_listed(words)}")
        return value

    return BeforeValidator(check)


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _listed(words: tuple[str, ...]) -> str:
    return " or ".join(repr(word) for word in words)
