"""Fault campaigns: what is tried, how many trials it takes for a stated margin, and a run that survives whatever stops it.

Two kinds. With ``SingleBits`` each trial makes one bit fail for one image, drawn from all bits of the network in strata of layer
and bit. With ``BitFaults`` each trial is one fault map, and the network's score over all images is what it comes to.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.faults.network import Metric, NetworkUnderTest, refusing_data
from hwsim.faults.single_bits import SingleBits
from hwsim.faults.statistics import MeanMethod
from hwsim.faults.trials import TrialCampaign, map_seed
from numerics.errors import InputError
from numerics.faults import BitFaults, Protection

if TYPE_CHECKING:
    import torch

    from numerics.emulation import Emulation
    from numerics.recipes import Recipe


@dataclass(frozen=True)
class _Subject:
    """What workers need: pickled once, unpacked in each."""

    emulation: Emulation
    inputs: Any
    labels: Any
    metric: str | Metric
    batch: int
    single: SingleBits | None
    scenarios: tuple[tuple[str, tuple[BitFaults, ...]], ...]
    protections: tuple[Protection, ...]
    seed: int

    def network(self) -> NetworkUnderTest:
        return NetworkUnderTest(self.emulation, self.inputs, self.labels, metric=self.metric, batch=self.batch)


class Campaign(TrialCampaign):
    """A network, its data, and the faults that are tried on it.

    Args:
        model: an emulated module (``numerics.emulate``, a device's ``emulate``), or any module with ``recipe``.
        data: inputs, or a pair (inputs, labels); inputs are a tensor (images, …) or a tuple of them. Without labels the metric is
            the agreement with the predictions without faults.
        faults: ``SingleBits``; or fault models that work together; or a mapping from a name to the models of one scenario.
        metric: ``accuracy``, or a function of a module (outputs, labels) → a score from 0 to 1 an image.
        recipe: number formats of a module that is not emulated yet; static scales are calibrated on the data's inputs.
        protections: of the tensors, as for ``numerics.faults.inject``.
        margin: half the width of the interval that ends the campaign: of the share of faulty bits that change a prediction, or of
            each scenario's mean score.
        confidence: of the intervals, all looks together.
        seed: of everything drawn.
        first, maximum: trials (of each scenario) at the first and the last look; by default 400 bits or 30 maps, and as many as
            the margin needs where half of the faults change a prediction.
        interval: of a mean score: ``bernstein``, which holds for any law, or ``student``, narrower, for scores near normal.
        batch: images a forward pass.

    Raises:
        InputError: something of another kind, a network without such tensors, numbers out of range.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        data: Any,
        faults: SingleBits | BitFaults | Sequence[BitFaults] | Mapping[str, BitFaults | Sequence[BitFaults]],
        metric: str | Metric = "accuracy",
        *,
        recipe: str | Path | Recipe | None = None,
        protections: Protection | Sequence[Protection] = (),
        margin: float = 0.01,
        confidence: float = 0.95,
        seed: int = 0,
        first: int | None = None,
        maximum: int | None = None,
        interval: MeanMethod = "bernstein",
        batch: int = 256,
    ) -> None:
        _check_metric(metric)
        inputs, labels = data if isinstance(data, tuple | list) and len(data) == 2 else (data, None)
        single = faults if isinstance(faults, SingleBits) else None
        scenarios = () if isinstance(faults, SingleBits) else _scenarios(faults)
        guards = (protections,) if isinstance(protections, Protection) else tuple(protections)
        subject = _Subject(_emulated(model, recipe, inputs), inputs, labels, metric, batch, single, scenarios, guards, seed)
        super().__init__(subject, margin=margin, confidence=confidence, first=first, maximum=maximum, interval=interval)
        self._check_targets()
        for _, models in scenarios:
            # What cannot fail in this network shows now and not in a worker; what else this map breaks is its trial's to record.
            with _only(InputError):
                self.bench.network.run_map(models, protections=guards, seed=map_seed(seed, 0))

    def _check_targets(self) -> None:
        """See that every fault model meets a tensor of the network."""
        from fnmatch import fnmatchcase

        network = self.bench.network
        targets = {model.target for _, models in self.subject.scenarios for model in models}
        met = {(key.recipe_role, key.module) for key, _ in network._operands(sorted(targets), [0])}
        met |= {("accumulator", row.module) for row in network.emulation.operators if row.sums}
        for name, models in self.subject.scenarios:
            for model in models:
                if not any(role == model.target and fnmatchcase(module, model.modules) for role, module in met):
                    raise InputError(f"faults: {name}: the network has no {model.target} in modules that match {model.modules!r}")

    # --- the study --------------------------------------------------------------------------------------------------------------

    @property
    def whole_passes_because(self) -> str:
        """Why each fault takes a pass of the emulation; empty where faults are run on what they change."""
        if self.subject.single is None:
            return "faults: a fault map strikes everything at once"
        if self.subject.protections:
            return "protections: they are checked in passes of the emulation"
        return self.bench.network.whole_passes_because

    def _described(self) -> dict[str, Any]:
        subject = self.subject
        metric = (
            subject.metric if isinstance(subject.metric, str) else f"{subject.metric.__module__}.{subject.metric.__qualname__}"
        )
        return {
            "model": fingerprint_of(subject.emulation),
            "recipe": subject.emulation.recipe.name,
            "data": hash_of([subject.inputs, subject.labels]),
            "metric": metric,
            "faults": _plain(subject.single)
            if subject.single is not None
            else {n: [_plain(f) for f in fs] for n, fs in subject.scenarios},
            "protections": [_plain(guard) for guard in subject.protections],
            "batch": subject.batch,
        }

    @property
    def _rates(self) -> dict[str, float]:
        rates = {name: {fault.rate for fault in faults} for name, faults in self.subject.scenarios}
        return {name: float(next(iter(given))) for name, given in rates.items() if len(given) == 1 and None not in given}


def _emulated(model: Any, recipe: str | Path | Recipe | None, inputs: Any) -> Emulation:
    import torch

    import numerics
    from numerics.emulation import Emulation

    if isinstance(model, Emulation):
        if recipe is not None:
            raise InputError("recipe: the model is emulated already; leave the recipe out")
        return model.eval()
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    if recipe is None:
        raise InputError("recipe: a module that is not emulated needs number formats (such as 'int8')")
    emulation = numerics.emulate(model, recipe).eval()
    if any(scaling.update == "static" for scaling in emulation.recipe.scaling.values()):
        with refusing_data(inputs):
            numerics.calibrate(emulation, [tuple(inputs) if isinstance(inputs, list) else inputs])
    return emulation


@contextmanager
def _only(kind: type[Exception]) -> Iterator[None]:
    """Errors of one kind go through."""
    try:
        yield
    except kind:
        raise
    except Exception:
        return


def _check_metric(metric: Any) -> None:
    """See that a metric of the user's own can go to other processes."""
    if isinstance(metric, str):
        return
    try:
        pickle.dumps(metric)
    except (pickle.PicklingError, AttributeError, TypeError):
        name = getattr(metric, "__qualname__", type(metric).__name__)
        raise InputError(
            f"metric: expected a function at the top level of a module, which workers can import; got {name}"
        ) from None


def _scenarios(faults: Any) -> tuple[tuple[str, tuple[BitFaults, ...]], ...]:
    given = faults if isinstance(faults, Mapping) else {"faults": faults}
    if not given:
        raise InputError("faults: expected SingleBits, BitFaults or named scenarios of them, got none")
    found = []
    for name, models in given.items():
        some = (models,) if isinstance(models, BitFaults) else tuple(models) if isinstance(models, Iterable) else (models,)
        if not some:
            raise InputError(f"faults: {name}: expected at least one fault model, got none")
        for model in some:
            if not isinstance(model, BitFaults):
                raise InputError(
                    f"faults: {name}: expected BitFaults, got {type(model).__name__}; faults of a machine's parts have campaigns "
                    "of their own (of an array: accelerators.systolic.faults.campaign), or work in its matrix unit"
                )
            if model.target in ("optimizer_state", "master_weight", "gradient"):
                raise InputError(
                    f"faults: {name}: a campaign runs inference; {model.target!r} fails in training (numerics.faults.inject)"
                )
        found.append((str(name), some))
    return tuple(found)


def fingerprint_of(emulation: Emulation) -> str:
    """A hash of a network: its structure, its formats, every bit of its parameters and buffers."""
    import json

    digest = hashlib.sha256(str(emulation.module).encode())
    digest.update(json.dumps(emulation.recipe.to_dict(), sort_keys=True, default=str).encode())
    context = emulation._context
    digest.update(f"{context.seed}".encode())
    digest.update(b"" if emulation.matrix_unit is None else pickle.dumps(emulation.matrix_unit))
    for key, scales in sorted(context.static.items()):
        digest.update(str(key).encode())
        for part in (scales.scale, scales.zero_point):
            digest.update(b"" if part is None else _bytes(part))
    tensors = {**dict(emulation.module.named_buffers()), **emulation.module.state_dict()}
    for name, tensor in sorted((name, value) for name, value in tensors.items() if hasattr(value, "shape")):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()[:32]


def _bytes(tensor: torch.Tensor) -> bytes:
    import torch

    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def hash_of(values: Any) -> str:
    """A hash of tensors, in nested lists and tuples."""
    import torch

    digest = hashlib.sha256()
    pending = [values]
    while pending:
        value = pending.pop()
        if isinstance(value, tuple | list):
            pending += list(value)
        elif isinstance(value, torch.Tensor):
            digest.update(f"{tuple(value.shape)}{value.dtype}".encode())
            digest.update(_bytes(value))
        elif value is not None:
            digest.update(repr(value).encode())
    return digest.hexdigest()[:32]


def _plain(value: Any) -> Any:
    """A fault model or protection as plain data."""
    if is_dataclass(value) and not isinstance(value, type):
        fields = {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
