"""The scoreboard: what devices say beside what was measured on hardware.

>>> from hwsim.scoreboard import score_target
>>> score_target("nvdla_resnet50")[0].errors.mean < 10
True
"""

from __future__ import annotations

from hwsim.scoreboard.measurements import read_measurements
from hwsim.scoreboard.scores import Errors, Score, score_points, score_target
from hwsim.scoreboard.single import OPERATOR_SIZES, single_operator
from hwsim.scoreboard.target import Target, load_target, target_files

__all__ = [
    "OPERATOR_SIZES",
    "Errors",
    "Score",
    "Target",
    "load_target",
    "read_measurements",
    "score_points",
    "score_target",
    "single_operator",
    "target_files",
]
