"""What the five trainings share: where they compute, and a loop that checkpoints, goes on where it stopped,
and keeps an average of the weights."""

import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

Report = Callable[[str], None]
_STATE = "state.safetensors"
_OPTIMISER_STATE = ("step", "exp_avg", "exp_avg_sq", "momentum_buffer")
"""What AdamW or Muon keeps of a parameter."""


DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""Where all is trained: models and batches are put there."""


def autocast() -> torch.autocast:
    """bfloat16 where it is computed natively: on other processors it is several times slower than float32."""
    if DEVICE.type == "cuda":
        is_native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = getattr(torch.cpu, "get_capabilities", dict[str, bool])()  # absent before torch 2.10
        is_native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    # No cache of cast weights: each is used once a step, and a graph would keep the first ones
    return torch.autocast(DEVICE.type, dtype=torch.bfloat16, enabled=is_native, cache_enabled=False)


def as_graphs(model: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[..., Any]:
    """On a GPU, `model` as CUDA graphs of its forward and backward pass, for inputs of these shapes alone:
    to launch the kernels of a small model one by one takes longer than to compute them.
    Elsewhere the model itself.

    Its parameters may change in place only. What a call returns is overwritten by the next one.
    """
    if DEVICE.type != "cuda":
        return model
    # Of nodes that recording leaves on its own stream: at worst a wait too many
    warnings.filterwarnings("ignore", message="The AccumulateGrad node's stream")
    return torch.cuda.make_graphed_callables(model, inputs)


def generator(step: int) -> torch.Generator:
    """Of all that a step draws on the device: it depends on the step's number alone."""
    return torch.Generator(DEVICE).manual_seed(step)


@dataclass(frozen=True)
class Length:
    """How long a training is: its steps, and the pictures (or captions) of each."""

    steps: int
    batch: int


class Loop:
    """One training: a model, AdamW, an exponential moving average, and checkpoints in a folder.

    Args:
        folder: of the checkpoints; one that is there is gone on from.
        learning_rate: at its highest: it rises over `warmup` steps, stays, and over the last third of the
            steps falls to a fiftieth. So a training can be lengthened before that third begins.
        average: decay of the moving average of the weights.
        muon: matrices with this in their names learn by Muon (Jordan et al., 2024), all else by AdamW.
    """

    def __init__(
        self,
        model: nn.Module,
        folder: Path,
        *,
        steps: int,
        learning_rate: float,
        warmup: int = 200,
        average: float = 0.999,
        weight_decay: float = 0.01,
        muon: str | None = None,
    ):
        self.model, self.folder, self.steps = model, folder, steps
        self._peak, self._warmup, self._decay = learning_rate, warmup, average
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._names = [name for name, p in model.named_parameters() if p.requires_grad]
        self._averages = [p.detach().clone() for p in self._parameters]
        kept = model.state_dict().keys()
        self._buffers = {name: buffer for name, buffer in model.named_buffers() if name in kept}
        by_muon = [
            muon is not None and muon in name and p.ndim == 2
            for name, p in zip(self._names, self._parameters, strict=True)
        ]
        others = [p for p, chosen in zip(self._parameters, by_muon, strict=True) if not chosen]
        adamw = torch.optim.AdamW(others, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True)
        self._optimisers: list[torch.optim.Optimizer] = [adamw]
        if any(by_muon):
            matrices = [p for p, chosen in zip(self._parameters, by_muon, strict=True) if chosen]
            self._optimisers.append(
                torch.optim.Muon(matrices, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
            )
        self._optimiser_of = [self._optimisers[-1] if chosen else adamw for chosen in by_muon]
        self.step, self.seconds, self.seen = 0, 0.0, 0
        if (folder / _STATE).is_file():
            self._restore()

    def run(self, loss: Callable[[int], tuple[Tensor, int]], report: Report, every: float = 300) -> None:
        """Take the steps that are left.

        Args:
            loss: of the step with this number; its randomness may depend on the number alone. Also how many
                pictures it saw.
            every: seconds between checkpoints at the least; looked at, as is whether the loss is a number, at
                every hundredth step and the last.
        """
        saved = started = time.monotonic()
        mean: Tensor | None = None
        before, seen_before, step_before = self.seconds, self.seen, self.step
        while self.step < self.steps:
            value, pictures = loss(self.step)
            value.backward()
            nn.utils.clip_grad_norm_(self._parameters, 1.0)
            for optimiser in self._optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = self.learning_rate()
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            self.step += 1
            self.seen += pictures
            decay = min(self._decay, (1 + self.step) / (10 + self.step))
            get_ema_multi_avg_fn(decay)(self._averages, [*self._parameters], self.step)
            value = value.detach()
            mean = value if mean is None else mean.lerp(value, 0.02)
            if self.step % 100 and self.step < self.steps:
                continue  # to read a number waits for an accelerator
            if not math.isfinite(mean.item()):
                raise FloatingPointError(f"the loss is {mean.item()} at step {self.step}")
            now = time.monotonic()
            self.seconds = before + now - started
            rate = (self.seen - seen_before) / (now - started)
            left = (self.steps - self.step) * (now - started) / (self.step - step_before)
            pace = f"{rate:.0f} pictures/s  {left / 60:.0f} min left"
            report(f"step {self.step}/{self.steps}  loss {mean.item():.4f}  {pace}")
            if now - saved > every or self.step == self.steps:
                self.save()
                saved = now

    def learning_rate(self) -> float:
        rise = min(1.0, (self.step + 1) / self._warmup)
        fall = min(1.0, 3 * (1 - self.step / self.steps))
        return self._peak * rise * max(0.02, fall)

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """The model with the averaged weights, for as long as it is needed."""
        kept = [p.detach().clone() for p in self._parameters]
        self._put(self._averages)
        try:
            yield self.model
        finally:
            self._put(kept)

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.copy_(value)

    def save(self) -> None:
        """Write the checkpoint; an older one stays until this one is whole."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, Tensor] = {}
        for name, parameter, average, optimiser in zip(
            self._names, self._parameters, self._averages, self._optimiser_of, strict=True
        ):
            tensors |= {f"weight.{name}": parameter.detach(), f"average.{name}": average}
            tensors |= {f"{key}.{name}": tensor for key, tensor in optimiser.state[parameter].items()}
        tensors |= {f"buffer.{name}": buffer for name, buffer in self._buffers.items()}
        facts = {"step": self.step, "seconds": self.seconds, "seen": self.seen}
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(whole, self.folder / ".state.safetensors", {"facts": json.dumps(facts)})
        os.replace(self.folder / ".state.safetensors", self.folder / _STATE)

    def _restore(self) -> None:
        with safe_open(self.folder / _STATE, "pt") as file:
            facts: dict[str, Any] = json.loads(file.metadata()["facts"])
            names = file.keys()  # no mapping: it has no `in`
            tensors = {name: file.get_tensor(name).to(self._parameters[0].device) for name in names}
        self.step, self.seconds, self.seen = facts["step"], facts["seconds"], facts["seen"]
        self._put([tensors[f"weight.{name}"] for name in self._names])
        self._averages = [
            _laid_out_as(parameter, tensors[f"average.{name}"])
            for name, parameter in zip(self._names, self._parameters, strict=True)
        ]
        for name, buffer in self._buffers.items():
            buffer.copy_(tensors[f"buffer.{name}"])
        for name, parameter, optimiser in zip(self._names, self._parameters, self._optimiser_of, strict=True):
            optimiser.state[parameter] = {
                key: _laid_out_as(parameter, tensors[f"{key}.{name}"])
                for key in _OPTIMISER_STATE
                if f"{key}.{name}" in tensors
            }


def _laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    """The value, in the parameter's order in memory where it has its shape: the file has lost it, and the
    fused optimiser goes through both as they lie."""
    return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
