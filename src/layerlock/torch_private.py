"""All that is used of torch and is not public: operations of the CPU's kernels, the compiler's settings, what is in
force in a thread. Kernels and settings can be missing; `tests/test_torch_private.py` tells when one changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn, overrides
from torch.utils import _python_dispatch


def _has(library: Any, *names: str) -> bool:
    return all(hasattr(library, name) for name in names)


def takes_bfloat16() -> bool:
    """Whether oneDNN multiplies bfloat16 on this CPU, with weights that it has laid out before."""
    names = ("_is_mkldnn_bf16_supported", "_linear_pointwise", "_reorder_linear_weight")
    there = torch.backends.mkldnn.is_available() and _has(torch.ops.mkldnn, *names)
    return there and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def laid_out(weight: Tensor, rows: int) -> Tensor:
    """A bfloat16 weight `[out, in]` as oneDNN wants it for products of about `rows` rows; where `takes_bfloat16`."""
    layout: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), rows)
    return layout


def linear(x: Tensor, layout: Tensor, bias: Tensor | None, gelu: str | None) -> Tensor:
    """The product `[..., out]` of `x` `[..., in]` with a weight that is `laid_out`, and its GELU, `exact` or `tanh`."""
    kind, how = ("none", "") if gelu is None else ("gelu", "tanh" if gelu == "tanh" else "none")
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, layout, bias, kind, [], how)
    return y


def version_of(tensor: Tensor) -> int:
    """How often a tensor was written to."""
    return int(tensor._version)


def has_attention_sums() -> bool:
    """Whether `attention_and_sums` is there."""
    return _has(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu")


def attention_and_sums(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Attention on a CPU, and the logarithm of each row's sum in its softmax."""
    out, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
    return out, log_sum


def lerp(tensors: Sequence[Tensor], others: Sequence[Tensor], weight: float) -> None:
    """Moves each tensor by a share `weight` towards the other one, all in few kernels."""
    if _has(torch, "_foreach_lerp_"):
        torch._foreach_lerp_(list(tensors), list(others), weight)
    else:
        for tensor, other in zip(tensors, others, strict=True):
            tensor.lerp_(other, weight)


def allow_variants(count: int) -> None:
    """Lets torch.compile make at least so many variants of one function, in this process."""
    config = torch._dynamo.config
    if _has(config, "recompile_limit"):
        config.recompile_limit = max(count, config.recompile_limit)


def is_compiled(module: nn.Module) -> bool:
    """Whether a module's calls go through torch.compile."""
    return getattr(module, "_compiled_call_impl", None) is not None


def bound_to_this_thread() -> bool:
    """Whether something is in force that holds in the calling thread only: tracing, autocast, a mode, a profiler."""
    return (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch.is_autocast_enabled("cpu")
        or torch._C._autograd._profiler_enabled()
        or overrides._get_current_function_mode() is not None
        or _python_dispatch._get_current_dispatch_mode() is not None
        or torch._C._functorch.peek_interpreter_stack() is not None
    )
