"""Several guides: what `--guide` says, its identities, its records, and what is refused."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from sine_cli.errors import Interrupted, UserError
from sine_cli.models.backbone import CELLS_AT_ONCE
from sine_cli.project.folder import Project
from sine_cli.project.manifest import load_manifest, write_manifest
from sine_cli.project.runs import read_recipe, unfinished_runs
from sine_cli.workflow.adapter_record import read_record
from sine_cli.workflow.edit import EditRequest, EditResult, edit
from sine_cli.workflow.grid import GridProgress, GridRequest, grid, resume_grid
from sine_cli.workflow.guides import GuideRequest, parse_guide
from sine_cli.workflow.init import InitRequest, init
from sine_cli.workflow.size import Size
from sine_cli.workflow.tune import tune
from tests.alike import are_alike
from tests.workflow.conftest import EDIT, TUNE, Girl

PROMPT = "painting of a girl"
STYLE = "a painting in the sks style"
SIZE = Size(48, 56)


def guide(folder: str, *weights: float, K: int | None = None, prompt: str | None = None) -> GuideRequest:
    return GuideRequest(Path(folder), weights, K, prompt)


def run(girl: Girl, *guides: GuideRequest, **settings: Any) -> EditResult:
    request = EditRequest([PROMPT], EDIT.model_copy(update=settings), size=SIZE, guides=guides)
    (result,) = edit(girl.project, girl.manifest, request)
    return result


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def picture_of(girl: Girl, *guides: GuideRequest, **settings: Any) -> np.ndarray:
    return pixels(run(girl, *guides, **settings).pictures[0])


def refusal(girl: Girl, *guides: GuideRequest, **settings: Any) -> tuple[str, str | None]:
    with pytest.raises(UserError) as caught:
        run(girl, *guides, **settings)
    assert not girl.project.edits_dir.exists()
    return caught.value.message, caught.value.hint


# -------------------------------------------------------------------------------------------------- option


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("../starry-night:0.3", guide("../starry-night", 0.3)),
        ("starry:1:600", guide("starry", 1, K=600)),
        ("starry:.5:0:a sks painting: blue", guide("starry", 0.5, K=0, prompt="a sks painting: blue")),
        ("starry:0.5:a sks painting", guide("starry", 0.5, prompt="a sks painting")),
        ("starry:0,0.2,0.4", guide("starry", 0, 0.2, 0.4)),
        ("c:/odd:name:0.25", guide("c:/odd:name", 0.25)),
    ],
)
def test_a_guide_is_a_project_a_weight_and_perhaps_K_and_a_prompt(text: str, expected: GuideRequest) -> None:
    assert parse_guide(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("starry", '--guide: "starry" is not PROJECT:WEIGHT'),
        (":0.3", '--guide: ":0.3" is not PROJECT:WEIGHT'),
        ("starry:", '--guide: "starry:" is not PROJECT:WEIGHT'),
        ("starry:nan", '--guide: "starry:nan" is not PROJECT:WEIGHT'),
        ("starry:-0.3", '--guide: "starry:-0.3" is not PROJECT:WEIGHT'),
        ("starry:1.2.3", '--guide: "1.2.3" is no weight'),
        ("starry:0.1,,0.2", '--guide: "0.1,,0.2" is no weight'),
        ("starry:1.5", "--guide: a weight must be from 0 to 1, got 1.5"),
        ("starry:0.3:1001", "--guide: K must be from 0 to 1000, got 1001"),
    ],
)
def test_what_is_no_guide_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_guide(text)
    assert caught.value.message == message
    assert caught.value.hint == (
        "give PROJECT:WEIGHT, for example `--guide ../starry-night:0.3`, or PROJECT:WEIGHT:K:PROMPT"
    )


# ---------------------------------------------------------------------------------------------- identities


def test_a_project_that_guides_itself_takes_that_much_from_the_base(tuned: Girl) -> None:
    """Base 0.8 - 0.3, own 0.2, guide 0.3: as v = 0.5."""
    itself = picture_of(tuned, guide("girl", 0.3), base_weight=0.8)
    assert np.abs(itself - picture_of(tuned, base_weight=0.5)).max() <= 1
    assert not np.array_equal(itself, picture_of(tuned, base_weight=0.8))


def test_a_guide_alone_is_the_edit_in_its_own_project(tuned: Girl, style: Girl) -> None:
    guided = picture_of(tuned, guide("stripes", 0.6, K=300), base_weight=1.0)
    own = picture_of(style, base_weight=0.4, switch_step=300)
    assert np.abs(guided - own).max() <= 1
    assert np.abs(guided - picture_of(tuned, base_weight=1.0)).mean() > 1


def test_a_guide_has_the_picture_s_own_K_unless_it_has_one(tuned: Girl, style: Girl) -> None:
    assert np.array_equal(
        picture_of(tuned, guide("stripes", 0.3)), picture_of(tuned, guide("stripes", 0.3, K=400))
    )


@pytest.mark.parametrize(
    "change", [{"K": 900}, {"prompt": "a red castle"}], ids=lambda change: next(iter(change))
)
def test_every_part_of_a_guide_decides_about_the_picture(
    tuned: Girl, style: Girl, change: dict[str, Any]
) -> None:
    changed = picture_of(tuned, guide("stripes", 0.3, **change))
    assert not np.array_equal(changed, picture_of(tuned, guide("stripes", 0.3)))


@pytest.mark.parametrize("idle", [guide("girl", 0.0), guide("girl", 0.4, K=1000)], ids=["b = 0", "K = 1000"])
def test_a_guide_without_weight_changes_nothing_and_need_not_be_tuned(
    style: Girl, untuned: Girl, idle: GuideRequest
) -> None:
    result = run(style, idle)
    assert np.array_equal(pixels(result.pictures[0]), picture_of(style))
    assert read_recipe(result.pictures[0])["guide_adapters"] == [None]


def test_weights_may_sum_to_one_whatever_their_last_digit(tuned: Girl, style: Girl) -> None:
    run(tuned, guide("stripes", 0.1), guide("girl", 0.2), base_weight=0.3, steps=1)


# ------------------------------------------------------------------------------------------------- records


def test_the_recipe_has_every_guide_and_the_hashes_of_its_adapter(tuned: Girl, style: Girl) -> None:
    result = run(tuned, guide("stripes", 0.2, K=600), guide("girl", 0.1, prompt="a girl"))
    recipe = read_recipe(result.pictures[0])
    assert recipe["guides"] == [
        {"project": "../stripes", "source_prompt": STYLE, "weight": 0.2, "switch_step": 600},
        {"project": ".", "source_prompt": "a girl", "weight": 0.1, "switch_step": 400},
    ]
    own = read_record(tuned.project).files
    assert recipe["adapter"] == own
    assert recipe["guide_adapters"] == [read_record(style.project).files, own]
    record = yaml.safe_load((result.folder / "run.yaml").read_text("utf-8"))
    assert {**record, **recipe} == record


# ------------------------------------------------------------------------------------------- what is refused


def test_weights_over_one_are_refused(tuned: Girl, style: Girl) -> None:
    assert refusal(tuned, guide("stripes", 0.6)) == (
        "--guide: the weights sum to 1.1: 0.6 of the guides and 0.5 (1 - v) of the picture's own; "
        "at most 1 is there to share",
        "lower the guides' weights, or raise -v to 0.6 at least",
    )
    assert refusal(tuned, guide("stripes", 0.6, K=0), guide("girl", 0.5, K=0), switch_step=1000) == (
        "--guide: the weights sum to 1.1: 1.1 of the guides and 0 (1 - v) of the picture's own; "
        "at most 1 is there to share",
        "lower the guides' weights",
    )


def test_a_guide_that_is_not_tuned_is_refused(style: Girl, untuned: Girl) -> None:
    assert refusal(style, guide("girl", 0.3)) == (
        "girl is not tuned yet",
        "run `sine tune --project girl` first",
    )


def test_a_guide_whose_picture_changed_is_refused(tuned: Girl, style: Girl) -> None:
    with Image.open("stripes/source.png") as source:
        turned = source.rotate(90)
    turned.save("stripes/source.png")
    assert refusal(tuned, guide("stripes", 0.3)) == (
        "stripes/source.png is not the picture whose hash stripes/sine.yaml has",
        "bring the picture back, or make a new project: `sine init PICTURE --class NOUN`",
    )


def test_a_guide_with_a_damaged_adapter_is_refused(tuned: Girl, style: Girl) -> None:
    Path("stripes/adapter/position.safetensors").unlink()
    with pytest.raises(UserError) as caught:
        run(tuned, guide("stripes", 0.3))
    assert caught.value.message == "stripes/adapter/position.safetensors is missing"
    assert caught.value.hint == "run `sine tune --project stripes` again"


def test_a_guide_of_another_base_is_refused(
    tuned: Girl, tiny_base: Path, picture: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(tiny_base, tmp_path / "other"))
    config = other / "unet" / "config.json"
    config.write_text(config.read_text().replace("{", '{"more": 1,', 1))
    made = init(InitRequest(picture, "painting", base=str(other), folder=Path("other")))
    tune(made.project, made.manifest, TUNE.model_copy(update={"steps": 1, "pool": 1}))
    assert refusal(tuned, guide("other", 0.3)) == (
        f"the guide other was tuned on `{other}`, this project uses `{tiny_base}`",
        f"make a guide of the same base: `sine init other/source.png --class NOUN --base {tiny_base}`",
    )


def test_a_guide_of_another_revision_is_told_how_to_come_to_this_one(
    tuned: Girl, style: Girl, tiny_base: Path
) -> None:
    revision = str(style.manifest.base_revision)
    for path in (Path("stripes/sine.yaml"), Path("stripes/adapter/record.yaml")):
        path.write_text(path.read_text("utf-8").replace(revision, "sha256:" + "0" * 64), "utf-8")
    assert refusal(tuned, guide("stripes", 0.3)) == (
        f"the guide stripes was tuned on `{tiny_base}`, this project uses `{tiny_base}` "
        f"(sha256:{'0' * 64}, not {revision})",
        f"set `base_revision: {revision}` in stripes/sine.yaml, then run `sine tune --project stripes`",
    )


def test_the_same_base_in_another_folder_is_no_other_base(
    tuned: Girl, tiny_base: Path, picture: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(tiny_base, tmp_path / "moved"))
    made = init(InitRequest(picture, "painting", base=str(moved), folder=Path("other")))
    tune(made.project, made.manifest, TUNE.model_copy(update={"steps": 1, "pool": 1}))
    assert run(tuned, guide("other", 0.3))


def test_what_is_no_project_is_refused(tuned: Girl) -> None:
    assert refusal(tuned, guide("grl", 0.3)) == (
        "--guide: no such project: grl",
        "did you mean `--guide girl`?",
    )
    Path("empty").mkdir()
    assert refusal(tuned, guide("empty", 0.3)) == (
        "empty is not a project: it has no sine.yaml",
        "`sine init PICTURE --class NOUN` makes one",
    )


def test_an_edit_takes_one_weight_a_guide(tuned: Girl, style: Girl) -> None:
    assert refusal(tuned, guide("stripes", 0.1, 0.2)) == (
        "--guide: an edit takes one weight a guide, got 2",
        "`sine grid` takes several, as its rows",
    )


# ---------------------------------------------------------------------------------------------------- grids

ASKED = GridRequest(PROMPT, [300, 700], [0.75], EDIT, size=SIZE, guides=(guide("stripes", 0, 0.25),))
CELLS = ["K0300_b0.00.png", "K0700_b0.00.png", "K0300_b0.25.png", "K0700_b0.25.png"]


def test_a_grid_sweeps_the_weight_of_a_guide(tuned: Girl, style: Girl) -> None:
    result = grid(tuned.project, tuned.manifest, ASKED)
    assert [cell.file.name for cell in result.cells] == CELLS
    assert [(c.switch_step, c.base_weight, c.guide_weight) for c in result.cells] == [
        (300, 0.75, 0.0),
        (700, 0.75, 0.0),
        (300, 0.75, 0.25),
        (700, 0.75, 0.25),
    ]
    last = run(tuned, guide("stripes", 0.25), base_weight=0.75, switch_step=700).pictures[0]
    assert are_alike(result.cells[-1].file, last)
    assert read_recipe(result.cells[-1].file) == read_recipe(last)
    record = yaml.safe_load((result.folder / "run.yaml").read_text("utf-8"))
    assert (record["switch_steps"], record["guide_weights"]) == ([300, 700], [0.0, 0.25])
    assert record["base_weight"] == 0.75
    assert record["guides"] == [{"project": "../stripes", "source_prompt": STYLE}]
    assert result.scores.read_text("utf-8").startswith("file,switch_step,guide_weight,alignment,")


@pytest.mark.parametrize(
    "change",
    [{"base_weights": [0.5, 0.75]}, {"guides": (guide("stripes", 0, 0.1), guide("girl", 0.1, 0.2))}],
    ids=["v", "two guides"],
)
def test_a_grid_has_one_kind_of_rows(tuned: Girl, style: Girl, change: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        grid(tuned.project, tuned.manifest, replace(ASKED, **change))
    assert caught.value.message == (
        "a grid has one kind of rows: several -v, or several weights of one guide"
    )
    assert not tuned.project.grids_dir.exists()


def test_a_grid_over_v_may_have_a_guide(tuned: Girl, style: Girl) -> None:
    asked = replace(ASKED, base_weights=[0.5, 0.75], guides=(guide("stripes", 0.25, K=500),))
    result = grid(tuned.project, tuned.manifest, asked)
    assert [cell.file.name for cell in result.cells][-1] == "K0700_v0.75.png"
    assert all(cell.guide_weight is None for cell in result.cells)


def test_an_interrupted_grid_goes_on_from_anywhere_and_not_with_another_guide(
    tuned: Girl, style: Girl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CELLS_AT_ONCE, "cpu", 1)

    def progress(made: GridProgress) -> None:
        if made.saved == len(ASKED.switch_steps):
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        grid(tuned.project, tuned.manifest, ASKED, progress)
    (left,) = unfinished_runs(tuned.project.grids_dir)
    shutil.copytree("stripes", "before")
    changed = style.manifest.model_copy(update={"tune": style.manifest.tune.model_copy(update={"seed": 2})})
    write_manifest(style.project.manifest_path, changed)
    tune(style.project, changed, changed.tune)
    shutil.rmtree(style.project.tuning_dir / "adapters")
    with pytest.raises(UserError) as caught:
        resume_grid(tuned.project, tuned.manifest)
    assert caught.value.message == (
        f"{left.final} was begun with another adapter or base than the project or a guide of it has now"
    )
    shutil.rmtree("stripes")
    os.rename("before", "stripes")
    project = Project(tuned.project.root.resolve())
    monkeypatch.chdir("stripes")
    result = resume_grid(project, load_manifest(project.manifest_path))
    assert result.made == 2
    assert [cell.file.name for cell in result.cells] == CELLS
