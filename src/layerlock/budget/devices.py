"""Devices that runs are planned for, from their vendors' data sheets, and the share of the peak that is reached."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from layerlock.errors import ConfigError

Precision = Literal["bf16", "fp32"]


@dataclass(frozen=True, kw_only=True)
class Device:
    """One device; nan for what nobody says."""

    name: str
    words: str
    peak: Mapping[Precision, float]
    """FLOP/s of dense matrix products; float32 without TF32, which is never switched on here"""
    memory: float
    """bytes"""
    bandwidth: float
    """bytes/s of that memory"""
    watts: float
    """board power at most; of a CPU its design power, without memory and host"""
    source: str
    cpu: bool = False


DEVICES = {
    device.name: device
    for device in (
        Device(
            name="h100",
            words="NVIDIA H100 SXM",
            peak={"bf16": 989e12, "fp32": 67e12},
            memory=80e9,
            bandwidth=3.35e12,
            watts=700.0,
            source="NVIDIA H100 Tensor Core GPU data sheet",
        ),
        Device(
            name="h200",
            words="NVIDIA H200 SXM",
            peak={"bf16": 989e12, "fp32": 67e12},
            memory=141e9,
            bandwidth=4.8e12,
            watts=700.0,
            source="NVIDIA H200 Tensor Core GPU data sheet",
        ),
        Device(
            name="a100",
            words="NVIDIA A100 SXM 80 GB",
            peak={"bf16": 312e12, "fp32": 19.5e12},
            memory=80e9,
            bandwidth=2.039e12,
            watts=400.0,
            source="NVIDIA A100 Tensor Core GPU data sheet",
        ),
        Device(
            name="cpu",
            words="Intel Xeon Platinum 8480+, 56 cores",
            peak={"bf16": 56 * 2.0e9 * 1024, "fp32": 56 * 2.0e9 * 64},
            memory=4e12,
            bandwidth=307.2e9,
            watts=350.0,
            source=(
                "Intel's product page: cores, 2.0 GHz base clock, 8 channels of DDR5-4800, at most 4 TB, 350 W; a core"
                " does 1,024 operations a cycle in bfloat16 (AMX) and 64 in float32 (AVX-512)"
            ),
            cpu=True,
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class Utilisation:
    """Model FLOPs utilisation (PaLM, arXiv 2204.02311, appendix B): FLOPs of the model, recomputation not among them,
    over what the device could do in the time of a step; and where the number is from.
    """

    share: float
    source: str


ASSUMED = Utilisation(
    share=0.3,
    source=(
        "an assumption, not a measurement: 30 to 40 % are published for images on A800 (LMMs-Engine, MFU reference),"
        " 38 to 43 % for Llama 3 405B on H100 (arXiv 2407.21783, Table 4)"
    ),
)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a run is planned for: `gpus` devices that divide each batch, their utilisation, price and power."""

    device: Device = DEVICES["h100"]
    gpus: int = 1
    utilisation: Utilisation = ASSUMED
    price: float = math.nan
    """of one device for an hour, in whatever currency; nan: not known"""
    currency: str = ""

    def problems(self) -> list[str]:
        """What is wrong, a line each."""
        found = []
        if self.gpus < 1:
            found.append(f"gpus: {self.gpus} is not positive")
        if not 0 < self.utilisation.share <= 1:
            found.append(f"mfu: {self.utilisation.share} must be above 0 and at most 1, a share of the device's peak")
        if self.price < 0 or math.isinf(self.price):
            found.append(f"price: {self.price} of a device hour is not a price")
        return found


def device_of(name: str) -> Device:
    """The device of that name. ConfigError where there is none."""
    if name not in DEVICES:
        raise ConfigError([f"device: {name!r} is not known; there are: {', '.join(DEVICES)}, measured"])
    return DEVICES[name]
