"""A base model, ready for the method: from a diffusers folder or from one `.safetensors` file."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from sine_cli.errors import UserError
from sine_cli.method.schedule import NoiseSchedule, Prediction
from sine_cli.models.autoencoder import Autoencoder, factor_of
from sine_cli.models.bounds import bounded
from sine_cli.models.folder import read_folder
from sine_cli.models.locate import unet_config
from sine_cli.models.parts import Parts, loading
from sine_cli.models.sdxl import TextEncoderPair
from sine_cli.models.single_file import read_file
from sine_cli.models.text import PromptReader, TextEncoder

TILED_BEYOND = 1024
"""Pixels on a side. Decoding as much takes an autoencoder of Stable Diffusion 3.8 GiB; twice that, 15."""


@dataclass
class Base:
    """A loaded base model.

    Attributes:
        unet: diffusers' UNet2DConditionModel, frozen, on `device` in `dtype`.
        native_latent_size: cells on a side that the model was trained at (p).
    """

    unet: Any
    autoencoder: Autoencoder
    text: PromptReader
    schedule: NoiseSchedule
    native_latent_size: int
    device: torch.device
    dtype: torch.dtype


def load_base(
    path: Path, variant: str | None, device: torch.device, dtype: torch.dtype, *, low_memory: bool = False
) -> Base:
    """The base in a local diffusers folder or `.safetensors` file.

    Args:
        variant: of a folder, the part of a weight file's name before `.safetensors`, such as `fp16`; parts
            that have no such file are loaded from the plain one.
        low_memory: whether only U-Nets stay on the device: prompts are read on the CPU, and the autoencoder
            waits there. It then cuts pictures beyond 1.5 times the native size into tiles; else beyond twice
            that size and `TILED_BEYOND`.

    Raises:
        UserError: no base, a part is missing or of a kind that is not supported.
    """
    parts = load_parts(path, variant, dtype)
    parts.unet.eval().requires_grad_(False).to(device)
    native = parts.unet.config.sample_size
    return Base(
        unet=parts.unet,
        autoencoder=_autoencoder(parts.autoencoder, native, path, device, low_memory=low_memory),
        text=prompt_reader(parts, torch.device("cpu") if low_memory else device),
        schedule=_schedule(parts.scheduler, path, device),
        native_latent_size=native,
        device=device,
        dtype=dtype,
    )


def unet_without_weights(path: Path) -> Any:
    """The U-Net of the base at `path` on the meta device: its layers and shapes, and no memory for them.

    Raises:
        UserError: its configuration cannot be read, or is not one of a U-Net's.
    """
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    _quieten_libraries()
    held_to_weights = nullcontext() if path.is_file() else bounded(path / "unet")  # a file's are its shapes
    with loading(str(path)), held_to_weights, torch.device("meta"):
        return UNet2DConditionModel.from_config(unet_config(path))


def load_parts(path: Path, variant: str | None, dtype: torch.dtype) -> Parts:
    """The parts of the base at `path`, as `load_base` takes them, on the CPU. Raises UserError."""
    _quieten_libraries()
    parts = read_file(path, dtype) if path.is_file() else read_folder(path, variant, dtype)
    config, hint = parts.unet.config, "choose the plain base that it was made from"
    if config.in_channels != parts.autoencoder.config.latent_channels:
        raise UserError(
            f"{path} takes {config.in_channels} channels of latents: it is for inpainting, or changes given "
            "pictures",
            hint,
        )
    if config.class_embed_type is not None:
        raise UserError(f"{path} takes pictures beside words (unCLIP), which sine does not", hint)
    return parts


def _autoencoder(
    model: Any, native: int, path: Path, device: torch.device, *, low_memory: bool
) -> Autoencoder:
    if getattr(model.config, "latents_mean", None) is not None:
        raise UserError(
            f"{path}/vae: latents with a mean of their own (latents_mean) are not supported",
            "use a base of the Stable Diffusion family",
        )
    pixels = native * factor_of(model)
    tile = 3 * pixels // 2 if low_memory else max(2 * pixels, TILED_BEYOND)
    return Autoencoder(model, device, tile=tile, waits_on_cpu=low_memory)


def prompt_reader(parts: Parts, device: torch.device) -> PromptReader:
    """The parts' text encoders, on the device."""
    encoders = [TextEncoder(tokenizer, model, device) for tokenizer, model in parts.text]
    if len(encoders) == 1:
        return encoders[0]
    return TextEncoderPair(*encoders, zeros_for_empty=parts.zeros_for_empty)


def _schedule(scheduler: Any, path: Path, device: torch.device) -> NoiseSchedule:
    config = scheduler.config
    if config["prediction_type"] not in get_args(Prediction):
        raise UserError(
            f"{path}/scheduler: prediction_type {config['prediction_type']} is not supported "
            f"({', '.join(get_args(Prediction))})",
            "use a base of the Stable Diffusion family",
        )
    return NoiseSchedule(
        alpha_bar=scheduler.alphas_cumprod.to(device),
        prediction=config["prediction_type"],
        spacing=config["timestep_spacing"],
        offset=config["steps_offset"],
        final_alpha_bar=float(scheduler.final_alpha_cumprod),
    )


def _quieten_libraries() -> None:
    """Their progress bars and remarks while loading are not for the users of sine; their errors are."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
