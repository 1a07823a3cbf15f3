"""The process in which cocotb's runner builds or runs a model: ``python -m rtl._runner JOB.json``.

A process of its own, since the runner takes its tools from the environment and ends with ``sys.exit``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(job: dict[str, Any]) -> None:
    """Build and run as the job says: arguments of the runner's ``build`` and ``test``, by name."""
    from cocotb_tools.runner import Verilator, get_runner

    # cocotb asks Verilator for access to every signal, which keeps it from optimising; the top module's ports declare their own.
    # No public option leaves it out. Under a cocotb without this method the plain runner does: slower, and as right.
    if job["simulator"] == "verilator" and hasattr(Verilator, "_build_command"):

        class PortsOnly(Verilator):
            def _build_command(self) -> list[Any]:
                return [[word for word in command if word != "--public-flat-rw"] for command in super()._build_command()]

        runner = PortsOnly()
    else:
        runner = get_runner(job["simulator"])
    for action in ("build", "test"):
        if action in job:
            getattr(runner, action)(**job[action])


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
