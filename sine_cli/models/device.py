"""The machine: which device computes, in which number type, how much memory it took, and how to take less."""

import importlib
import importlib.util
import resource
import sys
from typing import Any

import torch

from sine_cli.method.tuning import NewOptimizer


def best_device() -> torch.device:
    """An accelerator where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def best_dtype(device: torch.device) -> torch.dtype:
    """The fastest type for the U-Net that the device computes natively and that does not overflow."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    if device.type == "cpu":
        # Absent before torch 2.10: such a torch computes in float32, which is right and slower.
        capabilities = getattr(torch.cpu, "get_capabilities", dict[str, bool])()
        if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"):
            return torch.bfloat16
    return torch.float32


def peak_memory(device: torch.device) -> int:
    """The most bytes held at once so far: on the accelerator, or by this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def small_optimizer(device: torch.device) -> NewOptimizer | None:
    """AdamW with its moments in 8 bits, a quarter of the memory; None where bitsandbytes is not installed, or
    has nothing for the device.

    References:
        8-bit Optimizers via Block-wise Quantization, Dettmers et al., 2022.
    """
    if device.type == "mps" or importlib.util.find_spec("bitsandbytes") is None:
        return None
    optimizers: Any = importlib.import_module("bitsandbytes.optim")
    return lambda groups: optimizers.AdamW8bit(groups, weight_decay=0.0)
