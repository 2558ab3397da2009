"""Scores of pictures against words and source, and which pictures are the best."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from PIL import Image

from sine_cli.scoring.clip import BATCH, Clip
from sine_cli.scoring.distance import Distance

DIGITS = 6
"""Digits after the point of every score."""


@dataclass(frozen=True)
class Score:
    """How good an edit is.

    Attributes:
        alignment: with the prompt, in [-1, 1]; higher is better.
        distance: to the source, >= 0; lower keeps more of it. None where there is no source to measure to.
    """

    alignment: float
    distance: float | None


@dataclass(frozen=True)
class ScorerIdentity:
    """What scores are made with, as records keep it.

    Attributes:
        name: as asked for: mini, a hub id, or the absolute path of a folder.
        revision: the hub's commit, or "sha256:..." of the folder's files.
        distance: the name of the measure.
    """

    name: str
    revision: str
    distance: str

    def described(self) -> str:
        return f"alignment by {self.name}, distance: {self.distance}"


@dataclass(frozen=True)
class Scorer:
    """A model that scores, with the measure of distance that goes with it; name and revision as above."""

    name: str
    revision: str
    clip: Clip
    distance: Distance

    @property
    def identity(self) -> ScorerIdentity:
        return ScorerIdentity(self.name, self.revision, self.distance.name)

    def score(self, pictures: Iterable[Image.Image], prompt: str, source: Image.Image | None) -> list[Score]:
        """The score of each picture (RGB, of any size); they are taken a batch at a time."""
        scores: list[Score] = []
        for batch in _batches(pictures):
            alignments = self.clip.alignment(batch, prompt)
            distances = self.distance(batch, source) if source else [None] * len(batch)
            scores += map(_score, alignments, distances)
        return scores


def ranking(scores: Sequence[Score]) -> list[int]:
    """The places of the scores in their list, best first.

    By the sum of two ranks, that of the alignment and that of the distance; of equal sums the better
    alignment comes first. Without distances by the alignment alone.
    """

    def key(score: Score) -> tuple[int, float]:
        rank = sum(other.alignment > score.alignment for other in scores)
        nearer = sum(
            other.distance < score.distance
            for other in scores
            if other.distance is not None and score.distance is not None
        )
        return rank + nearer, -score.alignment

    return sorted(range(len(scores)), key=lambda place: key(scores[place]))


def _score(alignment: float, distance: float | None) -> Score:
    """Rounded to what float32 knows: the digits after depend on which pictures shared a batch."""
    return Score(round(alignment, DIGITS), None if distance is None else round(distance, DIGITS))


def _batches(pictures: Iterable[Image.Image]) -> Iterator[list[Image.Image]]:
    left = iter(pictures)
    while batch := list(islice(left, BATCH)):
        yield batch
