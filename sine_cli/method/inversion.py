"""DDIM inversion: the noise from which deterministic sampling makes a given picture again.

    x_t = sqrt(a_t) z_0' + sqrt(1 - a_t) eps,    z_0' = (x_s - sqrt(1 - a_s) eps) / sqrt(a_s),    t > s

The step of DDIM, run backwards; its eps belongs to x_t, which is not known yet, so that of x_s is taken. The
picture comes back the more exactly the more steps there are.

References:
    Denoising Diffusion Implicit Models, Song et al., 2021, Sec. 4.3.
    Diffusion Models Beat GANs on Image Synthesis, Dhariwal and Nichol, 2021, Appendix F.
"""

from collections.abc import Callable

from torch import Tensor

from sine_cli.method.sampling import Denoiser
from sine_cli.method.schedule import NoiseSchedule


def invert(
    denoiser: Denoiser,
    z_0: Tensor,
    schedule: NoiseSchedule,
    steps: int,
    on_step: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """x_T, (B, C, h, w), that DDIM brings back to the latents z_0 of that shape in as many steps.

    `denoiser` is the model without guidance (w = 1), which would not be undone. `on_step` is called with the
    time t after each step.
    """
    x_s = z_0
    for t, s in reversed(schedule.pairs(steps)):
        _, eps = schedule.split(x_s, denoiser(x_s, t), t)
        a_t, a_s = schedule.alpha_bar_at(t), schedule.alpha_bar_at(s)
        clean = (x_s - (1 - a_s) ** 0.5 * eps) / a_s**0.5
        x_s = a_t**0.5 * clean + (1 - a_t) ** 0.5 * eps
        on_step(t)
    return x_s
