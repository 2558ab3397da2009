"""Grids: every cell is an edit, and an interrupted grid goes on where it stopped."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from sine_cli.errors import Interrupted, UserError
from sine_cli.models.backbone import CELLS_AT_ONCE
from sine_cli.project.folder import Project
from sine_cli.project.manifest import load_manifest
from sine_cli.project.runs import read_recipe, unfinished_runs
from sine_cli.project.source import read_picture
from sine_cli.workflow.edit import EditRequest, edit
from sine_cli.workflow.grid import GridProgress, GridRequest, GridResult, grid, resume_grid
from sine_cli.workflow.scorers import open_scorer, score_files
from sine_cli.workflow.size import Size
from sine_cli.workflow.tune import tune
from sine_cli.workflow.verify import verify
from tests.workflow.conftest import EDIT, TUNE, Girl

PROMPT = "a sculpture of a girl"
ASKED = GridRequest(PROMPT, [300, 700], [0.25, 0.75], EDIT, size=Size(37, 51), seed=3)
CELLS = ["K0300_v0.25.png", "K0700_v0.25.png", "K0300_v0.75.png", "K0700_v0.75.png"]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.asarray(image).astype(int)


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of the sheet is a batch, as it is where pictures are large."""
    monkeypatch.setitem(CELLS_AT_ONCE, "cpu", 1)


def interrupt(girl: Girl, request: GridRequest = ASKED, saved: int = 2) -> None:
    """Ctrl-C once so many cells are saved."""
    with pytest.raises(Interrupted) as caught:
        grid(girl.project, girl.manifest, request, on_progress=interrupting(saved))
    cells = len(request.switch_steps) * len(request.base_weights)
    kept = f"{saved} of {cells} cells are kept; `sine grid --resume` goes on"
    none = "no cell was finished yet; `sine grid --resume` makes them all"
    assert caught.value.hint == (kept if saved else none)


def interrupting(saved: int) -> Any:
    def progress(made: GridProgress) -> None:
        if made.saved == saved:
            raise KeyboardInterrupt

    return progress


def run(girl: Girl, request: GridRequest = ASKED) -> GridResult:
    return grid(girl.project, girl.manifest, request)


def pictures(result: GridResult) -> list[Path]:
    return [cell.file for cell in result.cells]


def test_a_cell_equals_the_edit_with_the_same_values(tuned: Girl) -> None:
    result = run(tuned)
    assert [path.name for path in pictures(result)] == CELLS
    values = [(300, 0.25), (700, 0.25), (300, 0.75), (700, 0.75)]
    for path, (K, v) in zip(pictures(result), values, strict=True):
        settings = EDIT.model_copy(update={"switch_step": K, "base_weight": v})
        request = EditRequest([PROMPT], settings, size=Size(37, 51), seed=3)
        ((alone,),) = [each.pictures for each in edit(tuned.project, tuned.manifest, request)]
        assert np.array_equal(pixels(path), pixels(alone)), path.name
        assert read_recipe(path) == read_recipe(alone)
    assert len({path.read_bytes() for path in pictures(result)}) == 4


def test_a_grid_is_a_folder_with_its_cells_a_sheet_and_a_record(tuned: Girl) -> None:
    result = run(tuned)
    assert result.made == 4
    assert result.sheet == result.folder / "grid.png"
    files = sorted(str(p.relative_to(result.folder)) for p in result.folder.rglob("*") if p.is_file())
    assert files == [
        *(f"cells/{name}" for name in sorted(CELLS)),
        *("grid.png", "run.yaml", "scores.csv", "tradeoff.png"),
    ]
    record = yaml.safe_load((result.folder / "run.yaml").read_text("utf-8"))
    assert record["command"] == "grid"
    assert (record["switch_steps"], record["base_weights"]) == ([300, 700], [0.25, 0.75])
    assert not {"switch_step", "base_weight"} & set(record)
    assert (record["prompt"], record["seed"]) == (PROMPT, 3)
    assert record["size"] == {"height": 37, "width": 51}
    assert read_recipe(result.sheet) == record
    assert [path.name for path in tuned.project.grids_dir.iterdir()] == [result.folder.name]


def test_progress_counts_the_rows_of_the_unet_and_the_cells_that_are_saved(tuned: Girl) -> None:
    """At t = 751 the two K of a v share their three rows; then each has its own, two below its K."""
    told: list[GridProgress] = []
    grid(tuned.project, tuned.manifest, ASKED, told.append)
    of_one_v = [3, 3 + 2, 2 + 2, 2 + 2]
    done = list(accumulate([0, *of_one_v, *of_one_v]))
    saved = [0] * 5 + [2] * 4
    assert told == [GridProgress(s, 4, d, done[-1]) for s, d in zip(saved, done, strict=True)]


def test_an_interrupted_grid_goes_on_and_makes_no_cell_twice(tuned: Girl) -> None:
    interrupt(tuned)
    (left,) = unfinished_runs(tuned.project.grids_dir)
    assert [path.name for path in (left.folder / "cells").iterdir()] == CELLS[:2]
    assert not left.final.exists()
    first = (left.folder / "cells" / CELLS[0]).stat()

    told: list[GridProgress] = []
    result = resume_grid(tuned.project, tuned.manifest, told.append)
    assert result.made == 2
    assert {progress.saved for progress in told} == {2}
    assert result.folder == left.final
    again = pictures(result)[0].stat()
    assert (again.st_ino, again.st_mtime_ns) == (first.st_ino, first.st_mtime_ns)
    assert unfinished_runs(tuned.project.grids_dir) == []
    assert not left.hidden.exists()

    unbroken = run(tuned)
    names = sorted(str(path.relative_to(result.folder)) for path in result.folder.rglob("*"))
    assert names == sorted(str(path.relative_to(unbroken.folder)) for path in unbroken.folder.rglob("*"))
    for path, path_unbroken in zip(
        [*pictures(result), result.sheet], [*pictures(unbroken), unbroken.sheet], strict=True
    ):
        assert np.array_equal(pixels(path), pixels(path_unbroken))
    for path, path_unbroken in zip(pictures(result), pictures(unbroken), strict=True):
        assert path.read_bytes() == path_unbroken.read_bytes()
    assert result.scores.read_bytes() == unbroken.scores.read_bytes()
    assert result.tradeoff and unbroken.tradeoff
    assert result.tradeoff.read_bytes() == unbroken.tradeoff.read_bytes()


def test_a_grid_may_be_interrupted_again_and_again(tuned: Girl) -> None:
    interrupt(tuned, saved=0)
    with pytest.raises(KeyboardInterrupt):
        resume_grid(tuned.project, tuned.manifest, interrupting(2))
    assert resume_grid(tuned.project, tuned.manifest).made == 2


def test_the_newest_of_two_interrupted_grids_goes_on(tuned: Girl) -> None:
    interrupt(tuned)
    interrupt(tuned, request=replace(ASKED, prompt="a wooden girl"))
    assert resume_grid(tuned.project, tuned.manifest).prompt == "a wooden girl"
    assert resume_grid(tuned.project, tuned.manifest).prompt == PROMPT


def test_an_interrupted_grid_does_not_go_on_with_another_adapter(tuned: Girl) -> None:
    interrupt(tuned)
    (left,) = unfinished_runs(tuned.project.grids_dir)
    tune(tuned.project, tuned.manifest, TUNE.model_copy(update={"seed": 1}))
    shutil.rmtree(tuned.project.tuning_dir / "adapters")  # where the first one is kept
    with pytest.raises(UserError) as caught:
        resume_grid(tuned.project, tuned.manifest)
    assert (
        caught.value.message
        == f"{left.final} was begun with another adapter or base than the project has now"
    )
    assert caught.value.hint == (
        f"start it anew: `sine grid '{PROMPT}'`; this one goes with `rm -r {left.hidden}`"
    )
    assert [path.name for path in (left.folder / "cells").iterdir()] == CELLS[:2]
    tune(tuned.project, tuned.manifest, TUNE)
    assert resume_grid(tuned.project, tuned.manifest).made == 2, "with the first adapter it still can"


def test_interrupted_grids_go_on_with_adapters_that_were_kept(tuned: Girl) -> None:
    interrupt(tuned)
    tune(tuned.project, tuned.manifest, TUNE.model_copy(update={"seed": 1}))
    (kept,) = (tuned.project.tuning_dir / "adapters").iterdir()
    notices: list[str] = []
    assert resume_grid(tuned.project, tuned.manifest, on_notice=notices.append).made == 2
    assert notices == [f"with the adapter that is kept in {kept}, as then"]


def test_a_newer_grid_that_cannot_go_on_keeps_none_from_it(tuned: Girl) -> None:
    interrupt(tuned)
    (older,) = unfinished_runs(tuned.project.grids_dir)
    tune(tuned.project, tuned.manifest, TUNE.model_copy(update={"seed": 1}))
    interrupt(tuned)
    shutil.rmtree(tuned.project.adapter_dir)
    (kept,) = (tuned.project.tuning_dir / "adapters").iterdir()
    (kept / "adapter").rename(tuned.project.adapter_dir)
    shutil.rmtree(kept)
    assert resume_grid(tuned.project, tuned.manifest).folder == older.final


def test_a_grid_that_another_machine_holds_is_told(tuned: Girl, tmp_path: Path) -> None:
    interrupt(tuned)
    (left,) = unfinished_runs(tuned.project.grids_dir)
    (left.hidden / "owner-1@00000000").touch()
    with pytest.raises(UserError) as caught:
        resume_grid(tuned.project, tuned.manifest)
    assert caught.value.message == f"{left.final} is being made by process 1 of another machine"
    assert caught.value.hint == f"wait for it, or if it is no more: `rm {left.hidden}/owner-1@00000000`"


def test_a_grid_may_go_on_under_other_conditions_and_its_record_says_what_the_cells_share(
    tuned: Girl,
) -> None:
    interrupt(tuned)
    notices: list[str] = []
    result = resume_grid(tuned.project, tuned.manifest, on_notice=notices.append, low_memory=True)
    assert notices == ["the cells that are there were made otherwise: memory normal then, low now"]
    record = yaml.safe_load((result.folder / "run.yaml").read_text("utf-8"))
    assert "low_memory" not in record and record["device"] == "cpu"
    assert [read_recipe(path).get("low_memory", False) for path in pictures(result)] == [
        False,
        False,
        True,
        True,
    ]
    assert verify(tuned.project).problems == []


def test_without_an_interrupted_grid_there_is_nothing_to_go_on_with(tuned: Girl) -> None:
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            resume_grid(tuned.project, tuned.manifest)
        assert caught.value.message == "no interrupted grid in girl/grids"
        assert caught.value.hint == 'start one: `sine grid "a sculpture of a girl"`'
        run(tuned, replace(ASKED, switch_steps=[300], base_weights=[0.5]))


@pytest.mark.parametrize(
    "request_text",
    [
        "{}",
        "cells: []\nadapter: null",
        "cells: [{size: 3}]\nadapter: null",
        "cells: []\nadapter: null\nbase_revision: x\nscorer: 7",
    ],
)
def test_a_damaged_request_is_told(tuned: Girl, request_text: str) -> None:
    interrupt(tuned)
    (left,) = unfinished_runs(tuned.project.grids_dir)
    (left.hidden / "request.yaml").write_text(request_text)
    with pytest.raises(UserError) as caught:
        resume_grid(tuned.project, tuned.manifest)
    assert caught.value.message == f"{left.hidden} is damaged and cannot go on"
    assert caught.value.hint == f"remove it: `rm -r {left.hidden}`"


Cells = list[dict[str, Any]]


def one_of_another_prompt(cells: Cells) -> None:
    cells[1]["prompt"] = "a boat"


def one_of_another_size(cells: Cells) -> None:
    cells[3]["size"] = {"height": 8192, "width": 8192}


def one_too_few(cells: Cells) -> None:
    cells.pop()


def in_another_order(cells: Cells) -> None:
    cells.reverse()
    cells.append(cells.pop(0))


def one_twice(cells: Cells) -> None:
    cells[2] = json.loads(json.dumps(cells[1]))


def with_a_guide_less(cells: Cells) -> None:
    guide = {"project": "../x", "source_prompt": "x", "weight": 0.1, "switch_step": 400}
    cells[0]["guides"] = [guide]


@pytest.mark.parametrize(
    "change",
    [
        one_of_another_prompt,
        one_of_another_size,
        one_too_few,
        in_another_order,
        one_twice,
        with_a_guide_less,
    ],
)
def test_cells_that_are_no_grid_are_told(tuned: Girl, change: Callable[[Cells], None]) -> None:
    interrupt(tuned)
    (left,) = unfinished_runs(tuned.project.grids_dir)
    request = left.request
    assert request
    change(request["cells"])
    (left.hidden / "request.yaml").write_text(yaml.safe_dump(request))
    with pytest.raises(UserError, match="is damaged and cannot go on"):
        resume_grid(tuned.project, tuned.manifest)


def test_tuned_cells_without_an_adapter_are_told(tuned: Girl) -> None:
    interrupt(tuned)
    (left,) = unfinished_runs(tuned.project.grids_dir)
    (left.hidden / "request.yaml").write_text(yaml.safe_dump({**(left.request or {}), "adapter": None}))
    with pytest.raises(UserError, match="is damaged and cannot go on"):
        resume_grid(tuned.project, tuned.manifest)


def test_a_scorer_that_a_request_names_is_not_fetched(
    tuned: Girl, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    interrupt(tuned)
    (left,) = unfinished_runs(tuned.project.grids_dir)
    (left.hidden / "request.yaml").write_text(yaml.safe_dump({**(left.request or {}), "scorer": "some/clip"}))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(UserError) as caught:
        resume_grid(tuned.project, tuned.manifest)
    assert caught.value.message == (
        "the scorer some/clip is not on this disk, and a project does not make sine fetch it"
    )
    assert caught.value.hint == "fetch it yourself: `sine score PICTURE --scorer some/clip`"


def test_a_grid_of_the_base_alone_needs_no_tuning_and_goes_on_without(untuned: Girl) -> None:
    request = replace(ASKED, switch_steps=[0, 400], base_weights=[1.0])
    interrupt(untuned, request, saved=0)
    result = resume_grid(untuned.project, untuned.manifest)
    assert result.made == 2
    assert np.array_equal(pixels(pictures(result)[0]), pixels(pictures(result)[1])), "at v = 1 there is no K"


@pytest.mark.parametrize(
    ("switch_steps", "base_weights", "alone"),
    [([0, 400], [1.0], "-v 1"), ([1000], [0.5, 1.0], "-K 1000"), ([400, 1000], [0.5, 1.0], None)],
)
def test_what_changes_no_cell_is_told(
    tuned: Girl, switch_steps: list[int], base_weights: list[float], alone: str | None
) -> None:
    request = replace(ASKED, switch_steps=switch_steps, base_weights=base_weights, position=False)
    notices: list[str] = []
    grid(tuned.project, tuned.manifest, request, on_notice=notices.append)
    unheard = "the tuned model has no weight; without effect: --no-position"
    assert notices == ([f"with {alone} {unheard}"] if alone else [])


def test_a_grid_with_any_tuned_cell_needs_tuning(untuned: Girl) -> None:
    with pytest.raises(UserError) as caught:
        run(untuned, replace(ASKED, base_weights=[1.0, 0.5]))
    assert caught.value.message == "girl is not tuned yet"
    assert not untuned.project.grids_dir.exists()


def test_values_given_twice_are_made_once_and_keep_their_order_and_digits(tuned: Girl) -> None:
    request = replace(ASKED, switch_steps=[700, 0, 700], base_weights=[0.125, 0.125, 0.5])
    result = run(tuned, request)
    assert [path.name for path in pictures(result)] == [
        "K0700_v0.125.png",
        "K0000_v0.125.png",
        "K0700_v0.50.png",
        "K0000_v0.50.png",
    ]


def test_weights_that_differ_in_the_tenth_digit_have_files_of_their_own(tuned: Girl) -> None:
    weights = [0.1, 0.1000000001, 1 / 3]
    result = run(tuned, replace(ASKED, switch_steps=[0], base_weights=weights))
    assert len({path.name for path in pictures(result)}) == 3
    assert [read_recipe(path)["base_weight"] for path in pictures(result)] == weights


def test_too_many_cells_are_refused(tuned: Girl) -> None:
    with pytest.raises(UserError) as caught:
        run(tuned, replace(ASKED, switch_steps=list(range(201)), base_weights=[0.1, 0.2]))
    assert caught.value.message == "a grid of 201 K by 2 v has more than 400 cells"
    assert caught.value.hint == "give fewer values"


def test_an_empty_prompt_is_refused(tuned: Girl) -> None:
    with pytest.raises(UserError) as caught:
        run(tuned, replace(ASKED, prompt=" "))
    assert caught.value.message == "the prompt is empty"


# -------------------------------------------------------------------------------------------------- scores


def test_every_cell_is_scored_against_prompt_and_source(tuned: Girl, tiny_clip: Path) -> None:
    result = run(tuned, replace(ASKED, scorer=str(tiny_clip)))
    scorer = open_scorer(str(tiny_clip))
    assert result.scorer == scorer.identity
    source = read_picture(Path("girl/source.png")).image
    expected = [score for path in pictures(result) for score in score_files(scorer, [path], PROMPT, source)]
    for cell, score in zip(result.cells, expected, strict=True):
        assert cell.score.alignment == pytest.approx(score.alignment, abs=1e-5)
        assert cell.score.distance == pytest.approx(score.distance, abs=1e-5)
    assert len({cell.score for cell in result.cells}) == 4
    header, *rows = result.scores.read_text("utf-8").splitlines()
    assert header == "file,switch_step,base_weight,alignment,distance,scorer,distance_measure"
    places = [(300, 0.25), (700, 0.25), (300, 0.75), (700, 0.75)]
    assert [(cell.switch_step, cell.base_weight) for cell in result.cells] == places
    by = f"{tiny_clip},features of {tiny_clip}"
    assert rows == [
        f"cells/{name},{K},{v},{cell.score.alignment},{cell.score.distance},{by}"
        for name, (K, v), cell in zip(CELLS, places, result.cells, strict=True)
    ]
    record = yaml.safe_load((result.folder / "run.yaml").read_text("utf-8"))
    assert record["scorer"] == {
        "name": str(tiny_clip),
        "revision": scorer.revision,
        "distance": f"features of {tiny_clip}",
    }
    assert result.tradeoff == result.folder / "tradeoff.png"


def test_a_grid_of_one_cell_has_no_trade_off_to_show(tuned: Girl) -> None:
    result = run(tuned, replace(ASKED, switch_steps=[300], base_weights=[0.5]))
    assert result.tradeoff is None
    assert not (result.folder / "tradeoff.png").exists()
    assert len(result.scores.read_text("utf-8").splitlines()) == 2


def test_a_grid_goes_on_with_the_scorer_that_was_asked_for_from_anywhere(
    tuned: Girl, tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    relative = os.path.relpath(tiny_clip)
    interrupt(tuned, request=replace(ASKED, scorer=relative))
    project = Project(tuned.project.root.resolve())
    monkeypatch.chdir("girl")
    assert resume_grid(project, load_manifest(project.manifest_path)).scorer.name == str(tiny_clip)


def test_a_grid_that_was_begun_before_grids_were_scored_goes_on_with_the_bundled_scorer(tuned: Girl) -> None:
    interrupt(tuned)
    (left,) = unfinished_runs(tuned.project.grids_dir)
    path = left.hidden / "request.yaml"
    request = yaml.safe_load(path.read_text("utf-8"))
    assert request.pop("scorer") == "mini"
    path.write_text(yaml.safe_dump(request), "utf-8")
    assert resume_grid(tuned.project, tuned.manifest).scorer.name == "mini"


def test_a_scorer_that_is_not_there_is_told_before_anything_is_made(tuned: Girl, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        run(tuned, replace(ASKED, scorer=str(tmp_path)))
    assert caught.value.message.startswith(f"{tmp_path} is not a whole CLIP model's folder: it lacks ")
    assert not tuned.project.grids_dir.exists()


def test_a_scorer_that_is_gone_keeps_an_interrupted_grid_as_it_was(
    tuned: Girl, tiny_clip: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(tiny_clip, tmp_path / "clip"))
    interrupt(tuned, request=replace(ASKED, scorer=str(moved)))
    shutil.rmtree(moved)
    with pytest.raises(UserError) as caught:
        resume_grid(tuned.project, tuned.manifest)
    assert caught.value.message == f"no such folder: {moved}"
    shutil.copytree(tiny_clip, moved)
    assert resume_grid(tuned.project, tuned.manifest).made == 2


def test_an_interruption_while_scoring_keeps_every_cell(tuned: Girl, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sine_cli.workflow.grid.load_scorer", interrupted)
        with pytest.raises(Interrupted) as caught:
            run(tuned)
    assert caught.value.hint == "4 of 4 cells are kept; `sine grid --resume` goes on"
    told: list[GridProgress] = []
    assert resume_grid(tuned.project, tuned.manifest, told.append).made == 0
    assert told == [], "of no rows there is no progress"
