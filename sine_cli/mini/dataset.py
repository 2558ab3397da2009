"""The training set on disk: pictures of several shapes in shards, and their latents once an autoencoder
stands.

A shard is `128x128-000.npy`, (N, H, W, 3) of 0..255, with `128x128-000.json`: caption and labels of each.
Each has its own seed, so a build that was interrupted goes on with the next missing shard.
"""

import json
import multiprocessing
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sine_cli.mini import pictures

SHARES = {
    (128, 128): 0.62,
    (96, 160): 0.065,
    (160, 96): 0.065,
    (112, 144): 0.065,
    (144, 112): 0.065,
    (192, 192): 0.12,
}
"""Height and width -> share of the training pictures: the native square, its area in other aspects, and a
larger one."""

SHARD = 2000
_SEED = 2023


@dataclass(frozen=True)
class Shard:
    """One file of pictures, all of one shape."""

    folder: Path
    height: int
    width: int
    number: int

    @property
    def name(self) -> str:
        return f"{self.height}x{self.width}-{self.number:03d}"

    @property
    def pictures(self) -> np.ndarray:
        """(N, H, W, 3) of 0..255, read from disk as needed."""
        return np.load(self.folder / f"{self.name}.npy", mmap_mode="r")

    @property
    def texts(self) -> list[dict[str, str]]:
        """Of each picture: caption, noun, style, place."""
        return json.loads((self.folder / f"{self.name}.json").read_text())


def shards(folder: Path, count: int, size: int = SHARD) -> list[Shard]:
    """The shards, of `size` pictures each, of about `count` pictures; at least one of every shape."""
    return [
        Shard(folder, height, width, number)
        for (height, width), share in SHARES.items()
        for number in range(max(1, round(count * share / size)))
    ]


def make(build: Path, wanted: list[Shard], size: int, on_done: Callable[[int, int], None]) -> None:
    """Compose the shards that are not there yet, on every core, `size` pictures each."""
    missing = [shard for shard in wanted if not (shard.folder / f"{shard.name}.npy").is_file()]
    if not missing:
        return
    missing[0].folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    with context.Pool(initializer=_open_painter, initargs=(build,)) as pool:
        jobs = [(shard, size) for shard in missing]
        for done, _ in enumerate(pool.imap_unordered(_compose, jobs), start=1):
            on_done(len(wanted) - len(missing) + done, len(wanted))


_painter: pictures.Painter


def _open_painter(build: Path) -> None:
    global _painter
    _painter = pictures.load(build)


def _compose(job: tuple[Shard, int]) -> None:
    shard, size = job
    rng = np.random.default_rng((_SEED, shard.height, shard.width, shard.number))
    examples = [_painter.draw(rng, shard.height, shard.width) for _ in range(size)]
    texts = [{"caption": example.caption, **asdict(example.labels)} for example in examples]
    (shard.folder / f"{shard.name}.json").write_text(json.dumps(texts))
    partial = shard.folder / f".{shard.name}.npy"
    with partial.open("wb") as file:
        np.save(file, np.stack([example.picture for example in examples]))
    partial.rename(shard.folder / f"{shard.name}.npy")
