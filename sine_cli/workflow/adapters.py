"""The `adapter/` folder: two or three safetensors files and the record of how they were made.

What was tuned in float32 is kept in half of it. Where the U-Net computed in bfloat16, its LoRA was rounded
to that at every step, and so it is kept: pictures stay those of the tuning's end to the bit. Else in
float16, whose 11 bits tell a weight to 0.05 %. The position stays as it is: a few kilobytes. Checkpoints
too, so that a tuning goes on exactly.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from sine_cli.errors import SineError, UserError
from sine_cli.models.adapter import POSITION_FILE as POSITION
from sine_cli.models.adapter import TEXT_FILE as TEXT
from sine_cli.models.adapter import UNET_FILE as UNET
from sine_cli.models.adapter import Adapter, Shapes, adapter_shapes, attach_adapter, load_state
from sine_cli.models.rows import TUNED
from sine_cli.models.text import PromptReader
from sine_cli.project.files import (
    flush_file,
    make_folder,
    replacing,
    sha256,
    shown,
    storage_errors,
)
from sine_cli.project.folder import Project
from sine_cli.workflow.adapter_record import RECORD, AdapterRecord, again, read_record
from sine_cli.workflow.tensors import save_tensors

FLOATS = {"F32", "F16", "BF16"}
"""Kinds of numbers that an adapter's tensors may have, as safetensors names them."""


def write_adapter(project: Project, adapter: Adapter, record: dict[str, Any]) -> AdapterRecord:
    """Write the adapter in the place of an older one, which stays where the disk refuses.

    The record goes first and comes last: without one that names its files there is no adapter.

    Raises:
        SineError: a value is not a number, or too large for its type; disk.
    """
    computed = torch.bfloat16 if record["dtype"] == "bfloat16" else torch.float16
    states = {
        UNET: _halved(adapter.unet_state(), computed),
        TEXT: _halved(adapter.text_state(), torch.float16),  # text encoders compute in float32
        POSITION: adapter.position_state(),
    }
    folder = project.adapter_dir
    written = [name for name, state in states.items() if state]
    with _taking_its_place(folder, written) as partials:
        for name in written:
            with storage_errors(folder / name):
                save_tensors(partials[name], states[name])
        whole = AdapterRecord(**record, files={name: sha256(partials[name]) for name in written})
        text = yaml.safe_dump(whole.model_dump(), sort_keys=False, allow_unicode=True)
        with storage_errors(folder / RECORD):
            partials[RECORD].write_text(text, "utf-8")
    return whole


def copy_adapter(source: Project, target: Project) -> None:
    """Put a whole adapter in the place of another project's, which stays where the disk refuses.

    Raises:
        SineError: disk.
    """
    with _taking_its_place(target.adapter_dir, whole_files(source)) as partials:
        for name, partial in partials.items():
            with storage_errors(target.adapter_dir / name):
                shutil.copyfile(source.adapter_dir / name, partial)


@contextmanager
def _taking_its_place(folder: Path, files: list[str]) -> Iterator[dict[str, Path]]:
    """Hidden paths by name, of the record and these files: on leaving, all of them are the adapter.

    Raises:
        SineError: disk; the older adapter is as it was.
    """
    make_folder(folder)
    with ExitStack() as stack:  # what is entered first takes its place last
        partials = {name: stack.enter_context(replacing(folder / name)) for name in (RECORD, *files)}
        yield partials
        with storage_errors(folder / RECORD):
            for partial in partials.values():
                flush_file(partial)  # before the older record goes
            for name in (RECORD, *(name for name in (UNET, TEXT, POSITION) if name not in files)):
                (folder / name).unlink(missing_ok=True)


def _halved(state: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    halved = {name: tensor.to(dtype) for name, tensor in state.items()}
    for name, tensor in halved.items():
        if not torch.isfinite(tensor).all():
            raise SineError(
                f"what was tuned cannot be kept: {name} has values that are not numbers, or too large",
                "lower `tune.learning_rate` in sine.yaml, then run `sine tune` again",
            )
    return halved


def intact_record(project: Project) -> AdapterRecord | None:
    """The record of a whole adapter; None where there is none, or it is damaged."""
    try:
        record = read_record(project)
        check_files(project, record)
    except UserError:
        return None
    return record


def whole_files(project: Project) -> list[str]:
    """What stands beside the record of a whole adapter; nothing where there is none, or it is damaged.

    One whose record cannot be read counts as whole: another version of sine may have written it.
    """
    folder = project.adapter_dir
    try:
        record = read_record(project)
    except UserError:
        # Links may lead out of the project, to what no hash says is an adapter.
        present = {entry.name for entry in folder.glob("*") if entry.is_file() and not entry.is_symlink()}
        is_there = RECORD in present and os.access(folder / RECORD, os.R_OK)
        return [name for name in (UNET, TEXT, POSITION) if name in present] if is_there else []
    try:
        check_files(project, record)
    except UserError:
        return []
    return _files(record)


def load_adapter(
    project: Project, record: AdapterRecord, unet: Any, text: PromptReader, name: str = TUNED
) -> Adapter:
    """The project's adapter on U-Net and text encoders of its base, by a name that no other one there has.

    Raises:
        UserError: a file is missing, is not the one recorded, does not fit, or holds NaN.
    """
    with _as_recorded(project, record):
        # Before there is memory for it: a record may say more than its files hold.
        expected = adapter_shapes(
            unet,
            text if record.tune.text_encoder else None,
            rank=record.tune.rank,
            targets=record.tune.targets,
            frequencies=record.frequencies,
        )
        check_shapes(project, expected)
        adapter = attach_adapter(
            unet,
            rank=record.tune.rank,
            targets=record.tune.targets,
            frequencies=record.frequencies,
            seed=0,
            name=name,
            text=text if record.tune.text_encoder else None,
        )
        states = {file: _read(project, file) for file in _files(record)}
    files = states[UNET], states.get(TEXT, {}), states[POSITION]
    load_state(adapter, *files, where=shown(project.adapter_dir), again=again(project))
    adapter.freeze(unet.conv_in.weight.dtype)
    return adapter


def read_lora(project: Project, record: AdapterRecord) -> dict[str, Any]:
    """The LoRA's tensors by layer, without loading a base.

    Raises:
        UserError: a file is missing or is not the one recorded.
    """
    with _as_recorded(project, record):
        return _read(project, UNET)


@contextmanager
def _as_recorded(project: Project, record: AdapterRecord) -> Iterator[None]:
    """Whatever is read of the adapter in here is as the record says.

    Raises:
        UserError: a file is missing or is not the one recorded, or a tuning ended meanwhile.
    """

    replaced = UserError(
        f"{shown(project.adapter_dir)} was tuned anew while it was read", "run the same command again"
    )
    files = [project.adapter_dir / name for name in _files(record)]
    before = [*map(_stamp, files)]
    try:
        check_files(project, record)
        yield
    except UserError as error:
        if _is_another(project, record):
            raise replaced from error
        raise
    if _is_another(project, record) or before != [*map(_stamp, files)]:
        raise replaced


def _is_another(project: Project, record: AdapterRecord) -> bool:
    """Whether the adapter is no longer the one of the record: its record goes first and comes last."""
    try:
        return read_record(project) != record
    except UserError:
        return True


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What differs where a file has taken the place of another; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _files(record: AdapterRecord) -> list[str]:
    """What stands in the folder beside the record."""
    return [UNET, *([TEXT] if record.tune.text_encoder else []), POSITION]


def check_shapes(project: Project, expected: Shapes) -> None:
    """Refuse files whose tensors are others than expected; only their headers are read.

    Raises:
        UserError: a file is damaged, or has other names, shapes or kinds of numbers.
    """
    for name, shapes in expected.items():
        path = project.adapter_dir / name
        try:
            with safe_open(path, framework="pt") as file:
                slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
                found = {key: tuple(tensor.get_shape()) for key, tensor in slices.items()}
                kinds = {tensor.get_dtype() for tensor in slices.values()}
        except (SafetensorError, OSError) as error:
            raise UserError(f"{shown(path)} is damaged: {error}", again(project)) from error
        if found != shapes or not kinds <= FLOATS:
            raise UserError(
                f"{shown(path)} does not fit this base and the settings it was tuned with", again(project)
            )


def check_files(project: Project, record: AdapterRecord) -> None:
    """Refuse files that are gone, or not as recorded. Raises UserError."""
    folder = project.adapter_dir
    for name in _files(record):
        if not (folder / name).is_file():
            raise UserError(f"{shown(folder / name)} is missing", again(project))
        if sha256(folder / name) != record.files.get(name):
            raise UserError(
                f"{shown(folder / name)} is not the file that {shown(folder / RECORD)} names", again(project)
            )


def _read(project: Project, name: str) -> dict[str, Any]:
    path = project.adapter_dir / name
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{shown(path)} is damaged: {error}", again(project)) from error
