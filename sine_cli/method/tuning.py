"""Tuning: the adapter learns to predict the noise on parts of one picture, given where each part lies.

    L = E w(t) || eps - eps^(z_t, t, c^, F(v)) ||^2,    z_0 = E(I(v)),  t ~ U{t_min .. T - 1},  eps ~ N(0, 1)

The paper has w(t) = 1. Here w(t) = 1 + 1 / SNR(t), which makes it the loss of v: at high t, where a picture
is laid out, a small error of eps is a large one of the picture, and a few hundred steps cannot wait for it.

References:
    SINE, Eq. 1 and Sec. 3.3.  Progressive Distillation, Salimans and Ho, 2022 (v).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sine_cli.method.schedule import NoiseSchedule

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x_t (B, C, h, w), t (B,), boxes (B, 4)) -> the tuned model's prediction, (B, C, h, w), with gradients."""


@dataclass(frozen=True)
class Examples:
    """What is learned from, encoded ahead.

    Args:
        patches: latents of patches at the native size, (N, C, p, p); N may be 0.  boxes: theirs, (N, 4).
        whole: latents of the whole picture in its own aspect, (1, C, h, w).
    """

    patches: Tensor
    boxes: Tensor
    whole: Tensor


@dataclass(frozen=True)
class TuningPlan:
    """How to learn: counts, rates and ranges, as the manifest's `tune` has them.

    Args:
        steps: optimisation steps.  batch: examples a step.
        learning_rate, position_learning_rate: of the LoRA and of the position, at their highest.
        whole: share of steps on the whole picture, in [0, 1]; the others are on patches.
        min_timestep: t_min, the lowest time that is learned.
        seed: of all that is drawn.
    """

    steps: int
    batch: int
    learning_rate: float
    position_learning_rate: float
    whole: float
    min_timestep: int
    seed: int


class Tuning:
    """A tuning under way: `step()` until `done`. Its whole state can be saved and put back exactly."""

    WARM_UP = 20
    """Steps over which the learning rate rises to its highest, before it falls to zero."""

    def __init__(
        self,
        plan: TuningPlan,
        schedule: NoiseSchedule,
        examples: Examples,
        predict: Predict,
        lora: list[nn.Parameter],
        position: list[nn.Parameter],
    ) -> None:
        self.plan, self.schedule, self.examples, self.predict = plan, schedule, examples, predict
        self.parameters = [*lora, *position]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": lora, "peak": plan.learning_rate},
                {"params": position, "peak": plan.position_learning_rate},
            ],
            lr=plan.learning_rate,
            weight_decay=0.0,
            fused=True,
        )
        self.generator = torch.Generator().manual_seed(plan.seed)
        self.taken = 0

    @property
    def done(self) -> bool:
        return self.taken >= self.plan.steps

    def step(self) -> float:
        """One optimisation step; the loss before it."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * self._rate()
        z_0, boxes = self._draw_examples()
        eps = torch.randn(z_0.shape, generator=self.generator).to(z_0.device)
        t = torch.randint(self.plan.min_timestep, self.schedule.T, (len(z_0),), generator=self.generator)
        t = t.to(z_0.device)
        prediction = self.predict(self.schedule.add_noise(z_0, eps, t), t, boxes)
        loss = self._loss(prediction, self.schedule.target(z_0, eps, t), t)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.taken += 1
        return loss.item()

    def state(self) -> dict[str, Tensor]:
        """Parameters, optimiser, random state and step count; `load_state` puts them back exactly."""
        state = {"taken": torch.tensor(self.taken), "generator": self.generator.get_state()}
        for i, parameter in enumerate(self.parameters):
            state[f"parameter.{i}"] = parameter.detach().clone()
            for name, value in self.optimizer.state.get(parameter, {}).items():
                state[f"optimizer.{i}.{name}"] = value.clone()
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from a `state()` of a tuning of the same plan and shapes."""
        self.taken = int(state["taken"])
        self.generator.set_state(state["generator"])
        for i, parameter in enumerate(self.parameters):
            parameter.data.copy_(state[f"parameter.{i}"])
            prefix = f"optimizer.{i}."
            self.optimizer.state[parameter] = {
                name.removeprefix(prefix): value.to(
                    parameter.device
                )  # the fused step wants its count there too
                for name, value in state.items()
                if name.startswith(prefix)
            }

    def _loss(self, prediction: Tensor, target: Tensor, t: Tensor) -> Tensor:
        """The squared error of v, whichever the model predicts: an error of eps, (1 + 1 / SNR) times."""
        error = (prediction - target).square().mean(dim=(1, 2, 3))
        if self.schedule.prediction == "epsilon":
            error = error * (1 + 1 / self.schedule.signal_to_noise(t))
        return error.mean()

    def _draw_examples(self) -> tuple[Tensor, Tensor]:
        whole = torch.rand((), generator=self.generator).item() < self.plan.whole
        if whole or len(self.examples.patches) == 0:
            z_0 = self.examples.whole.expand(self.plan.batch, -1, -1, -1)
            return z_0, torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=z_0.device).expand(self.plan.batch, -1)
        chosen = torch.randint(len(self.examples.patches), (self.plan.batch,), generator=self.generator)
        chosen = chosen.to(self.examples.patches.device)
        return self.examples.patches[chosen], self.examples.boxes[chosen]

    def _rate(self) -> float:
        """Share of the highest learning rate: up over `WARM_UP` steps, then straight down to zero."""
        up = min(1.0, (self.taken + 1) / self.WARM_UP)
        return min(up, 1 - self.taken / self.plan.steps)
