"""Pictures reach the model as CLIP was trained to see them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from sine_cli.errors import UserError
from sine_cli.scoring.preparation import Preparation, read_preparation
from tests.scoring.conftest import noise

MEAN, DEVIATION = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
PLAIN = Preparation(32, 32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""Pixels in [0, 1] as they are."""

SIZES = [(50, 80), (80, 50), (33, 100), (32, 32), (17, 16), (640, 427), (5, 7), (1, 1), (16, 128), (16, 4000)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("short_side", [32, 36])
def test_the_crop_is_that_of_transformers_own_processor(size: tuple[int, int], short_side: int) -> None:
    picture = noise(*size)
    theirs = CLIPImageProcessorPil(
        size={"shortest_edge": short_side},
        crop_size={"height": 32, "width": 32},
        image_mean=list(MEAN),
        image_std=list(DEVIATION),
    )
    expected = theirs(picture, return_tensors="pt")["pixel_values"][0]
    ours = Preparation(short_side, 32, MEAN, DEVIATION).cropped(picture)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


def test_a_picture_of_the_model_s_size_is_only_normalised() -> None:
    picture = noise(32, 32)
    pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1) / 255
    for prepared in (PLAIN.cropped(picture), PLAIN.squashed(picture)):
        assert torch.equal(prepared, pixels)
    shifted = replace(PLAIN, mean=(0.5, 0.25, 0.0), standard_deviation=(0.5, 0.25, 2.0))
    channels = torch.stack([(pixels[0] - 0.5) / 0.5, (pixels[1] - 0.25) / 0.25, pixels[2] / 2])
    assert torch.equal(shifted.cropped(picture), channels)


def stripes(height: int, width: int) -> Image.Image:
    """Red, green and blue side by side along the longer side, green in the middle square."""
    pixels = np.zeros((height, width, 3), np.uint8)
    length, short = max(height, width), min(height, width)
    first = (length - short) // 2
    for channel, part in enumerate(
        (slice(0, first), slice(first, first + short), slice(first + short, length))
    ):
        pixels[(part, slice(None)) if height > width else (slice(None), part)] = 255 * np.eye(3)[channel]
    return Image.fromarray(pixels)


@pytest.mark.parametrize("size", [(64, 192), (192, 64), (32, 3200)])
def test_the_middle_square_is_cropped_and_the_whole_is_squashed(size: tuple[int, int]) -> None:
    picture = stripes(*size)
    inner = PLAIN.cropped(picture)[:, 4:-4, 4:-4]
    assert torch.equal(inner, torch.tensor([0.0, 1.0, 0.0]).view(3, 1, 1).expand_as(inner))
    share = PLAIN.squashed(picture).mean(dim=(1, 2))
    first = (max(size) - min(size)) / 2 / max(size)
    torch.testing.assert_close(share, torch.tensor([first, 1 - 2 * first, first]), rtol=0, atol=0.02)


def test_a_picture_of_extreme_shape_is_never_blown_up() -> None:
    long = Image.new("RGB", (2_000_000, 16))  # resized as a whole it would be 64 times as large
    assert PLAIN.cropped(long).shape == PLAIN.squashed(long).shape == (3, 32, 32)


# --------------------------------------------------------------------------------- preprocessor_config.json

NEW: dict[str, Any] = {
    "size": {"shortest_edge": 36},
    "crop_size": {"height": 32, "width": 32},
    "image_mean": list(MEAN),
    "image_std": list(DEVIATION),
}


def written(path: Path, config: Any) -> Path:
    path.write_text(config if isinstance(config, str) else json.dumps(config), "utf-8")
    return path


@pytest.mark.parametrize(
    ("config", "short_side"),
    [
        (NEW, 36),
        (NEW | {"size": 36, "crop_size": 32}, 36),
        (NEW | {"size": {"height": 32, "width": 32}}, 32),
        ({name: value for name, value in NEW.items() if name != "crop_size"} | {"size": 32}, 32),
    ],
    ids=["new", "old", "a square", "no crop"],
)
def test_old_and_new_configurations_are_read(tmp_path: Path, config: Any, short_side: int) -> None:
    path = written(tmp_path / "preprocessor_config.json", config)
    assert read_preparation(path, 32) == Preparation(short_side, 32, MEAN, DEVIATION)


@pytest.mark.parametrize(
    "config",
    ["{", "[]", "7", "{}", NEW | {"size": "large"}, NEW | {"image_mean": [0.5]}, NEW | {"image_std": None}],
)
def test_an_unreadable_configuration_is_told(tmp_path: Path, config: Any) -> None:
    path = written(tmp_path / "preprocessor_config.json", config)
    with pytest.raises(UserError) as caught:
        read_preparation(path, 32)
    assert caught.value.message == (
        f"{path} is not the configuration of a CLIP model's pictures (size, image_mean, image_std)"
    )
    assert caught.value.hint == "fetch or copy the scorer again"


@pytest.mark.parametrize(
    "change", [{"crop_size": 64}, {"size": 16}, {"image_std": [0.2, 0.0, 0.2]}, {"crop_size": -32}]
)
def test_a_configuration_of_another_model_is_told(tmp_path: Path, change: dict[str, Any]) -> None:
    path = written(tmp_path / "preprocessor_config.json", NEW | change)
    with pytest.raises(UserError) as caught:
        read_preparation(path, 32)
    assert caught.value.message == f"{path} does not fit the model beside it, which takes 32x32 pixels"
