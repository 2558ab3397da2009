"""A short form of `python -m tests.robustness.loads --edits 1000 --commands 100`."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="the program forks, and reads memory from /proc")
def test_many_edits_keep_memory_flat_and_lose_none() -> None:
    command = [sys.executable, "-m", "tests.robustness.loads", "--edits", "70", "--commands", "4"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("70 edits in one process: "), done.stdout
    assert done.stdout.endswith("4 commands: 4 runs\n"), done.stdout
