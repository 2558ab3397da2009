"""Edits end to end on a tiny v-prediction base: sizes, seeds, recipes, and what is refused."""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from sine_cli.errors import Ended, Interrupted, SineError, UserError
from sine_cli.models.backbone import CELLS_AT_ONCE
from sine_cli.project.manifest import EditSettings, write_manifest
from sine_cli.project.runs import read_recipe, read_run
from sine_cli.project.source import read_picture
from sine_cli.scoring.scorer import ranking
from sine_cli.workflow.adapter_record import read_record
from sine_cli.workflow.asked import without_effect
from sine_cli.workflow.edit import EditProgress, EditRequest, EditResult, edit
from sine_cli.workflow.guides import GuideRecipe
from sine_cli.workflow.init import InitRequest, init
from sine_cli.workflow.record import versions
from sine_cli.workflow.scorers import open_scorer, score_files
from sine_cli.workflow.size import Size
from sine_cli.workflow.tune import tune
from sine_cli.workflow.verify import verify
from tests.alike import are_alike
from tests.workflow.conftest import EDIT, Girl

PROMPT = "a sculpture of a girl"
AGAIN = "run `sine tune` again"


def asked(**changes: Any) -> EditRequest:
    """An edit; settings by their names, the rest as a request has it."""
    of_settings = {name: changes.pop(name) for name in [*changes] if name in EditSettings.model_fields}
    return EditRequest(**{"prompts": [PROMPT], "settings": EDIT.model_copy(update=of_settings), **changes})


def run(girl: Girl, **changes: Any) -> EditResult:
    (result,) = edit(girl.project, girl.manifest, asked(**changes))
    return result


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.asarray(image).astype(int)


def picture_of(girl: Girl, **changes: Any) -> np.ndarray:
    (path,) = run(girl, **changes).pictures
    return pixels(path)


def refusal(girl: Girl, **changes: Any) -> tuple[str, str | None]:
    with pytest.raises(UserError) as caught:
        run(girl, **changes)
    assert not girl.project.edits_dir.exists()
    return caught.value.message, caught.value.hint


# ------------------------------------------------------------------------------------------------ pictures


def test_any_size_is_honoured_to_the_pixel(tuned: Girl) -> None:
    result = run(tuned, size=Size(37, 51))
    (path,) = result.pictures
    assert path == result.folder / "0001.png"
    assert pixels(path).shape == (37, 51, 3)
    assert pixels(path).std() > 5, "it shows something"


def test_a_size_far_beyond_the_base_is_told(tuned: Girl) -> None:
    notices: list[str] = []
    edit(tuned.project, tuned.manifest, asked(size=Size(16, 128), steps=1), on_notice=notices.append)
    assert notices == []
    edit(tuned.project, tuned.manifest, asked(size=Size(16, 130), steps=1), on_notice=notices.append)
    base = tuned.manifest.base
    assert notices == [
        f"16x130 is more than twice the 64x64 of `{base}`: the layout will hold, fine things will not"
    ]


@pytest.mark.parametrize("size", [Size(1, 1), Size(4, 9), Size(64, 64), Size(70, 5)])
def test_small_and_long_sizes_are_honoured_too(tuned: Girl, size: Size) -> None:
    assert picture_of(tuned, size=size).shape == (size.height, size.width, 3)


def test_the_default_size_has_the_source_s_aspect_at_about_the_native_area(tuned: Girl) -> None:
    assert picture_of(tuned).shape == (56, 72, 3)


def test_an_odd_size_is_the_top_left_part_of_the_next_whole_one_when_no_position_is_given(
    tuned: Girl,
) -> None:
    odd, whole = (picture_of(tuned, size=size, position=False) for size in (Size(37, 51), Size(40, 52)))
    assert np.array_equal(odd, whole[:37, :51])


def test_the_second_of_two_pictures_equals_the_one_made_alone_with_the_next_seed(tuned: Girl) -> None:
    both = run(tuned, count=2, seed=7)
    assert both.seeds == [7, 8]
    assert [path.name for path in both.pictures] == ["0001.png", "0002.png"]
    first, second = map(pixels, both.pictures)
    assert are_alike(second, picture_of(tuned, seed=8))
    assert are_alike(first, picture_of(tuned, seed=7))
    assert np.abs(first - second).mean() > 1


def test_the_same_edit_gives_the_same_picture_again(tuned: Girl) -> None:
    assert np.array_equal(picture_of(tuned), picture_of(tuned))


@pytest.mark.parametrize(
    "change",
    [
        {"prompts": ["a photo of a dog at night"]},
        {"seed": 1},
        {"switch_step": 1000},
        {"base_weight": 0.0},
        {"guidance_scale": 1.0},
        {"steps": 5},
        {"solver": "dpm++"},
        {"negative": "blurry, ugly"},
        {"source_prompt": "a red castle on a hill"},
        {"position": False},
        {"crop": (0.25, 0.25, 0.75, 0.75)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_setting_decides_about_the_picture(tuned: Girl, change: dict[str, Any]) -> None:
    assert not np.array_equal(picture_of(tuned, **change), picture_of(tuned))


def test_a_crop_of_the_whole_is_the_picture_and_another_has_its_own_aspect(tuned: Girl) -> None:
    assert np.array_equal(picture_of(tuned, crop=(0.0, 0.0, 1.0, 1.0)), picture_of(tuned))
    upper_half = picture_of(tuned, crop=(0.0, 0.0, 0.5, 1.0), steps=1)
    assert upper_half.shape == (40, 104, 3), "30 high, 80 wide, at the area of 64x64"


def test_a_crop_beyond_the_frame_is_made(tuned: Girl) -> None:
    assert picture_of(tuned, crop=(-0.5, -0.5, 1.5, 1.5), size=Size(40, 40)).std() > 5


def test_a_crop_without_position_is_refused(tuned: Girl) -> None:
    message, _ = refusal(tuned, crop=(0.0, 0.0, 1.0, 0.5), position=False)
    assert message == "--crop says where things lie, and --no-position keeps that from the tuned models"


def test_several_prompts_make_a_run_each_as_if_made_alone(tuned: Girl) -> None:
    prompts = ["a dog", "a red castle"]
    results = edit(tuned.project, tuned.manifest, asked(prompts=prompts, count=2))
    assert [result.prompt for result in results] == prompts
    assert [result.folder.name.split("_")[-1] for result in results] == ["a-dog", "a-red-castle"]
    for result, prompt in zip(results, prompts, strict=True):
        assert are_alike(pixels(result.pictures[1]), picture_of(tuned, prompts=[prompt], seed=1))


def test_progress_counts_the_rows_of_the_unet(tuned: Girl) -> None:
    """Of two pictures three rows each at t = 501, and two at t = 1."""
    told: list[EditProgress] = []
    edit(tuned.project, tuned.manifest, asked(prompts=["a dog", "a cat"], count=2, steps=2), told.append)
    assert told == [
        EditProgress("a dog", 1, 2, 0, 20),
        EditProgress("a dog", 1, 2, 6, 20),
        EditProgress("a dog", 1, 2, 10, 20),
        EditProgress("a cat", 2, 2, 10, 20),
        EditProgress("a cat", 2, 2, 16, 20),
        EditProgress("a cat", 2, 2, 20, 20),
    ]


# ---------------------------------------------------------------------------------------- the tuned model


def test_a_picture_that_was_changed_is_told_where_the_tuned_model_has_no_weight_too(untuned: Girl) -> None:
    with Image.open("girl/source.png") as source:
        turned = source.rotate(180)
    turned.save("girl/source.png")
    message, _ = refusal(untuned, base_weight=1.0)
    assert message == "girl/source.png is not the picture whose hash girl/sine.yaml has"


def test_the_placeholder_in_a_negative_prompt_is_the_token(tuned: Girl) -> None:
    recipe = read_recipe(run(tuned, negative="a [*] dog").pictures[0])
    assert recipe["negative"] == "a sks dog"


def test_the_placeholder_in_a_prompt_is_the_token(tuned: Girl) -> None:
    named, placeholder = (run(tuned, prompts=[f"a photo of a {word} dog"]) for word in ("sks", "[*]"))
    assert named.prompt == placeholder.prompt == "a photo of a sks dog"
    assert named.pictures[0].read_bytes() == placeholder.pictures[0].read_bytes()


@pytest.mark.parametrize("settings", [{"base_weight": 1.0}, {"switch_step": 1000}])
def test_an_edit_by_the_base_alone_needs_no_tuning(untuned: Girl, settings: dict[str, float]) -> None:
    assert picture_of(untuned, **settings).shape == (56, 72, 3)


def test_an_edit_by_the_base_alone_is_the_same_tuned_or_not(tuned: Girl) -> None:
    by_v, by_K = (picture_of(tuned, **settings) for settings in ({"base_weight": 1.0}, {"switch_step": 1000}))
    assert np.array_equal(by_v, by_K)
    shutil.rmtree("girl/adapter")
    assert np.array_equal(picture_of(tuned, base_weight=1.0), by_v)


def test_an_edit_by_the_base_alone_says_that_no_adapter_was_used(tuned: Girl) -> None:
    (path,) = run(tuned, base_weight=1.0).pictures
    assert read_recipe(path)["adapter"] is None


def test_a_project_that_is_not_tuned_is_refused(untuned: Girl) -> None:
    assert refusal(untuned) == ("girl is not tuned yet", "run `sine tune` first")


def test_an_adapter_of_another_base_is_refused(tuned: Girl, tiny_base: Path) -> None:
    manifest = tuned.manifest.model_copy(update={"base": "mini", "base_revision": None})
    with pytest.raises(UserError) as caught:
        edit(tuned.project, manifest, asked())
    assert caught.value.message == f"girl/adapter was tuned on `{tiny_base}`, this project uses `mini`"
    assert caught.value.hint == f"run `sine tune` again, or set `base: {tiny_base}` in girl/sine.yaml"


def test_an_adapter_of_another_revision_is_refused(tuned: Girl, tiny_base: Path) -> None:
    revision = tuned.manifest.base_revision
    with pytest.raises(UserError) as caught:
        edit(tuned.project, tuned.manifest.model_copy(update={"base_revision": "sha256:0123"}), asked())
    assert caught.value.message == (
        f"girl/adapter was tuned on revision {revision} of `{tiny_base}`, this project uses sha256:0123"
    )
    assert caught.value.hint == AGAIN


def test_an_adapter_is_held_to_the_base_that_is_here_where_no_revision_is_fixed(
    tuned: Girl, tiny_base: Path
) -> None:
    revision, path = str(tuned.manifest.base_revision), Path("girl/adapter/record.yaml")
    path.write_text(path.read_text("utf-8").replace(revision, "sha256:0123"), "utf-8")
    with pytest.raises(UserError) as caught:
        edit(tuned.project, tuned.manifest.model_copy(update={"base_revision": None}), asked())
    assert caught.value.message == (
        f"girl/adapter was tuned on revision sha256:0123 of `{tiny_base}`, this project uses {revision}"
    )
    assert caught.value.hint == AGAIN


def test_an_adapter_of_another_picture_is_refused(tuned: Girl) -> None:
    with Image.open("girl/source.png") as source:
        turned = source.rotate(180)
    turned.save("girl/source.png")
    assert refusal(tuned) == (
        "girl/source.png is not the picture whose hash girl/sine.yaml has",
        "bring the picture back, or make a new project: `sine init PICTURE --class NOUN`",
    )


def nan_in_the_adapter() -> None:
    path, record = Path("girl/adapter/adapter.safetensors"), Path("girl/adapter/record.yaml")
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    tensors = load_file(path)
    next(iter(tensors.values())).view(-1)[0] = torch.nan
    save_file(tensors, path)
    record.write_text(record.read_text().replace(before, hashlib.sha256(path.read_bytes()).hexdigest()))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda: Path("girl/adapter/adapter.safetensors").write_bytes(b"x"),
            "girl/adapter/adapter.safetensors is not the file that girl/adapter/record.yaml names",
        ),
        (
            lambda: Path("girl/adapter/position.safetensors").unlink(),
            "girl/adapter/position.safetensors is missing",
        ),
        (
            nan_in_the_adapter,
            "girl/adapter/adapter.safetensors holds values that are not numbers (NaN or infinite)",
        ),
        (
            lambda: Path("girl/adapter/record.yaml").write_text("rank: 4"),
            "girl/adapter/record.yaml is damaged",
        ),
    ],
    ids=["another file", "missing", "nan", "record"],
)
def test_a_damaged_adapter_is_refused(tuned: Girl, damage: Callable[[], object], message: str) -> None:
    damage()
    with pytest.raises(UserError) as caught:
        run(tuned)
    assert caught.value.message.startswith(message)
    assert caught.value.hint == AGAIN
    assert not any(tuned.project.edits_dir.glob("*"))


# -------------------------------------------------------------------------------------------------- records


def test_every_picture_and_its_folder_carry_the_whole_recipe(tuned: Girl, tiny_base: Path) -> None:
    result = run(tuned, count=2, seed=3, size=Size(37, 51), negative="ugly", position=False)
    record = read_record(tuned.project)
    provenance = {
        "source": tuned.manifest.source.sha256,
        "base": str(tiny_base),
        "base_revision": tuned.manifest.base_revision,
        "adapter": record.files,
        "guide_adapters": [],
        "device": "cpu",
        "dtype": record.dtype,
        "versions": versions(),
    }
    recipe = {
        "prompt": PROMPT,
        "source_prompt": "a sks painting",
        "negative": "ugly",
        "seed": 3,
        "size": {"height": 37, "width": 51},
        "switch_step": 400,
        "base_weight": 0.5,
        "guidance_scale": 3.0,
        "steps": 4,
        "solver": "ddim",
        "position": False,
        "guides": [],
        "crop": None,
        "exact_switch": True,
    }
    assert [read_recipe(path) for path in result.pictures] == [
        {**recipe, "seed": seed, **provenance} for seed in (3, 4)
    ]
    written = yaml.safe_load((result.folder / "run.yaml").read_text("utf-8"))
    assert written == {
        "command": "edit",
        **recipe,
        "count": 2,
        "seconds": result.seconds,
        "peak_memory": result.peak_memory,
        **provenance,
    }
    with Image.open(result.pictures[0]) as image:
        assert image.info["Description"] == PROMPT
    assert sorted(path.name for path in result.folder.iterdir()) == ["0001.png", "0002.png", "run.yaml"]
    assert [path.name for path in tuned.project.edits_dir.iterdir()] == [result.folder.name]


ALONE = "with -v 1 the tuned model has no weight; without effect: "


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"negative": "a dog", "guidance_scale": 1.0},
            ["without guidance (-w 1) a negative prompt changes nothing"],
        ),
        ({"negative": "a dog"}, []),
        (
            {"base_weight": 1.0, "position": False, "source_prompt": "a [*] girl"},
            [ALONE + "--source-prompt, --no-position"],
        ),
        (
            {"switch_step": 1000, "position": False},
            ["with -K 1000 the tuned model has no weight; without effect: --no-position"],
        ),
        ({"position": False, "source_prompt": "a [*] girl"}, []),
        ({"base_weight": 1.0, "crop": (0.0, 0.0, 0.5, 1.0)}, []),  # decides about the size all the same
    ],
)
def test_what_changes_nothing_is_told(tuned: Girl, changes: dict[str, Any], told: list[str]) -> None:
    notices: list[str] = []
    edit(tuned.project, tuned.manifest, asked(**changes), on_notice=notices.append)
    assert notices == told


@pytest.mark.parametrize(("weight", "unheard"), [(0.2, ""), (0.0, ", --no-position")])
def test_a_guide_is_told_where_things_lie_and_not_the_source_prompt(
    tuned: Girl, weight: float, unheard: str
) -> None:
    guide = GuideRecipe("../style", "a sks style", weight, 400)
    request = asked(base_weight=1.0, position=False, source_prompt="a [*] girl")
    assert without_effect(request, [(request.settings, (guide,))]) == [f"{ALONE}--source-prompt{unheard}"]


# ---------------------------------------------------------------------------------------------------- best


def test_the_best_are_marked_and_all_are_kept(tuned: Girl, tiny_clip: Path) -> None:
    result = run(tuned, count=3, best=2, scorer=str(tiny_clip))
    scores = result.scores
    assert scores
    scorer = open_scorer(str(tiny_clip))
    assert scores.scorer == scorer.identity
    source = read_picture(Path("girl/source.png")).image
    assert scores.each == score_files(scorer, result.pictures, PROMPT, source)
    assert scores.best == ranking(scores.each)[:2]
    assert [scores.rank(place) for place in scores.best] == [1, 2]
    (other,) = {0, 1, 2} - {*scores.best}
    assert scores.rank(other) is None
    record = yaml.safe_load((result.folder / "run.yaml").read_text("utf-8"))
    names = [path.name for path in result.pictures]
    assert record["scorer"] == asdict(scorer.identity)
    assert record["scores"] == [
        {"file": name, "alignment": score.alignment, "distance": score.distance}
        for name, score in zip(names, scores.each, strict=True)
    ]
    assert record["best"] == [names[place] for place in scores.best]
    assert all(path.is_file() for path in result.pictures)


def test_the_pictures_are_the_same_scored_or_not(tuned: Girl, tiny_clip: Path) -> None:
    scored, plain = run(tuned, count=2, best=1, scorer=str(tiny_clip)), run(tuned, count=2)
    for one, other in zip(scored.pictures, plain.pictures, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_each_prompt_has_its_own_best(tuned: Girl, tiny_clip: Path) -> None:
    results = edit(
        tuned.project,
        tuned.manifest,
        asked(prompts=["a dog", "a red castle"], count=2, best=1, scorer=str(tiny_clip)),
    )
    for result in results:
        assert result.scores and len(result.scores.each) == 2 and len(result.scores.best) == 1


def test_without_best_no_scorer_is_looked_for(tuned: Girl) -> None:
    assert run(tuned, scorer="/no/such/clip").scores is None


@pytest.mark.parametrize("best", [0, -1, 3])
def test_more_best_pictures_than_there_are_is_refused(tuned: Girl, best: int) -> None:
    assert refusal(tuned, count=2, best=best) == (
        f"--best: must be from 1 to 2, the pictures a prompt (-n), got {best}",
        "for example `-n 8 --best 1`",
    )


def test_a_scorer_that_is_not_there_is_told_before_anything_is_made(tuned: Girl) -> None:
    message, _ = refusal(tuned, best=1, scorer="/no/such/clip")
    assert message == "no such folder: /no/such/clip"


# ------------------------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("prompts", [[], [""], [" \n"], ["a dog", ""]])
def test_an_empty_prompt_is_refused(tuned: Girl, prompts: list[str]) -> None:
    assert refusal(tuned, prompts=prompts) == (
        "the prompt is empty",
        'say what the picture shall become: `sine edit "a sculpture of a girl"`',
    )


@pytest.mark.parametrize("count", [0, -1, 1001])
def test_a_count_out_of_range_is_refused(tuned: Girl, count: int) -> None:
    assert refusal(tuned, count=count) == (f"-n: must be from 1 to 1000, got {count}", "for example `-n 4`")


def test_words_that_the_base_does_not_read_are_told(tuned: Girl) -> None:
    long = "A photo of a castle on a hill under a red sky with birds and trees and snow, and lights at Night"
    notices: list[str] = []
    edit(tuned.project, tuned.manifest, asked(prompts=[long, PROMPT]), on_notice=notices.append)
    (notice,) = notices
    start = f'"{long[:40]}..." is longer than this base reads; unread: "'
    assert notice.startswith(start)
    unread = notice.removeprefix(start).removesuffix('"')
    assert unread and long.endswith(unread)


def test_a_picture_that_comes_out_as_nan_is_an_error_and_no_file(
    tiny_base: Path, picture: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    weights = base / "vae" / "diffusion_pytorch_model.safetensors"
    save_file(
        {**load_file(weights), "decoder.conv_out.bias": torch.full((3,), torch.nan)},
        weights,
        {"format": "pt"},
    )
    made = init(InitRequest(picture, "girl", base=str(base), folder=Path("girl")))
    with pytest.raises(SineError) as caught:
        edit(made.project, made.manifest, asked(base_weight=1.0))
    assert caught.value.message == "the picture came out with values that are not numbers (NaN)"
    assert not any(made.project.edits_dir.iterdir())


def interrupted(girl: Girl, after: int, count: int, **changes: Any) -> tuple[list[EditResult], BaseException]:
    """What there is of an edit that was interrupted when so many of its pictures were made."""
    runs: list[EditResult] = []

    def progress(made: EditProgress) -> None:
        if made.done > after * made.total / count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        edit(girl.project, girl.manifest, asked(count=count, **changes), progress, on_run=runs.append)
    return runs, caught.value


def test_an_edit_that_is_interrupted_in_its_first_picture_leaves_nothing(tuned: Girl) -> None:
    runs, _ = interrupted(tuned, after=0, count=2)
    assert runs == []
    assert not any(tuned.project.edits_dir.iterdir())


def test_an_interrupted_edit_keeps_the_pictures_that_are_made(
    tuned: Girl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CELLS_AT_ONCE, "cpu", 1)
    (run,), error = interrupted(tuned, after=2, count=4, best=1, seed=5)
    assert isinstance(error, Interrupted)
    assert error.hint == (
        f"2 of 4 pictures are there; `sine edit '{PROMPT}' -s 7 -n 2`, with its other options, makes the rest"
    )
    assert (run.seeds, run.scores) == ([5, 6], None)
    record = read_run(run.folder)
    assert (record["count"], record["seed"], "best" in record) == (2, 5, False)
    (whole,) = edit(tuned.project, tuned.manifest, asked(count=4, seed=5))
    assert [each.read_bytes() for each in run.pictures] == [each.read_bytes() for each in whole.pictures[:2]]
    assert verify(tuned.project).problems == []


def test_what_is_made_is_kept_where_scoring_is_interrupted_and_where_the_process_is_to_end(
    tuned: Girl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: object) -> None:
        raise Ended

    monkeypatch.setattr("sine_cli.workflow.edit.score_files", stop)
    runs: list[EditResult] = []
    with pytest.raises(Ended):
        edit(tuned.project, tuned.manifest, asked(count=2, best=1), on_run=runs.append)
    (run,) = runs
    assert (len(run.pictures), run.scores, read_run(run.folder)["count"]) == (2, None, 2)
    assert verify(tuned.project).problems == []


def test_a_base_that_was_moved_is_the_same(tuned: Girl, tiny_base: Path, tmp_path: Path) -> None:
    (before,) = edit(tuned.project, tuned.manifest, asked())
    gone = tuned.manifest.model_copy(update={"base": str(tmp_path / "gone")})
    with pytest.raises(UserError) as caught:
        edit(tuned.project, gone, asked())
    assert caught.value.message == f"the base is gone: {tmp_path}/gone"
    moved = shutil.copytree(tiny_base, tmp_path / "another place")
    manifest = tuned.manifest.model_copy(update={"base": str(moved)})
    write_manifest(tuned.project.manifest_path, manifest)
    (after,) = edit(tuned.project, manifest, asked())
    with Image.open(before.pictures[0]) as one, Image.open(after.pictures[0]) as other:
        assert one.tobytes() == other.tobytes()
    assert verify(tuned.project).problems == []
    assert tune(tuned.project, manifest, manifest.tune).already_there


def test_a_base_that_changed_since_is_refused(tuned: Girl, tiny_base: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    config = moved / "unet" / "config.json"
    config.write_text(config.read_text().replace("{", '{"more": 1,', 1))
    revision = tuned.manifest.base_revision
    with pytest.raises(UserError) as caught:
        edit(
            tuned.project,
            tuned.manifest.model_copy(update={"base": str(moved)}),
            replace(asked(), settings=EDIT.model_copy(update={"base_weight": 1.0})),
        )
    start = f"the base `{moved}` is not the one this project was made with: {revision} then, sha256:"
    assert caught.value.message.startswith(start)
    assert caught.value.message.endswith(" now")
    now = caught.value.message.split()[-2]
    assert caught.value.hint == f"set `base_revision: {now}` in sine.yaml, then run `sine tune` again"
