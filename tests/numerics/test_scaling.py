"""Scales: what the fields allow, and what they find."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
import torch

from numerics import InputError, get_format
from numerics.scaling import AmaxHistory, Scaling, find_scales, power_of_two_above


@pytest.mark.parametrize(
    "scaling",
    [
        Scaling(),
        Scaling("none"),
        Scaling("group", 32, power_of_two=True),
        Scaling("tile", (1, 128)),
        Scaling("tensor", update="delayed", history=1024, margin=1),
        Scaling("channel", update="static", symmetric=False, calibrator="mse"),
    ],
)
def test_plain_data_reads_back_the_same(scaling):
    assert Scaling.from_dict(json.loads(json.dumps(scaling.to_dict()))) == scaling


def test_a_granularity_alone_is_a_scaling():
    assert Scaling.from_dict("channel") == Scaling("channel")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"granularity": "row"}, "scaling: granularity: unknown name 'row'; did you mean 'group'?"),
        ({"update": "static_"}, "scaling: update: unknown name 'static_'; did you mean 'static'?"),
        ({"granularity": "group"}, "scaling: size: a group takes an integer ≥ 1, got None"),
        ({"granularity": "group", "size": 0}, "scaling: size: a group takes an integer ≥ 1, got 0"),
        ({"granularity": "group", "size": True}, "scaling: size: a group takes an integer ≥ 1, got True"),
        ({"granularity": "tile", "size": 128}, "scaling: size: a tile takes (rows, columns), integers ≥ 1, got 128"),
        ({"granularity": "tile", "size": (1, 0)}, "scaling: size: a tile takes (rows, columns), integers ≥ 1, got (1, 0)"),
        ({"size": 3}, "scaling: size: only 'group' and 'tile' have one; expected None for 'tensor', got 3"),
        ({"history": 0}, "scaling: history: expected an integer ≥ 1, got 0"),
        ({"margin": 0.5}, "scaling: margin: expected an integer, got 0.5"),
        ({"power_of_two": 1}, "scaling: power_of_two: expected true or false, got 1"),
        ({"calibrator": ""}, "scaling: calibrator: expected a name such as 'minmax', got ''"),
        (
            {"granularity": "channel", "update": "delayed"},
            "scaling: update: 'delayed' expects granularity 'tensor' and symmetric=True, "
            "got granularity 'channel', symmetric=True",
        ),
        (
            {"granularity": "group", "size": 8, "update": "static"},
            "scaling: update: 'static' expects granularity 'tensor' or 'channel', got 'group'",
        ),
        ({"sise": 8}, "scaling: field: unknown name 'sise'; did you mean 'size'?"),
    ],
)
def test_wrong_fields_are_named(fields, text):
    with pytest.raises(InputError, match=f"^{re.escape(text)}$"):
        Scaling.from_dict(fields)


def parts(shape, scaling):
    """Index ranges that share a scale, by plain loops."""
    rows, columns = shape
    sizes = {"tensor": shape, "channel": (1, columns), "group": (1, scaling.size), "tile": scaling.size}[scaling.granularity]
    for i in range(0, rows, sizes[0]):
        for j in range(0, columns, sizes[1]):
            yield slice(i, min(i + sizes[0], rows)), slice(j, min(j + sizes[1], columns))


SHARED = [
    Scaling("tensor"),
    Scaling("channel"),
    Scaling("group", 4),
    Scaling("group", 100),
    Scaling("tile", (2, 3)),
    Scaling("tile", (8, 8)),
]


@pytest.mark.parametrize("scaling", SHARED)
@pytest.mark.parametrize("symmetric", [True, False])
def test_every_part_has_the_scale_of_its_own_values(scaling, symmetric):
    scaling = Scaling(scaling.granularity, scaling.size, symmetric=symmetric)
    x = torch.randn(5, 10, generator=torch.Generator().manual_seed(0))
    x[2:4, 3:6] = 0
    fmt = get_format("int8")
    found = find_scales(x, fmt, scaling)
    scale = found.scale.expand(x.shape)
    for i, j in parts(x.shape, scaling):
        part = x[i, j].numpy()
        if symmetric:
            expected = np.float32(np.abs(part).max()) / np.float32(127) if part.any() else np.float32(1)
            assert (scale[i, j].numpy() == expected).all()
        else:
            low, high = min(part.min(), 0), max(part.max(), 0)
            expected = (np.float32(high) - np.float32(low)) / np.float32(255) if high > low else np.float32(1)
            assert (scale[i, j].numpy() == expected).all()
            zero = np.clip(-128 - np.round(low / expected), -128, 127)
            assert (found.zero_point.expand(x.shape)[i, j].numpy() == zero).all()


def test_one_axis_and_many_axes():
    x = torch.arange(1.0, 9.0)
    assert (
        find_scales(x, get_format("int8"), Scaling("group", 4)).scale.tolist()
        == (torch.tensor([4.0] * 4 + [8.0] * 4) / 127).tolist()
    )
    batch = torch.stack([torch.ones(3, 4), 5 * torch.ones(3, 4)])
    scale = find_scales(batch, get_format("int8"), Scaling("tile", (3, 4))).scale
    assert scale.unique().tolist() == (torch.tensor([1.0, 5.0]) / 127).tolist()


def test_infinities_and_nan_set_no_scale():
    x = torch.tensor([1.0, -3.0, math.inf, math.nan])
    assert float(find_scales(x, get_format("e4m3fn"), Scaling("tensor")).scale) == float(torch.tensor(3.0) / 448)


def test_tiny_magnitudes_have_a_normal_scale():
    x = torch.tensor([1e-44])
    assert float(find_scales(x, get_format("e4m3fn"), Scaling("tensor")).scale) == torch.finfo(torch.float32).tiny


def test_powers_of_two_are_the_next_above():
    x = torch.tensor([1.0, 1.0000001, 0.75, 2.0**-126, 3e38 / 4])
    assert power_of_two_above(x).tolist() == [1.0, 2.0, 1.0, 2.0**-126, 2.0**126]
    fine = find_scales(torch.tensor([300.0]), get_format("e4m3fn"), Scaling("tensor", power_of_two=True))
    assert float(fine.scale) == 1.0


def test_margin_and_format_enter_the_scale():
    found = find_scales(torch.tensor([10.0, -20.0]), get_format("e5m2"), Scaling("tensor", margin=3))
    assert float(found.scale) == float(torch.tensor(160.0) / 57344)


def test_a_history_forgets_after_its_length():
    history, own = AmaxHistory(2), torch.tensor(9.0)
    read = []
    for amax in (4.0, 1.0, 2.0, 3.0):
        history.advance()
        read.append(float(history.largest(own)))
        history.record(torch.tensor(amax))
        history.record(torch.tensor(amax / 2))
    assert read == [9.0, 4.0, 4.0, 2.0]
