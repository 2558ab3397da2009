"""What `sine verify` finds: nothing in a sound project, and each damage with its file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from sine_cli.models import locate
from sine_cli.project.files import sha256
from sine_cli.project.folder import Project
from sine_cli.project.manifest import load_manifest, write_manifest
from sine_cli.project.runs import find_recipe, save_picture
from sine_cli.workflow.asked import CompareRequest
from sine_cli.workflow.compare import compare
from sine_cli.workflow.edit import EditRequest, edit
from sine_cli.workflow.grid import GridRequest, grid
from sine_cli.workflow.guides import GuideRequest
from sine_cli.workflow.size import Size
from sine_cli.workflow.verify import Verdict, verify
from tests.tiny import write_hub_cache
from tests.workflow.conftest import EDIT, Girl

SETTINGS = EDIT.model_copy(update={"steps": 1})
SIZE = Size(24, 32)
AGAIN = "run `sine tune` again"


@pytest.fixture(scope="session")
def full_once(
    tmp_path_factory: pytest.TempPathFactory, tuned_once: Path, style_once: Path, tiny_clip: Path
) -> Path:
    """A tuned project with an edit, two grids and a comparison; `stripes` is beside it. Not to be changed."""
    home = tmp_path_factory.mktemp("full")
    shutil.copytree(style_once, home / "stripes")
    project = Project(Path(shutil.copytree(tuned_once, home / "girl")))
    manifest = load_manifest(project.manifest_path)
    scorer = str(tiny_clip)
    edit(project, manifest, EditRequest(["a boat"], SETTINGS, SIZE, count=2, seed=3, best=1, scorer=scorer))
    grid(project, manifest, GridRequest("a boat", [0, 400], [0.5, 0.625], SETTINGS, SIZE, scorer=scorer))
    weights = (GuideRequest(home / "stripes", (0.0, 0.25)),)
    swept = GridRequest("a dog", [400, 1000], [0.5], SETTINGS, SIZE, guides=weights, scorer=scorer)
    grid(project, manifest, swept)
    methods = ("sine", "sdedit", "prompt-to-prompt")
    compare(project, manifest, CompareRequest("a boat", SETTINGS, methods, SIZE, count=2, scorer=scorer))
    return project.root


@pytest.fixture
def full(full_once: Path, isolated: Path) -> Girl:
    shutil.copytree(full_once, isolated / "girl")
    return Girl(Project(Path("girl")))


def found(girl: Girl) -> list[str]:
    return [problem.what for problem in verify(girl.project).problems]


def only(parent: Path, what: str = "*") -> Path:
    (path,) = parent.glob(what)
    return path


def test_a_sound_project_has_no_problems_and_nothing_is_changed(full: Girl) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    assert verify(full.project) == Verdict(adapter=True, shapes=True, runs=4, pictures=2 + 5 + 5 + 6)
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before


def test_an_untuned_project_is_sound(untuned: Girl) -> None:
    assert verify(untuned.project) == Verdict(notes=["girl is not tuned; `sine tune` does it"])


# --------------------------------------------------------------------------------- manifest, picture, adapter


def test_a_damaged_manifest_is_told_and_the_rest_looked_at_all_the_same(full: Girl) -> None:
    full.project.manifest_path.write_text("schema: 2\n", "utf-8")
    (full.project.root / "source.png").unlink()
    verdict = verify(full.project)
    (problem,) = verdict.problems
    assert problem.what.startswith("girl/sine.yaml:1: ")
    assert problem.hint
    assert (verdict.adapter, verdict.shapes, verdict.runs) == (True, False, 4)


def test_another_picture_of_the_same_size_is_found(untuned: Girl) -> None:
    picture = untuned.project.source(untuned.manifest)
    with Image.open(picture) as image:
        image.rotate(180).save(picture)
    (problem,) = verify(untuned.project).problems
    assert problem.what == "girl/source.png is not the picture whose hash girl/sine.yaml has"
    assert problem.hint == "bring the picture back, or make a new project: `sine init PICTURE --class NOUN`"
    unknown = untuned.manifest.source.model_copy(update={"stored_sha256": None})
    write_manifest(untuned.project.manifest_path, untuned.manifest.model_copy(update={"source": unknown}))
    verdict = verify(untuned.project)
    assert verdict.problems == []
    assert verdict.notes[0] == "girl/sine.yaml does not have the hash of source.png"


def test_a_picture_of_another_size_or_none_is_found(untuned: Girl) -> None:
    picture = untuned.project.source(untuned.manifest)
    Image.new("RGB", (50, 40)).save(picture)
    assert found(untuned) == ["girl/source.png is 40 high, 50 wide, and girl/sine.yaml says 60 high, 80 wide"]
    picture.write_bytes(picture.read_bytes()[:60])
    assert found(untuned) == ["girl/source.png is truncated or damaged"]
    picture.unlink()
    assert found(untuned) == ["no such file: girl/source.png"]


def rewrite_record(girl: Girl, **changes: Any) -> None:
    path = girl.project.adapter_dir / "record.yaml"
    record = yaml.safe_load(path.read_text("utf-8")) | changes
    path.write_text(yaml.safe_dump(record), "utf-8")


@pytest.mark.parametrize("name", ["adapter.safetensors", "position.safetensors"])
def test_a_changed_or_missing_file_of_the_adapter_is_found(tuned: Girl, name: str) -> None:
    path = tuned.project.adapter_dir / name
    path.write_bytes(path.read_bytes() + b"x")
    (problem,) = verify(tuned.project).problems
    assert problem.what == f"girl/adapter/{name} is not the file that girl/adapter/record.yaml names"
    assert problem.hint == AGAIN
    path.unlink()
    assert found(tuned) == [f"girl/adapter/{name} is missing"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"frequencies": 65}, "frequencies: must be at most 64, got 65"),
        ({"frequencies": 0}, "frequencies: must be at least 1, got 0"),
        ({"loss": "low"}, 'loss: must be a number, got "low"'),
        ({"more": 1}, "more: unknown"),
    ],
)
def test_a_damaged_record_of_the_adapter_is_found(tuned: Girl, change: dict[str, Any], what: str) -> None:
    rewrite_record(tuned, **change)
    record = "girl/adapter/record.yaml is damaged, or another version of sine wrote it"
    assert found(tuned) == [f"{record} ({what})"]


def test_an_adapter_that_does_not_fit_the_base_is_found(tuned: Girl) -> None:
    path = tuned.project.adapter_dir / "adapter.safetensors"
    state = load_file(path)
    name = min(state)
    save_file({**state, name: state[name].repeat(1, 2)}, path)
    files = yaml.safe_load((path.parent / "record.yaml").read_text("utf-8"))["files"]
    rewrite_record(tuned, files={**files, path.name: sha256(path)})
    assert found(tuned) == [
        "girl/adapter/adapter.safetensors does not fit this base and the settings it was tuned with"
    ]


def test_an_adapter_of_another_base_is_found(tuned: Girl) -> None:
    rewrite_record(tuned, base_revision="abc")
    (what,) = found(tuned)
    assert what.startswith("girl/adapter was tuned on revision abc of ")
    rewrite_record(tuned, base="sd15")
    assert found(tuned)[0].startswith("girl/adapter was tuned on `sd15`, this project uses ")


def test_a_base_of_the_hub_is_looked_up_in_the_cache_alone(
    tuned: Girl, tiny_base: Path, isolated: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    cache = isolated / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    commit = "0123456789abcdef0123456789abcdef01234567"
    manifest = tuned.manifest.model_copy(update={"base": "someone/base", "base_revision": commit})
    write_manifest(tuned.project.manifest_path, manifest)
    rewrite_record(tuned, base="someone/base", base_revision=commit)
    verdict = verify(tuned.project)
    assert (verdict.problems, verdict.shapes) == ([], False)
    assert verdict.notes == [
        "`someone/base` is not on this disk: the adapter's shapes were not held against it"
    ]
    snapshot = write_hub_cache(cache, "someone/base", commit, tiny_base)
    for weights in snapshot.rglob("*.safetensors"):
        weights.unlink()
    assert locate.cached("someone/base", commit) == locate.Location(snapshot, commit)
    assert verify(tuned.project) == Verdict(adapter=True, shapes=True)


def test_the_base_is_looked_at_before_anything_is_tuned(untuned: Girl) -> None:
    manifest = untuned.manifest.model_copy(update={"base": "sd15", "base_revision": "sha256:796c"})
    write_manifest(untuned.project.manifest_path, manifest)
    (problem,) = verify(untuned.project).problems
    assert (problem.file, problem.what) == (
        untuned.project.manifest_path,
        'base_revision: "sha256:796c" is no commit of the hub',
    )
    assert problem.hint == (
        "set `base_revision: null` in sine.yaml for the newest, or a commit; `sine verify` checks it"
    )


@pytest.mark.parametrize("revision", ["/dev/zero", "/dev/tty", "/etc", "../../x", "/bin/ls"])
def test_a_revision_that_is_a_path_is_not_followed(tuned: Girl, revision: str) -> None:
    manifest = tuned.manifest.model_copy(update={"base": "sd15", "base_revision": revision})
    write_manifest(tuned.project.manifest_path, manifest)
    rewrite_record(tuned, base="sd15", base_revision=revision)
    assert found(tuned) == [f'base_revision: "{revision}" is no commit of the hub']


def test_a_picture_that_leads_out_does_not_keep_the_rest_from_being_looked_at(full: Girl) -> None:
    shutil.move("girl/source.png", "elsewhere.png")
    Path("girl/source.png").symlink_to(Path("elsewhere.png").resolve())
    verdict = verify(full.project)
    told = {problem.what.partition(",")[0] for problem in verdict.problems}
    assert told == {"girl/source.png leads out of the project"}
    assert (verdict.adapter, verdict.runs) == (True, 4)


@pytest.mark.parametrize(
    ("name", "values"),
    [("base_weights", [1e300]), ("base_weights", [10**400]), ("switch_steps", [-1, 10**9])],
)
def test_axes_that_no_grid_has_are_found(full: Girl, name: str, values: list[float]) -> None:
    run = next(p for p in sorted((full.project.root / "grids").iterdir()) if "boat" in p.name)
    record = yaml.safe_load((run / "run.yaml").read_text())
    (run / "run.yaml").write_text(yaml.safe_dump({**record, name: values}))
    (what,) = found(full)
    assert what.startswith(f"{run}/run.yaml: {name}: must be a list of numbers from 0 to ")


# ------------------------------------------------------------------------------------------------------- runs


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def with_recipe(**changes: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        recipe = find_recipe(path)
        assert recipe
        with Image.open(path) as image:
            picture = image.convert("RGB")
        save_picture(path, picture, recipe | changes)

    return change


def bare(path: Path) -> None:
    with Image.open(path) as image:
        image.convert("RGB").save(path)


def smaller(path: Path) -> None:
    recipe = find_recipe(path)
    assert recipe
    save_picture(path, Image.new("RGB", (8, 8)), recipe)


def linked(path: Path) -> None:
    path.rename("outside.png")
    path.symlink_to(Path("outside.png").resolve())


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (Path.unlink, "is missing"),
    (damaged, "is truncated or damaged"),
    (bare, "carries no recipe"),
    (with_recipe(seed=4_000, steps=9), "its recipe is not as run.yaml says: seed, steps"),
    (with_recipe(extra=1), "its recipe is not as run.yaml says: extra"),
    (linked, "is a link"),
]


@pytest.mark.parametrize(("damage", "what"), [*DAMAGES, (smaller, "is not of the size in its recipe")])
def test_damage_to_a_picture_of_an_edit_is_found(
    full: Girl, damage: Callable[[Path], None], what: str
) -> None:
    folder = only(full.project.edits_dir)
    damage(folder / "0002.png")
    (problem,) = verify(full.project).problems
    assert (problem.file, problem.what) == (folder / "0002.png", f"{folder}/0002.png: {what}")
    assert problem.hint == f"`sine edit --from {folder}` makes the run again"


def test_a_picture_that_is_not_of_the_run_is_told_and_no_problem(full: Girl) -> None:
    folder = only(full.project.edits_dir)
    shutil.copy(folder / "0001.png", folder / "favourite.png")
    verdict = verify(full.project)
    assert (verdict.problems, verdict.notes) == ([], [f"{folder}/favourite.png is not of this run"])


@pytest.mark.parametrize("name", ["cells/K0400_v0.625.png", "grid.png"])
def test_damage_to_a_grid_is_found(full: Girl, name: str) -> None:
    folder = next(path for path in sorted(full.project.grids_dir.iterdir()) if path.name.endswith("boat"))
    for damage, what in DAMAGES[1:4]:
        kept = (folder / name).read_bytes()
        damage(folder / name)
        (problem,) = verify(full.project).problems
        assert problem.what == f"{folder}/{name}: {what}"
        assert problem.hint == 'make the grid again: `sine grid "..."`'
        (folder / name).write_bytes(kept)
    (folder / "scores.csv").unlink()
    (folder / "tradeoff.png").unlink()
    assert found(full) == [f"{folder}/scores.csv: is missing"]


@pytest.mark.parametrize("text", ["zz", "", "file\n", "a,b\0\n", "x" * 200_000 + '\n"' + "y" * 200_000])
def test_a_ruined_table_of_scores_is_found(full: Girl, text: str) -> None:
    for parent in (full.project.grids_dir, full.project.comparisons_dir):
        table = next(parent.glob("*/scores.csv"))
        table.write_text(text)
        assert f"{table}: does not have the pictures of this run" in found(full)


def test_a_forged_cell_is_found_though_it_has_no_line_in_the_record(full: Girl) -> None:
    folder = next(path for path in sorted(full.project.grids_dir.iterdir()) if path.name.endswith("dog"))
    cell = folder / "cells" / "K0400_b0.25.png"
    recipe = find_recipe(cell)
    assert recipe
    with_recipe(guides=[{**recipe["guides"][0], "weight": 7}])(cell)
    assert found(full) == [f"{cell}: its recipe: guides.0.weight: must be at most 1, got 7"]


@pytest.mark.parametrize("name", ["sine/0002.png", "prompt-to-prompt/0001.png", "compare.png"])
def test_damage_to_a_comparison_is_found(full: Girl, name: str) -> None:
    folder = only(full.project.comparisons_dir)
    with_recipe(prompt="another")(folder / name)
    (problem,) = verify(full.project).problems
    assert problem.what == f"{folder}/{name}: its recipe is not as run.yaml says: prompt"
    assert problem.hint == 'make the comparison again: `sine compare "..."`'


def test_a_damaged_or_missing_record_of_a_run_is_found(full: Girl) -> None:
    folder = only(full.project.edits_dir)
    record = folder / "run.yaml"
    values = yaml.safe_load(record.read_text("utf-8"))
    from_picture = f"its pictures have their own: `sine edit --from {folder}/0001.png`"
    for change, what in [
        ({"command": "tune"}, "command: must be edit, grid or compare"),
        ({"count": 10**9}, "count: must be from 1 to 1000"),
        ({"steps": 0}, "steps: must be at least 1, got 0"),
        ({"command": "grid"}, "switch_steps: must be a list of numbers from 0 to 1000"),
        (
            {"command": "grid", "switch_steps": [0] * 500, "base_weights": [1]},
            "switch_steps: makes more than 400 cells",
        ),
        (
            {"command": "compare", "methods": {"../../x": {}}},
            "methods: must be the recipes of methods of `sine compare`",
        ),
    ]:
        record.write_text(yaml.safe_dump(values | change), "utf-8")
        (problem,) = verify(full.project).problems
        assert (problem.what, problem.hint) == (f"{record}: {what}", from_picture)
    record.write_text("a: &a [x]\nb: *a\n", "utf-8")
    (problem,) = verify(full.project).problems
    assert problem.what.startswith(f"{record} is damaged (line 1: anchors")
    record.unlink()
    (problem,) = verify(full.project).problems
    assert problem.what == f"{folder}: has no run.yaml"
    assert problem.hint == (
        f"a picture in it can be made again: `sine edit --from {folder}/0001.png`; remove it: "
        f"`rm -r {folder}`"
    )


def test_a_sheet_is_not_what_a_run_without_its_record_is_made_from(full: Girl) -> None:
    for parent, hint in (
        (full.project.grids_dir, "a picture in it can be made again: `sine edit --from {}/cells/K"),
        (full.project.comparisons_dir, 'make the comparison again: `sine compare "..."`; remove it'),
    ):
        folder = sorted(parent.iterdir())[0]
        (folder / "run.yaml").unlink()
        (problem,) = verify(full.project).problems
        assert problem.hint and problem.hint.startswith(hint.format(folder))
        shutil.rmtree(folder)


# ------------------------------------------------------------------------------------------------- unfinished


def test_what_is_unfinished_is_told_and_no_problem(tuned: Girl) -> None:
    root = tuned.project.root
    (root / "tuning" / "checkpoint").mkdir()
    (root / "tuning" / "checkpoint" / "state.safetensors").touch()
    left = root / "edits" / ".2026-11-23_091011_a-girl.partial" / "run"
    left.mkdir(parents=True)
    able = root / "grids" / ".2026-11-23_091012_a-girl.partial"
    (able / "run").mkdir(parents=True)
    (able / "request.yaml").write_text(json.dumps({"cells": []}), "utf-8")
    verdict = verify(tuned.project)
    assert verdict.problems == []
    assert verdict.notes == [
        "girl: a tuning is not finished; the command that began it goes on",
        "girl/edits/.2026-11-23_091011_a-girl.partial was left by an interruption; "
        "the next `sine edit` removes it",
        "girl/grids/2026-11-23_091012_a-girl is not finished; `sine grid --resume` goes on",
    ]
