"""Pictures to normalised latents, a file a shard, once the autoencoder stands."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sine_cli.mini.dataset import Shard
from sine_cli.mini.training import DEVICE, autocast

_BATCH = 50 if DEVICE.type == "cpu" else 250


def latents_path(shard: Shard) -> Path:
    return shard.folder / f"{shard.name}.latents.npy"


@torch.no_grad()
def encode(autoencoder: Any, shards: list[Shard], on_done: Callable[[int, int], None]) -> None:
    """Write the latents, (N, C, h, w) float16 as the encoder gives them, of each shard that has none yet."""
    autoencoder = autoencoder.to(DEVICE, memory_format=torch.channels_last)
    for done, shard in enumerate(shards, start=1):
        if latents_path(shard).is_file():
            continue
        pictures = shard.pictures
        parts = []
        for start in range(0, len(pictures), _BATCH):
            pixels = np.array(pictures[start : start + _BATCH])
            batch = torch.from_numpy(pixels).to(DEVICE).permute(0, 3, 1, 2).float() / 127.5 - 1
            with autocast():
                z = autoencoder.encode(batch.contiguous(memory_format=torch.channels_last)).latent
            parts.append(z.float().cpu().numpy().astype(np.float16))
        partial = shard.folder / f".{shard.name}.latents.npy"
        with partial.open("wb") as file:
            np.save(file, np.concatenate(parts))
        partial.rename(latents_path(shard))
        on_done(done, len(shards))


def scaling_factor(shards: list[Shard]) -> float:
    """What brings the latents to unit spread about zero: 1 / their root mean square."""
    squares = [
        float(np.square(np.load(latents_path(shard)).astype(np.float32)).mean()) for shard in shards[:4]
    ]
    return float(np.mean(squares) ** -0.5)
