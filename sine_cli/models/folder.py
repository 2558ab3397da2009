"""A base in a diffusers folder: its parts, each loaded by the class that the folder names.

Reads `model_index.json` and loads U-Net, autoencoder, text encoders and tokenizers one by one, safetensors
only. No pipeline class is imported, and nothing in the folder can name code of its own.
"""

import importlib
import json
from pathlib import Path
from typing import Any

import torch

from sine_cli.errors import UserError
from sine_cli.models.bounds import bounded, check_numbers
from sine_cli.models.locate import WHAT_A_BASE_IS, check_vocabulary, read_config
from sine_cli.models.parts import FORMER_NAMES, Parts, loading

TOKENIZERS = {
    "CLIPTokenizer": "transformers",
    "CLIPTokenizerFast": "transformers",
    "PreTrainedTokenizerFast": "transformers",
}
# What a folder may name, part by part: anything else is not a base that sine can edit with.
CLASSES: dict[str, dict[str, str]] = {
    "unet": {"UNet2DConditionModel": "diffusers"},
    "vae": {"AutoencoderKL": "diffusers", "AutoencoderDC": "diffusers"},
    "text_encoder": {"CLIPTextModel": "transformers"},
    "tokenizer": TOKENIZERS,
    "text_encoder_2": {"CLIPTextModelWithProjection": "transformers"},
    "tokenizer_2": TOKENIZERS,
}

OTHER_PROCESSES = ("EDM", "FlowMatch")
"""How diffusers' names of schedulers begin that know no alpha bar: their models predict something else."""


def read_folder(folder: Path, variant: str | None, dtype: torch.dtype) -> Parts:
    """The parts in a local diffusers folder, the U-Net in `dtype`, all else in float32.

    Args:
        variant: the part of a weight file's name before `.safetensors`, such as `fp16`; parts that
            have no such file are loaded from the plain one.

    Raises:
        UserError: not such a folder, a part is missing or of a class that is not supported.
    """
    index = read_index(folder)
    second = ["_2"] if _named(index, "text_encoder_2") else []
    return Parts(
        unet=_load_model(folder, index, "unet", variant, dtype),
        autoencoder=_load_model(folder, index, "vae", variant, torch.float32),
        text=[
            (
                _load_tokenizer(folder, index, f"tokenizer{suffix}"),
                _load_model(folder, index, f"text_encoder{suffix}", variant, torch.float32),
            )
            for suffix in ["", *second]
        ],
        scheduler=_load_scheduler(folder),
        zeros_for_empty=bool(index.get("force_zeros_for_empty_prompt", True)),  # as diffusers has it
    )


def read_index(folder: Path) -> dict[str, Any]:
    """The folder's `model_index.json`.

    Raises:
        UserError: there is none, or it is not a JSON object.
    """
    path = folder / "model_index.json"
    if not path.is_file():
        raise UserError(f"{folder} is not a diffusers folder: it has no model_index.json", WHAT_A_BASE_IS)
    try:
        index = json.loads(path.read_text("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is not JSON: {error}", WHAT_A_BASE_IS) from error
    if not isinstance(index, dict):
        raise UserError(f"{path} does not name the parts of a base", WHAT_A_BASE_IS)
    return index


def _named(index: dict[str, Any], part: str) -> str | None:
    """The class that the index names for a part, if any; diffusers writes `[null, null]` for none."""
    named = index.get(part)
    if isinstance(named, list) and len(named) == 2 and named[1] is not None:
        return str(named[1])
    return None


def _class(folder: Path, index: dict[str, Any], part: str) -> Any:
    name = _named(index, part) or "nothing"
    name = FORMER_NAMES.get(name, name)
    library = CLASSES[part].get(name)
    if library is None:
        supported = ", ".join(CLASSES[part])
        raise UserError(
            f"{folder}/model_index.json: {part}: {name} is not supported ({supported})",
            "use a base of the Stable Diffusion family",
        )
    return getattr(importlib.import_module(library), name)


def _load_tokenizer(folder: Path, index: dict[str, Any], part: str) -> Any:
    tokenizer_class = _class(folder, index, part)
    check_vocabulary(folder / part)
    with loading(f"{folder}/{part}"):
        return tokenizer_class.from_pretrained(folder / part, local_files_only=True)


def _load_model(
    folder: Path, index: dict[str, Any], part: str, variant: str | None, dtype: torch.dtype
) -> Any:
    model_class = _class(folder, index, part)
    with_variant = any((folder / part).glob(f"*.{variant}*.safetensors")) if variant else False
    # Else a configuration may name one of the hub's kernels, which transformers would fetch and run.
    own_attention = {"attn_implementation": "sdpa"} if part.startswith("text_encoder") else {}
    with loading(f"{folder}/{part}"), bounded(folder / part):
        model, loaded = model_class.from_pretrained(
            folder / part,
            variant=variant if with_variant else None,
            torch_dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **own_attention,
        )
    if loaded["missing_keys"]:  # a library would go on with random values there
        raise UserError(
            f"{folder}/{part} has no weights for {len(loaded['missing_keys'])} layers, "
            f"{min(loaded['missing_keys'])} among them",
            "fetch or copy the base again",
        )
    return model


def _load_scheduler(folder: Path) -> Any:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    config = folder / "scheduler" / "scheduler_config.json"
    with loading(f"{folder}/scheduler"):
        check_numbers(config)
        scheduler = DDIMScheduler.from_pretrained(folder / "scheduler", local_files_only=True)
    name = str(read_config(config).get("_class_name"))
    if name.startswith(OTHER_PROCESSES):
        raise UserError(
            f"{config}: {name} is of another diffusion process", "use a base of the Stable Diffusion family"
        )
    return scheduler
