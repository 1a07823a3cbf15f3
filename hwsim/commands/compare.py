"""``hwsim compare``: one model on several devices."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hwsim.commands import _options

SUMMARY = "One model on several devices, side by side."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    _options.add_model(parser)
    parser.add_argument(
        "--device",
        required=True,
        action="append",
        dest="devices",
        metavar="NAME_OR_FILE",
        help="a device; give it several times",
    )
    _options.add_machine(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the comparison, and write it if asked."""
    from hwsim.progress import stage
    from hwsim.registry import get_device
    from hwsim.views.files import save_comparison
    from hwsim.views.table import print_comparison

    _options.writable(arguments.out)
    changes = _options.overrides(arguments.overrides)
    devices = [get_device(name, overrides=changes) for name in arguments.devices]
    workload = _options.workload(arguments, devices=devices)
    reports = []
    for device in devices:
        with stage(f"simulating {workload.name} on {device.name}"):
            reports.append(device.simulate(workload, fidelity=arguments.fidelity))
    files = save_comparison(reports, Path(arguments.out)) if arguments.out else []
    if arguments.json:
        print(json.dumps({"reports": [report.to_dict() for report in reports]}, indent=1))
        return 0
    print_comparison(reports)
    if files:
        print("\nwritten:")
        for file in files:
            print(f"  {file}")
    return 0
