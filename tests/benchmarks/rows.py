"""Ways of predicting base and tuned rows for one step of guidance: milliseconds a step.

    python -m tests.benchmarks.rows [--base mini|sd15] [--repeat 20] [--rank 16]
                                    [--targets attention+resnet] [--compile]

A picture's step takes three rows: null and prompt of the base, and one of the tuned model. For 1, 2, 4 and 8
pictures, in one process and in turn, medians:

    no LoRA            all rows through the bare U-Net: the floor
    sine               what `sine edit` does: `UNetBackbone`, position and all
    peft's mixed batch one call, each row with the name of its adapter
    slices             one call, the LoRA added to the slice of rows that is its own
    a scale a row      one call, the LoRA computed for all rows and scaled by 0 or 1
    two calls          base rows through the bare U-Net, tuned rows through one with the LoRA
    two merged         the same, the LoRA merged into the second U-Net's weights
    no LoRA, compiled  with --compile: the bare U-Net by `torch.compile`, on CUDA with its graphs; below the
                       table the seconds of its first call of each size, less once its cache has it

All predict the same; how far they are apart at the most, in float32 for one picture, stands below.
"""

import argparse
import copy
import time
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from peft.tuners.lora import LoraLayer
from torch import Tensor

from sine_cli.method.guidance import Branch
from sine_cli.method.position import FREQUENCIES
from sine_cli.models.adapter import TARGETS, attach_adapter, merge, tuned_models
from sine_cli.models.backbone import UNetBackbone
from sine_cli.models.device import best_device, best_dtype
from sine_cli.models.locate import in_package
from sine_cli.models.rows import BASE, TUNED
from sine_cli.models.text import Conditioning
from tests.benchmarks.fidelity import show
from tests.benchmarks.memory import UNETS

PICTURES = [1, 2, 4, 8]
T = 500


class Step(NamedTuple):
    """What a step predicts from: latents of `count` pictures, (count, C, h, w); words, (L, D) a branch."""

    x_t: Tensor
    words: list[Tensor]

    def rows(self, *branches: int) -> tuple[Tensor, Tensor]:
        """Latents and words of these branches, of all pictures one branch after another."""
        count = len(self.x_t)
        told = torch.cat([self.words[i].expand(count, -1, -1) for i in branches])
        return self.x_t.repeat(len(branches), 1, 1, 1), told


Way = Callable[[Step], Tensor]
"""A step's predictions, (3 count, C, h, w): null, base, tuned."""


def open_unet(base: str) -> Any:
    """The base's U-Net in float32, with random weights but for mini."""
    if base == "mini":
        folder = in_package("sine_cli.mini", "weights") / "unet"
        return UNet2DConditionModel.from_pretrained(folder, torch_dtype=torch.float32)
    torch.manual_seed(0)
    return UNet2DConditionModel(**UNETS[base])


class Ways:
    """All ways on copies of one U-Net, with the same LoRA of random values."""

    def __init__(self, unet: Any, dtype: torch.dtype, rank: int, targets: str) -> None:
        device = best_device()
        self.dtype, self.device = dtype, device
        bare = unet.to(device, dtype).eval().requires_grad_(False)
        self.bare = bare
        self.compiled: Any = None
        lora = copy.deepcopy(bare)
        adapter = self._attached(lora, rank, targets)
        self.backbone = UNetBackbone(lora, tuned_models(adapter), factor=8)
        self.peft = copy.deepcopy(bare)
        self._attached(self.peft, rank, targets)
        self.hooked = copy.deepcopy(bare)
        self._attached(self.hooked, rank, targets)
        self.names: list[str] = []
        self.added: Callable[[Any, Tensor, Tensor], Tensor] | None = None
        for of, hooked in ((self.peft, False), (self.hooked, True)):
            for layer in of.modules():
                if isinstance(layer, LoraLayer) and isinstance(layer, torch.nn.Module):
                    layer.register_forward_pre_hook(self._name, with_kwargs=True)
                    if hooked:
                        layer.register_forward_hook(self._add)
        self.merged = copy.deepcopy(bare).float()
        self.merged = merge(self._attached(self.merged, rank, targets), self.merged, []).to(dtype)
        self.tuned_alone = copy.deepcopy(bare)
        self._attached(self.tuned_alone, rank, targets)

    def _attached(self, unet: Any, rank: int, targets: str) -> Any:
        adapter = attach_adapter(unet, rank=rank, targets=targets, frequencies=FREQUENCIES, seed=0)
        generator = torch.Generator().manual_seed(1)
        for parameter in adapter.unet_parameters():
            parameter.data = (0.05 * torch.randn(parameter.shape, generator=generator)).to(parameter.device)
        return adapter

    def compile(self) -> None:
        """Add the compiled way; it is compiled in the first call of each size."""
        mode = "reduce-overhead" if self.device.type == "cuda" else "default"
        self.compiled = torch.compile(self.bare, mode=mode, dynamic=False)

    def all(self) -> dict[str, Way]:
        compiled = {"no LoRA, compiled": lambda step: self._call(self.compiled, *step.rows(0, 1, 2))}
        return {
            **(compiled if self.compiled is not None else {}),
            "no LoRA": lambda step: self._call(self.bare, *step.rows(0, 1, 2)),
            "sine": self.sine,
            "peft's mixed batch": self.mixed,
            "slices": self.slices,
            "a scale a row": self.scaled,
            "two calls": lambda step: self._two(self.tuned_alone, step),
            "two merged": lambda step: self._two(self.merged, step),
        }

    def sine(self, step: Step) -> Tensor:
        prompts = [Conditioning(words) for words in step.words]
        whole = torch.tensor([0.0, 0.0, 1.0, 1.0], device=self.device)
        branches = [Branch(prompts[0]), Branch(prompts[1]), Branch(prompts[2], whole, TUNED)]
        return torch.cat(self.backbone(step.x_t, T, branches))

    def mixed(self, step: Step) -> Tensor:
        count = len(step.x_t)
        self.names = [BASE] * 2 * count + [TUNED] * count
        return self._call(self.peft, *step.rows(0, 1, 2))

    def slices(self, step: Step) -> Tensor:
        first = 2 * len(step.x_t)

        def add(layer: Any, x: Tensor, output: Tensor) -> Tensor:
            output[first:] += _branch(layer, x[first:]).to(output.dtype)
            return output

        return self._with(add, step)

    def scaled(self, step: Step) -> Tensor:
        count = len(step.x_t)
        scale = torch.cat([torch.zeros(2 * count), torch.ones(count)]).to(self.device)

        def add(layer: Any, x: Tensor, output: Tensor) -> Tensor:
            added = _branch(layer, x)
            return output + (added * scale.view(-1, *[1] * (added.ndim - 1)).to(added.dtype)).to(output.dtype)

        return self._with(add, step)

    def _with(self, add: Callable[[Any, Tensor, Tensor], Tensor], step: Step) -> Tensor:
        self.names, self.added = [BASE] * 3 * len(step.x_t), add
        return self._call(self.hooked, *step.rows(0, 1, 2))

    def _two(self, tuned: Any, step: Step) -> Tensor:
        return torch.cat([self._call(self.bare, *step.rows(0, 1)), self._call(tuned, *step.rows(2))])

    def _name(self, layer: Any, inputs: Any, kwargs: dict[str, Any]) -> Any:
        return inputs, {**kwargs, "adapter_names": self.names}

    def _add(self, layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return self.added(layer, inputs[0], output) if self.added else output

    @torch.no_grad()
    def _call(self, unet: Any, x_t: Tensor, told: Tensor) -> Tensor:
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            return unet(x_t.to(self.dtype), T, told.to(self.dtype)).sample.float()


def _branch(layer: Any, x: Tensor) -> Tensor:
    """s B A x of a LoRA layer."""
    down, up = layer.lora_A[TUNED], layer.lora_B[TUNED]
    return up(down(x.to(down.weight.dtype))) * layer.scaling[TUNED]


def step_of(unet: Any, count: int, device: torch.device) -> Step:
    generator = torch.Generator().manual_seed(0)
    side, width = unet.config.sample_size, unet.config.cross_attention_dim
    x_t = torch.randn(count, unet.config.in_channels, side, side, generator=generator)
    length = 24 if width < 768 else 77
    words = [torch.randn(length, width, generator=generator).to(device) for _ in range(3)]
    return Step(x_t.to(device), words)


def seconds_of(way: Way, step: Step) -> float:
    """With all that it has started done: the result is read."""
    started = time.perf_counter()
    way(step).sum().item()
    return time.perf_counter() - started


def apart(unet: Any, rank: int, targets: str) -> dict[str, float]:
    """The largest difference of each way to peft's, in float32, in shares of the largest value."""
    ways, step = Ways(unet, torch.float32, rank, targets), step_of(unet, 1, best_device())
    expected = ways.mixed(step)
    others = {name: way for name, way in ways.all().items() if name != "no LoRA"}
    return {
        name: float((way(step) - expected).abs().max() / expected.abs().max()) for name, way in others.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", default="mini", choices=["mini", "sd15"])
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--targets", default="attention+resnet", choices=sorted(TARGETS))
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    diffusers_logging.set_verbosity_error()
    unet, device = open_unet(options.base), best_device()
    dtype = best_dtype(device)
    ways = Ways(copy.deepcopy(unet), dtype, options.rank, options.targets)
    if options.compile:
        ways.compile()
    timed: dict[tuple[str, int], list[float]] = {}
    first: dict[tuple[str, int], float] = {}
    for count in PICTURES:
        step = step_of(unet, count, device)
        for round_ in range(options.repeat + 2):
            for name, way in ways.all().items():
                seconds = seconds_of(way, step)
                first.setdefault((name, count), seconds)
                if round_ >= 2:  # the first ones make room
                    timed.setdefault((name, count), []).append(seconds)
    kind = f"{str(dtype).removeprefix('torch.')} on {device.type}, ms a step"
    show([f"{options.base}, {kind}", *(f"{count} at once" for count in PICTURES)], ["---"] * 5)
    for name in ways.all():
        show([name, *(f"{1000 * median(timed[name, count]):.1f}" for count in PICTURES)])
    if options.compile:
        calls = (f"{first['no LoRA, compiled', count]:.1f}" for count in PICTURES)
        print(f"\nFirst calls of the compiled one, s: {', '.join(calls)}")
    print("\nApart from peft's mixed batch in float32, in shares of the largest value:")
    for name, difference in apart(unet, options.rank, options.targets).items():
        print(f"{name}: {difference:.1e}")


if __name__ == "__main__":
    main()
