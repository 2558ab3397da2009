"""The autoencoder: pictures to latents and back.

Runs in float32 whatever the U-Net's type: it is a small part of the work, and half precision overflows
in Stable Diffusion's decoder (black pictures) or shows as banding. Large pictures go through it in tiles that
overlap and are blended. With low memory it is on its device only while it works.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sine_cli.errors import SineError


def factor_of(model: Any) -> int:
    """Pixels a latent cell on each side."""
    # AutoencoderDC states its factor; AutoencoderKL halves the size between blocks.
    stated = getattr(model, "spatial_compression_ratio", None)
    return stated or 2 ** (len(model.config.block_out_channels) - 1)


class Autoencoder:
    """Wraps a diffusers autoencoder, AutoencoderKL or AutoencoderDC alike.

    Args:
        device: where it works.
        tile: the largest side in pixels that goes through it whole.
        waits_on_cpu: whether it is on its device only while it works.

    Attributes:
        factor: s, pixels a latent cell on each side.
        channels: C, of a latent.
    """

    def __init__(self, model: Any, device: torch.device, *, tile: int, waits_on_cpu: bool = False) -> None:
        self.device = device
        self.home = torch.device("cpu") if waits_on_cpu else device
        self.model = model.to(device=self.home, dtype=torch.float32).eval().requires_grad_(False)
        self._working = False
        self.channels: int = model.config.latent_channels
        self.factor = factor_of(model)
        self.tile = tile
        self.scale: float = model.config.scaling_factor
        self.shift: float = getattr(model.config, "shift_factor", None) or 0.0
        if hasattr(model, "tile_sample_min_size"):  # AutoencoderKL
            model.enable_tiling()
            model.tile_sample_min_size = tile
            model.tile_latent_min_size = tile // self.factor
        else:
            model.enable_tiling(tile, tile, tile * 3 // 4, tile * 3 // 4)

    @torch.no_grad()
    def encode(self, pictures: list[Image.Image]) -> Tensor:
        """Latents, (B, C, H / s, W / s), of B pictures of one size, RGB, sides multiples of s.

        Of a distribution the mean: one picture has one latent.
        """
        pixels = np.stack([np.asarray(picture, dtype=np.float32) for picture in pictures])
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.device) / 127.5 - 1
        with self.at_work():
            encoded = self.model.encode(x)
        z = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latent
        return (z - self.shift) * self.scale

    @torch.no_grad()
    def decode(self, z: Tensor) -> list[Image.Image]:
        """B pictures, RGB, (h s) x (w s) pixels, of latents (B, C, h, w).

        Raises:
            SineError: the latents or the pictures hold values that are not numbers.
        """
        with self.at_work():
            x = self.model.decode(z.to(self.device, torch.float32) / self.scale + self.shift).sample
        if not torch.isfinite(x).all():
            raise SineError(
                "the picture came out with values that are not numbers (NaN)",
                "lower the guidance with `-w 5`; if that does not help, run `sine tune` again",
            )
        pixels = ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return [Image.fromarray(picture) for picture in pixels]

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """On its device, then home again; around many calls it spares them the way."""
        if self._working:
            yield
            return
        self.model.to(self.device)
        self._working = True
        try:
            yield
        finally:
            self._working = False
            self.model.to(self.home)
