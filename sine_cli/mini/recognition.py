"""Recognising noun, style and place in a picture: the batches and the loss that teach it, and a small
convolutional network that learns it first.

The scorer's image tower is a transformer, as everybody's CLIP is, and from so few pictures transformers are
slow to see shapes. The network is quick; the tower then learns from its features as well (`clip.py`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sine_cli.mini.dataset import Shard
from sine_cli.mini.training import DEVICE, Length, Loop, Report, autocast
from sine_cli.mini.vocabulary import COLOURS, NOUNS, PLACES, STYLES

SIDE = 128
"""Pixels on a side of the pictures that scorer and network see."""
FEATURES = 192
"""Channels of the network's features in cells of 16 pixels."""
_CLASSES = (list(NOUNS), list(STYLES), [*PLACES, *COLOURS])
_WEIGHTS = (1.0, 0.5, 0.5)
"""Of naming noun, style and place in the loss: nouns are the slowest to learn."""


@dataclass(frozen=True)
class Squares:
    """The square pictures of one shard: (N, 128, 128, 3) of 0..255, of each the number of its caption, and
    (N, 3) the numbers of noun, style and place or colour, -100 where there is none."""

    pictures: np.ndarray
    captions: Tensor
    targets: Tensor


def squares(shards: list[Shard], captions: list[Tensor]) -> list[Squares]:
    """Those of the shards that are square, each with the numbers of its own `captions`, (N,)."""
    return [
        Squares(shard.pictures, captions[i], _targets(shard.texts))
        for i, shard in enumerate(shards)
        if shard.height == shard.width == SIDE
    ]


def batch(sets: list[Squares], size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """`size` pictures of one shard, augmented, on the device: (B, 3, 128, 128) of -1..1, caption numbers,
    targets."""
    chosen = sets[rng.integers(len(sets))]
    index = np.sort(rng.choice(len(chosen.pictures), size, replace=False))
    pixels = torch.from_numpy(np.array(chosen.pictures[index])).to(DEVICE)
    pictures = _augmented(rng, pixels.permute(0, 3, 1, 2).float() / 127.5 - 1)
    return pictures, chosen.captions[index].to(DEVICE), chosen.targets[index].to(DEVICE)


def new_heads(width: int) -> nn.ModuleList:
    """One linear layer each for noun, style, and place or colour."""
    return nn.ModuleList(nn.Linear(width, len(words)) for words in _CLASSES)


def logits(heads: nn.ModuleList, features: Tensor) -> list[Tensor]:
    """Of noun, style, and place or colour, (B, words), from features (B, D)."""
    return [head(features).float() for head in heads]


def naming_loss(names: list[Tensor], targets: Tensor) -> Tensor:
    """Cross-entropies of the three logits, weighed; each the mean over the pictures whose name is known."""
    losses = []
    for i, (name, weight) in enumerate(zip(names, _WEIGHTS, strict=True)):
        known = targets[:, i] >= 0
        total = F.cross_entropy(name, targets[:, i], ignore_index=-100, reduction="sum")
        losses.append(weight * total / known.sum().clamp(min=1))
    return torch.stack(losses).sum()


def imitation_loss(names: list[Tensor], goals: list[Tensor]) -> Tensor:
    """How far the logits are from those of the network (Hinton et al., 2015)."""
    losses = [
        weight * F.kl_div(name.log_softmax(-1), goal.softmax(-1), reduction="batchmean")
        for name, goal, weight in zip(names, goals, _WEIGHTS, strict=True)
    ]
    return torch.stack(losses).sum()


def new_network() -> Any:
    """A residual network whose third stage has FEATURES channels in cells of 16 pixels."""
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(
        embedding_size=48,
        hidden_sizes=[48, 96, FEATURES, 256],
        depths=[1, 1, 2, 1],
        layer_type="basic",
    )
    return ResNetModel(config)


@torch.no_grad()
def see(namer: Any, pictures: Tensor) -> tuple[Tensor, list[Tensor]]:
    """What the trained network makes of pictures (B, 3, H, W) of -1..1.

    Returns:
        Its features in cells of 16 pixels, (B, H / 16 * W / 16, FEATURES), about zero; its logits of noun,
        style, and place or colour.
    """
    out = namer.network(pictures.contiguous(memory_format=torch.channels_last), output_hidden_states=True)
    cells = out.hidden_states[-2].flatten(2).transpose(1, 2).float()
    return cells - cells.mean((0, 1)), logits(namer.heads, out.pooler_output.flatten(1))


class _Namer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = new_network()
        self.heads = new_heads(256)


def train(sets: list[Squares], checkpoint: Path, length: Length, report: Report) -> tuple[nn.Module, Loop]:
    """Train the network.

    Returns:
        It and its heads (`.network`, `.heads`), in eval mode.
    """
    torch.manual_seed(0)
    namer: Any = _Namer()
    namer.to(DEVICE, memory_format=torch.channels_last)
    loop = Loop(namer, checkpoint, steps=length.steps, learning_rate=2e-3, warmup=100, weight_decay=0.05)

    def loss(step: int) -> tuple[Tensor, int]:
        x, _, targets = batch(sets, length.batch, np.random.default_rng((step, 3)))
        with autocast():
            seen = namer.network(x.contiguous(memory_format=torch.channels_last)).pooler_output.flatten(1)
            return naming_loss(logits(namer.heads, seen), targets), len(x)

    loop.run(loss, report)
    return namer.eval().requires_grad_(False), loop


def _targets(texts: list[dict[str, str]]) -> Tensor:
    """(N, 3): noun, style, place or colour; -100 where there is none."""
    keys = ("noun", "style", "place")
    return torch.tensor(
        [
            [words.index(text[key]) if text[key] else -100 for key, words in zip(keys, _CLASSES, strict=True)]
            for text in texts
        ]
    )


def _augmented(rng: np.random.Generator, x: Tensor) -> Tensor:
    """The batch mirrored, cropped a little, lighter or darker: what does not change a caption."""
    if rng.random() < 0.5:
        x = x.flip(-1)
    side = int(rng.integers(100, SIDE + 1))
    top, left = rng.integers(0, SIDE - side + 1, 2)
    x = F.interpolate(x[..., top : top + side, left : left + side], size=(SIDE, SIDE), mode="bilinear")
    return (x * float(rng.uniform(0.8, 1.15)) + float(rng.uniform(-0.12, 0.12))).clamp(-1, 1)
