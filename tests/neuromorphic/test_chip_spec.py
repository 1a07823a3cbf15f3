"""The specs of the bundled chips against the table of published figures, and what a spec may not say."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from chip_networks import SPECS, chip

import neuromorphic
from hwsim.registry import specs_of_kind
from neuromorphic.chip.spec import EVENTS, ChipSpec
from numerics.errors import InputError

FIGURES = Path(neuromorphic.__file__).parent / "data" / "neuromorphic_events.csv"
NAMES = ("loihi", "loihi2", "odin", "seneca", "spinnaker2", "truenorth")
CHIP = {"loihi1": "loihi"}
SET = {"sanafe2.2.9": "sanafe2"}
SYNAPSE_KIND = {"synapse_dense": "dense", "synapse_sparse": "sparse", "synapse_conv": "convolution"}


def figures():
    lines = [line for line in FIGURES.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines))


def test_all_are_found():
    assert tuple(specs_of_kind(SPECS, "neuromorphic_chip")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_spec_survives_being_written_down(name):
    spec = chip(name)
    assert spec.name == name
    assert ChipSpec.model_validate(spec.model_dump()) == spec
    assert ChipSpec.model_validate(json.loads(json.dumps(spec.model_dump(mode="json")))) == spec


def in_spec(row):
    """(pJ, ns) of a row of the table in its chip's spec; what SANA-FE splits otherwise is put together again."""
    events = chip(CHIP.get(row["chip"], row["chip"])).event_sets[SET.get(row["set"], row["set"])]
    event = row["event"]
    if event in SYNAPSE_KIND:
        cost = events.synaptic(SYNAPSE_KIND[event])
    elif event == "soma_access":
        cost = events.neuron_update_inactive
    elif event == "soma_update":
        active, access = events.neuron_update_active, events.neuron_update_inactive
        return active.energy_pj - access.energy_pj, active.time_ns - access.time_ns
    elif event == "soma_spike":
        cost = events.neuron_spike
    elif event == "barrier_sync":
        return events.barrier.energy_pj, tuple(events.barrier.time_ns.values())
    else:
        cost = getattr(events, event)
    return cost.energy_pj, cost.time_ns


def test_every_published_figure_is_in_its_spec():
    without_spec, compared = set(), 0
    for row in figures():
        if CHIP.get(row["chip"], row["chip"]) not in NAMES:
            without_spec.add(row["chip"])
            continue
        energy_pj, time_ns = in_spec(row)
        if row["energy_pj"]:
            assert energy_pj == pytest.approx(float(row["energy_pj"])), row
            compared += 1
        if "-" in row["time_ns"]:
            assert time_ns == tuple(float(part) for part in row["time_ns"].split("-"))
            compared += 1
        elif row["time_ns"]:
            assert time_ns == pytest.approx(float(row["time_ns"])), row
            compared += 1
    assert without_spec == {"spinnaker", "reckon", "tianjic"}
    assert compared == 34


def test_what_nobody_published_is_unknown():
    loihi = chip("loihi")
    assert loihi.events.energy_pj("axon_out") is None
    assert {"davies2018.axon_out.energy_pj", "davies2018.barrier.energy_pj", "static_power_w"} <= set(loihi.unknown)
    assert "davies2018.barrier.time_ns" not in loihi.unknown
    assert "davies2018.synaptic_operation.energy_pj" not in loihi.unknown
    # Another source knows axons, and says that taking a spike in costs nothing: that is known.
    fitted = chip("loihi", event_set="sanafe2")
    assert fitted.events.energy_pj("axon_in") == 0
    assert fitted.unknown == ("sanafe2.barrier.energy_pj", "static_power_w", "idle_power_w_per_core")
    loihi2 = chip("loihi2")
    assert all(loihi2.events.energy_pj(event) is None and loihi2.events.time_ns(event) is None for event in EVENTS)
    assert len(loihi2.unknown) == 2 * len(EVENTS) + 2
    assert "chips.hop_time_ns" in chip("loihi", chips={"columns": 2}).unknown


def test_a_synaptic_operation_may_depend_on_its_projection():
    events = chip("loihi", event_set="sanafe2").events
    assert [events.energy_pj("synaptic_operation", kind) for kind in ("dense", "sparse", "convolution")] == [35.5, 33.6, 24.0]
    assert events.time_ns("synaptic_operation") == 3.8
    davies = chip("loihi").events
    assert {davies.energy_pj("synaptic_operation", kind) for kind in ("dense", "sparse", None)} == {23.6}


def test_the_barrier_takes_longer_with_more_tiles():
    events = chip("loihi").events
    assert [events.time_ns("barrier", tiles=tiles) for tiles in (1, 32, 40)] == [113, 465, 465]
    assert events.time_ns("barrier", tiles=9) == pytest.approx(113 + (465 - 113) * 8 / 31)


def test_positions_go_tile_by_tile_and_chip_by_chip():
    x, y, chips = chip("loihi", chips={"columns": 2, "rows": 2}).positions()
    assert x.size == 512
    assert (x[:5].tolist(), y[:5].tolist()) == ([0, 0, 0, 0, 1], [0] * 5)
    assert (x[32], y[32]) == (0, 1)  # eight tiles of four a row
    assert [(int(x[c]), int(y[c]), int(chips[c])) for c in (127, 128, 256, 511)] == [(7, 3, 0), (8, 0, 1), (0, 4, 2), (15, 7, 3)]
    assert np.unique(np.stack([x, y]), axis=1).shape[1] == 128
    sparse_mesh = chip("spinnaker2")
    x, y, _ = sparse_mesh.positions()
    assert (x[-1], y[-1]) == (5, 4)  # the last two of 40 places hold no cores


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"cores": 129}, "cores: expected at most the 128 places of the mesh, got 129"),
        ({"mesh": {"input_column": 8}}, "mesh: the input router (8, 0) is outside of the mesh"),
        ({"event_set": "measured"}, "event_set: expected one of davies2018, sanafe2, got 'measured'"),
        ({"synchronisation": "fixed"}, "step_time_s: expected seconds with fixed synchronisation, null with a barrier"),
        ({"step_time_s": 1e-3}, "step_time_s: expected seconds with fixed synchronisation, null with a barrier"),
        ({"synapses": {"sign_by_row": True}}, "weights_per_neuron and sign_by_row are of the rows of a crossbar"),
        ({"synapses": {"layout": "crossbar"}, "input_axons_per_core": None}, "input_axons_per_core: a crossbar has so many rows"),
        ({"event_sets": {"a.b": {"source": "x"}}}, "event_sets: expected names without a dot, got 'a.b'"),
        ({"event_sets": {"bad": {"source": "x", "axon_inn": {"energy_pj": 1}}}}, "unknown field 'event_sets.bad.axon_inn'"),
        (
            {"event_sets": {"bad": {"source": "x", "barrier": {"time_ns": {0: 5}}}}},
            "nanoseconds by number of tiles, one or above",
        ),
        ({"neurons_per_core": 0}, "loihi: neurons_per_core: input should be greater than or equal to 1 (got 0)"),
        ({"neuron_models": {"izhikevich": {}}}, "neuron_models.izhikevich"),
    ],
)
def test_mistakes_are_named(changes, text):
    with pytest.raises(InputError) as error:
        chip("loihi", **changes)
    assert text in str(error.value)
    assert "\n" not in str(error.value)
