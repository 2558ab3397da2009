"""Model-based classifier-free guidance: which predictions a step needs, and how they mix.

    Eq. 2    eps~ = w eps(z_t, c) + (1 - w) eps(z_t)                                   t <= K
    Eq. 3    eps~ = w (v eps(z_t, c) + (1 - v) eps^(z_t, c^)) + (1 - w) eps(z_t)       t >  K

With several guides, each a tuned model with its own prompt c_i, weight b_i and switch step K_i:

    eps~ = w ((1 - sum b_i) eps(z_t, c) + sum b_i eps^_i(z_t, c_i)) + (1 - w) eps(z_t),    i with t > K_i

Where a step from t down to s crosses a K, t > K > s, the guide has its weight for the share of it above K,
b (t - K) / (t - s): the same K, however few the steps. Guided to its end, one of 25 would move K by up to 40.

Eq. 3 has one guide, of weight b = 1 - v; Eq. 2 has none. All are one weighted sum whose weights add up to
one. A branch without weight is never evaluated, so a step with one guide costs three model rows while
t > K and two after; one fewer where w = 1.

References:
    SINE, Sec. 3.2 and 4.4.  Classifier-Free Diffusion Guidance, Ho and Salimans, 2022.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Branch:
    """One conditional prediction of one of the models. Two are the same only as one object.

    Args:
        prompt: what the model is told of the text, as its own text encoder made it; passed on as it is.
        box: the part of the picture that the latents show, (4,) for [h1, w1, h2, w2]; None gives the
            model no position.
        tuned: the name of the tuned model (base + adapter) that predicts; None for the base alone.
    """

    prompt: Any
    box: Tensor | None = None
    tuned: str | None = None


Backbone = Callable[[Tensor, int, list[Branch]], list[Tensor]]
"""(x_t of shape (B, C, h, w), t, branches) -> a prediction of that shape for each branch."""


@dataclass(frozen=True)
class Guide:
    """How strongly and until when one tuned model guides.

    Args:
        weight: b in [0, 1], its share of the conditional prediction; 1 - v in Eq. 3.
        switch_step: K in [0, T]; the guide has its weight while t > K, and none once t <= K.
    """

    weight: float
    switch_step: int

    def over(self, t: int, s: int) -> float:
        """Its weight in the step from t to s < t; the last step, to the picture itself, ends at 0."""
        if t <= self.switch_step:
            return 0.0
        return self.weight * min(1.0, (t - self.switch_step) / (t - max(s, 0)))


@dataclass(frozen=True)
class Guidance:
    """How strongly, from which models and until when a picture is guided.

    Args:
        guidance_scale: w >= 1, classifier-free guidance.
        guides: their weights sum to at most 1, the base has the rest; none gives Eq. 2.
    """

    guidance_scale: float
    guides: tuple[Guide, ...] = ()

    def weights(self, t: int, s: int) -> list[float]:
        """Weights of null, base and each guide in the step from t to s < t; they add up to one."""
        w = self.guidance_scale
        shares = [guide.over(t, s) for guide in self.guides]
        return [1 - w, w * (1 - math.fsum(shares)), *(w * share for share in shares)]


@dataclass(frozen=True)
class GuidedModel:
    """A backbone with guidance, itself a model: (x_t, t) -> eps~, so that no sampler knows of guidance.

    Args:
        null, base: the branches eps(z_t) and eps(z_t, c).
        guides: the branches eps^_i(z_t, c_i), one for each guide of `guidance`.
        ends: s of each step, by its t; a t that is not among them is a step to t - 1.
    """

    backbone: Backbone
    guidance: Guidance
    null: Branch
    base: Branch
    guides: tuple[Branch, ...] = ()
    ends: Mapping[int, int] = field(default_factory=dict[int, int])

    def __call__(self, x_t: Tensor, t: int) -> Tensor:
        """eps~ at time t, (B, C, h, w), for x_t of that shape."""
        weighted = self.weighted(t)
        predictions = self.backbone(x_t, t, [branch for _, branch in weighted])
        return mix([weight for weight, _ in weighted], predictions)

    def weighted(self, t: int) -> tuple[tuple[float, Branch], ...]:
        """The branches that count at time t, each with its weight."""
        branches = [self.null, self.base, *self.guides]
        weights = self.guidance.weights(t, self.ends.get(t, t - 1))
        return tuple((w, b) for w, b in zip(weights, branches, strict=True) if w != 0)


def mix(weights: list[float], predictions: list[Tensor]) -> Tensor:
    """The weighted sum of predictions, each (B, C, h, w).

    Linear in the prediction, so epsilon, v and flow velocity mix alike.
    """
    return sum(
        (w * eps for w, eps in zip(weights[1:], predictions[1:], strict=True)), weights[0] * predictions[0]
    )
