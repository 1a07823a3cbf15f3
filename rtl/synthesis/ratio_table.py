"""The file of ratios between units that specs of every package can cite, ``hwsim/data/rtl_ratios.csv``."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from numerics.errors import InputError
from rtl.synthesis.gates import STREAMS, Synthesised

RATIOS = Path(str(resources.files("hwsim"))) / "data" / "rtl_ratios.csv"

REFERENCE = ("mac_int8", "wrapping")
"""Unit and configuration that ratios are relative to, energies with random operands."""

QUANTITIES = {"energy_pj": "energy", "signal_pj": "signal_energy", "toggles": "toggles"}
"""Fields of ``rtl.synthesis.gates.Gates`` by kind of data, and what their ratios are called."""

_ABOUT = """
Ratios of area and switching energy between the units of rtl/, as synthesised. Printed again by:

python -m rtl.synthesis --write

A value is relative to {reference}, energies and toggles to its multiply-accumulate of random operands. They are per
operation, which the column per names; areas and transistors are per unit.

Tools: {version}. Cells: {library}, Oklahoma State University's for 0.35 um, typical corner, as in Debian's
qflow-tech-osu035; generic are Yosys' own gates. The least area that abc finds, without timing constraint and without
adder cells.

energy: toggles of each net in a gate-level run ({cycles} cycles of {streams} streams, seed {seed}), each times the
internal energy of the cell that drives it plus half C V^2 of the pins on it; and the clock at the pins of the flip-flops
in every cycle. signal_energy: the same without that clock. toggles: of all nets, each weighing the same.

What they are NOT: absolute areas or energies of any node, least of all a modern one. There are no wires, no clock tree,
no glitches (delays are zero, which flatters deep logic such as a dense multiplier beside a bit-serial one), no leakage,
no placement and no sizing for speed; memories are flip-flops; the units would run at different clocks.
Writing a unit in other words has moved its figures by a tenth.

data: random, uniform over full scale; sparse, the same with 80 % of the second operands zero; small, Gaussian with a
deviation of 1/16 of full scale; binary, +1 and -1. Sums are of 64 products. Every format is given the same numbers.
"""

_COLUMNS = ("quantity", "unit", "configuration", "per", "data", "library", "value")


def ratio_rows(results: Sequence[Synthesised]) -> list[dict[str, str]]:
    """The rows of the file of ratios, relative to the reference among the results.

    Raises:
        InputError: the results lack the reference.
    """
    reference = next((r for r in results if (r.unit, r.configuration) == REFERENCE), None)
    if reference is None:
        raise InputError(f"ratios: expected {' '.join(REFERENCE)} among the units")
    rows = []
    for result in results:
        for gates, base in ((result.generic, reference.generic), (result.mapped, reference.mapped)):
            if gates is None or base is None:
                continue
            common = {"unit": result.unit, "configuration": result.configuration, "library": gates.library}
            area = "transistors" if gates.library == "generic" else "area"
            rows.append({**common, "quantity": area, "per": "unit", "data": "", "value": f"{gates.size / base.size:.4g}"})
            for name, of in QUANTITIES.items():
                if (gates.library == "generic") != (of == "toggles"):
                    continue
                for data, value in getattr(gates, name).items():
                    relative = value / getattr(base, name)["random"]
                    rows.append({**common, "quantity": of, "per": result.per, "data": data, "value": f"{relative:.4g}"})
    order = ("area", "energy", "signal_energy", "transistors", "toggles")
    return sorted(rows, key=lambda row: order.index(row["quantity"]))


def ratio_text(results: Sequence[Synthesised], *, version: str, cycles: int, seed: int) -> str:
    """The file of ratios: what they are and are not, then the rows."""
    names = sorted({r.mapped.library for r in results if r.mapped is not None})
    about = _ABOUT.format(
        reference=" ".join(REFERENCE), version=version, library=", ".join(names), cycles=cycles, streams=STREAMS, seed=seed
    )
    text = io.StringIO()
    for paragraph in about.split("\n\n"):
        text.writelines(f"# {line}\n" for line in textwrap.wrap(" ".join(paragraph.split()), 126, break_on_hyphens=False))
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(ratio_rows(results))
    return text.getvalue()
