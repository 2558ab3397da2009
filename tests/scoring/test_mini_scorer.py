"""The bundled scorer: small, and it knows the media that the bundled base paints in."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sine_cli
from sine_cli.mini import media
from sine_cli.mini.vocabulary import RESTYLED, phrase
from sine_cli.project.templates import template_path
from sine_cli.scoring.clip import Clip

FOLDER = Path(sine_cli.__file__).parent / "mini" / "scorer"


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip(FOLDER, torch.device("cpu"))


def test_it_is_small() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 24e6


def test_it_tells_media_apart(clip: Clip) -> None:
    """The drawn castle through each filter of the recipe: the word for that filter is the likeliest."""
    with Image.open(template_path("demo", "castle.png")) as image:
        castle = np.asarray(image.convert("RGB").resize((128, 128)), np.float32)
    prompts = [f"{RESTYLED[style].words[0]} of {phrase('castle')}" for style in media.WHOLE]
    made = [restyle(np.random.default_rng(0), castle) for restyle in media.WHOLE.values()]
    images = [Image.fromarray(picture.clip(0, 255).astype(np.uint8)) for picture in made]
    likeliest = clip.similarity(images, prompts).argmax(dim=1).tolist()
    right = sum(found == place for place, found in enumerate(likeliest))
    assert right >= len(prompts) - 1, [prompts[found] for found in likeliest]
