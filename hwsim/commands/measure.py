"""``hwsim measure``: single kernels on the machine at hand."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numerics.errors import InputError, unknown_name

SUMMARY = "Measure single kernels on this machine, for hwsim calibrate and hwsim validate --csv."

DEFAULT_OPERATORS = "matmul,convolution,softmax,layer_norm,gelu,attention"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--backend", choices=("cpu", "cuda"), required=True, help="where the kernels run")
    parser.add_argument("--out", metavar="FILE.csv", required=True, help="the file of measurements")
    parser.add_argument("--operators", metavar="NAME,…", default=DEFAULT_OPERATORS, help=f"what to measure ({DEFAULT_OPERATORS})")
    parser.add_argument("--formats", metavar="NAME,…", help="number formats (cpu: fp32; cuda: bf16,fp16,fp8,int8)")
    parser.add_argument("--shapes", metavar="SET", default="standard", help="small, standard, large, or how many (standard)")
    parser.add_argument("--seconds", type=float, metavar="S", help="begin no kernel after so long")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of a kernel on the cpu")
    parser.add_argument("--hot", action="store_true", help="leave operands in the caches between calls")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of shapes and values (0)")
    parser.add_argument("--resume", action="store_true", help="go on with FILE.csv, measuring what it lacks")


def run(arguments: argparse.Namespace) -> int:
    """Measure, and say what could not be."""
    from hwsim.measuring.backends import open_backend
    from hwsim.measuring.session import Session, planned_kernels

    if Path(arguments.out).suffix != ".csv":
        raise InputError(f"--out: expected a .csv file, got {arguments.out!r}")
    if not Path(arguments.out).parent.is_dir():
        raise InputError(f"--out: no folder {str(Path(arguments.out).parent)!r}")
    if arguments.seconds is not None and not arguments.seconds > 0:
        raise InputError(f"--seconds: expected a number above 0, got {arguments.seconds:g}")
    if arguments.seed < 0:
        raise InputError(f"--seed: expected an integer ≥ 0, got {arguments.seed}")
    count = _count(arguments.shapes)
    operators = _names(arguments.operators, "--operators")
    backend = open_backend(arguments.backend, threads=arguments.threads)
    formats = _names(arguments.formats, "--formats") if arguments.formats else list(backend.default_formats)
    wanted, without = planned_kernels(backend, operators, formats, count, seed=arguments.seed)
    if not wanted:
        raise InputError(f"--formats: nothing to measure: {next(iter(without))}")
    session = Session(backend, arguments.out, hot=arguments.hot, seed=arguments.seed, resume=arguments.resume)
    with _progress(len(wanted)) as progress:
        outcome = session.measure(wanted, budget_s=arguments.seconds or math.inf, progress=progress)
    outcome.left_out = {**without, **outcome.left_out}
    for line in outcome.lines():
        sys.stderr.write(f"hwsim measure: {line}\n")
    there = f", {outcome.before} were there" if outcome.before else ""
    print(f"{arguments.out}: {outcome.measured} kernels measured{there}")
    return 0


def _count(text: str) -> int:
    from hwsim.measuring.shapes import SHAPE_COUNTS

    if text in SHAPE_COUNTS:
        return SHAPE_COUNTS[text]
    if text.isdigit() and int(text) > 0:
        return int(text)
    raise unknown_name("--shapes", text, (*SHAPE_COUNTS, "a number"))


def _names(text: str, option: str) -> list[str]:
    from hwsim.measuring.kernels import FORMATS
    from hwsim.measuring.shapes import OPERATORS

    known = OPERATORS if option == "--operators" else FORMATS
    found = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not found:
        raise InputError(f"{option}: expected some of {', '.join(known)}, got {text!r}")
    for name in found:
        if name not in known:
            raise unknown_name(option, name, known)
    return found


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """A bar on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda text: bar.update(task, advance=1, description=text)
