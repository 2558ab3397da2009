"""`sine export`: the adapter for other tools, as a LoRA file or merged into a whole base."""

from dataclasses import dataclass
from pathlib import Path

import torch

from sine_cli.models.adapter import merge
from sine_cli.models.base import load_parts, prompt_reader
from sine_cli.models.locate import Location, is_half, unet_config
from sine_cli.models.lora_files import for_diffusers, for_kohya
from sine_cli.models.parts import Parts, write_folder
from sine_cli.project.files import (
    make_folder,
    partial_path,
    remove,
    remove_abandoned,
    storage_errors,
)
from sine_cli.project.folder import Project
from sine_cli.project.leftovers import remove_leftovers
from sine_cli.project.manifest import Manifest
from sine_cli.workflow.adapter_record import AdapterRecord, check_base
from sine_cli.workflow.adapters import load_adapter, read_lora
from sine_cli.workflow.asked import MERGED, check_export
from sine_cli.workflow.bases import find_base
from sine_cli.workflow.tensors import disk_errors, write_tensors


@dataclass(frozen=True)
class ExportResult:
    """What was written.

    Attributes:
        path: a LoRA file; a diffusers folder where the form is `MERGED`.
        source_prompt: the words that call the picture up.
        text_stays_behind: whether the text encoder was tuned too, and this form has no place for that.
    """

    path: Path
    form: str
    rank: int
    source_prompt: str
    text_stays_behind: bool


def export(
    project: Project,
    manifest: Manifest,
    form: str,
    out: Path | None = None,
) -> ExportResult:
    """Write the project's adapter in a form that other tools load; the position stays behind.

    Args:
        form: one of `asked.LORAS`, or `MERGED`: a whole base, tuned.
        out: where to; None takes `exports/` in the project, and replaces what was exported there before.

    Raises:
        UserError: no such form, not tuned, an adapter that does not fit or is no LoRA, `out` exists already.
        SineError: the base cannot be had, disk.
    """
    # 1. What is asked for, checked before anything is loaded
    record = check_export(project, manifest, form, out)
    remove_leftovers(project)
    name = f"{project.name}-{MERGED}" if form == MERGED else f"{project.name}-{form}.safetensors"
    path = out or project.exports_dir / name

    # 2. The whole base, tuned, or the LoRA under the names of other tools
    if form == MERGED:
        location = find_base(manifest)
        check_base(project, manifest, record, location.revision)
        parts = _merged(project, record, location)
        make_folder(path.parent)
        _write_folder(parts, path)
    else:
        lora = read_lora(project, record)
        if form == "diffusers":
            state = for_diffusers(lora)
        else:
            state = for_kohya(lora, unet_config(find_base(manifest).path))
        make_folder(path.parent)
        write_tensors(path, state, {"format": "pt"})
    stays = record.tune.text_encoder and form != MERGED
    return ExportResult(path, form, record.tune.rank, record.source_prompt, stays)


def _merged(project: Project, record: AdapterRecord, location: Location) -> Parts:
    """Merged in float32, then of the precision that the base's own files have."""
    parts = load_parts(location.path, location.variant, torch.float32)
    text = prompt_reader(parts, torch.device("cpu"))
    adapter = load_adapter(project, record, parts.unet, text)
    parts.unet = merge(adapter, parts.unet, [model for _, model in parts.text])
    if is_half(location):
        for model in (parts.unet, parts.autoencoder, *(model for _, model in parts.text)):
            model.half()
    return parts


def _write_folder(parts: Parts, path: Path) -> None:
    """The folder appears whole or not at all, in the place of one that was exported before."""
    remove_abandoned(path)
    partial = partial_path(path)
    with storage_errors(path):
        try:
            with disk_errors():
                write_folder(parts, partial)
            remove(path)
            partial.rename(path)
        finally:
            remove(partial)
