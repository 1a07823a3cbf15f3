"""Tracing PyTorch: counts against PyTorch's own counter, structure against the program that was written."""

from __future__ import annotations

import functools
import logging
import re
import subprocess
import sys
from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn.functional import relu, scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from hwsim import zoo
from hwsim.api import workload_from
from hwsim.operators import Convolution
from hwsim.tracing.torch import trace
from hwsim.zoo.bert import Bert
from hwsim.zoo.gpt2 import GPT2
from hwsim.zoo.llama import Llama
from hwsim.zoo.lstm import LSTM
from hwsim.zoo.vit import ViTB16
from numerics.errors import InputError


@functools.cache
def traced(name, **options):
    return workload_from(name, **options)


def counted(module, inputs):
    """MACs that PyTorch's counter sees on meta tensors, where attention is its two plain products."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return counter.get_total_flops() // 2


def kinds(workload):
    return [op.kind for op in workload.ops]


def only(workload, kind):
    [op] = [op for op in workload.ops if op.kind == kind]
    return op


def raises(pattern):
    return pytest.raises(InputError, match=pattern)


# --- MACs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", zoo.names())
def test_macs_of_the_zoo_are_those_torch_counts(name):
    workload = traced(name)
    assert workload.macs == counted(zoo.build(name), zoo.example_inputs(name))
    assert workload.parameters == zoo.get(name).published_parameters
    assert "unmodelled" not in kinds(workload)


@pytest.mark.parametrize("name", ["gpt2", "llama3_8b"])
def test_macs_of_decoding_are_those_torch_counts(name):
    inputs = zoo.example_inputs(name, phase="decode", kv_len=100)
    assert traced(name, phase="decode", kv_len=100).macs == counted(zoo.build(name), inputs)


@pytest.mark.parametrize(("name", "options"), [("resnet18", {"batch": 3}), ("bert_base", {"seq_len": 17})])
def test_macs_follow_the_sizes(name, options):
    inputs = zoo.example_inputs(name, **options)
    assert traced(name, **options).macs == counted(zoo.build(name), inputs)


def small(kind):
    """(module on meta, inputs, attention layers' recomputed MACs in a backward pass)."""
    with torch.device("meta"):
        tokens = torch.zeros(2, 16, dtype=torch.int64)
        scores_again = 2 * 2 * 4 * 16 * 16 * 16  # layers × batch × heads × queries × keys × width
        if kind == "resnet18":
            return zoo.build("resnet18"), zoo.example_inputs("resnet18"), 0
        if kind == "vit":
            return ViTB16(layers=2, width=64, heads=4), zoo.example_inputs("vit_b_16"), 2 * 4 * 197 * 197 * 16
        if kind == "bert":
            return Bert(layers=2, width=64, heads=4, vocabulary=97, positions=32), (tokens,), scores_again
        if kind == "gpt2":
            return GPT2(layers=2, width=64, heads=4, vocabulary=97, positions=32), (tokens,), scores_again
        if kind == "llama":
            model = Llama(layers=2, width=64, heads=4, kv_heads=2, feed_forward=128, vocabulary=97)
            return model, (tokens,), scores_again
        return LSTM(width=16, vocabulary=97), (tokens,), 0


@pytest.mark.parametrize("kind", ["resnet18", "vit", "bert", "gpt2", "llama", "lstm"])
def test_macs_of_a_training_step_are_those_torch_counts(kind):
    module, inputs, scores_again = small(kind)
    module.train()
    with FlopCounterMode(display=False) as counter:
        outputs = module(*inputs)
        (outputs[0] if isinstance(outputs, tuple) else outputs).sum().backward()
    workload = trace(module, *inputs, mode="training", optimizer=functools.partial(torch.optim.SGD, lr=0.1))
    # The fused kernel computes the scores again in its backward pass; the plain products kept them.
    assert workload.macs == counter.get_total_flops() // 2 + scores_again
    assert sum(op.macs for op in workload.ops if op.phase == "forward") == trace(module, *inputs).macs
    assert "unmodelled" not in kinds(workload)


def test_a_training_step_of_grouped_convolutions_does_thrice_the_forward_work():
    # torch.utils.flop_counter takes the weight gradient of a depthwise convolution for that of a dense one, so
    # the truth here is the closed form: each layer's forward MACs, those of its weight's gradient and those of its
    # input's gradient are equal; the images need no gradient.
    module, inputs = zoo.build("mobilenet_v2"), zoo.example_inputs("mobilenet_v2")
    forward = counted(module, inputs)
    stem = 112 * 112 * 32 * 3 * 3 * 3
    workload = trace(module, *inputs, mode="training", optimizer=functools.partial(torch.optim.SGD, lr=0.1))
    assert workload.macs == 3 * forward - stem


def test_70_billion_parameters_trace_in_little_memory():
    # Not getrusage: across fork and exec it keeps the peak of the process that started this one.
    script = (
        "import re, time; start = time.perf_counter()\n"
        "from hwsim.api import workload_from\n"
        "workload = workload_from('llama3_70b')\n"
        "peak = re.search(r'VmHWM:\\s*(\\d+) kB', open('/proc/self/status').read())[1]\n"
        "print(workload.parameters, peak, time.perf_counter() - start)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    parameters, kilobytes, seconds = done.stdout.split()
    print(f"llama3_70b: {float(seconds):.1f} s, {int(kilobytes) / 1e6:.2f} GB")
    assert int(parameters) == zoo.get("llama3_70b").published_parameters
    assert int(kilobytes) * 1024 < 1e9


# --- which module, which phase ------------------------------------------------------------------------------


@functools.cache
def resnet18_step():
    return traced("resnet18", mode="training")


def test_phases_follow_one_another():
    phases = [op.phase for op in resnet18_step().ops]
    assert phases == sorted(phases, key=("forward", "backward", "update").index)
    assert set(phases) == {"forward", "backward", "update"}


def test_a_backward_operator_has_the_module_of_its_forward_call():
    paths = {path for path, module in zoo.build("resnet18").named_modules() if isinstance(module, nn.Conv2d)}
    found = {}
    for op in resnet18_step().ops:
        if op.phase == "backward" and isinstance(op, Convolution):
            found.setdefault(op.module, []).append(op.computes)
    assert found.pop("conv1") == ["weight"]  # the images need no gradient
    assert set(found) == paths - {"conv1"}
    assert all(sorted(computes) == ["input", "weight"] for computes in found.values())


def test_backward_names_the_weights_of_its_own_module():
    for op in resnet18_step().ops:
        if op.phase == "backward":
            weights = [t for t in op.inputs if resnet18_step().tensors[t].role == "weight"]
            assert {t.rpartition(".")[0] for t in weights} <= {op.module}


def test_the_update_names_the_module_whose_weights_it_writes():
    workload = resnet18_step()
    for op in workload.ops:
        if op.phase == "update":
            written = {workload.tensors[t].owner for t in op.outputs if workload.tensors[t].role == "weight"}
            assert {t.rpartition(".")[0] for t in written} <= {op.module}


def test_the_operator_of_a_leaf_module_bears_its_path():
    workload = traced("resnet18")
    modules = dict(zoo.build("resnet18").named_modules())
    for op in workload.ops:
        if op.kind in ("convolution", "matmul"):
            assert op.name == op.module
            assert isinstance(modules[op.name], nn.Conv2d | nn.Linear)
    assert {op.module for op in workload.ops} <= set(modules)


def test_a_module_called_twice_gives_two_operators():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(self.fc(x))

    workload = trace(Twice(), torch.ones(2, 4))
    assert [op.module for op in workload.ops] == ["fc", "fc"]
    assert len({op.name for op in workload.ops}) == 2
    assert workload.parameters == 20


def test_checkpointed_layers_run_forward_twice():
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 4)

        def forward(self, x):
            return self.b(torch.utils.checkpoint.checkpoint(lambda z: self.a(z).relu(), x, use_reentrant=False))

    workload = trace(Checkpointed(), torch.ones(2, 4), mode="training")
    again = [op for op in workload.ops if op.phase == "backward" and op.kind == "matmul" and op.module == "a"]
    assert len(again) == 2  # its forward once more, and the gradient of its weight
    assert all(op.macs == 64 for op in again)


def test_convolution_backward_becomes_its_parts():
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
    x = torch.ones(2, 4, 9, 9, requires_grad=True)
    workload = trace(conv, x, mode="training", optimizer=functools.partial(torch.optim.SGD, lr=0.1))
    forward = workload.ops[0]
    parts = {op.name.rpartition("/")[2]: op for op in workload.ops if op.source == "aten.convolution_backward"}
    assert [op.kind for op in parts.values()] == ["convolution", "convolution", "reduction"]
    assert (parts["grad_input"].computes, parts["grad_weight"].computes) == ("input", "weight")
    assert parts["grad_input"].macs == parts["grad_weight"].macs == forward.macs
    shapes = {name: [workload.tensors[t].shape for t in (*op.inputs, *op.outputs)] for name, op in parts.items()}
    assert shapes == {
        "grad_input": [(2, 6, 5, 5), (6, 2, 3, 3), (2, 4, 9, 9)],
        "grad_weight": [(2, 4, 9, 9), (2, 6, 5, 5), (6, 2, 3, 3)],
        "grad_bias": [(2, 6, 5, 5), (6,)],
    }
    assert (parts["grad_bias"].elements, parts["grad_bias"].rows) == (300, 6)


@pytest.mark.parametrize("family", [nn.Conv2d, nn.ConvTranspose2d])
def test_every_convolution_of_a_step_has_operands_of_its_nest(family):
    x = torch.ones(2, 4, 7, 9, requires_grad=True)
    workload = trace(family(4, 6, (3, 2), stride=2, groups=2), x, mode="training")
    found = [op for op in workload.ops if op.kind == "convolution"]
    assert len(found) == 3
    assert {op.computes for op in found} == {"output", "input", "weight"}
    for op in found:
        near = (op.batch, op.in_channels, *op.input_size)
        far = (op.batch, op.out_channels, *op.output_size)
        weight = (op.out_channels, op.in_channels // op.groups, *op.kernel)
        expected = {
            "output": (near, weight, far),
            "input": (far, weight, near),
            "weight": (near, far, weight),
        }[op.computes]
        shapes = [workload.tensors[t].shape for t in (*op.inputs[:2], *op.outputs)]
        assert tuple(shapes) == expected
    assert len({op.macs for op in found}) == 1


# --- memory: views, versions, caches ------------------------------------------------------------------------


def test_views_cost_nothing():
    def views(x):
        return x.view(4, 6).t().unsqueeze(0)[:, 1:3].permute(2, 0, 1).expand(4, 1, 2).reshape(4, 2).squeeze()

    workload = trace(views, torch.ones(2, 3, 4))
    assert workload.ops == ()
    [output] = workload.outputs
    assert workload.tensors[output].owner == "x"
    assert workload.bytes_by_role() == {"input": 96}


def test_a_view_that_has_to_move_data_is_a_copy():
    workload = trace(lambda x: x.t().reshape(-1), torch.ones(2, 3))
    copy = only(workload, "data_movement")
    assert (copy.operation, copy.elements) == ("copy", 6)
    assert workload.bytes_by_role() == {"input": 24, "activation": 24}


def test_in_place_results_share_memory():
    workload = trace(lambda x: (x * 2).add_(1).relu_(), torch.ones(2, 3))
    assert kinds(workload) == ["elementwise"] * 3
    assert len({workload.tensors[op.outputs[0]].owner for op in workload.ops}) == 1
    assert workload.bytes_by_role() == {"input": 24, "activation": 24}
    assert workload.depth == 3


def test_a_cache_moves_the_bytes_of_the_new_token_only():
    def step(token, cache):
        cache[:, :, -1:] = token
        return cache.sum()

    workload = trace(step, torch.ones(2, 4, 1, 8), torch.ones(2, 4, 100, 8))
    write, read = workload.ops
    assert workload.op_bytes(write) == 2 * (2 * 4 * 8 * 4)
    assert workload.op_bytes(read) == 2 * 4 * 100 * 8 * 4 + 4
    assert workload.dependencies == ((), (0,))
    assert workload.bytes_by_role() == {"input": 256, "kv_cache": 25600, "activation": 4}


def test_decoding_writes_one_token_a_layer():
    workload = traced("gpt2", phase="decode", kv_len=100)
    writes = [op for op in workload.ops if op.outputs and workload.tensors[op.outputs[0]].role == "kv_cache"]
    assert len(writes) == 2 * 12
    assert {workload.write_bytes(op, 0) for op in writes} == {768 * 4}
    assert workload.bytes_by_role()["kv_cache"] == 2 * 12 * 101 * 768 * 4


def test_roles_of_inputs_can_be_given():
    workload = trace(lambda x, memory: x + memory, torch.ones(3), torch.ones(3), roles={"mem*": "kv_cache"})
    assert {name: workload.tensors[name].role for name in workload.inputs} == {"x": "input", "memory": "kv_cache"}


def test_tied_weights_are_one_tensor():
    workload = trace(GPT2(layers=1, width=8, heads=2, vocabulary=11, positions=4), torch.zeros(1, 3, dtype=torch.int64))
    last = [op for op in workload.ops if op.kind == "matmul"][-1]
    assert workload.tensors[last.inputs[1]].owner == "transformer.wte.weight"
    assert Counter(t.shape for t in workload.tensors.values() if t.role == "weight")[(11, 8)] == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_formats_are_those_of_the_program(dtype):
    workload = trace(nn.Linear(4, 4, dtype=dtype), torch.ones(2, 4, dtype=dtype))
    assert {workload.tensors[t].bytes for t in workload.ops[0].outputs} == {8 * dtype.itemsize}


# --- programs of every shape --------------------------------------------------------------------------------


def test_tensors_made_inside_forward_work_on_meta_models():
    class Mask(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            mask = torch.ones(3, 3).tril().bool()
            scale = torch.tensor(0.5) * torch.arange(3).float()[:, None]
            return torch.where(mask @ mask, x @ x.mT, 0.0) @ self.fc(x) * scale + torch.tensor([1.0])

    with torch.device("meta"):
        module, x = Mask(), torch.ones(2, 3, 4)
    assert "unmodelled" not in kinds(trace(lambda a: a + torch.ones(4), torch.ones(3, 4, device="meta")))
    module.forward = functools.partial(masked, module)
    workload = trace(module, x)
    assert [op.macs for op in workload.ops if op.kind == "matmul"] == [2 * 3 * 3 * 4, 6 * 4 * 4, 2 * 3 * 4 * 3]


def masked(module, x):
    mask = torch.ones(3, 3).tril().bool()
    scale = torch.tensor(0.5) * torch.arange(3).float()[:, None]
    return torch.where(mask, x @ x.mT, 0.0) @ module.fc(x) * scale + torch.tensor([1.0])


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_tensors_that_a_module_holds_on_to_are_state(device):
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.ones(4, device=device))
            self.plain = torch.ones(4, device=device)
            self.listed = [torch.ones(4, 4, device=device)]

        def forward(self, x):
            return (x - self.mean) * self.plain @ self.listed[0] + torch.zeros(4, device=x.device)

    workload = trace(Holder(), torch.ones(2, 4, device=device))
    assert kinds(workload) == ["elementwise", "elementwise", "matmul", "data_movement", "elementwise"]
    assert workload.bytes_by_role()["state"] == 4 * (4 + 4 + 16)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_function_shows_the_modules_it_uses(device):
    fc = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5))
    fc.to(device)
    fc[1].eval()
    workload = trace(lambda x: fc(x).relu(), torch.ones(2, 4, device=device))
    assert [(op.name, op.module) for op in workload.ops] == [("fc.0", "fc.0"), ("relu", "")]
    assert workload.parameters == 40
    step = trace(lambda x: fc(x).relu(), torch.ones(2, 4, device=device), mode="training")
    assert ("fc.1", "random") in [(op.module, getattr(op, "operation", "")) for op in step.ops]
    assert step.bytes_by_role()["optimizer_state"] == 4 * (2 * 40 + 2)
    assert fc[0].weight.grad is None
    assert [m.training for m in fc.modules()] == [True, True, False]


def test_a_bound_method_runs_instead_of_forward():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def encode(self, x):
            return self.fc(x) * 2

    encoder = Encoder()
    assert kinds(trace(encoder.encode, torch.ones(2, 4))) == ["matmul", "elementwise"]
    before = encoder.fc.weight.clone()
    workload = trace(encoder.encode, torch.ones(2, 4), mode="training", values=True)
    assert kinds(workload)[:2] == ["matmul", "elementwise"]
    assert torch.equal(encoder.fc.weight, before)


def test_inputs_in_tuples_and_mappings_have_paths():
    def add(pair, named):
        return pair[0] + pair[1] + named["a"]["b"] + named["c"]

    x = [torch.ones(3) for _ in range(4)]
    workload = trace(add, (x[0], x[1]), {"a": {"b": x[2]}, "c": x[3]})
    assert workload.inputs == ("pair.0", "pair.1", "named.a.b", "named.c")
    assert kinds(workload) == ["elementwise"] * 3


def test_outputs_in_tuples_and_mappings_are_found():
    workload = trace(lambda x: {"a": x + 1, "b": (x * 2, [x])}, torch.ones(3))
    assert workload.outputs == (workload.ops[0].outputs[0], workload.ops[1].outputs[0], "x")


def test_a_program_that_does_nothing_is_empty():
    workload = trace(lambda x: x, torch.ones(3))
    assert (len(workload), workload.inputs, workload.outputs) == (0, ("x",), ("x",))


def test_the_name_is_that_of_the_class_the_function_or_as_given():
    assert trace(nn.ReLU(), torch.ones(1)).name == "ReLU"
    assert trace(torch.relu, torch.ones(1)).name == "relu"
    assert trace(nn.ReLU(), torch.ones(1), name="mine", metadata={"a": 1}).name == "mine"
    assert trace(nn.ReLU(), torch.ones(1), metadata={"a": 1}).metadata == {
        "source": "torch",
        "mode": "inference",
        "a": 1,
    }


IMAGE = torch.ones(2, 4, 6, 6)
SEQUENCE = torch.ones(2, 5, 16)
TOKENS = torch.zeros(3, 4, dtype=torch.int64)

PROGRAMS = {
    # name: (program, inputs, kind of its one operator, fields expected of it)
    "conv1d": (nn.Conv1d(4, 6, 3), (torch.ones(2, 4, 9),), "convolution", {"output_size": (7,), "bias": True}),
    "conv3d": (
        nn.Conv3d(4, 6, 3, dilation=2, bias=False),
        (torch.ones(1, 4, 7, 7, 7),),
        "convolution",
        {"output_size": (3, 3, 3), "dilation": (2, 2, 2), "bias": False},
    ),
    "same": (nn.Conv1d(4, 6, 3, padding="same"), (torch.ones(2, 4, 9),), "convolution", {"padding": ((1, 1),)}),
    "transposed": (
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        (IMAGE,),
        "convolution",
        # The nest of the convolution that would lead back: from 6 channels of 12×12 to 4 of 6×6.
        {
            "computes": "input",
            "in_channels": 6,
            "out_channels": 4,
            "input_size": (12, 12),
            "output_size": (6, 6),
            "groups": 2,
        },
    ),
    "unbatched": (nn.Conv2d(4, 6, 3), (IMAGE[0],), "convolution", {"batch": 1, "output_size": (4, 4)}),
    "einsum": (
        lambda a, b: torch.einsum("bij,bkj->bik", a, b),
        (SEQUENCE, SEQUENCE.clone()),
        "matmul",
        {"batch": 2, "m": 5, "n": 5, "k": 16},
    ),
    "mv": (lambda a, b: a @ b, (torch.ones(3, 4), torch.ones(4)), "matmul", {"m": 3, "n": 1, "k": 4}),
    "dot": (torch.dot, (torch.ones(4), torch.ones(4)), "matmul", {"m": 1, "n": 1, "k": 4}),
    "baddbmm": (
        torch.baddbmm,
        (torch.ones(2, 3, 5), torch.ones(2, 3, 4), torch.ones(2, 4, 5)),
        "matmul",
        {"batch": 2, "m": 3, "n": 5, "k": 4, "bias": True},
    ),
    "group_norm": (nn.GroupNorm(2, 4), (IMAGE,), "normalization", {"elements": 288, "rows": 4}),
    "instance_norm": (nn.InstanceNorm2d(4), (IMAGE,), "normalization", {"elements": 288, "rows": 8}),
    "layer_norm": (nn.LayerNorm((5, 16)), (SEQUENCE,), "normalization", {"elements": 160, "rows": 2}),
    "batch_norm": (
        nn.BatchNorm2d(4),
        (IMAGE,),
        "normalization",
        {"operation": "batch_norm", "elements": 288, "rows": 4},
    ),
    "grouped_query": (
        lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True),
        (torch.ones(2, 8, 3, 16), torch.ones(2, 2, 3, 16), torch.ones(2, 2, 3, 16)),
        "attention",
        {"batch": 2, "heads": 8, "kv_heads": 2, "query_length": 3, "key_length": 3, "causal": True},
    ),
    "masked": (
        lambda q, k, v, m: scaled_dot_product_attention(q, k, v, attn_mask=m),
        (torch.ones(2, 4, 3, 8), torch.ones(2, 4, 7, 8), torch.ones(2, 4, 7, 8), torch.zeros(3, 7)),
        "attention",
        {"heads": 4, "kv_heads": 4, "query_length": 3, "key_length": 7, "causal": False},
    ),
    "embedding": (nn.Embedding(10, 8), (TOKENS,), "gather", {"elements": 96, "indices": 12}),
    "cumsum": (lambda x: x.cumsum(1), (SEQUENCE,), "scan", {"length": 5, "width": 32}),
    "cumprod": (lambda x: x.cumprod(-1), (SEQUENCE,), "scan", {"length": 16, "width": 10}),
    "topk": (lambda x: x.topk(3), (SEQUENCE,), "reduction", {"operation": "sort", "elements": 160 * 4, "rows": 10}),
    "scatter": (
        lambda x, i, v: x.scatter(1, i, v),
        (torch.ones(3, 9), TOKENS, torch.ones(3, 4)),
        "scatter",
        {"elements": 12, "accumulate": False},
    ),
    "scatter_add": (
        lambda x, i, v: x.scatter_add(1, i, v),
        (torch.ones(3, 9), TOKENS, torch.ones(3, 4)),
        "scatter",
        {"elements": 12, "accumulate": True},
    ),
    "scatter value": (
        lambda x, i: x.scatter(1, i, 2.0),
        (torch.ones(3, 9), TOKENS),
        "scatter",
        {"elements": 12, "accumulate": False},
    ),
    "index_put": (
        lambda x, i, v: torch.index_put(x, (i[:, :, None], i[0, :2]), v),
        (torch.ones(9, 7, 5), TOKENS, torch.ones(())),
        "scatter",
        # 3×4×2 places of 5 elements, whatever the shape of the values
        {"elements": 120, "indices": 24, "accumulate": False},
    ),
    "accumulate": (
        lambda x, i, v: torch.ops.aten.index_put(x, [None, i], v, True),
        (torch.ones(9, 7), TOKENS, torch.ones(4)),
        "scatter",
        {"elements": 9 * 12, "indices": 12, "accumulate": True},
    ),
    "index_add": (
        lambda x, i, v: x.index_add(1, i, v),
        (torch.ones(9, 7), TOKENS[0], torch.ones(9, 4)),
        "scatter",
        {"elements": 36, "indices": 4, "accumulate": True},
    ),
    "index": (lambda x, i: x[i], (torch.ones(9, 4), TOKENS), "gather", {"elements": 48, "indices": 12}),
    "max_pool": (nn.MaxPool2d(3, 2), (IMAGE,), "pooling", {"operation": "pool_max", "elements": 32, "window": 9}),
    "avg_pool": (
        nn.AvgPool2d(2),
        (IMAGE,),
        "pooling",
        {"operation": "pool_average", "elements": 72, "window": 4},
    ),
    "adaptive": (
        nn.AdaptiveAvgPool2d(2),
        (IMAGE,),
        "pooling",
        {"operation": "pool_average", "elements": 32, "window": 9},
    ),
    "where": (
        lambda c, a, b: torch.where(c, a, b),
        (torch.ones(2, 3) > 0, torch.ones(2, 3), torch.ones(3)),
        "elementwise",
        {"operation": "select", "elements": 6},
    ),
    "softmax": (lambda x: x.softmax(1), (SEQUENCE,), "softmax", {"elements": 160, "rows": 32}),
    "mean": (lambda x: x.mean((1, 2)), (SEQUENCE,), "reduction", {"operation": "mean", "elements": 160, "rows": 2}),
    "square": (lambda x: x**2, (SEQUENCE,), "elementwise", {"operation": "multiply", "elements": 160}),
    "halve": (lambda x: x / 2, (SEQUENCE,), "elementwise", {"operation": "multiply"}),
    "quotient": (lambda x, y: x / y, (SEQUENCE, SEQUENCE.clone()), "elementwise", {"operation": "divide"}),
    "axpy": (
        lambda x, y: torch.add(x, y, alpha=3),
        (SEQUENCE, SEQUENCE.clone()),
        "elementwise",
        {"operation": "multiply_add"},
    ),
    "cat": (
        lambda x, y: torch.cat((x, y), 1),
        (SEQUENCE, SEQUENCE.clone()),
        "data_movement",
        {"operation": "copy", "elements": 320},
    ),
    "cast": (lambda x: x.bfloat16(), (SEQUENCE,), "data_movement", {"operation": "cast", "elements": 160}),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_one_operator_each(name):
    program, inputs, kind, fields = PROGRAMS[name]
    op = only(trace(program, *inputs), kind)
    assert {key: getattr(op, key) for key in fields} == fields
    if op.is_matrix:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            meta = (program.to_empty(device="meta"),) if isinstance(program, nn.Module) else (program,)
            meta[0](*(t.to("meta") for t in inputs))
        if name not in ("mv", "dot"):  # which torch's counter leaves out
            assert 2 * op.macs == counter.get_total_flops()


def test_a_mask_is_among_the_operands_of_attention():
    program, inputs, *_ = PROGRAMS["masked"]
    op = only(trace(program, *inputs), "attention")
    assert len(op.inputs) == 4
    assert op.inputs[3] == "m"


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_an_embedding_bag_gathers_and_reduces(mode):
    workload = trace(nn.EmbeddingBag(10, 8, mode=mode), TOKENS)
    gather, reduce = only(workload, "gather"), only(workload, "reduction")
    assert (gather.elements, gather.indices) == (96, 12)
    assert (reduce.operation, reduce.elements, reduce.rows) == (mode, 96, 24)
    assert workload.read_bytes(gather, 0) == 10 * 8 * 4  # no more than the table holds


def test_multihead_attention_and_encoder_layer_do_their_products():
    # in_proj 3·16·16 and out_proj 16·16 for each of 10 tokens, scores and values 2·5·16 for each.
    attention = 10 * (4 * 16 * 16 + 2 * 5 * 16)
    heads = nn.MultiheadAttention(16, 4, batch_first=True)
    assert trace(heads, SEQUENCE, SEQUENCE, SEQUENCE).macs == attention
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    assert trace(layer, SEQUENCE).macs == attention + 10 * 2 * 16 * 32
    assert {op.module for op in trace(layer, SEQUENCE).ops if op.kind == "matmul"} == {
        "self_attn",
        "linear1",
        "linear2",
    }


@pytest.mark.parametrize(("family", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers_show_their_steps(family, gates):
    workload = trace(family(16, 8, batch_first=True), SEQUENCE)
    products = [op for op in workload.ops if op.kind == "matmul"]
    assert workload.macs == gates * 8 * (16 + 8) * 10
    assert len(products) == 1 + 5  # the inputs of all steps at once, the states of one step each
    assert workload.depth >= 5 * 2


@pytest.mark.parametrize(
    ("program", "inputs"),
    [(torch.linalg.svd, (torch.ones(4, 4),)), (torch.fft.fft, (SEQUENCE,)), (torch.cdist, (torch.ones(3, 4),) * 2)],
)
def test_an_operator_nobody_knows_is_carried_with_its_tensors(program, inputs):
    workload = trace(program, *inputs)
    op = workload.ops[0]
    assert op.kind == "unmodelled"
    assert op.source.startswith("aten.")
    assert set(op.inputs) == set(workload.inputs)
    assert set(op.outputs) == set(workload.outputs)
    moved = sum(workload.tensors[t].bytes for t in {*op.inputs, *op.outputs})
    assert workload.op_bytes(op) == moved > 0


@pytest.mark.parametrize(("reduction", "kinds_found"), [("none", ["gather"]), ("mean", ["gather", "reduction"])])
def test_a_loss_over_classes_reads_one_a_target(reduction, kinds_found):
    loss = nn.NLLLoss(reduction=reduction)
    workload = trace(loss, torch.ones(8, 1000), torch.zeros(8, dtype=torch.int64))
    assert kinds(workload) == kinds_found
    assert workload.read_bytes(workload.ops[0], 0) == 8 * 4
    assert workload.ops[0].elements == workload.ops[-1].elements == 8


def test_statistics_that_nobody_reads_are_left_out():
    # max_pool's indices, layer_norm's mean and deviation are kept for a backward pass that does not come.
    for program, x in ((nn.MaxPool2d(2), IMAGE), (nn.LayerNorm(16), SEQUENCE)):
        assert len(trace(program, x).ops[0].outputs) == 1
    assert len(trace(nn.MaxPool2d(2, return_indices=True), IMAGE).ops[0].outputs) == 2


# --- values -------------------------------------------------------------------------------------------------


def density(tensor):
    return int(torch.count_nonzero(tensor)) / tensor.numel()


def test_values_record_the_exact_density():
    torch.manual_seed(0)
    x, other = torch.randn(20, 30), torch.randn(20, 30)
    workload = trace(lambda a, b: (a * (a > 0.3)).relu() + relu(b)[:5].sum(), x, other, values=True)
    expected = {
        "a": density(x),
        "gt.out": density(x > 0.3),
        "mul.out": density(x * (x > 0.3)),
        "relu_1.out": density(relu(other)),
        "relu_1.out[part]": density(relu(other)[:5]),
    }
    assert {name: workload.tensors[name].density for name in expected} == expected
    assert 0.3 < expected["gt.out"] < 0.5


def test_values_follow_what_is_written_in_place():
    def program(cache, x):
        before = cache.sum()
        cache[2:4] = x
        part = cache[2:4] * 1
        return before + cache.sum() + part.sum()

    cache, x = torch.zeros(8, 5), torch.ones(2, 5)
    workload = trace(program, cache, x, values=True)
    sums = [op for op in workload.ops if op.name.startswith("sum")]
    read = [workload.tensors[op.inputs[0]].density for op in sums[:2]]
    assert read == [0.0, 10 / 40]
    part = next(op for op in workload.ops if op.name == "mul")
    assert workload.tensors[part.inputs[0]].density == 1.0


def test_without_values_there_is_no_density():
    assert all(t.density is None for t in trace(nn.ReLU(), torch.zeros(3)).tensors.values())


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_values_give_the_same_operators(mode):
    net = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    fake, real = trace(net, IMAGE, mode=mode), trace(net, IMAGE, mode=mode, values=True)
    assert fake.ops == real.ops


def test_values_need_values():
    with raises(r"^trace: values=True needs real tensors, but weight is on the meta device$"):
        trace(nn.Linear(3, 3, device="meta"), torch.ones(3), values=True)
    with raises(r"^trace: values=True needs real tensors, but an input is on the meta device$"):
        trace(nn.ReLU(), torch.ones(3, device="meta"), values=True)


def test_values_in_training_leave_the_model_alone():
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    trace(net, torch.randn(5, 4), mode="training", values=True)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    with raises("would train the modules of a function; trace the module itself"):
        trace(lambda x: net(x), torch.randn(5, 4), mode="training", values=True)


# --- the caller's model stays as it was ---------------------------------------------------------------------


class Stateful(nn.Module):
    """A module that assigns to itself while it runs."""

    def __init__(self, *, fails=False):
        super().__init__()
        self.fails = fails
        self.fc, self.rnn, self.norm = nn.Linear(4, 4), nn.LSTM(4, 4), nn.BatchNorm1d(4)
        self.register_buffer("calls", torch.zeros(()))
        self.plain = torch.ones(4)
        self.last = None

    def forward(self, x):
        self.calls = self.calls + 1
        self.last = self.norm(self.fc(x) * self.plain)
        self.extra = self.last * 2
        if self.fails:
            raise ValueError("on purpose")
        return self.rnn(self.last)[0]


def snapshot(module):
    """Identity and values of all that a module holds."""
    held = {}
    for path, part in module.named_modules():
        for key, value in {**part.__dict__, **part._parameters, **part._buffers}.items():
            kept = value.clone() if isinstance(value, torch.Tensor) else None
            held[path, key] = (value, value.training if isinstance(value, nn.Module) else kept)
    return held


@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_stays_as_it_was(mode, fails):
    module = Stateful(fails=fails)
    module.fc.eval()
    module.fc.weight.requires_grad_(False)
    before = snapshot(module)
    flags = [m.training for m in module.modules()]
    if fails:
        with raises(r"ValueError at .*test_trace\.py:\d+: raise ValueError\(\"on purpose\"\): on purpose"):
            trace(module, torch.ones(3, 4), mode=mode)
    else:
        trace(module, torch.ones(3, 4), mode=mode)
    after = snapshot(module)
    assert after.keys() == before.keys()
    for key, (value, kept) in before.items():
        assert after[key][0] is value, key
        if isinstance(kept, torch.Tensor):
            assert torch.equal(value, kept), key
    assert [m.training for m in module.modules()] == flags
    assert all(p.grad is None for p in module.parameters())
    assert not module.fc.weight.requires_grad
    assert not nn.modules.module._global_forward_pre_hooks
    if not fails:
        assert not isinstance(module(torch.ones(3, 4)), torch._subclasses.FakeTensor)


def test_the_random_generator_stays_as_it_was():
    before = torch.get_rng_state()
    trace(nn.Dropout(0.5), torch.ones(100), mode="training", loss=lambda y: y.sum().requires_grad_())
    assert torch.equal(torch.get_rng_state(), before)


# --- errors -------------------------------------------------------------------------------------------------


def test_control_flow_on_values_names_its_line():
    def branch(x):
        if x.sum() > 0:  # the line
            return x
        return -x

    line = branch.__code__.co_firstlineno + 1
    message = (
        f"trace: control flow or a shape depends on tensor values at {__file__}:{line}: if x.sum() > 0:  # the line; "
        "trace a function without it, or use values=True"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        trace(branch, torch.ones(3))
    assert kinds(trace(branch, torch.ones(3), values=True)) == ["reduction", "elementwise"]


@pytest.mark.parametrize(
    "program",
    [lambda x: x[x > 0], lambda x: x * x.max().item(), lambda x: x.nonzero(), torch.unique, lambda x: x.tolist()],
)
def test_shapes_and_numbers_from_values_are_the_same_error(program):
    with raises(r"^trace: control flow or a shape depends on tensor values at .*; trace a function without it"):
        trace(program, torch.ones(3))


def test_an_error_in_the_model_is_one_line_and_logs_nothing(caplog):
    with caplog.at_level(logging.DEBUG), raises(r"^trace: RuntimeError at the traced function: .*reduction dim") as error:
        trace(nn.Linear(3, 3), torch.ones(2, 4))
    assert "\n" not in str(error.value)
    assert not caplog.records


@pytest.mark.parametrize(
    ("model", "inputs", "options", "message"),
    [
        (3, (), {}, "trace: expected a torch.nn.Module or a function, got int"),
        (nn.ReLU(), (), {"mode": "train"}, "mode: expected 'inference' or 'training', got 'train'"),
        (
            nn.LazyLinear(3),
            (torch.ones(2, 4),),
            {},
            "trace: the module has lazy parameters without a shape; run it once on real data first",
        ),
        (
            torch.relu,
            (torch.eye(3).to_sparse(),),
            {},
            "trace: tensors of layout torch.sparse_coo are not supported; convert them with to_dense()",
        ),
        (
            nn.Linear(3, 3),
            (torch.ones(2, 3),),
            {"mode": "training", "loss": lambda y: y},
            "trace: loss must return a scalar tensor",
        ),
        (
            lambda x: x > 0,
            (torch.ones(2),),
            {"mode": "training"},
            "trace: mode 'training' needs a floating-point output to differentiate; give loss=",
        ),
    ],
)
def test_what_cannot_be_traced_is_said(model, inputs, options, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        trace(model, *inputs, **options)


# --- training -----------------------------------------------------------------------------------------------


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 5))


PARAMETERS = sum(p.numel() for p in net().parameters())
TENSORS = len(list(net().parameters()))

OPTIMIZERS = {
    # name: (optimizer, bytes of state: numbers a parameter and numbers a tensor, of 4 bytes)
    "sgd": (functools.partial(torch.optim.SGD, lr=0.1), 0),
    "momentum": (functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9), 4 * PARAMETERS),
    "fused sgd": (functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, fused=True), 4 * PARAMETERS),
    "adam": (functools.partial(torch.optim.Adam, foreach=False), 4 * (2 * PARAMETERS + TENSORS)),
    "foreach adam": (functools.partial(torch.optim.Adam, foreach=True), 4 * (2 * PARAMETERS + TENSORS)),
    "fused adamw": (functools.partial(torch.optim.AdamW, fused=True), 4 * (2 * PARAMETERS + TENSORS)),
}


@functools.cache
def step(name):
    return trace(net(), IMAGE, mode="training", optimizer=OPTIMIZERS[name][0], loss=lambda y: y.square().mean())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimizers_state_has_its_role_and_size(name):
    workload = step(name)
    assert workload.bytes_by_role().get("optimizer_state", 0) == OPTIMIZERS[name][1]
    assert workload.parameters == PARAMETERS


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_weight_is_updated_after_its_gradient(name):
    workload = step(name)
    written = {workload.tensors[t].owner for op in workload.ops if op.phase == "update" for t in op.outputs}
    weights = {t.name for t in workload.tensors.values() if t.role == "weight" and t.owner == t.name}
    assert weights == set(dict(net().named_parameters()))
    assert weights <= written
    read = {workload.tensors[t].owner for op in workload.ops if op.phase == "update" for t in op.inputs}
    gradients = {workload.tensors[t].elements for t in read if workload.tensors[t].role == "gradient"}
    assert {p.numel() for p in net().parameters()} <= gradients
    assert "unmodelled" not in kinds(workload)


def test_one_optimizer_written_three_ways_costs_the_same():
    def work(name):
        total = Counter()
        for op in step(name).ops:
            if op.phase == "update":
                total.update(op.operations)
        return total

    loops, lists = work("adam"), work("foreach adam")
    # With lists the bias corrections are computed in a division of their own, which the loop folds into scalars.
    assert {k: v for k, v in loops.items() if k not in ("add", "multiply", "multiply_add")} == {
        k: v for k, v in lists.items() if k not in ("add", "multiply", "multiply_add")
    }
    assert loops["sqrt"] == lists["sqrt"] == PARAMETERS


def test_the_loss_is_part_of_the_step():
    names = [op.name for op in step("sgd").ops if op.phase == "forward"]
    assert names[-2:] == ["pow", "mean"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_peak_adds_up_and_exceeds_that_of_inference(name):
    peak, inference = step(name).peak_memory(), trace(net(), IMAGE).peak_memory()
    assert sum(peak.by_role.values()) == peak.bytes > inference.bytes
    # Nothing can be missing that must be there throughout: weights and optimizer state.
    assert peak.by_role["weight"] == 4 * PARAMETERS
    assert peak.by_role.get("optimizer_state", 0) == OPTIMIZERS[name][1]


def test_activations_live_until_their_backward_pass():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(5))

        def forward(self, x):
            for layer in self.layers:
                x = torch.tanh(layer(x))
            return x

    x = torch.ones(100, 8)
    inference, training = trace(Deep(), x), trace(Deep(), x, mode="training")
    one = 100 * 8 * 4
    # Without gradients at most a layer's operands and result live; with them, each tanh's result stays.
    assert inference.peak_memory().by_role["activation"] <= 2 * one
    assert training.peak_memory().by_role["activation"] >= 5 * one


def test_frozen_weights_get_neither_gradient_nor_state():
    module = net()
    module[0].requires_grad_(False)
    workload = trace(module, IMAGE, mode="training")
    frozen = sum(p.numel() for p in module[0].parameters())
    assert workload.bytes_by_role()["optimizer_state"] == 4 * (2 * (PARAMETERS - frozen) + TENSORS - 2)
    assert not any(op.kind == "convolution" and op.phase == "backward" for op in workload.ops)


# --- found by trial -----------------------------------------------------------------------------------------------------


def test_an_expanded_operand_is_one_matrix():
    shared = trace(lambda a, b: torch.bmm(a, b.expand(64, 256, 256)), torch.empty(64, 8, 256), torch.empty(256, 256))
    (product,) = shared.ops
    assert (product.batch, product.m, product.n, product.k) == (1, 64 * 8, 256, 256)
    assert shared.op_bytes(product) == 4 * (64 * 8 * 256 + 256 * 256 + 64 * 8 * 256)


def test_a_mask_is_read_and_added():
    q, mask = torch.empty(1, 12, 64, 16), torch.empty(1, 12, 64, 64)
    plain = trace(lambda q: nn.functional.scaled_dot_product_attention(q, q, q), q).expanded()
    masked = trace(lambda q, m: nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=m), q, mask).expanded()
    (added,) = [op for op in masked.ops if getattr(op, "operation", "") == "add"]
    assert added.elements == 12 * 64 * 64
    assert any(masked.tensors[t].shape == mask.shape for t in added.inputs)
    assert len(masked) == len(plain) + 1


def test_work_across_the_rows_of_a_product_does_not_stream():
    from hwsim.schedule import form_groups

    a, b = torch.empty(32, 16), torch.empty(16, 32)
    streamed = {
        "rows": (lambda a, b: torch.softmax(a @ b, 1), 1),
        "columns": (lambda a, b: torch.softmax(a @ b, 0), 0),
        "same": (lambda a, b: (lambda y: y + y)(a @ b), 1),
        "transposed": (lambda a, b: (lambda y: y + y.t())(a @ b), 0),
    }
    for name, (function, count) in streamed.items():
        groups = form_groups(trace(function, a, b))
        assert sum(len(g.streamed) for g in groups) == count, name


def test_modules_in_containers_and_behind_objects_are_traced_as_modules():
    layers = [nn.Linear(8, 8), nn.Dropout(0.5)]

    class Agent:
        def __init__(self):
            self.policy = nn.Linear(8, 8)
            self.drop = nn.Dropout(0.5)

        def act(self, x):
            return self.drop(self.policy(x))

    for function in (lambda x: layers[1](layers[0](x)), Agent().act):
        workload = trace(function, torch.empty(4, 8))
        assert workload.parameters == 72
        assert [op.kind for op in workload.ops] == ["matmul"]  # dropout does nothing in inference


def test_containers_and_buffers_of_the_model_are_as_before():
    class Remembers(nn.Module):
        def __init__(self):
            super().__init__()
            self.history, self.last = [], {}
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x):
            y = x + 1
            self.history.append(y)
            self.last["y"] = y
            self.count.add_(1)
            return y

    for values in (False, True):
        model = Remembers()
        trace(model, torch.ones(3), values=values)
        assert (model.history, model.last, float(model.count)) == ([], {}, 0.0)


@pytest.mark.parametrize("optimizer", [torch.optim.NAdam, torch.optim.RAdam, torch.optim.Adagrad, torch.optim.RMSprop])
def test_optimizers_that_read_their_counters(optimizer):
    workload = trace(nn.Linear(4, 4), torch.empty(2, 4), mode="training", optimizer=lambda p: optimizer(p, lr=0.1))
    assert any(op.phase == "update" for op in workload.ops)


def test_attention_with_dropout_is_traced():
    """PyTorch's default encoder layer in training: its softmax is the one that is safe where a row is masked as a whole."""
    layer = nn.TransformerEncoderLayer(64, 4, batch_first=True)
    traced = trace(layer, torch.randn(2, 5, 64), mode="training")
    assert {"softmax", "softmax_backward"} <= {op.operation for op in traced.ops if op.kind == "softmax"}
