"""Fault campaigns: networks under bit faults, how many trials a margin takes, low voltage, and what protections cost.

The faults themselves, and what they make of numbers, are in ``numerics.faults``.

>>> from hwsim.faults import sample_size, wilson
>>> sample_size(0.01, confidence=0.95)
9604
>>> print(wilson(96, 9604))
0.0100 [0.0082, 0.0122] at 95 %
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numerics._lazy import lazy_names

if TYPE_CHECKING:
    from hwsim.faults.campaign import Campaign
    from hwsim.faults.fingerprint import (
        FingerprintTest,
        HeadCost,
        SelfTestingNetwork,
        SelfTestResult,
        SelfTestRun,
        fit_fingerprint,
        head_cost,
        self_test,
    )
    from hwsim.faults.front_module import FrontedNetwork, FrontModule, FrontTraining, train_front_module
    from hwsim.faults.incremental.engine import Incremental, IncrementalSite, Outcomes, SiteFaults
    from hwsim.faults.incremental.recording import Unsupported
    from hwsim.faults.looks import LookPlan
    from hwsim.faults.network import (
        FaultSite,
        MapOutcome,
        NetworkUnderTest,
        Place,
        PlaceOutcome,
    )
    from hwsim.faults.protection_cost import (
        ProtectedEnergy,
        ProtectionCost,
        clipping_cost,
        cost_of,
        duplication_cost,
        hardening_cost,
        parity_cost,
        secded_cost,
    )
    from hwsim.faults.results import CampaignResult
    from hwsim.faults.retention import RetentionCurve, get_retention, refresh_power_w, retention_names
    from hwsim.faults.sampling import SamplingPlan, Stratum, Trials
    from hwsim.faults.single_bits import SingleBits
    from hwsim.faults.sizes import allocate, pilot_deviations, sample_size, stratified_sample_size
    from hwsim.faults.statistics import (
        Interval,
        Moments,
        clopper_pearson,
        mean_interval,
        paired_difference,
        stratified_mean,
        stratified_proportion,
        wilson,
    )
    from hwsim.faults.trials import TrialCampaign
    from hwsim.faults.voltage import SramCurve, curve_names, get_curve
    from hwsim.faults.voltage_plan import ScaledEnergy, VoltagePlan
    from hwsim.faults.weak_cells import FailedBits, LeakyCells, WeakCells

_HOME = {
    ".campaign": ("Campaign",),
    ".fingerprint": (
        "FingerprintTest",
        "HeadCost",
        "SelfTestResult",
        "SelfTestRun",
        "SelfTestingNetwork",
        "fit_fingerprint",
        "head_cost",
        "self_test",
    ),
    ".front_module": ("FrontModule", "FrontTraining", "FrontedNetwork", "train_front_module"),
    ".incremental.engine": ("Incremental", "IncrementalSite", "Outcomes", "SiteFaults"),
    ".incremental.recording": ("Unsupported",),
    ".looks": ("LookPlan",),
    ".network": ("FaultSite", "MapOutcome", "NetworkUnderTest", "Place", "PlaceOutcome"),
    ".protection_cost": (
        "ProtectedEnergy",
        "ProtectionCost",
        "clipping_cost",
        "cost_of",
        "duplication_cost",
        "hardening_cost",
        "parity_cost",
        "secded_cost",
    ),
    ".results": ("CampaignResult",),
    ".retention": ("RetentionCurve", "get_retention", "refresh_power_w", "retention_names"),
    ".sampling": ("SamplingPlan", "Stratum", "Trials"),
    ".single_bits": ("SingleBits",),
    ".sizes": ("allocate", "pilot_deviations", "sample_size", "stratified_sample_size"),
    ".statistics": (
        "Interval",
        "Moments",
        "clopper_pearson",
        "mean_interval",
        "paired_difference",
        "stratified_mean",
        "stratified_proportion",
        "wilson",
    ),
    ".trials": ("TrialCampaign",),
    ".voltage": ("SramCurve", "curve_names", "get_curve"),
    ".voltage_plan": ("ScaledEnergy", "VoltagePlan"),
    ".weak_cells": ("FailedBits", "LeakyCells", "WeakCells"),
}
__all__ = [
    "Campaign",
    "CampaignResult",
    "FailedBits",
    "FaultSite",
    "FingerprintTest",
    "FrontModule",
    "FrontTraining",
    "FrontedNetwork",
    "HeadCost",
    "Incremental",
    "IncrementalSite",
    "Interval",
    "LeakyCells",
    "LookPlan",
    "MapOutcome",
    "Moments",
    "NetworkUnderTest",
    "Outcomes",
    "Place",
    "PlaceOutcome",
    "ProtectedEnergy",
    "ProtectionCost",
    "RetentionCurve",
    "SamplingPlan",
    "ScaledEnergy",
    "SelfTestResult",
    "SelfTestRun",
    "SelfTestingNetwork",
    "SingleBits",
    "SiteFaults",
    "SramCurve",
    "Stratum",
    "TrialCampaign",
    "Trials",
    "Unsupported",
    "VoltagePlan",
    "WeakCells",
    "allocate",
    "clipping_cost",
    "clopper_pearson",
    "cost_of",
    "curve_names",
    "duplication_cost",
    "fit_fingerprint",
    "get_curve",
    "get_retention",
    "hardening_cost",
    "head_cost",
    "mean_interval",
    "paired_difference",
    "parity_cost",
    "pilot_deviations",
    "refresh_power_w",
    "retention_names",
    "sample_size",
    "secded_cost",
    "self_test",
    "stratified_mean",
    "stratified_proportion",
    "stratified_sample_size",
    "train_front_module",
    "wilson",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
