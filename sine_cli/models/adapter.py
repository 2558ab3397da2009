"""An adapter: what turns base into tuned. A LoRA on the U-Net, or every weight of it; a position module; and
perhaps a LoRA on the text encoder.

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
from sine_cli.models.backbone import TunedModel
from sine_cli.models.rows import TUNED
from sine_cli.models.text import PromptReader, TextEncoder

AGAIN = "run `sine tune` again"

FULL = "full"
"""The targets that are no LoRA: a U-Net of its own, tuned whole."""

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
RESNET = ["conv1", "conv2", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
TARGETS = {"attention": ATTENTION, "attention+resnet": ATTENTION + RESNET}
TEXT_ATTENTION = ["q_proj", "k_proj", "v_proj", "out_proj"]

State = dict[str, Tensor]
Shapes = dict[str, dict[str, tuple[int, ...]]]
"""Of the tensors in an adapter's files, by the files' names."""

UNET_FILE, TEXT_FILE, POSITION_FILE = (f"{part}.safetensors" for part in ("adapter", "text", "position"))


@dataclass
class Adapter:
    """What is tuned, wherever it sits. Trainable, in float32.

    Attributes:
        unet: the base's U-Net that carries the LoRA layers, its own weights untouched; or one of its own.
        position: the module that goes with it.
        name: within peft, one for each adapter on a U-Net.
        full: whether the U-Net is its own, tuned whole.
        text: the encoders that carry LoRA layers.
    """

    unet: Any
    position: Position
    name: str
    full: bool
    text: list[TextEncoder]

    def unet_parameters(self) -> list[nn.Parameter]:
        """Of the LoRA, or all of the U-Net that is its own."""
        return list(self.unet.parameters()) if self.full else _lora_parameters(self.unet, self.name)

    def text_parameters(self) -> list[nn.Parameter]:
        return [p for encoder in self.text for p in _lora_parameters(encoder.model, self.name)]

    def position_parameters(self) -> list[nn.Parameter]:
        return list(self.position.parameters())

    def freeze(self, dtype: torch.dtype) -> None:
        """Ready for sampling: what the U-Net computes with is in its type, so that no step has to cast it."""
        for parameter in self.unet_parameters():
            parameter.data = parameter.data.to(dtype)
            parameter.requires_grad_(False)

    def unet_state(self) -> State:
        """The LoRA's tensors by layer, as peft names them; or the whole U-Net's."""
        return _on_cpu(self._unet_tensors())

    def text_state(self) -> State:
        """The LoRA's tensors by layer, after the number of their encoder."""
        return _on_cpu(self._text_tensors())

    def position_state(self) -> State:
        return _on_cpu(self.position.state_dict())

    def _unet_tensors(self) -> State:
        return self.unet.state_dict() if self.full else _lora_state(self.unet, self.name)

    def _text_tensors(self) -> State:
        return {
            f"{number}.{name}": tensor
            for number, encoder in enumerate(self.text)
            for name, tensor in _lora_state(encoder.model, self.name).items()
        }


def tuned_models(*adapters: Adapter) -> dict[str, TunedModel]:
    """Each adapter by its name, as `UNetBackbone` takes them."""
    return {
        adapter.name: TunedModel(adapter.position, adapter.unet if adapter.full else None)
        for adapter in adapters
    }


def attach_adapter(
    unet: Any,
    *,
    rank: int,
    targets: str,
    frequencies: int,
    seed: int,
    name: str = TUNED,
    text: PromptReader | None = None,
) -> Adapter:
    """A fresh adapter: LoRA B and position are zero, and a U-Net of its own is a copy, so that tuned equals
    base until tuning begins.

    Args:
        unet: of the base.
        rank: of every LoRA matrix pair; alpha equals it, so the branch has scale 1.
        targets: key of `TARGETS`, the layers that get a LoRA, or `FULL`.
        frequencies: octaves of the position's Fourier features.
        seed: of LoRA A's initial values.
        name: of the adapter, not yet that of another one on this U-Net.
        text: the encoders that get a LoRA too; None for none.
    """
    encoders = text.encoders if text else []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        own = _copy(unet) if targets == FULL else unet
        if targets != FULL:
            _inject(unet, TARGETS[targets], rank, name)
            _leave_inputs(unet)
        position = Position(unet.config.block_out_channels[0], frequencies).to(unet.device)
        for encoder in encoders:
            _inject(encoder.model, TEXT_ATTENTION, rank, name)
            encoder.rows.watch(encoder.model)
    return Adapter(own, position, name, targets == FULL, encoders)


def adapter_shapes(
    unet: Any, text: PromptReader | None, *, rank: int, targets: str, frequencies: int
) -> Shapes:
    """What the files of such an adapter hold, by the layers that get a LoRA; allocates nothing.

    Args: as `attach_adapter` has them; the U-Net may carry other adapters, or lie on the meta device.
    """
    channels = unet.config.block_out_channels[0]
    shapes: Shapes = {
        UNET_FILE: _own_shapes(unet) if targets == FULL else _lora_shapes(unet, TARGETS[targets], rank),
        POSITION_FILE: {
            "projection.weight": (channels, 4 * frequencies, 1, 1),
            "projection.bias": (channels,),
        },
    }
    if text:
        shapes[TEXT_FILE] = {
            f"{number}.{name}": shape
            for number, encoder in enumerate(text.encoders)
            for name, shape in _lora_shapes(encoder.model, TEXT_ATTENTION, rank).items()
        }
    return shapes


def merge(adapter: Adapter, unet: Any, text: list[Any]) -> Any:
    """The tuned model as one without an adapter, but for the position.

    Args:
        unet: the base's U-Net.  text: its text models; both may change in place.

    Returns:
        The U-Net: the base's with the LoRA folded into its weights, or the adapter's own.
    """
    for model in [*([] if adapter.full else [unet]), *(text if adapter.text else [])]:
        layers = [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]
        for name, layer in layers:
            layer.merge(adapter_names=[adapter.name])
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer.get_base_layer())
    return adapter.unet


def load_state(
    adapter: Adapter, unet: State, text: State, position: State, where: str, again: str = AGAIN
) -> None:
    """Fill the adapter with saved tensors, of its `adapter_shapes`.

    Raises:
        UserError: a value is not finite; `where` names the files, `again` says what mends them.
    """
    for file, given in zip((UNET_FILE, TEXT_FILE, POSITION_FILE), (unet, text, position), strict=True):
        if not all(torch.isfinite(tensor).all() for tensor in given.values()):
            raise UserError(f"{where}/{file} holds values that are not numbers (NaN or infinite)", again)
    if adapter.full:
        adapter.unet.load_state_dict(unet)
    else:
        set_peft_model_state_dict(adapter.unet, unet, adapter_name=adapter.name)
    for number, encoder in enumerate(adapter.text):
        own = {n.partition(".")[2]: t for n, t in text.items() if n.startswith(f"{number}.")}
        set_peft_model_state_dict(encoder.model, own, adapter_name=adapter.name)
    adapter.position.load_state_dict(position)


def _inject(model: Any, layers: list[str], rank: int, name: str) -> None:
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=layers, init_lora_weights="gaussian")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # a second adapter is meant
        inject_adapter_in_model(config, model, adapter_name=name)
    device = model.device  # asked once: diffusers walks through all of its modules for it
    for parameter in _lora_parameters(model, name):
        parameter.data = parameter.data.to(device, torch.float32)
        parameter.requires_grad_(True)


def _leave_inputs(unet: Any) -> None:
    """peft turns each layer's input into the LoRA's float32, and autocast turns it back: 6 % of a tuning step
    of `mini`, for the same numbers."""
    for module in unet.modules():
        if isinstance(module, LoraLayer):
            module.cast_input_dtype_enabled = False


def _copy(unet: Any) -> Any:
    """A U-Net with the same weights, without the LoRAs that it may carry; trainable, in float32."""
    with torch.device("meta"):
        own = type(unet).from_config(unet.config)
    state = {name: tensor.detach().clone().float() for name, tensor in _own_state(unet).items()}
    own.load_state_dict(state, assign=True)
    return own.eval().requires_grad_(True)


def _own_state(model: Any) -> State:
    """The model's own tensors by their own names, without the LoRAs that it may carry."""
    return {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in model.state_dict().items()
        if ".lora_" not in name
    }


def _own_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in _own_state(model).items()}


def _lora_shapes(model: Any, layers: list[str], rank: int) -> dict[str, tuple[int, ...]]:
    """Of the LoRA that these layers of the model would get, named as peft names them."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in model.named_modules():
        if name.endswith(tuple(f".{layer}" for layer in layers)):
            own: Any = module.get_base_layer() if isinstance(module, LoraLayer) else module
            outputs, inputs, *window = own.weight.shape
            shapes[f"{name}.lora_A.weight"] = (rank, inputs, *window)
            shapes[f"{name}.lora_B.weight"] = (outputs, rank, *(1 for _ in window))
    return shapes


def _lora_parameters(model: Any, name: str) -> list[nn.Parameter]:
    return [p for n, p in model.named_parameters() if f".{name}." in n]


def _lora_state(model: Any, name: str) -> State:
    return get_peft_model_state_dict(model, adapter_name=name)


def _on_cpu(state: State) -> State:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
