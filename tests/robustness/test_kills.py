"""Half a dozen kills of real processes; `python -m tests.robustness.kills --count 200` does more."""

import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="the harness forks")
def test_half_a_dozen_kills_leave_nothing_half_there() -> None:
    command = [sys.executable, "-m", "tests.robustness.kills", "--count", "6", "--seed", "5"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^[6-9] kills, \d+ came too late, 0 flaws$", done.stdout, re.MULTILINE), done.stdout
