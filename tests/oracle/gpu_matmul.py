"""Tensor cores against the named accumulators, bit for bit, on the GPU at hand; needs CUDA.

    python tests/oracle/gpu_matmul.py [--out gpu_matmul.csv] [--trials 20]

Each case is a product whose K is that of one instruction, so that no order of instructions is open: the library may pick a kernel
with another instruction of the same inputs, hence every accumulator of the GPU's architecture with these inputs and this output
is compared, and the file says for each how many outputs agree. A disagreement is a result, not an error.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import numerics
from numerics.accumulator import accumulator_names
from numerics.products import matmul

if TYPE_CHECKING:
    from numpy.typing import NDArray

ARCHITECTURES = {(7, 0): "volta", (7, 5): "turing", (8, 0): "ampere", (8, 6): "ampere", (8, 9): "ada", (9, 0): "hopper"}
"""Compute capability → architecture; 10.x is ``blackwell``."""

KINDS = ("gaussian", "cancelling", "spread", "subnormal", "special")
FORMATS = {"f16": "fp16", "bf16": "bf16", "tf32": "tf32", "e4m3": "e4m3fn", "e5m2": "e5m2"}
COLUMNS = (
    "gpu", "capability", "torch", "cuda", "operation", "inputs", "output", "k", "accumulator", "kind", "trials", "outputs",
    "equal_bits", "largest_difference", "note",
)  # fmt: skip


def operands(kind: str, fmt: str, rng: np.random.Generator, m: int, k: int, n: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Two matrices of values that the format has."""
    a, b = rng.standard_normal((m, k)), rng.standard_normal((k, n))
    found = numerics.get_format(fmt)
    assert isinstance(found, numerics.FloatFormat)
    if kind == "cancelling":
        a[:, 1::2], b[1::2] = a[:, ::2], -b[::2] * (1 + rng.integers(0, 2, b[::2].shape) * found.eps)
    elif kind == "spread":
        a *= 2.0 ** rng.integers(max(found.emin, -30) // 2, min(found.emax, 30) // 2, a.shape)
    elif kind == "subnormal":
        a = rng.integers(-7, 8, a.shape) * found.smallest_subnormal
    elif kind == "special":
        a[0, 0], b[1, 1] = np.nan, np.inf if found.has_inf else np.nan
    return tuple(numerics.quantize(v.astype(np.float32), fmt, overflow="saturate" if kind != "special" else None) for v in (a, b))  # type: ignore[return-value]


def on_gpu(torch: Any, operation: str, name: str, output: str, a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float32]:
    """The product that the GPU computes, as 32-bit floats (integers exactly)."""
    left, right = torch.from_numpy(np.ascontiguousarray(a)).cuda(), torch.from_numpy(np.ascontiguousarray(b)).cuda()
    if operation == "_scaled_mm":
        kind = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
        first, second = name.split(".") if "." in name else (name, name)
        one = torch.ones((), device="cuda")
        # The second operand lies in columns.
        result = torch._scaled_mm(
            left.to(kind[first]), right.to(kind[second]).t().contiguous().t(), scale_a=one, scale_b=one,
            out_dtype=torch.float32, use_fast_accum=True,
        )  # fmt: skip
    elif operation == "_int_mm":
        return torch._int_mm(left.to(torch.int8), right.to(torch.int8)).cpu().numpy()  # type: ignore[no-any-return]
    elif name == "tf32":
        torch.backends.cuda.matmul.allow_tf32 = True
        result = left @ right
    else:
        dtype = {"f16": torch.float16, "bf16": torch.bfloat16}[name]
        if output == "f32":
            result = torch.mm(left.to(dtype), right.to(dtype), out_dtype=torch.float32)
        else:
            # Sums in fp16; otherwise they are rounded to it from fp32 only at the end.
            torch.backends.cuda.matmul.allow_fp16_accumulation = True
            result = left.to(dtype) @ right.to(dtype)
    return result.float().cpu().numpy()  # type: ignore[no-any-return]


def candidates(architecture: str, name: str, output: str) -> list[str]:
    """Accumulators of the architecture with these inputs and this output."""
    split = {n: n.split(".") for n in accumulator_names()}
    return [n for n, parts in split.items() if parts[0] == architecture and parts[3:] == [*name.split("."), output]]


def depth_of(accumulator: str) -> int:
    """K of an instruction."""
    return int(accumulator.split(".")[2].removeprefix("k"))


def compare(torch: Any, architecture: str, about: dict[str, str], trials: int) -> list[dict[str, Any]]:
    """A row for each accumulator and kind of operands."""
    rows: list[dict[str, Any]] = []
    cases = [("mm", n, o) for n in ("f16", "bf16") for o in ("f32", "f16") if (n, o) != ("bf16", "f16")]
    # _scaled_mm rounds to fp16 only at the end.
    cases += [("mm", "tf32", "f32"), *(("_scaled_mm", n, "f32") for n in ("e4m3", "e4m3.e5m2", "e5m2.e4m3"))]
    for operation, name, output in cases:
        names = candidates(architecture, name, output)
        for accumulator in names:
            for kind in KINDS:
                rows.append(about | one_case(torch, operation, name, output, accumulator, kind, trials))
    rows.append(about | int8_case(torch, trials))
    return rows


def one_case(torch: Any, operation: str, name: str, output: str, accumulator: str, kind: str, trials: int) -> dict[str, Any]:
    k, m, n = depth_of(accumulator), 64, 64
    first = FORMATS[name.split(".")[0]]
    rng = np.random.default_rng(k)
    equal = outputs = 0
    worst, note = 0.0, ""
    for _ in range(trials):
        a, b = operands(kind, first, rng, m, k, n)
        if "." in name:
            b = numerics.quantize(b, FORMATS[name.split(".")[1]], overflow="saturate")
        try:
            found = on_gpu(torch, operation, name, output, a, b)
        except (RuntimeError, TypeError, ValueError) as error:
            note = str(error).splitlines()[0][:200]
            break
        expected = matmul(a, b, accumulator=accumulator)
        both_nan = np.isnan(found) & np.isnan(expected)
        same = both_nan | (found.view(np.uint32) == expected.view(np.uint32))
        equal += int(same.sum())
        outputs += same.size
        with np.errstate(invalid="ignore"):
            difference = np.abs(found - expected)
        finite = np.isfinite(difference)
        worst = max(worst, float(difference[finite].max()) if finite.any() else 0.0)
    return {
        "operation": operation, "inputs": name, "output": output, "k": k, "accumulator": accumulator, "kind": kind,
        "trials": trials, "outputs": outputs, "equal_bits": equal, "largest_difference": worst, "note": note,
    }  # fmt: skip


def int8_case(torch: Any, trials: int) -> dict[str, Any]:
    """INT8 products: integers, so that every order gives the same."""
    rng = np.random.default_rng(8)
    equal = outputs = 0
    note = ""
    for _ in range(trials):
        a, b = rng.integers(-128, 128, (64, 64), np.int8), rng.integers(-128, 128, (64, 64), np.int8)
        try:
            found = on_gpu(torch, "_int_mm", "int8", "int32", a, b)
        except (RuntimeError, TypeError) as error:
            note = str(error).splitlines()[0][:200]
            break
        same = found == matmul(a, b, accumulator="int32")
        equal, outputs = equal + int(same.sum()), outputs + same.size
    return {
        "operation": "_int_mm", "inputs": "int8", "output": "int32", "k": 64, "accumulator": "int32", "kind": "uniform",
        "trials": trials, "outputs": outputs, "equal_bits": equal, "largest_difference": 0.0, "note": note,
    }  # fmt: skip


def main() -> int:
    """Compare, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("gpu_matmul.csv"))
    parser.add_argument("--trials", type=int, default=20)
    arguments = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("gpu_matmul: no CUDA device here; nothing was compared", file=sys.stderr)
        return 1
    capability = torch.cuda.get_device_capability()
    architecture = "blackwell" if capability[0] == 10 else ARCHITECTURES.get(capability)
    if architecture is None:
        print(f"gpu_matmul: no accumulators are known for compute capability {capability}", file=sys.stderr)
        return 1
    about = {
        "gpu": torch.cuda.get_device_name(), "capability": ".".join(map(str, capability)), "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
    }  # fmt: skip
    rows = compare(torch, architecture, about, arguments.trials)
    with arguments.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        agreed = f"{row['equal_bits']:>7} of {row['outputs']:<7}"
        print(f"{row['operation']:10} {row['accumulator']:32} {row['kind']:10} {agreed} {row['note']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
