"""Pictures and tables of campaigns: what they leave to be seen, and what they say of it."""

from matplotlib.patches import Rectangle

from hwsim.faults.results import CampaignResult
from hwsim.views.faults import VAGUE, plot_accuracy, plot_sensitivity


def bits(counts):
    """A campaign over single bits of one layer: bit → (trials, changed)."""
    trials = [
        {"layer": "0", "target": "weight", "bit": bit, "outcome": "silent", "changed": int(i < changed), "score": 1.0, "trial": 0}
        for bit, (number, changed) in counts.items()
        for i in range(number)
    ]
    strata = {("0", "weight", bit): 10_000 for bit in counts}
    return CampaignResult("bits", trials, [], strata, {}, 10, 1.0, "accuracy", 0.95, 0.95)


def maps(scores, golden):
    """A campaign over fault maps: rate → scores."""
    trials = [
        {
            "trial": i, "scenario": f"{rate:g}", "score": score, "outcome": "silent", "faulty_bits": 1, "changed": 0,
        }
        for rate, values in scores.items()
        for i, score in enumerate(values)
    ]  # fmt: skip
    rates = {f"{rate:g}": rate for rate in scores}
    return CampaignResult("maps", trials, [], {}, rates, 10, golden, "accuracy", 0.95, 0.95, "student")


def hatched(figure):
    (ax, *_) = figure.axes
    return {int(patch.get_x()) for patch in ax.patches if isinstance(patch, Rectangle) and patch.get_hatch()}


def test_cells_of_few_trials_are_hatched():
    result = bits({7: (8, 6), 6: (4000, 3000), 5: (1, 0), 4: (400, 0)})
    wide = {
        column
        for column, row in enumerate(sorted(result.rates("layer", "target", "bit"), key=lambda row: -row["bit"]))
        if row["changed_high"] - row["changed_low"] > 2 * VAGUE
    }
    figure = plot_sensitivity(result)
    assert hatched(figure) == wide == {0, 2}
    assert "hatched: 95 % interval wider than ±10 %" in figure.axes[0].get_title(loc="left")
    sure = plot_sensitivity(bits({7: (4000, 3000), 6: (4000, 10)}))
    assert not hatched(sure)
    assert "hatched" not in sure.axes[0].get_title(loc="left")


def test_a_narrow_band_fills_the_picture():
    result = maps({1e-4: [0.905, 0.907] * 20, 1e-3: [0.899, 0.903] * 20}, golden=0.906)
    figure = plot_accuracy(result)
    ax = figure.axes[0]
    low, high = ax.get_ylim()
    rows = result.scores()
    shown = [100 * row[end] for row in rows for end in ("score_low", "score_high")] + [90.6]
    assert low < min(shown) < max(shown) < high
    assert high - low < 1.5 * (max(shown) - min(shown))
    assert ax.get_xscale() == "log"
    assert plot_accuracy(maps({0.0: [0.5, 0.5], 1e-3: [0.1, 0.9]}, golden=0.5)).axes[0].get_xscale() == "symlog"
    assert plot_accuracy(maps({0.0: [0.5, 0.5]}, golden=0.5)).axes[0].get_xscale() == "linear"


def test_tables_say_what_intervals_cover(capsys):
    maps({1e-3: [0.1, 0.9]}, golden=0.5).print()
    assert "95 % intervals over fault maps on these images; other images might come out otherwise" in capsys.readouterr().out
    bits({7: (8, 6)}).print()
    assert "95 % intervals over the faults of these images; other images might come out otherwise" in capsys.readouterr().out
