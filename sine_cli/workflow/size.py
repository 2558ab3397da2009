"""Sizes and crops: what is asked for, what the model can sample, and what part of it is the picture."""

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from sine_cli.errors import UserError

LARGEST_SIDE = 8192
"""Pixels; beyond it no base holds together and no machine of today holds it in memory."""

Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]
"""Of a picture that is made, in pixels; checked where a record is read."""

Box = tuple[float, float, float, float]
"""A part of the picture, [h1, w1, h2, w2]: its upper left and lower right corner, the whole being 0,0,1,1."""

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)

FARTHEST = 1.0
"""How far a crop may reach beyond the frame: the slowest wave of the position is 2 long and then repeats."""


@dataclass(frozen=True)
class Size:
    """Pixels, height first."""

    height: Side
    width: Side

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"

    def described(self) -> str:
        return f"{self.height} high, {self.width} wide"


def parse_size(text: str) -> Size:
    """A size from HEIGHTxWIDTH.

    Raises:
        UserError: not of that form, or a side is not in 1 .. LARGEST_SIDE.
    """
    hint = "give HEIGHTxWIDTH in pixels, for example `--size 640x512` (640 high, 512 wide)"
    match = re.fullmatch("([0-9]{1,9})x([0-9]{1,9})", text.lower())
    if match is None:
        raise UserError(f'--size: "{text}" is not a size', hint)
    size = Size(int(match[1]), int(match[2]))
    if not (1 <= size.height <= LARGEST_SIDE and 1 <= size.width <= LARGEST_SIDE):
        raise UserError(
            f"--size: each side must be from 1 to {LARGEST_SIDE} pixels, got {size.described()}", hint
        )
    return size


def parse_crop(text: str) -> Box:
    """A box from h1,w1,h2,w2, as shares of the picture's height and width.

    Raises:
        UserError: not of that form, empty, or more than `FARTHEST` beyond the frame.
    """
    hint = "give h1,w1,h2,w2, top left and bottom right corner, for example `--crop 0,0.5,0.5,1`"
    try:
        h1, w1, h2, w2 = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f'--crop: "{text}" is not four numbers', hint) from error
    box = h1, w1, h2, w2
    if is_empty(box):
        raise UserError(f'--crop: "{text}" is empty: h1 must be less than h2, w1 less than w2', hint)
    if reaches_too_far(box):
        raise UserError(f"--crop: each must be from {-FARTHEST:g} to {1 + FARTHEST:g}, got {text}", hint)
    return box


def is_empty(box: Box) -> bool:
    """Whether nothing lies between its corners, also where one is not a number."""
    h1, w1, h2, w2 = box
    return not (h1 < h2 and w1 < w2)


def reaches_too_far(box: Box) -> bool:
    """Whether it goes more than `FARTHEST` beyond the frame."""
    return not all(-FARTHEST <= side <= 1 + FARTHEST for side in box)


def default_size(source: Size, native: int, factor: int, crop: Box = WHOLE) -> Size:
    """The aspect of the source's crop at about the native area, in multiples of `factor`, none below one.

    Args:
        native: pixels on a side that the base was trained at.  factor: pixels a latent cell on each side.
    """
    h1, w1, h2, w2 = crop
    aspect = source.height * (h2 - h1) / (source.width * (w2 - w1))
    height, width = (max(1, round(native * aspect**power / factor)) * factor for power in (0.5, -0.5))
    return Size(min(height, LARGEST_SIDE), min(width, LARGEST_SIDE))


def sampled_size(size: Size, factor: int) -> Size:
    """The next size that has whole latent cells; the picture is its top left part."""
    return Size(-(-size.height // factor) * factor, -(-size.width // factor) * factor)
