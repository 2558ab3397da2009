"""Makes the README's pictures: `python .github/images/make.py [WORK]`, minutes on a laptop CPU.

`edits.png` is four pictures, each beside its edits with default settings, seed 0, none chosen; `grid.png` is
the sheet of one `sine grid`; `tasks.png` shows the other tasks: any size, a part of the picture, a style,
this thing in that style, removal.
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

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


PHOTOGRAPHS = ROOT / "tests" / "pictures"
HEIGHT, GAP = 150, 8  # pixels, of a picture in `tasks.png` and around it


def sine(*arguments: str) -> None:
    code = run(list(arguments))
    if code:
        sys.exit(code)


def strip(noun: str, root: Path) -> Image.Image:
    """A picture beside its edits; tunes and edits it where that is not done."""
    tuned(root, PICTURES[noun], "--class", noun)
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


def tuned(root: Path, picture: Path, *options: str) -> str:
    """The folder of a picture's project; made and tuned where that is not done."""
    if not root.exists():
        sine("init", str(picture), "--base", "mini", "--dir", str(root), *options)
    sine("tune", "--project", str(root))
    return str(root)


def edited(root: str, prompt: str, *options: str) -> Image.Image:
    sine("edit", prompt, *options, "--project", root)
    return Image.open(list_runs(Project(Path(root)).edits_dir)[-1].path / "0001.png").convert("RGB")


def row(*pictures: tuple[str, Image.Image]) -> Image.Image:
    """Pictures beside each other at one height, the words for each below it."""
    shown = [picture.resize((picture.width * HEIGHT // picture.height, HEIGHT)) for _, picture in pictures]
    font = ImageFont.load_default(13)
    widths = [
        max(picture.width, round(font.getlength(words))) + GAP
        for (words, _), picture in zip(pictures, shown, strict=True)
    ]
    strip = Image.new("RGB", (sum(widths), HEIGHT + 26), "white")
    draw, left = ImageDraw.Draw(strip), 0
    for (words, _), picture, width in zip(pictures, shown, widths, strict=True):
        strip.paste(picture, (left, 0))
        draw.text((left, HEIGHT + 4), words, "black", font)
        left += width
    return strip


def tasks(work: Path) -> Image.Image:
    """A row for each of the paper's other tasks; seed 0, none chosen."""
    castle = tuned(work / "castle", PICTURES["castle"], "--class", "castle")
    cat = tuned(work / "cat", PICTURES["cat"], "--class", "cat")
    style = tuned(work / "vestibule", PHOTOGRAPHS / "vestibule.jpg", "--class", "painting", "--kind", "style")
    sentence = "a photo of a [*] cup of coffee with a spoon"
    coffee = tuned(
        work / "spoon", PHOTOGRAPHS / "coffee.jpg", "--class", "cup of coffee", "--prompt", sentence
    )
    castle_painted, cat_painted = "a painting of a castle", "a painting of a cat"

    def near(*options: str) -> Image.Image:
        return edited(castle, castle_painted, "-v", "0.3", *options)

    rows = [
        row(
            ("source", Image.open(PICTURES["castle"]).convert("RGB")),
            ("--size 128x256", near("--size", "128x256")),
            (
                "the same, --no-position",
                near("--size", "128x256", "--no-position"),
            ),
            ("--size 256x128", near("--size", "256x128")),
            ("--crop 0,0,0.5,0.5", near("--crop", "0,0,0.5,0.5")),
            (
                "--crop -0.2,-0.2,1.2,1.2",
                near("--crop=-0.2,-0.2,1.2,1.2"),
            ),
        ),
        row(
            ("a style", Image.open(PHOTOGRAPHS / "vestibule.jpg").convert("RGB")),
            ("painting of a castle", edited(style, "a painting of a castle")),
            ("painting of a tree", edited(style, "a painting of a tree")),
            ("a cat", Image.open(PICTURES["cat"]).convert("RGB")),
            ("-v 0.4 --guide STYLE:0.2", edited(cat, cat_painted, "-v", "0.4", "--guide", f"{style}:0.2")),
            ("-v 0.5 --guide STYLE:0.4", edited(cat, cat_painted, "-v", "0.5", "--guide", f"{style}:0.4")),
        ),
        row(
            ("source", Image.open(PHOTOGRAPHS / "coffee.jpg").convert("RGB")),
            ("its spoon kept", edited(coffee, "a photo of a cup of coffee with a spoon")),
            (
                "removed",
                edited(
                    coffee, "a photo of a cup of coffee", "--source-prompt", "a photo of a [*] cup of coffee"
                ),
            ),
        ),
    ]
    return stacked(rows)


def stacked(pictures: list[Image.Image]) -> Image.Image:
    both = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
    for number, picture in enumerate(pictures):
        both.paste(picture, (0, sum(p.height for p in pictures[:number])))
    return both


def save(picture: Image.Image, name: str) -> None:
    """At most 1000 pixels wide and in 256 colours, small enough for a page."""
    picture.thumbnail((1000, 1000), Image.Resampling.LANCZOS)
    picture.quantize(256).save(HERE / name, optimize=True)


def main() -> None:
    work = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("readme-pictures")
    work.mkdir(parents=True, exist_ok=True)
    save(stacked([strip(noun, work / noun) for noun in PICTURES]), "edits.png")
    save(tasks(work), "tasks.png")

    castle = work / "castle"
    grid = ["grid", "a pencil sketch of a castle", "-K", "0,200,400,600,800", "-v", "0.3,0.5,0.7,0.9"]
    sine(*grid, "--project", str(castle))
    save(Image.open(list_runs(Project(castle).grids_dir)[-1].path / "grid.png").convert("RGB"), "grid.png")


if __name__ == "__main__":
    main()
