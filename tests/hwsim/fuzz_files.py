"""Files of text that the commands read: what is right, how it is mutated, and what reads it."""

from __future__ import annotations

import csv
import io
import json
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from fuzz_oracle import FileKind, Unsound, finite, sound_report
from mutations import Mutant, Place, json_text, mutated_json, mutated_text, mutated_yaml, yaml_text
from torch import nn

import hwsim
from hwsim.api import load_workload, workload_from
from hwsim.registry import device_classes, get_device, read_spec
from hwsim.report import Report
from hwsim.workload import Workload

RTL_TESTS = Path(__file__).parents[1] / "rtl"


# --- what they describe ---------------------------------------------------------------------------------------------------


class Small(nn.Module):
    """A convolution, products, and something between them."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.mix = nn.Linear(16, 16)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 5, bias=False)

    def forward(self, x):
        tokens = torch.relu(self.conv(x)).flatten(2)
        weights = torch.softmax(self.norm(self.mix(tokens)), -1)
        return self.head(weights @ tokens.transpose(1, 2) @ tokens)


@cache
def small() -> Workload:
    """That module's workload."""
    torch.manual_seed(0)
    return hwsim.trace(Small(), torch.randn(2, 2, 4, 4), name="small")


@cache
def spikes() -> Workload:
    """Two layers of spiking neurons and what goes into them."""
    import numpy as np
    from chip_networks import dense, network, population

    from neuromorphic import bernoulli_events, spiking_workload

    # One weight a source: TrueNorth has one axon a neuron.
    net = network(
        [population("in", 6, "input"), population("hidden", 8), population("out", 3)],
        [
            dense("in-hidden", "in", "hidden", np.tile([0.5, 0.75, -0.25, 1.0, 0.5, 0.25], (8, 1))),
            dense("hidden-out", "hidden", "out", np.tile([0.5, -0.25, 0.75, 0.5, 0.5, 0.25, 1.0, 0.5], (3, 1))),
        ],
        name="small",
    )
    return spiking_workload(net, steps=8, rates=0.2, events={"in": bernoulli_events(np.full(6, 0.3), seed=0, steps=8)})


def nowhere(place: Place) -> bool:
    """Of trees whose every key has a meaning."""
    return False


def tree_kind(
    name: str, suffix: str, seeds: Callable[[], list[Any]], use: Callable[[Path], Any], *, free: Callable[[Place], bool] = nowhere
) -> FileKind:
    """A kind whose files are trees, in YAML or JSON as the suffix says."""
    mutate, emit = (mutated_json, json_text) if suffix == ".json" else (mutated_yaml, yaml_text)
    return FileKind(name, suffix, seeds, partial(mutate, free=free), lambda tree: emit(tree).encode(), use)


def text_kind(name: str, suffix: str, seeds: Callable[[], list[str]], use: Callable[[Path], Any], *, comment: str) -> FileKind:
    """A kind whose files are lines of text."""
    return FileKind(name, suffix, seeds, partial(mutated_text, comment=comment), str.encode, use)


# --- specs of devices -----------------------------------------------------------------------------------------------------


def _specs(kind: str) -> list[Any]:
    return [read_spec(path) for path in device_classes()[kind].bundled().values()]


def _simulated(path: Path) -> Any:
    device = get_device(path)
    repr(device)
    return sound_report(device.simulate(spikes() if getattr(device, "event_driven", False) else small()))


def _fits(place: Place) -> bool:
    """What a fit is called is its maker's."""
    return place == ("calibrated",)


SPECS = [tree_kind(f"spec_{kind}", ".yaml", partial(_specs, kind), _simulated, free=_fits) for kind in sorted(device_classes())]


# --- recipes --------------------------------------------------------------------------------------------------------------


def _recipes() -> list[Any]:
    from numerics.recipes import get_recipe

    names = ("int8", "bf16", "int8_qat", "fp8_block", "mxfp4", "nvfp4", "fp16_loss_scaled")
    found = [get_recipe(name).to_dict() for name in names]
    found[0] |= {
        "overrides": [{"pattern": "[hm]*", "formats": {"weight": "int4"}, "scaling": {"weight": {"granularity": "channel"}}}]
    }
    return found


def _applied(path: Path) -> Any:
    from numerics.emulation import emulate
    from numerics.recipes import get_recipe

    recipe = get_recipe(path)
    costed = small().with_formats(recipe)
    torch.manual_seed(0)
    found = emulate(Small().eval(), recipe)(torch.randn(2, 2, 4, 4))
    # Codes of few bits overflow where the recipe says nothing of scales: that is what they do.
    return {"workload": json.loads(costed.to_json()), "values": [str(v) for v in found.flatten().tolist()]}


# --- workloads ------------------------------------------------------------------------------------------------------------


def _workloads() -> list[Any]:
    spiking = json.loads(Workload.to_json(spikes()))
    return [json.loads(small().to_json()), json.loads(small().with_formats("int8").to_json()), spiking, *_zoo()]


def _zoo() -> list[Any]:
    return [json.loads(workload_from("mlp0", batch=2, mode="training").to_json())]


def costed(workload: Workload) -> Any:
    """What a workload costs on a machine of tensors, and what there is to say of it alone."""
    finite({"macs": workload.macs, "parameters": workload.parameters, "operations": workload.operations()})
    if min(workload.macs, workload.parameters, workload.peak_memory().bytes, *workload.bytes_by_role().values(), 0) < 0:
        raise Unsound("something is below zero")
    again = Workload.from_json(workload.to_json())
    if again.to_json() != workload.to_json():
        raise Unsound("another workload comes back from its file")
    if any(op.kind == "spiking_layer" for op in workload.ops):
        return {"file": json.loads(workload.to_json())}
    found = sound_report(get_device("h100").simulate(workload))
    return {key: found[key] for key in ("ops", "totals")} | {"file": json.loads(workload.to_json())}


def _loaded(path: Path) -> Any:
    return costed(load_workload(path))


def _metadata(place: Place) -> bool:
    return place[:1] == ("metadata",)


# --- tables ---------------------------------------------------------------------------------------------------------------

CONVOLUTIONS = """Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,
Conv1, 24, 24, 3, 3, 3, 8, 2,
Conv2_DP, 12, 12, 3, 3, 8, 1, 1,
FC, 1, 1, 1, 1, 64, 10, 1,
"""
STRIDES = """Layer, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides, Strides, Sparsity,
C1, 20, 10, 5, 1, 4, 6, 3, 1, 2:4,
C2, 20, 10, 5, 1, 4, 6, 1, 1, 1:1,
"""
PRODUCTS = """Layer, M, N, K, Batch Size,
one, 8, 16, 4, 2,
two, 1, 1, 1, 1,
"""

MEASURED = """# backend: cpu
# date: 2026-01-01
operator,batch,m,n,k,formats,time_s,std_s
matmul,,64,64,64,fp32,0.00002,1e-7
matmul,4,128,64,32,fp32,0.00004,1e-7
matmul,,256,256,256,fp32,0.0004,1e-7
matmul,,512,256,256,fp32,0.0009,1e-7
matmul,,1024,256,256,fp32,0.002,1e-7
softmax,,64,128,,fp32,0.00003,1e-7
gelu,,,4096,,fp32,0.00003,1e-7
relu,,,100000,,fp32,0.0003,1e-7
relu,,,1000000,,fp32,0.003,1e-7
relu,,,300000,,fp32,0.0008,1e-7
add,,,30000,,fp32,0.0001,1e-7
silu,,,40000,,fp32,0.0002,1e-7
"""


def _rewritten(text: str, rng: random.Random) -> Mutant:
    """One cell of a CSV, or one column, in another way."""
    lines = text.splitlines()
    begin = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    table = list(csv.reader(lines[begin:]))
    row, column = rng.randrange(len(table)), rng.randrange(len(table[0]))
    odd = (
        "",
        "0",
        "-1",
        "1.5",
        "nan",
        "inf",
        "1e400",
        "9" * 25,
        "99999999999",
        "x",
        "True",
        "🦆",
        "1e-400",
        " 3 ",
        "0x10",
        "int8",
    )
    how = rng.choice(("cell", "cell", "cell", "cell", "cells", "column_gone", "column_twice", "header", "quoted", "formula"))
    if how in ("cell", "cells") and column < len(table[row]):
        table[row][column] = rng.choice(odd)
        if how == "cells":
            table[-1][-1] = rng.choice(odd)
    elif how == "column_gone":
        table = [cells[:column] + cells[column + 1 :] for cells in table]
    elif how == "column_twice":
        table = [[*cells, cells[min(column, len(cells) - 1)]] for cells in table]
    elif how == "header":
        table[0][column] = rng.choice(("colour", "time_ms", "time_us", "operator", "batch", "", "Sparsity"))
    elif column < len(table[row]):
        table[row][column] = f'"{table[row][column]}\n"' if how == "quoted" else f"=1+{table[row][column]}"
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(table)
    return Mutant(("\n".join([*lines[:begin], ""]) * bool(begin) + buffer.getvalue()).encode(), f"{how} at {row}, {column}")


def _mutated_table(rng: random.Random, text: str, comment: str) -> Mutant:
    return mutated_text(rng, text, comment=comment) if rng.random() < 0.4 else _rewritten(text, rng)


def table_kind(name: str, seeds: Callable[[], list[str]], use: Callable[[Path], Any], *, comment: str = "#") -> FileKind:
    """A kind whose files are CSV."""
    return FileKind(name, ".csv", seeds, partial(_mutated_table, comment=comment), str.encode, use)


@contextmanager
def said() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    """What goes to stdout and stderr inside."""
    kept, out, err = (sys.stdout, sys.stderr), io.StringIO(), io.StringIO()
    sys.stdout, sys.stderr = out, err
    try:
        yield out, err
    finally:
        sys.stdout, sys.stderr = kept


def commanded(*words: str | Path, codes: tuple[int, ...] = (0,)) -> str:
    """Stdout of a command; an ``InputError`` where it refuses with one line and code 2."""
    from hwsim.cli import main
    from numerics.errors import InputError

    with said() as (out, err):
        code = main([str(word) for word in words])
    told = [line for line in err.getvalue().splitlines() if "error:" in line]
    if code == 2 and len(told) == 1:
        raise InputError(told[0])
    if code not in codes:
        raise Unsound(f"exit code {code}: {err.getvalue()[-200:]}")
    return out.getvalue()


def _scored(path: Path) -> Any:
    found = json.loads(commanded("validate", "--csv", path, "--device", "cpu", "--json"))
    finite(found)
    for score in found["targets"]:
        score.pop("target")
    return found


def _calibrated(path: Path) -> Any:
    found = json.loads(commanded("calibrate", "cpu", path, "--folds", "2", "--fit", "elementwise", "--json"))
    finite(found)
    return found


def _events(path: Path) -> Any:
    from neuromorphic import Events

    timed = Events.is_timed(path)
    events = Events.load(path, size=6, dt_s=1e-3 if timed else None, duplicates="add")
    if events.steps > 10**6:
        return {"steps": events.steps, "count": events.count}
    return {
        "steps": events.steps,
        "step": events.step.tolist(),
        "neuron": events.neuron.tolist(),
        "value": events.values.tolist(),
    }


EVENTS = ["step,neuron\n0,1\n0,2\n3,5\n7,0\n", "time_s,address,value\n0,1,0.5\n0.001,2,1\n0.0075,5,-2\n"]


# --- traces of torch.profiler ---------------------------------------------------------------------------------------------


@cache
def _traces() -> list[Any]:
    def call(name: str, begin: float, length: float, dims: list[Any], **more: Any) -> dict[str, Any]:
        args = {"Input Dims": dims, "Input type": ["float"] * len(dims), "Concrete Inputs": [""] * len(dims), **more}
        return {"ph": "X", "cat": "cpu_op", "name": name, "pid": 1, "tid": 1, "ts": begin, "dur": length, "args": args}

    calls = [
        call("aten::mm", 0.0, 10.0, [[8, 16], [16, 4]], **{"External id": 1}),
        call("aten::relu", 12.0, 3.0, [[8, 4]], **{"External id": 2}),
        call("aten::linear", 20.0, 9.0, [[8, 4], [5, 4], [5]], **{"External id": 3}),
        call("aten::addmm", 21.0, 7.0, [[5], [8, 4], [4, 5]], **{"External id": 4}),
        call("aten::convolution", 40.0, 8.0, [[1, 2, 8, 8], [4, 2, 3, 3], [4], [], [], [], [], [], []]),
    ]
    lists = ["ScalarList"] * 3
    calls[-1]["args"]["Input type"] = ["float", "float", "float", *lists, "Scalar", "ScalarList", "Scalar"]
    calls[-1]["args"]["Concrete Inputs"] = ["", "", "", "[1, 1]", "[0, 0]", "[1, 1]", "False", "[0, 0]", "1"]
    launch = {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "pid": 1, "tid": 1, "ts": 2.0, "dur": 1.0}
    kernel = {"ph": "X", "cat": "kernel", "name": "sgemm", "pid": 0, "tid": 7, "ts": 5.0, "dur": 4.0}
    return [
        {"schemaVersion": 1, "traceEvents": calls},
        {"traceEvents": [*calls[:2], launch | {"args": {"correlation": 9}}, kernel | {"args": {"correlation": 9}}]},
    ]


def _profiled(path: Path) -> Any:
    from hwsim.tracing.profiler import load_profile

    profile = load_profile(path)
    return costed(profile.workload) | {"profile": repr(profile)}


def _anything(place: Place) -> bool:
    """A profiler writes more than is read."""
    return True


# --- reports and targets --------------------------------------------------------------------------------------------------


@cache
def _reports() -> list[Any]:
    found = [get_device("tpu_v1").simulate(small()), get_device("loihi").simulate(spikes())]
    return [json.loads(report.to_json()) for report in found]


def _report(path: Path) -> Any:
    report = Report.from_json(path.read_bytes().decode("utf-8", errors="replace"), source=path.name)
    data = sound_report(report)
    report.to_csv()
    repr(report)
    return data


def _report_free(place: Place) -> bool:
    """Names of components, levels and roles, the tables, the spec, the details of a span."""
    names = ("energy_by_component_j", "bytes_by_level", "peak_memory_by_role_bytes", "details", "origin", "tables", "spec")
    return any(part in names for part in place)


def _targets() -> list[Any]:
    from hwsim.scoreboard import target_files

    return [read_spec(target_files()[name]) for name in ("a100_matmul", "eyeriss_alexnet", "tpu_v1_mlp0", "cpu_epyc")]


def _target(path: Path) -> Any:
    from hwsim.scoreboard.points import target_points
    from hwsim.scoreboard.target import Target
    from hwsim.spec import validate_spec

    target = validate_spec(Target, read_spec(path), source=path.name)
    points = target_points(target)
    finite([dict(point.measured) for point in points])
    return {"target": target.model_dump(mode="json"), "points": sorted(sorted(point.label.split()) for point in points)}


def _target_free(place: Place) -> bool:
    return (place[:1] == ("points",) and len(place) > 1) or "where" in place


# --- measuring, and studies -----------------------------------------------------------------------------------------------


@cache
def _backend() -> Any:
    from hwsim.measuring.cpu import CpuBackend

    return CpuBackend(1)


@cache
def _begun() -> list[str]:
    """What ``hwsim measure`` wrote before it was stopped."""
    from hwsim.measuring.session import Session

    comments = Session(_backend(), "nowhere.csv").comments
    rows = ["operator,batch,m,n,k,formats,time_s,std_s", "matmul,1,64,64,64,fp32,0.00002,1e-7", "gelu,,,4096,,fp32,0.00003,1e-7"]
    return ["\n".join([*(f"# {name}: {text}" for name, text in comments.items()), *rows, ""])]


def _continued(path: Path) -> Any:
    from hwsim.measuring.session import Session

    with said():
        session = Session(_backend(), path, resume=True)
    return {"known": sorted(map(repr, session.known)), "columns": session.columns}


def _studies() -> list[Any]:
    cost = {"model": "mlp0", "device": "tpu_v1", "batch": 2}
    return [
        {
            "name": "one", "method": "sweep", "cost": cost, "sample": 4,
            "space": {"rows": [16, 32], "clock_hz": {"low": 1e8, "high": 1e9}},
        },
        {
            "name": "two", "cost": cost, "space": {"rows": {"low": 8, "high": 64, "step": 8}}, "trials": 8, "seed": 3,
            "objectives": {"time_s": "min", "energy_j": "min"}, "constraints": ["time_s <= 1e-3"], "sampler": "random",
            "batch": 4,
        },
    ]  # fmt: skip


def _space(place: Place) -> bool:
    """Names of what varies are the reader's own."""
    return place[:1] in (("space",), ("objectives",))


def _studied(path: Path) -> Any:
    from hwsim.explore.study_file import StudyFile

    study = StudyFile.read(path)
    study.evaluator()
    return study.model_dump(mode="json")


# --- cells ----------------------------------------------------------------------------------------------------------------


def _liberty_seeds() -> list[str]:
    from test_liberty import TEXT

    return [TEXT]


def _liberty(path: Path) -> Any:
    from rtl.synthesis.liberty import read_library

    library = read_library(path)
    energies: dict[str, Any] = {}
    for name, cell in library.cells.items():
        energies[name] = [cell.area, *(library.toggle_pj(output, list(cell.inputs.values())) for output in cell.outputs.values())]
    finite(energies)
    return [library.name, library.voltage_v, energies, list(library.others)]


TEXT_FILES: Mapping[str, FileKind] = {
    kind.name: kind
    for kind in (
        *SPECS,
        tree_kind("recipe_yaml", ".yaml", _recipes, _applied),
        tree_kind("recipe_json", ".json", _recipes, _applied),
        tree_kind("workload", ".json", _workloads, _loaded, free=_metadata),
        tree_kind("profile", ".json", _traces, _profiled, free=_anything),
        tree_kind("report", ".json", _reports, _report, free=_report_free),
        tree_kind("target", ".yaml", _targets, _target, free=_target_free),
        table_kind("scale_sim", lambda: [CONVOLUTIONS, STRIDES, PRODUCTS], _loaded),
        table_kind("measurements", lambda: [MEASURED], _scored),
        table_kind("calibration", lambda: [MEASURED], _calibrated),
        table_kind("events", lambda: EVENTS, _events, comment=""),
        table_kind("measuring", _begun, _continued),
        tree_kind("study", ".yaml", _studies, _studied, free=_space),
        text_kind("liberty", ".lib", _liberty_seeds, _liberty, comment="//"),
    )
}
"""By name."""
