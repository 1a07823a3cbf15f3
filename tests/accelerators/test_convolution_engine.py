"""The convolution engine: cycles against atomic operations counted one by one, reads against a buffer that is filled and emptied,
the vendor's own estimates, and what every report keeps to."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import hwsim
import numerics
from accelerators.convolution_engine.array import set_work
from accelerators.convolution_engine.buffering import buffer_plans, plan_buffer
from accelerators.convolution_engine.device import ConvolutionEngine
from accelerators.convolution_engine.nest import Layer, layer_of
from accelerators.convolution_engine.spec import MultiplierArray
from hwsim import zoo
from hwsim.operators import Convolution, Matmul
from hwsim.registry import get_device, read_spec, spec_file
from hwsim.scoreboard.target import number, read_rows
from hwsim.workload import chain
from numerics import InputError, Recipe

NAMES = ("nvdla_2048", "nvdla_512", "nvdla_128", "nvdla_32")
LARGE = get_device("nvdla_2048")
DATA = spec_file("nvdla_2048").parents[2] / "hwsim" / "data" / "measured" / "nvdla_resnet50.csv"


def conv(channels, kernels, size, kernel, *, stride=1, groups=1, batch=1, computes="output"):
    out = (size - kernel) // stride + 1
    return Convolution(
        name="conv", batch=batch, in_channels=channels, out_channels=kernels, input_size=(size, size), output_size=(out, out),
        kernel=(kernel, kernel), stride=(stride, stride), padding=((0, 0),) * 2, dilation=(1, 1), groups=groups,
        computes=computes,
    )  # fmt: skip


# --- the array ------------------------------------------------------------------------------------------------------------


def atomic_operations(layer: Layer, array: MultiplierArray) -> tuple[int, int, set]:
    """(cycles, stripes, products done) of one set of kernels, one atomic operation at a time."""
    cycles = stripes = 0
    products = set()
    columns = layer.taps[-1] if layer.packed else 1
    lanes = [(c, s) for s in range(columns) for c in range(layer.channels)]
    outer = layer.taps[:-1] if layer.packed else layer.taps
    for group, image in itertools.product(range(layer.groups), range(layer.images)):
        for tap in itertools.product(*(range(n) for n in outer)):
            for block in range(0, len(lanes), array.channels):
                rest = list(range(layer.positions))
                number_of_stripes = -(-len(rest) // array.longest_stripe)
                for index in range(number_of_stripes):
                    stripe = rest[index::number_of_stripes]
                    for position in stripe:
                        products |= {(group, image, tap, lane, position) for lane in lanes[block : block + array.channels]}
                    cycles += max(len(stripe), array.shortest_stripe_cycles)
                    stripes += 1
    return cycles, stripes, products


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_cycles_are_those_of_atomic_operations_one_by_one(data):
    def size(most):
        return data.draw(st.integers(1, most))

    array = MultiplierArray(
        multipliers=2 ** data.draw(st.integers(0, 7)), shortest_stripe_cycles=size(6), longest_stripe=size(8), image_channels=4
    )
    layer = Layer(
        groups=size(2), images=size(2), kernels=size(9), channels=size(20), taps=(size(3), size(3)), positions=size(30),
        out_rows=1, feature_bytes=1, weight_bytes=1, window_bytes=1, row_bytes=1, packed=data.draw(st.booleans()),
    )  # fmt: skip
    found = set_work(layer, array)
    cycles, stripes, products = atomic_operations(layer, array)
    assert (found.cycles, found.stripes) == (cycles, stripes)
    taps = layer.taps[0] * layer.taps[1]
    assert len(products) == layer.groups * layer.images * taps * layer.channels * layer.positions
    assert cycles * array.channels >= len(products)


@pytest.mark.parametrize(
    ("multipliers", "shape"), [(2048, (64, 32)), (512, (32, 16)), (128, (16, 8)), (64, (8, 8)), (32, (8, 4))]
)
def test_arrays_are_as_square_as_powers_of_two_allow(multipliers, shape):
    """64 × 32 and 8 × 8 are those of nv_large and nv_small (nvdla.org, "Scalability parameters")."""
    array = MultiplierArray(multipliers=multipliers, shortest_stripe_cycles=16, longest_stripe=32, image_channels=4)
    assert (array.channels, array.kernels) == shape


def test_a_network_input_is_packed():
    row = LARGE.simulate(chain("first", [conv(3, 64, 224, 7, stride=2)])).ops[0]
    assert row.compute_cycles == 2 * 7 * 109 * 109  # two sets of 32 kernels; 7 × 3 lanes fit in 64
    inner = chain("inner", [conv(3, 64, 224, 7, stride=2)])
    name = inner.ops[0].inputs[0]
    inner = replace(inner, tensors={**inner.tensors, name: replace(inner.tensors[name], role="activation")})
    assert LARGE.simulate(inner).ops[0].compute_cycles == 7 * row.compute_cycles


def test_sixteen_bits_run_at_half_the_rate():
    workload = chain("one", [conv(64, 128, 30, 3)])
    times = [
        LARGE.simulate(workload.with_formats(Recipe(f, {"weight": f, "activation": f, "accumulator": s}))).ops[0].compute_cycles
        for f, s in (("int8", "int32"), ("int16", "int32"), ("fp16", "fp32"))
    ]
    assert times[1] == times[2] == 2 * times[0]


# --- the buffer -----------------------------------------------------------------------------------------------------------


class Buffer:
    """A buffer that counts what is read into it and never holds more than it can."""

    def __init__(self, capacity):
        self.capacity, self.held, self.loaded = capacity, {}, 0

    def load(self, name, size):
        if name not in self.held:
            self.held[name] = size
            self.loaded += size
            assert sum(self.held.values()) <= self.capacity + 1e-9

    def drop(self, *kinds):
        self.held = {name: size for name, size in self.held.items() if name[0] not in kinds}


def run(layer: Layer, plan, usable: float) -> int:
    """Bytes that a plan's loops load, window by window and kernel by kernel, of a layer whose windows do not overlap."""
    kernel = layer.weight_bytes // layer.kernels
    rows = [(image, row) for image in range(layer.images) for row in range(layer.out_rows)]

    def kernels(most):
        return [range(first, min(first + most, layer.kernels)) for first in range(0, layer.kernels, most)]

    def slices():
        """Rows that stay together: of several images, or of a part of one."""
        if plan.weight_reads <= layer.images:
            images = -(-layer.images // plan.weight_reads)
            return [rows[at : at + images * layer.out_rows] for at in range(0, len(rows), images * layer.out_rows)]
        most = -(-layer.out_rows * layer.images // plan.weight_reads)
        return [
            [(image, row) for row in range(at, min(at + most, layer.out_rows))]
            for image in range(layer.images)
            for at in range(0, layer.out_rows, most)
        ]

    total = 0
    for _ in range(layer.groups):
        buffer = Buffer(usable)
        if plan.kept == "features":
            for part in slices():
                buffer.drop("feature")
                for row in part:
                    buffer.load(("feature", row), layer.window_bytes)
                for some in kernels(-(-layer.kernels // plan.kernel_sets)):
                    buffer.drop("kernel")
                    for index in some:
                        buffer.load(("kernel", index), kernel)
        elif plan.kept in ("weights", "kernels"):
            for some in kernels(-(-layer.kernels // plan.feature_reads)):
                buffer.drop("kernel")
                for index in some:
                    buffer.load(("kernel", index), kernel)
                for row in rows:
                    buffer.drop("feature")
                    buffer.load(("feature", row), layer.window_bytes)
        else:  # nothing fits beside what is in use
            for _ in range(layer.kernels):
                buffer.loaded += layer.images * layer.feature_bytes
            for _ in rows:
                buffer.loaded += layer.weight_bytes
        total += buffer.loaded
    return total


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_reads_are_those_of_a_buffer_that_is_filled_and_emptied(data):
    def size(most):
        return data.draw(st.integers(1, most))

    rows, window = size(6), size(20)
    layer = Layer(
        groups=size(2), images=size(3), kernels=(count := size(12)), channels=1, taps=(1,), positions=rows, out_rows=rows,
        feature_bytes=rows * window, weight_bytes=count * size(20), window_bytes=window, row_bytes=window,
    )  # fmt: skip
    kernels, usable = size(6), size(500)
    plans = list(buffer_plans(layer, usable, kernels))
    assert plans[-1].kept == "neither"
    for plan in plans:
        assert plan.load_bytes == run(layer, plan, usable)
        assert plan.load_bytes >= layer.groups * (layer.images * layer.feature_bytes + layer.weight_bytes)
        assert plan.kernel_sets >= -(-layer.kernels // kernels)
    more = plan_buffer(layer, usable * 1.5, kernels, cycles_per_set=10, bytes_per_cycle=1)
    less = plan_buffer(layer, usable, kernels, cycles_per_set=10, bytes_per_cycle=1)
    assert max(10 * more.kernel_sets, more.load_bytes) <= max(10 * less.kernel_sets, less.load_bytes)


# --- the vendor's estimates -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet():
    return hwsim.trace(zoo.build("resnet50"), *zoo.example_inputs("resnet50", batch=1))


def frames(resnet, row, **fields):
    overrides = {
        "mac_array.multipliers": int(row["macs"]),
        "convolution_buffer.capacity_bytes": int(row["conv_buf_bytes"]),
        "off_chip.bandwidth_bytes_per_s": float(row["sdram_bytes_per_s"]),
        **fields,
    }
    return 1 / get_device("nvdla_2048", overrides=overrides).simulate(resnet).time_s


def test_frames_a_second_are_those_that_the_vendor_estimates(resnet):
    rows = read_rows(DATA)
    told = np.array([number(row["int8_resnet50_fps_1ghz"], "fps") for row in rows])
    found = np.array([frames(resnet, row) for row in rows])
    assert np.abs(found / told - 1).mean() < 0.06
    assert get_device("nvdla_2048").simulate(resnet).origin["time"] == "predicted"
    own = np.array([1 / get_device(name).simulate(resnet).time_s for name in NAMES])
    assert own == pytest.approx(found, rel=0.01)  # the bundled configurations are those of the table


# --- arithmetic -----------------------------------------------------------------------------------------------------------


def test_integer_sums_are_exact_and_saturate():
    recipe = LARGE.computed_recipe(LARGE.spec.default_recipe)
    assert (recipe.accumulation.format, recipe.accumulation.order, recipe.accumulation.group) == ("int32", "tree", 64)
    assert recipe.accumulation.overflow == "saturate"
    rng = np.random.default_rng(0)
    a, b = rng.integers(-128, 128, (3, 200)), rng.integers(-128, 128, (200, 5))
    assert np.array_equal(numerics.matmul(a, b, accumulator=recipe.accumulation), a @ b)
    # Sixteen-bit products of one sign: the sum stops at the largest number, and comes down from there.
    large = np.full((1, 128), 2**15 - 1)
    down = np.concatenate([large[0, :64], -large[0, 64:]])[:, None]
    assert numerics.matmul(large, large.T, accumulator=recipe.accumulation)[0, 0] == 2**31 - 1
    assert numerics.matmul(large, down, accumulator=recipe.accumulation)[0, 0] < 0


def test_sums_that_the_engine_does_not_make_are_refused():
    with pytest.raises(InputError, match="sums of int8 are int32"):
        LARGE.emulate(nn.Linear(2, 2), Recipe("r", {"weight": "int8", "activation": "int8", "accumulator": "int16"}))
    recipe = Recipe("r", {"weight": "fp16", "activation": "fp16"}, accumulation="fp32")
    with pytest.raises(InputError, match="trees of 64 products"):
        LARGE.emulate(nn.Linear(2, 2), recipe)
    with pytest.raises(InputError, match="no multiply-accumulate for fp16×fp16"):
        get_device("nvdla_512").emulate(nn.Linear(2, 2), Recipe("r", {"weight": "fp16", "activation": "fp16"}))


# --- what every report keeps to -------------------------------------------------------------------------------------------


@st.composite
def layers(draw):
    if draw(st.booleans()):
        return Matmul(name="mm", **{d: draw(st.integers(1, 500)) for d in "mnk"}, batch=draw(st.integers(1, 3)))
    groups, kernel, stride = draw(st.sampled_from([1, 1, 2, 8])), draw(st.integers(1, 5)), draw(st.integers(1, 3))
    channels, kernels = (8 * draw(st.integers(1, 20)) for _ in range(2))
    computes = draw(st.sampled_from(["output", "output", "input", "weight"]))
    size = draw(st.integers(kernel, 40))
    return conv(channels, kernels, size, kernel, stride=stride, groups=groups, batch=draw(st.integers(1, 3)), computes=computes)


@given(layers(), st.sampled_from(NAMES))
@settings(max_examples=60, deadline=None)
def test_reports_keep_to_what_the_machine_can_do(layer, name):
    engine = get_device(name)
    for fidelity in ConvolutionEngine.fidelities:
        (row,) = engine.simulate(chain("one", [layer]), fidelity=fidelity).ops
        assert row.macs == layer.macs
        assert row.compute_cycles * engine.spec.mac_array.multipliers >= row.macs
        assert row.utilization <= 1
        assert min(row.compute_cycles, row.stall_cycles, row.overhead_cycles, *row.energy_j.values()) >= 0
        if fidelity == "tile":
            assert row.bytes_offchip <= engine.spec.off_chip.achieved_bytes_per_s * row.time_s * (1 + 1e-9)


BIGGER = ("convolution_buffer.capacity_bytes", "off_chip.bandwidth_bytes_per_s", "clock_hz")


@given(layers(), st.sampled_from(BIGGER), st.sampled_from(NAMES))
@settings(max_examples=60, deadline=None)
def test_more_of_anything_is_never_slower(layer, field, name):
    data = read_spec(spec_file(name))
    value = data
    for part in field.split("."):
        value = value[part]
    workload = chain("one", [layer])
    times = [get_device(name, overrides={field: type(value)(value * k)}).simulate(workload).time_s for k in (0.25, 1, 3)]
    assert times[0] >= times[1] * (1 - 1e-12)
    assert times[1] >= times[2] * (1 - 1e-12)


def test_layers_keep_their_bytes():
    workload = LARGE.placed(chain("one", [conv(16, 32, 20, 3, stride=2, groups=2, batch=3)]))
    layer = layer_of(workload, workload.ops[0], image_channels=4)
    assert layer.groups * layer.images * layer.feature_bytes == 3 * 16 * 20 * 20
    assert layer.groups * layer.weight_bytes == 32 * 8 * 9
    assert (layer.window_bytes, layer.row_bytes) == (3 * 8 * 20, 2 * 8 * 20)


def test_impossible_specs_are_one_line():
    data = read_spec(spec_file("nvdla_32"))
    with pytest.raises(InputError, match="expected a multiple of 3 channels"):
        get_device({**data, "mac_array": {**data["mac_array"], "atomic_channels": 3}})
    with pytest.raises(InputError, match=r"buffer\.retained_capacity_bytes: expected 0"):
        get_device({**data, "buffer": {**data["buffer"], "retained_capacity_bytes": 1}})
