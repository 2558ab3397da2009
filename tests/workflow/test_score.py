"""Pictures of any origin are held against the right words and the right source."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from sine_cli.errors import UserError
from sine_cli.project.source import read_picture
from sine_cli.workflow.edit import EditRequest, EditResult, edit
from sine_cli.workflow.score import ScoreRequest, score
from sine_cli.workflow.scorers import open_scorer, part_shown
from tests.workflow.conftest import EDIT, Girl


def made(girl: Girl, *prompts: str) -> list[EditResult]:
    settings = EDIT.model_copy(update={"base_weight": 1.0, "steps": 2})
    return edit(girl.project, girl.manifest, EditRequest([*prompts], settings, count=2))


def test_each_picture_is_held_against_its_own_prompt_and_its_project_s_source(
    untuned: Girl, tiny_clip: Path
) -> None:
    boats, trees = made(untuned, "a boat", "a red tree")
    files = [boats.pictures[0], *trees.pictures, boats.pictures[1]]
    result = score(ScoreRequest(files, scorer=str(tiny_clip)))
    assert [each.file for each in result.pictures] == files
    assert [each.prompt for each in result.pictures] == ["a boat", "a red tree", "a red tree", "a boat"]
    scorer = open_scorer(str(tiny_clip))
    assert result.scorer == scorer.identity
    source = read_picture(Path("girl/source.png")).image
    for each in result.pictures:
        (alone,) = scorer.score([read_picture(each.file).image], each.prompt, source)
        assert each.score.alignment == pytest.approx(alone.alignment, abs=1e-5)
        assert each.score.distance == pytest.approx(alone.distance, abs=1e-5)


def test_a_picture_of_a_part_is_held_against_that_part(untuned: Girl, tiny_clip: Path) -> None:
    settings = EDIT.model_copy(update={"base_weight": 1.0, "steps": 2})
    request = EditRequest(
        ["a boat"], settings, count=2, crop=(0.0, 0.25, 0.5, 1.5), best=1, scorer=str(tiny_clip)
    )
    (part,) = edit(untuned.project, untuned.manifest, request)
    source = read_picture(Path("girl/source.png")).image
    shown = source.crop((round(source.width / 4), 0, source.width, source.height // 2))
    pictures = [read_picture(path).image for path in part.pictures]
    expected = open_scorer(str(tiny_clip)).score(pictures, "a boat", shown)
    scored = score(ScoreRequest(part.pictures, scorer=str(tiny_clip))).pictures
    assert part.scores is not None
    for each, now, then in zip(expected, scored, part.scores.each, strict=True):
        assert now.score.distance == pytest.approx(each.distance, abs=1e-5)
        assert then.distance == pytest.approx(each.distance, abs=1e-5)
    whole = score(ScoreRequest(part.pictures, source=Path("girl/source.png"), scorer=str(tiny_clip))).pictures
    assert abs((whole[0].score.distance or 0) - (scored[0].score.distance or 0)) > 1e-4


def test_a_crop_wholly_beyond_the_frame_is_held_against_all_of_the_source() -> None:
    source = Image.new("RGB", (40, 20))
    assert part_shown(source, (-0.9, 0.0, -0.1, 1.0)).size == (40, 20)
    assert part_shown(source, None).size == (40, 20)


def test_the_source_itself_has_no_distance(untuned: Girl, tiny_clip: Path) -> None:
    source = Path("girl/source.png")
    (scored,) = score(ScoreRequest([source], "a girl", scorer=str(tiny_clip))).pictures
    assert scored.score.distance == 0


def test_a_project_is_found_by_where_the_picture_lies_not_by_where_one_works(
    untuned: Girl, tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (boats,) = made(untuned, "a boat")
    request = ScoreRequest(boats.pictures, scorer=str(tiny_clip))
    expected = [each.score for each in score(request).pictures]
    monkeypatch.chdir(boats.folder)
    here = replace(request, pictures=[Path(path.name) for path in boats.pictures])
    assert [each.score for each in score(here).pictures] == expected
    Path("below").mkdir()
    monkeypatch.chdir("below")
    climbing = replace(request, pictures=[Path("..", path.name) for path in boats.pictures])
    assert [each.score for each in score(climbing).pictures] == expected


def test_a_picture_in_no_project_has_no_distance_unless_a_source_is_given(
    picture: Path, tiny_clip: Path
) -> None:
    request = ScoreRequest([picture], "a girl", scorer=str(tiny_clip))
    assert [each.score.distance for each in score(request).pictures] == [None]
    assert [each.score.distance for each in score(replace(request, source=picture)).pictures] == [0]


def test_a_prompt_that_is_given_goes_before_the_picture_s_own(untuned: Girl, tiny_clip: Path) -> None:
    (boats,) = made(untuned, "a boat")
    (own, _) = score(ScoreRequest(boats.pictures, scorer=str(tiny_clip))).pictures
    (given, _) = score(ScoreRequest(boats.pictures, "a red tree", scorer=str(tiny_clip))).pictures
    assert (own.prompt, given.prompt) == ("a boat", "a red tree")
    assert own.score.alignment != given.score.alignment
    assert own.score.distance == given.score.distance


def test_pictures_that_are_too_small_for_a_project_have_scores(tiny_clip: Path, picture: Path) -> None:
    Image.new("RGB", (8, 7), "red").save("small.png")
    request = ScoreRequest([Path("small.png")], "a boat", picture, scorer=str(tiny_clip))
    (scored,) = score(request).pictures
    assert scored.score.distance is not None and scored.score.distance > 0


def test_a_turned_photograph_is_scored_upright(tiny_clip: Path, picture: Path) -> None:
    upright = Image.open(picture)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    upright.transpose(Image.Transpose.ROTATE_90).save("turned.png", exif=exif)
    request = ScoreRequest([Path("turned.png")], "a girl", picture, str(tiny_clip))
    assert score(request).pictures[0].score.distance == 0


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_an_empty_prompt_is_refused(picture: Path, prompt: str) -> None:
    with pytest.raises(UserError) as caught:
        score(ScoreRequest([picture], prompt))
    assert caught.value.message == "the prompt is empty"


def test_words_that_the_scorer_does_not_read_are_told(picture: Path, tiny_clip: Path) -> None:
    notices: list[str] = []
    score(ScoreRequest([picture, picture], "a boat on a lake " * 9, scorer=str(tiny_clip)), notices.append)
    assert len(notices) == 1 and notices[0].startswith('"a boat on a lake a boat on a lake a boat..."')


def test_a_source_that_was_changed_is_told(untuned: Girl, tiny_clip: Path) -> None:
    (boats,) = made(untuned, "a boat")
    path = Path("girl/source.png")
    with Image.open(path) as source:
        source.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)
    with pytest.raises(UserError) as caught:
        score(ScoreRequest(boats.pictures, scorer=str(tiny_clip)))
    assert caught.value.message == "girl/source.png is not the picture whose hash girl/sine.yaml has"
