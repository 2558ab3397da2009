"""Makes the README's pictures: `python .github/images/make.py [WORK]`, minutes on a laptop CPU.

`edits.png` is the demo's castle beside edits with default settings, seed 0, none chosen; `grid.png` is the
sheet of one `sine grid`.
"""

import sys
from pathlib import Path

from PIL import Image

from sine_cli.cli.main import run
from sine_cli.project.folder import Project
from sine_cli.project.manifest import load_manifest
from sine_cli.project.runs import list_runs
from sine_cli.workflow.sheet import draw_sheet
from sine_cli.workflow.size import Size

HERE = Path(__file__).parent
DEMO = HERE.parents[1] / "templates" / "demo" / "castle.png"
EDITS = {
    "at night": "a castle at night",
    "in the snow": "a castle in the snow",
    "watercolor": "a watercolor painting of a castle",
    "stone": "a stone sculpture of a castle",
    "pencil": "a pencil sketch of a castle",
    "neon": "a neon sign of a castle",
}
GRID = "a pencil sketch of a castle"


def sine(*arguments: str) -> None:
    code = run(list(arguments))
    if code:
        sys.exit(code)


def small(picture: Image.Image) -> Image.Image:
    """At most 900 pixels wide, for a page."""
    picture.thumbnail((900, 900), Image.Resampling.LANCZOS)
    return picture


def main() -> None:
    work = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("readme-pictures")
    root = work / "castle"
    if not root.exists():
        work.mkdir(parents=True, exist_ok=True)
        sine("init", str(DEMO), "--class", "castle", "--base", "mini", "--dir", str(root))
    sine("tune", "--project", str(root))
    sine("edit", *EDITS.values(), "--project", str(root))
    sine("grid", GRID, "-K", "0,200,400,600,800", "-v", "0.3,0.5,0.7,0.9", "--project", str(root))

    project = Project(root)
    source = Image.open(project.source(load_manifest(project.manifest_path))).convert("RGB")
    runs = list_runs(project.edits_dir)[-len(EDITS) :]
    cells = [Image.open(one.path / "0001.png").convert("RGB") for one in runs]
    strip = draw_sheet(
        source=source,
        cell=lambda row, column: cells[column],
        columns=list(EDITS),
        rows=[""],
        title="sine edit",
        cell_size=Size(cells[0].height, cells[0].width),
    )
    small(strip).save(HERE / "edits.png", optimize=True)
    small(Image.open(list_runs(project.grids_dir)[-1].path / "grid.png")).save(HERE / "grid.png", optimize=True)


if __name__ == "__main__":
    main()
