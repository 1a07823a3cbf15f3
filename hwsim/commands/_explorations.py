"""What ``hwsim sweep``, ``search`` and ``report`` share."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.commands import _options
from numerics.errors import InputError

if TYPE_CHECKING:
    from hwsim.explore.exploration import Exploration
    from hwsim.explore.study_file import StudyFile

STUDY = "study.yaml"
"""The study's own file in its folder."""


def add_run(parser: argparse.ArgumentParser) -> None:
    """Where a study runs, and where it goes."""
    parser.add_argument("--workers", type=int, metavar="N", help="processes on this machine (default: 1)")
    parser.add_argument("--scheduler", metavar="tcp://…", help="a Dask scheduler's address; pip install 'hwsim[cluster]'")
    parser.add_argument("--out", metavar="DIR", help="what is done is kept there, then table, pictures and the page report.html")
    parser.add_argument("--resume", action="store_true", help="go on with the study that the folder holds")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout and nothing else")


def study(source: str, data: Mapping[str, Any]) -> StudyFile:
    """A study from its data."""
    from hwsim.explore.study_file import StudyFile
    from hwsim.spec import validate_spec

    return validate_spec(StudyFile, data, source=source)


def run(chosen: StudyFile, arguments: argparse.Namespace) -> int:
    """Run a study, print its front, and write it."""
    from hwsim.explore.study_file import STORES
    from hwsim.jobs import Interrupted, JobError
    from hwsim.jobs.executors import check_workers

    check_workers(workers=arguments.workers, executor=None, scheduler=arguments.scheduler)
    folder = Path(arguments.out) if arguments.out else None
    if folder is None and arguments.resume:
        raise InputError("--resume: nothing is kept without --out; name the folder of the study")
    _options.writable(arguments.out)
    if folder is not None:
        if (folder / STORES[chosen.method]).exists() and not arguments.resume:
            raise InputError(f"--out: {folder} holds a study; --resume goes on with it, or choose another folder")
        if arguments.resume and (folder / STUDY).is_file() and (folder / STUDY).read_text(encoding="utf-8") != chosen.to_yaml():
            raise InputError(f"--resume: {folder} holds another study, which {folder / STUDY} describes; choose another folder")
        (folder / STUDY).write_text(chosen.to_yaml(), encoding="utf-8")
    try:
        found = chosen.run(folder, workers=arguments.workers, scheduler=arguments.scheduler, progress="auto")
    except Interrupted as stop:
        raise KeyboardInterrupt(str(stop).replace("run it again to go on", "the same command with --resume goes on")) from None
    except JobError as error:
        sys.stderr.write(f"hwsim {chosen.method}: error: {error}\n")
        return 1
    return show(found, arguments, folder=folder)


def show(found: Exploration, arguments: argparse.Namespace, *, folder: Path | None, most: int = 20) -> int:
    """Print an exploration, and write it."""
    files = [] if folder is None else found.save(folder)
    if arguments.json:
        print(json.dumps(found.to_dict(), allow_nan=False))
        return 0
    found.print(most=most)
    if files:
        print("\nwritten:")
        for file in files:
            print(f"  {file}")
    return 0
