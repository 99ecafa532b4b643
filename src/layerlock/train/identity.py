"""What makes a run the one it is, beside its config; a run is resumed as itself or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from layerlock import together
from layerlock.config import Config
from layerlock.errors import ConfigError, LayerlockError
from layerlock.settings import to_dict
from layerlock.train.device import pick_precision
from layerlock.train.folder import flat
from layerlock.train.same_plan import differences


@dataclass(frozen=True, kw_only=True)
class Identity:
    """`data` is the fingerprint of the source, `plan` what tells the plan from others (`plan_facts`), `networks` the
    fingerprints of the frozen encoders whose features are targets, `device` and `precision` what was computed on and
    in, `auto` resolved, `threads` how many shared a batch on a CPU (0 elsewhere), `processes` how many a job has.
    """

    data: str
    plan: dict[str, Any]
    networks: dict[str, str]
    device: str
    precision: str
    threads: int
    processes: int

    def refuse_another(self, began: Identity, config: Config) -> None:
        """Raises LayerlockError where the data, ConfigError where the plan or the precision are not those that a run
        began with. Another device, and other numbers of threads and processes, are none: they compute the same up to
        rounding.
        """
        if began.data != self.data:
            raise LayerlockError(
                f"{config.data}: its videos are not those that this run was trained on, so that it would not go "
                "on exactly; begin a new run with --init-from"
            )
        different = differences(began.plan, self.plan)
        different += [
            f"{config.network_field(name)}: the weights of {name} are not those that the run to resume began with"
            for name, weights in self.networks.items()
            if began.networks.get(name, weights) != weights
        ]
        if began.precision != self.precision:
            different.append(
                f"run.precision: the run to resume computes in {began.precision}, now {config.run.precision} is "
                f"{self.precision} on {self.device}; say --run.precision {began.precision}"
            )
        if different:
            raise ConfigError(different)


def refuse_different(config: Config, device: torch.device) -> None:
    """Raises ConfigError where a process of a job was told something else than the first one, or would compute on
    another kind of device or in another precision.
    """
    found = {"run.device": device.type, "run.precision": str(pick_precision(config.run, device))}
    together.agree(flat(to_dict(config)) | found)
