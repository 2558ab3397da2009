"""Pictures made together are those made alone, and nothing is computed twice."""

import itertools

import pytest
import torch
from torch import Tensor

from sine_cli.method.guidance import Branch, Guidance, Guide, GuidedModel
from sine_cli.method.sampling import SOLVERS, sample
from sine_cli.method.schedule import NoiseSchedule
from sine_cli.method.trajectories import Row, follow_together, grow, rows_of

NULL, BASE, TUNED = (Branch(torch.full((3, 2), float(value))) for value in range(3))
SCHEDULE = NoiseSchedule(torch.linspace(0.999, 0.01, 1000))
STEPS = 20
PAIRS = SCHEDULE.pairs(STEPS)
TIMES = [t for t, _ in PAIRS]
K_AXIS = [0, 200, 400, 600, 800, 1000]
V_AXIS = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]


def prediction(x_t: Tensor, t: int, branch: Branch) -> Tensor:
    """A nonlinear toy model."""
    return torch.tanh(x_t + branch.prompt.mean()) + t / 1000 * branch.prompt.mean()


def backbone(x_t: Tensor, t: int, branches: list[Branch]) -> list[Tensor]:
    return [prediction(x_t, t, branch) for branch in branches]


class Counted:
    """The same for rows of many paths; keeps how many each step had."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, rows: list[Row], t: int) -> list[Tensor]:
        self.rows.append(len(rows))
        return [prediction(x_t, t, branch) for x_t, branch in rows]


def model(K: int, v: float, w: float = 7.5) -> GuidedModel:
    return GuidedModel(backbone, Guidance(w, (Guide(1 - v, K),)), NULL, BASE, (TUNED,), dict(PAIRS))


def noise(seed: int = 0) -> Tensor:
    return torch.randn(1, 4, 5, 3, generator=torch.Generator().manual_seed(seed))


CELLS = list(itertools.product(K_AXIS, V_AXIS))


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_cells_of_a_grid_are_the_pictures_made_alone(solver: str) -> None:
    models, x_T = [model(K, v) for K, v in CELLS], noise()
    together = follow_together(models, [x_T] * 36, Counted(), SOLVERS[solver](SCHEDULE), PAIRS)
    for each, cell in zip(models, together, strict=True):
        assert torch.equal(cell, sample(each, x_T, SCHEDULE, SOLVERS[solver](SCHEDULE), STEPS))


def test_a_grid_costs_less_than_half_of_its_cells() -> None:
    """Counted at every step, against a count of each cell alone."""
    together, alone = Counted(), Counted()
    follow_together(
        [model(K, v) for K, v in CELLS], [noise()] * 36, together, SOLVERS["ddim"](SCHEDULE), PAIRS
    )
    for K, v in CELLS:
        follow_together([model(K, v)], [noise()], alone, SOLVERS["ddim"](SCHEDULE), PAIRS)
    assert sum(together.rows) <= 0.45 * sum(alone.rows)
    # All begin at one noise; at t = 1, K = 0 still guides, and v = 1 and K = T are one path
    assert together.rows[0] == 3
    assert together.rows[-1] == 2 * (5 * 5 + 1) + 4


def test_a_v_is_one_path_down_to_the_step_that_crosses_its_largest_K() -> None:
    tree = grow([model(K, 0.7) for K in (400, 200, 600)], [0] * 3, TIMES)
    paths = {t: sorted(path.members for path in step) for t, step in zip(TIMES, tree, strict=True)}
    for t, s in PAIRS:
        expected = [(0, 1, 2)] if s >= 600 else [(0, 1), (2,)] if s >= 400 else [(0,), (1,), (2,)]
        assert paths[t] == expected


def test_v_1_and_K_of_T_are_one_path_whatever_the_other_is() -> None:
    same = [model(0, 1.0), model(400, 1.0), model(1000, 0.3), model(1000, 0.0)]
    assert all(len(step) == 1 for step in grow(same, [0] * 4, TIMES))


def test_each_noise_has_a_path_of_its_own() -> None:
    counted, models = Counted(), [model(400, 0.7)] * 3
    noises = [noise(0), noise(1), noise(2)]
    together = follow_together(models, noises, counted, SOLVERS["dpm++"](SCHEDULE), PAIRS)
    assert counted.rows == [3 * (3 if t > 400 else 2) for t in TIMES]
    for x_T, made in zip(noises, together, strict=True):
        assert torch.equal(made, sample(models[0], x_T, SCHEDULE, SOLVERS["dpm++"](SCHEDULE), STEPS))


def test_equal_pictures_are_made_once() -> None:
    counted = Counted()
    x_T = noise()
    first, second = follow_together(
        [model(400, 0.7), model(400, 0.7)], [x_T, x_T], counted, SOLVERS["ddim"](SCHEDULE), PAIRS
    )
    assert first is second
    assert sum(counted.rows) == sum(3 if t > 400 else 2 for t in TIMES)


def test_the_rows_of_a_step_are_known_ahead() -> None:
    counted, told = Counted(), list[int]()
    models = [model(K, v) for K, v in CELLS]
    follow_together(models, [noise()] * 36, counted, SOLVERS["ddim"](SCHEDULE), PAIRS, told.append)
    assert counted.rows == told == [len(rows_of(paths)) for paths in grow(models, [0] * 36, TIMES)]
