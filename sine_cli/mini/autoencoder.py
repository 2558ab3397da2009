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
from sine_cli.mini.training import Loop, Report, autocast

FACTOR, CHANNELS = 16, 32
_CROP, _BATCH = 64, 24
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
    shards: list[Shard], photographs: np.ndarray, checkpoint: Path, steps: int, report: Report
) -> tuple[Any, Loop]:
    """Train on random crops of the square pictures, a sixth of them of photographs. Returns the averaged
    model."""
    torch.manual_seed(0)
    model = new_autoencoder().to(memory_format=torch.channels_last)
    loop = Loop(
        model, checkpoint, steps=steps, learning_rate=1e-3, warmup=100, average=0.995, weight_decay=1e-4
    )
    squares = [shard.pictures for shard in shards if shard.height == shard.width == 128]

    def batch(rng: np.random.Generator) -> Tensor:
        crops = []
        for _ in range(_BATCH):
            if rng.random() < 1 / 6:
                whole, scale = photographs[rng.integers(len(photographs))], int(rng.choice([1, 2]))
            else:
                shard, scale = squares[rng.integers(len(squares))], 1
                whole = shard[rng.integers(len(shard))]
            side = _CROP * scale
            top, left = rng.integers(whole.shape[0] - side + 1), rng.integers(whole.shape[1] - side + 1)
            crop = np.asarray(whole[top : top + side, left : left + side], np.float32)
            crops.append(crop.reshape(_CROP, scale, _CROP, scale, 3).mean((1, 3)))
        pictures = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2) / 127.5 - 1
        return pictures.contiguous(memory_format=torch.channels_last)

    def loss(step: int) -> tuple[Tensor, int]:
        generator = torch.Generator().manual_seed(step)
        pictures = batch(np.random.default_rng((step, 1)))
        with autocast():
            latents = model.encode(pictures).latent
            target = pictures
            if step % 8 == 7:  # the latents of half the size are those of the picture at half the size
                latents, target = F.avg_pool2d(latents, 2), F.avg_pool2d(pictures, 2)
            spread = latents.detach().float().std()
            noise = torch.randn(latents.shape, generator=generator) * spread
            decoded = model.decode(latents + noise * _NOISE * (step > steps // 10)).sample.float()
        error = (decoded - target).abs().mean()
        # Edges count once the colours stand: from the first step on, they pull to a flat picture
        edges = min(1.0, max(0.0, 4 * step / steps - 0.4))
        error = error + 0.5 * edges * sum(
            (decoded.diff(dim=dim) - target.diff(dim=dim)).abs().mean() for dim in (2, 3)
        )
        channels = latents.float().pow(2).mean((0, 2, 3))
        return error + 0.005 * F.relu(channels - 1).mean(), len(pictures)

    loop.run(loss, report)
    with loop.averaged():
        averaged = new_autoencoder()
        averaged.load_state_dict(model.state_dict())
    return averaged.eval(), loop
