"""Patches: random parts of the picture, resized to squares of the native size or to the picture's own aspect.

The paper's pictures are squares, and so are its patches. Were all patches of another picture squares, their
shape would tell them from the whole, and the model need not look at the position: what is made in the aspect
of the picture would show the whole, whatever its box. Were none, squares would come out worse.

Height and width of a box are drawn separately and uniformly from [min_side, 1] of the picture, its place
uniformly from where it fits, so that content and position in the frame come apart.

References:
    SINE, Sec. 3.3.
"""

import torch
from PIL import Image
from torch import Tensor


def draw_boxes(count: int, min_side: float, generator: torch.Generator) -> Tensor:
    """Boxes [h1, w1, h2, w2] inside the picture, (count, 4), normalised to [0, 1]; 0 < min_side <= 1."""
    side = min_side + (1 - min_side) * torch.rand(count, 2, generator=generator)
    corner = torch.rand(count, 2, generator=generator) * (1 - side)
    return torch.cat([corner, corner + side], dim=1)


def cut(picture: Image.Image, box: Tensor, height: int, width: int) -> Image.Image:
    """The part of the picture in `box`, (4,), resized to height x width pixels, exact below the pixel."""
    h1, w1, h2, w2 = box.tolist()
    place = (w1 * picture.width, h1 * picture.height, w2 * picture.width, h2 * picture.height)
    return picture.resize((width, height), Image.Resampling.LANCZOS, box=place)
