"""`python -m sine_cli.mini build`: make the bundled base and its scorer anew."""

from pathlib import Path
from typing import Annotated

import typer

from sine_cli.cli.options import QuietOption

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback()
def mini() -> None:
    """The recipe of the bundled base."""


@app.command()
def build(
    work: Annotated[
        Path, typer.Option("--work", help="Packages, pictures and checkpoints; 8 GB when done, 12 on a GPU.")
    ] = Path("mini-work"),
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Where `weights` and `scorer` go; default: `built` in the work folder."),
    ] = None,
    unet_steps: Annotated[
        int | None,
        typer.Option(
            "--unet-steps", min=1, help="Of the U-Net, whose training is the longest; more is better."
        ),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Make the bundled base and its scorer anew.

    From package registries to the shipped files: some four hours on two cores, eleven minutes on an NVIDIA
    H200. A GPU is used where there is one, with larger batches. Needs npm and apt-get, and
    `pip install "sine-cli[mini]"`. Interrupt it at any time: the same command goes on.

    \b
    python -m sine_cli.mini build --work ~/mini-work
    """
    from dataclasses import replace

    from sine_cli.console import Console
    from sine_cli.mini.build import build as build_all
    from sine_cli.mini.build import plan_of
    from sine_cli.project.files import shown

    console = Console(quiet=quiet)
    plan = plan_of(work)
    if unet_steps is not None:
        plan = replace(plan, unet=replace(plan.unet, steps=unet_steps))
    folder = out or work / "built"
    build_all(work, folder, plan, console.say)
    console.result([f"{shown(folder)}  weights and scorer"], {"folder": str(folder)})
