"""``hwsim serve``: a language model's serving figures on one or more devices."""

from __future__ import annotations

import argparse
import json

from hwsim.commands import _options

SUMMARY = "Time to first token, time per token, tokens/s and KV cache of a language model on devices."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("model", metavar="MODEL", help="a language model of the zoo (hwsim models), or package.module:callable")
    parser.add_argument(
        "--device", required=True, action="append", dest="devices", metavar="NAME_OR_FILE", help="a device; give it several times"
    )
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="requests served together (1)")
    parser.add_argument("--prompt", type=int, default=512, metavar="N", help="tokens of each prompt (512)")
    parser.add_argument("--output", type=int, default=128, metavar="N", help="tokens of each answer (128)")
    parser.add_argument("--formats", metavar="RECIPE", help="number formats: a recipe's name or file; the device's otherwise")
    parser.add_argument("--fidelity", metavar="F", help="rung of the device's ladder")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="FIELD=VALUE", help="change a field of the spec"
    )
    parser.add_argument("--json", action="store_true", help="print JSON on stdout and nothing else")


def run(arguments: argparse.Namespace) -> int:
    """Print the figures, a column a device."""
    from hwsim.progress import stage
    from hwsim.serving import serve
    from hwsim.views.serving import print_serving

    changes = _options.overrides(arguments.overrides)
    found = []
    for device in arguments.devices:
        with stage(f"serving {arguments.model} on {device}"):
            found.append(
                serve(
                    arguments.model,
                    device=device,
                    batch=arguments.batch,
                    prompt_tokens=arguments.prompt,
                    output_tokens=arguments.output,
                    recipe=arguments.formats,
                    fidelity=arguments.fidelity,
                    overrides=changes,
                )
            )
    if arguments.json:
        print(json.dumps({"serving": [figures.to_dict() for figures in found]}, indent=1))
    else:
        print_serving(found)
    return 0
