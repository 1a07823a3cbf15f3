"""The command line: ``hwsim COMMAND …``. Commands come from the entry-point group ``hwsim.commands``.

A command is a module with ``SUMMARY``, ``add_arguments(parser)`` and ``run(arguments) -> int``.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import metadata

from hwsim.plugins import load_group
from numerics.errors import InputError, nearest_names


class CommandParser(argparse.ArgumentParser):
    """The parser of a command: errors in one line, exit code 2."""

    def error(self, message: str) -> None:  # type: ignore[override]
        sys.stderr.write(f"{self.prog}: error: {message}\n")
        raise SystemExit(2)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (2 for bad input)."""
    words = list(sys.argv[1:] if argv is None else argv)
    commands = {entry.name: entry for entry in metadata.entry_points(group="hwsim.commands")}
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        from hwsim import __version__

        print(f"hwsim {__version__}")
        return 0
    name = words[0]
    if name not in commands:
        sys.stderr.write(f"hwsim: error: command: unknown name {name!r}; {nearest_names(name, commands)}\n")
        return 2
    try:
        module = commands[name].load()
    except Exception as error:  # a command of another package that cannot be imported
        sys.stderr.write(f"hwsim: error: command {name!r} cannot be loaded: {type(error).__name__}: {error}\n")
        return 2
    parser = CommandParser(prog=f"hwsim {name}", description=module.SUMMARY)
    module.add_arguments(parser)
    try:
        arguments = parser.parse_args(words[1:])
        return int(module.run(arguments))
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 2
    except InputError as error:
        sys.stderr.write(f"hwsim {name}: error: {' '.join(str(error).split())}\n")
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        sys.stderr.write(f"hwsim {name}: error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}\n")
        return 2
    except KeyboardInterrupt as error:
        sys.stderr.write(f"hwsim {name}: {str(error) or 'interrupted'}\n")
        return 130


def _overview() -> str:
    lines = [
        "usage: hwsim COMMAND [OPTIONS]",
        "",
        "What a workload costs on a machine, and what it computes there.",
        "",
    ]
    modules = load_group("hwsim.commands")
    lines += [f"  {name:<10} {modules[name].SUMMARY}" for name in sorted(modules)]
    lines += ["", "hwsim COMMAND --help shows a command's options; hwsim --version the version."]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
