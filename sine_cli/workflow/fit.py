"""Whether a picture or a tuning can fit the memory that is free, said before the work and not by its death.

The estimates are least amounts: what all models of the family certainly hold at once. Work that they refuse
cannot be done; work that they let pass may still run out. Measured on `mini` (peak less what was there
before) against the estimate, MiB, in bfloat16 and float32 as `sine edit` computes:

    size         decoding  estimate   U-Net, three rows  estimate
    512x512            83        35                  39         1
    1024x1024         210       140                 118         3
    2048x2048         657       560                 332        13
"""

from collections.abc import Iterator
from typing import Any

from sine_cli.errors import UserError
from sine_cli.models.adapter import FULL, TARGETS
from sine_cli.models.base import Base
from sine_cli.models.device import free_memory
from sine_cli.project.manifest import TuneSettings
from sine_cli.workflow.size import Size, sampled_size

FLOAT = 4
"""Bytes of what is kept in float32."""

TRAINED = 10
"""Bytes of a weight that is tuned: itself and its gradient in float32, and two moments of 8 bits."""

GIB = 2**30


def check_picture_fits(base: Base, name: str, size: Size, *, asked: bool) -> None:
    """Refuse a picture that cannot fit.

    Args:
        name: of the base.
        asked: whether the size was asked for by `--size`, or comes from the picture's aspect.

    Raises:
        UserError: with the estimate, what is free, and a size that would fit.
    """
    needed, free = picture_bytes(base, size), free_memory(base.device)
    if needed <= free:
        return
    which = f"--size: {size}" if asked else f"a picture of {size}"
    raise UserError(
        f"{which} needs at least {_gib(needed)} on `{name}`, {_gib(free)} are free",
        f"take a smaller one, for example `--size {_that_fits(base, size, free)}`",
    )


def _that_fits(base: Base, size: Size, free: int) -> Size:
    """The size made smaller until it fits, or is a single latent."""
    factor, share = base.autoencoder.factor, 1.0
    while True:
        share *= 0.95
        smaller = Size(*(max(factor, int(s * share) // factor * factor) for s in (size.height, size.width)))
        if picture_bytes(base, smaller) <= free or max(smaller.height, smaller.width) == factor:
            return smaller


def check_tuning_fits(base: Base, name: str, settings: TuneSettings, *, low_memory: bool) -> None:
    """Refuse a tuning that cannot fit; the error names the setting that takes most. Raises UserError."""
    needed, free = tuning_bytes(base, settings, low_memory=low_memory), free_memory(base.device)
    if sum(needed.values()) <= free:
        return
    most = max(needed, key=lambda setting: needed[setting])
    raise UserError(
        f"tune.{most}: {getattr(settings, most)} needs at least {_gib(needed[most])} on `{name}`, "
        f"{_gib(free)} are free",
        f"lower `{most}` in sine.yaml, then run `sine tune` again",
    )


def picture_bytes(base: Base, size: Size) -> int:
    """The least that a picture takes besides the models: in the U-Net, or when it is decoded after that.

    The decoder holds two maps of its outermost width in every pixel of a tile, and the picture.
    """
    canvas = sampled_size(size, base.autoencoder.factor)
    pixels = canvas.height * canvas.width
    tile = min(pixels, base.autoencoder.tile**2)
    config = base.autoencoder.model.config
    width = (getattr(config, "block_out_channels", None) or config.decoder_block_out_channels)[0]
    cells = pixels // base.autoencoder.factor**2
    return max(_skips(base, cells), FLOAT * (2 * width * tile + 3 * pixels))


def tuning_bytes(base: Base, settings: TuneSettings, *, low_memory: bool) -> dict[str, int]:
    """The least that each setting of a tuning takes besides the models.

    Latents of the patches and of the class's pictures, each twice while they are joined; those pictures;
    the weights that are tuned; and of one row that is learned from (a batch may be computed in parts), the
    maps kept for the backward pass: sixteen for each that the U-Net hands across (85 on `mini`), or that one
    alone where they are computed twice.
    """
    side = base.native_latent_size
    latent = 2 * FLOAT * base.autoencoder.channels * side**2
    picture = 3 * (side * base.autoencoder.factor) ** 2
    return {
        "batch": settings.batch * latent + _skips(base, side**2) * (1 if low_memory else 16),
        "pool": settings.pool * latent if settings.patches else 0,
        "prior": settings.prior * (latent + picture),
        "rank": TRAINED * settings.rank * sum(_lora_sides(base.unet, settings.targets)),
    }


def _skips(base: Base, cells: int) -> int:
    """Bytes of the maps that the U-Net's way down hands to its way up, of one row of so many cells."""
    config = base.unet.config
    widths: list[int] = list(config.block_out_channels)
    layers: Any = config.layers_per_block
    counts: list[int] = [layers] * len(widths) if isinstance(layers, int) else list(layers)
    values = widths[0] * cells
    for level, (width, count) in enumerate(zip(widths, counts, strict=True)):
        values += width * count * cells // 4**level
        if level < len(widths) - 1:
            values += width * cells // 4 ** (level + 1)
    return values * base.dtype.itemsize


def _lora_sides(unet: Any, targets: str) -> Iterator[int]:
    """Of each layer that gets a LoRA, inputs and outputs together: the numbers of a LoRA of rank 1."""
    if targets == FULL:
        return
    for name, module in unet.named_modules():
        if any(name.endswith(f".{target}") for target in TARGETS[targets]) and hasattr(module, "weight"):
            yield module.weight.shape[0] + module.weight[0].numel()


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
