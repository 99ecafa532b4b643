"""Figures of tokens against loops in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from layerlock.measures.tokens import displacement, token_cosine, uniformity


def tokens(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(seed)) + 1


def test_token_cosine_is_the_mean_over_pairs() -> None:
    x = tokens()
    flat = x.flatten(0, 1).double().numpy()
    flat = flat - flat.mean(1, keepdims=True)
    flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    pairs = [flat[i] @ flat[j] for i in range(14) for j in range(14) if i != j]
    assert token_cosine(x) == pytest.approx(np.mean(pairs), abs=1e-4)
    assert token_cosine(x[:1, :1].expand(2, 7, 12)) == pytest.approx(1, abs=1e-4)


def test_uniformity_is_the_mean_over_pairs() -> None:
    x = tokens().mean(1).repeat(3, 1) + tokens(1).flatten(0, 1)[:6]
    unit = x.double().numpy() / np.linalg.norm(x.double().numpy(), axis=1, keepdims=True)
    pairs = [np.exp(-2 * ((unit[i] - unit[j]) ** 2).sum()) for i in range(6) for j in range(i)]
    assert uniformity(x) == pytest.approx(np.log(np.mean(pairs)))
    assert uniformity(x[:1].expand(4, 12)) == pytest.approx(0, abs=1e-9)
    assert math.isnan(uniformity(x[:1]))


def test_displacement_is_relative_to_the_token_before() -> None:
    x = tokens()
    moved = [np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(tokens(1).view(14, 12), x.view(14, 12), strict=True)]
    assert displacement(x, x + tokens(1)) == pytest.approx(np.mean(moved), rel=1e-5)
    assert displacement(x, x) == 0
