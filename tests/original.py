"""A diffusers folder as one file under the original code's names, as Stability AI and Civitai share them."""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sine_cli.models.folder import read_folder
from sine_cli.models.original import original_name

State = dict[str, Tensor]


def write_single_file(
    folder: Path, file: Path, metadata: dict[str, str], dtype: torch.dtype = torch.float32
) -> Path:
    """Write the base in `folder` as one `.safetensors` file."""
    state = original_state(folder)
    save_file({name: tensor.to(dtype).contiguous() for name, tensor in state.items()}, file, metadata)
    return file


def original_state(folder: Path) -> State:
    """All tensors of the base in `folder`, under the original names."""
    parts = read_folder(folder, None, torch.float32)
    models = [model for _, model in parts.text]
    if len(models) == 2:
        text = _clip(models[0], "conditioner.embedders.0.transformer.")
        text |= _open_clip(models[1], "conditioner.embedders.1.model.")
    elif models[0].config.hidden_act == "quick_gelu":
        text = _clip(models[0], "cond_stage_model.transformer.")
    else:
        text = _with_last_layer(_open_clip(models[0], "cond_stage_model.model."), "cond_stage_model.model.")
    return {**_unet(parts.unet), **_autoencoder(parts.autoencoder), **text}


def _unet(unet: Any) -> State:
    names = {name: original_name(name, unet.config) for name in unet.state_dict()}
    return {f"model.diffusion_model.{names[name]}": tensor for name, tensor in unet.state_dict().items()}


def _autoencoder(autoencoder: Any) -> State:
    top = len(autoencoder.config.block_out_channels) - 1
    state: State = {}
    for name, tensor in autoencoder.state_dict().items():
        name = re.sub(r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", name)
        name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(r"up_blocks\.(\d+)\.resnets\.", lambda m: f"up.{top - int(m[1])}.block.", name)
        name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{top - int(m[1])}.upsample", name)
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
        if "attentions" in name:
            name = name.replace("mid_block.attentions.0", "mid.attn_1").replace("group_norm", "norm")
            name = name.replace("to_out.0", "proj_out").replace("to_", "")
            tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
        name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        state[f"first_stage_model.{name}"] = tensor
    return state


def _bare(model: Any) -> State:
    """The text model's tensors without `text_model.`, which some versions of transformers put before them."""
    return {name.removeprefix("text_model."): tensor for name, tensor in model.state_dict().items()}


def _clip(model: Any, prefix: str) -> State:
    state = {f"{prefix}text_model.{name}": tensor for name, tensor in _bare(model).items()}
    return {**state, f"{prefix}text_model.embeddings.position_ids": torch.arange(77)[None]}


def _open_clip(model: Any, prefix: str) -> State:
    words = {
        "embeddings.token_embedding.weight": "token_embedding.weight",
        "embeddings.position_embedding.weight": "positional_embedding",
        "final_layer_norm.weight": "ln_final.weight",
        "final_layer_norm.bias": "ln_final.bias",
    }
    state: State = {}
    bare = _bare(model)
    for name, tensor in bare.items():
        if name == "text_projection.weight":
            state[f"{prefix}text_projection"] = tensor.T
            continue
        if name in words:
            state[prefix + words[name]] = tensor
            continue
        name = name.replace("encoder.layers.", "transformer.resblocks.").replace("layer_norm", "ln_")
        name = name.replace("mlp.fc1", "mlp.c_fc").replace("mlp.fc2", "mlp.c_proj")
        if match := re.fullmatch(r"(.*)\.self_attn\.q_proj\.(weight|bias)", name):
            three = [bare[_layer(match[1], f"self_attn.{p}_proj.{match[2]}")] for p in "qkv"]
            state[f"{prefix}{match[1]}.attn.in_proj_{match[2]}"] = torch.cat(three)
        elif not re.search(r"\.self_attn\.[kv]_proj\.", name):
            state[prefix + name.replace("self_attn", "attn")] = tensor
    return {**state, f"{prefix}logit_scale": torch.tensor(4.6)}


def _layer(block: str, rest: str) -> str:
    return f"{block.replace('transformer.resblocks.', 'encoder.layers.')}.{rest}"


def _with_last_layer(state: State, prefix: str) -> State:
    """With what SD 2 does not read, and its files have: one layer more, and the projection."""
    blocks = [name for name in state if name.startswith(f"{prefix}transformer.resblocks.")]
    last = max(int(name.removeprefix(f"{prefix}transformer.resblocks.").split(".")[0]) for name in blocks)
    more = {
        name.replace(f"resblocks.{last}.", f"resblocks.{last + 1}."): torch.full_like(tensor, 0.5)
        for name, tensor in state.items()
        if f"resblocks.{last}." in name
    }
    width = state[f"{prefix}ln_final.weight"].shape[0]
    return {**state, **more, f"{prefix}text_projection": torch.eye(width)}
