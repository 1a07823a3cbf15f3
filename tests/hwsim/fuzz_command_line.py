"""Random command lines: flags and values of every command, right and wrong, run in this process."""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from fuzz_files import said
from fuzz_oracle import LONGEST_ERROR, Tally, Unsound, finite, judged
from mutations import Mutant

MODULE = """
import torch
from torch import nn


def net(batch=2):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 4)), torch.randn(batch, 8)


def bad():
    raise RuntimeError("first line\\nsecond line")


def text():
    return "no module"
"""

ODD = (
    "", " ", "0", "-1", "1", "2", "3.5", "1e400", "nan", "-inf", "9" * 30, "x", "🦆", "a\nb", "a" * 3000, "\x1b[31m", "--", "-",
    "=", ",", ",,",
    "null", "true", "{}", "[1", "../..", "/dev/null", "/proc/self/mem", "no/such/file.yaml", "no.csv", "a:b", "os:getcwd", "%s",
)  # fmt: skip
"""Values that fit few options."""

MODELS = ("mlp0", "mlp0", "mlp0", "lstm0", "fuzzed_nets:net", "fuzzed_nets:net", "fuzzed_nets:bad", "fuzzed_nets:text",
    "fuzzed_nets:nothing", "mpl0",
          "topology.csv", "no.onnx", "nothing:net", "spec.yaml", "folder", "work.json")  # fmt: skip
DEVICES = (
    "tpu_v1",
    "h100",
    "eyeriss",
    "cpu",
    "loihi",
    "bnn_mac",
    "mcu_stm32f746",
    "sparse_csr",
    "spec.yaml",
    "h10",
    "work.json",
    "broken.yaml",
)
FORMATS = ("int8", "bf16", "fp32", "int9", "e4m3fn", "recipe.yaml", "broken.yaml", "binary", "mxfp4", "q4.12", "")
SETS = ("clock_hz=1e9", "clock_hz=-1", "clock_hz=fast", "rows=16", "rows=0", "array.rows=2", "name=x", "kind=x", "x=1", "=1",
    "clock_hz", "clock_hz=[1",
        "memory={}", "static_power_w=.inf", "calibrated={}", "clock_hz=&a [*a]", "units=1", "clock_hz=1e61",
        "mac_formats={}")  # fmt: skip

VALUES: Mapping[str, tuple[str, ...]] = {
    "model": MODELS, "device": DEVICES, "devices": DEVICES, "formats": FORMATS, "format": FORMATS, "overrides": SETS,
    "name": (*DEVICES, *FORMATS), "fidelity": ("analytic", "tile", "cycle", "event", "x"), "template": ("systolic_array",
    "processor", "x"),
    "batch": ("1", "2", "4", "0", "-3", "1000000000000"), "seq_len": ("4", "0", "x"), "kv_len": ("4", "-1"), "prompt": ("4", "0"),
    "output": ("2", "0", "out.json", "out.csv", "out.txt", "no/out.json"), "out": ("out", "out.yaml", "out.csv", "work.json",
    "work.json/x"),
    "checkpoint": ("no.pt", "work.json", "folder"), "input": ("events.csv", "work.json"), "steps": ("2", "0"), "rate": ("0.1",
    "2", "-1"),
    "targets": ("weights", "activations", "weights,weights", "accumulators", "eyeriss_alexnet", "x"), "csv": ("measured.csv",
    "work.json"),
    "trace": ("work.json", "measured.csv"), "file": ("measured.csv", "work.json"), "folds": ("2", "1", "0"), "fit": ("matmul",
    "x"),
    "ber": ("1e-3", "0", "2", "-1e-3", "1e-3,1e-3", "x"), "kind": ("flip", "stuck_at_0", "x"), "bits": ("sign", "14", "99",
    "x", "1,2"),
    "modules": ("*", "0", "nothing"), "protect": ("secded", "parity", "x"), "margin": ("0.3", "0", "-1", "nan"),
    "confidence": ("0.9", "1", "0", "nan"), "interval": ("student", "bernstein", "x"), "max_trials": ("1", "2", "0"),
    "images": ("2", "0"),
    "seed": ("1", "-1"), "data": ("data.npz", "work.json"), "backend": ("cpu", "cuda", "x"), "operators": ("gelu", "x", ","),
    "shapes": ("1", "0", "x"), "seconds": ("0.001", "0", "-1", "nan"), "threads": ("1", "0", "-1"), "units": ("lif_neuron",
    "x", "fp_mac:bf16"),
    "sizes": ("2x2", "0x1", "x"), "cases": ("1", "-1"), "simulator": ("verilator", "icarus", "x"), "top": ("3", "0", "-1"),
    "workers": ("0", "-1", "1", "x"), "vary": ("rows=16,32", "rows=", "x=1,2", "rows", "clock_hz=1e9:2e9:1e8"),
    "study": ("study.yaml", "broken.yaml", "work.json"),
    "objectives": ("time_s", "x"), "metrics": ("time_s", "x"), "constraints": ("time_s<=1", "time_s<", "x"), "trials": ("4",
    "0"), "sample": ("2", "0"),
}  # fmt: skip
"""What an option takes, some of it wrong; ``ODD`` besides."""

ALWAYS: Mapping[str, tuple[str, ...]] = {
    "faults": ("--max-trials", "1", "--images", "2"),
    "measure": ("--seconds", "0.001", "--shapes", "1", "--operators", "gelu"),
    "verify": ("--list",),
    "calibrate": ("--fit", "elementwise"),
    "serve": ("--prompt", "4", "--output", "2"),
    "search": ("--help",),
}
"""What keeps a command short; what is drawn comes first, and argparse takes the last."""

LEFT_OUT = {"scheduler", "waves"}
CODES = (0, 1, 2, 3)


@cache
def _parsers() -> dict[str, argparse.ArgumentParser]:
    found = {}
    for entry in metadata.entry_points(group="hwsim.commands"):
        parser = argparse.ArgumentParser(prog=entry.name)
        entry.load().add_arguments(parser)
        found[entry.name] = parser
    return dict(sorted(found.items()))


def prepared(folder: Path) -> None:
    """The files that the command lines name."""
    import numpy as np
    from fuzz_files import EVENTS, MEASURED, PRODUCTS, small
    from mutations import yaml_text

    from hwsim.registry import spec_file
    from numerics.recipes import get_recipe

    (folder / "fuzzed_nets.py").write_text(MODULE)
    (folder / "topology.csv").write_text(PRODUCTS)
    (folder / "measured.csv").write_text(MEASURED)
    (folder / "events.csv").write_text(EVENTS[0])
    (folder / "spec.yaml").write_text(spec_file("gemmini_16x16").read_text())
    (folder / "broken.yaml").write_text("kind: [systolic_array\n")
    (folder / "recipe.yaml").write_text(yaml_text(get_recipe("int8").to_dict()))
    (folder / "study.yaml").write_text(
        "name: s\nmethod: sweep\ncost: {model: mlp0, device: tpu_v1}\nspace: {rows: [16, 32]}\nobjectives: time_s\n"
    )
    small().to_json(folder / "work.json")
    np.savez(folder / "data.npz", inputs=np.zeros((2, 8)), labels=np.array([0, 1]))
    (folder / "folder").mkdir()


def command_line(rng: random.Random) -> list[str]:
    """One command with some of its options."""
    parsers = _parsers()
    name = rng.choice(list(parsers))
    if rng.random() < 0.02:
        return [rng.choice((*ODD, "rnu", "--version", "-h", "help"))]
    positional: list[str] = []
    options: list[str] = []
    for action in parsers[name]._actions:
        if action.dest in LEFT_OUT or isinstance(action, argparse._HelpAction):
            continue
        needed = action.required if action.option_strings else action.nargs not in ("?", "*")
        if rng.random() > (0.97 if needed else 0.18):
            continue
        choices: tuple[Any, ...] = tuple(action.choices or ()) + VALUES.get(action.dest, ())
        word = str(rng.choice(choices)) if choices and rng.random() < 0.85 else rng.choice(ODD)
        if not action.option_strings:
            positional.append(word)
        elif action.nargs == 0:
            options.append(rng.choice(action.option_strings))
        else:
            flag = max(action.option_strings, key=len)
            options += [f"{flag}={word}"] if rng.random() < 0.5 else [flag, word]
    if rng.random() < 0.04:
        options.append(rng.choice(("--colour", "--jsn", "-x", "--batch", "--help", "-V")))
    if name == "validate" and not positional and not {"--csv", "--trace"} & set(options):
        options.append("--list")  # all targets take a minute
    return [name, *positional, *options, *ALWAYS.get(name, ())]


def run(words: list[str]) -> Any:
    """Run one; an ``InputError`` where it is refused as it should be."""
    from hwsim.cli import main
    from numerics.errors import InputError

    with said() as (out, err):
        code = main(words)
    if code == 2:
        told = [line for line in err.getvalue().split("\n") if ": error: " in line]
        if len(told) != 1 or not err.getvalue().endswith(told[0] + "\n"):
            raise Unsound(f"exit code 2, but says {err.getvalue()[-200:]!r}")
        text = told[0].partition(": error: ")[2]
        if not text.isprintable() or len(text) > LONGEST_ERROR:
            raise Unsound(f"an error of {len(text)} characters: {text[:200]!r}")
        raise InputError(text)
    if code not in CODES:
        raise Unsound(f"exit code {code}")
    if code == 0 and "--json" in words and "--help" not in words:
        finite(json.loads(out.getvalue()))
    return code


def fuzzed_commands(count: int, folder: Path, *, start: int = 0) -> Tally:
    """What comes of the command lines ``start … start+count-1``; the folder is the current one and holds their files."""
    tally, there = Tally(), {*folder.iterdir(), folder / "__pycache__"}
    for number in range(start, start + count):
        words = command_line(random.Random(f"command/{number}"))
        defect = judged(lambda words=words: run(words), Mutant(b"", " ".join(words)), None, tally)
        if defect is not None:
            shown = " ".join(word if len(word) < 40 else f"{word[:40]}…" for word in words)
            tally.defects.append(f"command {number} ({shown!r}): {defect}")
        for made in set(folder.iterdir()) - there:
            if made.is_dir():
                shutil.rmtree(made)
            else:
                made.unlink()
    return tally
