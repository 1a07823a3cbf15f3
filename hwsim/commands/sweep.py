"""``hwsim sweep``: one model on every variation of a device."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hwsim.commands import _explorations, _options
from numerics.errors import InputError

SUMMARY = "One model on every variation of a device: what varies, what each costs, and the front."

EXAMPLES = "examples: rows=16,32,64   dataflow=ws,os   clock_hz=1e8:1e9:log   formats=int8,bf16   device=tpu_v1,gemmini_16x16"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("model", metavar="MODEL", help=_options.MODEL_HELP)
    parser.add_argument("--device", metavar="NAME_OR_FILE", help="the device; may be left out where device varies")
    parser.add_argument(
        "--vary",
        action="append",
        required=True,
        metavar="NAME=VALUES",
        help=f"a field of the device, formats, batch, model.ARGUMENT: a list, or low:high[:step or log]; {EXAMPLES}",
    )
    parser.add_argument("--fidelity", metavar="F", help="rung of the device's ladder")
    parser.add_argument("--rescore", metavar="F", help="rung at which the front is evaluated anew")
    parser.add_argument("--formats", metavar="RECIPE", help="number formats: a recipe's name or file; the device's otherwise")
    parser.add_argument("--batch", type=int, metavar="N", help="batch size")
    parser.add_argument("--seq-len", type=int, metavar="N", help="tokens in a sequence")
    parser.add_argument("--kv-len", type=int, metavar="N", help="tokens already in the KV cache (decode)")
    parser.add_argument("--phase", choices=("prefill", "decode"), help="phase of a language model")
    parser.add_argument("--mode", choices=("inference", "training"), default="inference", help="forward only, or a training step")
    parser.add_argument(
        "--evaluate",
        action="append",
        default=[],
        metavar="PACKAGE.MODULE:CALLABLE",
        help="a function of the configuration that gives a further metric, such as accuracy",
    )
    parser.add_argument(
        "--objectives", metavar="M,…", help="what makes a configuration better (default: time_s,energy_j); accuracy=max"
    )
    parser.add_argument(
        "--constraint", action="append", default=[], metavar="BOUND", help="what must hold, such as 'area_mm2 <= 10'"
    )
    parser.add_argument("--sample", type=int, metavar="N", help="so many random configurations instead of all")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the sample (default: 0)")
    _explorations.add_run(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the sweep, print its front, and write it."""
    return _explorations.run(_explorations.study("options", _data(arguments)), arguments)


def _data(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options as a study's data."""
    space: dict[str, Any] = {}
    for word in arguments.vary:
        name, values = _varied(word)
        if name in space:
            raise InputError(f"--vary: {name} is given twice")
        space[name] = values
    cost = {
        "model": arguments.model, "device": arguments.device, "fidelity": arguments.fidelity, "formats": arguments.formats,
        "batch": arguments.batch, "seq_len": arguments.seq_len, "kv_len": arguments.kv_len, "phase": arguments.phase,
        "mode": arguments.mode,
    }  # fmt: skip
    data: dict[str, Any] = {
        "name": f"{Path(arguments.model).stem} on {arguments.device or 'several devices'}",
        "method": "sweep",
        "cost": {name: value for name, value in cost.items() if value is not None},
        "evaluate": arguments.evaluate,
        "space": space,
        "constraints": arguments.constraint,
        "seed": arguments.seed,
    }
    if arguments.objectives is not None:
        data["objectives"] = arguments.objectives.split(",")
    for name in ("sample", "rescore"):
        if getattr(arguments, name) is not None:
            data[name] = getattr(arguments, name)
    return data


def _varied(word: str) -> tuple[str, Any]:
    """``NAME=VALUES`` as a parameter of a space."""
    name, equals, text = word.partition("=")
    if not equals or not name or not text:
        raise InputError(f"--vary: expected NAME=VALUES, such as array.rows=16,32, got {word!r}")
    parts = text.split(":")
    if "," in text or len(parts) == 1:
        return name, [_value(name, part) for part in text.split(",")]
    if len(parts) not in (2, 3):
        raise InputError(f"--vary: {name}: expected low:high, low:high:step or low:high:log, got {text!r}")
    found: dict[str, Any] = {"low": _value(name, parts[0]), "high": _value(name, parts[1])}
    if len(parts) == 3 and parts[2] == "log":
        found["log"] = True
    elif len(parts) == 3:
        found["step"] = _value(name, parts[2])
        if not all(isinstance(value, int) for value in found.values()):
            return name, _steps(name, text, **found)
    return name, found


def _steps(name: str, text: str, *, low: Any, high: Any, step: Any) -> list[float]:
    """The numbers low, low + step, … up to high."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (low, high, step))
    if not numbers or not step > 0 or not low <= high or (high - low) / step > 1e6:
        raise InputError(f"--vary: {name}: expected numbers low:high:step with low ≤ high and a step above 0, got {text!r}")
    count = int((high - low) / step * (1 + 1e-12)) + 1
    return [float(f"{low + i * step:.12g}") for i in range(count)]


def _value(name: str, text: str) -> Any:
    from numerics.documents import read_yaml

    if ":" in text:  # to YAML a number to the base of 60
        raise InputError(f"--vary: {name}: expected a list or a range, got {text!r} in a list")
    try:
        value = read_yaml(text)
    except InputError:
        raise InputError(f"--vary: {name}: cannot read the value {text!r}") from None
    if not isinstance(value, str | int | float | bool):
        raise InputError(f"--vary: {name}: expected numbers, texts or truth values, got {text!r}")
    return value
