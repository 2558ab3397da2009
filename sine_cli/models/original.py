"""The original code's names for the layers of diffusers' U-Net, which other tools know SDXL's layers by.

    diffusers   down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q
    original    input_blocks.4.1.transformer_blocks.0.attn1.to_q

Down and up blocks of several layers are there one list of layers; a layer's residual block is its part 0,
attention its part 1, what changes the resolution comes last.
"""

import re
from collections.abc import Mapping
from typing import Any

OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)")


def original_name(layer: str, config: Mapping[str, Any]) -> str:
    """The original code's name of a layer.

    Args:
        layer: as diffusers names it, with or without `.weight` or `.bias` behind.
        config: of the U-Net.

    Raises:
        ValueError: no U-Net of Stable Diffusion has such a layer.
    """
    for ours, theirs in OUTSIDE.items():
        if layer == ours or layer.startswith(f"{ours}."):
            return _inside(theirs, layer.removeprefix(ours))
    match = BLOCK.match(layer)
    if match is None:
        raise ValueError(f"no layer of a Stable Diffusion U-Net: {layer}")
    way, block, kind, place = match[1], int(match[2]), match[3], int(match[4])
    rest = layer[match.end() :]
    layers = config["layers_per_block"]
    first = block * (layers + 1)
    part = 1 if kind == "attentions" else 0
    if kind == "downsamplers":
        return f"input_blocks.{first + layers + 1}.0" + rest.replace(".conv", ".op", 1)
    if kind == "upsamplers":
        has_attention = "CrossAttn" in config["up_block_types"][block]
        return f"output_blocks.{first + layers}.{2 if has_attention else 1}{rest}"
    if way == "down":
        return _inside(f"input_blocks.{first + place + 1}.{part}", rest)
    return _inside(f"output_blocks.{first + place}.{part}", rest)


def _inside(block: str, rest: str) -> str:
    """A layer inside a block: residual blocks have names of their own for theirs."""
    name, _, tail = rest.removeprefix(".").partition(".")
    if name not in RESIDUAL:
        return block + rest
    return f"{block}.{RESIDUAL[name]}" + (f".{tail}" if tail else "")
