"""``hwsim search``: the study of a file."""

from __future__ import annotations

import argparse

from hwsim.commands import _explorations

SUMMARY = "A study of a file: the configurations of a large space that none other beats, beside random ones."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("study", metavar="STUDY.yaml", help="what is evaluated, what varies, what is sought")
    parser.add_argument("--trials", type=int, metavar="N", help="instead of the file's")
    parser.add_argument("--seed", type=int, metavar="S", help="instead of the file's")
    _explorations.add_run(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the study, print its front, and write it."""
    from hwsim.explore.study_file import StudyFile

    study = StudyFile.read(arguments.study)
    changed = {name: getattr(arguments, name) for name in ("trials", "seed") if getattr(arguments, name) is not None}
    if changed:
        data = study.model_dump(mode="json", exclude_unset=True) | changed
        study = _explorations.study(arguments.study, data)
    return _explorations.run(study, arguments)
