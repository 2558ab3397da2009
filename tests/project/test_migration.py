"""Manifests of an older form: read as they are, brought to today's line by line, and never lost."""

from pathlib import Path

import pytest
from PIL import Image

from sine_cli.errors import SineError, UserError
from sine_cli.project import files
from sine_cli.project.folder import Project
from sine_cli.project.manifest import SCHEMA_VERSION, Manifest, load_manifest, parse_manifest
from sine_cli.project.migration import MIGRATIONS, migrate

V1 = Path(__file__).parents[1] / "fixtures" / "project-v1" / "sine.yaml"
PROJECT = Project(Path("boat"))
PATH, BACKUP = Path("boat/sine.yaml"), Path("boat/sine.yaml.v1")
NOTICE = "boat/sine.yaml was of an older form (schema 1) and now has schema 2; as it was: boat/sine.yaml.v1"


@pytest.fixture
def boat(isolated: Path) -> bytes:
    """A manifest of schema 1 beside its picture; its content."""
    Path("boat").mkdir()
    content = V1.read_bytes()
    PATH.write_bytes(content)
    Image.new("RGB", (64, 48)).save("boat/source.png")
    return content


def migrated() -> tuple[Manifest, list[str]]:
    notices: list[str] = []
    migrate(PROJECT, load_manifest(PATH), notices.append)
    return load_manifest(PATH), notices


def expected(content: bytes) -> Manifest:
    """The manifest of schema 1 with what schema 2 adds."""
    manifest = parse_manifest(content, PATH)
    stored = files.sha256(Path("boat/source.png"))
    source = manifest.source.model_copy(update={"stored_sha256": stored})
    return manifest.model_copy(update={"schema_version": 2, "source": source})


def test_every_older_form_has_its_migration() -> None:
    assert sorted(MIGRATIONS) == list(range(1, SCHEMA_VERSION))


def test_reading_alone_changes_nothing(boat: bytes) -> None:
    manifest = load_manifest(PATH)
    assert (manifest.schema_version, manifest.source.stored_sha256) == (1, None)
    assert PATH.read_bytes() == boat
    assert not BACKUP.exists()


def test_an_older_manifest_is_migrated_line_by_line_and_kept_beside(boat: bytes) -> None:
    manifest, notices = migrated()
    assert manifest == expected(boat)
    assert notices == [NOTICE]
    assert BACKUP.read_bytes() == boat
    before, after = boat.decode().splitlines(), PATH.read_text("utf-8").splitlines()
    hashed = f"  stored_sha256: {manifest.source.stored_sha256}  # of the picture as stored; null: not known"
    before[before.index("schema: 1")] = "schema: 2"
    before.insert(1 + next(i for i, line in enumerate(before) if line.startswith("  sha256: ")), hashed)
    assert after == before
    assert "# A remark of the owner." in after
    assert migrated() == (manifest, []), "once"


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_other_line_ends_stay(boat: bytes, end: str) -> None:
    PATH.write_bytes(boat.replace(b"\n", end.encode()))
    manifest, _ = migrated()
    assert manifest == expected(boat)
    assert PATH.read_bytes().count(end.encode()) == boat.count(b"\n") + 1


def test_a_manifest_written_another_way_is_written_anew_and_kept_beside(boat: bytes) -> None:
    source = parse_manifest(boat, PATH).source
    flow = (
        f"source: {{original: {source.original}, sha256: {source.sha256}, "
        f"height: {source.height}, width: {source.width}}}"
    )
    text = boat.decode()
    own = text[: text.index("source:")] + flow + "\n" + text[text.index("\n# The words that") :]
    PATH.write_text(own, "utf-8")
    manifest, notices = migrated()
    assert manifest == expected(own.encode())
    assert notices == [NOTICE]
    assert BACKUP.read_text("utf-8") == own
    assert "# A project of sine" in PATH.read_text("utf-8")


def test_an_older_backup_is_never_overwritten(boat: bytes) -> None:
    BACKUP.write_text("something of the owner's", "utf-8")
    _, (notice,) = migrated()
    assert notice.endswith("as it was: boat/sine.yaml.v1-2")
    assert BACKUP.read_text("utf-8") == "something of the owner's"
    assert Path("boat/sine.yaml.v1-2").read_bytes() == boat


def test_after_a_kill_between_backup_and_manifest_there_is_one_backup(boat: bytes) -> None:
    BACKUP.write_bytes(boat)
    assert migrated()[1] == [NOTICE]
    assert sorted(path.name for path in Path("boat").iterdir()) == ["sine.yaml", "sine.yaml.v1", "source.png"]


def test_two_commands_at_once_migrate_once(boat: bytes) -> None:
    manifest = load_manifest(PATH)
    first: list[str] = []
    migrate(PROJECT, manifest, first.append)
    content = PATH.read_bytes()
    second: list[str] = []
    migrate(PROJECT, manifest, second.append)  # as one that has read the file before the first wrote it
    assert (len(first), second, PATH.read_bytes()) == (1, [], content)


def test_without_its_picture_an_older_manifest_stays_as_it_is(boat: bytes) -> None:
    Path("boat/source.png").unlink()
    with pytest.raises(UserError, match=r"no such file: boat/source\.png"):
        migrated()
    assert PATH.read_bytes() == boat
    assert not BACKUP.exists()


def test_a_disk_that_refuses_leaves_the_older_file(boat: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise SineError(f"cannot write {path}: the disk is full")

    monkeypatch.setattr(files, "write_bytes", full)
    with pytest.raises(SineError, match="the disk is full"):
        migrated()
    assert PATH.read_bytes() == boat
    assert sorted(path.name for path in Path("boat").iterdir()) == ["sine.yaml", "source.png"]
