"""`sine bases`: the base models there are."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from sine_cli.cli.options import JsonOption, QuietOption

if TYPE_CHECKING:
    from sine_cli.workflow.bases import KnownBase


def bases(as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """List base models, and what is on this disk.

    The presets, then what else of the diffusers layout is in the hub's cache. `--base` takes these
    names, any other hub id, a diffusers folder, or a Stable Diffusion .safetensors file.

    \b
    sine bases
    sine init girl.jpg --class painting --base sdxl
    sine init girl.jpg --class painting --base ~/models/painter.safetensors
    """
    from sine_cli.console import Console, aligned
    from sine_cli.workflow.bases import known_bases

    console = Console(as_json=as_json, quiet=quiet)
    known = known_bases()
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
