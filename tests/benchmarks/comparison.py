"""SINE beside the methods of the paper's comparisons, on the bundled base.

    python -m tests.benchmarks.comparison [--work DIR] [-n 4]

The pictures of `tradeoff`, four prompts each, `-n` seeds: the mean alignment and distance of each method. It
is on the front of the trade-off where no other has both a higher alignment and a lower distance. Projects
are kept in DIR, and not tuned again.
"""

import argparse
from pathlib import Path
from statistics import fmean

from sine_cli.mini.vocabulary import phrase
from sine_cli.project.manifest import load_manifest
from sine_cli.scoring.scorer import Score
from sine_cli.workflow.asked import CompareRequest
from sine_cli.workflow.compare import compare
from sine_cli.workflow.methods import METHODS
from sine_cli.workflow.tune import tune
from tests.benchmarks.fidelity import HERE, project_of
from tests.benchmarks.tradeoff import PICTURES

PROMPTS = ("a pencil sketch of {}", "{} in the snow", "{} at night", "a stone sculpture of {}")


def on_the_front(method: str, scores: dict[str, tuple[float, float]]) -> bool:
    """Whether no other method has both a higher alignment and a lower distance."""
    alignment, distance = scores[method]
    return not any(other > alignment and nearer < distance for other, nearer in scores.values())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("bench-comparison"))
    parser.add_argument("-n", type=int, default=4)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    means: list[dict[str, Score]] = []
    for file, noun in PICTURES.items():
        project = project_of(HERE.parent / "pictures" / file, noun, options.work)
        manifest = load_manifest(project.manifest_path)
        tune(project, manifest, manifest.tune)
        for prompt in PROMPTS:
            request = CompareRequest(
                prompt.format(phrase(noun)), manifest.edit, tuple(METHODS), count=options.n
            )
            means.append(compare(project, manifest, request, on_notice=print).means)
    scores = {
        method: (
            fmean(each[method].alignment for each in means),
            fmean(each[method].distance or 0.0 for each in means),
        )
        for method in METHODS
    }
    print("| method | alignment | distance | on the front |\n| --- | --- | --- | --- |")
    for method, (alignment, distance) in scores.items():
        front = "yes" if on_the_front(method, scores) else ""
        print(f"| {method} | {alignment:.3f} | {distance:.3f} | {front} |")


if __name__ == "__main__":
    main()
