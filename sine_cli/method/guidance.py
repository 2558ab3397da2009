"""Model-based classifier-free guidance: which predictions a step needs, and how they mix.

    Eq. 2    eps~ = w eps(z_t, c) + (1 - w) eps(z_t)                                   t <= K
    Eq. 3    eps~ = w (v eps(z_t, c) + (1 - v) eps^(z_t, c^)) + (1 - w) eps(z_t)       t >  K

Both are one weighted sum over three branches whose weights add up to one. A branch without weight is
never evaluated, so a step costs three model rows while t > K, two after, and one where w = 1.

References:
    SINE, Sec. 3.2.  Classifier-Free Diffusion Guidance, Ho and Salimans, 2022.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Branch:
    """One conditional prediction of one of the two models.

    Args:
        prompt: what the model is told of the text, as its own text encoder made it; passed on as it is.
        box: the part of the picture that the latents show, (4,) for [h1, w1, h2, w2]; None gives the
            model no position.
        tuned: the tuned model (base + adapter) or the base alone.
    """

    prompt: Any
    box: Tensor | None = None
    tuned: bool = False


Backbone = Callable[[Tensor, int, list[Branch]], list[Tensor]]
"""(x_t of shape (B, C, h, w), t, branches) -> a prediction of that shape for each branch."""


@dataclass(frozen=True)
class Guidance:
    """How strongly, from which model and until when a picture is guided.

    Args:
        guidance_scale: w >= 1, classifier-free guidance.
        base_weight: v in [0, 1], the share of the base in Eq. 3; the tuned model gets 1 - v.
        switch_step: K in [0, T]; Eq. 3 while t > K, Eq. 2 once t <= K.
    """

    guidance_scale: float
    base_weight: float
    switch_step: int

    def weights(self, t: int) -> tuple[float, float, float]:
        """Weights of (null, base, tuned) at time t; they add up to one."""
        w = self.guidance_scale
        v = self.base_weight if t > self.switch_step else 1.0
        return 1 - w, w * v, w * (1 - v)


@dataclass(frozen=True)
class GuidedModel:
    """A backbone with guidance, itself a model: (x_t, t) -> eps~, so that no sampler knows of guidance.

    Args:
        null, base, tuned: the branches of Eq. 3: eps(z_t), eps(z_t, c) and eps^(z_t, c^).
    """

    backbone: Backbone
    guidance: Guidance
    null: Branch
    base: Branch
    tuned: Branch

    def __call__(self, x_t: Tensor, t: int) -> Tensor:
        """eps~ at time t, (B, C, h, w), for x_t of that shape."""
        branches = [self.null, self.base, self.tuned]
        weighted = [(w, b) for w, b in zip(self.guidance.weights(t), branches, strict=True) if w != 0]
        predictions = self.backbone(x_t, t, [branch for _, branch in weighted])
        return mix([weight for weight, _ in weighted], predictions)


def mix(weights: list[float], predictions: list[Tensor]) -> Tensor:
    """The weighted sum of predictions, each (B, C, h, w).

    Linear in the prediction, so epsilon, v and flow velocity mix alike.
    """
    return sum(
        (w * eps for w, eps in zip(weights[1:], predictions[1:], strict=True)), weights[0] * predictions[0]
    )
