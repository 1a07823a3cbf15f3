"""Stuck wires and faulty words of buffers, against operands with stuck bits and a buffer filled word by word."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from effort import examples
from faulty_cases import DATAFLOWS, KINDS, network, operands, random_array, small_device
from reference_buffers import Walk, unrolled
from torch import nn

import hwsim
import numerics
from accelerators.systolic.cycle import Fault, simulate_matmul
from accelerators.systolic.emulation import array_recipe
from accelerators.systolic.faults.products import faulty_matmul
from accelerators.systolic.faults.tile_layout import Buffer, TileLayout, layer_layouts, product_layout
from accelerators.systolic.faults.unit import FaultyArrayUnit
from accelerators.systolic.faults.words import BufferFault, LineFault
from accelerators.systolic.mapping import Nest, Shape
from accelerators.systolic.spec import ArraySpec
from numerics import InputError, decode, encode

# --- wires ------------------------------------------------------------------------------------------------------------------


def stuck(values, kind, bit):
    """int8 numbers with a bit stuck."""
    codes = values.astype(np.int8).view(np.uint8)
    codes = codes | (1 << bit) if kind == "stuck_at_1" else codes & ~np.uint8(1 << bit)
    return codes.astype(np.uint8).view(np.int8).astype(int)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("operand", ["weight", "activation"])
def test_stuck_wires_are_stuck_operands(dataflow, operand):
    """Padding is stuck as well: the operands are filled up by hand."""
    chance, rng = random.Random(7), np.random.default_rng(7)
    for _ in range(examples(30)):
        array = random_array(chance, dataflow)
        m, n, k = (chance.randint(1, 9) for _ in range(3))
        other = LineFault(
            kind="stuck_at_1", operand="activation" if operand == "weight" else "weight", lane=0, bit=chance.randrange(8)
        )
        # Which side of which operand the lanes lie along; k along the array's rows, but where sums stay.
        along = {"ws": ("k", "n"), "os": ("m", "n"), "is": ("m", "k")}[dataflow]
        lanes = {
            name: {"k": array.rows, "n": array.columns, "m": array.rows if dataflow == "os" else array.columns}[side]
            for name, side in zip(("activation", "weight"), along, strict=True)
        }
        kind, lane, bit = chance.choice(KINDS[1:]), chance.randrange(lanes[operand]), chance.randrange(8)
        line = LineFault(kind=kind, operand=operand, lane=lane, bit=bit)
        a, b = operands("int8", (m, k), rng), operands("int8", (k, n), rng)
        depth = k if dataflow == "os" else k + -k % array.rows
        wide_a, wide_b = np.zeros((m, depth), int), np.zeros((depth, n), int)
        wide_a[:, :k], wide_b[:k] = a, b
        for fault in (line, other):
            matrix, sides = (wide_a, "mk") if fault.operand == "activation" else (wide_b, "kn")
            side = sides.index(dict(zip(("activation", "weight"), along, strict=True))[fault.operand])
            hit = np.arange(matrix.shape[side]) % lanes[fault.operand] == fault.lane
            where = np.broadcast_to(hit[:, None] if side == 0 else hit, matrix.shape)
            matrix[where] = stuck(matrix[where], fault.kind, fault.bit)
        assert np.array_equal(faulty_matmul(a, b, [line, other], array=array), wide_a @ wide_b), (array, line, other)


# --- words of buffers -------------------------------------------------------------------------------------------------------


def cut(total, chance, unit=1):
    tile = unit * chance.randint(1, max(1, -(-total // unit)))
    return np.array([min(tile, total - at) for at in range(0, total, tile)])


def buffers_for(layout_sizes, chance, batch):
    """Buffers with room for what they hold."""
    found = {}
    for name, whole_size in layout_sizes.items():
        whole = batch == 1 and chance.random() < 0.25
        reused = whole or chance.random() < 0.5
        double = chance.random() < 0.7
        found[name] = Buffer(2 * whole_size + 3, double, reused, whole)
    return found


def random_layout(chance, batch, m, n, k, unit):
    sizes = cut(k, chance, unit)
    starts = np.cumsum(sizes) - sizes
    tiles = tuple(np.arange(size) + start for size, start in zip(sizes, starts, strict=True))
    buffers = buffers_for({"input": m * k, "weight": k * n, "output": m * n}, chance, batch)
    order = chance.choice(["mnk", "mkn", "nmk", "nkm", "kmn", "knm"])
    return TileLayout(Shape(batch, m, n, k), cut(m, chance), cut(n, chance), tiles, 1, order, buffers)


def random_words(chance, layout, number, buffers=("input", "weight", "output")):
    found = []
    for _ in range(number):
        name = chance.choice(buffers)
        buffer = layout.buffers[name]
        half = chance.choice([0, buffer.words // 2])
        reach = max(1, min(buffer.words // 2, 12))
        bits = 32 if name == "output" else 8
        word, bit = half + chance.randrange(reach), chance.randrange(bits)
        found.append(BufferFault(kind=chance.choice(KINDS[1:]), buffer=name, word=word, bit=bit))
    return found


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_faulty_words_are_those_of_a_buffer_filled_word_by_word(dataflow):
    chance, rng = random.Random(dataflow), np.random.default_rng(8)
    wrong = 0
    for seed in range(examples(60)):
        array = random_array(chance, dataflow, most=(4, 4))
        batch, m, n, k = chance.choice([1, 1, 2]), *(chance.randint(1, 9) for _ in range(3))
        layout = random_layout(chance, batch, m, n, k, array.rows)
        faults = random_words(chance, layout, 1 if seed % 2 else 4)
        a, b = operands("int8", (batch, m, k), rng), operands("int8", (batch, k, n), rng)
        expected = Walk(layout, None if dataflow == "os" else array.rows, a, b, faults).run()
        found = faulty_matmul(a, b, faults, array=array, layout=layout)
        assert np.array_equal(found, expected), (seed, layout, faults)
        wrong += not np.array_equal(expected, a @ b)
    assert wrong > 25


@pytest.mark.parametrize("taps", [0, 2])
def test_faulty_words_of_a_feature_map_are_seen_by_every_window_over_them(taps):
    chance, rng = random.Random(9), np.random.default_rng(9)
    wrong = 0
    for seed in range(examples(15)):
        stride, padding = chance.choice([1, 2]), chance.choice([0, 1])
        size = (5, 4)
        out = tuple((s + 2 * padding - 3) // stride + 1 for s in size)
        channels, columns, images = chance.randint(1, 4), chance.randint(1, 5), chance.randint(1, 2)
        nest = Nest("output", images, channels, columns, size, out, (3, 3), (stride,) * 2, ((padding, padding),) * 2, (1, 1))
        m, k = images * out[0] * out[1], channels * 9
        array = ArraySpec(rows=3, columns=2, dataflow="ws")
        plain = random_layout(chance, 1, m, columns, k, 3)
        blocks = cut(channels, chance)
        firsts = np.cumsum(blocks) - blocks
        if taps:
            tiles = tuple(
                (np.arange(f, f + s)[:, None] * 9 + np.arange(t, min(9, t + 5))).reshape(-1)
                for f, s in zip(firsts, blocks, strict=True) for t in (0, 5)
            )  # fmt: skip
            order = chance.choice(["mnk", "nmk"])
        else:
            tiles = tuple(np.arange(f * 9, (f + s) * 9) for f, s in zip(firsts, blocks, strict=True))
            order = plain.order
        layout = TileLayout(Shape(1, m, columns, k, nest), plain.m, plain.n, tiles, max(1, taps), order, plain.buffers)
        faults = random_words(chance, layout, 3, ("input", "weight"))
        feature_map = operands("int8", (images, channels, *size), rng)
        a, b = unrolled(feature_map, nest)[None], operands("int8", (1, k, columns), rng)
        walk = Walk(layout, 3, a, b, faults)
        walk.feature_map = feature_map[None]
        expected = walk.run()
        assert np.array_equal(faulty_matmul(a, b, faults, array=array, layout=layout), expected), (seed, layout, faults)
        wrong += not np.array_equal(expected, a @ b)
    assert wrong > 8


def test_faulty_words_and_registers_together():
    """A register whose faults do not depend on when a tile comes: of sums, on tiles of whole folds."""
    chance, rng = random.Random(10), np.random.default_rng(10)
    for seed in range(examples(20)):
        array = ArraySpec(rows=3, columns=2, dataflow="ws", timing="rtl")
        layout = random_layout(chance, 1, 7, 6, 9, 3)
        layout = TileLayout(layout.shape, layout.m, np.array([2, 4]), layout.k, 1, layout.order, layout.buffers)
        fault = Fault(
            kind=chance.choice(KINDS[1:]), register="sum", row=chance.randrange(3), column=chance.randrange(2), bit=seed % 20
        )
        words = random_words(chance, layout, 2)
        a, b = operands("int8", (1, 7, 9), rng), operands("int8", (1, 9, 6), rng)
        walk = Walk(layout, 3, a, b, words)

        def multiply(a, b, array=array, fault=fault):
            return simulate_matmul(a, b, array=array, faults=[fault]).outputs

        assert np.array_equal(faulty_matmul(a, b, [fault, *words], array=array, layout=layout), walk.run(multiply)), seed


def test_layouts_are_the_mapping_that_the_report_states():
    """Tiles and order as in the table of mappings, and as many bytes loaded as it says, counted word by word."""
    device = small_device(input=96, weight=128, output=256)
    module, x = network()
    workload = hwsim.trace(module, x)
    rows = {row["op"]: row for row in device.simulate(workload).tables["mapping"]}
    layouts = layer_layouts(device, workload)
    found = [layout for of_module in layouts.values() for layout in of_module]
    assert len(found) == len(rows) == 6
    several = 0
    for layout in found:
        shape = layout.shape
        matching = [
            row for row in rows.values()
            if (row["batch"], row["m"], row["n"], row["k"]) == (shape.batch, shape.m, shape.n, shape.k)
            and (row["tile_m"], row["tile_n"]) == (layout.m.max(), layout.n.max())
            and (row["tile_k"], row["loop_order"]) == (max(k.size for k in layout.k), layout.order)
        ]  # fmt: skip
        assert matching, layout
        tiles = layout.m.size * layout.n.size * len(layout.k) * shape.batch
        nest = shape.convolution
        walk = Walk(layout, 4, np.zeros((shape.batch, shape.m, shape.k), int), np.zeros((shape.batch, shape.k, shape.n), int), [])
        if nest is not None:
            walk.feature_map = np.zeros((shape.batch, nest.images, nest.channels_in, *nest.input_size), int)
        walk.run()
        assert any(
            (row["tiles"], row["loads_a_bytes"], row["loads_b_bytes"]) == (tiles, walk.loaded["input"], walk.loaded["weight"])
            for row in matching
        ), (layout, matching, walk.loaded)
        several += tiles > shape.batch
    assert several >= 3


def test_a_word_of_the_weights_in_a_network():
    """A layer whose weights fit their buffer as a whole, in two tiles: the word is that element of the first."""
    device = small_device()
    layer = nn.Linear(6, 5, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(30).reshape(5, 6) - 15.0)
        layer.weight[:, 0] = 127  # steps of one in every channel
    x = torch.randn(7, 6)
    workload = hwsim.trace(layer, x)
    layout = layer_layouts(device, workload)[""][0]
    assert layout.buffers["weight"].whole
    assert layout.n.tolist() == [3, 2]
    word = 4 * 3 + 2  # k = 4, n = 2 in a tile (k, 3)
    fault = BufferFault(kind="stuck_at_1", buffer="weight", word=word, bit=6)
    recipe = array_recipe(device.spec, device.spec.default_recipe)
    unit = FaultyArrayUnit.of(device, [fault], workload=workload)
    wrong = numerics.emulate(layer, recipe, matrix_unit=unit)(x)
    with torch.no_grad():
        layer.weight[2, 4] = float(stuck(layer.weight[2, 4].numpy().astype(int)[None], "stuck_at_1", 6)[0])
    assert torch.equal(wrong, device.emulate(layer)(x))
    assert product_layout(device, batch=1, m=7, n=5, k=6).shape == layout.shape


# --- what is refused --------------------------------------------------------------------------------------------------------

ONES = {"a": [[1, 1]], "b": [[1], [1]], "array": ArraySpec(rows=2, columns=2, dataflow="ws"), "faults": []}
SMALL = random_layout(random.Random(1), 1, 1, 1, 2, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": [1, 1]}, "a, b: expected (m, k) and (k, n), or a batch of both, without empty sides; got (2,) and (2, 1)"),
        ({"a": [[1, 128]]}, "a: holds numbers that int8 does not have; quantise them"),
        ({"b": [[0.5], [1]]}, "b: holds numbers that int8 does not have; quantise them"),
        ({"a": [[1.0001, 1]], "a_format": "bf16", "accumulator": "fp32"}, "a: holds numbers that bf16 does not have"),
        ({"a_format": "mxfp4"}, "a_format: a register holds a float, an integer or a fixed-point number, got 'mxfp4'"),
        ({"b_format": "int32"}, "b_format: expected at most 20 bits, or fp32, got 'int32'"),
        ({"b_format": "bf16", "accumulator": "int32"}, "b_format: an integer accumulator takes integers, got 'bf16'"),
        ({"accumulator": "hopper.wgmma.bf16"}, "order: a multiply-accumulate adds one product at a time"),
        ({"cycles_per_mac": 0}, "cycles_per_mac: expected an integer ≥ 1, got 0"),
        ({"faults": Fault(kind="stuck_at_0", register="sum", row=2, column=0, bit=0)}, "row: register 'sum' has 0 to 1, got 2"),
        ({"faults": Fault(kind="stuck_at_0", register="drain", row=0, column=0, bit=0)}, "register (weight_stationary): unknown"),
        (
            {"faults": Fault(kind="flip", register="sum", row=0, column=0, bit=0, cycle=6)},
            "cycle: the run has cycles 0 to 4, got 6",
        ),
        ({"faults": LineFault(kind="stuck_at_0", operand="weight", lane=2, bit=0)}, "lane: the weight lines have 0 to 1, got 2"),
        ({"faults": LineFault(kind="stuck_at_0", operand="weight", lane=0, bit=8)}, "bit: the weight lines have 0 to 7, got 8"),
        (
            {"faults": BufferFault(kind="stuck_at_0", buffer="weight", word=0, bit=0)},
            "layout: a faulty word needs one; product_layout gives that of a product",
        ),
        (
            {"faults": BufferFault(kind="stuck_at_0", buffer="weight", word=99, bit=0), "layout": SMALL},
            "word: buffer 'weight' has 0 to 6, got 99",
        ),
        (
            {"faults": BufferFault(kind="stuck_at_0", buffer="output", word=0, bit=32), "layout": SMALL},
            "bit: buffer 'output' has 0 to 31, got 32",
        ),
        (
            {"faults": BufferFault(kind="stuck_at_0", buffer="weight", word=0, bit=0), "a": [[1, 1]] * 2, "layout": SMALL},
            "layout: expected that of batch, m, n, k = (1, 2, 1, 2), got (1, 1, 1, 2)",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(change, message):
    with pytest.raises(InputError) as caught:
        faulty_matmul(**{**ONES, **change})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BufferFault(kind="flip", buffer="weight", word=0, bit=0), "kind: unknown name 'flip'"),
        (lambda: BufferFault(kind="stuck_at_0", buffer="cache", word=0, bit=0), "buffer: unknown name 'cache'"),
        (lambda: BufferFault(kind="stuck_at_0", buffer="input", word=-1, bit=0), "word: expected an integer ≥ 0, got -1"),
        (lambda: LineFault(kind="stuck_at_0", operand="sum", lane=0, bit=0), "operand: unknown name 'sum'"),
        (lambda: LineFault(kind="stuck_at_0", operand="weight", lane=0, bit=True), "bit: expected an integer ≥ 0, got True"),
        (
            lambda: product_layout(hwsim.get_device("tpu_v4"), batch=1, m=8, n=8, k=8),
            "device 'tpu_v4': a compiler's kernel",
        ),
    ],
)
def test_a_fault_that_cannot_be_is_one_clear_line(make, message):
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value).startswith(message)


def test_codes_of_a_faulty_operand_are_those_of_the_format():
    """A stuck exponent bit of bf16 makes Inf and NaN of ordinary numbers, as decoding says."""
    a, b = np.array([[1.0, 1.5]]), np.array([[1.0], [0.0]])
    array = ArraySpec(rows=2, columns=1, dataflow="ws")
    line = LineFault(kind="stuck_at_1", operand="activation", lane=0, bit=14)
    found = faulty_matmul(a, b, line, array=array, a_format="bf16", b_format="bf16", accumulator="fp32")
    assert found[0, 0] == decode(np.array([int(encode(1.0, "bf16")) | 1 << 14], np.uint32), "bf16")[0] == np.inf
