"""``hwsim verify``: the RTL units against their models."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from numerics.errors import InputError

if TYPE_CHECKING:
    from rtl.verification import Result

NOT_RUN = 3
"""Exit code where a model did not build or run, so that nothing is said of the units."""

SUMMARY = "Run the RTL units beside their models and compare every bit in every cycle."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("units", nargs="*", metavar="UNIT", help="units to run, or configurations as fp_mac:bf16; all by default")
    parser.add_argument("--sizes", metavar="RxC,…", help="rows × columns of the arrays, such as 4x4,8x2, instead of their own")
    parser.add_argument("--cases", type=int, metavar="N", help="random cases a configuration, beside what is exhaustive")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the random cases (default 0)")
    parser.add_argument("--simulator", default="verilator", metavar="NAME", help="verilator (default) or icarus")
    parser.add_argument("--waves", default="hwsim-verify", metavar="DIR", help="folder for the waveform of what differs")
    parser.add_argument("--list", action="store_true", help="list units and configurations, and run nothing")
    parser.add_argument("--latency", action="store_true", help="print the units' latencies, as a Markdown table, as well")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout and nothing else")


def run(arguments: argparse.Namespace) -> int:
    """Verify; exit code 1 if a unit differs from its model, 3 if it did not build or run."""
    from hwsim.progress import stage
    from rtl.verification import configurations, latency_table, verify

    sizes = () if arguments.sizes is None else _sizes(arguments.sizes)
    if arguments.list:
        chosen = configurations(arguments.units, sizes=sizes, simulator=arguments.simulator)
        if arguments.json:
            rows = [{"unit": c.unit, "configuration": c.name, "parameters": dict(c.parameters)} for c in chosen]
            print(json.dumps({"configurations": rows}, indent=1))
        else:
            lines = [(c.unit, c.name, " ".join(f"{k}={v}" for k, v in c.parameters.items())) for c in chosen]
            print("\n".join(_aligned(lines, left=3)))
        return 0
    with stage(f"building and running RTL under {arguments.simulator}"):
        try:
            results = verify(
                arguments.units, sizes=sizes, cases=arguments.cases, seed=arguments.seed, simulator=arguments.simulator,
                waves=arguments.waves,
            )  # fmt: skip
        except RuntimeError as error:
            sys.stderr.write(f"hwsim verify: error: {error}\n")
            return NOT_RUN
    if arguments.json:
        print(json.dumps({"units": [as_data(result) for result in results]}, indent=1))
    else:
        print(table(results))
        if arguments.latency:
            print(f"\n{latency_table(results)}")
    return 0 if all(result.passed for result in results) else 1


def _sizes(text: str) -> list[tuple[int, int]]:
    found = []
    for word in text.split(","):
        match = re.fullmatch(r"\s*(\d+)x(\d+)\s*", word)
        if match is None:
            raise InputError(f"--sizes: expected ROWSxCOLUMNS, such as 4x4,8x2, got {word!r}")
        found.append((int(match[1]), int(match[2])))
    return found


def as_data(result: Result) -> dict[str, object]:
    """A result as plain data."""
    found: dict[str, object] = {
        "unit": result.unit,
        "configuration": result.configuration,
        "cases": result.cases,
        "mismatching_bits": result.mismatching_bits,
        "mismatching_cycles": result.mismatching_cycles,
        "seconds": round(result.seconds, 3),
        "cycles": result.cycles,
    }
    if result.latency is not None:
        found["latency"] = vars(result.latency)
    if result.difference is not None:
        found["first_difference"] = vars(result.difference)
        found["waveform"] = str(result.waveform)
    return found


def _aligned(rows: Sequence[Sequence[str]], *, left: int) -> list[str]:
    """Lines of columns as wide as what they hold; all but the first ``left`` lean to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines


def table(results: list[Result]) -> str:
    """Results as text, with the first difference of each configuration that has one."""
    head = ("unit", "configuration", "cases", "mismatching_bits", "mismatching_cycles", "seconds")
    rows = [
        (r.unit, r.configuration, str(r.cases), str(r.mismatching_bits), str(r.mismatching_cycles), f"{r.seconds:.2f}")
        for r in results
    ]
    lines = _aligned([head, *rows], left=2)
    for r in results:
        if r.difference is not None:
            d = r.difference
            lines.append(
                f"\n{r.unit} {r.configuration} differs first in cycle {d.cycle}: {d.signal} is {d.observed}, its model says "
                f"{d.expected}; waveform: {r.waveform}"
            )
    bad = sum(not r.passed for r in results)
    total = sum(r.cycles for r in results)
    verdict = f"{bad} differ from their models" if bad else "every bit of every output in every cycle as the models say"
    lines.append(f"\n{len(results)} configurations, {sum(r.cases for r in results):,} cases, {total:,} cycles: {verdict}")
    return "\n".join(lines)
