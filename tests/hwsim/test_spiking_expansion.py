"""Spiking layers on machines without events: the work against counts written out, the order of steps, formats, every machine."""

import math
from dataclasses import replace

import pytest

import hwsim
from hwsim.operators import Convolution, Matmul, Reduction, SpikingLayer, op_from_dict, op_to_dict
from hwsim.workload import Tensor, Workload
from numerics.errors import InputError

STEPS = 7
CONV = Convolution(
    name="product", batch=1, in_channels=2, out_channels=3, input_size=(4, 5), output_size=(4, 5), kernel=(3, 3), stride=(1, 1),
    padding=((1, 1), (1, 1)), dilation=(1, 1),
)  # fmt: skip
POOLED = (Reduction(name="sum", operation="sum", elements=60, rows=15), Matmul(name="product", m=1, n=8, k=15))


def workload(*, recurrent=(1,)):
    """Spikes → convolution → 60 neurons → sums of 4 and a matrix → 8 neurons that also feed themselves."""
    shapes = {
        "in": ((STEPS, 40), "uint1", "input"), "mid": ((STEPS, 60), "uint1", "activation"),
        "out": ((STEPS, 8), "uint1", "activation"),
        "w1": ((3, 2, 3, 3), "fp32", "weight"), "w2": ((8, 15), "fp32", "weight"), "w3": ((8, 8), "fp32", "weight"),
        "s1": ((1, 60), "fp32", "state"), "s2": ((2, 8), "fp32", "state"),
    }  # fmt: skip
    first = SpikingLayer(
        name="a", inputs=("in", "w1", "s1"), outputs=("mid",), neurons=60, sources=40, fan_out=17.5, time_steps=STEPS,
        event_rate=0.1, dense=((CONV,),),
    )  # fmt: skip
    second = SpikingLayer(
        name="b", inputs=("mid", "w2", "out", "w3", "s2"), outputs=("out",), neurons=8, sources=68, fan_out=8, time_steps=STEPS,
        event_rate=0.1, dense=(POOLED, (Matmul(name="product", m=1, n=8, k=8),)), recurrent=recurrent,
    )  # fmt: skip
    tensors = {name: Tensor(name, *rest) for name, rest in shapes.items()}
    return Workload("spikes", (first, second), tensors, inputs=("in",), outputs=("out",))


def test_every_synapse_is_computed_in_every_step():
    expanded = workload().expanded()
    assert expanded.macs == STEPS * (4 * 5 * 3 * 2 * 9 + 8 * 15 + 8 * 8)
    counts = expanded.operations()
    # neuron_update: an add, a multiply-add, a comparison; sums of 4: counted by the reduction; two currents are added
    assert counts["compare"] == counts["multiply_add"] == STEPS * (60 + 8)
    assert counts["add"] == STEPS * (60 + 8) + STEPS * 60 + STEPS * 8
    assert workload().macs == 0
    assert expanded.outputs == ("out",)
    assert expanded.expanded() is expanded


def test_what_is_known_beforehand_is_one_product_and_a_loop_runs_step_by_step():
    names = [op.name for op in workload().expanded().ops]
    assert names[:4] == ["a/convolution0.0", "a/neurons", "b/reduction0.0", "b/matmul0.1"]
    step = ["b/matmul1.0[{t}]", "b/add0[{t}]", "b/neurons[{t}]"]
    assert names[4:] == [name.format(t=t) for t in range(STEPS) for name in step]
    ops = {op.name: op for op in workload().expanded().ops}
    assert (ops["a/convolution0.0"].batch, ops["b/matmul0.1"].m, ops["b/matmul1.0[3]"].m) == (STEPS, STEPS, 1)
    assert (ops["a/neurons"].kind, ops["a/neurons"].length, ops["a/neurons"].width) == ("scan", STEPS, 60)
    assert ops["b/neurons[3]"].kind == "elementwise"


def test_each_step_of_a_loop_waits_for_the_one_before():
    expanded = workload().expanded()
    place = {op.name: i for i, op in enumerate(expanded.ops)}
    for t in range(1, STEPS):
        assert place[f"b/neurons[{t - 1}]"] in expanded.dependencies[place[f"b/matmul1.0[{t}]"]]
    assert expanded.depth >= 3 * STEPS
    assert workload(recurrent=()).expanded().depth < STEPS


def test_bytes_are_those_of_the_steps():
    expanded = workload().expanded()
    ops = {op.name: op for op in expanded.ops}
    product = ops["b/matmul1.0[2]"]
    assert [expanded.read_bytes(product, i) for i in range(2)] == [4 * 8, 4 * 64]
    assert expanded.write_bytes(product, 0) == 4 * 8
    assert expanded.tensors[product.inputs[0]].owner == "out"
    # Spikes lie as the numbers that a product reads.
    assert {expanded.tensors[name].format for name in ("in", "mid", "out")} == {"fp32"}
    assert workload().tensors["in"].bytes == math.ceil(STEPS * 40 / 8)


@pytest.mark.parametrize("recipe", ["int8", "bf16"])
def test_products_are_in_the_formats_of_the_recipe(recipe):
    expanded = workload().with_formats(recipe).expanded()
    expanded.check_operands()
    for op in expanded.ops:
        if op.is_matrix:
            assert op.formats.operands == (recipe, recipe)
        assert all(expanded.tensors[name].format == form for name, form in zip(op.inputs, op.formats.operands, strict=True))


def test_every_machine_without_events_runs_it():
    spikes = workload()
    for name in hwsim.device_names():
        device = hwsim.get_device(name)
        if getattr(device, "event_driven", False):
            continue
        report = device.simulate(spikes)
        assert sum(row.macs for row in report.ops) == spikes.expanded().macs, name
        assert all(row.modelled for row in report.ops)
        assert report.time_s > 0


@pytest.mark.parametrize("name", ["gemmini_16x16", "a100", "tpu_v4", "pulp_gap8", "cpu"])
def test_a_loop_is_slower_than_steps_that_run_at_once(name):
    device = hwsim.get_device(name)
    assert device.simulate(workload()).time_s > 1.2 * device.simulate(workload(recurrent=())).time_s


def test_a_layer_that_names_no_tensors_stays_counted_by_its_events():
    bare = SpikingLayer(name="a", neurons=4, sources=3, fan_out=2, time_steps=5, event_rate=0.5)
    spikes = Workload("bare", (bare,), {})
    assert spikes.expanded().ops == (bare,)
    assert bare.operations["add"] == 4 * 5 + bare.synaptic_operations


def test_without_operators_it_is_one_product_of_all_sources():
    one = replace(workload().ops[0], dense=())
    spikes = replace(workload(), ops=(one,), outputs=("mid",))
    assert spikes.expanded().macs == STEPS * 60 * 40
    assert [op.kind for op in spikes.expanded().ops] == ["matmul", "scan"]


def test_a_layer_reads_back_from_its_plain_data():
    spikes = workload()
    for op in spikes.ops:
        assert op_from_dict(op_to_dict(op)) == op
    again = Workload.from_json(spikes.to_json())
    assert again.ops == spikes.ops
    assert again.expanded().ops == spikes.expanded().ops


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"fan_out": -1.0}, "fan_out must be ≥ 0 synapses a spike, got -1.0"),
        ({"fan_out": "many"}, "fan_out must be a number, got 'many'"),
        ({"recurrent": (1,)}, "recurrent: expected numbers of projections, got (1,)"),
        ({"dense": ((CONV,), (CONV,))}, "inputs: 2 projections need spikes and weights each"),
        ({"dense": (CONV,)}, "dense must hold operators for each projection"),
        ({"dense": ((SpikingLayer(name="x", neurons=1, sources=1, fan_out=1, time_steps=1),),)}, "dense must hold matmuls, conv"),
    ],
)
def test_errors(change, text):
    with pytest.raises(InputError) as raised:
        replace(workload().ops[0], **change)
    assert str(raised.value).startswith(f"op 'a': {text}")


def test_bad_plain_data_is_one_error():
    data = op_to_dict(workload().ops[0])
    with pytest.raises(InputError, match="dense must hold lists of operators"):
        op_from_dict({**data, "dense": "none"})
    with pytest.raises(InputError, match="kind"):
        op_from_dict({**data, "dense": [[{"kind": "magic"}]]})
