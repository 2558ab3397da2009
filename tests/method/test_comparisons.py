"""The methods that SINE is compared with: each is one identity away from something known."""

from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddim_inverse import DDIMInverseScheduler
from torch import Tensor, nn

from sine_cli.method.dreambooth import dreambooth
from sine_cli.method.guidance import Branch, Guidance, Guide, GuidedModel
from sine_cli.method.ilvr import ILVR, low_pass
from sine_cli.method.inversion import invert
from sine_cli.method.sampling import DDIM, SOLVERS, sample
from sine_cli.method.schedule import CLEAN, NoiseSchedule, Prediction
from sine_cli.method.sdedit import sdedit
from sine_cli.method.textual_inversion import LEARNING_RATE, textual_inversion
from sine_cli.method.tuning import TuningPlan

STEPS = 20
BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
ALPHA_BAR = (1 - BETAS).cumprod(0)


def schedule(prediction: Prediction = "epsilon") -> NoiseSchedule:
    return NoiseSchedule(ALPHA_BAR, prediction, final_alpha_bar=float(ALPHA_BAR[0]))


def latents(seed: int, height: int = 6, width: int = 5) -> Tensor:
    return torch.randn(2, 4, height, width, generator=torch.Generator().manual_seed(seed))


def toy_model(x_t: Tensor, t: int) -> Tensor:
    """Smooth, nonlinear, different at every time and place."""
    return torch.tanh(x_t * (0.4 + t / 1000)) + 0.1 * x_t.roll(1, -1)


def knowing(z: Tensor) -> Any:
    """The perfect model of the latents z: eps = (x_t - sqrt(a_t) z) / sqrt(1 - a_t)."""

    def model(x_t: Tensor, t: int) -> Tensor:
        a = float(ALPHA_BAR[t])
        return (x_t - a**0.5 * z) / (1 - a) ** 0.5

    return model


# -------------------------------------------------------------------------------------------------- SDEdit


@pytest.mark.parametrize("solver", SOLVERS)
def test_sdedit_at_strength_1_is_plain_sampling(solver: str) -> None:
    z_0, eps = latents(0), latents(1)
    edited = sdedit(toy_model, z_0, eps, schedule(), SOLVERS[solver](schedule()), STEPS, 1.0)
    assert torch.equal(edited, sample(toy_model, eps, schedule(), SOLVERS[solver](schedule()), STEPS))


def test_sdedit_at_strength_0_is_the_picture() -> None:
    z_0 = latents(0)
    assert sdedit(toy_model, z_0, latents(1), schedule(), DDIM(schedule()), STEPS, 0.0) is z_0


@pytest.mark.parametrize("strength", [0.05, 0.4, 0.95])
def test_sdedit_takes_its_share_of_the_steps_and_a_model_that_knows_the_picture_gives_it_back(
    strength: float,
) -> None:
    z_0, taken = latents(0), []
    exact = NoiseSchedule(ALPHA_BAR)
    edited = sdedit(
        knowing(z_0), z_0, latents(1), exact, DDIM(exact), STEPS, strength, lambda t: taken.append(t)
    )
    assert taken == [t for t, _ in exact.pairs(STEPS)][-round(strength * STEPS) :]
    torch.testing.assert_close(edited, z_0, rtol=0, atol=1e-4)


# ---------------------------------------------------------------------------------------------------- ILVR


def ilvr(y_0: Tensor, eps: Tensor, factor: int, K: int, solver: str = "ddim") -> Tensor:
    around = ILVR(SOLVERS[solver](schedule()), schedule(), y_0, eps, factor, K)
    return sample(toy_model, eps, schedule(), around, STEPS)


@pytest.mark.parametrize("solver", SOLVERS)
def test_ilvr_with_N_1_gives_the_reference_back(solver: str) -> None:
    y_0 = latents(0)
    torch.testing.assert_close(ilvr(y_0, latents(1), 1, 0, solver), y_0, rtol=0, atol=1e-5)


def test_ilvr_with_N_1_until_K_is_sdedit_from_there() -> None:
    """Of 951, 901, ..., 1 the last step above 400 leads to 351, with eight steps to go."""
    y_0, eps = latents(0), latents(1)
    edited = sdedit(toy_model, y_0, eps, schedule(), DDIM(schedule()), STEPS, 8 / STEPS)
    torch.testing.assert_close(ilvr(y_0, eps, 1, 400), edited, rtol=0, atol=1e-4)


def test_ilvr_at_K_of_T_is_plain_sampling() -> None:
    eps = latents(1)
    plain = sample(toy_model, eps, schedule(), DDIM(schedule()), STEPS)
    assert torch.equal(ilvr(latents(0), eps, 2, 1000), plain)


def test_the_low_pass_takes_sides_that_N_does_not_divide() -> None:
    x = torch.arange(5.0).expand(1, 1, 3, 5)
    low = low_pass(x, 2)
    assert low.shape == x.shape
    torch.testing.assert_close(low.mean(), x.mean())


def test_ilvr_with_a_low_pass_of_one_cell_keeps_the_mean_alone() -> None:
    y_0, eps = latents(0), latents(1)
    edited = ilvr(y_0, eps, 100, 0)
    torch.testing.assert_close(edited.mean((2, 3)), y_0.mean((2, 3)), rtol=0, atol=1e-5)
    assert (edited - y_0).abs().mean() > 0.1


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 100])
def test_the_low_pass_leaves_what_is_flat_and_N_1_leaves_all(factor: int) -> None:
    flat = torch.full((1, 4, 7, 10), 0.7)
    torch.testing.assert_close(low_pass(flat, factor), flat)
    x = latents(0, 7, 10)
    assert torch.equal(low_pass(x, factor), x) == (factor == 1)
    assert low_pass(x, factor).var() <= x.var()


# ----------------------------------------------------------------------------------------------- inversion


@pytest.mark.parametrize("steps", [10, 20, 50])
def test_inversion_goes_the_way_of_diffusers(steps: int) -> None:
    theirs: Any = DDIMInverseScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        set_alpha_to_one=False,
        clip_sample=False,
        steps_offset=1,
    )
    theirs.set_timesteps(steps)
    x = latents(0)
    for t in theirs.timesteps:
        x = theirs.step(toy_model(x, int(t)), t, x).prev_sample
    torch.testing.assert_close(invert(toy_model, latents(0), schedule(), steps), x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_sampling_brings_an_inverted_picture_back_the_nearer_the_more_steps(prediction: Prediction) -> None:
    z_0, plan = latents(0), schedule(prediction)
    errors = []
    for steps in (10, 100, 1000):
        x_T = invert(toy_model, z_0, plan, steps)
        back = sample(toy_model, x_T, plan, DDIM(plan), steps)
        errors.append(float((back - z_0).abs().max()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.02


def test_where_the_noise_does_not_depend_on_the_latents_inversion_is_exact() -> None:
    eps = latents(1)
    x_T = invert(lambda _, t: eps * (1 + t / 1000), latents(0), schedule(), STEPS)
    back = sample(lambda _, t: eps * (1 + t / 1000), x_T, schedule(), DDIM(schedule()), STEPS)
    torch.testing.assert_close(back, latents(0), rtol=0, atol=1e-4)


def test_inversion_ends_at_the_latest_time() -> None:
    times: list[int] = []
    invert(toy_model, latents(0), schedule(), STEPS, times.append)
    assert times == [t for t, _ in reversed(schedule().pairs(STEPS))]
    assert schedule().noised(latents(0), latents(1), CLEAN).equal(latents(0))


# ---------------------------------------------------------------------------------------------- DreamBooth


def backbone(x_t: Tensor, t: int, branches: list[Branch]) -> list[Tensor]:
    return [
        torch.tanh(x_t + b.prompt.mean()) * (2.0 if b.tuned else 1.0)
        + (0.0 if b.box is None else b.box.sum()) * (t / 1000)
        for b in branches
    ]


NULL, TARGET = Branch(torch.zeros(3, 2)), Branch(torch.ones(3, 2))
OWN = Branch(torch.full((3, 2), 2.0), torch.tensor([0.0, 0.0, 1.0, 1.0]), tuned="tuned")


def test_dreambooth_is_classifier_free_guidance_by_the_tuned_model() -> None:
    x_t, w, t = latents(0), 7.5, 600
    null, target = (Branch(each.prompt, OWN.box, "tuned") for each in (NULL, TARGET))
    eps, eps_c = backbone(x_t, t, [null, target])
    expected = w * eps_c + (1 - w) * eps
    torch.testing.assert_close(dreambooth(backbone, w, NULL, target)(x_t, t), expected)


def test_without_guidance_dreambooth_with_the_source_prompt_is_sine_at_v_0_and_K_0() -> None:
    x_t = latents(0)
    alone = GuidedModel(backbone, Guidance(1.0, (Guide(1.0, 0),)), NULL, TARGET, (OWN,))
    assert torch.equal(dreambooth(backbone, 1.0, NULL, OWN)(x_t, 600), alone(x_t, 600))


# ---------------------------------------------------------------------------------------- Textual Inversion


def test_textual_inversion_learns_the_embedding_at_its_own_rate_from_the_whole_picture() -> None:
    """A model that reads from the word how bright the picture is: the word comes to say it."""
    z_0 = torch.full((1, 4, 6, 5), 0.6)
    vector = nn.Parameter(torch.zeros(4))
    plan = TuningPlan(800, 4, 123.0, 456.0, whole=0.0, min_timestep=100, seed=0)

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        a = ALPHA_BAR[t].view(-1, 1, 1, 1)
        return (x_t - a.sqrt() * vector.view(1, 4, 1, 1)) / (1 - a).sqrt()

    tuning = textual_inversion(plan, schedule(), z_0, predict, vector)
    assert tuning.optimizer.param_groups[0]["peak"] == LEARNING_RATE
    while not tuning.done:
        tuning.step()
    torch.testing.assert_close(vector.detach(), torch.full((4,), 0.6), rtol=0, atol=0.02)
