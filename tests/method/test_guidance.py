"""Guidance is one weighted sum: its identities, and which branches a step pays for."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sine_cli.method.guidance import Branch, Guidance, Guide, GuidedModel, mix
from sine_cli.method.sampling import DDIM, sample
from sine_cli.method.schedule import NoiseSchedule

NULL = Branch(torch.zeros(3, 2))
BASE = Branch(torch.ones(3, 2))
WHOLE = torch.tensor([0.0, 0.0, 1.0, 1.0])
TUNED = Branch(torch.full((3, 2), 2.0), WHOLE, tuned="tuned")
STYLE = Branch(torch.full((3, 2), 3.0), WHOLE, tuned="style")
NAMES = {id(NULL): "null", id(BASE): "base", id(TUNED): "tuned", id(STYLE): "style"}
T = 1000


class RecordingBackbone:
    """A nonlinear toy model that keeps which branches each step asked for."""

    def __init__(self) -> None:
        self.asked: dict[int, list[str]] = {}

    def __call__(self, x_t: Tensor, t: int, branches: list[Branch]) -> list[Tensor]:
        assert t not in self.asked, "one call a step"
        self.asked[t] = [NAMES[id(branch)] for branch in branches]
        return [self.prediction(x_t, t, branch) for branch in branches]

    @staticmethod
    def prediction(x_t: Tensor, t: int, branch: Branch) -> Tensor:
        return torch.tanh(x_t + branch.prompt.mean()) + (t / T) * branch.prompt.mean()


@pytest.fixture
def backbone() -> RecordingBackbone:
    return RecordingBackbone()


@pytest.fixture
def x_t() -> Tensor:
    return torch.randn(2, 4, 5, 3, generator=torch.Generator().manual_seed(0))


def guided(backbone: RecordingBackbone, w: float, v: float, K: int) -> GuidedModel:
    """One guide, in the words of Eq. 3."""
    return GuidedModel(backbone, Guidance(w, (Guide(1 - v, K),)), null=NULL, base=BASE, guides=(TUNED,))


def schedule() -> NoiseSchedule:
    return NoiseSchedule(torch.linspace(0.999, 0.01, T))


def run(backbone: RecordingBackbone, w: float, v: float, K: int, x_T: Tensor, steps: int = 20) -> Tensor:
    return sample(guided(backbone, w, v, K), x_T, schedule(), DDIM(schedule()), steps)


def guides(most: float = 1.0) -> st.SearchStrategy[tuple[Guide, ...]]:
    """Up to four guides whose weights sum to at most `most`."""
    one = st.builds(Guide, st.floats(0, most / 4), st.integers(0, T))
    return st.lists(one, max_size=4).map(tuple)


@given(w=st.floats(1, 100), guides=guides(), t=st.integers(0, T - 1))
def test_weights_sum_to_one(w: float, guides: tuple[Guide, ...], t: int) -> None:
    weights = Guidance(w, guides).weights(t, t - 1)
    assert len(weights) == 2 + len(guides)
    assert sum(weights) == pytest.approx(1, abs=1e-12)


@given(w=st.floats(1, 100), v=st.floats(0, 1), K=st.integers(0, T))
def test_one_guide_of_weight_1_minus_v_is_equation_3_until_t_reaches_K_and_equation_2_after(
    w: float, v: float, K: int
) -> None:
    guidance = Guidance(w, (Guide(1 - v, K),))
    assert guidance.weights(K + 1, K) == pytest.approx([1 - w, w * v, w * (1 - v)], abs=1e-12)
    assert guidance.weights(K, K - 1) == [1 - w, w, 0]


@given(w=st.floats(1, 100), guides=guides(), t=st.integers(0, T - 1))
def test_each_guide_has_its_weight_while_t_exceeds_its_own_K_and_the_base_has_the_rest(
    w: float, guides: tuple[Guide, ...], t: int
) -> None:
    _, base, *weights = Guidance(w, guides).weights(t, t - 1)
    assert weights == [w * guide.weight * (t > guide.switch_step) for guide in guides]
    assert base == pytest.approx(w - sum(weights), abs=1e-12)


@given(b=st.floats(0, 1), K=st.integers(0, T), steps=st.integers(1, 200))
def test_however_few_the_steps_a_guide_has_its_weight_down_to_K_and_no_further(
    b: float, K: int, steps: int
) -> None:
    """Over all steps its weight, by their lengths, is b (T - K), as with T steps of length 1."""
    guide = Guide(b, K)
    for spacing in ("leading", "trailing", "linspace"):
        pairs = NoiseSchedule(torch.linspace(0.999, 0.01, T), spacing=spacing).pairs(steps)
        lengths = [(t, max(s, 0)) for t, s in pairs]
        total = sum(guide.over(t, s) * (t - end) for (t, s), (_, end) in zip(pairs, lengths, strict=True))
        assert total == pytest.approx(b * max(pairs[0][0] - K, 0), abs=1e-6)
        assert all(guide.over(t, s) == (b if t > K else 0) for t, s in pairs if not t > K > s)


def test_a_step_that_crosses_K_is_guided_by_its_share_above(backbone: RecordingBackbone, x_t: Tensor) -> None:
    """From 401 to 361 with K = 391 a quarter of the step lies above."""
    w, v, t = 7.5, 0.6, 401
    eps, eps_c, eps_tuned = (backbone.prediction(x_t, t, branch) for branch in (NULL, BASE, TUNED))
    b = (1 - v) / 4
    expected = w * ((1 - b) * eps_c + b * eps_tuned) + (1 - w) * eps
    crossing = replace(guided(backbone, w, v, 391), ends={401: 361})
    torch.testing.assert_close(crossing(x_t, t), expected, rtol=1e-5, atol=1e-5)


@given(w=st.floats(1, 100), guides=guides(), t=st.integers(0, T - 1))
def test_the_order_of_guides_does_not_matter(w: float, guides: tuple[Guide, ...], t: int) -> None:
    (null, base, *forth), (null_back, base_back, *back) = (
        Guidance(w, order).weights(t, t - 1) for order in (guides, guides[::-1])
    )
    assert (null, base, forth) == (null_back, base_back, back[::-1])


def test_a_guided_step_is_equation_3_written_out(backbone: RecordingBackbone, x_t: Tensor) -> None:
    w, v, t = 7.5, 0.7, 600
    eps, eps_c, eps_tuned = (backbone.prediction(x_t, t, branch) for branch in (NULL, BASE, TUNED))
    expected = w * (v * eps_c + (1 - v) * eps_tuned) + (1 - w) * eps
    torch.testing.assert_close(guided(backbone, w, v, 400)(x_t, t), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("t", [400, 399, 0])
def test_from_K_on_a_step_is_equation_2(backbone: RecordingBackbone, x_t: Tensor, t: int) -> None:
    w = 7.5
    eps, eps_c = (backbone.prediction(x_t, t, branch) for branch in (NULL, BASE))
    torch.testing.assert_close(guided(backbone, w, 0.3, 400)(x_t, t), (1 - w) * eps + w * eps_c)


def test_a_step_with_two_guides_is_the_equation_of_several_written_out(
    backbone: RecordingBackbone, x_t: Tensor
) -> None:
    """t = 600 lies above both K; t = 400 above that of the style alone; t = 100 below both."""
    w = 7.5
    own, style = Guide(0.3, 500), Guide(0.4, 200)
    model = GuidedModel(backbone, Guidance(w, (own, style)), NULL, BASE, (TUNED, STYLE))
    for t, b_own, b_style in ((600, 0.3, 0.4), (400, 0.0, 0.4), (100, 0.0, 0.0)):
        eps, eps_c, eps_own, eps_style = (
            backbone.prediction(x_t, t, branch) for branch in (NULL, BASE, TUNED, STYLE)
        )
        conditional = (1 - b_own - b_style) * eps_c + b_own * eps_own + b_style * eps_style
        torch.testing.assert_close(model(x_t, t), w * conditional + (1 - w) * eps, rtol=1e-5, atol=1e-5)
    rows = [["null", "base", "tuned", "style"], ["null", "base", "style"], ["null", "base"]]
    assert list(backbone.asked.values()) == rows


def test_a_guide_split_in_two_halves_is_the_whole(backbone: RecordingBackbone, x_t: Tensor) -> None:
    half = Guide(0.2, 400)
    split = GuidedModel(backbone, Guidance(7.5, (half, half)), NULL, BASE, (TUNED, TUNED))
    whole = guided(RecordingBackbone(), 7.5, 0.6, 400)
    torch.testing.assert_close(split(x_t, 600), whole(x_t, 600))


def test_guides_that_share_all_of_it_leave_the_base_no_row(backbone: RecordingBackbone, x_t: Tensor) -> None:
    sharing = (Guide(0.25, 400), Guide(0.75, 400))
    GuidedModel(backbone, Guidance(7.5, sharing), NULL, BASE, (TUNED, STYLE))(x_t, 600)
    assert backbone.asked == {600: ["null", "tuned", "style"]}


def test_at_v_1_it_is_plain_classifier_free_guidance(backbone: RecordingBackbone, x_t: Tensor) -> None:
    w = 7.5
    for t in (T - 1, 401, 400, 0):
        eps, eps_c = (backbone.prediction(x_t, t, branch) for branch in (NULL, BASE))
        assert torch.equal(guided(backbone, w, 1.0, 400)(x_t, t), (1 - w) * eps + w * eps_c)
    assert all(asked == ["null", "base"] for asked in backbone.asked.values())


def test_at_K_of_T_the_tuned_model_is_never_evaluated(backbone: RecordingBackbone, x_t: Tensor) -> None:
    plain = RecordingBackbone()
    assert torch.equal(run(backbone, 7.5, 0.7, T, x_t, steps=50), run(plain, 7.5, 1.0, 0, x_t, steps=50))
    assert len(backbone.asked) == 50
    assert all(asked == ["null", "base"] for asked in backbone.asked.values())


def test_a_step_costs_three_rows_while_t_exceeds_K_and_two_after(
    backbone: RecordingBackbone, x_t: Tensor
) -> None:
    run(backbone, 7.5, 0.7, 400, x_t)
    assert len(backbone.asked) == 20
    assert {len(asked) for t, asked in backbone.asked.items() if t > 400} == {3}
    assert {len(asked) for t, asked in backbone.asked.items() if t <= 400} == {2}
    assert sum(map(len, backbone.asked.values())) == 12 * 3 + 8 * 2  # of 951, 901, ..., 1, twelve exceed 400


def test_at_w_1_the_null_branch_is_never_evaluated(backbone: RecordingBackbone, x_t: Tensor) -> None:
    run(backbone, 1.0, 0.7, 400, x_t)
    assert {tuple(asked) for t, asked in backbone.asked.items() if t > 400} == {("base", "tuned")}
    assert {tuple(asked) for t, asked in backbone.asked.items() if t <= 400} == {("base",)}


def test_at_v_0_the_base_sees_no_prompt_while_t_exceeds_K(backbone: RecordingBackbone, x_t: Tensor) -> None:
    run(backbone, 7.5, 0.0, 400, x_t)
    assert {tuple(asked) for t, asked in backbone.asked.items() if t > 400} == {("null", "tuned")}
    assert {tuple(asked) for t, asked in backbone.asked.items() if t <= 400} == {("null", "base")}


def test_the_tuned_model_alone_costs_one_row(backbone: RecordingBackbone, x_t: Tensor) -> None:
    t = 700
    assert torch.equal(guided(backbone, 1.0, 0.0, 0)(x_t, t), backbone.prediction(x_t, t, TUNED))
    assert backbone.asked == {t: ["tuned"]}


def test_predictions_of_epsilon_and_v_mix_alike(x_t: Tensor) -> None:
    """Mixing v gives the same clean picture as mixing eps: the mix is linear and its weights sum to one."""
    weights, t = [-6.5, 5.25, 2.25], 600
    alpha_bar = torch.linspace(0.999, 0.01, T, dtype=torch.float64)
    in_eps = NoiseSchedule(alpha_bar, "epsilon")
    in_v = NoiseSchedule(alpha_bar, "v_prediction")
    x_t = x_t.double()
    eps = [
        torch.randn(x_t.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(i))
        for i in range(3)
    ]
    a = float(alpha_bar[t])
    v = [(e - (1 - a) ** 0.5 * x_t) / a**0.5 for e in eps]
    from_eps, from_v = (s.split(x_t, mix(weights, p), t) for s, p in ((in_eps, eps), (in_v, v)))
    torch.testing.assert_close(from_v, from_eps, rtol=1e-9, atol=1e-9)
