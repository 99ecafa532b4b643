"""The attention readout: the reference's outputs, the paper's sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import FIXTURES

from layerlock.model.patches import unpatchify
from layerlock.model.readout import AttentionReadout, EfficientReadout, LinearReadout, standardized


def test_depth_readout_is_the_references_to_1e_4() -> None:
    with np.load(FIXTURES / "4ds_readout_depth.npz") as archive:
        arrays = {name: torch.from_numpy(archive[name]) for name in archive.files}
    readout = AttentionReadout(64, times=4, channels=64, heads=4, outputs=128, queries=64)
    dense = {"key": "key_embedding", "value": "value_embedding", "mix": "Dense_0", "out": "Dense_1"}
    dense |= {"fc1": "MLP_0/Dense_0", "fc2": "MLP_0/Dense_1"}
    state = {"time": arrays["params/temporal_posenc/embeddings"], "query": arrays["params/query"].flatten(1)}
    for ours, theirs in dense.items():
        kernel = arrays[f"params/{theirs}/kernel"]
        state[f"{ours}.weight"] = kernel.reshape(kernel.shape[0], -1).T
        state[f"{ours}.bias"] = arrays[f"params/{theirs}/bias"].flatten()
    for ours, theirs in {"norm": "LayerNorm_0", "norm_mlp": "LayerNorm_1"}.items():
        state[f"{ours}.weight"], state[f"{ours}.bias"] = (arrays[f"params/{theirs}/{n}"] for n in ("scale", "bias"))
    readout.load_state_dict(state)
    with torch.no_grad():
        found = readout(arrays["features"].flatten(1, 2))
    depth = unpatchify(found, (4, 4, 4), (2, 8, 8))  # [B, T, 1, H, W]
    assert (depth.permute(0, 1, 3, 4, 2) - arrays["output"]).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("channels", "heads", "outputs", "queries", "millions"),
    [(768, 12, 174, 1, 7.03), (1024, 16, 128, 6272, 18.1), (1024, 16, 700, 1, 12.3)],
    ids=["SSv2", "ScanNet", "Kinetics"],
)
def test_parameters_are_the_papers(channels: int, heads: int, outputs: int, queries: int, millions: float) -> None:
    with torch.device("meta"):
        readout = AttentionReadout(1024, times=8, channels=channels, heads=heads, outputs=outputs, queries=queries)
    count = sum(p.numel() for p in readout.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.005)


def test_time_is_told_apart_and_place_within_a_frame_is_not() -> None:
    readout = AttentionReadout(16, times=3, channels=8, heads=2, outputs=5)
    with torch.no_grad():
        for parameter in readout.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)), alpha=0.5)
        x = torch.randn(2, 3, 4, 16)
        plain, in_frame, in_time = (readout(y.flatten(1, 2)) for y in (x, x.flip(2), x.flip(1)))
    assert torch.allclose(plain, in_frame, atol=1e-5)
    assert not torch.allclose(plain, in_time, atol=1e-3)


@pytest.mark.parametrize("queries", [1, 3])
def test_few_queries_are_read_as_the_paper_writes_it_with_the_same_gradients(queries: int) -> None:
    torch.manual_seed(0)
    readout = AttentionReadout(16, times=3, channels=24, heads=4, outputs=5, queries=queries)
    with torch.no_grad():
        for parameter in readout.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.5)
    x_bnd = standardized(torch.randn(2, 12, 16))
    folded, written = readout._attended_by_few(x_bnd), readout._attended(x_bnd)
    torch.testing.assert_close(folded, written, atol=1e-5, rtol=1e-5)
    weight = torch.randn_like(written)
    names = ["query", "time", "norm.weight", "norm.bias", "key.weight", "value.weight", "value.bias"]
    parameters = [readout.get_parameter(name) for name in names]
    for name, a, b in zip(
        names,
        torch.autograd.grad((folded * weight).sum(), parameters),
        torch.autograd.grad((written * weight).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4, msg=name)


def test_efficient_probing_is_a_mean_of_its_own_part_of_the_values_for_each_query() -> None:
    torch.manual_seed(0)
    readout = EfficientReadout(16, times=3, channels=12, queries=4, outputs=5)
    with torch.no_grad():
        for parameter in readout.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.5)
        x_bnd = standardized(torch.randn(2, 6, 16))
        found = readout.read(x_bnd).numpy()
    state = {name: parameter.numpy() for name, parameter in readout.state_dict().items()}
    for clip in range(2):
        y = x_bnd[clip].numpy() * state["norm.weight"] + state["norm.bias"] + state["time"][:, 0].repeat(2, axis=0)
        parts = []
        for query in range(4):
            score = np.exp(y @ state["query"][query] / 16**0.5)
            value = y @ state["value.weight"][3 * query : 3 * query + 3].T
            parts.append((score / score.sum()) @ value)
        wanted = np.concatenate(parts) @ state["out.weight"].T + state["out.bias"]
        np.testing.assert_allclose(found[clip, 0], wanted, rtol=1e-4, atol=1e-5)
    assert set(state) == {"norm.weight", "norm.bias", "time", "query", "value.weight", "out.weight", "out.bias"}


def test_the_linear_readout_is_one_map_of_the_normalised_mean_or_of_each_token() -> None:
    torch.manual_seed(0)
    x_bnd = torch.randn(2, 6, 16) * 3 + 1
    for pooled in (True, False):
        readout = LinearReadout(16, outputs=5, pooled=pooled)
        with torch.no_grad():
            readout.norm.weight.uniform_(0.5, 2)
            readout.norm.bias.normal_()
            y = torch.nn.functional.layer_norm(x_bnd, (16,), readout.norm.weight, readout.norm.bias, 1e-6)
            expected = readout.out(y.mean(1, keepdim=True) if pooled else y)
            torch.testing.assert_close(readout(x_bnd), expected, atol=1e-5, rtol=1e-5)
