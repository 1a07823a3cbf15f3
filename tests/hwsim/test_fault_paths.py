"""The two ways a campaign runs single bits, on what they change and in passes of the whole network, come to the same."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from incremental_networks import DEFINED, emulated, networks
from torch import nn

import numerics
from hwsim.faults import Campaign, SingleBits
from hwsim.faults.network import NetworkUnderTest, Place
from numerics import Recipe
from numerics.errors import InputError
from numerics.faults import Parity
from numerics.faults.models import KINDS
from numerics.scaling import Scaling


def places(network, sites, count):
    rng = np.random.default_rng(3)
    found = []
    for number in range(count):
        site = int(rng.integers(len(sites)))
        element, bit = int(rng.integers(sites[site].elements)), int(rng.integers(sites[site].bits))
        found.append(Place(site, element, bit, int(rng.integers(network.images)), KINDS[number % 3]))
    return found


@pytest.mark.parametrize("recipe", DEFINED)
@pytest.mark.parametrize("name", ["residual", "plain"])
def test_both_ways_agree(name, recipe):
    module, images = networks()[name]
    network = NetworkUnderTest(emulated(module, images, DEFINED[recipe]), images)
    assert network.whole_passes_because == ""
    sites = network.sites()
    tried = places(network, sites, 90)
    found = network.run_places(sites, tried)
    network.__dict__["_incremental"] = "model: not now"
    assert network.run_places(sites, tried) == found
    assert len({outcome.outcome for outcome in found}) > 1


def test_campaigns_agree_too(tmp_path, monkeypatch):
    module, images = networks()["plain"]
    emulation = emulated(module, images, next(iter(DEFINED.values())))
    tables = []
    for number in range(2):
        campaign = Campaign(emulation, images, SingleBits(), margin=0.05, maximum=400)
        assert (campaign.whole_passes_because == "") == (number == 0)
        tables.append([{**row} for row in campaign.run(tmp_path / f"{number}", progress="silent").trials])
        monkeypatch.setattr("hwsim.faults.network.GOLDEN_BYTES", 4000)
    assert tables[0] == tables[1]


def test_why_a_campaign_takes_whole_passes():
    module, images = networks()["plain"]
    defined = next(iter(DEFINED.values()))
    network = NetworkUnderTest(numerics.emulate(module.eval(), "bf16"), images)
    assert "left to a library" in network.whole_passes_because
    network = NetworkUnderTest(emulated(nn.Sequential(module, nn.Tanh()), images, defined), images)
    assert "tanh" in network.whole_passes_because
    campaign = Campaign(emulated(module, images, defined), images, SingleBits(), maximum=100, protections=Parity())
    assert campaign.whole_passes_because.startswith("protections")


def test_what_the_emulation_refuses_is_refused():
    torch.manual_seed(0)
    module, images = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(3, 4)
    formats = {"weight": "fp16", "activation": "fp16", "elementwise": "int8"}
    scaling = {"elementwise": Scaling("tensor", update="static")}
    network = NetworkUnderTest(emulated(module, images, Recipe("r", formats, scaling=scaling, accumulation="fp32")), images)
    assert network.whole_passes_because == ""
    sites = network.sites(("weight",))
    with torch.no_grad():
        # One flip away from a NaN: the exponent's other bits are set.
        network.emulation.module[0].weight[1, 1] = 1.5
    network = NetworkUnderTest(network.emulation, images)
    where = Place(0, 5, 14, 2)
    with pytest.raises(InputError, match=r"^x: holds a NaN"):
        network.run_places(sites, [where])
    assert network.run_places(sites, [replace(where, bit=0)])[0].outcome in ("masked", "silent")


def test_static_scales_are_calibrated_on_the_data(tmp_path):
    module, images = networks()["plain"]
    given = numerics.emulate(module.eval(), "int8_static")
    numerics.calibrate(given, [images])
    found = []
    for number, (model, recipe) in enumerate([(module, "int8_static"), (given, None)]):
        campaign = Campaign(model, images, SingleBits(), recipe=recipe, margin=0.1, maximum=400)
        assert campaign.whole_passes_because == ""
        found.append(list(campaign.run(tmp_path / f"{number}", progress="silent").trials))
    assert found[0] == found[1]
