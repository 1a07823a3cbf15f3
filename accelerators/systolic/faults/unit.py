"""A faulty array as the matrix unit of an emulation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from accelerators.systolic.emulation import as_products, widened
from accelerators.systolic.spec import SystolicSpec
from hwsim.views.display import displayed

if TYPE_CHECKING:
    from accelerators.systolic.device import SystolicArray
    from accelerators.systolic.faults.products import AnyFault
    from accelerators.systolic.faults.tile_layout import TileLayout
    from hwsim.workload import Workload
    from numerics.accumulator import Accumulator
    from numerics.formats import Format


@displayed
@dataclass
class FaultyArrayUnit:
    """A device's array with permanent faults, or with flips in every product: ``matrix_unit`` of ``numerics.emulate``.

    Its outputs are those of ``ArrayUnit`` with the same faults, at about the cost of none.

    Attributes:
        spec: of the device.
        faults: in registers, wires and words of buffers. The cycle of a flip counts from the first of each product; a product
            that is over by then does not meet it.
        layouts: by module, where the tiles of its products lie; for faulty words. A product that has none is laid out as one that
            is alone on the device.
    """

    spec: SystolicSpec
    faults: tuple[AnyFault, ...] = ()
    layouts: Mapping[str, Sequence[TileLayout]] = field(default_factory=dict)

    @classmethod
    def of(cls, device: SystolicArray, faults: Sequence[AnyFault], *, workload: Workload | None = None) -> FaultyArrayUnit:
        """The unit of a device.

        Args:
            device: whose array is faulty.
            faults: as above.
            workload: the network, traced with the inputs' shapes; its mapping then says what lies in a faulty word.

        Raises:
            InputError: faulty words in a device whose buffers hold no tiles of a single product.
        """
        from accelerators.systolic.faults.tile_layout import layer_layouts

        return cls(device.spec, tuple(faults), {} if workload is None else layer_layouts(device, workload))

    def __call__(self, a: Any, b: Any, *, accumulator: Accumulator, a_format: Format, b_format: Format, module: str) -> Any:
        """``a @ b`` of arrays (…, M, K) and (…, K, N) on the faulty array; as ``ArrayUnit``."""
        import numpy as np

        from accelerators.systolic.cycle import Fault
        from accelerators.systolic.faults.products import faulty_matmul, run_cycles
        from accelerators.systolic.faults.words import BufferFault
        from numerics.mac import returned

        shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
        if 0 in (*shape, a.shape[-1]):
            return returned(np.zeros(shape), accumulator)
        left, right = as_products(a, b)
        (count, m, k), n = left.shape, right.shape[-1]
        mac = self.spec.mac_format(a_format.name, b_format.name)
        steps = 1 if mac is None else math.ceil(mac.cycles_per_mac)
        faults = list(self.faults)
        if any(isinstance(f, Fault) and f.cycle is not None for f in faults):
            length = run_cycles(self.spec.array, batch=count, m=m, n=n, k=k, step=steps)
            faults = [f for f in faults if not isinstance(f, Fault) or f.cycle is None or f.cycle < length]
        layout = self._layout(module, count, m, n, k) if any(isinstance(f, BufferFault) for f in faults) else None
        found = faulty_matmul(
            left, right, faults, array=self.spec.array, a_format=widened(left, a_format), b_format=widened(right, b_format),
            accumulator=accumulator, cycles_per_mac=steps, layout=layout,
        )  # fmt: skip
        return found.reshape(shape)

    def _layout(self, module: str, batch: int, m: int, n: int, k: int) -> TileLayout:
        for layout in self.layouts.get(module, ()):
            if (layout.shape.batch, layout.shape.m, layout.shape.n, layout.shape.k) == (batch, m, n, k):
                return layout
        from accelerators.systolic.device import SystolicArray
        from accelerators.systolic.faults.tile_layout import product_layout

        return product_layout(SystolicArray(self.spec), batch=batch, m=m, n=n, k=k)
