"""Calibrating a device: each of its fits to the measurements that bear on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hwsim.registry import device_classes
from hwsim.scoreboard.fitting import FieldFit
from hwsim.scoreboard.points import Point, predict
from hwsim.scoreboard.scores import Errors, predictor, with_values
from hwsim.views.display import displayed
from numerics.errors import InputError, unknown_name


@displayed
@dataclass(frozen=True)
class Fitted:
    """One fit of a device.

    Attributes:
        name: of the fit.
        points: measurements that bear on it.
        values: dotted field → fitted value.
        before: errors without its values.
        after: errors with them.
        cross_validated: errors of each point with the fields fitted to the other folds.
    """

    name: str
    points: int
    values: Mapping[str, float]
    before: Errors
    after: Errors
    cross_validated: Errors

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "values": dict(self.values)}


def calibrate(
    data: Mapping[str, Any], points: Sequence[Point], *, source: str, only: Sequence[str] = (), folds: int = 5
) -> tuple[list[Fitted], list[str], dict[str, Any]]:
    """Fit the fields that the device's kind names, fit by fit in its order, each with the values of those before.

    Args:
        data: a spec's data.
        points: measured times.
        source: what the spec will say of the measurements.
        only: names of fits; by default all that the measurements bear on.
        folds: of the cross-validation.

    Returns:
        What was fitted, what was left out and why, and the spec's data with the values under ``calibrated``.

    Raises:
        InputError: a fit the kind does not have, measurements that bear on none, too few of them.
    """
    known = getattr(device_classes()[data["kind"]], "fittable", {})
    for name in only:
        if name not in known:
            raise unknown_name(f"fit (device {data.get('name')!r})", name, known)
    found: list[Fitted] = []
    skipped: list[str] = []
    current = dict(data)
    for name, fit in known.items():
        chosen = [point for point in points if point.workload.metadata.get("operator") in fit.operators]
        if (only and name not in only) or not (chosen or name in only):
            continue
        if len(chosen) < 2 * len(fit.ranges):
            if not only:
                skipped.append(f"{name}: {len(chosen)} measurements are too few for {len(fit.ranges)} fields")
                continue
            raise InputError(
                f"fit {name!r}: {len(chosen)} measurements of {', '.join(fit.operators)} are too few for "
                f"{len(fit.ranges)} fields; expected at least {2 * len(fit.ranges)}"
            )
        measured = np.array([point.measured["time_s"] for point in chosen])
        without = {**current, "calibrated": {k: v for k, v in (current.get("calibrated") or {}).items() if k != name}}
        search = FieldFit(fit.ranges, predictor(without, name, tuple(fit.ranges), chosen, "time_s"), measured)
        values = dict(zip(fit.ranges, search.fit(), strict=True))
        current = with_values(without, name, values, source)
        found.append(
            Fitted(
                name=name,
                points=len(chosen),
                values=values,
                before=Errors.of(predict(without, chosen, "time_s"), measured),
                after=Errors.of(predict(current, chosen, "time_s"), measured),
                cross_validated=Errors.of(search.cross_validated(min(folds, len(chosen))), measured),
            )
        )
    if not found and skipped:
        raise InputError(f"device {data.get('name')!r}: {'; '.join(skipped)}")
    if not found:
        bearing = sorted({operator for fit in known.values() for operator in fit.operators})
        raise InputError(
            f"device {data.get('name')!r}: the measurements bear on none of its fits ({', '.join(bearing) or 'it has none'})"
        )
    return found, skipped, current
