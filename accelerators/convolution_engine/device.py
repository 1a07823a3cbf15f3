"""The convolution engine as a device: workloads in, reports out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from accelerators.convolution_engine.array import set_work
from accelerators.convolution_engine.buffering import plan_buffer
from accelerators.convolution_engine.emulation import engine_recipe
from accelerators.convolution_engine.nest import layer_of
from accelerators.convolution_engine.spec import ConvolutionEngineSpec
from hwsim.engine import MatrixEngine, MatrixWork
from hwsim.machine import Fittable, format_bytes
from hwsim.operators import Convolution, Matmul
from hwsim.schedule import Traffic
from hwsim.workload import Workload
from numerics.recipes import Recipe

if TYPE_CHECKING:
    from hwsim.area.components import Area
    from hwsim.area.process import Process


class ConvolutionEngine(MatrixEngine[ConvolutionEngineSpec]):
    """A convolution engine: NVDLA.

    Fidelities: ``analytic``, memory is ideal; ``tile``, each layer takes the longer of its cycles and its transfers.
    """

    kind: ClassVar[str] = "convolution_engine"
    spec_class = ConvolutionEngineSpec
    fittable: ClassVar[Mapping[str, Fittable]] = {
        "resnet50": Fittable((), {"convolution_buffer.usable_fraction": (0.1, 0.9), "off_chip.achieved_fraction": (0.5, 1.0)})
    }

    def _area(self, process: Process) -> Area:
        from accelerators.convolution_engine.area import device_area

        return device_area(self.name, self._spec, process)

    def matrix_work(self, workload: Workload, op: Matmul | Convolution, pair: tuple[str, str], traffic: Traffic) -> MatrixWork:
        """What ``op`` takes: direct convolution, its operands read as often as the convolution buffer needs."""
        spec = self.spec
        array, buffer = spec.mac_array, spec.convolution_buffer
        mac = spec.mac_format(*pair)
        layer = layer_of(workload, op, image_channels=array.image_channels)
        work = set_work(layer, array)
        kernels = max(1, array.kernels // mac.cycles_per_mac)
        slowed = max(1.0, mac.cycles_per_mac / (array.kernels // kernels))  # an operand too wide for all multipliers of a kernel
        others = sum(workload.read_bytes(op, i) for i in range(2, len(op.inputs)))
        plan = plan_buffer(
            layer,
            buffer.usable_bytes,
            kernels,
            cycles_per_set=work.cycles * slowed,
            bytes_per_cycle=spec.off_chip.achieved_bytes_per_s / spec.clock_hz,
            other_bytes=others + traffic.store_bytes,
        )

        a, b = (format_bytes(workload.tensors[name].format) for name in op.inputs[:2])
        # Each cycle reads the channels of one position, each stripe the weights that it works with.
        wide = min(array.channels, layer.channels * (layer.taps[-1] if layer.packed else 1))
        each = layer.groups * layer.images * work.blocks * layer.positions * wide
        weights = work.stripes * wide * min(layer.kernels, plan.kernel_sets * kernels)
        through = round(plan.load_bytes + plan.kernel_sets * each * a + weights * b)
        return MatrixWork(
            compute_cycles=plan.kernel_sets * work.cycles * slowed,
            load_bytes=plan.load_bytes + others,
            store_bytes=traffic.store_bytes,
            peak_macs_per_cycle=array.channels * array.kernels / mac.cycles_per_mac,
            energy_j={
                "mac": op.macs * mac.energy_pj * 1e-12,
                "convolution_buffer": through * buffer.energy_pj_per_byte * 1e-12,
            },
            bytes={"convolution_buffer": through},
            mapping={
                "kernel_sets": plan.kernel_sets,
                "blocks": work.blocks,
                "stripes": plan.kernel_sets * work.stripes,
                "kept": plan.kept,
                "feature_reads": plan.feature_reads,
                "weight_reads": plan.weight_reads,
            },
        )

    def computed_recipe(self, recipe: Recipe) -> Recipe:
        """The recipe with the engine's sums."""
        return engine_recipe(self.spec, recipe)
