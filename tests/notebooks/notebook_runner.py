"""Runs a notebook in the Python that runs this, and keeps the executed copy where it is asked for."""

import os
import sys
import time
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
TIMEOUT_S = 120
EXECUTED = "HWSIM_NOTEBOOKS"
"""Environment variable: a folder for executed copies, of which the documentation is built."""


class ThisPython(KernelSpecManager):
    """One kernel, that of the running interpreter, whatever is installed for the user or the system."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name=kernel_name, language="python")


def execute(notebook: nbformat.NotebookNode, folder: Path) -> float:
    """Run all cells in ``folder``; the outputs stay in ``notebook``. Returns seconds."""
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=ThisPython())
    client = NotebookClient(notebook, km=manager, timeout=TIMEOUT_S, resources={"metadata": {"path": str(folder)}})
    client.owns_km = True  # so that it ends the kernel
    start = time.perf_counter()
    client.execute()
    return time.perf_counter() - start


def keep(notebook: nbformat.NotebookNode, name: str) -> None:
    """Leave an executed copy in the folder of ``HWSIM_NOTEBOOKS``, if there is one."""
    if folder := os.environ.get(EXECUTED):
        Path(folder).mkdir(parents=True, exist_ok=True)
        target = Path(folder) / name
        partial = target.with_suffix(".partial")
        nbformat.write(notebook, partial)
        partial.replace(target)
