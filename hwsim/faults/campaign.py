"""Fault campaigns: what is tried, how many trials it takes for a stated margin, and a run that survives whatever stops it.

Two kinds. With ``SingleBits`` each trial makes one bit fail for one image, drawn from all bits of the network in strata of layer
and bit. With ``BitFaults`` each trial is one fault map, and the network's score over all images is what it comes to.
"""

from __future__ import annotations

import hashlib
import pickle
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.faults.looks import LookPlan
from hwsim.faults.network import METRICS, FaultSite, Metric, NetworkUnderTest, Place
from hwsim.faults.results import CampaignResult, mean_score
from hwsim.faults.sampling import SamplingPlan, Stratum
from hwsim.faults.statistics import Interval, MeanMethod, Moments, mean_interval, stratified_proportion
from hwsim.jobs import JobStore, RunSummary, Study, run_study
from numerics.errors import InputError, unknown_name
from numerics.faults import BitFaults, Protection

if TYPE_CHECKING:
    import torch

    from numerics.emulation import Emulation
    from numerics.faults.models import FaultKind
    from numerics.recipes import Recipe

FIRST_BITS, FIRST_MAPS = 400, 30
"""Trials at the first look: single bits, and fault maps of each scenario."""

BATCH_BITS, BATCH_BITS_INCREMENTAL, BATCH_MAPS = 64, 1024, 4
"""Trials that a worker is given at a time: about a second's work at most."""


@dataclass(frozen=True, kw_only=True)
class SingleBits:
    """One faulty bit a trial.

    Attributes:
        targets: roles of the tensors whose bits fail: ``weight``, ``activation``, ``kv_cache``, ``elementwise``.
        kind: as in ``BitFaults``.
        modules: pattern of the modules' paths.
        bits: which bits of a code: None for all, a field, or positions.
        allocation: of the trials to the strata: ``proportional`` to their bits, or ``equal``. Estimates weigh strata by their
            bits either way.
    """

    targets: tuple[str, ...] = ("weight", "activation")
    kind: FaultKind = "flip"
    modules: str = "*"
    bits: str | tuple[int, ...] | None = None
    allocation: str = "proportional"

    def __post_init__(self) -> None:
        known = ("weight", "activation", "kv_cache", "elementwise")
        if not self.targets:
            raise InputError("targets: expected at least one role, got none")
        for target in self.targets:
            if target not in known:
                raise unknown_name("targets", target, known)
        BitFaults(kind=self.kind, count=1)
        if self.allocation not in ("proportional", "equal"):
            raise unknown_name("allocation", self.allocation, ("proportional", "equal"))


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


@dataclass
class _Bench:
    """A network under test with the trials that it is put to."""

    subject: _Subject
    network: NetworkUnderTest
    sites: Sequence[FaultSite] = ()
    plan: SamplingPlan | None = None

    @classmethod
    def of(cls, subject: _Subject) -> _Bench:
        network = subject.network()
        if subject.single is None:
            return cls(subject, network)
        sites = _sites(network, subject.single)
        return cls(subject, network, sites, _sampling(sites, subject.single, network.images, subject.seed))

    @cached_property
    def stratum_sites(self) -> list[int]:
        """The site of each stratum of the plan."""
        assert self.plan is not None
        at = {_name(site): number for number, site in enumerate(self.sites)}
        return [at[stratum.layer] for stratum in self.plan.strata]

    def places(self, trials: range) -> list[Place]:
        """What so many trials try."""
        assert self.plan is not None
        assert self.subject.single is not None
        drawn = self.plan.trials(trials.start, trials.stop)
        kind = self.subject.single.kind
        return [
            Place(self.stratum_sites[s], e, b, i, kind)
            for s, e, b, i in zip(*(v.tolist() for v in (drawn.strata, drawn.elements, drawn.bits, drawn.images)), strict=True)
        ]


def _name(site: FaultSite) -> str:
    return f"{site.layer}/{site.key.role}"


def _sites(network: NetworkUnderTest, single: SingleBits) -> list[FaultSite]:
    from fnmatch import fnmatchcase

    found = [site for site in network.sites(single.targets) if fnmatchcase(site.key.module, single.modules)]
    if not found:
        raise InputError(f"faults: the network has no {' or '.join(single.targets)} in modules that match {single.modules!r}")
    return found


def _sampling(sites: Sequence[FaultSite], single: SingleBits, images: int, seed: int) -> SamplingPlan:
    from numerics.faults import bit_positions

    strata = [Stratum(_name(site), bit, site.elements) for site in sites for bit in bit_positions(site.format, single.bits)]
    return SamplingPlan(tuple(strata), images=images, seed=seed, allocation=single.allocation)


def _set_up(subject: bytes) -> _Bench:
    return _Bench.of(pickle.loads(subject))


def _run_bits(bench: _Bench, trials: range) -> list[dict[str, Any]]:
    outcomes = bench.network.run_places(bench.sites, bench.places(trials), protections=bench.subject.protections)
    return [{"outcome": o.outcome, "changed": int(o.changed), "score": o.score} for o in outcomes]


def _run_maps(bench: _Bench, trials: range) -> list[dict[str, Any]]:
    subject = bench.subject
    rows = []
    for trial in trials:
        repetition, which = divmod(trial, len(subject.scenarios))
        _, faults = subject.scenarios[which]
        found = bench.network.run_map(faults, protections=subject.protections, seed=map_seed(subject.seed, repetition))
        rows.append(asdict(found))
    return rows


def map_seed(seed: int, repetition: int) -> int:
    """The seed of a fault map: all scenarios of a repetition share it."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{repetition}".encode(), digest_size=7).digest(), "little")


class Campaign:
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
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise InputError(f"seed: expected an integer ≥ 0, got {seed!r}")
        if interval not in ("bernstein", "student"):
            raise unknown_name("interval", interval, ("bernstein", "student"))
        inputs, labels = data if isinstance(data, tuple | list) and len(data) == 2 else (data, None)
        single = faults if isinstance(faults, SingleBits) else None
        scenarios = () if isinstance(faults, SingleBits) else _scenarios(faults)
        guards = (protections,) if isinstance(protections, Protection) else tuple(protections)
        _check_metric(metric)
        self.subject = _Subject(_emulated(model, recipe, inputs), inputs, labels, metric, batch, single, scenarios, guards, seed)
        self.interval = interval
        self.bench = _Bench.of(self.subject)
        plan = self.bench.plan
        population = None if plan is None else plan.limit
        most = [size for size in (maximum, population) if size is not None]
        begin = first if first is not None else FIRST_MAPS if plan is None else FIRST_BITS
        # Scores vary little from map to map, so that a campaign over maps may well end early, and its looks are alike.
        self.looks = LookPlan(
            margin=margin, confidence=confidence, first=min([begin, *most]), population=population,
            maximum=None if maximum is None else min(most), spending="pocock" if plan is None else "obrien_fleming",
        )  # fmt: skip
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
    def _each(self) -> int:
        """Trials that count as one towards a look: one map of every scenario."""
        return max(1, len(self.subject.scenarios))

    @property
    def whole_passes_because(self) -> str:
        """Why each fault takes a pass of the emulation; empty where faults are run on what they change."""
        if self.subject.single is None:
            return "faults: a fault map strikes everything at once"
        if self.subject.protections:
            return "protections: they are checked in passes of the emulation"
        return self.bench.network.whole_passes_because

    @cached_property
    def study(self) -> Study:
        """The campaign as numbered trials."""
        bits = self.subject.single is not None
        looks = tuple(size * self._each for size in self.looks.sizes)
        return Study(
            key=self.description,
            size=looks[-1],
            run=_run_bits if bits else _run_maps,
            setup=partial(_set_up, pickle.dumps(self.subject)),
            looks=looks,
            decide=self._decide,
            batch=BATCH_MAPS if not bits else BATCH_BITS if self.whole_passes_because else BATCH_BITS_INCREMENTAL,
        )

    @cached_property
    def description(self) -> dict[str, Any]:
        """All that the results depend on, as plain data."""
        from hwsim import __version__

        subject, looks = self.subject, self.looks
        metric = (
            subject.metric if isinstance(subject.metric, str) else f"{subject.metric.__module__}.{subject.metric.__qualname__}"
        )
        return {
            "version": __version__,
            "model": fingerprint_of(subject.emulation),
            "recipe": subject.emulation.recipe.name,
            "data": _hash_of([subject.inputs, subject.labels]),
            "images": self.bench.network.images,
            "metric": metric,
            "faults": _plain(subject.single)
            if subject.single is not None
            else {n: [_plain(f) for f in fs] for n, fs in subject.scenarios},
            "protections": [_plain(guard) for guard in subject.protections],
            "seed": subject.seed,
            "batch": subject.batch,
            "looks": {"margin": looks.margin, "confidence": looks.confidence, "sizes": list(looks.sizes)},
            "interval": self.interval,
        }

    def _estimates(self, results: Iterable[tuple[int, Mapping[str, Any]]], level: float, stop: int) -> list[Interval]:
        """What the margin is asked of: the share of changed predictions, or each scenario's mean score, after ``stop`` trials."""
        rows = list(results)
        failed = sorted(set(range(stop)) - {trial for trial, _ in rows})
        if self.bench.plan is not None:
            plan = self.bench.plan
            if not rows:
                return []
            strata = plan.trials(0, stop).strata
            hits, trials, lost = ([0] * len(plan.strata) for _ in range(3))
            for trial, row in rows:
                hits[strata[trial]] += row["changed"]
                trials[strata[trial]] += 1
            for trial in failed:
                lost[strata[trial]] += 1
            found = stratified_proportion(hits, trials, plan.sizes, confidence=level)
            if failed:
                every = [n + more for n, more in zip(trials, lost, strict=True)]
                worst = [n + more for n, more in zip(hits, lost, strict=True)]
                some = [stratified_proportion(n, every, plan.sizes, confidence=level) for n in (hits, worst)]
                found = found.reaching(*some)
            return [found]
        scores: list[list[float]] = [[] for _ in self.subject.scenarios]
        for trial, row in rows:
            scores[trial % self._each].append(row["score"])
        unknown = Counter(trial % self._each for trial in failed)
        return [
            mean_score(values, unknown[number], confidence=level, method=self.interval)
            for number, values in enumerate(scores)
            if len(values) > 1
        ]

    @property
    def _levels(self) -> tuple[float, ...]:
        """Confidence of the interval at each look."""
        strict = self.bench.plan is None and self.interval == "bernstein"
        return self.looks.strict_levels if strict else self.looks.levels

    def _decide(self, results: Iterable[tuple[int, Mapping[str, Any]]], size: int) -> bool:
        look = self.looks.sizes.index(size // self._each)
        found = self._estimates(results, self._levels[look], size)
        return len(found) == max(1, len(self.subject.scenarios)) and all(self.looks.stops(interval) for interval in found)

    # --- running ----------------------------------------------------------------------------------------------------------------

    def run(
        self,
        store: str | Path,
        *,
        workers: int | None = None,
        executor: Executor | None = None,
        scheduler: str | None = None,
        progress: str = "auto",
        retries: int = 2,
    ) -> CampaignResult:
        """Run the campaign into a file, or go on where the file ends; the result is the same however often it was stopped.

        Args:
            store: an SQLite file; made if it is not there.
            workers: processes on this machine; this process alone by default.
            executor: any ``concurrent.futures`` executor.
            scheduler: address of a Dask scheduler, ``tcp://…``.
            progress: ``auto``, ``bar``, ``lines`` or ``silent``.
            retries: further attempts at trials that raised or whose worker died, before they are recorded as failed.

        Raises:
            InputError: a file of another campaign; see ``hwsim.jobs.run_study``.
        """
        self.summary = run_study(
            self.study, store=store, workers=workers, executor=executor, scheduler=scheduler, progress=progress, retries=retries,
            note=_Note(self), label="faults",
        )  # fmt: skip
        return self.result(store)

    summary: RunSummary | None = None
    """How the last run went: trials a second, retries; nothing of it is in the result."""

    def result(self, store: str | Path) -> CampaignResult:
        """What a file holds of this campaign, finished or not.

        Raises:
            InputError: no such file, or one of another campaign.
        """
        with JobStore.read(store) as opened:
            if opened.key != self.study.identity()["study"]:
                raise InputError(f"store: {store} is of another campaign")
            rows = list(opened.results())
            failures = [{"trial": f.trial, "error": f.error, **self._tried(f.trial)} for f in opened.failures(final=True)]
            end = opened.end
        done = (end if end is not None else len(rows) + len(failures)) // self._each
        look = max((n for n, size in enumerate(self.looks.sizes) if size <= done), default=0)
        subject, network = self.subject, self.bench.network
        metric = self.description["metric"] if network.labelled else "agreement"
        return CampaignResult(
            kind="maps" if subject.single is None else "bits",
            trials=self._map_rows(rows) if subject.single is None else self._bit_rows(rows),
            failures=failures,
            strata=self._strata,
            rates_of=self._rates,
            images=network.images,
            golden_score=network.golden_score,
            metric=metric,
            confidence=self.looks.confidence,
            level=self._levels[look],
            interval=self.interval,
            description=self.description,
        )

    def _tried(self, trial: int) -> dict[str, Any]:
        """What a trial tries, as far as estimates tell trials apart."""
        if self.bench.plan is None:
            return {"scenario": self.subject.scenarios[trial % self._each][0]}
        (place,) = self.bench.places(range(trial, trial + 1))
        site = self.bench.sites[place.site]
        return {"layer": site.layer, "target": site.key.role, "bit": place.bit}

    @property
    def _strata(self) -> dict[tuple[str, str, int], int]:
        plan = self.bench.plan
        if plan is None:
            return {}
        sites = self.bench.sites
        return {
            (sites[number].layer, sites[number].key.role, stratum.bit): stratum.elements
            for number, stratum in zip(self.bench.stratum_sites, plan.strata, strict=True)
        }

    @property
    def _rates(self) -> dict[str, float]:
        rates = {name: {fault.rate for fault in faults} for name, faults in self.subject.scenarios}
        return {name: float(next(iter(given))) for name, given in rates.items() if len(given) == 1 and None not in given}  # type: ignore[arg-type]

    def _bit_rows(self, rows: Sequence[tuple[int, Mapping[str, Any]]]) -> list[dict[str, Any]]:
        from numerics.faults import bit_fields

        found = []
        sites = self.bench.sites
        field_of = [{bit: name for name, bits in bit_fields(site.format).items() for bit in bits} for site in sites]
        start = 0
        while start < len(rows):
            part = rows[start : start + 4096]
            places = self.bench.places(range(part[0][0], part[-1][0] + 1))
            for trial, row in part:
                place = places[trial - part[0][0]]
                site = sites[place.site]
                found.append(
                    {
                        "trial": trial, "layer": site.layer, "target": site.key.role, "format": site.format, "bit": place.bit,
                        "field": field_of[place.site][place.bit], "element": place.element, "image": place.image, **row,
                    }
                )  # fmt: skip
            start += len(part)
        return found

    def _map_rows(self, rows: Sequence[tuple[int, Mapping[str, Any]]]) -> list[dict[str, Any]]:
        found = []
        for trial, row in rows:
            repetition, which = divmod(trial, self._each)
            found.append(
                {
                    "trial": trial,
                    "scenario": self.subject.scenarios[which][0],
                    "seed": map_seed(self.subject.seed, repetition),
                    **row,
                }
            )
        return found


class _Note:
    """The interval so far, for the progress bar; in order of completion, so for display only."""

    def __init__(self, campaign: Campaign) -> None:
        self.campaign = campaign
        self.moments = [Moments.of([])] * campaign._each

    def __call__(self, rows: Sequence[tuple[int, Mapping[str, Any]]]) -> str:
        bits = self.campaign.bench.plan is not None
        values: list[list[float]] = [[] for _ in self.moments]
        for trial, row in rows:
            values[trial % len(values)].append(row["changed"] if bits else row["score"])
        self.moments = [m.merged(Moments.of(v)) for m, v in zip(self.moments, values, strict=True)]
        shown = []
        for moments in self.moments[:3]:
            if moments.count > 1:
                found = mean_interval(moments, confidence=self.campaign.looks.confidence, method="student", bounds=(0, 1))
                shown.append(f"{100 * found.estimate:.2f} ± {100 * found.half_width:.2f} %")
        return ("changed " if bits else "score ") + ", ".join(shown) + (" …" if len(self.moments) > 3 else "") if shown else ""


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
                raise InputError(f"faults: {name}: expected BitFaults, got {type(model).__name__}")
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


def _hash_of(values: Any) -> str:
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


__all__ = ["METRICS", "Campaign", "SingleBits"]
