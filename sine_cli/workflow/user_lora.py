"""The user's own LoRA for the base side, as `--lora FILE[:scale]` names it."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sine_cli.errors import UserError
from sine_cli.project.files import printable, sha256, shown, typed

STRONGEST = 10.0
"""Far beyond what any LoRA bears; more is a slip of the finger."""


@dataclass(frozen=True)
class UserLora:
    """A LoRA file and its strength; 1 is what its maker meant."""

    file: Path
    scale: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for records."""
        return {"file": printable(self.file.name), "sha256": sha256(self.file), "scale": self.scale}


def parse_user_lora(text: str) -> UserLora:
    """A LoRA from `FILE` or `FILE:scale`; a file of that whole name comes first.

    Raises:
        UserError: no such file, or a scale that is not from -10 to 10.
    """
    hint = "give a file and, if you like, a strength: `--lora ink.safetensors:0.8`"
    name, colon, number = text.rpartition(":")
    if not colon or os.path.isfile(text):
        name, number = text, "1"
    try:
        scale = float(number)
    except ValueError as error:
        raise UserError(f'--lora: "{number}" is not a strength', hint) from error
    if not (math.isfinite(scale) and abs(scale) <= STRONGEST):
        raise UserError(f"--lora: the strength must be from -10 to 10, got {number}", hint)
    if not os.path.isfile(name):
        raise UserError(f"--lora: no such file: {shown(Path(name))}", hint)
    folder = Path(os.path.abspath(name)).parent
    if folder.name == "adapter" and (folder.parent / "sine.yaml").is_file():
        raise UserError(
            f"--lora: {shown(Path(name))} is the adapter of a project of sine",
            f"use it as a guide: `--guide {typed(folder.parent)}:0.3`; `sine export` writes it as a LoRA",
        )
    return UserLora(Path(name), scale)
