"""Products, arrays and a network for tests of faults."""

import numpy as np
import torch
from torch import nn

from accelerators.systolic.cycle import registers
from accelerators.systolic.device import SystolicArray
from accelerators.systolic.spec import ArraySpec, Timing
from hwsim.registry import read_spec, spec_file
from numerics import decode, get_format, quantize

DATAFLOWS = ("ws", "os", "is")
KINDS = ("flip", "stuck_at_0", "stuck_at_1")


def operands(fmt, shape, rng, odd=False):
    """Random numbers of a format, some zero; with ``odd``, all of a float's codes, Inf and NaN among them."""
    if fmt == "int8":
        found = rng.integers(-128, 128, shape)
    elif odd:
        found = decode(rng.integers(0, 1 << get_format(fmt).code_bits, shape).astype(np.uint32), fmt)
    else:
        found = quantize(rng.standard_normal(shape).astype(np.float32), fmt)
    return np.where(rng.random(shape) < 0.2, 0, found)


def random_array(chance, dataflow, latency=1, most=(6, 5)):
    timing = Timing(
        fold_overlap=chance.choice(["none", "weights", "full"]), output_drain=chance.choice(["hidden", "shift"]),
        mac_latency_cycles=latency,
    )  # fmt: skip
    return ArraySpec(rows=chance.randint(1, most[0]), columns=chance.randint(1, most[1]), dataflow=dataflow, timing=timing)


def names_of(array):
    hidden = array.timing.output_drain == "hidden"
    return [name for name in registers(array.dataflow) if not (name == "drain" and hidden)]


class Network(nn.Module):
    """A convolution, one of groups, an attention of two heads, a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv, self.groups = nn.Conv2d(2, 6, 3, stride=2, padding=1), nn.Conv2d(6, 6, 1, groups=3)
        self.qkv, self.out = nn.Linear(6, 18), nn.Linear(6, 5)

    def forward(self, x):
        tokens = self.groups(torch.relu(self.conv(x))).flatten(2).mT
        q, k, v = self.qkv(tokens).unflatten(-1, (3, 2, 3)).permute(2, 0, 3, 1, 4)
        mixed = torch.softmax(q @ k.mT, -1) @ v
        return self.out(mixed.transpose(1, 2).flatten(2).mean(1))


def small_device(dataflow="ws", fmt="int8", sums="int32", **memory):
    data = read_spec(spec_file("gemmini_16x16"))
    data["array"] |= {"rows": 4, "columns": 3, "dataflow": dataflow, "timing": "rtl"}
    data["mac_formats"] = {fmt: {"energy_pj": 1.0}}
    data["default_formats"] = {"weight": fmt, "activation": fmt, "accumulator": sums}
    if fmt != "int8":
        data["default_formats"]["elementwise"] = "fp32"
    for name, size in memory.items():
        data["memory"][name]["capacity_bytes"] = size
    return SystolicArray.from_data(data, source="test")


def network():
    torch.manual_seed(11)
    return Network(), torch.randn(2, 2, 6, 6)
