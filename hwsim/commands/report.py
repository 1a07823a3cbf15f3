"""``hwsim report``: a sweep or search, from its folder."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hwsim.commands import _explorations
from numerics.errors import InputError

SUMMARY = "What a sweep or search found, also while it runs: the front, one configuration's operators, pictures, the page."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("study", metavar="STUDY", help="the folder of a sweep or search, or its exploration.json")
    parser.add_argument("--trial", type=int, metavar="N", help="the configuration with this number, with its operators")
    parser.add_argument("--most", type=int, default=20, metavar="N", help="rows of the front (default: 20)")
    parser.add_argument("--out", metavar="DIR", help="write data, table, pictures and page there (default: the folder)")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout and nothing else")


def _newer(folder: Path) -> bool:
    """Whether a folder's study went on after its exploration was written, or none was."""
    from hwsim.explore.study_file import STORES

    written = folder / "exploration.json"
    if not written.is_file():
        return True
    stores = [path for name in STORES.values() for path in folder.glob(f"{name}*")]
    return any(path.stat().st_mtime > written.stat().st_mtime for path in stores) and (folder / _explorations.STUDY).is_file()


def run(arguments: argparse.Namespace) -> int:
    """Print what was found, and write its views."""
    from hwsim.explore.exploration import Exploration
    from hwsim.explore.study_file import StudyFile
    from hwsim.views.exploration_table import print_trial

    place = Path(arguments.study)
    if arguments.most < 1:
        raise InputError(f"--most: expected an integer ≥ 1, got {arguments.most}")
    if place.is_dir() and _newer(place):
        if not (place / _explorations.STUDY).is_file():
            raise InputError(
                f"{place}: neither exploration.json nor {_explorations.STUDY} there; expected a sweep's or search's folder"
            )
        found = StudyFile.read(place / _explorations.STUDY).so_far(place)
    else:
        found = Exploration.load(place)
    if arguments.trial is not None:
        trials = {trial.number: trial for trial in found.trials}
        if arguments.trial not in trials:
            raise InputError(f"--trial: expected a number from 0 to {max(trials, default=0)}, got {arguments.trial}")
        chosen = trials[arguments.trial]
        if arguments.json:
            layers = [dict(row) for row in found.layers.get(chosen.number, [])]
            print(json.dumps({"trial": chosen.number, "stage": chosen.stage, "configuration": chosen.configuration,
                              "metrics": dict(chosen.metrics), "layers": layers}, indent=1, allow_nan=False))  # fmt: skip
        else:
            print_trial(found, chosen)
        return 0
    folder = Path(arguments.out) if arguments.out else place if place.is_dir() else None
    return _explorations.show(found, arguments, folder=folder, most=arguments.most)
