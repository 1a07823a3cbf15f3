"""Names of accumulators against the table they come from, and what an accumulator refuses."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from numerics.accumulator import Accumulator, Promotion, accumulator_names, get_accumulator
from numerics.errors import InputError
from numerics.formats import get_format

TABLE = Path(__file__).parent / "data" / "tensor_core_arithmetic.csv"
INPUTS = {"fp16": ["f16"], "fp6": ["e2m3", "e3m2"], "fp4": ["e2m1"]}


def rows():
    lines = [line for line in TABLE.read_text().splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines))


def names_of(row):
    for architecture in row["architecture"].split("|"):
        for given in row["inputs"].split("|"):
            for name in INPUTS.get(given, [given]):
                for output in row["output"].split("|"):
                    instruction = row["instruction"].split()[0]
                    yield f"{architecture}.{instruction}.k{row['k']}.{name}.{'f16' if output == 'fp16' else 'f32'}", output


@pytest.mark.parametrize("row", rows(), ids=lambda r: f"{r['architecture']}-{r['instruction']}-{r['inputs']}-{r['k']}")
def test_every_row_of_the_table_has_its_names(row):
    for name, output in names_of(row):
        assert name in accumulator_names()
        found = get_accumulator(name)
        assert found.order == "fused"
        assert found.fraction_bits == int(row["fraction_bits"])
        assert found.group == int(row["k"]) // (2 if row["split_k"] == "yes" else 1)
        assert found.format == output
        assert found.rounding == ("nearest_even" if output == "fp16" else "toward_zero")
        if "block" in row["instruction"]:
            assert found.exact_run == (16 if row["k"] == "64" else 1)
            assert (found.scale, found.scale_block) == (("e4m3fn", 16) if "nvf4" in name else ("e8m0fnu", 32))


def test_no_name_is_without_a_row():
    known = {name for row in rows() for name, _ in names_of(row)}
    rest = []
    for name in set(accumulator_names()) - known:
        head, instruction, k, *inputs, output = name.split(".") if name.count(".") > 3 else (name, "", "", "")
        if inputs[:1] == ["mxf8f6f4"]:
            # Its row leaves the elements open: those of the row of plain f8f6f4.
            inputs = inputs[1:]
        if not inputs or not {f"{head}.{instruction}.{k}.{one}.{output}" for one in inputs} <= known:
            rest.append(name)
    assert sorted(rest) == ["deepseek", "exact", "int16_saturate", "int32_saturate"]


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("hopper.wgmma.e4m3", "hopper.wgmma.k32.e4m3.f32"),
        ("hopper.wgmma.k32.e4m3", "hopper.wgmma.k32.e4m3.f32"),
        ("hopper.wgmma.e4m3.f16", "hopper.wgmma.k32.e4m3.f16"),
        ("hopper.wgmma.k16.fp16.fp32", "hopper.wgmma.k16.f16.f32"),
        ("ampere.mma.m16n8k16.f32.bf16.bf16.f32", "ampere.mma.k16.bf16.f32"),
        ("hopper.wgmma.m64n256k32.f16.e4m3.e5m2", "hopper.wgmma.k32.e4m3.e5m2.f16"),
        ("blackwell.tcgen05.fp4", "blackwell.tcgen05.k32.e2m1.f32"),
        ("blackwell.tcgen05.nvf4", "blackwell.tcgen05.k64.nvf4.f32"),
        ("volta.mma.f16", "volta.mma.k4.f16.f32"),
        ("Hopper.WGMMA.E4M3", "hopper.wgmma.k32.e4m3.f32"),
        ("Deepseek", "deepseek"),
        ("hopper.wgmma.k32.e4m3.e8m13", "hopper.wgmma.k32.e4m3.f32"),
        ("hopper.wgmma.e4m3.e5m2.e8m13", "hopper.wgmma.k32.e4m3.e5m2.f32"),
        ("ada.mma.k16.e5m2.e8m13", "ada.mma.k16.e5m2.f32"),
    ],
)
def test_aliases(alias, name):
    assert get_accumulator(alias) is get_accumulator(name)


@pytest.mark.parametrize(
    "name", ["ampere.mma.bf16", "hopper.wgmma.k16.e4m3", "hooper.wgmma.e4m3", "ampere.mma.m16n8k16.f32.bf16.bf16.f16"]
)
def test_ambiguous_or_unknown_names(name):
    with pytest.raises(InputError, match="accumulator: unknown name"):
        get_accumulator(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("E4M3", "unknown name 'E4M3'; did you mean .*'e4m3fn'"),
        ("Hooper.WGMMA.E4M3", "unknown name 'Hooper.WGMMA.E4M3'; did you mean 'hopper.wgmma.e4m3'"),
        ("blackwell.tcgen05.fp6", "leaves open which fp6; expected 'e2m3' or 'e3m2'"),
        ("blackwell.tcgen05.k32.e4m3.e8m13", "unknown name"),
    ],
)
def test_hints(name, message):
    with pytest.raises(InputError, match=f"^accumulator: .*{message}"):
        get_accumulator(name)


def test_integers_of_numpy():
    found = Accumulator(order="tree", group=np.int64(4), promotion=Promotion(np.int32(8)))
    assert found == Accumulator(order="tree", group=4, promotion=Promotion(8))
    assert type(found.group) is int
    assert type(found.promotion.interval) is int


def test_general_names():
    assert get_accumulator("bf16") == Accumulator(format=get_format("bf16"))
    assert get_accumulator("int32") == Accumulator(format=get_format("int32"))
    assert get_accumulator("INT32_Saturate") == get_accumulator("int32_saturate")
    assert get_accumulator("int32_saturate") == Accumulator(format=get_format("int32"), overflow="saturate")
    assert get_accumulator("e2m1fn").overflow == "saturate"
    deepseek = get_accumulator("deepseek")
    assert deepseek.promotion == Promotion(128, "fp32")
    assert replace(deepseek, promotion=None) == get_accumulator("hopper.wgmma.e4m3")
    own = Accumulator(format="e6m9", order="tree", group=8)
    assert get_accumulator(own) is own
    with pytest.raises(InputError, match="accumulator: expected an Accumulator or a name"):
        get_accumulator(3)


FUSED = {"order": "fused", "group": 8, "fraction_bits": 24}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": "nf4"}, "format: an accumulator is a float or an integer, got 'nf4'"),
        ({"format": "int64"}, "format: an integer accumulator is signed, of 2 to 62 bits"),
        ({"format": "uint8"}, "format: an integer accumulator is signed"),
        ({"format": "e8m0fnu"}, "format: sums need a sign and a zero"),
        ({"format": "e11m20"}, "format: expected fp64, or exponents from"),
        ({"format": "e2m1fn", "overflow": "ieee"}, "overflow: 'e2m1fn' has neither Inf nor NaN"),
        ({"format": "fp64", "rounding": "up"}, "format: 'fp64' takes nearest_even"),
        ({"format": "e8m30", "rounding": "stochastic"}, "rounding: 'stochastic' needs a format of at most 27"),
        ({"rounding": "nearest"}, "rounding: unknown name 'nearest'"),
        ({"order": "random"}, "order: unknown name 'random'"),
        ({"overflow": "clip"}, "overflow: unknown name 'clip'"),
        ({"overflow": "wrap"}, "overflow: 'wrap' is for integer accumulators"),
        ({"format": "e4m3fn", "overflow": "infinity"}, "overflow: 'e4m3fn' has no Inf"),
        ({"format": "int32", "overflow": "ieee"}, "overflow: an integer accumulator takes 'wrap' or 'saturate'"),
        ({"format": "int32", "rounding": "up"}, "rounding: an integer accumulator is exact"),
        ({"format": "int32", "order": "exact"}, "order: 'exact' needs a float format"),
        ({"order": "tree"}, "group: order 'tree' needs the number of products"),
        ({"order": "tree", "group": 0}, "group: order 'tree' needs the number of products"),
        ({"group": 4}, "group: order 'sequential' has no groups"),
        ({"order": "fused", "group": 8}, "fraction_bits: order 'fused' needs 1 to 40"),
        ({"fraction_bits": 8}, "fraction_bits: order 'sequential' aligns nothing"),
        (FUSED | {"group": 300}, "group: order 'fused' takes at most 256"),
        (FUSED | {"exact_run": 3}, "exact_run: expected a divisor of the group of 8"),
        (FUSED | {"exact_run": 4}, "exact_run: the exponent of an exact run is that of its scales"),
        ({"exact_run": 4}, "exact_run: order 'sequential' has none"),
        (FUSED | {"product": "bf16"}, "product: order 'fused' adds exact products"),
        ({"product": "int8"}, "product: expected 'exact' or a float format"),
        ({"product": "e2m1fn"}, "product: expected a float format with a zero, Inf or NaN"),
        ({"compensated": True, "order": "tree", "group": 4}, "compensated: Kahan's sum needs order 'sequential'"),
        ({"promotion": Promotion(0)}, "promotion: expected an interval ≥ 1"),
        ({"promotion": Promotion(9), "order": "tree", "group": 4}, "promotion: expected a multiple of the group of 4, got 9"),
        ({"promotion": Promotion(9), "order": "pairwise"}, "promotion: order 'pairwise' keeps one sum"),
        ({"promotion": Promotion(9, "int8")}, "promotion: expected a float format with Inf"),
        ({"scale": "e8m0fnu"}, "scale: a scale's format and scale_block go together"),
        ({"scale": "e8m0fnu", "scale_block": 32}, "scale: expected a float format, with order 'fused'"),
        (FUSED | {"scale": "e8m0fnu", "scale_block": 32}, "a_formats: block-scaled operands have a format"),
        ({"a_formats": None}, "a_formats: expected a tuple of names of float formats, such as .*, got None"),
        ({"b_formats": "e4m3fn"}, "b_formats: expected a tuple of names of float formats, such as .*, got 'e4m3fn'"),
        ({"promotion": 128}, r"promotion: expected a Promotion, such as Promotion\(128, 'fp32'\), got 128"),
        ({"compensated": "yes"}, "compensated: expected True or False, got 'yes'"),
        ({"a_formats": ("int8",)}, "a_formats: expected float formats, got 'int8'"),
    ],
)
def test_what_means_nothing_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        Accumulator(**fields)
