"""The noise schedule: how much of the picture is left at time t, and what the model predicts.

    z_t = sqrt(alpha_bar_t) z_0 + sqrt(1 - alpha_bar_t) eps,    t = 0 .. T - 1

References:
    Denoising Diffusion Probabilistic Models, Ho et al., 2020 (epsilon).
    Progressive Distillation, Salimans and Ho, 2022 (v-prediction).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Prediction = Literal["epsilon", "v_prediction"]
Spacing = Literal["leading", "trailing", "linspace"]

CLEAN = -1
"""The time after the last step: the picture itself."""


@dataclass(frozen=True)
class NoiseSchedule:
    """A discrete diffusion process of T times.

    Args:
        alpha_bar: share of signal left at each time, (T,), falling, in (0, 1).
        prediction: what the model predicts, eps or v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) z_0.
        spacing: how times are chosen when there are fewer steps than T.
        offset: added to the times of `leading` spacing.
        final_alpha_bar: alpha_bar at the time `CLEAN`; 1, or alpha_bar[0] as Stable Diffusion has it.
    """

    alpha_bar: Tensor
    prediction: Prediction = "epsilon"
    spacing: Spacing = "leading"
    offset: int = 1
    final_alpha_bar: float = 1.0

    @property
    def T(self) -> int:
        return len(self.alpha_bar)

    def pairs(self, steps: int) -> list[tuple[int, int]]:
        """The (t, s) pairs of a sampling run, from noise to `CLEAN`; 1 <= steps <= T."""
        if self.spacing == "leading":
            # Where steps does not divide T, diffusers starts far from the noise: 501 steps at t = 501.
            room = self.T - 1 - (steps - 1) * self.T // steps  # none for an offset with T steps
            offset = min(self.offset, room)
            times = [i * self.T // steps + offset for i in reversed(range(steps))]
        elif self.spacing == "trailing":
            times = [round(self.T - i * self.T / steps) - 1 for i in range(steps)]
        else:
            times = [round(i * (self.T - 1) / max(steps - 1, 1)) for i in reversed(range(steps))]
        return list(zip(times, [*times[1:], CLEAN], strict=True))

    def alpha_bar_at(self, t: int) -> float:
        """alpha_bar at a time in 0 .. T - 1 or at `CLEAN`, in [0, 1]."""
        return self.final_alpha_bar if t == CLEAN else float(self.alpha_bar[t])

    def add_noise(self, z_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """z_t for clean latents z_0, (B, C, h, w), noise eps of the same shape and times t, (B,)."""
        a = self._per_row(t, z_0)
        return a.sqrt() * z_0 + (1 - a).sqrt() * eps

    def noised(self, z_0: Tensor, eps: Tensor, t: int) -> Tensor:
        """z_t of all rows at one time, (B, C, h, w); at `CLEAN` z_0 itself."""
        if t == CLEAN:
            return z_0
        a = self.alpha_bar_at(t)
        return a**0.5 * z_0 + (1 - a) ** 0.5 * eps

    def target(self, z_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What the model is to predict at times t, (B,): eps or v, (B, C, h, w)."""
        if self.prediction == "epsilon":
            return eps
        a = self._per_row(t, z_0)
        return a.sqrt() * eps - (1 - a).sqrt() * z_0

    def split(self, x_t: Tensor, prediction: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """The clean latents and the noise that a prediction at time t implies, each (B, C, h, w)."""
        a = self.alpha_bar_at(t)
        if self.prediction == "epsilon":
            return (x_t - (1 - a) ** 0.5 * prediction) / a**0.5, prediction
        return a**0.5 * x_t - (1 - a) ** 0.5 * prediction, a**0.5 * prediction + (1 - a) ** 0.5 * x_t

    def signal_to_noise(self, t: Tensor) -> Tensor:
        """alpha_bar / (1 - alpha_bar) at times t, (B,)."""
        a = self.alpha_bar.to(t.device)[t]
        return a / (1 - a)

    def _per_row(self, t: Tensor, like: Tensor) -> Tensor:
        return self.alpha_bar.to(like.device)[t].view(-1, *[1] * (like.ndim - 1)).to(torch.float32)
