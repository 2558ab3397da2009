"""What a result is made from: versions, base, adapter and picture, as every recipe and record keeps them."""

import hashlib
from importlib.metadata import version
from pathlib import Path

from sine_cli import __version__
from sine_cli.project.files import read_bytes

LIBRARIES = ("torch", "diffusers", "transformers", "peft")


def versions() -> dict[str, str]:
    """Of sine and of the libraries that decide about a picture's pixels."""
    return {"sine": __version__, **{name: version(name) for name in LIBRARIES}}


def sha256(path: Path) -> str:
    """The hash of a file, hexadecimal. Raises UserError when it is not there or cannot be read."""
    return hashlib.sha256(read_bytes(path)).hexdigest()
