"""Cards of spiking networks, spikes, mappings and runs on chips, and crossbars."""

from __future__ import annotations

from collections.abc import Mapping as Table
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.views.cards import figures, spell, workload
from hwsim.views.style import PALETTE
from hwsim.views.units import si
from numerics._display import (
    array_text,
    attributes,
    bar,
    card,
    curve,
    cut,
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

    from neuromorphic.chip.costs import ChipCosts
    from neuromorphic.chip.interconnect import Traffic
    from neuromorphic.chip.mapping import Mapping
    from neuromorphic.chip.network import ChipNetwork
    from neuromorphic.chip.running import ChipActivity
    from neuromorphic.crossbars.crossbar import CrossbarMatrix
    from neuromorphic.device import ChipRun
    from neuromorphic.dynamics import Activity
    from neuromorphic.events import Events
    from neuromorphic.network import Neurons, SpikingNetwork, Synapses
    from neuromorphic.workload import SpikingWorkload

MOST_SPIKES = 1200
"""Spikes that a raster draws; of more, every so many."""
MOST_POPULATIONS = 16
"""Populations that a picture of a network draws."""

# --- networks ---------------------------------------------------------------------------------------------------------


def network(value: SpikingNetwork, *names: str) -> str:
    """A spiking network: its populations and projections, drawn and listed."""
    populations = [
        {"population": one.name, "neurons": one.size, "shape": "×".join(map(str, one.shape)), "kind": one.neurons.kind}
        for one in value.populations[:12]
    ]
    projections = [
        {
            "projection": one.name,
            "from": one.source,
            "to": one.target,
            "synapses": one.synapses.count,
            "kind": one.synapses.kind,
            "delay": _span(one.delay_steps),
            "weights": _span(one.synapses.weight),
        }
        for one in value.projections[:12]
    ]
    fields = [("neurons", value.neurons), ("synapses", value.synapses), *figures(value, "dt_s", "inputs", "outputs", *names)]
    picture = _graph(
        [(one.name, one.size, one.neurons.kind == "input") for one in value.populations],
        [(one.source, one.target) for one in value.projections],
    )
    parts = (
        picture,
        folded("populations", table(populations, total=len(value.populations))),
        folded("projections", table(projections, total=len(value.projections))),
    )
    return card(value.name, fields, *parts, subtitle="spiking network", notes=value.notes[:4])


def spiking_workload(value: SpikingWorkload, *names: str) -> str:
    """A spiking workload: its operators, the network they stand for, and the spikes that enter."""
    parts = [workload(value, *names)]
    if value.network is not None:
        parts.append(folded("network", network(value.network)))
    if value.events:
        parts.append(folded("spikes that enter", raster(value.events)))
    return "".join(parts)


def chip_network(value: ChipNetwork, *names: str) -> str:
    """A network in a chip's numbers."""
    fields = [("neurons", value.neurons), ("synapses", value.synapses), *figures(value, "dt_s", "inputs", "outputs", *names)]
    fields += [("latency", f"{value.latency} steps"), ("weights", array_text(value.weight) if value.weight.size else "none")]
    populations = [
        {"population": one.name, "neurons": one.size, "kind": one.kind, "units of v for 1": number(one.scale), "reset": one.reset}
        for one in value.populations[:12]
    ]
    projections = [
        {
            "projection": one.name,
            "from": one.source,
            "to": one.target,
            "synapses": one.count,
            "weight": f"mantissa · {one.factor:g}",
        }
        for one in value.projections[:12]
    ]
    picture = _graph(
        [(one.name, one.size, one.kind == "input") for one in value.populations],
        [(one.source, one.target) for one in value.projections],
    )
    parts = (
        picture,
        folded("populations", table(populations, total=len(value.populations))),
        folded("projections", table(projections, total=len(value.projections))),
    )
    return card(value.name, fields, *parts, subtitle="spiking network in a chip's numbers", notes=value.notes[:4])


def _span(values: Any) -> str:
    """A number, or the least and greatest of several."""
    array = np.asarray(values)
    if not array.size:
        return "–"
    low, high = array.min().item(), array.max().item()
    return number(low) if low == high else f"{number(low)} … {number(high)}"


def _graph(populations: Sequence[tuple[str, int, bool]], projections: Sequence[tuple[str, str]]) -> str:
    """Populations (name, neurons, whether an input) as boxes in their order, projections as arcs: forward ones above, others
    below."""
    shown = populations[:MOST_POPULATIONS]
    if not shown:
        return ""
    wide, gap, tall, top = 92, 26, 36, 40
    at = {name: i * (wide + gap) + 4 for i, (name, _, _) in enumerate(shown)}
    parts = [
        '<defs><marker id="hwsim-arrow" viewBox="0 0 6 6" refX="5" refY="3" markerWidth="6" markerHeight="6" orient="auto">'
        '<path d="M0 0L6 3L0 6z" fill="currentColor"/></marker></defs>'
    ]
    for source, target in dict.fromkeys(projections):
        if source not in at or target not in at:
            continue
        start, end = at[source] + wide / 2, at[target] + wide / 2
        forward = end > start
        edge = top if forward else top + tall
        if end - start == wide + gap:
            path = f"M{start + wide / 2:.0f} {top + tall / 2:.0f}H{end - wide / 2 - 1:.0f}"
        elif source == target:
            path = f"M{start - 16:.0f} {edge}c0 26 32 26 32 1"
        else:
            reach = min(34.0, 12 + abs(end - start) / 18)
            bend = edge - reach if forward else edge + reach
            path = f"M{start:.0f} {edge}C{start:.0f} {bend:.0f} {end:.0f} {bend:.0f} {end:.0f} {edge + (-1 if forward else 1)}"
        parts.append(f'<path d="{path}" fill="none" stroke="currentColor" opacity=".6" marker-end="url(#hwsim-arrow)"/>')
    for name, size, is_input in shown:
        x = at[name]
        colour = PALETTE[1] if is_input else PALETTE[0]
        title = f"<title>{escape(cut(name, 80))}: {size:,} neurons</title>"
        parts.append(
            f'<rect x="{x}" y="{top}" width="{wide}" height="{tall}" rx="5" fill="{colour}" fill-opacity=".25" stroke="{colour}">'
            f'{title}</rect><text x="{x + wide / 2:.0f}" y="{top + 15}" text-anchor="middle" fill="currentColor">'
            f'{escape(cut(name, 14))}</text><text x="{x + wide / 2:.0f}" y="{top + 29}" text-anchor="middle" '
            f'fill="currentColor" opacity=".7">{size:,}</text>'
        )
    width = len(shown) * (wide + gap)
    if len(populations) > len(shown):
        parts.append(f'<text x="{width}" y="{top + 22}" fill="currentColor">… {len(populations) - len(shown):,} more</text>')
        width += 80
    return drawing("".join(parts), width, top + tall + 32, f"{len(populations)} populations, {len(projections)} projections")


def neurons(value: Neurons, *names: str) -> str:
    """Neurons: what they are, and the parameters that matter."""
    found = attributes(value, *names)
    fields = [
        (key.replace("_", " "), _span(entry) if not isinstance(entry, bool | str) else entry) for key, entry in found.items()
    ]
    return card("Neurons", fields, subtitle=value.kind.replace("_", " "))


def synapses(value: Synapses, *names: str) -> str:
    """Synapses: how many, and their weights as a histogram."""
    fields = [("synapses", value.count), ("sources", value.sources), ("stored weights", value.stored), ("kind", value.kind)]
    if not value.count:
        return card("Synapses", [*fields, *figures(value, *names)])
    counts, edges = np.histogram(value.weight, bins=min(60, max(4, value.count)))
    ends = (number(float(edges[0])), number(float(edges[-1])), "0", f"{int(counts.max()):,}")
    picture = curve(((edges[1:] + edges[:-1]) / 2).tolist(), counts.tolist(), "how often each weight is there", ends=ends)
    return card("Synapses", [*fields, ("weights", _span(value.weight)), *figures(value, *names)], picture)


# --- spikes -----------------------------------------------------------------------------------------------------------


def events(value: Events, *names: str) -> str:
    """Spikes: how many there are, and a raster of them."""
    fields = [
        ("spikes", value.count),
        ("neurons", value.size),
        ("steps", value.steps),
        ("rate", f"{value.rate:.4g} a neuron and step"),
        ("carry values", value.value is not None),
        *figures(value, *names),
    ]
    return card("Spikes", fields, raster({"": value}))


def raster(every: Table[str, Events]) -> str:
    """Spikes of populations, one above the other; of more than ``MOST_SPIKES`` every so many are drawn."""
    shown = {name: one for name, one in list(every.items())[:8] if one.size and one.steps}
    total = sum(one.count for one in shown.values())
    if not total:
        return ""
    steps = max(one.steps for one in shown.values())
    width, left, y = 460.0, 124.0 if any(shown) else 8.0, 4.0
    step = -(-total // MOST_SPIKES)
    neurons_in_all = sum(one.size for one in shown.values())
    parts = []
    for k, (name, one) in enumerate(shown.items()):
        height = max(22.0, min(170.0, 190.0 * one.size / neurons_in_all))
        pitch = height / one.size
        drawn = np.arange(0, one.count, step)
        when = np.searchsorted(one.first, drawn, side="right") - 1
        xs, ys = left + (when + 0.5) * width / steps, y + one.neuron[drawn] * pitch
        tick = max(1.0, min(5.0, pitch))
        path = "".join(f"M{a:.0f} {b:.1f}v{tick:.1f}" for a, b in zip(xs.tolist(), ys.tolist(), strict=True))
        parts.append(f'<path d="{path}" stroke="{PALETTE[k % 6]}" stroke-width="1.4"/>')
        parts.append(f'<path d="M{left} {y}h{width}v{height:.1f}h{-width}z" fill="none" stroke="currentColor" opacity=".3"/>')
        if name:
            title = f"{escape(cut(name, 12))} ({one.size:,})"
            parts.append(
                f'<text x="{left - 5}" y="{y + height / 2 + 4:.1f}" text-anchor="end" fill="currentColor">{title}</text>'
            )
        y += height + 5
    drawn_of = f"{total:,} spikes" if step == 1 else f"one in {step:,} of {total:,} spikes"
    more = f", {len(every) - len(shown):,} more populations" if len(every) > len(shown) else ""
    label = f"steps 0 to {steps - 1:,}: {drawn_of}{more}"
    parts.append(f'<text x="{left}" y="{y + 9:.0f}" fill="currentColor" opacity=".75">{label}</text>')
    return drawing("".join(parts), left + width + 8, y + 16, label)


def activity(value: Activity, *names: str) -> str:
    """What a network did: a raster, and what each population sent."""
    rows = [
        {"population": name, "neurons": one.size, "spikes": one.count, "spikes a neuron and step": f"{one.rate:.4g}"}
        for name, one in list(value.events.items())[:12]
    ]
    readouts = [{"readout": name, "values": array_text(array)} for name, array in list(value.values.items())[:12]]
    fields = [("steps", value.steps), ("spikes", sum(one.count for one in value.events.values())), *figures(value, *names)]
    kept = {"voltages kept of": ", ".join(value.v) or "none"}
    parts = (raster(value.events), table(rows, total=len(value.events)), table(readouts, total=len(value.values)))
    return card("Activity", [*fields, *kept.items()], *parts, subtitle="what a spiking network did")


def chip_activity(value: ChipActivity, *names: str) -> str:
    """What a run on a chip did: a raster, and counts."""
    spiking = [one.name for one in value.network.populations if one.kind != "readout"]
    found = {name: value.events[name] for name in spiking if name in value.events}
    fields = [
        ("steps", value.steps),
        ("cores", value.cores),
        ("spikes", int(value.spikes.sum())),
        ("synaptic operations", si(int(value.operations.sum()))),
        ("updates of active neurons", si(int(value.updates_active.sum()))),
        ("packets", int(value.axons_out.sum())),
        ("wrapped sums", value.wrapped),
        ("clipped voltages", value.clipped),
        ("lost spikes", value.lost),
        *figures(value, *names),
    ]
    return card(value.network.name, fields, raster(found), subtitle="what a run on a chip did")


# --- chips ------------------------------------------------------------------------------------------------------------


def mapping(value: Mapping, *names: str) -> str:
    """A network on a chip: the cores that hold it where they lie, and what each takes."""
    fields = [
        ("chip", value.spec.name),
        ("cores", f"{len(value.used):,} of {value.spec.cores * value.chips:,}"),
        ("chips", value.chips),
        ("placement", value.placement),
        ("hops of the packets", number(value.hops)),
        *figures(value, *names),
    ]
    rows = []
    for name, limit in value.limits.items():
        if name not in value.usage or not len(value.used):
            continue
        most = int(value.usage[name].max())
        room = "–" if limit is None else f"{limit:,}"
        rows.append({"limit": name.replace("_", " "), "fullest core": most, "room": room, "": bar(most / limit) if limit else ""})
    x, y, _ = value.positions
    held = value.usage.get("neurons", np.ones(len(value.used), np.int64))
    picture = ""
    if len(value.used):
        some = value.used[:4096]
        cells: dict[tuple[int, int], float] = {}
        for k, core in enumerate(some.tolist()):
            place = int(y[core]), int(x[core])
            cells[place] = cells.get(place, 0.0) + float(held[k])
        rows_high, columns = 1 + max(r for r, _ in cells), 1 + max(c for _, c in cells)
        grid = [[cells.get((r, c), 0.0) for c in range(columns)] for r in range(rows_high)]
        picture = heat(grid, "neurons at each router", titles=columns * rows_high <= 200)
    every = [] if len(value.used) > 100_000 else value.table()[:8]
    return card(
        value.network, fields, table(rows), picture, folded("cores", table(every, total=len(value.used))), subtitle="mapping"
    )


def chip_costs(value: ChipCosts, *names: str) -> str:
    """What a run cost: its time, its energy by component, its events."""
    total = value.total_j
    rows = [
        {"component": name, "energy": si(float(part.sum()), "J"), "": bar(float(part.sum()) / total if total else 0.0)}
        for name, part in sorted(value.energy_j.items(), key=lambda item: -float(item[1].sum()))
    ]
    counts = [(name.replace("_", " "), int(array.sum())) for name, array in value.counts.items()]
    steps = len(value.busy_s)
    fields = [
        ("time", si(value.time_s, "s")),
        ("energy", si(total, "J")),
        ("steps", steps),
        ("steps done late", len(value.schedule.steps_late)),
        ("cores", len(value.cores)),
        ("rung", value.rung),
        ("figures the spec lacks", ", ".join(value.unknown) or "none"),
        *figures(value, *names),
    ]
    busy = value.busy_s
    ends = ("step 0", f"step {steps - 1:,}", si(float(busy.min()), "s"), si(float(busy.max()), "s")) if steps else ("",) * 4
    picture = curve(range(steps), busy.tolist(), "time of each step's work", ends=ends)
    caption = "time of each step's work" if picture else ""
    parts = (table(rows), section(caption, (), picture) if picture else "", folded("events", card("", counts)))
    return card(value.spec.name, fields, *parts, subtitle="what a run cost")


def chip_run(value: ChipRun, *names: str) -> str:
    """A network on a chip, run and paid for."""
    extra = figures(value, *names)
    parts = "".join(
        section(title, extra if not i else (), part)
        for i, (title, part) in enumerate(
            (
                ("cost", chip_costs(value.costs)),
                ("activity", chip_activity(value.activity)),
                ("mapping", mapping(value.mapping)),
            )
        )
    )
    return card(value.network.name, (), parts, subtitle=f"a run on {value.mapping.spec.name}")


def traffic(value: Traffic, *names: str) -> str:
    """Packets on a network: their sums, and their way step by step."""
    found = attributes(value, *names)
    fields = [
        (spell(name, None)[0], si(float(entry.sum()), "s") if name.endswith("_s") else number(int(entry.sum())))
        for name, entry in found.items()
        if isinstance(entry, np.ndarray) and entry.ndim == 1
    ]
    others, parts = spelled({k: v for k, v in found.items() if not (isinstance(v, np.ndarray) and v.ndim == 1)}, spell)
    return card("Traffic", [*fields, *others], *parts, subtitle="packets on a chip's network; sums over the steps")


# --- crossbars --------------------------------------------------------------------------------------------------------


def crossbar_matrix(value: CrossbarMatrix, *names: str) -> str:
    """A programmed matrix: its arrays, and the conductances of the first."""
    box = value.crossbar
    rows, columns = value.tiles
    fields = [
        ("matrix", f"{value.shape[0]:,} inputs × {value.shape[1]:,} outputs"),
        ("arrays", f"{rows} × {columns} of {box.rows} × {box.columns} cells"),
        ("cells of a weight", 2 * box.slices),
        ("unit of weight", number(value.scale)),
        ("gain", number(value.gain)),
        ("after programming", "at the reference time" if value.time_s is None else si(value.time_s, "s")),
        *figures(value, *names),
    ]
    first = value.conductance_siemens[0, 0]
    low, high = float(first.min()), float(first.max())
    shares = _shrunk((first - low) / ((high - low) or 1.0), 32)
    label = f"conductances of the first array, {si(low, 'S')} to {si(high, 'S')}"
    return card("Crossbar matrix", fields, heat(shares.tolist(), label, side=8), subtitle=f"{box.sensing} sensing")


def _shrunk(array: npt.NDArray[np.float64], most: int) -> npt.NDArray[np.float64]:
    """Means over blocks, at most ``most`` rows and columns."""
    for axis in (0, 1):
        parts = np.array_split(array, min(most, array.shape[axis]), axis=axis)
        array = np.stack([part.mean(axis=axis) for part in parts], axis=axis)
    return array
