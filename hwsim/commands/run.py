"""``hwsim run``: one model on one device."""

from __future__ import annotations

import argparse

from hwsim.commands import _options
from numerics.errors import InputError

SUMMARY = "Latency, energy and traffic of a model on a device, operator by operator."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    _options.add_model(parser)
    parser.add_argument("--device", required=True, metavar="NAME_OR_FILE", help="a device (hwsim devices) or a .yaml spec")
    _options.add_machine(parser)
    parser.add_argument("--top", type=int, default=30, metavar="N", help="show the N slowest operators (0: all)")


def run(arguments: argparse.Namespace) -> int:
    """Print the report, and write it if asked."""
    from hwsim.machine import Machine
    from hwsim.progress import stage
    from hwsim.registry import get_device

    if arguments.top < 0:
        raise InputError(f"--top: expected an integer ≥ 0, got {arguments.top}")
    _options.writable(arguments.out)
    device = get_device(arguments.device, overrides=_options.overrides(arguments.overrides))
    workload = _options.workload(arguments, devices=(device,))
    with stage(f"simulating {workload.name} on {device.name} (kernels compile on the first use)"):
        report = device.simulate(workload, fidelity=arguments.fidelity)
    files = []
    if arguments.out:
        with stage("drawing"):
            files = report.save(arguments.out)
    if arguments.json:
        print(report.to_json())
        return 0
    report.print(most=arguments.top or None)
    area = device.area() if isinstance(device, Machine) else None
    if area is not None and area.known_mm2:
        print(f"area: {area.summary()}")
    if files:
        print("\nwritten:")
        for file in files:
            print(f"  {file}")
    return 0
