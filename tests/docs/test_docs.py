"""The documentation runs: its Python, its commands, and the output it shows; and it names every option, field and figure.

Conventions of a page, in Markdown that renders as if they were not there:

- ``python`` blocks run in order in one namespace, ``bash`` blocks through the shell, both in a folder made for the page.
- A ``text`` block directly after such a block is part of its output: its lines appear there in this order, others may lie
  between. ``…`` stands for anything, and runs of blanks count as one.
- ``<!-- file: NAME -->`` before a block: it is written to NAME instead. Beside a ``pyproject.toml`` the folder counts as
  installed.
- ``<!-- fails -->`` before a block: it ends with an ``InputError`` (a command with exit code 2 and one line).
- ``<!-- repository -->``: from here on the page's folder holds a copy of this repository's packages, and each Python block is a
  process of its own.
- ``<!-- change: NAME -->`` before a ``diff`` block: the lines with a blank or a minus are one place in NAME, and become those
  with a blank or a plus.
"""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
from pydantic import BaseModel
from simulators import need

import hwsim
from hwsim.cli import CommandParser, main
from hwsim.registry import device_classes

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), *(p for p in [ROOT / "README.md"] if p.is_file())]
BIN = Path(sys.executable).parent
ELSEWHERE = ("make ", "pip install ", "git clone ", "cd ")
"""Commands that install or build; the tests of the packaging and CI itself run them."""

_FENCE = re.compile(r"^```(\w*)\s*$")
_COMMENT = re.compile(r"^<!-- (?:(file|change): (\S+)|(fails)) -->$")
_REPOSITORY = "<!-- repository -->"
ROOMS = ("hwsim", "numerics", "accelerators", "neuromorphic", "photonic", "rtl")


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    line: int
    file: str = ""
    fails: bool = False
    change: str = ""
    apart: bool = False
    """Whether it runs in a copy of the repository."""
    follows: bool = False
    """Whether only blank lines lie between it and the block before."""


def blocks(page: Path) -> list[Block]:
    found: list[Block] = []
    file, change, fails, apart, follows, opened = "", "", False, False, False, None
    lines: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if opened is not None:
            if line == "```":
                found.append(Block(opened[0], "".join(lines), opened[1], file, fails, change, apart, follows))
                file, change, fails, follows, opened, lines = "", "", False, True, None, []
            else:
                lines.append(line + "\n")
        elif fence := _FENCE.match(line):
            opened = fence[1], number
        elif line == _REPOSITORY:
            apart, follows = True, False
        elif comment := _COMMENT.match(line):
            named = {comment[1]: comment[2]}
            file, change, fails, follows = named.get("file", ""), named.get("change", ""), bool(comment[3]), False
        elif line.strip():
            file, change, fails, follows = "", "", False, False
    assert opened is None, f"{page}:{opened}: block without an end"
    return found


def commands(text: str) -> list[str]:
    joined = text.replace("\\\n", " ")
    lines = [line.removeprefix("$ ").strip() for line in joined.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "NO_COLOR": "1",
        "PYTHONIOENCODING": "utf-8",
    }
    return subprocess.run(
        command, shell=True, cwd=folder, env=env, encoding="utf-8", capture_output=True, timeout=120, check=False
    )


def in_process(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The same without a new process, of which each would import torch again."""
    words = shlex.split(command)[1:]
    target = None
    if ">" in words:
        *words, _, target = words
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    if target:
        (folder / target).write_text(out.getvalue(), encoding="utf-8")
    return subprocess.CompletedProcess(command, code, "" if target else out.getvalue(), err.getvalue())


def install(folder: Path) -> None:
    """What ``pip install -e .`` leaves: metadata that names the entry points."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = [
        line
        for group, entries in project["entry-points"].items()
        for line in [f"[{group}]", *(f"{name} = {target}" for name, target in entries.items())]
    ]
    (info / "entry_points.txt").write_text("\n".join(points) + "\n")


def copy_repository(folder: Path) -> None:
    """The packages, compiled kernels included, as a clone has them."""
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / room)
    shutil.copy2(ROOT / "pyproject.toml", folder)


def apply(change: Block, folder: Path, where: str) -> None:
    """Make the change that a ``diff`` block shows."""
    assert change.language == "diff", f"{where}: a change is a diff block"
    lines = change.text.splitlines(keepends=True)
    assert {line[0] for line in lines} <= set(" +-"), f"{where}: lines of a diff begin with a blank, + or -"
    before = "".join(line[1:] for line in lines if line[0] in " -")
    after = "".join(line[1:] for line in lines if line[0] in " +")
    target = folder / change.change
    text = target.read_text(encoding="utf-8")
    assert text.count(before) == 1, f"{where}: {change.change} has these lines {text.count(before)} times"
    target.write_text(text.replace(before, after), encoding="utf-8")


def check_output(expected: Block, output: str, where: str) -> None:
    shown = iter([" ".join(line.split()) for line in output.splitlines()])
    for line in filter(None, (" ".join(line.split()) for line in expected.text.splitlines())):
        pattern = re.compile(".*".join(map(re.escape, line.split("…"))))
        assert any(pattern.fullmatch(other) for other in shown), f"{where}: not in the output: {line!r}\n{output}"


def run_python(block: Block, page: Path, namespace: dict) -> str:
    code = compile("\n" * block.line + block.text, str(page), "exec")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        if block.fails:
            with pytest.raises(hwsim.InputError) as caught:
                exec(code, namespace)
            out.write(str(caught.value))
        else:
            exec(code, namespace)
    return out.getvalue()


def run_apart(block: Block, folder: Path, where: str) -> str:
    """A block that finds the packages of the folder, not those that run the tests."""
    env = os.environ | {"PYTHONPATH": str(folder), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-c", block.text], cwd=folder, env=env, encoding="utf-8", capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{where}: {done.stderr}"
    return done.stdout


def run_shell(block: Block, page: Path, folder: Path) -> str:
    output = ""
    for command in commands(block.text):
        if command.startswith(ELSEWHERE):
            continue
        assert command.startswith("hwsim "), f"{page.name}:{block.line}: a command that is not run: {command!r}"
        # What a page installs, what times this machine, and the overview have a process of their own.
        apart = (folder / "pyproject.toml").exists() or command.startswith(("hwsim measure", "hwsim --help"))
        done = (shell if apart else in_process)(command, folder)
        expected = 2 if block.fails else 0
        assert done.returncode == expected, f"{page.name}:{block.line}: {command}: {done.returncode}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        assert not block.fails or done.stderr.count("\n") == 1, f"{command}: not one line: {done.stderr}"
        output += done.stderr if block.fails else done.stdout
    return output


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_page_runs(page, tmp_path, monkeypatch):
    if any("hwsim verify" in block.text and "--list" not in block.text for block in blocks(page) if block.language == "bash"):
        need("verilator")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    known = set(sys.modules)
    namespace = {"__name__": "__main__"}
    output = None
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        if block.apart and not (tmp_path / "numerics").exists():
            copy_repository(tmp_path)
        if block.file:
            target = tmp_path / block.file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text, encoding="utf-8")
            if block.file == "pyproject.toml":
                install(tmp_path)
            output = None
        elif block.change:
            apply(block, tmp_path, where)
            output = None
        elif block.language == "text":
            if block.follows and output is not None:
                check_output(block, output, where)
            output = None
        elif block.language == "python" and block.apart:
            output = run_apart(block, tmp_path, where)
        elif block.language == "python":
            output = run_python(block, page, namespace)
        elif block.language in ("bash", "console", "sh"):
            output = run_shell(block, page, tmp_path)
        else:
            output = None
    for name in set(sys.modules) - known:  # modules of this page's folder
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def test_a_wrong_figure_is_found():
    check_output(Block("text", "a 1\n…\nc …3\n", 1), "a 1\nb 2\nc 2 3\n", "here")
    with pytest.raises(AssertionError, match="not in the output: 'a 2'"):
        check_output(Block("text", "a 2\n", 1), "a 1\n", "here")
    with pytest.raises(AssertionError, match="not in the output: 'a 1'"):
        check_output(Block("text", "b 2\na 1\n", 1), "a 1\nb 2\n", "here")


def test_make_targets_exist():
    makefile = ROOT / "Makefile"
    if not makefile.is_file():
        pytest.skip("no Makefile")
    targets = set(re.findall(r"^([\w-]+):", makefile.read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        for block in blocks(page):
            if block.language not in ("bash", "console", "sh"):
                continue
            for command in commands(block.text):
                if command.startswith("make "):
                    assert command.split()[1] in targets, f"{page.name}:{block.line}: {command}"


def test_every_page_is_in_the_navigation():
    """What comes from the code or from runs is in the navigation too; building the site finds what lacks there."""
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"^ +- (?:[^:\n]+: )?(\S+\.md)$", config, re.MULTILINE))
    made = {page for page in named if page.startswith(("reference/", "results/", "studies/"))}
    assert {p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md")} == named - made


# --- nothing left out ---------------------------------------------------------------------------------------------------


def section(page: str, heading: str) -> str:
    """The text under a heading, up to the next of its level or above."""
    text = (DOCS / page).read_text(encoding="utf-8")
    start = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    assert start, f"{page} has no heading {heading!r}"
    rest = text[start.end() :]
    end = re.search(rf"^#{{1,{len(start[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def own_commands():
    return [e for e in metadata.entry_points(group="hwsim.commands") if e.dist is not None and e.dist.name == "hwsim"]


@pytest.mark.parametrize("entry", own_commands(), ids=lambda entry: entry.name)
def test_every_command_has_a_section_with_its_options(entry):
    parser = CommandParser(prog=entry.name)
    entry.load().add_arguments(parser)
    known = {option for action in parser._actions for option in action.option_strings}
    text = section("command-line.md", f"hwsim {entry.name}")
    assert f"<!-- options: {entry.name} -->" in text or known <= {"-h", "--help"}
    for anchor, shared in (("#model-options", "--phase"), ("#machine-options", "--fidelity")):
        if anchor in text:
            assert shared in known


def spec_fields(model: type[BaseModel], prefix: str = ""):
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from spec_fields(field.annotation, f"{prefix}{name}.")


SPEC_PAGES = {
    "neuromorphic_chip": "spiking-chips.md",
    "photonic_engine": "photonics.md",
    "binary_engine": "binary-engine.md",
    "convolution_engine": "nvdla.md",
    "mcu_cluster": "mcu-cluster.md",
    "processor": "tensor-engine.md",
    "row_stationary": "row-stationary.md",
    "sparse_engine": "sparse-engine.md",
    "systolic_array": "systolic-array.md",
    "tensor_engine": "tensor-engine.md",
    "tensor_processing_engine": "tensor-processing-engines.md",
}
"""Kind of device → the page whose section "The spec" lists its fields."""


def test_every_kind_has_a_page():
    assert set(SPEC_PAGES) == set(device_classes())


@pytest.mark.parametrize("kind", sorted(SPEC_PAGES))
def test_every_spec_field_is_documented(kind):
    text = section(SPEC_PAGES[kind], "The spec")
    documented = set(re.findall(r"`([\w.]+)`", text))
    pads = r"^memory\.(input|weight|output)\."
    real = {
        re.sub(pads, "memory.PAD.", f) if kind == "systolic_array" else f for f in spec_fields(device_classes()[kind].spec_class)
    }
    real -= {"memory.input", "memory.weight", "memory.output"}
    leaves = {f for f in real if not any(other.startswith(f + ".") for other in real)}
    # The parts that all machines share are listed field by field on the systolic array's page; others may name them as a whole.
    shared = {f for f in ("vector_unit", "off_chip", "buffer") if f in documented and kind != "systolic_array"}
    leaves = {f for f in leaves if f.split(".")[0] not in shared and not any(d.startswith(f + ".") for d in documented)}
    assert leaves <= documented, f"{SPEC_PAGES[kind]} does not name {sorted(leaves - documented)}"
    named = set(re.findall(r"^\| `([\w.]+)`", text, re.MULTILINE))
    known = real | {"memory.PAD"}
    unknown = {f for f in named if f not in known and not any(f.startswith(g + ".") for g in known)}
    assert not unknown, f"{SPEC_PAGES[kind]} names {sorted(unknown)}, which the spec does not have"


def test_every_report_field_is_documented(tmp_path):
    (tmp_path / "one.csv").write_text("Layer, M, N, K,\none, 4, 4, 4,\n")
    data = hwsim.simulate(tmp_path / "one.csv", device="tpu_v1").to_dict()
    text = section("report.md", "report.json")
    for key in {*data, *data["totals"], *data["ops"][0], *data["spans"][0], *data["tables"]["mapping"][0]}:
        assert f"`{key}`" in text, f"report.md does not say what {key!r} is"


def test_hwsim_is_beside_python():
    assert shutil.which("hwsim", path=str(BIN)), "the commands of the pages run the hwsim next to this Python"
