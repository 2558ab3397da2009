"""The paper: schedule, guidance, sampling, position, patches, tuning. Torch, and nothing of diffusers.

References:
    SINE: SINgle Image Editing with Text-to-Image Diffusion Models, Zhang et al., CVPR 2023.
"""
