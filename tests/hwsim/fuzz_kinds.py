"""Every kind of file that a command reads, how many mutants of it CI tries, and how they are run."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from fuzz_oracle import Tally, fuzzed

COMMAND = "command"

USUAL: Mapping[str, int] = {
    **dict.fromkeys(
        ("spec_binary_engine", "spec_convolution_engine", "spec_mcu_cluster", "spec_neuromorphic_chip", "spec_photonic_engine",
         "spec_processor", "spec_row_stationary", "spec_sparse_engine", "spec_systolic_array", "spec_tensor_engine",
         "spec_tensor_processing_engine"), 16,
    ),
    **dict.fromkeys(("recipe_yaml", "recipe_json"), 14),
    **dict.fromkeys(("workload", "report", "scale_sim", "onnx"), 20),
    **dict.fromkeys(("profile", "target", "study"), 15),
    **dict.fromkeys(("measurements", "events", "liberty", "nir"), 12),
    **dict.fromkeys(("measuring", "events_npz", "store"), 10),
    **dict.fromkeys(("faults_npz", "checkpoint_pt", "checkpoint_safetensors", "checkpoint_index"), 8),
    "calibration": 2,
    COMMAND: 30,
}  # fmt: skip
"""Kind → mutants, times the effort asked for."""


def tally_of(name: str, count: int, folder: Path, *, start: int = 0) -> Tally:
    """What comes of so many mutants of a kind, whose file lies in the folder."""
    if name == COMMAND:
        return _commands(count, folder, start)
    from fuzz_binaries import BINARY_FILES
    from fuzz_files import TEXT_FILES

    return fuzzed({**TEXT_FILES, **BINARY_FILES}[name], count, folder, start=start)


def _commands(count: int, folder: Path, start: int) -> Tally:
    from fuzz_command_line import fuzzed_commands, prepared

    before = os.getcwd()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    try:
        prepared(folder)
        return fuzzed_commands(count, folder, start=start)
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("fuzzed_nets", None)
        os.chdir(before)


def tally_apart(name: str, count: int, folder: Path) -> Tally:
    """As ``tally_of``, in a process of its own, which a mutant may end: C libraries read some of these files."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(tally_of, name, count, folder).result()
        except BrokenProcessPool:
            return Tally(defects=[f"{name}: the process died; the mutant is the last file in {folder}"])
