"""Cards of meshes, drawn with their phases in colour, engines, link budgets and what an optical unit recorded."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.views.cards import figures, spell
from hwsim.views.units import si
from numerics._display import (
    GREY,
    attributes,
    bar,
    card,
    curve,
    drawing,
    folded,
    heat,
    number,
    section,
    spelled,
    table,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    from photonic.calibration import Calibration
    from photonic.emulation.unit import OpticalUnit
    from photonic.fabrication import FabricatedMesh
    from photonic.layouts import MeshLayout
    from photonic.link_budget import LinkBudget, Path
    from photonic.mesh import Mesh
    from photonic.svd_engine import SvdEngine

MOST_DRAWN = 240
"""MZIs of a mesh that is drawn one by one; a larger one is a map of its phases."""
MOST_PORTS = 24

# --- meshes -----------------------------------------------------------------------------------------------------------


def layout(value: MeshLayout, *names: str) -> str:
    """A layout: its size, and where its MZIs sit."""
    return card(f"{value.kind} layout", [*_size(value), *figures(value, *names)], _drawn(value, None), subtitle="of a mesh")


def mesh(value: Mesh, *names: str) -> str:
    """A programmed mesh: its layout, with θ of each MZI as its colour."""
    fields = [*_size(value.layout), *_phases(value), *figures(value, *names)]
    return card("Mesh", fields, _drawn(value.layout, value.theta, value.phi), subtitle=f"{value.layout.kind}, programmed")


def fabricated_mesh(value: FabricatedMesh, *names: str) -> str:
    """A mesh as it was made: what is wrong with it, and the phases that it really has."""
    fields = [*_size(value.layout), ("seed", value.chip.seed), ("ageings", value.ageings_s or "none"), *figures(value, *names)]
    wrong = [(label, text) for label, text in spelled(attributes(value.imperfections), spell)[0] if text != "Ideal()"]
    real = value.real_phases
    picture = _drawn(value.layout, real["theta"], real["phi"])
    return card(
        "Fabricated mesh", fields, section("imperfections", wrong or [("none", "ideal")]), picture, subtitle=value.layout.kind
    )


def _size(value: MeshLayout) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = [("ports", value.ports), ("MZIs", value.mzis), ("columns", value.depth)]
    if value.signals != value.ports:
        found.append(("carry the matrix", f"{value.signals} from port {value.first_signal} on"))
    return found


def _phases(value: Mesh) -> list[tuple[str, str]]:
    rows = []
    for name, sign in (("theta", "θ"), ("phi", "φ"), ("output_phase", "output phases")):
        phases = getattr(value, name)
        rows.append((sign, f"{phases.min():.3f} … {phases.max():.3f} rad" if phases.size else "none"))
    return rows


def _hue(phase: float) -> str:
    """A phase as a colour: equal after a full turn, and of one lightness, legible on light and dark."""
    return f"hsl({round(math.degrees(phase) % 360)},65%,52%)"


def _drawn(where: MeshLayout, theta: npt.NDArray[np.float64] | None, phi: npt.NDArray[np.float64] | None = None) -> str:
    """The waveguides and MZIs of a small mesh, or a map of the density (phases) of a large one."""
    if where.mzis > MOST_DRAWN or where.ports > MOST_PORTS:
        return _mapped(where, theta)
    pitch, column, left = 22, 30, 14
    right = left + column * max(where.depth, 1)
    lines = "".join(f"M{left - 10} {port * pitch + 12}H{right + 4}" for port in range(where.ports))
    parts = [f'<path d="{lines}" stroke="currentColor" opacity=".35" fill="none"/>']
    for k in range(where.mzis):
        upper, lower = int(where.upper[k]) * pitch + 12, int(where.lower[k]) * pitch + 12
        x = left + int(where.column[k]) * column
        colour = GREY if theta is None else _hue(float(theta[k]))
        told = "" if theta is None else f": θ {float(theta[k]):.3f} rad" + ("" if phi is None else f", φ {float(phi[k]):.3f} rad")
        title = f"<title>ports {int(where.upper[k])} and {int(where.lower[k])}{told}</title>"
        parts.append(
            f'<rect x="{x + 3}" y="{upper - 4}" width="{column - 8}" height="{lower - upper + 8}" rx="4" fill="{colour}" '
            f'fill-opacity=".85" stroke="currentColor" stroke-opacity=".5">{title}</rect>'
        )
    label = f"{where.ports} waveguides, {where.mzis} MZIs in {where.depth} columns; light from left to right"
    return drawing("".join(parts), right + 10, where.ports * pitch + 6, label) + ("" if theta is None else _key())


def _key() -> str:
    """What the colours of phases mean."""
    stops = ",".join(_hue(math.radians(degrees)) for degrees in range(0, 361, 45))
    style = f"display:inline-block;width:120px;height:9px;vertical-align:middle;background:linear-gradient(90deg,{stops})"
    return f'<div style="opacity:.8">θ from 0 <span style="{style}"></span> to 2π</div>'


def _mapped(where: MeshLayout, theta: npt.NDArray[np.float64] | None) -> str:
    """Of a large mesh, squares over columns (across) and ports (down): how far θ is from crossing all light, or how many MZIs."""
    if not where.mzis:
        return ""
    across, down = min(where.depth, 44), min(where.ports, 44)
    x = (where.column.astype(np.int64) * across) // where.depth
    y = (where.upper.astype(np.int64) * down) // where.ports
    counts = np.zeros((down, across))
    np.add.at(counts, (y, x), 1.0)
    label = "MZIs by column (across) and port (down)"
    values = counts
    if theta is not None:
        kept = np.zeros((down, across))
        np.add.at(kept, (y, x), np.sin(np.asarray(theta) / 2) ** 2)
        values = np.divide(kept, counts, out=np.zeros_like(kept), where=counts > 0)
        label = "share of light that stays on its side, sin² θ/2, by column (across) and port (down)"
    grid = [[float(v) if c else None for v, c in zip(row, seen, strict=True)] for row, seen in zip(values, counts, strict=True)]
    return heat(grid, label, side=8)


def svd_engine(value: SvdEngine, *names: str) -> str:
    """A matrix on meshes: its tiles, its gain, and the singular values of the first tile."""
    first = value.tiles[0][0]
    blocks = f"{len(value.tiles)} × {len(value.tiles[0])}"
    fields = [
        ("matrix", f"{value.shape[0]:,} × {value.shape[1]:,}"),
        ("engine", f"{value.size} × {value.size}"),
        ("tiles", blocks),
        ("gain", number(value.gain)),
        ("MZIs", value.mzis),
        ("attenuators", value.attenuators),
        *figures(value, *names),
    ]
    falling = np.sort(np.asarray(first.attenuation))[::-1]
    ends = ("1", str(falling.size), number(float(falling.min())), number(float(falling.max())))
    picture = curve(range(falling.size), falling.tolist(), "amplitudes of the first tile's attenuators, falling", ends=ends)
    parts = [section("attenuators of the first tile, falling", (), picture)] if picture else []
    for title, side in (("first mesh that light meets, V†", first.right), ("last mesh, U", first.left)):
        theta = getattr(side, "theta", None)
        parts.append(folded(f"{title} (first tile)", _drawn(side.layout, theta, getattr(side, "phi", None))))
    return card("SVD engine", fields, *parts, subtitle="gain · U · diag(a) · V†")


def calibration(value: Calibration, *names: str) -> str:
    """How a chip was calibrated: the score after each round."""
    score = [float(each) for each in value.score]
    fields: list[tuple[str, Any]] = [("readings", value.readings), ("rounds", max(len(score) - 1, 0))]
    fields += [("score", f"{number(score[0])} → {number(score[-1])}")] if score else []
    ends = ("0", str(len(score) - 1), number(min(score)), number(max(score))) if score else ("",) * 4
    picture = curve(range(len(score)), score, "score after each round", ends=ends)
    return card("Calibration", [*fields, *figures(value, *names)], picture, folded("mesh", fabricated_mesh(value.mesh)))


# --- light ------------------------------------------------------------------------------------------------------------


def path(value: Path, *names: str) -> str:
    """A way of light: its losses one by one."""
    fields = [
        ("loss in all", f"{value.total_db:.2f} dB"),
        ("share of the light", number(value.share)),
        ("sources", value.sources),
        *figures(value, *names),
    ]
    return card("Path", fields, _losses(value), subtitle="of light, from the laser to a detector")


def _losses(value: Path) -> str:
    most = max(map(abs, value.loss_db.values()), default=0.0) or 1.0
    rows = [{"loss": name, "dB": f"{loss:.2f}", "": bar(abs(loss) / most)} for name, loss in list(value.loss_db.items())[:20]]
    return table(rows, most=20, total=len(value.loss_db))


def link_budget(value: LinkBudget, *names: str) -> str:
    """A power budget: the light that the wanted bits need, where it is lost, and what limits them."""
    found: list[tuple[str, Any]] = [("wanted bits", number(value.wanted_bits))]
    for label, name, unit in (
        ("bits reached", "bits", ""),
        ("light at a detector", "detector_w", "W"),
        ("light of a laser line", "line_w", "W"),
        ("light in all", "optical_w", "W"),
        ("electrical power of the lasers", "electrical_w", "W"),
        ("light a MAC", "optical_j_per_mac", "J"),
        ("least by shot noise", "shot_limit_j_per_mac", "J"),
    ):
        try:
            entry = getattr(value, name)
        except ValueError as error:  # wanted bits that no light gives
            found.append((label, error))
            continue
        found.append((label, si(entry, unit) if unit else number(entry)))
    parts = [section("losses of the signal", [("in all", f"{value.signal.total_db:.2f} dB")], _losses(value.signal))]
    if value.reference is not None:
        total = [("in all", f"{value.reference.total_db:.2f} dB")]
        parts.append(section("losses of the reference", total, _losses(value.reference)))
    detector = section("detection", spelled(attributes(value.detection), spell)[0])
    return card("Link budget", [*found, *figures(value, *names)], *parts, detector)


def optical_unit(value: OpticalUnit, *names: str) -> str:
    """What an optical unit computed, layer by layer."""
    rows = [attributes(record) for record in list(value.layers.values())[:16]]
    kept = ("module", "products", "macs", "light_bits", "asked_bits", "samples", "clipped", "detector_w")
    shown = [{name: row[name] for name in kept if name in row} for row in rows]
    fields = [("engine", value.spec.name), ("seed", value.seed), ("calls", value.calls), *figures(value, *names)]
    fields += [("faults", "none" if value.faults is None else value.faults)]
    lists = table(shown, most=16, total=len(value.layers), speller=spell)
    return card("Optical unit", fields, lists, subtitle="products computed in light")
