"""Mutations of files: of trees (what YAML and JSON hold), of text and of bytes; the same each time.

A mutant says what must come of it: ``any`` (an error or a right answer), ``refuse`` (wrong whatever the field), or ``same``
(another way to write the same).
"""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import yaml

Place = tuple[str | int, ...]
Must = Literal["any", "refuse", "same"]

AGAIN = "__again__"
"""At the end of a key: it is written without, so that the key is there twice."""

NUMBERS = (
    0, 1, -1, 2, 3, -7, 0.0, -0.0, 0.5, 1.5, 255, 65536, 2**31, 2**53 + 1, 2**63, 2**64, 10**25, 10**400, 1e-320, 1e-60, 1e60,
    1e300, -1e300, 1e308,
)  # fmt: skip
NO_NUMBERS = (True, False, math.nan, math.inf, -math.inf, "", "three", "1e", "🦆", [], {}, [1, 2], {"a": 1})
"""What no numeric field takes."""
TEXTS = (
    "", " ", "none", "null", "🦆 ä \u202e", "a" * 5000, "1", "-1", "nan", "1e400", "../../etc/passwd", "{}", "'", '"',
    "a\nb", "\x00", "int8", "fp32", "auto", "%s", "\ufeff", "*",
)  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """Bytes of a mutated file, what was done, and what must come of it."""

    data: bytes
    what: str
    must: Must = "any"


# --- trees ----------------------------------------------------------------------------------------------------------------


def places(tree: Any, start: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every place below the root and what stands there."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inside:
        yield (*start, key), value
        yield from places(value, (*start, key))


def at(tree: Any, place: Place) -> Any:
    """What stands at a place."""
    for key in place:
        tree = tree[key]
    return tree


def with_value(tree: Any, place: Place, value: Any) -> Any:
    """A copy with another value at a place."""
    made = copy.deepcopy(tree)
    at(made, place[:-1])[place[-1]] = value
    return made


def _renamed(mapping: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    return {new if key == old else key: value for key, value in mapping.items()}


def _typo(rng: random.Random, word: str) -> str:
    letter = rng.choice("qxz_")
    place = rng.randrange(len(word) + 1)
    return word[:place] + letter + word[place:]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def mutated_tree(rng: random.Random, tree: dict[str, Any], free: Callable[[Place], bool]) -> tuple[Any, str, Must]:
    """One change of a tree, what it was and what must come of it; of mappings at ``free`` places the keys may be any."""
    found = list(places(tree))
    keyed = [place for place, _ in found if isinstance(place[-1], str)]
    numeric = [place for place, value in found if _is_number(value) and not free(place[:-1])]
    texts = [place for place, value in found if isinstance(value, str)]
    place = rng.choice(found)[0]
    value = at(tree, place)
    kind = rng.choice(
        ("drop", "rename", "add", "twice", "number", "number", "number", "no_number", "no_number", "text", "text", "as_text",
         "null", "swap", "copy", "scale", "deep", "empty", "wrap", "order", "listed")
    )  # fmt: skip
    if kind == "no_number" and numeric:
        place = rng.choice(numeric)
        wrong = rng.choice(NO_NUMBERS)
        # An infinity is how some say "no limit"; whether it is taken is the field's own business.
        must: Must = "any" if isinstance(wrong, float) and math.isinf(wrong) else "refuse"
        return with_value(tree, place, wrong), f"{place}: {wrong!r}", must
    if kind == "number" and numeric:
        place = rng.choice(numeric)
        number = rng.choice(NUMBERS)
        return with_value(tree, place, number), f"{place}: {str(number)[:30]}", "any"
    if kind == "scale" and numeric:
        place = rng.choice(numeric)
        factor = rng.choice((2, 3, 10, 1000))
        return with_value(tree, place, at(tree, place) * factor), f"{place}: times {factor}", "any"
    if kind == "text" and texts:
        place = rng.choice(texts)
        text = rng.choice((*TEXTS, _typo(rng, at(tree, place))))
        return with_value(tree, place, text), f"{place}: {text[:30]!r}", "any"
    if kind in ("drop", "rename", "twice") and keyed:
        place = rng.choice(keyed)
        made = copy.deepcopy(tree)
        around = at(made, place[:-1])
        name = str(place[-1])
        if kind == "drop":
            del around[name]
            return made, f"{place}: dropped", "any"
        if kind == "twice":
            around[name + AGAIN] = around[name]
            return made, f"{place}: twice", "any" if free(place[:-1]) else "refuse"
        new = _typo(rng, name)
        made = with_value(made, place[:-1], _renamed(around, name, new)) if place[:-1] else _renamed(around, name, new)
        return made, f"{place}: renamed {new!r}", "any" if free(place[:-1]) else "refuse"
    if kind == "add":
        inside = [one for one, value in found if isinstance(value, dict)] + [()]
        place = rng.choice(inside)
        made = copy.deepcopy(tree)
        at(made, place)[rng.choice(("colour", "", "🦆", "a.b", "__class__"))] = rng.choice((1, "x", None))
        return made, f"{place}: a key more", "any" if free(place) else "refuse"
    if kind == "swap":
        other = rng.choice([one for one, _ in found if one[: len(place)] != place and place[: len(one)] != one] or [place])
        made = with_value(tree, place, at(tree, other))
        return with_value(made, other, value), f"{place} and {other} swapped", "any"
    if kind == "copy":
        other = rng.choice(found)[0]
        return with_value(tree, place, copy.deepcopy(at(tree, other))), f"{place}: what is at {other}", "any"
    if kind == "deep":
        deep: Any = 1
        for _ in range(rng.choice((3, 50, 3000))):
            deep = [deep] if rng.random() < 0.5 else {"a": deep}
        return with_value(tree, place, deep), f"{place}: nested deeply", "any"
    if kind == "order":
        return _reordered(rng, tree), "keys in another order", "same"
    if kind == "listed" and (lists := [(p, v) for p, v in found if isinstance(v, list) and v]):
        place, value = rng.choice(lists)
        changed = rng.choice((value[:-1], value + value, [*value, None], list(reversed(value)), value[:1] * 100))
        return with_value(tree, place, copy.deepcopy(changed)), f"{place}: another list", "any"
    new = {"as_text": str(value), "wrap": rng.choice(([value], {"value": value})), "empty": rng.choice(("", [], {}))}.get(kind)
    return with_value(tree, place, new), f"{place}: {str(new)[:30]!r}", "any"


def _reordered(rng: random.Random, tree: Any) -> Any:
    if isinstance(tree, dict):
        items = [(key, _reordered(rng, value)) for key, value in tree.items()]
        rng.shuffle(items)
        return dict(items)
    return [_reordered(rng, value) for value in tree] if isinstance(tree, list) else tree


def yaml_text(tree: Any) -> str:
    """A tree as YAML, keys marked ``AGAIN`` twice."""
    try:
        text = yaml.dump(tree, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=1 << 20)
    except RecursionError:  # nested more deeply than the writer goes
        text = "kind: " + "[" * 5000 + "]" * 5000 + "\n"
    return str(text).replace(AGAIN, "")


def json_text(tree: Any) -> str:
    """A tree as JSON, keys marked ``AGAIN`` twice."""
    try:
        text = json.dumps(tree, indent=1, ensure_ascii=False)
    except RecursionError:
        text = '{"name": ' + "[" * 100000 + "]" * 100000 + "}"
    return text.replace(AGAIN, "")


# --- text and bytes -------------------------------------------------------------------------------------------------------


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogatepass")


def mutated_text(rng: random.Random, text: str, *, comment: str = "") -> Mutant:
    """One change of a text file; ``comment`` begins comments, if there are any."""
    lines = text.splitlines()
    kind = rng.choice(
        ("bytes", "bytes", "cut", "cut", "bom", "crlf", "nul", "utf16", "latin", "chunk", "lines", "line_gone", "line_twice",
         "tail", "digits", "digits", "comment", "empty", "blank", "long", "separator")
    )  # fmt: skip
    if kind == "crlf":
        return Mutant(_bytes("\r\n".join(lines) + "\r\n"), "CRLF", "same")
    if kind == "comment" and comment:
        return Mutant(_bytes("\n".join([*lines, f"{comment} {rng.random()}", ""])), "a comment more", "same")
    if kind == "tail":
        return Mutant(_bytes(text + rng.choice(("\n", "\n\n", "  \n"))), "blank end", "same")
    if kind == "bom":
        return Mutant(b"\xef\xbb\xbf" + _bytes(text), "a byte order mark")
    if kind == "utf16":
        return Mutant(text.encode(rng.choice(("utf-16", "utf-16-le", "utf-32", "utf-7"))), "another encoding")
    if kind == "latin":
        place = rng.randrange(len(text) + 1)
        return Mutant(_bytes(text[:place]) + b"\xe4\xff\xc0" + _bytes(text[place:]), "no UTF-8")
    if kind == "empty":
        return Mutant(rng.choice((b"", b" \n", b"\n\n", b"---\n...\n", b"null", b"[]", b"{}", b"0", b'""')), "empty")
    if kind == "digits" and (places_ := [i for i, letter in enumerate(text) if letter.isdigit()]):
        place = rng.choice(places_)
        new = rng.choice(("", "-1", "0", "9" * 30, "1e9", "x", ".", "१", "²", "inf", "nan", "0x1F", "1_0", " "))
        return Mutant(_bytes(text[:place] + new + text[place + 1 :]), f"a digit becomes {new!r}")
    if kind == "separator" and (places_ := [i for i, letter in enumerate(text) if letter in ",:;{}[]\"'"]):
        place = rng.choice(places_)
        new = rng.choice(("", ",", ":", ";", "}", "[", '"', "'", "\t", ",,"))
        return Mutant(_bytes(text[:place] + new + text[place + 1 :]), f"a mark becomes {new!r}")
    if kind == "lines" and len(lines) > 1:
        a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
        lines[a], lines[b] = lines[b], lines[a]
        return Mutant(_bytes("\n".join(lines) + "\n"), "two lines change places")
    if kind == "line_gone" and lines:
        del lines[rng.randrange(len(lines))]
        return Mutant(_bytes("\n".join(lines) + "\n"), "a line less")
    if kind == "line_twice" and lines:
        place = rng.randrange(len(lines))
        return Mutant(_bytes("\n".join([*lines[:place], lines[place], *lines[place:]]) + "\n"), "a line twice")
    if kind == "long":
        place = rng.randrange(len(text) + 1)
        return Mutant(_bytes(text[:place] + rng.choice('a9"[ ') * 200_000 + text[place:]), "a long run")
    return mutated_bytes(rng, _bytes(text))


def mutated_bytes(rng: random.Random, data: bytes) -> Mutant:
    """One change of a file of bytes."""
    kind = rng.choice(("flip", "flip", "flip", "many", "cut", "cut", "less", "more", "nul", "twice", "noise"))
    made = bytearray(data)
    if not made:
        return Mutant(rng.randbytes(20), "noise")
    if kind == "flip":
        for _ in range(rng.randint(1, 4)):
            made[rng.randrange(len(made))] ^= 1 << rng.randrange(8)
    elif kind == "many":
        for _ in range(max(4, len(made) // 50)):
            made[rng.randrange(len(made))] = rng.randrange(256)
    elif kind == "cut":
        del made[rng.randrange(len(made)) :]
    elif kind == "less":
        start = rng.randrange(len(made))
        del made[start : start + rng.randint(1, 64)]
    elif kind == "more":
        start = rng.randrange(len(made))
        made[start:start] = rng.randbytes(rng.randint(1, 64))
    elif kind == "nul":
        start = rng.randrange(len(made))
        made[start : start + 16] = bytes(16)
    elif kind == "twice":
        made *= 2
    else:
        made = bytearray(rng.randbytes(rng.randint(1, 300)))
    return Mutant(bytes(made), f"bytes: {kind}")


def mutated_yaml(rng: random.Random, tree: dict[str, Any], free: Callable[[Place], bool] = lambda place: False) -> Mutant:
    """A mutant of a YAML file: of its tree mostly, of its text sometimes."""
    return _mutated_file(rng, tree, yaml_text, "#", free)


def mutated_json(rng: random.Random, tree: dict[str, Any], free: Callable[[Place], bool] = lambda place: False) -> Mutant:
    """A mutant of a JSON file: of its tree mostly, of its text sometimes."""
    return _mutated_file(rng, tree, json_text, "", free)


def _mutated_file(
    rng: random.Random, tree: dict[str, Any], emit: Callable[[Any], str], comment: str, free: Callable[[Place], bool]
) -> Mutant:
    if rng.random() < 0.3:
        return mutated_text(rng, emit(tree), comment=comment)
    made, what, must = mutated_tree(rng, tree, free)
    if must == "any" and rng.random() < 0.2 and made and "deeply" not in what:
        made, more, _ = mutated_tree(rng, made, free)
        what = f"{what}; {more}"
    return Mutant(_bytes(emit(made)), what, must)
