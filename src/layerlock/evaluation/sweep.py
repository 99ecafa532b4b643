"""All readouts of an evaluation trained side by side on the same clips, each as if it were alone.

Readouts share what comes before their first weight: the encoder's pass and the normalisation of its features. After
that each has its own loss, and its graph is freed before the next one's is built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from layerlock.encoders import FrozenEncoder
from layerlock.errors import LayerlockError
from layerlock.evaluation.config import EvaluateConfig
from layerlock.evaluation.readouts import Setting, build_readout, shapes_of
from layerlock.evaluation.tasks import Task
from layerlock.features import Place, finite_clips
from layerlock.model.readout import Readout
from layerlock.train.schedule import learning_rate

TABLES = ("time", "query")
"""parameters that are not matrices, though they have two dimensions: no weight decay"""


class Sweep:
    """Readouts, their optimizer, and the sums that a constant prediction is made of, after `step` updates."""

    def __init__(
        self,
        config: EvaluateConfig,
        task: Task,
        settings: Sequence[Setting],
        encoders: Mapping[str, FrozenEncoder],
        device: torch.device,
    ) -> None:
        self.config, self.task, self.step = config, task, 0
        self.shapes = shapes_of(task, settings, encoders)
        self.readouts: dict[Setting, Readout] = {
            setting: build_readout(setting, encoders[setting.encoder], self.shapes[setting], config.seed).to(device)
            for setting in settings
        }
        self.optimizer = torch.optim.AdamW(self._groups(), betas=config.optim(1.0).betas, fused=True)
        self.summary: Tensor | None = None
        self.dropped: dict[Setting, str] = {}
        """readouts that train no more, and why"""

    def train_step(self, features: Mapping[Place, Tensor], target: Tensor) -> dict[Setting, Tensor]:
        """One update of every readout that is not dropped; returns their losses.

        Clips whose features are not finite teach those readouts nothing that would have read them. A readout whose loss
        is not finite is dropped, which changes nothing of the others. Raises LayerlockError where none is left.
        """
        summary = self.task.summary(target)
        if self.summary is None:
            self._begin_at(self.task.first_output(summary))
        self._schedule()
        steps = self._usable(features, target)
        live = [setting for setting in self.readouts if setting not in self.dropped]
        losses = {setting: self._backward(setting, *steps[setting.place]) for setting in live}
        self._drop(losses)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.summary = summary if self.summary is None else self.summary + summary
        self.step += 1
        return losses

    @torch.no_grad()
    def predict(self, setting: Setting, features: Mapping[Place, Tensor]) -> Tensor:
        """What one readout says of a batch, in the target's terms."""
        return self.task.predict(self.shapes[setting], self.readouts[setting].read(features[setting.place]))

    def _usable(self, features: Mapping[Place, Tensor], target: Tensor) -> dict[Place, tuple[Tensor, Tensor]]:
        """Features and target of the clips whose features are finite, at each place."""
        finite_of = finite_clips(features)
        if torch.stack(list(finite_of.values())).all():
            return {place: (x_bnd, target) for place, x_bnd in features.items()}
        return {place: (x_bnd[finite_of[place]], target[finite_of[place]]) for place, x_bnd in features.items()}

    def _backward(self, setting: Setting, x_bnd: Tensor, target: Tensor) -> Tensor:
        output_bqo = self.readouts[setting].read(x_bnd)
        loss = self.task.loss(self.task.predict(self.shapes[setting], output_bqo), target)
        loss.backward()
        return loss.detach()

    @torch.no_grad()
    def _begin_at(self, output: float) -> None:
        for readout in self.readouts.values():
            readout.out.bias.fill_(output)

    def _groups(self) -> list[dict[str, object]]:
        groups: list[dict[str, object]] = []
        for setting, readout in self.readouts.items():
            named = dict(readout.named_parameters())
            matrices = [name for name, parameter in named.items() if parameter.ndim == 2 and name not in TABLES]
            others = [name for name in named if name not in matrices]
            for names, decay in ((matrices, self.config.weight_decay), (others, 0.0)):
                parameters = [named[name] for name in names]
                groups.append({"params": parameters, "lr": setting.lr, "weight_decay": decay, "peak": setting.lr})
        return groups

    def _schedule(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config.optim(group["peak"]), self.config.steps, self.step, ())

    def _drop(self, losses: Mapping[Setting, Tensor]) -> None:
        if torch.stack(list(losses.values())).isfinite().all():
            return
        for setting, loss in losses.items():
            if not loss.isfinite():
                self.dropped[setting] = f"its loss is not finite at step {self.step}; a lower learning rate may help"
                for parameter in self.readouts[setting].parameters():
                    parameter.grad = None  # which the optimizer passes over
        if len(self.dropped) == len(self.readouts):
            setting, reason = next(iter(self.dropped.items()))
            raise LayerlockError(f"all {len(self.dropped)} readouts were dropped; the first, {setting}: {reason}")

    def check_taught(self, skipped: Mapping[str, str]) -> None:
        """Raises LayerlockError where none of the clips trained on had anything to learn from."""
        if self.summary is None or not self.summary.any():
            raise LayerlockError(
                f"no clip of the training part had a target for {self.task.name}; {len(skipped)} of its videos could "
                f"not be decoded{''.join(f'; the first: {path}: {why}' for path, why in [*skipped.items()][:1])}"
            )

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, by name; the tensors themselves."""
        found: dict[str, Tensor] = {}
        for setting, readout in self.readouts.items():
            for name, parameter in readout.named_parameters():
                found[f"{setting}/{name}"] = parameter.detach()
                for kind, value in self.optimizer.state.get(parameter, {}).items():
                    found[f"{setting}/{name}/{kind}"] = value
        return found if self.summary is None else found | {"summary": self.summary}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor], step: int) -> None:
        """Goes on from a `state` after `step` updates. KeyError or RuntimeError where it is of other readouts."""
        for setting, readout in self.readouts.items():
            for name, parameter in readout.named_parameters():
                full = f"{setting}/{name}"
                parameter.copy_(state[full])
                moments = {key.rpartition("/")[2]: key for key in (f"{full}/{kind}" for kind in MOMENTS)}
                if all(key in state for key in moments.values()):
                    self.optimizer.state[parameter] = {
                        kind: state[key].to(parameter.device) for kind, key in moments.items()
                    }
        summary = state.get("summary")
        device = next(iter(self.readouts.values())).norm.weight.device
        self.summary, self.step = None if summary is None else summary.to(device), step


MOMENTS = ("step", "exp_avg", "exp_avg_sq")
