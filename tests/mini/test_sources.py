"""Fetching: a missing tool or package is an error for people, a Qt bundle gives its files."""

import struct
import tarfile
import zlib
from pathlib import Path

import pytest

from sine_cli.errors import SineError
from sine_cli.mini import sources
from sine_cli.mini.sources import ICON_SETS, Package


def test_what_is_fetched_is_not_fetched_again(tmp_path: Path) -> None:
    package = ICON_SETS["noto"]
    (tmp_path / package.folder).mkdir()
    assert sources.fetch(package, tmp_path) == tmp_path / "iconify-json-noto-1.2.9"


def test_without_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SineError, match=r"npm is needed to fetch @iconify-json/noto@1\.2\.9"):
        sources.fetch(ICON_SETS["noto"], tmp_path / "packages")


def test_a_package_that_does_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "npm"
    tool.write_text("#!/bin/sh\necho no such package >&2\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(SineError, match="nothing@1 could not be fetched: no such package"):
        sources.fetch(Package("npm", "nothing", "1", "MIT"), tmp_path / "packages")
    assert not (tmp_path / "packages" / "nothing-1").exists()


@pytest.mark.parametrize("registry", ["npm", "apt"])
def test_what_fails_half_way_is_fetched_again_into_a_folder_named_from_here(
    registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    broken, archive = tmp_path / "broken", tmp_path / "thing.tgz"
    (tmp_path / "a").write_text("here")
    with tarfile.open(archive, "w:gz") as file:
        file.add(tmp_path / "a", "a")
    download = f"#!/bin/sh\nif [ -e {broken} ]; then echo half > thing; exit 1; fi\ncp {archive} thing\n"
    for name, script in {
        "npm": download,
        "apt-get": download,
        "dpkg-deb": '#!/bin/sh\nmkdir "$3" && tar -xzf "$2" -C "$3"\n',
    }.items():
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    package = Package(registry, "thing", "1", "MIT")
    broken.touch()
    with pytest.raises(SineError, match="could not be fetched"):
        sources.fetch(package, Path("work/packages"))
    assert list(Path("work/packages").iterdir()) == []
    broken.unlink()
    assert sources.fetch(package, Path("work/packages")) == Path("work/packages/thing-1")
    assert Path("work/packages/thing-1/a").read_text() == "here"


def test_a_qt_bundle() -> None:
    """A folder `a` with `plain.txt` as it is and `packed.txt` compressed, laid out by hand as rcc does."""

    def name(text: str) -> bytes:
        return struct.pack(">HI", len(text), 0) + text.encode("utf-16-be")

    names = [name("a"), name("plain.txt"), name("packed.txt")]
    name_at = [0, len(names[0]), len(names[0]) + len(names[1])]
    packed = struct.pack(">I", 5) + zlib.compress(b"world")
    bodies = [struct.pack(">I", 5) + b"hello", struct.pack(">I", len(packed)) + packed]

    def folder(name_offset: int, count: int, first: int) -> bytes:
        return struct.pack(">IHII", name_offset, 2, count, first)

    def file(name_offset: int, flags: int, offset: int) -> bytes:
        return struct.pack(">IHHHI", name_offset, flags, 0, 0, offset)

    tree = (
        folder(0, 1, 1)
        + folder(name_at[0], 2, 2)
        + file(name_at[1], 0, 0)
        + file(name_at[2], 1, len(bodies[0]))
    )
    contents, name_table = b"".join(bodies), b"".join(names)
    at = [20, 20 + len(tree), 20 + len(tree) + len(contents)]
    bundle = struct.pack(">4sIIII", b"qres", 1, at[0], at[1], at[2]) + tree + contents + name_table
    assert sources._read_rcc(bundle) == {"a/plain.txt": b"hello", "a/packed.txt": b"world"}


def test_the_list_of_photographs_names_licence_and_author() -> None:
    import csv

    from sine_cli.mini.build import PHOTOGRAPH_LIST

    with PHOTOGRAPH_LIST.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(rows) > 300
    assert {row["licence"] for row in rows} <= {
        "public-domain",
        "CC0-1.0",
        "CC-BY-2.0",
        "CC-BY-3.0",
        "CC-BY-4.0",
    }
    assert all(row["author"] for row in rows if row["licence"].startswith("CC-BY"))
    assert {row["package"] for row in rows} <= set(sources.PHOTOGRAPHS)
