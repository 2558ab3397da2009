"""What a picture was made with, as every recipe and record keeps it, and what of that is different now."""

from collections.abc import Iterable
from importlib.metadata import version
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sine_cli import __version__
from sine_cli.project.files import printable
from sine_cli.project.manifest import Sha256, Text, first_mistake
from sine_cli.project.plain_yaml import shortened

LIBRARIES = ("torch", "diffusers", "transformers", "peft")
HASH_SHOWN = 12
"""Digits of a hash that a message shows."""

CONDITIONS = ("low_memory", "device", "dtype", "versions")
"""Of a `Provenance`, what may be another in some pictures of a run that went on after an interruption."""

Files = Annotated[dict[Text, Sha256], Field(max_length=8)]


def versions() -> dict[str, str]:
    """Of sine and of the libraries that decide about a picture's pixels."""
    return {"sine": __version__, **{name: version(name) for name in LIBRARIES}}


class LoraRecord(BaseModel):
    """The user's own LoRA on the base side, without the place where it lay."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    file: Text
    sha256: Sha256
    scale: Annotated[float, Field(ge=-10, le=10)]


class Provenance(BaseModel):
    """What a picture was made with, besides its recipe.

    Attributes:
        source: SHA-256 of the file that the project was made from.
        adapter: SHA-256 of its files; None where it had no weight.  guide_adapters: the same of each guide's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    source: Sha256
    base: Text
    base_revision: Text
    adapter: Files | None
    guide_adapters: list[Files | None] = []
    lora: LoraRecord | None = None
    low_memory: bool = False
    device: Text
    dtype: Text
    versions: Annotated[dict[Text, Text], Field(max_length=32)]

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "Provenance":
        """Of plain values. Raises ValueError for the first that is missing, unknown or of another type."""
        try:
            return cls.model_validate(record)
        except ValidationError as error:
            raise ValueError(first_mistake(error)) from error


def other_versions(then: dict[str, str], now: dict[str, str]) -> list[str]:
    """What was another version then, for people."""
    return _changed(
        [(shortened(printable(name)), then.get(name), now.get(name)) for name in dict.fromkeys([*then, *now])]
    )


def _changed(values: Iterable[tuple[str, str | None, str | None]]) -> list[str]:
    """Of (what, value then, value now) those that changed, for people."""
    return [
        f"{what} {_plain(before)} then, {_plain(after)} now"
        for what, before, after in values
        if before != after
    ]


def _plain(value: str | None) -> str:
    return shortened(printable(value)) if value else "none"


def differences(then: Provenance, now: Provenance) -> list[str]:
    """What decides about a picture's pixels and was another `then`, the base left out; for people.

    Args:
        then, now: of pictures with the same guides.
    """
    changed = other_versions(then.versions, now.versions)
    changed += _changed(
        [
            ("device", then.device, now.device),
            ("dtype", then.dtype, now.dtype),
            ("memory", _memory(then), _memory(now)),
            ("source picture", _hash(then.source), _hash(now.source)),
        ]
    )
    adapters = [("adapter", then.adapter, now.adapter)]
    for place, (before, after) in enumerate(zip(then.guide_adapters, now.guide_adapters, strict=True), 1):
        adapters.append((f"guide {place}'s adapter", before, after))
    for what, before, after in adapters:
        if before != after:
            changed.append(f"the {what} is another one now")
    if then.lora and now.lora:
        changed += _changed([("LoRA", _hash(then.lora.sha256), _hash(now.lora.sha256))])
    return changed


def _hash(digest: str | None) -> str | None:
    return digest and digest[:HASH_SHOWN]


def _memory(provenance: Provenance) -> str:
    return "low" if provenance.low_memory else "normal"
