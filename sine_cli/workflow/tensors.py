"""Tensors to a safetensors file, straight from where they are: a copy of a whole U-Net may not fit."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from sine_cli.project.files import partial_path, remove, replacing


@contextmanager
def disk_errors() -> Iterator[None]:
    """What the disk refuses to safetensors, as the OSError that it is."""
    try:
        yield
    except SafetensorError as error:
        refused = re.search(r"\(os error (\d+)\)", str(error))
        if refused is None:
            raise
        raise OSError(number := int(refused[1]), os.strerror(number)) from error


def save_tensors(file: Path, tensors: dict[str, Tensor], about: dict[str, str] | None = None) -> None:
    """Write a file, `about` in its header. Raises OSError when the disk refuses."""
    # safetensors writes to a file of its own beside the one it is given, whose name carries no process: in a
    # partial folder the next command finds what a killed one left of it.
    folder = partial_path(file.with_name(file.name.lstrip(".")))
    whole = folder / "whole.safetensors"
    folder.mkdir(exist_ok=True)
    try:
        with disk_errors():
            save_file(tensors, whole, metadata=about)
        os.umask(mask := os.umask(0))  # there is no other way to ask for it
        with suppress(OSError):  # some mounts have no permissions to set
            whole.chmod(0o666 & ~mask)  # safetensors writes for the owner alone
        whole.replace(file)
    finally:
        remove(folder)


def write_tensors(path: Path, tensors: dict[str, Tensor], about: dict[str, str] | None = None) -> None:
    """As `save_tensors`, whole or not at all. Raises SineError when the disk refuses."""
    with replacing(path) as partial:
        save_tensors(partial, tensors, about)
