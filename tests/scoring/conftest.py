"""A tiny CLIP with random weights, written and loaded once, and pictures to score."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sine_cli.scoring.clip import Clip
from tests.tiny import write_tiny_clip

PICTURES = Path(__file__).parents[1] / "pictures"


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("scorers") / "tiny-clip")


@pytest.fixture
def copy_of_tiny_clip(tiny_clip: Path, tmp_path: Path) -> Path:
    """One that may be damaged."""
    return Path(shutil.copytree(tiny_clip, tmp_path / "clip"))


@pytest.fixture(scope="session")
def clip(tiny_clip: Path) -> Clip:
    return Clip(tiny_clip, torch.device("cpu"))


@pytest.fixture(scope="session")
def cat() -> Image.Image:
    return Image.open(PICTURES / "cat.jpg").convert("RGB")


@pytest.fixture(scope="session")
def coffee() -> Image.Image:
    return Image.open(PICTURES / "coffee.jpg").convert("RGB")


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)
