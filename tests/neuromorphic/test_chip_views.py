"""Pictures of spiking chips: what is drawn, against the report's tables summed by hand."""

import numpy as np
import pytest
from chip_networks import dense, network, population

from hwsim.registry import get_device
from neuromorphic import bernoulli_events, spiking_workload
from neuromorphic.views import plot_core_map, plot_raster, plot_steps


def report_on(name, *, hidden=20, **overrides):
    """A chip with few neurons a core, so that routers have several cores and links several directions."""
    rng = np.random.default_rng(0)
    net = network(
        [population("in", 12, "input"), population("hidden", hidden), population("out", 4)],
        [
            dense("in-hidden", "in", "hidden", rng.integers(-1, 4, (hidden, 12)) / 4),
            dense("hidden-out", "hidden", "out", rng.integers(-1, 3, (4, hidden)) / 4),
        ],
        name="small",
    )
    events = {"in": bernoulli_events(np.full(12, 0.3), seed=0, steps=30)}
    device = get_device(name, overrides=overrides)
    return device.simulate(spiking_workload(net, steps=30, rates=0.2, events=events))


@pytest.fixture(scope="module")
def spread():
    return report_on("loihi", hidden=60, neurons_per_core=2)


def images(figure):
    """Title of an axes → the array that it shows, and its limits."""
    return {axes.get_title(): (axes.images[0].get_array(), axes.images[0].get_clim()) for axes in figure.axes if axes.images}


def test_the_core_map_sums_the_cores_and_links_of_a_router(spread):
    figure = plot_core_map(spread)
    (load, passed) = images(figure).values()
    busy, packets = np.zeros((4, 8)), np.zeros((4, 8))
    for row in spread.tables["core_map"]:
        busy[row["y"], row["x"]] += row["busy_s"] * 1e6
    for row in spread.tables["links"]:
        packets[row["y"], row["x"]] += row["packets"]
    routers = [(row["x"], row["y"]) for row in spread.tables["core_map"]]
    senders = [(row["x"], row["y"]) for row in spread.tables["links"]]
    # Otherwise nothing would be summed.
    assert len(set(routers)) < len(routers)
    assert len(set(senders)) < len(senders)
    np.testing.assert_allclose(load[0].filled(0), busy)
    np.testing.assert_array_equal(passed[0].filled(0), packets)
    assert (load[1], passed[1]) == ((0, pytest.approx(busy.max())), (0, packets.max()))
    assert list(images(figure)) == ["time the cores work (µs)", "packets over links that leave a router"]


def test_without_packets_there_is_no_scale_of_them():
    figure = plot_core_map(report_on("loihi"))
    assert list(images(figure)) == ["time the cores work (µs)", "no packets leave a router"]
    assert len(figure.axes) == 3, "two maps, and the colours of one"
    assert all(axes.get_ylim()[0] >= 0 for axes in figure.axes[2:])


@pytest.mark.filterwarnings("error")
def test_where_times_are_unknown_work_is_counted():
    report = report_on("loihi2")
    (load, _), *_ = images(plot_core_map(report)).values()
    operations = sum(row["synaptic_operations"] for row in report.tables["populations"])
    assert load.sum() == operations > 0
    assert "synaptic operations (times are unknown)" in images(plot_core_map(report))
    upper, lower = plot_steps(report).axes
    assert [text.get_text() for text in upper.texts] == ["energy is unknown"]
    assert upper.get_legend() is None
    assert not upper.get_yticks().size
    (line,) = lower.lines
    assert line.get_ydata().tolist() == [row["synaptic_operation"] for row in report.tables["time_steps"]]
    assert line.get_ydata().sum() == operations
    assert "times are unknown" in lower.get_ylabel()


def test_steps_show_their_energy_and_time():
    report = report_on("spinnaker2", step_time_s=1e-4)
    upper, lower = plot_steps(report).axes
    rows = report.tables["time_steps"]
    energies = [sum(value for key, value in row.items() if key.startswith("energy_")) for row in rows]
    top = max(path.vertices[:, 1].max() for one in upper.collections for path in one.get_paths())
    scale = {"energy a step (nJ)": 1e9, "energy a step (µJ)": 1e6, "energy a step (pJ)": 1e12}[upper.get_ylabel()]
    assert top == pytest.approx(scale * max(energies))
    work, limit = lower.lines
    assert np.argmax(work.get_ydata()) == np.argmax([row["busy_s"] for row in rows])
    share = np.max(work.get_ydata()) / limit.get_ydata()[0]
    assert share == pytest.approx(max(row["busy_s"] for row in rows) / 1e-4)


def test_the_raster_has_a_dot_a_spike(spread):
    (axes,) = plot_raster(spread).axes
    dots = [line for line in axes.lines if line.get_linestyle() == "None"]
    bases, base = {}, 0
    for row in spread.tables["populations"]:
        bases[row["population"]], base = base, base + row["size"]
    drawn = sorted((x, y) for line in dots for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True))
    expected = sorted((row["step"], bases[row["population"]] + row["neuron"]) for row in spread.tables["raster"])
    assert drawn == expected
    total = sum(row["spikes"] for row in spread.tables["populations"])
    assert axes.get_xlabel() == f"step ({total:,} spikes, those that enter included)"
