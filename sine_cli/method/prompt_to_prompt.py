"""Prompt-to-Prompt: the edit attends to the places that the source prompt's words attend to.

    M_t = attention maps of eps(x_t, c^),    eps*_t = eps(x*_t, c) with the maps M_t for the words in common

Two pictures are made side by side from one noise, that of the inverted source: its reconstruction x_t with
the source prompt, and the edit x*_t with the target prompt, whose cross-attention maps are replaced while
t > K.

References:
    Prompt-to-Prompt Image Editing with Cross Attention Control, Hertz et al., ICLR 2023, Algorithm 1.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sine_cli.method.guidance import Backbone, Branch, mix


class AttentionMaps(Protocol):
    """The cross-attention maps of a backbone."""

    def recorded(self) -> AbstractContextManager[None]:
        """While it is open, the maps of the backbone's call are kept."""
        ...

    def replaced(self) -> AbstractContextManager[None]:
        """While it is open, the maps kept take the place of the call's own, for the words in common."""
        ...


@dataclass(frozen=True)
class PromptToPrompt:
    """A model of two rows, (x_t, t) -> eps~: the first is the reconstruction, the second the edit.

    Args:
        guidance_scale: w >= 1, for both rows.  switch_step: K in [0, T]; maps are replaced while t > K.
        null, source, target: the branches eps(z_t), eps(z_t, c^) and eps(z_t, c), all of the base.
    """

    backbone: Backbone
    maps: AttentionMaps
    guidance_scale: float
    switch_step: int
    null: Branch
    source: Branch
    target: Branch

    def __call__(self, x_t: Tensor, t: int) -> Tensor:
        """eps~ at time t, (2, C, h, w), for x_t of that shape."""
        with self.maps.recorded():
            (source,) = self.backbone(x_t[:1], t, [self.source])
        with self.maps.replaced() if t > self.switch_step else nullcontext():
            (target,) = self.backbone(x_t[1:], t, [self.target])
        conditional = torch.cat([source, target])
        if self.guidance_scale == 1:
            return conditional
        (null,) = self.backbone(x_t, t, [self.null])
        return mix([1 - self.guidance_scale, self.guidance_scale], [null, conditional])
