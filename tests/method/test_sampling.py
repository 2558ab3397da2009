"""Solvers against diffusers' over whole trajectories of a nonlinear toy model; noise, picture by picture."""

import copy
from typing import Any, get_args

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from sine_cli.method.sampling import DDIM, SOLVERS, DPMSolverPP, draw_noise, follow, sample
from sine_cli.method.schedule import NoiseSchedule, Prediction, Spacing

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
PREDICTIONS: tuple[Prediction, ...] = get_args(Prediction)


def toy_model(x_t: Tensor, t: int) -> Tensor:
    """Smooth, nonlinear, different at every time and place."""
    return (
        torch.tanh(x_t * (0.4 + t / 1000))
        + 0.1 * x_t.roll(1, -1)
        - 0.05 * x_t.roll(1, -2) ** 2 / (1 + x_t**2)
    )


def start(dtype: torch.dtype) -> Tensor:
    return torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(7)).to(dtype)


def schedule_of(
    theirs: Any, prediction: Prediction, spacing: Spacing, offset: int, final: float
) -> NoiseSchedule:
    return NoiseSchedule(theirs.alphas_cumprod, prediction, spacing, offset, final)


def trajectory(schedule: NoiseSchedule, solver: str, steps: int, x_T: Tensor) -> list[Tensor]:
    """x_s after every step."""
    xs: list[Tensor] = []

    class Kept:
        inner = SOLVERS[solver](schedule)

        def step(self, x_t: Tensor, prediction: Tensor, t: int, s: int) -> Tensor:
            xs.append(self.inner.step(x_t, prediction, t, s))
            return xs[-1]

    assert sample(toy_model, x_T, schedule, Kept(), steps) is xs[-1]
    return xs


def trajectory_of_diffusers(scheduler: Any, x_T: Tensor) -> list[Tensor]:
    xs = [x_T]
    for t in scheduler.timesteps:
        xs.append(scheduler.step(toy_model(xs[-1], int(t)), t, xs[-1]).prev_sample)
    return xs[1:]


# diffusers' DDIM goes to t - T // steps, whatever its next time is. Those are the same for leading spacing,
# and for trailing spacing where steps divides T; elsewhere diffusers steps beside its own times, we do not.
# Leading spacing of more than T / 2 steps ends at time 0 with diffusers, beyond it with us: the same where
# alpha_bar of the end is that of time 0 (set_alpha_to_one: false, as every Stable Diffusion has it).
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(
    ("spacing", "offset", "to_one", "steps"),
    [
        *(("leading", 1, to_one, steps) for to_one in (False, True) for steps in (1, 2, 5, 25, 50, 125, 500)),
        ("leading", 0, False, 1000),
        ("leading", 0, True, 1000),
        *(("trailing", 0, to_one, steps) for to_one in (False, True) for steps in (1, 2, 8, 25, 100, 1000)),
    ],
)
def test_ddim_is_diffusers_ddim(
    prediction: Prediction, spacing: Spacing, offset: int, to_one: bool, steps: int
) -> None:
    theirs: Any = DDIMScheduler(
        **BETAS,
        prediction_type=prediction,
        timestep_spacing=spacing,
        steps_offset=offset,
        set_alpha_to_one=to_one,
        clip_sample=False,
    )
    # In float64 all through, so that rounding cannot hide a difference.
    theirs.alphas_cumprod = theirs.alphas_cumprod.double()
    theirs.final_alpha_cumprod = torch.tensor(1.0) if to_one else theirs.alphas_cumprod[0]
    theirs.set_timesteps(steps)
    final = float(theirs.final_alpha_cumprod)
    ours = trajectory(
        schedule_of(theirs, prediction, spacing, offset, final), "ddim", steps, start(torch.float64)
    )
    expected = trajectory_of_diffusers(theirs, start(torch.float64))
    assert len(ours) == len(expected) == steps
    for x, x_expected in zip(ours, expected, strict=True):
        torch.testing.assert_close(x, x_expected, rtol=1e-9, atol=1e-9)


# diffusers' leading spacing divides by steps + 1 for this solver and by steps for DDIM; ours is DDIM's for
# both, so diffusers is given our times. It computes in float32 whatever it is given. Its last step is of
# first order only below 15 steps or where it ends at sigma 0; with `euler_at_final` always, as ours is.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers with numpy 2
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("to_one", [False, True])
@pytest.mark.parametrize(
    ("spacing", "steps"),
    [*(("leading", n) for n in (1, 2, 7, 30, 200)), *(("trailing", n) for n in (1, 2, 10, 25, 200))],
)
def test_dpm_solver_is_diffusers_dpm_solver(
    prediction: Prediction, to_one: bool, spacing: Spacing, steps: int
) -> None:
    theirs: Any = DPMSolverMultistepScheduler(
        **BETAS,
        prediction_type=prediction,
        timestep_spacing=spacing,
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        final_sigmas_type="zero" if to_one else "sigma_min",
        euler_at_final=True,
    )
    final = 1.0 if to_one else float(theirs.alphas_cumprod[0])
    schedule = schedule_of(theirs, prediction, spacing, 1, final)
    times = [t for t, _ in schedule.pairs(steps)]
    if spacing == "leading":
        theirs.set_timesteps(timesteps=times)
    else:
        theirs.set_timesteps(steps)
    assert theirs.timesteps.tolist() == times
    ours = trajectory(schedule, "dpm++", steps, start(torch.float32))
    expected = trajectory_of_diffusers(theirs, start(torch.float32))
    assert len(ours) == len(expected) == steps
    for x, x_expected in zip(ours, expected, strict=True):
        torch.testing.assert_close(x, x_expected, rtol=2e-4, atol=2e-4)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers with numpy 2
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("to_one", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 25, 100])
def test_unipc_is_diffusers_unipc(prediction: Prediction, to_one: bool, steps: int) -> None:
    theirs: Any = UniPCMultistepScheduler(
        **BETAS,
        prediction_type=prediction,
        timestep_spacing="trailing",
        solver_order=2,
        solver_type="bh2",
        final_sigmas_type="zero" if to_one else "sigma_min",
    )
    theirs.set_timesteps(steps)
    final = 1.0 if to_one else float(theirs.alphas_cumprod[0])
    schedule = schedule_of(theirs, prediction, "trailing", 1, final)
    assert theirs.timesteps.tolist() == [t for t, _ in schedule.pairs(steps)]
    ours = trajectory(schedule, "unipc", steps, start(torch.float32))
    expected = trajectory_of_diffusers(theirs, start(torch.float32))
    for x, x_expected in zip(ours, expected, strict=True):
        torch.testing.assert_close(x, x_expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("steps", [1, 2, 25, 100])
def test_euler_is_diffusers_euler(prediction: Prediction, steps: int) -> None:
    """diffusers' latents are ours over sqrt(alpha_bar), and its model is given them scaled back."""
    theirs: Any = EulerDiscreteScheduler(**BETAS, prediction_type=prediction, timestep_spacing="trailing")
    theirs.set_timesteps(steps)
    schedule = schedule_of(theirs, prediction, "trailing", 1, float(theirs.alphas_cumprod[0]))
    x = start(torch.float32) / schedule.alpha_bar_at(int(theirs.timesteps[0])) ** 0.5
    for t in theirs.timesteps:
        x = theirs.step(toy_model(theirs.scale_model_input(x, t), int(t)), t, x).prev_sample
    ours = trajectory(schedule, "euler", steps, start(torch.float32))
    torch.testing.assert_close(ours[-1], x, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_copy_of_a_solver_goes_on_by_itself(solver: str) -> None:
    schedule = schedule_of(DDIMScheduler(**BETAS), "epsilon", "leading", 1, 1.0)
    pairs, x = schedule.pairs(8), start(torch.float64)
    first = SOLVERS[solver](schedule)
    half = follow(toy_model, x, first, pairs[:4])
    second = copy.copy(first)
    one = follow(toy_model, half, first, pairs[4:])
    other = follow(lambda x_t, t: 0.5 * toy_model(x_t, t), half, second, pairs[4:])
    assert torch.equal(one, follow(toy_model, x, SOLVERS[solver](schedule), pairs))
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 25, 1000])
def test_a_model_that_knows_the_picture_leads_to_it(solver: str, steps: int) -> None:
    schedule = schedule_of(DDIMScheduler(**BETAS), "epsilon", "leading", 1, 1.0)
    picture = torch.randn(1, 4, 3, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def knowing(x_t: Tensor, t: int) -> Tensor:
        a = schedule.alpha_bar_at(t)
        return (x_t - a**0.5 * picture) / (1 - a) ** 0.5

    x_T = torch.randn(picture.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    z_0 = sample(knowing, x_T, schedule, SOLVERS[solver](schedule), steps)
    torch.testing.assert_close(z_0, picture, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 10, 50])
def test_a_schedule_that_ends_in_pure_noise_samples_like_diffusers(steps: int) -> None:
    """Bases of zero terminal signal (alpha_bar of T - 1 is 0) predict v and space their times trailing."""
    theirs: Any = DDIMScheduler(
        **BETAS,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        clip_sample=False,
    )
    theirs.set_timesteps(steps)
    assert theirs.alphas_cumprod[-1] == 0
    schedule = schedule_of(theirs, "v_prediction", "trailing", 0, 1.0)
    expected = trajectory_of_diffusers(theirs, start(torch.float32))[-1]
    z_0 = trajectory(schedule, "ddim", steps, start(torch.float32))[-1]
    torch.testing.assert_close(z_0, expected, rtol=1e-4, atol=1e-4)
    # The first step of all solvers is of first order, and then the same.
    first = [trajectory(schedule, solver, steps, start(torch.float32))[0] for solver in SOLVERS]
    for each in first[1:]:
        torch.testing.assert_close(each, first[0])
    for solver in SOLVERS:
        assert all(torch.isfinite(x).all() for x in trajectory(schedule, solver, steps, start(torch.float32)))


def test_the_second_order_solvers_are_nearer_to_the_limit_than_the_first_in_as_many_steps() -> None:
    schedule = schedule_of(DDIMScheduler(**BETAS), "epsilon", "trailing", 0, 1.0)
    x_T = start(torch.float64)
    limit = trajectory(schedule, "ddim", 1000, x_T)[-1]
    off = {solver: (trajectory(schedule, solver, 40, x_T)[-1] - limit).abs().mean() for solver in SOLVERS}
    assert off["dpm++"] < 0.5 * off["ddim"]
    assert off["unipc"] < off["dpm++"]


def test_a_solver_made_anew_has_no_memory_of_the_last_run() -> None:
    schedule = schedule_of(DDIMScheduler(**BETAS), "epsilon", "leading", 1, 1.0)
    x_T = start(torch.float32)
    first, second = (sample(toy_model, x_T, schedule, DPMSolverPP(schedule), 5) for _ in range(2))
    assert torch.equal(first, second)


def test_each_step_is_told_with_its_time() -> None:
    schedule = schedule_of(DDIMScheduler(**BETAS), "epsilon", "leading", 1, 1.0)
    told: list[int] = []
    sample(toy_model, start(torch.float32), schedule, DDIM(schedule), 4, told.append)
    assert told == [751, 501, 251, 1]


def test_each_picture_of_a_batch_has_the_noise_it_would_have_alone() -> None:
    together = draw_noise(4, (3, 5, 7), seed=11)
    assert together.shape == (4, 3, 5, 7)
    assert (together.dtype, together.device.type) == (torch.float32, "cpu")
    for i in range(4):
        assert torch.equal(together[i : i + 1], draw_noise(1, (3, 5, 7), seed=11 + i))
    assert not torch.equal(together[0], together[1])


def test_drawing_noise_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    draw_noise(2, (1, 2, 2), seed=0)
    assert torch.equal(torch.get_rng_state(), before)
