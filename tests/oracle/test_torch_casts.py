"""The overflow preset ``torch`` against ``Tensor.to`` of the installed PyTorch."""

import numpy as np
import pytest
import torch
from float_strata import around, fp32_strata, without_e8m0_quirk

from numerics import encode, get_format, quantize

THEIRS = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "e5m2": torch.float8_e5m2,
    "e5m2fnuz": torch.float8_e5m2fnuz,
    "e4m3fn": torch.float8_e4m3fn,
    "e4m3fnuz": torch.float8_e4m3fnuz,
    "e8m0fnu": torch.float8_e8m0fnu,
}


def check(x, name):
    kind = THEIRS[name]
    if name == "e8m0fnu":
        x = without_e8m0_quirk(x)
    theirs = torch.from_numpy(x).to(kind).view(torch.uint8 if kind.itemsize == 1 else torch.uint16).numpy()
    ours = encode(x, name, overflow="torch")
    # A NaN keeps payload bits in their fp16 and bf16; ours is one NaN.
    same = (ours == theirs) | (np.isnan(x) if kind.itemsize == 2 else False)
    if not same.all():
        i = int(np.argmin(same))
        raise AssertionError(
            f"{name}: {int((~same).sum())} of {x.size} differ: {float(x[i]).hex()} → {ours[i]:#x}, not {theirs[i]:#x}"
        )
    values = quantize(x, name, overflow="torch")
    back = torch.from_numpy(x).to(kind).float().numpy()
    np.testing.assert_array_equal(values, back)
    zeros = back == 0
    np.testing.assert_array_equal(np.signbit(values[zeros]), np.signbit(back[zeros]))


@pytest.mark.parametrize("name", THEIRS)
def test_strata(name):
    x = fp32_strata(22, seed=1)
    check(x, name)


@pytest.mark.parametrize("name", THEIRS)
def test_values_midpoints_and_their_neighbours(name):
    check(around(get_format(name).table(), np.float32), name)
