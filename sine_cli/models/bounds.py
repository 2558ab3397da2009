"""A configuration held to its weights: a model's folder may ask for no more memory than its files justify.

A few bytes of JSON can ask for 10^9 layers, or for 10^12 words. Libraries build what a configuration says
before they look at the weights, so it is bounded while it is built: no whole number beyond any model's, and
no more layers and weights than twice what the files hold. A configuration that asks for a little more or less
is left to the libraries, which say what is missing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

from safetensors import safe_open
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from sine_cli.errors import UserError
from sine_cli.models.locate import read_config, weights_of

LARGEST = 2**18
"""The most that a number of a configuration may be: vocabularies come near it, pixels and times do not."""

SLACK = 2
"""Times the tensors and numbers of the files that a model may have."""


def check_numbers(path: Path) -> None:
    """Refuse a configuration with a whole number, anywhere in it, beyond `LARGEST`. Raises UserError.

    One that is not there is left to the libraries, which say so.
    """
    for name, number in _whole_numbers(read_config(path) if path.exists() else {}):
        if abs(number) > LARGEST:
            raise UserError(
                f"{path}: {name}: {str(number)[:20]} is more than any model needs",
                "fetch or copy it again, from a place that you trust",
            )


@contextmanager
def bounded(part: Path) -> Iterator[None]:
    """Models built in here from the configuration in the folder `part` are held to the weights beside it.

    Where there are no weights, only the configuration's numbers are.

    Raises:
        UserError: it asks for more.  SafetensorError, OSError: weights that cannot be read.
    """
    check_numbers(part / "config.json")
    tensors, numbers = 0, 0
    for path in weights_of(part):
        with safe_open(path, framework="np") as file:
            names = list(file.keys())
            shapes = [file.get_slice(name).get_shape() for name in names]
        tensors, numbers = tensors + len(shapes), numbers + sum(map(prod, shapes))
    if not tensors:
        yield
        return
    asked = [0, 0]

    def count(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        if name in module._parameters:  # replaced, by its weights for example
            return
        asked[0] += 1
        asked[1] += parameter.numel()
        if asked[0] > SLACK * tensors or asked[1] > SLACK * numbers:
            raise UserError(
                f"{part}/config.json asks for more than twice the {tensors:,} tensors ({numbers:,} numbers) "
                "of its weights",
                "fetch or copy it again, from a place that you trust",
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def _whole_numbers(config: object, name: str = "") -> Iterator[tuple[str, int]]:
    """Those of a configuration, each with the names that lead to it."""
    if isinstance(config, dict):
        for key, value in config.items():
            yield from _whole_numbers(value, f"{name}.{key}" if name else str(key))
    elif isinstance(config, list):
        for value in config:
            yield from _whole_numbers(value, name)
    elif isinstance(config, int):
        yield name, config
