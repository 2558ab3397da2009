"""Textual Inversion: only the embedding v of one new word is tuned to mean the picture; the model stays.

    v* = argmin_v E w(t) || eps - eps(z_t, t, c(v)) ||^2

The weight w(t) is that of tuning here, so that both learn from the same loss.

References:
    An Image is Worth One Word: Personalizing Text-to-Image Generation using Textual Inversion, Gal et al.,
    ICLR 2023, Eq. 2.
"""

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor, nn

from sine_cli.method.schedule import NoiseSchedule
from sine_cli.method.tuning import Examples, Tuning, TuningPlan

LEARNING_RATE = 0.005
"""As in the paper."""


def textual_inversion(
    plan: TuningPlan,
    schedule: NoiseSchedule,
    z_0: Tensor,
    predict: Callable[[Tensor, Tensor], Tensor],
    vector: nn.Parameter,
) -> Tuning:
    """A tuning of the word's embedding, (D,), on the whole picture's latents z_0, (1, C, h, w).

    Args:
        plan: its steps, batch, range of t and seed hold; the rate is `LEARNING_RATE`.
        predict: (x_t, t) -> the base's prediction for a sentence with the word, with gradients to `vector`.
    """
    plan = replace(plan, learning_rate=LEARNING_RATE, whole=1.0)
    examples = Examples(patches=[], whole=z_0)
    return Tuning(plan, schedule, examples, lambda x_t, t, _: predict(x_t, t), weights=[vector], position=[])
