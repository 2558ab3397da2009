"""Faults of the machine: full and read-only disks, no permission, files that vanish, a hub that fails.

Each is told in one error without a traceback, and leaves nothing half made.
"""

import importlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sine_cli.project.runs import list_runs
from tests.cli.conftest import Sine, draw_girl, girl, picture, sine, tuned_once
from tests.robustness.hub import COMMIT, REPOSITORY, Hub, serving
from tests.tiny import write_tiny_base

__all__ = ["girl", "picture", "sine", "tuned_once"]  # fixtures of the command line's tests

EDIT = ["edit", "a boat", "--steps", "1", "--size", "32x32", "-q"]
GRID = ["grid", "a boat", "-K", "0,500", "-v", "0.5,0.7", "--steps", "1", "--size", "32x32", "-q"]


def told(message: str, hint: str) -> str:
    return f"error: {message}\n\nhint: {hint}\n"


def without_times(text: str) -> str:
    """The text without what differs from run to run: times, and the ids of hidden names."""
    return re.sub(
        r"\.\d+@[0-9a-f]{8}-\d+\.partial", ".ID.partial", re.sub(r"\d{4}-\d\d-\d\d_\d{6}", "TIME", text)
    )


def hidden(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob(".*"))


# ------------------------------------------------------------------------------- a full disk, a read-only one


class Disk:
    """A small file system of its own, mounted at `root`."""

    def __init__(self, root: Path) -> None:
        self.root, self.filler = root, root / "filler"

    def leave(self, free: int) -> None:
        """Fill it but for so many bytes."""
        there = os.statvfs(self.root)
        self.filler.write_bytes(bytes(there.f_bavail * there.f_frsize - free))

    def empty(self) -> None:
        self.filler.unlink()

    def set_read_only(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", self.root], check=True)


@pytest.fixture
def disk(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A disk of 40 MiB, the working folder on it."""
    root = isolated / "disk"
    root.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(root)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")  # RLIMIT_FSIZE does for it in tests/cli/test_errors.py
    monkeypatch.chdir(root)
    yield Disk(root)
    monkeypatch.chdir(isolated)
    subprocess.run(["umount", "-l", root], check=True)


DISK_HINT = "free some space on that disk, then run the same command again"


def test_a_full_disk_at_init(sine: Sine, disk: Disk) -> None:
    draw_girl(Path("girl.png"))
    disk.leave(4096)
    done = sine("init", "girl.png", "--class", "girl", "--base", "mini", "-q")
    assert (done.code, done.out, without_times(done.err)) == (
        1,
        "",
        told("cannot write .girl.ID.partial/sine.yaml: the disk is full", DISK_HINT),
    )
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["filler", "girl.png"]
    disk.empty()
    assert sine("init", "girl.png", "--class", "girl", "--base", "mini", "-q").code == 0


def test_a_full_disk_at_an_edit(sine: Sine, tuned_once: Path, disk: Disk) -> None:
    shutil.copytree(tuned_once, "girl")
    disk.leave(16384)  # folders have their room, the picture has none
    done = sine(*EDIT, "--size", "128x128")
    assert (done.code, done.out, without_times(done.err)) == (
        1,
        "",
        told("cannot write girl/edits/.TIME_a-boat.partial/run/0001.png: the disk is full", DISK_HINT),
    )
    assert [*Path("girl/edits").iterdir()] == []
    disk.empty()
    assert sine(*EDIT).code == 0


def test_a_full_disk_at_a_grid_keeps_the_cells_there_are(sine: Sine, tuned_once: Path, disk: Disk) -> None:
    shutil.copytree(tuned_once, "girl")
    disk.leave(3 * 16384 + 8192)
    done = sine(*GRID)
    assert (done.code, done.out) == (1, "")
    assert done.err.endswith(f": the disk is full\n\nhint: {DISK_HINT}\n") and "Traceback" not in done.err
    assert [path for path in Path("girl/grids").iterdir() if not path.name.startswith(".")] == []
    disk.empty()
    assert sine("grid", "--resume", "-q").code == 0
    assert hidden(Path("girl")) == []


@pytest.mark.parametrize(
    ("every", "adapters", "refused"),
    [
        (2, 0, "tuning/checkpoint/state.safetensors"),
        (100, 0, r"tuning/adapters/\.[0-9a-f]{12}\.[^/]*\.partial/adapter/adapter.safetensors"),
        (100, 1, "adapter/adapter.safetensors"),
    ],
)
def test_a_full_disk_at_a_tuning_leaves_the_older_adapter(
    sine: Sine, tuned_once: Path, disk: Disk, every: int, adapters: int, refused: str
) -> None:
    """`adapters`: how many have room; the older one is kept before the new one is written."""
    shutil.copytree(tuned_once, "girl")
    manifest = Path("girl/sine.yaml")
    manifest.write_text(manifest.read_text().replace("checkpoint_every: 100", f"checkpoint_every: {every}"))
    before = {path.name: path.read_bytes() for path in Path("girl/adapter").iterdir()}
    disk.leave(200_000 + adapters * sum(map(len, before.values())))
    done = sine("tune", "--seed", "1", "-q")
    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(told(f"cannot write girl/{refused}: the disk is full", DISK_HINT), done.err)
    assert {path.name: path.read_bytes() for path in Path("girl/adapter").iterdir()} == before
    assert hidden(Path("girl")) == []
    assert sine(*EDIT).code == 0


def test_a_full_disk_at_a_merged_export(sine: Sine, tuned_once: Path, disk: Disk) -> None:
    shutil.copytree(tuned_once, "girl")
    disk.leave(8_000_000)  # the base has 54 MB
    done = sine("export", "--merge", "-q")
    assert (done.code, done.out) == (1, "")
    assert done.err.endswith(f": the disk is full\n\nhint: {DISK_HINT}\n") and "Traceback" not in done.err
    assert [*Path("girl/exports").iterdir()] == []


COMMANDS: list[list[str]] = [
    EDIT,
    GRID,
    ["tune", "--seed", "1", "-q"],
    ["export", "-q"],
    ["init", "girl/source.png", "--class", "girl", "--base", "mini", "--dir", "new", "-q"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_read_only_disk(sine: Sine, tuned_once: Path, disk: Disk, command: list[str]) -> None:
    shutil.copytree(tuned_once, "girl")
    disk.set_read_only()
    _check_refused(sine(*command))
    assert sine("show").code == 0


def bound(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `sine` as somebody whom permissions bind."""
    start = [sys.executable, "-m", "sine_cli", *arguments]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root, and no setpriv to give that up")
        start = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *start]
    done = subprocess.run(start, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def closed() -> Iterator[Callable[[Path], None]]:
    """Takes a folder's permissions; they come back after the test."""
    modes: dict[Path, int] = {}

    def closed(folder: Path) -> None:
        modes[folder] = folder.stat().st_mode
        folder.chmod(0)

    yield closed
    for folder, mode in modes.items():
        folder.chmod(mode)


def test_a_folder_that_one_may_not_write_to(picture: Path, isolated: Path) -> None:
    isolated.chmod(0o555)
    done = bound("init", str(picture), "--class", "girl", "--base", "mini")
    isolated.chmod(0o755)
    _check_refused(done)
    assert [path.name for path in isolated.iterdir()] == ["girl.jpg"]


@pytest.mark.parametrize("part", ["adapter", "edits", "edits/*"])
def test_a_folder_that_one_may_not_enter(
    sine: Sine, girl: Path, closed: Callable[[Path], None], part: str
) -> None:
    (picture,) = sine("edit", "a boat", "--size", "16x16", "--steps", "1").out.splitlines()
    (folder,) = girl.glob(part)
    closed(folder)
    inside = r"(/\S+)?"  # a folder that may not be listed, or a file in one that may not be entered
    told = rf"cannot read {re.escape(str(folder))}{inside}: permission denied"
    hint = rf"see who may read it with `ls -ld {re.escape(str(folder))}`"
    commands = {
        "adapter": ["show", "edit x"],
        "edits": ["show", f"edit --from {picture.split()[0]}"],
        "edits/*": [f"edit --from {picture.split()[0]}"],
    }
    for command in commands[part]:
        code, out, err = bound(*command.split(), "-q", "-p", "girl")
        assert (code, out) == (2, ""), err
        assert re.fullmatch(rf"error: {told}\n\nhint: {hint}\n", err), err
    code, out, err = bound("verify", "-q", "-p", "girl")
    assert code == 1
    assert re.search(rf"(?m)^{told}$", out), out


def _check_refused(done: tuple[int, str, str]) -> None:
    code, out, err = done
    assert (code, out) == (1, "")
    assert re.fullmatch(
        r"error: cannot write \S+: permission denied\n\n"
        r"hint: see who may write there with `ls -ld \S+`, or work in a folder of your own\n",
        err,
    ), err


# ------------------------------------------------------------------------------------------ files that vanish


def vanishing(monkeypatch: pytest.MonkeyPatch, moment: str, pattern: str) -> None:
    """What `girl/` has of that pattern goes when the function `moment` is called."""
    module, _, name = moment.rpartition(".")
    function = getattr(importlib.import_module(module), name)

    def call(*arguments: Any, **named: Any) -> Any:
        path = next(Path("girl").glob(pattern))
        (shutil.rmtree if path.is_dir() else os.remove)(path)
        return function(*arguments, **named)

    monkeypatch.setattr(moment, call)


AGAIN = "run `sine tune` again"


@pytest.mark.parametrize(
    ("command", "moment", "pattern", "message", "hint"),
    [
        (
            [*EDIT, "--best", "1"],
            "sine_cli.workflow.edit.start_run",
            "source.png",
            "no such file: girl/source.png",
            "`ls girl` shows what there is",
        ),
        (
            [*EDIT, "--best", "1"],
            "sine_cli.workflow.edit.score_files",
            "edits",
            "girl/edits/.TIME_a-boat.partial/run/0001.png was removed meanwhile",
            "run the same command again",
        ),
        (
            EDIT,
            "sine_cli.workflow.open.load_base",
            "adapter/position.safetensors",
            "girl/adapter/position.safetensors is missing",
            AGAIN,
        ),
        (
            GRID,
            "sine_cli.workflow.grid.load_scorer",
            "grids/.*/run/cells/K0500_v0.50.png",
            "girl/grids/.TIME_a-boat.partial/run/cells/K0500_v0.50.png was removed meanwhile",
            "run the same command again",
        ),
    ],
    ids=["source", "run", "adapter", "cell"],
)
def test_a_file_that_vanishes_midway(
    sine: Sine,
    girl: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    moment: str,
    pattern: str,
    message: str,
    hint: str,
) -> None:
    with monkeypatch.context() as patch:
        vanishing(patch, moment, pattern)
        done = sine(*command)
    assert (done.code in (1, 2), done.out, without_times(done.err)) == (True, "", told(message, hint))
    assert list_runs(girl / "edits") == list_runs(girl / "grids") == []
    if command == GRID:
        assert sine("grid", "--resume", "-q").code == 0
    assert hidden(girl) == []


@pytest.mark.parametrize(
    ("command", "moment", "pattern"),
    [
        (EDIT, "sine_cli.workflow.open.load_base", "sine.yaml"),
        (["tune", "--seed", "1", "-q"], "sine_cli.workflow.tune.load_base", "source.png"),
        (["tune", "--seed", "1", "-q"], "sine_cli.workflow.tune.write_adapter", "tuning"),
    ],
    ids=["manifest", "picture", "tuning"],
)
def test_what_was_read_already_may_vanish(
    sine: Sine, girl: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], moment: str, pattern: str
) -> None:
    vanishing(monkeypatch, moment, pattern)
    assert sine(*command).code == 0
    assert hidden(girl) == []


# ------------------------------------------------------------------------------------------- a hub that fails


FETCH = f"""
from sine_cli.errors import SineError
from sine_cli.models import locate
try:
    base = locate.on_hub("{REPOSITORY}", None, None, print)
    print(locate.with_weights("{REPOSITORY}", base, print).revision)
except SineError as error:
    print(f"{{error.exit_code}} {{error.message}}\\n{{error.hint}}")
"""


@pytest.fixture(scope="module")
def hub_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base whose U-Net is a file of 24 MB, which nobody loads here."""
    folder = write_tiny_base(tmp_path_factory.mktemp("hub") / "tiny")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(bytes(24_000_000))
    return folder


@pytest.fixture
def hub(hub_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on this machine, of which processes are told; they have a second's patience."""
    with serving(hub_model) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "1")
        monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "1")
        yield hub


def init_from_hub(picture: Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    command = [sys.executable, "-m", "sine_cli", "init", str(picture), "--class", "girl", "-b", REPOSITORY]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def fetch_weights() -> list[str]:
    """What is told when a base is fetched, weights and all; its revision, or an error and its hint."""
    return subprocess.run([sys.executable, "-c", FETCH], capture_output=True, text=True).stdout.splitlines()


def test_what_is_fetched_is_told_before_with_its_size(picture: Path, hub: Hub) -> None:
    code, _, err = init_from_hub(picture)
    assert code == 0, err
    told = [line for line in err.splitlines() if line.startswith("fetching ")]
    assert told == [
        f"fetching {REPOSITORY} from the hub: 7 files, 0.1 MB",
        f"fetching {REPOSITORY} from the hub: 3 files, 24.5 MB",
    ]
    assert COMMIT in Path("girl/sine.yaml").read_text("utf-8")
    assert fetch_weights() == [COMMIT], "nothing more to fetch"


MINI = "or use the bundled base: `--base mini`"


@pytest.mark.parametrize(
    ("status", "code", "message", "hint"),
    [
        (401, 1, "is not on this disk and the hub answers 401", f"type `hf auth login` first, {MINI}"),
        (503, 1, "is not on this disk and the hub answers 503", f"try again later, {MINI}"),
        (
            403,
            2,
            "asks you to accept its terms first",
            f"accept them on the page of {REPOSITORY}, then type `hf auth login`",
        ),
    ],
)
def test_a_hub_that_refuses(picture: Path, hub: Hub, status: int, code: int, message: str, hint: str) -> None:
    hub.status = status
    assert init_from_hub(picture) == (code, "", told(f"{REPOSITORY} {message}", hint))
    assert [path.name for path in Path.cwd().iterdir()] == ["girl.jpg"]


def test_a_hub_without_the_repository(picture: Path, hub: Hub) -> None:
    hub.status = 404
    code, out, err = init_from_hub(picture)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: the hub has no {REPOSITORY}, or not at the revision asked for\n\nhint: ")
    assert not Path("girl").exists()


def test_a_silent_hub_is_given_up(picture: Path, hub: Hub) -> None:
    hub.silent = 60
    started = time.monotonic()
    assert init_from_hub(picture) == (
        1,
        "",
        told(
            f"{REPOSITORY} is not on this disk and the hub cannot be reached",
            f"connect to the network and try again, {MINI}",
        ),
    )
    assert time.monotonic() - started < 40
    assert not Path("girl").exists()


def test_a_cut_download_goes_on_where_it_stopped(hub: Hub) -> None:
    hub.cuts = [13_000_000]
    told = fetch_weights()
    assert told[1:] == [f"fetching {REPOSITORY} from the hub: 3 files, 24.5 MB", COMMIT]
    assert hub.ranges == [10 * 2**20], "the client writes in parts of 10 MiB"


def test_a_download_that_is_cut_for_good_is_given_up(hub: Hub) -> None:
    hub.cuts = [13_000_000, *[0] * 100]
    told = fetch_weights()
    assert told[2].startswith(f"1 fetching {REPOSITORY} broke off: ")
    assert told[3] == "run the same command again; files that have come whole are kept"
    hub.cuts = []
    assert fetch_weights() == [f"fetching {REPOSITORY} from the hub: 1 file, 24.0 MB", COMMIT]
