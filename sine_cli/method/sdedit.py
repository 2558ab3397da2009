"""SDEdit: the picture is given noise up to a time t_0, and sampled from there with other words.

    x_{t_0} = sqrt(a_{t_0}) z_0 + sqrt(1 - a_{t_0}) eps,    t_0 = strength T

References:
    SDEdit: Guided Image Synthesis and Editing with Stochastic Differential Equations, Meng et al., ICLR 2022.
"""

from collections.abc import Callable

from torch import Tensor

from sine_cli.method.sampling import Denoiser, Solver, follow
from sine_cli.method.schedule import NoiseSchedule


def sdedit(
    denoiser: Denoiser,
    z_0: Tensor,
    eps: Tensor,
    schedule: NoiseSchedule,
    solver: Solver,
    steps: int,
    strength: float,
    on_step: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """The edited latents, (B, C, h, w).

    Args:
        z_0: latents of the picture.  eps: noise of their shape.
        steps: of a whole sampling run, from which the first (1 - strength) of them are left out.
        strength: in [0, 1]; 0 gives z_0 back, and at 1 nothing of it is left: plain sampling from eps.
    """
    pairs = schedule.pairs(steps)
    left = pairs[len(pairs) - round(strength * steps) :]
    if not left:
        return z_0
    start = eps if left == pairs else schedule.noised(z_0, eps, left[0][0])
    return follow(denoiser, start, solver, left, on_step)
