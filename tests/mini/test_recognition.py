"""Naming things: what the losses ask, and the network that learns to in a moment on a toy."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sine_cli.mini import recognition
from sine_cli.mini.recognition import FEATURES, Squares
from sine_cli.mini.training import Length
from sine_cli.mini.vocabulary import COLOURS, NOUNS, PLACES, STYLES

RED, BLUE = 0, 1


@pytest.fixture
def toy() -> Squares:
    """Red squares are noun 0, blue ones noun 1; their style is not known."""
    nouns = torch.arange(128) % 2
    pictures = np.zeros((128, 128, 128, 3), np.uint8)
    pictures[nouns == RED, 32:96, 32:96, 0] = 255
    pictures[nouns == BLUE, 32:96, 32:96, 2] = 255
    targets = torch.stack([nouns, torch.full_like(nouns, -100), nouns], dim=1)
    targets[0, 1] = 0
    return Squares(pictures, torch.arange(128), targets)


def test_a_batch_keeps_pictures_captions_and_names_together(toy: Squares) -> None:
    drawn = recognition.batch([toy], 64, np.random.default_rng(0))
    pictures, captions, targets = (tensor.cpu() for tensor in drawn)
    assert pictures.shape == (64, 3, 128, 128)
    assert pictures.abs().max() <= 1
    assert torch.equal(targets, toy.targets[captions])
    redder = pictures[:, 0].mean((1, 2)) > pictures[:, 2].mean((1, 2))
    assert torch.equal(redder, targets[:, 0] == RED)


def test_the_network_sees_cells_and_names(toy: Squares, tmp_path: Path) -> None:
    namer, loop = recognition.train([toy], tmp_path, Length(2, batch=64), lambda _: None)
    pictures, _, _ = recognition.batch([toy], 64, np.random.default_rng(1))
    cells, names = recognition.see(namer, pictures)
    assert (loop.seen, namer.training) == (128, False)
    assert cells.shape == (64, 64, FEATURES)
    assert cells.mean((0, 1)).abs().max() < 1e-5, (
        "about zero: what differs from cell to cell is what is taught"
    )
    assert [name.shape[1] for name in names] == [len(NOUNS), len(STYLES), len(PLACES) + len(COLOURS)]
    again, _ = recognition.see(namer, pictures)
    assert torch.equal(cells, again)


def test_imitation_is_perfect_for_the_same_logits() -> None:
    features = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    names = recognition.logits(recognition.new_heads(8), features)
    assert recognition.imitation_loss(names, names).item() == pytest.approx(0, abs=1e-5)
    others = recognition.logits(recognition.new_heads(8), features)
    assert recognition.imitation_loss(others, names).item() > 0.01


def test_a_name_that_is_not_known_costs_nothing() -> None:
    names = [torch.randn(2, 3, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    known = torch.tensor([[0, 1, 2]])
    half = torch.tensor([[0, 1, 2], [-100, -100, -100]])
    alone = recognition.naming_loss([name[:1] for name in names], known)
    assert recognition.naming_loss(names, half).item() == pytest.approx(alone.item())
    assert recognition.naming_loss(names, torch.full_like(half, -100)).item() == 0
