"""Every notebook runs, in a folder of its own, in the Python that runs the tests, and draws something."""

import sys
import time
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
TIMEOUT_S = 120
PICTURES = ("image/png", "image/svg+xml")


class ThisPython(KernelSpecManager):
    """One kernel, that of the running interpreter, whatever is installed for the user or the system."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name=kernel_name, language="python")


def execute(notebook: nbformat.NotebookNode, folder: Path) -> float:
    """Run all cells in ``folder``; the outputs stay in ``notebook``. Returns seconds."""
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=ThisPython())
    client = NotebookClient(notebook, km=manager, timeout=TIMEOUT_S, resources={"metadata": {"path": str(folder)}})
    start = time.perf_counter()
    client.execute()
    return time.perf_counter() - start


def test_there_are_notebooks():
    assert (FOLDER / "00_first_look.ipynb") in NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_clean(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    ids = [cell.get("id") for cell in notebook.cells]
    assert all(ids)
    assert len(set(ids)) == len(ids)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs, f"{path.name}: cell {cell.id} has stored outputs"
            assert cell.execution_count is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path, record_property, capsys):
    notebook = nbformat.read(path, as_version=4)
    seconds = execute(notebook, tmp_path)
    record_property("seconds", round(seconds, 1))
    with capsys.disabled():
        print(f"\n{path.name}: {seconds:.1f} s")
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [o for o in outputs if any(kind in o.get("data", {}) for kind in PICTURES)]
    assert pictures, f"{path.name} draws nothing"


def test_the_kernel_is_this_python(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import sys, os\nprint(sys.executable, os.getcwd())")])
    execute(notebook, tmp_path)
    assert notebook.cells[0].outputs[0]["text"].split() == [sys.executable, str(tmp_path)]


def test_an_error_in_a_cell_fails(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("assert 1 == 2, 'stale text'")])
    with pytest.raises(Exception, match="stale text"):
        execute(notebook, tmp_path)
