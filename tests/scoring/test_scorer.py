"""Scores of many pictures, and which of them are the best."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sine_cli.scoring.clip import BATCH, Clip
from sine_cli.scoring.distance import FeatureDistance
from sine_cli.scoring.scorer import Score, Scorer, ranking
from tests.scoring.conftest import noise


@pytest.fixture
def scorer(clip: Clip) -> Scorer:
    return Scorer("tiny", "sha256:0123", clip, FeatureDistance(clip, "tiny"))


def test_a_score_is_alignment_and_distance(
    scorer: Scorer, clip: Clip, cat: Image.Image, coffee: Image.Image
) -> None:
    scores = scorer.score([cat, coffee], "a cat", cat)
    assert [score.alignment for score in scores] == pytest.approx(
        clip.alignment([cat, coffee], "a cat"), abs=1e-6
    )
    assert [score.distance for score in scores] == pytest.approx(
        scorer.distance([cat, coffee], cat), abs=1e-6
    )
    assert scores[0].distance == 0


def test_without_a_source_there_is_no_distance(scorer: Scorer, cat: Image.Image) -> None:
    (score,) = scorer.score([cat], "a cat", None)
    assert score.distance is None


def test_pictures_are_taken_a_batch_at_a_time(
    scorer: Scorer, cat: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    taken_when_scored: list[int] = []
    alignment = scorer.clip.alignment

    def watched(pictures: Sequence[Image.Image], prompt: str) -> list[float]:
        taken_when_scored.append(len(taken))
        return alignment(pictures, prompt)

    def pictures() -> Iterator[Image.Image]:
        for seed in range(BATCH + 3):
            taken.append(seed)
            yield noise(16, 16, seed)

    monkeypatch.setattr(scorer.clip, "alignment", watched)
    scores = scorer.score(pictures(), "a cat", cat)
    assert len(scores) == BATCH + 3
    assert taken_when_scored == [BATCH, BATCH + 3]
    (alone,) = scorer.score([noise(16, 16, BATCH)], "a cat", cat)
    assert asdict(scores[BATCH]) == pytest.approx(asdict(alone), abs=1e-5)
    assert scorer.score(iter([]), "a cat", cat) == []


def test_the_scorer_says_what_it_is(scorer: Scorer) -> None:
    assert scorer.identity.described() == "alignment by tiny, distance: features of tiny"
    assert (scorer.identity.name, scorer.identity.revision) == ("tiny", "sha256:0123")


# ------------------------------------------------------------------------------------------------- ranking


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([], []),
        ([(0.3, 0.1)], [0]),
        ([(0.1, 0.3), (0.2, 0.2), (0.3, 0.1)], [2, 1, 0]),  # better in both
        ([(0.3, 0.3), (0.2, 0.1), (0.1, 0.2)], [1, 0, 2]),  # ranks 0 + 2, 1 + 0, 2 + 1
        ([(0.1, 0.1), (0.2, 0.2)], [1, 0]),  # 1 + 0, 0 + 1: the better alignment
        ([(0.2, 0.3), (0.2, 0.1), (0.2, 0.2)], [1, 2, 0]),  # the alignment says nothing
        ([(0.1, 0.2), (0.3, 0.2), (0.2, 0.2)], [1, 2, 0]),  # the distance says nothing
        ([(0.2, 0.2), (0.2, 0.2)], [0, 1]),  # nothing does: the order they were made in
        ([(0.1, None), (0.3, None), (0.2, None)], [1, 2, 0]),  # no source
    ],
)
def test_the_ranking_is_by_the_sum_of_the_ranks(
    scores: list[tuple[float, float | None]], expected: list[int]
) -> None:
    assert ranking([Score(*score) for score in scores]) == expected


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 2)), max_size=12))
def test_every_picture_is_ranked_once_and_none_behind_one_that_is_worse_in_both(
    values: list[tuple[float, float]],
) -> None:
    scores = [Score(*value) for value in values]
    order = ranking(scores)
    assert sorted(order) == list(range(len(scores)))
    for behind, place in enumerate(order):
        for other in order[:behind]:
            assert not (values[place][0] > values[other][0] and values[place][1] < values[other][1])
