"""`sine export`: the adapter for other tools."""

from pathlib import Path
from typing import Annotated

import typer

from sine_cli.cli.options import JsonOption, ProjectOption, QuietOption, open_project
from sine_cli.errors import UserError

FOR = {
    "diffusers": "a LoRA for `pipe.load_lora_weights` of diffusers",
    "kohya": "a LoRA for ComfyUI and A1111",
    "merged": "a diffusers folder, tuned",
}


def export(
    project: ProjectOption = None,
    form: Annotated[
        str | None, typer.Option("--format", help="diffusers, or kohya (for ComfyUI and A1111).")
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="A whole diffusers folder, tuned.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where to; default: exports/ in the project.")
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write the adapter for other tools.

    They get the LoRA at its full strength. The position stays behind: no other tool has a place for it,
    so what is where in the picture is less exact there than in `sine edit`.

    \b
    sine export
    sine export --format kohya --out girl.safetensors
    sine export --merge
    """
    from sine_cli.console import Console
    from sine_cli.project.files import shown
    from sine_cli.workflow.asked import MERGED, check_export

    console = Console(as_json=as_json, quiet=quiet)
    opened, manifest = open_project(project, console)
    if merge and form is not None:
        raise UserError("--merge writes a whole base; it takes no --format", "type `sine export --merge`")
    form = MERGED if merge else form or "diffusers"
    check_export(opened, manifest, form, out)  # before torch is imported; the workflow asks again
    from sine_cli.workflow.export import export

    result = export(opened, manifest, form, out)
    console.result(
        [
            f"{shown(result.path)}  {FOR[result.form]}",
            f'source prompt  "{result.source_prompt}"',
            "left behind    "
            + ("the position and the text encoder's LoRA" if result.text_stays_behind else "the position"),
        ],
        {
            "project": str(opened.root),
            "file": str(result.path),
            "format": result.form,
            "rank": result.rank,
            "source_prompt": result.source_prompt,
            "text_stays_behind": result.text_stays_behind,
        },
    )
