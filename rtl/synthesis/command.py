"""``python -m rtl.synthesis``: units in gates, their cells, area and switching energy, and the ratios that specs may cite."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hwsim.cli import CommandParser
from numerics.errors import InputError
from rtl.synthesis.gates import STREAMS, Gates, Synthesised, chosen_configurations, units_in_gates
from rtl.synthesis.ratio_table import QUANTITIES, RATIOS, REFERENCE, ratio_text
from rtl.synthesis.yosys import yosys_version

LIBERTY = Path("/usr/share/qflow/tech/osu035/osu035_stdcells.lib")
"""Where Debian's package qflow-tech-osu035 puts the Oklahoma State University library for 0.35 µm."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, 1 where a unit is refused or its netlist is not its model, 2 for bad input."""
    parser = CommandParser(
        prog="python -m rtl.synthesis", description="Units in gates: cells, area, switching energy by kind of data."
    )
    parser.add_argument("--units", nargs="+", default=[], metavar="UNIT", help="these only")
    parser.add_argument("--liberty", metavar="FILE", help=f"library of cells (default: {LIBERTY}, if it is there)")
    parser.add_argument("--cycles", type=int, default=512, metavar="N", help=f"of a run on {STREAMS} streams (default 512)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the data (default 0)")
    parser.add_argument(
        "--write", nargs="?", const=str(RATIOS), metavar="FILE", help="write the ratios (default: hwsim's own file)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON on stdout and nothing else")
    try:
        return _main(parser.parse_args(argv))
    except InputError as error:
        sys.stderr.write(f"python -m rtl.synthesis: error: {' '.join(str(error).split())}\n")
        return 2
    except OSError as error:
        sys.stderr.write(
            f"python -m rtl.synthesis: error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}\n"
        )
        return 2
    except RuntimeError as error:  # Yosys refuses a unit, and says why in many lines
        sys.stderr.write(f"python -m rtl.synthesis: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("python -m rtl.synthesis: interrupted\n")
        return 130


def _main(arguments: argparse.Namespace) -> int:
    begin = time.perf_counter()
    liberty = Path(arguments.liberty) if arguments.liberty else LIBERTY if LIBERTY.is_file() else None
    if arguments.write and (arguments.units or liberty is None):
        raise InputError("--write: expected all units and a library of cells (Debian: apt-get install qflow-tech-osu035)")
    if arguments.write and not Path(arguments.write).resolve().parent.is_dir():
        raise InputError(f"--write: expected a file in a folder that exists, got {arguments.write!r}")
    # The reference is always there, but shown only where it is asked for.
    units = arguments.units and list(dict.fromkeys([*arguments.units, REFERENCE[0]]))
    chosen_configurations(units)
    version = yosys_version()
    results = units_in_gates(units, liberty=liberty, cycles=arguments.cycles, seed=arguments.seed)
    shown = [r for r in results if not arguments.units or r.unit in arguments.units]
    reference = next(r for r in results if (r.unit, r.configuration) == REFERENCE)
    if arguments.json:
        units_data = [_plain(result, reference) for result in shown]
        about = {"yosys": version, "liberty": None if liberty is None else str(liberty), "reference": " ".join(REFERENCE)}
        print(json.dumps({**about, "units": units_data}, indent=1))
    else:
        _print_table(shown, reference)
        print(f"\n{version}; {time.perf_counter() - begin:.0f} s. " + _notes(liberty))
    if arguments.write:
        Path(arguments.write).write_text(
            ratio_text(results, version=version, cycles=arguments.cycles, seed=arguments.seed), encoding="utf-8"
        )
        if not arguments.json:
            print(f"Ratios written to {arguments.write}")
    wrong = [(r, g) for r in results for g in (r.generic, r.mapped) if g is not None and g.mismatching_cycles]
    for result, gates in wrong:
        sys.stderr.write(
            f"python -m rtl.synthesis: {result.unit} {result.configuration} in {gates.library} gates is not its model in "
            f"{gates.mismatching_cycles} of {gates.replayed_cycles} cycles\n"
        )
    return 1 if wrong else 0


def _plain(result: Synthesised, reference: Synthesised) -> dict[str, Any]:
    about: dict[str, Any] = {"unit": result.unit, "configuration": result.configuration, "per": result.per}
    for name, gates, base in (("generic", result.generic, reference.generic), ("mapped", result.mapped, reference.mapped)):
        about[name] = None if gates is None or base is None else _plain_gates(gates, base)
    return {**about, "seconds": result.seconds, "synthesis_seconds": result.synthesis_seconds}


def _plain_gates(gates: Gates, base: Gates) -> dict[str, Any]:
    size = "transistors" if gates.library == "generic" else "area"
    found = {name: value for name, value in dataclasses.asdict(gates).items() if name != "size" and value != {}}
    found |= {f"{size}_um2" if size == "area" else size: gates.size, f"relative_{size}": gates.size / base.size}
    for name, of in QUANTITIES.items():
        if getattr(gates, name):
            found[f"relative_{of}"] = {data: v / getattr(base, name)["random"] for data, v in getattr(gates, name).items()}
    return found


def _print_table(results: Sequence[Synthesised], reference: Synthesised) -> None:
    kinds = list(dict.fromkeys(data for r in results for data in r.generic.toggles))
    head = f"{'unit':<18}{'configuration':<15}{'gates':>7}{'flipflops':>11}{'transistors':>13}{'cells':>8}{'area_um2':>11}"
    print(head + "".join(f"{kind:>9}" for kind in kinds) + f"{'seconds':>9}  per")
    for r in results:
        mapped = f"{r.mapped.cells:>8}{r.mapped.size:>11.0f}" if r.mapped else f"{'–':>8}{'–':>11}"
        line = f"{r.unit:<18}{r.configuration:<15}{r.generic.cells:>7}{r.generic.flipflops:>11}{r.generic.size:>13.0f}{mapped}"
        values, base = (r.generic.toggles, reference.generic.toggles)
        if r.mapped is not None and reference.mapped is not None:
            values, base = r.mapped.energy_pj, reference.mapped.energy_pj
        for kind in kinds:
            line += f"{values[kind] / base['random']:>9.3f}" if kind in values else f"{'–':>9}"
        print(f"{line}{r.seconds:>9.1f}  {r.per or '–'}")


def _notes(liberty: Path | None) -> str:
    if liberty is None:
        return (
            f"No library of cells at {LIBERTY} (Debian: apt-get install qflow-tech-osu035): generic gates only.\n"
            f"Last columns: toggles of nets per operation, relative to {' '.join(REFERENCE)} on random operands."
        )
    return (
        f"Cells of {liberty}.\nLast columns: energy per operation, relative to {' '.join(REFERENCE)} on random operands; "
        "without wires, clock tree, "
        "glitches and leakage.\nThese are ratios within an old library, no areas or energies of a modern node."
    )
