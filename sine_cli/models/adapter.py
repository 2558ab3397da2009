"""An adapter: a LoRA on the U-Net and a position module, together what turns base into tuned.

References:
    LoRA: Low-Rank Adaptation of Large Language Models, Hu et al., 2021.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from sine_cli.errors import UserError
from sine_cli.method.position import Position
from sine_cli.models.backbone import TUNED

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
RESNET = ["conv1", "conv2", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
TARGETS = {"attention": ATTENTION, "attention+resnet": ATTENTION + RESNET}


@dataclass
class Adapter:
    """LoRA layers inside a U-Net, and the position that goes with them. Trainable, in float32.

    Attributes:
        unet: the U-Net that carries the LoRA layers, its own weights untouched.
        name: within peft, one for each adapter on a U-Net.
    """

    unet: Any
    position: Position
    name: str

    def lora_parameters(self) -> list[nn.Parameter]:
        return [p for n, p in self.unet.named_parameters() if f".{self.name}." in n]

    def position_parameters(self) -> list[nn.Parameter]:
        return list(self.position.parameters())

    def lora_state(self) -> dict[str, Tensor]:
        """The LoRA's tensors by layer, as peft names them."""
        state = get_peft_model_state_dict(self.unet, adapter_name=self.name)
        return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}

    def position_state(self) -> dict[str, Tensor]:
        return {
            name: tensor.detach().cpu().contiguous() for name, tensor in self.position.state_dict().items()
        }


def positions(*adapters: Adapter) -> dict[str, Position]:
    """The position of each adapter by its name, as `UNetBackbone` takes them."""
    return {adapter.name: adapter.position for adapter in adapters}


def attach_adapter(
    unet: Any, *, rank: int, targets: str, frequencies: int, seed: int, name: str = TUNED
) -> Adapter:
    """A fresh adapter on the U-Net: LoRA B and position are zero, so tuned equals base until tuning begins.

    Args:
        rank: of every LoRA matrix pair; alpha equals it, so the branch has scale 1.
        targets: key of `TARGETS`, the layers that get a LoRA.
        frequencies: octaves of the position's Fourier features.
        seed: of LoRA A's initial values.
        name: of the adapter, not yet that of another one on this U-Net.
    """
    config = LoraConfig(
        r=rank, lora_alpha=rank, target_modules=TARGETS[targets], init_lora_weights="gaussian"
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # a second adapter is meant
        torch.manual_seed(seed)
        inject_adapter_in_model(config, unet, adapter_name=name)
        position = Position(unet.config.block_out_channels[0], frequencies)
    device = unet.conv_in.weight.device
    position.to(device)
    adapter = Adapter(unet, position, name)
    for parameter in adapter.lora_parameters():
        parameter.data = parameter.data.to(device, torch.float32)
        parameter.requires_grad_(True)
    return adapter


def merge(adapter: Adapter) -> None:
    """Fold the LoRA into the U-Net's own weights, in place: base becomes tuned, but for the position."""
    layers = [
        (name, module) for name, module in adapter.unet.named_modules() if isinstance(module, LoraLayer)
    ]
    for name, layer in layers:
        layer.merge(adapter_names=[adapter.name])
        parent, _, child = name.rpartition(".")
        setattr(adapter.unet.get_submodule(parent), child, layer.get_base_layer())


def load_state(adapter: Adapter, lora: dict[str, Tensor], position: dict[str, Tensor], where: str) -> None:
    """Fill the adapter with saved tensors.

    Raises:
        UserError: names or shapes are not this adapter's, or a value is not finite; `where` names the files.
    """
    hint = "run `sine tune` again"
    for expected, given, file in [
        (adapter.lora_state(), lora, "adapter.safetensors"),
        (adapter.position_state(), position, "position.safetensors"),
    ]:
        if {n: t.shape for n, t in expected.items()} != {n: t.shape for n, t in given.items()}:
            raise UserError(f"{where}/{file} does not fit this base and the settings it was tuned with", hint)
        if not all(torch.isfinite(tensor).all() for tensor in given.values()):
            raise UserError(f"{where}/{file} holds values that are not numbers (NaN or infinite)", hint)
    set_peft_model_state_dict(adapter.unet, lora, adapter_name=adapter.name)
    adapter.position.load_state_dict(position)
