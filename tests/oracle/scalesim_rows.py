"""Cycle counts of SCALE-Sim itself for random layers, written to a CSV that the tests compare with.

Run with an interpreter that has SCALE-Sim, ``pip install scalesim==3.0.0 "numpy<2.4"`` (its code does not
run on numpy 2.4 or newer); hwsim is not needed:

    python tests/oracle/scalesim_rows.py --out tests/oracle/data/scalesim_compute_cycles.csv

Every group of layers is one topology file, run in ``InterfaceBandwidth: CALC`` mode with scratchpads that
hold every layer, so that memory adds no stalls of its own and the report's "Total Cycles" is the array's.
In the columns, ``m`` is SCALE-Sim's number of output pixels, ``n`` its number of filters and ``k`` its
convolution window, as its own topology parser computes them. ``compute_cycles`` is "Total Cycles" less
"Stall Cycles"; SCALE-Sim counts cycles from zero and reports the last one's index.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import random
import sys
import tempfile
import warnings
from pathlib import Path

ARRAYS = ((8, 4), (4, 8), (8, 8), (16, 16), (12, 14), (32, 32), (24, 6), (5, 40), (1, 16), (16, 1))
DATAFLOWS = ("os", "ws", "is")
LAYERS_PER_RUN = 10
CONV_COLUMNS = ("ifmap_h", "ifmap_w", "filter_h", "filter_w", "channels", "filters", "stride")
REPORT_COLUMNS = {
    "total_cycles_with_prefetch": "Total Cycles (incl. prefetch)",
    "total_cycles": "Total Cycles",
    "stall_cycles": "Stall Cycles",
    "overall_utilization_percent": "Overall Util %",
    "mapping_efficiency_percent": "Mapping Efficiency %",
    "compute_utilization_percent": "Compute Util %",
}

CONFIG = """\
[general]
run_name = run

[architecture_presets]
ArrayHeight: {rows}
ArrayWidth: {cols}
IfmapSramSzkB: 4096
FilterSramSzkB: 4096
OfmapSramSzkB: 4096
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Bandwidth: 10
Dataflow: {dataflow}
ReadRequestBuffer: 64
WriteRequestBuffer: 64

[layout]
IfmapCustomLayout: False
FilterCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2

[sparsity]
SparsitySupport: false

[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
"""


def random_conv(draw: random.Random) -> tuple[int, ...]:
    """A convolution's topology row (``CONV_COLUMNS``); some strides do not divide the input evenly."""
    filter_h, filter_w = draw.choice((1, 1, 2, 3, 3, 5)), draw.choice((1, 1, 2, 3, 3, 5))
    height, width = filter_h + draw.randrange(0, 8), filter_w + draw.randrange(0, 8)
    channels, filters = draw.randint(1, 12), draw.choice((draw.randint(1, 12), draw.randint(1, 48)))
    return height, width, filter_h, filter_w, channels, filters, draw.choice((1, 1, 1, 2, 3))


def random_gemm(draw: random.Random) -> tuple[int, int, int]:
    """M, N, K, each now and then 1 or a multiple of common array sizes."""
    m, n, k = (draw.choice((1, 16, 32, draw.randint(2, 20), draw.randint(2, 70))) for _ in range(3))
    return m, n, k


def simulate(folder: Path, *, form: str, rows: int, cols: int, dataflow: str, layers: list[tuple[int, ...]]) -> list[dict]:
    """Run SCALE-Sim once on ``layers``; one record for each, of its inputs and its compute report."""
    from scalesim.scale_sim import scalesim

    config, topology, layout = folder / "array.cfg", folder / "topology.csv", folder / "layout.csv"
    config.write_text(CONFIG.format(rows=rows, cols=cols, dataflow=dataflow))
    header = "Layer, M, N, K," if form == "gemm" else "Layer name, " + ", ".join(CONV_COLUMNS) + ","
    lines = [f"layer{i}, " + ", ".join(map(str, layer)) + "," for i, layer in enumerate(layers)]
    topology.write_text("\n".join([header, *lines]) + "\n")
    # Custom layouts are off, but the layout file is parsed all the same: twenty factors and orders a layer.
    layout.write_text("\n".join(["header", *(f"layer{i}," + "1," * 20 for i in range(len(layers)))]) + "\n")

    simulator = scalesim(
        save_disk_space=True,
        verbose=False,
        config=str(config),
        topology=str(topology),
        layout=str(layout),
        input_type_gemm=form == "gemm",
    )
    simulator.run_scale(top_path=str(folder))
    with (folder / "run" / "COMPUTE_REPORT.csv").open() as file:
        reports = list(csv.DictReader(file, skipinitialspace=True))

    records = []
    for index, (layer, report) in enumerate(zip(layers, reports, strict=True)):
        pixels, filters, window = simulator.topo.get_transformed_mnk_dimensions()[index]
        record = {"form": form, "rows": rows, "cols": cols, "dataflow": dataflow}
        record |= dict(zip(CONV_COLUMNS, layer, strict=True)) if form == "conv" else {}
        record |= {"m": pixels // filters, "n": filters, "k": window}
        record["compute_cycles"] = int(report["Total Cycles"]) - int(report["Stall Cycles"])
        record |= {ours: report[theirs] for ours, theirs in REPORT_COLUMNS.items()}
        records.append(record)
    return records


def main() -> None:
    """Write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the CSV to write")
    parser.add_argument("--seed", type=int, default=20240607)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", DeprecationWarning)

    draw = random.Random(arguments.seed)
    records: list[dict] = []
    for rows, cols in ARRAYS:
        for dataflow in DATAFLOWS:
            for form, make in (("gemm", random_gemm), ("conv", random_conv)):
                layers = [make(draw) for _ in range(LAYERS_PER_RUN)]
                with tempfile.TemporaryDirectory() as folder:
                    records += simulate(Path(folder), form=form, rows=rows, cols=cols, dataflow=dataflow, layers=layers)
                print(f"{len(records)} layers", file=sys.stderr)

    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("scalesim", "numpy"))
    columns = [
        "form",
        "rows",
        "cols",
        "dataflow",
        *CONV_COLUMNS,
        "m",
        "n",
        "k",
        "compute_cycles",
        *REPORT_COLUMNS,
    ]
    with arguments.out.open("w", newline="") as file:
        file.write(f"# {versions}\n")
        file.write(f"# python tests/oracle/scalesim_rows.py --out {arguments.out} --seed {arguments.seed}\n")
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)


if __name__ == "__main__":
    main()
