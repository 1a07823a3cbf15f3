"""The model zoo against published sizes, and its forward passes against each other."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from hwsim import zoo
from hwsim.zoo.gpt2 import GPT2
from hwsim.zoo.llama import Llama
from hwsim.zoo.mamba import Mamba
from hwsim.zoo.scan import selective_scan, selective_scan_backward
from numerics.errors import InputError

LANGUAGE_MODELS = {
    "gpt2": (lambda: GPT2(layers=2, width=64, heads=4, vocabulary=97, positions=32), 4, 16),
    "llama": (
        lambda: Llama(layers=2, width=64, heads=4, kv_heads=2, feed_forward=128, vocabulary=97),
        2,
        16,
    ),
}


def macs(module: nn.Module, inputs: tuple) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return counter.get_total_flops() // 2


# --- published figures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", zoo.names())
def test_parameters_are_those_published(name):
    # parameters() yields tied and shared parameters once.
    assert sum(p.numel() for p in zoo.build(name).parameters()) == zoo.get(name).published_parameters


# Relative tolerances: 0.2% where the source gives three or four digits; mobilenet_v2's paper rounds 300.8M to
# 300M; MobileBERT's 22.5 GFLOPs for BERT are 0.7% above the matrix products, all that is counted here.
TOLERANCE = {"mobilenet_v2": 5e-3, "bert_base": 1e-2}


@pytest.mark.parametrize("name", [name for name in zoo.names() if zoo.get(name).published_macs])
def test_macs_are_those_published(name):
    expected = zoo.get(name).published_macs
    assert macs(zoo.build(name), zoo.example_inputs(name)) == pytest.approx(expected, rel=TOLERANCE.get(name, 2e-3))


def test_alexnet_convolutions_do_666_million_macs():
    # Sze et al., Proc. IEEE 105(12), 2017, table 2: 666M in convolutions, 58.6M in fully connected layers.
    module = zoo.build("alexnet")
    assert macs(module.features, zoo.example_inputs("alexnet")) == 665_784_864
    assert macs(module.classifier, (torch.empty(1, 9216, device="meta"),)) == 58_621_952


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("name", ["gpt2", "llama3_8b"])
def test_language_model_macs_follow_from_its_sizes(name, phase):
    # Kaplan et al., arXiv:2001.08361, section 2.1: one MAC a token and weight; and, as attention is counted
    # without its mask, 2 · width · context a token and layer.
    layers, width, gathered = {
        "gpt2": (12, 768, 1024 * 768),  # positions; the tied token embedding is the output layer
        "llama3_8b": (32, 4096, 128256 * 4096),
    }[name]
    vectors = {"gpt2": 12 * (4 + 9) * 768 + 2 * 768, "llama3_8b": (2 * 32 + 1) * 4096}[name]  # norms and biases
    tokens, context = (256, 256) if phase == "prefill" else (1, 256)
    options = {"seq_len": 256} if phase == "prefill" else {"kv_len": 255, "phase": "decode"}
    weights = zoo.get(name).published_parameters - gathered - vectors
    expected = tokens * (weights + layers * 2 * width * context)
    assert macs(zoo.build(name), zoo.example_inputs(name, **options)) == expected


def test_dlrm_tables_have_mlperf_rows():
    tables = zoo.build("dlrm").emb_l
    assert len(tables) == 26
    assert sum(table.num_embeddings for table in tables) == 187_767_399


# --- parameter names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("alexnet_torchvision", {"features.10.weight": (256, 256, 3, 3), "classifier.6.bias": (1000,)}),
        ("vgg16", {"features.28.weight": (512, 512, 3, 3), "classifier.0.weight": (4096, 25088)}),
        ("resnet18", {"layer4.0.downsample.0.weight": (512, 256, 1, 1), "fc.weight": (1000, 512)}),
        (
            "resnet50",
            {"layer1.0.downsample.1.running_mean": (256,), "layer4.2.conv3.weight": (2048, 512, 1, 1)},
        ),
        ("mobilenet_v2", {"features.1.conv.2.weight": (16,), "features.18.0.weight": (1280, 320, 1, 1)}),
        (
            "efficientnet_b0",
            {
                "features.1.0.block.1.fc1.weight": (8, 32, 1, 1),
                "features.6.3.block.2.fc2.weight": (1152, 48, 1, 1),
                "features.7.0.block.3.1.running_var": (320,),
                "classifier.1.weight": (1000, 1280),
            },
        ),
        (
            "vit_b_16",
            {
                "class_token": (1, 1, 768),
                "encoder.pos_embedding": (1, 197, 768),
                "encoder.layers.encoder_layer_11.self_attention.in_proj_weight": (2304, 768),
                "encoder.layers.encoder_layer_0.mlp.3.weight": (768, 3072),
                "heads.head.weight": (1000, 768),
            },
        ),
        (
            "bert_base",
            {
                "embeddings.token_type_embeddings.weight": (2, 768),
                "encoder.layer.11.attention.self.query.weight": (768, 768),
                "encoder.layer.0.attention.output.LayerNorm.bias": (768,),
                "encoder.layer.0.intermediate.dense.weight": (3072, 768),
                "pooler.dense.bias": (768,),
            },
        ),
        ("gpt2", {"transformer.h.11.attn.c_attn.weight": (768, 2304), "transformer.wpe.weight": (1024, 768)}),
        (
            "llama3_8b",
            {
                "model.layers.31.self_attn.k_proj.weight": (1024, 4096),
                "model.layers.0.mlp.down_proj.weight": (4096, 14336),
                "model.layers.0.post_attention_layernorm.weight": (4096,),
                "lm_head.weight": (128256, 4096),
            },
        ),
        ("llama3_70b", {"model.layers.79.self_attn.q_proj.weight": (8192, 8192)}),
        (
            "mamba_130m",
            {
                "backbone.layers.23.mixer.A_log": (1536, 16),
                "backbone.layers.0.mixer.conv1d.weight": (1536, 1, 4),
                "backbone.layers.0.mixer.x_proj.weight": (80, 1536),
                "backbone.norm_f.weight": (768,),
            },
        ),
        ("dlrm", {"emb_l.25.weight": (36, 128), "bot_l.4.weight": (128, 256), "top_l.0.weight": (1024, 479)}),
    ],
)
def test_parameters_have_the_public_names(name, shapes):
    state = zoo.build(name).state_dict()
    assert {key: tuple(state[key].shape) for key in shapes} == shapes


# --- forward passes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("alexnet", {}, (1, 1000)),
        ("resnet18", {}, (1, 1000)),
        ("mobilenet_v2", {}, (1, 1000)),
        ("efficientnet_b0", {}, (1, 1000)),
        ("vit_b_16", {}, (1, 1000)),
        ("gpt2", {"seq_len": 3}, (1, 3, 50257)),
        ("mamba_130m", {"seq_len": 3}, (1, 3, 50280)),
        ("lstm_small", {"batch": 2}, (2, 20, 10000)),
        ("mlp0", {}, (200, 2000)),
    ],
)
def test_forward_on_real_tensors(name, options, shape):
    module = zoo.build(name, device="cpu")
    with torch.no_grad():
        y = module(*zoo.example_inputs(name, device="cpu", **options))
    assert y.shape == shape
    assert y.isfinite().all()


def test_bert_returns_hidden_states_and_the_pooled_one():
    hidden, pooled = zoo.build("bert_base")(*zoo.example_inputs("bert_base", batch=2, seq_len=7))
    assert hidden.shape == (2, 7, 768)
    assert pooled.shape == (2, 768)


def test_dlrm_interacts_each_pair_once():
    from hwsim.zoo.dlrm import DLRM

    torch.manual_seed(0)
    module = DLRM(rows=(5, 7, 3), width=4).eval()
    seen = []
    module.top_l.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    dense, categories = torch.rand(2, 13), torch.tensor([[4, 6, 2], [0, 1, 2]])
    assert module(dense, categories).shape == (2, 1)
    x = module.bot_l(dense)
    a, b, c = (table(categories[:, i]) for i, table in enumerate(module.emb_l))
    pairs = [(a * x), (b * x), (b * a), (c * x), (c * a), (c * b)]
    torch.testing.assert_close(seen[0], torch.cat((x, torch.stack([p.sum(1) for p in pairs], 1)), 1))


def test_random_weights_and_inputs_repeat_and_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    first, second = (zoo.build("lstm_small", device="cpu").state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    (a,), (b,) = (zoo.example_inputs("lstm_small", device="cpu") for _ in range(2))
    assert torch.equal(a, b)
    assert torch.equal(before, torch.get_rng_state())


# --- decoding -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", LANGUAGE_MODELS)
def test_a_decode_step_equals_the_last_token_of_prefill(family):
    make, kv_heads, head_dim = LANGUAGE_MODELS[family]
    torch.manual_seed(0)
    module = make().eval()
    tokens = torch.randint(97, (2, 6))
    with torch.no_grad():
        whole = module(tokens)
        cache: tuple = ()
        for n in range(6):
            grown = [torch.nn.functional.pad(t, (0, 0, 0, 1)) for pair in cache for t in pair]
            grown = grown or [torch.zeros(2, kv_heads, 1, head_dim) for _ in range(4)]
            cache = tuple(zip(grown[::2], grown[1::2], strict=True))
            step = module(tokens[:, n : n + 1], cache)
            torch.testing.assert_close(step[:, 0], whole[:, n], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", LANGUAGE_MODELS)
def test_prefill_is_causal(family):
    torch.manual_seed(0)
    module = LANGUAGE_MODELS[family][0]().eval()
    tokens = torch.randint(97, (1, 6))
    changed = tokens.clone()
    changed[0, -1] = (changed[0, -1] + 1) % 97
    with torch.no_grad():
        a, b = module(tokens), module(changed)
    torch.testing.assert_close(a[:, :-1], b[:, :-1])
    assert not torch.allclose(a[:, -1], b[:, -1])


def test_decode_inputs_hold_room_for_the_new_token():
    tokens, cache = zoo.example_inputs("llama3_8b", batch=3, phase="decode", kv_len=100)
    assert tokens.shape == (3, 1)
    assert tokens.dtype == torch.int64
    assert len(cache) == 32
    assert cache[0][0].shape == cache[31][1].shape == (3, 8, 101, 128)


def test_a_cache_takes_one_token():
    _, cache = zoo.example_inputs("gpt2", phase="decode")
    with pytest.raises(InputError, match="tokens: with a cache, expected 1 token a sequence, got 2"):
        zoo.build("gpt2")(torch.zeros(1, 2, dtype=torch.int64, device="meta"), cache)


class Calls(TorchDispatchMode):
    """Records (operator, shapes of its tensor arguments)."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append((str(func), [tuple(a.shape) for a in args if isinstance(a, torch.Tensor)]))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_grouped_attention_is_one_operator_that_reads_the_shared_heads(phase):
    n, context = (8, 8) if phase == "prefill" else (1, 8)
    with FakeTensorMode(), torch.no_grad():
        module = LANGUAGE_MODELS["llama"][0]()
        tokens = torch.zeros(1, n, dtype=torch.int64)
        cache = tuple((torch.empty(1, 2, context, 16), torch.empty(1, 2, context, 16)) for _ in range(2))
        with Calls() as calls:
            module(tokens, cache if phase == "decode" else None)
    attention = [shapes for name, shapes in calls.seen if "attention" in name]
    assert attention == [[(1, 4, n, 16), (1, 2, context, 16), (1, 2, context, 16)]] * 2
    if phase == "decode":
        written = [shapes[0] for name, shapes in calls.seen if name == "aten.copy_.default"]
        assert written == [(1, 2, 1, 16)] * 4


# --- selective scan -----------------------------------------------------------------------------------------


def scan_arguments(dtype=torch.float64):
    torch.manual_seed(0)
    batch, channels, state, length = 2, 3, 4, 5
    u = torch.randn(batch, channels, length, dtype=dtype)
    delta = torch.rand(batch, channels, length, dtype=dtype)
    A = -torch.rand(channels, state, dtype=dtype)
    B, C = (torch.randn(batch, state, length, dtype=dtype) for _ in range(2))
    return [x.requires_grad_() for x in (u, delta, A, B, C, torch.randn(channels, dtype=dtype))]


def scalar_scan(u, delta, A, B, C, D):
    """Equation 2 of arXiv:2312.00752, element by element."""
    y = []
    for b in range(u.shape[0]):
        for d in range(u.shape[1]):
            h = [0.0] * A.shape[1]
            for t in range(u.shape[2]):
                h = [
                    torch.exp(delta[b, d, t] * A[d, n]) * h[n] + delta[b, d, t] * B[b, n, t] * u[b, d, t]
                    for n in range(A.shape[1])
                ]
                y.append(sum(C[b, n, t] * h[n] for n in range(A.shape[1])) + D[d] * u[b, d, t])
    return torch.stack(y).reshape(u.shape)


def test_selective_scan_and_its_gradients_equal_the_scalar_loop():
    arguments = scan_arguments()
    y, expected = selective_scan(*arguments), scalar_scan(*arguments)
    torch.testing.assert_close(y, expected)
    weight = torch.randn_like(y)
    torch.testing.assert_close(
        torch.autograd.grad((y * weight).sum(), arguments),
        torch.autograd.grad((expected * weight).sum(), arguments),
    )
    assert torch.autograd.gradcheck(selective_scan, arguments)


def test_selective_scan_is_a_well_formed_operator():
    arguments = scan_arguments()
    torch.library.opcheck(selective_scan, arguments)
    without_grad = [x.detach() for x in arguments]
    torch.library.opcheck(selective_scan_backward, [torch.ones_like(arguments[0]), *without_grad])


def test_mamba_is_causal():
    torch.manual_seed(0)
    module = Mamba(layers=2, width=32, state=4, vocabulary=50).eval()
    tokens = torch.randint(50, (1, 7))
    with torch.no_grad():
        torch.testing.assert_close(module(tokens)[:, :4], module(tokens[:, :4]))


# --- checkpoints --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lstm_state():
    return {key: value + 1 for key, value in zoo.build("lstm_small", device="cpu").state_dict().items()}


def test_checkpoint_replaces_every_weight(lstm_state, tmp_path):
    torch.save(lstm_state, tmp_path / "lstm.pth")
    module = zoo.build("lstm_small", checkpoint=tmp_path / "lstm.pth")
    assert not module.training
    assert all(torch.equal(value, lstm_state[key]) for key, value in module.state_dict().items())


def test_checkpoint_in_several_files(lstm_state, tmp_path):
    keys = list(lstm_state)
    torch.save({key: lstm_state[key] for key in keys[:4]}, tmp_path / "a.bin")
    torch.save({key: lstm_state[key] for key in keys[4:]}, tmp_path / "b.bin")
    index = tmp_path / "model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {key: "ab"[i >= 4] + ".bin" for i, key in enumerate(keys)}}))
    module = zoo.build("lstm_small", checkpoint=index)
    assert all(torch.equal(value, lstm_state[key]) for key, value in module.state_dict().items())


def test_batch_norm_checkpoints_may_lack_the_batch_counter(tmp_path):
    # torchvision's oldest files do.
    state = zoo.build("mobilenet_v2", device="cpu").state_dict()
    kept = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    torch.save(kept, tmp_path / "m.pth")
    zoo.build("mobilenet_v2", checkpoint=tmp_path / "m.pth")


@pytest.mark.parametrize(
    ("name", "public", "own"),
    [
        ("bert_base", "bert.embeddings.LayerNorm.gamma", "embeddings.LayerNorm.weight"),
        ("bert_base", "bert.encoder.layer.0.output.LayerNorm.beta", "encoder.layer.0.output.LayerNorm.bias"),
        ("bert_base", "cls.predictions.transform.dense.weight", None),
        ("bert_base", "bert.embeddings.position_ids", None),
        ("gpt2", "h.0.attn.c_attn.bias", "transformer.h.0.attn.c_attn.bias"),
        ("gpt2", "h.0.attn.bias", None),
        ("gpt2", "transformer.h.0.attn.masked_bias", None),
        ("gpt2", "transformer.wte.weight", "transformer.wte.weight"),
        ("gpt2", "lm_head.weight", "transformer.wte.weight"),
        ("llama3_8b", "model.layers.0.self_attn.rotary_emb.inv_freq", None),
        ("mamba_130m", "backbone.embedding.weight", "backbone.embeddings.weight"),
        (
            "vit_b_16",
            "encoder.layers.encoder_layer_0.mlp.linear_2.bias",
            "encoder.layers.encoder_layer_0.mlp.3.bias",
        ),
    ],
)
def test_keys_of_public_checkpoints(name, public, own):
    from hwsim.zoo.checkpoint import rename

    assert rename(public, zoo.get(name).renames) == own
    assert own is None or own in zoo.build(name).state_dict()


def test_tied_weights_must_be_equal(tmp_path):
    from hwsim.zoo.checkpoint import load

    renames = zoo.get("gpt2").renames
    module = LANGUAGE_MODELS["gpt2"][0]()
    state = module.state_dict()
    state["lm_head.weight"] = state["transformer.wte.weight"].clone()
    torch.save(state, tmp_path / "gpt2.pt")
    load(module, tmp_path / "gpt2.pt", renames=renames)
    state["lm_head.weight"] += 1
    torch.save(state, tmp_path / "gpt2.pt")
    with pytest.raises(InputError, match=r"'lm_head.weight' differs from 'transformer.wte.weight'"):
        load(module, tmp_path / "gpt2.pt", renames=renames)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.pop("rnn.bias_hh_l1"), "key 'rnn.bias_hh_l1' is missing"),
        (lambda s: s.update(extra=torch.zeros(1)), "unexpected key 'extra'"),
        (
            lambda s: s.update({"decoder.bias": torch.zeros(3)}),
            r"'decoder.bias' has shape \(3,\), expected \(10000,\)",
        ),
        (lambda s: s.update(epoch=3), "expected a state_dict"),
    ],
)
def test_checkpoint_that_does_not_fit(edit, message, lstm_state, tmp_path):
    state = dict(lstm_state)
    edit(state)
    torch.save(state, tmp_path / "lstm.pt")
    with pytest.raises(InputError, match=message) as error:
        zoo.build("lstm_small", checkpoint=tmp_path / "lstm.pt")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("absent.pt", None, "cannot read the checkpoint: No such file or directory"),
        ("noise.pt", b"not a checkpoint", "not a readable checkpoint: "),
        ("empty.pth", b"", "not a readable checkpoint: "),
        (
            "weights.onnx",
            b"",
            "checkpoint: expected a file ending in .pt, .pth, .bin, .safetensors, .index.json",
        ),
        ("model.index.json", b"[]", "weight_map: expected a mapping of tensors to files, got None"),
    ],
)
def test_unreadable_checkpoint(file, content, message, tmp_path):
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        zoo.build("lstm_small", checkpoint=tmp_path / file)
    assert "\n" not in str(error.value)


def test_safetensors_needs_its_package(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(InputError, match=r"pip install hwsim\[safetensors\]"):
        zoo.build("lstm_small", checkpoint=tmp_path / "model.safetensors")


def test_safetensors(lstm_state, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(lstm_state, tmp_path / "model.safetensors")
    module = zoo.build("lstm_small", checkpoint=tmp_path / "model.safetensors")
    assert all(torch.equal(value, lstm_state[key]) for key, value in module.state_dict().items())


# --- options ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet500", {}, "model: unknown name 'resnet500'; did you mean 'resnet50'"),
        ("resnet50", {"seq_len": 8}, "seq_len: not an option of resnet50, which takes batch$"),
        (
            "mamba_130m",
            {"phase": "decode"},
            "phase: not an option of mamba_130m, which takes batch, seq_len$",
        ),
        ("resnet50", {"batch": -3}, "batch: expected an integer ≥ 1, got -3"),
        ("resnet50", {"batch": 0}, "batch: expected an integer ≥ 1, got 0"),
        ("resnet50", {"batch": True}, "batch: expected an integer ≥ 1, got True"),
        ("bert_base", {"seq_len": 1.5}, "seq_len: expected an integer ≥ 1, got 1.5"),
        ("gpt2", {"phase": "decode", "kv_len": 0}, "kv_len: expected an integer ≥ 1, got 0"),
        ("gpt2", {"phase": "train"}, "phase: unknown name 'train'; known: decode, prefill"),
        ("gpt2", {"phase": "decode", "seq_len": 5}, "seq_len: phase decode takes 1 token, got 5"),
        ("gpt2", {"kv_len": 5}, "kv_len: an option of phase decode only, got 5 in phase prefill"),
        ("gpt2", {"seq_len": 1025}, "gpt2: sequences hold at most 1024 tokens, got 1025"),
        ("gpt2", {"phase": "decode", "kv_len": 1024}, "gpt2: sequences hold at most 1024 tokens, got 1025"),
        ("bert_base", {"seq_len": 513}, "bert_base: sequences hold at most 512 tokens, got 513"),
    ],
)
def test_wrong_options(name, options, message):
    with pytest.raises(InputError, match=message):
        zoo.example_inputs(name, **options)


def test_decode_accepts_a_sequence_of_one():
    assert zoo.example_inputs("gpt2", phase="decode", seq_len=1)[0].shape == (1, 1)


def test_unknown_model():
    for function in (zoo.get, zoo.build, zoo.example_inputs):
        with pytest.raises(InputError, match="model: unknown name 'lama3_8b'; did you mean 'llama3_8b'"):
            function("lama3_8b")


def test_listing_does_not_import_torch():
    program = (
        "import sys; from hwsim import zoo; print([zoo.get(n).summary for n in zoo.names()]); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("name", zoo.names())
def test_every_model_is_described(name):
    model = zoo.get(name)
    assert model.name == name
    assert model.summary
    assert model.source
    assert model.input_description
    assert (model.published_macs is None) == (model.macs_note == "")
    assert ("seq_len" in model.options) == (model.seq_len is not None)
    assert ("phase" in model.options) == (model.kv_len is not None)
