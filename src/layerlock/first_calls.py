"""Calls torch's elementary functions once, on one number each; for whatever computes on several threads to import.

MKL 2024.2, which torch's wheels contain, finds out the processor at the first of these calls, without a lock. Where
several threads make that call together, some may be given kernels of low accuracy
(github.com/pytorch/pytorch/issues/188792), and now and then a process computes other numbers from the same seed.
One call settles it where the processor is found out once for all; the report says each function does so, hence all.
"""

from __future__ import annotations

import torch

FUNCTIONS = (
    *(torch.sin, torch.cos, torch.tan, torch.asin, torch.acos, torch.atan, torch.tanh),
    *(torch.exp, torch.log, torch.log2, torch.log10, torch.sqrt, torch.erf, torch.erfc, torch.erfinv),
)

for function in FUNCTIONS:
    for dtype in (torch.float32, torch.float64):
        function(torch.full((1,), 0.5, dtype=dtype, device="cpu"))
