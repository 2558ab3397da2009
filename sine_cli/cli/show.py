"""`sine show`: a project at a glance."""

from sine_cli.cli.options import JsonOption, ProjectOption, QuietOption, open_project


def show(project: ProjectOption = None, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Show a project at a glance.

    Picture, prompts, base, whether it is tuned, and its runs.

    \b
    sine show
    sine show --project girl --json
    """
    from sine_cli.console import Console
    from sine_cli.project.files import shown
    from sine_cli.workflow.show import show

    console = Console(as_json=as_json, quiet=quiet)
    opened, manifest = open_project(project, console)
    there = show(opened, manifest)
    source, prompts, edit = manifest.source, manifest.prompts, manifest.edit
    if there.tuned:
        state = "yes"
    elif there.checkpoint:
        state = "not finished; `sine tune` goes on"
    else:
        state = "no; `sine tune` does it"
    rows = [
        ("project", shown(opened.root)),
        ("picture", f"{source.original}, {source.height} high, {source.width} wide"),
        ("source prompt", f'"{prompts.source}"'),
        ("base", manifest.base),
        ("tuned", state),
        (
            "edit",
            f"K = {edit.switch_step}, v = {edit.base_weight:g}, w = {edit.guidance_scale:g}, "
            f"{edit.steps} {edit.solver} steps",
        ),
        *[
            ("edits" if i == 0 else "", f'{run.path.name}  "{run.record["prompt"]}"')
            for i, run in enumerate(there.edits)
        ],
        *[
            ("grids" if i == 0 else "", f'{run.path.name}  "{run.record["prompt"]}"')
            for i, run in enumerate(there.grids)
        ],
        *[("unfinished", f"{path.name}  (`sine grid --resume`)") for path in there.unfinished],
    ]
    console.result(
        console.table(rows),
        {
            "project": str(opened.root),
            "manifest": manifest.model_dump(by_alias=True),
            "tuned": there.tuned,
            "checkpoint": there.checkpoint,
            "edits": [str(run.path) for run in there.edits],
            "grids": [str(run.path) for run in there.grids],
            "unfinished": [str(path) for path in there.unfinished],
        },
    )
