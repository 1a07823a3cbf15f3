"""Area of systolic arrays, of one or of many at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from accelerators.systolic.spec import SystolicSpec
from hwsim.area.arithmetic import element_area, lane_area
from hwsim.area.components import Area, Component, area_of, unnamed_mm2
from hwsim.area.process import Process, get_process
from numerics.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

MEMORIES = ("input", "weight", "output")


def systolic_element(spec: SystolicSpec) -> float | None:
    """Area of one processing element's datapath, relative to ``mac_int8``: what ``systolic_area`` takes as ``element``. None
    where a format's multiplier is not known."""
    rates = {pair: 1 / mac.cycles_per_mac for pair, mac in spec.mac_formats.items()}
    return element_area(rates, spec.default_recipe.format_for("accumulator"))


def systolic_area(
    rows: npt.ArrayLike,
    columns: npt.ArrayLike,
    *,
    input_bytes: npt.ArrayLike,
    weight_bytes: npt.ArrayLike,
    output_bytes: npt.ArrayLike,
    lanes: npt.ArrayLike,
    element: npt.ArrayLike,
    node: float,
    arrays: npt.ArrayLike = 1,
) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """Area of many systolic arrays by component, each what ``device.area()`` says of such a device.

    Args:
        rows, columns: of an array.
        input_bytes, weight_bytes, output_bytes: of the three buffers, what they retain included.
        lanes: of the vector unit.
        element: area of a processing element relative to ``mac_int8`` (``systolic_element``).
        node: nanometres.
        arrays: equal arrays.

    Returns:
        Component → mm², all in the broadcast shape of the arguments. Their sum is the whole.

    Raises:
        InputError: an unknown node, a size that is not above zero, shapes that do not broadcast.
    """
    given = {
        "rows": rows, "columns": columns, "input_bytes": input_bytes, "weight_bytes": weight_bytes, "output_bytes": output_bytes,
        "lanes": lanes, "element": element, "arrays": arrays,
    }  # fmt: skip
    sizes = {name: np.asarray(value, np.float64) for name, value in given.items()}
    for name, values in sizes.items():
        if not (values > 0).all():
            raise InputError(f"{name}: expected numbers above zero, got {np.ravel(values[~(values > 0)])[:1].tolist()}")
    try:
        shape = np.broadcast_shapes(*(values.shape for values in sizes.values()))
    except ValueError:
        raise InputError(
            f"sizes: expected shapes that broadcast, got {', '.join(f'{n} {v.shape}' for n, v in sizes.items())}"
        ) from None
    process = get_process(node)
    per_element, per_byte = process.logic_mm2(1.0), process.sram_mm2(1.0)
    parts = {
        "elements": sizes["arrays"] * sizes["rows"] * sizes["columns"] * sizes["element"] * per_element,
        **{f"{name}_buffer": sizes[f"{name}_bytes"] * per_byte for name in MEMORIES},
        "vector_unit": sizes["lanes"] * (lane_area() * per_element),
    }
    parts["other"] = unnamed_mm2(sum(parts.values()))
    return {name: np.array(np.broadcast_to(area, shape)) for name, area in parts.items()}


def device_area(name: str, spec: SystolicSpec, process: Process) -> Area:
    """The area of the device that a spec describes."""
    element = systolic_element(spec)
    pads = {pad: getattr(spec.memory, pad) for pad in MEMORIES}
    sizes = {pad: memory.capacity_bytes + memory.retained_capacity_bytes for pad, memory in pads.items()}
    found = systolic_area(
        spec.array.rows,
        spec.array.columns,
        input_bytes=sizes["input"],
        weight_bytes=sizes["weight"],
        output_bytes=sizes["output"],
        lanes=spec.vector_unit.lanes,
        element=1.0 if element is None else element,
        node=process.node_nm,
        arrays=spec.array.count,
    )
    how = {f"{pad}_buffer": f"{size / 1024:,.6g} KiB of SRAM" for pad, size in sizes.items()}
    parts = [Component(part, float(found[part]), "published", text) for part, text in how.items()]
    lanes = f"{spec.vector_unit.lanes:,} lanes, an fp32 multiply-add each"
    parts.append(Component("vector_unit", float(found["vector_unit"]), "guess", lanes))
    formats = ", ".join(spec.mac_formats)
    if element is None:
        first = Component.unknown("elements", f"no multiplier is known for one of {formats}")
    else:
        text = f"{spec.array.places:,} elements of {element:.3g} mac_int8, for {formats}"
        first = Component("elements", float(found["elements"]), "published", text)
    return area_of(name, process.node_nm, [first, *parts])
