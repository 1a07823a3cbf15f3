"""The trials of a campaign, whatever it is that fails: their study, their looks, their results."""

from __future__ import annotations

import hashlib
import pickle
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

from hwsim.faults.looks import LookPlan
from hwsim.faults.network import FaultSite, Place
from hwsim.faults.results import CampaignResult, mean_score
from hwsim.faults.sampling import SamplingPlan
from hwsim.faults.single_bits import SingleBits, sampling_plan, single_sites, site_name
from hwsim.faults.statistics import Interval, MeanMethod, Moments, allowing_for, stratified_proportion
from hwsim.jobs import JobStore, RunSummary, Study, run_study
from hwsim.views.display import displayed_by
from numerics.errors import InputError, unknown_name

FIRST_BITS, FIRST_MAPS = 400, 30
"""Trials at the first look: single bits, and fault maps of each scenario."""

BATCH_BITS, BATCH_BITS_INCREMENTAL, BATCH_MAPS = 64, 1024, 4
"""Trials that a worker is given at a time: about a second's work at most."""


class Subject(Protocol):
    """What workers need: pickled once, unpacked in each.

    Attributes:
        single: what single bits fail; None for fault maps.
        scenarios: name → what fails in a map, by the network's own kind.
        protections: as the network's ``run_map`` takes them.
        seed: of everything drawn.
    """

    @property
    def single(self) -> SingleBits | None: ...

    @property
    def scenarios(self) -> tuple[tuple[str, Any], ...]: ...

    @property
    def protections(self) -> tuple[Any, ...]: ...

    @property
    def seed(self) -> int: ...

    def network(self) -> Any:
        """What is under test: it has ``images``, ``golden_score``, ``labelled`` and ``run_map``, as ``NetworkUnderTest``."""
        ...


@dataclass
class Bench:
    """A network under test with the trials that it is put to."""

    subject: Subject
    network: Any
    sites: Sequence[FaultSite] = ()
    plan: SamplingPlan | None = None

    @classmethod
    def of(cls, subject: Subject) -> Bench:
        network = subject.network()
        if subject.single is None:
            return cls(subject, network)
        sites = single_sites(network, subject.single)
        return cls(subject, network, sites, sampling_plan(sites, subject.single, network.images, subject.seed))

    @cached_property
    def stratum_sites(self) -> list[int]:
        """The site of each stratum of the plan."""
        assert self.plan is not None
        at = {site_name(site): number for number, site in enumerate(self.sites)}
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


def set_up(subject: bytes) -> Bench:
    return Bench.of(pickle.loads(subject))


def run_bits(bench: Bench, trials: range) -> list[dict[str, Any]]:
    outcomes = bench.network.run_places(bench.sites, bench.places(trials), protections=bench.subject.protections)
    return [{"outcome": o.outcome, "changed": int(o.changed), "score": o.score} for o in outcomes]


def run_maps(bench: Bench, trials: range) -> list[dict[str, Any]]:
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


@displayed_by("hwsim.views.study_cards:campaign")
class TrialCampaign(ABC):
    """Trials of a subject until a margin is reached.

    Args:
        subject: what is tried.
        margin, confidence, first, maximum, interval: as of ``Campaign``.

    Raises:
        InputError: numbers out of range.
    """

    def __init__(
        self,
        subject: Subject,
        *,
        margin: float,
        confidence: float,
        first: int | None,
        maximum: int | None,
        interval: MeanMethod,
    ) -> None:
        if not isinstance(subject.seed, int) or isinstance(subject.seed, bool) or subject.seed < 0:
            raise InputError(f"seed: expected an integer ≥ 0, got {subject.seed!r}")
        if not isinstance(interval, str) or interval not in ("bernstein", "student"):
            raise unknown_name("interval", str(interval), ("bernstein", "student"))
        self.subject: Any = subject
        for name, value in (("first", first), ("maximum", maximum)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise InputError(f"{name}: expected an integer ≥ 1, got {value!r}")
        self.interval: MeanMethod = interval
        self.bench = Bench.of(subject)
        plan = self.bench.plan
        population = None if plan is None else plan.limit
        most = [size for size in (maximum, population) if size is not None]
        begin = first if first is not None else FIRST_MAPS if plan is None else FIRST_BITS
        # Scores vary little from map to map, so that a campaign over maps may well end early, and its looks are alike.
        self.looks = LookPlan(
            margin=margin, confidence=confidence, first=min([begin, *most]), population=population,
            maximum=None if maximum is None else min(most), spending="pocock" if plan is None else "obrien_fleming",
        )  # fmt: skip

    # --- the study --------------------------------------------------------------------------------------------------------------

    @property
    def _each(self) -> int:
        """Trials that count as one towards a look: one map of every scenario."""
        return max(1, len(self.subject.scenarios))

    @property
    def whole_passes_because(self) -> str:
        """Why each fault takes a pass of everything; empty where faults are run on what they change."""
        return "faults: a fault map strikes everything at once"

    @cached_property
    def study(self) -> Study:
        """The campaign as numbered trials."""
        bits = self.subject.single is not None
        looks = tuple(size * self._each for size in self.looks.sizes)
        return Study(
            key=self.description,
            size=looks[-1],
            run=run_bits if bits else run_maps,
            setup=partial(set_up, pickle.dumps(self.subject)),
            looks=looks,
            decide=self._decide,
            batch=BATCH_MAPS if not bits else BATCH_BITS if self.whole_passes_because else BATCH_BITS_INCREMENTAL,
        )

    @cached_property
    def description(self) -> dict[str, Any]:
        """All that the results depend on, as plain data."""
        from hwsim import __version__

        looks = self.looks
        return {
            "version": __version__,
            **self._described(),
            "images": self.bench.network.images,
            "seed": self.subject.seed,
            "looks": {"margin": looks.margin, "confidence": looks.confidence, "sizes": list(looks.sizes)},
            "interval": self.interval,
        }

    @abstractmethod
    def _described(self) -> dict[str, Any]:
        """What is tried, as plain data: ``metric`` among it."""

    @property
    def _rates(self) -> dict[str, float]:
        """Scenario → the bit-error rate of its faults, where they share one."""
        return {}

    def _estimates(self, results: Iterable[tuple[int, Mapping[str, Any]]], level: float, stop: int) -> list[Interval | None]:
        """What the margin is asked of: the share of changed predictions, or each scenario's mean score, after ``stop`` trials."""
        tally = Tally(self)
        rows = list(results)
        failed = sorted(set(range(stop)) - {trial for trial, _ in rows})
        tally.add(rows)
        tally.add([(trial, None) for trial in failed])
        return tally.intervals(level)

    @property
    def _levels(self) -> tuple[float, ...]:
        """Confidence of the interval at each look."""
        strict = self.bench.plan is None and self.interval == "bernstein"
        return self.looks.strict_levels if strict else self.looks.levels

    def _decide(self, results: Iterable[tuple[int, Mapping[str, Any]]], size: int) -> bool:
        look = self.looks.sizes.index(size // self._each)
        self._looked = self._estimates(results, self._levels[look], size)
        return all(interval is not None and self.looks.stops(interval) for interval in self._looked)

    _looked: Sequence[Interval | None] = ()
    """Intervals at the last look."""

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
        self._looked = ()
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


class Tally:
    """Trials counted as the intervals of a campaign need them.

    Args:
        campaign: whose trials.
    """

    def __init__(self, campaign: TrialCampaign) -> None:
        self.campaign = campaign
        self.plan = campaign.bench.plan
        self.done = 0
        each = campaign._each if self.plan is None else len(self.plan.strata)
        self._moments = [Moments.of([])] * each
        self._hits, self._trials, self._failed = ([0] * each for _ in range(3))

    def add(self, rows: Sequence[tuple[int, Mapping[str, Any] | None]]) -> None:
        """Count trials; one without a row has failed."""
        self.done += len(rows)
        where = self._groups([trial for trial, _ in rows])
        scores: dict[int, list[float]] = {}
        for at, (_, row) in zip(where, rows, strict=True):
            if row is None:
                self._failed[at] += 1
                continue
            self._trials[at] += 1
            if self.plan is None:
                scores.setdefault(at, []).append(row["score"])
            else:
                self._hits[at] += bool(row["changed"])
        for at, values in scores.items():
            self._moments[at] = self._moments[at].merged(Moments.of(values))

    def _groups(self, trials: list[int]) -> list[int]:
        """The stratum, or the scenario, of each trial."""
        if self.plan is None:
            return [trial % self.campaign._each for trial in trials]
        found: list[int] = []
        start = 0
        while start < len(trials):
            stop = start + 1
            while stop < len(trials) and trials[stop] == trials[stop - 1] + 1:
                stop += 1
            found += self.plan.trials(trials[start], trials[stop - 1] + 1).strata.tolist()
            start = stop
        return found

    def intervals(self, level: float) -> list[Interval | None]:
        """The share of changed predictions, or the mean score of each scenario; None where nothing is known."""
        if self.plan is not None:
            if not sum(self._trials):
                return [None]
            share = partial(stratified_proportion, sizes=self.plan.sizes, confidence=level)
            return [allowing_for(self._failed, self._hits, self._trials, share)]
        return [
            mean_score(moments, failed, confidence=level, method=self.campaign.interval) if moments.count else None
            for moments, failed in zip(self._moments, self._failed, strict=True)
        ]


MOST_SHOWN = 3
"""Scenarios in a line of progress."""


class _Note:
    """The intervals so far, for the progress: of the trials done, in order of completion, at the level of the coming look, and
    when a look has ended the run those that it was ended by. For display only."""

    def __init__(self, campaign: TrialCampaign) -> None:
        self.campaign = campaign
        self.tally = Tally(campaign)

    def __call__(self, rows: Sequence[tuple[int, Mapping[str, Any] | None]]) -> str:
        campaign, tally = self.campaign, self.tally
        if not rows and campaign._looked:
            return self._text(campaign._looked)
        tally.add(rows)
        done = tally.done // campaign._each
        look = next((n for n, size in enumerate(campaign.looks.sizes) if size >= done), -1)
        return self._text(tally.intervals(campaign._levels[look]))

    def _text(self, intervals: Sequence[Interval | None]) -> str:
        shown = [
            f"{100 * i.estimate:.2f} [{100 * i.low:.2f}, {100 * i.high:.2f}] %" if i is not None else "unknown"
            for i in intervals[:MOST_SHOWN]
        ]
        more = " …" if len(intervals) > MOST_SHOWN else ""
        return ("changed " if self.tally.plan is not None else "score ") + ", ".join(shown) + more
