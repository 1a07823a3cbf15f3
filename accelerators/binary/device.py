"""The BNN engine as a device: workloads in, reports out."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from accelerators.binary.emulation import check_sum, engine_recipe
from accelerators.binary.folding import folded_ops
from accelerators.binary.mapping import NodeCost, binary_node, place_layer
from accelerators.binary.node_schedule import schedule_max_pool
from accelerators.binary.spec import BINARY, BinarySpec, ThresholdPe
from hwsim.engine import MatrixEngine, MatrixWork
from hwsim.held_operands import loaded_bytes
from hwsim.machine import format_bytes
from hwsim.operators import Convolution, Matmul, Op, Pooling
from hwsim.report import Report
from hwsim.schedule import Traffic
from hwsim.spec import MacFormat
from hwsim.workload import Workload
from numerics.recipes import Recipe

if TYPE_CHECKING:
    from hwsim.area.components import Area
    from hwsim.area.process import Process


class BinaryEngine(MatrixEngine[BinarySpec]):
    """Binary layers on threshold cells or on XNOR-popcount units, all others on integer MACs.

    A normalisation with stored statistics and a clipping between a binary product and the next sign cost nothing: they move the
    threshold of the comparison with which a node ends. Max-pools of signs run on threshold cells.
    """

    kind: ClassVar[str] = "binary_engine"
    spec_class = BinarySpec
    _folded: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        pe = self._spec.pe
        each = f"{pe.cells} cells" if isinstance(pe, ThresholdPe) else f"{pe.products_per_cycle} products a cycle"
        return f"BinaryEngine({self.name!r}: {pe.count} elements of {each}, {self._spec.clock_hz / 1e6:g} MHz)"

    def _area(self, process: Process) -> Area:
        from accelerators.binary.area import device_area

        return device_area(self.name, self._spec, process)

    def _simulate(self, workload: Workload, fidelity: str) -> Report:
        run = type(self)(self._spec)  # what is folded belongs to one workload
        run._folded = folded_ops(workload.expanded())
        return super(BinaryEngine, run)._simulate(workload, fidelity)

    def _notes(self, workload: Workload) -> list[str]:
        products = [op for op in workload.ops if op.is_matrix]
        if not products or any(op.formats is not None and op.formats.operands[:2] == (BINARY, BINARY) for op in products):
            return []
        return [f"no product has two operands in {BINARY!r}: all run on the integer MACs, none on the binary elements"]

    def distinction(self, op: Op) -> bool:
        """Whether the operator is folded into a threshold; see ``hwsim.engine.MatrixEngine.distinction``."""
        return op.name in self._folded

    def matrix_work(self, workload: Workload, op: Matmul | Convolution, pair: tuple[str, str], traffic: Traffic) -> MatrixWork:
        """What ``op`` takes; see ``hwsim.engine.MatrixEngine.matrix_work``."""
        spec = self._spec
        assert op.formats is not None
        check_sum(self.name, *pair, op.formats.accumulator)
        batch, m, n, k = op.matmul_dims if isinstance(op, Convolution) else (op.batch, op.m, op.n, op.k)
        mac = spec.mac_format(*pair)
        if isinstance(mac, MacFormat):
            unit, units, node = "integer MACs", spec.integer_macs, NodeCost(k * mac.cycles_per_mac, {"mac": k * mac.energy_pj})
            peak = units / mac.cycles_per_mac
        else:
            pe = spec.pe
            unit, units, node = pe.style, pe.count, binary_node(pe, k)
            peak = units * (pe.cells * pe.cell_inputs if isinstance(pe, ThresholdPe) else pe.products_per_cycle)
        bits = (round(8 * format_bytes(pair[0])), round(8 * format_bytes(pair[1])))
        per_cycle = 8 * spec.operands.bytes_per_cycle
        layer = place_layer(batch, m, n, k, units=units, node_cycles=node.cycles, bits=bits, bits_per_cycle=per_cycle)
        a, b = (float(workload.read_bytes(op, i)) if i < len(op.inputs) else 0.0 for i in (0, 1))
        loaded = loaded_bytes(traffic.load_bytes, (a, b), (a, b), capacity_bytes=spec.operands.tile_bytes, batch=batch)
        moved = -(-layer.operand_bits // 8)
        nodes = batch * m * n
        energy = {part: nodes * pj * 1e-12 for part, pj in node.energy_pj.items()}
        energy["operands"] = moved * spec.operands.energy_pj_per_byte * 1e-12
        return MatrixWork(
            compute_cycles=max(float(layer.unit_cycles), moved / spec.operands.bytes_per_cycle),
            load_bytes=loaded,
            store_bytes=traffic.store_bytes,
            peak_macs_per_cycle=peak,
            energy_j=energy,
            bytes={"operands": moved},
            mapping={
                "m": m, "n": n, "k": k, "unit": unit, "rows": layer.rows, "columns": layer.columns, "waves": layer.waves,
                "node_cycles": node.cycles, "unit_cycles": layer.unit_cycles,
                "array_occupancy": batch * m * n / (layer.waves * units),
            },
        )  # fmt: skip

    def _vector_work(
        self, workload: Workload, op: Op, part: Traffic, streamed: bool
    ) -> tuple[float, float, float, dict[str, float], dict[str, int]]:
        spec, pe = self._spec, self._spec.pe
        signs = op.formats is not None and op.formats.operands[:1] == (BINARY,)
        pooled = signs and isinstance(op, Pooling) and op.operation == "pool_max" and isinstance(pe, ThresholdPe)
        if op.name not in self._folded and not pooled:
            return super()._vector_work(workload, op, part, streamed)
        _, convert_energy = self.conversions(workload, op)
        touched = part.outside_bytes + part.result_bytes
        energy = {"vector": convert_energy, "buffer": touched * spec.buffer.energy_pj_per_byte * 1e-12}
        cycles = 0.0
        if op.name not in self._folded:
            assert isinstance(op, Pooling)
            assert isinstance(pe, ThresholdPe)
            window = schedule_max_pool(max(1, op.window), cell_inputs=pe.cell_inputs)
            cycles = float(-(-op.elements // (pe.count * pe.cells)) * window.cycles)
            energy["cells"] = op.elements * len(window.instructions) * pe.instruction_energy_pj * 1e-12
        return max(cycles, touched / spec.buffer.bytes_per_cycle), part.load_bytes, part.store_bytes, energy, {"buffer": touched}

    def computed_recipe(self, recipe: Recipe) -> Recipe:
        """The recipe as the engine computes it; see ``hwsim.machine.OperatorMachine.computed_recipe``."""
        return engine_recipe(self._spec, recipe)
