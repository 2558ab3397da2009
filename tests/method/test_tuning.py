"""Tuning on a toy model: the loss, what is drawn, the learning rate, and going on exactly."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from sine_cli.errors import SineError
from sine_cli.method.schedule import NoiseSchedule, Prediction
from sine_cli.method.tuning import LOOK_EVERY, Examples, Patches, Tuning, TuningPlan, settled

PLAN = TuningPlan(
    steps=30, batch=4, learning_rate=1e-2, position_learning_rate=3e-2, whole=0.5, min_timestep=0, seed=0
)
ALPHA_BAR = torch.linspace(0.999, 0.01, 1000)


def examples(*, patches: bool = True) -> Examples:
    generator = torch.Generator().manual_seed(5)
    squares, own = torch.randn(4, 2, 4, 4, generator=generator), torch.randn(2, 2, 3, 6, generator=generator)
    boxes = torch.rand(6, 4, generator=generator)
    return Examples(
        patches=[Patches(squares, boxes[:4]), Patches(own, boxes[4:])] if patches else [],
        whole=torch.randn(1, 2, 3, 6, generator=generator),
    )


class Toy:
    """A tiny tuned model with both kinds of parameters; keeps what it was shown."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(9)
        self.lora = nn.Parameter(torch.randn(2, 2, generator=generator))
        self.position = nn.Parameter(torch.zeros(4, 2))
        self.shown: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def __call__(self, x_t: Tensor, t: Tensor, boxes: Tensor | None) -> Tensor:
        self.shown.append((x_t, t, boxes))
        told = torch.einsum("bchw,cd->bdhw", x_t, self.lora)
        return told if boxes is None else told + (boxes @ self.position)[:, :, None, None]

    def places(self) -> list[Tensor]:
        """The boxes that it was shown."""
        return [boxes for _, _, boxes in self.shown if boxes is not None]


def tuning(
    toy: Toy,
    plan: TuningPlan = PLAN,
    prediction: Prediction = "epsilon",
    learned_from: Examples | None = None,
) -> Tuning:
    schedule = NoiseSchedule(ALPHA_BAR, prediction)
    return Tuning(plan, schedule, learned_from or examples(), toy, [toy.lora], [toy.position])


@pytest.mark.parametrize("stop", [1, 13, 29])
def test_going_on_from_a_saved_state_equals_never_having_stopped(stop: int) -> None:
    unbroken, toy = Toy(), Toy()
    through = tuning(unbroken)
    losses = [through.step() for _ in range(30)]
    broken = tuning(toy)
    before = [broken.step() for _ in range(stop)]
    state = {name: tensor.clone() for name, tensor in broken.state().items()}
    later_toy = Toy()
    later = tuning(later_toy)
    later.load_state(state)
    assert later.taken == stop
    after = [later.step() for _ in range(30 - stop)]
    assert before + after == losses
    assert later.done and through.done
    for name, tensor in through.state().items():
        assert torch.equal(later.state()[name], tensor), name


def test_a_saved_state_is_a_copy_that_further_steps_leave_alone() -> None:
    under_way = tuning(Toy())
    under_way.step()
    state = under_way.state()
    kept = {name: tensor.clone() for name, tensor in state.items()}
    under_way.step()
    assert all(torch.equal(state[name], kept[name]) for name in kept)


def test_tuning_lowers_the_loss_and_moves_both_kinds_of_parameters() -> None:
    toy = Toy()
    start = toy.lora.detach().clone()
    under_way = tuning(toy, replace(PLAN, steps=300))
    losses = [under_way.step() for _ in range(300)]
    assert sum(losses[-50:]) < 0.5 * sum(losses[:50])
    assert not torch.equal(toy.lora, start)
    assert torch.count_nonzero(toy.position) > 0


def test_the_loss_of_epsilon_is_the_squared_error_of_v() -> None:
    """The same model told in eps and in v has the same loss: w(t) = 1 + 1 / SNR turns one into the other."""
    t = torch.tensor([3, 500, 990])
    generator = torch.Generator().manual_seed(2)
    z_0, eps, guess = torch.randn(3, 3, 2, 4, 4, generator=generator)
    in_eps, in_v = tuning(Toy()), tuning(Toy(), prediction="v_prediction")
    a = ALPHA_BAR[t].view(-1, 1, 1, 1)
    z_t = in_eps.schedule.add_noise(z_0, eps, t)
    guess_of_v = (guess - (1 - a).sqrt() * z_t) / a.sqrt()
    expected = in_v._error(guess_of_v, in_v.schedule.target(z_0, eps, t), t)
    torch.testing.assert_close(in_eps._error(guess, in_eps.schedule.target(z_0, eps, t), t), expected)


def test_the_loss_of_epsilon_is_the_same_for_models_of_epsilon_and_of_v() -> None:
    t, plan = torch.tensor([3, 500, 990]), replace(PLAN, loss="epsilon")
    generator = torch.Generator().manual_seed(2)
    z_0, eps, guess = torch.randn(3, 3, 2, 4, 4, generator=generator)
    in_eps, in_v = tuning(Toy(), plan), tuning(Toy(), plan, prediction="v_prediction")
    a = ALPHA_BAR[t].view(-1, 1, 1, 1)
    guess_of_v = (guess - (1 - a).sqrt() * in_eps.schedule.add_noise(z_0, eps, t)) / a.sqrt()
    expected = (guess - eps).square().mean()
    torch.testing.assert_close(in_eps._error(guess, eps, t), expected)
    torch.testing.assert_close(in_v._error(guess_of_v, in_v.schedule.target(z_0, eps, t), t), expected)


def test_pictures_of_the_class_count_in_the_loss_and_the_gradient() -> None:
    """A toy that predicts nothing but for pictures of the class, whose error is all there is to learn."""

    class OfClass(Toy):
        def __call__(self, x_t: Tensor, t: Tensor, boxes: Tensor | None) -> Tensor:
            return super().__call__(x_t, t, None) * (0 if boxes is not None else 1)

    toy, alone = OfClass(), OfClass()
    start = toy.lora.detach().clone()
    prior = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(8))
    tuning(alone).step()
    assert torch.equal(alone.lora, start)
    under_way = tuning(toy, learned_from=replace(examples(), prior=prior))
    under_way.step()
    assert not torch.equal(toy.lora, start)


def test_pictures_of_the_class_are_learned_beside_the_picture_and_without_a_place() -> None:
    prior = 5 + torch.zeros(3, 2, 4, 4)
    toy = Toy()
    under_way = tuning(toy, learned_from=replace(examples(), prior=prior))
    under_way.schedule = NoiseSchedule(torch.full((1000,), 1 - 1e-9))  # nearly no noise: z_t is the picture
    for _ in range(6):
        under_way.step()
    own, of_class = toy.shown[::2], toy.shown[1::2]
    assert all(boxes is not None for _, _, boxes in own)
    for x_t, _, boxes in of_class:
        assert boxes is None
        torch.testing.assert_close(x_t, prior[:1].expand(4, -1, -1, -1), rtol=0, atol=1e-2)


@pytest.mark.parametrize(("whole", "learned_from"), [(1.0, examples()), (0.0, examples(patches=False))])
def test_steps_on_the_whole_picture_see_its_latents_with_the_whole_box(
    whole: float, learned_from: Examples
) -> None:
    toy = Toy()
    under_way = tuning(toy, replace(PLAN, whole=whole), learned_from=learned_from)
    for _ in range(5):
        under_way.step()
    assert {x_t.shape for x_t, _, _ in toy.shown} == {(4, 2, 3, 6)}
    for boxes in toy.places():
        assert torch.equal(boxes, torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(4, 4))


def test_steps_on_patches_see_each_patch_with_its_own_box() -> None:
    toy, learned_from = Toy(), examples()
    under_way = tuning(toy, replace(PLAN, whole=0.0, steps=200))
    under_way.schedule = NoiseSchedule(torch.full((1000,), 1 - 1e-9))  # nearly no noise: z_t is the patch
    for _ in range(40):
        under_way.step()
    pairs = {
        tuple(box.tolist()): patch
        for patches in learned_from.patches
        for box, patch in zip(patches.boxes, patches.latents, strict=True)
    }
    seen: set[tuple[float, ...]] = set()
    for (x_t, _, _), boxes in zip(toy.shown, toy.places(), strict=True):
        for row, box in zip(x_t, boxes, strict=True):
            seen.add(tuple(box.tolist()))
            torch.testing.assert_close(row, pairs[tuple(box.tolist())], rtol=0, atol=1e-2)
    assert seen == set(pairs)


def test_about_the_asked_share_of_steps_is_on_the_whole_picture() -> None:
    toy = Toy()
    under_way = tuning(toy, replace(PLAN, whole=0.3, steps=400, batch=1))
    for _ in range(400):
        under_way.step()
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    share = sum(torch.equal(boxes, whole) for boxes in toy.places()) / 400
    assert 0.23 < share < 0.37


def test_no_time_below_the_least_is_learned_and_all_above_may_be() -> None:
    toy = Toy()
    under_way = tuning(toy, replace(PLAN, min_timestep=990, steps=60))
    for _ in range(60):
        under_way.step()
    assert {t for _, times, _ in toy.shown for t in times.tolist()} == set(range(990, 1000))


def test_the_learning_rate_rises_over_the_warm_up_and_falls_to_nearly_zero() -> None:
    under_way = tuning(Toy(), replace(PLAN, steps=100))
    rates: list[tuple[float, float]] = []
    while not under_way.done:
        under_way.step()
        lora, position = under_way.optimizer.param_groups
        rates.append((lora["lr"], position["lr"]))
    of_lora = [lora for lora, _ in rates]
    highest = of_lora.index(max(of_lora))
    assert of_lora[0] == pytest.approx(1e-2 / 20)
    assert 15 <= highest < 20
    assert of_lora[: highest + 1] == sorted(of_lora[: highest + 1])
    assert of_lora[highest:] == sorted(of_lora[highest:], reverse=True)
    assert of_lora[-1] == pytest.approx(1e-2 / 100)
    assert all(position == pytest.approx(3 * lora) for lora, position in rates)


def test_the_same_seed_tunes_the_same_and_another_seed_otherwise() -> None:
    first, same, other = (tuning(Toy(), replace(PLAN, seed=seed)) for seed in (0, 0, 1))
    assert [first.step() for _ in range(3)] == [same.step() for _ in range(3)]
    assert first.step() != other.step()


class Cramped(Toy):
    """A toy in a memory that holds the activations of a few examples."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def __call__(self, x_t: Tensor, t: Tensor, boxes: Tensor | None) -> Tensor:
        if len(x_t) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return super().__call__(x_t, t, boxes)


PRIOR = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(8))


@pytest.mark.parametrize(
    ("batch", "room", "at_once"), [(4, 3, 2), (4, 1, 1), (5, 3, 3), (5, 2, 2), (7, 1, 1)]
)
@pytest.mark.parametrize("prior", [None, PRIOR], ids=["alone", "with pictures of the class"])
def test_where_memory_runs_out_the_same_is_learned_in_parts(
    batch: int, room: int, at_once: int, prior: Tensor | None
) -> None:
    plan, learned_from = replace(PLAN, batch=batch), replace(examples(), prior=prior)
    roomy, cramped = Toy(), Cramped(room)
    at_ease = tuning(roomy, plan, learned_from=learned_from)
    in_parts = tuning(cramped, plan, learned_from=learned_from)
    losses = [(at_ease.step(), in_parts.step()) for _ in range(5)]
    assert (at_ease.at_once, in_parts.at_once) == (batch, at_once)
    for whole, parts in losses:
        assert parts == pytest.approx(whole, rel=1e-6)
    torch.testing.assert_close(cramped.lora, roomy.lora, rtol=0, atol=1e-6)
    torch.testing.assert_close(cramped.position, roomy.position, rtol=0, atol=1e-6)
    assert torch.equal(in_parts.generator.get_state(), at_ease.generator.get_state())
    # Nothing is tried twice that failed once: all but the first step begin with what fits
    calls = len(cramped.shown)
    in_parts.step()
    assert len(cramped.shown) - calls == -(-batch // at_once) * (1 if prior is None else 2)


def test_a_tuning_in_parts_goes_on_in_parts() -> None:
    unbroken, broken = tuning(Cramped(1)), tuning(Cramped(1))
    losses = [unbroken.step() for _ in range(6)]
    before = [broken.step() for _ in range(3)]
    toy = Cramped(1)
    later = tuning(toy)
    later.load_state(broken.state())
    assert later.at_once == 1
    assert before + [later.step() for _ in range(3)] == losses
    assert len(toy.shown) == 3 * PLAN.batch


def test_memory_that_cannot_hold_one_example_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(SineError) as caught:
        tuning(Cramped(0)).step()
    assert caught.value.message == "memory ran out while tuning, on a single example"
    assert caught.value.hint == "take less with `sine tune --memory low`, or a smaller base"


def test_another_failure_of_the_model_is_not_taken_for_memory() -> None:
    class Broken(Toy):
        def __call__(self, x_t: Tensor, t: Tensor, boxes: Tensor | None) -> Tensor:
            self.shown.append((x_t, t, boxes))
            return torch.matmul(torch.zeros(2, 3), torch.zeros(2, 3))

    toy = Broken()
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        tuning(toy).step()
    assert len(toy.shown) == 1


# --------------------------------------------------------------------------------------------- stopping early


@pytest.mark.parametrize(
    ("distances", "expected"),
    [
        ([], False),
        ([0.3, 0.1, 0.1, 0.1], False),  # too few
        ([0.3, 0.1, 0.1, 0.1, 0.1], True),  # no nearer
        ([0.3, 0.1, 0.1, 0.2, 0.05], True),  # farther
        ([0.3, 0.1, 0.1, 0.07, 0.07], False),  # nearer
        ([0.3, 0.1, 0.1, 0.09, 0.082], True),  # hardly nearer
        ([0.3, 0.1, 0.1, 0.09, 0.078], False),
        ([0.3, 0.15, 0.05, 0.1, 0.04], False),  # one look's noise decides nothing
        ([0.3, 0.1, 0.1, 0.05, 0.05, 0.05], False),  # still nearer than the two before
        ([0.3, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05], True),
        ([0.3, 0.29, 0.3, 0.28, 0.3], False),  # has not begun yet
        ([0.3, 0.0, 0.0, 0.0, 0.0], False),  # as near as can be
    ],
)
def test_a_tuning_has_settled_where_two_looks_are_hardly_nearer_than_the_two_before(
    distances: list[float], expected: bool
) -> None:
    assert settled(distances) == expected


def test_whether_it_has_settled_does_not_depend_on_the_unit_of_the_distance() -> None:
    generator = torch.Generator().manual_seed(4)
    for _ in range(50):
        distances = torch.rand(5, generator=generator).tolist()
        assert settled(distances) == settled([4 * each for each in distances])


EARLY = replace(PLAN, steps=400, stop_early=True)
LEVEL = 0.5 * EARLY.learning_rate


def run_auto(under_way: Tuning, distances: list[float]) -> list[float]:
    """The learning rates of a tuning whose looks find these distances."""
    rates: list[float] = []
    while not under_way.done:
        if under_way.wants_look:
            under_way.look(distances[len(under_way.distances)])
        under_way.step()
        rates.append(under_way.optimizer.param_groups[0]["lr"])
    return rates


def test_a_tuning_that_has_settled_ends_after_its_learning_rate_has_fallen() -> None:
    under_way = tuning(Toy(), EARLY)
    assert under_way.steps is None
    distances = [0.4, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05]
    rates = run_auto(under_way, distances)
    assert under_way.distances == distances
    assert (under_way.falls_from, under_way.steps, under_way.taken) == (300, 375, 375)
    assert rates[20:300] == [LEVEL] * 280
    fallen = [LEVEL * (1 - i / 75) for i in range(75)]
    assert rates[300:] == pytest.approx(fallen)


@pytest.mark.parametrize(("most", "falls_from"), [(400, 320), (60, 48), (50, 40), (2, 1), (1, 1)])
def test_a_tuning_that_never_settles_ends_at_the_most_steps_fallen_too(most: int, falls_from: int) -> None:
    under_way = tuning(Toy(), replace(EARLY, steps=most))
    rates = run_auto(under_way, [0.5**i for i in range(20)])
    assert (under_way.taken, under_way.falls_from) == (most, falls_from)
    assert len(under_way.distances) == 1 + (falls_from - 1) // LOOK_EVERY
    if falls_from > 20:  # the warm-up's
        fallen = [1 - i / (most - falls_from) for i in range(most - falls_from)]
        assert rates[falls_from:] == pytest.approx([LEVEL * share for share in fallen])


@pytest.mark.parametrize("stop", [1, 199, 200, 201, 230])
def test_a_tuning_that_may_stop_early_goes_on_exactly(stop: int) -> None:
    distances = [0.4, 0.1, 0.1, 0.1, 0.1]
    through = tuning(Toy(), EARLY)
    rates = run_auto(through, distances)
    assert len(rates) == 250
    broken = tuning(Toy(), EARLY)
    for _ in range(stop):
        if broken.wants_look:
            broken.look(distances[len(broken.distances)])
        broken.step()
    later = tuning(Toy(), EARLY)
    later.load_state(broken.state())
    assert (later.distances, later.falls_from) == (broken.distances, broken.falls_from)
    assert run_auto(later, distances) == rates[stop:]
    for name, tensor in through.state().items():
        assert torch.equal(later.state()[name], tensor), name
