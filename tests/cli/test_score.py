"""`sine score`, and the best of an edit: what is shown, told to scripts, and refused."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from sine_cli.workflow.scorers import locate_scorer
from tests.tiny import write_tiny_clip

if TYPE_CHECKING:
    from tests.cli.conftest import Listing, Sine

HEADER = "alignment by mini, distance: features of mini\nalignment  distance  file\n"
SCORERS = "give `mini`, a hub id or a CLIP model's folder as `--scorer`"


def told(message: str, hint: str) -> str:
    return f"error: {message}\n\nhint: {hint}\n"


@pytest.fixture
def boats(sine: "Sine", untuned: Path) -> list[Path]:
    """Two pictures that the base alone has made of a boat."""
    done = sine(*("edit", "a boat", "-v", "1", "-n", "2", "--size", "32x24", "--steps", "1", "--quiet"))
    assert done.code == 0
    return [Path(line.partition("  ")[0]) for line in done.out.splitlines()]


def test_pictures_are_shown_in_aligned_rows(sine: "Sine", boats: list[Path]) -> None:
    facts = json.loads(sine("score", *boats, "--json").out)
    rows = "".join(
        f"{image['alignment']:9.3f}  {image['distance']:8.3f}  {image['file']}\n" for image in facts["images"]
    ).replace("-0.000", " 0.000")
    assert sine("score", *boats) == (0, HEADER + rows, "")


def test_the_source_has_no_distance_and_a_picture_without_one_has_a_dash(
    sine: "Sine", untuned: Path, picture: Path
) -> None:
    done = sine("score", "girl/source.png", picture, "--prompt", "a girl")
    assert re.fullmatch(
        re.escape(HEADER) + r" +-?\d\.\d{3}     0\.000  girl/source\.png\n"
        r" +-?\d\.\d{3}         -  girl\.jpg\n",
        done.out,
    )


def test_scripts_are_told_all(sine: "Sine", boats: list[Path], picture: Path) -> None:
    done = sine("score", boats[0], picture, "--prompt", "a red boat", "--json")
    facts = json.loads(done.out)
    assert (done.code, done.err) == (0, "")
    assert facts.keys() == {"scorer", "scorer_revision", "distance", "images", "warnings"}
    assert facts["scorer"] == "mini"
    assert facts["scorer_revision"] == locate_scorer("mini").location.revision
    assert facts["distance"] == "features of mini"
    first, second = facts["images"]
    assert first.keys() == {"file", "prompt", "alignment", "distance"}
    assert (first["file"], first["prompt"]) == (str(boats[0]), "a red boat")
    assert -1 <= first["alignment"] <= 1 and first["distance"] > 0
    assert second["distance"] is None
    given = json.loads(sine("score", picture, "--prompt", "a boat", "--source", picture, "--json").out)
    assert given["images"][0]["distance"] == 0


def test_another_scorer_is_named_in_the_header(sine: "Sine", picture: Path) -> None:
    folder = write_tiny_clip(Path("clip"))
    done = sine("score", picture, "--prompt", "a girl", "--scorer", "clip")
    assert done.out.splitlines()[0] == (
        f"alignment by {folder.resolve()}, distance: features of {folder.resolve()}"
    )


def test_a_long_prompt_is_warned_of_unless_quiet(sine: "Sine", picture: Path) -> None:
    arguments = ("score", picture, "--prompt", "a girl " * 30)
    assert sine(*arguments).err == (
        'warning: "a girl a girl a girl a girl a girl a gir..." is longer than the scorer `mini` reads; '
        "its end does not count\n"
    )
    assert sine(*arguments, "--quiet").err == ""


# -------------------------------------------------------------------------------------------------- the best


@pytest.mark.parametrize(("best", "marks"), [(1, ["best"]), (2, ["best 1", "best 2"])])
def test_the_best_of_an_edit_are_marked(sine: "Sine", untuned: Path, best: int, marks: list[str]) -> None:
    edit = ("edit", "a boat", "-v", "1", "-n", "3", "--best", str(best), "--size", "32x24", "--steps", "1")
    lines = sine(*edit).out.splitlines()
    matches = [
        re.fullmatch(rf"girl/edits/\S+/000{i + 1}\.png  32 high, 24 wide, seed {i}(?:  (best.*))?", line)
        for i, line in enumerate(lines)
    ]
    assert len(matches) == 3 and all(matches)
    shown = [match[1] for match in matches if match]
    assert sorted(mark for mark in shown if mark) == marks

    [run] = json.loads(sine(*edit, "--json").out)["runs"]
    assert run["scorer"]["name"] == "mini"
    assert [image.keys() for image in run["images"]] == [
        {"file", "seed", "alignment", "distance", "best"}
    ] * 3
    ranks = [image["best"] for image in run["images"]]
    assert [None if mark is None else int(mark.removeprefix("best") or 1) for mark in shown] == ranks


# ----------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ("girl.jpg", "girl.jpg carries no prompt of sine's", 'say what it shall show: `--prompt "..."`'),
        ("gril.jpg --prompt x", "no such file: gril.jpg", "did you mean `girl.jpg`?"),
        ("folder --prompt x", "folder is a folder", "name a file"),
        (
            "words.png --prompt x",
            "words.png is not a picture that can be read",
            "name a picture, for example a JPEG, PNG, WebP or TIFF file",
        ),
        ("girl.jpg --prompt x --source gone.jpg", "no such file: gone.jpg", "did you mean `girl.jpg`?"),
        ("girl.jpg --prompt x --scorer clip", 'no scorer called "clip"', SCORERS),
        ("girl.jpg --prompt x --scorer ../clip", "no such folder: ../clip", SCORERS),
        ("", "Missing argument 'IMAGE'.", "`sine score --help` shows what it takes"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_written(
    sine: "Sine",
    picture: Path,
    listing: Callable[[], "Listing"],
    arguments: str,
    message: str,
    hint: str,
) -> None:
    Path("folder").mkdir()
    Path("words.png").write_text("words")
    before = listing()
    assert sine("score", *arguments.split()) == (2, "", told(message, hint))
    assert listing() == before


def test_an_empty_prompt_is_refused(sine: "Sine", picture: Path) -> None:
    assert sine("score", picture, "--prompt", " ") == (
        2,
        "",
        told(
            "the prompt is empty",
            'say what the picture shall become: `sine score 0001.png --prompt "a sculpture of a girl"`',
        ),
    )


def test_a_prompt_in_the_metadata_that_is_no_text_is_none(sine: "Sine") -> None:
    from PIL.PngImagePlugin import PngInfo

    for recipe in ("[]", '{"prompt": 7}', "{", '{"prompt": null}'):
        metadata = PngInfo()
        metadata.add_itxt("sine", recipe)
        Image.new("RGB", (20, 20)).save("hostile.png", pnginfo=metadata)
        assert sine("score", "hostile.png").err.startswith("error: hostile.png carries no prompt of sine's\n")
