"""Files of bytes that the commands read (ONNX, NIR, arrays, checkpoints, campaigns): structured edits, and edits of bytes."""

from __future__ import annotations

import io
import json
import random
import sqlite3
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from fuzz_files import costed
from fuzz_onnx import edit_onnx, onnx_seeds
from fuzz_oracle import FileKind, Unsound, finite, sound_report
from mutations import Mutant, Place, mutated_bytes, mutated_json
from torch import nn

from hwsim.api import load_workload
from hwsim.registry import get_device
from numerics.errors import InputError

BYTES_SHARE = 0.35
"""Of the mutants: those whose bytes are edited, not their content."""


def edited_kind(
    name: str,
    suffix: str,
    seeds: Callable[[], Sequence[bytes]],
    edit: Callable[[random.Random, bytes], Mutant],
    use: Callable[[Path], Any],
) -> FileKind:
    """A kind with an editor of its content."""

    def mutate(rng: random.Random, data: bytes) -> Mutant:
        return mutated_bytes(rng, data) if rng.random() < BYTES_SHARE else edit(rng, data)

    return FileKind(name, suffix, seeds, mutate, bytes, use)


def _loaded(path: Path) -> Any:
    return costed(load_workload(path))


# --- NIR ------------------------------------------------------------------------------------------------------------------


@cache
def _nir_seeds() -> list[bytes]:
    import nir

    def many(n: int, **more: float) -> dict[str, Any]:
        return {key: np.full(n, number) for key, number in more.items()}

    lif = nir.LIF(**many(4, tau=5e-3, r=1.0, v_leak=0.0, v_threshold=0.5, v_reset=0.0))
    cuba = nir.CubaLIF(**many(3, tau_syn=4e-3, tau_mem=8e-3, r=1.0, v_leak=0.0, v_threshold=0.4, v_reset=0.0, w_in=1.0))
    rng = np.random.default_rng(0)
    layered = nir.NIRGraph(
        {
            "input": nir.Input(np.array([3])), "affine": nir.Affine(rng.normal(size=(4, 3)), np.full(4, 0.1)), "lif": lif,
            "linear": nir.Linear(rng.normal(size=(3, 4))), "cuba": cuba, "output": nir.Output(np.array([3])),
        },
        [("input", "affine"), ("affine", "lif"), ("lif", "linear"), ("linear", "cuba"), ("cuba", "output")],
    )  # fmt: skip
    image = nir.NIRGraph(
        {
            "input": nir.Input(np.array([1, 6, 6])),
            "conv": nir.Conv2d((6, 6), rng.normal(size=(2, 1, 3, 3)), 1, 0, 1, 1, np.zeros(2)),
            "if": nir.IF(np.ones((2, 4, 4)), np.full((2, 4, 4), 0.5), np.zeros((2, 4, 4))),
            "pool": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
            "flat": nir.Flatten({"input": np.array([2, 2, 2])}, 0, -1),
            "linear": nir.Linear(rng.normal(size=(3, 8))),
            "out": nir.LI(**many(3, tau=2e-2, r=1.0, v_leak=0.0)),
            "output": nir.Output(np.array([3])),
        },
        [("input", "conv"), ("conv", "if"), ("if", "pool"), ("pool", "flat"), ("flat", "linear"), ("linear", "out"),
         ("out", "output")],
    )  # fmt: skip
    found = []
    for graph in (layered, image):
        with tempfile.TemporaryDirectory() as folder:
            nir.write(Path(folder) / "a.nir", graph)
            found.append((Path(folder) / "a.nir").read_bytes())
    return found


def _edit_nir(rng: random.Random, data: bytes) -> Mutant:
    buffer = io.BytesIO(data)
    with h5py.File(buffer, "r+") as file:
        sets: list[str] = []
        groups: list[str] = []
        file.visititems(lambda name, one: (sets if isinstance(one, h5py.Dataset) else groups).append(name))
        how = rng.choice(
            ("gone", "value", "value", "shape", "kind", "group_gone", "group_copy", "edges", "edges", "text", "more")
        )
        name = rng.choice(groups if how.startswith("group") else sets)
        if how in ("gone", "group_gone"):
            del file[name]
        elif how == "group_copy":
            file.copy(file[name], f"{name}_again")
        elif how == "more":
            file.create_dataset(
                f"{rng.choice(groups)}/{rng.choice(('extra', 'more', 'bias2', '🦆'))}", data=rng.choice((1.0, "x", [1, 2]))
            )
        elif how == "edges":
            edges = [list(edge) for edge in file["node/edges"][()].tolist()]
            place = rng.randrange(len(edges))
            change = rng.choice(("gone", "turned", "other", "twice", "self"))
            if change == "gone":
                del edges[place]
            elif change == "turned":
                edges[place].reverse()
            elif change == "other":
                edges[place][rng.randrange(2)] = rng.choice((b"nowhere", b"input", b"output", b""))
            elif change == "twice":
                edges.append(edges[place])
            else:
                edges[place][1] = edges[place][0]
            del file["node/edges"]
            file.create_dataset("node/edges", data=np.array(edges, dtype="S").reshape(-1, 2).astype(h5py.string_dtype()))
            name = f"edge {place}: {change}"
        else:
            name = _edit_set(rng, file, name, how)
    return Mutant(buffer.getvalue(), f"{how} {name}")


def _edit_set(rng: random.Random, file: Any, name: str, how: str) -> str:
    old = file[name][()]
    array = np.asarray(old)
    if how == "value" and array.dtype.kind in "iuf":
        number = rng.choice((0.0, -1.0, 1e30, 1e-30, 1e300, np.nan, np.inf, -5.0, 0.5, 2**40))
        made = array.astype(np.float64).copy()
        if made.size and rng.random() < 0.5:
            made.reshape(-1)[rng.randrange(made.size)] = number
        else:
            made = np.full(array.shape, number)
        new: Any = made
    elif how == "shape" and array.dtype.kind in "iuf":
        new = rng.choice(
            (array.reshape(-1), array[None], array.reshape(-1)[:1], np.zeros((0,)), np.ones((2, 2)), np.float64(1.0))
        )
    elif how == "kind" and array.dtype.kind in "iuf":
        with np.errstate(all="ignore"):
            new = rng.choice(
                (array.astype(np.complex128), array.astype(np.int8), array.astype(bool), array.astype("S"), array.astype("f2"))
            )
    else:
        new = rng.choice(("LIF", "NIRGraph", "Nothing", "", "Input", "🦆", "x" * 500))
    del file[name]
    file.create_dataset(name, data=new)
    return name


def _ran(path: Path) -> Any:
    workload = load_workload(path, steps=6, seed=1, rate=0.3)
    finite({"macs": workload.macs, "operations": workload.operations(), "metadata": {"rates": workload.metadata["rates"]}})
    return (
        sound_report(get_device("loihi").simulate(workload)) if max(t.elements for t in workload.tensors.values()) < 10**6 else {}
    )


# --- arrays ---------------------------------------------------------------------------------------------------------------


def _npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _event_seeds() -> list[bytes]:
    stored = {"size": np.asarray(6), "first": np.array([0, 2, 2, 3]), "neuron": np.array([1, 2, 5])}
    listed = {"step": np.array([0, 0, 3]), "neuron": np.array([1, 2, 5]), "value": np.array([0.5, 1, 2])}
    return [_npz(**stored), _npz(**listed), _npz(time_s=np.array([0, 0.001, 0.0075]), address=np.array([0, 3, 5]))]


def _data_seeds() -> list[bytes]:
    rng = np.random.default_rng(0)
    return [_npz(inputs=rng.normal(size=(4, 8)), labels=np.array([0, 1, 2, 0])), _npz(inputs=rng.normal(size=(2, 8)))]


def _edit_npz(rng: random.Random, data: bytes) -> Mutant:
    with np.load(io.BytesIO(data)) as archive:
        arrays: dict[str, Any] = {name: archive[name] for name in archive.files}
    name = rng.choice(list(arrays))
    how = rng.choice(("gone", "renamed", "more", "kind", "shape", "value", "value", "value", "object", "empty"))
    array = arrays[name]
    with np.errstate(all="ignore"):
        if how in ("gone", "renamed"):
            moved = arrays.pop(name)
            if how == "renamed":
                arrays[rng.choice(("colour", "step", "first", "labels", "value", "🦆"))] = moved
        elif how == "more":
            arrays[rng.choice(("colour", "value", "labels", "size"))] = rng.choice((np.ones(3), np.array("x"), np.zeros((2, 2))))
        elif how == "kind":
            arrays[name] = array.astype(rng.choice(("c16", "U8", "S4", "bool", "f2", "i1", "u8", "M8[s]")))
        elif how == "shape":
            arrays[name] = rng.choice(
                (array.reshape(-1)[:1], array[None], np.concatenate([array.reshape(-1)] * 2), array.reshape(-1)[0])
            )
        elif how == "value":
            made = array.astype(np.float64).reshape(-1).copy()
            if made.size:
                made[rng.randrange(made.size)] = rng.choice((np.nan, np.inf, -1, 1e30, 2.0**53, 2.0**63, 0.5, 10**11, 65536))
            arrays[name] = made.reshape(array.shape)
        elif how == "object":
            arrays[name] = np.array([{}, None], dtype=object)
        else:
            arrays[name] = array.reshape(-1)[:0]
    return Mutant(_npz(**arrays), f"{name}: {how}")


def _events(path: Path) -> Any:
    from neuromorphic import Events

    timed = Events.is_timed(path)
    with np.load(path) as archive:
        stored = "first" in archive.files
    events = Events.load(path, size=None if stored else 6, dt_s=1e-3 if timed else None, duplicates="add")
    finite(events.values.tolist())
    return {"size": events.size, "steps": events.steps, "count": events.count, "neuron": events.neuron.tolist()[:100]}


def _faulted(path: Path) -> Any:
    from hwsim.commands.faults import read_data
    from hwsim.faults.campaign import Campaign
    from hwsim.faults.single_bits import SingleBits

    inputs, labels = read_data(path)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3))
    Campaign(
        module,
        (torch.from_numpy(inputs), None if labels is None else torch.from_numpy(labels)),
        SingleBits(),
        recipe="int8",
        maximum=2,
    )
    return {"inputs": inputs.tolist(), "labels": None if labels is None else labels.tolist()}


# --- checkpoints ----------------------------------------------------------------------------------------------------------


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def _pickled(state: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _edit_state(rng: random.Random, data: bytes, write: Callable[[Any], bytes], read: Callable[[bytes], Any]) -> Mutant:
    state = dict(read(data))
    name = rng.choice(list(state))
    how = rng.choice(("gone", "renamed", "more", "shape", "kind", "value", "transposed"))
    if how == "gone":
        del state[name]
    elif how == "renamed":
        state[name + "x"] = state.pop(name)
    elif how == "more":
        state["more"] = torch.ones(2)
    elif how == "shape":
        state[name] = torch.ones(rng.choice(((1,), (7,), (2, 2), ())))
    elif how == "kind":
        state[name] = state[name].to(rng.choice((torch.float64, torch.int64, torch.bfloat16, torch.bool)))
    elif how == "value":
        state[name] = torch.full_like(state[name], rng.choice((float("nan"), float("inf"), 0.0, 1e30)))
    else:
        state[name] = state[name].reshape(state[name].shape[::-1])
    return Mutant(write(state), f"{name}: {how}", "any" if how in ("kind", "value", "transposed", "shape") else "refuse")


def _safe_write(state: Any) -> bytes:
    from safetensors.torch import save

    return bytes(save(state))


def _safe_read(data: bytes) -> Any:
    from safetensors.torch import load

    return load(data)


def _checkpoint(path: Path) -> Any:
    from hwsim.zoo.checkpoint import load

    module = _net()
    load(module, path)
    return {name: [str(x) for x in tensor.flatten().tolist()] for name, tensor in module.state_dict().items()}


def _index_seeds() -> list[Any]:
    return [{"metadata": {"total_size": 100}, "weight_map": dict.fromkeys(_net().state_dict(), "part.safetensors")}]


def _anywhere(place: Place) -> bool:
    """An index says more than is read."""
    return True


def _index(path: Path) -> Any:
    part = path.with_name("part.safetensors")
    if not part.exists():
        part.write_bytes(_safe_write(_net().state_dict()))
    return _checkpoint(path)


# --- what a run has written -----------------------------------------------------------------------------------------------


@cache
def _identity() -> dict[str, Any]:
    """What the campaign in the seed says it is."""
    from hwsim.jobs import JobStore

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.sqlite"
        path.write_bytes(_store_seeds()[0])
        with JobStore.read(path) as store:
            return store.identity


@cache
def _store_seeds() -> list[bytes]:
    from job_studies import plain

    from hwsim.jobs import run_study

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.sqlite"
        run_study(plain(12, batch=3), store=path)
        return [path.read_bytes()]


STATEMENTS = (
    "DELETE FROM header", "UPDATE header SET value = 'x'", "UPDATE header SET value = '[]'", "UPDATE header SET value = '{}'",
    "UPDATE header SET value = '99999999999999999999' WHERE name = 'end'", "UPDATE header SET value = '-1' WHERE name = 'end'",
    "UPDATE results SET row = 'x' WHERE trial = 3", "UPDATE results SET row = '[' WHERE trial = 0",
    "DELETE FROM results WHERE trial = 5",
    "UPDATE results SET row = '3'", "UPDATE results SET row = x'ff00'", "UPDATE results SET trial = -trial", "DROP TABLE results",
    "INSERT INTO results VALUES (100000, '{}')", "INSERT INTO failures VALUES (3, 4, 1, 1, 'e', 't')",
    "INSERT INTO failures VALUES ('a', 'b', 'c', 'd', 'e', 't')", "DROP TABLE failures", "DROP TABLE header",
    "PRAGMA user_version = 7",
    "PRAGMA application_id = 3", "CREATE TABLE more (a)", "ALTER TABLE results RENAME COLUMN row TO line",
    "UPDATE header SET value = NULL",
)  # fmt: skip


def _edit_store(rng: random.Random, data: bytes) -> Mutant:
    connection = sqlite3.connect(":memory:")
    connection.deserialize(data)
    what = rng.sample(STATEMENTS, rng.choice((1, 1, 2)))
    for statement in what:
        try:
            connection.execute(statement)
        except sqlite3.Error:
            continue
    connection.commit()
    return Mutant(bytes(connection.serialize()), "; ".join(what))


def _resumed(path: Path) -> Any:
    from hwsim.jobs import JobError, JobStore

    for end in ("-wal", "-shm", ".lock"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    try:
        with JobStore.write(path, _identity()) as store:
            counts = (*store.counts(), store.end)
            if any(one is not None and not 0 <= one < 2**62 for one in counts):
                raise Unsound(f"counts {counts}")
            return {
                "results": list(store.results()),
                "failures": [vars(failure) for failure in store.failures()],
                "done": list(store.done()),
                "counts": counts,
            }
    except JobError as error:
        raise InputError(str(error)) from None


BINARY_FILES: Mapping[str, FileKind] = {
    kind.name: kind
    for kind in (
        edited_kind("onnx", ".onnx", onnx_seeds, edit_onnx, _loaded),
        edited_kind("nir", ".nir", _nir_seeds, _edit_nir, _ran),
        edited_kind("events_npz", ".npz", _event_seeds, _edit_npz, _events),
        edited_kind("faults_npz", ".npz", _data_seeds, _edit_npz, _faulted),
        edited_kind(
            "checkpoint_pt", ".pt", lambda: [_pickled(_net().state_dict())],
            partial(_edit_state, write=_pickled, read=lambda data: torch.load(io.BytesIO(data), weights_only=True)), _checkpoint,
        ),
        edited_kind(
            "checkpoint_safetensors", ".safetensors", lambda: [_safe_write(_net().state_dict())],
            partial(_edit_state, write=_safe_write, read=_safe_read), _checkpoint,
        ),
        FileKind("checkpoint_index", ".bin.index.json", _index_seeds, partial(mutated_json, free=_anywhere),
        lambda tree: json.dumps(tree).encode(), _index),
        edited_kind("store", ".sqlite", _store_seeds, _edit_store, _resumed),
    )
}  # fmt: skip
"""By name."""
