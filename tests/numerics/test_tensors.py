"""Torch tensors: the torch operations (as a GPU runs them) against numpy's kernels, bit for bit; and what a tensor adds."""

import numpy as np
import pytest
import torch
from float_strata import assert_same_floats, fp32_strata

from numerics import BlockFormat, CodebookFormat, FloatFormat, InputError, IntFormat, decode, encode, get_format, quantize
from numerics import _tensors as tensors
from numerics.quantizer import Request, check_scale, make_draw
from numerics.rounding import ROUNDINGS

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
FORMATS = [
    *map(get_format, ("e4m3fn", "e5m2", "e4m3fnuz", "e3m4", "e2m1fn", "fp16", "bf16", "tf32", "fp32", "e8m0fnu", "e8m13")),
    *map(get_format, ("int8", "uint4", "int5_symmetric", "q4.12", "nf4", "ternary")),
    *map(get_format, ("mxfp4", "mxfp8_e5m2", "mxint8", "nvfp4")),
    FloatFormat("flushing", 4, 3, subnormals=False),
    FloatFormat("unsigned", 4, 4, signed=False),
    BlockFormat("int8_fp32", IntFormat("i8", 8), 8, get_format("fp32"), scale_rounding="nearest"),
    BlockFormat("up", get_format("e4m3fn"), 16, get_format("e8m0fnu"), scale_rounding="up"),
]


def inputs(fmt, dtype):
    rng = np.random.default_rng(0)
    strata = fp32_strata(13)
    x = np.concatenate([strata[~np.isnan(strata)].astype(dtype), rng.normal(0, 2, 1 << 13).astype(dtype)])
    x = rng.permutation(x)[: 1 << 13].reshape(-1, 64)
    if isinstance(fmt, BlockFormat):
        x[np.isinf(x)] = 1
        x[3], x[5, 7], x[6, 8] = 0, np.nan, np.inf
        x = np.where(np.abs(x) > 1e30, 1, x).astype(dtype)
        x[6, 8] = np.inf
    return x


def by_torch(x, fmt, scale, axis, **options):
    """Through the operations that a GPU runs, whatever the device."""
    request = Request.check(fmt, options.get("rounding", "nearest_even"), options.get("overflow"))
    draw = make_draw(request.rounding, options.get("seed"), options.get("random_bits", 32), x.shape)
    results = []
    for device in DEVICES:
        source = torch.from_numpy(x).to(device)
        out = torch.empty_like(source)
        tensors.convert(source, out, request, check_scale(scale, fmt, x.shape, x.dtype), axis, draw)
        results.append(out.cpu().numpy())
    for other in results[1:]:
        assert_same_floats(other, results[0], x, fmt.name)
    return results[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("fmt", FORMATS, ids=lambda f: f.name)
def test_torch_operations_give_the_bits_of_the_kernels(fmt, rounding, dtype):
    if isinstance(fmt, CodebookFormat) and rounding in ("to_odd", "stochastic"):
        with pytest.raises(InputError, match=r"^rounding: a codebook has no"):
            quantize(torch.zeros(2), fmt, rounding=rounding)
        return
    x = inputs(fmt, dtype)
    seed = {"seed": 11} if rounding == "stochastic" else {}
    overflows = [None, "saturate", "torch", "ml_dtypes"] if isinstance(fmt, FloatFormat) else [None]
    for overflow in overflows:
        options = {"rounding": rounding, "overflow": overflow, **seed}
        for axis in (-1, 0) if isinstance(fmt, BlockFormat) else (-1,):
            assert_same_floats(by_torch(x, fmt, None, axis, **options), quantize(x, fmt, axis=axis, **options), x, fmt.name)
    if not isinstance(fmt, BlockFormat):
        for scale in (0.37, np.linspace(0.1, 2, 64).astype(dtype)):
            with np.errstate(over="ignore"):
                expected = quantize(x, fmt, rounding=rounding, scale=scale, **seed)
            assert_same_floats(by_torch(x, fmt, scale, -1, rounding=rounding, **seed), expected, x, fmt.name)


def test_torch_operations_take_random_words():
    x = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    words = np.random.default_rng(1).integers(0, 256, x.shape)
    for name, axis in (("e4m3fn", -1), ("mxfp4", -1), ("nvfp4", 1)):
        options = {"rounding": "stochastic", "seed": words, "random_bits": 8}
        expected = quantize(x, name, axis=axis, **options)
        np.testing.assert_array_equal(by_torch(x, get_format(name), None, axis, **options), expected)
        tensor = quantize(torch.from_numpy(x), name, axis=axis, **(options | {"seed": torch.from_numpy(words)}))
        np.testing.assert_array_equal(tensor.numpy(), expected)


@pytest.mark.parametrize("name", ["e4m3fn", "e5m2", "e4m3fnuz", "e2m1fn", "bf16", "fp16", "e8m0fnu", "e3m4"])
def test_codes_of_values_by_torch_operations(name):
    x = inputs(get_format(name), np.float32)
    request = Request.check(name, "nearest_even", None)
    values = quantize(torch.from_numpy(x), name)
    found = tensors._codes_of_values(values, request).numpy()
    np.testing.assert_array_equal(found, encode(x, name))


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda f: f.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_a_tensor_comes_back_as_it_was(fmt, dtype):
    x = torch.from_numpy(np.random.default_rng(0).normal(0, 1, (64, 64))).abs().to(dtype)
    if dtype in (torch.float16, torch.bfloat16):
        # Values of which a half-precision tensor holds the result in every format.
        x = torch.full_like(x, 1.0 if fmt.name in ("nf4", "ternary") else 0.5)
        if fmt.name == "nvfp4":
            return  # an FP32 scale leaves none
    expected = quantize(x.double().numpy() if dtype == torch.float64 else x.float().numpy(), fmt)
    result = quantize(x, fmt)
    assert (result.dtype, result.shape, result.device) == (dtype, x.shape, x.device)
    np.testing.assert_array_equal(result.double().numpy(), expected.astype(np.float64))
    np.testing.assert_array_equal(quantize(x.t(), fmt, axis=0).double().numpy(), expected.T.astype(np.float64))
    out = torch.empty_like(x)
    assert quantize(x, fmt, out=out) is out
    assert torch.equal(out, result)


def test_gradients_pass_straight_through():
    x = torch.randn(4, 32, requires_grad=True)
    for name in ("e4m3fn", "mxfp4"):
        x.grad = None
        result = quantize(x, name)
        result.backward(torch.arange(128.0).reshape(4, 32))
        assert torch.equal(x.grad, torch.arange(128.0).reshape(4, 32))
        assert torch.equal(result, quantize(x.detach(), name))
    with torch.no_grad():
        assert not quantize(x, "e4m3fn").requires_grad


@pytest.mark.parametrize("name", ["e4m3fn", "int8", "nf4", "fp16", "mxfp4", "nvfp4", "fp32"])
def test_codes_of_tensors_are_tensors(name):
    x = np.random.default_rng(0).normal(0, 1, (4, 64)).astype(np.float32)
    ours, theirs = encode(torch.from_numpy(x), name), encode(x, name)
    if isinstance(get_format(name), BlockFormat):
        np.testing.assert_array_equal(ours.scales.numpy(), theirs.scales)
        np.testing.assert_array_equal(ours.codes.numpy(), theirs.codes)
        values = decode(ours)
    else:
        np.testing.assert_array_equal(ours.numpy(), theirs)
        values = decode(ours, name)
    assert isinstance(values, torch.Tensor)
    np.testing.assert_array_equal(values.numpy(), quantize(x, name))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: quantize(torch.zeros(2, dtype=torch.int8), "e4m3fn"), "x: expected 16-, 32- or 64-bit floats, got torch.int8"),
        (lambda: quantize(torch.zeros(2), "e4m3fn", out=np.zeros(2)), "out: expected a torch tensor, got ndarray"),
        (lambda: quantize(torch.zeros(2), "e4m3fn", out=torch.zeros(3)), "out: expected shape (2,), got (3,)"),
        (
            lambda: quantize(torch.tensor([1.0, 1e5]).bfloat16(), "e4m3fn", scale=1e3, out=torch.zeros(2).half()),
            "out: torch.float16 cannot hold the result in 'e4m3fn'; expected a type with more bits",
        ),
        (lambda: quantize(torch.tensor([np.nan]), "int8"), "x: holds a NaN, and 'int8' has none; expected numbers"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value) == message


# --- autograd and shared memory -------------------------------------------------------------------------------------------------


def test_an_out_that_overlaps_x_gets_the_right_values():
    x = torch.tensor([1.0, 2, 3, 4, 5])
    quantize(x[:-1], "e4m3fn", out=x[1:])
    assert x.tolist() == [1, 1, 2, 3, 4]


def test_autograd_sees_that_out_was_written():
    w = torch.ones(3, requires_grad=True)
    h = w * 2
    loss = (h * h).sum()
    with torch.no_grad():
        quantize(h * 2.6, "e4m3fn", out=h)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_an_out_too_narrow_for_a_finite_value_is_refused():
    out = torch.zeros(1, dtype=torch.float16)
    with pytest.raises(
        InputError, match=r"^out: torch\.float16 cannot hold the result in 'fp32'; expected a type with more bits$"
    ):
        quantize(torch.tensor([3.4028235e38]), "fp32", out=out)
    assert out.item() == 0


def test_gradients_pass_straight_through_or_not_at_all():
    x = torch.tensor([0.3, 1.1], requires_grad=True)
    (quantize(x, "e4m3fn") ** 2).sum().backward()
    assert x.grad.tolist() == [0.625, 2.25]
    assert torch.func.grad(lambda v: (quantize(v, "e4m3fn") ** 2).sum())(x.detach()).tolist() == [0.625, 2.25]
    with pytest.raises(InputError, match=r"^out: x requires a gradient, which out would not carry; leave out out, or detach x$"):
        quantize(x, "e4m3fn", out=torch.zeros(2))
    with pytest.raises(
        InputError, match=r"^scale: it requires a gradient, which quantize does not pass; expected a detached tensor$"
    ):
        quantize(x, "int8", scale=torch.tensor(1.0, requires_grad=True))
