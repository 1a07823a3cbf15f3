"""``hwsim models``: the networks of the zoo."""

from __future__ import annotations

import argparse
import json

SUMMARY = "List the networks of the zoo."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--json", action="store_true", help="print JSON on stdout and nothing else")


def run(arguments: argparse.Namespace) -> int:
    """Print the list."""
    from hwsim import zoo
    from hwsim.views.units import si

    entries = [zoo.get(name) for name in zoo.names()]
    if arguments.json:
        keys = ("name", "summary", "source", "published_parameters", "published_macs")
        print(json.dumps([{k: getattr(e, k) for k in keys} | {"options": sorted(e.options)} for e in entries], indent=1))
        return 0
    print(f"{'name':<20}{'parameters':>12}{'MACs':>12}  options, summary")
    for entry in entries:
        macs = si(entry.published_macs, "") if entry.published_macs else "–"
        options = " ".join(f"--{o.replace('_', '-')}" for o in sorted(entry.options))
        print(f"{entry.name:<20}{si(entry.published_parameters, ''):>12}{macs:>12}  [{options}] {entry.summary}")
    print("\nWeights are random unless --checkpoint FILE gives real ones.")
    return 0
