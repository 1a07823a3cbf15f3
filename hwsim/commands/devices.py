"""``hwsim devices``: what machines there are, and their specs."""

from __future__ import annotations

import argparse
import json

from numerics.errors import InputError

SUMMARY = "List the devices, show one's spec, or print a spec to start your own from."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="show this device's spec")
    parser.add_argument("--template", metavar="KIND", help="print a spec of this kind to start your own file from")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout and nothing else")


def run(arguments: argparse.Namespace) -> int:
    """Print the list, a spec or a template."""
    from hwsim.registry import device_names, get_device, read_spec, spec_file, template

    if arguments.template:
        if arguments.name:
            raise InputError("--template: give either a device's name or a kind, not both")
        if arguments.json:
            raise InputError("--json: a template is YAML; leave --json out")
        print(template(arguments.template), end="")
        return 0
    if arguments.name:
        if arguments.json:
            print(json.dumps(get_device(arguments.name).spec.model_dump(mode="json"), indent=1))
        else:
            print(spec_file(arguments.name).read_text(encoding="utf-8"), end="")
        return 0
    rows = [{"name": name, **{k: read_spec(spec_file(name)).get(k, "") for k in ("kind", "summary")}} for name in device_names()]
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return 0
    width, kinds = (max(len(row[column]) for row in rows) for column in ("name", "kind"))
    for row in rows:
        print(f"{row['name']:<{width}}  {row['kind']:<{kinds}}  {row['summary']}")
    return 0
