"""From one configuration to many: sweeps, searches, and what they found.

>>> import hwsim
>>> from hwsim.explore import MachineCost
>>> cost = MachineCost("resnet50", device="gemmini_16x16")
>>> found = hwsim.sweep(cost, {"array.rows": [8, 16, 32], "array.dataflow": ["ws", "os"]})  # doctest: +SKIP
>>> found.front()  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numerics._lazy import lazy_names

if TYPE_CHECKING:
    from hwsim.explore.evaluation import Evaluator, MachineCost, Together
    from hwsim.explore.exploration import Exploration, Trial
    from hwsim.explore.objectives import Constraint, Objective, hypervolume, non_dominated
    from hwsim.explore.predictor import Predictor, PredictorQuality, RankCorrelation, rank_correlation
    from hwsim.explore.searches import gain, search
    from hwsim.explore.space import Choice, Integer, Real, Space
    from hwsim.explore.sub_accelerators import SubAccelerators
    from hwsim.explore.sweeps import sweep
    from hwsim.explore.widgets import browse, explorer

_HOME = {
    ".evaluation": ("Evaluator", "MachineCost", "Together"),
    ".exploration": ("Exploration", "Trial"),
    ".objectives": ("Constraint", "Objective", "hypervolume", "non_dominated"),
    ".predictor": ("Predictor", "PredictorQuality", "RankCorrelation", "rank_correlation"),
    ".searches": ("gain", "search"),
    ".space": ("Choice", "Integer", "Real", "Space"),
    ".sub_accelerators": ("SubAccelerators",),
    ".sweeps": ("sweep",),
    ".widgets": ("browse", "explorer"),
}

__all__ = [
    "Choice",
    "Constraint",
    "Evaluator",
    "Exploration",
    "Integer",
    "MachineCost",
    "Objective",
    "Predictor",
    "PredictorQuality",
    "RankCorrelation",
    "Real",
    "Space",
    "SubAccelerators",
    "Together",
    "Trial",
    "browse",
    "explorer",
    "gain",
    "hypervolume",
    "non_dominated",
    "rank_correlation",
    "search",
    "sweep",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
