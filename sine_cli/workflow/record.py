"""The versions that a result is made with, as every recipe and record keeps them."""

from importlib.metadata import version

from sine_cli import __version__

LIBRARIES = ("torch", "diffusers", "transformers", "peft")


def versions() -> dict[str, str]:
    """Of sine and of the libraries that decide about a picture's pixels."""
    return {"sine": __version__, **{name: version(name) for name in LIBRARIES}}
