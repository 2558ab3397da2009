"""A base in one `.safetensors` file, under the original code's names: the parts that are in it.

The configurations come from the tensors' shapes, the names by diffusers' own conversion, the tokenizer from
this package: nothing is fetched.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from sine_cli.models.architecture import AUTOENCODER, UNET, Architecture, Tower, read_architecture
from sine_cli.models.parts import Parts, loading

MERGES = Path(__file__).parent / "clip_tokenizer" / "merges.txt"
NOT_WEIGHTS = ("position_ids", "logit_scale")
"""What text encoders carry besides weights, and a model of today does without."""

State = dict[str, Tensor]


def read_file(path: Path, dtype: torch.dtype) -> Parts:
    """The parts in a single file, the U-Net in `dtype`, all else in float32.

    Raises:
        UserError: not a safetensors file, or not a whole base of SD 1, SD 2 or SDXL.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    plan = read_architecture(path)
    with loading(str(path)):
        state = load_file(path)
        return Parts(
            unet=_filled(_empty(UNet2DConditionModel, **plan.unet), _unet_state(state, plan), dtype),
            autoencoder=_filled(
                _empty(AutoencoderKL, **plan.autoencoder), _autoencoder_state(state, plan), torch.float32
            ),
            text=[
                (
                    clip_tokenizer(tower.pad, tower.config["max_position_embeddings"]),
                    _text_model(state, tower),
                )
                for tower in plan.text
            ],
            scheduler=DDIMScheduler.from_config(plan.scheduler),
            zeros_for_empty=True,  # as the original code samples SDXL
        )


def clip_tokenizer(pad: str, length: int) -> Any:
    """CLIP's tokenizer, for prompts of `length` tokens filled up with `pad`."""
    from transformers import CLIPTokenizer

    merges = MERGES.read_text("utf-8").splitlines()
    symbols = _byte_symbols()
    words = [
        *symbols,
        *(f"{symbol}</w>" for symbol in symbols),
        *(merge.replace(" ", "") for merge in merges),
    ]
    vocabulary = {word: index for index, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    pairs: Any = [tuple(merge.split(" ")) for merge in merges]
    return CLIPTokenizer(vocab=vocabulary, merges=pairs, pad_token=pad, model_max_length=length)


def _byte_symbols() -> list[str]:
    """A printable character for each of the 256 bytes, in the order of the vocabulary (as of GPT-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [*map(chr, printable), *(chr(256 + index) for index in range(256 - len(printable)))]


def _empty(model_class: Any, *arguments: Any, **config: Any) -> Any:
    """A model whose weights take no memory yet."""
    from accelerate import init_empty_weights

    with init_empty_weights():
        return model_class(*arguments, **config)


def _filled(model: Any, state: State, dtype: torch.dtype) -> Any:
    """The model with these weights, every one of them. Raises RuntimeError where they do not fit."""
    model.load_state_dict({name: tensor.to(dtype) for name, tensor in state.items()}, assign=True)
    return model


def _unet_state(state: State, plan: Architecture) -> State:
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    own = {name: tensor for name, tensor in state.items() if name.startswith((UNET, "model_ema."))}
    return convert_ldm_unet_checkpoint(own, plan.unet, extract_ema=True)  # averaged where the file has that


def _autoencoder_state(state: State, plan: Architecture) -> State:
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    own = {name: tensor for name, tensor in state.items() if name.startswith(AUTOENCODER)}
    return convert_ldm_vae_checkpoint(own, plan.autoencoder)


def _text_model(state: State, tower: Tower) -> Any:
    from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint, convert_open_clip_checkpoint
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    model = _empty(
        CLIPTextModelWithProjection if tower.projects else CLIPTextModel, CLIPTextConfig(**tower.config)
    )
    own = {
        name: tensor
        for name, tensor in state.items()
        if name.startswith(tower.prefix)
        and not name.startswith(tower.skipped)
        and not name.endswith(NOT_WEIGHTS)
    }
    if tower.kind == "clip":
        converted = convert_ldm_clip_checkpoint(own)
    else:
        converted = convert_open_clip_checkpoint(model, own, prefix=tower.prefix)
    if not hasattr(model, "text_model"):  # since transformers 5.6 the plain model has no such level
        converted = {name.removeprefix("text_model."): tensor for name, tensor in converted.items()}
    return _filled(model, converted, torch.float32)
