"""From noise to latents: a loop over (t, s) pairs, and the solvers that make one step of it.

    z_0' = (x_t - sqrt(1 - a_t) eps) / sqrt(a_t),    x_s = sqrt(a_s) z_0' + sqrt(1 - a_s) eps    (DDIM)

References:
    Denoising Diffusion Implicit Models, Song et al., 2021 (eta = 0).
    Elucidating the Design Space of Diffusion-Based Generative Models, Karras et al., 2022 (Euler's method).
    DPM-Solver++, Lu et al., 2022, Algorithm 2 (second order, multistep, data prediction).
    UniPC, Zhao et al., 2023 (predictor and corrector).
"""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from sine_cli.method.schedule import CLEAN, NoiseSchedule

Denoiser = Callable[[Tensor, int], Tensor]
"""(x_t of shape (B, C, h, w), t) -> the prediction, of the same shape."""


Estimate = tuple[Tensor, float]
"""Clean latents z_0', (B, C, h, w), and lambda, half the log of signal to noise, where they were made."""


class Solver(Protocol):
    """One step of the reverse process.

    A solver may remember earlier steps: make a new one for each run. What it remembers it replaces, never
    changes, so that a copy goes on by itself.
    """

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


class Euler(DDIM):
    """Euler's method on the probability flow, d(x / sqrt(a)) = eps d sigma with sigma = sqrt((1 - a) / a).

    That is DDIM (its Eq. 13), but that the last step goes down to sigma 0, whatever the base ends at.
    """

    def step(self, x_t: Tensor, prediction: Tensor, t: int, s: int) -> Tensor:
        if s == CLEAN:
            return self.schedule.split(x_t, prediction, t)[0]
        return super().step(x_t, prediction, t, s)


class DPMSolverPP:
    """DPM-Solver++(2M): second order from the last two clean estimates; first order at both ends."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        self.schedule = schedule
        self.last: Estimate | None = None

    def step(self, x_t: Tensor, prediction: Tensor, t: int, s: int) -> Tensor:
        return self.advance(x_t, self.schedule.split(x_t, prediction, t)[0], t, s)

    def advance(self, x_t: Tensor, z_0: Tensor, t: int, s: int) -> Tensor:
        """x_s, (B, C, h, w), from x_t and the clean estimate z_0 at t."""
        lambda_t, data = self._half_log_snr(t), z_0
        if self.last is not None and s != CLEAN:
            z_before, lambda_before = self.last
            r = (lambda_t - lambda_before) / (self._half_log_snr(s) - lambda_t)
            data = z_0 + (z_0 - z_before) / (2 * r)
        self.last = (z_0, lambda_t)
        return self._integrate(x_t, data, t, s)

    def _integrate(self, x_t: Tensor, data: Tensor, t: int, s: int) -> Tensor:
        """x_s exactly, were the clean estimate `data` all the way from t to s."""
        a_t, a_s = self.schedule.alpha_bar_at(t), self.schedule.alpha_bar_at(s)
        decay = math.exp(self._half_log_snr(t) - self._half_log_snr(s))
        return ((1 - a_s) / (1 - a_t)) ** 0.5 * x_t + a_s**0.5 * (1 - decay) * data

    def _half_log_snr(self, t: int) -> float:
        a = self.schedule.alpha_bar_at(t)
        if not 0 < a < 1:  # the picture itself, or pure noise where a base has zero terminal signal
            return math.inf if a >= 1 else -math.inf
        return 0.5 * math.log(a / (1 - a))


class UniPC(DPMSolverPP):
    """UniPC of second order, B(h) = e^h - 1: DPM-Solver++(2M) predicts, and what the model predicts there
    corrects the step that led there.
    """

    def __init__(self, schedule: NoiseSchedule) -> None:
        super().__init__(schedule)
        self.start: tuple[Tensor, int, Estimate | None] | None = None

    def step(self, x_t: Tensor, prediction: Tensor, t: int, s: int) -> Tensor:
        z_0, _ = self.schedule.split(x_t, prediction, t)
        if self.start is not None and self.last is not None:
            x_t = self._corrected(*self.start, self.last, z_0, t)
        self.start = (x_t, t, self.last)
        return self.advance(x_t, z_0, t, s)

    def _corrected(
        self, x: Tensor, before: int, earlier: Estimate | None, last: Estimate, z_0: Tensor, t: int
    ) -> Tensor:
        """x_t anew, from x at the time before, the estimates there and earlier, and now that at t."""
        z_before, lambda_before = last
        h = self._half_log_snr(t) - lambda_before
        change = z_0 - z_before
        if earlier is None:
            return self._integrate(x, z_before + 0.5 * change, before, t)
        z_earlier, lambda_earlier = earlier
        r = (lambda_earlier - lambda_before) / h
        # The weights that make the step exact for estimates that are linear, then quadratic, in lambda
        phi_1 = math.expm1(-h)
        phi_2 = phi_1 / -h - 1
        b_1, b_2 = phi_2 / phi_1, 2 * (phi_2 / -h - 0.5) / phi_1
        c = (b_2 - b_1) / (r - 1)
        return self._integrate(x, z_before + c * (z_earlier - z_before) / r + (b_1 - c) * change, before, t)


SOLVERS: dict[str, Callable[[NoiseSchedule], Solver]] = {
    "ddim": DDIM,
    "euler": Euler,
    "dpm++": DPMSolverPP,
    "unipc": UniPC,
}


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
