"""LoRA files of other tools: written for them from the adapter, and read from them for the base side.

    diffusers          unet.down_blocks.0.attentions.0...to_q.lora_A.weight
    ComfyUI, A1111     lora_unet_down_blocks_0_attentions_0...to_q.lora_down.weight, .lora_up.weight, .alpha

The second is kohya's form; its layers have diffusers' names for SD 1 and 2, the original code's for SDXL.
A LoRA adds alpha / rank * B A to a layer's weights. Ours has alpha = rank, which diffusers takes for granted
and kohya's form says. Others' in diffusers' form say it in the header, if at all.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from sine_cli.errors import UserError
from sine_cli.models.original import original_name

USER_LORA = "user"
"""Within peft, the name of the user's own LoRA on the base side."""

State = dict[str, Tensor]

_IN_HEADER = "lora_adapter_metadata"
"""Where diffusers keeps rank and alpha."""


def for_diffusers(lora: State) -> State:
    """The adapter's LoRA (`Adapter.unet_state`), named for `pipe.load_lora_weights`."""
    return {f"unet.{name}": tensor for name, tensor in lora.items()}


def for_kohya(lora: State, config: Mapping[str, Any]) -> State:
    """The adapter's LoRA, named for ComfyUI and A1111.

    Args:
        config: of the U-Net that it belongs to.
    """
    is_sdxl = config.get("addition_embed_type") == "text_time"
    state: State = {}
    for name, tensor in lora.items():
        layer, _, matrix = name.removesuffix(".weight").rpartition(".")
        known = original_name(layer, config) if is_sdxl else layer
        key = f"lora_unet_{known.replace('.', '_')}"
        if matrix == "lora_A":
            state[f"{key}.lora_down.weight"] = tensor
            state[f"{key}.alpha"] = torch.tensor(float(len(tensor)))
        else:
            state[f"{key}.lora_up.weight"] = tensor
    return state


def attach_user_lora(unet: Any, file: Path, scale: float) -> list[str]:
    """Put a user's own LoRA on the U-Net, beside what is there, for rows that ask for `USER_LORA`.

    Args:
        file: of diffusers' or kohya's form.  scale: strength, 1 for what its maker meant.

    Returns:
        What of the file is left out: its layers of text encoders.

    Raises:
        UserError: not such a file, or of another base.
    """
    from diffusers.loaders.lora_pipeline import StableDiffusionXLLoraLoaderMixin

    hint = "give a LoRA for this kind of base, as diffusers or kohya's trainer writes them"
    try:
        read = {name: _widened(tensor) for name, tensor in load_file(file).items()}
        said = _said_in_header(file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is not a .safetensors file that can be read: {error}", hint) from error
    if not any("lora" in name for name in read):
        raise UserError(f"{file} is not a LoRA", hint)
    if any("dora_scale" in name or "lora_magnitude_vector" in name for name in read):
        raise UserError(f"{file} is a DoRA, whose scaled weights do not fit beside adapters", hint)
    try:
        loaded: Any = StableDiffusionXLLoraLoaderMixin.lora_state_dict(
            _without_alphas(read), unet_config=unet.config
        )
        named, alphas = loaded
        layers = {name: tensor for name, tensor in named.items() if name.startswith("unet.")}
        if not layers:
            raise UserError(f"{file} has nothing for the U-Net", hint)
        told = {"network_alphas": alphas} if alphas else {"metadata": said}
        unet.load_lora_adapter(layers, prefix="unet", adapter_name=USER_LORA, **told)
    except (RuntimeError, ValueError, LookupError, TypeError, ArithmeticError) as error:
        raise UserError(f"{file} does not fit this base: {str(error).splitlines()[0]}", hint) from error
    attached = [
        module for module in unet.modules() if isinstance(module, LoraLayer) and USER_LORA in module.lora_A
    ]
    if len(attached) != sum(name.endswith(("lora_A.weight", "lora.down.weight")) for name in layers):
        raise UserError(f"{file} does not fit this base: it has layers that the base has not", hint)
    device = unet.device  # asked once: diffusers walks through all of its modules for it
    for layer in attached:
        layer.set_scale(USER_LORA, scale)
        for matrix in (layer.lora_A[USER_LORA], layer.lora_B[USER_LORA]):
            matrix.to(device).requires_grad_(False)
    return sorted({name.partition(".")[0] for name in named} - {"unet"})


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _without_alphas(state: State) -> State:
    """Kohya's alphas put into the weights: where they differ, diffusers gives many layers the usual one."""
    scaled = dict(state)
    for name, up in state.items():
        layer, found, _ = name.partition(".lora_up.")
        if found and f"{layer}.alpha" in state:
            scaled[name] = up * (float(scaled.pop(f"{layer}.alpha")) / up.shape[1])
    return scaled


def _said_in_header(file: Path) -> dict[str, Any] | None:
    """What diffusers wrote there of how the LoRA was made; None where it is nothing, or not of that form."""
    with safe_open(file, framework="pt") as opened:
        said = (opened.metadata() or {}).get(_IN_HEADER)
    try:
        about = json.loads(said) if said else None
    except (ValueError, RecursionError):
        return None
    return about if isinstance(about, dict) and any(name.startswith("unet.") for name in about) else None
