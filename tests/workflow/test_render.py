"""From a recipe to what the model is asked: which prompts, which position, when, from which noise."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
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


@pytest.mark.parametrize("changes", [{}, {"guides": (GUIDE, GUIDE)}, {"crop": (0.0, 0.0, 0.5, 1.5)}])
def test_a_recipe_comes_back_from_its_record(changes: dict[str, Any]) -> None:
    recipe = Recipe(**{**vars(RECIPE), **changes})
    assert Recipe.from_dict(json.loads(json.dumps(recipe.as_dict()))) == recipe


def test_a_record_of_before_there_were_guides_is_a_recipe_too() -> None:
    record = RECIPE.as_dict()
    del record["guides"], record["crop"]
    assert Recipe.from_dict(record) == RECIPE
