"""The record of an adapter, `adapter/record.yaml`: from what and how it was made, and whether it is one of
this project. Knows no torch, so that what is wrong is told at once.
"""

import os
import shlex
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sine_cli.errors import UserError
from sine_cli.project.files import read_bytes, sha256, shown, typed
from sine_cli.project.folder import Project, typed_for
from sine_cli.project.lock import holder
from sine_cli.project.manifest import Manifest, TuneSettings, first_mistake
from sine_cli.project.plain_yaml import read_record as read_plain
from sine_cli.workflow.guides import FoundGuide

RECORD = "record.yaml"
LARGEST_RECORD = 1024 * 1024
"""Bytes."""


class AdapterRecord(BaseModel):
    """`adapter/record.yaml`: from what and how the adapter was made.

    Attributes:
        source_sha256: of `source.png`.
        frequencies: octaves of the position's Fourier features; a float's digits end before 64.
        files: SHA-256 of the safetensors files.
        class_pictures: what decided about those of prior preservation; None without it.
        steps_taken: of tuning; fewer than its `steps` where it stopped early. Older records have none: all.
        low_memory, eight_bits: how it was computed, which moves its values a little.
        seconds: of tuning, interruptions left out.  peak_memory: bytes.  loss: mean over the last steps.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    base: str
    base_revision: str
    source_sha256: str
    source_prompt: str
    tune: TuneSettings
    frequencies: int = Field(ge=1, le=64)
    class_pictures: dict[str, Any] | None = None
    files: dict[str, str]
    steps_taken: int | None = None
    loss: float
    seconds: float
    peak_memory: int
    device: str
    dtype: str
    low_memory: bool = False
    eight_bits: bool = False
    versions: dict[str, str]


def again(project: Project) -> str:
    """What mends an adapter."""
    return f"run `{typed_for(project, 'tune')}` again"


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
        raise UserError(f"{project.label} is not tuned yet", f"run `{typed_for(project, 'tune')}` first")
    try:
        return AdapterRecord.model_validate(read_plain(read_bytes(path, limit=LARGEST_RECORD)))
    except ValueError as error:
        what = first_mistake(error) if isinstance(error, ValidationError) else str(error)
        raise UserError(
            f"{shown(path)} is damaged, or another version of sine wrote it ({what})", again(project)
        ) from error


def check_base(project: Project, manifest: Manifest, record: AdapterRecord, revision: str | None) -> None:
    """Refuse an adapter of another base. Its revision decides, for folders are moved, and presets are of the
    hub; but a fingerprint that was left beside another name is not that base's.

    Args:
        revision: of the project's base; None where it is not known.

    Raises:
        UserError: the base or its revision is another than the adapter was tuned on.
    """
    folder = shown(project.adapter_dir)
    names = {record.base, manifest.base}
    is_fingerprint = revision is not None and revision.startswith("sha256:")
    is_left_over = len(names) > 1 and is_fingerprint and not any(map(os.path.isabs, names))
    if revision == record.base_revision and not is_left_over:
        return
    if record.base != manifest.base:
        raise UserError(
            f"{folder} was tuned on `{record.base}`, this project uses `{manifest.base}`",
            f"{again(project)}, or set `base: {record.base}` in {shown(project.manifest_path)}",
        )
    if revision is not None:
        raise UserError(
            f"{folder} was tuned on revision {record.base_revision} of `{record.base}`, "
            f"this project uses {revision}",
            again(project),
        )


def check_record(project: Project, manifest: Manifest, record: AdapterRecord) -> None:
    """Refuse an adapter of another base or another picture, by what the manifest says. Raises UserError."""
    check_base(project, manifest, record, manifest.base_revision)
    project.check_picture(manifest)
    folder = shown(project.adapter_dir)
    if record.source_prompt != manifest.prompts.source:
        raise UserError(
            f'{folder} was tuned with the source prompt "{record.source_prompt}", '
            f'{shown(project.manifest_path)} has "{manifest.prompts.source}"',
            again(project),
        )
    if record.source_sha256 != sha256(project.source(manifest)):
        raise UserError(
            f"{folder} was tuned on another picture than {shown(project.source(manifest))}", again(project)
        )


def guide_record(
    guide: FoundGuide, manifest: Manifest, revision: str | None = None, home: Project | None = None
) -> AdapterRecord:
    """The record of a guide's adapter, in its project or where it is kept (`home`).

    Args:
        revision: of the base as it was located; None takes the manifest's, where it has one.

    Raises:
        UserError: the guide is not tuned, or on another base.
    """
    record = read_record(home or guide.project)
    if home in (None, guide.project):
        check_record(guide.project, guide.manifest, record)
    revision = revision or manifest.base_revision
    if revision not in (None, record.base_revision):
        what = f"the guide {guide.project.label} was tuned on `{record.base}`, "
        if record.base == manifest.base:  # `sine init` takes the revision of today, which may be neither
            raise UserError(
                f"{what}this project uses `{manifest.base}` ({record.base_revision}, not {revision})",
                f"set `base_revision: {revision}` in {shown(guide.project.manifest_path)}, "
                f"then run `{typed_for(guide.project, 'tune')}`",
            )
        raise UserError(
            f"{what}this project uses `{manifest.base}`",
            f"make a guide of the same base: `sine init {typed(guide.project.source(guide.manifest))} "
            f"--class NOUN --base {shlex.quote(manifest.base)}`",
        )
    return record
