"""Names, sources and published figures of the models. No torch here: definitions load when built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from hwsim.views.display import displayed
from numerics.errors import unknown_name

if TYPE_CHECKING:
    from torch import nn


@displayed
@dataclass(frozen=True, kw_only=True)
class ZooModel:
    """A model that can be built by name.

    Attributes:
        name: what ``get`` knows it by.
        summary: one line for listings.
        source: where its architecture is defined.
        build: makes the module with random weights on the current default device.
        inputs: makes the arguments of its ``forward`` from batch, seq_len and kv_len (None in prefill).
        input_description: shape and meaning of those arguments.
        options: which of ``batch``, ``seq_len``, ``kv_len`` and ``phase`` the inputs depend on.
        published_parameters: elements of its distinct parameters, as published or from the published sizes.
        published_macs: multiply-accumulates of one forward pass, as a source outside this package has them.
        macs_note: who published ``published_macs``, and for which inputs.
        batch: default batch size.
        seq_len: default tokens a sequence (prefill).
        kv_len: default tokens already in the cache (decode).
        max_positions: rows of its position table, where sequences cannot be longer.
        renames: (regular expression, replacement) pairs that, applied in order, turn the keys of public
            checkpoints into this module's; ``None`` drops a key (a computed buffer, another task's head).
    """

    name: str
    summary: str
    source: str
    build: Callable[[], nn.Module]
    inputs: Callable[..., tuple[Any, ...]]
    input_description: str
    options: frozenset[str]
    published_parameters: int
    published_macs: int | None = None
    macs_note: str = ""
    batch: int = 1
    seq_len: int | None = None
    kv_len: int | None = None
    max_positions: int | None = None
    renames: tuple[tuple[str, str | None], ...] = ()


def names() -> tuple[str, ...]:
    """Names of all models, in the order they are listed."""
    return tuple(_MODELS)


def get(name: str) -> ZooModel:
    """The model called ``name``.

    Raises:
        InputError: no such model.
    """
    if name not in _MODELS:
        raise unknown_name("model", name, names())
    return _MODELS[name]


def _lazy(target: str, **preset: Any) -> Callable[..., Any]:
    """A call of ``module:function`` of this package with ``preset`` keywords, imported when called."""
    module, function = target.split(":")

    def call(**keywords: Any) -> Any:
        return getattr(import_module(f"hwsim.zoo.{module}"), function)(**preset, **keywords)

    return call


_BATCH = frozenset({"batch"})
_SEQUENCES = frozenset({"batch", "seq_len"})
_CAUSAL_LM = frozenset({"batch", "seq_len", "kv_len", "phase"})
_IMAGE_DESCRIPTION = "images [batch, 3, {0}, {0}]"
_CAUSAL_LM_DESCRIPTION = (
    "prefill: tokens [batch, seq_len]; decode: tokens [batch, 1] and, for each layer, a cache of "
    "keys and values [batch, kv_heads, kv_len + 1, head_dim]"
)
_TORCHVISION = "torchvision's model table, batch 1, 224×224"

_LLAMA3_8B = {
    "layers": 32,
    "width": 4096,
    "heads": 32,
    "kv_heads": 8,
    "feed_forward": 14336,
    "vocabulary": 128256,
}
_LLAMA3_70B = {
    "layers": 80,
    "width": 8192,
    "heads": 64,
    "kv_heads": 8,
    "feed_forward": 28672,
    "vocabulary": 128256,
}
_LLAMA3_CACHE = {"kv_heads": 8, "head_dim": 128, "vocabulary": 128256}
_LLAMA_RENAMES = ((r".*\.rotary_emb\.inv_freq", None),)

CRITEO_TERABYTE_ROWS = (
    39884406, 39043, 17289, 7420, 20263, 3, 7120, 1543, 63, 38532951, 2953546, 403346, 10,
    2208, 11938, 155, 4, 976, 14, 39979771, 25641295, 39664984, 585935, 12972, 108, 36,
)  # fmt: skip
"""Rows of the 26 embedding tables of MLPerf's DLRM: Criteo Terabyte's categories, at most 40 million each."""

_MODELS = {
    model.name: model
    for model in (
        ZooModel(
            name="alexnet",
            summary="AlexNet of 2012: convolutions in two groups, local response normalisation",
            source="Krizhevsky, Sutskever, Hinton, NeurIPS 2012",
            build=_lazy("alexnet:AlexNet"),
            inputs=_lazy("inputs:images", size=227),
            input_description=_IMAGE_DESCRIPTION.format(227),
            options=_BATCH,
            published_parameters=60_965_224,
            published_macs=724_000_000,
            macs_note="Sze et al., Proc. IEEE 105(12), 2017, table 2, batch 1",
        ),
        ZooModel(
            name="alexnet_torchvision",
            summary="AlexNet without groups, as torchvision has it",
            source="Krizhevsky, arXiv:1404.5997",
            build=_lazy("alexnet:AlexNetTorchvision"),
            inputs=_lazy("inputs:images", size=224),
            input_description=_IMAGE_DESCRIPTION.format(224),
            options=_BATCH,
            published_parameters=61_100_840,
            published_macs=714_000_000,
            macs_note=_TORCHVISION,
        ),
        ZooModel(
            name="vgg16",
            summary="VGG-16: 13 convolutions 3×3 and 3 fully connected layers",
            source="Simonyan, Zisserman, arXiv:1409.1556, configuration D",
            build=_lazy("vgg:VGG16"),
            inputs=_lazy("inputs:images", size=224),
            input_description=_IMAGE_DESCRIPTION.format(224),
            options=_BATCH,
            published_parameters=138_357_544,
            published_macs=15_470_000_000,
            macs_note=_TORCHVISION,
        ),
        ZooModel(
            name="resnet18",
            summary="ResNet-18: 8 residual blocks of two 3×3 convolutions",
            source="He et al., arXiv:1512.03385",
            build=_lazy("resnet:resnet18"),
            inputs=_lazy("inputs:images", size=224),
            input_description=_IMAGE_DESCRIPTION.format(224),
            options=_BATCH,
            published_parameters=11_689_512,
            published_macs=1_814_000_000,
            macs_note=_TORCHVISION,
        ),
        ZooModel(
            name="resnet50",
            summary="ResNet-50 v1.5: 16 bottleneck blocks, stride in the 3×3 convolution",
            source="He et al., arXiv:1512.03385; v1.5 of torchvision and MLPerf",
            build=_lazy("resnet:resnet50"),
            inputs=_lazy("inputs:images", size=224),
            input_description=_IMAGE_DESCRIPTION.format(224),
            options=_BATCH,
            published_parameters=25_557_032,
            published_macs=4_089_000_000,
            macs_note=_TORCHVISION,
        ),
        ZooModel(
            name="mobilenet_v2",
            summary="MobileNetV2: inverted residuals with depthwise convolutions",
            source="Sandler et al., arXiv:1801.04381",
            build=_lazy("mobilenet:MobileNetV2"),
            inputs=_lazy("inputs:images", size=224),
            input_description=_IMAGE_DESCRIPTION.format(224),
            options=_BATCH,
            published_parameters=3_504_872,
            published_macs=300_000_000,
            macs_note="the paper's table 4, batch 1, 224×224",
        ),
        ZooModel(
            name="efficientnet_b0",
            summary="EfficientNet-B0: inverted residuals with squeeze and excitation",
            source="Tan, Le, arXiv:1905.11946",
            build=_lazy("efficientnet:EfficientNetB0"),
            inputs=_lazy("inputs:images", size=224),
            input_description=_IMAGE_DESCRIPTION.format(224),
            options=_BATCH,
            published_parameters=5_288_548,
            published_macs=386_000_000,
            macs_note=_TORCHVISION,
        ),
        ZooModel(
            name="vit_b_16",
            summary="ViT-B/16: a 12-layer transformer over 16×16 patches",
            source="Dosovitskiy et al., arXiv:2010.11929",
            build=_lazy("vit:ViTB16"),
            inputs=_lazy("inputs:images", size=224),
            input_description=_IMAGE_DESCRIPTION.format(224),
            options=_BATCH,
            published_parameters=86_567_656,
            published_macs=17_564_000_000,
            macs_note=_TORCHVISION,
            renames=((r"(.*\.mlp)\.linear_1\.(.*)", r"\1.0.\2"), (r"(.*\.mlp)\.linear_2\.(.*)", r"\1.3.\2")),
        ),
        ZooModel(
            name="bert_base",
            summary="BERT-base (uncased): a 12-layer encoder with pooler, one segment, no padding",
            source="Devlin et al., arXiv:1810.04805",
            build=_lazy("bert:Bert"),
            inputs=_lazy("inputs:tokens", vocabulary=30522),
            input_description="tokens [batch, seq_len]",
            options=_SEQUENCES,
            published_parameters=109_482_240,
            published_macs=11_250_000_000,
            macs_note="Sun et al. (MobileBERT), arXiv:2004.02984, table 4: 22.5 GFLOPs, batch 1, 128 tokens",
            seq_len=128,
            max_positions=512,
            renames=(
                (r"bert\.(.*)", r"\1"),
                (r"(.*)\.gamma", r"\1.weight"),
                (r"(.*)\.beta", r"\1.bias"),
                (r"cls\..*|.*\.position_ids", None),
            ),
        ),
        ZooModel(
            name="gpt2",
            summary="GPT-2 small: a 12-layer decoder, tied output embedding",
            source="Radford et al., Language models are unsupervised multitask learners, 2019",
            build=_lazy("gpt2:GPT2"),
            inputs=_lazy("inputs:causal_lm", layers=12, kv_heads=12, head_dim=64, vocabulary=50257),
            input_description=_CAUSAL_LM_DESCRIPTION,
            options=_CAUSAL_LM,
            published_parameters=124_439_808,
            seq_len=512,
            kv_len=1023,
            max_positions=1024,
            renames=(
                (r"((wte|wpe|h|ln_f)\..*)", r"transformer.\1"),
                (r".*\.attn\.(masked_)?bias", None),
                (r"lm_head\.weight", "transformer.wte.weight"),
            ),
        ),
        ZooModel(
            name="llama3_8b",
            summary="Llama 3 8B: a 32-layer decoder, 32 query heads on 8 key/value heads",
            source="Grattafiori et al., arXiv:2407.21783, table 3",
            build=_lazy("llama:Llama", **_LLAMA3_8B),
            inputs=_lazy("inputs:causal_lm", layers=32, **_LLAMA3_CACHE),
            input_description=_CAUSAL_LM_DESCRIPTION,
            options=_CAUSAL_LM,
            published_parameters=8_030_261_248,
            seq_len=512,
            kv_len=1024,
            renames=_LLAMA_RENAMES,
        ),
        ZooModel(
            name="llama3_70b",
            summary="Llama 3 70B: an 80-layer decoder, 64 query heads on 8 key/value heads",
            source="Grattafiori et al., arXiv:2407.21783, table 3",
            build=_lazy("llama:Llama", **_LLAMA3_70B),
            inputs=_lazy("inputs:causal_lm", layers=80, **_LLAMA3_CACHE),
            input_description=_CAUSAL_LM_DESCRIPTION,
            options=_CAUSAL_LM,
            published_parameters=70_553_706_496,
            seq_len=512,
            kv_len=1024,
            renames=_LLAMA_RENAMES,
        ),
        ZooModel(
            name="mamba_130m",
            summary="Mamba 130M: 24 selective state-space layers, tied output embedding",
            source="Gu, Dao, arXiv:2312.00752",
            build=_lazy("mamba:Mamba"),
            inputs=_lazy("inputs:tokens", vocabulary=50280),
            input_description="tokens [batch, seq_len]",
            options=_SEQUENCES,
            published_parameters=129_135_360,
            seq_len=512,
            renames=(
                (r"backbone\.embedding\.(.*)", r"backbone.embeddings.\1"),
                (r"lm_head\.weight", "backbone.embeddings.weight"),
            ),
        ),
        ZooModel(
            name="dlrm",
            summary="DLRM of MLPerf: 26 embedding tables (96 GB in fp32), pairwise interaction, two MLPs",
            source="Naumov et al., arXiv:1906.00091; MLPerf's Criteo Terabyte configuration",
            build=_lazy("dlrm:DLRM", rows=CRITEO_TERABYTE_ROWS),
            inputs=_lazy("inputs:clicks", rows=CRITEO_TERABYTE_ROWS),
            input_description="dense features [batch, 13] and one row index a table [batch, 26]",
            options=_BATCH,
            published_parameters=24_036_595_969,
        ),
        ZooModel(
            name="lstm_small",
            summary="A 2-layer LSTM language model of 200 units",
            source="Zaremba, Sutskever, Vinyals, arXiv:1409.2329, the non-regularised configuration",
            build=_lazy("lstm:LSTM"),
            inputs=_lazy("inputs:tokens", vocabulary=10_000),
            input_description="tokens [batch, seq_len]",
            options=_SEQUENCES,
            published_parameters=4_653_200,
            seq_len=20,
        ),
        ZooModel(
            name="mlp0",
            summary="MLP0 of the TPU paper: 5 fully connected layers, 20M weights (widths are a guess)",
            source="Jouppi et al., ISCA 2017, table 1",
            build=_lazy("mlp:MLP0"),
            inputs=_lazy("inputs:features", width=2000),
            input_description="features [batch, 2000]",
            options=_BATCH,
            published_parameters=20_000_000,
            published_macs=4_000_000_000,
            macs_note="the paper's table 1: 200 operations a weight byte at batch 200",
            batch=200,
        ),
    )
}
