from __future__ import annotations

import numpy as np
import torch

from layerlock.evaluation.probes import (
    ReadoutConfig,
    absolute_relative_error,
    fit_linear_probe,
    predict_labels,
    train_attention_probe,
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_linear_probe_is_ridge_regression_of_the_deviation_from_the_mean_image() -> None:
    features, target = noise(40, 6, 5) * 3 + 1, noise(40, 6, 2, seed=1) + 4
    probe = fit_linear_probe(features, target, ridge=0.1)
    flat = features.flatten(0, 1).numpy().astype(np.float64)
    x = (flat - flat.mean(0)) / flat.std(0)
    deviation = (target - target.mean(0)).flatten(0, 1).numpy()
    weight = np.linalg.solve(x.T @ x + 0.1 * len(x) * np.eye(5), x.T @ deviation)
    expected = (x @ weight).reshape(40, 6, 2) + target.mean(0).numpy()
    np.testing.assert_allclose(probe(features).numpy(), expected, atol=1e-5)


def test_features_that_say_nothing_predict_the_mean_image() -> None:
    target = noise(20, 4, 3)
    probe = fit_linear_probe(torch.ones(20, 4, 7), target)
    torch.testing.assert_close(probe(torch.ones(2, 4, 7)), target.mean(0).expand(2, 4, 3))


def test_absolute_relative_error_is_the_mean_over_pixels_of_each_clip() -> None:
    predicted, target = noise(3, 4, 5).exp(), noise(3, 4, 5, seed=2).exp()
    expected = [np.mean([abs(p - d) / (d + 1e-6) for p, d in zip(a.flatten(), b.flatten(), strict=True)])
                for a, b in zip(predicted.numpy(), target.numpy(), strict=True)]  # fmt: skip
    np.testing.assert_allclose(absolute_relative_error(predicted, target).numpy(), expected, rtol=1e-5)


def test_an_attention_probe_reads_the_order_of_events_and_depends_on_nothing_but_its_seed() -> None:
    # the same two events in both classes, one before the other: only the temporal position tells
    label = torch.arange(64) % 2
    features = noise(64, 4 * 2, 8, seed=3) * 0.3
    for clip, first in enumerate(label):
        features[clip, 0, 0] += 4 if first else -4
        features[clip, 6, 0] += -4 if first else 4
    config = ReadoutConfig(channels=16, heads=2, steps=250, batch=32, lr=1e-2)
    made = [train_attention_probe(features, label, times=4, classes=2, seed=s, config=config) for s in (0, 0, 1)]
    assert (predict_labels(made[0], features) == label).float().mean() > 0.95
    weights = [torch.cat([p.flatten() for p in probe.parameters()]) for probe in made]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
