"""``hwsim formats``: the number formats, and what one of them can hold."""

from __future__ import annotations

import argparse
import json
import math
import re
from typing import Any

from numerics.errors import InputError
from numerics.formats import BlockFormat, FloatFormat, Format, format_names, get_format

SUMMARY = "List the number formats, show one, or list its codes."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="show this format (any name: e4m3fn, q4.12, e6m9, mxfp4 …)")
    parser.add_argument("--table", action="store_true", help="list the value of every code (16 bits at most)")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout and nothing else")


def run(arguments: argparse.Namespace) -> int:
    """Print the list, a format or its codes."""
    if arguments.table:
        if not arguments.name:
            raise InputError("--table: expected the name of a format beside it")
        _print_table(get_format(arguments.name), arguments.json)
        return 0
    if arguments.name:
        facts = describe(get_format(arguments.name))
        if arguments.json:
            print(json.dumps(facts, indent=1))
        else:
            width = max(map(len, facts))
            for key, value in facts.items():
                print(f"{key:<{width}}  {_text(value)}")
        return 0
    rows = [describe(get_format(name)) for name in sorted(format_names(), key=_natural)]
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return 0
    print(f"{'name':<18}{'kind':<12}{'bits':>6}{'largest':>13}{'smallest > 0':>14}")
    for row in rows:
        smallest = row.get("smallest_subnormal", row.get("step"))
        print(f"{row['name']:<18}{row['kind']:<12}{_text(row['bits']):>6}{_text(row['max']):>13}{_text(smallest):>14}")
    print("\nq4.12, uq0.8 (fixed point) and e6m9 (any IEEE-like float) are understood besides.")
    return 0


def describe(fmt: Format) -> dict[str, Any]:
    """What there is to say of a format, as plain data."""
    kind = type(fmt).__name__.removesuffix("Format").lower()
    facts: dict[str, Any] = {"name": fmt.name, "kind": kind, "bits": fmt.bits, "max": fmt.max}
    if isinstance(fmt, BlockFormat):
        facts |= {"element": fmt.element.name, "scale": fmt.scale.name}
        return facts | {k: getattr(fmt, k) for k in ("block_size", "scale_rounding", "tensor_scale")}
    facts["min"] = fmt.min
    if isinstance(fmt, FloatFormat):
        more = ("exponent_bits", "mantissa_bits", "bias", "emin", "emax", "smallest_normal", "smallest_subnormal", "eps")
        flags = ("specials", "subnormals", "signed", "has_inf", "has_nan", "has_negative_zero")
        return facts | {k: getattr(fmt, k) for k in (*more, *flags)}
    return facts | {k: getattr(fmt, k) for k in ("step", "signed", "symmetric") if hasattr(fmt, k)}


def _print_table(fmt: Format, as_json: bool) -> None:
    if isinstance(fmt, BlockFormat):
        parts = f"{fmt.element.name!r} or {fmt.scale.name!r}"
        raise InputError(f"--table: {fmt.name!r} has codes for elements and scales; ask for {parts}")
    values = [float(v) for v in fmt.table()]
    if as_json:
        print(json.dumps([v if math.isfinite(v) else str(v) for v in values]))
        return
    digits = -(-int(fmt.bits) // 4)
    for code, value in enumerate(values):
        print(f"0x{code:0{digits}x}  {value!r}")


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts int9 before int10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
