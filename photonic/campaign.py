"""Fault campaigns on optical engines: what is broken is drawn anew for each trial, and the score is that of all samples.

The trials, their looks and intervals are those of ``hwsim.faults``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.faults import MapOutcome
from hwsim.faults.machines import AnswersUnderTest, MapSubject, checked_labels, checked_scenarios
from hwsim.faults.statistics import MeanMethod
from hwsim.faults.trials import TrialCampaign
from numerics.errors import InputError
from photonic.device import PhotonicEngine
from photonic.emulation.faults import PhotonicFaults
from photonic.spec import PhotonicSpec

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

    from numerics.recipes import Recipe


class EngineUnderTest(AnswersUnderTest):
    """A classifier on an optical engine with samples; the largest output is the answer.

    Every run has the same engine, seed and noise, so that outputs differ by faults alone.

    Args:
        spec: of the machine.
        module: computes (samples, classes) from ``inputs``.
        inputs: of all samples, samples first.
        labels: the right answers; None: those without faults.
        recipe: number formats, as the machine computes them.
        seed: of the engine that is made, and of its noise.

    Raises:
        InputError: labels of another number, outputs of another shape.
    """

    def __init__(
        self,
        spec: PhotonicSpec,
        module: torch.nn.Module,
        inputs: torch.Tensor,
        labels: Sequence[int] | None,
        recipe: Recipe,
        seed: int,
    ) -> None:
        self.device, self.module, self.inputs, self.recipe, self.seed = PhotonicEngine(spec), module, inputs, recipe, seed
        self._golden, _ = self._outputs(None)
        if self._golden.ndim != 2 or len(self._golden) != len(inputs):
            raise InputError(f"module: expected outputs of shape ({len(inputs)}, classes), got {self._golden.shape}")
        super().__init__(self._golden.argmax(axis=1), labels)

    def _outputs(self, faults: PhotonicFaults | None) -> tuple[npt.NDArray[Any], int]:
        """(samples, classes), and how many parts are broken."""
        import torch

        import numerics
        from photonic._layer_inputs import check_inputs_of

        unit = self.device.unit(seed=self.seed, faults=faults)
        emulated = numerics.emulate(self.module, self.recipe, seed=self.seed, matrix_unit=unit).eval()
        check_inputs_of(emulated.module)
        with torch.no_grad():
            return emulated(self.inputs).numpy(), unit.broken

    def run_map(self, faults: PhotonicFaults, *, protections: Sequence[Any] = (), seed: int = 0) -> MapOutcome:
        """What all samples come to with what this seed breaks."""
        found, broken = self._outputs(replace(faults, seed=seed))
        same, lost = (found == self._golden).all(axis=1), (~np.isfinite(found)).any(axis=1)
        return self.outcome(found.argmax(axis=1), same=same, lost=lost, broken=broken)


@dataclass(frozen=True, kw_only=True)
class _Subject(MapSubject):
    spec: PhotonicSpec
    module: Any
    inputs: Any
    labels: tuple[int, ...] | None
    recipe: Recipe

    def network(self) -> EngineUnderTest:
        return EngineUnderTest(self.spec, self.module, self.inputs, self.labels, self.recipe, self.seed)


class PhotonicCampaign(TrialCampaign):
    """A classifier on an optical engine, its samples, and the faults that are tried on it.

    Args:
        device: the engine.
        module: computes (samples, classes) from ``inputs``.
        inputs: a tensor, samples first.
        faults: scenario → faults; their seeds are those of the trials.
        labels: of the samples; without them the score is the agreement with the answers without faults.
        recipe: number formats; the device's default formats otherwise.
        margin: half the width of the interval of each scenario's mean score that ends the campaign.
        confidence, first, maximum, interval: as of ``hwsim.faults.Campaign``.
        seed: of trials, and of the engine that is made: all trials break the same one.

    ``run`` and ``result`` are those of ``hwsim.faults.Campaign``; a trial's faulty bits are the parts that were broken.

    Raises:
        InputError: something of another kind, labels of another number, a drift that the device does not have, a detector that
            is not there.
    """

    def __init__(
        self,
        device: PhotonicEngine,
        module: torch.nn.Module,
        inputs: torch.Tensor,
        faults: Mapping[str, PhotonicFaults],
        *,
        labels: Sequence[int] | npt.ArrayLike | None = None,
        recipe: str | Recipe | None = None,
        margin: float = 0.05,
        confidence: float = 0.95,
        seed: int = 0,
        first: int | None = None,
        maximum: int | None = None,
        interval: MeanMethod = "student",
    ) -> None:
        import torch

        from numerics.recipes import get_recipe

        if not isinstance(device, PhotonicEngine):
            raise InputError(f"device: expected a photonic engine, got {type(device).__name__}")
        if not isinstance(module, torch.nn.Module):
            raise InputError(f"module: expected a torch.nn.Module, got {type(module).__name__}")
        if not isinstance(inputs, torch.Tensor) or not inputs.dim() or not len(inputs):
            raise InputError(f"inputs: expected a tensor with samples, got {type(inputs).__name__}")
        scenarios = checked_scenarios(faults, PhotonicFaults)
        for _, some in scenarios:
            device.unit(seed=seed, faults=some)  # what cannot break shows now and not in a worker
        chosen = device.computed_recipe(device.spec.default_recipe if recipe is None else get_recipe(recipe))
        subject = _Subject(
            spec=device.spec, module=module, inputs=inputs, labels=checked_labels(labels), recipe=chosen, scenarios=scenarios,
            seed=seed,
        )  # fmt: skip
        super().__init__(subject, margin=margin, confidence=confidence, first=first, maximum=maximum, interval=interval)

    def _described(self) -> dict[str, Any]:
        subject: _Subject = self.subject
        model = hashlib.sha256(repr(subject.module).encode())
        for name, values in sorted(subject.module.state_dict().items()):
            model.update(name.encode() + values.detach().cpu().numpy().tobytes())
        data = hashlib.sha256(repr(subject.labels).encode())
        data.update(subject.inputs.detach().cpu().numpy().tobytes())
        return subject.described(
            model=model.hexdigest()[:32],
            device=hashlib.sha256(subject.spec.model_dump_json().encode()).hexdigest()[:32],
            recipe=subject.recipe.name,
            formats=dict(subject.recipe.formats),
            data=data.hexdigest()[:32],
        )
