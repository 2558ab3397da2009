"""Pictures as a CLIP model takes them: a square of its size, its own mean and standard deviation."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sine_cli.errors import UserError

BICUBIC = Image.Resampling.BICUBIC

LONGEST = 8
"""Short sides of a picture's length that are looked at before it is resized: a strip of 16 by ten million
pixels would fill the memory, and its middle square is all that counts."""


@dataclass(frozen=True)
class Preparation:
    """What `preprocessor_config.json` asks for.

    Args:
        short_side: pixels that a picture's shorter side is resized to.
        side: pixels on a side of the square that the model takes; at most `short_side`.
        mean, standard_deviation: of the training's pixels in [0, 1], red, green, blue.
    """

    short_side: int
    side: int
    mean: tuple[float, float, float]
    standard_deviation: tuple[float, float, float]

    def cropped(self, picture: Image.Image) -> Tensor:
        """CLIP's own recipe, (3, side, side): the short side resized, then the middle cropped."""
        width, height = picture.size
        short = min(width, height)
        within = _middle(picture, min(width, LONGEST * short), min(height, LONGEST * short))
        width, height = (self.short_side * side // short for side in within.size)
        return self._normalised(_middle(within.resize((width, height), BICUBIC), self.side, self.side))

    def squashed(self, picture: Image.Image) -> Tensor:
        """The whole picture, its aspect given up, (3, side, side)."""
        return self._normalised(picture.resize((self.side, self.side), BICUBIC))

    def _normalised(self, picture: Image.Image) -> Tensor:
        pixels = torch.from_numpy(np.asarray(picture.convert("RGB"), np.float32) / 255).permute(2, 0, 1)
        mean, standard_deviation = (
            torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.standard_deviation)
        )
        return (pixels - mean) / standard_deviation


def read_preparation(path: Path, side: int) -> Preparation:
    """What a `preprocessor_config.json` says, for a model that takes squares of `side` pixels.

    Sizes may be numbers or name their sides, as older and newer files do.

    Raises:
        UserError: it cannot be read, lacks an entry, or is not of this model.
    """
    hint = "fetch or copy the scorer again"
    try:
        config: dict[str, Any] = json.loads(path.read_text("utf-8"))
        crop, short_side = _pixels(config.get("crop_size") or config["size"]), _pixels(config["size"])
        mean, standard_deviation = _colour(config["image_mean"]), _colour(config["image_std"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not the configuration of a CLIP model's pictures (size, image_mean, image_std)", hint
        ) from error
    if crop != side or short_side < side or min(standard_deviation) <= 0:
        raise UserError(f"{path} does not fit the model beside it, which takes {side}x{side} pixels", hint)
    return Preparation(short_side, side, mean, standard_deviation)


def _middle(picture: Image.Image, width: int, height: int) -> Image.Image:
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def _pixels(size: Any) -> int:
    return int(size.get("shortest_edge") or size["height"]) if isinstance(size, dict) else int(size)


def _colour(values: Any) -> tuple[float, float, float]:
    red, green, blue = values
    return float(red), float(green), float(blue)
