"""``hwsim calibrate``: fit a device's few calibrated fields to measurements."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from numerics.errors import InputError, unknown_name

SUMMARY = "Fit the few calibrated fields of a device to measurements, and write its spec with them."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("device", metavar="DEVICE", help="a device (hwsim devices) or a .yaml spec")
    parser.add_argument("file", metavar="FILE", help="measurements, as hwsim measure writes them (.csv)")
    parser.add_argument(
        "--fit", action="append", default=[], metavar="NAME", help="fit this group of fields only; repeat for more"
    )
    parser.add_argument("--folds", type=int, default=5, metavar="N", help="folds of the cross-validation (5)")
    parser.add_argument("--out", metavar="SPEC.yaml", help="write the spec with the fitted values there")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout and nothing else")


def run(arguments: argparse.Namespace) -> int:
    """Fit, print the errors before and after, and write the spec if asked."""
    from hwsim.progress import stage
    from hwsim.scoreboard.calibration import calibrate
    from hwsim.scoreboard.measurements import read_measurements

    if arguments.folds < 2:
        raise InputError(f"--folds: expected an integer ≥ 2, got {arguments.folds}")
    if arguments.out and Path(arguments.out).suffix not in (".yaml", ".yml"):
        raise InputError(f"--out: expected a .yaml file, got {arguments.out!r}")
    data, text = _spec(arguments.device)
    points = read_measurements(arguments.file)
    with stage(f"fitting {data.get('name')} to {arguments.file}"):
        fits, skipped, fitted = calibrate(
            data, points, source=Path(arguments.file).name, only=arguments.fit, folds=arguments.folds
        )
    if arguments.out:
        Path(arguments.out).write_text(_with_section(text, fitted["calibrated"]), encoding="utf-8")
    if arguments.json:
        print(
            json.dumps(
                {"fits": [fit.to_dict() for fit in fits], "left_out": skipped, "calibrated": fitted["calibrated"]}, indent=1
            )
        )
        return 0
    for line in skipped:
        print(f"left out, {line}", file=sys.stderr)
    for fit in fits:
        print(f"{fit.name}: {fit.points} points")
        for field, value in fit.values.items():
            print(f"  {field} = {value:g}")
        print(
            f"  mean error {fit.before.mean:.1f} % before, {fit.after.mean:.1f} % after, "
            f"{fit.cross_validated.mean:.1f} % cross-validated (worst {fit.cross_validated.worst:.1f} %)"
        )
    if arguments.out:
        print(f"written: {arguments.out}")
    return 0


def _spec(device: str) -> tuple[dict[str, Any], str]:
    """Data and text of a spec, by its device's name or file."""
    from hwsim.registry import device_names, get_device, read_spec, spec_file

    if device in device_names():
        path = spec_file(device)
    elif device.endswith((".yaml", ".yml")):
        path = Path(device)
    else:
        raise unknown_name("device", device, device_names())
    data = read_spec(path)
    get_device(data)
    return data, path.read_text(encoding="utf-8")


def _with_section(text: str, section: dict[str, Any]) -> str:
    """A spec's text, comments and all, with another section ``calibrated``."""
    import yaml

    kept = re.sub(
        r"^calibrated:.*\n(?:(?:[ \t].*|#.*|)\n)*", "", text if text.endswith("\n") else f"{text}\n", flags=re.MULTILINE
    )
    return kept.rstrip("\n") + "\n" + yaml.safe_dump({"calibrated": section}, sort_keys=False, width=120)
