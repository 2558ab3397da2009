"""`sine bases`: the base models there are."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from sine_cli.cli.options import JsonOption, QuietOption

if TYPE_CHECKING:
    from sine_cli.workflow.bases import KnownBase


def bases(
    fetch: Annotated[
        str | None,
        typer.Option("--fetch", metavar="NAME", help="Fetch a preset or a hub id; @REVISION may follow."),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List base models, and what is on this disk.

    The presets, then what else of the diffusers layout is in the hub's cache. `--base` takes these
    names, any other hub id, a diffusers folder, or a Stable Diffusion .safetensors file.

    Weights come from the hub by --fetch or by `sine init`, and never because a project names them: others
    may have sent it.

    \b
    sine bases
    sine bases --fetch sd15
    sine init girl.jpg --class painting --base sdxl
    sine init girl.jpg --class painting --base ~/models/painter.safetensors
    """
    from sine_cli.console import Console, aligned
    from sine_cli.workflow.bases import fetch_base, known_bases

    console = Console(as_json=as_json, quiet=quiet)
    known = known_bases() if fetch is None else [fetch_base(fetch, console.warn)]
    console.result(
        aligned(
            [
                ("base", "native size", "on this disk", "licence"),
                *(
                    (base.name, f"{base.pixels}x{base.pixels}", _where(base), base.licence or "see its page")
                    for base in known
                ),
            ]
        ),
        {"bases": [asdict(base) for base in known]},
    )


def _where(base: "KnownBase") -> str:
    size = f"{base.size / 1e9:.1f} GB" if base.size >= 1e9 else f"{base.size / 1e6:.0f} MB"
    return f"no, about {size} to fetch" if base.state == "not here" else f"{base.state}, {size}"
