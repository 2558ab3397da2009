"""From a recipe to what the model is asked: which prompts, which position, when, from which noise."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sine_cli.method.guidance import Branch
from sine_cli.method.sampling import draw_noise
from sine_cli.method.trajectories import Row
from sine_cli.models.base import Base, load_base
from sine_cli.models.rows import BASE, TUNED
from sine_cli.models.text import Conditioning
from sine_cli.workflow.guides import GuideRecipe
from sine_cli.workflow.render import Reading, Recipe, Renderer, embed
from sine_cli.workflow.size import Size

RECIPE = Recipe(
    prompt="a sculpture",
    source_prompt="a sks painting",
    negative="",
    seed=5,
    size=Size(37, 51),
    switch_step=501,
    base_weight=0.5,
    guidance_scale=3.0,
    steps=4,
    solver="ddim",
    position=True,
)


class Recorder:
    """A backbone that keeps what each step asked."""

    def __init__(self) -> None:
        self.asked: dict[int, list[Branch]] = {}
        self.noise: Tensor | None = None

    def predict(self, rows: list[Row], t: int) -> list[Tensor]:
        self.noise = rows[0][0] if self.noise is None else self.noise
        self.asked[t] = [branch for _, branch in rows]
        return [0.1 * x_t for x_t, _ in rows]

    def rows_at_once(self, height: int, width: int) -> int:
        return 64


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Base:
    return load_base(tiny_base, None, torch.device("cpu"), torch.float32)


def render(base: Base, **changes: Any) -> tuple[Recorder, dict[Reading, Conditioning]]:
    recorder, recipe = Recorder(), Recipe(**{**vars(RECIPE), **changes})
    backbone: Any = recorder
    embeddings = embed(base, recipe.readings)
    Renderer(base, backbone, embeddings).picture(recipe)
    return recorder, embeddings


@pytest.mark.parametrize(
    ("K", "tuned_at"),
    [(0, [751, 501, 251, 1]), (1, [751, 501, 251]), (500, [751, 501]), (501, [751]), (750, [751]), (751, [])],
)
def test_the_tuned_model_is_asked_while_t_exceeds_K_and_not_at_K(
    base: Base, K: int, tuned_at: list[int]
) -> None:
    recorder, _ = render(base, switch_step=K)
    assert list(recorder.asked) == [751, 501, 251, 1]
    assert [t for t, branches in recorder.asked.items() if any(b.tuned for b in branches)] == tuned_at
    assert all(len(branches) == (3 if t in tuned_at else 2) for t, branches in recorder.asked.items())


def test_each_branch_has_its_own_prompt(base: Base) -> None:
    recorder, embeddings = render(base)
    readings = [(BASE, ""), (BASE, "a sculpture"), (TUNED, "a sks painting")]
    for branch, reading in zip(recorder.asked[751], readings, strict=True):
        assert branch.prompt is embeddings[reading]


def test_a_negative_prompt_takes_the_place_of_the_empty_one(base: Base) -> None:
    recorder, embeddings = render(base, negative="blurry")
    assert recorder.asked[1][0].prompt is embeddings[BASE, "blurry"]
    assert (BASE, "") not in embeddings


def test_the_tuned_model_alone_has_the_position_and_the_picture_fills_it(base: Base) -> None:
    """37x51 is cut from 40x52: the picture is the box's [0, 1], the rest lies beyond."""
    null, target, tuned = render(base)[0].asked[751]
    assert null.box is None
    assert target.box is None
    assert tuned.box is not None
    torch.testing.assert_close(tuned.box, torch.tensor([0.0, 0.0, 40 / 37, 52 / 51]))


def test_without_position_the_tuned_model_has_none_either(base: Base) -> None:
    assert all(branch.box is None for branch in render(base, position=False)[0].asked[751])


def test_the_noise_is_that_of_the_seed_at_the_sampled_size(base: Base) -> None:
    noise = render(base)[0].noise
    assert noise is not None
    assert torch.equal(noise, draw_noise(1, (4, 10, 13), seed=5))


GUIDE = GuideRecipe("../stripes", "in the sks style", weight=0.25, switch_step=300)


def test_a_crop_is_the_box_that_every_tuned_model_is_given(base: Base) -> None:
    branches = render(base, crop=(0.1, -0.2, 0.6, 0.4), guides=(GUIDE,))[0].asked[751]
    assert [branch.tuned for branch in branches] == [None, None, "tuned", "guide_1"]
    box = torch.tensor([0.1, -0.2, 0.1 + 0.5 * 40 / 37, -0.2 + 0.6 * 52 / 51])
    for branch in branches[2:]:
        assert branch.box is not None
        torch.testing.assert_close(branch.box, box)


def test_each_guide_is_asked_with_its_own_prompt_while_t_exceeds_its_own_K(base: Base) -> None:
    recorder, embeddings = render(base, guides=(GUIDE, replace(GUIDE, switch_step=800)))
    asked = {t: [branch.tuned for branch in branches] for t, branches in recorder.asked.items()}
    assert asked == {
        751: [None, None, "tuned", "guide_1"],
        501: [None, None, "guide_1"],
        251: [None, None],
        1: [None, None],
    }
    assert recorder.asked[501][2].prompt is embeddings["guide_1", "in the sks style"]


def test_a_step_that_crosses_K_is_guided_by_its_share_and_in_older_records_to_its_end(base: Base) -> None:
    """t = 751, 501, 251, 1: of the step from 501 to 251 a fifth lies above 451."""
    backbone: Any = Recorder()
    values = replace(RECIPE, switch_step=451).as_dict()
    older = Recipe.from_dict({name: value for name, value in values.items() if name != "exact_switch"})
    weights = {
        recipe.exact_switch: [[weight for weight, _ in model.weighted(t)] for t in (751, 501, 251)]
        for recipe in (Recipe.from_dict(values), older)
        for model in [Renderer(base, backbone, embed(base, recipe.readings)).guided(recipe)]
    }
    guided, plain = [-2.0, 1.5, 1.5], [-2.0, 3.0]
    crossing = [-2.0, pytest.approx(2.7), pytest.approx(0.3)]
    assert weights == {True: [guided, crossing, plain], False: [guided, guided, plain]}


@pytest.mark.parametrize("changes", [{}, {"guides": (GUIDE, GUIDE)}, {"crop": (0.0, 0.0, 0.5, 1.5)}])
def test_a_recipe_comes_back_from_its_record(changes: dict[str, Any]) -> None:
    recipe = Recipe(**{**vars(RECIPE), **changes})
    assert Recipe.from_dict(json.loads(json.dumps(recipe.as_dict()))) == recipe


def test_a_record_of_before_there_were_guides_is_a_recipe_too() -> None:
    record = RECIPE.as_dict()
    del record["guides"], record["crop"]
    assert Recipe.from_dict(record) == RECIPE


NO_TEXT = "must be text (in quotes where it looks like something else)"
NO_PART = "must be a part of the picture, or a little beyond it"
NOT_RELATIVE = "must be relative to the folder of the project"
GUIDED = {"project": "../stripes", "source_prompt": "a stripe", "weight": 0.2, "switch_step": 400}


def a_guide(**changes: Any) -> dict[str, Any]:
    return {"guides": [{**GUIDED, **changes}]}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"steps": 5000}, "steps: must be at most 1000, got 5000"),
        ({"steps": 0}, "steps: must be at least 1, got 0"),
        ({"steps": True}, "steps: must be a whole number, got True"),
        ({"steps": 4.0}, "steps: must be a whole number, got 4.0"),
        ({"steps": "4"}, 'steps: must be a whole number, got "4"'),
        ({"seed": -1}, "seed: must be at least 0, got -1"),
        ({"seed": 2**63}, "seed: must be at most 9223372036854775807, got 9223372036854775808"),
        ({"switch_step": 1001}, "switch_step: must be at most 1000, got 1001"),
        ({"base_weight": 1.5}, "base_weight: must be at most 1, got 1.5"),
        ({"base_weight": float("nan")}, "base_weight: must be a finite number, got nan"),
        ({"guidance_scale": 0.5}, "guidance_scale: must be at least 1, got 0.5"),
        ({"guidance_scale": float("inf")}, "guidance_scale: must be a finite number, got inf"),
        ({"solver": "heun"}, 'solver: must be ddim, euler, dpm++ or unipc, got "heun"'),
        ({"size": {"height": 8193, "width": 1}}, "size.height: must be at most 8192, got 8193"),
        ({"size": {"height": 1, "width": 0}}, "size.width: must be at least 1, got 0"),
        ({"size": {"height": 1}}, "size.width: missing"),
        ({"size": [1, 2]}, "size: not as sine writes it"),
        ({"position": "yes"}, 'position: must be true or false, got "yes"'),
        ({"prompt": ""}, 'prompt: must not be empty, got ""'),
        ({"prompt": "x" * 100_001}, f'prompt: must have at most 100000 characters, got "{"x" * 40}…"'),
        ({"prompt": "\ud800"}, "not as sine writes it"),
        (
            {"negative": None},
            "negative: must be text (in quotes where it looks like something else), got None",
        ),
        ({"crop": [0, 0, 1]}, "crop.3: missing"),
        (
            {"crop": [0, 0, 0, 1]},
            f"crop: {NO_PART}, got [0, 0, 0, 1]",
        ),
        (
            {"crop": [0, 0, 9, 9]},
            f"crop: {NO_PART}, got [0, 0, 9, 9]",
        ),
        (a_guide(weight=2), "guides.0.weight: must be at most 1, got 2"),
        (a_guide(switch_step=-1), "guides.0.switch_step: must be at least 0, got -1"),
        (a_guide(weight=0.6), "guides: the weights sum to more than 1"),
        (
            a_guide(project="/etc"),
            'guides.0.project: must be relative to the folder of the project, got "/etc"',
        ),
        ({"guides": [GUIDED] * 65}, "guides: not as sine writes it"),
        ({"guides": None}, "guides: not as sine writes it"),
        ({"more": 1}, "more: unknown"),
    ],
)
def test_a_record_that_is_no_recipe_is_refused_with_its_field(change: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError) as caught:
        Recipe.from_dict({**RECIPE.as_dict(), **change})
    assert str(caught.value) == what


OPTIONAL = ("guides", "crop", "exact_switch")  # older records have none


@pytest.mark.parametrize("name", [each for each in vars(RECIPE) if each not in OPTIONAL])
def test_every_field_of_a_recipe_is_needed(name: str) -> None:
    record = RECIPE.as_dict()
    del record[name]
    with pytest.raises(ValueError, match=f"^{name}: missing$"):
        Recipe.from_dict(record)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from([*vars(RECIPE)]), value=JSON)
def test_a_recipe_with_any_value_in_it_is_read_or_refused_and_never_large(name: str, value: Any) -> None:
    try:
        recipe = Recipe.from_dict({**RECIPE.as_dict(), name: value})
    except ValueError as error:
        assert 0 < len(str(error)) < 200
        return
    assert Recipe.from_dict(recipe.as_dict()) == recipe
    assert max(recipe.size.height, recipe.size.width) <= 8192
    assert recipe.steps <= 1000
