"""The energy of Loihi against the size of a network: an experiment on silicon, its network, and the two models held against it.

[B] P. Blouw, X. Choo, E. Hunsberger and C. Eliasmith, "Benchmarking keyword spotting efficiency on neuromorphic hardware", NICE
2019 (arXiv 1812.01739): a keyword spotter, 390 features → 256 → 256 → 29 characters, to which N branches ("copies") of ten layers
of 256 neurons are added between its hidden layers; their power on Loihi, before and while it runs. What [B] measures as dynamic
energy holds the embedded x86 (about 70 mW), so that the slope over copies, not the intercept, is the spiking chip.

Stated by the authors, and used here: the sizes, every layer fully connected; ten steps of 1 ms an inference and neurons of at
most 100 Hz (training/nengo_speech_model.py in their repository abr/power_benchmarks; ten steps also in the example "keyword
spotting" of nengo-loihi, which their Loihi script adapts and which has the neurons: 20 ms, refractory 1 ms, amplitude of a spike
0.005); weights even between −0.05 and 0.05 (models.py). The Loihi script itself is not public.

Stated by nobody: how often neurons really fired, and their biases, which decide it: a layer of such weights alone would pass on a
third of its rectified input. ``ACTIVITY_HZ`` is therefore the stated maximum, and ``ACTIVITY_BAND_HZ`` our guess around it: from
half of it, the mean of rates that lie evenly below, to 120 Hz, the highest maximum that nengo-loihi gives neurons by default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from math import exp
from pathlib import Path

import numpy as np

from hwsim.registry import read_spec
from hwsim.scoreboard.target import number, read_rows
from neuromorphic.device import NeuromorphicChip
from neuromorphic.encoders import bernoulli_events
from neuromorphic.network import Neurons, Population, Projection, SpikingNetwork, Synapses
from numerics.errors import InputError, unknown_name

FEATURES, WIDTH, CHARACTERS = 390, 256, 29
LAYERS = 10
STEPS = 10
"""Of an inference."""
DT_S = 1e-3
ACTIVITY_HZ = 100.0
ACTIVITY_BAND_HZ = (50.0, 120.0)
HOST_POWER_W = 0.07
"""Of the embedded x86, which is not in the idle power: "approximately 70mW" ([B], section 2.2.2)."""
WEIGHT, AMPLITUDE = 0.05, 0.005
TAU_S, REFRACTORY_STEPS = 0.02, 1


# --- what was measured ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ScalingRun:
    """One run on silicon.

    Attributes:
        name: of the run.
        copies: added branches; 0: the keyword spotter alone.
        inference_s: time an inference; the host's input and output set it, not the neurons.
        dynamic_j: energy an inference, without what the idle chip takes in that time.
    """

    name: str
    copies: int
    inference_s: float
    dynamic_j: float


def scaling_runs() -> tuple[tuple[ScalingRun, ...], tuple[ScalingRun, ...]]:
    """The runs of scaled networks, and those of the trained keyword spotter, of ``hwsim/data/measured/loihi_scaling_energy.csv``.

    The trained spotter has no copies, other weights, and its first layer on two cores instead of eight.
    """
    scaled: list[ScalingRun] = []
    spotter: list[ScalingRun] = []
    path = Path(str(resources.files("hwsim") / "data" / "measured" / "loihi_scaling_energy.csv"))
    for row in read_rows(path):
        inference_s = 1 / number(row["inferences_per_s"], "inferences_per_s")
        joules = (number(row["running_w"], "running_w") - number(row["idle_w"], "idle_w")) * inference_s
        copies = int(number(row["copies"], "copies")) if row["layers"] else 0
        (scaled if row["layers"] else spotter).append(ScalingRun(row["run"], copies, inference_s, joules))
    return tuple(scaled), tuple(spotter)


def slope_j(copies: Sequence[int], joules: Sequence[float]) -> float:
    """Energy that a copy adds to an inference: the slope of the least-squares line.

    Raises:
        InputError: fewer than two sizes, or another number of energies.
    """
    if len(copies) != len(joules) or len(set(copies)) < 2:
        raise InputError(
            f"copies: expected two sizes or more, each with an energy, got {list(copies)} and {len(joules)} energies"
        )
    return float(np.polyfit(np.asarray(copies, np.float64), np.asarray(joules, np.float64), 1)[0])


# --- the network ------------------------------------------------------------------------------------------------------


def scaled_network(copies: int, *, layers: int = LAYERS, activity_hz: float = ACTIVITY_HZ, seed: int = 0) -> SpikingNetwork:
    """The keyword spotter with added branches.

    Weights are random as the authors'. A constant current keeps every neuron at the activity, from a random phase, and what it
    receives moves its spikes by a step or so. Where the period is no whole number of steps, neurons of both neighbouring periods
    make the mean rate.

    Args:
        copies: branches between the first and the second hidden layer; 0: none.
        layers: of each branch.
        activity_hz: mean firing rate of hidden neurons, 20 to 500.
        seed: of weights and phases.

    Returns:
        Populations ``features`` (input), ``first``, ``copy0_layer0`` …, ``second`` and ``characters`` (voltages).

    Raises:
        InputError: a number out of range.
    """
    for name, value, least in (("copies", copies, 0), ("layers", layers, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"{name}: expected an integer ≥ {least}, got {value!r}")
    _check_activity(activity_hz)
    rng = np.random.default_rng(seed)
    keep = exp(-DT_S / TAU_S)
    gain = (1 - keep) * AMPLITUDE / DT_S
    populations = [Population("features", (FEATURES,), Neurons("input"))]
    projections = []

    def layer(name: str, sources: Sequence[str], neurons: Neurons, size: int = WIDTH) -> str:
        populations.append(Population(name, (size,), neurons))
        for source in sources:
            into = FEATURES if source == "features" else WIDTH
            synapses = Synapses.from_dense(rng.uniform(-WEIGHT, WEIGHT, (size, into)))
            projections.append(Projection(f"{source}-{name}", source, name, synapses, 1))
        return name

    def hidden(name: str, sources: Sequence[str]) -> str:
        return layer(name, sources, _neurons(activity_hz, keep, gain, rng))

    first = hidden("first", ["features"])
    ends = []
    for copy in range(copies):
        end = first
        for index in range(layers):
            end = hidden(f"copy{copy}_layer{index}", [end])
        ends.append(end)
    second = hidden("second", ends or [first])
    layer("characters", [second], Neurons("readout", decay_v=keep, gain=gain), CHARACTERS)
    notes = (f"every hidden neuron is kept at {activity_hz:g} Hz on average by a constant current",)
    return SpikingNetwork(
        f"keyword_spotter_{copies}x{layers}", tuple(populations), tuple(projections), ("characters",), DT_S, notes
    )


def _check_activity(activity_hz: float) -> None:
    # Below, what neurons receive decides whether they fire, not their current; above, they are refractory.
    if not 20 <= activity_hz <= 500:
        raise InputError(f"activity_hz: expected 20 to 500, got {activity_hz!r}")


def _neurons(activity_hz: float, keep: float, gain: float, rng: np.random.Generator) -> Neurons:
    """Leaky neurons that fire every whole period; the share of the longer one makes the mean rate."""
    rate = activity_hz * DT_S
    short = int(np.floor(1 / rate + 1e-9))
    share = (1 / short - rate) / (1 / short - 1 / (short + 1))
    rising = np.full(WIDTH, short) - REFRACTORY_STEPS
    rising[rng.permutation(WIDTH)[: round(share * WIDTH)]] += 1
    # The threshold, 1, is passed half a step before the step that counts, so that little moves a spike by more than a step.
    current = 1 / (1 - keep ** (rising - 0.5))
    phase = np.floor(rng.random(WIDTH) * rising)
    return Neurons(
        "integrate_and_fire", decay_v=keep, gain=gain, bias=current * (1 - keep), v_init=current * (1 - keep**phase),
        refractory_steps=REFRACTORY_STEPS,
    )  # fmt: skip


# --- what the chip makes of it ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InferenceEnergy:
    """Energy of an inference on the chip alone, by its event set, with nothing fitted.

    Attributes:
        copies: of the network.
        event_set: whose energies.
        activity_hz: mean firing rate of hidden neurons in the run.
        energy_j: component (``chip_costs``) → joules an inference.
        updates_j: of all that, what goes into updates of neurons, whether they fire or not; the rest is as the activity.
        time_s: that the chip needs for an inference.
        cores: that hold neurons.
        unknown: figures that the set lacks though their events happened; energies are lower bounds by these.
    """

    copies: int
    event_set: str
    activity_hz: float
    energy_j: Mapping[str, float]
    updates_j: float
    time_s: float
    cores: int
    unknown: tuple[str, ...]

    @property
    def total_j(self) -> float:
        """Of all components."""
        return sum(self.energy_j.values())

    def at(self, activity_hz: float) -> float:
        """Joules an inference at another activity: spikes, and what they cause, are proportional to it."""
        return self.updates_j + (self.total_j - self.updates_j) * activity_hz / self.activity_hz


def loihi(event_set: str = "davies2018") -> NeuromorphicChip:
    """Loihi with one of its event sets.

    Raises:
        InputError: an unknown set.
    """
    data = read_spec(NeuromorphicChip.bundled()["loihi"])
    if event_set not in data["event_sets"]:
        raise unknown_name("event_set", event_set, data["event_sets"])
    return NeuromorphicChip.from_data({**data, "event_set": event_set}, source="loihi")


def inference_energies(
    copies: int,
    *,
    event_sets: Sequence[str] = ("davies2018", "sanafe2"),
    layers: int = LAYERS,
    activity_hz: float = ACTIVITY_HZ,
    inferences: int = 4,
    seed: int = 0,
) -> dict[str, InferenceEnergy]:
    """Run a scaled network and see what an inference costs, by each event set.

    Features come as spikes at the same activity. A layer is on one core of its own, as the memory of a core holds one; the second
    layer is on as many as its synapses need. The first inference is not counted.

    Args:
        copies, layers, activity_hz, seed: of ``scaled_network``; the seed is that of the inputs and the placement, too.
        event_sets: names of sets.
        inferences: that are counted.

    Raises:
        InputError: as of ``scaled_network``; no inference; a network that does not fit.
    """
    from neuromorphic.chip.costs import chip_costs

    if isinstance(inferences, bool) or not isinstance(inferences, int) or inferences < 1:
        raise InputError(f"inferences: expected an integer ≥ 1, got {inferences!r}")
    network = scaled_network(copies, layers=layers, activity_hz=activity_hz, seed=seed)
    steps = STEPS * (inferences + 1)
    inputs = {"features": bernoulli_events(np.full(FEATURES, activity_hz * DT_S), seed=seed, steps=steps)}
    counted = slice(STEPS, None)
    ran = None
    found = {}
    for name in event_sets:
        device = loihi(name)
        if ran is None:
            numbers = device.quantise(network)
            mapping = device.map(numbers, neurons_per_core=WIDTH, seed=seed)
            ran = device.run(numbers, inputs, mapping=mapping, steps=steps)
        costs = chip_costs(ran.activity, replace(ran.mapping, spec=device.spec))
        events = device.spec.events
        updates = sum(
            float(costs.counts[event][counted].sum()) * (events.energy_pj(event) or 0.0)
            for event in ("neuron_update_active", "neuron_update_inactive")
        )
        hidden = network.neurons - CHARACTERS
        rate = float(costs.counts["neuron_spike"][counted].sum()) / (hidden * STEPS * inferences * DT_S)
        begin = costs.schedule.begin_s[STEPS]
        found[name] = InferenceEnergy(
            copies=copies,
            event_set=name,
            activity_hz=rate,
            energy_j={part: float(joules[counted].sum()) / inferences for part, joules in costs.energy_j.items()},
            updates_j=updates * 1e-12 / inferences,
            time_s=float(costs.time_s - begin) / inferences,
            cores=int(ran.mapping.used.size),
            unknown=costs.unknown,
        )
    return found


# --- against the measurements -----------------------------------------------------------------------------------------


def predicted_slopes(
    runs: Sequence[ScalingRun], chips: Sequence[InferenceEnergy], *, activities_hz: Sequence[float] = ()
) -> list[dict[str, float | str]]:
    """The slope over copies as the chip predicts it, nothing fitted, beside that of the runs.

    Args:
        runs: measured.
        chips: of one event set, for the sizes of the runs.
        activities_hz: assumed; ``ACTIVITY_HZ`` and the ends of its band by default.

    Returns:
        A row an activity: ``event_set``, ``activity_hz``, ``predicted_j``, ``measured_j``, ``error_percent``; and the same of
        ``chip_j``, the measured slope without ``HOST_POWER_W`` for the time of each run, which is a little longer with more
        copies.

    Raises:
        InputError: a size that ``chips`` lack.
    """
    by_size = _by_size(chips, [run.copies for run in runs])
    sizes = [run.copies for run in runs]
    measured = slope_j(sizes, [run.dynamic_j for run in runs])
    chip_only = slope_j(sizes, [run.dynamic_j - HOST_POWER_W * run.inference_s for run in runs])
    rows: list[dict[str, float | str]] = []
    for activity in activities_hz or (ACTIVITY_BAND_HZ[0], ACTIVITY_HZ, ACTIVITY_BAND_HZ[1]):
        predicted = slope_j(sizes, [by_size[size].at(activity) for size in sizes])
        rows.append(
            {
                "event_set": chips[0].event_set, "activity_hz": activity, "predicted_j": predicted, "measured_j": measured,
                "error_percent": 100 * (predicted / measured - 1), "chip_j": chip_only,
                "chip_error_percent": 100 * (predicted / chip_only - 1),
            }
        )  # fmt: skip
    return rows


@dataclass(frozen=True)
class ScalingCalibration:
    """Two numbers fitted to runs of some sizes. They describe the board and the network of this experiment, not the chip.

    Attributes:
        event_set: whose energies are not touched.
        host_power_w: fitted: beyond idle, for the whole time of an inference: the x86, and what else does not grow with copies.
        activity_hz: fitted: mean firing rate of hidden neurons; it also takes in what the event set lacks for each copy.
        inference_s: mean time of the runs, measured; the little more that copies take is in ``activity_hz``.
        sizes: copies of the runs.
        points: runs.
    """

    event_set: str
    host_power_w: float
    activity_hz: float
    inference_s: float
    sizes: tuple[int, ...]
    points: int

    def energy_j(self, chip: InferenceEnergy, *, inference_s: float | None = None) -> float:
        """Dynamic energy of an inference of another size; ``inference_s``: its time, that of the fitted runs by default.

        Raises:
            InputError: energies of another event set, a time that is not > 0.
        """
        if chip.event_set != self.event_set:
            raise InputError(f"chip: expected energies of event set {self.event_set!r}, got {chip.event_set!r}")
        seconds = self.inference_s if inference_s is None else inference_s
        if not seconds > 0:
            raise InputError(f"inference_s: expected seconds > 0, got {inference_s!r}")
        return self.host_power_w * seconds + chip.at(self.activity_hz)


def calibrate_scaling(runs: Sequence[ScalingRun], chips: Sequence[InferenceEnergy]) -> ScalingCalibration:
    """Fit host power and activity to runs, by least squares.

    Args:
        runs: of two sizes or more.
        chips: of one event set, for those sizes and maybe others.

    Raises:
        InputError: one size only, a size that ``chips`` lack, energies of several event sets.
    """
    sizes = sorted({run.copies for run in runs})
    by_size = _by_size(chips, sizes)
    if len(sizes) < 2:
        raise InputError(f"runs: expected two sizes or more for two parameters, got {sizes}")
    inference_s = float(np.mean([run.inference_s for run in runs]))
    used = [by_size[run.copies] for run in runs]
    fixed = np.array([one.at(0.0) for one in used])
    # In microjoules both columns and the answer are of one size.
    columns = np.column_stack([np.full(len(used), inference_s), [(one.at(1.0) - one.at(0.0)) for one in used]]) * 1e6
    measured = (np.array([run.dynamic_j for run in runs]) - fixed) * 1e6
    power, activity = np.linalg.lstsq(columns, measured, rcond=None)[0]
    return ScalingCalibration(used[0].event_set, float(power), float(activity), inference_s, tuple(sizes), len(used))


def left_out_errors(runs: Sequence[ScalingRun], chips: Sequence[InferenceEnergy]) -> dict[int, float]:
    """Size → error in percent of its mean energy, with the calibration fitted to the other sizes.

    Raises:
        InputError: as of ``calibrate_scaling``; fewer than three sizes.
    """
    by_size = _by_size(chips, [run.copies for run in runs])
    found = {}
    for size in sorted({run.copies for run in runs}):
        calibration = calibrate_scaling([run for run in runs if run.copies != size], chips)
        measured = float(np.mean([run.dynamic_j for run in runs if run.copies == size]))
        found[size] = 100 * (calibration.energy_j(by_size[size]) / measured - 1)
    return found


def _by_size(chips: Sequence[InferenceEnergy], sizes: Sequence[int]) -> dict[int, InferenceEnergy]:
    sets = sorted({one.event_set for one in chips})
    if len(sets) != 1:
        raise InputError(f"chips: expected energies of one event set, got {', '.join(sets) or 'none'}")
    found = {one.copies: one for one in chips}
    missing = sorted(set(sizes) - set(found))
    if missing:
        raise InputError(
            f"chips: expected energies with {missing[0]} copies, got those with {', '.join(map(str, sorted(found)))}"
        )
    return found
