"""Sums over rows of features, from which their covariance follows: memory does not grow with the rows."""

from __future__ import annotations

import torch
from torch import Tensor

CONSTANT = 1e-10
"""features whose variance is at most this share of the squared length of their mean differ by rounding alone"""


class Moments:
    """Count, sum and products of rows `[n, D]`, in float64."""

    def __init__(self, width: int, device: torch.device | None = None) -> None:
        self.count = 0
        self.sum_d = torch.zeros(width, dtype=torch.float64, device=device)
        self.product_dd = torch.zeros(width, width, dtype=torch.float64, device=device)

    @classmethod
    def of(cls, x_nd: Tensor) -> Moments:
        """Those of some rows."""
        return cls(x_nd.shape[-1], x_nd.device).add(x_nd)

    def add(self, x_nd: Tensor) -> Moments:
        """Some more rows."""
        x_nd = x_nd.double()
        self.count += len(x_nd)
        self.sum_d += x_nd.sum(0)
        self.product_dd += x_nd.T @ x_nd
        return self

    def mean(self) -> Tensor:
        """`[D]`."""
        return self.sum_d / self.count

    def covariance(self) -> Tensor:
        """Of the rows, without Bessel's correction, `[D, D]`."""
        return self.product_dd / self.count - torch.outer(self.mean(), self.mean())

    def centred(self) -> Tensor:
        """Eigenvalues of the covariance, the largest first, `[min(n - 1, D)]`: the others are 0. All are 0 where rows
        differ by rounding alone.
        """
        eigenvalue_d = _largest(self.covariance(), self.count - 1)
        varies = eigenvalue_d.sum() > CONSTANT * self.mean().square().sum()
        return eigenvalue_d if varies else torch.zeros_like(eigenvalue_d)

    def uncentred(self) -> Tensor:
        """Squared singular values of the rows over their number, the largest first, `[min(n, D)]`."""
        return _largest(self.product_dd / self.count, self.count)


def _largest(matrix_dd: Tensor, most: int) -> Tensor:
    """Eigenvalues of a symmetric matrix without those that rounding made, at most so many."""
    return torch.linalg.eigvalsh(matrix_dd).flip(0)[: max(most, 0)].clamp(min=0)
