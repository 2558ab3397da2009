"""How far a picture is from the source: 0 for the same picture, and more the more it differs."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sine_cli.errors import SineError
from sine_cli.scoring.clip import Clip
from sine_cli.scoring.preparation import BICUBIC

LPIPS_SIDE = 256
"""Pixels on a side that LPIPS sees pictures at; its AlexNet has no use for much smaller ones."""


class Distance(Protocol):
    """A measure of the distance to the source; its name stands in every table."""

    @property
    def name(self) -> str: ...

    def __call__(self, pictures: Sequence[Image.Image], source: Image.Image) -> list[float]:
        """Of each picture (RGB, of any size) to the source, >= 0."""
        ...


class FeatureDistance:
    """Mean over layers and patches of 1 - cos(a, b), a and b the patch features of picture and source."""

    def __init__(self, clip: Clip, of: str) -> None:
        self._clip = clip
        self.name = f"features of {of}"

    def __call__(self, pictures: Sequence[Image.Image], source: Image.Image) -> list[float]:
        a, b = self._clip.features(pictures), self._clip.features([source])
        # For vectors of length 1, 1 - cos(a, b) = |a - b|^2 / 2, which is never below 0, and 0 where a = b.
        return ((a - b).square().sum(dim=-1) / 2).mean(dim=(1, 2)).tolist()


class LpipsDistance:
    """LPIPS with AlexNet (Zhang et al., 2018), of the extra `[lpips]`; both pictures squashed to a square.

    Raises:
        ImportError: the extra is not installed.  SineError: the weights of AlexNet cannot be had.
    """

    name = "lpips"

    def __init__(self, device: torch.device) -> None:
        import lpips  # pyright: ignore[reportMissingImports]

        try:
            self._network: Any = lpips.LPIPS(net="alex", verbose=False).to(device).eval()
        except OSError as error:  # torchvision fetches them when they are first needed
            raise SineError(
                "the weights of LPIPS (AlexNet) are not on this disk and cannot be fetched",
                "connect to the network and try again, or do without LPIPS: `pip uninstall lpips`",
            ) from error
        self._device = device

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Image.Image], source: Image.Image) -> list[float]:
        original = self._pixels(source)
        return [float(self._network(self._pixels(picture), original)) for picture in pictures]

    def _pixels(self, picture: Image.Image) -> Tensor:
        """(1, 3, LPIPS_SIDE, LPIPS_SIDE) in [-1, 1]."""
        square = picture.convert("RGB").resize((LPIPS_SIDE, LPIPS_SIDE), BICUBIC)
        pixels = torch.from_numpy(np.asarray(square, np.float32) / 127.5 - 1)
        return pixels.permute(2, 0, 1)[None].to(self._device)


def distance_for(clip: Clip, name: str) -> Distance:
    """LPIPS where it can be imported, else the distance by the features of `clip`, which is called `name`."""
    try:
        return LpipsDistance(clip.device)
    except ImportError:
        return FeatureDistance(clip, name)
