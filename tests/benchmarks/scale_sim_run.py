"""Time SCALE-Sim on one topology file. Run with an interpreter that has it: prints seconds for the whole run.

python tests/benchmarks/scale_sim_run.py TOPOLOGY.csv ROWS COLUMNS DATAFLOW
"""

import contextlib
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "oracle"))
from scalesim_rows import CONFIG


def main() -> None:
    """Run and print the time."""
    topology, rows, columns, dataflow = sys.argv[1:]
    warnings.simplefilter("ignore")
    from scalesim.scale_sim import scalesim

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config, layout = folder / "array.cfg", folder / "layout.csv"
        config.write_text(CONFIG.format(rows=rows, cols=columns, dataflow=dataflow))
        layers = [line.split(",")[0] for line in Path(topology).read_text().splitlines()[1:] if line.strip()]
        layout.write_text("\n".join(["header", *(f"{layer}," + "1," * 20 for layer in layers)]) + "\n")
        start = time.perf_counter()
        with open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink):
            simulator = scalesim(
                save_disk_space=True,
                verbose=False,
                config=str(config),
                topology=topology,
                layout=str(layout),
                input_type_gemm=True,
            )
            simulator.run_scale(top_path=str(folder))
        print(time.perf_counter() - start)


if __name__ == "__main__":
    main()
