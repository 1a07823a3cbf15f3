"""Fault campaigns: against the exhaustive truth of a small network, the same table however they run, and what they refuse."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

import numerics
from hwsim.faults import Campaign, NetworkUnderTest, Place, SingleBits
from hwsim.faults.campaign import fingerprint_of
from hwsim.faults.trials import Tally, map_seed
from hwsim.jobs import JobStore
from numerics import InputError, Recipe
from numerics.faults import BitFaults, Hardening, Parity, SecdedWords


def small(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3)), torch.randn(2, 3)


def first_of(outputs, labels):
    """A metric of one's own: the first output is above zero."""
    return (outputs[:, 0] > 0).float()


def test_all_bits_are_the_exhaustive_truth(tmp_path):
    """Where every place is tried, the rates are exact and have no width."""
    module, x = small()
    recipe = Recipe(name="narrow", formats={"weight": "e4m3fn", "activation": "e4m3fn"})
    campaign = Campaign(module, x, SingleBits(), recipe=recipe, margin=0.001, maximum=10**6)
    network = NetworkUnderTest(numerics.emulate(module, recipe), x)
    sites = network.sites()
    places = [
        Place(s, e, b, i)
        for s, site in enumerate(sites)
        for e in range(site.elements)
        for b in range(site.bits)
        for i in range(2)
    ]
    truth = network.run_places(sites, places)
    result = campaign.run(tmp_path / "all.sqlite", progress="silent")
    assert len(result.trials) == len(places) == 2 * 8 * (12 + 12 + 3 + 4)
    (total,) = result.rates()
    for name in ("masked", "silent", "nan"):
        share = np.mean([o.outcome == name for o in truth])
        assert total[name] == total[f"{name}_low"] == total[f"{name}_high"] == pytest.approx(share)
    assert total["changed"] == pytest.approx(np.mean([o.changed for o in truth]))
    by_place = {(r["layer"], r["target"], r["element"], r["bit"], r["image"]): r for r in result.trials}
    for place, outcome in zip(places, truth, strict=True):
        site = sites[place.site]
        row = by_place[site.layer, site.key.role, place.element, place.bit, place.image]
        assert (row["outcome"], row["changed"]) == (outcome.outcome, outcome.changed)
    for row in result.rates("layer", "target", "bit"):
        keys = [
            p for p in places if (sites[p.site].layer, sites[p.site].key.role, p.bit) == (row["layer"], row["target"], row["bit"])
        ]
        assert row["trials"] == len(keys)


def test_intervals_cover_the_truth(tmp_path):
    """Campaigns with different seeds over one network: the interval holds its true rate as often as it says, looks and all."""
    module, x = small(1)
    network = NetworkUnderTest(numerics.emulate(module, "bf16"), x)
    sites = network.sites()
    places = [
        Place(s, e, b, i)
        for s, site in enumerate(sites)
        for e in range(site.elements)
        for b in range(site.bits)
        for i in range(2)
    ]
    outcomes = dict(zip(places, network.run_places(sites, places), strict=True))
    truth = np.mean([o.changed for o in outcomes.values()])
    assert 0.02 < truth < 0.5
    from hwsim.faults.looks import LookPlan
    from hwsim.faults.single_bits import sampling_plan as _sampling
    from hwsim.faults.statistics import stratified_proportion

    covered = stopped = together = alone = 0
    runs = 200
    at = [number for number, site in enumerate(sites) for _ in range(site.bits)]
    for seed in range(runs):
        plan = _sampling(sites, SingleBits(), 2, seed)
        looks = LookPlan(margin=0.03, first=60, growth=1.3, population=plan.limit)
        drawn = plan.trials(0, looks.sizes[-1])
        columns = (drawn.strata, drawn.elements, drawn.bits, drawn.images)
        changed = [outcomes[Place(at[s], e, b, i)].changed for s, e, b, i in zip(*(c.tolist() for c in columns), strict=True)]

        def found(level, size, plan=plan, drawn=drawn, changed=changed):
            hits = np.bincount(drawn.strata[:size], weights=changed[:size], minlength=len(plan.strata)).astype(int)
            return stratified_proportion(hits, plan.counts(size), plan.sizes, confidence=level)

        seen = [found(level, size) for level, size in zip(looks.levels, looks.sizes, strict=True)]
        last = next((look for look, interval in enumerate(seen) if looks.stops(interval)), len(seen) - 1)
        stopped += last < len(seen) - 1
        covered += seen[last].covers(truth)
        together += all(interval.covers(truth) for interval in seen)
        alone += all(found(0.95, size).covers(truth) for size in looks.sizes)
    # What the levels are for: all looks hold together, and plain intervals of the same trials do not by far.
    assert together / runs > 0.95 - 3 * np.sqrt(0.95 * 0.05 / runs)
    assert alone / runs < 0.75
    assert stopped > runs / 10  # otherwise nothing is tested of the looks
    assert covered / runs > 0.95 - 3 * np.sqrt(0.95 * 0.05 / runs)


@pytest.mark.parametrize("kind", ["bits", "maps"])
def test_the_same_table_however_it_runs(kind, tmp_path):
    module, x = small()
    faults = (
        SingleBits()
        if kind == "bits"
        else {"low": BitFaults(rate=0.01), "high": [BitFaults(rate=0.05), BitFaults(rate=0.01, target="activation")]}
    )

    def run(name, **how):
        campaign = Campaign(module, x, faults, recipe="bf16", margin=0.2, first=40, seed=3, interval="student")
        return campaign.run(tmp_path / f"{name}.sqlite", progress="silent", **how), campaign

    alone, campaign = run("alone")
    together, _ = run("together", workers=2)
    with ThreadPoolExecutor(2) as threads:
        borrowed, _ = run("borrowed", executor=threads)
    assert alone.to_csv() == together.to_csv() == borrowed.to_csv()
    assert alone.to_dict() == together.to_dict()
    again = campaign.run(tmp_path / "alone.sqlite", progress="silent")
    assert again.to_csv() == alone.to_csv()
    assert campaign.summary.ran == 0
    other = Campaign(module, x, faults, recipe="bf16", margin=0.2, first=40, seed=4, interval="student")
    with pytest.raises(InputError, match="seed: stored 3, asked for 4"):
        other.run(tmp_path / "alone.sqlite", progress="silent")


def test_scores_of_maps(tmp_path):
    module, x = small()
    labels = torch.tensor([0, 1])
    campaign = Campaign(
        module, (x, labels), {"0.02": BitFaults(rate=0.02)}, recipe="int8", margin=0.5, first=25, interval="student"
    )
    result = campaign.run(tmp_path / "maps.sqlite", progress="silent")
    network = NetworkUnderTest(numerics.emulate(module, "int8"), x, labels)
    expected = [network.run_map([BitFaults(rate=0.02)], seed=map_seed(0, i)) for i in range(len(result.trials))]
    assert [row["score"] for row in result.trials] == [e.score for e in expected]
    assert [row["faulty_bits"] for row in result.trials] == [e.faulty_bits for e in expected]
    (row,) = result.scores()
    assert row["score"] == pytest.approx(np.mean([e.score for e in expected]))
    assert row["drop"] == pytest.approx(network.golden_score - row["score"])
    assert (row["drop_low"], row["drop_high"]) == (
        pytest.approx(network.golden_score - row["score_high"]), pytest.approx(network.golden_score - row["score_low"])
    )  # fmt: skip
    assert result.rate_of("0.02") == 0.02
    assert result.metric == "accuracy"


def test_a_metric_of_ones_own_and_protections(tmp_path):
    module, x = small()
    own = Campaign(module, x, SingleBits(targets=("weight",)), first_of, recipe="bf16", margin=0.3, first=60)
    result = own.run(tmp_path / "own.sqlite", progress="silent")
    assert result.golden_score == pytest.approx(float((numerics.emulate(module, "bf16").eval()(x)[:, 0] > 0).float().mean()))
    assert {row["score"] for row in result.trials} <= {0.0, 1.0}
    repaired = Campaign(
        module, x, SingleBits(targets=("weight",)), recipe="bf16", protections=SecdedWords(), margin=0.3, first=60
    )
    assert {row["outcome"] for row in repaired.run(tmp_path / "secded.sqlite", progress="silent").trials} == {"masked"}
    seen = Campaign(module, x, SingleBits(targets=("weight",)), recipe="bf16", protections=Parity(), margin=0.3, first=60)
    assert {row["outcome"] for row in seen.run(tmp_path / "parity.sqlite", progress="silent").trials} == {"detected"}
    hard = Campaign(module, x, SingleBits(targets=("weight",), bits="exponent"), recipe="bf16",
                    protections=Hardening(bits="exponent"), margin=0.3, first=60)  # fmt: skip
    assert {row["outcome"] for row in hard.run(tmp_path / "hard.sqlite", progress="silent").trials} == {"masked"}


SCRIPT = """
import sys
import torch
from torch import nn
from hwsim.faults import Campaign, SingleBits
if __name__ == "__main__":
    torch.manual_seed(0)
    module, x = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), torch.randn(6, 8)
    campaign = Campaign(module, x, SingleBits(), recipe="bf16", margin=0.01, first=2400, maximum=2400)
    print("ready", flush=True)
    print(campaign.run(sys.argv[1], progress="silent").to_csv(), end="")
"""


def rows_in(store):
    """Rows that a store holds, whoever is writing it; 0 before it is one."""
    try:
        with JobStore.read(store) as opened:
            return opened.counts()[0]
    except InputError:
        return 0


def test_a_killed_campaign_goes_on(tmp_path):
    script = tmp_path / "campaign.py"
    script.write_text(textwrap.dedent(SCRIPT))
    store = tmp_path / "killed.sqlite"
    stored = [0]
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, script, store], stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        patience = time.monotonic() + 60
        while rows_in(store) <= stored[-1] and time.monotonic() < patience:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        stored.append(rows_in(store))
    assert 0 < stored[1] < stored[2] < 2400, "each run was killed while it stored rows"
    runs = [
        subprocess.run([sys.executable, script, place], capture_output=True, text=True, check=True).stdout
        for place in (store, tmp_path / "whole.sqlite")
    ]
    assert runs[0] == runs[1]
    assert runs[0].count("\n") == 2402


def test_fingerprints_tell_networks_apart():
    module, _ = small()
    first = fingerprint_of(numerics.emulate(module, "bf16"))
    assert first == fingerprint_of(numerics.emulate(small()[0], "bf16"))
    assert first != fingerprint_of(numerics.emulate(module, "int8"))
    with torch.no_grad():
        module[0].bias[0] += 1e-7
    assert first != fingerprint_of(numerics.emulate(module, "bf16"))


def test_every_run_of_an_operator_has_its_activations():
    layer = nn.Linear(3, 3)
    module = nn.Sequential(layer, nn.ReLU(), layer)
    network = NetworkUnderTest(numerics.emulate(module, "bf16"), torch.randn(4, 3))
    sites = network.sites()
    assert [(s.layer, s.role) for s in sites] == [("0", "activation"), ("0", "weight"), ("0@1", "activation")]
    outcomes = [network.run_places(sites, [Place(number, 1, 15, 0)])[0].outcome for number in range(3)]
    assert outcomes[0] != "masked"


def test_scores_lie_between_0_and_1():
    module, x = small()
    with pytest.raises(InputError, match=r"^metric: expected scores from 0 to 1, got"):
        NetworkUnderTest(numerics.emulate(module, "bf16"), x, metric=lambda outputs, labels: outputs[:, 0] * 100)


def test_refusals(tmp_path):
    module, x = small()
    emulation = numerics.emulate(module, "bf16")
    for arguments, text in (
        ((module, x, SingleBits()), r"^recipe: a module that is not emulated needs number formats"),
        ((emulation, x, []), r"^faults: faults: expected at least one"),
        ((emulation, x, {}), r"^faults: expected SingleBits, BitFaults or named scenarios"),
        ((emulation, x, [3]), r"^faults: faults: expected BitFaults, got int; faults of a machine's parts"),
        ((emulation, x, BitFaults(target="gradient", rate=0.1)), r"a campaign runs inference; 'gradient' fails in training"),
        ((emulation, x, SingleBits(modules="7")), r"^faults: the network has no weight or activation in modules that match '7'$"),
        (
            (emulation, x, BitFaults(rate=0.1, modules="7")),
            r"^faults: faults: the network has no weight in modules that match '7'$",
        ),
        (("resnet", x, SingleBits()), r"^model: expected a torch\.nn\.Module, got str$"),
    ):
        with pytest.raises(InputError, match=text):
            Campaign(*arguments)
    for arguments, text in (
        ({"seed": -1}, r"^seed: expected an integer ≥ 0, got -1$"),
        ({"margin": 0}, r"^margin: expected a number between 0 and 1, got 0$"),
        ({"interval": "normal"}, r"^interval: unknown name 'normal'"),
        ({"recipe": "int8"}, r"^recipe: the model is emulated already"),
    ):
        with pytest.raises(InputError, match=text):
            Campaign(numerics.emulate(module, "bf16"), x, SingleBits(), **arguments)
    for arguments, text in (
        ({"targets": ("weights",)}, r"^targets: unknown name 'weights'"),
        ({"targets": ()}, r"^targets: expected at least one role, got none$"),
        ({"kind": "flop"}, r"^kind: unknown name 'flop'"),
        ({"allocation": "neyman"}, r"^allocation: unknown name 'neyman'"),
    ):
        with pytest.raises(InputError, match=text):
            SingleBits(**arguments)
    campaign = Campaign(module, x, SingleBits(), recipe="bf16", margin=0.3)
    with pytest.raises(InputError):
        campaign.result(tmp_path / "none.sqlite")
    result = campaign.run(tmp_path / "bits.sqlite", progress="silent")
    with pytest.raises(InputError, match=r"^scores: fault maps have scores"):
        result.scores()
    with pytest.raises(InputError, match=r"^by: expected some of layer, target, bit, got 'image'$"):
        result.rates("image")


def refusing(outputs, labels):
    """A metric that raises where outputs are far out, or no numbers."""
    if not float(outputs.abs().max()) <= 3:
        raise ValueError("outputs too large")
    return (outputs.argmax(-1) == labels).float()


def test_intervals_reach_over_what_failed(tmp_path):
    module, x = small()
    recipe = Recipe(name="narrow", formats={"weight": "e4m3fn", "activation": "e4m3fn"})
    campaign = Campaign(module, x, SingleBits(), "accuracy", recipe=recipe, margin=0.001, maximum=10**6)
    strict = Campaign(module, x, SingleBits(), refusing, recipe=recipe, margin=0.001, maximum=10**6)
    whole = campaign.run(tmp_path / "all", progress="silent")
    part = strict.run(tmp_path / "part", progress="silent", retries=0)
    assert 0 < len(part.failures) < len(whole.trials)
    assert len(part.trials) + len(part.failures) == len(whole.trials)
    lost = {failure["trial"] for failure in part.failures}
    assert [row for row in whole.trials if row["trial"] not in lost] == list(part.trials)
    for by in ((), ("layer",), ("layer", "target", "bit")):
        for row, truth in zip(part.rates(*by), whole.rates(*by), strict=True):
            assert row["trials"] <= truth["trials"]
            if "changed" in row:
                # Every place was tried: what is open is what failed, and no more.
                assert row["changed_low"] <= truth["changed"] <= row["changed_high"]
    (total,), (truth,) = part.rates(), whole.rates()
    hits, every = sum(row["changed"] for row in part.trials), len(whole.trials)
    assert total["changed_low"] == pytest.approx(hits / every)
    assert total["changed_high"] == pytest.approx((hits + len(lost)) / every)
    assert part.to_dict()["failures"][0]["error"] == "ValueError: outputs too large"


def test_scores_reach_over_maps_that_failed(tmp_path):
    module, x = small()
    models = {"rate": BitFaults(rate=0.02)}
    recipe = Recipe(name="narrow", formats={"weight": "e4m3fn", "activation": "e4m3fn"})
    arguments = {"recipe": recipe, "margin": 0.001, "maximum": 60, "interval": "student"}
    strict = Campaign(module, x, models, refusing, **arguments).run(tmp_path / "part", progress="silent", retries=0)
    assert 0 < len(strict.failures) < 60
    assert {failure["scenario"] for failure in strict.failures} == {"rate"}
    (row,) = strict.scores()
    values = [trial["score"] for trial in strict.trials]
    for extreme, end in ((0.0, "score_low"), (1.0, "score_high")):
        assert abs(row[end] - extreme) <= abs(np.mean(values + [extreme] * len(strict.failures)) - extreme)


def test_a_scenario_whose_every_map_failed_is_told(tmp_path, capsys):
    module, x = small()
    recipe = Recipe(name="narrow", formats={"weight": "e4m3fn", "activation": "e4m3fn"})
    models = {"some": BitFaults(rate=0.002), "all": BitFaults(kind="stuck_at_1", rate=1.0)}
    campaign = Campaign(module, x, models, refusing, recipe=recipe, margin=0.49, first=5, maximum=20)
    result = campaign.run(tmp_path / "store", progress="silent", retries=0)
    some, none = result.scores()
    assert none["scenario"] == "all"
    assert none == {"scenario": "all", "trials": 0, "failed": sum(f["scenario"] == "all" for f in result.failures)}
    assert some["trials"] + some["failed"] == none["failed"] == 20  # looks go on, as nothing is known of one
    assert some["score_high"] - some["score_low"] <= 2 * 0.49
    assert not result.within(0.49)
    result.print()
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("all "))
    assert line.split() == ["all", "0", *["–"] * 7]


def test_a_metric_must_travel():
    module, x = small()
    with pytest.raises(InputError, match=r"^metric: expected a function at the top level of a module, .*<lambda>$"):
        Campaign(module, x, SingleBits(), lambda out, labels: out[:, 0] > 0, recipe="int8")


@pytest.mark.parametrize("batch", [1, 3, 7, 256])
@pytest.mark.parametrize("guard", [SecdedWords(), Parity()])
def test_what_is_stored_is_corrected_once_a_map(batch, guard):
    """However many images and batches read the same weights."""
    torch.manual_seed(0)
    emulation = numerics.emulate(nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)), "int8")
    found = {
        (one.faulty_bits, one.corrected, one.detected)
        for images in (1, 7, 20)
        for one in [
            NetworkUnderTest(emulation, torch.randn(images, 16), batch=batch).run_map(
                [BitFaults(rate=0.003)], protections=[guard], seed=5
            )
        ]
    }
    ((bits, corrected, detected),) = found
    assert bits > 5
    assert corrected + detected > 5


@pytest.mark.parametrize("faults", [SingleBits(), {"a": BitFaults(rate=0.02), "b": BitFaults(rate=0.1)}], ids=["bits", "maps"])
@pytest.mark.parametrize("interval", ["bernstein", "student"])
def test_progress_ends_with_the_interval_of_the_result(faults, interval, tmp_path, capsys):
    """Method, level of the look and failed trials are those that the result states."""
    module, x = small()
    recipe = Recipe(name="narrow", formats={"weight": "e4m3fn", "activation": "e4m3fn"})
    campaign = Campaign(module, x, faults, refusing, recipe=recipe, margin=0.2, first=60, maximum=90, interval=interval)
    result = campaign.run(tmp_path / "store", progress="lines", retries=0)
    assert result.failures
    last = capsys.readouterr().err.splitlines()[-1]
    rows, name = (result.rates(), "changed") if isinstance(faults, SingleBits) else (result.scores(), "score")
    stated = ", ".join(f"{100 * r[name]:.2f} [{100 * r[f'{name}_low']:.2f}, {100 * r[f'{name}_high']:.2f}] %" for r in rows)
    assert last.endswith(f"{name} {stated}")
    done = len(result.trials) + len(result.failures)
    assert last.startswith(f"faults: {done}/{done} trials")


def test_intervals_on_the_way_are_those_of_the_coming_look():
    module, x = small()
    campaign = Campaign(module, x, BitFaults(rate=0.02), recipe="int8", margin=0.05, first=10, maximum=100, interval="student")
    from hwsim.faults.trials import _Note

    note, tally = _Note(campaign), Tally(campaign)
    rows = [(trial, {"score": float(trial % 3 == 0)}) for trial in range(8)]
    tally.add([*rows, (8, None)])
    assert note([*rows, (8, None)]) == note._text(tally.intervals(campaign.looks.levels[0]))
    wider, narrower = (tally.intervals(level)[0].half_width for level in (campaign.looks.levels[0], 0.95))
    assert wider > narrower


def test_data_that_the_model_refuses():
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(8, 4))
    for recipe in ("int8", "bf16", "int8_static"):
        for shape in ((5, 1, 4, 4), (5, 3, 9, 9), (5, 48)):
            text = rf"^data: the model does not run on inputs \({', '.join(map(str, shape))}\) float32: RuntimeError: "
            with pytest.raises(InputError, match=text):
                Campaign(module, torch.randn(shape), SingleBits(), recipe=recipe)


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ([77, 77], r"^labels: expected 0 to 2 for 3 classes, got 77 to 77$"),
        ([0, -1], r"^labels: expected 0 to 2 for 3 classes, got -1 to 0$"),
        ([0, 3], r"^labels: expected 0 to 2 for 3 classes, got 0 to 3$"),
        ([0.0, 1.0], r"^labels: expected integers, got float32$"),
        ([[0], [1]], r"^labels: expected shape \(2,\), one for each prediction, got \(2, 1\)$"),
    ],
)
def test_labels_that_are_no_classes(labels, text):
    module, x = small()
    with pytest.raises(InputError, match=text):
        Campaign(module, (x, torch.tensor(labels)), SingleBits(), recipe="int8")


def test_why_whole_passes():
    """Named once, and without a remedy that is none."""
    conv = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    for recipe in (Recipe("sums", {"weight": "e4m3fn", "activation": "e4m3fn"}, accumulation="fp32"), "bf16"):
        network = NetworkUnderTest(numerics.emulate(conv, recipe), torch.randn(2, 1, 6, 6))
        assert network.whole_passes_because == (
            "model: sums of adaptive_avg_pool2d in module '1' are left to a library, whatever the recipe"
        )
    network = NetworkUnderTest(numerics.emulate(small()[0], "bf16"), small()[1])
    assert network.whole_passes_because == (
        "model: sums of linear in module '0' are left to a library; a recipe with accumulation defines their order"
    )
