"""From noise to latents: a loop over (t, s) pairs, and the solvers that make one step of it.

    z_0' = (x_t - sqrt(1 - a_t) eps) / sqrt(a_t),    x_s = sqrt(a_s) z_0' + sqrt(1 - a_s) eps    (DDIM)

References:
    Denoising Diffusion Implicit Models, Song et al., 2021 (eta = 0).
    DPM-Solver++, Lu et al., 2022, Algorithm 2 (second order, multistep, data prediction).
"""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from sine_cli.method.schedule import NoiseSchedule

Denoiser = Callable[[Tensor, int], Tensor]
"""(x_t of shape (B, C, h, w), t) -> the prediction, of the same shape."""


class Solver(Protocol):
    """One step of the reverse process. A solver may remember earlier steps: make a new one for each run."""

    def step(self, x_t: Tensor, prediction: Tensor, t: int, s: int) -> Tensor:
        """x_s, (B, C, h, w), from x_t and the model's prediction at t > s."""
        ...


class DDIM:
    """First order and deterministic (eta = 0)."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        self.schedule = schedule

    def step(self, x_t: Tensor, prediction: Tensor, t: int, s: int) -> Tensor:
        z_0, eps = self.schedule.split(x_t, prediction, t)
        a = self.schedule.alpha_bar_at(s)
        return a**0.5 * z_0 + (1 - a) ** 0.5 * eps


class DPMSolverPP:
    """DPM-Solver++(2M): second order from the last two clean estimates; first order at both ends."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        self.schedule = schedule
        self.last: tuple[Tensor, float] | None = None

    def step(self, x_t: Tensor, prediction: Tensor, t: int, s: int) -> Tensor:
        z_0, _ = self.schedule.split(x_t, prediction, t)
        a_t, a_s = self.schedule.alpha_bar_at(t), self.schedule.alpha_bar_at(s)
        lambda_t, lambda_s = _half_log_snr(a_t), _half_log_snr(a_s)
        data = z_0
        if self.last is not None and s >= 0:
            z_before, lambda_before = self.last
            r = (lambda_t - lambda_before) / (lambda_s - lambda_t)
            data = z_0 + (z_0 - z_before) / (2 * r)
        self.last = (z_0, lambda_t)
        decay = math.exp(lambda_t - lambda_s)
        return ((1 - a_s) / (1 - a_t)) ** 0.5 * x_t + a_s**0.5 * (1 - decay) * data


def _half_log_snr(alpha_bar: float) -> float:
    if not 0 < alpha_bar < 1:  # the picture itself, or pure noise where a base has zero terminal signal
        return math.inf if alpha_bar >= 1 else -math.inf
    return 0.5 * math.log(alpha_bar / (1 - alpha_bar))


SOLVERS: dict[str, Callable[[NoiseSchedule], Solver]] = {"ddim": DDIM, "dpm++": DPMSolverPP}


def sample(
    denoiser: Denoiser,
    x_T: Tensor,
    schedule: NoiseSchedule,
    solver: Solver,
    steps: int,
    on_step: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """Clean latents, (B, C, h, w), from noise x_T of that shape.

    `on_step` is called with the time t after each step.
    """
    return follow(denoiser, x_T, solver, schedule.pairs(steps), on_step)


def follow(
    denoiser: Denoiser,
    x_t: Tensor,
    solver: Solver,
    pairs: list[tuple[int, int]],
    on_step: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """x_s at the end of the pairs (t, s), (B, C, h, w), from x_t at their beginning; no pair leaves it."""
    for t, s in pairs:
        x_t = solver.step(x_t, denoiser(x_t, t), t, s)
        on_step(t)
    return x_t


def draw_noise(count: int, shape: tuple[int, int, int], seed: int) -> Tensor:
    """Noise for `count` pictures, (count, C, h, w), on the CPU in float32.

    Every picture has a generator of its own, seeded seed + index: a member of a batch can be made alone.
    """
    rows = [torch.randn(shape, generator=torch.Generator().manual_seed(seed + i)) for i in range(count)]
    return torch.stack(rows)
