"""From which density on a sparse format pays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hwsim.operators import Matmul
from hwsim.workload import Workload, chain

if TYPE_CHECKING:
    from accelerators.sparse.device import SparseEngine

_STEPS = 40


def dense_twin(device: SparseEngine) -> SparseEngine:
    """The same machine with weights stored dense and none passed over; activations as they were."""
    spec = device.spec
    skip = "activations" if spec.sparsity.skips_activations else "none"
    return _changed(device, weights="dense", skip=skip, dense_fallback=False)


def at_density(device: SparseEngine, weight_density: float) -> SparseEngine:
    """The same machine for weights of this density, always in its own format."""
    return _changed(device, weight_density=weight_density, dense_fallback=False)


def break_even_density(
    device: SparseEngine, m: int, n: int, k: int, *, batch: int = 1, recipe: Any = None, fidelity: str | None = None
) -> float:
    """The largest density of the weights at which the device's format is faster than dense weights on the same device.

    Found by bisection on the model, whose time grows with the density.

    Args:
        m, n, k, batch: sizes of the product.
        recipe: number formats; the device's own otherwise.
        fidelity: a rung of the device.

    Returns:
        From 0 (never faster) to 1.

    Raises:
        InputError: a size below one, formats that the device lacks.
    """
    workload: Workload = chain("break_even", [Matmul(name="product", batch=batch, m=m, n=n, k=k)])
    if recipe is not None:
        workload = workload.with_formats(recipe)
    dense = dense_twin(device).simulate(workload, fidelity=fidelity).time_s

    def faster(density: float) -> bool:
        return at_density(device, density).simulate(workload, fidelity=fidelity).time_s < dense * (1 - 1e-12)

    low, high = 0.0, 1.0
    if not faster(low):
        return 0.0
    if faster(high):
        return 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if faster(middle) else (low, middle)
    return low


def _changed(device: SparseEngine, **fields: Any) -> SparseEngine:
    sparsity = device.spec.sparsity.model_copy(update=fields)
    return type(device)(device.spec.model_copy(update={"sparsity": sparsity}))
