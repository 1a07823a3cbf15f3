"""Options that several commands share."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterable
from typing import Any

from hwsim.device import Device
from hwsim.workload import Workload
from numerics.errors import InputError

MODEL_HELP = "zoo name (hwsim models), .onnx, .nir, SCALE-Sim .csv or .json file, or package.module:callable"


def add_model(parser: argparse.ArgumentParser) -> None:
    """MODEL and the options that shape it."""
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("--batch", type=int, metavar="N", help="batch size")
    parser.add_argument("--seq-len", type=int, metavar="N", help="tokens in a sequence")
    parser.add_argument("--kv-len", type=int, metavar="N", help="tokens already in the KV cache (decode)")
    parser.add_argument("--phase", choices=("prefill", "decode"), help="phase of a language model")
    parser.add_argument(
        "--mode",
        choices=("inference", "training"),
        default="inference",
        help="forward only, or with backward and AdamW step",
    )
    parser.add_argument("--values", action="store_true", help="trace on real tensors and record their densities")
    parser.add_argument("--checkpoint", metavar="FILE", help="weights of a zoo model (.pt or .safetensors); random otherwise")
    spikes = parser.add_argument_group("spiking networks (.nir; modules for chips)")
    spikes.add_argument("--input", metavar="FILE", help="events (.npz, .csv) that go in; seeded random ones otherwise")
    spikes.add_argument("--steps", type=int, metavar="N", help="time steps (default: 100, or those of the events)")
    spikes.add_argument("--rate", type=float, metavar="R", help="without events: spikes a neuron and step (default: 0.05)")
    spikes.add_argument("--seed", type=int, metavar="S", help="of those events (default: 0)")
    spikes.add_argument("--dt", type=float, metavar="SECONDS", help="length of a time step (default: 0.001)")
    spikes.add_argument("--duplicates", choices=("refuse", "once", "add"), help="events of a neuron in the same step")
    spikes.add_argument("--integration", choices=("euler", "exponential"), help="how equations become steps (default: euler)")
    spikes.add_argument("--reset", choices=("immediate", "next_step"), help="when a spike resets (default: immediate)")
    spikes.add_argument("--reset-mode", choices=("zero", "subtract"), help="to the file's v_reset, or down by the threshold")


SPIKING = {
    "input": "events", "steps": "steps", "rate": "rate", "seed": "seed", "dt": "dt_s", "duplicates": "duplicates",
    "integration": "integration", "reset": "reset", "reset_mode": "reset_mode",
}  # fmt: skip
"""Options of spiking networks → what a loader calls them."""


def add_machine(parser: argparse.ArgumentParser) -> None:
    """How the machine runs it."""
    parser.add_argument("--formats", metavar="RECIPE", help="number formats: a recipe's name or file; the device's otherwise")
    parser.add_argument("--fidelity", metavar="F", help="rung of the device's ladder (systolic: analytic, tile, cycle)")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change a field of the spec",
    )
    parser.add_argument("--out", metavar="DIR", help="write the report, its pictures and timeline there")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout and nothing else")


def workload(arguments: argparse.Namespace, *, devices: Iterable[Device] = ()) -> Workload:
    """The workload the options describe, in the formats they name; for an event-driven device among ``devices`` one of spikes."""
    from hwsim.api import workload_from
    from hwsim.progress import stage

    # What a model prints while it is traced is not part of the JSON on stdout.
    prints = contextlib.redirect_stdout(sys.stderr) if getattr(arguments, "json", False) else contextlib.nullcontext()
    with stage(f"tracing {arguments.model}"), prints:
        found = workload_from(
            arguments.model,
            batch=arguments.batch,
            seq_len=arguments.seq_len,
            kv_len=arguments.kv_len,
            phase=arguments.phase,
            mode=arguments.mode,
            values=arguments.values,
            checkpoint=arguments.checkpoint,
            device=next((one for one in devices if getattr(one, "event_driven", False)), None),
            **{name: getattr(arguments, option, None) for option, name in SPIKING.items()},
        )
    formats = getattr(arguments, "formats", None)
    return found.with_formats(formats) if formats else found


def overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """``FIELD=VALUE`` words as a mapping; values are read as YAML."""
    from numerics.documents import read_yaml

    found: dict[str, Any] = {}
    for word in assignments:
        field, equals, value = word.partition("=")
        if not equals or not field:
            raise InputError(f"--set: expected FIELD=VALUE, such as array.rows=128, got {word!r}")
        try:
            found[field] = read_yaml(value)
        except InputError:
            raise InputError(f"--set: {field}: cannot read the value {value!r}") from None
    return found


def writable(folder: str | None) -> None:
    """Fail before the work, not after it, when the output folder cannot be written."""
    if folder is None:
        return
    from pathlib import Path

    from hwsim.views.files import prepare_folder

    prepare_folder(Path(folder))
