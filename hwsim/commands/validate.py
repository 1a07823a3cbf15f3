"""``hwsim validate``: the models beside what was measured on hardware."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from hwsim.commands import _options
from numerics.errors import InputError

if TYPE_CHECKING:
    from hwsim.scoreboard import Score

SUMMARY = "Hold the models against measured hardware: errors, biases, fitted parameters, goals."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="measured sets that come with the package; all by default")
    parser.add_argument("--list", action="store_true", help="list the targets and leave")
    parser.add_argument("--strict", action="store_true", help="exit with 1 where a goal is missed")
    parser.add_argument("--csv", metavar="FILE", help="your own measurements instead, on the device of --device")
    parser.add_argument("--trace", metavar="FILE", help="a torch.profiler trace instead, on the device of --device")
    parser.add_argument("--device", metavar="NAME_OR_FILE", help="the device that --csv or --trace is held against")
    parser.add_argument("--top", type=int, default=20, metavar="N", help="of --csv or --trace: show the N longest (0: all)")
    parser.add_argument("--out", metavar="DIR", help="write scoreboard.json and scoreboard.png there")
    parser.add_argument("--markdown", action="store_true", help="print the scores as a Markdown table")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout and nothing else")


def run(arguments: argparse.Namespace) -> int:
    """Print the scores, and write them if asked."""
    from hwsim.progress import stage
    from hwsim.scoreboard import load_target, score_target, target_files
    from hwsim.views.scoreboard import print_points, print_scores, save_scores, scoreboard_data, scores_markdown

    if arguments.list:
        _alone(arguments)
    own = [name for name in ("csv", "trace") if getattr(arguments, name)]
    if len(own) > 1:
        raise InputError("--trace: give either --csv or --trace, not both")
    if own and arguments.targets:
        raise InputError(f"--{own[0]}: your own measurements are scored alone; leave the targets out")
    if own and not arguments.device:
        raise InputError(f"--{own[0]}: needs --device, the device to hold the measurements against")
    if arguments.device and not own:
        raise InputError("--device: a target names its own device; give --csv or --trace with it")
    if arguments.json and arguments.markdown:
        raise InputError("--json: give either --json or --markdown, not both")
    if arguments.list:
        titles = {name: load_target(name).title for name in target_files()}
        width = max(len(name) for name in titles)
        for name, title in titles.items():
            print(f"{name:<{width}}  {title}")
        return 0
    if arguments.top < 0:
        raise InputError(f"--top: expected an integer ≥ 0, got {arguments.top}")
    _options.writable(arguments.out)
    if own:
        path = Path(getattr(arguments, own[0]))
        with stage(f"scoring {path.name} on {arguments.device}"):
            scores = _own(path, own[0], arguments.device)
    else:
        scores = []
        for name in arguments.targets or target_files():
            load_target(name)  # a wrong name fails before the work on the others
        for name in dict.fromkeys(arguments.targets or target_files()):
            with stage(f"scoring {name}"):
                scores += score_target(name)
    files = save_scores(scores, Path(arguments.out)) if arguments.out else []
    if arguments.json:
        print(json.dumps(scoreboard_data(scores), indent=1, allow_nan=False))
    elif arguments.markdown:
        print(scores_markdown(scores))
    else:
        if own:
            print_points(scores[0], most=arguments.top or None)
            print()
        print_scores(scores)
        if files:
            print("\nwritten:")
            for file in files:
                print(f"  {file}")
    return 1 if arguments.strict and any(score.met is False for score in scores) else 0


def _alone(arguments: argparse.Namespace) -> None:
    """--list scores nothing: what says what to score, or how to show it, is refused."""
    if arguments.targets:
        raise InputError(f"--list: lists every target; leave {arguments.targets[0]!r} out")
    for name in ("strict", "csv", "trace", "device", "json", "markdown", "out"):
        if getattr(arguments, name):
            raise InputError(f"--list: scores nothing; leave --{name} out")


def _own(path: Path, kind: str, device: str) -> list[Score]:
    from hwsim.scoreboard import read_measurements, score_points

    if kind == "csv":
        return score_points(path.stem, read_measurements(path), device)
    from hwsim.tracing.profiler import measured_points

    return score_points(path.stem, measured_points(path), device)
