"""Sums of products: every order, rounding and format against fractions, tensor cores against fractions and MMA-Sim's results."""

import math
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from product_reference import (
    Chances,
    Nearest,
    Rounder,
    Truncating,
    block_scaled_dot,
    exact_product,
    exact_sum,
    fused_dot,
    kahan_dot,
    rounded_dot,
)

import numerics
from numerics.accumulator import Accumulator, Promotion, accumulator_names, get_accumulator
from numerics.errors import InputError
from numerics.formats import FloatFormat, get_format
from numerics.products import conv2d, dot, matmul

DATA = Path(__file__).parent / "data"
FP32 = get_format("fp32")
MODES = ["nearest_even", "nearest_away", "toward_zero", "up", "down", "to_odd", "stochastic"]


def values_of(fmt, rng, shape, kind):
    """Values that a format has, of a kind that hurts."""
    if kind == "gaussian":
        x = rng.standard_normal(shape)
    elif kind == "spread":
        x = rng.standard_normal(shape) * 2.0 ** rng.integers(max(fmt.emin, -60) // 2, min(fmt.emax, 60) // 2, shape)
    elif kind == "subnormal":
        x = rng.integers(-9, 10, shape) * fmt.smallest_subnormal * 2.0 ** rng.integers(0, 4, shape)
    elif kind == "cancelling":
        x = np.sign(rng.standard_normal(shape)) * rng.choice([1.0, 1.5, 1 + fmt.eps, 2.0**6], shape)
    elif kind == "huge":
        x = rng.standard_normal(shape) * fmt.max / 4
    elif kind == "tiny_and_huge":
        x = rng.choice([fmt.max, -fmt.max, fmt.smallest_subnormal, -fmt.smallest_normal, 0.0, -0.0, 1.0], shape)
    else:
        x = rng.choice([np.inf, -np.inf, np.nan, 0.0, 1.0, -2.0, 0.5], shape, p=[0.02, 0.02, 0.01, 0.2, 0.25, 0.25, 0.25])
        if not fmt.has_inf:
            x = np.where(np.isinf(x), np.nan if fmt.has_nan else 1.0, x)
        if not fmt.has_nan:
            x = np.where(np.isnan(x), 1.0, x)
    return numerics.quantize(x.astype(np.float64), fmt, overflow="saturate" if kind != "special" else None)


KINDS = ["gaussian", "spread", "subnormal", "cancelling", "huge", "tiny_and_huge", "special"]


def same_values(found, expected):
    """Equal numbers (−0 = +0), NaN as NaN."""
    return np.array_equal(np.asarray(found, np.float64), np.asarray(expected, np.float64), equal_nan=True)


def every(shape, function):
    return np.array([[function(i, j) for j in range(shape[1])] for i in range(shape[0])], np.float64)


# --- every addition rounded -----------------------------------------------------------------------------------------------

ORDERS = [("sequential", None), ("pairwise", None), ("tree", 4), ("tree", 7), ("systolic", 5), ("systolic", 16)]


def check_rounded(accumulator, a, b, bias, seed=None):
    fmt = get_format(accumulator.format)
    overflow = accumulator.overflow or "ieee"
    found = matmul(a, b, accumulator=accumulator, bias=bias, seed=seed)
    depth, shape = a.shape[1], (a.shape[0], b.shape[1])
    product = None if accumulator.product == "exact" else Rounder(get_format(accumulator.product))
    promotion = accumulator.promotion and (accumulator.promotion.interval, Rounder(get_format(accumulator.promotion.format)))

    def one(i, j):
        chances = None if seed is None else Chances(seed, (i * shape[1] + j) * (2 * depth + 2))
        r = Rounder(fmt, accumulator.rounding, overflow, chances)
        start = float(np.broadcast_to(bias, shape)[i, j])
        return rounded_dot(a[i].tolist(), b[:, j].tolist(), start, accumulator.order, accumulator.group, r, product, promotion)

    expected = every(shape, one)
    assert same_values(found, expected), (found, expected)


@pytest.mark.parametrize("rounding", MODES)
@pytest.mark.parametrize(("order", "group"), ORDERS)
def test_every_rounding_in_every_order(order, group, rounding):
    rng = np.random.default_rng(MODES.index(rounding))
    for name in ("bf16", "fp16", "fp32", "e8m13", "e5m2", "e5m9"):
        operand = get_format("bf16" if name in ("bf16", "fp32", "e8m13") else "e4m3fn")
        for kind in KINDS:
            a, b = values_of(operand, rng, (2, 19), kind), values_of(operand, rng, (19, 3), kind)
            accumulator = Accumulator(format=name, rounding=rounding, order=order, group=group)
            bias = values_of(get_format(name), rng, (3,), "gaussian")
            check_rounded(accumulator, a, b, bias, 7 if rounding == "stochastic" else None)


@settings(max_examples=60)
@given(
    st.integers(2, 8),
    st.integers(1, 12),
    st.sampled_from(["ieee", "max_is_nan", "negative_zero_is_nan"]),
    st.booleans(),
    st.sampled_from(MODES[:-1]),
    st.sampled_from(ORDERS),
    st.sampled_from(["saturate", "ieee"]),
    st.sampled_from(KINDS),
    st.integers(0, 10_000),
)
def test_formats_of_your_own(exponent_bits, mantissa_bits, specials, subnormals, rounding, order, overflow, kind, seed):
    fmt = FloatFormat("own", exponent_bits, mantissa_bits, specials=specials, subnormals=subnormals)
    rng = np.random.default_rng(seed)
    operand = get_format("bf16")
    a, b = values_of(operand, rng, (2, 9), kind), values_of(operand, rng, (9, 2), kind)
    # One compilation for all: how a sum is rounded is a parameter of the kernel, its mode is not.
    accumulator = Accumulator(format=fmt, rounding=rounding, order=order[0], group=order[1], overflow=overflow)
    check_rounded(accumulator, a, b, 0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_products_of_64_bit_floats(kind):
    rng = np.random.default_rng(3)
    fmt = FloatFormat("e11m25", 9, 25)
    a, b = values_of(fmt, rng, (3, 21), kind), values_of(fmt, rng, (21, 3), kind)
    for accumulator in (
        Accumulator(format="fp32"),
        Accumulator(format="fp16", order="pairwise"),
        Accumulator(format="e9m40", order="tree", group=8),
        Accumulator(format="fp32", product="bf16"),
        Accumulator(format="bf16", product="fp32", order="systolic", group=4),
    ):
        check_rounded(accumulator, a, b, 0.0)


def test_rounded_products_of_full_doubles():
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal((3, 12)), rng.standard_normal((12, 4))
    with pytest.raises(InputError, match="significant bits are not exact"):
        matmul(a, b, accumulator="bf16")
    check_rounded(Accumulator(format="bf16", product="bf16"), a, b, 0.0)
    check_rounded(Accumulator(format="fp64"), a, b, 0.0)


@pytest.mark.parametrize("wide", ["fp32", "fp16", "fp64"])
@pytest.mark.parametrize(("order", "group"), [("sequential", None), ("tree", 4), ("systolic", 2)])
def test_promotion(order, group, wide):
    rng = np.random.default_rng(5)
    a, b = values_of(get_format("e4m3fn"), rng, (3, 30), "spread"), values_of(get_format("e4m3fn"), rng, (30, 3), "gaussian")
    check_rounded(Accumulator(format="e5m4", order=order, group=group, promotion=Promotion(8, wide)), a, b, 0.5)


def test_kahan():
    rng = np.random.default_rng(6)
    fmt = get_format("bf16")
    for kind in KINDS[:4]:
        a, b = values_of(fmt, rng, (3, 40), kind), values_of(fmt, rng, (40, 4), kind)
        found = matmul(a, b, accumulator=Accumulator(format="bf16", compensated=True))
        r = Rounder(fmt)
        assert same_values(found, every((3, 4), lambda i, j, a=a, b=b, r=r: kahan_dot(a[i].tolist(), b[:, j].tolist(), 0.0, r)))
    ones = np.ones((1, 1000), np.float32)
    assert matmul(ones, ones.T, accumulator=Accumulator(format="bf16", compensated=True))[0, 0] == 1000


def test_double_rounding_would_be_wrong():
    # 1 + 2^-8 (a tie of bf16) + 2^-40: the exact sum lies above the tie; fp32 holds 1 + 2^-8 only.
    a = np.array([[1.0, 2.0**-8 + 2.0**-40]])
    assert matmul(a, np.ones((2, 1)), accumulator="bf16", bias=0.0)[0, 0] == 1 + 2.0**-7
    assert np.float32(1 + 2.0**-8 + 2.0**-40) == np.float32(1 + 2.0**-8)


def test_sum_rounded_once_at_the_end():
    rng = np.random.default_rng(8)
    for kind in KINDS:
        fmt = get_format("bf16")
        a, b = values_of(fmt, rng, (3, 40), kind), values_of(fmt, rng, (40, 3), kind)
        a[:, 20:], b[20:] = a[:, :20], -b[:20]
        for accumulator in (get_accumulator("exact"), Accumulator(format="fp16", order="exact", rounding="toward_zero")):
            found = matmul(a, b, accumulator=accumulator, bias=1.5)
            r = Rounder(get_format(accumulator.format), accumulator.rounding)

            def one(i, j, a=a, b=b, r=r):
                terms = [exact_product(x, y) for x, y in zip(a[i].tolist(), b[:, j].tolist(), strict=True)]
                return r.round(exact_sum([1.5, *terms]))

            assert same_values(found, every((3, 3), one))


# --- tensor cores ---------------------------------------------------------------------------------------------------------


def fused_names():
    return [n for n in accumulator_names() if get_accumulator(n).order == "fused" and get_accumulator(n).scale is None]


def store_of(accumulator):
    fmt = get_format(accumulator.format)
    return Truncating(fmt) if accumulator.rounding == "toward_zero" else Nearest(fmt)


def bits(x):
    return np.ascontiguousarray(x, np.float32).view(np.uint32)


@pytest.mark.parametrize("name", [n for n in fused_names() if n != "deepseek"])
def test_tensor_cores_on_what_hurts(name):
    accumulator = get_accumulator(name)
    fa, fb = get_format(accumulator.a_formats[0]), get_format(accumulator.b_formats[0])
    start_format = get_format("fp16" if accumulator.format == "fp16" else "fp32")
    rng = np.random.default_rng(sum(name.encode()))
    shape, depth = (2, 3), 2 * accumulator.group + 3
    for kind in KINDS:
        a, b = values_of(fa, rng, (shape[0], depth), kind), values_of(fb, rng, (depth, shape[1]), kind)
        for start in ("gaussian", kind):
            c = values_of(start_format, rng, shape, start).astype(np.float32)
            if kind == "cancelling":
                a[:, 1::2], b[1::2] = a[:, :-1:2], -b[:-1:2]
            found = matmul(a, b, accumulator=name, bias=c)
            expected = every(shape, lambda i, j, a=a, b=b, c=c: fused_dot(
                a[i].tolist(), b[:, j].tolist(), float(c[i, j]), fa, fb, store_of(accumulator), accumulator.fraction_bits,
                accumulator.group, start_format=start_format,
            )).astype(np.float32)  # fmt: skip
            expected.view(np.uint32)[np.isnan(expected)] = 0x7FFFFFFF
            assert np.array_equal(bits(found), bits(expected)), (kind, found, expected)


def test_vectors_of_mma_sim():
    vectors = np.load(DATA / "tensor_core_vectors.npz")
    cases = sorted({key.rsplit("/", 1)[0] for key in vectors})
    assert len(cases) == 32
    for case in cases:
        a, b, c, expected = (vectors[f"{case}/{part}"] for part in ("a", "b", "c", "d_bits"))
        name = case.partition("/")[0]
        found = matmul(a, b, accumulator=name, bias=c)
        half = get_accumulator(name).format == "fp16"
        assert np.array_equal(found.astype(np.float16).view(np.uint16) if half else bits(found), expected), case


def test_tf32_operands_are_truncated():
    a, b = np.float32([[1 + 2.0**-11, -1 - 2.0**-10 - 2.0**-12]]), np.eye(2, dtype=np.float32)
    assert matmul(a, b, accumulator="hopper.wgmma.tf32").tolist() == [[1.0, -1 - 2.0**-10]]


def test_promotion_of_a_tensor_core():
    rng = np.random.default_rng(9)
    fmt = get_format("e4m3fn")
    a, b = values_of(fmt, rng, (2, 300), "gaussian"), values_of(fmt, rng, (300, 3), "gaussian")
    wide = Rounder(FP32)

    def one(i, j):
        total = 0.25
        for k in range(0, 300, 128):
            part = slice(k, k + 128)
            short = fused_dot(a[i, part].tolist(), b[part, j].tolist(), 0.0, fmt, fmt, Truncating(get_format("e8m13")), 13, 32)
            total = wide.add(total, short)
        return total

    assert same_values(matmul(a, b, accumulator="deepseek", bias=0.25), every((2, 3), one))


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4"])
def test_block_scaled_fp4(name):
    rng = np.random.default_rng(10)
    block = get_format(name).block_size
    e2m1, scale_format = get_format("e2m1fn"), get_format(name).scale
    accumulator = "blackwell.tcgen05.k64." + name.replace("fp4", "f4")
    for kind in ("gaussian", "spread", "zeros", "special"):
        a, b = (numerics.quantize(rng.standard_normal(s) * 3, e2m1).astype(np.float32) for s in ((3, 192), (192, 4)))
        sa, sb = rng.standard_normal((3, 192 // block)), rng.standard_normal((192 // block, 4))
        if kind != "gaussian":
            sa, sb = (np.abs(s) * 2.0 ** rng.integers(-8, 7, s.shape) for s in (sa, sb))
        sa, sb = (np.abs(numerics.quantize(np.abs(s) + (name == "mxfp4") * 1e-9, scale_format)) for s in (sa, sb))
        if kind == "zeros":
            a[0], b[:64, 1] = 0, 0
            a[1, 1::2], b[1::2] = a[1, ::2], -b[::2]
            sa[2, :2] = 0 if name == "nvfp4" else 2.0**-127
        if kind == "special":
            sa[1, 1] = np.nan
        c = rng.standard_normal((3, 4)).astype(np.float32)
        c[0, 0] = np.inf if kind == "special" else 2.0**-140
        found = matmul(a, b, accumulator=accumulator, bias=c, a_scales=sa, b_scales=sb)
        expected = every((3, 4), lambda i, j, a=a, b=b, c=c, sa=sa, sb=sb: block_scaled_dot(
            a[i].tolist(), b[:, j].tolist(), float(c[i, j]), sa[i].tolist(), sb[:, j].tolist(), scale_format, FP32, block,
            Truncating(FP32),
        )).astype(np.float32)  # fmt: skip
        expected.view(np.uint32)[np.isnan(expected)] = 0x7FFFFFFF
        assert np.array_equal(bits(found), bits(expected)), kind


@pytest.mark.parametrize(
    ("a_name", "b_name"), [("mxfp8_e4m3", "mxfp8_e5m2"), ("mxfp6_e2m3", "mxfp4"), ("mxfp6_e3m2", "mxfp8_e4m3")]
)
def test_block_scaled_fp8(a_name, b_name):
    rng = np.random.default_rng(11)
    x = rng.standard_normal((3, 96)).astype(np.float32) * np.float32(2.0) ** rng.integers(-30, 30, (3, 96))
    y = rng.standard_normal((96, 2)).astype(np.float32) * np.float32(2.0) ** rng.integers(-30, 30, (96, 2))
    a, b = numerics.encode(x, a_name), numerics.encode(y, b_name, axis=0)
    found = matmul(a, b, accumulator="blackwell.tcgen05.mxf8f6f4")
    fa, fb = get_format(a_name).element, get_format(b_name).element
    va, vb = numerics.decode(a.codes, fa), numerics.decode(b.codes, fb)
    sa = np.repeat(numerics.decode(a.scales, "e8m0fnu", dtype=np.float64), 32, axis=1)
    sb = np.repeat(numerics.decode(b.scales, "e8m0fnu", dtype=np.float64), 32, axis=1)
    expected = every((3, 2), lambda i, j: fused_dot(
        va[i].tolist(), vb[:, j].tolist(), 0.0, fa, fb, Truncating(FP32), 25, 32, sa[i].tolist(), sb[j].tolist(), FP32
    ))  # fmt: skip
    assert np.array_equal(bits(found), bits(expected))


def test_codes_and_values_with_scales_are_the_same():
    rng = np.random.default_rng(12)
    x, y = rng.standard_normal((5, 128)).astype(np.float32), rng.standard_normal((128, 3)).astype(np.float32)
    for name, accumulator in (("mxfp4", "mxf4"), ("mxfp8_e4m3", "mxf8f6f4.e4m3")):
        a, b = numerics.encode(x, name), numerics.encode(y, name, axis=0, packed=True)
        whole = numerics.encode(y, name, axis=0)
        element = get_format(name).element
        name = f"blackwell.tcgen05.{accumulator}.f32"
        by_codes = matmul(a, b, accumulator=name)
        by_values = matmul(
            numerics.decode(a.codes, element), numerics.decode(whole.codes, element), accumulator=name,
            a_scales=numerics.decode(a.scales, "e8m0fnu"), b_scales=numerics.decode(whole.scales, "e8m0fnu").T,
        )  # fmt: skip
        assert np.array_equal(bits(by_codes), bits(by_values))
        assert np.allclose(by_codes, numerics.decode(a) @ numerics.decode(whole), rtol=1e-5, atol=1e-4)


def test_nvfp4_scales_the_tensor_after_the_sum():
    rng = np.random.default_rng(13)
    a = numerics.encode(rng.standard_normal((4, 64)).astype(np.float32), "nvfp4")
    b = numerics.encode(rng.standard_normal((64, 4)).astype(np.float32), "nvfp4", axis=0)
    found = matmul(a, b, accumulator="blackwell.tcgen05.nvf4")
    assert np.allclose(found, numerics.decode(a) @ numerics.decode(b), rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="bias: operands with a scale for the tensor"):
        matmul(a, b, accumulator="blackwell.tcgen05.nvf4", bias=1.0)


# --- integers -------------------------------------------------------------------------------------------------------------


def test_int8_to_int32_is_exact():
    rng = np.random.default_rng(14)
    for depth in (1, 7, 1024, 5000):
        a, b = rng.integers(-128, 128, (5, depth), np.int8), rng.integers(-128, 128, (depth, 40), np.int8)
        found = matmul(a, b, accumulator="int32", bias=np.int32(-5))
        assert found.dtype == np.int32
        assert np.array_equal(found, a.astype(np.int64) @ b.astype(np.int64) - 5)
        assert np.array_equal(matmul(a, b, accumulator="int32_saturate"), a.astype(np.int64) @ b.astype(np.int64))


def integer_reference(terms, order, group, width, saturate):
    low, high = -(1 << (width - 1)), (1 << (width - 1)) - 1

    def add(x, y):
        return min(max(x + y, low), high) if saturate else (x + y - low) % (1 << width) + low

    def chain(parts):
        total = 0
        for p in parts:
            total = add(total, p)
        return total

    def fold(parts):
        if len(parts) == 1:
            return parts[0]
        half = 1 << (len(parts) - 1).bit_length() - 1
        return add(fold(parts[:half]), fold(parts[half:]))

    if order == "sequential":
        return chain(terms)
    size = group or len(terms)
    groups = [terms[i : i + size] for i in range(0, len(terms), size)]
    return chain([fold(g) if order in ("tree", "pairwise") else chain(g) for g in groups])


@pytest.mark.parametrize("overflow", ["wrap", "saturate"])
@pytest.mark.parametrize(("order", "group"), ORDERS)
@pytest.mark.parametrize("width", [9, 16, 24, 32])
def test_narrow_integers(width, order, group, overflow):
    rng = np.random.default_rng(width)
    scale = 1 << max(4, width // 2)
    a, b = rng.integers(-scale, scale, (4, 23)), rng.integers(-scale, scale, (23, 3))
    fmt = numerics.IntFormat(f"int{width}", width)
    found = matmul(a, b, accumulator=Accumulator(format=fmt, order=order, group=group, overflow=overflow))
    expected = every((4, 3), lambda i, j: integer_reference(
        [int(x) * int(y) for x, y in zip(a[i], b[:, j], strict=True)], order, group, width, overflow == "saturate"
    ))  # fmt: skip
    assert np.array_equal(found, expected)


def test_wide_integers_wrap():
    a = np.full((1, 9), 2**30 + 1)
    found = matmul(a, a.T, accumulator=Accumulator(format="int32"))
    assert found[0, 0] == (9 * (2**30 + 1) ** 2 + 2**31) % 2**32 - 2**31


# --- what is known --------------------------------------------------------------------------------------------------------


def test_a_thousand_ones():
    ones = np.ones(1000, np.float32)
    assert dot(ones, ones, accumulator="bf16") == 256
    assert dot(ones, ones, accumulator="fp32") == 1000
    stochastic = Accumulator(format="bf16", rounding="stochastic")
    means = matmul(np.ones((1, 1000)), np.ones((1000, 400)), accumulator=stochastic, seed=1).mean()
    assert 980 < means < 1020


def test_deepseek_figures():
    """SYSTEMS: E4M3 Gaussian GEMM 3.75 %, BF16 0.234 %; 14-bit truncating accumulator 6.6 %, promoted every 128 0.05 %."""
    rng = np.random.default_rng(15)
    x, y = rng.standard_normal((64, 4096)), rng.standard_normal((4096, 64))
    truth = x @ y
    for name, accumulator, expected, within in (("e4m3fn", "deepseek", 0.0375, 0.001), ("bf16", "exact", 0.00234, 0.0001)):
        found = matmul(numerics.quantize(x, name), numerics.quantize(y, name), accumulator=accumulator)
        assert np.linalg.norm(found - truth) / np.linalg.norm(truth) == pytest.approx(expected, abs=within)
    a, b = (numerics.quantize(rng.random(v.shape), "e4m3fn") for v in (x, y))
    truth = a @ b
    for accumulator, expected, within in (("hopper.wgmma.e4m3", 0.066, 0.001), ("deepseek", 0.0005, 0.0001)):
        found = matmul(a, b, accumulator=accumulator)
        assert np.linalg.norm(found - truth) / np.linalg.norm(truth) == pytest.approx(expected, abs=within)


# --- shapes, threads, tensors ---------------------------------------------------------------------------------------------


def test_bits_do_not_depend_on_threads():
    rng = np.random.default_rng(16)
    a, b = (numerics.quantize(rng.standard_normal(s), "e4m3fn") for s in ((70, 96), (96, 1100)))
    stochastic = Accumulator(format="fp16", rounding="stochastic")
    before = numba.get_num_threads()
    try:
        for accumulator, seed in (("bf16", None), ("hopper.wgmma.e4m3", None), (stochastic, 3), ("int32", None)):
            values = (np.rint(a), np.rint(b)) if accumulator == "int32" else (a, b)
            results = []
            for threads in (1, 2):
                numba.set_num_threads(min(threads, before))
                results.append(matmul(*values, accumulator=accumulator, seed=seed))
            assert np.array_equal(*results)
    finally:
        numba.set_num_threads(before)


def test_shape_does_not_change_bits():
    rng = np.random.default_rng(17)
    a, b = (numerics.quantize(rng.standard_normal(s), "e4m3fn").astype(np.float32) for s in ((40, 50), (50, 3)))
    tree = Accumulator(format="bf16", rounding="stochastic", order="tree", group=4)
    for accumulator, seed in (("bf16", None), ("ada.mma.k32.e4m3.f16", None), (tree, 5)):
        whole = matmul(a, b, accumulator=accumulator, seed=seed)
        assert np.array_equal(matmul(b.T, a.T, accumulator=accumulator).T, whole) if seed is None else True
        alone = matmul(a[:1], b, accumulator=accumulator, seed=seed)
        assert np.array_equal(alone, whole[:1])


def test_batches_broadcast():
    rng = np.random.default_rng(18)
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((2, 1, 4, 8), (3, 8, 5)))
    found = matmul(a, b)
    assert found.shape == (2, 3, 4, 5)
    for i in range(2):
        for j in range(3):
            assert np.array_equal(found[i, j], matmul(a[i, 0], b[j]))
    assert np.array_equal(matmul(a, b[0]), np.stack([matmul(x, b[0]) for x in a[:, 0]])[:, None])


def test_empty():
    assert matmul(np.ones((2, 0)), np.ones((0, 3)), accumulator="bf16", bias=1.0).tolist() == [[1.0] * 3] * 2
    assert matmul(np.ones((0, 4)), np.ones((4, 3)), accumulator="hopper.wgmma.f16").shape == (0, 3)


def test_out_and_tensors():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(19)
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((4, 8), (8, 5)))
    out = np.empty((4, 5), np.float64)
    assert matmul(a, b, out=out) is out
    found = matmul(torch.from_numpy(a), torch.from_numpy(b), bias=torch.ones(5))
    assert isinstance(found, torch.Tensor)
    assert np.array_equal(found.numpy(), matmul(a, b, bias=np.ones(5)))
    with pytest.raises(InputError, match="out: float16 cannot hold"):
        matmul(a, b, out=np.empty((4, 5), np.float16))
    half = matmul(
        torch.ones(2, 3, dtype=torch.bfloat16), torch.ones(3, 2, dtype=torch.bfloat16), accumulator="ampere.mma.k8.bf16"
    )
    assert half.tolist() == [[3.0, 3.0]] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"accumulator": "hopper.wgmma.e4m3"}, "a: holds values that 'e4m3fn' does not have"),
        ({"accumulator": "bf16", "bias": 1.001}, "bias: the accumulator starts from it"),
        ({"accumulator": "int32"}, "a: an integer accumulator takes integers"),
        ({"accumulator": "bf16", "seed": 1}, "seed: rounding 'nearest_even' draws no random bits"),
        ({"accumulator": Accumulator(rounding="stochastic")}, "seed: stochastic rounding needs an integer"),
        ({"accumulator": "bf16", "a_scales": np.ones((2, 1))}, "a_scales: the accumulator takes no block scales"),
        ({"accumulator": "blackwell.tcgen05.mxf4"}, "a: holds values that 'e2m1fn' does not have"),
        ({"accumulator": "blackwell.tcgen05.mxf8f6f4"}, "a: values do not tell which of"),
        ({"bias": np.ones(7)}, "bias: expected a shape that broadcasts"),
        ({"out": np.ones(7)}, "out: expected an array of shape"),
    ],
)
def test_bad_input(arguments, message):
    rng = np.random.default_rng(20)
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((2, 32), (32, 2)))
    with pytest.raises(InputError, match=message):
        matmul(a, b, **arguments)


def test_block_codes_of_tensors_give_tensors():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(23)
    x, y = (rng.standard_normal(s).astype(np.float32) for s in ((3, 64), (64, 5)))
    accumulator = "blackwell.tcgen05.mxf4"
    arrays = numerics.encode(x, "mxfp4", axis=1), numerics.encode(y, "mxfp4", axis=0)
    tensors = (
        numerics.encode(torch.from_numpy(x), "mxfp4", axis=1),
        numerics.encode(torch.from_numpy(y), "mxfp4", axis=0),
    )
    out = torch.empty(3, 5, dtype=torch.float64)
    found = matmul(*tensors, accumulator=accumulator, bias=torch.ones(5), out=out)
    assert found is out
    assert np.array_equal(found.numpy(), matmul(*arrays, accumulator=accumulator, bias=np.ones(5)))
    assert isinstance(matmul(*tensors, accumulator=accumulator), torch.Tensor)


def test_a_call_that_fails_leaves_out_as_it_was():
    torch = pytest.importorskip("torch")
    for value in (math.nan, math.inf, 0.5):
        a = np.array([[value, 1.0], [3.0, 1.0]])
        out = np.full((2, 2), 7, np.int32)
        with pytest.raises(InputError, match="out: int32 cannot hold the result; expected float32"):
            matmul(a, np.eye(2), out=out)
        tensor = torch.full((2, 2), 7, dtype=torch.int32)
        with pytest.raises(InputError, match=r"out: torch.int32 cannot hold the result; expected torch.float32"):
            matmul(torch.from_numpy(a), torch.eye(2), out=tensor)
        assert out.tolist() == tensor.tolist() == [[7, 7]] * 2
    nan = matmul(torch.full((1, 1), math.nan), torch.ones(1, 1), out=torch.empty(1, 1, dtype=torch.float64))
    assert math.isnan(nan.item())


def test_tensors_that_are_refused():
    torch = pytest.importorskip("torch")
    x, w = torch.ones(2, 2), torch.ones(2, 2, requires_grad=True)
    image = torch.ones(1, 1, 2, 2, requires_grad=True)
    message = "requires a gradient, which {} does not pass; expected detached tensors, or numerics.emulate"
    for call, field, name in (
        (lambda: matmul(w, x), "a", "matmul"),
        (lambda: matmul(x, w), "b", "matmul"),
        (lambda: matmul(x, x, bias=w), "bias", "matmul"),
        (lambda: matmul(x.numpy(), x.numpy(), bias=w), "bias", "matmul"),
        (lambda: matmul(x, x, out=w), "out", "matmul"),
        (lambda: dot(x[0], w[0]), "b", "dot"),
        (lambda: conv2d(image, image.detach()), "x", "conv2d"),
        (lambda: conv2d(image.detach(), image), "weight", "conv2d"),
    ):
        with pytest.raises(InputError, match=f"^{field}: {message.format(name)}$"):
            call()
    with torch.no_grad():
        assert matmul(w, x).tolist() == [[2.0, 2.0]] * 2
    with pytest.raises(InputError, match=r"^a: expected a dense tensor, got layout torch.sparse_coo"):
        matmul(x.to_sparse(), x)
    with pytest.raises(InputError, match=r"^b: expected a tensor with values, got one on the meta device"):
        matmul(x, x.to("meta"))
    negated = torch.tensor([[1 + 2j, 3 - 4j]]).conj().imag
    assert negated.is_neg()
    assert matmul(negated, torch.eye(2)).tolist() == [[-2.0, 4.0]]


def test_an_accumulator_without_nan_takes_finite_numbers():
    for value in (math.nan, math.inf):
        for accumulator in ("e2m1fn", Accumulator(format="e2m1fn", order="fused", group=2, fraction_bits=10)):
            with pytest.raises(InputError, match=r"^b: holds Inf or NaN, and the accumulator's 'e2m1fn' has no NaN"):
                matmul(np.ones((1, 2)), np.array([[1.0], [value]]), accumulator=accumulator)
    assert dot(np.ones(9), np.ones(9), accumulator=Accumulator(format="e2m1fn")) == 4  # 4 + 1 is a tie
    assert dot([4.0, 4.0], [1, 1], accumulator=Accumulator(format="e2m1fn")) == 6


def test_overflow_by_default():
    for name, default in (("e4m3fn", "saturate"), ("fp16", "ieee")):
        largest = [get_format(name).max] * 2
        by_default, named = (
            dot(largest, [1, 1], accumulator=Accumulator(format=name, overflow=overflow)) for overflow in (None, default)
        )
        assert by_default == named == (448 if name == "e4m3fn" else math.inf)
    assert math.isnan(dot([448.0, 448.0], [1, 1], accumulator=Accumulator(format="e4m3fn", overflow="ieee")))


def test_factors_that_are_powers_of_two_add_no_bits():
    x = np.random.default_rng(24).standard_normal(50)
    powers = 2.0 ** np.random.default_rng(25).integers(-5, 5, 50)
    for order, group in (("pairwise", None), ("tree", 4), ("exact", None)):
        found = dot(x, powers, accumulator=Accumulator(format="fp32", order=order, group=group))
        if order == "exact":
            assert found == np.float32(math.fsum((x * powers).tolist()))
        else:
            assert found == rounded_dot(x.tolist(), powers.tolist(), 0.0, order, group, Rounder(FP32), None, None)
    with pytest.raises(InputError, match=r"^a, b: products of 53 by 5\d .* as numerics.quantize\(x, 'fp32'\) does, or an"):
        dot(x, x, accumulator=Accumulator(format="fp32", order="pairwise"))


def test_bad_shapes():
    with pytest.raises(InputError, match="b: expected K = 3 rows"):
        matmul(np.ones((2, 3)), np.ones((4, 2)))
    with pytest.raises(InputError, match="a, b: expected matrices"):
        matmul(np.ones(3), np.ones((3, 2)))
    with pytest.raises(InputError, match="expected two vectors of one length"):
        dot(np.ones(3), np.ones(4))
    with pytest.raises(InputError, match="do not broadcast"):
        matmul(np.ones((2, 2, 3)), np.ones((3, 3, 2)))
    with pytest.raises(InputError, match=r"^a: expected an array of real numbers, rows of one length, got a list"):
        matmul([[1, 2], [3]], np.ones((2, 2)))
    with pytest.raises(InputError, match=r"^b: expected an array of real numbers, rows of one length, got a list"):
        dot([1, 2], [[1, 2], [3]])
    with pytest.raises(InputError, match=r"^a: dot takes values; expected an array, or matmul for BlockCodes"):
        dot(numerics.encode(np.ones(32), "mxfp4"), np.ones(32))


# --- convolutions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"),
    [(1, 0, 1, 1), (2, 1, 1, 1), ((1, 3), (2, 0), (2, 1), 2), (1, (0, 2), (1, 2), 4), (3, 2, 2, 1)],
)
def test_conv2d_of_integers_is_torch(stride, padding, dilation, groups):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(21)
    x = rng.integers(-8, 9, (2, 4, 9, 11)).astype(np.float32)
    w = rng.integers(-8, 9, (8, 4 // groups, 3, 2)).astype(np.float32)
    bias = rng.integers(-8, 9, 8).astype(np.float32)
    how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    expected = torch.nn.functional.conv2d(torch.from_numpy(x), torch.from_numpy(w), torch.from_numpy(bias), **how)
    for accumulator in ("fp32", "int32", "hopper.wgmma.f16", Accumulator(format="fp32", order="systolic", group=8)):
        found = conv2d(x, w, accumulator=accumulator, bias=bias, **how)
        assert np.array_equal(found, expected.numpy())
    assert torch.equal(conv2d(torch.from_numpy(x), torch.from_numpy(w), bias=torch.from_numpy(bias), **how), expected)


def test_conv2d_rounds_as_the_same_matmul(monkeypatch):
    rng = np.random.default_rng(22)
    x, w = (numerics.quantize(rng.standard_normal(s), "bf16").astype(np.float32) for s in ((1, 3, 6, 7), (5, 3, 2, 2)))
    accumulator = Accumulator(format="bf16", order="tree", group=4, rounding="stochastic")
    found = conv2d(x, w, accumulator=accumulator, seed=9)
    windows = np.lib.stride_tricks.sliding_window_view(x[0], (2, 2), axis=(1, 2))
    columns = windows.transpose(0, 3, 4, 1, 2).reshape(12, 30)
    assert np.array_equal(found[0].reshape(5, 30), matmul(w.reshape(5, 12), columns, accumulator=accumulator, seed=9))
    monkeypatch.setattr("numerics.products.CONVOLUTION_COLUMNS", 7)
    assert np.array_equal(conv2d(x, w, accumulator=accumulator, seed=9), found)


def test_conv2d_bad_input():
    x, w = np.ones((1, 4, 5, 5)), np.ones((2, 4, 3, 3))
    for how, message in (
        ({"groups": 2}, "weight: expected"),
        ({"groups": 1.0}, "^groups: expected an integer ≥ 1, got 1.0"),
        ({"weight": np.ones((0, 4, 3, 3))}, "^weight: expected at least one output"),
        ({"weight": np.ones((2, 4, 0, 0))}, "^weight: expected at least one output"),
        ({"x": x / 2, "accumulator": "int32"}, "^x: an integer accumulator takes integers"),
        ({"weight": w / 2, "accumulator": "int32"}, "^weight: an integer accumulator takes integers"),
        ({"x": x / 3, "weight": w / 3, "accumulator": Accumulator(order="pairwise")}, "^weight, x: products of 53 by 53"),
        ({"stride": 0}, "stride: expected an integer"),
        ({"dilation": 3}, "does not fit"),
        ({"bias": np.ones(3)}, "bias: expected one number"),
        ({"accumulator": "blackwell.tcgen05.mxf4"}, "a block-scaled one takes matrices"),
    ):
        with pytest.raises(InputError, match=message):
            conv2d(**({"x": x, "weight": w} | how))
    assert math.isclose(float(conv2d(x, w)[0, 0, 0, 0]), 36)
