"""`sine edit`: make pictures from words."""

import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sine_cli.cli.options import (
    GuideOption,
    JsonOption,
    MemoryOption,
    NegativeOption,
    NoPositionOption,
    ProjectOption,
    QuietOption,
    ScaleOption,
    ScorerOption,
    SeedOption,
    SizeOption,
    SolverOption,
    SourcePromptOption,
    StepsOption,
    SwitchStepOption,
    WeightOption,
    check_seed,
    edit_settings,
    first_typed,
    gigabytes,
    is_low,
    open_project,
    parse_crop_option,
    parse_guide_options,
    parse_lora_option,
    parse_size_option,
)
from sine_cli.errors import Ended, UserError

if TYPE_CHECKING:
    from sine_cli.console import Console, Update
    from sine_cli.project.folder import Project
    from sine_cli.project.manifest import Manifest
    from sine_cli.workflow.asked import EditRequest
    from sine_cli.workflow.edit import EditProgress, EditResult, Scores

WITH_FROM = {"origin", "project", "lora", "memory", "as_json", "quiet"}
"""What may be given beside `--from`: the record says all else."""


def edit(
    context: typer.Context,
    prompts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROMPT", help="What the picture shall become; `-` reads one a line, or asks for them."
        ),
    ] = None,
    origin: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RUN|PNG",
            help="Make an edit's pictures, or one picture or cell, again as its record says. Guides are "
            "taken from where they lay; a LoRA must be given again.",
        ),
    ] = None,
    project: ProjectOption = None,
    size: SizeOption = None,
    count: Annotated[int, typer.Option("-n", "--count", help="Pictures a prompt.")] = 1,
    seed: SeedOption = 0,
    switch_step: SwitchStepOption = None,
    base_weight: WeightOption = None,
    guidance_scale: ScaleOption = None,
    steps: StepsOption = None,
    solver: SolverOption = None,
    negative: NegativeOption = None,
    source_prompt: SourcePromptOption = None,
    no_position: NoPositionOption = False,
    guide: GuideOption = None,
    crop: Annotated[
        str | None,
        typer.Option(
            "--crop",
            metavar="h1,w1,h2,w2",
            help="The part of the picture to make, the whole being 0,0,1,1; may reach beyond it.",
        ),
    ] = None,
    best: Annotated[
        int | None,
        typer.Option("--best", help="Mark the best so many of each prompt, by words and source."),
    ] = None,
    scorer: ScorerOption = None,
    lora: Annotated[
        str | None,
        typer.Option("--lora", metavar="FILE[:SCALE]", help="A LoRA of your own, for the base side."),
    ] = None,
    memory: MemoryOption = "normal",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make pictures from words.

    They keep the content of the source. Nearer to the source: lower -K or -v. A freer edit: higher.

    \b
    sine edit "a sculpture of a girl" --size 640x512
    sine edit "a castle in the snow" -n 8 --best 1 -K 500
    sine edit "a sketch of a dog" "a neon sign of a dog"
    sine edit "painting of a dog" --guide ../starry-night:0.3
    sine edit "a painting of a dog" --lora ink.safetensors:0.8
    cat prompts.txt | sine edit - --json
    sine edit --from girl/edits/2026-11-23_091011_a-sculpture-of-a-girl/0001.png
    """
    from sine_cli.console import Console
    from sine_cli.workflow.asked import EditRequest, check_edit, record_of_edit

    if origin is not None:
        _refuse_settings(context)
        record_of_edit(origin)
    elif not prompts:
        raise UserError(
            "a prompt is missing", 'say what the picture shall become: `sine edit "a sculpture of a girl"`'
        )
    elif len(prompts) > 2 and "-" not in prompts and not any(prompt.split()[1:] for prompt in prompts):
        raise UserError(
            f"{len(prompts)} prompts of one word each",
            f"put a prompt in quotes: `sine edit {shlex.quote(' '.join(prompts))}`; "
            "`sine edit -` reads prompts of one word, one a line",
        )
    asks = prompts == ["-"] and not as_json and sys.stdin.isatty()
    console = Console(as_json=as_json, quiet=quiet)
    opened, manifest = open_project(project or _project_of(origin), console)
    settings = edit_settings(
        manifest,
        switch_step=switch_step,
        base_weight=base_weight,
        guidance_scale=guidance_scale,
        steps=steps,
        solver=solver,
        negative=negative,
    )
    if scorer is not None and best is None:
        raise UserError(
            "--scorer says what finds the best pictures, and without --best none are looked for",
            f"for example `-n 8 --best 1 --scorer {scorer}`",
        )
    request = EditRequest(
        settings=settings,
        size=parse_size_option(size),
        count=count,
        seed=check_seed(seed),
        source_prompt=source_prompt,
        position=not no_position,
        best=best,
        scorer=scorer,
        guides=parse_guide_options(guide),
        crop=parse_crop_option(crop),
        lora=parse_lora_option(lora),
        low_memory=is_low(memory),
        prompts=[] if asks else _read_prompts(prompts or []),
    )
    # Before torch is imported; the workflow asks again
    if origin is None:
        check_edit(opened, manifest, request)
    if asks:
        _edit_as_told(console, opened, manifest, request)
        return
    results: list[EditResult] = []
    try:
        with console.progress() as update:
            from sine_cli.workflow.edit import edit
            from sine_cli.workflow.remake import RemakeRequest, remake

            if origin is not None:
                again = RemakeRequest(origin, request.lora, request.low_memory)
                remake(opened, manifest, again, _bar(update), console.warn, results.append)
            else:
                edit(opened, manifest, request, _bar(update), console.warn, results.append)
    finally:  # those of the first prompts are there, whatever became of the others
        if results:
            _report(console, opened, results)


def _edit_as_told(
    console: "Console", project: "Project", manifest: "Manifest", request: "EditRequest"
) -> None:
    """A prompt after another from the terminal, with all in memory that they take."""
    console.say(f"loading `{manifest.base}`; then a prompt a line, Ctrl-D ends")
    from sine_cli.console import write_error
    from sine_cli.workflow.edit import open_session

    session = open_session(project, manifest, request, console.warn)
    while True:
        results: list[EditResult] = []
        line: str | None = None
        try:
            line = console.ask("prompt: ")
            if line is None:
                return
            if line.strip():
                with console.progress() as update:
                    session.make([line.strip()], _bar(update), console.warn, results.append, last=False)
        except UserError as error:  # in this line: the next may do
            write_error(error.message, error.hint)
        except Ended:
            raise
        except KeyboardInterrupt as stopped:
            if line is None:  # at the question
                raise
            console.say("; ".join(["interrupted", *stopped.args, "Ctrl-D ends"]))
        finally:
            if results:
                _report(console, project, results)


def _bar(update: "Update") -> "Callable[[EditProgress], None]":
    """What shows an edit's progress: the U-Net's rows, and of several prompts which one."""

    def on_progress(p: "EditProgress") -> None:
        update(p.done, p.total, f"prompt {p.number} of {p.prompts}" if p.prompts > 1 else "sampling")

    return on_progress


def _report(console: "Console", project: "Project", results: "list[EditResult]") -> None:
    """The pictures of these runs, for a person or a script."""
    from sine_cli.project.files import shown

    seconds, peak = sum(result.seconds for result in results), max(result.peak_memory for result in results)
    console.say(f"{seconds:.1f} s of sampling, {gigabytes(peak)}")
    console.result(
        [
            f"{shown(picture)}  {result.size.described()}, seed {seed}{_mark(result.scores, place)}"
            for result in results
            for place, (picture, seed) in enumerate(zip(result.pictures, result.seeds, strict=True))
        ],
        {
            "project": str(project.root),
            "runs": [
                {
                    "prompt": result.prompt,
                    "folder": str(result.folder),
                    "images": [
                        {"file": str(picture), "seed": seed, **_score(result.scores, place)}
                        for place, (picture, seed) in enumerate(
                            zip(result.pictures, result.seeds, strict=True)
                        )
                    ],
                    "height": result.size.height,
                    "width": result.size.width,
                    "seconds": result.seconds,
                    "peak_memory": result.peak_memory,
                    **({"scorer": asdict(result.scores.scorer)} if result.scores else {}),
                }
                for result in results
            ],
        },
    )


def _refuse_settings(context: typer.Context) -> None:
    """Raises UserError for the first option on the command line that the record decides about."""
    typed = first_typed(context, WITH_FROM)
    if typed is not None:
        what = "a prompt" if typed == "prompts" else typed
        raise UserError(
            f"{what} cannot stand beside --from, which makes a picture as its record says",
            "leave one of them out",
        )


def _project_of(origin: Path | None) -> Path | None:
    """The project that the record lies in; None where it lies in none."""
    from sine_cli.project.folder import project_above

    above = project_above(origin.resolve()) if origin else None
    return above.root if above else None


def _mark(scores: "Scores | None", place: int) -> str:
    """What stands behind a picture that is one of the best."""
    rank = scores.rank(place) if scores else None
    if scores is None or rank is None:
        return ""
    return "  best" if len(scores.best) == 1 else f"  best {rank}"


def _score(scores: "Scores | None", place: int) -> dict[str, Any]:
    """A picture's score and its rank among the best, for scripts; nothing where none were looked for."""
    if scores is None:
        return {}
    score = scores.each[place]
    return {"alignment": score.alignment, "distance": score.distance, "best": scores.rank(place)}


def _read_prompts(prompts: list[str]) -> list[str]:
    """The prompts as given, with the lines of stdin in the place of `-`."""
    texts: list[str] = []
    for prompt in prompts:
        if prompt == "-":
            try:
                lines = sys.stdin.buffer.read().decode("utf-8-sig").splitlines()
            except UnicodeDecodeError as error:
                raise UserError("stdin is not UTF-8 text", "save the prompts as UTF-8, one a line") from error
            told = [line.strip() for line in lines if line.strip()]
            if not told:
                raise UserError("stdin has no prompt", "for example `sine edit - < prompts.txt`, one a line")
            texts += told
        else:
            texts.append(prompt)
    return texts
