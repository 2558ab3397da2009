"""DreamBooth sampling: the tuned model alone, by plain classifier-free guidance.

    eps~ = w eps^(z_t, c) + (1 - w) eps^(z_t)          (SINE, Eq. 2 with the tuned model; its "w/o guidance")

References:
    DreamBooth, Ruiz et al., CVPR 2023.  SINE, Sec. 4.2 and 4.3.
"""

from dataclasses import replace

from sine_cli.method.guidance import Backbone, Branch, Guidance, GuidedModel


def dreambooth(backbone: Backbone, guidance_scale: float, null: Branch, tuned: Branch) -> GuidedModel:
    """The model (x_t, t) -> eps~.

    Args:
        guidance_scale: w >= 1.
        null: the empty or negative prompt, which goes to the tuned model too.
        tuned: the tuned model, where the latents lie, and the target prompt.
    """
    null = replace(null, box=tuned.box, tuned=tuned.tuned)
    return GuidedModel(backbone, Guidance(guidance_scale), null, tuned)
