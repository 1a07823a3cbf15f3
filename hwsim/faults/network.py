"""A network under test: what it computes without faults, where bits can fail in it, and what becomes of its outputs when they do.

The run without faults goes through the same kernels in the same batches as the runs with them, so that *masked* means equal in
every bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hwsim.views.display import displayed, displaying
from numerics.errors import InputError, unknown_name

if TYPE_CHECKING:
    import torch

    from hwsim.faults.incremental import Incremental
    from numerics.emulation import Emulation, OperandKey
    from numerics.faults import BitFaults, Protection

Outcome = Literal["masked", "silent", "detected", "nan"]
"""``masked``: every bit of the outputs is as it was. ``detected``: a protection found a wrong word and could not correct it.
``nan``: an output is Inf or NaN where it was not. ``silent``: anything else, that is silent data corruption."""
OUTCOMES: tuple[str, ...] = ("masked", "silent", "detected", "nan")

GOLDEN_BYTES = 1 << 30
"""Memory for what the layers of all images are without faults, to begin incremental runs from."""

_PRODUCTS = ("sums of conv", "sums of linear")

Metric = Callable[[Any, Any], Any]
"""(outputs, labels) → a score from 0 to 1 for each image."""


def accuracy(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """1 where the largest output is that of the label, else 0; outputs (images, …, classes), labels (images, …)."""
    right = (outputs.argmax(-1) == labels).float()
    return right.flatten(1).mean(1) if right.ndim > 1 else right


METRICS: dict[str, Metric] = {"accuracy": accuracy}


@displayed
@dataclass(frozen=True)
class FaultSite:
    """A tensor whose bits can fail.

    Attributes:
        key: module, operator and operand.
        role: of the operand, as in a recipe.
        format: its format's name.
        shape: for one image.
        elements, bits: of the tensor for one image, and of an element's code.
        call: which run of the operator in a pass, from 0; None for a weight, which all read.
        separable: whether the tensor for several images is theirs one after another, none with an effect on the others.
    """

    key: OperandKey
    role: str
    format: str
    shape: tuple[int, ...]
    elements: int
    bits: int
    separable: bool
    call: int | None = None

    @property
    def layer(self) -> str:
        """The module's path, with the operator's number where it is not the first, and that of its run in a pass."""
        name = self.key.module or "(root)"
        name = f"{name}#{self.key.operator}" if self.key.operator else name
        return f"{name}@{self.call}" if self.call else name


@displayed
@dataclass(frozen=True)
class Place:
    """One faulty bit.

    Attributes:
        site: number of the site.
        element: flat index in the site's tensor for one image.
        bit: of its code.
        image: number of the image.
        kind: as in ``BitFaults``.
    """

    site: int
    element: int
    bit: int
    image: int
    kind: str = "flip"


@displayed
@dataclass(frozen=True)
class PlaceOutcome:
    """What one faulty bit did to one image.

    Attributes:
        outcome: see ``Outcome``.
        changed: whether the prediction (the largest output) differs.
        score: of the metric.
    """

    outcome: str
    changed: bool
    score: float


@displayed
@dataclass(frozen=True)
class MapOutcome:
    """What the faults of one map did to all images.

    Attributes:
        outcome: the worst for all images together.
        masked, nan, changed: images whose outputs are equal in every bit, hold a new Inf or NaN, have another prediction.
        score: mean of the metric.
        faulty_bits: of the map, without those of a protection's own bits.
        corrected, detected: words that a protection corrected, and that it found wrong; errors in its own bits are among them.
            What is stored (weights) counts once a map, however many passes read it; what is computed anew, in every pass.
    """

    outcome: str
    masked: int
    nan: int
    changed: int
    score: float
    faulty_bits: int
    corrected: int
    detected: int


@displaying("images", "batch", "labelled", "golden_score", "whole_passes_because")
class NetworkUnderTest:
    """An emulated network with its data.

    Args:
        emulation: from ``numerics.emulate`` or a device's ``emulate``; put into eval mode.
        inputs: a tensor (images, …), or a tuple of tensors with the images along their first axis.
        labels: what the metric compares with; None for the predictions of the network without faults, so that the metric is the
            agreement with it.
        metric: name of one (``accuracy``), or a function (outputs, labels) → a score from 0 to 1 an image.
        batch: images a forward pass.

    Raises:
        InputError: an emulation, inputs or labels that are none; sizes that differ.
    """

    def __init__(
        self, emulation: Emulation, inputs: Any, labels: Any = None, *, metric: str | Metric = "accuracy", batch: int = 256
    ) -> None:
        import torch

        from numerics.emulation import Emulation as Emulated

        if not isinstance(emulation, Emulated):
            raise InputError(f"model: expected an emulated module (numerics.emulate), got {type(emulation).__name__}")
        if isinstance(metric, str) and metric not in METRICS:
            raise unknown_name("metric", metric, METRICS)
        self.emulation = emulation.eval()
        self.inputs = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
        sizes = {len(x) for x in self.inputs if isinstance(x, torch.Tensor) and x.ndim}
        if len(sizes) != 1 or len(self.inputs) == 0 or 0 in sizes:
            raise InputError(f"data: expected tensors with as many images ≥ 1 along their first axes, got {sorted(sizes)}")
        self.images = sizes.pop()
        if not isinstance(batch, int) or batch < 1:
            raise InputError(f"batch: expected an integer ≥ 1, got {batch!r}")
        self.batch = batch
        self._metric = METRICS[metric] if isinstance(metric, str) else metric
        self._alone: dict[tuple[int, ...], torch.Tensor] = {}
        with refusing_data(self.inputs):
            self.golden = [out for out, _ in self._passes(())]
        self.labelled = labels is not None
        predicted = torch.cat([out.argmax(-1) for out in self.golden])
        self.labels = predicted if labels is None else torch.as_tensor(labels)
        if len(self.labels) != self.images:
            raise InputError(f"labels: expected {self.images}, one an image, got {len(self.labels)}")
        if self._metric is accuracy:
            _check_labels(self.labels, predicted.shape, self.golden[0].shape[-1])
        self.golden_score = float(torch.cat([self._scores(out, n) for n, out in enumerate(self.golden)]).double().mean())

    # --- passes -------------------------------------------------------------------------------------------------------------

    def _slice(self, number: int) -> slice:
        return slice(number * self.batch, (number + 1) * self.batch)

    def _scores(self, outputs: torch.Tensor, number: int) -> torch.Tensor:
        return self._checked(self._metric(outputs, self.labels[self._slice(number)]))

    @staticmethod
    def _checked(scores: torch.Tensor) -> torch.Tensor:
        if not bool(((scores >= 0) & (scores <= 1)).all()):
            raise InputError(f"metric: expected scores from 0 to 1, got {float(scores.min()):g} to {float(scores.max()):g}")
        return scores

    def _passes(
        self, faults: Sequence[BitFaults], protections: Sequence[Protection] = (), seed: int = 0
    ) -> list[tuple[torch.Tensor, Any]]:
        """Outputs of all batches under one injection."""
        from numerics.faults import inject

        found = []
        with inject(self.emulation, faults, protections=protections, seed=seed) as injection:
            for number in range(-(-self.images // self.batch)):
                found.append((self._forward(tuple(x[self._slice(number)] for x in self.inputs)), injection))
        return found

    def _forward(self, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        import torch

        with torch.no_grad():
            found = self.emulation(*inputs)
        if not isinstance(found, torch.Tensor) or found.ndim < 2 or len(found) != len(inputs[0]):
            raise InputError(
                f"model: expected one tensor (images, …, classes) as its output, got {type(found).__name__}"
                f"{f' of shape {tuple(found.shape)}' if isinstance(found, torch.Tensor) else ''}"
            )
        return found

    def run_map(self, faults: Sequence[BitFaults], *, protections: Sequence[Protection] = (), seed: int = 0) -> MapOutcome:
        """What all images come to with the faults that this seed gives."""
        import torch

        passes = self._passes(faults, protections, seed)
        masked = nan = changed = 0
        scores = []
        for number, ((out, _), golden) in enumerate(zip(passes, self.golden, strict=True)):
            equal, broken, moved = compared(out, golden)
            masked, nan, changed = masked + int(equal.sum()), nan + int(broken.sum()), changed + int(moved.sum())
            scores.append(self._scores(out, number))
        injection = passes[0][1]
        outcome = _worst(masked == self.images, nan > 0, injection.detected > 0)
        score = float(torch.cat(scores).double().mean())
        return MapOutcome(outcome, masked, nan, changed, score, injection.faulty_bits, injection.corrected, injection.detected)

    # --- single places --------------------------------------------------------------------------------------------------------

    def sites(self, targets: Sequence[str] = ("weight", "activation")) -> list[FaultSite]:
        """Operands of these roles, in the order in which one image uses them.

        Raises:
            InputError: a format of blocks, whose places are those of its codes.
        """
        import torch

        from numerics.faults import code_bits
        from numerics.formats import BlockFormat

        first, second = (self._operands(targets, images) for images in ([0], [self.images - 1]))
        both = self._operands(targets, [0, self.images - 1])
        found = []
        for (key, call), x in first.items():
            rule = self.emulation._context.rule(key.recipe_role, key.module)
            if isinstance(rule.fmt, BlockFormat):
                raise InputError(
                    f"model: {key.role} of module {key.module!r} is in {rule.fmt.name!r}; single places need another"
                )
            apart = torch.cat([x.reshape(-1), second[key, call].reshape(-1)])
            separable = self._scales_apart and torch.equal(both[key, call].reshape(-1), apart)
            found.append(
                FaultSite(
                    key, key.recipe_role, rule.fmt.name, tuple(x.shape), x.numel(), code_bits(rule.fmt),
                    separable and key.recipe_role != "weight", None if key.recipe_role == "weight" else call,
                )
            )  # fmt: skip
        return found

    def _operands(self, targets: Sequence[str], images: list[int]) -> dict[tuple[OperandKey, int], torch.Tensor]:
        """Operands of these roles for some images, in every run of their operators; a weight in the first."""
        found: dict[tuple[OperandKey, int], torch.Tensor] = {}
        runs: dict[OperandKey, int] = {}

        def note(key: OperandKey, x: torch.Tensor) -> None:
            if key.recipe_role in targets and x.numel():
                call = runs[key] = runs.get(key, -1) + 1
                if call == 0 or key.recipe_role != "weight":
                    found[key, call] = x.clone()

        with self.emulation.observe(note):
            self._forward(tuple(x[images] for x in self.inputs))
        return found

    @property
    def _scales_apart(self) -> bool:
        """Whether no scale is found from a whole batch."""
        rules = [
            self.emulation._context.rule(role, path)
            for path, _ in self.emulation.module.named_modules()
            for role in ("activation", "elementwise")
        ]
        return all(rule.scaling.granularity == "none" or rule.scaling.update == "static" for rule in rules)

    def run_places(
        self, sites: Sequence[FaultSite], places: Sequence[Place], *, protections: Sequence[Protection] = ()
    ) -> list[PlaceOutcome]:
        """What single faulty bits do, each to its image, without what is beside it.

        Where ``incremental`` takes the network, on what each fault changes. Otherwise in passes of the emulation, which faults in
        activations share where images do not depend on each other; each is held against the same image at the same place of a
        pass without faults. Both come to the same, bit for bit.
        """
        results: list[PlaceOutcome | None] = [None] * len(places)
        if not protections:
            self._run_incremental(sites, places, results)
        by_site: dict[tuple[int, str], list[int]] = {}
        for number, place in enumerate(places):
            if results[number] is not None:
                continue
            if sites[place.site].separable and not protections:
                by_site.setdefault((place.site, place.kind), []).append(number)
            else:
                results[number] = self._run_some(sites, [place], protections)[0]
        for numbers in by_site.values():
            for start in range(0, len(numbers), self.batch):
                part = numbers[start : start + self.batch]
                for number, outcome in zip(part, self._run_some(sites, [places[n] for n in part], ()), strict=True):
                    results[number] = outcome
        return [outcome for outcome in results if outcome is not None]

    @cached_property
    def _incremental(self) -> Incremental | str:
        """Runs on what a fault changes, or why there are none."""
        import torch

        from hwsim.faults.incremental import Incremental, Unsupported

        images = self.inputs[0]
        if len(self.inputs) != 1 or not isinstance(images, torch.Tensor) or images.dtype != torch.float32:
            return "inputs: expected one tensor of 32-bit floats"
        if images.ndim not in (2, 4) or any(x.device.type != "cpu" for x in (images, *self.emulation.module.parameters())):
            return "inputs: expected (images, features) or (images, channels, rows, columns), on the CPU"
        try:
            found = Incremental(self.emulation, images, memory_bytes=GOLDEN_BYTES, in_turns=False)
        except Unsupported as reason:
            return str(reason)
        # Of pools and norms no recipe defines the order; of products one with accumulation does.
        for text in sorted(found.own_order, key=lambda text: text.startswith(_PRODUCTS)):
            remedy = "; a recipe with accumulation defines their order" if text.startswith(_PRODUCTS) else ", whatever the recipe"
            return f"model: {text} are left to a library{remedy}"
        return found

    @property
    def whole_passes_because(self) -> str:
        """Why single bits are run in whole passes of the emulation; empty where they are run on what they change."""
        return self._incremental if isinstance(self._incremental, str) else ""

    def _run_incremental(self, sites: Sequence[FaultSite], places: Sequence[Place], results: list[PlaceOutcome | None]) -> None:
        """Fill in the outcomes that incremental runs find; the others stay None."""
        import torch

        from hwsim.faults.incremental import SiteFaults

        engine = self._incremental
        if isinstance(engine, str):
            return
        known = {site.key: number for number, site in enumerate(engine.sites)}
        number_of = [None if site.call else known.get(site.key) for site in sites]
        for kind in sorted({place.kind for place in places}):
            chosen = [n for n, place in enumerate(places) if place.kind == kind and number_of[place.site] is not None]
            if not chosen:
                continue
            some = [places[n] for n in chosen]
            rows = np.array([(number_of[p.site], p.image, p.element, p.bit) for p in some], np.int64)
            found = engine.run(SiteFaults.from_bits(rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3], kind))
            images = torch.from_numpy(rows[:, 1])
            out = torch.from_numpy(found.outputs)
            equal, broken, moved = compared(out, torch.from_numpy(engine.golden)[images])
            scores = self._checked(self._metric(out, self.labels[images]))
            for at, n in enumerate(chosen):
                # What the emulation refuses, it shall say itself.
                if not found.refused[at]:
                    outcome = _worst(bool(equal[at]), bool(broken[at]), False)
                    results[n] = PlaceOutcome(outcome, bool(moved[at]), float(scores[at]))

    def _run_some(
        self, sites: Sequence[FaultSite], places: Sequence[Place], protections: Sequence[Protection]
    ) -> list[PlaceOutcome]:
        """Places of one site and kind in one pass, each in an image of its own."""
        import torch

        from numerics.faults import BitFaults, inject

        site, count = sites[places[0].site], len(places)
        images = torch.tensor([place.image for place in places])
        inputs = tuple(x[images] for x in self.inputs)
        where = tuple((slot * site.elements + place.element, place.bit) for slot, place in enumerate(places))
        fault = BitFaults(
            kind=places[0].kind,  # type: ignore[arg-type]
            target=site.role,
            modules=_literal(site.key.module),
            operator=site.key.operator,
            operand=site.key.role,
            call=site.call,
            places=where,
        )
        golden = self._golden(tuple(images.tolist()), inputs)
        with inject(self.emulation, fault, protections=protections) as injection:
            out = self._forward(inputs)
        equal, broken, moved = compared(out, golden)
        scores = self._checked(self._metric(out, self.labels[images]))
        detected = injection.detected > 0
        return [
            PlaceOutcome(_worst(bool(equal[i]), bool(broken[i]), detected), bool(moved[i]), float(scores[i]))
            for i in range(count)
        ]

    def _golden(self, images: tuple[int, ...], inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Outputs without faults of these images in this batch; those of single images are kept."""
        from numerics.faults import inject

        if images in self._alone:
            return self._alone[images]
        with inject(self.emulation):
            found = self._forward(inputs)
        if len(images) == 1:
            self._alone[images] = found
        return found


@contextmanager
def refusing_data(inputs: Any) -> Iterator[None]:
    """What a model raises when it first runs on some inputs is said of these, in one line."""
    import torch

    try:
        yield
    except InputError:
        raise
    except Exception as error:  # whatever the model raises
        given = inputs if isinstance(inputs, tuple | list) else (inputs,)
        shapes = ", ".join(f"{tuple(x.shape)} {x.dtype}" for x in given if isinstance(x, torch.Tensor))
        reason = " ".join(str(error).split())
        raise InputError(
            f"data: the model does not run on inputs {shapes.replace('torch.', '')}: {type(error).__name__}: {reason}"
        ) from error


def _check_labels(labels: torch.Tensor, shape: tuple[int, ...], classes: int) -> None:
    if tuple(labels.shape) != tuple(shape):
        raise InputError(f"labels: expected shape {tuple(shape)}, one for each prediction, got {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex():
        raise InputError(f"labels: expected integers, got {str(labels.dtype).removeprefix('torch.')}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise InputError(f"labels: expected 0 to {classes - 1} for {classes} classes, got {low} to {high}")


def _literal(path: str) -> str:
    """A pattern that this path alone matches."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in path)


def _worst(masked: bool, nan: bool, detected: bool) -> str:
    return "detected" if detected else "masked" if masked else "nan" if nan else "silent"


def compared(out: torch.Tensor, golden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For each image: whether its outputs are equal bit for bit, hold an Inf or NaN that was not there, have another largest."""
    import torch

    words = torch.int64 if out.dtype == torch.float64 else torch.int32 if out.dtype == torch.float32 else torch.int16
    equal = (out.contiguous().view(words) == golden.contiguous().view(words)).flatten(1).all(1)
    broken = (~torch.isfinite(out) & torch.isfinite(golden)).flatten(1).any(1)
    moved = (out.argmax(-1) != golden.argmax(-1)).reshape(len(out), -1).any(1)
    return equal, broken, moved
