"""``verify``: units against their models, bit for bit and cycle for cycle."""

from __future__ import annotations

import importlib
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.views.display import displayed, displaying, listed
from numerics.errors import InputError, unknown_name
from rtl import simulator as simulators
from rtl.bench import Bench, Latency, Port, Trace, Values, from_binary, from_bits, to_bits, to_hex

SOURCES = Path(str(resources.files("rtl")))
"""The folder of the units."""

AFTER_DIFFERENCE = 16
"""Cycles that a waveform shows after the first difference."""

LARGEST_SIZE = 64
"""Rows and columns that an array may be given."""


@displayed
@dataclass(frozen=True)
class Configuration:
    """A unit with values for its parameters.

    Attributes:
        unit: name of the module.
        name: of the configuration.
        parameters: of the module.
        model: units of one model are compiled together.
        cases: random cases when none are asked for.
    """

    unit: str
    name: str
    parameters: Mapping[str, int]
    model: str
    cases: int


@displayed
@dataclass(frozen=True)
class Difference:
    """The first cycle in which a unit shows something else than its model.

    Attributes:
        cycle: counted from the first line of stimulus.
        signal: output port, with its lane where it has several.
        expected, observed: in hexadecimal; x where the simulator knows no value.
    """

    cycle: int
    signal: str
    expected: str
    observed: str


@displaying("passed")
@dataclass(frozen=True)
class Result:
    """What came of one configuration.

    Attributes:
        unit, configuration: names.
        cases: how many there were, in the bench's own terms.
        mismatching_bits: bits of outputs that differ, over all cycles.
        mismatching_cycles: cycles in which any differs.
        cycles: cycles compared.
        seconds: stimulus, model, simulation and comparison; building apart.
        difference: the first one.
        waveform: file that shows it.
        latency: read off the unit's outputs; None where they differ.
    """

    unit: str
    configuration: str
    cases: int
    mismatching_bits: int
    mismatching_cycles: int
    cycles: int
    seconds: float
    difference: Difference | None = None
    waveform: Path | None = None
    latency: Latency | None = None

    @property
    def passed(self) -> bool:
        """Whether the unit is its model."""
        return self.mismatching_cycles == 0


# --- what can be run ------------------------------------------------------------------------------------------------------


@cache
def benches() -> dict[str, Bench]:
    """The benches by unit."""
    found = {}
    for unit in _file()["units"]:
        module = importlib.import_module(f"rtl.benches.{unit}_bench")
        kinds = (k for k in vars(module).values() if isinstance(k, type) and issubclass(k, Bench))
        found[unit] = next(kind() for kind in kinds if getattr(kind, "unit", None) == unit)
    return found


@cache
def _file() -> dict[str, Any]:
    import yaml

    text = (resources.files("rtl") / "configurations.yaml").read_text(encoding="utf-8")
    return checked_file(yaml.safe_load(text))


def checked_file(data: dict[str, Any]) -> dict[str, Any]:
    """The content of the file of configurations, as it is.

    Raises:
        InputError: a unit that is not in exactly one model, or a model of a unit that is not there.
    """
    homes: dict[str, list[str]] = {unit: [] for unit in data["units"]}
    for model, members in data["models"].items():
        for unit in members:
            if unit not in homes:
                raise unknown_name(f"configurations.yaml: models: {model}", unit, homes)
            homes[unit].append(model)
    for unit, models in homes.items():
        if len(models) != 1:
            raise InputError(f"configurations.yaml: models: expected {unit!r} in one model, got {', '.join(models) or 'none'}")
    return data


def unit_names() -> list[str]:
    """Names of the units."""
    return list(_file()["units"])


def configurations(
    units: Iterable[str] = (), *, sizes: Iterable[tuple[int, int]] = (), simulator: str = "verilator"
) -> list[Configuration]:
    """The named configurations of ``units`` (all of them by default), those that the simulator runs.

    Args:
        units: names, of a unit or, as ``fp_mac:bf16``, of one of its configurations.
        sizes: (rows, columns), 1 to 64 each; the arrays take these instead of their own configurations. An array is a unit whose
            first configuration is a size and nothing else; a mesh, say, also has addresses, which bound its size.
        simulator: Icarus runs the integer units.

    Raises:
        InputError: an unknown unit, configuration or simulator, a unit that the simulator does not run, sizes out of range or for
            units that are no arrays.
    """
    if simulator not in simulators.SIMULATORS:
        raise unknown_name("simulator", simulator, simulators.SIMULATORS)
    units, sizes, known = list(units), [_checked_size(size) for size in sizes], _file()["units"]
    arrays = [unit for unit, about in known.items() if set(next(iter(about["configurations"].values()))) == {"Rows", "Columns"}]
    home = {unit: model for model, members in _file()["models"].items() for unit in members}
    chosen: dict[str, set[str]] = {}
    for word in units:
        unit, colon, name = word.partition(":")
        if unit not in known:
            raise unknown_name("unit", unit, known)
        if colon and sizes:
            raise InputError(f"sizes: {word!r} names a configuration, which has its size; leave one of them out")
        if colon and name not in known[unit]["configurations"]:
            raise unknown_name(f"configuration of {unit}", name, known[unit]["configurations"])
        chosen.setdefault(unit, set())
        chosen[unit] |= {name} if colon else set(known[unit]["configurations"])
        if simulator == "icarus" and not known[unit]["integer"]:
            raise InputError(f"unit: {unit!r} runs under verilator only; icarus runs the integer units")
    found = []
    for unit in chosen or known:
        about = known[unit]
        if simulator == "icarus" and not about["integer"]:
            continue
        named: dict[str, dict[str, int]] = about["configurations"]
        if sizes:
            if unit not in arrays:
                if chosen:
                    raise InputError(f"sizes: expected arrays ({', '.join(arrays)}), got unit {unit!r}")
                continue
            named = {f"{r}x{c}": {"Rows": r, "Columns": c} for r, c in sizes}
        for name, parameters in named.items():
            if not sizes and chosen and name not in chosen[unit]:
                continue
            if simulator != "icarus" or not parameters.get("Float"):
                found.append(Configuration(unit, name, parameters, home[unit], about["cases"]))
    if not found:
        raise InputError(f"unit: {', '.join(units)} has no configuration that icarus runs; expected an integer one")
    return listed(found)


def _checked_size(size: Any) -> tuple[int, int]:
    sides = tuple(size) if isinstance(size, Sequence | np.ndarray) else ()
    if len(sides) != 2 or not all(
        isinstance(side, int | np.integer) and not isinstance(side, bool) and 1 <= side <= LARGEST_SIZE for side in sides
    ):
        raise InputError(f"sizes: expected rows and columns from 1x1 to {LARGEST_SIZE}x{LARGEST_SIZE}, got {size!r}")
    return int(sides[0]), int(sides[1])


def latency_table(results: Iterable[Result]) -> str:
    """The latencies of units that are as their models, as a Markdown table: a row for configurations that are alike."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for r in results:
        if r.latency is not None:
            each = f"{r.latency.cycles_per_operand:.4g}"
            figures = str(r.latency.fill_cycles), each, str(r.latency.drain_cycles), r.latency.stall
            rows.setdefault((r.unit, *figures), []).append(r.configuration)
    lines = ["| unit | configurations | fill | per operand | drain | when stalled |", "|---|---|--:|--:|--:|---|"]
    for (unit, *cells), names in rows.items():
        lines.append("| " + " | ".join((f"`{unit}`", ", ".join(names), *cells)) + " |")
    return "\n".join(lines)


# --- running it -----------------------------------------------------------------------------------------------------------


def verify(
    units: Iterable[str] = (),
    *,
    sizes: Iterable[tuple[int, int]] = (),
    cases: int | None = None,
    seed: int = 0,
    simulator: str = "verilator",
    waves: str | Path | None = "hwsim-verify",
    sources: Path = SOURCES,
) -> list[Result]:
    """Run units beside their models and compare every output in every cycle.

    Args:
        units: names, of a unit or, as ``fp_mac:bf16``, of one of its configurations; all by default.
        sizes: (rows, columns) for the arrays, instead of their own.
        cases: random cases a configuration, beside all that is exhaustive; each unit's own number by default.
        seed: of the random cases; the same seed gives the same ones.
        simulator: ``verilator`` or ``icarus``.
        waves: folder for the waveform of a configuration that differs; None records none.
        sources: folder of the ``.sv`` files.

    Returns:
        A result a configuration, in the order of the file of configurations.

    Raises:
        InputError: an unknown unit or simulator, a number out of range, a tool that is missing.
        RuntimeError: a model does not build or run.
    """
    if cases is not None and (not isinstance(cases, int) or cases < 1):
        raise InputError(f"cases: expected an integer ≥ 1, got {cases!r}")
    if not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed: expected an integer ≥ 0, got {seed!r}")
    chosen = configurations(units, sizes=sizes, simulator=simulator)
    simulators.check_tools(simulator)
    models: dict[str, list[Configuration]] = {}
    for configuration in chosen:
        models.setdefault(configuration.model, []).append(configuration)

    def one(group: list[Configuration]) -> list[Result]:
        return _verify_model(group, cases, seed, simulator, waves, sources)

    # Two at a time: compiling is most of the work, and make uses the cores as well.
    with ThreadPoolExecutor(max_workers=2) as pool:
        results = [result for group in pool.map(one, models.values()) for result in group]
    order = {(c.unit, c.name): i for i, c in enumerate(chosen)}
    return listed(sorted(results, key=lambda r: order[r.unit, r.configuration]))


def stimulus(configuration: Configuration, *, cases: int | None = None, seed: int = 0) -> Trace:
    """What ``verify`` plays to a configuration, and what the unit's model says to it; arguments as there."""
    rng = np.random.default_rng([seed, zlib.crc32(f"{configuration.unit} {configuration.name}".encode())])
    return benches()[configuration.unit].trace(configuration.parameters, cases or configuration.cases, rng)


def record(
    configuration: Configuration, inputs: Values, *, simulator: str = "verilator", sources: Path = SOURCES
) -> dict[str, np.ma.MaskedArray[Any, np.dtype[np.uint64]]]:
    """What a unit shows while it is played inputs: those of a ``stimulus``, or your own.

    Args:
        configuration: of the unit; see ``configurations``.
        inputs: values of every input port but the clock, a row a cycle, the reset included.
        simulator, sources: as for ``verify``.

    Returns:
        By output port: unsigned integers (cycles,) or (cycles, lanes), each as it shows before the rising edge of its cycle;
        masked where the simulator knows no value.

    Raises:
        InputError: an unknown simulator, a tool that is missing.
        ValueError: inputs that are not those of the unit's ports.
        RuntimeError: the model does not build or run.
    """
    simulators.check_tools(simulator)
    with tempfile.TemporaryDirectory(prefix="hwsim-rtl-") as name:
        folder = Path(name)
        _write_stimulus(folder / "0.in", configuration, inputs)
        simulators.run(_build([configuration], simulator, sources, traced=False), folder, [0])
        text = (folder / "0.out").read_bytes()
    ports = benches()[configuration.unit].outputs(configuration.parameters)
    bits, known = from_binary(text, sum(port.width for port in ports))
    unknown = from_bits(ports, (~known).astype(np.uint8))
    return {port: np.ma.array(values, mask=unknown[port] != 0) for port, values in from_bits(ports, bits).items()}


def _verify_model(
    group: list[Configuration], cases: int | None, seed: int, simulator: str, waves: str | Path | None, sources: Path
) -> list[Result]:
    model = _build(group, simulator, sources, traced=False)
    results = []
    with tempfile.TemporaryDirectory(prefix="hwsim-rtl-") as name:
        folder = Path(name)
        traces, spent = [], []
        for index, configuration in enumerate(group):
            begin = time.perf_counter()
            trace = stimulus(configuration, cases=cases, seed=seed)
            _write_stimulus(folder / f"{index}.in", configuration, trace.inputs)
            traces.append(trace)
            spent.append(time.perf_counter() - begin)
        seconds = simulators.run(model, folder, range(len(group)))
        for index, (configuration, trace) in enumerate(zip(group, traces, strict=True)):
            begin = time.perf_counter()
            result = _compare(configuration, trace, folder / f"{index}.out")
            total = spent[index] + seconds[index] + time.perf_counter() - begin
            results.append(replace(result, seconds=total))
    if waves is None:
        return results
    return [
        result if result.passed else _with_waveform(result, configuration, trace, simulator, Path(waves), sources)
        for result, configuration, trace in zip(results, group, traces, strict=True)
    ]


def _write_stimulus(file: Path, configuration: Configuration, inputs: Values) -> None:
    ports = benches()[configuration.unit].inputs(configuration.parameters)
    file.write_text(to_hex(to_bits(ports, inputs)), encoding="ascii")


def _compare(configuration: Configuration, trace: Trace, file: Path) -> Result:
    bench = benches()[configuration.unit]
    ports = bench.outputs(configuration.parameters)
    expected = to_bits(ports, trace.outputs)
    observed, known = from_binary(file.read_bytes(), expected.shape[1])
    if observed.shape != expected.shape:
        raise RuntimeError(f"{configuration.unit} {configuration.name}: {len(expected)} cycles played, {len(observed)} recorded")
    wrong = (observed != expected) | ~known
    wrong[: trace.compared_from] = False
    cycles = np.flatnonzero(wrong.any(axis=1))
    difference = _first_difference(ports, expected, observed, known, wrong, int(cycles[0])) if cycles.size else None
    latency = None if cycles.size else bench.latency(configuration.parameters, trace, from_bits(ports, observed))
    return Result(
        configuration.unit,
        configuration.name,
        trace.cases,
        int(wrong.sum()),
        int(cycles.size),
        len(expected) - trace.compared_from,
        0.0,
        difference,
        latency=latency,
    )


def _first_difference(
    ports: tuple[Port, ...],
    expected: npt.NDArray[np.uint8],
    observed: npt.NDArray[np.uint8],
    known: npt.NDArray[np.bool_],
    wrong: npt.NDArray[np.bool_],
    cycle: int,
) -> Difference:
    at = 0
    for port in ports:
        for lane in reversed(range(port.lanes)):  # the highest lane lies first
            part = slice(at, at + port.bits)
            at += port.bits
            if not wrong[cycle, part].any():
                continue
            label = port.name if port.lanes == 1 else f"{port.name}[{lane}]"
            shown = _digits(observed[cycle, part]) if known[cycle, part].all() else "x"
            return Difference(cycle, label, _digits(expected[cycle, part]), shown)
    raise AssertionError("a cycle that differs has a signal that does")


def _digits(bits: npt.NDArray[np.uint8]) -> str:
    return f"{int(''.join(map(str, bits)), 2):0{-(-bits.size // 4)}x}"


def _with_waveform(
    result: Result, configuration: Configuration, trace: Trace, simulator: str, waves: Path, sources: Path
) -> Result:
    """Run the configuration once more, alone and recorded, to a little past its first difference."""
    assert result.difference is not None
    end = result.difference.cycle + AFTER_DIFFERENCE
    short = {name: values[:end] for name, values in trace.inputs.items()}
    model = _build([configuration], simulator, sources, traced=True)
    with tempfile.TemporaryDirectory(prefix="hwsim-rtl-") as name:
        folder = Path(name)
        _write_stimulus(folder / "0.in", configuration, short)
        simulators.run(model, folder, [0])
        recorded = simulators.waveform(model, folder)
        waves.mkdir(parents=True, exist_ok=True)
        target = waves / f"{configuration.unit}-{configuration.name}{recorded.suffix}"
        shutil.copyfile(recorded, target)
    return replace(result, waveform=target)


# --- the top module -------------------------------------------------------------------------------------------------------


def _build(group: Sequence[Configuration], simulator: str, sources: Path, *, traced: bool) -> simulators.Model:
    used: dict[str, None] = {}
    for configuration in group:
        used |= dict.fromkeys(benches()[configuration.unit].modules(configuration.parameters))
    files = [SOURCES / "benches" / "player.sv", *(sources / f"{module}.sv" for module in used)]
    return simulators.build(files, top_module(group), simulator=simulator, traced=traced)


_PUBLIC = "/*verilator public_flat_rw*/"
"""Lets cocotb reach a signal in a model of Verilator's."""


def top_module(group: Sequence[Configuration]) -> str:
    """A module with a player and a unit for each configuration."""
    count = len(group)
    lines = [
        "module bench_top (",
        f"  input  logic        clk_i {_PUBLIC},",
        f"  input  logic [15:0] active_i {_PUBLIC},",
        f"  output logic        done_o {_PUBLIC}",
        ");",
        f"  logic [{count - 1}:0] done;",
        f"  assign done_o = active_i < 16'd{count} && done[{'active_i' if count > 1 else '0'}];",
    ]
    for index, configuration in enumerate(group):
        bench, parameters = benches()[configuration.unit], configuration.parameters
        inputs, outputs = bench.inputs(parameters), bench.outputs(parameters)
        connections = [*_connections("drive", inputs), *_connections("observe", outputs)]
        if bench.clock is not None:
            connections.insert(0, f".{bench.clock}(clock)")
        values = ", ".join(f".{name}({value})" for name, value in parameters.items())
        width_in, width_out = (sum(port.width for port in ports) for ports in (inputs, outputs))
        lines += [
            f"  // {configuration.unit} {configuration.name}",
            f"  if (1) begin : g_{index}",
            f"    logic clock; logic [{width_in - 1}:0] drive; logic [{width_out - 1}:0] observe;",
            f"    player #(.InputBits({width_in}), .OutputBits({width_out}), .Index({index})) u_player (",
            f"      .clk_i(clk_i), .active_i(active_i), .done_o(done[{index}]), .unit_clk_o(clock),",
            "      .drive_o(drive), .observe_i(observe));",
            f"    {configuration.unit}{f' #({values})' if values else ''} u_unit (",
            "      " + ", ".join(connections) + ");",
            "  end",
        ]
    return "\n".join([*lines, "endmodule", ""])


def _connections(bus: str, ports: tuple[Port, ...]) -> list[str]:
    """Each port's part of a bus on which the first port lies highest."""
    high = sum(port.width for port in ports)
    found = []
    for port in ports:
        high -= port.width
        found.append(f".{port.name}({bus}[{high + port.width - 1}:{high}])")
    return found
