"""`sine score`: how well pictures go with words, and how far they are from their source."""

from pathlib import Path
from typing import Annotated

import typer

from sine_cli.cli.options import JsonOption, QuietOption, ScorerOption


def score(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Pictures, of any origin.")],
    prompt: Annotated[
        str | None, typer.Option("--prompt", help="What they shall show; default: what each was made from.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--source", help="What they were made of; default: the source of the project around."),
    ] = None,
    scorer: ScorerOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Score pictures against words and source.

    Alignment with the prompt is from -1 to 1, higher is better. Distance to the source is 0 for the same
    picture, lower keeps more of it; `-` where no source is known.

    \b
    sine score girl/edits/*/*.png
    sine score photo.jpg --prompt "a sculpture of a girl" --source girl.jpg
    """
    from sine_cli.console import Console
    from sine_cli.project.files import shown
    from sine_cli.workflow.score import ScoreRequest, score

    console = Console(as_json=as_json, quiet=quiet)
    result = score(ScoreRequest(images, prompt, source, scorer), console.warn)
    console.result(
        [
            result.scorer.described(),
            "alignment  distance  file",
            *(
                f"{_number(each.score.alignment):>9}  {_number(each.score.distance):>8}  {shown(each.file)}"
                for each in result.pictures
            ),
        ],
        {
            "scorer": result.scorer.name,
            "scorer_revision": result.scorer.revision,
            "distance": result.scorer.distance,
            "images": [
                {
                    "file": str(each.file),
                    "prompt": each.prompt,
                    "alignment": each.score.alignment,
                    "distance": each.score.distance,
                }
                for each in result.pictures
            ],
        },
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{round(value, 3) + 0.0:.3f}"  # + 0.0: never "-0.000"
