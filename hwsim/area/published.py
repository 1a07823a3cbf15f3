"""Published areas beside those predicted: ``hwsim/data/published_areas.csv``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal, cast

from hwsim.area.process import data_rows
from hwsim.views.display import displayed

Kind = Literal["exact", "bound", "share", "estimate"]


@displayed
@dataclass(frozen=True)
class PublishedArea:
    """A row of the file.

    Attributes:
        device: bundled spec that describes the chip.
        part: components of its area that the figure is of, joined by ``+``; ``total`` for all, ``die`` for a chip of
            its own.
        node_nm: of the chip.
        mm2: published.
        kind: ``exact``; ``bound``: it is smaller than that; ``share``: of such a bound; ``estimate``: no chip was measured.
        fitted: whether the model is fitted to it, so that it tests nothing.
        source: where it is from.
    """

    device: str
    part: str
    node_nm: float
    mm2: float
    kind: Kind
    fitted: bool
    source: str

    def predicted_mm2(self) -> float:
        """What the model says of it.

        Raises:
            InputError: the device or a component is not there.
        """
        from hwsim.registry import get_device

        area = get_device(self.device).area(self.node_nm)  # type: ignore[attr-defined]  # bundled devices have one
        if self.part in ("total", "die"):
            return float(area.known_mm2 * (area.chip_factor if self.part == "die" else 1.0))
        return float(sum(area[name] or 0.0 for name in self.part.split("+")))


@cache
def published_areas() -> tuple[PublishedArea, ...]:
    """Every row, in the order of the file."""
    return tuple(
        PublishedArea(
            device=row["device"],
            part=row["part"],
            node_nm=float(row["node_nm"]),
            mm2=float(row["mm2"]),
            kind=cast(Kind, row["kind"]),
            fitted=row["fitted"] == "yes",
            source=row["source"],
        )
        for row in data_rows("published_areas")
    )


def compare_published() -> list[dict[str, str | float]]:
    """One row a published area: device, part, node_nm, predicted, published, ratio (predicted over published), use."""
    rows: list[dict[str, str | float]] = []
    for one in published_areas():
        predicted = one.predicted_mm2()
        rows.append(
            {
                "device": one.device,
                "part": one.part,
                "node_nm": one.node_nm,
                "predicted_mm2": predicted,
                "published_mm2": one.mm2,
                "ratio": predicted / one.mm2,
                "use": "fitted" if one.fitted else "test",
                "kind": one.kind,
            }
        )
    return rows
