"""A small stand-in for what the recipe fetches: three nouns drawn by hand in every icon set, and four
photographs."""

import json
from pathlib import Path

import numpy as np
import pytest

from sine_cli.mini.sources import ICON_SETS, ICON_SIDE

STAND_INS = ("basketball", "dog", "castle")


def _icon(index: int) -> np.ndarray:
    y, x = np.mgrid[:ICON_SIDE, :ICON_SIDE] / ICON_SIDE
    inside = [np.hypot(y - 0.5, x - 0.5) < 0.4, abs(y - 0.5) < 0.3, (abs(x - 0.5) < 0.3) & (y > 0.2)][
        index % 3
    ]
    colour = np.array([(220, 120, 40), (140, 90, 50), (150, 150, 170)][index % 3])
    return np.dstack([np.broadcast_to(colour, (*y.shape, 3)), inside * 255]).astype(np.uint8)


@pytest.fixture(scope="session")
def gathered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder as `build.gather` leaves it."""
    work = tmp_path_factory.mktemp("recipe")
    labels = [(icon_set, noun) for icon_set in ICON_SETS for noun in STAND_INS]
    np.save(work / "icons.npy", np.stack([_icon(STAND_INS.index(noun)) for _, noun in labels]))
    rng = np.random.default_rng(0)
    np.save(work / "photographs.npy", rng.integers(0, 255, (4, 256, 256, 3), np.uint8))
    photographs = [("photo", "a beach"), ("photo", ""), ("oil painting", "a church"), ("photo", "fields")]
    (work / "sources.json").write_text(json.dumps({"icons": labels, "photographs": photographs}))
    return work
