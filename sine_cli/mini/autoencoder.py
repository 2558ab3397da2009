"""Training of `mini`'s autoencoder: diffusers' AutoencoderDC, 16x down to 32 channels.

Residual space-to-channel shortcuts (Chen et al., Deep Compression Autoencoder, 2024) learn far faster than
AutoencoderKL's plain convolutions. 16x gives a U-Net a quarter of the positions that 8x gives. Random scaling
and noise on the latents keep them smooth (Kouzelis et al., EQ-VAE, 2025), so that a U-Net learns them sooner
and a decoder forgives its errors.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sine_cli.mini.dataset import Shard
from sine_cli.mini.training import DEVICE, Length, Loop, Report, autocast, generator

FACTOR, CHANNELS = 16, 32
_CROP = 64
_NOISE = 0.05
"""Of the latents' spread, added before decoding."""


def new_autoencoder() -> Any:
    from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC

    widths, layers = (16, 32, 64, 128, 256), (0, 1, 2, 2, 2)
    return AutoencoderDC(
        in_channels=3,
        latent_channels=CHANNELS,
        attention_head_dim=32,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        encoder_layers_per_block=layers,
        decoder_layers_per_block=layers,
        encoder_qkv_multiscales=((),) * len(widths),
        decoder_qkv_multiscales=((),) * len(widths),
        upsample_block_type="pixel_shuffle",
        downsample_block_type="pixel_unshuffle",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=1.0,
    )


def train(
    shards: list[Shard], photographs: np.ndarray, checkpoint: Path, length: Length, report: Report
) -> tuple[Any, Loop]:
    """Train on random crops of the square pictures, a sixth of them of photographs. Returns the averaged
    model."""
    torch.manual_seed(0)
    model = new_autoencoder().to(DEVICE, memory_format=torch.channels_last)
    loop = Loop(
        model,
        checkpoint,
        steps=length.steps,
        learning_rate=1e-3,
        warmup=100,
        average=0.995,
        weight_decay=1e-4,
    )
    squares = [shard.pictures for shard in shards if shard.height == shard.width == 128]
    of_photographs = length.batch // 6

    def batch(rng: np.random.Generator) -> Tensor:
        scale = int(rng.choice([1, 2]))
        pictures = torch.cat(
            [
                _crops(rng, squares[rng.integers(len(squares))], length.batch - of_photographs, _CROP),
                F.avg_pool2d(_crops(rng, photographs, of_photographs, _CROP * scale), scale),
            ]
        )
        return (pictures / 127.5 - 1).contiguous(memory_format=torch.channels_last)

    def loss(step: int) -> tuple[Tensor, int]:
        pictures = batch(np.random.default_rng((step, 1)))
        with autocast():
            latents = model.encode(pictures).latent
            target = pictures
            if step % 8 == 7:  # the latents of half the size are those of the picture at half the size
                latents, target = F.avg_pool2d(latents, 2), F.avg_pool2d(pictures, 2)
            spread = latents.detach().float().std()
            noise = torch.randn(latents.shape, generator=generator(step), device=DEVICE) * spread
            decoded = model.decode(latents + noise * _NOISE * (step > loop.steps // 10)).sample.float()
        error = (decoded - target).abs().mean()
        # Edges count once the colours stand: from the first step on, they pull to a flat picture
        edges = min(1.0, max(0.0, 4 * step / loop.steps - 0.4))
        error = error + 0.5 * edges * sum(
            (decoded.diff(dim=dim) - target.diff(dim=dim)).abs().mean() for dim in (2, 3)
        )
        channels = latents.float().pow(2).mean((0, 2, 3))
        return error + 0.005 * F.relu(channels - 1).mean(), len(pictures)

    loop.run(loss, report)
    with loop.averaged():
        averaged = new_autoencoder().to(DEVICE)
        averaged.load_state_dict(model.state_dict())
    return averaged.eval(), loop


def _crops(rng: np.random.Generator, pictures: np.ndarray, count: int, side: int) -> Tensor:
    """Random squares of `count` pictures (N, H, W, 3), as (count, 3, side, side) of 0..255 on the device."""
    chosen = np.sort(rng.choice(len(pictures), count, replace=len(pictures) < count))
    whole = torch.from_numpy(np.array(pictures[chosen])).to(DEVICE)
    height, width = whole.shape[1:3]
    top, left = (
        torch.from_numpy(rng.integers(0, room - side + 1, (count, 1))).to(DEVICE) for room in (height, width)
    )
    places = torch.arange(side, device=DEVICE)
    rows, columns = (top + places)[:, :, None], (left + places)[:, None, :]
    return whole[torch.arange(count, device=DEVICE)[:, None, None], rows, columns].permute(0, 3, 1, 2).float()
