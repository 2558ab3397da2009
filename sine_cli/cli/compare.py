"""`sine compare`: one prompt by SINE and by other methods."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from sine_cli.cli.options import (
    JsonOption,
    MemoryOption,
    NegativeOption,
    ProjectOption,
    QuietOption,
    ScaleOption,
    ScorerOption,
    SeedOption,
    SizeOption,
    SolverOption,
    StepsOption,
    SwitchStepOption,
    WeightOption,
    check_seed,
    edit_settings,
    gigabytes,
    is_low,
    open_project,
    parse_size_option,
)

if TYPE_CHECKING:
    from sine_cli.workflow.compare import ComparedPicture

METHODS = "sine,dreambooth,textual-inversion,sdedit,ilvr,prompt-to-prompt"


def compare(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What the picture shall become.")],
    project: ProjectOption = None,
    methods: Annotated[
        str, typer.Option("--methods", metavar="LIST", help="Rows of the sheet, of these.")
    ] = METHODS,
    size: SizeOption = None,
    count: Annotated[int, typer.Option("-n", "--count", help="Pictures a method.")] = 1,
    seed: SeedOption = 0,
    switch_step: SwitchStepOption = None,
    base_weight: WeightOption = None,
    guidance_scale: ScaleOption = None,
    strength: Annotated[
        float, typer.Option("--strength", help="Of sdedit: how much noise the picture is given, 0 to 1.")
    ] = 0.4,
    factor: Annotated[
        int | None,
        typer.Option(
            "--factor",
            help="Of ilvr: its low pass, in latent cells; default: an eighth of the native size, at least 2.",
        ),
    ] = None,
    steps: StepsOption = None,
    solver: SolverOption = None,
    negative: NegativeOption = None,
    scorer: ScorerOption = None,
    memory: MemoryOption = "normal",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare SINE with other methods, with a sheet of all.

    A row each for SINE, DreamBooth sampling (the tuned model alone), Textual Inversion (a word is tuned for
    it once; SDXL goes without), SDEdit, ILVR and Prompt-to-Prompt, and how well each shows the prompt and how
    far it is from the source. -v is SINE's, -K SINE's and ILVR's; Prompt-to-Prompt samples by DDIM always.

    \b
    sine compare "a sculpture of a girl" -n 4
    sine compare "a castle in the snow" --methods sine,sdedit --strength 0.6
    """
    from sine_cli.console import Console, counted
    from sine_cli.project.files import shown
    from sine_cli.workflow.asked import CompareRequest, check_compare

    console = Console(as_json=as_json, quiet=quiet)
    opened, manifest = open_project(project, console)
    settings = edit_settings(
        manifest,
        switch_step=switch_step,
        base_weight=base_weight,
        guidance_scale=guidance_scale,
        steps=steps,
        solver=solver,
        negative=negative,
    )
    wanted = parse_size_option(size)
    first_seed = check_seed(seed)
    low_memory = is_low(memory)
    names = tuple(name.strip() for name in methods.split(","))
    request = CompareRequest(
        prompt,
        settings,
        names,
        wanted,
        count,
        first_seed,
        strength,
        factor,
        scorer,
        low_memory,
    )
    check_compare(opened, manifest, request)  # before torch is imported; the workflow asks again
    with console.progress() as update:
        from sine_cli.workflow.compare import CompareProgress, compare

        def on_progress(p: CompareProgress) -> None:
            update(p.done, p.total, p.what)

        result = compare(opened, manifest, request, on_progress, console.warn)
    console.say(f"{result.seconds:.1f} s of sampling, {gigabytes(result.peak_memory)}")
    made = counted(len(result.pictures), "picture")
    console.result(
        [
            f"{shown(result.sheet)}  {made}, each {result.size.described()}" + _alone(result.pictures, count),
            f"{result.scores.name} beside it; {result.scorer.described()}",
            "alignment  distance  method",
            *(
                f"{score.alignment:>9.3f}  {score.distance:>8.3f}  {method}"
                for method, score in result.means.items()
            ),
        ],
        {
            "project": str(opened.root),
            "prompt": result.prompt,
            "folder": str(result.folder),
            "sheet": str(result.sheet),
            "scores": str(result.scores),
            "scorer": asdict(result.scorer),
            "means": {method: asdict(score) for method, score in result.means.items()},
            "images": [
                {
                    "file": str(each.file),
                    "method": each.method,
                    "seed": each.seed,
                    "alignment": each.score.alignment,
                    "distance": each.score.distance,
                }
                for each in result.pictures
            ],
            "height": result.size.height,
            "width": result.size.width,
            "seconds": result.seconds,
            "peak_memory": result.peak_memory,
        },
    )


def _alone(pictures: "list[ComparedPicture]", count: int) -> str:
    """What stands behind the number of pictures where a method has one, however many were asked for."""
    alone = next((picture.method for picture in pictures if picture.seed is None), None)
    return f"; {alone} draws no noise and makes one" if alone and count > 1 else ""
