"""The training loop: interrupted and gone on with, it ends with the very same weights."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sine_cli.mini.training import Loop


def loop(folder: Path, steps: int = 12) -> Loop:
    torch.manual_seed(3)
    return Loop(nn.Linear(4, 2), folder, steps=steps, learning_rate=0.1, warmup=3)


def weights(training: Loop) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in training.model.parameters()]


def loss_of(training: Loop) -> Callable[[int], tuple[Tensor, int]]:
    def loss(step: int) -> tuple[Tensor, int]:
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        return (training.model(x) - x[:, :2]).pow(2).mean(), 8

    return loss


class Stopped(Exception):
    pass


def test_going_on_is_exact(tmp_path: Path) -> None:
    whole = loop(tmp_path / "whole")
    whole.run(loss_of(whole), lambda _: None)

    broken = loop(tmp_path / "broken")

    def interrupted(step: int) -> tuple[Tensor, int]:
        if step == 5:
            broken.save()
            raise Stopped
        return loss_of(broken)(step)

    with pytest.raises(Stopped):
        broken.run(interrupted, lambda _: None)
    resumed = loop(tmp_path / "broken")
    assert (resumed.step, resumed.seen) == (5, 40)
    resumed.run(loss_of(resumed), lambda _: None)

    for one, two in zip(weights(whole), weights(resumed), strict=True):
        assert torch.equal(one, two)
    with whole.averaged(), resumed.averaged():
        for one, two in zip(weights(whole), weights(resumed), strict=True):
            assert torch.equal(one, two)


def test_the_average_gives_way_to_the_weights_again(tmp_path: Path) -> None:
    training = loop(tmp_path)
    training.run(loss_of(training), lambda _: None)
    kept = weights(training)
    with training.averaged():
        assert not torch.equal(weights(training)[0], kept[0])
    assert torch.equal(weights(training)[0], kept[0])


def test_the_learning_rate_rises_and_falls(tmp_path: Path) -> None:
    training = loop(tmp_path, steps=100)
    rates = []
    for training.step in range(100):
        rates.append(training.learning_rate())
    assert rates[0] < rates[2]
    assert max(rates) == pytest.approx(0.1, rel=0.01)
    assert rates[-1] == pytest.approx(0.005, rel=0.1)


def test_a_loss_that_is_no_number_stops_it(tmp_path: Path) -> None:
    training = loop(tmp_path)
    with pytest.raises(FloatingPointError, match="step 1"):
        training.run(lambda _: (training.model(torch.ones(4)).sum() * float("nan"), 1), lambda _: None)
