"""`sine demo`: the whole job on a shipped picture, each command printed before it runs."""

from pathlib import Path
from typing import Annotated

import typer

from sine_cli.cli.options import QuietOption
from sine_cli.errors import UserError

STORY = [
    "sine init {folder}/castle.png --class castle --base mini --dir {folder}/castle",
    "sine tune --project {folder}/castle",
    'sine edit "a neon sign of a castle" --project {folder}/castle -n 2',
    'sine edit "a castle in the snow" --project {folder}/castle --size 192x128',
    'sine grid "a pencil sketch of a castle" --project {folder}/castle -K 0,100,200,400 -v 0.3,0.5,0.7',
    "sine show --project {folder}/castle",
]


def demo(
    folder: Annotated[Path, typer.Option("--dir", "-d", help="A new folder to work in.")] = Path("sine-demo"),
    quiet: QuietOption = False,
) -> None:
    """Show it all on a shipped picture.

    Makes, tunes and edits a project, printing each command before it runs.

    \b
    sine demo
    sine demo --dir somewhere
    """
    import os
    import shlex

    from sine_cli.cli.main import follow
    from sine_cli.console import Console
    from sine_cli.project.files import make_folder, shown, typed, write_bytes
    from sine_cli.project.templates import template_path

    console = Console(quiet=quiet)
    if os.path.lexists(folder):
        raise UserError(f"{shown(folder)} already exists", "choose another: `sine demo --dir NAME`")
    make_folder(folder)
    write_bytes(folder / "castle.png", template_path("demo", "castle.png").read_bytes())
    for line in STORY:
        console.result([f"$ {line.format(folder=typed(folder))}"], {})
        arguments = [word.format(folder=folder) for word in shlex.split(line)[1:]]
        code = follow([*arguments, "--quiet"] if quiet else arguments)
        if code:
            raise typer.Exit(code)
    hint = "next: a picture of your own, `sine init PICTURE --class NOUN`"
    console.result([f"all of it is in {shown(folder)}; {hint}"], {})
