"""Evaluators that workers can import."""

import hashlib
import math
import time
from pathlib import Path

from numerics.errors import InputError

SPACE = {"rows": [2, 4, 8, 16, 32, 64], "columns": {"low": 1, "high": 12}, "style": ["a", "b"]}
GOALS = {"time_s": "min", "area_mm2": "min"}


def toy(configuration):
    """Two objectives in conflict, known in closed form; one configuration is refused."""
    rows, columns = configuration["rows"], configuration["columns"]
    if rows == 64 and columns == 12:
        raise InputError("rows: 64 rows do not go with 12 columns")
    slow = 1.5 if configuration["style"] == "b" else 1.0
    return {"time_s": slow / (rows * math.sqrt(columns)), "area_mm2": 0.1 * rows + columns, "score": None if rows == 2 else 1.0}


def counted(folder, configuration):
    """The toy, leaving a file for each configuration that was evaluated."""
    name = hashlib.sha256(repr(sorted(configuration.items())).encode()).hexdigest()[:16]
    with (Path(folder) / name).open("a") as file:
        file.write("x")
    return toy(configuration)


def slow(folder, seconds, configuration):
    """As ``counted``, and it takes its time."""
    time.sleep(seconds)
    return counted(folder, configuration)


def failing(configuration):
    """Raises what is no refusal for some configurations."""
    if configuration["columns"] == 3:
        raise RuntimeError("a defect of the user's")
    return toy(configuration)


def mlp(width=32, depth=2):
    """A network by its width and depth."""
    import torch
    from torch import nn

    layers = [nn.Linear(64, width), nn.ReLU()]
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10)), torch.empty(8, 64, device="meta")


def width(configuration):
    """A metric beside those of a machine."""
    return {"score": configuration["model.width"]}
