"""Devices by name or file, found through the entry-point group ``hwsim.devices``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from hwsim.device import Device
from hwsim.plugins import load_group
from hwsim.spec import without_fitted
from numerics.documents import read_text, read_yaml
from numerics.errors import InputError, nearest_names, unknown_name


@cache
def device_classes() -> dict[str, type[Device]]:
    """Kind → class, of every installed package that declares one."""
    return load_group("hwsim.devices")


@cache
def _bundled() -> dict[str, tuple[type[Device], Path]]:
    return {name: (cls, path) for cls in device_classes().values() for name, path in cls.bundled().items()}


def device_names(*, event_driven: bool | None = None) -> list[str]:
    """Names of the bundled devices, sorted; with ``event_driven`` only those that run spiking networks, or only the others."""
    found = _bundled()
    if event_driven is None:
        return sorted(found)
    return sorted(name for name, (cls, _) in found.items() if getattr(cls, "event_driven", False) is event_driven)


def spec_file(name: str) -> Path:
    """The YAML file of a bundled device."""
    if name not in _bundled():
        raise unknown_name("device", name, _bundled())
    return _bundled()[name][1]


def template(kind: str) -> str:
    """A spec to start one's own file from: the text of a bundled device of this kind."""
    classes = device_classes()
    if kind not in classes:
        raise unknown_name("device kind", kind, classes)
    return next(iter(classes[kind].bundled().values())).read_text(encoding="utf-8")


def read_spec(path: str | Path) -> dict[str, Any]:
    """The data of a YAML spec.

    Raises:
        InputError: the file cannot be read, is not YAML or holds no mapping.
    """
    text = read_text(path)
    try:
        data = read_yaml(text)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: a device spec must be a mapping that begins with kind:, got {type(data).__name__}")
    return data


@cache
def specs_of_kind(folder: Path, kind: str) -> Mapping[str, Path]:
    """The YAML specs in a folder that begin with ``kind: KIND``: name → file, in the order of names."""
    starts = re.compile(rf"^kind:\s*{re.escape(kind)}\s*$", re.MULTILINE)
    return {path.stem: path for path in sorted(folder.glob("*.yaml")) if starts.search(path.read_text(encoding="utf-8"))}


def get_device(
    device: str | Path | Mapping[str, Any] | Device,
    *,
    overrides: Mapping[str, Any] | None = None,
    calibrated: bool = True,
) -> Device:
    """A device by name, from a YAML file, from a spec's data, or as given.

    Args:
        device: name of a bundled device (``"tpu_v1"``), path of a ``.yaml`` file, a mapping, or a device.
        overrides: dotted field → value, applied to the spec before it is validated (``{"array.rows": 128}``). A field's last
            part is enough where it is unique. They win over values fitted to measurements.
        calibrated: with the values under the spec's ``calibrated``; without, the device as it is known with no measurement.

    Raises:
        InputError: an unknown name (nearest names listed), a spec that does not validate, an unknown or ambiguous field.
    """
    if isinstance(device, Device) and not calibrated:
        raise InputError(f"device {device.name!r}: its fitted values are in their places already; give its name or file")
    if isinstance(device, Device) and not overrides:
        return device
    if isinstance(device, Device):
        data, source = device.spec.model_dump(), f"device {device.name!r}"
    elif isinstance(device, Mapping):
        data, source = dict(device), str(device.get("name", "spec"))
    elif str(device) in _bundled():
        path = _bundled()[str(device)][1]
        data, source = read_spec(path), f"device {device!s}"
    elif str(device).endswith((".yaml", ".yml")):
        data, source = read_spec(device), str(device)
    else:
        raise InputError(f"device: unknown name {str(device)!r}; {nearest_names(str(device), _bundled())}; or give a .yaml file")
    kind = data.get("kind")
    classes = device_classes()
    if kind is not None and not isinstance(kind, str):
        raise InputError(f"{source}: kind: expected a name (one of {', '.join(sorted(classes))}), got {kind!r}")
    if kind is None:
        raise InputError(f"{source}: field 'kind' is missing (one of {', '.join(sorted(classes))})")
    if kind not in classes:
        raise unknown_name(f"{source}: kind", str(kind), classes)
    if not calibrated:
        data["calibrated"] = {}
    elif data.get("calibrated") and not isinstance(device, Device | Mapping):
        _check_unfitted(classes[kind], data, source)
    if overrides:
        complete = classes[kind].from_data(data, source=source).spec.model_dump()
        for field, value in overrides.items():
            data = _with_field(data, complete, field, value, source)
    return classes[kind].from_data(data, source=source)


def _check_unfitted(cls: type[Device], data: Mapping[str, Any], source: str) -> None:
    """See that what a file says in the places of fitted values is right as well; it may leave them out."""
    try:
        cls.from_data({**data, "calibrated": {}}, source=source)
    except InputError as error:
        if not str(error).endswith("is missing"):
            raise


def _paths(data: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    for key, value in data.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping) and f"{prefix}{key}" != "calibrated":  # fitted values are changed where they apply
            yield from _paths(value, f"{prefix}{key}.")


def _with_field(data: dict[str, Any], complete: Mapping[str, Any], field: str, value: Any, source: str) -> dict[str, Any]:
    """``data`` with a dotted field set; ``complete`` is the validated spec, which shows the fields left at their defaults."""
    paths = list(_paths(complete))
    if field not in paths:
        ends = [p for p in paths if p.endswith(f".{field}")]
        if len(ends) > 1:
            raise InputError(f"{source}: field {field!r} is ambiguous: {', '.join(ends)}")
        if not ends:
            raise InputError(f"{source}: unknown field {field!r}; {_near_paths(field, paths)}")
        field = ends[0]
    data = without_fitted(data, field)
    *parents, leaf = field.split(".")
    place: dict[str, Any] = data
    filled: Any = complete
    for part in parents:
        filled = filled[part]
        current = place.get(part)
        place[part] = dict(current) if isinstance(current, Mapping) else dict(filled)
        place = place[part]
    place[leaf] = value
    return data


def _near_paths(field: str, paths: list[str]) -> str:
    """The dotted fields whose last part resembles that of ``field``."""
    ends: dict[str, str] = {p.rpartition(".")[2]: p for p in paths}
    import difflib

    close = difflib.get_close_matches(field.rpartition(".")[2], ends, n=3, cutoff=0.5)
    return "did you mean " + " or ".join(repr(ends[c]) for c in close) + "?" if close else f"fields: {', '.join(paths)}"
