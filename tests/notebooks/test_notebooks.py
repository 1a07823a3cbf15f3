"""Every notebook runs, in a folder of its own, in the Python that runs the tests, and draws something."""

import sys

import nbformat
import pytest
from notebook_runner import EXECUTED, FOLDER, execute, keep

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
PICTURES = ("image/png", "image/svg+xml")


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
    keep(notebook, path.name)


def test_the_kernel_is_this_python(tmp_path, monkeypatch):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import sys, os\nprint(sys.executable, os.getcwd())")])
    execute(notebook, tmp_path)
    assert notebook.cells[0].outputs[0]["text"].split() == [sys.executable, str(tmp_path)]
    monkeypatch.setenv(EXECUTED, str(tmp_path / "kept"))
    keep(notebook, "one.ipynb")
    assert nbformat.read(tmp_path / "kept" / "one.ipynb", as_version=4).cells[0].outputs == notebook.cells[0].outputs


def test_an_error_in_a_cell_fails(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("assert 1 == 2, 'stale text'")])
    with pytest.raises(Exception, match="stale text"):
        execute(notebook, tmp_path)
