"""Which model scores: the bundled one, a repository of the hub, or a folder; and scores of files."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from sine_cli.errors import UserError
from sine_cli.models import locate
from sine_cli.models.locate import Location
from sine_cli.project.files import printable, shown
from sine_cli.project.manifest import HUB_ID
from sine_cli.project.runs import load_picture
from sine_cli.workflow.size import WHOLE, Box

if TYPE_CHECKING:  # torch comes with the scorer itself, after all that can be wrong is looked at
    from sine_cli.scoring.scorer import Score, Scorer

BUNDLED = "mini"


@dataclass(frozen=True)
class LocatedScorer:
    """A scorer on this disk, not loaded yet.

    Attributes:
        name: mini, a hub id, or the absolute path of a folder.
    """

    name: str
    location: Location


def locate_scorer(
    name: str | None, on_notice: Callable[[str], None] = lambda _: None, *, may_fetch: bool = True
) -> LocatedScorer:
    """Where the scorer called `name` lies, the bundled one for None; fetched where it must be, not loaded.

    Args:
        on_notice: told what is fetched, and how large it is.
        may_fetch: whether a person named it, and not a file of the project.

    Raises:
        UserError: no such scorer, or it is not whole.  SineError: the hub cannot be reached.
    """
    if name is None or name == BUNDLED:
        return LocatedScorer(BUNDLED, locate.clip_in_folder(locate.in_package("sine_cli.mini", "scorer")))
    if os.path.isdir(name):  # unlike Path's, False for a name that no folder can have
        folder = Path(name).resolve()
        return LocatedScorer(str(folder), locate.clip_in_folder(folder))
    if HUB_ID.fullmatch(name):
        return LocatedScorer(name, locate.clip_on_hub(name, on_notice, may_fetch=may_fetch))
    if name.startswith(("/", ".", "~")):
        message = f"no such folder: {shown(Path(name))}"
    else:
        message = f'no scorer called "{printable(name)}"'
    raise UserError(message, f"give `{BUNDLED}`, a hub id or a CLIP model's folder as `--scorer`")


def load_scorer(located: LocatedScorer) -> "Scorer":
    """The scorer in memory, on the best device. Raises UserError where its files are unfit."""
    from sine_cli.models.bounds import bounded
    from sine_cli.models.device import best_device
    from sine_cli.models.parts import loading
    from sine_cli.scoring.clip import Clip
    from sine_cli.scoring.distance import distance_for
    from sine_cli.scoring.scorer import Scorer

    folder = located.location.path
    with loading(str(folder), "the scorer"), bounded(folder):
        clip = Clip(folder, best_device())
    return Scorer(located.name, located.location.revision, clip, distance_for(clip, located.name))


def open_scorer(name: str | None = None, on_notice: Callable[[str], None] = lambda _: None) -> "Scorer":
    """`locate_scorer`, then `load_scorer`."""
    return load_scorer(locate_scorer(name, on_notice))


def tell_unread(scorer: "Scorer", prompts: list[str], on_notice: Callable[[str], None]) -> None:
    """Give notice of prompts that the scorer does not read to their end."""
    for prompt in dict.fromkeys(prompts):
        if not scorer.clip.reads_whole(prompt):
            on_notice(
                f'"{prompt[:40]}..." is longer than the scorer `{scorer.name}` reads; its end does not count'
            )


def part_shown(source: Image.Image, crop: Box | None) -> Image.Image:
    """What a picture of that crop is held against: the part of the source in it, all where there is none.

    A crop that reaches beyond the frame shows what the source does not have: that is left out.
    """
    h1, w1, h2, w2 = (min(max(side, 0.0), 1.0) for side in crop or WHOLE)
    left, top = round(w1 * source.width), round(h1 * source.height)
    right, bottom = round(w2 * source.width), round(h2 * source.height)
    return source.crop((left, top, right, bottom)) if left < right and top < bottom else source


def score_files(scorer: "Scorer", files: list[Path], prompt: str, source: Image.Image) -> "list[Score]":
    """The scores of pictures that sine has just made, of any size: `read_picture` would refuse small ones."""
    return scorer.score((load_picture(file) for file in files), prompt, source)
