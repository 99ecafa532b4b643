"""The attention readout: the reference's outputs, the paper's sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import FIXTURES

from layerlock.model.patches import unpatchify
from layerlock.model.readout import AttentionReadout


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
