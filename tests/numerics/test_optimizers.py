"""Optimizers against torch.optim, the papers' algorithms in plain NumPy, and torch's own BF16 arithmetic."""

from __future__ import annotations

import copy
import io
import itertools
import math
import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.linalg import fractional_matrix_power
from torch import nn

from numerics import InputError, Recipe, get_format, get_recipe, quantize
from numerics.formats import dynamic_format
from numerics.optimizers import SGD, Adam, AdamW, Lion, Shampoo
from numerics.scaling import Scaling
from numerics.state_storage import Storage, scaled_bytes

ALL = (SGD, Adam, AdamW, Lion, Shampoo)


def raises(text):
    return pytest.raises(InputError, match="^" + re.escape(text))


def parameters(seed=0, shapes=((7, 5), (6,), (3, 2, 2, 2), ())):
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def gradients(params, step, seed=1):
    generator = torch.Generator().manual_seed(1000 * seed + step)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator) * 10.0 ** (step % 5 - 2)


def run(optimizer, params, steps, first=0):
    for step in range(first, first + steps):
        gradients(params, step)
        optimizer.step()
    return [p.detach().clone() for p in params]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# --- FP32: the bits of torch.optim ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "arguments"),
    [
        (SGD, torch.optim.SGD, {"lr": 0.1}),
        (SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
        (SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        (Adam, torch.optim.Adam, {"lr": 0.01}),
        (Adam, torch.optim.Adam, {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1}),
        (AdamW, torch.optim.AdamW, {"lr": 0.01}),
        (AdamW, torch.optim.AdamW, {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_fp32_has_the_bits_of_torch(ours, theirs, arguments):
    mine, others = parameters(), parameters()
    assert same(run(ours(mine, **arguments), mine, 50), run(theirs(others, foreach=False, **arguments), others, 50))


def test_parameter_groups_and_missing_gradients_are_as_in_torch():
    mine, others = parameters(), parameters()
    a = AdamW([{"params": mine[:2], "lr": 0.1}, {"params": mine[2:]}], weight_decay=0.2)
    b = torch.optim.AdamW([{"params": others[:2], "lr": 0.1}, {"params": others[2:]}], weight_decay=0.2, foreach=False)
    for step in range(20):
        for params, optimizer in ((mine, a), (others, b)):
            gradients(params, step)
            params[step % 4].grad = None
            optimizer.step()
    assert same(mine, others)


def plain_lion(weight, grads, lr, beta1, beta2, decay):
    """Program 1 of arXiv 2302.06675, line by line, in doubles."""
    weight, momentum = weight.astype(np.float64), np.zeros_like(weight, dtype=np.float64)
    for g in grads:
        update = np.sign(momentum * beta1 + g * (1 - beta1)) + weight * decay
        momentum = momentum * beta2 + g * (1 - beta2)
        weight = weight - lr * update
    return weight, momentum


def test_lion_is_program_1():
    (p,) = parameters(shapes=((40, 30),))
    start = p.detach().numpy().copy()
    optimizer = Lion([p], lr=3e-3, betas=(0.9, 0.97), weight_decay=0.1)
    seen = []
    for step in range(60):
        gradients([p], step)
        seen.append(p.grad.double().numpy())
        optimizer.step()
    weight, momentum = plain_lion(start, seen, 3e-3, 0.9, 0.97, 0.1)
    np.testing.assert_allclose(p.detach().numpy(), weight, rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(optimizer.state[p]["exp_avg"].numpy(), momentum, rtol=1e-5, atol=1e-5)


def test_lion_without_a_gradient_stands_still():
    (p,) = parameters(shapes=((4,),))
    before = p.detach().clone()
    p.grad = torch.zeros(4)
    Lion([p], lr=0.1).step()
    assert torch.equal(p, before)


def plain_shampoo(weight, grads, lr, eps):
    """Algorithm 1 of arXiv 1802.09568 for a matrix, roots by SciPy's Schur-Padé method."""
    left, right = eps * np.eye(weight.shape[0]), eps * np.eye(weight.shape[1])
    for g in grads:
        left, right = left + g @ g.T, right + g.T @ g
        weight = weight - lr * fractional_matrix_power(left, -0.25) @ g @ fractional_matrix_power(right, -0.25)
    return weight


def test_shampoo_is_algorithm_1():
    (p,) = parameters(shapes=((6, 4),))
    start = p.detach().double().numpy().copy()
    optimizer = Shampoo([p], lr=0.1, eps=1e-2)
    seen = []
    for step in range(8):
        gradients([p], step)
        seen.append(p.grad.double().numpy())
        optimizer.step()
    np.testing.assert_allclose(p.detach().numpy(), plain_shampoo(start, seen, 0.1, 1e-2), rtol=1e-4, atol=1e-5)


def test_shampoo_of_a_vector_is_full_matrix_adagrad():
    (p,) = parameters(shapes=((5,),))
    start = p.detach().double().numpy().copy()
    optimizer = Shampoo([p], lr=0.1, eps=1e-2)
    matrix = 1e-2 * np.eye(5)
    for step in range(6):
        gradients([p], step)
        g = p.grad.double().numpy()
        matrix = matrix + np.outer(g, g)
        start = start - 0.1 * fractional_matrix_power(matrix, -0.5) @ g
        optimizer.step()
    np.testing.assert_allclose(p.detach().numpy(), start, rtol=1e-4, atol=1e-5)


# --- rounding weights ----------------------------------------------------------------------------------------------------


def test_adding_a_thousand_ones_in_bf16():
    """Nearest even sticks at 256, where the step is 2; stochastic rounding is right in the mean; FP32 is exact."""

    def total(seeds=1, **kept):
        p = nn.Parameter(torch.zeros(seeds))
        optimizer = SGD([p], lr=1.0, **kept)
        for _ in range(1000):
            p.grad = torch.full_like(p, -1.0)
            optimizer.step()
        return p.detach().double().numpy()

    assert total() == 1000
    assert total(recipe="bf16_pure") == 256
    assert total(recipe="bf16_pure_kahan") == 1000
    drawn = total(seeds=400, recipe="bf16_pure_sr", seed=3)
    # From 256 on a unit step is one draw of probability 1/2, from 512 on of 1/4: a binomial walk.
    deviation = math.sqrt(256 * 2**2 * 1 / 4 + 488 * 4**2 * 3 / 16)
    assert abs(drawn.mean() - 1000) < 4 * deviation / math.sqrt(400)
    assert 0.8 * deviation < drawn.std() < 1.2 * deviation


def test_nearest_bf16_weights_are_torchs_cast():
    mine, others = parameters(), parameters()
    for q in others:
        q.data = q.data.bfloat16().float()
    ours = SGD(mine, lr=0.1, master_weight="bf16")
    for step in range(20):
        gradients(mine, step)
        for p in others:
            p.grad = None
        for p, q in zip(mine, others, strict=True):
            q.data = (q.detach().add(p.grad, alpha=-0.1)).bfloat16().float()
        ours.step()
    assert same(mine, others)


def test_kahan_is_torchs_bf16_arithmetic():
    """Update, sum and compensation, each operation in torch.bfloat16, around torch's own FP32 step."""
    (p,) = parameters(shapes=((50, 20),))
    q = nn.Parameter(p.detach().clone())
    weight, lost = p.detach().bfloat16(), torch.zeros(50, 20, dtype=torch.bfloat16)
    ours, theirs = AdamW([p], lr=1e-3, recipe="bf16_pure_kahan", state="fp32"), torch.optim.AdamW([q], lr=1e-3, foreach=False)
    for step in range(30):
        gradients([p], step)
        q.grad, q.data = p.grad.clone(), weight.float()
        theirs.step()
        update = (q.detach() - weight.float()).bfloat16() - lost
        total = weight + update
        lost, weight = (total - weight) - update, total
        ours.step()
        assert torch.equal(p.detach(), weight.float())
        assert torch.equal(ours.state[p]["compensation"], lost.float())
    assert lost.abs().max() > 0


def test_stochastic_bits_repeat_and_differ_between_steps_and_tensors():
    def final(seed, shapes=((64,), (64,))):
        params = [nn.Parameter(torch.ones(s)) for s in shapes]
        optimizer = SGD(params, lr=1.0, recipe="bf16_pure_sr", seed=seed)
        seen = []
        for _ in range(2):
            for p in params:
                p.grad = torch.full_like(p, -(2.0**-8))  # half a step
            optimizer.step()
            seen.append([p.detach().clone() for p in params])
        return seen

    first, second = final(7), final(7)
    assert same(first[0] + first[1], second[0] + second[1])
    assert not same(first[1], final(8)[1])
    (a, b), (c, _) = first
    assert not torch.equal(a, b), "two tensors drew the same bits"
    assert not torch.equal(a > 1, (c - a) > 2**-9), "two steps drew the same bits"


def test_any_master_format_holds_only_its_values():
    for name in ("e4m3fn", "fp16", "q4.12", "mxfp8_e4m3"):
        (p,) = parameters(shapes=((8, 32),))
        run(SGD([p], lr=0.01, master_weight=name), [p], 3)
        assert torch.equal(p.detach(), quantize(p.detach(), name)), name


# --- state in other formats ----------------------------------------------------------------------------------------------


def exact_blockwise(values, table, size):
    """Table entries nearest to x / scale, times scale = amax / largest of each run; in rationals, FP32 where that rounds."""
    out = []
    for start in range(0, len(values), size):
        run_ = [float(v) for v in values[start : start + size]]
        scale = np.float32(np.float32(max(map(abs, run_))) / np.float32(table[-1]))
        for v in run_:
            quotient = Fraction(float(np.float32(v) / scale))
            distance = [abs(Fraction(float(t)) - quotient) for t in table]
            best = min(distance)
            out.append({float(np.float32(np.float32(t) * scale)) for t, d in zip(table, distance, strict=True) if d == best})
    return out


@pytest.mark.parametrize("name", ["int8", "int8_symmetric", "int4", "e4m3fn", "dynamic8"])
def test_blocks_of_state_go_to_the_nearest_code(name):
    x = torch.randn(7, 11, generator=torch.Generator().manual_seed(2)) * torch.logspace(-6, 2, 77).view(7, 11)
    fmt = get_format(name)
    table = sorted({float(v) for v in fmt.table() if math.isfinite(v)})
    stored = Storage(fmt, scaling=Scaling("group", 16)).store(x, seed=0, what="x")
    for got, nearest in zip(stored.flatten().tolist(), exact_blockwise(x.flatten().numpy(), table, 16), strict=True):
        assert got in nearest


def test_dynamic_data_type_is_that_of_the_paper():
    """Seven decades; 2^i values in the i-th, the middles of equal parts of (0.1, 1]·10^(i−6); unsigned, twice them; 0 and 1."""
    for signed, fmt in ((True, get_format("dynamic8")), (False, get_format("udynamic8"))):
        values = np.array(fmt.values)
        assert len(values) == 256
        assert values[-1] == 1.0
        assert 0.0 in values
        assert (values.min() < 0) == signed
        positive = values[(values > 0) & (values < 1)]
        for i in range(7):
            high = 10.0 ** (i - 6)
            inside = positive[(positive > high / 10) & (positive < high)]
            count = 2 ** (i + (not signed))
            assert len(inside) == count
            np.testing.assert_allclose(inside, high * (0.1 + 0.9 * (np.arange(count) + 0.5) / count), rtol=1e-12)
        if signed:
            np.testing.assert_array_equal(-values[values < 0][::-1], positive)


def test_each_state_has_its_format():
    (p,) = parameters(shapes=((40, 60),))
    optimizer = Adam([p], state={"exp_avg": "bf16", "exp_avg_sq": Storage("udynamic8")}, lr=1e-3)
    run(optimizer, [p], 3)
    mean, square = (optimizer.state[p][name] for name in ("exp_avg", "exp_avg_sq"))
    assert torch.equal(mean, mean.bfloat16().float())
    assert len(square[:34].flatten()[:2048].unique()) <= 256
    assert len(square.unique()) > 256


def test_update_uses_the_state_before_it_is_rounded():
    """The first step of Adam is the sign of the gradient whatever the state's format; only later steps see the loss."""
    a, b = parameters(shapes=((30, 30),)), parameters(shapes=((30, 30),))
    narrow, wide = Adam(a, state="int8"), Adam(b)
    assert same(run(narrow, a, 1), run(wide, b, 1))
    assert not same(run(narrow, a, 1, first=1), run(wide, b, 1, first=1))


def test_state_of_8_bits_follows_fp32():
    """Least squares: dynamic 8-bit state converges as FP32 does; linear codes flush small second moments, and it diverges."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(400, 30, generator=generator) * torch.logspace(0, -1, 30)
    wanted = a @ torch.randn(30, generator=generator)

    def loss_after(state):
        p = nn.Parameter(torch.zeros(30))
        optimizer = Adam([p], lr=0.02, state=state)
        for _ in range(400):
            optimizer.zero_grad()
            loss = ((a @ p - wanted) ** 2).mean()
            loss.backward()
            optimizer.step()
        return loss.item()

    start = float((wanted**2).mean())
    assert loss_after("fp32") < 1e-6 * start
    assert loss_after({"exp_avg": "dynamic8", "exp_avg_sq": "udynamic8"}) < 1e-6 * start
    assert loss_after({"exp_avg": "int8", "exp_avg_sq": "udynamic8"}) < 1e-4 * start
    assert loss_after({"exp_avg": "dynamic8", "exp_avg_sq": "uint8"}) > start


@pytest.mark.parametrize("optimizer", ALL)
@pytest.mark.parametrize("recipe", ["fp32", "bf16_pure", "bf16_pure_sr", "bf16_pure_kahan"])
def test_saved_state_goes_on_bit_for_bit(optimizer, recipe):
    arguments = {"lr": 1e-2, "recipe": recipe, "seed": 5}
    whole = parameters(shapes=((6, 5), (4,)))
    expected = run(optimizer(whole, **arguments), whole, 6)
    first = parameters(shapes=((6, 5), (4,)))
    halfway = optimizer(first, **arguments)
    run(halfway, first, 3)
    stored = io.BytesIO()
    torch.save({"weights": first, "optimizer": halfway.state_dict()}, stored)
    stored.seek(0)
    loaded = torch.load(stored, weights_only=False)
    second = [nn.Parameter(p.detach()) for p in loaded["weights"]]
    fresh = optimizer(second, **(arguments | {"seed": 99}))
    fresh.load_state_dict(loaded["optimizer"])
    assert same(run(fresh, second, 3, first=3), expected)


def test_state_with_a_scale_survives_saving():
    (a,), (b,) = parameters(shapes=((50, 50),)), parameters(shapes=((50, 50),))
    arguments = {"state": {"exp_avg": "dynamic8", "exp_avg_sq": "udynamic8"}}
    first = Adam([a], **arguments)
    run(first, [a], 3)
    second = Adam([b], **arguments)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    b.data = a.detach().clone()
    assert same(run(first, [a], 3, first=3), run(second, [b], 3, first=3))


# --- recipes -------------------------------------------------------------------------------------------------------------


def test_overrides_reach_the_parameters_of_their_modules():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    recipe = get_recipe("bf16_pure").excepting("1", master_weight="fp32", optimizer_state="fp32")
    optimizer = SGD(model.named_parameters(), lr=0.3, momentum=0.9, recipe=recipe)
    for step in range(3):
        gradients(list(model.parameters()), step)
        optimizer.step()
    for name, p in model.named_parameters():
        narrow = torch.equal(p, p.bfloat16().float())
        assert narrow == name.startswith("0."), name
        buffer = optimizer.state[p]["momentum_buffer"]
        assert torch.equal(buffer, buffer.bfloat16().float()) == name.startswith("0."), name


# --- bytes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("optimizer", "arguments", "per_parameter"),
    [
        (Adam, {}, 16),  # weight, gradient, two moments of 4 bytes
        (AdamW, {}, 16),
        (Lion, {}, 12),
        (SGD, {}, 8),
        (SGD, {"momentum": 0.9}, 12),
        # ZeRO (arXiv 1910.02054, section 3.1): 2 + 2 bytes of working copies, 12 of FP32 weight and moments.
        (Adam, {"recipe": "bf16_mixed"}, 16),
        (Adam, {"recipe": "bf16_pure"}, 8),
        (Adam, {"recipe": "bf16_pure_kahan"}, 10),
        (Lion, {"recipe": "bf16_pure"}, 6),
        # 8-bit Adam: 4 + 4 + 2 and two scales of 4 bytes a block of 2,048.
        (Adam, {"state": "int8"}, 10 + 8 / 2048),
        (Adam, {"state": {"exp_avg": "bf16"}}, 14),
        (Adam, {"recipe": "mxfp8"}, 1 + 1 / 32 + 2 + 4 + 8),
        # One scale of 4 bytes for each tile of 128×128.
        (Adam, {"recipe": "fp8_block"}, 1 + 4 / 128**2 + 2 + 4 + 8),
    ],
)
def test_bytes_a_parameter(optimizer, arguments, per_parameter):
    p = nn.Parameter(torch.zeros(256, 512))
    found = optimizer([p], **arguments).state_bytes()
    assert found.parameters == p.numel()
    assert found.per_parameter == per_parameter
    assert found.total == sum(found.by_role.values())


def test_bytes_by_role():
    p = nn.Parameter(torch.zeros(256, 512))
    found = Adam([p], recipe="bf16_mixed").state_bytes().by_role
    assert {role: size / p.numel() for role, size in found.items()} == {
        "weight": 2,
        "gradient": 2,
        "master_weight": 4,
        "optimizer_state": 8,
    }


def test_shampoo_keeps_two_square_matrices():
    p = nn.Parameter(torch.zeros(8, 3, 2, 2))
    assert Shampoo([p]).state_bytes().by_role["optimizer_state"] == 4 * (8**2 + 12**2)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 5), (130, 300), (4, 3, 2, 2), (0, 3)])
def test_scales_are_counted_one_by_one(shape):
    """Against a tensor whose every element names the scale it would have."""
    size = 2
    elements = math.prod(shape)
    codes = 4 * elements
    fp32 = get_format("fp32")
    matrix = np.zeros(shape).reshape(shape[0] if len(shape) > 1 else 1, -1) if elements else np.zeros((0, 0))
    tiles = {(r // 128, c // 128) for r, c in itertools.product(*map(range, matrix.shape))}
    rows = set(range(matrix.shape[0]))
    groups = {(*place[:-1], place[-1] // size) for place in np.ndindex(*shape)} if shape else {()}
    wanted = {"tile": tiles, "channel": rows, "group": groups, "tensor": {()}, "none": set()}
    sizes = {"tile": (128, 128), "group": size}
    for granularity, scales in wanted.items():
        if not elements and granularity in ("channel", "tensor"):
            continue
        scaling = Scaling(granularity, sizes.get(granularity))
        assert scaled_bytes(fp32, scaling, shape) == codes + 4 * len(scales), granularity


# --- bad input -----------------------------------------------------------------------------------------------------------


def one_step(gradient, shape=(4,), optimizer=SGD, **arguments):
    p = nn.Parameter(torch.ones(shape))
    made = optimizer([p], lr=1.0, **arguments)
    p.grad = torch.full(shape, float(gradient))
    made.step()
    return p, made


@pytest.mark.parametrize(
    ("arguments", "gradient", "text"),
    [
        (
            {"master_weight": "fp16"},
            -1e6,
            "weight of parameter 0: 1e+06 is beyond 65504, the largest of 'fp16'; expected a wider",
        ),
        (
            {"master_weight": "int8"},
            float("nan"),
            "weight of parameter 0: 'int8' cannot hold it; expected finite values, got nan",
        ),
        (
            {"momentum": 0.9, "state": "int8"},
            float("inf"),
            "state momentum_buffer of parameter 0: 'int8' cannot hold it; expected",
        ),
        (
            {"momentum": 0.9, "state": "uint8"},
            -1.0,
            "state momentum_buffer of parameter 0: 'uint8' has no negative values, got -1",
        ),
        (
            {"momentum": 0.9, "state": Storage("fp16", scaling=Scaling("none"))},
            1e5,
            "state momentum_buffer of parameter 0: 100000 is",
        ),
    ],
)
def test_what_a_format_cannot_hold_is_an_error(arguments, gradient, text):
    with raises(text):
        one_step(gradient, **arguments)


def test_a_failed_step_leaves_weight_and_state():
    p, optimizer = one_step(1.0, momentum=0.9, state="int8")
    before = p.detach().clone(), optimizer.state[p]["momentum_buffer"].clone(), optimizer.state[p]["step"]
    p.grad = torch.full((4,), math.nan)
    with raises("state momentum_buffer"):
        optimizer.step()
    assert torch.equal(p, before[0])
    assert torch.equal(optimizer.state[p]["momentum_buffer"], before[1])
    assert optimizer.state[p]["step"] == before[2]


def test_ieee_formats_carry_nan_as_torch_does():
    p, _ = one_step(math.nan, recipe="bf16_pure")
    assert torch.isnan(p).all()


P = nn.Parameter(torch.ones(2, 2))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: SGD([P], lr=-1), "lr: expected a number ≥ 0, got -1"),
        (lambda: SGD([P], nesterov=True), "nesterov: needs momentum > 0, got 0"),
        (lambda: Adam([P], betas=(0.9, 1.0)), "betas[1]: expected a number from 0 to below 1, got 1.0"),
        (lambda: Adam([P], betas=0.9), "betas: expected two numbers, got 0.9"),
        (lambda: Shampoo([P], eps=0), "eps: expected a number > 0"),
        (lambda: Adam([P], state={"exp_avgs": "bf16"}), "state: unknown name 'exp_avgs'; did you mean 'exp_avg'"),
        (lambda: Adam([P], state="bf61"), "format: unknown name 'bf61'; did you mean 'bf16'"),
        (lambda: Adam([P], state="fp64"), "state: steps are computed in FP32, which cannot hold 'fp64'"),
        (lambda: Adam([P], recipe="bf16_pure_sr"), "seed: stochastic rounding of master_weight needs one: an integer"),
        (lambda: Adam([P], recipe="bf16_pure_sr", seed=-1), "seed: expected an integer from 0 to 2^64 − 1, got -1"),
        (
            lambda: SGD([nn.Parameter(torch.ones(2).bfloat16())]),
            "params: parameter 0 holds the master weight; expected float32, got torch.bfloat16",
        ),
        (
            lambda: SGD([P], recipe=get_recipe("bf16_pure").excepting("a", weight="fp32")),
            "params: the recipe has overrides by module; expected module.named_parameters()",
        ),
        (
            lambda: SGD([("module.a.w", P)], recipe=get_recipe("bf16_pure").excepting("a", weight="fp32")),
            "params: no override of the recipe matches their modules; expected emulation.module.named_parameters()",
        ),
        (
            lambda: SGD([P], recipe=Recipe("r", {"weight": "bf16", "activation": "bf16"}, first_and_last={"weight": "fp32"})),
            "recipe: first_and_last names no modules yet",
        ),
        (lambda: Storage("int8", scaling=Scaling("tile", (2, 2))), "scaling: stored tensors have one scale a tensor, channel or"),
        (lambda: Storage("int8", scaling=Scaling("tensor", update="delayed")), "scaling: stored tensors are scaled by their own"),
        (
            lambda: Storage("mxint8", scaling=Scaling("tensor")),
            "scaling: 'mxint8' finds its blocks' scales itself; expected 'none'",
        ),
        (lambda: Storage("int8", "nearest"), "rounding: unknown name 'nearest'"),
        (lambda: dynamic_format(2), "bits: a dynamic format takes 3 to 12, got 2"),
    ],
)
def test_bad_input_is_named(make, text):
    with raises(text):
        make()


def test_a_sparse_gradient_is_an_error():
    table = nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with raises("gradient of parameter 'weight': expected a dense tensor, got a sparse one"):
        SGD(table.named_parameters()).step()
