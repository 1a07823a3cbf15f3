"""Which torch functions move values and which compute new ones, by name. A function that is in neither list has no rule."""

from __future__ import annotations

from typing import Any


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


MOVES = _names("""
    H T _adaptive_max_pool1d _adaptive_max_pool2d _adaptive_max_pool3d _max_pool1d _max_pool2d _max_pool3d
    _pack_padded_sequence _pad_packed_sequence adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d adjoint alias amax
    amin aminmax as_strided atleast_1d atleast_2d atleast_3d bfloat16 block_diag broadcast_tensors broadcast_to cat
    channel_shuffle chunk clone column_stack concat concatenate contiguous copy cpu cuda cummax cummin data detach diag
    diag_embed diagonal double dsplit dstack expand expand_as flatten flip fliplr flipud float gather getitem half hsplit
    hstack im2col index_copy index_put index_select kthvalue mH mT masked_fill masked_scatter masked_select max max_pool1d
    max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices max_unpool1d max_unpool2d
    max_unpool3d median meshgrid min mode moveaxis movedim msort nanmedian narrow native_channel_shuffle pad permute
    pin_memory pixel_shuffle pixel_unshuffle ravel real refine_names rename repeat repeat_interleave requires_grad reshape
    reshape_as resize_as retain_grad roll rot90 row_stack scatter select select_scatter setitem share_memory slice_scatter
    sort split split_with_sizes squeeze stack swapaxes swapdims t take take_along_dim tensor_split tile to topk transpose tril
    triu type type_as unbind unflatten unfold unsafe_chunk unsafe_split unsqueeze view view_as vsplit vstack where
""")  # fmt: skip
"""Functions whose results hold values of their operands (or constants) only: in the operands' format, nothing to round."""

COMPUTES = _names("""
    _safe_softmax _weight_norm abs absolute acos acosh adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d add addcdiv
    addcmul addr alpha_dropout angle arccos arccosh arcsin arcsinh arctan arctan2 arctanh asin asinh atan atan2 atanh
    avg_pool1d avg_pool2d avg_pool3d batch_norm binary_cross_entropy binary_cross_entropy_with_logits ceil celu clamp
    clamp_max clamp_min clip col2im copysign cos cosh cosine_embedding_loss cosine_similarity count_nonzero cross_entropy
    cross_entropy_loss ctc_loss cumprod cumsum deg2rad diff digamma dist div divide dropout dropout1d dropout2d dropout3d elu
    erf erfc erfinv exp exp2 expm1 feature_alpha_dropout feature_dropout fix float_power floor floor_divide floordiv fmax fmin
    fmod fold frac gaussian_nll_loss gelu ger glu grid_sample grid_sampler group_norm gumbel_softmax hann_window hardshrink
    hardsigmoid hardswish hardtanh heaviside hinge_embedding_loss huber_loss hypot i0 index_add index_fill index_reduce
    instance_norm interpolate kl_div l1_loss layer_norm ldexp leaky_relu lerp lgamma local_response_norm log log10 log1p log2
    log_softmax logaddexp logaddexp2 logcumsumexp logit logsigmoid logsumexp lp_pool1d lp_pool2d lp_pool3d margin_ranking_loss
    maximum mean minimum mish mod mse_loss mul multi_margin_loss multilabel_margin_loss multilabel_soft_margin_loss multiply
    mvlgamma nan_to_num nanmean nansum native_batch_norm native_dropout native_group_norm native_layer_norm neg negative
    nll_loss nll_loss_nd norm normalize outer pairwise_distance poisson_nll_loss polygamma positive pow prelu prod rad2deg
    radd rdiv reciprocal relu relu6 remainder renorm rfloordiv rmod rms_norm rmul round rpow rrelu rsqrt rsub rtruediv
    safe_softmax scatter_add scatter_reduce selu sgn sigmoid sign silu sin sinc sinh smooth_l1_loss soft_margin_loss softmax
    softmin softplus softshrink softsign sqrt square std std_mean sub subtract sum tan tanh tanhshrink threshold trace
    triplet_margin_loss true_divide truediv trunc upsample upsample_bilinear upsample_nearest var var_mean weight_norm xlogy
""")  # fmt: skip
"""Functions that compute floats from floats element by element, row by row or as a sum: results are rounded."""

STATEFUL = frozenset({"batch_norm", "instance_norm", "native_batch_norm"})
"""Functions that update buffers given to them, which are therefore passed on as they are."""

CONSTANT = _names("""
    allclose arange argmax argmin argsort as_tensor asarray bernoulli bincount bucketize empty empty_like empty_strided equal
    exponential eye fill from_numpy full full_like histc isin kaiming_uniform linspace logspace multinomial new_empty new_full
    new_ones new_tensor new_zeros nonzero normal one_hot ones ones_like poisson rand rand_like randint randint_like randn
    randn_like randperm scalar_tensor searchsorted tensor uniform unique xavier_uniform zero zeros zeros_like
""")  # fmt: skip
"""Functions whose results depend on no operand's value, or hold no real numbers that were computed."""

PASSIVE_GETTERS = frozenset({"T", "H", "mT", "mH", "data", "real"})


def base_name(func: Any) -> str:
    """The name of a torch function or method, without the marks of in-place and special methods."""
    name = str(getattr(func, "__name__", ""))
    if name == "__get__":
        return str(getattr(getattr(func, "__self__", None), "__name__", "__get__"))
    if name.startswith("__") and name.endswith("__"):
        inner = name.strip("_")
        return inner[1:] if is_in_place(func) else inner
    if name.startswith("special_"):
        name = name.removeprefix("special_")
    return name[:-1] if name.endswith("_") else name


_IN_PLACE = frozenset({"iadd", "isub", "imul", "itruediv", "idiv", "ifloordiv", "imod", "ipow"})


def is_in_place(func: Any) -> bool:
    """Whether a function writes its result into its first operand."""
    name = str(getattr(func, "__name__", ""))
    if name.startswith("__"):
        return name.strip("_") in _IN_PLACE
    return name.endswith("_")
