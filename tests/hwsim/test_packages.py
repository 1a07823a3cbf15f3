"""The distribution: its six packages, its entry points, and what importing it costs."""

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib import metadata, util
from pathlib import Path

import pytest

import hwsim
from hwsim._distribution import PACKAGES, VERSION, foreign_packages
from hwsim.device import Device
from hwsim.registry import read_spec

HOME = Path(hwsim.__file__).resolve().parent.parent
HEAVY = ("torch", "numba", "pandas", "matplotlib", "scipy", "onnx")


def python(code, *, path=None):
    """Run code in a fresh interpreter, with ``path`` searched first."""
    start = f"import sys; sys.path.insert(0, {str(path)!r})\n" if path else ""
    return subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True)


# --- packages -----------------------------------------------------------------------------------------------


def test_the_packages_are_the_six_of_this_distribution():
    assert set(PACKAGES) == {"hwsim", "numerics", "accelerators", "neuromorphic", "photonic", "rtl"}
    for name in PACKAGES:
        package = importlib.import_module(name)
        assert Path(package.__file__).resolve().parent == HOME / name
        assert (HOME / name / "py.typed").is_file()
        assert package.__doc__
    assert VERSION == hwsim.__version__ == metadata.version("hwsim")
    assert foreign_packages(HOME) == {}


@pytest.mark.parametrize("form", ["package", "module"])
def test_a_package_of_another_owner_is_refused_in_one_line(tmp_path, form):
    if form == "package":
        (tmp_path / "numerics").mkdir()
        foreign = tmp_path / "numerics" / "__init__.py"
    else:
        foreign = tmp_path / "numerics.py"
    foreign.write_text("")
    done = python("import hwsim", path=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: hwsim: the package 'numerics' comes from {foreign}, not from hwsim; "
        "uninstall it or use a fresh environment"
    )


def test_the_distribution_that_owns_a_foreign_package_is_named(tmp_path):
    (tmp_path / "photonic").mkdir()
    (tmp_path / "photonic" / "__init__.py").write_text("")
    info = tmp_path / "lasers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lasers\nVersion: 1.0\n")
    (info / "top_level.txt").write_text("photonic\n")
    (info / "RECORD").write_text("photonic/__init__.py,,\n")
    done = python("import hwsim", path=tmp_path)
    assert "the package 'photonic' comes from" in done.stderr.splitlines()[-1]
    assert "(distribution lasers), not from hwsim;" in done.stderr.splitlines()[-1]


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    found = util.find_spec

    def without_rtl(name, *args):
        return None if name == "rtl" else found(name, *args)

    monkeypatch.setattr("hwsim._distribution.find_spec", without_rtl)
    assert foreign_packages(HOME) == {"rtl": "nowhere (not installed)"}


# --- entry points -------------------------------------------------------------------------------------------


def points(group):
    return {point.name: point for point in metadata.entry_points(group=group)}


@pytest.mark.parametrize("group", ["hwsim.devices", "hwsim.loaders", "hwsim.commands", "hwsim.views"])
def test_every_entry_point_loads(group):
    assert points(group)
    for point in points(group).values():
        assert point.load() is not None


def test_devices_are_named_by_their_kind():
    for kind, point in points("hwsim.devices").items():
        cls = point.load()
        assert cls.kind == kind
        assert cls.bundled()
        assert all(isinstance(cls.from_data(read_spec(path), source=name), Device) for name, path in cls.bundled().items())


def test_commands_have_the_three_things_they_need():
    assert {"run", "devices", "models", "compare", "trace"} <= set(points("hwsim.commands"))
    for point in points("hwsim.commands").values():
        command = point.load()
        assert command.SUMMARY.endswith(".")
        assert callable(command.add_arguments)
        assert callable(command.run)


def test_loaders_are_named_by_suffix():
    assert {"onnx", "csv", "json"} <= set(points("hwsim.loaders"))


PLUGIN = """
from pathlib import Path

from pydantic import BaseModel


class Spec(BaseModel):
    kind: str
    name: str


class Abacus:
    kind = "abacus"
    fidelities = ("beads",)
    default_fidelity = "beads"

    def __init__(self, spec):
        self.spec = spec

    @property
    def name(self):
        return self.spec.name

    @classmethod
    def bundled(cls):
        return {"my_abacus": Path(__file__).with_name("my_abacus.yaml")}

    @classmethod
    def from_data(cls, data, *, source):
        return cls(Spec(**data))

    def simulate(self, workload, *, fidelity=None, inputs=None, parameters=None):
        raise NotImplementedError


SUMMARY = "Counts beads."


def add_arguments(parser):
    parser.add_argument("beads", type=int)


def run(arguments):
    print(arguments.beads * 2)
    return 0


def load(path):
    from hwsim.workload import Workload

    return Workload(Path(path).read_text().strip(), (), {})
"""


def test_another_package_can_bring_devices_commands_and_loaders(tmp_path):
    (tmp_path / "abacus.py").write_text(PLUGIN)
    (tmp_path / "my_abacus.yaml").write_text("kind: abacus\nname: my_abacus\n")
    (tmp_path / "w.beads").write_text("from beads\n")
    info = tmp_path / "abacus-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: abacus\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[hwsim.devices]\nabacus = abacus:Abacus\n[hwsim.commands]\nbeads = abacus\n[hwsim.loaders]\nbeads = abacus:load\n"
    )
    done = python(
        "import hwsim\n"
        "from hwsim.cli import main\n"
        "main(['beads', '21'])\n"
        "print('my_abacus' in hwsim.device_names(), hwsim.get_device('my_abacus').kind)\n"
        "print(hwsim.get_device({'kind': 'abacus', 'name': 'other'}).name)\n"
        f"print(hwsim.load_workload({str(tmp_path / 'w.beads')!r}).name)\n",
        path=tmp_path,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["42", "True abacus", "other", "from beads"]


# --- what importing costs -----------------------------------------------------------------------------------

CLI = "from hwsim.cli import main; import io, contextlib\nwith contextlib.redirect_stdout(io.StringIO()): main({words!r})\n"


@pytest.mark.parametrize(
    "code",
    [
        "import hwsim\n",
        "import hwsim, numerics, accelerators, neuromorphic, photonic, rtl\n",
        "import hwsim; hwsim.device_names(); hwsim.get_device('tpu_v1'); hwsim.Workload; hwsim.Report\n",
        CLI.format(words=["--help"]),
        CLI.format(words=["devices"]),
        CLI.format(words=["devices", "tpu_v1"]),
        CLI.format(words=["models"]),
    ],
    ids=["hwsim", "all six", "lazy names", "help", "devices", "a device", "models"],
)
def test_nothing_heavy_is_imported_for_it(code):
    done = python(code + f"import sys; print([name for name in {HEAVY!r} if name in sys.modules])")
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "[]"


def test_tracing_is_what_imports_torch():
    done = python("import sys, hwsim; hwsim.trace; print('torch' in sys.modules, 'numba' in sys.modules)")
    assert done.stdout == "True False\n"


def test_every_public_name_is_there():
    for name in hwsim.__all__:
        assert getattr(hwsim, name) is not None
    assert dir(hwsim) == sorted(hwsim.__all__)
    with pytest.raises(AttributeError, match=r"^module 'hwsim' has no attribute 'simulat'$"):
        _ = hwsim.simulat
