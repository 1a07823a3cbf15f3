"""Units in gates: synthesised, held against their models, and run on data of several kinds."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwsim.views.display import displayed
from numerics.errors import InputError, unknown_name
from rtl.bench import to_bits
from rtl.synthesis.activity import ACTIVITIES
from rtl.synthesis.liberty import Library, read_library
from rtl.synthesis.netlist import GateLevelRun, Netlist
from rtl.synthesis.yosys import synthesise, yosys_version
from rtl.verification import SOURCES, Configuration, benches, configurations, unit_names

STREAMS = 256
"""Independent streams of data that a unit runs on."""

REPLAYED_CYCLES = 20_000
"""Cycles of a bench's trace that a netlist is held against the model on."""

_CASES = 1_000


@displayed
@dataclass(frozen=True)
class Gates:
    """A unit in the cells of one library.

    Attributes:
        library: ``generic`` or the name of a liberty library.
        cells: how many.
        flipflops: among them.
        size: area in the library's unit (µm²); for generic gates, transistors.
        toggles: of nets per operation, by kind of data.
        energy_pj: per operation, by kind of data; none for generic gates.
        signal_pj: of it, without the clock at the flip-flops, which no unit gates.
        replayed_cycles: of the bench's trace.
        mismatching_cycles: of them, where the netlist shows something else than the model.
    """

    library: str
    cells: int
    flipflops: int
    size: float
    toggles: Mapping[str, float]
    energy_pj: Mapping[str, float]
    signal_pj: Mapping[str, float]
    replayed_cycles: int
    mismatching_cycles: int


@displayed
@dataclass(frozen=True)
class Synthesised:
    """What came of one configuration of a unit.

    Attributes:
        per: what one operation is; empty where no activity is known.
        generic: in Yosys' gates.
        mapped: in the library's cells; None without one.
        seconds: in all.
        synthesis_seconds: of them in Yosys.
    """

    unit: str
    configuration: str
    per: str
    generic: Gates
    mapped: Gates | None
    seconds: float
    synthesis_seconds: float


def units_in_gates(
    units: Iterable[str] = (), *, liberty: Path | None = None, cycles: int = 512, seed: int = 0, sources: Path = SOURCES
) -> list[Synthesised]:
    """Synthesise units, hold the netlists against the units' models, and run them on each kind of data.

    Args:
        units: names; by default all that ``rtl.synthesis.activity`` knows.
        liberty: file of a library; without one, generic gates only.
        cycles: of a run on each of 256 streams.
        seed: of the data.
        sources: folder of the ``.sv`` files.

    Raises:
        InputError: an unknown unit, a number out of range, a file that is no library, Yosys missing.
        RuntimeError: Yosys refuses a unit.
    """
    if not isinstance(cycles, int) or cycles < 2:
        raise InputError(f"cycles: expected an integer ≥ 2, got {cycles!r}")
    if not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed: expected an integer ≥ 0, got {seed!r}")
    yosys_version()  # so that Yosys is compiled once, before two processes need it
    chosen = chosen_configurations(units)
    library = None if liberty is None else (read_library(liberty), liberty)

    def one(configuration: Configuration) -> Synthesised:
        return _synthesised(configuration, library, cycles, seed, sources)

    # Yosys is a process of one thread; two at a time.
    with ThreadPoolExecutor(max_workers=2) as pool:
        return list(pool.map(one, chosen))


def chosen_configurations(units: Iterable[str]) -> list[Configuration]:
    """Those that are synthesised of ``units``, or of all units that ``rtl.synthesis.activity`` knows.

    Raises:
        InputError: an unknown unit.
    """
    names = list(dict.fromkeys(units)) or [unit for unit in ACTIVITIES if unit in unit_names()]
    found = []
    for unit in names:
        if unit not in unit_names():
            raise unknown_name("unit", unit, unit_names())
        wanted = ACTIVITIES[unit].configurations if unit in ACTIVITIES else None
        found += [c for c in configurations([unit]) if wanted is None or c.name in wanted]
    return found


def _synthesised(
    configuration: Configuration, library: tuple[Library, Path] | None, cycles: int, seed: int, sources: Path
) -> Synthesised:
    begin = time.perf_counter()
    bench = benches()[configuration.unit]
    files = [sources / f"{module}.sv" for module in dict.fromkeys((*bench.uses, bench.unit))]
    made = synthesise(configuration.unit, files, parameters=configuration.parameters, clock=bench.clock, library=library)
    trace = bench.trace(configuration.parameters, _CASES, _rng(seed, configuration, "trace"))
    first = bench.outputs(configuration.parameters)
    expected = to_bits(first, {name: np.asarray(v)[:REPLAYED_CYCLES] for name, v in trace.outputs.items()})
    stimulus = {name: np.asarray(v)[:REPLAYED_CYCLES, None] for name, v in trace.inputs.items()}

    def gates(name: str, netlist: Netlist, area: float, priced: bool) -> Gates:
        shown = _run(configuration, netlist, 1).play(stimulus)
        wrong = to_bits(first, {port: v[:, 0] for port, v in shown.items()}) != expected
        toggles, energies, signals = {}, {}, {}
        activity = ACTIVITIES.get(configuration.unit)
        for data in activity.data if activity else ():
            assert activity is not None
            run = _run(configuration, netlist, STREAMS)
            operations = activity.play(run, configuration.parameters, data, cycles, _rng(seed, configuration, data))
            toggles[data] = int(run.toggles.sum()) / operations
            if priced:
                energies[data] = run.energy_pj / operations
                signals[data] = run.signal_pj / operations
        count = sum(netlist.cells.values())
        replayed = len(expected) - trace.compared_from
        mismatching = int(wrong[trace.compared_from :].any(axis=1).sum())
        return Gates(name, count, netlist.flipflops, area, toggles, energies, signals, replayed, mismatching)

    generic = gates("generic", made.generic, made.transistors, False)
    mapped = None
    if library is not None and made.mapped is not None:
        mapped = gates(library[0].name, made.mapped, made.mapped.area, True)
    per = ACTIVITIES[configuration.unit].per if configuration.unit in ACTIVITIES else ""
    seconds = time.perf_counter() - begin
    return Synthesised(configuration.unit, configuration.name, per, generic, mapped, seconds, made.seconds)


def _run(configuration: Configuration, netlist: Netlist, streams: int) -> GateLevelRun:
    bench = benches()[configuration.unit]
    ports = bench.inputs(configuration.parameters), bench.outputs(configuration.parameters)
    return GateLevelRun(netlist, *ports, streams=streams)


def _rng(seed: int, configuration: Configuration, what: str) -> np.random.Generator:
    # Formats of one unit take the same numbers.
    return np.random.default_rng([seed, zlib.crc32(what.encode())])
