"""How long emulated optical engines take, in CPU time of one core. Nothing is asserted as a time.

A layer of ResNet-50 (3×3, 64 to 64 channels of 56×56 pixels, one image): 147,456 weights on 4×4 meshes are 2,304 tiles, and
58 million samples; the layer of 512 channels of 7×7 has 147,456 such tiles. A network of two layers on a thousand digits.
"""

from time import process_time

import numba
import pytest
import torch
from torch import nn

import hwsim

NAMES = ("coherent_mzi_56", "mrr_bank", "tempo_like", "ideal_photonic")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = numba.get_num_threads(), torch.get_num_threads()
    numba.set_num_threads(1)
    torch.set_num_threads(1)
    yield
    numba.set_num_threads(before[0])
    torch.set_num_threads(before[1])


def layers():
    torch.manual_seed(0)
    return {
        "digits": (nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10)), torch.rand(1000, 64)),
        "layer1 3x3": (nn.Conv2d(64, 64, 3, padding=1, bias=False), torch.rand(1, 64, 56, 56)),
        "layer4 3x3": (nn.Conv2d(512, 512, 3, padding=1, bias=False), torch.rand(1, 512, 7, 7)),
    }


@pytest.mark.parametrize("layer", ["digits", "layer1 3x3", "layer4 3x3"])
@pytest.mark.parametrize("name", NAMES)
def test_emulation(benchmark, name, layer):
    module, x = layers()[layer]
    with torch.no_grad():
        hwsim.get_device(name).emulate(module)(x[:1])  # compiled
        emulated = hwsim.get_device(name).emulate(module)
        start = process_time()
        emulated(x)
        first = process_time() - start
        start = process_time()
        benchmark.pedantic(lambda: emulated(x), rounds=1, warmup_rounds=0)
        again = process_time() - start
    samples = sum(row["samples"] for row in emulated.matrix_unit.table()) // 2
    benchmark.extra_info.update(first_s=round(first, 3), again_s=round(again, 3), samples=samples)
    print(f"\n{name}, {layer}: {first:.2f} s with its tiles set, {again:.2f} s again, {samples:,} samples")
