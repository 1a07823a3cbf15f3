"""Tensor processing engines as devices: workloads in, reports out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from accelerators.bit_serial.distributions import CodeDistribution
from accelerators.bit_serial.loops import ProductRun, run_product
from accelerators.bit_serial.parts import Bill, bill, clock_energy, product_energy, result_energy
from accelerators.bit_serial.schedule import ProductCost, expected_cost, expected_cycles, product_cost
from accelerators.bit_serial.spec import TensorEngineSpec
from hwsim.device import check_request
from hwsim.engine import MatrixEngine, MatrixWork
from hwsim.machine import format_bytes
from hwsim.operators import Convolution, Matmul
from hwsim.report import Report
from hwsim.schedule import Traffic
from hwsim.workload import Workload, chain
from numerics.accumulator import Accumulator
from numerics.errors import InputError
from numerics.formats import get_format
from numerics.recipes import Recipe

if TYPE_CHECKING:
    from hwsim.area.components import Area
    from hwsim.area.process import Process

SUMS = "int32"


def integer_codes(values: Any, *, bits: int = 8) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Numbers as integers of ``bits`` bits: the largest magnitude is scaled to the largest code, all are rounded to nearest even.

    Raises:
        InputError: values that are not finite.
    """
    x = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=np.float64)
    if not np.isfinite(x).all():
        raise InputError("values: expected finite numbers")
    largest = np.abs(x).max(initial=0.0)
    return np.rint(x * (((1 << (bits - 1)) - 1) / largest) if largest else x * 0).astype(np.int64)


class TensorProcessingEngine(MatrixEngine[TensorEngineSpec]):
    """A systolic array, a 3-D cube, a row of multiplier–adder trees or a 2-D matrix, of whole multipliers or with the loop over
    the bit weights of one operand reordered.

    Cycles depend on the digits of the recoded operands. ``simulate`` takes them from the values in ``parameters``, where an
    operand is among them, from its traced density, or from the spec's distribution; ``product_cost`` takes matrices and is exact.
    """

    kind: ClassVar[str] = "tensor_processing_engine"
    spec_class = TensorEngineSpec

    def __init__(self, spec: TensorEngineSpec, given: Mapping[str, CodeDistribution] | None = None) -> None:
        super().__init__(spec)
        self._given = dict(given or {})

    def __repr__(self) -> str:
        top, loop = self._spec.array.topology, self._spec.array.bit_weight
        size = "×".join(str(s) for s in (top.rows, top.columns, top.depth))
        kind = f"{loop.encoding} digits of {loop.encoded_operand}" if loop else "whole multipliers"
        return f"TensorProcessingEngine({self.name!r}: {top.name} {size}, {kind}, {self._spec.clock_hz / 1e6:g} MHz)"

    def _area(self, process: Process) -> Area:
        from accelerators.bit_serial.area import device_area

        return device_area(self.name, self._spec, process)

    # --- what it costs ------------------------------------------------------------------------------------------------

    def simulate(self, workload: Workload, *, fidelity: str | None = None, inputs: Any = None, parameters: Any = None) -> Report:
        """What ``workload`` costs; see ``hwsim.device.Device.simulate``.

        Args:
            inputs: none are used.
            parameters: values by tensor name, such as a module's ``state_dict()``: how often each code occurs in the recoded ones
                sets the cycles of their operators.

        Raises:
            InputError: parameters of which none is recoded.
        """
        chosen = check_request(self, fidelity, inputs, parameters, self.fidelities)
        if inputs is not None:
            raise InputError("inputs: the engine takes values of parameters alone; leave inputs out")
        placed = self.placed(workload)
        if parameters is None:
            return self._simulate(placed, chosen)
        return type(self)(self._spec, self._distributions(placed, parameters))._simulate(placed, chosen)

    def _distributions(self, workload: Workload, parameters: Any) -> dict[str, CodeDistribution]:
        if not isinstance(parameters, Mapping):
            raise InputError(f"parameters: expected values by tensor name, got {type(parameters).__name__}")
        loop = self._spec.array.bit_weight
        found: dict[str, CodeDistribution] = {}
        for op in workload.expanded().ops if loop else ():
            if not isinstance(op, Matmul | Convolution) or op.formats is None:
                continue
            assert loop is not None
            place = 1 if loop.encoded_operand == "b" else 0
            owner = workload.tensors[op.inputs[place]].owner if op.inputs[place] in workload.tensors else ""
            if owner in parameters and owner not in found:
                bits = self._bits(op, self._spec.compute_formats(*op.formats.operands[:2]))
                found[owner] = CodeDistribution.of(integer_codes(parameters[owner], bits=bits), bits)
        if not found:
            which = "no operand is recoded" if loop is None else f"none is a recoded operand {loop.encoded_operand!r}"
            raise InputError(f"parameters: {which} of device {self.name!r} in workload {workload.name!r}; leave parameters out")
        return found

    @cached_property
    def bill(self) -> Bill:
        """Parts of the array: area by component, relative to ``mac_int8``, and flip-flops."""
        return bill(self._spec.array)

    @property
    def area_um2(self) -> float:
        """Area of the array; buffer, vector unit and control left out."""
        return self.bill.total_area * self._spec.prices.mac_int8_area_um2

    def product_cost(self, a: Any, b: Any, *, bits: int = 8) -> ProductCost:
        """Cycles of ``a @ b`` on the array for these integers; see ``accelerators.bit_serial.schedule.product_cost``."""
        return product_cost(self._spec.array, a, b, bits=bits)

    def run_product(self, a: Any, b: Any, *, bits: int = 8) -> ProductRun:
        """``a @ b`` in the array's order; see ``accelerators.bit_serial.loops.run_product``."""
        return run_product(self._spec.array, a, b, bits=bits)

    def product_energy_j(self, cost: ProductCost, *, results: int, booth_digits: float | None = None) -> dict[str, float]:
        """Energy of a product in the array by component.

        Args:
            cost: its cycles.
            results: elements of it.
            booth_digits: mean Booth digits of the operand that is recoded, or would be; those of ``cost`` otherwise, or of the
                spec's distribution for whole multipliers.
        """
        array, unit = self._spec.array, self._spec.prices.mac_int8_energy_pj * 1e-12
        digits = cost.mean_digits
        if array.bit_weight is None:
            digits = self._distribution(8).mean_digits() if booth_digits is None else booth_digits
        parts = product_energy(array, digits, cost.cycles_per_step)
        found = {name: energy * cost.macs * unit for name, energy in parts.items() if energy}
        found["drain"] = results * result_energy(array) * unit
        found["clock"] = cost.cycles * self.bill.flipflops * clock_energy() * unit
        return found

    def _bits(self, op: Matmul | Convolution, pair: tuple[str, str]) -> int:
        loop = self._spec.array.bit_weight
        return int(get_format(pair[0 if loop is not None and loop.encoded_operand == "a" else 1]).bits)

    def _distribution(self, bits: int) -> CodeDistribution:
        operands = self._spec.operands
        return _named(operands.name, bits, operands.samples)

    def _operand_distribution(self, workload: Workload, op: Matmul | Convolution, bits: int) -> CodeDistribution:
        loop = self._spec.array.bit_weight
        tensor = workload.tensors[op.inputs[0 if loop is not None and loop.encoded_operand == "a" else 1]]
        if tensor.owner in self._given:
            return self._given[tensor.owner]
        found = self._distribution(bits)
        return found if tensor.density is None else found.with_density(tensor.density)

    def matrix_work(self, workload: Workload, op: Matmul | Convolution, pair: tuple[str, str], traffic: Traffic) -> MatrixWork:
        """What ``op`` takes on the array; see ``hwsim.engine.MatrixEngine.matrix_work``."""
        spec = self._spec
        assert op.formats is not None
        self._check_sums(op.formats.accumulator)
        batch, m, n, k = op.matmul_dims if isinstance(op, Convolution) else (op.batch, op.m, op.n, op.k)
        bits = self._bits(op, pair)
        distribution = self._operand_distribution(workload, op, bits)
        top = spec.array.topology
        cost = expected_cost(spec.array, m, n, k, distribution=distribution, batch=batch)
        a_bytes, b_bytes = (format_bytes(name) for name in pair)
        # Each fold reads its rows of A and columns of B; sums go to the buffer once.
        read = batch * k * (m * -(-n // top.columns) * a_bytes + n * -(-m // top.rows) * b_bytes)
        touched = round(read + batch * m * n * format_bytes(SUMS))
        loads = self._loads(workload, op, traffic, (m, n, k), (a_bytes, b_bytes))
        energy = self.product_energy_j(cost, results=batch * m * n, booth_digits=distribution.mean_digits())
        energy["buffer"] = touched * spec.buffer.energy_pj_per_byte * 1e-12
        return MatrixWork(
            compute_cycles=max(cost.cycles, touched / spec.buffer.bytes_per_cycle),
            load_bytes=loads,
            store_bytes=traffic.store_bytes,
            peak_macs_per_cycle=top.multipliers,
            energy_j=energy,
            bytes={"buffer": touched},
            mapping={
                "folds": cost.folds,
                "steps": cost.steps,
                "cycles_per_step": round(cost.cycles_per_step, 4),
                "mean_digits": round(cost.mean_digits, 4),
                "step_cycles": round(cost.step_cycles),
                "array_cycles": round(cost.cycles),
            },
        )

    def _loads(
        self,
        workload: Workload,
        op: Matmul | Convolution,
        traffic: Traffic,
        sizes: tuple[int, int, int],
        element: tuple[float, float],
    ) -> float:
        """Bytes from off-chip memory: a block of one operand stays in the buffer while the other streams past it, once a block.

        Of both orders the one that moves less is taken. An operand is off chip as far as its bytes are part of ``load_bytes``.
        """
        (m, n, k), (a_bytes, b_bytes) = sizes, element
        top, room = self._spec.array.topology, self._spec.buffer.tile_bytes
        b_off = min(traffic.load_bytes, workload.read_bytes(op, 1))
        a_off = min(traffic.load_bytes - b_off, workload.read_bytes(op, 0))
        columns = max(top.columns, int((room / k - top.rows * a_bytes) / b_bytes))
        rows = max(top.rows, int((room / k - top.columns * b_bytes) / a_bytes))
        again = min((-(-n // columns) - 1) * a_off, (-(-m // rows) - 1) * b_off)
        return traffic.load_bytes + again

    def _matmul_times(
        self, shapes: np.ndarray[Any, Any], recipe: str | Recipe | None, fidelity: str | None
    ) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Seconds for each row (batch, m, n, k) of ``shapes``, all at once; see ``hwsim.machine.Machine.matmul_time_s``."""
        spec, chosen = self._spec, check_request(self, fidelity, None, None)
        one = chain("matmul", [Matmul(name="matmul", m=1, n=1, k=1)])
        placed = self.placed(one if recipe is None else one.with_formats(recipe))
        op = placed.ops[0]
        assert isinstance(op, Matmul)
        assert op.formats is not None
        pair = spec.compute_formats(*op.formats.operands[:2])
        stored = [placed.tensors[name].format for name in (*op.inputs, *op.outputs)]
        if stored[:2] != list(pair) or not len(shapes):
            return super()._matmul_times(shapes, recipe, fidelity)  # operands are converted first
        self._check_sums(op.formats.accumulator)
        distribution = self._operand_distribution(placed, op, self._bits(op, pair))
        batch, m, n, k = (size.astype(np.int64) for size in shapes.T)
        top, (a_bytes, b_bytes) = spec.array.topology, (format_bytes(name) for name in pair)
        read = batch * k * (m * -(-n // top.columns) * a_bytes + n * -(-m // top.rows) * b_bytes)
        touched = np.rint(read + batch * m * n * format_bytes(SUMS))
        a_off, b_off, stores = (
            np.ceil(batch * elements * format_bytes(name)) for elements, name in zip((m * k, k * n, m * n), stored, strict=True)
        )
        room = spec.buffer.tile_bytes / k
        columns = np.maximum(top.columns, np.trunc((room - top.rows * a_bytes) / b_bytes))
        rows = np.maximum(top.rows, np.trunc((room - top.columns * b_bytes) / a_bytes))
        again = np.minimum((np.ceil(n / columns) - 1) * a_off, (np.ceil(m / rows) - 1) * b_off)
        moved = np.rint(a_off + b_off + again + stores) / (spec.off_chip.achieved_bytes_per_s / spec.clock_hz)
        transfers = (moved + spec.off_chip.latency_s * spec.clock_hz) * (chosen != "analytic")
        busy = np.maximum(expected_cycles(spec.array, shapes, distribution=distribution), touched / spec.buffer.bytes_per_cycle)
        body = busy + transfers if spec.transfers == "serial" else np.maximum(busy, transfers)
        return np.asarray((spec.launch_overhead_cycles + body) / spec.clock_hz)

    def _check_sums(self, accumulator: str) -> None:
        if accumulator != SUMS:
            raise InputError(f"device {self.name!r}: accumulator: sums are {SUMS}; got {accumulator!r}")

    # --- what it computes ---------------------------------------------------------------------------------------------

    def computed_recipe(self, recipe: Recipe) -> Recipe:
        """The recipe as the engine computes it: integers, sums exact modulo 2^32, whatever the order of the loops; see
        ``hwsim.machine.OperatorMachine.computed_recipe``.
        """
        if recipe.accumulation is not None:
            raise InputError(f"device {self.name!r}: recipe {recipe.name!r}: accumulation: sums are exact {SUMS}; leave it out")

        def converted(formats: Mapping[str, str]) -> dict[str, str]:
            whole = {**recipe.formats, **formats}
            pair = self._spec.compute_formats(whole["activation"], whole["weight"])
            self._check_sums(Recipe("sums", whole).format_for("accumulator"))
            return {role: used for role, used in zip(("activation", "weight"), pair, strict=True) if used != whole[role]}

        ends = recipe.first_and_last
        return replace(
            recipe,
            formats={**recipe.formats, **converted({})},
            overrides=tuple(replace(o, formats={**o.formats, **converted(o.formats)}) for o in recipe.overrides),
            first_and_last=None if ends is None else {**ends, **converted(ends)},
            accumulation=Accumulator(format=SUMS),
        )


def _named(name: str, bits: int, samples: int) -> CodeDistribution:
    key = name, bits, samples
    if key not in _DISTRIBUTIONS:
        _DISTRIBUTIONS[key] = CodeDistribution.named(name, bits, samples=samples)
    return _DISTRIBUTIONS[key]


_DISTRIBUTIONS: dict[tuple[str, int, int], CodeDistribution] = {}
