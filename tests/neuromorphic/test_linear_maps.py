"""Linear operators against torch's, delays against sums written out element by element."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from neuromorphic.linear_maps import LinearMap, Signal, convolution, dense, flatten, pooling, scale
from numerics.errors import InputError


def applied(linear, x):
    """The map of one input, in its shape."""
    flat = x.ravel()
    y = flat if linear.matrix is None else linear.matrix @ flat
    return (y if linear.offset is None else y + linear.offset).reshape(linear.shape)


def same(linear, x, expected):
    np.testing.assert_allclose(applied(linear, x), expected[0].numpy(), rtol=0, atol=1e-12)
    # The synapses are the same matrix, by source.
    matrix = np.eye(x.size) if linear.matrix is None else linear.matrix.toarray()
    np.testing.assert_array_equal(linear.synapses().dense(matrix.shape[0]), matrix)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_convolutions_equal_torch(data):
    rank = data.draw(st.integers(1, 2))
    numbers = st.integers(1, 3)
    groups, inner, outer = data.draw(numbers), data.draw(numbers), data.draw(numbers)
    kernel = data.draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank))
    dilation = data.draw(st.lists(numbers, min_size=rank, max_size=rank))
    padding = data.draw(st.one_of(st.sampled_from(["same", "valid"]), st.lists(st.integers(0, 4), min_size=rank, max_size=rank)))
    stride = [1] * rank if padding == "same" else data.draw(st.lists(numbers, min_size=rank, max_size=rank))
    size = [data.draw(st.integers(d * (k - 1) + 1, d * (k - 1) + 6)) for k, d in zip(kernel, dilation, strict=True)]
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    weight, bias = rng.normal(size=(groups * outer, inner, *kernel)), rng.normal(size=groups * outer)
    x = rng.normal(size=(groups * inner, *size))
    linear = convolution(weight, x.shape, bias=bias, stride=stride, padding=padding, dilation=dilation, groups=groups)
    of_torch = functional.conv1d if rank == 1 else functional.conv2d
    expected = of_torch(
        torch.tensor(x)[None], torch.tensor(weight), torch.tensor(bias), stride=stride,
        padding=padding if isinstance(padding, str) else tuple(padding), dilation=dilation, groups=groups,
    )  # fmt: skip
    same(linear, x, expected)
    assert linear.synapses().stored == min(weight.size, linear.matrix.nnz)
    assert linear.nests[0]["output_size"] == linear.shape[1:]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_pools_equal_torch(data):
    kernel = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    size = [data.draw(st.integers(k, k + 6)) for k in kernel]
    x = np.random.default_rng(0).normal(size=(2, *size))
    expected = functional.avg_pool2d(torch.tensor(x)[None], kernel, stride, padding)
    same(pooling(x.shape, kernel=kernel, stride=stride, padding=padding, average=True), x, expected)
    sums = pooling(x.shape, kernel=kernel, stride=stride, padding=padding, average=False)
    same(sums, x, expected * kernel[0] * kernel[1])
    assert (sums.stored, sums.kind) == (1, "pooling")


def test_matrices_of_more_dimensions_are_one_each():
    rng = np.random.default_rng(1)
    weight, bias, x = rng.normal(size=(3, 2, 4, 5)), rng.normal(size=(3, 2, 4)), rng.normal(size=(3, 2, 5))
    linear = dense(weight, bias)
    np.testing.assert_allclose(applied(linear, x), np.einsum("abij,abj->abi", weight, x) + bias, atol=1e-12)
    assert (linear.shape, linear.nests) == ((3, 2, 4), ({"kind": "matmul", "batch": 6, "m": 1, "n": 4, "k": 5},))


def test_a_chain_is_its_operators_one_after_another():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, 12, 11))
    first = convolution(rng.normal(size=(4, 2, 3, 3)), x.shape, bias=rng.normal(size=4), padding=1)
    steps = [first, scale(rng.normal(size=(4, 12, 11)), first.shape), pooling(first.shape, kernel=3, stride=2, average=True)]
    steps.append(flatten(steps[-1].shape))
    steps.append(dense(rng.normal(size=(6, steps[-1].shape[0])), rng.normal(size=6)))
    chain, y = LinearMap(None, None, x.shape), x
    for step in steps:
        chain, y = step.after(chain), applied(step, y.reshape(-1))
    np.testing.assert_allclose(applied(chain, x), y, atol=1e-12)
    assert [nest["kind"] for nest in chain.nests] == ["convolution", "sum", "matmul"]


@pytest.mark.parametrize(
    ("start", "end", "shape"), [(0, -1, (24,)), (1, -1, (2, 12)), (0, 1, (6, 4)), (-2, -1, (2, 12)), (1, 1, (2, 3, 4))]
)
def test_flatten_equals_torch(start, end, shape):
    assert flatten((2, 3, 4), start=start, end=end).shape == shape == tuple(torch.zeros(2, 3, 4).flatten(start, end).shape)


def test_what_a_machine_that_shares_weights_stores():
    kernel = np.arange(1.0, 19).reshape(2, 1, 3, 3)
    conv = convolution(kernel, (1, 8, 8), padding=1)
    assert (conv.stored, conv.kind) == (18, "convolution")
    # Windows side by side before the kernel: every weight is one of the kernel's, four times each.
    small = convolution(kernel, (1, 4, 4), padding=1)
    pooled = small.after(pooling((1, 8, 8), kernel=2, stride=2, average=False))
    assert (pooled.stored, pooled.kind, pooled.matrix.nnz) == (18, "convolution", 4 * small.matrix.nnz)
    # A factor a channel makes other weights, a factor an element many.
    assert scale(np.repeat([2.0, 3.0], 64), (2, 8, 8)).after(conv).stored == len(
        {*(kernel[0].ravel() * 2), *(kernel[1].ravel() * 3)}
    )
    assert scale(np.linspace(1, 2, 128), (2, 8, 8)).after(conv).stored > 500
    classes = dense(np.ones((3, 16)))
    assert (classes.stored, classes.synapses().stored) == (None, 48)
    mixed = classes.after(pooling((1, 8, 8), kernel=2, stride=2, average=False))
    assert (mixed.kind, mixed.synapses().stored) == ("sparse", 3 * 64)


def test_weights_of_zero_stay():
    assert dense(np.zeros((3, 4))).synapses().count == 12
    assert convolution(np.zeros((1, 1, 3, 3)), (1, 5, 5)).synapses().count == 81
    double = Signal.of("a", (4,)).through(dense(np.zeros((3, 4)))).plus(Signal.of("a", (4,)).through(dense(np.zeros((3, 4)))))
    ((_, _, synapses, _),) = double.projections()
    assert synapses.count == 12


# --- delays -----------------------------------------------------------------------------------------------------------------


def played(signal, sent, steps):
    """The signal at each step, from its projections."""
    size = int(np.prod(signal.shape))
    found = np.zeros((steps, size)) + (0 if signal.offset is None else signal.offset)
    for source, delay, synapses, _ in signal.projections():
        delays = np.broadcast_to(np.asarray(delay), synapses.sources)
        matrix = synapses.dense(size)
        for t in range(steps):
            for s in range(synapses.sources):
                if t >= delays[s]:
                    found[t] += matrix[:, s] * sent[source][t - delays[s], s]
    return found


def late(values, delays):
    """Each column so many steps later."""
    found = np.zeros_like(values)
    for column, delay in enumerate(np.broadcast_to(delays, values.shape[1])):
        found[delay:, column] = values[: len(values) - delay, column]
    return found


@settings(max_examples=40, deadline=None)
@given(
    first=st.lists(st.integers(0, 3), min_size=4, max_size=4),
    second=st.lists(st.integers(0, 3), min_size=3, max_size=3),
    third=st.lists(st.integers(0, 2), min_size=2, max_size=2),
    recurrent=st.booleans(),
)
def test_delays_among_matrices_are_exact(first, second, third, recurrent):
    rng = np.random.default_rng(3)
    steps = 14
    sent = {name: rng.normal(size=(steps, 4)) for name in "ab"}
    one, two = rng.normal(size=(3, 4)), rng.normal(size=(2, 3))
    signal = Signal.of("a", (4,)).delayed(first)
    expected = late(sent["a"], first)
    if recurrent:
        signal = signal.plus(Signal.of("b", (4,)).plus(Signal.of("a", (4,))))
        expected = expected + sent["b"] + sent["a"]
    signal = signal.through(dense(one)).delayed(second).through(dense(two, [0.5, -1.0])).delayed(third)
    expected = late(late(expected @ one.T, second) @ two.T, third) + np.array([0.5, -1.0])
    np.testing.assert_allclose(played(signal, sent, steps), expected, atol=1e-12)


def test_a_delay_a_source_stays_one_projection_and_one_behind_a_matrix_does_not():
    before = Signal.of("a", (3,)).delayed([4, 0, 4]).through(dense(np.ones((2, 3))))
    ((source, delay, synapses, nests),) = before.projections()
    assert (source, delay.tolist(), synapses.count, synapses.kind, synapses.stored) == ("a", [4, 0, 4], 6, "dense", 6)
    assert nests == ({"kind": "matmul", "batch": 1, "m": 1, "n": 2, "k": 3},)
    behind = Signal.of("a", (3,)).through(dense(np.ones((2, 3)))).delayed([1, 2])
    assert [(delay, synapses.count, nests) for _, delay, synapses, nests in behind.projections()] == [(1, 3, None), (2, 3, None)]
    ((_, delay, synapses, _),) = Signal.of("a", (3,)).delayed(5).projections()
    assert (delay, synapses.count) == (5, 3)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: dense([1.0, 2.0]), "weight: expected shape (outputs, inputs), got (2,)"),
        (lambda: dense([[np.nan]]), "weight: expected finite numbers"),
        (lambda: dense(np.ones((2, 3)), np.ones(3)), "bias: expected shape (2,), got (3,)"),
        (lambda: dense(np.ones((2, 3))).after(LinearMap(None, None, (4,))), "takes 3 elements, but gets shape (4,)"),
        (lambda: scale(np.ones(3), (2, 2)), "scale: expected shape (2, 2), got (3,)"),
        (lambda: flatten((2, 3), start=1, end=0), "start_dim, end_dim: expected dimensions of shape (2, 3) in order, got 1, 0"),
        (lambda: convolution(np.ones((2, 1, 3, 3)), (2, 8, 8)), "weight (2, 1, 3, 3) in 1 groups takes shape (1, h, w), got"),
        (lambda: convolution(np.ones((1, 1, 3)), (1, 2)), "a kernel of 3 with dilation 1 does not fit into 2 elements and 0 + 0"),
        (lambda: convolution(np.ones((1, 1, 3)), (1, 9), stride=0), "stride: expected an integer ≥ 1, got 0"),
        (lambda: convolution(np.ones((1, 1, 3)), (1, 9), padding=2.5), "padding: expected an integer ≥ 0, got 2.5"),
        (lambda: convolution(np.ones((1, 1, 3)), (1, 9), padding="full"), "padding: expected integers, 'same' or 'valid', got"),
        (lambda: convolution(np.ones((1, 1, 3)), (1, 9), padding="same", stride=2), "padding: 'same' needs stride 1, got (2,)"),
        (lambda: convolution(np.ones((3, 1, 1)), (2, 9), groups=2), "groups: expected a divisor of 3 outputs, got 2"),
        (lambda: convolution(np.ones((1, 1, 2)), (1, 9), padding=2**30), "places that a kernel reads are more than fit"),
        (lambda: pooling((4, 4), kernel=2, stride=2, average=True), "pooling takes shape (channels, height, width), got (4, 4)"),
        (lambda: pooling((1, 4, 4), kernel=2, stride=2, padding=2, average=True), "padding: expected at most half of"),
        (lambda: Signal.of("a", (3,)).delayed([1, 2]), "delay: expected shape (3,), got (2,)"),
        (lambda: Signal.of("a", (3,)).plus(Signal.of("b", (2,))), "adds shapes (3,) and (2,)"),
    ],
)  # fmt: skip
def test_errors(make, text):
    with pytest.raises(InputError) as raised:
        make()
    assert text in str(raised.value)
