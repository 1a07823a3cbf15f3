"""Synthetic reports with one of everything the views must show; their figures stand for no real machine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from hwsim.report import OpCost, Report, Span

CLOCK_HZ = 700e6
PEAK_MACS_PER_CYCLE = 128 * 128
BYTES_PER_CYCLE = 64

# name, kind, unit, MACs, off-chip bytes, busy cycles of the unit, fused with
_OPS = [
    ("conv1", "convolution", "array", 118_013_952, 953_000, 14_200, ""),
    ("bn1", "elementwise", "vector", 0, 0, 6_272, "conv1"),
    ("relu1", "elementwise", "vector", 0, 0, 6_272, "conv1"),
    ("maxpool", "pool", "vector", 0, 200_704, 5_600, ""),
    ("layer1.0.conv1", "convolution", "array", 115_605_504, 438_272, 8_900, ""),
    ("layer1.0.relu", "elementwise", "vector", 0, 0, 1_568, "layer1.0.conv1"),
    ("layer1.0.conv2", "convolution", "array", 115_605_504, 438_272, 8_900, ""),
    ("layer2.0.conv1", "convolution", "array", 57_802_752, 374_784, 4_600, ""),
    ("layer2.0.conv2", "convolution", "array", 115_605_504, 348_160, 8_700, ""),
    ("layer2.0.sort", "sort", "memory", 0, 401_408, 0, ""),
    ("avgpool", "pool", "vector", 0, 26_624, 500, ""),
    ("fc", "matmul", "array", 512_000, 513_512, 1_060, ""),
    ("softmax", "softmax", "vector", 0, 4_000, 130, ""),
]
OVERHEAD = 300.0


def sample_ops(rows: Iterable[tuple[Any, ...]] = tuple(_OPS)) -> tuple[OpCost, ...]:
    """Operators whose cycles follow from the rows by max(compute, memory) + overhead."""
    ops = []
    start = 0.0
    for name, kind, unit, macs, moved, busy, host in rows:
        memory = moved / BYTES_PER_CYCLE
        compute = 0.0 if host else float(busy)
        stall = 0.0 if host else max(0.0, memory - busy)
        overhead = 0.0 if host else OVERHEAD
        cycles = compute + stall + overhead
        energy = {
            "static": 0.4e-9 * cycles,
            "off_chip": 20e-12 * moved,
            "scratchpad": 0.9e-12 * macs / 16 + 1e-12 * moved,
        }
        if macs:
            energy["mac"] = 0.25e-12 * macs
        if unit == "vector":
            energy["vector"] = 30e-12 * busy
        ops.append(
            OpCost(
                name=name,
                kind=kind,
                module=name.rpartition(".")[0] or name,
                phase="forward",
                format="int8→int32" if macs else "fp32",
                unit=unit,
                macs=macs,
                time_s=cycles / CLOCK_HZ,
                cycles=cycles,
                compute_cycles=compute,
                stall_cycles=stall,
                overhead_cycles=overhead,
                busy_cycles=float(busy),
                energy_j=energy,
                bytes={"off_chip": moved, "scratchpad": macs // 16 + moved},
                utilization=macs / (cycles * PEAK_MACS_PER_CYCLE) if cycles else 0.0,
                start_s=start / CLOCK_HZ,
                fused_with=host,
                modelled=kind != "sort",
            )
        )
        start += cycles
    return tuple(ops)


def sample_spans(ops: Iterable[OpCost]) -> tuple[Span, ...]:
    """Work on each operator's unit, with its folds nested in it, and the transfers that feed it."""
    spans = []
    for op in ops:
        busy_s = op.busy_cycles / CLOCK_HZ
        if op.bytes_offchip:
            moved_s = op.bytes_offchip / BYTES_PER_CYCLE / CLOCK_HZ
            details = {"bytes": op.bytes_offchip, "tensor": f"{op.name}.weight"}
            spans.append(Span("off_chip", f"load {op.name}", op.start_s, moved_s, details))
        if op.busy_cycles and op.unit in ("array", "vector"):
            spans.append(Span(op.unit, op.name, op.start_s, busy_s, {"macs": op.macs}))
            if op.unit == "array":
                for fold in range(4):
                    spans.append(Span("array", f"fold {fold}", op.start_s + fold * busy_s / 4, busy_s / 4))
    return tuple(spans)


def sample_report(**changes: Any) -> Report:
    """The synthetic report, with ``changes`` to its fields."""
    ops = sample_ops()
    report = Report(
        device="tpu-like 128x128",
        workload="small_resnet",
        fidelity="analytical",
        recipe="int8",
        clock_hz=CLOCK_HZ,
        ops=ops,
        peak_macs_per_s=PEAK_MACS_PER_CYCLE * CLOCK_HZ,
        offchip_bandwidth_bytes_per_s=BYTES_PER_CYCLE * CLOCK_HZ,
        origin={"time": "calibrated", "energy": "predicted"},
        spec={
            "name": "tpu-like 128x128",
            "array": {"rows": 128, "columns": 128},
            "clock_mhz": 700,
            "note": "<b>bold</b> & plain",
        },
        version="0.1.0",
        spans=sample_spans(ops),
        tables={
            "fold_counts": [
                {"op": "conv1", "dataflow": "weight stationary", "folds": 2, "edge_utilization": 0.875},
                {"op": "fc", "dataflow": "output stationary", "folds": 8, "edge_utilization": 0.976},
            ]
        },
        peak_memory_bytes={"weights": 11_000_000, "activations": 1_605_632},
        notes=("transfers overlap with computation", "bytes of fused operators stay on chip"),
    )
    return replace(report, **changes)


def large_report(blocks: int = 24, *, modules: bool = True) -> Report:
    """A transformer's worth of operators: ``blocks`` blocks of eight, between an embedding and a head."""
    rows: list[tuple[Any, ...]] = [("embed", "gather", "memory", 0, 3_000_000, 0, "")]
    for block in range(blocks):
        path = f"transformer.h.{block}"
        rows += [
            (f"{path}.ln_1.norm", "normalization", "vector", 0, 0, 9_000, ""),
            (f"{path}.attn.qkv", "matmul", "array", 1_811_939_328, 2_400_000, 124_000, ""),
            (f"{path}.attn.scores", "matmul", "array", 805_306_368, 1_000_000, 70_000, ""),
            (f"{path}.attn.softmax", "softmax", "vector", 0, 0, 98_000, f"{path}.attn.scores"),
            (f"{path}.attn.mix", "matmul", "array", 805_306_368, 900_000, 68_000, ""),
            (f"{path}.mlp.fc", "matmul", "array", 2_415_919_104, 2_900_000, 166_000, ""),
            (f"{path}.mlp.gelu", "elementwise", "vector", 0, 0, 40_000, f"{path}.mlp.fc"),
            (f"{path}.mlp.proj", "matmul", "array", 2_415_919_104, 2_900_000, 166_000, ""),
        ]
    rows.append(("head", "matmul", "array", 39_000_000_000, 39_000_000, 2_700_000, ""))
    ops = sample_ops(rows)
    if not modules:
        ops = tuple(replace(op, module="") for op in ops)
    return sample_report(ops=ops, spans=sample_spans(ops), workload="gpt2", tables={})
