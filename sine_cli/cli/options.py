"""Options that several commands share, and how a command finds its project."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sine_cli.errors import UserError

if TYPE_CHECKING:
    from sine_cli.console import Console
    from sine_cli.project.folder import Project
    from sine_cli.project.manifest import EditSettings, Manifest
    from sine_cli.workflow.guides import GuideRequest
    from sine_cli.workflow.size import Box, Size
    from sine_cli.workflow.user_lora import UserLora

ProjectOption = Annotated[
    Path | None,
    typer.Option(
        "--project", "-p", help="Project folder; default: from the working folder upwards, or just below."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notices.")]
SizeOption = Annotated[
    str | None,
    typer.Option(
        "--size",
        metavar="HxW",
        help="Height x width in pixels; default: the source's aspect at the base's native area.",
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", "-s", help="Seed of the first picture, 0 or more.")]
SwitchStepOption = Annotated[
    int | None, typer.Option("-K", "--switch-step", help="Guided by the picture while t > K, 0 to 1000.")
]
WeightOption = Annotated[
    float | None, typer.Option("-v", "--base-weight", help="Weight of the base while guided, 0 to 1.")
]
ScaleOption = Annotated[
    float | None,
    typer.Option("-w", "--guidance-scale", help="Classifier-free guidance, 1 to 100."),
]
StepsOption = Annotated[int | None, typer.Option("--steps", help="Sampling steps, 1 to 1000.")]
SolverOption = Annotated[str | None, typer.Option("--solver", help="ddim, euler, dpm++ or unipc.")]
NegativeOption = Annotated[
    str | None,
    typer.Option("--negative", help="What must not be in the picture."),
]
SourcePromptOption = Annotated[
    str | None,
    typer.Option(
        "--source-prompt",
        help="What the tuned model is given, [*] being the token; default: the prompt it was tuned with.",
    ),
]
GuideOption = Annotated[
    list[str] | None,
    typer.Option(
        "--guide",
        metavar="PROJECT:WEIGHT",
        help="Another tuned project guides too, with some of the base's weight; :K and :PROMPT may follow. "
        "May be given again.",
    ),
]
ScorerOption = Annotated[
    str | None,
    typer.Option(
        "--scorer", help="What scores: mini, a hub id of a CLIP model, or its folder; default: mini."
    ),
]
NoPositionOption = Annotated[
    bool, typer.Option("--no-position", help="Do not tell the tuned models where things lie.")
]
MemoryOption = Annotated[
    str,
    typer.Option(
        "--memory",
        metavar="normal|low",
        help="low: slower, with only the U-Net on the accelerator; for large bases and pictures.",
    ),
]


def first_typed(context: typer.Context, but: Collection[str]) -> str | None:
    """The first of what was given on the command line whose parameter is not among `but`; None for none.

    An option as it is typed, `--size`; an argument by its name, "prompt".
    """
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name not in but and source is not None and source.name == "COMMANDLINE":
            return parameter.opts[0]
    return None


def open_project(given: Path | None, console: "Console") -> "tuple[Project, Manifest]":
    """The project a command is about, and its manifest; says which one where it was not named."""
    from sine_cli.project.manifest import load_manifest

    project = choose_project(given, console)
    return project, load_manifest(project.manifest_path)


def choose_project(given: Path | None, console: "Console") -> "Project":
    """The project a command is about, its manifest unread."""
    from sine_cli.project.files import shown
    from sine_cli.project.folder import find_project

    try:
        here = Path.cwd()
    except FileNotFoundError as error:
        raise UserError("the working folder is no longer there", "go to one that is: `cd`") from error
    found = find_project(here, given)
    if found.how == "below":
        console.say(f"project: {shown(found.project.root)}")
    return found.project


def is_low(memory: str) -> bool:
    """What `--memory` says. Raises UserError where it says neither."""
    if memory not in ("normal", "low"):
        raise UserError(f'--memory: must be normal or low, got "{memory}"', "for example `--memory low`")
    return memory == "low"


def gigabytes(peak_memory: int) -> str:
    """How a report says it."""
    return f"peak memory {peak_memory / 2**30:.1f} GiB"


def parse_size_option(text: str | None) -> "Size | None":
    from sine_cli.workflow.size import parse_size

    return None if text is None else parse_size(text)


def parse_crop_option(text: str | None) -> "Box | None":
    from sine_cli.workflow.size import parse_crop

    return None if text is None else parse_crop(text)


def parse_guide_options(texts: list[str] | None) -> "tuple[GuideRequest, ...]":
    from sine_cli.workflow.guides import parse_guide

    return tuple(parse_guide(text) for text in texts or ())


def parse_lora_option(text: str | None) -> "UserLora | None":
    from sine_cli.workflow.user_lora import parse_user_lora

    return None if text is None else parse_user_lora(text)


LARGEST_SEED = 2**62
"""Half of what torch takes, so that the seeds of several pictures (seed + index) are seeds too."""


def check_seed(seed: int) -> int:
    """The seed. Raises UserError when it is not in 0 .. LARGEST_SEED."""
    if not 0 <= seed <= LARGEST_SEED:
        raise UserError(f"--seed: must be from 0 to {LARGEST_SEED}, got {seed}", "for example `--seed 1`")
    return seed


def edit_settings(
    manifest: "Manifest",
    *,
    switch_step: int | None = None,
    base_weight: float | None = None,
    guidance_scale: float | None,
    steps: int | None,
    solver: str | None,
    negative: str | None,
) -> "EditSettings":
    """The manifest's settings with what the command line says instead. Raises UserError."""
    from sine_cli.project.manifest import changed
    from sine_cli.project.prompts import check_text

    settings = changed(
        manifest.edit,
        {
            "switch_step": ("-K", switch_step),
            "base_weight": ("-v", base_weight),
            "guidance_scale": ("-w", guidance_scale),
            "steps": ("--steps", steps),
            "solver": ("--solver", solver),
            "negative": ("--negative", negative),
        },
    )
    check_text(negative or "", "--negative:")
    return settings
