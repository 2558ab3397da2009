"""Patches: boxes are drawn as the paper says, and cut out to the pixel."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops
from scipy import stats

from sine_cli.method.patches import cut, draw_boxes

COUNT = 5000


def noise_picture(height: int, width: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def drawn(min_side: float, seed: int = 0) -> torch.Tensor:
    return draw_boxes(COUNT, min_side, torch.Generator().manual_seed(seed))


def correlation(left: np.ndarray, right: np.ndarray) -> float:
    """Spearman's; over so many pairs beyond 0.03 only once in thirty, were they independent."""
    return float(np.asarray(stats.spearmanr(left, right))[0])


def assert_same(left: Image.Image, right: Image.Image) -> None:
    assert left.size == right.size
    assert ImageChops.difference(left, right).getbbox() is None


@pytest.mark.parametrize("min_side", [0.01, 0.1, 0.5, 1.0])
def test_boxes_lie_inside_the_picture_and_no_side_is_below_the_least(min_side: float) -> None:
    h1, w1, h2, w2 = drawn(min_side).unbind(1)
    for low, high in ((h1, h2), (w1, w2)):
        assert low.min() >= 0
        assert high.max() <= 1 + 1e-6
        assert (high - low).min() >= min_side - 1e-6


def test_sides_are_drawn_uniformly_and_apart() -> None:
    h1, w1, h2, w2 = drawn(0.1).double().numpy().T
    for side in (h2 - h1, w2 - w1):
        assert stats.kstest(side, "uniform", args=(0.1, 0.9)).pvalue > 0.01
    assert abs(correlation(h2 - h1, w2 - w1)) < 0.03


def test_places_are_drawn_uniformly_from_where_a_box_fits() -> None:
    h1, w1, h2, w2 = drawn(0.1, seed=1).double().numpy().T
    for low, high in ((h1, h2), (w1, w2)):
        room = 1 - (high - low)
        assert stats.kstest(low / room, "uniform").pvalue > 0.01
        assert abs(correlation(low / room, room)) < 0.03
    assert abs(correlation(h1 / (1 - (h2 - h1)), w1 / (1 - (w2 - w1)))) < 0.03


def test_boxes_are_the_same_for_the_same_seed_and_others_for_another() -> None:
    assert torch.equal(drawn(0.1, seed=3), drawn(0.1, seed=3))
    assert not torch.equal(drawn(0.1, seed=3), drawn(0.1, seed=4))


def test_boxes_of_the_whole_side_are_the_whole_picture() -> None:
    assert torch.equal(drawn(1.0), torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(COUNT, 4))


def test_no_boxes_can_be_drawn() -> None:
    assert draw_boxes(0, 0.1, torch.Generator()).shape == (0, 4)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (70, 20)])
def test_cutting_the_whole_is_resizing(height: int, width: int) -> None:
    picture = noise_picture(48, 80)
    whole = cut(picture, torch.tensor([0.0, 0.0, 1.0, 1.0]), height, width)
    assert_same(whole, picture.resize((width, height), Image.Resampling.LANCZOS))


@pytest.mark.parametrize("top", [0, 24])
@pytest.mark.parametrize("left", [0, 40])
def test_cutting_a_quarter_at_its_own_size_is_cropping(top: int, left: int) -> None:
    picture = noise_picture(48, 80)
    box = torch.tensor([top / 48, left / 80, (top + 24) / 48, (left + 40) / 80])
    assert_same(cut(picture, box, 24, 40), picture.crop((left, top, left + 40, top + 24)))


def test_every_drawn_box_can_be_cut_out() -> None:
    picture = noise_picture(17, 31)
    assert {cut(picture, box, 8, 12).size for box in drawn(0.02)[:500]} == {(12, 8)}
