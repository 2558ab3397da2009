"""The paper's other tasks (Fig. 4 and 11, Sec. 3.3) on the bundled base, in figures.

    python -m tests.benchmarks.tasks [--work DIR]

Means over four seeds. `pixels`: mean absolute pixel distance in [0, 1] to the source resized to the picture.
`features`: one minus the cosine of the bundled scorer's patch features. `alignment`: its CLIP cosine.

    any size            the tuned model alone, at several sizes, with and without position, and tuned without
                        patches
    a part              the tuned model alone, of a quarter of the picture, against that quarter of it
    style generation    prompts of other things under a tuned style, against the base alone
    style transfer      a picture with the style as a guide, over the guide's weight

Projects are kept in DIR, and not tuned again.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path
from statistics import mean

from PIL import Image

from sine_cli.project.folder import Project
from sine_cli.project.manifest import load_manifest
from sine_cli.workflow.edit import EditRequest, edit
from sine_cli.workflow.guides import GuideRequest
from sine_cli.workflow.init import InitRequest, init
from sine_cli.workflow.scorers import open_scorer
from sine_cli.workflow.size import Size
from sine_cli.workflow.tune import tune
from tests.benchmarks.fidelity import HERE, PICTURES, SEEDS, distance, project_of, show

STYLE = HERE.parent / "pictures" / "vestibule.jpg"
CAT = HERE.parent / "pictures" / "cat.jpg"
ALONE = {"switch_step": 0, "base_weight": 0.0}
SIZES = {"128x128": Size(128, 128), "192x192": Size(192, 192), "256x256": Size(256, 256),
         "128x256": Size(128, 256), "256x128": Size(256, 128)}  # fmt: skip
QUARTER = (0.25, 0.25, 0.75, 0.75)


def made(project: Project, request: EditRequest) -> list[Image.Image]:
    """The request's pictures, `SEEDS` of them."""
    manifest = load_manifest(project.manifest_path)
    (result,) = edit(project, manifest, request)
    return [Image.open(file).convert("RGB") for file in result.pictures]


def asked(project: Project, prompt: str | None = None, /, **changes: object) -> EditRequest:
    """An edit of all seeds; without a prompt, the tuned model alone."""
    manifest = load_manifest(project.manifest_path)
    settings = manifest.edit if prompt else manifest.edit.model_copy(update=ALONE)
    options: dict[str, object] = {"settings": settings, "count": len(SEEDS), **changes}
    return EditRequest([prompt or manifest.prompts.source], **options)  # pyright: ignore[reportArgumentType]


def tuned(project: Project, *, patches: bool = True) -> Project:
    manifest = load_manifest(project.manifest_path)
    tune(project, manifest, manifest.tune.model_copy(update={"patches": patches, "preview_every": 0}))
    return project


def source_of(project: Project) -> Image.Image:
    return Image.open(project.source(load_manifest(project.manifest_path))).convert("RGB")


def pixels(pictures: Iterable[Image.Image], source: Image.Image) -> float:
    return mean(distance(picture, source) for picture in pictures)


def any_size(work: Path) -> None:
    show(["picture", *SIZES], ["---"] * (len(SIZES) + 1))
    for picture, noun in PICTURES:
        project = tuned(project_of(picture, noun, work))
        plain = tuned(project_of(picture, noun, work / "without-patches"), patches=False)
        for name, each, position in (
            ("", project, True),
            (", without position", project, False),
            (", tuned without patches", plain, True),
        ):
            source = source_of(each)
            row = [
                pixels(made(each, asked(each, size=size, position=position)), source)
                for size in SIZES.values()
            ]
            show([noun + name, *(f"{value:.3f}" for value in row)])


def a_part(work: Path) -> None:
    for picture, noun in PICTURES:
        project = tuned(project_of(picture, noun, work))
        source = source_of(project)
        (h1, w1, h2, w2), (width, height) = QUARTER, source.size
        part = source.crop((int(w1 * width), int(h1 * height), int(w2 * width), int(h2 * height)))
        pictures = made(project, asked(project, crop=QUARTER))
        print(
            f"{noun}: the middle quarter {pixels(pictures, part):.3f}, whole {pixels(pictures, source):.3f}"
        )


def style_tasks(work: Path) -> None:
    style, cat = work / "vestibule", tuned(project_of(CAT, "cat", work))
    if not style.exists():
        init(InitRequest(STYLE, "painting", kind="style", base="mini", folder=style))
    painting, scorer = tuned(Project(style)), open_scorer("mini")
    show(["style generation", "alignment", "features from the style"], ["---"] * 3)
    for prompt in ("a painting of a castle", "a painting of a tree", "a painting of a dog"):
        for name, settings in (("style", {}), ("base alone", {"base_weight": 1.0, "switch_step": 1000})):
            request = asked(painting, prompt)
            request = asked(painting, prompt, settings=request.settings.model_copy(update=settings))
            scores = scorer.score(made(painting, request), prompt, source_of(painting))
            figures = mean(s.alignment for s in scores), mean(s.distance or 0.0 for s in scores)
            show([f"{prompt}, {name}", *(f"{value:.3f}" for value in figures)])
    show(["style transfer, weight", "features from the cat", "features from the style"], ["---"] * 3)
    for weight in (0.0, 0.2, 0.4, 0.6):
        guides = (GuideRequest(painting.root, (weight,)),)
        pictures = made(cat, asked(cat, "a painting of a cat", guides=guides))
        row = [
            mean(s.distance or 0.0 for s in scorer.score(pictures, "a painting of a cat", source_of(each)))
            for each in (cat, painting)
        ]
        show([f"{weight}", *(f"{value:.3f}" for value in row)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("bench-tasks"))
    work = parser.parse_args().work
    (work / "without-patches").mkdir(parents=True, exist_ok=True)
    for task in (any_size, a_part, style_tasks):
        task(work)


if __name__ == "__main__":
    main()
