"""A base model from a diffusers folder: its parts, each loaded by the class that the folder names.

Reads `model_index.json` and loads the U-Net, the autoencoder, the text encoder and the tokenizer one by
one, safetensors only. No pipeline class is imported, and nothing in the folder can name code of its own.
"""

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError

from sine_cli.errors import UserError
from sine_cli.method.schedule import NoiseSchedule, Prediction
from sine_cli.models.autoencoder import Autoencoder
from sine_cli.models.text import TextEncoder

# What a folder may name, part by part: anything else is not a base that sine can edit with.
CLASSES: dict[str, dict[str, str]] = {
    "unet": {"UNet2DConditionModel": "diffusers"},
    "vae": {"AutoencoderKL": "diffusers", "AutoencoderDC": "diffusers"},
    "text_encoder": {"CLIPTextModel": "transformers"},
    "tokenizer": {
        "CLIPTokenizer": "transformers",
        "CLIPTokenizerFast": "transformers",
        "PreTrainedTokenizerFast": "transformers",
    },
}


@dataclass
class Base:
    """A loaded base model.

    Attributes:
        unet: diffusers' UNet2DConditionModel, frozen, on `device` in `dtype`.
        native_latent_size: cells on a side that the model was trained at (p).
    """

    unet: Any
    autoencoder: Autoencoder
    text: TextEncoder
    schedule: NoiseSchedule
    native_latent_size: int
    device: torch.device
    dtype: torch.dtype


def load_base(folder: Path, variant: str | None, device: torch.device, dtype: torch.dtype) -> Base:
    """The base in a local diffusers folder.

    Args:
        variant: the part of a weight file's name before `.safetensors`, such as `fp16`; parts that
            have no such file are loaded from the plain one.

    Raises:
        UserError: not such a folder, a part is missing or of a class that is not supported.
    """
    _quieten_libraries()
    index = read_index(folder)
    unet = _load_model(folder, index, "unet", variant, dtype)
    autoencoder = _load_model(folder, index, "vae", variant, torch.float32)
    text_model = _load_model(folder, index, "text_encoder", variant, torch.float32)
    tokenizer_class = _class(folder, index, "tokenizer")
    with _told(folder, "tokenizer"):
        tokenizer = tokenizer_class.from_pretrained(folder / "tokenizer", local_files_only=True)
    unet.eval().requires_grad_(False).to(device)
    return Base(
        unet=unet,
        autoencoder=Autoencoder(autoencoder, device),
        text=TextEncoder(tokenizer, text_model, device),
        schedule=_load_schedule(folder, device),
        native_latent_size=unet.config.sample_size,
        device=device,
        dtype=dtype,
    )


def _quieten_libraries() -> None:
    """Their progress bars and remarks while loading are not for the users of sine; their errors are."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def read_index(folder: Path) -> dict[str, Any]:
    """The folder's `model_index.json`.

    Raises:
        UserError: there is none, or it is not a JSON object.
    """
    path = folder / "model_index.json"
    hint = "a base is a preset, a hub id, or a folder that diffusers' `save_pretrained` wrote"
    if not path.is_file():
        raise UserError(f"{folder} is not a diffusers folder: it has no model_index.json", hint)
    try:
        index = json.loads(path.read_text("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is not JSON: {error}", hint) from error
    if not isinstance(index, dict):
        raise UserError(f"{path} does not name the parts of a base", hint)
    return index


def _class(folder: Path, index: dict[str, Any], part: str) -> Any:
    named = index.get(part)
    name = str(named[1]) if isinstance(named, list) and len(named) == 2 else "nothing"
    library = CLASSES[part].get(name)
    if library is None:
        supported = ", ".join(CLASSES[part])
        raise UserError(
            f"{folder}/model_index.json: {part}: {name} is not supported ({supported})",
            "use a base of the Stable Diffusion family",
        )
    return getattr(importlib.import_module(library), name)


def _load_model(
    folder: Path, index: dict[str, Any], part: str, variant: str | None, dtype: torch.dtype
) -> Any:
    model_class = _class(folder, index, part)
    with_variant = any((folder / part).glob(f"*.{variant}*.safetensors")) if variant else False
    with _told(folder, part):
        model, loaded = model_class.from_pretrained(
            folder / part,
            variant=variant if with_variant else None,
            torch_dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    if loaded["missing_keys"]:  # a library would go on with random values there
        raise UserError(
            f"{folder}/{part} has no weights for {len(loaded['missing_keys'])} layers, "
            f"{min(loaded['missing_keys'])} among them",
            "fetch or copy the base again",
        )
    return model


@contextmanager
def _told(folder: Path, part: str) -> Iterator[None]:
    """What a library says of missing, damaged or unfit files, said for people. Raises UserError."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{folder}/{part} does not load: {str(error).splitlines()[0]}",
            "fetch or copy the base again; sine reads .safetensors weights only",
        ) from error


def _load_schedule(folder: Path, device: torch.device) -> NoiseSchedule:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    with _told(folder, "scheduler"):
        scheduler: Any = DDIMScheduler.from_pretrained(folder / "scheduler", local_files_only=True)
    config = scheduler.config
    if config["prediction_type"] not in get_args(Prediction):
        raise UserError(
            f"{folder}/scheduler: prediction_type {config['prediction_type']} is not supported "
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
