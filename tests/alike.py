"""Pictures that are the same but for rounding."""

from pathlib import Path

import numpy as np
from PIL import Image

ROUNDING = 2
"""Levels of 255: some processors sum the rows of a batch in another order than a single one."""


def are_alike(one: Path | np.ndarray, other: Path | np.ndarray) -> bool:
    """Whether no value of two pictures, files or (h, w, 3), differs by more than rounding does."""
    a, b = (np.asarray(Image.open(each)) if isinstance(each, Path) else each for each in (one, other))
    return a.shape == b.shape and int(np.abs(a.astype(int) - b.astype(int)).max()) <= ROUNDING
