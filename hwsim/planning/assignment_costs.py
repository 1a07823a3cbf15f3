"""What each layer of several networks costs on each of several machines, every layer alone."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hwsim.device import Device
from hwsim.schedule import Group, schedule
from hwsim.workload import Tensor, Workload
from numerics.errors import InputError, unknown_name
from numerics.recipes import Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GIVEN = frozenset({"input", "activation", "gradient", "index"})
"""Roles of the tensors that one layer hands to another."""


@dataclass(frozen=True)
class Layer:
    """Operators that run together, on one machine.

    Attributes:
        network: number of its network.
        name: of its first operator, the matrix product where there is one.
        ops: names of its operators.
        needs: (index of the layer it waits for, bytes it reads of that one's results).
        macs: multiply-accumulates.
    """

    network: int
    name: str
    ops: tuple[str, ...]
    needs: tuple[tuple[int, int], ...]
    macs: int


@dataclass(frozen=True)
class LayerCosts:
    """Layers of all networks, and what they cost.

    Attributes:
        layers: in an order in which they could run.
        time_s: (layers, machines) seconds; infinite where the machine cannot run the layer.
        energy_j: (layers, machines) joules without static power; NaN where nothing is known.
        static_power_w: (machines,) watts, busy or not.
    """

    layers: tuple[Layer, ...]
    time_s: NDArray[np.float64]
    energy_j: NDArray[np.float64]
    static_power_w: NDArray[np.float64]


def common_formats(workload: Workload, devices: Sequence[Device], recipe: Recipe | None) -> Workload:
    """The workload in formats that all machines share: its own, those of ``recipe``, or the default formats of every machine.

    Raises:
        InputError: machines with different default formats where nothing else is said.
    """
    if workload.recipe:
        return workload
    if recipe is not None:
        return workload.with_formats(recipe)
    defaults: list[tuple[str, Recipe]] = []
    for device in devices:
        own = getattr(device.spec, "default_recipe", None)
        if own is None:
            raise InputError(f"devices: {device.name!r} has no default formats; give a recipe, or a workload with formats")
        defaults.append((device.name, own))
    first_name, first = defaults[0]
    for name, own in defaults[1:]:
        if dict(own.formats) != dict(first.formats):
            raise InputError(
                f"devices: {first_name!r} and {name!r} have different default formats, so that neither reads what the other "
                "writes; give a recipe that both compute in"
            )
    # As a machine keeps them with the workload (``OperatorMachine.placed``).
    return workload.derived(("formats", tuple(sorted(first.formats.items()))), lambda: workload.with_formats(first))


@dataclass(frozen=True)
class CutNetwork:
    """A network cut into layers.

    Attributes:
        layers: as of a network number 0; ``needs`` count from its first layer.
        alone: each layer as a workload of its own; layers that cost the same on any machine share one.
    """

    layers: tuple[Layer, ...]
    alone: tuple[Workload, ...]


def cut(workload: Workload) -> CutNetwork:
    """Cut a workload with formats into layers: groups of ``hwsim.schedule``, each a matrix product with the operators that work
    on its results as they come, or another operator."""
    placed = workload.expanded()
    plan = schedule(placed, 0)
    alike: dict[Hashable, Workload] = {}
    layers, alone = [], []
    for group, likeness, waits in zip(plan.groups, plan.likeness, _needs(placed, plan.groups), strict=True):
        if likeness not in alike:
            alike[likeness] = _alone(placed, group)
        head = placed.ops[group.members[0] if group.matrix is None else group.matrix]
        ops = [placed.ops[i] for i in group.members]
        layers.append(Layer(0, head.name, tuple(op.name for op in ops), waits, sum(op.macs for op in ops)))
        alone.append(alike[likeness])
    return CutNetwork(tuple(layers), tuple(alone))


@dataclass(frozen=True)
class MachineColumn:
    """What the layers of one network cost on one machine.

    Attributes:
        time_s: (layers,) seconds; infinite where the machine cannot run the layer.
        energy_j: (layers,) joules without static power; NaN where nothing is known.
        refusals: (layers,) why it cannot run ("" where it can).
    """

    time_s: NDArray[np.float64]
    energy_j: NDArray[np.float64]
    refusals: tuple[str, ...]


def costs_on(network: CutNetwork, device: Device, fidelity: str | None = None) -> MachineColumn:
    """What ``simulate`` reports for each layer alone, which loads its inputs from shared memory and stores its results there.

    Raises:
        InputError: an unknown fidelity.
    """
    if fidelity is not None and fidelity not in device.fidelities:
        raise unknown_name(f"fidelity (device {device.name!r})", str(fidelity), device.fidelities)
    known: dict[int, tuple[float, float, str]] = {}
    for layer in network.alone:
        if id(layer) not in known:
            known[id(layer)] = _cost(layer, device, fidelity)
    found = [known[id(layer)] for layer in network.alone]
    time_s, energy_j, refusals = zip(*found, strict=True) if found else ((), (), ())
    return MachineColumn(np.array(time_s, dtype=np.float64), np.array(energy_j, dtype=np.float64), tuple(refusals))


def _cost(layer: Workload, device: Device, fidelity: str | None) -> tuple[float, float, str]:
    try:
        report = device.simulate(layer, fidelity=fidelity)
    except InputError as error:
        return np.inf, np.nan, str(error)
    if report.known_time_s is None:
        return np.inf, np.nan, f"device {device.name!r}: its specification knows nothing of time"
    known = report.known_energy_j
    static = report.energy_by_component_j.get("static", 0.0)
    return report.known_time_s, np.nan if known is None else known - static, ""


def together(networks: Sequence[CutNetwork], devices: Sequence[Device], columns: Sequence[Sequence[MachineColumn]]) -> LayerCosts:
    """The layers of all networks on all machines; ``columns`` are by network, then by machine.

    Raises:
        InputError: a layer that no machine can run.
    """
    layers: list[Layer] = []
    for number, (network, row) in enumerate(zip(networks, columns, strict=True)):
        first = len(layers)
        for index, layer in enumerate(network.layers):
            if all(column.refusals[index] for column in row):
                raise InputError(f"devices: none can run layer {layer.name!r}: {row[0].refusals[index]}")
            needs = tuple((first + earlier, size) for earlier, size in layer.needs)
            layers.append(replace(layer, network=number, needs=needs))
    return LayerCosts(
        tuple(layers),
        np.concatenate([np.stack([column.time_s for column in row], axis=1) for row in columns]),
        np.concatenate([np.stack([column.energy_j for column in row], axis=1) for row in columns]),
        np.array([float(getattr(device.spec, "static_power_w", 0.0) or 0.0) for device in devices]),
    )


def layer_costs(
    workloads: Sequence[Workload], devices: Sequence[Device], *, recipe: Recipe | None = None, fidelity: str | None = None
) -> LayerCosts:
    """Cut the workloads into layers and ask every machine what each costs.

    Raises:
        InputError: a layer that no machine can run, machines with different default formats, an unknown fidelity.
    """
    networks = [cut(common_formats(workload, devices, recipe)) for workload in workloads]
    return together(networks, devices, [[costs_on(one, device, fidelity) for device in devices] for one in networks])


def _needs(workload: Workload, groups: Sequence[Group]) -> list[tuple[tuple[int, int], ...]]:
    """For each group: (number of an earlier group it waits for, bytes that it reads of its results)."""
    group_of = {index: number for number, group in enumerate(groups) for index in group.members}
    writer: dict[str, int] = {}
    source: dict[tuple[int, str], int] = {}
    for index, op in enumerate(workload.ops):
        for name in op.inputs:
            owner = workload.tensors[name].owner
            if owner in writer:
                source[index, owner] = writer[owner]
        for name in op.outputs:
            writer[workload.tensors[name].owner] = index
    found: list[tuple[tuple[int, int], ...]] = []
    for number, group in enumerate(groups):
        read: dict[int, dict[str, int]] = {}
        for index in group.members:
            op = workload.ops[index]
            for earlier in workload.dependencies[index]:
                if group_of[earlier] != number:
                    read.setdefault(group_of[earlier], {})
            for position, name in enumerate(op.inputs):
                owner = workload.tensors[name].owner
                made = source.get((index, owner))
                if made is not None and group_of[made] != number:
                    sizes = read.setdefault(group_of[made], {})
                    sizes[owner] = max(sizes.get(owner, 0), workload.read_bytes(op, position))
        found.append(tuple((earlier, sum(sizes.values())) for earlier, sizes in sorted(read.items())))
    return found


def _alone(workload: Workload, group: Group) -> Workload:
    """One group as a workload of its own; what others read of it is its output."""
    ops = tuple(workload.ops[index] for index in group.members)
    members = set(group.members)
    names = {name for op in ops for name in (*op.inputs, *op.outputs)}
    names |= {workload.tensors[name].owner for name in names}
    tensors: dict[str, Tensor] = {name: tensor for name, tensor in workload.tensors.items() if name in names}
    made = {workload.tensors[name].owner for op in ops for name in op.outputs}
    outside: set[str] = {workload.tensors[name].owner for name in workload.outputs}
    inside: set[str] = set()
    for index, op in enumerate(workload.ops):
        read = {workload.tensors[name].owner for name in op.inputs}
        if index in members:
            inside |= read
        elif index > min(members):
            outside |= read
    wanted = made & (outside | (made - inside))
    inputs = {
        name
        for op in ops
        for name in op.inputs
        if tensors[name].owner not in made and tensors[tensors[name].owner].role in _GIVEN
    }
    outputs = {workload.tensors[name].owner: name for op in ops for name in op.outputs if workload.tensors[name].owner in wanted}
    name = f"{workload.name}: {ops[0].name}"
    return Workload(name, ops, tensors, tuple(sorted(inputs)), tuple(outputs.values()), recipe=workload.recipe)
