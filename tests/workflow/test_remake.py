"""Pictures made again from their records: the same bits, what differs is told, and what no record may say."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from sine_cli.errors import UserError
from sine_cli.models.lora_files import for_diffusers
from sine_cli.project.files import shown
from sine_cli.project.manifest import write_manifest
from sine_cli.project.runs import read_recipe, save_picture
from sine_cli.workflow import fit
from sine_cli.workflow.adapter_record import read_record
from sine_cli.workflow.adapters import read_lora
from sine_cli.workflow.edit import EditRequest, EditResult, edit
from sine_cli.workflow.grid import GridRequest, grid
from sine_cli.workflow.guides import GuideRequest
from sine_cli.workflow.record import versions
from sine_cli.workflow.remake import RemakeRequest, remake
from sine_cli.workflow.size import Size
from sine_cli.workflow.tensors import write_tensors
from sine_cli.workflow.tune import tune
from sine_cli.workflow.user_lora import UserLora
from tests.workflow.conftest import EDIT, TUNE, Girl

PROMPT = "a sculpture of a girl"
NEW = "its record is damaged; `sine edit PROMPT` makes a new one"


def first(girl: Girl, **changes: Any) -> EditResult:
    settings = EDIT.model_copy(update={"steps": 2, **changes.pop("settings", {})})
    request = EditRequest(**{"prompts": [PROMPT], "settings": settings, "size": Size(24, 32), **changes})
    (result,) = edit(girl.project, girl.manifest, request)
    return result


def again(girl: Girl, origin: Path, **changes: Any) -> tuple[EditResult, list[str]]:
    notices: list[str] = []
    result = remake(girl.project, girl.manifest, RemakeRequest(origin, **changes), on_notice=notices.append)
    return result, notices


def refusal(girl: Girl, origin: Path, **changes: Any) -> tuple[str, str | None]:
    there = sorted(girl.project.edits_dir.iterdir()) if girl.project.edits_dir.exists() else []
    with pytest.raises(UserError) as caught:
        again(girl, origin, **changes)
    now = sorted(girl.project.edits_dir.iterdir()) if girl.project.edits_dir.exists() else []
    assert now == there, "nothing is written"
    return caught.value.message, caught.value.hint


def content(result: EditResult) -> list[bytes]:
    return [path.read_bytes() for path in result.pictures]


# --------------------------------------------------------------------------------------------- the same again


def test_a_run_and_each_of_its_pictures_are_made_again_bit_for_bit(tuned: Girl) -> None:
    made = first(tuned, count=2, seed=5, crop=(0.1, 0.0, 0.9, 1.0), source_prompt="a [*] girl")
    whole, notices = again(tuned, made.folder)
    assert notices == []
    assert whole.folder != made.folder
    assert whole.seeds == made.seeds == [5, 6]
    assert content(whole) == content(made), "pixels and recipes, the very files"
    one, notices = again(tuned, made.pictures[1])
    assert notices == []
    assert content(one) == content(made)[1:]
    record = yaml.safe_load((whole.folder / "run.yaml").read_text("utf-8"))
    before = yaml.safe_load((made.folder / "run.yaml").read_text("utf-8"))
    assert {**record, "seconds": 0, "peak_memory": 0} == {**before, "seconds": 0, "peak_memory": 0}


def test_what_the_manifest_says_by_now_does_not_matter(tuned: Girl) -> None:
    made = first(tuned)
    settings = EDIT.model_copy(update={"steps": 9, "switch_step": 0, "solver": "dpm++"})
    write_manifest(tuned.project.manifest_path, tuned.manifest.model_copy(update={"edit": settings}))
    result, notices = again(tuned, made.folder)
    assert (content(result), notices) == (content(made), [])


def test_the_best_of_a_run_are_marked_again(tuned: Girl, tiny_clip: Path) -> None:
    clip = Path(shutil.copytree(tiny_clip, "clip")).resolve()
    made = first(tuned, count=3, best=2, scorer=str(clip))
    result, notices = again(tuned, made.folder)
    assert notices == []
    assert made.scores is not None
    assert (content(result), result.scores) == (content(made), made.scores)
    one, _ = again(tuned, made.pictures[1])
    assert one.scores is None, "a single picture is the best of nothing"

    config = clip / "config.json"
    config.write_text(config.read_text("utf-8") + "\n", "utf-8")
    result, notices = again(tuned, made.folder)
    other = "what scores is another version or measures otherwise"
    assert notices == [f"not quite as {shown(made.folder)} was made: {other}"]
    assert result.scores and result.scores.best == made.scores.best

    shutil.rmtree(clip)
    result, notices = again(tuned, made.folder)
    assert (content(result), result.scores) == (content(made), None)
    assert notices == [
        f"the best are not marked again: no such folder: {shown(clip)}; "
        "give `mini`, a hub id or a CLIP model's folder as `--scorer`"
    ]


def test_a_cell_of_a_grid_is_made_again_as_an_edit(tuned: Girl) -> None:
    settings = EDIT.model_copy(update={"steps": 2})
    made = grid(tuned.project, tuned.manifest, GridRequest(PROMPT, [0, 400], [0.5], settings, Size(24, 32)))
    result, notices = again(tuned, made.cells[1].file)
    assert notices == []
    assert content(result) == [made.cells[1].file.read_bytes()]
    assert refusal(tuned, made.sheet) == (
        f"{made.sheet} is a whole grid",
        f"name a cell: `sine edit --from {made.cells[0].file}`",
    )
    assert refusal(tuned, made.folder)[0] == f"{made.folder} is a whole grid"


def test_guides_are_found_where_the_record_says(tuned: Girl, style: Girl) -> None:
    made = first(tuned, guides=(GuideRequest(style.project.root, (0.2,), 100),))
    result, notices = again(tuned, made.folder)
    assert (content(result), notices) == (content(made), [])
    shutil.move("stripes", "elsewhere")
    assert refusal(tuned, made.folder) == (
        f"{made.folder} was made with the guide ../stripes, and there is no project stripes",
        "put it there, then run the same command again",
    )


def test_an_untuned_project_makes_again_what_took_no_adapter(untuned: Girl) -> None:
    made = first(untuned, settings={"base_weight": 1.0})
    result, notices = again(untuned, made.folder)
    assert (content(result), notices) == (content(made), [])


def test_memory_is_as_recorded_or_lower_and_then_told(tuned: Girl) -> None:
    low, normal = first(tuned, low_memory=True), first(tuned)
    result, notices = again(tuned, low.folder)
    assert (content(result), notices) == (content(low), [])
    assert read_recipe(result.pictures[0])["low_memory"] is True
    _, notices = again(tuned, normal.folder, low_memory=True)
    assert notices == [f"not quite as {normal.folder} was made: memory normal then, low now"]


def test_the_user_s_lora_is_given_again_with_the_record_s_strength(
    tuned: Girl, style: Girl, isolated: Path
) -> None:
    file = isolated / "ink.safetensors"
    write_tensors(file, for_diffusers(read_lora(style.project, read_record(style.project))))
    made = first(tuned, lora=UserLora(file, 0.5))
    result, notices = again(tuned, made.folder, lora=UserLora(file, 1.0))
    assert (content(result), notices) == (content(made), [])
    assert refusal(tuned, made.folder) == (
        f"{made.folder} was made with the LoRA ink.safetensors, and a record does not say where it lies",
        f"give it again: `sine edit --from {made.folder} --lora path/to/ink.safetensors`",
    )
    assert refusal(tuned, made.folder, lora=UserLora(file, 0.8)) == (
        "--lora: the strength is the record's, 0.5",
        f"give the file alone: `sine edit --from {made.folder} --lora ink.safetensors`",
    )
    other = isolated / "other.safetensors"
    write_tensors(other, for_diffusers(read_lora(tuned.project, read_record(tuned.project))))
    _, (notice,) = again(tuned, made.folder, lora=UserLora(other, 1.0))
    assert notice.startswith(f"not quite as {made.folder} was made: LoRA ")
    save_picture(Path("plain.png"), Image.new("RGB", (32, 24)), FORGED)
    assert refusal(tuned, Path("plain.png"), lora=UserLora(file, 1.0)) == (
        "--lora: plain.png was made without one",
        "leave it out: `sine edit --from plain.png`",
    )


# ----------------------------------------------------------------------------------------------- what differs


def test_another_adapter_is_told_and_the_picture_made_with_it(tuned: Girl) -> None:
    made = first(tuned)
    tune(tuned.project, tuned.manifest, TUNE.model_copy(update={"steps": 3}))
    (kept,) = (tuned.project.tuning_dir / "adapters").iterdir()
    result, notices = again(tuned, made.folder)
    assert notices == [f"with the adapter that is kept in {kept}, as then"]
    assert content(result) == content(made)
    shutil.rmtree(kept)
    result, (notice,) = again(tuned, made.folder)
    assert notice == f"not quite as {made.folder} was made: the adapter is another one now"
    assert content(result) != content(made)


def test_what_a_record_of_elsewhere_says_is_told(tuned: Girl) -> None:
    made = first(tuned)
    path = Path("from-elsewhere.png")
    changed: dict[str, Any] = {
        "versions": {**versions(), "torch": "1.0", "numpy": "3\n"},
        "device": "cuda",
        "dtype": "float16",
        "source": "0" * 64,
        "tempo": 3,
    }
    with Image.open(made.pictures[0]) as image:
        save_picture(path, image, {**read_recipe(made.pictures[0]), **changed})
    result, notices = again(tuned, path)
    assert notices == [
        "not quite as from-elsewhere.png was made: "
        f"torch 1.0 then, {versions()['torch']} now; numpy 3\\n then, none now; device cuda then, cpu now; "
        f"dtype float16 then, {read_recipe(made.pictures[0])['dtype']} now; "
        f"source picture 000000000000 then, {tuned.manifest.source.sha256[:12]} now; "
        "`tempo` is new to this sine"
    ]
    assert read_recipe(result.pictures[0]) == read_recipe(made.pictures[0])


def test_another_base_is_refused(tuned: Girl) -> None:
    made = first(tuned)
    record = read_recipe(made.pictures[0]) | {"base": "sd15", "base_revision": "abc"}
    path = Path("other.png")
    with Image.open(made.pictures[0]) as image:
        save_picture(path, image, record)
    base, revision = tuned.manifest.base, tuned.manifest.base_revision
    expected = (
        f"other.png was made with the base `sd15` (abc), this project uses `{base}` ({revision})",
        "set `base: sd15` and `base_revision: abc` in sine.yaml, then run `sine tune` again; "
        "or `sine edit PROMPT` makes a new one",
    )
    assert refusal(tuned, path) == expected
    loose = tuned.manifest.model_copy(update={"base_revision": None})
    write_manifest(tuned.project.manifest_path, loose)
    assert refusal(tuned, path) == expected


# ----------------------------------------------------------------------------------------- damaged and forged


def put(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda record: record.update({name: value})


LORA = {"file": "x", "sha256": "0" * 64, "scale": 99.0}
GUIDE = {"project": "../stripes", "source_prompt": "a stripe", "weight": 0.2, "switch_step": 400}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (put("steps", 5000), "steps: must be at most 1000, got 5000"),
        (put("size", {"height": 10**9, "width": 1}), "size.height: must be at most 8192, got 1000000000"),
        (put("solver", "heun"), 'solver: must be ddim, euler, dpm++ or unipc, got "heun"'),
        (put("crop", [0, 0, 9, 9]), None),
        (put("guides", [GUIDE]), "guide_adapters: must be one for each guide"),
        (put("guides", [{**GUIDE, "weight": 0.9}]), "guides: the weights sum to more than 1"),
        (put("adapter", {"adapter.safetensors": "x"}), None),
        (put("versions", {f"lib{i}": "1" for i in range(100)}), None),
        (put("base_revision", None), None),
        (put("lora", LORA), "lora.scale: must be at most 10, got 99.0"),
        (lambda record: record.pop("device"), "device: missing"),
        (lambda record: record.pop("prompt"), "prompt: missing"),
    ],
)
def test_a_forged_picture_gives_one_clear_error(
    tuned: Girl, change: Callable[[dict[str, Any]], None], what: str | None
) -> None:
    record = json.loads(json.dumps(FORGED))
    change(record)
    save_picture(Path("forged.png"), Image.new("RGB", (32, 24)), record)
    message, hint = refusal(tuned, Path("forged.png"))
    assert message == f"forged.png: {what}" if what else message.startswith("forged.png: ")
    assert "\n" not in message
    assert len(message) < 200
    assert hint == NEW


FORGED = {
    "prompt": PROMPT,
    "source_prompt": "a sks painting",
    "negative": "",
    "seed": 0,
    "size": {"height": 24, "width": 32},
    "switch_step": 400,
    "base_weight": 0.5,
    "guidance_scale": 3.0,
    "steps": 2,
    "solver": "ddim",
    "position": True,
    "guides": [],
    "crop": None,
    "source": "0" * 64,
    "base": "mini",
    "base_revision": "abc",
    "adapter": None,
    "guide_adapters": [],
    "device": "cpu",
    "dtype": "float32",
    "versions": {},
}


MINI = {"name": "mini", "revision": "sha256:1", "distance": "features of mini"}
SCORED_BY = "scorer: must be what scored the pictures, its name, revision, distance"


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ({"best": ["0001.png"]}, SCORED_BY),
        ({"best": ["0001.png"], "scorer": {"name": "mini"}}, SCORED_BY),
        ({"best": ["0001.png"], "scorer": {**MINI, "name": 1}}, SCORED_BY),
        ({"best": ["0001.png"], "scorer": {**MINI, "name": "x" * 5000}}, SCORED_BY),
        ({"best": [], "scorer": MINI}, "best: must be a list of 1 to 1 files"),
        ({"best": 2, "scorer": MINI}, "best: must be a list of 1 to 1 files"),
        ({"best": ["0001.png", "0002.png"], "scorer": MINI}, "best: must be a list of 1 to 1 files"),
    ],
)
def test_a_run_s_forged_scores_give_one_clear_error(tuned: Girl, said: dict[str, Any], what: str) -> None:
    folder = Path("forged")
    folder.mkdir()
    record = {**FORGED, "command": "edit", "count": 1, **said}
    (folder / "run.yaml").write_text(yaml.safe_dump(record), "utf-8")
    assert refusal(tuned, folder) == (f"forged/run.yaml: {what}", NEW)


def test_a_size_that_no_memory_is_left_for_is_refused(tuned: Girl, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tuned.manifest
    huge = {"size": {"height": 8192, "width": 8192}, "base": there.base, "base_revision": there.base_revision}
    save_picture(Path("huge.png"), Image.new("RGB", (32, 24)), {**FORGED, **huge})
    monkeypatch.setattr(fit, "free_memory", lambda device: 2**28)
    message, hint = refusal(tuned, Path("huge.png"))
    assert message.startswith("a picture of 8192x8192 needs at least ")
    assert hint and hint.startswith("take a smaller one, for example `--size ")


COMPARED = "was made by `sine compare`, whose pictures are not made again one by one"


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ({"command": "compare"}, COMPARED),
        ({"method": "sdedit"}, COMPARED),
        ({"step": 200}, "is a preview of a tuning: its adapter was never kept"),
    ],
)
def test_pictures_that_are_no_edits_are_refused(tuned: Girl, said: Any, what: str) -> None:
    save_picture(Path("a.png"), Image.new("RGB", (32, 24)), FORGED | said)
    assert refusal(tuned, Path("a.png"))[0] == f"a.png {what}"


def test_what_is_no_record_is_refused(tuned: Girl) -> None:
    Path("empty").mkdir()
    assert refusal(tuned, Path("empty")) == (
        "empty is not a run folder: it has no run.yaml",
        "name a folder in `edits/`, or a PNG in it",
    )
    assert refusal(tuned, Path("gone.png"))[0] == "no such file: gone.png"
    bomb = "a: &a [x, x]\nb: &b [*a, *a]\ncommand: edit\n"
    Path("empty", "run.yaml").write_text(bomb, "utf-8")
    assert refusal(tuned, Path("empty"))[0] == (
        "empty/run.yaml is damaged (line 1: anchors and aliases are not allowed; "
        "a word that begins with & or * needs quotes)"
    )
    for count in (0, 1001, True, "2", None):
        Path("empty", "run.yaml").write_text(yaml.safe_dump({**FORGED, "command": "edit", "count": count}))
        assert refusal(tuned, Path("empty")) == ("empty/run.yaml: count: must be from 1 to 1000", NEW)
