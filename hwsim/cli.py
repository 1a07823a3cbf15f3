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
from numerics.errors import InputError, unknown_name


class CommandParser(argparse.ArgumentParser):
    """The parser of a command: errors in one line, exit code 2."""

    def error(self, message: str) -> None:  # type: ignore[override]
        sys.stderr.write(f"{self.prog}: error: {InputError(message)}\n")
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
        sys.stderr.write(f"hwsim: error: {unknown_name('command', name, commands)}\n")
        return 2
    try:
        module = commands[name].load()
    except Exception as error:  # a command of another package that cannot be imported
        sys.stderr.write(f"hwsim: error: {InputError(f'command {name!r} cannot be loaded: {type(error).__name__}: {error}')}\n")
        return 2
    parser = CommandParser(prog=f"hwsim {name}", description=module.SUMMARY)
    module.add_arguments(parser)
    try:
        for word in words[1:]:
            if word.startswith("--") and word.endswith("=--"):  # of which argparse would make an empty list
                parser.error(f"argument {word[:-3]}: expected one argument, got '--'")
        arguments = parser.parse_args(words[1:])
        return int(module.run(arguments))
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 2
    except InputError as error:
        sys.stderr.write(f"hwsim {name}: error: {error}\n")
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        told = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
        sys.stderr.write(f"hwsim {name}: error: {InputError(told)}\n")
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
