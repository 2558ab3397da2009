"""The training loop: interrupted and gone on with, it ends with the very same weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sine_cli.mini.training import DEVICE, Loop, as_graphs, autocast


def loop(folder: Path, steps: int = 12) -> Loop:
    torch.manual_seed(3)
    model: Any = nn.Sequential(
        nn.Linear(4, 4),
        nn.BatchNorm1d(4),
        nn.Linear(4, 2),
        nn.Unflatten(1, (2, 1, 1)),
        nn.Conv2d(2, 2, 3, padding=1),  # as the autoencoder's: another order in memory than in a file
        nn.Flatten(),
    )
    model.to(memory_format=torch.channels_last)
    return Loop(model, folder, steps=steps, learning_rate=0.1, warmup=3, muon="2.weight")


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
    for one, two in zip(whole.model.buffers(), resumed.model.buffers(), strict=True):
        assert torch.equal(one, two), "what batch normalisation has counted"
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


def test_the_learning_rate_rises_stays_and_falls(tmp_path: Path) -> None:
    training = loop(tmp_path, steps=300)
    rates = []
    for training.step in range(300):
        rates.append(training.learning_rate())
    assert rates[0] == pytest.approx(0.1 / 3)
    assert rates[3] == rates[199] == 0.1, "a training lengthened before its last third changes nothing so far"
    assert rates[250] == pytest.approx(0.05)
    assert rates[-1] == pytest.approx(0.002)


def test_a_loss_that_is_no_number_stops_it(tmp_path: Path) -> None:
    training = loop(tmp_path)
    with pytest.raises(FloatingPointError, match="step 12"):
        training.run(lambda _: (training.model(torch.ones(2, 4)).sum() * float("nan"), 1), lambda _: None)


def test_no_cast_weight_is_kept_that_a_recorded_step_would_see_for_ever() -> None:
    with autocast():
        assert not torch.is_autocast_cache_enabled()


@pytest.mark.skipif(DEVICE.type == "cuda", reason="`test_gpu.py` has the other half")
def test_without_a_gpu_a_model_is_called_as_it_is() -> None:
    model = nn.Linear(2, 2)
    assert as_graphs(model, (torch.zeros(1, 2),)) is model
