"""Links that lead out of a project: a folder that a stranger sent may hold them.

sine reads and writes by the names below a project's folder. Before it does, each link among them is followed,
and one that ends elsewhere is refused. The project's folder itself may be reached by a link.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from sine_cli.errors import UserError
from sine_cli.project import files


def lies_inside(root: Path, path: Path) -> bool:
    """Whether `path` is in the folder `root`, or it itself, once all links of both are followed.

    What `path` or a link of it names need not be there.
    """
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def refuse_links_out(root: Path, folders: Iterable[str]) -> None:
    """Refuse links that lead out of a project: in these of its folders, and among its own hidden files.

    Args:
        root: the project's folder.
        folders: names in it; what is below them is looked at too.

    Raises:
        UserError: for the first such link.
    """
    own = [Path(entry) for entry in _entries(root) if entry.name.startswith((".", "sine.yaml"))]
    for path in (*own, *_below(root / name for name in folders)):
        check_inside(root, path)


def check_inside(root: Path, path: Path) -> None:
    """Refuse a path of a project that leads out of it. Raises UserError."""
    if not lies_inside(root, path):
        raise UserError(
            f"{files.shown(path)} leads out of the project, to "
            f"{files.printable(os.path.realpath(path))}; nothing there is read or written",
            f"take the link away: `rm {files.typed(path)}`",
        )


def _below(folders: Iterable[Path]) -> Iterator[Path]:
    """The folders and the links below them; a link comes before what it leads to."""
    left, seen = list(folders), set[str]()
    while left:
        folder = left.pop()
        yield folder
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        for entry in _entries(folder):
            if entry.is_symlink():
                yield Path(entry)
            if os.path.isdir(entry):  # unlike the entry's own, False for a link to itself
                left.append(Path(entry))


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    """What is in a folder; nothing where it is none, or may not be listed: sine cannot go there either."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []
