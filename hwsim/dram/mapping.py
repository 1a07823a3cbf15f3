"""Which bits of an address are channel, bank, row and column, and the hashes that spread them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hwsim.views.display import displayed
from numerics.errors import nearest_names

FIELDS = ("channel", "pseudo", "rank", "group", "bank", "row", "column")
_PART = re.compile(r"^([a-z]+)(\d*)$")


@displayed
@dataclass(frozen=True)
class Part:
    """Digits of an address that belong to one field.

    Attributes:
        field: one of ``FIELDS``.
        radix: values of the digit.
        weight: what a step of it adds to the field.
    """

    field: str
    radix: int
    weight: int


def parse_mapping(text: str, sizes: Mapping[str, int]) -> tuple[Part, ...]:
    """The parts of a mapping such as ``row:bank:column:channel``, lowest first.

    Args:
        text: fields from the highest to the lowest. A number behind a name takes that many bits; what a field lacks then is
            taken where its name stands without a number. Fields of size one may be left out.
        sizes: field → how many there are; any number where the field is not split.

    Raises:
        ValueError: an unknown field, one that is missing or stands twice, bits that do not divide a field.
    """
    words = text.split(":")
    left = dict(sizes)
    whole: set[str] = set()
    named: list[tuple[str, int | None]] = []
    for word in words:
        match = _PART.match(word)
        field = match[1] if match else word
        if match is None or field not in FIELDS:
            raise ValueError(f"mapping: unknown field {word!r} in {text!r}; {nearest_names(field, FIELDS)}")
        if not match[2]:
            if field in whole:
                raise ValueError(f"mapping: field {field!r} stands twice in {text!r}; give one of them a number of bits")
            whole.add(field)
            named.append((field, None))
            continue
        bits = int(match[2])
        if left[field] % (1 << bits):
            raise ValueError(f"mapping: {word!r} in {text!r} takes {bits} bits of a {field} that has {left[field]} values left")
        left[field] >>= bits
        named.append((field, 1 << bits))
    for field in FIELDS:
        if field not in whole and left[field] > 1:
            raise ValueError(f"mapping: field {field!r} (of {sizes[field]}) is missing in {text!r}")
    weight = dict.fromkeys(FIELDS, 1)
    parts: list[Part] = []
    for field, radix in reversed(named):
        parts.append(Part(field, left[field] if radix is None else radix, weight[field]))
        weight[field] *= parts[-1].radix
    return tuple(parts)
