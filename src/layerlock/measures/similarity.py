"""How alike the features of the same clips are, of two depths or two encoders: linear CKA, biased and unbiased.

Kornblith et al., arXiv 1905.00414; minibatches: Nguyen et al., arXiv 2010.15327, with the unbiased estimator of HSIC of
Song et al. (2012). pytorch-cka and ckatorch, weighed for this, put hooks into PyTorch modules and run the models
themselves, one pair of them at a time; here features come from one pass, and all pairs of depths in one product.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from layerlock.measures.moments import CONSTANT


def grams(features: Sequence[Tensor], *, unbiased: bool) -> Tensor:
    """What HSIC is the inner product of, for the features `[B, D]` of each place of the same B clips: `[P, B, B]`.

    Gram matrices, biased: with rows and columns centred; unbiased: without their diagonal and U-centred, for which B
    must be above 3.
    """
    gram_pbb = torch.stack([x_bd @ x_bd.T for x_bd in (x_bd.double() for x_bd in features)])
    b = gram_pbb.shape[-1]
    if not unbiased:
        row_pb1 = gram_pbb.mean(2, keepdim=True)
        return gram_pbb - row_pb1 - row_pb1.mT + row_pb1.mean(1, keepdim=True)
    if b < 4:
        raise ValueError(f"{b} clips are too few for an unbiased estimate, which needs 4")
    off_pbb = gram_pbb - torch.diag_embed(gram_pbb.diagonal(dim1=1, dim2=2))
    row_pb1 = off_pbb.sum(2, keepdim=True) / (b - 2)
    centred_pbb = off_pbb - row_pb1 - row_pb1.mT + row_pb1.sum(1, keepdim=True) / (b - 1)
    return centred_pbb - torch.diag_embed(centred_pbb.diagonal(dim1=1, dim2=2))


class Alignment:
    """HSIC of every place with every other, added up over minibatches, each weighted by its clips."""

    def __init__(self, *, unbiased: bool) -> None:
        self.unbiased, self.hsic_pp, self.length_p, self.batches = unbiased, torch.zeros(()), torch.zeros(()), 0

    def add(self, features: Sequence[Tensor]) -> None:
        """Features `[B, D]` of the same clips at every place, always in one order."""
        flat_pn = grams(features, unbiased=self.unbiased).flatten(1)
        b = len(features[0])
        self.hsic_pp = self.hsic_pp + b * flat_pn @ flat_pn.T / (b * (b - 3) if self.unbiased else (b - 1) ** 2)
        self.length_p = self.length_p + b * torch.stack([x.double().square().sum(1).mean().square() for x in features])
        self.batches += 1

    def cka(self) -> Tensor:
        """Linear CKA `[P, P]`: in [0, 1] if biased; unbiased near 0 for independent features, and NaN where HSIC of a
        place with itself is not positive. NaN too where the features of a place differ by rounding alone.
        """
        own_p = self.hsic_pp.diagonal()
        varies_p = own_p > CONSTANT**2 * self.length_p
        scale_pp = torch.outer(own_p, own_p).sqrt()
        return torch.where(varies_p & varies_p[:, None], self.hsic_pp / scale_pp, torch.nan)
