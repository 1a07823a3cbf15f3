"""The planner of working memory: known figures, a replay of every plan byte by byte, bounds, exhaustive search."""

import itertools
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hwsim
from hwsim import zoo
from hwsim.operators import Convolution, Elementwise, Matmul, Normalization, Softmax
from hwsim.planning import Buffer, Tiling, plan_memory
from hwsim.planning.chains import chains_at
from hwsim.planning.offsets import best_placement, first_fit, height, lay_down
from hwsim.workload import Tensor, Workload
from hwsim.zoo.vit import ViTB16
from numerics import InputError, Recipe

INT8 = Recipe("int8", {"weight": "int8", "activation": "int8", "accumulator": "int32"})
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
BLOCK = "encoder.layers.encoder_layer_0."


def vit(layers=2, **sizes):
    with torch.device("meta"):
        model, image = ViTB16(layers=layers, **sizes).eval(), torch.empty(1, 3, 224, 224)
    return hwsim.trace(model, image).with_formats(INT8)


@pytest.fixture(scope="module")
def deit():
    """DeiT-Tiny: 197 tokens of 192 in three heads; four of its twelve equal blocks."""
    return vit(layers=4, width=192, heads=3)


# --- what MCUFormer's kind of planning is checked against ------------------------------------------------------------------


def kib(n):
    return round(n / 1024)


def test_deit_tiny_as_it_is(deit):
    """Embedding: image and patches. Attention: residual, queries, keys, values, all scores. MLP: residual, its norm, hidden."""
    plan = plan_memory(deit)
    tokens, image, patches = 197 * 192, 3 * 224 * 224, 196 * 192
    assert plan.live_at("conv_proj") == image + patches
    assert plan.live_at(f"{BLOCK}self_attention/attention/scores") == 4 * tokens + 3 * 197 * 197
    assert plan.live_at(f"{BLOCK}mlp.0") == 2 * tokens + 4 * tokens
    published = {"conv_proj": 184, f"{BLOCK}self_attention/attention/scores": 261, f"{BLOCK}mlp.0": 222}
    assert {op: kib(plan.live_at(op)) for op in published} == published
    assert plan.deciding_op == f"{BLOCK}self_attention/attention/scores"
    assert plan.peak_bytes == plan.lower_bound_bytes
    assert plan.optimal


def test_deit_tiny_head_by_head_and_in_tiles_of_16_tokens(deit):
    heads = plan_memory(deit, tiling=Tiling(heads=1))
    assert kib(heads.live_at(f"{BLOCK}self_attention/attention/scores")) == 186
    assert heads.live_at(f"{BLOCK}self_attention/attention/scores") == 4 * 197 * 192 + 197 * 197
    assert kib(heads.peak_bytes) == 222
    both = plan_memory(deit, tiling=Tiling(heads=1, tokens=16))
    assert both.live_at(f"{BLOCK}mlp.0") == 2 * 197 * 192 + 16 * 768
    assert kib(both.live_at(f"{BLOCK}mlp.0")) == 86
    assert kib(both.peak_bytes) == 186
    assert both.fits(320 * 1024)
    assert not both.fits(both.peak_bytes - 1)
    assert {c.kind for c in both.chains} == {"heads", "tokens"}
    assert {c.tiles for c in both.chains} == {3, math.ceil(197 / 16)}


def test_wider_chains_need_less_still(deit):
    products = plan_memory(deit, tiling=Tiling(heads=1, tokens=16))
    rows = plan_memory(deit, tiling=Tiling(heads=1, tokens=16, span="rows"))
    assert rows.live_at(f"{BLOCK}mlp.0") < products.live_at(f"{BLOCK}mlp.0")
    assert rows.peak_bytes <= products.peak_bytes


def test_without_in_place_the_softmax_needs_a_second_matrix(deit):
    plan = plan_memory(deit, in_place=False)
    assert plan.live_at(f"{BLOCK}self_attention/attention/softmax") >= 2 * 3 * 197 * 197
    assert plan.peak_bytes > plan_memory(deit).peak_bytes


# --- a replay of a plan: every byte carries the tensor that was written there -----------------------------------------------


def slices(buffer, owner, plan, workload, part, parts):
    """The bytes of one of ``parts`` equal parts of a tensor in its place."""
    size = workload.tensors[owner].bytes
    whole = min(size, buffer.bytes)
    return buffer.offset + whole * part // parts, buffer.offset + whole * (part + 1) // parts


def replay(plan, workload):
    """Run the plan on a memory of bytes; fail where an operator would read what another has overwritten."""
    from hwsim.planning.buffers import with_parts

    workload = with_parts(workload.expanded())
    assert [op.name for op in workload.ops] == list(plan.ops)
    memory: list[str] = [""] * plan.peak_bytes
    place = {owner: b for b in plan.buffers for owner in b.tensors}
    inside = {index: c for c in plan.chains for index in range(c.first, c.last + 1)}

    def write(owner, part=0, parts=1):
        if owner in place:
            low, high = slices(place[owner], owner, plan, workload, part, parts)
            memory[low:high] = [owner] * (high - low)

    def read(owner, op, part=0, parts=1):
        if owner in place:
            low, high = slices(place[owner], owner, plan, workload, part, parts)
            assert set(memory[low:high]) <= {owner}, f"{op.name} reads {owner}, which was overwritten"

    def owners(names):
        return [workload.tensors[n].owner for n in names]

    made = {o for op in workload.ops for o in owners(op.outputs)}
    for owner in place:
        if owner not in made:
            write(owner)
    index = 0
    while index < len(workload.ops):
        chain = inside.get(index)
        if chain is None:
            op = workload.ops[index]
            for owner in owners(op.inputs):
                read(owner, op)
            for owner in owners(op.outputs):
                write(owner)
            index += 1
            continue
        for tile in range(chain.tiles):
            for op in workload.ops[chain.first : chain.last + 1]:
                for owner in owners(op.inputs):
                    if owner in chain.sizes:
                        read(owner, op)
                    elif chain.kind == "image_rows":
                        read(owner, op)  # a line of the result may need any line of the image
                    else:
                        read(owner, op, tile, chain.tiles)
                for owner in owners(op.outputs):
                    if owner in chain.sizes:
                        write(owner)
                    else:
                        write(owner, tile, chain.tiles)
        index = chain.last + 1
    for owner in owners(workload.outputs):
        read(owner, workload.ops[-1])


def no_overlap(plan):
    """No two buffers share a byte while both are taken."""
    for a, b in itertools.combinations(plan.buffers, 2):
        together = a.first <= b.last and b.first <= a.last
        assert not together or a.end <= b.offset or b.end <= a.offset, (a, b)
    assert all(b.offset >= 0 and b.end <= plan.peak_bytes for b in plan.buffers)


@st.composite
def graphs(draw):
    """Chains of token-wise operators with residuals, attention written out, and results used again later."""
    rows = draw(st.sampled_from([4, 12, 30]))
    tensors, ops, live = {}, [], []

    def tensor(name, *shape, role="activation"):
        tensors[name] = Tensor(name, shape, "int8", role)
        return name

    live.append(tensor("x", rows, 8, role="input"))
    for i in range(draw(st.integers(1, 9))):
        kind = draw(st.sampled_from(["product", "product", "act", "act", "add", "norm", "scores"]))
        source = draw(st.sampled_from(live[-3:]))
        width = tensors[source].shape[-1]
        name = f"t{i}"
        if kind == "product":
            n = draw(st.sampled_from([8, 8, 32]))
            weight = tensor(f"w{i}", width, n, role="weight")
            ops.append(Matmul(name=f"op{i}", inputs=(source, weight), outputs=(tensor(name, rows, n),), m=rows, n=n, k=width))
        elif kind in ("act", "norm"):
            out = tensor(name, rows, width)
            same = {"name": f"op{i}", "inputs": (source,), "outputs": (out,), "elements": rows * width}
            ops.append(
                Elementwise(operation="relu", **same)
                if kind == "act"
                else Normalization(operation="layer_norm", rows=rows, **same)
            )
        elif kind == "add":
            other = draw(st.sampled_from(live))
            if tensors[other].shape != tensors[source].shape:
                continue
            out = tensor(name, rows, width)
            ops.append(Elementwise(name=f"op{i}", inputs=(other, source), outputs=(out,), operation="add", elements=rows * width))
        else:
            heads, depth = 2, width // 2
            q, k, v = (tensor(f"{p}{i}", heads, rows, depth) for p in "qkv")
            for part in (q, k, v):
                weight = tensor(f"w{part}", width, width, role="weight")
                ops.append(Matmul(name=f"make_{part}", inputs=(source, weight), outputs=(part,), m=rows, n=width, k=width))
            raw, soft = tensor(f"raw{i}", heads, rows, rows), tensor(f"soft{i}", heads, rows, rows)
            ops.append(Matmul(name=f"scores{i}", inputs=(q, k), outputs=(raw,), batch=heads, m=rows, n=rows, k=depth))
            size = heads * rows * rows
            ops.append(
                Softmax(name=f"softmax{i}", inputs=(raw,), outputs=(soft,), operation="softmax", elements=size, rows=heads * rows)
            )
            out = tensor(name, heads, rows, depth)
            ops.append(Matmul(name=f"op{i}", inputs=(soft, v), outputs=(out,), batch=heads, m=rows, n=depth, k=rows))
            tensors[name] = Tensor(name, (heads, rows, depth), "int8", "activation")
            flat = tensor(f"flat{i}", rows, width)
            weight = tensor(f"proj{i}", width, width, role="weight")
            ops.append(Matmul(name=f"out{i}", inputs=(name, weight), outputs=(flat,), m=rows, n=width, k=width))
            name = flat
        live.append(name)
    outputs = tuple(dict.fromkeys([live[-1], *draw(st.lists(st.sampled_from(live[1:] or live), max_size=1))]))
    return Workload("graph", tuple(ops), tensors, ("x",), outputs)


TILINGS = st.one_of(
    st.none(),
    st.builds(
        Tiling,
        heads=st.sampled_from([None, 1]),
        tokens=st.sampled_from([None, 2, 3]),
        span=st.sampled_from(["products", "rows"]),
    ),
)


@FEW
@given(graphs(), TILINGS, st.booleans(), st.sampled_from([1, 4]))
def test_every_plan_replays_and_stays_between_its_bounds(workload, tiling, in_place, alignment):
    plan = plan_memory(workload, tiling=tiling, in_place=in_place, alignment_bytes=alignment)
    no_overlap(plan)
    replay(plan, workload)
    assert plan.lower_bound_bytes <= plan.peak_bytes <= plan.naive_bytes
    assert all(b.offset % alignment == 0 for b in plan.buffers)
    assert plan.optimal <= (plan.peak_bytes >= plan.lower_bound_bytes)
    if tiling is not None:
        assert plan.lower_bound_bytes <= plan_memory(workload, in_place=in_place, alignment_bytes=alignment).lower_bound_bytes
    if in_place:
        apart = plan_memory(workload, tiling=tiling, in_place=False, alignment_bytes=alignment)
        if tiling is None:
            assert plan.lower_bound_bytes <= apart.lower_bound_bytes


def test_the_replay_finds_an_overlap():
    tensors = {n: Tensor(n, (8,), "int8", r) for n, r in (("a", "input"), ("b", "activation"), ("c", "activation"))}
    ops = (
        Elementwise(name="one", inputs=("a",), outputs=("b",), operation="relu", elements=8),
        Elementwise(name="two", inputs=("a", "b"), outputs=("c",), operation="add", elements=8),
    )
    workload = Workload("w", ops, tensors, ("a",), ("c",))
    plan = plan_memory(workload, in_place=False)
    replay(plan, workload)
    wrong = type(plan)(
        **{**plan.__dict__, "buffers": tuple(Buffer(b.name, b.tensors, 8, b.first, b.last, 0) for b in plan.buffers)}
    )
    with pytest.raises(AssertionError, match="two reads a, which was overwritten"):
        replay(wrong, workload)
    with pytest.raises(AssertionError):
        no_overlap(wrong)


@pytest.mark.parametrize("tiling", [None, Tiling(heads=1, tokens=16), Tiling(heads=1, tokens=16, span="rows")])
def test_a_vision_transformer_replays(tiling):
    workload = vit(layers=2, width=48, heads=3)
    plan = plan_memory(workload, tiling=tiling)
    no_overlap(plan)
    replay(plan, workload)


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_b0", "lstm_small", "gpt2"])
def test_networks_of_the_zoo(name):
    workload = hwsim.trace(zoo.build(name), *zoo.example_inputs(name)).with_formats(INT8)
    whole = plan_memory(workload)
    no_overlap(whole)
    assert whole.lower_bound_bytes <= whole.peak_bytes <= whole.naive_bytes
    cut = plan_memory(workload, tiling=Tiling(heads=1, tokens=16, image_rows=4))
    no_overlap(cut)
    assert cut.peak_bytes <= whole.peak_bytes
    if name in ("mobilenet_v2", "efficientnet_b0"):
        assert cut.peak_bytes < 0.7 * whole.peak_bytes


# --- convolutions in lines -------------------------------------------------------------------------------------------------


def convolutions(kernel, stride, size, channels=4):
    """Three convolutions in sequence on a square image."""
    tensors = {"image": Tensor("image", (1, channels, size, size), "int8", "input")}
    ops, source, side = [], "image", size
    for i in range(3):
        out = (side + 2 * (kernel // 2) - kernel) // stride + 1
        tensors[f"w{i}"] = Tensor(f"w{i}", (channels, channels, kernel, kernel), "int8", "weight")
        tensors[f"y{i}"] = Tensor(f"y{i}", (1, channels, out, out), "int8", "activation")
        ops.append(
            Convolution(
                name=f"conv{i}",
                inputs=(source, f"w{i}"),
                outputs=(f"y{i}",),
                batch=1,
                in_channels=channels,
                out_channels=channels,
                input_size=(side, side),
                output_size=(out, out),
                kernel=(kernel,) * 2,
                stride=(stride,) * 2,
                padding=((kernel // 2,) * 2,) * 2,
                dilation=(1, 1),
            )
        )
        source, side = f"y{i}", out
    return Workload("convolutions", tuple(ops), tensors, ("image",), (source,))


def lines_needed(ops, rows):
    """Most lines of each inner image alive at once when the result is made ``rows`` lines at a time, found by walking them."""
    most = {op.outputs[0]: 0 for op in ops[:-1]}
    height_of = {op.outputs[0]: op.output_size[0] for op in ops}
    made = dict.fromkeys(most, 0)
    for low in range(0, ops[-1].output_size[0], rows):
        need = (low, min(low + rows, ops[-1].output_size[0]))
        for op in reversed(ops[1:]):
            pad, stride, kernel = op.padding[0][0], op.stride[0], op.kernel[0]
            name = op.inputs[0]
            first = max(0, need[0] * stride - pad)
            last = min(height_of[name], (need[1] - 1) * stride - pad + kernel)
            most[name] = max(most[name], last - first)
            need = (made[name], last)  # only lines that are not there yet
            made[name] = max(made[name], last)
            if need[0] >= need[1]:
                break
    return most


@pytest.mark.parametrize(("kernel", "stride", "size", "rows"), list(itertools.product([1, 3, 5], [1, 2], [16, 33], [1, 3])))
def test_lines_of_convolutions_suffice(kernel, stride, size, rows):
    workload = convolutions(kernel, stride, size)
    chain = chains_at(workload, 0, Tiling(image_rows=rows))[0]
    found = lines_needed(workload.ops[chain.first : chain.last + 1], rows)
    for owner, size_bytes in chain.sizes.items():
        line = workload.tensors[owner].bytes // workload.tensors[owner].shape[2]
        assert size_bytes // line >= found[owner]
        assert size_bytes // line <= found[owner] + stride * max(stride, rows) + kernel


# --- placement -------------------------------------------------------------------------------------------------------------


@st.composite
def small_sets(draw):
    sizes = draw(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=5))
    return [Buffer(f"b{i}", (f"b{i}",), size, first, first + length) for i, (size, first, length) in enumerate(sizes)]


@FEW
@given(small_sets())
def test_search_finds_the_lowest_of_all_placements(buffers):
    placed, known = best_placement(buffers)
    every = min(height(lay_down(order)) for order in itertools.permutations(buffers))
    assert known
    assert height(placed) == every <= height(first_fit(buffers))
    for a, b in itertools.combinations(placed, 2):
        assert not a.meets(b) or a.end <= b.offset or b.end <= a.offset


def test_no_offsets_at_all_are_lower_than_the_search_finds():
    """Every offset up to the peak, for three buffers: the argument that orders suffice, by brute force."""
    buffers = [
        Buffer("a", ("a",), 2, 0, 1),
        Buffer("b", ("b",), 3, 1, 2),
        Buffer("c", ("c",), 2, 2, 3),
        Buffer("d", ("d",), 1, 0, 3),
    ]
    placed, _ = best_placement(buffers)
    lowest = 99
    for offsets in itertools.product(range(8), repeat=len(buffers)):
        laid = [Buffer(b.name, b.tensors, b.bytes, b.first, b.last, o) for b, o in zip(buffers, offsets, strict=True)]
        if all(not x.meets(y) or x.end <= y.offset or y.end <= x.offset for x, y in itertools.combinations(laid, 2)):
            lowest = min(lowest, height(laid))
    assert height(placed) == lowest


def test_exact_search_of_a_workload(deit):
    small = vit(layers=1, width=192, heads=3)
    assert plan_memory(small, search="exact").peak_bytes <= plan_memory(small).peak_bytes
    assert plan_memory(small, search="exact").optimal


# --- plain data, picture, errors -------------------------------------------------------------------------------------------


def test_plain_data_and_picture(deit):
    plan = plan_memory(deit, tiling=Tiling(heads=1))
    data = plan.to_dict()
    assert data["peak_bytes"] == plan.peak_bytes
    assert len(data["buffers"]) == len(plan.buffers)
    assert data["chains"][0]["kind"] == "heads"
    assert sum(plan.alive("conv_proj").values()) == plan.live_at("conv_proj")
    axes = plan.plot().axes[0]
    assert len(axes.patches) == len(plan.buffers)
    assert "decided by" in axes.get_title(loc="left")


def test_an_empty_workload_needs_nothing():
    plan = plan_memory(Workload("empty", (), {}))
    assert (plan.peak_bytes, plan.lower_bound_bytes, plan.deciding_op) == (0, 0, "")


def test_other_roles_are_placed_on_request(deit):
    plan = plan_memory(deit, roles=("weight",))
    assert plan.peak_bytes == sum(t.bytes for t in deit.tensors.values() if t.role == "weight" and t.owner == t.name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"roles": ("activations",)}, "roles: role"),
        ({"alignment_bytes": 0}, "alignment_bytes: expected an integer ≥ 1, got 0"),
        ({"search": "best"}, "search"),
    ],
)
def test_bad_options_are_one_line(deit, options, message):
    with pytest.raises(InputError, match=message) as caught:
        plan_memory(deit, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"heads": 0}, {"tokens": 1.5}, {"image_rows": True}, {"span": "all"}])
def test_bad_tilings_are_one_line(options):
    with pytest.raises(InputError, match=f"tiling: {next(iter(options))}"):
        Tiling(**options)


def test_an_unknown_operator_is_named(deit):
    with pytest.raises(InputError, match="op"):
        plan_memory(deit).live_at("conv")
    with pytest.raises(InputError, match="op"):
        plan_memory(deit).alive("conv")
