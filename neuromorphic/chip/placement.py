"""Where cores lie in the mesh: an assignment of cores to places with few hops, as a quadratic assignment problem.

The cost of an assignment is the sum over packets of the links they pass; a route goes along x, then along y, so links are the
distance in x plus that in y. ``greedy`` puts the core with the most traffic to those placed where it adds least. ``annealed`` is
simulated annealing (S. Kirkpatrick, C. D. Gelatt and M. P. Vecchi, "Optimization by simulated annealing", Science 220, 1983) by
exchanges of two places, followed by exchanges as long as one helps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    import numpy.typing as npt

    from neuromorphic.chip.spec import ChipSpec

Method = Literal["annealed", "greedy", "in_order", "random"]

MOVES_PER_CORE = 8000
"""Exchanges that annealing tries for each core …"""

MOST_MOVES = 3_000_000
"""… and in all."""

WARMTHS = (1.0, 0.3, 0.1)
"""First temperatures of annealing, in what an exchange changes in the mean: each has its share of the exchanges and goes on from
the best met so far. The last ones better a start that is good already."""

EXHAUSTED = 600
"""Places up to which every exchange is tried at the end."""


@dataclass(frozen=True)
class Places:
    """Places that cores can take.

    Attributes:
        x, y: (places,) float64 of their routers, links between chips stretched to what they weigh.
        input_core: number of the place at whose router spikes from outside enter.
        near, row: places at two routers, and in a row of routers, of a chip.
    """

    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    input_core: int
    near: int = 2
    row: int = 1

    @classmethod
    def of(cls, spec: ChipSpec, chips: int = 1) -> Places:
        """Those of a chip's cores, or of the first so many chips'."""
        x, y, chip = spec.positions(np.arange(chips * spec.cores))
        row, column = np.divmod(chip, spec.chips.columns)
        stretch = spec.chips.hop_weight - 1
        mesh = spec.mesh
        tile = mesh.input_row * mesh.columns + mesh.input_column
        if tile * mesh.cores_per_tile >= spec.cores:
            raise InputError(f"{spec.name}: mesh: no core at the input router ({mesh.input_column}, {mesh.input_row})")
        return cls(
            x + stretch * column,
            y + stretch * row,
            tile * mesh.cores_per_tile,
            2 * mesh.cores_per_tile,
            mesh.columns * mesh.cores_per_tile,
        )


def place_cores(
    traffic: npt.NDArray[np.float64], places: Places, *, method: Method = "annealed", seed: int = 0
) -> npt.NDArray[np.int64]:
    """The place of each core.

    Args:
        traffic: (cores + 1, cores) packets from core to core; the last row is what comes from outside.
        places: at least as many as cores.
        method: ``annealed`` (never worse than ``greedy`` or ``in_order``), ``greedy``, ``in_order`` (core n at place n) or
            ``random``.
        seed: of ``random`` and ``annealed``; the same seed gives the same places.

    Returns:
        (cores,) int64, all different.

    Raises:
        InputError: an unknown method, fewer places than cores.
    """
    if method not in get_args(Method):
        raise unknown_name("placement", str(method), get_args(Method))
    cores = traffic.shape[1]
    if traffic.shape != (cores + 1, cores) or cores > places.x.size:
        raise InputError(f"traffic: expected (cores + 1, cores) for at most {places.x.size} cores, got {traffic.shape}")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed: expected an integer ≥ 0, got {seed!r}")
    in_order = np.arange(cores)
    if method == "in_order":
        return in_order
    if method == "random":
        return np.random.default_rng(seed).permutation(places.x.size)[:cores]
    from neuromorphic.chip._placement_kernels import anneal, exchange, grow

    links = _Links.of(traffic)
    at = (places.x, places.y, places.input_core)
    greedy = np.empty(cores, np.int64)
    grow(*links, *at, greedy)
    if method == "greedy":
        return greedy
    starts = (in_order, greedy)
    place = min(starts, key=lambda one: hops(traffic, places, one)).copy()
    if places.x.size > 1:
        state = np.random.SeedSequence(seed).generate_state(1, np.uint64)
        moves = min(MOVES_PER_CORE * cores, MOST_MOVES) // len(WARMTHS)
        for warmth in WARMTHS:
            anneal(*links, *at, place, places.near, places.row, state, moves, warmth)
        if places.x.size <= EXHAUSTED:
            exchange(*links, *at, place)
    return place


def hops(traffic: npt.NDArray[np.float64], places: Places, place: npt.NDArray[np.int64]) -> float:
    """Links that all packets pass; see ``place_cores``."""
    x, y = places.x[place], places.y[place]
    between = np.abs(x[:, None] - x) + np.abs(y[:, None] - y)
    outside = np.abs(x - places.x[places.input_core]) + np.abs(y - places.y[places.input_core])
    return float((traffic[:-1] * between).sum() + traffic[-1] @ outside)


class _Links(tuple[object, ...]):
    """Traffic as compressed rows: first, other core, packets both ways; and packets from outside."""

    @classmethod
    def of(cls, traffic: npt.NDArray[np.float64]) -> _Links:
        both = traffic[:-1] + traffic[:-1].T
        np.fill_diagonal(both, 0.0)
        core, other = np.nonzero(both)
        first = np.searchsorted(core, np.arange(len(both) + 1)).astype(np.int64)
        return cls((first, other.astype(np.int64), both[core, other], np.ascontiguousarray(traffic[-1])))
