"""Which model scores: the bundled one, a folder, a repository of the hub."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants
from PIL import Image

from sine_cli.errors import UserError
from sine_cli.models import locate
from sine_cli.workflow.scorers import load_scorer, locate_scorer, open_scorer, score_files, tell_unread
from tests.tiny import MINI, write_hub_cache

COMMIT = "0123456789abcdef0123456789abcdef01234567"
GIVE = "give `mini`, a hub id or a CLIP model's folder as `--scorer`"


@pytest.mark.parametrize("name", [None, "mini"])
def test_the_bundled_scorer_is_the_default(name: str | None) -> None:
    located = locate_scorer(name)
    assert located.name == "mini"
    assert located.location == locate.clip_in_folder(MINI.parent / "scorer")
    scorer = load_scorer(located)
    assert scorer.identity.described() == "alignment by mini, distance: features of mini"
    assert scorer.revision == located.location.revision


def test_a_folder_is_named_by_its_whole_path_so_that_a_record_can_name_it(tiny_clip: Path) -> None:
    scorer = open_scorer(os.path.relpath(tiny_clip))
    assert scorer.name == str(tiny_clip)
    assert scorer.revision == locate.clip_in_folder(tiny_clip).revision
    assert scorer.distance.name == f"features of {tiny_clip}"


def test_a_repository_of_the_hub_is_fixed_to_its_commit(
    tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    write_hub_cache(tmp_path / "hub", "seers/tiny-clip", COMMIT, tiny_clip)
    scorer = open_scorer("seers/tiny-clip")
    assert (scorer.name, scorer.revision) == ("seers/tiny-clip", COMMIT)
    picture = Image.new("RGB", (20, 30), "red")
    assert scorer.score([picture], "a cat", picture) == open_scorer(str(tiny_clip)).score(
        [picture], "a cat", picture
    )


@pytest.mark.parametrize("name", ["/no/such/clip", "./clip", "~/clip"])
def test_a_folder_that_is_not_there_is_told(name: str) -> None:
    with pytest.raises(UserError) as caught:
        locate_scorer(name)
    assert (caught.value.message, caught.value.hint) == (f"no such folder: {Path(name)}", GIVE)


def test_a_name_that_is_none_is_told() -> None:
    with pytest.raises(UserError) as caught:
        locate_scorer("clip\x1b")
    assert (caught.value.message, caught.value.hint) == ('no scorer called "clip\\x1b"', GIVE)


def test_locating_waits_for_no_torch(tiny_clip: Path) -> None:
    program = (
        "import sys; from sine_cli.workflow.scorers import locate_scorer\n"
        f"locate_scorer({str(tiny_clip)!r}), locate_scorer(None)\n"
        "print(*({'torch', 'transformers'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_pictures_too_small_for_a_source_are_scored_too(tiny_clip: Path) -> None:
    Image.new("RGB", (1, 1), "red").save("one.png")
    scorer = open_scorer(str(tiny_clip))
    (score,) = score_files(scorer, [Path("one.png")], "a cat", Image.new("RGB", (20, 20), "red"))
    assert score.distance == 0


def test_prompts_longer_than_the_scorer_reads_are_told_once(tiny_clip: Path) -> None:
    notices: list[str] = []
    long = "a photo of a cat " * 9
    tell_unread(open_scorer(str(tiny_clip)), [long, "a cat", long], notices.append)
    assert notices == [
        f'"{long[:40]}..." is longer than the scorer `{tiny_clip}` reads; its end does not count'
    ]
