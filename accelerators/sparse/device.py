"""The sparse engine as a device: workloads in, reports out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from accelerators.sparse.cost import Product, SparseCost, kept_of_row, product_cost
from accelerators.sparse.spec import SparseSpec, Storage
from hwsim.engine import MatrixEngine, MatrixWork
from hwsim.held_operands import loaded_bytes
from hwsim.machine import format_bytes
from hwsim.operators import Convolution, Matmul
from hwsim.schedule import Traffic
from hwsim.workload import Workload
from numerics.accumulator import Accumulator
from numerics.errors import InputError
from numerics.formats import is_float
from numerics.recipes import Recipe

if TYPE_CHECKING:
    from hwsim.area.components import Area
    from hwsim.area.process import Process


class SparseEngine(MatrixEngine[SparseSpec]):
    """Lanes that go through rows of weights and pass over zeros, as far as the spec lets them.

    What is not zero comes from the tensors' densities (traced with ``values=True``) or from the spec's own. Products of which no
    operand is a weight are dense but for their activations.
    """

    kind: ClassVar[str] = "sparse_engine"
    spec_class = SparseSpec

    def __repr__(self) -> str:
        spec = self._spec
        return (
            f"SparseEngine({self.name!r}: {spec.lanes.count}×{spec.lanes.width} lanes, {spec.sparsity.weights} weights, "
            f"skips {spec.sparsity.skip}, {spec.clock_hz / 1e6:g} MHz)"
        )

    def _notes(self, workload: Workload) -> list[str]:
        sparsity = self._spec.sparsity
        operands = [name for op in workload.ops if op.is_matrix for name in op.inputs]
        said = sparsity.weight_density is not None or sparsity.activation_density is not None
        if said or not operands or any(self._known_density(workload, name) is not None for name in operands):
            return []
        return [
            "no density is known, so all operands count as dense: trace with values=True, "
            "or set sparsity.weight_density and sparsity.activation_density"
        ]

    def _area(self, process: Process) -> Area:
        from accelerators.sparse.area import device_area

        return device_area(self.name, self._spec, process)

    def matrix_work(self, workload: Workload, op: Matmul | Convolution, pair: tuple[str, str], traffic: Traffic) -> MatrixWork:
        """What ``op`` takes; see ``hwsim.engine.MatrixEngine.matrix_work``."""
        spec = self._spec
        assert op.formats is not None
        self._check_sum(*pair, op.formats.accumulator)
        mac = spec.mac_format(*pair)
        product, weight_first, weighted = self._product(workload, op, pair)
        storages: list[Storage] = ["dense"]
        wanted = spec.sparsity.weights
        if weighted and wanted != "dense" and (wanted != "n_m" or self._fits_n_m(product)):
            storages = [wanted, "dense"] if spec.sparsity.dense_fallback else [wanted]
        dense = tuple(float(workload.read_bytes(op, i)) if i < len(op.inputs) else 0.0 for i in (0, 1))
        found = []
        for storage in storages:
            cost = product_cost(spec, product, storage, cycles_per_mac=mac.cycles_per_mac)
            stored = list(dense)
            if weighted and storage != "dense":
                stored[0 if weight_first else 1] = cost.stored_bytes
            loaded = loaded_bytes(
                traffic.load_bytes, (dense[0], dense[1]), (stored[0], stored[1]), capacity_bytes=spec.operands.tile_bytes,
                batch=product.batch,
            )  # fmt: skip
            cycles = max(cost.lane_cycles, cost.operand_bytes / spec.operands.bytes_per_cycle)
            moving = (loaded + traffic.store_bytes) / spec.off_chip.achieved_bytes_per_s * spec.clock_hz
            found.append((max(cycles, moving), cycles, loaded, cost))
        _, cycles, loaded, cost = min(found, key=lambda each: each[:2])
        share = cost.executed_macs / op.macs
        peak = spec.lanes.count * spec.lanes.width / mac.cycles_per_mac
        moved = round(cost.operand_bytes)
        return MatrixWork(
            compute_cycles=max(cycles, moved / spec.operands.bytes_per_cycle),
            load_bytes=loaded,
            store_bytes=traffic.store_bytes,
            peak_macs_per_cycle=peak / share if share > 0 else 0.0,
            energy_j={
                "mac": cost.executed_macs * mac.energy_pj * 1e-12,
                "decode": cost.decoded_blocks * spec.sparsity.decode_energy_pj_per_block * 1e-12,
                "operands": moved * spec.operands.energy_pj_per_byte * 1e-12,
            },
            bytes={"operands": moved},
            mapping=self._mapping_row(product, cost, share, cost.executed_macs / (peak * cost.lane_cycles or 1.0), weighted),
        )

    def _product(self, workload: Workload, op: Matmul | Convolution, pair: tuple[str, str]) -> tuple[Product, bool, bool]:
        """The product as the lanes see it, whether its weights are the first operand, and whether it has any."""
        batch, m, n, k = op.matmul_dims if isinstance(op, Convolution) else (op.batch, op.m, op.n, op.k)
        roles = [workload.tensors[name].role for name in op.inputs[:2]] or ["activation", "weight"]
        first = isinstance(op, Matmul) and roles[0] == "weight" and roles[1] != "weight"
        weighted = first or roles[1] == "weight"
        bits = [8 * format_bytes(name) for name in pair]
        densities = [self._density(workload, name) for name in op.inputs[:2]] or [1.0, 1.0]
        if first:
            m, n, bits, densities = n, m, bits[::-1], densities[::-1]
        sparsity = self._spec.sparsity
        weight, activation = (densities[1] if weighted else 1.0), densities[0]
        if sparsity.weight_density is not None and weighted:
            weight = sparsity.weight_density
        if sparsity.activation_density is not None:
            activation = sparsity.activation_density
        out = 8 * format_bytes(workload.tensors[op.outputs[0]].format) if op.outputs else bits[0]
        return Product(batch, m, n, k, bits[0], bits[1], out, activation, weight), first, weighted

    @staticmethod
    def _known_density(workload: Workload, name: str) -> float | None:
        tensor = workload.tensors[name]
        return tensor.density if tensor.density is not None else workload.tensors[tensor.owner].density

    def _density(self, workload: Workload, name: str) -> float:
        """Share of a tensor that is not zero; 1 where nothing says."""
        found = self._known_density(workload, name)
        return 1.0 if found is None else float(found)

    def _fits_n_m(self, product: Product) -> bool:
        sparsity = self._spec.sparsity
        return product.weight_density <= kept_of_row(product.k, sparsity.n, sparsity.m) / product.k + 1e-12

    @staticmethod
    def _mapping_row(
        product: Product, cost: SparseCost, share: float, occupancy: float, weighted: bool
    ) -> Mapping[str, float | str | int]:
        return {
            "m": product.m,
            "n": product.n,
            "k": product.k,
            "weights": cost.storage if weighted else "none",
            "weight_density": product.weight_density,
            "activation_density": product.activation_density,
            "executed_share": share,
            "balance": cost.balance,
            "array_occupancy": occupancy,
            "weight_bytes": round(cost.stored_bytes),
        }

    def _check_sum(self, a: str, b: str, accumulator: str) -> None:
        """Products of integers are summed in ``int32``, all others in ``fp32``."""
        wanted = "fp32" if is_float(a) or is_float(b) else "int32"
        if accumulator != wanted:
            raise InputError(f"device {self.name!r}: accumulator: sums of {a}×{b} are {wanted}; got {accumulator!r}")

    def computed_recipe(self, recipe: Recipe) -> Recipe:
        """The recipe as the engine computes it: products in the order of k, added one by one; a product with a zero changes no
        sum, skipped or not. See ``hwsim.machine.OperatorMachine.computed_recipe``."""
        if recipe.accumulation is not None:
            raise InputError(
                f"device {self.name!r}: recipe {recipe.name!r}: accumulation: a lane adds one product at a time; leave it out"
            )

        def converted(formats: Mapping[str, str]) -> dict[str, str]:
            whole = {**recipe.formats, **formats}
            pair = self._spec.compute_formats(whole["activation"], whole["weight"])
            self._check_sum(*pair, Recipe("sums", whole).format_for("accumulator"))
            return {role: used for role, used in zip(("activation", "weight"), pair, strict=True) if used != whole[role]}

        ends = recipe.first_and_last
        overrides = tuple(replace(o, formats={**o.formats, **converted(o.formats)}) for o in recipe.overrides)
        return replace(
            recipe,
            formats={**recipe.formats, **converted({})},
            overrides=overrides,
            first_and_last=None if ends is None else {**ends, **converted(ends)},
            accumulation=Accumulator(format=recipe.format_for("accumulator")),
        )
