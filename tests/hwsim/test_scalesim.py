"""SCALE-Sim topologies: both forms read and written, with the dimensions that SCALE-Sim finds in them."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from hwsim.operators import Attention, Convolution, Elementwise, Matmul
from hwsim.tracing.scalesim import CONV_COLUMNS, load, output_positions, write
from hwsim.workload import Tensor, Workload, chain
from numerics.errors import InputError

ORACLE = Path(__file__).parents[1] / "oracle/data/scalesim_compute_cycles.csv"
CONV_HEADER = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n"


def topology(folder, text, name="net.csv"):
    path = Path(folder) / name
    path.write_text(text)
    return path


def oracle_rows():
    with ORACLE.open() as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def conv(name="c", **changes):
    """A 3×3 convolution of 8×8 images with padding 1, changed as told."""
    dims = {
        "batch": 1, "in_channels": 4, "out_channels": 6, "input_size": (8, 8), "output_size": (8, 8),
        "kernel": (3, 3), "stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1),
    }  # fmt: skip
    return Convolution(name=name, **(dims | changes))


def dims(workload):
    return [(op.name, op.kind, op.dims) for op in workload.ops]


# --- SCALE-Sim's own numbers --------------------------------------------------------------------------------


def test_the_oracle_file_is_complete():
    rows = oracle_rows()
    assert len(rows) >= 300
    assert {row["dataflow"] for row in rows} == {"os", "ws", "is"}
    assert {row["form"] for row in rows} == {"conv", "gemm"}
    assert len({(row["rows"], row["cols"]) for row in rows}) >= 8
    assert all(int(row["compute_cycles"]) > 0 and row["stall_cycles"] == "0" for row in rows)
    assert ORACLE.read_text().startswith("# scalesim 3.0.0, numpy ")


def test_dimensions_are_those_of_scalesim_s_parser(tmp_path):
    sizes = ("ifmap_h", "ifmap_w", "filter_h", "filter_w", "channels", "filters", "stride")
    rows = [row for row in oracle_rows() if row["form"] == "conv"]
    lines = [", ".join([f"l{i}", *(row[s] for s in sizes)]) + "," for i, row in enumerate(rows)]
    workload = load(topology(tmp_path, CONV_HEADER + "\n".join(lines)))
    for op, row in zip(workload.ops, rows, strict=True):
        assert op.matmul_dims == (1, int(row["m"]), int(row["n"]), int(row["k"]))
    # Some of them have strides that do not divide evenly, where rounding up matters.
    assert any(op.padding != ((0, 0), (0, 0)) for op in workload.ops)


# --- reading ------------------------------------------------------------------------------------------------


def test_convolutions(tmp_path):
    text = CONV_HEADER + "\nConv1, 224, 224, 11, 11, 3, 96, 4,\n  FC ,1,1,1,1,9216,4096,1\n,,,,,,,,\n"
    workload = load(topology(tmp_path, text, "alexnet.csv"))
    assert workload.name == "alexnet"
    assert workload.metadata == {"source": "alexnet.csv", "form": "conv"}
    first, last = workload.ops
    # ceil((224 - 11 + 4) / 4) = 55: SCALE-Sim's last window reaches three rows past the edge.
    assert (first.output_size, first.padding) == ((55, 55), ((0, 3), (0, 3)))
    assert first.macs == 55 * 55 * 11 * 11 * 3 * 96
    assert (last.name, last.macs) == ("FC", 9216 * 4096)
    assert workload.tensors["FC.weight"].role == "weight"


def test_matmuls(tmp_path):
    workload = load(topology(tmp_path, "Layer,M,N,K\nQKT,1024,512,64\nQKTV,1024,64,1024,\n"))
    assert [(op.kind, op.m, op.n, op.k) for op in workload.ops] == [
        ("matmul", 1024, 512, 64),
        ("matmul", 1024, 64, 1024),
    ]


@pytest.mark.parametrize(
    ("text", "density"),
    [
        ("Layer Name, M, N, K, Sparsity,\nG, 3, 5, 16, 1:4,", 0.25),
        ("Layer, M, N, K,\nG, 3, 5, 16, 3:4,", 0.75),
        (CONV_HEADER.strip() + " Sparsity,\nC, 5, 5, 3, 3, 2, 6, 1, 2:4,", 0.5),
        ("Layer, M, N, K, Sparsity,\nG, 3, 5, 16, 1:1,", None),
        ("Layer, M, N, K, Sparsity,\nG, 3, 5, 16,", None),
    ],
)
def test_sparsity(tmp_path, text, density):
    workload = load(topology(tmp_path, text))
    assert workload.tensors[f"{workload.ops[0].name}.weight"].density == density
    assert workload.tensors[f"{workload.ops[0].name}.input"].density is None


def test_other_headers_that_scalesim_files_have(tmp_path):
    # Two strides, as SCALE-Sim writes them; a batch column, empty in some rows; comments; lower case.
    header = "Layer name,IFMAP height,IFMAP width,Filter height,Filter width,Channels,Num filter,"
    op = load(topology(tmp_path, header + "Stride height,Stride width,\na,9,9,3,3,1,2,3,2,\n")).ops[0]
    assert (op.stride, op.output_size) == ((3, 2), (3, 4))
    text = header.lower() + "strides,batch size,\na,9,9,3,3,1,2,1,4,\nb,9,9,3,3,1,2,1,# no batch\n"
    assert [op.batch for op in load(topology(tmp_path, text)).ops] == [4, 1]


def test_depthwise_rows_are_one_group_a_channel(tmp_path):
    workload = load(topology(tmp_path, CONV_HEADER + "Conv2_DP, 12, 12, 3, 3, 32, 1, 1,\n"))
    op = workload.ops[0]
    assert (op.groups, op.in_channels, op.out_channels) == (32, 32, 32)
    assert op.matmul_dims == (32, 100, 1, 9)


def test_a_repeated_name_gets_a_suffix(tmp_path):
    workload = load(topology(tmp_path, "Layer, M, N, K,\na,1,1,1,\na,2,2,2,\na_2,3,3,3,\na,4,4,4,"))
    assert [op.name for op in workload.ops] == ["a", "a_2", "a_2_2", "a_3"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Layer, M, N, K,\na, 1, 2,", "line 2: 3 columns; expected 4: Layer, M, N, K"),
        ("Layer, M, N, K,\n\na, 1, 2, 3, 4,", "line 3: 5 columns; expected 4: Layer, M, N, K"),
        ("Layer, M, N, K,\na, 1, two, 3,", "line 2, column 'N': 'two' is not an integer ≥ 1 (layer 'a')"),
        ("Layer, M, N, K,\na, 1, 2.5, 3,", "line 2, column 'N': '2.5' is not an integer ≥ 1 (layer 'a')"),
        ("Layer, M, N, K,\na, 1, 2, 0,", "line 2, column 'K': '0' is not an integer ≥ 1 (layer 'a')"),
        ("Layer, M, N, K,\n, 1, 2, 3,", "line 2, column 'Layer': the layer has no name"),
        (
            "Layer, M, N, K, Sparsity,\na, 1, 2, 3, 5:4,",
            "column 'Sparsity': '5:4' is not a ratio N:M with 1 ≤ N ≤ M",
        ),
        (
            CONV_HEADER + "a, 5, 5, 6, 3, 1, 1, 1,",
            "column 'Filter Height': 6 is larger than the IFMAP Height 5",
        ),
        (
            CONV_HEADER + "a, 5, 5, 3, 6, 1, 1, 1,",
            "column 'Filter Width': 6 is larger than the IFMAP Width 5",
        ),
        (CONV_HEADER + "a, 5, 5, 3, 3, 1, 1,", "line 2: 7 columns; expected 8: Layer name, IFMAP Height"),
        ("a, 1, 2, 3,\n", "line 1: unknown header 'a, 1, 2, 3'; expected 'Layer name, IFMAP Height"),
        (CONV_HEADER.strip() + ",,Eh,\na", "line 1: unknown column '' (number 9)"),
        ("", "no layers; expected 'Layer name, "),
        ("Layer, M, N, K,\n", "no layers; expected "),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, message):
    path = topology(tmp_path, text)
    with pytest.raises(InputError) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"none.csv: cannot be read"):
        load(tmp_path / "none.csv")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match=r"bytes.csv: cannot be read"):
        load(tmp_path / "bytes.csv")


# --- writing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        CONV_HEADER + "a, 224, 224, 11, 11, 3, 96, 4,\nb, 7, 9, 3, 2, 8, 16, 2,\nc_DP, 9, 9, 3, 3, 8, 1, 2,\n",
        CONV_HEADER.strip() + " Sparsity,\na, 8, 8, 3, 3, 3, 4, 1, 1:4,\nb, 8, 8, 3, 3, 3, 4, 1, 1:1,\n",
        "Layer, M, N, K,\na, 5, 6, 7,\nb, 1, 1, 1,\n",
        "Layer, M, N, K, Sparsity,\na, 5, 6, 7, 3:8,\n",
    ],
)
def test_a_topology_survives_the_round_trip(tmp_path, text):
    first = load(topology(tmp_path, text))
    again = tmp_path / "again" / "net.csv"
    again.parent.mkdir()
    assert write(first, again, form=first.metadata["form"]) == []
    assert load(again) == first
    assert again.read_text() == text


def test_padding_is_folded_into_the_input(tmp_path):
    workload = chain("w", [conv(), conv("s", stride=(2, 2), output_size=(4, 4))])
    write(workload, tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_text().splitlines()
    # The stride-2 layer reads 9 of its 10 padded rows; of 10, SCALE-Sim would make a fifth position.
    assert lines == [", ".join(CONV_COLUMNS) + ",", "c, 10, 10, 3, 3, 4, 6, 1,", "s, 9, 9, 3, 3, 4, 6, 2,"]
    assert output_positions(10, 3, 2) == 5
    assert load(tmp_path / "out.csv").macs == workload.macs


def test_batches_and_matmuls_in_the_conv_form(tmp_path):
    workload = chain("w", [conv(batch=2), Matmul(name="fc", m=5, n=6, k=7), Matmul(name="b", m=5, n=6, k=7, batch=2)])
    write(workload, tmp_path / "out.csv")
    again = load(tmp_path / "out.csv")
    assert [op.name for op in again.ops] == ["c.0", "c.1", "fc", "b.0", "b.1"]
    assert again.ops[2].matmul_dims == (1, 5, 6, 7)
    assert again.macs == workload.macs


def test_the_gemm_form_has_room_for_every_convolution(tmp_path):
    ops = [
        conv("batch", batch=3),
        conv("groups", groups=2),
        conv("dilated", dilation=(2, 2), output_size=(6, 6)),
        conv("strides", stride=(2, 1), output_size=(4, 8)),
        conv("gradient", computes="weight"),
    ]
    workload = chain("w", ops)
    write(workload, tmp_path / "out.csv", form="gemm")
    again = load(tmp_path / "out.csv")
    assert again.macs == workload.macs
    assert [op.name for op in again.ops] == [
        "batch",
        "groups.0",
        "groups.1",
        "dilated",
        "strides",
        "gradient",
    ]
    assert (again.ops[0].m, again.ops[0].n, again.ops[0].k) == (3 * 64, 6, 36)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"dilation": (2, 2), "output_size": (6, 6)}, r"dilation \(2, 2\)"),
        ({"groups": 2}, "2 groups of 2 channels"),
        ({"stride": (2, 1), "output_size": (4, 8)}, r"stride \(2, 1\)"),
        ({"computes": "input"}, "the convolution computes its input"),
    ],
)
def test_what_the_conv_form_cannot_say_is_refused(tmp_path, changes, why):
    workload = chain("w", [conv("odd", **changes)])
    with pytest.raises(InputError, match=f"op 'odd': {why}, which SCALE-Sim's conv form cannot say; form='gemm' can"):
        write(workload, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_three_dimensions_are_refused_and_one_has_width_one(tmp_path):
    three = {
        f: (v[0],) * 3
        for f, v in conv().dims.items()
        if isinstance(v, tuple)
    }  # fmt: skip
    with pytest.raises(InputError, match="op 'c': the convolution has 3 spatial dimensions"):
        write(chain("w", [conv(**three)]), tmp_path / "out.csv")
    one = {f: v[:1] for f, v in three.items()}
    write(chain("w", [conv(**one)]), tmp_path / "out.csv")
    assert load(tmp_path / "out.csv").ops[0].kernel == (3, 1)
    assert load(tmp_path / "out.csv").macs == chain("w", [conv(**one)]).macs


def test_depthwise_names(tmp_path):
    depthwise = conv("dw", groups=4, out_channels=8)
    write(chain("w", [depthwise, conv("DPN.conv1")]), tmp_path / "out.csv")
    again = load(tmp_path / "out.csv")
    # SCALE-Sim takes any name with DP in it for depth-wise.
    assert [(op.name, op.groups) for op in again.ops] == [("dw_DP", 4), ("DpN.conv1", 1)]
    assert again.ops[0].macs == depthwise.macs


def test_what_does_no_macs_is_left_out_and_named(tmp_path):
    matmul = chain("w", [Matmul(name="fc", m=5, n=6, k=7)])
    relu = Elementwise(name="relu", operation="relu", elements=30, inputs=("fc.output",), outputs=("y",))
    workload = replace(matmul, ops=(*matmul.ops, relu), tensors={**matmul.tensors, "y": Tensor("y", (5, 6), "fp32")})
    assert write(workload, tmp_path / "out.csv", form="gemm") == ["relu"]
    assert load(tmp_path / "out.csv").macs == workload.macs
    with pytest.raises(InputError, match="workload 'r': no matmul or convolution to write"):
        write(Workload("r", (relu,), workload.tensors), tmp_path / "none.csv")


def test_attention_is_written_as_its_matmuls(tmp_path):
    tensors = {name: Tensor(name, (2, 4, 8, 16), "fp16") for name in "qkvo"}
    op = Attention(
        name="attention", inputs=("q", "k", "v"), outputs=("o",), batch=2, heads=4, kv_heads=4,
        query_length=8, key_length=8, head_dim=16, value_dim=16,
    )  # fmt: skip
    workload = Workload("w", (op,), tensors)
    assert write(workload, tmp_path / "out.csv", form="gemm") == ["attention/scale", "attention/softmax"]
    assert load(tmp_path / "out.csv").macs == workload.macs


def test_a_measured_density_is_not_a_ratio(tmp_path):
    workload = chain("w", [Matmul(name="fc", m=5, n=6, k=7)])
    measured = replace(workload.tensors["fc.weight"], density=0.123456)
    write(
        replace(workload, tensors={**workload.tensors, "fc.weight": measured}),
        tmp_path / "out.csv",
        form="gemm",
    )
    assert (tmp_path / "out.csv").read_text() == "Layer, M, N, K,\nfc, 5, 6, 7,\n"


def test_the_form_must_be_known(tmp_path):
    with pytest.raises(InputError, match="form: unknown name 'cnn'; did you mean 'conv'"):
        write(chain("w", [conv()]), tmp_path / "out.csv", form="cnn")
