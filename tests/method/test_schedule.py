"""The noise schedule against diffusers' and against its own algebra."""

from fractions import Fraction
from typing import Any, get_args

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

from sine_cli.method.schedule import CLEAN, NoiseSchedule, Prediction, Spacing

T = 1000
PREDICTIONS: tuple[Prediction, ...] = get_args(Prediction)


def stable_diffusion_alpha_bar() -> Tensor:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, T, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0)


@pytest.mark.parametrize(
    ("spacing", "offset"), [("leading", 0), ("leading", 1), ("leading", 5), ("trailing", 0), ("linspace", 0)]
)
def test_times_fall_strictly_from_noise_to_clean_whatever_the_steps(spacing: Spacing, offset: int) -> None:
    schedule = NoiseSchedule(stable_diffusion_alpha_bar(), spacing=spacing, offset=offset)
    for steps in range(1, T + 1):
        pairs = schedule.pairs(steps)
        assert len(pairs) == steps
        assert 0 <= pairs[0][0] < T
        assert all(t > s for t, s in pairs), (steps, pairs)
        assert [s for _, s in pairs] == [*(t for t, _ in pairs[1:]), CLEAN]


@pytest.mark.parametrize(
    ("spacing", "offset"), [("leading", 0), ("leading", 1), ("trailing", 0), ("linspace", 0)]
)
def test_times_are_those_of_diffusers(spacing: Spacing, offset: int) -> None:
    schedule = NoiseSchedule(stable_diffusion_alpha_bar(), spacing=spacing, offset=offset)
    theirs: Any = DDIMScheduler(timestep_spacing=spacing, steps_offset=offset)
    # Leading with an offset and T steps asks diffusers for time T, which there is none of: it fails there.
    for steps in [*range(1, 101), *range(107, T, 31), *([T] if offset == 0 else [])]:
        if spacing == "leading" and T % steps:
            continue  # diffusers leaves out the noisiest times there; ours are tested below
        theirs.set_timesteps(steps)
        ours = [t for t, _ in schedule.pairs(steps)]
        expected = theirs.timesteps.tolist()[:steps]  # of 61 trailing ones its rounding makes 62
        for i, (t, t_expected) in enumerate(zip(ours, expected, strict=True)):
            # Halfway between two times, numpy's rounding errors decide for diffusers.
            assert t == t_expected or (abs(t - t_expected) == 1 and is_halfway(spacing, i, steps)), steps


@pytest.mark.parametrize("offset", [0, 1])
def test_leading_times_begin_within_one_stride_of_the_noise(offset: int) -> None:
    schedule = NoiseSchedule(stable_diffusion_alpha_bar(), spacing="leading", offset=offset)
    for steps in range(1, T + 1):
        assert schedule.pairs(steps)[0][0] >= T - T / steps - 1, steps


def is_halfway(spacing: Spacing, i: int, steps: int) -> bool:
    """Whether the i-th of so many times lies exactly between two whole ones."""
    if spacing == "leading":
        return False
    return (
        Fraction(i * T, steps) % 1 == 0.5
        if spacing == "trailing"
        else Fraction(i * (T - 1), steps - 1) % 1 == 0.5
    )


def test_a_thousand_leading_steps_with_an_offset_take_every_time_once() -> None:
    pairs = NoiseSchedule(stable_diffusion_alpha_bar(), spacing="leading", offset=1).pairs(T)
    assert [t for t, _ in pairs] == list(reversed(range(T)))


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_splitting_the_target_of_a_noised_picture_gives_picture_and_noise_back(
    prediction: Prediction,
) -> None:
    schedule = NoiseSchedule(stable_diffusion_alpha_bar(), prediction)
    generator = torch.Generator().manual_seed(0)
    times = torch.tensor([0, 1, 250, 500, 998, 999])
    z_0 = torch.randn(len(times), 4, 3, 5, generator=generator, dtype=torch.float64)
    eps = torch.randn(z_0.shape, generator=generator, dtype=torch.float64)
    z_t, target = schedule.add_noise(z_0, eps, times), schedule.target(z_0, eps, times)
    for row, t in enumerate(times.tolist()):
        clean, noise = schedule.split(z_t[row], target[row], t)
        torch.testing.assert_close(clean, z_0[row], rtol=0, atol=2e-6)
        torch.testing.assert_close(noise, eps[row], rtol=0, atol=2e-6)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_noise_and_target_are_those_of_diffusers(prediction: Prediction) -> None:
    theirs: Any = DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type=prediction
    )
    schedule = NoiseSchedule(theirs.alphas_cumprod, prediction)
    generator = torch.Generator().manual_seed(1)
    z_0, eps = torch.randn(2, 3, 4, 4, 4, generator=generator)
    t = torch.tensor([0, 400, 999])
    torch.testing.assert_close(schedule.add_noise(z_0, eps, t), theirs.add_noise(z_0, eps, t))
    expected = eps if prediction == "epsilon" else theirs.get_velocity(z_0, eps, t)
    torch.testing.assert_close(schedule.target(z_0, eps, t), expected)


def test_the_last_time_is_the_picture_itself_or_as_near_as_the_base_says() -> None:
    alpha_bar = stable_diffusion_alpha_bar()
    assert NoiseSchedule(alpha_bar).alpha_bar_at(CLEAN) == 1
    assert NoiseSchedule(alpha_bar, final_alpha_bar=float(alpha_bar[0])).alpha_bar_at(CLEAN) == alpha_bar[0]
    assert NoiseSchedule(alpha_bar).alpha_bar_at(0) == alpha_bar[0]


def test_signal_to_noise_is_signal_over_noise() -> None:
    schedule = NoiseSchedule(torch.tensor([0.8, 0.5, 0.2]))
    torch.testing.assert_close(
        schedule.signal_to_noise(torch.tensor([2, 0, 1])), torch.tensor([0.25, 4.0, 1.0])
    )
