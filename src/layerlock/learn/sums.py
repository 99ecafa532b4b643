"""What a regression needs of its data, added up batch by batch: memory does not grow with the rows."""

from __future__ import annotations

import torch
from torch import Tensor

from layerlock import exchange

RIDGE = 1e-3
"""penalty, as a share of the mean of the diagonal of the inputs' covariance"""


class Sums:
    """Counts, sums and products of inputs `[n, W]` and targets `[n, P]`, in float64: all that a regression needs."""

    def __init__(self, inputs: int, outputs: int, device: torch.device) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self.count = 0
        self.x_w, self.y_p = zeros(inputs), zeros(outputs)
        self.xx_ww, self.xy_wp, self.yy_p = zeros(inputs, inputs), zeros(inputs, outputs), zeros(outputs)

    def add(self, x_nw: Tensor, y_np: Tensor) -> None:
        """Some more rows."""
        x_nw, y_np = x_nw.double(), y_np.double()
        self.count += len(x_nw)
        self.x_w += x_nw.sum(0)
        self.y_p += y_np.sum(0)
        self.xx_ww += x_nw.T @ x_nw
        self.xy_wp += x_nw.T @ y_np
        self.yy_p += y_np.square().sum(0)

    def joined(self, other: Sums) -> Sums:
        """Those of both."""
        both = Sums(len(self.x_w), len(self.y_p), self.x_w.device)
        for name, value in vars(self).items():
            setattr(both, name, value + getattr(other, name))
        return both

    def add_up(self) -> None:
        """Those of all processes of the job."""
        count = torch.tensor(float(self.count), dtype=torch.float64, device=self.x_w.device)
        exchange.add_up([count, *(value for value in vars(self).values() if isinstance(value, Tensor))])
        self.count = int(count)

    def mean(self) -> Tensor:
        """Of the targets, `[P]`."""
        return self.y_p / self.count

    def variance(self) -> Tensor:
        """Of the targets, `[P]`."""
        return (self.yy_p / self.count - self.mean().square()).clamp(min=0)

    def regression(self, ridge: float = RIDGE) -> tuple[Tensor, Tensor]:
        """Weights `[W, P]` and bias `[P]` of the ridge regression, whose penalty is `ridge` times the mean of the
        diagonal of the inputs' covariance. Raises ValueError where there is none.
        """
        mean_w = self.x_w / self.count
        covariance_ww = self.xx_ww / self.count - torch.outer(mean_w, mean_w)
        covariance_wp = self.xy_wp / self.count - torch.outer(mean_w, self.mean())
        diagonal = covariance_ww.diagonal().mean()
        if not bool(covariance_ww.isfinite().all() and covariance_wp.isfinite().all()):
            raise ValueError("what it is given, or its target, is not finite")
        if self.count <= len(mean_w):
            raise ValueError(f"{self.count} tokens are too few for {len(mean_w)} inputs")
        if diagonal <= 1e-12 * (1 + mean_w.square().mean()):
            raise ValueError("what it is given is the same for all tokens")
        ridge_ww = ridge * diagonal * torch.eye(len(mean_w), dtype=torch.float64, device=mean_w.device)
        weight_wp = torch.linalg.solve(covariance_ww + ridge_ww, covariance_wp)
        return weight_wp, self.mean() - mean_w @ weight_wp

    def errors(self, weight_wp: Tensor, bias_p: Tensor) -> Tensor:
        """The mean squared error of each target, `[P]`, by a linear map."""
        inner_p = (weight_wp * (self.xx_ww @ weight_wp)).sum(0)
        fit_p = (weight_wp * self.xy_wp).sum(0)
        error_p = self.yy_p - 2 * fit_p + inner_p + 2 * bias_p * (self.x_w @ weight_wp - self.y_p)
        return error_p / self.count + bias_p.square()

    def explained(self, weight_wp: Tensor, bias_p: Tensor, unit_p: Tensor | float = 1.0) -> float:
        """The share of the targets' variance that a linear map explains; `unit_p` is what each counts as 1."""
        error_p = self.errors(weight_wp, bias_p) / unit_p**2
        return float(1 - error_p.sum() / (self.variance() / unit_p**2).sum().clamp(min=1e-30))
