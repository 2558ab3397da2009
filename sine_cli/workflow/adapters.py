"""The `adapter/` folder: two or three safetensors files and the record of how they were made."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load_file

from sine_cli.errors import UserError
from sine_cli.models.adapter import Adapter, attach_adapter, load_state
from sine_cli.models.rows import TUNED
from sine_cli.models.text import PromptReader
from sine_cli.project.files import make_folder, read_bytes, replacing, sha256, shown, storage_errors
from sine_cli.project.folder import Project
from sine_cli.project.lock import holder
from sine_cli.project.manifest import Manifest, TuneSettings
from sine_cli.workflow.tensors import save_tensors

UNET = "adapter.safetensors"
TEXT = "text.safetensors"
POSITION = "position.safetensors"
RECORD = "record.yaml"
LARGEST_RECORD = 1024 * 1024
"""Bytes."""

AGAIN = "run `sine tune` again"


class AdapterRecord(BaseModel):
    """`adapter/record.yaml`: from what and how the adapter was made.

    Attributes:
        source_sha256: of `source.png`.  frequencies: octaves of the position's Fourier features.
        files: SHA-256 of the safetensors files.
        class_pictures: what decided about those of prior preservation; None without it.
        low_memory, eight_bits: how it was computed, which moves its values a little.
        seconds: of tuning, interruptions left out.  peak_memory: bytes.  loss: mean over the last steps.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    base: str
    base_revision: str
    source_sha256: str
    source_prompt: str
    tune: TuneSettings
    frequencies: int
    class_pictures: dict[str, Any] | None = None
    files: dict[str, str]
    loss: float
    seconds: float
    peak_memory: int
    device: str
    dtype: str
    low_memory: bool = False
    eight_bits: bool = False
    versions: dict[str, str]


def write_adapter(project: Project, adapter: Adapter, record: dict[str, Any]) -> AdapterRecord:
    """Write the adapter in the place of an older one, which stays where the disk refuses.

    The record goes first and comes last: without one that names its files there is no adapter.
    """
    folder = project.adapter_dir
    make_folder(folder)
    states = {UNET: adapter.unet_state(), TEXT: adapter.text_state(), POSITION: adapter.position_state()}
    written = [name for name, state in states.items() if state]
    with ExitStack() as stack:  # what is entered first takes its place last
        partials = {name: stack.enter_context(replacing(folder / name)) for name in (RECORD, *written)}
        for name in written:
            with storage_errors(folder / name):
                save_tensors(partials[name], states[name])
        whole = AdapterRecord(**record, files={name: sha256(partials[name]) for name in written})
        text = yaml.safe_dump(whole.model_dump(), sort_keys=False, allow_unicode=True)
        with storage_errors(folder / RECORD):
            partials[RECORD].write_text(text, "utf-8")
            for name in (RECORD, *(name for name in states if name not in written)):
                (folder / name).unlink(missing_ok=True)
    return whole


def read_record(project: Project) -> AdapterRecord:
    """The record of the project's adapter.

    Raises:
        UserError: not tuned yet, or not a record as sine writes it.
    """
    path = project.adapter_dir / RECORD
    if not path.is_file():
        tuner = holder(project.tuning_lock)
        if tuner:
            raise UserError(
                f"{project.label} is not tuned yet: process {tuner.pid} is at it, since {tuner.since}",
                "wait for it, then run the same command again",
            )
        raise UserError(f"{project.label} is not tuned yet", "run `sine tune` first")
    try:
        return AdapterRecord.model_validate(yaml.safe_load(read_bytes(path, limit=LARGEST_RECORD)))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # pydantic's and dates' are ValueErrors
        raise UserError(f"{shown(path)} is damaged, or another version of sine wrote it", AGAIN) from error


def intact_record(project: Project) -> AdapterRecord | None:
    """The record of a whole adapter; None where there is none, or it is damaged."""
    try:
        record = read_record(project)
        _check_files(project, record)
    except UserError:
        return None
    return record


def check_record(project: Project, manifest: Manifest, record: AdapterRecord) -> None:
    """Refuse an adapter of another base or another picture. Raises UserError."""
    folder = shown(project.adapter_dir)
    if record.base != manifest.base:
        raise UserError(
            f"{folder} was tuned on `{record.base}`, this project uses `{manifest.base}`",
            f"{AGAIN}, or set `base: {record.base}` in {shown(project.manifest_path)}",
        )
    if manifest.base_revision not in (None, record.base_revision):
        raise UserError(
            f"{folder} was tuned on revision {record.base_revision} of `{record.base}`, "
            f"this project uses {manifest.base_revision}",
            AGAIN,
        )
    if record.source_prompt != manifest.prompts.source:
        raise UserError(
            f'{folder} was tuned with the source prompt "{record.source_prompt}", '
            f'{shown(project.manifest_path)} has "{manifest.prompts.source}"',
            AGAIN,
        )
    if record.source_sha256 != sha256(project.source(manifest)):
        raise UserError(
            f"{folder} was tuned on another picture than {shown(project.source(manifest))}", AGAIN
        )


def load_adapter(
    project: Project, record: AdapterRecord, unet: Any, text: PromptReader, name: str = TUNED
) -> Adapter:
    """The project's adapter on U-Net and text encoders of its base, by a name that no other one there has.

    Raises:
        UserError: a file is missing, is not the one recorded, does not fit, or holds NaN.
    """
    _check_files(project, record)
    folder = project.adapter_dir
    adapter = attach_adapter(
        unet,
        rank=record.tune.rank,
        targets=record.tune.targets,
        frequencies=record.frequencies,
        seed=0,
        name=name,
        text=text if record.tune.text_encoder else None,
    )
    states = {file: _read(folder / file) for file in _files(record)}
    load_state(adapter, states[UNET], states.get(TEXT, {}), states[POSITION], where=shown(folder))
    if adapter.full:  # as the base is, for sampling
        adapter.unet.to(unet.dtype).requires_grad_(False)
    return adapter


def read_lora(project: Project, record: AdapterRecord) -> dict[str, Any]:
    """The LoRA's tensors by layer, without loading a base.

    Raises:
        UserError: a file is missing or is not the one recorded.
    """
    _check_files(project, record)
    return _read(project.adapter_dir / UNET)


def _files(record: AdapterRecord) -> list[str]:
    """What stands in the folder beside the record."""
    return [UNET, *([TEXT] if record.tune.text_encoder else []), POSITION]


def _check_files(project: Project, record: AdapterRecord) -> None:
    """All files as recorded. Raises UserError."""
    folder = project.adapter_dir
    for name in _files(record):
        if not (folder / name).is_file():
            raise UserError(f"{shown(folder / name)} is missing", AGAIN)
        if sha256(folder / name) != record.files.get(name):
            raise UserError(
                f"{shown(folder / name)} is not the file that {shown(folder / RECORD)} names", AGAIN
            )


def _read(path: Path) -> dict[str, Any]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{shown(path)} is damaged: {error}", AGAIN) from error
