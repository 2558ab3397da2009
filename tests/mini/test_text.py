"""What the text tower is to read out of a caption."""

import pytest

from sine_cli.mini.text import _targets  # pyright: ignore[reportPrivateUsage]
from sine_cli.mini.vocabulary import COLOURS, NOUNS, PLACES, STYLES

UNSAID = -100


def said(caption: str, noun: str, style: str, place: str) -> list[int]:
    text = {"caption": caption, "noun": noun, "style": style, "place": place}
    return _targets([text])[0].tolist()


def style_of(caption: str, noun: str) -> int:
    return said(caption, noun, "pixel art", "night")[1]


@pytest.mark.parametrize(("noun", "phrase"), [("dog", "a dog"), ("cup of coffee", "a cup of coffee")])
def test_a_style_is_asked_for_where_the_caption_says_one(noun: str, phrase: str) -> None:
    assert style_of(f"a pixel art of {phrase} at night", noun) == list(STYLES).index("pixel art")
    assert style_of(f"{phrase} at night", noun) == UNSAID


def test_white_is_asked_for_where_the_caption_says_it() -> None:
    white = [*PLACES, *COLOURS].index("white")
    assert said("a photo of a dog on a white background", "dog", "photo", "white")[2] == white
    assert said("a photo of a dog", "dog", "photo", "white")[2] == UNSAID


def test_the_noun_and_the_number() -> None:
    assert said("a photo of two dogs on grass", "dog", "photo", "grass") == [
        list(NOUNS).index("dog"),
        list(STYLES).index("photo"),
        list(PLACES).index("grass"),
        1,
    ]
