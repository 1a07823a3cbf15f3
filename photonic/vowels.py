"""Vowels on a coherent processor: the task of Y. Shen et al., Nature Photonics 11, 441, 2017 ([S]), its networks and its errors.

Two networks, both of 4 neurons and 4 classes, as many as the chip has modes:

- ``intensity``: what [S] ran. Four coefficients, the first, as amplitudes in 0 to 1, a 4×4 matrix, photodiodes, a saturable
  absorber (computed, as there), a 4×4 matrix, photodiodes; the brightest output is the answer. No biases; no signs.
- ``field``: a conventional network. All nine coefficients and a constant 1, tanh neurons with a bias, homodyne detectors; 4×10
  matrices go through the 4×4 processor in three tiles.

[S] does not say which four vowels, how coefficients are scaled, the absorber's transmission without light (here 0.1), nor how it
was trained. Figures of its chip: phases set to σ ≈ 5·10⁻³ rad by 16-bit drivers, photodetection noise of σ ≈ 0.1 %, thermal
crosstalk, of which it gives no number. The samples are those of D. Deterding, "Speaker normalisation for automatic speech
recognition", PhD thesis, Cambridge, 1989.

>>> found = accuracies("random", "field", 2, {"digital": None, "the paper's": Errors()}, restarts=1, steps=100)
>>> [len(values) for values in found.values()]
[2, 2]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from math import e
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch

from numerics._fields import check_integer
from numerics.errors import InputError
from photonic._numbers import is_one_of, number, one_of
from photonic.detection import Converter, Homodyne, Modulator, Receiver, ThermalNoise
from photonic.fabrication import fabricate
from photonic.imperfections import ExponentialKernel, Ideal, Imperfections, PhaseError, PhaseQuantisation, ThermalCrosstalk
from photonic.mesh import Mesh
from photonic.svd_engine import LinearMesh, SvdEngine, SvdTile

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Indices = npt.NDArray[np.int64]

Kind = Literal["intensity", "field"]
How = Literal["random", "speakers"]
"""Halves of the samples at random, or without a speaker in both."""

CORNERS = ("hid", "hAd", "had", "hud")
"""Of the vowel chart, which is why they were taken: those of heed, had, hard and who'd in the file's spelling."""
SIZE, DARK = 4, 0.1
PHASE_RAD, DETECTION, DRIVER_BITS = 5e-3, 1e-3, 16
OHM, BANDWIDTH_HZ, RESPONSIVITY = 50.0, 1e9, 1.0


def lines() -> list[str]:
    """The file of the samples, without its comments: a head, and a line for each of 990."""
    text = resources.files("photonic").joinpath("data/vowel_deterding.csv").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if not line.startswith("#")]


@cache
def samples(vowels: tuple[str, ...] = CORNERS) -> tuple[Indices, Floats, Indices]:
    """(speakers, coefficients (samples, 9), classes): the speaker, the first column, is for splitting alone.

    Raises:
        InputError: a vowel that is not there.
    """
    table = [line.split(",") for line in lines()]
    for vowel in vowels:
        one_of("vowels", vowel, sorted({row[-1] for row in table[1:]}))
    rows = [row for row in table[1:] if row[-1] in vowels]
    speakers = np.array([int(row[0]) for row in rows])
    coefficients = np.array([[float(value) for value in row[1:10]] for row in rows])
    return speakers, coefficients, np.array([vowels.index(row[10]) for row in rows])


def splits(how: How, count: int, *, seed: int = 0) -> Iterator[tuple[Indices, Indices]]:
    """(training, test) indices. ``random``: 180 and 180. ``speakers``: 180 of eight speakers, all 168 of the other seven; 180 and
    180 cannot be had without a speaker in both, since each has 24 samples.

    Raises:
        InputError: another ``how``, no splits, a seed that is no integer ≥ 0.
    """
    one_of("how", how, get_args(How))
    check_integer("count", count, 1)
    check_integer("seed", seed, 0)
    speakers, rng = samples()[0], np.random.default_rng(seed)
    for _ in range(count):
        if how == "random":
            order = rng.permutation(len(speakers))
            yield order[:180], order[180:]
        else:
            mine = np.isin(speakers, rng.permutation(15)[:8])
            yield rng.permutation(np.flatnonzero(mine))[:180], np.flatnonzero(~mine)


def absorbed(intensity: Floats) -> Floats:
    """Light behind a saturable absorber, in units of 1/(σ·τ): u·T with u = ½·ln(T/T₀)/(1 − T) ([S], equation 1; A. C. Selden,
    Br. J. Appl. Phys. 18, 743, 1967), which Wright's ω solves: u·T = ½·ω(ln(2·T₀·u) + 2u)."""
    from scipy.special import wrightomega

    with np.errstate(divide="ignore"):
        return np.asarray(wrightomega(np.log(2 * DARK * intensity) + 2 * intensity) / 2, np.float64)


class _Absorbed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, intensity: Any) -> Any:
        out = torch.from_numpy(absorbed(intensity.numpy()))
        ctx.save_for_backward(intensity, out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        intensity, out = ctx.saved_tensors
        return gradients[0] * out / (1 + 2 * out) * (1 / intensity + 2)


@dataclass(frozen=True, eq=False)
class Network:
    """A trained network.

    Attributes:
        kind: ``intensity`` or ``field``.
        first: (4, inputs).
        second: (4, hidden).
        inputs: (inputs, samples) of all samples.
        training, test: indices of its split.
    """

    kind: Kind
    first: Floats
    second: Floats
    inputs: Floats
    training: Indices
    test: Indices


Layer = Callable[["Floats"], "Floats"]
"""(inputs, batch) to what detectors say, (4, batch): intensities or fields."""


def hidden(kind: Kind, seen: Floats) -> Floats:
    """What goes into the second layer."""
    if kind == "intensity":
        return np.sqrt(absorbed(np.maximum(seen, 0)))
    return np.concatenate([np.tanh(seen), np.ones((1, seen.shape[1]))])


def accuracy(network: Network, layers: list[Layer], where: Indices) -> float:
    """Of two layers on the samples ``where``."""
    out = layers[1](hidden(network.kind, layers[0](network.inputs[:, where])))
    return float((out.argmax(axis=0) == samples()[2][where]).mean())


def encoded(kind: Kind, coefficients: Floats, training: Indices) -> Floats:
    """(inputs, samples), scaled by the training samples alone."""
    if kind == "intensity":
        four = coefficients[:, :SIZE]
        low, high = four[training].min(axis=0), four[training].max(axis=0)
        return np.asarray(np.clip((four - low) / (high - low), 0, 1).T)
    mean, spread = coefficients[training].mean(axis=0), coefficients[training].std(axis=0)
    return np.concatenate([((coefficients - mean) / spread).T, np.ones((1, len(coefficients)))])


def train(kind: Kind, how: How, count: int, *, seed: int = 0, restarts: int = 4, steps: int = 300) -> list[Network]:
    """``count`` networks, one for each split: all at once, each the best on its training samples of ``restarts``.

    Raises:
        InputError: as ``splits``; another kind, no restarts or steps.
    """
    one_of("kind", kind, get_args(Kind))
    check_integer("restarts", restarts, 1)
    check_integer("steps", steps, 1)
    _, coefficients, classes = samples()
    parts = list(splits(how, count, seed=seed))
    everything = [encoded(kind, coefficients, training) for training, _ in parts]
    chosen = np.stack([one[:, training] for one, (training, _) in zip(everything, parts, strict=True)])
    x = torch.from_numpy(chosen).repeat_interleave(restarts, 0)
    labels = torch.from_numpy(np.stack([classes[training] for training, _ in parts])).repeat_interleave(restarts, 0)
    generator = torch.Generator().manual_seed(seed)
    wide, between = (SIZE, SIZE) if kind == "intensity" else (10, SIZE + 1)
    first = torch.randn(len(x), SIZE, wide, generator=generator, dtype=torch.float64) / 2
    second = torch.randn(len(x), SIZE, between, generator=generator, dtype=torch.float64) / 2
    weights = [first.requires_grad_(), second.requires_grad_()]
    decay = 0.0 if kind == "intensity" else 1e-3
    optimizer = torch.optim.Adam(weights, lr=0.05)
    rate = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        seen = weights[0] @ x
        if kind == "intensity":
            light: Any = _Absorbed.apply(seen.square() + 1e-9)
            out = (weights[1] @ light.sqrt()).square()
        else:
            out = weights[1] @ torch.cat([torch.tanh(seen), torch.ones_like(seen[:, :1])], 1)
        loss = torch.nn.functional.cross_entropy(out, labels, reduction="none").mean(1)
        (loss.sum() + decay * sum(w.square().sum() for w in weights)).backward()
        optimizer.step()
        rate.step()
    best = loss.detach().reshape(count, restarts).argmin(1) + restarts * torch.arange(count)
    found = [w.detach()[best].numpy() for w in weights]
    return [
        Network(kind, first, second, inputs, *part)
        for first, second, inputs, part in zip(found[0], found[1], everything, parts, strict=True)
    ]


# --- layers ---------------------------------------------------------------------------------------------------------------------


def digital(network: Network) -> list[Layer]:
    """Both layers in double precision."""

    def layer(matrix: Floats) -> Layer:
        return lambda x: (matrix @ x) ** 2 if network.kind == "intensity" else matrix @ x

    return [layer(network.first), layer(network.second)]


def engines(network: Network) -> list[SvdEngine]:
    """Both matrices on triangles of 4 modes, as on the chip."""
    return [SvdEngine.program(matrix, size=SIZE, mesh="triangular") for matrix in (network.first, network.second)]


def ideal(network: Network) -> list[Layer]:
    """Both layers on meshes without errors."""

    def layer(engine: SvdEngine) -> Layer:
        return lambda x: np.abs(engine.apply(x)) ** 2 if network.kind == "intensity" else engine.apply(x).real

    return [layer(engine) for engine in engines(network)]


@dataclass(frozen=True)
class Errors:
    """Of the chip; by default those that [S] has numbers for.

    Attributes:
        phase_rad: standard deviation of each phase.
        detection: noise over the largest result.
        bits: of the converters that drive phases and modulators.
        heat: share of a heater's phase that a shifter one pitch away gets, falling by e with each further pitch.

    Raises:
        InputError: a number out of range.
    """

    phase_rad: float = PHASE_RAD
    detection: float = DETECTION
    bits: int = DRIVER_BITS
    heat: float = 0.0

    def __post_init__(self) -> None:
        number("phase_rad", self.phase_rad)
        number("detection", self.detection, above=True)
        check_integer("bits", self.bits, 2)
        number("heat", self.heat)

    @property
    def imperfections(self) -> Imperfections:
        """Of a mesh."""
        heat = ThermalCrosstalk(ExponentialKernel(min(self.heat * e, 1.0), 1.0), 1.0, 1.0) if self.heat else Ideal()
        return Imperfections(PhaseError(self.phase_rad), PhaseQuantisation(self.bits), crosstalk=heat)


def fabricated(engine: SvdEngine, errors: Errors, seed: int) -> SvdEngine:
    """Meshes and attenuators, MZIs as well (a = sin θ/2), with phases that are off."""

    def made_of(mesh: LinearMesh, which: int) -> LinearMesh:
        assert isinstance(mesh, Mesh)
        return fabricate(mesh, errors.imperfections, seed=100 * seed + which)

    made = engine.with_meshes(made_of)
    rng = np.random.default_rng([seed, 1])

    def turned(tile: SvdTile) -> SvdTile:
        off = errors.phase_rad * rng.standard_normal(engine.size)
        return replace(tile, attenuation=np.abs(np.sin(np.arcsin(tile.attenuation) + off / 2)))

    return replace(made, tiles=tuple(tuple(turned(tile) for tile in row) for row in made.tiles))


def chip(network: Network, errors: Errors, seed: int) -> list[Layer]:
    """Both layers with converters, fabricated meshes and detectors: thermal noise of ``errors.detection`` of what is largest in
    training, where the scale of inputs is taken as well."""
    plain, ins = engines(network), [network.inputs[:, network.training]]
    ins.append(hidden(network.kind, ideal(network)[0](ins[0])))
    return [
        _detected(network.kind, engine, fabricated(engine, errors, 2 * seed + k), errors, given, 2 * seed + k)
        for k, (engine, given) in enumerate(zip(plain, ins, strict=True))
    ]


def _detected(kind: Kind, engine: SvdEngine, made: SvdEngine, errors: Errors, given: Floats, seed: int) -> Layer:
    thermal = ThermalNoise(OHM)
    receiver = Receiver(RESPONSIVITY, BANDWIDTH_HZ, thermal=thermal)
    deviation = np.sqrt(thermal.density_a2_per_hz * BANDWIDTH_HZ)
    largest = np.abs(given).max()
    amplitude = np.abs(engine.apply(given)).max() / (engine.gain * largest)
    converter = Converter(errors.bits, 1.0, signed=True)
    if kind == "intensity":
        power_w = deviation / (errors.detection * RESPONSIVITY * amplitude**2)
    else:
        # Homodyne: a difference of two photodiodes, over R·√local; the local oscillator is as strong as the light.
        power_w = np.sqrt(2) * deviation / (errors.detection * RESPONSIVITY * amplitude)
    modulator = Modulator(power_w, dac=converter)

    def layer(x: Floats) -> Floats:
        light = made.apply(modulator.modulate(x / largest).field) * largest
        if kind == "intensity":
            seen = receiver.currents(np.abs(light / (engine.gain * largest)) ** 2, seed=seed) / (RESPONSIVITY * power_w)
            return seen * (engine.gain * largest) ** 2
        seen = Homodyne(power_w, receiver).amplitudes(light / (engine.gain * largest), seed=seed)
        return seen.real / np.sqrt(power_w) * engine.gain * largest

    return layer


def accuracies(
    how: How,
    kind: Kind,
    count: int,
    cases: Mapping[Any, Errors | Literal["ideal"] | None],
    *,
    seed: int = 0,
    restarts: int = 4,
    steps: int = 300,
) -> dict[Any, Floats]:
    """Case → (count,) accuracies on test samples.

    Args:
        how: samples are split.
        kind: of network.
        count: of splits; each has a network and a chip of its own.
        cases: name → None (digital), ``ideal`` meshes, or errors of a chip.
        seed: of splits and first weights.
        restarts, steps: of training.

    Raises:
        InputError: as ``train``; a case that is none.
    """
    is_one_of("cases", cases, Mapping)
    for name, case in cases.items():
        if not (case is None or case == "ideal" or isinstance(case, Errors)):
            raise InputError(f"cases: {name}: expected None, 'ideal' or Errors, got {type(case).__name__}")
    found: dict[Any, list[float]] = {name: [] for name in cases}
    for which, network in enumerate(train(kind, how, count, seed=seed, restarts=restarts, steps=steps)):
        for name, case in cases.items():
            if isinstance(case, Errors):
                layers = chip(network, case, which)
            else:
                layers = digital(network) if case is None else ideal(network)
            found[name].append(accuracy(network, layers, network.test))
    return {name: np.array(values) for name, values in found.items()}
