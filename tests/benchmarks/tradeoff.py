"""The paper's Fig. 8 on the bundled base: alignment and distance against K and against v.

    python -m tests.benchmarks.tradeoff [--work DIR] [--seeds 8] [--plot FILE]

Six pictures that the base was not trained on (three icons, three photographs), two prompts each, eight seeds:
edits over K at v = 0.7 and over v at K = 400, scored by the bundled scorer. A line a picture, and the mean of
all. Projects and scores are kept in DIR, and not made again.
"""

import argparse
import csv
import io
from collections import defaultdict
from pathlib import Path
from statistics import mean

from PIL import Image

from sine_cli.project.manifest import load_manifest
from sine_cli.scoring.scorer import Scorer
from sine_cli.workflow.open import open_studio
from sine_cli.workflow.render import recipe_of
from sine_cli.workflow.scorers import open_scorer
from sine_cli.workflow.tune import tune
from tests.benchmarks.fidelity import HERE, project_of, rank_correlation

PICTURES = {"elephant.png": "elephant", "sailboat.png": "sailboat", "dog.png": "dog", "cat.jpg": "cat",
            "coffee.jpg": "cup of coffee", "neuschwanstein.jpg": "castle"}  # fmt: skip
PROMPTS = ("a pencil sketch of a {}", "a {} in the snow")
SWITCH_STEPS = [0, 200, 400, 600, 800, 1000]
BASE_WEIGHTS = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
CELLS = list(dict.fromkeys([*((K, 0.7) for K in SWITCH_STEPS), *((400, v) for v in BASE_WEIGHTS)]))
FIELDS = ["picture", "prompt", "switch_step", "base_weight", "seed", "alignment", "distance"]

Row = dict[str, str]


def measure(picture: Path, noun: str, work: Path, seeds: range, scorer: Scorer) -> list[Row]:
    """The scores of a picture's edits, kept beside its project."""
    project = project_of(picture, noun, work)
    kept = work / f"{picture.stem}-{len(seeds)}.csv"
    if kept.is_file():
        return list(csv.DictReader(io.StringIO(kept.read_text())))
    manifest = load_manifest(project.manifest_path)
    tune(project, manifest, manifest.tune)
    studio = open_studio(project, manifest, needs_adapter=True)
    source = Image.open(project.source(manifest)).convert("RGB")
    recipes = [
        recipe_of(
            manifest,
            manifest.edit.model_copy(update={"switch_step": K, "base_weight": v}),
            prompt=prompt.format(noun),
            size=studio.default_size(),
            seed=seed,
        )
        for prompt in PROMPTS
        for K, v in CELLS
        for seed in seeds
    ]
    renderer = studio.renderer(recipes, print)
    rows: list[Row] = []
    for recipe in recipes:
        [score] = scorer.score([renderer.picture(recipe)], recipe.prompt, source)
        values = (picture.stem, recipe.prompt, recipe.switch_step, recipe.base_weight, recipe.seed,
                  score.alignment, score.distance)  # fmt: skip
        rows.append({field: str(value) for field, value in zip(FIELDS, values, strict=True)})
    out = io.StringIO()
    writer = csv.DictWriter(out, FIELDS)
    writer.writeheader()
    writer.writerows(rows)
    kept.write_text(out.getvalue())
    return rows


def curve(rows: list[Row], measure: str, over: str) -> list[float]:
    """Means of a measure over one axis, the other at its usual value."""
    fixed, value = ("base_weight", 0.7) if over == "switch_step" else ("switch_step", 400)
    found: dict[float, list[float]] = defaultdict(list)
    for row in rows:
        if float(row[fixed]) == value:
            found[float(row[over])].append(float(row[measure]))
    axis = SWITCH_STEPS if over == "switch_step" else BASE_WEIGHTS
    return [mean(found[float(place)]) for place in axis]


def plot(rows: list[Row], scorer: Scorer) -> bytes:
    """Two rows (alignment, distance) by two columns (K, v)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 5.6), layout="constrained")
    axes = figure.subplots(2, 2, sharey="row")
    names = list(dict.fromkeys(row["picture"] for row in rows))
    for column, (over, axis, label) in enumerate(
        (
            ("switch_step", SWITCH_STEPS, "switch step K (v = 0.7)"),
            ("base_weight", BASE_WEIGHTS, "base weight v (K = 400)"),
        )
    ):
        for line, name in enumerate(("alignment", "distance")):
            one = axes[line][column]
            for picture in names:
                own = [row for row in rows if row["picture"] == picture]
                one.plot(axis, curve(own, name, over), linewidth=1, alpha=0.6, label=picture)
            one.plot(axis, curve(rows, name, over), color="black", linewidth=2.4, marker="o", label="mean")
            one.set(xlabel=label if line else None, ylabel=None if column else name)
            one.spines[["top", "right"]].set_visible(False)
    axes[0][1].legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(scorer.identity.described(), fontsize="medium")
    out = io.BytesIO()
    FigureCanvasAgg(figure).print_png(out)
    return out.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("tradeoff-benchmark"))
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    scorer = open_scorer()
    rows: list[Row] = []
    print("| picture | measure | over K (v = 0.7) | rho | over v (K = 400) | rho |")
    print("| --- | --- | --- | --- | --- | --- |")

    def table(name: str, own: list[Row]) -> None:
        for measured in ("alignment", "distance"):
            cells = [name, measured]
            for over, axis in (("switch_step", SWITCH_STEPS), ("base_weight", BASE_WEIGHTS)):
                values = curve(own, measured, over)
                cells += [
                    " ".join(f"{value:.2f}" for value in values),
                    f"{rank_correlation(axis, values):.2f}",
                ]
            print("| " + " | ".join(cells) + " |", flush=True)

    for file, noun in PICTURES.items():
        own = measure(HERE.parent / "pictures" / file, noun, options.work, range(options.seeds), scorer)
        table(Path(file).stem, own)
        rows += own
    table("all", rows)
    if options.plot:
        options.plot.write_bytes(plot(rows, scorer))


if __name__ == "__main__":
    main()
