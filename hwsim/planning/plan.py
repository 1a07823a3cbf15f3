"""The plan of a workload's working memory, and its making."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hwsim.planning.buffers import Buffer, buffers_of, distinct, in_place_pairs, live_bytes, merged, with_parts
from hwsim.planning.chains import Chain, Tiling, chains_at, tiled
from hwsim.planning.offsets import aligned, best_placement, first_fit, height
from hwsim.views.display import displayed_by
from hwsim.workload import ROLES, Workload
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WORKING = ("input", "activation", "gradient", "index")
"""Roles of the tensors in working memory; weights lie in flash or behind another memory."""


@displayed_by("hwsim.views.study_cards:memory_plan")
@dataclass(frozen=True)
class MemoryPlan:
    """Where the tensors of a workload lie in one memory.

    Attributes:
        workload: its name.
        ops: names of the operators, attention written out.
        buffers: each with its offset, in order of first use.
        peak_bytes: size of the memory that it needs.
        live_bytes: bytes taken during each operator.
        naive_bytes: what it would need if every tensor had memory of its own all the time.
        optimal: whether no placement of these buffers is lower, as far as is known.
        chains: operators that run tile by tile.
    """

    workload: str
    ops: tuple[str, ...]
    buffers: tuple[Buffer, ...]
    peak_bytes: int
    live_bytes: tuple[int, ...]
    naive_bytes: int
    optimal: bool
    chains: tuple[Chain, ...] = ()

    @property
    def lower_bound_bytes(self) -> int:
        """The most bytes alive at once: no placement needs less."""
        return max(self.live_bytes, default=0)

    @property
    def deciding_op(self) -> str:
        """The operator during which most bytes are alive ("" for an empty workload)."""
        return self.ops[self.live_bytes.index(self.lower_bound_bytes)] if self.ops else ""

    def live_at(self, op: str) -> int:
        """Bytes taken during the operator called ``op``.

        Raises:
            InputError: no such operator.
        """
        if op not in self.ops:
            raise unknown_name("op", op, self.ops)
        return self.live_bytes[self.ops.index(op)]

    def alive(self, op: str) -> dict[str, int]:
        """Buffer → bytes, of those taken during the operator called ``op``.

        Raises:
            InputError: no such operator.
        """
        if op not in self.ops:
            raise unknown_name("op", op, self.ops)
        index = self.ops.index(op)
        return {b.name: b.bytes for b in self.buffers if b.first <= index <= b.last}

    def fits(self, capacity_bytes: int) -> bool:
        """Whether a memory of ``capacity_bytes`` is large enough."""
        return self.peak_bytes <= capacity_bytes

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "workload": self.workload,
            "peak_bytes": self.peak_bytes,
            "lower_bound_bytes": self.lower_bound_bytes,
            "naive_bytes": self.naive_bytes,
            "optimal": self.optimal,
            "deciding_op": self.deciding_op,
            "buffers": [
                {
                    "name": b.name,
                    "tensors": list(b.tensors),
                    "bytes": b.bytes,
                    "offset": b.offset,
                    "first": b.first,
                    "last": b.last,
                }
                for b in self.buffers
            ],
            "live_bytes": dict(zip(self.ops, self.live_bytes, strict=True)),
            "chains": [
                {"kind": c.kind, "first": self.ops[c.first], "last": self.ops[c.last], "tiles": c.tiles} for c in self.chains
            ],
        }

    def plot(self) -> Figure:
        """Offset over time: each buffer a rectangle from the operator that writes it to the last that reads it."""
        from hwsim.planning.picture import plot_plan

        return plot_plan(self)


def plan_memory(
    workload: Workload,
    *,
    roles: Iterable[str] = WORKING,
    in_place: bool = True,
    tiling: Tiling | None = None,
    alignment_bytes: int = 1,
    search: Literal["first_fit", "exact"] = "first_fit",
) -> MemoryPlan:
    """Where the tensors of a workload lie, so that none is overwritten while it is needed.

    Args:
        workload: its tensors' formats give their bytes; attention is written out (``Workload.expanded``).
        roles: of the tensors to place.
        in_place: element-wise operators, softmax and normalisations write over an operand of the same size that nobody reads
            later; a chain that runs tile by tile writes its result over an operand in the same way. A chain's result does so
            only where this lowers what is alive.
        tiling: chains of operators that run tile by tile; those that would raise the peak are left whole.
        alignment_bytes: offsets are multiples of it, and every buffer counts as many bytes.
        search: ``first_fit``, or ``exact``, which goes on by branch and bound until the lowest placement is found or
            ``hwsim.planning.offsets.NODES`` placements were tried.

    Raises:
        InputError: an unknown role or search, an alignment below one.
    """
    chosen = tuple(roles)
    for role in chosen:
        if role not in ROLES:
            raise unknown_name("roles: role", str(role), ROLES)
    if isinstance(alignment_bytes, bool) or not isinstance(alignment_bytes, int) or alignment_bytes < 1:
        raise InputError(f"alignment_bytes: expected an integer ≥ 1, got {alignment_bytes!r}")
    if search not in ("first_fit", "exact"):
        raise unknown_name("search", str(search), ("first_fit", "exact"))
    placed = with_parts(workload.expanded())
    whole = buffers_of(placed, chosen)
    pairs = in_place_pairs(placed) if in_place else []
    parts, chains = _with_chains(placed, whole, pairs, tiling or Tiling(), in_place)
    buffers = [
        Buffer(b.name, b.tensors, aligned(b.bytes, alignment_bytes), b.first, b.last) for b in distinct(merged(parts, pairs))
    ]
    live = live_bytes(buffers, len(placed.ops))
    bound = int(live.max(initial=0))
    if search == "exact":
        laid, optimal = best_placement(buffers, alignment=alignment_bytes, bound=bound)
    else:
        laid = first_fit(buffers, alignment=alignment_bytes, bound=bound)
        optimal = height(laid) == bound
    return MemoryPlan(
        workload=placed.name,
        ops=tuple(op.name for op in placed.ops),
        buffers=tuple(sorted(laid, key=lambda b: (b.first, b.last, b.name))),
        peak_bytes=height(laid),
        live_bytes=tuple(int(n) for n in live),
        naive_bytes=sum(aligned(b.bytes, alignment_bytes) for b in whole.values()),
        optimal=optimal,
        chains=tuple(chains),
    )


def _with_chains(
    workload: Workload, whole: dict[str, Buffer], pairs: list[tuple[str, str]], tiling: Tiling, in_place: bool
) -> tuple[dict[str, Buffer], list[Chain]]:
    """Buffers after tiling, chain by chain: what is alive at most, then the sum of its squares, decides each."""

    def cost(buffers: Mapping[str, Buffer]) -> tuple[int, float]:
        live = live_bytes(distinct(merged(buffers, pairs)), len(workload.ops))
        return int(live.max(initial=0)), float((live.astype(float) ** 2).sum())

    current, chains = whole, []
    index = 0
    while index < len(workload.ops):
        choices: list[tuple[tuple[int, float], int, dict[str, Buffer], Chain]] = []
        for number, chain in enumerate(chains_at(workload, index, tiling)):
            cut = tiled(current, chain)
            options = [cut]
            if in_place:
                options += [merged(cut, [(chain.result, owner)], same_size=False) for owner in chain.over]
            best = min(options, key=cost)
            choices.append((cost(best), number, best, chain))
        if choices:
            price, _, best, chain = min(choices, key=lambda c: c[:2])
            if price <= cost(current):
                current = best
                chains.append(chain)
                index = chain.last
        index += 1
    return current, chains
