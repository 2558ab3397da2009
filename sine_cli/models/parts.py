"""The parts of a base, as its folder or file has them: to be put on a device, or to be written again."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from sine_cli.errors import UserError


@dataclass
class Parts:
    """Of transformers and diffusers, on the CPU.

    Attributes:
        unet: UNet2DConditionModel.  autoencoder: AutoencoderKL or AutoencoderDC.
        text: (tokenizer, text model); two pairs where the base is of SDXL's kind.
        scheduler: DDIMScheduler, for its times and noise levels.
        zeros_for_empty: whether an empty prompt is all zeros (SDXL).
    """

    unet: Any
    autoencoder: Any
    text: list[tuple[Any, Any]]
    scheduler: Any
    zeros_for_empty: bool


FORMER_NAMES = {"TokenizersBackend": "PreTrainedTokenizerFast"}
"""Of classes that transformers 5 renamed, and has under both names."""


def write_folder(parts: Parts, folder: Path) -> None:
    """Write the parts as a diffusers folder, which pipelines and sine load.

    Raises:
        OSError: the disk refuses.
    """
    is_pair = len(parts.text) == 2
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionXLPipeline" if is_pair else "StableDiffusionPipeline",
        "unet": ["diffusers", type(parts.unet).__name__],
        "vae": ["diffusers", type(parts.autoencoder).__name__],
        "scheduler": ["diffusers", type(parts.scheduler).__name__],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        **(
            {"force_zeros_for_empty_prompt": parts.zeros_for_empty}
            if is_pair
            else {"safety_checker": [None, None]}
        ),
    }
    parts.unet.save_pretrained(folder / "unet")
    parts.autoencoder.save_pretrained(folder / "vae")
    parts.scheduler.save_pretrained(folder / "scheduler")
    for suffix, (tokenizer, model) in zip(["", "_2"], parts.text, strict=False):
        tokenizer.save_pretrained(folder / f"tokenizer{suffix}")
        model.save_pretrained(folder / f"text_encoder{suffix}", state_dict=_prefixed(model))
        kind = type(tokenizer).__name__
        index[f"tokenizer{suffix}"] = ["transformers", FORMER_NAMES.get(kind, kind)]
        index[f"text_encoder{suffix}"] = ["transformers", type(model).__name__]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def _prefixed(text_model: Any) -> dict[str, Any]:
    """Its weights under `text_model.`, as every loader knows them; transformers since 5.6 leave that out."""
    state = text_model.state_dict()
    if any(name.startswith("text_model.") for name in state):
        return state
    return {f"text_model.{name}": tensor for name, tensor in state.items()}


LIBRARY_ERRORS = (
    *(OSError, SafetensorError, RuntimeError, ValueError, MemoryError, ImportError, StrictDataclassError),
    *(TypeError, KeyError, IndexError, AttributeError, ArithmeticError),
)
"""What a library raises at missing, damaged or unfit files: a configuration may hold anything anywhere."""


@contextmanager
def loading(what: str, whole: str = "the base") -> Iterator[None]:
    """What a library says of missing, damaged or unfit files, said for people. Raises UserError.

    Args:
        what: names the files.  whole: what they are of, to be had again.
    """
    try:
        yield
    except LIBRARY_ERRORS as error:
        said = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{what} does not load: {said or type(error).__name__}",
            f"fetch or copy {whole} again; sine reads .safetensors weights only",
        ) from error
