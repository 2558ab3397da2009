"""Where the training pictures come from: icon sets and photographs of package registries, each at one
version.

Archives are fetched by the package managers themselves (`npm pack`, `apt-get download`), so a mirror that is
configured for them serves here too. `photographs.tsv` lists every photograph with its licence, author and
source.
"""

import csv
import io
import json
import struct
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sine_cli.errors import SineError
from sine_cli.mini.vocabulary import NOUNS

ICON_SIDE = 160
"""Icons are drawn at this many pixels, RGBA."""
PHOTOGRAPH_SIDE = 256
"""Photographs are the middle square, at this many pixels."""


@dataclass(frozen=True)
class Package:
    """An archive of a registry: `npm` or `apt`, name, version, and the licence it states."""

    registry: str
    name: str
    version: str
    licence: str

    @property
    def folder(self) -> str:
        return f"{self.name.replace('/', '-').lstrip('@')}-{self.version}"


ICON_SETS = {
    "noto": Package("npm", "@iconify-json/noto", "1.2.9", "Apache-2.0"),
    "noto-v1": Package("npm", "@iconify-json/noto-v1", "1.2.5", "Apache-2.0"),
    "twemoji": Package("npm", "@iconify-json/twemoji", "1.2.5", "CC-BY-4.0"),
    "fluent-emoji": Package("npm", "@iconify-json/fluent-emoji", "1.2.7", "MIT"),
    "fluent-emoji-flat": Package("npm", "@iconify-json/fluent-emoji-flat", "1.2.6", "MIT"),
    "fluent-emoji-high-contrast": Package("npm", "@iconify-json/fluent-emoji-high-contrast", "1.2.6", "MIT"),
    "emojione": Package("npm", "@iconify-json/emojione", "1.2.3", "CC-BY-4.0"),
    "fxemoji": Package("npm", "@iconify-json/fxemoji", "1.2.2", "Apache-2.0"),
    "fluent-emoji-3d": Package("npm", "@lobehub/fluent-emoji-3d", "1.1.0", "MIT"),
}
PHOTOGRAPHS = {
    "gcompris-qt-data": Package("apt", "gcompris-qt-data", "3.1-2", "each photograph its own"),
    "endless-sky-high-dpi": Package("apt", "endless-sky-high-dpi", "0.9.8-1", "public domain"),
    "lomiri-wallpapers-16.04": Package("apt", "lomiri-wallpapers-16.04", "20.04.0-2", "CC-BY-4.0, CC0-1.0"),
}


def fetch(package: Package, folder: Path) -> Path:
    """Have the package unpacked under `folder`; returns its own folder there. Fetched once.

    Raises:
        SineError: the package manager is missing or cannot fetch it.
    """
    target = folder / package.folder
    if target.is_dir():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    spec = f"{package.name}{'@' if package.registry == 'npm' else '='}{package.version}"
    command = {
        "npm": ["npm", "pack", spec, "--silent"],
        "apt": ["apt-get", "download", "--quiet", spec],
    }[package.registry]
    # What fails half-way leaves nothing; whole, since the commands run inside it
    with tempfile.TemporaryDirectory(dir=folder.resolve(), prefix=".") as made:
        place = Path(made)
        _run(command, place, spec)
        (archive,) = place.iterdir()
        unpacked = place / "unpacked"
        if package.registry == "apt":
            _run(["dpkg-deb", "--extract", str(archive), str(unpacked)], place, spec)
        else:
            with tarfile.open(archive) as file:
                file.extractall(unpacked, filter="data")
        unpacked.rename(target)
    return target


def _run(command: list[str], folder: Path, spec: str) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise SineError(
            f"{command[0]} is needed to fetch {spec}", "run it where npm and apt-get are installed"
        ) from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise SineError(
            f"{spec} could not be fetched: {last}", "is the registry reachable? run it again"
        ) from error


def draw_icons(folder: Path) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Every noun of the vocabulary in every set that has it.

    Returns:
        (N, side, side, 4) of 0..255, and for each its icon set and noun.
    """
    pictures: list[np.ndarray] = []
    labels: list[tuple[str, str]] = []
    for icon_set, package in ICON_SETS.items():
        unpacked = fetch(package, folder) / "package"
        draw = _drawer_3d(unpacked, folder) if icon_set == "fluent-emoji-3d" else _drawer(unpacked)
        for noun, icon in NOUNS.items():
            picture = draw(icon)
            if picture is not None:
                pictures.append(picture)
                labels.append((icon_set, noun))
    return np.stack(pictures), labels


Draw = Callable[[str], "np.ndarray | None"]


def _drawer(unpacked: Path) -> Draw:
    """Icons of a set of Iconify: one JSON file of SVG bodies."""
    import resvg_py

    icons = json.loads((unpacked / "icons.json").read_text())
    bodies, aliases = icons["icons"], icons.get("aliases", {})
    squashed = {name.replace("-", ""): name for name in [*aliases, *bodies]}

    def draw(name: str) -> np.ndarray | None:
        found = squashed.get(name.replace("-", ""))
        while found in aliases:
            found = aliases[found]["parent"]
        if found is None:
            return None
        icon = bodies[found]
        width, height = (icon.get(key, icons.get(key, 16)) for key in ("width", "height"))
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {width} {height}" width="{ICON_SIDE}" height="{ICON_SIDE}">'
            f"{icon['body'].replace('currentColor', '#111')}</svg>"
        )
        return _rgba(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg))))

    return draw


def _drawer_3d(unpacked: Path, folder: Path) -> Draw:
    """Pictures named by code point; the names are those of the set `noto`."""
    codes: dict[str, str] = {}
    chars = json.loads((fetch(ICON_SETS["noto"], folder) / "package" / "chars.json").read_text())
    for code, name in chars.items():
        codes.setdefault(name, code)

    def draw(name: str) -> np.ndarray | None:
        for ending in (".webp", "-fe0f.webp"):
            file = unpacked / "assets" / f"{codes.get(name)}{ending}"
            if file.is_file():
                return _rgba(file)
        return None

    return draw


def _rgba(file: Path | io.BytesIO) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGBA").resize((ICON_SIDE, ICON_SIDE), Image.Resampling.LANCZOS))


def read_photographs(folder: Path, listed: Path) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """The photographs of a list such as `photographs.tsv`.

    Returns:
        (M, side, side, 3) of 0..255, and for each its style and what it shows.
    """
    rows = list(csv.DictReader(listed.open(encoding="utf-8"), delimiter="\t"))
    bundles: dict[str, dict[str, bytes]] = {}
    pictures = []
    for row in rows:
        root = fetch(PHOTOGRAPHS[row["package"]], folder)
        file, _, member = row["path"].partition(":")
        if member and file not in bundles:
            bundles = {file: _read_rcc((root / file).read_bytes())}
        source = io.BytesIO(bundles[file][member]) if member else root / file
        with Image.open(source) as image:
            pictures.append(_middle_square(image.convert("RGB")))
    return np.stack(pictures), [(row["style"], row["caption"]) for row in rows]


def _middle_square(image: Image.Image) -> np.ndarray:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    size = (PHOTOGRAPH_SIDE, PHOTOGRAPH_SIDE)
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS, box=box))


def _read_rcc(data: bytes) -> dict[str, bytes]:
    """The files of a Qt resource bundle: a tree of names, each leaf with its bytes, plain or compressed."""
    _, version, tree, contents, names = struct.unpack(">4sIIII", data[:20])
    entry = 14 if version < 2 else 22
    files: dict[str, bytes] = {}

    def walk(index: int, prefix: str) -> None:
        at = tree + index * entry
        name_at, flags = struct.unpack(">IH", data[at : at + 6])
        name_at += names
        length = struct.unpack(">H", data[name_at : name_at + 2])[0]
        name = data[name_at + 6 : name_at + 6 + 2 * length].decode("utf-16-be") if index else ""
        path = f"{prefix}/{name}".lstrip("/")
        if flags & 2:
            count, first = struct.unpack(">II", data[at + 6 : at + 14])
            for child in range(first, first + count):
                walk(child, path)
            return
        start = contents + struct.unpack(">I", data[at + 10 : at + 14])[0]
        size = struct.unpack(">I", data[start : start + 4])[0]
        body = data[start + 4 : start + 4 + size]
        if flags & 4:
            import zstandard

            body = zstandard.ZstdDecompressor().decompress(body)
        files[path] = zlib.decompress(body[4:]) if flags & 1 else body

    walk(0, "")
    return files
