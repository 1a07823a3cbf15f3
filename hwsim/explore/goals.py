"""What a search seeks, in Optuna's terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hwsim.explore.evaluation import Metrics
from hwsim.explore.objectives import Constraint, Objective, known_metrics
from hwsim.explore.space import Choice, Configuration, Real, Space


@dataclass(frozen=True)
class Goals:
    """Space, objectives and constraints together."""

    space: Space
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]

    @property
    def directions(self) -> list[Literal["minimize", "maximize"]]:
        """Optuna's words for what is sought."""
        return ["minimize" if objective.direction == "min" else "maximize" for objective in self.objectives]

    def values(self, metrics: Mapping[str, Any]) -> list[float] | None:
        """The objectives' values; None where one is unknown or the configuration was refused."""
        if "error" in metrics:
            return None
        known_metrics([objective.metric for objective in self.objectives], metrics, what="objective")
        values = [metrics[objective.metric] for objective in self.objectives]
        return None if None in values else [float(value) for value in values]

    def violations(self, configuration: Configuration, metrics: Mapping[str, Any]) -> dict[str, float]:
        """Constraint → by how much it is broken; 0 where it is kept."""
        known = {**configuration, **metrics}
        known_metrics([bound.metric for bound in self.constraints], known, what="constraint's metric")
        # Optuna's databases hold no infinity.
        return {str(bound): min(bound.violation(known[bound.metric]), 1e300) for bound in self.constraints}

    def distributions(self) -> dict[str, Any]:
        """The space as Optuna's distributions. Choices of numbers become their places, so that neighbours are near."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        found: dict[str, Any] = {}
        for name, parameter in self.space.parameters.items():
            if isinstance(parameter, Choice):
                if parameter.ordered:
                    found[name] = IntDistribution(0, parameter.size - 1)
                else:
                    found[name] = CategoricalDistribution(parameter.values)
            elif isinstance(parameter, Real):
                found[name] = FloatDistribution(parameter.low, parameter.high, log=parameter.log)
            else:
                high = parameter.low + (parameter.size - 1) * parameter.step
                found[name] = IntDistribution(parameter.low, high, step=parameter.step, log=parameter.log)
        return found

    def configuration(self, params: Mapping[str, Any]) -> Configuration:
        """A configuration from Optuna's parameters."""
        found = {}
        for name, parameter in self.space.parameters.items():
            ordered = isinstance(parameter, Choice) and parameter.ordered
            found[name] = sorted(parameter.values)[params[name]] if ordered else params[name]  # type: ignore[union-attr]
        return found

    def params(self, configuration: Configuration) -> dict[str, Any]:
        """Optuna's parameters of a configuration."""
        found = {}
        for name, parameter in self.space.parameters.items():
            ordered = isinstance(parameter, Choice) and parameter.ordered
            value = configuration[name]
            found[name] = sorted(parameter.values).index(value) if ordered else value  # type: ignore[union-attr]
        return found


def key_of(configuration: Configuration) -> str:
    """The same text for the same configuration."""
    return repr(sorted(configuration.items()))


@dataclass
class Evaluated:
    """A trial of a stage, as it is recorded."""

    configuration: Configuration
    metrics: Metrics
    system: dict[str, Any] = field(default_factory=dict)
    """What a sampler of Optuna noted beside it."""
