"""Training pictures: an icon of a thing, in a style, at a place, and the caption that says so."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from sine_cli.mini import media, places
from sine_cli.mini.vocabulary import (
    COLOURS,
    DRAWN,
    NOUNS,
    PLACES,
    PLURAL,
    RESTYLED,
    STYLES,
    UNCOUNTED,
    UNIQUE,
    held_out,
    phrase,
)

Rng = np.random.Generator

_NOUN_OF = {phrase(noun): noun for noun in NOUNS}


@dataclass(frozen=True)
class Labels:
    """What a picture shows. `place` is "", a place of the vocabulary, or a colour; `noun` is "" on a
    photograph."""

    noun: str
    style: str
    place: str


@dataclass(frozen=True)
class Example:
    """A picture, (H, W, 3) of 0..255, its caption and labels."""

    picture: np.ndarray
    caption: str
    labels: Labels


class Painter:
    """Composes examples from drawn icons and photographs.

    Args: icons: (N, S, S, 4) of 0..255.  icon_labels: icon set and noun of each. photographs: (M, P, P, 3) of
        0..255, P at least 192; M may be 0.  photograph_labels: style of each and what it shows.
    """

    def __init__(
        self,
        icons: np.ndarray,
        icon_labels: list[tuple[str, str]],
        photographs: np.ndarray,
        photograph_labels: list[tuple[str, str]],
    ):
        self._icons, self._photographs, self._photograph_labels = icons, photographs, photograph_labels
        self._by_set: dict[tuple[str, str], int] = {label: i for i, label in enumerate(icon_labels)}
        self.nouns = [
            noun for noun in NOUNS if any((s, noun) in self._by_set for s in DRAWN["cartoon"].icon_sets)
        ]

    def draw(self, rng: Rng, height: int, width: int) -> Example:
        """One at random, never of a combination that is held out."""
        if len(self._photographs) and rng.random() < 0.04:
            return self._photograph(rng, height, width)
        names = list(STYLES)
        shares = np.asarray([STYLES[name].share for name in names])
        while True:
            noun = self.nouns[rng.integers(len(self.nouns))]
            style = names[rng.choice(len(names), p=shares / shares.sum())]
            place = self._place(rng)
            if not held_out(noun, style) and not held_out(noun, place) and self.can(noun, style):
                return self.compose(rng, height, width, Labels(noun, style, place))

    def held_out_labels(self, rng: Rng) -> Labels:
        """A noun, a style and a place; neither was ever trained on together with the noun."""
        names = list(STYLES)
        while True:
            labels = Labels(
                self.nouns[rng.integers(len(self.nouns))],
                names[rng.integers(len(names))],
                list(PLACES)[rng.integers(len(PLACES))],
            )
            both = held_out(labels.noun, labels.style) and held_out(labels.noun, labels.place)
            if both and self.can(labels.noun, labels.style):
                return labels

    def can(self, noun: str, style: str) -> bool:
        """Whether some icon set draws the noun in this style."""
        return bool(self._sets(noun, style))

    def compose(self, rng: Rng, height: int, width: int, labels: Labels) -> Example:
        """The picture of these labels; everything else is chance."""
        style, place = labels.style, labels.place
        if place in COLOURS:
            scene = places.plain(rng, height, width, place)
        elif place:
            scene = places.place(rng, height, width, place)
        elif style == "photo" and len(self._photographs):
            index = int(rng.integers(len(self._photographs)))
            scene = places.soft(self._crop(rng, index, height, width), rng.uniform(0, 2.5))
        else:
            scene = np.full((height, width, 3), 255, np.float32)
        thing, alpha, count = self._thing(rng, height, width, labels)
        if style in media.MATTER:
            thing = media.MATTER[style](rng, thing, alpha)
        if style in ("photo", *media.MATTER) and (place or style == "photo"):
            scene = scene * (1 - 0.35 * _shadow(alpha))
        picture = scene * (1 - alpha) + thing.clip(0, 255) * alpha
        picture = places.in_front(rng, picture, place)
        if style in media.WHOLE:
            picture = media.WHOLE[style](rng, picture)
        elif style == "photo":
            picture = media.photograph(rng, picture)
        return Example(picture.clip(0, 255).astype(np.uint8), caption(rng, labels, count), labels)

    def _place(self, rng: Rng) -> str:
        chance = rng.random()
        if chance < 0.2:
            return ""
        if chance < 0.42:
            return list(COLOURS)[rng.integers(len(COLOURS))]
        return list(PLACES)[rng.integers(len(PLACES))]

    def _sets(self, noun: str, style: str) -> list[str]:
        if style == "photo":
            wanted = ["fluent-emoji-3d"]
        elif style in RESTYLED:
            wanted = [
                *DRAWN["cartoon"].icon_sets,
                *DRAWN["3d render"].icon_sets,
                "twemoji",
                "fluent-emoji-flat",
            ]
        else:
            wanted = list(DRAWN[style].icon_sets)
        return [icon_set for icon_set in wanted if (icon_set, noun) in self._by_set]

    def _thing(self, rng: Rng, height: int, width: int, labels: Labels) -> tuple[np.ndarray, np.ndarray, int]:
        """The thing on an empty canvas, (H, W, 3), its coverage, (H, W, 1) of 0..1, and the number of it."""
        sets = self._sets(labels.noun, labels.style)
        icon = Image.fromarray(self._icons[self._by_set[sets[rng.integers(len(sets))], labels.noun]])
        if rng.random() < 0.4:
            icon = icon.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        countable = labels.noun not in UNCOUNTED | PLURAL | UNIQUE
        count = int(rng.choice([2, 3])) if countable and rng.random() < 0.05 else 1
        canvas = Image.new("RGBA", (width, height))
        if count == 1:
            side = int(min(height, width) * (rng.uniform(0.6, 0.98) if rng.random() < 0.8 else 0.98))
            top = _near_middle(rng, height - side)
            canvas.paste(
                icon.resize((side, side), Image.Resampling.LANCZOS), (_near_middle(rng, width - side), top)
            )
        else:
            side = min(width // count, int(height * 0.9))
            for i in range(count):
                top = _near_middle(rng, height - side)
                canvas.paste(icon.resize((side, side), Image.Resampling.LANCZOS), (i * width // count, top))
        array = np.asarray(canvas, np.float32)
        return array[..., :3], array[..., 3:] / 255, count

    def _crop(self, rng: Rng, index: int, height: int, width: int) -> np.ndarray:
        whole = self._photographs[index]
        most = min(whole.shape[0] / height, whole.shape[1] / width)
        scale = rng.uniform(min(1.0, most), most)
        h, w = int(height * scale), int(width * scale)
        top, left = rng.integers(whole.shape[0] - h + 1), rng.integers(whole.shape[1] - w + 1)
        part = Image.fromarray(whole[top : top + h, left : left + w])
        return np.asarray(part.resize((width, height), Image.Resampling.BOX), np.float32)

    def _photograph(self, rng: Rng, height: int, width: int) -> Example:
        while True:
            index = int(rng.integers(len(self._photographs)))
            style, words = self._photograph_labels[index]
            restyled = rng.random() < 0.25
            if restyled:
                style = list(media.WHOLE)[rng.integers(len(media.WHOLE))]
            if words not in _NOUN_OF or not held_out(_NOUN_OF[words], style):
                break
        picture = self._crop(rng, index, height, width)
        if rng.random() < 0.5:
            picture = picture[:, ::-1]
        if restyled:
            picture = media.WHOLE[style](rng, picture.copy())
        labels = Labels("", style, "")
        text = f"{_words(rng, STYLES[style].words)} of {words}" if words else _words(rng, STYLES[style].words)
        return Example(picture.clip(0, 255).astype(np.uint8), text, labels)


def caption(rng: Rng, labels: Labels, count: int = 1) -> str:
    """The picture in words: mostly "STYLE of NOUN PLACE"; a part may go unsaid."""
    noun = phrase(labels.noun) if count == 1 else f"{ {2: 'two', 3: 'three'}[count] } {plural(labels.noun)}"
    if not labels.place:
        where = ""
    elif labels.place in COLOURS:
        where = "" if labels.place == "white" and rng.random() < 0.6 else f" on a {labels.place} background"
    else:
        where = " " + _words(rng, PLACES[labels.place])
    style = _words(rng, STYLES[labels.style].words)
    return f"{noun}{where}" if rng.random() < 0.1 else f"{style} of {noun}{where}"


def prompt(labels: Labels) -> str:
    """The usual words for these labels."""
    where = f" {PLACES[labels.place][0]}" if labels.place in PLACES else ""
    return f"{STYLES[labels.style].words[0]} of {phrase(labels.noun)}{where}"


def plural(noun: str) -> str:
    """More than one of a countable noun of the vocabulary."""
    for ending, other in (
        ("man", "men"),
        ("wolf", "wolves"),
        ("mouse", "mice"),
        ("goose", "geese"),
        ("leaf", "leaves"),
    ):
        if noun.endswith(ending):
            return noun[: -len(ending)] + other
    if noun in ("sheep", "fish", "deer", "shrimp", "squid"):
        return noun
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh", "tomato", "potato", "mango")) else "s")


def load(folder: Path) -> "Painter":
    """The painter of the icons and photographs that `build` has put into `folder`."""
    import json

    labels = json.loads((folder / "sources.json").read_text())
    return Painter(
        np.load(folder / "icons.npy", mmap_mode="r"),
        [(icon_set, noun) for icon_set, noun in labels["icons"]],
        np.load(folder / "photographs.npy", mmap_mode="r"),
        [(style, words) for style, words in labels["photographs"]],
    )


def _words(rng: Rng, words: tuple[str, ...]) -> str:
    """The first in half of the cases, else any."""
    return words[0] if rng.random() < 0.5 else words[rng.integers(len(words))]


def _near_middle(rng: Rng, room: int) -> int:
    return int(np.clip(rng.normal(0.5, 0.22), 0, 1) * max(0, room))


def _shadow(alpha: np.ndarray) -> np.ndarray:
    solid = Image.fromarray((alpha[..., 0] * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(4))
    return np.roll(np.asarray(solid, np.float32)[..., None] / 255, (4, 3), (0, 1))
