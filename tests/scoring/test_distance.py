"""The distance is a distance: none to itself, the same both ways, growing with damage."""

import sys
from types import SimpleNamespace

import pytest
import torch
from PIL import Image, ImageFilter

from sine_cli.errors import SineError
from sine_cli.scoring.clip import Clip
from sine_cli.scoring.distance import FeatureDistance, LpipsDistance, distance_for
from tests.scoring.conftest import noise


@pytest.fixture
def distance(clip: Clip) -> FeatureDistance:
    return FeatureDistance(clip, "tiny")


def test_a_picture_has_no_distance_to_itself_in_any_company(
    distance: FeatureDistance, cat: Image.Image, coffee: Image.Image
) -> None:
    same, other = distance([cat, coffee], cat)
    assert same == pytest.approx(0, abs=1e-9) and same >= 0
    assert other > 0.1


def test_the_distance_is_the_same_both_ways(
    distance: FeatureDistance, cat: Image.Image, coffee: Image.Image
) -> None:
    assert distance([cat], coffee) == distance([coffee], cat)


def test_the_distance_is_one_minus_the_mean_cosine(
    distance: FeatureDistance, clip: Clip, cat: Image.Image, coffee: Image.Image
) -> None:
    a, b = clip.features([cat])[0], clip.features([coffee])[0]
    cosines = torch.cosine_similarity(a, b, dim=-1)
    assert distance([cat], coffee) == pytest.approx([1 - float(cosines.mean())], abs=1e-5)


def test_the_more_a_picture_is_blurred_the_further_it_is(distance: FeatureDistance, cat: Image.Image) -> None:
    blurred = [cat.filter(ImageFilter.GaussianBlur(radius)) for radius in (0, 2, 4, 8, 16, 32)]
    distances = distance(blurred, cat)
    assert distances == sorted(distances)
    assert distances[0] < 1e-9 < distances[1]


def test_pictures_of_any_size_and_shape_have_a_distance(distance: FeatureDistance, cat: Image.Image) -> None:
    half, *others = distance([cat.resize((cat.width // 2, cat.height // 2)), noise(1, 1), noise(200, 9)], cat)
    assert half < 0.05, "a smaller copy is nearly the same"
    assert min(others) > 0.1


# ----------------------------------------------------------------------------------------------- which one


def test_without_lpips_the_features_are_taken_and_named_by_the_scorer(clip: Clip) -> None:
    taken = distance_for(clip, "mini")
    assert isinstance(taken, FeatureDistance)
    assert taken.name == "features of mini"


class FakeLpips(torch.nn.Module):
    """The package's interface, with the mean square as a distance."""

    def __init__(self, net: str, verbose: bool) -> None:
        super().__init__()
        assert (net, verbose) == ("alex", False)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        assert a.shape == b.shape == (1, 3, 256, 256)
        assert a.min() >= -1 and a.max() <= 1
        return (a - b).square().mean().view(1, 1, 1, 1)


def test_where_lpips_can_be_imported_it_is_taken(
    clip: Clip, monkeypatch: pytest.MonkeyPatch, cat: Image.Image
) -> None:
    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=FakeLpips))
    taken = distance_for(clip, "mini")
    assert isinstance(taken, LpipsDistance)
    assert taken.name == "lpips"
    black, white = (Image.new("RGB", (7, 5), colour) for colour in ("black", "white"))
    assert taken([black, white], white) == [4.0, 0.0], "pixels reach it in [-1, 1]"
    assert taken([cat], cat) == [0.0]


def test_weights_of_lpips_that_cannot_be_fetched_are_told(
    clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(**_: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=unreachable))
    with pytest.raises(SineError) as caught:
        distance_for(clip, "mini")
    assert caught.value.message == "the weights of LPIPS (AlexNet) are not on this disk and cannot be fetched"
    assert caught.value.hint == (
        "connect to the network and try again, or do without LPIPS: `pip uninstall lpips`"
    )
