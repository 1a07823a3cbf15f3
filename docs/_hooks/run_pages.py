"""Tables of figures, from runs of this build."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from markdown_text import parsed, table

Found = dict[str, dict[str, list[Any]]]
"""Kind → device → a report for each network; None where it cannot run."""


class Scoreboard:
    """``hwsim validate`` in a process of its own, which runs while the other pages are made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "hwsim", "validate", "--markdown", "--out", str(folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")

    def __enter__(self) -> Scoreboard:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def page(self) -> tuple[str, bytes]:
        """The page, and its picture.

        Raises:
            RuntimeError: the command failed.
        """
        out, err = self.process.communicate()
        if self.process.returncode:
            raise RuntimeError(f"hwsim validate ended with {self.process.returncode}: {err}")
        text = (
            "# Scores\n\nEvery model beside the hardware that was measured, as `hwsim validate` printed it for this page. "
            "[The scoreboard](../scoreboard.md) says what is measured, what is fitted, and what the columns mean.\n\n"
        )
        shown = f'<div class="wide" markdown>\n\n{out.strip()}\n\n</div>\n'
        picture = (self.folder / "scoreboard.png").read_bytes()
        return f"{text}{shown}\n![Measured against modelled](scoreboard.png)\n", picture


def network_pages() -> dict[str, str]:
    """Latency and energy of every network of the zoo on every device: name of the page → text."""
    import hwsim
    from hwsim import zoo

    workloads = {name: hwsim.trace(zoo.build(name), *zoo.example_inputs(name)) for name in zoo.names()}
    found: Found = {}
    refused: dict[str, str] = {}
    for device_name in hwsim.device_names():
        device = hwsim.get_device(device_name)
        reports: list[Any] = []
        says = ""
        for workload in workloads.values():
            try:
                reports.append(device.simulate(workload))
            except hwsim.InputError as error:
                reports.append(None)
                says = str(error)
        if any(reports):
            found.setdefault(device.kind, {})[device_name] = reports
        else:
            refused[device_name] = says
    runs = sum(report is not None for kind in found.values() for reports in kind.values() for report in reports)
    return {page: _network_page(page, list(workloads), found, refused, runs) for page in ("latency", "energy")}


def _network_page(page: str, networks: list[str], found: Found, refused: dict[str, str], runs: int) -> str:
    """The table of every kind, for one figure of the reports."""
    from hwsim.registry import device_classes
    from hwsim.views.units import si

    kinds: dict[str, Any] = dict(device_classes())
    field, unit, origin = ("time_s", "s", "time") if page == "latency" else ("energy_j", "J", "energy")
    parts = [
        f"# {page.capitalize()} of every network on every device\n",
        f"{runs} runs, made for this page: each [network](../reference/networks.md) with the inputs that `hwsim run NAME` gives "
        "it (one image, one sequence), in each device's own formats, at its default fidelity. The first row says whether "
        "measurements were fitted. Machines of different kinds are of very different size and year, and [the scores](scores.md) "
        "say how far they are from hardware.\n",
    ]
    for kind, devices in sorted(found.items()):
        summary = parsed(kinds[kind].spec_class).first
        origins = [next(r.origin[origin] for r in reports if r is not None) for reports in devices.values()]
        rows: list[tuple[str, ...]] = [("", *(f"*{text}*" for text in origins))]
        for place, network in enumerate(networks):
            values = [None if reports[place] is None else getattr(reports[place], field) for reports in devices.values()]
            rows.append((f"`{network}`", *("–" if v is None else si(v, unit).replace(" ", "\N{NO-BREAK SPACE}") for v in values)))
        parts.append(f"## {kind}\n\n{summary} [Fields and specs](../reference/specs/{kind}.md).\n")
        parts.append('<div class="wide" markdown>\n')
        parts.append(table(("network", *(f"`{name}`" for name in devices)), rows, "l" + "r" * len(devices)))
        parts.append("</div>\n")
    if refused:
        parts.append("## Devices that run none of them\n")
        parts.append(table(("device", "what it says"), [(f"`{name}`", text) for name, text in sorted(refused.items())]))
    return "\n".join(parts)
