"""A network that tests itself while it works: a second output that is constant on a chip without faults.

Ahmed and Tahoori, "Concurrent self-testing of neural networks using uncertainty fingerprint", arXiv 2401.01458: a second head,
trained after the network and with the network left as it is, gives a fingerprint of 1 for every input, and a fingerprint out of
its bounds tells of a fault. Here the head is linear in what it is shown and has no bias, so that it cannot be constant by itself,
and is fitted in closed form instead of by steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from hwsim.views.display import displayed, displaying
from numerics.errors import InputError
from numerics.faults import BitFaults, inject, stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwsim.faults.statistics import Interval
    from numerics.emulation import Emulation

CLEAN, VARIED = "clean", "varied"
"""Runs of a chip without faults: as it is, and with weights that vary from chip to chip."""


@displayed
class SelfTestingNetwork(nn.Module):
    """A network with a second head; gives (outputs, fingerprints of shape (images,)).

    Args:
        network: gives one tensor (images, …).
        taps: module path → features of its output that the head is shown. Of outputs with more axes than (images, features), it
            is shown the mean over the others.

    Raises:
        InputError: no taps, or a path that is none of the network's.
    """

    def __init__(self, network: nn.Module, taps: Mapping[str, int]) -> None:
        super().__init__()
        if not taps:
            raise InputError("taps: expected at least one module path, got none")
        for path in taps:
            if not path or path not in dict(network.named_modules()):
                raise InputError(f"taps: expected paths of the network's modules, got {path!r}")
        self.network = network
        self.taps = tuple(taps)
        self.head = nn.ModuleList(nn.Linear(width, 1, bias=False) for width in taps.values())
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    @classmethod
    def around(cls, network: nn.Module, inputs: torch.Tensor, *, taps: Sequence[str]) -> SelfTestingNetwork:
        """The network with a head of the widths that its modules have on some inputs."""
        found = cls(network, dict.fromkeys(taps, 1))
        with torch.no_grad():
            _, shown = found.tapped(inputs)
        return cls(network, {path: x.shape[1] for path, x in zip(found.taps, shown, strict=True)}).train(network.training)

    def tapped(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Outputs, and what the head is shown: (images, features) for each tap."""
        shown: dict[str, torch.Tensor] = {}

        def keep(path: str) -> Any:
            def hook(module: nn.Module, given: Any, output: torch.Tensor) -> None:
                if path in shown:
                    raise InputError(f"taps: module {path!r} runs more than once in a forward pass; expected one output")
                shown[path] = output.flatten(2).mean(2) if output.ndim > 2 else output

            return hook

        handles = [self.network.get_submodule(path).register_forward_hook(keep(path)) for path in self.taps]
        try:
            outputs = self.network(x)
        finally:
            for handle in handles:
                handle.remove()
        for path in self.taps:
            if path not in shown:
                raise InputError(f"taps: module {path!r} does not run in a forward pass; expected one output")
        return outputs, [shown[path] for path in self.taps]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(outputs, fingerprints)."""
        outputs, shown = self.tapped(x)
        fingerprint = self.head[0](shown[0])
        for layer, features in zip(list(self.head)[1:], shown[1:], strict=True):
            fingerprint = fingerprint + layer(features)
        return outputs, fingerprint.reshape(-1)


def fit_fingerprint(emulation: Emulation, inputs: torch.Tensor, *, ridge: float = 1e-3) -> float:
    """Fit the head so that fingerprints of fault-free inputs are 1: least squares over what the head is shown in the formats.

    Args:
        emulation: of a ``SelfTestingNetwork``; its head's weights are set, all others stay.
        inputs: (images, …).
        ridge: weight of the squared weights, in units of the images times the mean square of a tap's features. Without it the
            head of many features lives on their rounding.

    Returns:
        root mean square distance of the fingerprints from 1 on the inputs, head in its formats.

    Raises:
        InputError: another kind of module, no inputs, a ridge below 0.
    """
    module = _self_testing(emulation)
    if not len(inputs):
        raise InputError("inputs: expected at least one image, got none")
    if not 0 <= ridge < float("inf"):
        raise InputError(f"ridge: expected a number ≥ 0, got {ridge!r}")
    shown: dict[str, torch.Tensor] = {}

    def note(key: Any, x: torch.Tensor) -> None:
        if key.module.startswith("head.") and key.recipe_role == "activation":
            shown[key.module] = x.reshape(len(inputs), -1).double()

    with torch.no_grad(), emulation.observe(note):
        emulation.eval()(inputs)
    names = [f"head.{n}" for n in range(len(module.head))]
    missing = [name for name in names if name not in shown]
    if missing:
        raise InputError(f"emulation: its recipe leaves {missing[0]!r} out; expected formats for the weights and what they meet")
    scales = [shown[name].square().mean().sqrt().clamp_min(1e-12) for name in names]
    features = torch.cat([shown[name] / scale for name, scale in zip(names, scales, strict=True)], 1)
    normal = features.T @ features + ridge * len(inputs) * torch.eye(features.shape[1], dtype=torch.float64)
    weights = torch.linalg.lstsq(normal, features.sum(0)[:, None]).solution[:, 0]
    start = 0
    with torch.no_grad():
        for layer, scale in zip(module.head, scales, strict=True):
            assert isinstance(layer, nn.Linear)
            stop = start + layer.in_features
            layer.weight.copy_((weights[start:stop] / scale)[None])
            start = stop
        _, fingerprints = emulation(inputs)
    return float((fingerprints.double() - 1).square().mean().sqrt())


def _self_testing(emulation: Emulation) -> SelfTestingNetwork:
    module = getattr(emulation, "module", None)
    if not isinstance(module, SelfTestingNetwork):
        raise InputError(f"emulation: expected one of a SelfTestingNetwork, got {type(module or emulation).__name__}")
    return module


# --- the test -------------------------------------------------------------------------------------------------------------------


@displayed
@dataclass(frozen=True, kw_only=True)
class FingerprintTest:
    """When fingerprints tell of a fault: their root mean square distance from ``centre`` over a window is above ``limit``.

    Attributes:
        centre: mean fingerprint without faults.
        limit: see above.
        window: inferences that are judged together; 1 judges each by itself, as the paper does.
        false_alarms: share of windows without faults that it was calibrated to flag, before the guard band.
        guard: band that was added to the limit, over it.
    """

    centre: float
    limit: float
    window: int
    false_alarms: float
    guard: float = 0.0

    @classmethod
    def calibrated(
        cls,
        emulation: Emulation,
        inputs: torch.Tensor,
        *,
        window: int = 16,
        false_alarms: float = 0.01,
        guard: float = 0.25,
        seed: int = 0,
    ) -> FingerprintTest:
        """From inputs that the head was not fitted to, on a chip without faults.

        Args:
            window, false_alarms: as above; the limit is the quantile over windows that are drawn from the inputs.
            guard: band on top, over the limit, for what these inputs do not show: others, and chips whose weights vary.
            seed: of the windows.

        Raises:
            InputError: fewer inputs than a window takes; numbers out of range.
        """
        _self_testing(emulation)
        if not 0 < false_alarms < 1:
            raise InputError(f"false_alarms: expected a share between 0 and 1, got {false_alarms!r}")
        if not 0 <= guard < float("inf"):
            raise InputError(f"guard: expected a number ≥ 0, got {guard!r}")
        with torch.no_grad(), inject(emulation.eval()):
            found = emulation(inputs)[1].double().numpy()
        centre = float(found.mean())
        windows = _windows(len(inputs), window, max(len(inputs), round(20 / false_alarms)), seed, "calibration")
        if window == 1:
            windows = np.arange(len(inputs))[:, None]
        limit = float(np.quantile(_distance(found, centre, windows), 1 - false_alarms))
        return cls(centre=centre, limit=limit * (1 + guard), window=window, false_alarms=false_alarms, guard=guard)


def _windows(images: int, window: int, count: int, seed: int, *words: object) -> NDArray[np.int64]:
    """Numbers of images, shape (count, window); none twice in a window."""
    if not isinstance(window, int) or isinstance(window, bool) or not 1 <= window <= images:
        raise InputError(f"window: expected an integer from 1 to the {images} inputs, got {window!r}")
    rng = stream(seed, "fingerprint", *words)
    return np.array([rng.choice(images, window, replace=False) for _ in range(count)])


def _distance(fingerprints: NDArray[Any], centre: float, windows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Root mean square distance from the centre over each window; what is not a number is infinitely far."""
    off = np.abs(np.nan_to_num(fingerprints.astype(np.float64), nan=np.inf) - centre)
    with np.errstate(over="ignore"):
        return np.asarray(np.sqrt(np.square(off)[windows].mean(1)))


@displayed
@dataclass(frozen=True)
class SelfTestRun:
    """One chip under test.

    Attributes:
        scenario: its name; ``clean`` and ``varied`` have no faults.
        number: of the fault map or the chip.
        accuracy: over all images.
        changed: share of images with another prediction than without faults.
        faulty_bits: of the map.
        distances: of the windows that the test saw, in order.
    """

    scenario: str
    number: int
    accuracy: float
    changed: float
    faulty_bits: int
    distances: tuple[float, ...]


@displayed
@dataclass(frozen=True, kw_only=True)
class SelfTestResult:
    """What a self-test found.

    Attributes:
        test: the test.
        runs: all chips.
        golden_accuracy: without faults.
        harm: share of changed predictions from which on a fault map is harmful.
        confidence: of the intervals.
    """

    test: FingerprintTest
    runs: tuple[SelfTestRun, ...]
    golden_accuracy: float
    harm: float
    confidence: float = 0.95

    def chosen(self, scenario: str | None = None, *, harmful: bool | None = None) -> list[SelfTestRun]:
        """Runs of a scenario (None: of all with faults), harmful ones or others."""
        return [
            run
            for run in self.runs
            if (run.scenario == scenario if scenario else run.scenario not in (CLEAN, VARIED))
            and (harmful is None or (run.changed >= self.harm) is harmful)
        ]

    def _alarmed(self, runs: Sequence[SelfTestRun]) -> Interval:
        from hwsim.faults.statistics import wilson

        if not runs:
            raise InputError("scenario: has no such runs; expected one that was tested, with maps of that kind")
        hits = sum(max(run.distances) > self.test.limit for run in runs)
        return wilson(hits, len(runs), confidence=self.confidence)

    def coverage(self, scenario: str | None = None) -> Interval:
        """Share of the harmful fault maps with an alarm in any window; Wilson's interval."""
        return self._alarmed(self.chosen(scenario, harmful=True))

    def false_positives(self, scenario: str = CLEAN) -> Interval:
        """Share of the chips without faults (``clean`` or ``varied``) with an alarm in any window; Wilson's interval."""
        return self._alarmed(self.chosen(scenario))

    def false_alarms(self, scenario: str = CLEAN) -> float:
        """Share of the windows of chips without faults that raise an alarm."""
        return float(np.mean(np.concatenate([run.distances for run in self.chosen(scenario)]) > self.test.limit))

    def roc(self, scenario: str | None = None, *, clean: str = CLEAN) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(false, true): shares of clean chips and of harmful maps with an alarm, the limit moved from above all to below all."""
        good = np.array([max(run.distances) for run in self.chosen(clean)])
        bad = np.array([max(run.distances) for run in self.chosen(scenario, harmful=True)])
        if not good.size or not bad.size:
            raise InputError("scenario: expected clean chips and harmful maps, got none of one of them")
        limits = np.concatenate([[np.inf], np.unique(np.concatenate([good, bad]))[::-1], [-np.inf]])
        shares = [(np.asarray(values)[:, None] >= limits).mean(0) for values in (good, bad)]
        shares[0][0] = shares[1][0] = 0.0
        return shares[0], shares[1]

    def area(self, scenario: str | None = None, *, clean: str = CLEAN) -> float:
        """Under the ROC: the probability that a harmful map is further off than a clean chip, ties counted half."""
        false, true = self.roc(scenario, clean=clean)
        return float(np.trapezoid(true, false))


def self_test(
    emulation: Emulation,
    data: tuple[torch.Tensor, torch.Tensor],
    scenarios: Mapping[str, BitFaults | Sequence[BitFaults]],
    test: FingerprintTest,
    *,
    maps: int = 100,
    windows: int = 8,
    variation: float = 0.0,
    harm: float = 0.01,
    seed: int = 0,
) -> SelfTestResult:
    """Try the test on chips with faults, on clean ones, and on clean ones whose weights vary.

    Args:
        emulation: of a fitted ``SelfTestingNetwork``; faults strike its head as well.
        data: inputs and labels that neither fit nor calibration saw.
        scenarios: name → fault models that work together.
        maps: fault maps of each scenario, and chips without faults of each kind.
        windows: that the test sees of each chip, drawn anew for it.
        variation: standard deviation of a weight over its value on ``varied`` chips (0: none of these).
        harm: share of changed predictions from which on a map is harmful.
        seed: of the maps, the windows and the variation.

    Raises:
        InputError: another kind of module, no labels for the images, a scenario named like the chips without faults, numbers out
            of range.
    """
    module = _self_testing(emulation)
    x, y = data
    if len(x) != len(y) or not len(x):
        raise InputError(f"data: expected as many labels as images and at least one, got {len(x)} images and {len(y)} labels")
    for name, count in (("maps", maps), ("windows", windows)):
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise InputError(f"{name}: expected an integer ≥ 1, got {count!r}")
    for name, share in (("variation", variation), ("harm", harm)):
        if not 0 <= share < 1:
            raise InputError(f"{name}: expected a share from 0 to below 1, got {share!r}")
    for name in scenarios:
        if name in (CLEAN, VARIED):
            raise InputError(f"scenarios: {name!r} names the chips without faults; expected another name")
    emulation.eval()
    golden = _pass(emulation, x, (), 0)
    predicted = golden[0].argmax(-1)

    def run(scenario: str, number: int, found: tuple[torch.Tensor, NDArray[Any], int]) -> SelfTestRun:
        outputs, fingerprints, bits = found
        drawn = _windows(len(x), test.window, windows, seed, scenario, number)
        classes = outputs.argmax(-1)
        return SelfTestRun(
            scenario,
            number,
            float((classes == y).double().mean()),
            float((classes != predicted).double().mean()),
            bits,
            tuple(_distance(fingerprints, test.centre, drawn).tolist()),
        )

    runs = [run(CLEAN, number, golden) for number in range(maps)]
    if variation:
        runs += [run(VARIED, number, found) for number, found in enumerate(_varied(emulation, module, x, variation, maps, seed))]
    for name, faults in scenarios.items():
        models = (faults,) if isinstance(faults, BitFaults) else tuple(faults)
        for number in range(maps):
            key = int(stream(seed, "fingerprint map", name, number).integers(0, 1 << 56))
            runs.append(run(name, number, _pass(emulation, x, models, key)))
    return SelfTestResult(test=test, runs=tuple(runs), golden_accuracy=float((predicted == y).double().mean()), harm=harm)


def _pass(
    emulation: Emulation, x: torch.Tensor, faults: Sequence[BitFaults], seed: int
) -> tuple[torch.Tensor, NDArray[Any], int]:
    """Outputs, fingerprints and faulty bits of one pass."""
    with torch.no_grad(), inject(emulation, faults, seed=seed) as injection:
        outputs, fingerprints = emulation(x)
    return outputs, fingerprints.numpy(), injection.faulty_bits


def _varied(emulation: Emulation, module: SelfTestingNetwork, x: torch.Tensor, variation: float, chips: int, seed: int) -> Any:
    """Passes of chips whose weights are off by a share of their values."""
    kept = [(p, p.detach().clone()) for p in module.parameters()]
    try:
        for number in range(chips):
            rng = stream(seed, "fingerprint variation", number)
            with torch.no_grad():
                for parameter, value in kept:
                    parameter.copy_(value * (1 + variation * torch.from_numpy(rng.standard_normal(value.shape))))
            yield _pass(emulation, x, (), 0)
    finally:
        with torch.no_grad():
            for parameter, value in kept:
                parameter.copy_(value)


# --- what it costs --------------------------------------------------------------------------------------------------------------


@displaying("mac_overhead", "parameter_overhead")
@dataclass(frozen=True, kw_only=True)
class HeadCost:
    """What the head takes, and the network.

    Attributes:
        macs, parameters: of the head.
        network_macs, network_parameters: of the network.
    """

    macs: int
    parameters: int
    network_macs: int
    network_parameters: int

    @property
    def mac_overhead(self) -> float:
        """The head's multiply-accumulates over the network's."""
        return self.macs / self.network_macs

    @property
    def parameter_overhead(self) -> float:
        """The head's parameters over the network's."""
        return self.parameters / self.network_parameters


def head_cost(network: SelfTestingNetwork, inputs: torch.Tensor) -> HeadCost:
    """Multiply-accumulates, as traced for ``inputs``, and parameters of the head and of the network.

    Args:
        network: itself, not the copy that an emulation holds.
        inputs: (images, …).

    Raises:
        InputError: another kind of module.
    """
    from hwsim.tracing.torch import trace

    if not isinstance(network, SelfTestingNetwork):
        raise InputError(f"network: expected a SelfTestingNetwork, got {type(network).__name__}")
    ops = trace(network, inputs, name="self-testing network").ops
    macs = sum(op.macs for op in ops if op.module.startswith("head."))
    return HeadCost(
        macs=macs,
        parameters=sum(p.numel() for p in network.head.parameters()),
        network_macs=sum(op.macs for op in ops) - macs,
        network_parameters=sum(p.numel() for p in network.network.parameters()),
    )
