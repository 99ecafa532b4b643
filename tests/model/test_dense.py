"""Dense layers: the type they compute in, and weights laid out once for frozen encoders on a CPU."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import MODEL
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from layerlock import torch_private
from layerlock.model.encoder import ClipShape, Encoder
from layerlock.model.vit import GELU, Dense, Norm, QueryKeyValue

needs_packing = pytest.mark.skipif(
    not torch_private.takes_bfloat16(),
    reason="oneDNN does not multiply bfloat16 on this CPU",
)


class Products(TorchDispatchMode):
    """Counts products with packed weights."""

    def __init__(self) -> None:
        super().__init__()
        self.packed = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.packed += func is torch.ops.mkldnn._linear_pointwise.default
        return func(*args, **(kwargs or {}))


def test_dense_layers_compute_in_the_type_of_their_input() -> None:
    dense = Dense(4, 3)
    assert dense(torch.ones(2, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert dense.weight.dtype == torch.float32


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kept", [torch.float32, torch.bfloat16])
def test_norms_compute_in_float32_whatever_the_types_of_input_and_weights(
    compute: torch.dtype, kept: torch.dtype
) -> None:
    norm, x = Norm(24), (5 * torch.randn(3, 24, generator=torch.Generator().manual_seed(0))).to(compute)
    nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(1))
    nn.init.normal_(norm.bias, generator=torch.Generator().manual_seed(2))
    norm.to(kept)
    wanted = F.layer_norm(x.double(), (24,), norm.weight.double(), norm.bias.double(), norm.eps)
    assert norm(x).dtype == compute
    torch.testing.assert_close(norm(x).double(), wanted.to(compute).double(), rtol=2**-8, atol=1e-5)


@needs_packing
@pytest.mark.parametrize("gelu", [None, "exact", "tanh"])
@pytest.mark.parametrize("shape", [(5, 64), (2, 9, 64), (1, 1, 64)])
def test_packed_layers_compute_the_same(gelu: GELU | None, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape).bfloat16()
    for plain in (Dense(64, 48), Dense(64, 48, bias=False), QueryKeyValue(64), QueryKeyValue(64, key_bias=False)):
        plain.to(torch.bfloat16)
        if plain.bias is not None:
            nn.init.normal_(plain.bias)
        packed = copy.deepcopy(plain)
        packed.pack(9)
        with torch.no_grad(), Products() as products:
            found = packed(x, gelu)
        assert products.packed == 1
        wanted = plain.float()(x.float(), gelu)
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.float(), wanted, rtol=2**-7, atol=2e-3)


@needs_packing
def test_packed_layers_follow_their_weights() -> None:
    def made() -> Dense:
        dense = Dense(64, 48).to(torch.bfloat16)
        dense.pack(4)
        return dense

    def written(dense: Dense) -> None:
        dense.weight[0, 0] = 100.0

    changes: tuple[Callable[[Dense], object], ...] = (
        written,
        lambda dense: dense.load_state_dict(Dense(64, 48).state_dict()),
        lambda dense: dense.load_state_dict(Dense(64, 48).to(torch.bfloat16).state_dict(), assign=True),
        lambda dense: dense.float().to(torch.bfloat16),
    )
    x = torch.randn(4, 64).bfloat16()
    for change in changes:
        dense = made()
        with torch.no_grad():
            change(dense)
            with Products() as products:
                found = dense(x)
        assert not products.packed
        assert torch.equal(found, F.linear(x, dense.weight, dense.bias))
    dense = made()
    dense(x.requires_grad_()).sum().backward()
    assert x.grad is not None
    assert dense.weight.grad is not None
    with torch.no_grad():
        assert made()(x.float()).dtype == torch.float32


@needs_packing
def test_packed_layers_can_be_copied_saved_and_made_in_inference_mode() -> None:
    dense, x = Dense(64, 48).to(torch.bfloat16), torch.randn(4, 64).bfloat16()
    dense.pack(4)
    with torch.no_grad():
        wanted = F.linear(x, dense.weight, dense.bias)
        for other in (copy.deepcopy(dense), pickle.loads(pickle.dumps(dense))):
            with Products() as products:
                assert torch.equal(other(x), wanted)
            assert not products.packed
            other.pack(4)
            with Products() as products:
                other(x)
            assert products.packed == 1
    with torch.inference_mode():
        made = Dense(64, 48).to(torch.bfloat16)
        made.pack(4)
        assert torch.equal(made(x), F.linear(x, made.weight, made.bias))


@needs_packing
def test_prepared_encoders_pack_their_weights_in_bfloat16() -> None:
    shape = ClipShape(frames=8, stride=1, size=24)
    encoder = Encoder.random(MODEL, shape).prepare("cpu", torch.bfloat16)
    clip = torch.rand(1, 8, 3, 24, 24)
    with Products() as products:
        encoder.forward_intermediates(clip, [MODEL.depth])
    assert products.packed == 1 + 4 * MODEL.depth
    assert list(encoder.state_dict()) == list(Encoder(MODEL, shape).state_dict())
    with Products() as products:
        encoder.prepare("cpu", torch.float32).forward_intermediates(clip, [MODEL.depth])
    assert not products.packed
