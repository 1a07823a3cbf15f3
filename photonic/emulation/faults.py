"""What breaks in an engine: shifters (or rings) that are stuck, detectors that are dead, time that goes by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hwsim.views.display import displayed
from numerics._fields import check_integer
from numerics.errors import InputError
from numerics.faults.maps import stream
from photonic._numbers import number
from photonic.imperfections import TURN

if TYPE_CHECKING:
    import numpy.typing as npt


@displayed
@dataclass(frozen=True, kw_only=True)
class PhotonicFaults:
    """Faults of one kind of chip; which parts they strike is drawn from ``seed``.

    Attributes:
        stuck_shifters: share of the phase shifters, of the meshes or the nodes of crossbars, or of the rings of a bank, that keep
            one setting whatever they are told.
        stuck_phase_rad: that setting, in [0, 2π); a ring drops phase/2π of its light. None: each one of its own, uniform.
        dead_detectors: share of the detectors that see no light.
        dead_ports: (engine, port) of further ones; of a crossbar (engine, row, column), the first of the crossbars that share its
            amplifier.
        drift_s: seconds gone by since the spec's ``imperfections.drift`` began.
        seed: of all draws.

    Raises:
        InputError: a number out of range.
    """

    stuck_shifters: float = 0.0
    stuck_phase_rad: float | None = None
    dead_detectors: float = 0.0
    dead_ports: tuple[tuple[int, ...], ...] = ()
    drift_s: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("stuck_shifters", "dead_detectors"):
            number(name, getattr(self, name))
            if getattr(self, name) > 1:
                raise InputError(f"{name}: expected 0 to 1, got {getattr(self, name)!r}")
        if self.stuck_phase_rad is not None:
            number("stuck_phase_rad", self.stuck_phase_rad)
            if self.stuck_phase_rad >= TURN:
                raise InputError(f"stuck_phase_rad: expected 0 to below 2π, got {self.stuck_phase_rad!r}")
        number("drift_s", self.drift_s)
        check_integer("seed", self.seed, 0)
        if not isinstance(self.dead_ports, tuple | list) or not all(isinstance(place, tuple | list) for place in self.dead_ports):
            raise InputError(f"dead_ports: expected a tuple of places such as (engine, port), got {self.dead_ports!r:.60}")
        places = (tuple(check_integer("dead_ports", part, 0) for part in place) for place in self.dead_ports)
        object.__setattr__(self, "dead_ports", tuple(places))

    def stuck(self, shape: tuple[int, ...], *words: object) -> npt.NDArray[np.float64]:
        """Radians where something is stuck, nan where it is not; ``words`` name what it is part of."""
        rng = stream(self.seed, "stuck", *words)
        chance, phases = rng.random(shape), TURN * rng.random(shape)
        if self.stuck_phase_rad is not None:
            phases = np.full(shape, self.stuck_phase_rad)
        return np.where(chance < self.stuck_shifters, phases, np.nan)

    def dead(self, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        """Detectors of an engine's outputs (engines, ports), or of nodes (engines, N, N), that are dead.

        Raises:
            InputError: a place that is not there.
        """
        found = stream(self.seed, "dead").random(shape) < self.dead_detectors
        for place in self.dead_ports:
            if len(place) != len(shape) or any(part >= most for part, most in zip(place, shape, strict=True)):
                raise InputError(f"dead_ports: expected places within {shape}, got {place}")
            found[place] = True
        return found
