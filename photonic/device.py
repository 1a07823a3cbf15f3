"""Photonic engines as devices: workloads in, reports out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import log2
from typing import TYPE_CHECKING, Any, ClassVar

from hwsim.engine import MatrixEngine, MatrixWork
from hwsim.held_operands import loaded_bytes
from hwsim.machine import format_bytes
from hwsim.operators import Convolution, Matmul, Op
from hwsim.report import OpCost, Report
from hwsim.schedule import Group, Traffic
from hwsim.views.display import displayed
from hwsim.workload import Workload
from numerics.accumulator import Accumulator
from numerics.errors import InputError
from numerics.formats import get_format
from numerics.recipes import Recipe, get_recipe
from photonic._numbers import one_of
from photonic.engines import Crossbar, MeshEngine
from photonic.findings import findings
from photonic.spec import PhotonicSpec
from photonic.tiling import Tiling, results_kept, weights_kept

if TYPE_CHECKING:
    from torch import nn

    from hwsim.area import Area
    from numerics.emulation import Emulation
    from photonic.emulation.faults import PhotonicFaults
    from photonic.emulation.unit import OpticalUnit

SUMS = "int32"


@displayed
@dataclass(frozen=True)
class OpticalWork(MatrixWork):
    """What a product takes on the engine.

    Attributes:
        settling_cycles: those of ``compute_cycles`` that settling weights add to it.
    """

    settling_cycles: float = 0.0


class PhotonicEngine(MatrixEngine[PhotonicSpec]):
    """An optical matrix engine with its converters, lasers, digital part and memory.

    Lasers, heaters and amplifiers take power for as long as they are on, conversions, modulation and memory energy for each
    event. What settling weights add to a product's time is overhead, not compute. Fidelities: ``analytic``, memory is ideal;
    ``tile``, with the transfers of the mapping's tiles.
    """

    kind: ClassVar[str] = "photonic_engine"
    spec_class = PhotonicSpec
    package: ClassVar[str] = "photonic"

    def __repr__(self) -> str:
        engine = self._spec.engine
        size = f"{engine.count} × {engine.ports}×{engine.ports}"
        return f"PhotonicEngine({self.name!r}: {engine.style} {size}, {engine.symbol_rate_hz / 1e9:g} GHz)"

    # --- what it takes --------------------------------------------------------------------------------------------------

    def area(self, node: float | None = None) -> Area:
        """What the engine takes; see ``hwsim.machine.Machine.area``. Optics have the areas of their own devices; ``node`` is that
        of the digital part."""
        from hwsim.area import get_process
        from photonic.area import device_area

        chosen = self._spec.process_nm if node is None else node
        return device_area(self.name, self._spec, None if chosen is None else get_process(chosen))

    # --- what it costs ------------------------------------------------------------------------------------------------

    def _simulate(self, workload: Workload, fidelity: str) -> Report:
        report = super()._simulate(workload, fidelity)
        light = [
            self._light(op) for op in workload.expanded().ops if isinstance(op, Matmul | Convolution) and op.formats is not None
        ]
        tables = {**report.tables, "power_budget": light, "parts": self._parts()}
        report = replace(report, tables={name: rows for name, rows in tables.items() if rows})
        set_at_run_time = sum(_made_at_run_time(workload, op) for op in workload.expanded().ops)
        return replace(report, notes=(*report.notes, *findings(self._spec, report, set_at_run_time)))

    def tiling(self, shape: tuple[int, int, int, int], pair: tuple[str, str]) -> Tiling:
        """How a product (batch, m, n, k) of these formats is cut; see ``photonic.tiling``."""
        spec, engine = self._spec, self._spec.engine
        slices = spec.slices(pair)
        if isinstance(engine, Crossbar):
            return results_kept(
                shape,
                ports=engine.ports,
                clusters=engine.clusters,
                shared=engine.shared,
                products=engine.at_once,
                integration=engine.integration,
                slices=slices,
            )
        return weights_kept(
            shape,
            ports=engine.ports,
            engines=engine.count,
            vectors=engine.wavelengths if isinstance(engine, MeshEngine) else 1,
            passes=engine.passes,
            slices=slices,
            sum_capacity_bytes=spec.accumulators.tile_bytes,
            buffer_bytes=spec.buffer.tile_bytes,
            element_bytes=(format_bytes(pair[0]), format_bytes(pair[1])),
            setting_symbols=spec.tuning.settling_s * engine.symbol_rate_hz if spec.tuning else 0.0,
            samples=engine.samples,
        )

    def matrix_work(self, workload: Workload, op: Matmul | Convolution, pair: tuple[str, str], traffic: Traffic) -> OpticalWork:
        """What ``op`` takes; see ``hwsim.engine.MatrixEngine.matrix_work``."""
        spec, engine = self._spec, self._spec.engine
        assert op.formats is not None
        self._check_sums(op.formats.accumulator)
        shape = op.matmul_dims if isinstance(op, Convolution) else (op.batch, op.m, op.n, op.k)
        cut = self.tiling(shape, pair)
        symbol_cycles = cut.symbols * spec.clock_hz / engine.symbol_rate_hz
        setting_cycles = cut.settings * spec.tuning.settling_s * spec.clock_hz if spec.tuning else 0.0
        a_bytes, b_bytes = (format_bytes(name) for name in pair)
        read = round(cut.a_reads * a_bytes + cut.b_reads * b_bytes)
        summed = cut.sum_accesses * format_bytes(SUMS)
        digital_cycles = max(read / spec.buffer.bytes_per_cycle, summed / spec.accumulators.bytes_per_cycle)
        cycles = max(symbol_cycles + setting_cycles, digital_cycles)
        symbol_bits = min(spec.dac.bits, max(int(get_format(name).bits) for name in pair))
        energy = {
            "dac": cut.dac_samples * spec.dac.energy_pj_per_sample * 1e-12,
            "modulators": cut.dac_samples * symbol_bits * spec.modulator.energy_fj_per_bit * 1e-15,
            "adc": cut.adc_samples * spec.adc.energy_pj_per_sample * 1e-12,
            "sums": (cut.sums + self._corrections(cut)) * spec.energy_pj_per_sum * 1e-12,
            "accumulators": summed * spec.accumulators.energy_pj_per_byte * 1e-12,
            "buffer": read * spec.buffer.energy_pj_per_byte * 1e-12,
        }
        if spec.tuning is not None:
            assert not isinstance(engine, Crossbar)
            settings = cut.all_settings * engine.tuners // engine.count
            energy["settings"] = settings * spec.tuning.energy_pj_per_setting * 1e-12
        inputs, weights = spec.slices(pair)
        every_cycle = engine.results * engine.macs_per_sample / engine.integration * engine.symbol_rate_hz / spec.clock_hz
        return OpticalWork(
            compute_cycles=cycles,
            settling_cycles=cycles - max(symbol_cycles, digital_cycles),
            load_bytes=self._loads(workload, op, traffic, cut, shape[0]),
            store_bytes=traffic.store_bytes,
            peak_macs_per_cycle=every_cycle / (engine.passes * inputs * weights),
            energy_j=energy,
            bytes={"buffer": read, "accumulators": round(summed)},
            mapping={
                "m": shape[1], "n": shape[2], "k": shape[3], "tiles": cut.tiles, "rounds": cut.rounds, "order": cut.order,
                "rows": cut.rows, "blocks": cut.blocks, "a_loads": cut.a_loads, "b_loads": cut.b_loads,
                "symbols": cut.symbols, "settings": cut.settings, "settings_if_inputs_stayed": cut.settings_if_inputs_stayed,
                "symbol_cycles": round(symbol_cycles, 3), "setting_cycles": round(setting_cycles, 3),
                "setting_share": round(setting_cycles / cycles, 4) if cycles else 0.0, "dac_samples": cut.dac_samples,
                "adc_samples": cut.adc_samples,
            },
        )  # fmt: skip

    def _group(
        self, workload: Workload, group: Group, traffic: Mapping[int, Traffic], fidelity: str
    ) -> tuple[list[OpCost], MatrixWork | None]:
        """As of ``MatrixEngine``; loads go on while weights settle, so that only what settling adds becomes overhead."""
        rows, work = super()._group(workload, group, traffic, fidelity)
        if group.matrix is None or not isinstance(work, OpticalWork) or not work.settling_cycles:
            return rows, work
        op, vector = workload.ops[group.matrix], self._spec.vector_unit
        assert op.formats is not None
        converted, _ = self.conversions(workload, op, self._spec.compute_formats(*op.formats.operands[:2]))
        settled = max(work.compute_cycles - work.settling_cycles, converted / vector.lanes, vector.cycles(op.operations))
        first = rows[0]
        added = max(0.0, first.compute_cycles - settled)
        changed = replace(first, compute_cycles=first.compute_cycles - added, overhead_cycles=first.overhead_cycles + added)
        return [changed, *rows[1:]], work

    def _loads(self, workload: Workload, op: Matmul | Convolution, traffic: Traffic, cut: Tiling, batch: int) -> float:
        """Bytes from off-chip memory. An operand is off chip as far as its bytes are part of ``load_bytes``."""
        load = float(traffic.load_bytes)
        a, b = (float(workload.read_bytes(op, i)) if i < len(op.inputs) else 0.0 for i in (0, 1))
        if isinstance(self._spec.engine, Crossbar):  # results come in any order
            return loaded_bytes(load, (a, b), (a, b), capacity_bytes=self._spec.buffer.tile_bytes, batch=batch)
        b_off = min(load, b)
        a_off = min(load - b_off, a)
        return load + a_off * (cut.a_loads - 1) + b_off * (cut.b_loads - 1)

    def _corrections(self, cut: Tiling) -> int:
        """Additions that restore signs: a bias taken off each sample of a weight bank, a second one for negative weights."""
        return cut.adc_samples if self._spec.engine.style == "weight_bank" else 0

    def row(self, op: Op, **given: Any) -> OpCost:
        """A row of the report, with the power that lasers, heaters and amplifiers draw while it runs."""
        cycles = given["compute_cycles"] + given["stall_cycles"] + given["overhead_cycles"]
        if self._spec.idle == "off":
            cycles = given["busy_cycles"] if given["unit"] == "array" else 0.0
        held = {part: power * cycles / self._spec.clock_hz for part, power in self._spec.held_power_w.items()}
        return super().row(op, **{**given, "energy_j": {**given["energy_j"], **held}})

    def _light(self, op: Matmul | Convolution) -> dict[str, Any]:
        """A product's row of the table ``power_budget``: bits that light and converter give, beside those asked for."""
        spec, budget = self._spec, self._spec.budget
        assert op.formats is not None
        pair = spec.compute_formats(*op.formats.operands[:2])
        k = op.matmul_dims[3] if isinstance(op, Convolution) else op.k
        asked = max(int(get_format(name).bits) for name in pair)
        terms = min(k, spec.engine.macs_per_sample)
        light = budget.bits_of(*spec.engine.fill(k))
        given = min(light, spec.adc.bits)
        return {
            "op": op.name,
            "terms": terms,
            "asked_bits": asked,
            "exact_bits": round(sum(int(get_format(name).bits) for name in pair) + log2(terms), 2),
            "light_bits": round(light, 2),
            "adc_bits": spec.adc.bits,
            "margin_bits": round(given - asked, 2),
            "loss_db": round(budget.signal.total_db, 2),
            "detector_w": budget.detector_w,
            "limit": budget.detection.limit(budget.detector_w),
        }

    def _parts(self) -> list[dict[str, Any]]:
        """The table ``parts``: how many, and the area where it is known."""
        area = self._spec.area_um2
        return [
            {"part": part, "count": count, "area_um2": count * area[part] if part in area else None}
            for part, count in self._spec.engine.parts.items()
        ]

    def _check_sums(self, accumulator: str) -> None:
        if accumulator != SUMS:
            raise InputError(f"device {self.name!r}: accumulator: results of tiles are added in {SUMS}; got {accumulator!r}")

    # --- what it computes ---------------------------------------------------------------------------------------------

    def emulate(
        self,
        module: nn.Module,
        recipe: str | Recipe | None = None,
        *,
        fidelity: str | None = None,
        example_inputs: Any = None,
        seed: int = 0,
    ) -> Emulation:
        """``module`` as the engine computes it; see ``hwsim.device.Device.emulate``.

        Args:
            fidelity: ``tile``, the default: every product tile by tile through the optics of the spec, with its
                ``imperfections``, and the noise and converters that its power budget is made of; the emulation's ``matrix_unit``
                then has what was found out about each layer. ``analytic``: the formats alone, with exact sums.
            seed: of the engine that is made, and of all noise.

        A linear layer or convolution that is given an input of another width refuses it by its path.
        """
        import numerics
        from photonic._layer_inputs import check_inputs_of

        if fidelity is not None:
            one_of(f"fidelity (device {self.name!r})", fidelity, self.fidelities)
        chosen = self.computed_recipe(self._spec.default_recipe if recipe is None else get_recipe(recipe))
        unit = None if fidelity == "analytic" else self.unit(seed=seed)
        emulated = numerics.emulate(module, chosen, example_inputs=example_inputs, seed=seed, matrix_unit=unit)
        check_inputs_of(emulated.module)
        return emulated

    def unit(self, *, seed: int = 0, faults: PhotonicFaults | None = None) -> OpticalUnit:
        """The engine as the matrix unit of an emulation (``numerics.emulate``).

        Args:
            seed: of the engine that is made, and of all noise.
            faults: what broke; None for nothing.

        Raises:
            InputError: a seed that is no integer ≥ 0; no light on detectors; a drift that the spec does not have.
        """
        from photonic.emulation.unit import OpticalUnit

        return OpticalUnit(self._spec, seed, faults)

    def computed_recipe(self, recipe: Recipe) -> Recipe:
        """The recipe in the engine's formats, with exact sums; see ``hwsim.machine.OperatorMachine.computed_recipe``. Noise
        and the resolution of converters are not part of a recipe."""
        if recipe.accumulation is not None:
            raise InputError(f"device {self.name!r}: recipe {recipe.name!r}: accumulation: sums are {SUMS}; leave it out")

        def computed(given: Mapping[str, str]) -> dict[str, str]:
            """``given``, with the operands that are converted before they are multiplied."""
            formats = {**recipe.formats, **given}
            pair = self._spec.compute_formats(formats["activation"], formats["weight"])
            self._check_sums(Recipe("sums", formats).format_for("accumulator"))
            changed = {role: to for role, to in zip(("activation", "weight"), pair, strict=True) if to != formats[role]}
            return {**given, **changed}

        ends = recipe.first_and_last
        return replace(
            recipe,
            formats=computed(recipe.formats),
            overrides=tuple(replace(o, formats=computed(o.formats)) for o in recipe.overrides),
            first_and_last=None if ends is None else computed(ends),
            accumulation=Accumulator(format=SUMS),
        )


def _made_at_run_time(workload: Workload, op: Op) -> bool:
    """Whether a product's second operand is no stored weight."""
    return op.is_matrix and len(op.inputs) > 1 and workload.expanded().tensors[op.inputs[1]].role != "weight"
