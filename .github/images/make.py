"""Makes the README's pictures: `python .github/images/make.py [WORK]`, minutes on a laptop CPU.

`edits.png` is four pictures, each beside its edits with default settings, seed 0, none chosen; `grid.png` is
the sheet of one `sine grid`.
"""

import sys
from pathlib import Path

from PIL import Image

from sine_cli.cli.main import run
from sine_cli.mini.vocabulary import phrase
from sine_cli.project.folder import Project
from sine_cli.project.manifest import load_manifest
from sine_cli.project.runs import list_runs
from sine_cli.workflow.sheet import draw_sheet
from sine_cli.workflow.size import Size

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PICTURES = {
    "castle": ROOT / "templates" / "demo" / "castle.png",
    "elephant": ROOT / "tests" / "pictures" / "elephant.png",
    "sailboat": ROOT / "tests" / "pictures" / "sailboat.png",
    "cat": ROOT / "tests" / "pictures" / "cat.jpg",
}
EDITS = {
    "at night": "{} at night",
    "in the snow": "{} in the snow",
    "watercolor": "a watercolor painting of {}",
    "stone": "a stone sculpture of {}",
    "pencil": "a pencil sketch of {}",
    "neon": "a neon sign of {}",
}


def sine(*arguments: str) -> None:
    code = run(list(arguments))
    if code:
        sys.exit(code)


def strip(noun: str, root: Path) -> Image.Image:
    """A picture beside its edits; tunes and edits it where that is not done."""
    if not root.exists():
        sine("init", str(PICTURES[noun]), "--class", noun, "--base", "mini", "--dir", str(root))
    sine("tune", "--project", str(root))
    prompts = [prompt.format(phrase(noun)) for prompt in EDITS.values()]
    sine("edit", *prompts, "--project", str(root))
    project = Project(root)
    newest = {one.record["prompt"]: one.path for one in list_runs(project.edits_dir)}
    paths = [newest[prompt] / "0001.png" for prompt in prompts]
    cells = [Image.open(path).convert("RGB") for path in paths]
    return draw_sheet(
        source=Image.open(project.source(load_manifest(project.manifest_path))).convert("RGB"),
        cell=lambda row, column: cells[column],
        columns=list(EDITS),
        rows=[""],
        title=f"sine edit, {phrase(noun)}",
        cell_size=Size(cells[0].height, cells[0].width),
    )


def save(picture: Image.Image, name: str) -> None:
    """At most 1000 pixels wide and in 256 colours, small enough for a page."""
    picture.thumbnail((1000, 1000), Image.Resampling.LANCZOS)
    picture.quantize(256).save(HERE / name, optimize=True)


def main() -> None:
    work = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("readme-pictures")
    work.mkdir(parents=True, exist_ok=True)
    strips = [strip(noun, work / noun) for noun in PICTURES]
    both = Image.new("RGB", (max(s.width for s in strips), sum(s.height for s in strips)), "white")
    for number, picture in enumerate(strips):
        both.paste(picture, (0, sum(s.height for s in strips[:number])))
    save(both, "edits.png")

    castle = work / "castle"
    grid = ["grid", "a pencil sketch of a castle", "-K", "0,200,400,600,800", "-v", "0.3,0.5,0.7,0.9"]
    sine(*grid, "--project", str(castle))
    save(Image.open(list_runs(Project(castle).grids_dir)[-1].path / "grid.png").convert("RGB"), "grid.png")


if __name__ == "__main__":
    main()
