"""`sine init`: make a project from a picture."""

from pathlib import Path
from typing import Annotated

import typer

from sine_cli.cli.options import JsonOption, QuietOption


def init(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="Any image file that Pillow reads.")],
    class_noun: Annotated[
        str, typer.Option("--class", "-c", metavar="NOUN", help="What it shows: castle, dog, painting, ...")
    ],
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind", help="photo, painting, style, ...; default: photo, or the medium --class names."
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", help="The whole source prompt, instead of one made from the above; [*] is the token."
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base", "-b", help="A preset (`sine bases`), a hub id, a diffusers folder, a .safetensors file."
        ),
    ] = None,
    token: Annotated[
        str, typer.Option("--token", help="A rare word that comes to mean this picture.")
    ] = "sks",
    folder: Annotated[
        Path | None, typer.Option("--dir", "-d", help="The project folder; default: the picture's name.")
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a project folder from a picture.

    Its base is fetched where it is not on this disk, and that is said; no other command fetches one (but
    `sine bases --fetch`).

    \b
    sine init girl.jpg --class painting
    sine init rex.jpg --class dog --dir rex
    sine init castle.png --class castle --base sd15
    sine init starry-night.jpg --class painting --kind style
    """
    from sine_cli.console import Console
    from sine_cli.project.files import printable, shown, typed
    from sine_cli.workflow.init import InitRequest, init

    console = Console(as_json=as_json, quiet=quiet)
    result = init(InitRequest(picture, class_noun, kind, prompt, base, token, folder), console.say)
    notes = [*result.picture.notes]
    if result.base.reason:
        notes.append(f"base `{result.base.name}`: {result.base.reason}")
    for note in notes:
        console.say(f"note: {note}")
    source = result.manifest.source
    console.result(
        [
            f"{shown(result.project.root)}  made from {printable(result.picture.original_name)}, "
            f"{source.height} high, {source.width} wide",
            f'source prompt  "{result.manifest.prompts.source}"',
            f"next           `cd {typed(result.project.root)}`, then `sine tune`",
        ],
        {
            "project": str(result.project.root.absolute()),
            "source": {"height": source.height, "width": source.width, "sha256": source.sha256},
            "source_prompt": result.manifest.prompts.source,
            "base": result.manifest.base,
            "base_revision": result.manifest.base_revision,
            "notes": notes,
        },
    )
