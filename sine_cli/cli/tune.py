"""`sine tune`: teach the project's adapter its picture."""

from typing import Annotated

import typer

from sine_cli.cli.options import (
    JsonOption,
    MemoryOption,
    ProjectOption,
    QuietOption,
    gigabytes,
    is_low,
    open_project,
)
from sine_cli.errors import UserError


def tune(
    project: ProjectOption = None,
    steps: Annotated[
        str | None,
        typer.Option(
            "--steps",
            metavar="N|auto",
            help="Steps, 1 to 10000000; auto: until the preview comes no nearer. Default: the manifest's.",
        ),
    ] = None,
    no_patches: Annotated[
        bool, typer.Option("--no-patches", help="Tune on the whole picture alone, the paper's other setting.")
    ] = False,
    preset: Annotated[
        str | None,
        typer.Option("--preset", help="paper-patches or paper-plain: tune as the paper does, slower."),
    ] = None,
    prior: Annotated[
        int | None,
        typer.Option(
            "--prior",
            metavar="N",
            help="Prior preservation: the base makes N (0 to 10000) pictures of the class to tune on too.",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", "-s", help="Seed of all that is random, 0 or more.")
    ] = None,
    memory: MemoryOption = "normal",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Teach the adapter the picture. A tuning that was interrupted goes on with the same command.

    \b
    sine tune
    sine tune --steps 800
    sine tune --steps auto
    sine tune --no-patches
    sine tune --preset paper-patches
    sine tune --memory low
    """
    from sine_cli.cli.interrupts import stop_requests
    from sine_cli.console import Console
    from sine_cli.project.files import shown
    from sine_cli.project.folder import typed_for
    from sine_cli.project.manifest import MOST_AUTO_STEPS, changed
    from sine_cli.project.presets import load_tuning_preset

    console = Console(as_json=as_json, quiet=quiet)
    opened, manifest = open_project(project, console)
    settings = manifest.tune
    if preset is not None:
        decided = load_tuning_preset(preset).tune
        settings = changed(settings, {field: ("--preset", value) for field, value in decided.items()})
    settings = changed(
        settings,
        {
            "steps": ("--steps", MOST_AUTO_STEPS if steps == "auto" else _whole_number(steps)),
            "stop_early": ("--steps", None if steps is None else steps == "auto"),
            "patches": ("--no-patches", False if no_patches else None),
            "prior": ("--prior", prior),
            "seed": ("--seed", seed),
        },
    )
    low_memory = is_low(memory)
    with (
        stop_requests(
            lambda: console.say("stopping where it can go on; Ctrl-C again to stop at once")
        ) as stop,
        console.progress() as update,
    ):
        from sine_cli.workflow.tune import TuneProgress, tune

        def on_progress(progress: TuneProgress) -> None:
            loss = "" if progress.loss is None else f"  loss {progress.loss:.4f}"
            distance = "" if progress.distance is None else f"  distance {progress.distance:.3f}"
            update(progress.done, progress.total, progress.what + loss + distance)

        result = tune(opened, manifest, settings, on_progress, console.note, stop, low_memory=low_memory)
    record = result.record
    taken = record.tune.steps if record.steps_taken is None else record.steps_taken
    folder, following = shown(opened.adapter_dir), typed_for(opened, 'edit "..."')
    if result.already_there:
        lines = [f"{folder}  is tuned with these settings already; remove it to tune anew"]
    else:
        resumed = f", went on from step {result.resumed_at}" if result.resumed_at else ""
        lines = [
            f"{folder}  {taken} steps in {record.seconds:.0f} s{resumed}, "
            f"loss {record.loss:.4f}, {gigabytes(record.peak_memory)}",
            *([f"previews  {shown(opened.tuning_dir / 'previews')}"] if record.tune.preview_every else []),
            f"next      `{following}`: say what the picture shall become",
        ]
    console.result(
        lines,
        {
            "project": str(opened.root),
            "adapter": str(opened.adapter_dir),
            "already_there": result.already_there,
            "resumed_at": result.resumed_at,
            "steps": taken,
            "loss": record.loss,
            "seconds": record.seconds,
            "peak_memory": record.peak_memory,
        },
    )


def _whole_number(steps: str | None) -> int | None:
    """What `--steps` says, where it is not auto. Raises UserError."""
    if steps is None:
        return None
    try:
        return int(steps)
    except ValueError as error:
        raise UserError(
            f'--steps: must be a whole number or auto, got "{steps}"', "for example `--steps 800`"
        ) from error
