"""The area of a machine: its components, what each rests on, and whether it keeps within a budget."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Real
from typing import Any, Literal

from hwsim.area.cost import DieCost, YieldModel, die_cost
from hwsim.area.process import figures
from hwsim.views.display import displayed, displaying
from numerics.errors import InputError, unknown_name

Basis = Literal["published", "guess", "unknown"]

SOURCES = (
    "logic: int8 multiply and int32 add synthesised for TSMC 45 nm (Dally, NIPS 2015 tutorial), formats by RTL ratios, nodes by "
    "Stillmaker and Baas, Integration 58, 2017, and TSMC below 7 nm",
    "SRAM: published cells by node and density of published macros (hwsim/data/process_nodes.csv)",
    "blocks over cells, and what is unnamed: fitted to Gemmini's floorplan (Genc et al., DAC 2021)",
    "a chip over its blocks: fitted to TPU v1's die (Jouppi et al., ISCA 2017, at most 331 mm2)",
)


@displayed
@dataclass(frozen=True)
class Component:
    """A part of a machine.

    Attributes:
        name: of the part.
        mm2: its area; None where nothing can be said of it.
        basis: ``published``: what it is made of is in the spec, and the figures behind it are published or fitted to a published
            floorplan; ``guess``: it rests on a guess; ``unknown``.
        how: what it is made of, or why nothing can be said.
    """

    name: str
    mm2: float | None
    basis: Basis
    how: str

    @classmethod
    def unknown(cls, name: str, why: str) -> Component:
        """A part of which nothing can be said."""
        return cls(name, None, "unknown", why)


@displaying("spare_mm2")
@dataclass(frozen=True)
class Budget:
    """An area beside a budget.

    Attributes:
        limit_mm2: the budget.
        used_mm2: area of the parts that are known.
        fits: None where the known parts fit and others are not known.
    """

    limit_mm2: float
    used_mm2: float
    fits: bool | None

    @property
    def spare_mm2(self) -> float:
        """What the known parts leave; below zero where they are too large."""
        return self.limit_mm2 - self.used_mm2

    def __bool__(self) -> bool:
        return self.fits is True

    def __str__(self) -> str:
        verdict = {True: "fits", False: "does not fit", None: "not known: parts without an area"}[self.fits]
        return f"{self.used_mm2:.4g} of {self.limit_mm2:.4g} mm²: {verdict}"


@displayed
@dataclass(frozen=True)
class Area:
    """What a machine takes of a die, as predicted.

    Attributes:
        device: its name.
        node_nm: the process; None where neither the spec nor the caller named one.
        components: its parts.
        notes: what a reader should know.
        sources: of the figures behind it.
        chip_factor: area of a chip of its own over that of the components; fitted to TPU v1.
    """

    device: str
    node_nm: float | None
    components: tuple[Component, ...]
    notes: tuple[str, ...] = ()
    sources: tuple[str, ...] = SOURCES
    chip_factor: float = field(default_factory=lambda: figures()["chip_factor"].value)

    @cached_property
    def known_mm2(self) -> float:
        """Sum of the parts that are known."""
        return sum(part.mm2 for part in self.components if part.mm2 is not None)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Parts of which nothing can be said."""
        return tuple(part.name for part in self.components if part.mm2 is None)

    @property
    def total_mm2(self) -> float | None:
        """Sum of all parts; None where one of them is not known."""
        return None if self.unknown else self.known_mm2

    @property
    def die_mm2(self) -> float | None:
        """The die of a chip that is this machine alone, with pads, links, controllers of memory and all that its spec does not
        name: ``total_mm2`` times ``chip_factor``; None where a part is not known."""
        return None if self.total_mm2 is None else self.total_mm2 * self.chip_factor

    def __getitem__(self, name: str) -> float | None:
        """Area of a component in mm²; None where it is not known.

        Raises:
            InputError: there is none of this name.
        """
        for part in self.components:
            if part.name == name:
                return part.mm2
        raise unknown_name("component", name, [part.name for part in self.components])

    @property
    def table(self) -> list[dict[str, Any]]:
        """One row a component: name, mm², share of the known parts, basis, how."""
        return [
            {
                "component": part.name,
                "mm2": part.mm2,
                "share": part.mm2 / self.known_mm2 if part.mm2 is not None and self.known_mm2 else None,
                "basis": part.basis,
                "how": part.how,
            }
            for part in self.components
        ]

    def budget(self, mm2: float, *, die: bool = False) -> Budget:
        """The area beside a budget.

        Args:
            mm2: the budget.
            die: of a whole chip (``die_mm2``), not of the machine's own parts.

        Raises:
            InputError: a budget that is not above zero.
        """
        if isinstance(mm2, bool) or not isinstance(mm2, Real) or not mm2 > 0:
            raise InputError(f"mm2: expected a budget above zero, got {mm2!r}")
        used = self.known_mm2 * (self.chip_factor if die else 1.0)
        within = used <= mm2
        return Budget(float(mm2), used, None if within and self.unknown else within)

    def cost(self, *, model: YieldModel = "murphy", defects_per_cm2: float | None = None) -> DieCost:
        """What a die of this machine (``die_mm2``) costs; see ``hwsim.area.die_cost``.

        Raises:
            InputError: parts that are not known, a node without a price.
        """
        if self.die_mm2 is None or self.node_nm is None:
            raise InputError(f"device {self.device!r}: no area of {', '.join(self.unknown)}, so that a die has no cost")
        return die_cost(self.die_mm2, self.node_nm, model=model, defects_per_cm2=defects_per_cm2)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "device": self.device,
            "node_nm": self.node_nm,
            "total_mm2": self.total_mm2,
            "die_mm2": self.die_mm2,
            "known_mm2": self.known_mm2,
            "components": self.table,
            "notes": list(self.notes),
            "sources": list(self.sources),
        }

    def summary(self) -> str:
        """One line: the total, its node and the die, or what is missing."""
        at = "" if self.node_nm is None else f" at {self.node_nm:g} nm"
        if self.die_mm2 is not None:
            die = f", {self.die_mm2:.4g} mm² as a chip of its own" if self.chip_factor != 1 else ""
            return f"{self.known_mm2:.4g} mm²{at}{die} (predicted)"
        if not self.known_mm2:
            return f"not known: {self.components[0].how}"
        return f"{self.known_mm2:.4g} mm²{at} (predicted), without {', '.join(self.unknown)}, of which nothing is known"

    def __str__(self) -> str:
        width = max(len(part.name) for part in self.components)
        rows = [f"  {part.name:<{width}}  {_mm2(part.mm2):>9}  {part.basis:<9}  {part.how}" for part in self.components]
        return "\n".join([f"{self.device}: {self.summary()}", *rows, *(f"  {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        def cells(tag: str, *values: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(value)}</{tag}>" for value in values) + "</tr>"

        def share(value: float | None) -> str:
            return "" if value is None else f"{value:.1%}"

        rows = [
            cells("td", row["component"], _mm2(row["mm2"]), share(row["share"]), row["basis"], row["how"]) for row in self.table
        ]
        head = cells("th", "component", "mm²", "share", "basis", "how")
        title = f"<p><b>{html.escape(self.device)}</b>: {html.escape(self.summary())}</p>"
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return f"{title}<table>{head}{''.join(rows)}</table>{notes}"


def _mm2(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def unnamed_mm2(named_mm2: Any) -> Any:
    """What no spec names, beside so much that is named (a number or an array)."""
    share = figures()["gemmini_unnamed_share"].value
    return named_mm2 * share / (1 - share)


def with_unnamed(area: Area) -> Area:
    """The area with a component ``other`` for what no spec names (control, networks, DMA, what lies between blocks): the share of
    Gemmini's floorplan that is none of its named blocks."""
    share = figures()["gemmini_unnamed_share"].value
    other = float(unnamed_mm2(area.known_mm2))
    how = f"control, networks and gaps: {share:.0%} of the whole, as on Gemmini"
    return replace(area, components=(*area.components, Component("other", other, "guess", how)))


def area_of(device: str, node_nm: float | None, components: Sequence[Component], *, notes: Sequence[str] = ()) -> Area:
    """The area of a machine with these named components, and what is unnamed."""
    return with_unnamed(Area(device, node_nm, tuple(components), tuple(notes)))
