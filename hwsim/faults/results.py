"""What a campaign found: its trials as plain rows, and rates, means and intervals over them."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.faults.network import OUTCOMES
from hwsim.faults.statistics import Interval, MeanMethod, Moments, allowing_for, mean_interval, stratified_proportion, wilson
from hwsim.views.display import displayed_by
from numerics.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

SCHEMA, SCHEMA_VERSION = "hwsim.faults", 1

BIT_COLUMNS = ("trial", "layer", "target", "format", "bit", "field", "element", "image", "outcome", "changed", "score")
MAP_COLUMNS = (
    "trial",
    "scenario",
    "seed",
    "faulty_bits",
    "corrected",
    "detected",
    "outcome",
    "masked",
    "nan",
    "changed",
    "score",
)


@displayed_by("hwsim.views.study_cards:campaign_result")
@dataclass(frozen=True)
class CampaignResult:
    """The trials of a campaign.

    Attributes:
        kind: ``bits`` for one faulty bit a trial, ``maps`` for one fault map a trial on all images.
        trials: rows in trial order; ``BIT_COLUMNS`` or ``MAP_COLUMNS``. No times, so that two runs compare equal.
        failures: trials that could not be evaluated: ``trial``, ``error`` and what was tried (``layer``, ``target``, ``bit``; or
            ``scenario``). Estimates leave them out; intervals reach from where all of them would be one extreme to the other.
        rates_of: of fault maps: scenario → the bit-error rate of its faults, where they share one.
        strata: of single bits: (layer, target, bit) → bits of the network in it.
        images: in the data.
        golden_score: of the metric without faults.
        metric: its name; ``agreement`` where there were no labels: the share of predictions that are those without faults.
        confidence: of every interval, the looks of the campaign taken together.
        level: confidence that an interval is made with for that.
        interval: of a mean score: ``bernstein`` or ``student``.
        description: what makes the campaign.
    """

    kind: str
    trials: Sequence[Mapping[str, Any]]
    failures: Sequence[Mapping[str, Any]]
    strata: Mapping[tuple[str, str, int], int]
    rates_of: Mapping[str, float]
    images: int
    golden_score: float
    metric: str
    confidence: float
    level: float
    interval: MeanMethod = "bernstein"
    description: Mapping[str, Any] = field(default_factory=dict, repr=False)

    # --- single bits ------------------------------------------------------------------------------------------------------------

    def rates(self, *by: str) -> list[dict[str, Any]]:
        """Share of the faulty bits that end in each way, over groups of strata.

        Strata count as many bits as the network has of them, whatever share of the trials they got; within one stratum the
        interval is Wilson's.

        Args:
            by: some of ``layer``, ``target``, ``bit``; none for all together.

        Returns:
            Rows: the group, ``trials``, ``failed`` ones beside them, ``bits`` (of the network), and for each of the outcomes and
            for ``changed`` predictions the share with ``_low`` and ``_high``.

        Raises:
            InputError: a campaign over maps, an unknown name.
        """
        if self.kind != "bits":
            raise InputError("rates: single faulty bits have rates; a campaign over fault maps has scores")
        known = ("layer", "target", "bit")
        for name in by:
            if name not in known:
                raise InputError(f"by: expected some of {', '.join(known)}, got {name!r}")
        counts: dict[tuple[str, str, int], dict[str, int]] = {
            key: dict.fromkeys((*OUTCOMES, "changed", "trials", "failed"), 0) for key in self.strata
        }
        for failure in self.failures:
            counts[failure["layer"], failure["target"], failure["bit"]]["failed"] += 1
        for trial in self.trials:
            count = counts[trial["layer"], trial["target"], trial["bit"]]
            count["trials"] += 1
            count[trial["outcome"]] += 1
            count["changed"] += bool(trial["changed"])
        groups: dict[tuple[Any, ...], list[tuple[str, str, int]]] = {}
        for key in self.strata:
            groups.setdefault(tuple(key[known.index(name)] for name in by), []).append(key)
        rows = []
        for group, keys in groups.items():
            trials = [counts[key]["trials"] for key in keys]
            row: dict[str, Any] = {
                **dict(zip(by, group, strict=True)),
                "trials": sum(trials),
                "failed": sum(counts[key]["failed"] for key in keys),
                "bits": sum(self.strata[k] for k in keys),
            }
            for name in (*OUTCOMES, "changed"):
                if sum(trials):
                    row |= _columns(name, self._share(name, keys, counts))
            rows.append(row)
        return rows

    def _share(
        self, name: str, keys: Sequence[tuple[str, str, int]], counts: Mapping[tuple[str, str, int], Mapping[str, int]]
    ) -> Interval:
        hits, trials, failed = ([counts[key][what] for key in keys] for what in (name, "trials", "failed"))
        places = [self.strata[key] * self.images for key in keys]

        def share(hits: Sequence[int], trials: Sequence[int]) -> Interval:
            if len(hits) == 1:
                return wilson(hits[0], trials[0], confidence=self.level, population=places[0])
            return stratified_proportion(hits, trials, places, confidence=self.level)

        return allowing_for(failed, hits, trials, share)

    # --- fault maps -------------------------------------------------------------------------------------------------------------

    def scores(self) -> list[dict[str, Any]]:
        """The metric over fault maps, one row a scenario: mean score, its drop from the run without faults, and outcomes.

        A scenario none of whose trials could be evaluated has ``trials`` 0, ``failed``, and nothing else.

        Raises:
            InputError: a campaign over single bits.
        """
        if self.kind != "maps":
            raise InputError("scores: fault maps have scores; a campaign over single bits has rates")
        by_scenario: dict[str, list[Mapping[str, Any]]] = {}
        for each in sorted([*self.trials, *self.failures], key=lambda row: row["trial"]):
            by_scenario.setdefault(each["scenario"], [])
        for each in self.trials:
            by_scenario[each["scenario"]].append(each)
        failed = Counter(failure["scenario"] for failure in self.failures)
        rows = []
        for name, trials in by_scenario.items():
            values = [float(trial["score"]) for trial in trials]
            row: dict[str, Any] = {"scenario": name, "trials": len(trials), "failed": failed[name]}
            rows.append(row)
            if not trials:
                continue
            row |= _columns("score", mean_score(values, failed[name], confidence=self.level, method=self.interval))
            row["drop"] = self.golden_score - row["score"]
            row["drop_low"], row["drop_high"] = self.golden_score - row["score_high"], self.golden_score - row["score_low"]
            row["faulty_bits"] = sum(trial["faulty_bits"] for trial in trials) / len(trials)
            for outcome in OUTCOMES:
                hits = sum(t["outcome"] == outcome for t in trials)
                row |= _columns(outcome, allowing_for([failed[name]], [hits], [len(trials)], self._of_one))
            row["changed"] = sum(t["changed"] for t in trials) / (len(trials) * self.images)
        return rows

    def _of_one(self, hits: Sequence[int], trials: Sequence[int]) -> Interval:
        return wilson(hits[0], trials[0], confidence=self.level)

    def within(self, margin: float) -> bool:
        """Whether the intervals that the campaign was to narrow are within ±margin."""
        name = "changed" if self.kind == "bits" else "score"
        rows = self.rates() if self.kind == "bits" else self.scores()
        return bool(rows) and all(name in row and row[f"{name}_high"] - row[f"{name}_low"] <= 2 * margin for row in rows)

    @property
    def has_rates(self) -> bool:
        """Whether every scenario has a bit-error rate."""
        return bool(self.rates_of) and all(row["scenario"] in self.rates_of for row in self.trials)

    def rate_of(self, scenario: str) -> float:
        """The bit-error rate of a scenario.

        Raises:
            InputError: it has none.
        """
        if scenario not in self.rates_of:
            raise InputError(f"scenario {scenario!r}: its faults share no bit-error rate")
        return self.rates_of[scenario]

    # --- out --------------------------------------------------------------------------------------------------------------------

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of a trial's fields."""
        return BIT_COLUMNS if self.kind == "bits" else MAP_COLUMNS

    def to_csv(self) -> str:
        """The trials as CSV."""
        text = StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(self.trials)
        return text.getvalue()

    def to_frame(self) -> pd.DataFrame:
        """The trials as a table."""
        import pandas as pd

        return pd.DataFrame(list(self.trials), columns=list(self.columns))

    def to_dict(self) -> dict[str, Any]:
        """Summary and description as plain data."""
        found: dict[str, Any] = {
            "schema": SCHEMA, "schema_version": SCHEMA_VERSION, "kind": self.kind, "metric": self.metric,
            "golden_score": self.golden_score,
            "confidence": self.confidence, "images": self.images, "trials": len(self.trials),
            "failures": [dict(failure) for failure in self.failures],
            "description": dict(self.description),
        }  # fmt: skip
        if self.kind == "bits":
            found |= {"total": self.rates()[0], "by_layer": self.rates("layer", "target"), "by_bit": self.rates("target", "bit")}
        else:
            found["scenarios"] = self.scores()
        return found

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``results.csv``, ``summary.json`` and pictures into a folder; returns the files."""
        from hwsim.views.faults import save_campaign

        return save_campaign(self, Path(folder))

    def print(self, *, most: int | None = 30) -> None:
        """Print rates by layer, or scores by scenario; ``most`` layers at most."""
        from hwsim.views.faults import print_campaign

        print_campaign(self, most=most)


def mean_score(values: Sequence[float] | Moments, failed: int, *, confidence: float, method: MeanMethod) -> Interval:
    """The mean of scores from 0 to 1, one at least, of which ``failed`` more are unknown."""
    known = values if isinstance(values, Moments) else Moments.of(values)

    def mean(more: list[float]) -> Interval:
        some = known.merged(Moments.of(more))
        if some.count < 2:
            return Interval(estimate=known.mean, low=0.0, high=1.0, confidence=confidence, standard_error=math.inf)
        return mean_interval(some, confidence=confidence, method=method, bounds=(0, 1))

    found = mean([])
    return found.reaching(mean([0.0] * failed), mean([1.0] * failed)) if failed else found


def _columns(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}
