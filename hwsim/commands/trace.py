"""``hwsim trace``: a model as a workload file."""

from __future__ import annotations

import argparse
from pathlib import Path

from hwsim.commands import _options
from numerics.errors import InputError

SUMMARY = "Write a model's workload to a .json file, or its matrix operators to a SCALE-Sim .csv file."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    _options.add_model(parser)
    parser.add_argument("--formats", metavar="RECIPE", help="number formats: a recipe's name or file")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help=".json, or .csv for SCALE-Sim")


def run(arguments: argparse.Namespace) -> int:
    """Trace and write."""
    target = Path(arguments.output)
    if target.suffix not in (".json", ".csv"):
        raise InputError(f"--output: expected a .json or .csv file, got {arguments.output!r}")
    if not target.parent.is_dir():
        raise InputError(f"--output: no folder {str(target.parent)!r}")
    workload = _options.workload(arguments)
    left_out: list[str] = []
    try:
        if target.suffix == ".json":
            workload.to_json(target)
        else:
            from hwsim.tracing import scalesim

            left_out = scalesim.write(workload, target, form="gemm")
    except OSError as error:
        raise InputError(f"--output: cannot write {arguments.output!r}: {error.strerror}") from None
    print(f"{target}: {workload!r}")
    if left_out:
        print(f"not in the file, as SCALE-Sim has no such operator: {len(left_out)} operators ({', '.join(left_out[:5])} …)")
    return 0
