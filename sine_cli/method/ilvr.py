"""ILVR: after every step the low frequencies are those of the picture with as much noise.

    x_s = x_s' + phi_N(y_s) - phi_N(x_s'),    y_s = sqrt(a_s) y_0 + sqrt(1 - a_s) eps,    while t > K

phi_N is a low pass: smaller by N on each side, then back. The noise eps is that which sampling began with, as
a deterministic solver keeps it. With N = 1 nothing but y_s is left, and sampling begins at K: SDEdit.

References:
    ILVR: Conditioning Method for Denoising Diffusion Probabilistic Models, Choi et al., ICCV 2021.
"""

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import interpolate

from sine_cli.method.sampling import Solver
from sine_cli.method.schedule import NoiseSchedule


@dataclass(frozen=True)
class ILVR:
    """A solver around another one.

    Args:
        y_0: latents of the picture, (B, C, h, w).  eps: the noise that sampling begins with.
        factor: N >= 1.  switch_step: K in [0, T].
    """

    solver: Solver
    schedule: NoiseSchedule
    y_0: Tensor
    eps: Tensor
    factor: int
    switch_step: int

    def step(self, x_t: Tensor, prediction: Tensor, t: int, s: int) -> Tensor:
        x_s = self.solver.step(x_t, prediction, t, s)
        if t <= self.switch_step:
            return x_s
        y_s = self.schedule.noised(self.y_0, self.eps, s)
        return x_s + low_pass(y_s, self.factor) - low_pass(x_s, self.factor)


def low_pass(x: Tensor, factor: int) -> Tensor:
    """phi_N(x), (B, C, h, w): means over N x N cells, drawn out again."""
    height, width = x.shape[-2:]
    # Apple's GPUs refuse means over cells that do not divide the sides
    mean_of = x.cpu() if x.device.type == "mps" else x
    small = interpolate(mean_of, (math.ceil(height / factor), math.ceil(width / factor)), mode="area")
    return interpolate(small.to(x.device), (height, width), mode="bilinear")
