"""Training of `mini`'s U-Net on latents, against frozen captions.

Epsilon prediction under Stable Diffusion's noise schedule; min-SNR weights (Hang et al., 2023); captions
dropped at one in eight, for guidance. Batches are of one shape each.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sine_cli.mini.autoencoder import CHANNELS
from sine_cli.mini.text import WIDTH
from sine_cli.mini.training import DEVICE, Length, Loop, Report, as_graphs, autocast, generator

NATIVE = 8
"""Latent cells on a side: 128 pixels."""
_DROPPED = 1 / 8
_MIN_SNR = 5.0

BETAS = (0.00085, 0.012)
"""First and last of Stable Diffusion's schedule, linear in their square roots."""


@dataclass(frozen=True)
class Latents:
    """Pictures of one shape: normalised latents (N, C, h, w), float16, and the number of each caption."""

    latents: Tensor
    captions: Tensor


def new_unet() -> Any:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=NATIVE,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        block_out_channels=(160, 256),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=8,
        layers_per_block=1,
        use_linear_projection=True,
    )


def alphas_cumprod() -> Tensor:
    """alpha_bar_t, (1000,)."""
    betas = torch.linspace(BETAS[0] ** 0.5, BETAS[1] ** 0.5, 1000) ** 2
    return torch.cumprod(1 - betas, 0)


def spread_times(shares: Tensor) -> Tensor:
    """A time in each of B equal parts of 0..999, so that the loss varies less from batch to batch.

    Args:
        shares: where in its part each lies, (B,) in [0, 1).
    """
    parts = torch.arange(len(shares), device=shares.device) + shares
    # In float32 the last share may round up to the end of its part
    return (parts * (1000 / len(shares))).long().clamp(max=999)


class _Predictor(nn.Module):
    """The U-Net's prediction, from tensors alone."""

    def __init__(self, unet: Any):
        super().__init__()
        self.unet = unet

    def forward(self, x_t: Tensor, t: Tensor, texts: Tensor) -> Tensor:
        with autocast():
            return self.unet(x_t, t, texts).sample


def train(
    sets: list[Latents], encoded: Tensor, null: Tensor, checkpoint: Path, length: Length, report: Report
) -> tuple[Any, Loop]:
    """Train on latents.

    Args:
        encoded: (M, L, D) float16, the hidden states of every caption.  null: (L, D), of the empty one.

    Returns:
        The averaged model, in eval mode.
    """
    from diffusers.models.attention_processor import AttnProcessor

    torch.manual_seed(0)
    unet = new_unet().to(DEVICE)
    if DEVICE.type == "cpu":  # so few positions: quicker backwards than the fused kernel
        unet.set_attn_processor(AttnProcessor())
    loop = Loop(unet, checkpoint, steps=length.steps, learning_rate=1.2e-3, warmup=300, average=0.9995)
    alpha_bar = alphas_cumprod().to(DEVICE)
    weights = (alpha_bar / (1 - alpha_bar)).clamp(max=_MIN_SNR) * (1 - alpha_bar) / alpha_bar
    sets = [Latents(each.latents.to(DEVICE), each.captions.to(DEVICE)) for each in sets]
    encoded, null = encoded.to(DEVICE), null.to(DEVICE)
    counts = np.array([len(each.latents) for each in sets])
    sizes = [_batch_size(each.latents, length.batch) for each in sets]
    predictors = [
        as_graphs(_Predictor(unet), _example(each.latents, encoded, size))
        for each, size in zip(sets, sizes, strict=True)
    ]

    def loss(step: int) -> tuple[Tensor, int]:
        drawn = generator(step)
        shape = np.random.default_rng(step).choice(len(sets), p=counts / counts.sum())
        chosen, size = sets[shape], sizes[shape]
        index = torch.randint(0, len(chosen.latents), (size,), generator=drawn, device=DEVICE)
        x_0 = chosen.latents[index].float()
        texts = encoded[chosen.captions[index]].float()
        is_dropped = torch.rand(size, generator=drawn, device=DEVICE) < _DROPPED
        texts = torch.where(is_dropped[:, None, None], null.float(), texts)
        t = spread_times(torch.rand(size, generator=drawn, device=DEVICE))
        eps = torch.randn(x_0.shape, generator=drawn, device=DEVICE)
        a = alpha_bar[t][:, None, None, None]
        x_t = a.sqrt() * x_0 + (1 - a).sqrt() * eps
        errors = (predictors[shape](x_t, t, texts).float() - eps).pow(2).mean((1, 2, 3))
        return (errors * weights[t]).mean(), size

    loop.run(loss, report)
    with loop.averaged():
        averaged = new_unet()
        averaged.load_state_dict(unet.state_dict())
    return averaged.eval(), loop


def _batch_size(latents: Tensor, batch: int) -> int:
    """Fewer of pictures larger than the native ones, so that steps take alike."""
    native = NATIVE * NATIVE / (latents.shape[2] * latents.shape[3])
    return max(8, round(batch * min(1.0, native)))


def _example(latents: Tensor, encoded: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs of a step in their shapes and types: x_t, t, texts."""
    return (
        torch.zeros(size, *latents.shape[1:], device=DEVICE),
        torch.zeros(size, dtype=torch.long, device=DEVICE),
        torch.zeros(size, *encoded.shape[1:], device=DEVICE),
    )
