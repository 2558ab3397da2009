"""Comparisons end to end on a tiny base: a row a method, each the picture that it should be."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from sine_cli.errors import SineError, UserError
from sine_cli.project.manifest import EditSettings
from sine_cli.project.runs import read_recipe
from sine_cli.project.source import read_picture
from sine_cli.workflow.asked import CompareRequest
from sine_cli.workflow.compare import CompareProgress, CompareResult, compare
from sine_cli.workflow.edit import EditRequest, edit
from sine_cli.workflow.methods import METHODS
from sine_cli.workflow.scorers import open_scorer, score_files
from sine_cli.workflow.size import Size
from tests.workflow.conftest import EDIT, Girl

PROMPT = "a sculpture of a painting"
SIZE = Size(37, 51)
ASKED = CompareRequest(PROMPT, EDIT, tuple(METHODS), size=SIZE, count=2, seed=3)


def run(girl: Girl, request: CompareRequest = ASKED) -> CompareResult:
    return compare(girl.project, girl.manifest, request)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.asarray(image).astype(int)


def only(girl: Girl, method: str, **changes: object) -> np.ndarray:
    result = run(girl, replace(ASKED, methods=(method,), count=1, **changes))  # pyright: ignore
    return pixels(result.pictures[0].file)


def edited(girl: Girl, settings: EditSettings = EDIT) -> np.ndarray:
    (result,) = edit(girl.project, girl.manifest, EditRequest([PROMPT], settings, size=SIZE, seed=3))
    return pixels(result.pictures[0])


def test_every_method_has_its_pictures_scores_and_a_row_of_the_sheet(tuned: Girl) -> None:
    told: list[CompareProgress] = []
    result = compare(tuned.project, tuned.manifest, ASKED, told.append)
    files = sorted(str(p.relative_to(result.folder)) for p in result.folder.rglob("*") if p.is_file())
    several = [method for method in METHODS if method != "prompt-to-prompt"]
    assert files == sorted(
        [
            *(f"{method}/000{i}.png" for method in several for i in (1, 2)),
            *("prompt-to-prompt/0001.png", "compare.png", "run.yaml", "scores.csv"),
        ]
    )
    assert [(each.method, each.seed) for each in result.pictures] == [
        *((method, seed) for method in several for seed in (3, 4)),
        ("prompt-to-prompt", None),
    ]
    assert all(pixels(each.file).shape == (37, 51, 3) for each in result.pictures)
    assert len({each.file.read_bytes() for each in result.pictures}) == 11

    scorer, source = open_scorer(), read_picture(Path("girl/source.png")).image
    for method, mean in result.means.items():
        of = [each for each in result.pictures if each.method == method]
        scores = score_files(scorer, [each.file for each in of], PROMPT, source)
        assert [each.score for each in of] == scores
        assert mean.alignment == pytest.approx(np.mean([score.alignment for score in scores]))
        assert mean.distance == pytest.approx(np.mean([score.distance or 0 for score in scores]))
    assert len(result.scores.read_text("utf-8").splitlines()) == 12
    assert yaml.safe_load((result.folder / "run.yaml").read_text("utf-8")) == read_recipe(result.sheet)

    assert {p.what for p in told} == {"textual-inversion, tuning", *METHODS}
    assert [p.done for p in told if p.what == "sine"] == [1, 2, 3, 4, 1, 2, 3, 4]
    assert [path.name for path in tuned.project.comparisons_dir.iterdir() if path.is_dir()] == [
        result.folder.name
    ]


def test_the_row_of_sine_is_the_edit(tuned: Girl) -> None:
    assert np.array_equal(only(tuned, "sine"), edited(tuned))


def test_the_low_pass_of_ilvr_keeps_no_single_cell_by_default(tuned: Girl) -> None:
    by_default = only(tuned, "ilvr")
    assert np.array_equal(by_default, only(tuned, "ilvr", factor=2))
    assert not np.array_equal(by_default, only(tuned, "ilvr", factor=1))


def test_sdedit_at_strength_1_and_ilvr_at_K_of_T_are_the_base_alone(tuned: Girl) -> None:
    alone = edited(tuned, EDIT.model_copy(update={"base_weight": 1.0}))
    assert np.array_equal(only(tuned, "sdedit", strength=1.0), alone)
    settings = EDIT.model_copy(update={"switch_step": 1000})
    assert np.array_equal(only(tuned, "ilvr", settings=settings), alone)


def test_without_guidance_a_negative_prompt_changes_no_method_s_picture_and_that_is_told(tuned: Girl) -> None:
    unguided = EDIT.model_copy(update={"guidance_scale": 1.0})
    plain = run(tuned, replace(ASKED, count=1, settings=unguided))
    notices: list[str] = []
    request = replace(ASKED, count=1, settings=unguided.model_copy(update={"negative": "a dog"}))
    with_negative = compare(tuned.project, tuned.manifest, request, on_notice=notices.append)
    assert notices == ["without guidance (-w 1) a negative prompt changes nothing"]
    for one, other in zip(plain.pictures, with_negative.pictures, strict=True):
        assert one.method == other.method and np.array_equal(pixels(one.file), pixels(other.file))


def test_what_is_left_of_nothing_done_is_the_source_through_the_autoencoder(tuned: Girl) -> None:
    untouched = only(tuned, "sdedit", strength=0.0)
    reference = only(tuned, "ilvr", factor=1, settings=EDIT.model_copy(update={"switch_step": 0}))
    assert np.abs(untouched - reference).max() <= 1


def test_the_methods_of_the_base_alone_need_no_tuning(untuned: Girl) -> None:
    result = run(untuned, replace(ASKED, methods=("sdedit", "ilvr"), count=1))
    assert read_recipe(result.pictures[0].file)["adapter"] is None
    for method in ("sine", "dreambooth"):
        with pytest.raises(UserError) as caught:
            run(untuned, replace(ASKED, methods=(method,)))
        assert caught.value.message == "girl is not tuned yet"


def test_the_word_is_tuned_once_and_again_where_the_picture_of_it_is_another(tuned: Girl) -> None:
    request = replace(ASKED, methods=("textual-inversion",), count=1)
    first = run(tuned, request)
    file = tuned.project.comparisons_dir / "textual-inversion.safetensors"
    before = file.stat().st_mtime_ns
    told: list[CompareProgress] = []
    second = compare(tuned.project, tuned.manifest, request, told.append)
    assert {p.what for p in told} == {"textual-inversion"}
    assert file.stat().st_mtime_ns == before
    assert np.array_equal(pixels(first.pictures[0].file), pixels(second.pictures[0].file))
    file.write_bytes(b"damaged")
    third = run(tuned, request)
    assert np.array_equal(pixels(first.pictures[0].file), pixels(third.pictures[0].file))
    other = tuned.manifest.model_copy(update={"tune": tuned.manifest.tune.model_copy(update={"steps": 3})})
    compare(tuned.project, other, request, told.append)
    assert [p.total for p in told if p.what == "textual-inversion, tuning"] == [3, 3, 3]


def test_a_recipe_has_what_decides_about_the_method_s_picture_and_no_more(tuned: Girl) -> None:
    result = run(tuned, replace(ASKED, count=1, strength=0.5, factor=2))
    recipes = {each.method: read_recipe(each.file) for each in result.pictures}
    shared = {"prompt", "method", "own_prompt", "negative", "size", "guidance_scale", "steps", "solver"}
    shared |= {"source", "base", "base_revision", "adapter", "guide_adapters", "device", "dtype", "versions"}
    assert {method: {*recipe} - shared for method, recipe in recipes.items()} == {
        "sine": {"seed", "source_prompt", "switch_step", "exact_switch", "base_weight", "position"},
        "dreambooth": {"seed", "position"},
        "textual-inversion": {"seed", "word"},
        "sdedit": {"seed", "strength"},
        "ilvr": {"seed", "factor", "switch_step"},
        "prompt-to-prompt": {"source_prompt", "maps_until"},
    }
    assert {recipe["prompt"] for recipe in recipes.values()} == {PROMPT}
    assert {method: recipe["own_prompt"] for method, recipe in recipes.items()} == {
        **dict.fromkeys(METHODS, PROMPT),
        "dreambooth": "a sculpture of a sks painting",
        "textual-inversion": "a sculpture of a <picture>",
    }
    assert recipes["prompt-to-prompt"]["source_prompt"] == "a painting"


def test_a_prompt_without_the_noun_is_told_to_those_who_know_the_picture_by_it(tuned: Girl) -> None:
    notices: list[str] = []
    request = replace(ASKED, prompt="a desert", methods=("dreambooth", "sdedit"), count=1)
    compare(tuned.project, tuned.manifest, request, on_notice=notices.append)
    assert notices == ['"a desert" has no "painting" in it: dreambooth does not know the picture by it']


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": " "}, "the prompt is empty"),
        ({"methods": ("sine", "magic")}, '--methods: no method called "magic"'),
        ({"methods": ()}, "--methods: name each method once"),
        ({"methods": ("sine", "sine")}, "--methods: name each method once"),
        ({"count": 0}, "-n: must be from 1 to 100, got 0"),
        ({"strength": 1.5}, "--strength: must be from 0 to 1, got 1.5"),
        ({"strength": float("nan")}, "--strength: must be from 0 to 1, got nan"),
        ({"factor": 0}, "--factor: must be at least 1, got 0"),
        ({"scorer": "/no/such/clip"}, "no such folder: /no/such/clip"),
    ],
)
def test_what_is_out_of_range_is_refused(tuned: Girl, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        run(tuned, replace(ASKED, **changes))  # pyright: ignore
    assert caught.value.message == message
    assert not tuned.project.comparisons_dir.exists()


def test_an_interrupted_comparison_leaves_nothing_but_the_word(tuned: Girl) -> None:
    def progress(made: CompareProgress) -> None:
        if made.what == "sdedit":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(tuned.project, tuned.manifest, ASKED, progress)
    left = [path.name for path in tuned.project.comparisons_dir.iterdir()]
    assert left == ["textual-inversion.safetensors"]


def test_a_scorer_that_does_not_load_is_told_before_anything_is_made(tuned: Girl, tiny_clip: Path) -> None:
    damaged = Path("clip")
    shutil.copytree(tiny_clip, damaged)
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    told: list[CompareProgress] = []
    with pytest.raises(SineError):
        compare(tuned.project, tuned.manifest, replace(ASKED, scorer=str(damaged)), told.append)
    assert told == []
