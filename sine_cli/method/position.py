"""Position: Fourier features of the box that the latents show, projected onto the model's first features.

    F(u) = [sin(2^0 pi u), cos(2^0 pi u), ..., sin(2^(L-1) pi u), cos(2^(L-1) pi u)]

for u = y, x of every latent cell's centre in the whole picture, normalised to [0, 1]. The paper adds a
fixed embedding and fine-tunes all weights to read it; a LoRA cannot, so the projection is learned, from zero.

References:
    SINE, Sec. 3.3.  Any-resolution GAN training, Chai et al., 2022.
"""

import math

import torch
from torch import Tensor, nn

WHOLE = (0.0, 0.0, 1.0, 1.0)
"""The box of the whole picture."""


FREQUENCIES = 8
"""L: octaves of the Fourier features; the finest wave is 1/64 of the picture long."""


def fourier_features(box: Tensor, height: int, width: int, frequencies: int) -> Tensor:
    """Features of each latent cell's place in the picture, (B, 4 L, height, width), in [-1, 1].

    Args:
        box: part of the picture that the latents show, (B, 4), rows first: [h1, w1, h2, w2] in [0, 1].
        height, width: latent size in cells.
        frequencies: L, octaves per axis.
    """
    h1, w1, h2, w2 = box.unbind(-1)
    y = h1[:, None] + _centres(height, box) * (h2 - h1)[:, None]
    x = w1[:, None] + _centres(width, box) * (w2 - w1)[:, None]
    octaves = math.pi * 2.0 ** torch.arange(frequencies, device=box.device)

    def waves(u: Tensor) -> Tensor:
        angle = u[..., None] * octaves
        return torch.cat([angle.sin(), angle.cos()], dim=-1)

    rows = waves(y)[:, :, None].expand(-1, -1, width, -1)
    columns = waves(x)[:, None].expand(-1, height, -1, -1)
    return torch.cat([rows, columns], dim=-1).permute(0, 3, 1, 2)


def _centres(cells: int, like: Tensor) -> Tensor:
    return (torch.arange(cells, device=like.device) + 0.5) / cells


class Position(nn.Module):
    """The learned projection of F(box) onto the features behind the model's first convolution.

    Starts at zero, so that an untuned adapter leaves the base as it is.
    """

    def __init__(self, channels: int, frequencies: int) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.projection = nn.Conv2d(4 * frequencies, channels, kernel_size=1)
        nn.init.zeros_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, box: Tensor, height: int, width: int) -> Tensor:
        """What to add to the first features, (B, channels, height, width); box as in `fourier_features`."""
        return self.projection(fourier_features(box, height, width, self.frequencies))
