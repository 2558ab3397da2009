"""The benchmarks do what they say: their rows are counted right, and their ways make the same."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sine_cli.project.folder import Project
from sine_cli.project.manifest import load_manifest
from sine_cli.workflow import open as opening
from sine_cli.workflow.open import open_studio
from sine_cli.workflow.render import Renderer, recipe_of
from tests.benchmarks import rows, solvers, ways
from tests.benchmarks.ways import Options, Task
from tests.tiny import write_tiny_base


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `prepare` leaves, on a tiny base with random weights."""
    folder = tmp_path_factory.mktemp("bench")
    base = write_tiny_base(folder / "base")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setenv("MPLCONFIGDIR", str(folder))
        # A square: of another picture, patches in its aspect have not quite the cells of the others' steps
        patch.setattr(ways, "PICTURE", ways.HERE.parent / "pictures" / "elephant.png")
        ways.prepare(Options(folder / "work", str(base), None, 1, 2))
    return folder / "work"


@pytest.fixture(autouse=True)
def in_float32_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(opening, "best_dtype", lambda device: torch.float32)


def made_by(
    way: str, work: Path, *, steps: int | None = None, count: int = 1, flops: bool = False
) -> dict[str, Any]:
    task = Task(**json.loads((work / "task.json").read_text("utf-8")))
    if way.startswith("pipeline"):
        task = replace(task, height=64, width=64)  # it takes multiples of 8 alone
    return ways.WAYS[way](task, Options(work, "", "float32", count, steps, flops=flops))


def renderer_of(work: Path, **changes: Any) -> tuple[Renderer, Any]:
    project = Project(work / "project")
    manifest = load_manifest(project.manifest_path)
    studio = open_studio(project, manifest, needs_adapter=True)
    settings = manifest.edit.model_copy(update=changes)
    recipe = recipe_of(manifest, settings, prompt=ways.PROMPT, size=studio.default_size(), seed=ways.SEED)
    return studio.renderer([recipe], print), recipe


@pytest.mark.parametrize(
    ("way", "steps", "count", "expected", "calls"),
    [
        ("authors-edit", 20, 1, 16 * 4 + 4 * 2, 16 * 2 + 4),  # K = 160
        ("pipeline", 5, 2, 5 * 2 * 2, 5),
        ("pipeline-lora", 5, 2, 5 * 2 * 2, 5),
        ("sine-edit", None, 2, 2 * (21 * 3 + 4 * 2), 25),
        ("authors-step", 3, 1, 1, 1),
        ("dreambooth-step", 3, 1, 8, 1),
        ("sine-step", 3, 1, 8, 1),
        ("sine-step", 3, 3, 3, 1),
    ],
)
def test_rows_are_counted(
    work: Path, way: str, steps: int | None, count: int, expected: int, calls: int
) -> None:
    figures = made_by(way, work, steps=steps, count=count)
    assert (figures["rows"], figures["calls"]) == (expected, calls)
    assert figures["seconds"] > 0


def test_rows_of_a_grid_and_of_its_pictures_one_by_one(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "GRID_K", [0, 1000])
    monkeypatch.setattr(ways, "GRID_V", [0.5, 1.0])
    assert made_by("sine-edits", work)["rows"] == 25 * 3 + 3 * 25 * 2
    grid = made_by("sine-grid", work)
    assert grid["rows"] == 3 + 24 * (3 + 2)  # three cells are the base alone; the first step is all cells'
    assert grid["whole_seconds"] > grid["seconds"]


def test_the_authors_way_makes_the_picture_of_an_edit_with_their_solver(work: Path) -> None:
    theirs = np.asarray(Image.open(made_by("authors-edit", work, steps=20)["file"]), np.int16)
    renderer, recipe = renderer_of(work, solver="ddim", steps=20)
    ours = np.asarray(renderer.picture(recipe), np.int16)
    assert np.abs(theirs - ours).max() <= 1
    renderer, recipe = renderer_of(work, solver="ddim", steps=20, base_weight=1.0)
    assert np.abs(theirs - np.asarray(renderer.picture(recipe), np.int16)).max() > 1


def test_the_pipeline_with_the_lora_makes_other_pictures(work: Path) -> None:
    pictures = []
    for way in ("pipeline", "pipeline-lora"):
        made_by(way, work, steps=5)
        pictures.append(np.asarray(Image.open(work / "pipeline-0.png"), np.int16))
    assert np.abs(pictures[0] - pictures[1]).max() > 1


def test_all_ways_of_making_base_and_tuned_rows_predict_the_same(work: Path) -> None:
    task = json.loads((work / "task.json").read_text("utf-8"))
    unet = ways._part(task["base"], "unet", torch.float32)
    apart = rows.apart(unet, 4, "attention+resnet")
    assert len(apart) == 6
    assert max(apart.values()) < 1e-5
    bare = rows.Ways(unet, torch.float32, 4, "attention+resnet").all()
    step = rows.step_of(unet, 1, torch.device("cpu"))
    assert (bare["no LoRA"](step) - bare["sine"](step)).abs().max() > 1e-3


def test_a_solver_that_remembers_keeps_or_starts_anew_at_K(work: Path) -> None:
    renderer, recipe = renderer_of(work, steps=8, solver="dpm++")
    edit = solvers.Edit("cat", renderer, recipe, Image.open(ways.PICTURE))
    by = {str(v): solvers.latents(edit, v, 8) for v in solvers.variants(renderer.base.schedule)}
    assert {"ddim", "euler", "dpm++", "dpm++, anew at K", "unipc", "unipc, anew at K"} <= by.keys()
    assert "ddim, anew at K" not in by
    kept = np.asarray(renderer.developed(recipe, by["dpm++"]))
    assert np.array_equal(kept, np.asarray(renderer.picture(recipe)))
    assert (by["dpm++"] - by["dpm++, anew at K"]).abs().max() > 1e-3


def test_operations_of_a_step_are_counted_without_those_of_encoding(work: Path) -> None:
    ours, theirs = (
        made_by(way, work, steps=2, flops=True)["flops"] for way in ("sine-step", "dreambooth-step")
    )
    assert 0.95 < ours / theirs < 1.05
