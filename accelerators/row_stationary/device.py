"""The row-stationary array as a device: workloads in, reports out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from accelerators.row_stationary.compression import coded_share
from accelerators.row_stationary.spec import RowStationarySpec
from hwsim.engine import MatrixEngine, MatrixWork
from hwsim.machine import Fittable, format_bytes
from hwsim.operators import Convolution, Matmul, Op
from hwsim.schedule import Traffic
from hwsim.workload import Tensor, Workload
from numerics.errors import unknown_name
from numerics.recipes import Recipe, get_recipe

if TYPE_CHECKING:
    from torch import nn

    from accelerators.row_stationary.mapping import LayerMapping, MappingCost
    from accelerators.row_stationary.nest import Nest
    from hwsim.area.components import Area
    from hwsim.area.process import Process
    from numerics.emulation import Emulation


class RowStationaryArray(MatrixEngine[RowStationarySpec]):
    """A row-stationary array: Eyeriss.

    Fidelities: ``analytic``, memory is ideal; ``tile``, with off-chip transfers: filters are fetched beside the work, one pass
    ahead; feature maps before and after it.
    """

    kind: ClassVar[str] = "row_stationary"
    spec_class = RowStationarySpec
    fittable: ClassVar[Mapping[str, Fittable]] = {"power": Fittable((), {"static_power_w": (1e-3, 1.0)})}

    def _area(self, process: Process) -> Area:
        from accelerators.row_stationary.area import device_area

        return device_area(self.name, self._spec, process)

    # --- what it costs ------------------------------------------------------------------------------------------------

    def matrix_work(self, workload: Workload, op: Matmul | Convolution, pair: tuple[str, str], traffic: Traffic) -> MatrixWork:
        """What ``op`` takes with the best mapping of its nest."""
        from accelerators.row_stationary.emulation import check_sum
        from accelerators.row_stationary.mapping import best_mapping, cost
        from accelerators.row_stationary.nest import nest_of

        spec = self.spec
        if op.formats is not None:
            check_sum(spec.name, op.formats.accumulator)
        mac = spec.mac_format(*pair)
        nest = nest_of(op, spec)
        mapping = best_mapping(nest, spec, cycles_per_mac=mac.cycles_per_mac)
        found = cost(mapping, nest, spec, cycles_per_mac=mac.cycles_per_mac)

        a, b = (workload.tensors[name] for name in op.inputs[:2])
        inputs = found.off_chip_ifmap_words * nest.fill * format_bytes(a.format) * self.off_chip_share(a)
        filters = found.off_chip_filter_words * format_bytes(b.format)
        others = sum(workload.read_bytes(op, i) for i in range(2, len(op.inputs)))
        stored = traffic.store_bytes * self.off_chip_share(workload.tensors[op.outputs[0]])
        energy, moved = self._on_chip(nest, found, op.macs * mac.energy_pj, op.macs, 1.0 if a.density is None else a.density)
        return MatrixWork(
            compute_cycles=found.steady_cycles,
            serial_cycles=found.prologue_cycles,
            load_bytes=inputs + filters + others,
            store_bytes=stored,
            prefetched_bytes=filters,
            peak_macs_per_cycle=spec.array.rows * spec.array.columns / mac.cycles_per_mac,
            energy_j=energy,
            bytes=moved,
            mapping=self._mapping_row(nest, mapping, found),
        )

    def off_chip_share(self, tensor: Tensor) -> float:
        """Bytes of a tensor off chip over its bytes uncoded; 1 where nothing is known of its zeros."""
        code = self.spec.compression
        if code is None or tensor.density is None or tensor.role == "weight":
            return 1.0
        return coded_share(tensor.density, code, word_bits=round(8 * format_bytes(tensor.format)))

    def _on_chip(
        self, nest: Nest, found: MappingCost, mac_pj: float, macs: int, density: float
    ) -> tuple[dict[str, float], dict[str, int]]:
        """(energy, bytes) of MACs, scratchpads, network and buffers; figures of the nest scaled to the operator's share of it."""
        from accelerators.row_stationary.mapping import WORD_BYTES

        spec, fill = self.spec, nest.fill
        live = density if spec.zero_gating else 1.0
        # A MAC reads input, filter and partial sum and writes the sum back; a zero input leaves only its own reading.
        accesses = macs * (1 + 3 * live)
        received = fill * (found.network_ifmap_words + found.network_psum_words) + found.network_filter_words
        buffer = fill * (found.off_chip_ifmap_words + found.buffer_ifmap_words + found.psum_write_words + found.psum_read_words)
        filters = 2.0 * found.off_chip_filter_words  # in and out
        energy = {
            "mac": mac_pj * live,
            "scratchpads": (accesses + received) * spec.scratchpads.energy_pj_per_access,
            "network": received * spec.network.energy_pj_per_word,
            "buffer": buffer * WORD_BYTES * spec.buffer.energy_pj_per_byte,
            "filter_buffer": filters * WORD_BYTES * spec.filter_buffer.energy_pj_per_byte,
        }
        words = {"scratchpads": accesses + received, "network": received, "buffer": buffer, "filter_buffer": filters}
        return {name: 1e-12 * pj for name, pj in energy.items()}, {k: round(v) * WORD_BYTES for k, v in words.items()}

    def _mapping_row(self, nest: Nest, mapping: LayerMapping, found: MappingCost) -> dict[str, Any]:
        pieces = nest.row_pieces(self.spec.array.rows)
        columns = nest.out_rows / -(-nest.out_rows // mapping.e)
        active = nest.kernel_rows / pieces * columns * mapping.r * mapping.t
        return {
            "m": mapping.m,
            "n": mapping.n,
            "e": mapping.e,
            "p": mapping.p,
            "q": mapping.q,
            "r": mapping.r,
            "t": mapping.t,
            "passes": found.passes,
            "active_pes": round(active, 1),
        }

    def _vector_work(
        self, workload: Workload, op: Op, part: Traffic, streamed: bool
    ) -> tuple[float, float, float, dict[str, float], dict[str, int]]:
        """As the frame has it, with coded feature maps off chip."""
        busy, load, store, energy, levels = super()._vector_work(workload, op, part, streamed)
        return busy, load * self._mean_share(workload, op.inputs), store * self._mean_share(workload, op.outputs), energy, levels

    def _mean_share(self, workload: Workload, names: tuple[str, ...]) -> float:
        tensors = [workload.tensors[name] for name in names]
        total = sum(tensor.bytes for tensor in tensors)
        return sum(tensor.bytes * self.off_chip_share(tensor) for tensor in tensors) / total if total else 1.0

    # --- what it computes ---------------------------------------------------------------------------------------------

    def computed_recipe(self, recipe: Recipe) -> Recipe:
        """The recipe with 16-bit sums of truncated products."""
        from accelerators.row_stationary.emulation import truncating_recipe

        return truncating_recipe(self.spec, recipe)

    def emulate(
        self,
        module: nn.Module,
        recipe: str | Recipe | None = None,
        *,
        fidelity: str | None = None,
        example_inputs: Any = None,
        seed: int = 0,
    ) -> Emulation:
        """``module`` as the array computes it; see ``hwsim.device.Device.emulate``."""
        import numerics
        from accelerators.row_stationary.emulation import TruncatingUnit

        if fidelity not in (None, *self.fidelities):
            raise unknown_name(f"fidelity (device {self.name!r})", str(fidelity), self.fidelities)
        chosen = self.computed_recipe(self._spec.default_recipe if recipe is None else get_recipe(recipe))
        return numerics.emulate(module, chosen, example_inputs=example_inputs, seed=seed, matrix_unit=TruncatingUnit())
