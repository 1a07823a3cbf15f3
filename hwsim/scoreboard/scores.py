"""Scores: how far a device's figures are from what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hwsim.machine import Fittable
from hwsim.registry import device_classes, get_device, read_spec, spec_file
from hwsim.scoreboard.fitting import Array, FieldFit
from hwsim.scoreboard.points import Point, predict, prediction, target_points
from hwsim.scoreboard.target import Figure, Goal, Target, load_target
from hwsim.views.display import displayed, displayed_by, listed
from numerics.errors import InputError

Origin = Literal["predicted", "calibrated", "cross-validated"]


@displayed
@dataclass(frozen=True)
class Errors:
    """Errors of a set of points, in percent of the measured values (or percentage points).

    Attributes:
        mean: of the absolute errors.
        worst: the largest absolute error.
        bias: mean of the signed errors, positive where the model says more than was measured.
    """

    mean: float
    worst: float
    bias: float

    @classmethod
    def of(cls, modelled: Array, measured: Array, kind: str = "percent") -> Errors:
        """Errors of ``modelled`` against ``measured``."""
        signed = modelled - measured if kind == "points" else 100 * (modelled / measured - 1)
        return cls(float(np.abs(signed).mean()), float(np.abs(signed).max()), float(signed.mean()))


@displayed_by("hwsim.views.study_cards:score")
@dataclass(frozen=True)
class Score:
    """One figure of a target, or a part of its points.

    Attributes:
        target, figure, subset: what was measured.
        device: what it is held against.
        evidence: ``silicon`` or ``estimate``.
        error: ``percent`` or ``points``.
        origin: ``predicted``: no fitted value bears on it; ``cross-validated``: each point with fields fitted to the others;
            ``calibrated``: fields fitted to other measurements, or chosen with these in view, bear on it.
        fitted_fields: fields fitted to this figure, or chosen with it in view.
        errors: the errors that count, of the origin above.
        shipped: errors with the values of the spec, fitted to all points.
        uncalibrated: errors with the spec's ``calibrated`` section deleted.
        goal: what they should stay below.
        labels, measured, modelled: the points; ``modelled`` as counted.
    """

    target: str
    figure: str
    subset: str
    device: str
    evidence: str
    error: str
    origin: Origin
    fitted_fields: tuple[str, ...]
    errors: Errors
    shipped: Errors
    uncalibrated: Errors
    goal: Goal
    labels: tuple[str, ...]
    measured: tuple[float, ...]
    modelled: tuple[float, ...]

    @property
    def name(self) -> str:
        """Target, figure and subset in one word."""
        return "/".join(part for part in (self.target, self.figure, self.subset) if part)

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none."""
        if self.goal.mean is None and self.goal.worst is None:
            return None
        mean_met = self.goal.mean is None or self.errors.mean <= self.goal.mean
        return mean_met and (self.goal.worst is None or self.errors.worst <= self.goal.worst)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "target": self.target,
            "figure": self.figure,
            "subset": self.subset,
            "device": self.device,
            "evidence": self.evidence,
            "unit": "percent" if self.error == "percent" else "percentage points",
            "points": len(self.measured),
            "origin": self.origin,
            "fitted_parameters": len(self.fitted_fields),
            "fitted_fields": list(self.fitted_fields),
            "mean_error": self.errors.mean,
            "worst_error": self.errors.worst,
            "bias": self.errors.bias,
            "mean_error_shipped": self.shipped.mean,
            "worst_error_shipped": self.shipped.worst,
            "mean_error_uncalibrated": self.uncalibrated.mean,
            "worst_error_uncalibrated": self.uncalibrated.worst,
            "goal_mean": self.goal.mean,
            "goal_worst": self.goal.worst,
            "goal_met": self.met,
            "data": [
                {"label": label, "measured": measured, "modelled": modelled}
                for label, measured, modelled in zip(self.labels, self.measured, self.modelled, strict=True)
            ],
        }


def score_target(target: str | Target) -> list[Score]:
    """Scores of every figure of a target, each followed by those of its subsets.

    Raises:
        InputError: no such target, data or a spec that does not fit it.
    """
    chosen = load_target(target) if isinstance(target, str) else target
    every = target_points(chosen)
    data = read_spec(spec_file(chosen.device))
    found: list[Score] = []
    for figure in chosen.figures:
        points = [point for point in every if figure.holds(point.row)]
        if not points:
            raise InputError(f"target {chosen.name!r}: figure {figure.name!r}: where: no row of {chosen.data} matches")
        measured = np.array([point.measured[figure.name] for point in points])
        shipped = predict(data, points, figure.modelled)
        bare = predict({**data, "calibrated": {}}, points, figure.modelled)
        fields: tuple[str, ...] = ()
        counted = shipped
        origin: Origin = "predicted" if np.array_equal(shipped, bare) else "calibrated"
        if figure.informed:
            _check_fields(chosen, figure.informed)
            fields, origin = figure.informed, "calibrated"
        if figure.fit:
            search = field_fit(data, figure.fit, points, figure)
            fields, origin = (*search.ranges, *figure.informed), "cross-validated"
            counted = search.cross_validated(figure.cross_validation)
        whole = [("", figure.goal, np.ones(len(points), dtype=bool))]
        parts = [(s.name, s.goal, np.array([s.holds(point.row) for point in points])) for s in figure.subsets]
        for name, goal, inside in (*whole, *parts):
            if not inside.any():
                raise InputError(f"target {chosen.name!r}: subset {name!r} holds no point")
            errors = [Errors.of(values[inside], measured[inside], figure.error) for values in (counted, shipped, bare)]
            found.append(
                Score(
                    target=chosen.name,
                    figure=figure.name,
                    subset=name,
                    device=chosen.device,
                    evidence=chosen.evidence,
                    error=figure.error,
                    origin=origin,
                    fitted_fields=fields,
                    errors=errors[0],
                    shipped=errors[1],
                    uncalibrated=errors[2],
                    goal=goal,
                    labels=tuple(point.label for point, held in zip(points, inside, strict=True) if held),
                    measured=tuple(measured[inside].tolist()),
                    modelled=tuple(counted[inside].tolist()),
                )
            )
    return listed(found, "hwsim.views.study_cards:scores")


def _check_fields(target: Target, names: Sequence[str]) -> None:
    """See that the device's spec has these dotted fields."""
    for name in names:
        place: Any = get_device(target.device).spec
        for part in name.split("."):
            place = getattr(place, part, None)
        if place is None:
            raise InputError(f"target {target.name!r}: informed: {target.device} has no field {name!r}")


def fittable(data: Mapping[str, Any], fit: str) -> Fittable:
    """What a fit of this device may change.

    Raises:
        InputError: the device's kind has no such fit.
    """
    known: Mapping[str, Fittable] = getattr(device_classes()[data["kind"]], "fittable", {})
    if fit not in known:
        raise InputError(f"device {data.get('name')!r}: no fit {fit!r}; fits: {', '.join(known) or 'none'}")
    return known[fit]


def field_fit(data: Mapping[str, Any], fit: str, points: Sequence[Point], figure: Figure) -> FieldFit:
    """The search for the fields of ``fit``: those the spec lists under ``calibrated``, or all that the kind names for it."""
    ranges = fittable(data, fit).ranges
    section = (data.get("calibrated") or {}).get(fit)
    names = tuple(section["values"]) if section else tuple(ranges)
    unknown = [name for name in names if name not in ranges]
    if unknown:
        raise InputError(
            f"device {data.get('name')!r}: calibrated.{fit}: {unknown[0]!r} is no field of that fit ({', '.join(ranges)})"
        )
    measured = np.array([point.measured[figure.name] for point in points])
    return FieldFit({name: ranges[name] for name in names}, predictor(data, fit, names, points, figure.modelled), measured)


def predictor(
    data: Mapping[str, Any], fit: str, names: Sequence[str], points: Sequence[Point], modelled: str
) -> Callable[[tuple[float, ...]], Array]:
    """Values of ``names`` → the figure of every point; the device's other fits keep their values."""

    of_device = prediction(points, modelled)

    def predicted(values: tuple[float, ...]) -> Array:
        return of_device(with_values(data, fit, dict(zip(names, values, strict=True))))

    return predicted


def with_values(data: Mapping[str, Any], fit: str, values: Mapping[str, float], source: str = "") -> dict[str, Any]:
    """A spec's data with the values of one fit."""
    section = dict(data.get("calibrated") or {})
    kept = source or (section[fit]["data"] if fit in section else "not recorded")
    section[fit] = {"data": kept, "values": dict(values)}
    return {**data, "calibrated": section}


def score_points(name: str, points: Sequence[Point], device: str | Path, *, figure: str = "time_s") -> list[Score]:
    """Scores of measurements that no target describes, for each operator and all together; nothing is fitted."""
    machine = get_device(device)
    data = machine.spec.model_dump()
    shipped = predict(data, points, figure)
    bare = predict(_bare(device), points, figure)
    measured = np.array([point.measured[figure] for point in points])
    origin: Origin = "predicted" if np.array_equal(shipped, bare) else "calibrated"
    kinds = [point.row.get("operator", point.label) for point in points]
    found = []
    for part in ("", *sorted(set(kinds))):
        inside = np.array([part in ("", kind) for kind in kinds])
        if part and len(set(kinds)) == 1:
            continue
        errors = [Errors.of(values[inside], measured[inside]) for values in (shipped, bare)]
        found.append(
            Score(
                target=name,
                figure=figure.removesuffix("_s"),
                subset=part,
                device=machine.name,
                evidence="own",
                error="percent",
                origin=origin,
                fitted_fields=(),
                errors=errors[0],
                shipped=errors[0],
                uncalibrated=errors[1],
                goal=Goal(),
                labels=tuple(point.label for point, held in zip(points, inside, strict=True) if held),
                measured=tuple(measured[inside].tolist()),
                modelled=tuple(shipped[inside].tolist()),
            )
        )
    return listed(found, "hwsim.views.study_cards:scores")


def _bare(device: str | Path) -> dict[str, Any]:
    return get_device(device, calibrated=False).spec.model_dump()
