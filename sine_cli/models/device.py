"""The machine: which device computes, in which number type, how much memory it took, and how to take less."""

import importlib
import importlib.util
import re
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
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
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux's `ru_maxrss` starts from the peak of the process that started this one, this does not.
    with suppress(OSError):
        told = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text("utf-8"))
        if told:  # some sandboxes leave it out
            return int(told[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def free_memory(device: torch.device) -> int:
    """Bytes that can still be taken: on the accelerator, else of the machine, its swap, and this process's
    control group.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return min(psutil.virtual_memory().available, *_left_in_groups()) + psutil.swap_memory().free


def _left_in_groups(
    groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> list[int]:
    """Bytes that each control group (version 2) of this process leaves of its limit; of none, the most."""
    left: list[int] = [sys.maxsize]
    with suppress(OSError):
        path = next((line[3:] for line in own.read_text("utf-8").splitlines() if line[:3] == "0::"), "/")
        folder = groups / path.strip("/")
        for group in (folder, *folder.parents):
            if not group.is_relative_to(groups):
                break
            with suppress(OSError, ValueError):  # no such limit: no such file, or "max"
                limit = int((group / "memory.max").read_text())
                used = int((group / "memory.current").read_text())
                cache = (group / "memory.stat").read_text().split()
                left.append(limit - used + int(cache[cache.index("inactive_file") + 1]))
    return left


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
