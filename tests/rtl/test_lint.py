"""Every configuration of every unit is clean under ``verilator --lint-only -Wall``."""

import subprocess

import pytest
from simulators import need

from rtl.simulator import environment
from rtl.verification import SOURCES, benches, configurations


@pytest.mark.parametrize("unit", list(benches()))
def test_no_warning(unit):
    need("verilator")
    for configuration in configurations([unit]):
        values = [f"-G{name}={value}" for name, value in configuration.parameters.items()]
        files = [SOURCES / f"{module}.sv" for module in benches()[unit].modules(configuration.parameters)]
        done = subprocess.run(
            ["verilator", "--lint-only", "-Wall", "--top-module", unit, *values, *map(str, files)],
            capture_output=True, text=True, env=environment("verilator"),
        )  # fmt: skip
        assert done.returncode == 0, f"{configuration.name}: {done.stderr[:3000]}"
        assert "%Warning" not in done.stderr


def test_every_module_belongs_to_a_unit():
    used = {m for c in configurations() for m in benches()[c.unit].modules(c.parameters)}
    assert used == {path.stem for path in SOURCES.glob("*.sv")}


def test_a_file_holds_one_module_of_its_name():
    for path in SOURCES.glob("*.sv"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert [line.split()[1] for line in lines if line.startswith("module ")] == [path.stem]
        assert lines[0].startswith("// "), f"{path.name} says what it is"
