"""Training pictures: what is asked for is drawn, and never what is held out."""

import json
from pathlib import Path

import numpy as np
import pytest

from sine_cli.mini import media, pictures, places
from sine_cli.mini.pictures import Labels
from sine_cli.mini.vocabulary import COLOURS, PLACES, STYLES, held_out


@pytest.fixture(scope="module")
def painter(gathered: Path) -> pictures.Painter:
    return pictures.load(gathered)


def test_no_held_out_combination_is_drawn(painter: pictures.Painter) -> None:
    rng = np.random.default_rng(1)
    drawn = [painter.draw(rng, 64, 64).labels for _ in range(400)]
    assert len({each.noun for each in drawn}) == 4, "the three nouns, and photographs of none"
    assert {each.style for each in drawn} == set(STYLES)
    assert not any(
        held_out(each.noun, each.style) or held_out(each.noun, each.place) for each in drawn if each.noun
    )


def test_photographs_do_not_show_what_is_held_out(gathered: Path) -> None:
    named = {"a castle": "castle", "a tower": "tower"}
    painter = pictures.Painter(
        np.load(gathered / "icons.npy"),
        [(icon_set, noun) for icon_set, noun in json.loads((gathered / "sources.json").read_text())["icons"]],
        np.zeros((2, 256, 256, 3), np.uint8),
        [("photo", words) for words in named],
    )
    rng = np.random.default_rng(1)
    drawn = [each for each in (painter.draw(rng, 16, 16) for _ in range(4000)) if not each.labels.noun]
    shown = {
        (noun, each.labels.style) for each in drawn for words, noun in named.items() if words in each.caption
    }
    assert {noun for noun, _ in shown} == {"castle", "tower"}
    assert len(shown) > 8, "restyled ones too"
    assert not any(held_out(noun, style) for noun, style in shown)
    assert held_out("tower", "photo") and held_out("castle", "blueprint")


def test_held_out_labels_are_held_out_twice(painter: pictures.Painter) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        labels = painter.held_out_labels(rng)
        assert held_out(labels.noun, labels.style)
        assert held_out(labels.noun, labels.place)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(("height", "width"), [(128, 128), (96, 160)])
def test_every_style_is_of_the_asked_shape(
    painter: pictures.Painter, style: str, height: int, width: int
) -> None:
    example = painter.compose(np.random.default_rng(0), height, width, Labels("castle", style, "snow"))
    assert example.picture.shape == (height, width, 3)
    assert example.picture.dtype == np.uint8
    assert example.picture.std() > 10, "an empty picture"
    assert "a castle" in example.caption


def test_the_same_seed_draws_the_same(painter: pictures.Painter) -> None:
    one, two = (painter.draw(np.random.default_rng(5), 128, 128) for _ in range(2))
    assert one.caption == two.caption
    assert np.array_equal(one.picture, two.picture)


@pytest.mark.parametrize("name", PLACES)
def test_places_fill_the_canvas(name: str) -> None:
    scene = places.place(np.random.default_rng(2), 112, 144, name)
    assert scene.shape == (112, 144, 3)
    assert 0 <= scene.min() <= scene.max() <= 255
    before = places.in_front(np.random.default_rng(2), scene, name)
    assert before.shape == scene.shape


@pytest.mark.parametrize("colour", COLOURS)
def test_plain_backgrounds_have_their_colour(colour: str) -> None:
    field = places.plain(np.random.default_rng(3), 32, 32, colour)
    assert abs(field.mean((0, 1)) - COLOURS[colour]).max() < 50


def test_sculptures_leave_the_place_as_it_is(painter: pictures.Painter) -> None:
    """The matter changes, not where the thing stands: the corners of the beach are alike."""
    as_stone = painter.compose(np.random.default_rng(4), 128, 128, Labels("dog", "stone sculpture", "beach"))
    as_drawn = painter.compose(np.random.default_rng(4), 128, 128, Labels("dog", "cartoon", "beach"))
    assert np.abs(as_stone.picture[:8].astype(int) - as_drawn.picture[:8]).max() < 60


def test_a_pencil_sketch_has_no_colour() -> None:
    red = np.zeros((64, 64, 3), np.float32)
    red[16:48, 16:48, 0] = 255
    sketch = media.WHOLE["pencil sketch"](np.random.default_rng(0), red)
    assert np.ptp(sketch, axis=2).max() == 0
