"""An older project's manifest, brought to the form of today.

Every older form is read as it stands (`load_manifest`). Its file is changed by the first command that changes
the project too: line by line, so that the owner's comments stay, and with the file as it was beside it.
"""

import itertools
import re
from collections.abc import Callable
from pathlib import Path

from sine_cli.errors import UserError
from sine_cli.project import files
from sine_cli.project.folder import Project
from sine_cli.project.manifest import SCHEMA_VERSION, Manifest, parse_manifest, write_manifest
from sine_cli.project.plain_yaml import read_outline


def migrate(project: Project, manifest: Manifest, on_notice: Callable[[str], None]) -> None:
    """Write the project's `sine.yaml` anew where it has an older form, and say so.

    Args:
        manifest: as `load_manifest` read it.

    Raises:
        UserError, SineError: the file is gone or damaged by now, or the picture is; disk full, no permission.
    """
    if manifest.schema_version == SCHEMA_VERSION:
        return
    path = project.manifest_path
    content = files.read_bytes(path)
    manifest = parse_manifest(content, path)  # another command may have been here since
    before, text = manifest.schema_version, content.decode("utf-8-sig")
    if before == SCHEMA_VERSION:
        return
    for version in range(before, SCHEMA_VERSION):
        text, manifest = MIGRATIONS[version](project, text, manifest)
    backup = _backup(path, content, before)
    if _reads_as(text, path, manifest):
        files.write_text(path, text)
    else:  # written in a way of the owner's own: its values stay, its comments are in the backup
        write_manifest(path, manifest)
    on_notice(
        f"{files.shown(path)} was of an older form (schema {before}) and now has schema {SCHEMA_VERSION}; "
        f"as it was: {files.shown(backup)}"
    )


def _to_2(project: Project, text: str, manifest: Manifest) -> tuple[str, Manifest]:
    """Schema 2 keeps the hash of the stored picture, so that a changed one is found before it is tuned on."""
    stored = files.sha256(project.source(manifest))
    places = read_outline(text.encode("utf-8"), project.manifest_path).places
    lines = text.splitlines(keepends=True)
    number = places["schema",].line - 1
    lines[number] = re.sub(r"(?<=schema:)(\s*)1", r"\g<1>2", lines[number], count=1)
    beside = lines[places["source", "sha256"].line - 1]
    indent, end = re.match(r"\s*", beside), re.search(r"[\r\n]*\Z", beside)
    assert indent and end  # both match any line
    field = f"stored_sha256: {stored}  # of the picture as stored; null: not known"
    lines.insert(places["source", "sha256"].line, f"{indent[0]}{field}{end[0]}")
    source = manifest.source.model_copy(update={"stored_sha256": stored})
    return "".join(lines), manifest.model_copy(update={"schema_version": 2, "source": source})


MIGRATIONS: dict[int, Callable[[Project, str, Manifest], tuple[str, Manifest]]] = {1: _to_2}
"""By the version that they begin at: the file's text and its manifest, both of the next version."""


def _reads_as(text: str, path: Path, manifest: Manifest) -> bool:
    try:
        return parse_manifest(text.encode("utf-8"), path) == manifest
    except UserError:
        return False


def _backup(path: Path, content: bytes, version: int) -> Path:
    """The file as it was, `sine.yaml.v1`; what another one of that name holds is never lost."""
    for number in itertools.count(1):
        backup = path.with_name(f"{path.name}.v{version}" + (f"-{number}" if number > 1 else ""))
        if not backup.is_file():
            files.write_bytes(backup, content)
            return backup
        if files.read_bytes(backup) == content:
            return backup
    raise AssertionError("unreachable: there is always another number")
